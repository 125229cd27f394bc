//! Building: from what is installed to three files that nodes boot.

use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use boot::{LabPublicKey, hex};
use sha2::{Digest as _, Sha256};

use super::cache::{self, Phase1};
use super::closure::Closure;
use super::compression::Compression;
use super::contents::{self, Contents};
use super::drivers::{self, ALL_NET};
use super::error::Phase1Error;
use super::firmware::Firmware;
use super::kernel::{Kernel, KernelChoice};
use super::program;
use super::progress::{Progress, Step};
use super::record::{self, Base, File, Record};
use crate::cpio::Archive;
use crate::host;

/// The kernel's file.
pub const KERNEL_FILE: &str = "vmlinuz";
/// The initramfs's file.
pub const INITRAMFS_FILE: &str = "initramfs.img";
/// The record's file.
pub const RECORD_FILE: &str = "phase1.json";

/// How the names of what is not whole yet begin.
pub(super) const NEW: &str = ".new-";

/// What a phase 1 is made of.
#[derive(Clone, Debug)]
pub struct Inputs {
    /// Which kernel.
    pub kernel: KernelChoice,
    /// Where kernels and firmware are installed: `/`.
    pub root: PathBuf,
    /// The agent's program.
    pub agent: PathBuf,
    /// Debian's `busybox-static`: `/bin/busybox`.
    pub busybox: PathBuf,
    /// The key that nodes trust.
    pub key: LabPublicKey,
    /// Modules beside the usual ones, by name or alias; [`ALL_NET`] is all wired network drivers.
    pub modules: Vec<String>,
}

/// The files of a phase 1, in memory.
pub(super) struct Built {
    kernel: Vec<u8>,
    initramfs: Vec<u8>,
    pub(super) record: Record,
}

/// Builds into a folder, which is created. Files of another phase 1 there are replaced, the record
/// last.
///
/// # Errors
/// As [`ensure`](super::ensure).
pub fn build(
    inputs: &Inputs,
    output: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<Phase1, Phase1Error> {
    host::create_dir_all(output).map_err(Phase1Error::write(output))?;
    let before: Vec<Phase1> = cache::open(output).into_iter().collect();
    let built = Parts::gather(inputs, output, progress)?.compress(&before, progress)?;
    built.write(output)?;
    Ok(Phase1::new(output, built.record))
}

/// Everything but the compression, which takes longest.
pub(super) struct Parts {
    kernel: Vec<u8>,
    base: Vec<u8>,
    lab: Vec<u8>,
    record: Record,
}

impl Parts {
    /// Reads everything. `spool_dir` must have room for the modules of a package.
    pub(super) fn gather(
        inputs: &Inputs,
        spool_dir: &Path,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Self, Phase1Error> {
        let mut kernel = match &inputs.kernel {
            KernelChoice::Newest => Kernel::installed(&inputs.root, None)?,
            KernelChoice::Installed(version) => Kernel::installed(&inputs.root, Some(version))?,
            KernelChoice::Package(package) => Kernel::package(package, spool_dir, progress)?,
            KernelChoice::Folder(folder) => Kernel::folder(folder)?,
        };
        let arch = program::kernel_arch(&kernel.image);
        let agent = program::read("the agent", &inputs.agent, arch, AGENT_CURE)?;
        let busybox = program::read("busybox", &inputs.busybox, arch, BUSYBOX_CURE)?;
        let closure = closure(&mut kernel, inputs)?;
        let firmware = Firmware::gather(&inputs.root, &kernel.version, &closure)?;
        let mut record = record(inputs, &kernel, &agent, &busybox, &closure, &firmware);
        let contents = Contents {
            version: &kernel.version,
            agent,
            busybox,
            key: &inputs.key,
            builtin: kernel.library.builtin(),
            closure,
            firmware,
        };
        let archives = contents.pack()?;
        let encode = |archive: &Archive| archive.encode().map_err(Phase1Error::Compress);
        let (base, lab) = (encode(&archives.base)?, encode(&archives.lab)?);
        record.unpacked_len = (base.len() + lab.len()) as u64;
        let compression = record.compression.as_str().as_bytes();
        record.base.key = key([&base, compression]);
        record.key = match &inputs.kernel {
            KernelChoice::Package(package) => package_key(inputs, package)?,
            _ => key([&kernel.image[..], &base, &lab, compression]),
        };
        Ok(Self { kernel: kernel.image, base, lab, record })
    }

    /// Says all that is in it.
    pub(super) fn key(&self) -> &str {
        &self.record.key
    }

    /// Whether this was built of them. The key of a package does not cover firmware.
    pub(super) fn are_in(&self, phase1: &Phase1) -> bool {
        let (ours, theirs) = (&self.record, &phase1.record);
        ours.key == theirs.key && ours.base.key == theirs.base.key
    }

    /// Compresses. The first part is taken from one of those built `before`, if it is the same.
    pub(super) fn compress(
        self,
        before: &[Phase1],
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Built, Phase1Error> {
        let Self { kernel, base, lab, mut record } = self;
        let total = record.unpacked_len;
        let mut tell = |done| progress(Progress { step: Step::Compressing, done, total });
        let method = record.compression;
        let mut initramfs = match before.iter().find_map(|it| it.base(&record.base.key)) {
            Some(same) => same,
            None => method.compress(&base, &mut tell).map_err(Phase1Error::Compress)?,
        };
        record.base.len = initramfs.len() as u64;
        let mut tell = |done| tell(base.len() as u64 + done);
        initramfs.extend(method.compress(&lab, &mut tell).map_err(Phase1Error::Compress)?);
        record.initramfs = File::of(&initramfs);
        Ok(Built { kernel, initramfs, record })
    }
}

impl Built {
    /// Puts the three files into a folder, each whole or not at all.
    pub(super) fn write(&self, dir: &Path) -> Result<(), Phase1Error> {
        let mut record = serde_json::to_vec_pretty(&self.record)
            .map_err(|error| Phase1Error::write(&dir.join(RECORD_FILE))(error.into()))?;
        record.push(b'\n');
        for (name, bytes) in
            [(KERNEL_FILE, &self.kernel), (INITRAMFS_FILE, &self.initramfs), (RECORD_FILE, &record)]
        {
            let file = dir.join(name);
            write_whole(dir, &file, bytes).map_err(Phase1Error::write(&file))?;
        }
        Ok(())
    }
}

const AGENT_CURE: &str = "install BootTorrent's package, or name the program with --agent";
const BUSYBOX_CURE: &str = "install it with `apt install busybox-static` (not `busybox`)";

fn closure(kernel: &mut Kernel, inputs: &Inputs) -> Result<Closure, Phase1Error> {
    let (groups, mut required): (Vec<_>, Vec<_>) =
        inputs.modules.iter().cloned().partition(|name| name == ALL_NET);
    if !groups.is_empty() {
        required.extend(drivers::all_net(&kernel.library).into_iter().map(String::from));
    }
    let usual: Vec<&str> = drivers::always().collect();
    Closure::gather(&mut kernel.library, &kernel.shelf, &kernel.version, &usual, &required)
}

/// All that is known before compression.
fn record(
    inputs: &Inputs,
    kernel: &Kernel,
    agent: &[u8],
    busybox: &[u8],
    closure: &Closure,
    firmware: &Firmware,
) -> Record {
    let lens = |module: &super::library::Module| module.bytes.len() as u64;
    let warnings = kernel.config.iter().flat_map(|config| config.shortcomings());
    Record {
        format: record::FORMAT,
        built_by: BUILT_BY.to_owned(),
        key: String::new(),
        version: kernel.version.clone(),
        arch: program::kernel_arch(&kernel.image),
        origin: kernel.origin.display().to_string(),
        kernel: File::of(&kernel.image),
        initramfs: File::of(&[]),
        compression: Compression::for_kernel(kernel.config.as_ref()),
        base: Base { key: String::new(), len: 0 },
        unpacked_len: 0,
        agent: File::of(agent),
        busybox: File::of(busybox),
        lab_key: inputs.key.id().to_string(),
        modules: closure
            .modules
            .iter()
            .map(|(name, module)| (name.clone(), lens(module)))
            .collect(),
        drivers_absent: closure.absent.clone(),
        firmware: firmware
            .files
            .iter()
            .map(|(name, file)| (name.clone(), file.len() as u64))
            .collect(),
        firmware_missing: firmware.missing.clone(),
        warnings: warnings.collect(),
    }
}

const BUILT_BY: &str = concat!("BootTorrent/", env!("CARGO_PKG_VERSION"));

/// The key of what is made of a package, without reading what is in it.
pub(super) fn package_key(inputs: &Inputs, package: &Path) -> Result<String, Phase1Error> {
    let file = |path: &Path| hash_file(path).map_err(Phase1Error::read(path));
    let absent = |path: &Path| hash_file(path).unwrap_or_default();
    let usual: Vec<&str> = drivers::always().chain(contents::applets()).collect();
    let options = format!("{usual:?} {:?} {}", inputs.modules, inputs.key);
    Ok(key([
        b"package" as &[u8],
        &file(package)?,
        // Whether these are there and of use is seen when they are needed.
        &absent(&inputs.agent),
        &absent(&inputs.busybox),
        options.as_bytes(),
    ]))
}

fn hash_file(path: &Path) -> io::Result<[u8; 32]> {
    let mut hash = HashWriter(Sha256::new());
    io::copy(&mut host::open(path)?, &mut hash)?;
    Ok(hash.0.finalize().into())
}

struct HashWriter(Sha256);

impl io::Write for HashWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// 16 digits: enough for the few that a lab will ever have, and short enough to read.
fn key<const N: usize>(parts: [&[u8]; N]) -> String {
    let mut hash = Sha256::new();
    // Another program may build otherwise of the same.
    for part in [BUILT_BY.as_bytes()].into_iter().chain(parts) {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hex::encode(&hash.finalize()[..8])
}

fn write_whole(dir: &Path, file: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut new = tempfile::Builder::new()
        .prefix(NEW)
        .permissions(PermissionsExt::from_mode(0o644))
        .tempfile_in(dir)?;
    new.write_all(bytes)?;
    new.as_file().sync_all()?;
    new.persist(file).map_err(|error| error.error)?;
    Ok(())
}
