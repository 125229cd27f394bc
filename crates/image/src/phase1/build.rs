//! Building: from what is installed to three files that nodes boot.

use std::cmp::Reverse;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use boot::{LabPublicKey, hex};
use sha2::{Digest as _, Sha256};

use super::closure::Closure;
use super::compression::Compression;
use super::contents::{self, Contents};
use super::drivers;
use super::error::Phase1Error;
use super::firmware::{self, Firmware};
use super::kernel::{Kernel, KernelChoice};
use super::name::KernelVersion;
use super::program;
use super::progress::{Progress, Step};
use super::record::{self, File, Record};

/// The kernel's file.
pub const KERNEL_FILE: &str = "vmlinuz";
/// The initramfs's file.
pub const INITRAMFS_FILE: &str = "initramfs.img";
/// The record's file.
pub const RECORD_FILE: &str = "phase1.json";

/// How the names of what is not whole yet begin.
const NEW: &str = ".new-";

/// How many are kept in a lab: that of the running server, the one before it, to go back to, and
/// two that were tried out. Each has about 25 MB.
pub const KEPT_MAX: usize = 4;

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
    /// Modules beside the usual ones, by name or alias.
    pub modules: Vec<String>,
    /// Whether all wired network drivers of the kernel are taken.
    pub all_net: bool,
}

/// A phase 1 that nodes can boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Phase1 {
    /// The folder of its files.
    pub dir: PathBuf,
    /// `vmlinuz`, unmodified.
    pub kernel: PathBuf,
    /// `initramfs.img`.
    pub initramfs: PathBuf,
    /// The kernel's version.
    pub version: KernelVersion,
    /// What is in it.
    pub record: Record,
}

/// The files of a phase 1, in memory.
struct Built {
    kernel: Vec<u8>,
    initramfs: Vec<u8>,
    record: Record,
}

/// Makes sure that the phase 1 of these inputs is in `cache`, a folder of a lab, and builds it only
/// if it is not. `made` tells whether it was built now.
///
/// # Errors
/// If an input is missing or of no use, or something cannot be written. The cache is then as before.
pub fn ensure(
    inputs: &Inputs,
    cache: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<(Phase1, bool), Phase1Error> {
    fs::create_dir_all(cache).map_err(Phase1Error::write(cache))?;
    // A package takes seconds to unpack, so what was made of it is found by its hash.
    if let KernelChoice::Package(package) = &inputs.kernel
        && let Some(phase1) = open(&cache.join(package_key(inputs, package)?))
        && firmware::is_unchanged(&inputs.root, &phase1.record)
    {
        return Ok((phase1, false));
    }
    let parts = Parts::gather(inputs, cache, progress)?;
    let dir = cache.join(&parts.key);
    if let Some(phase1) = open(&dir)
        && phase1.record.firmware == parts.record.firmware
    {
        return Ok((phase1, false));
    }
    let built = parts.compress(progress)?;
    let new = tempfile::Builder::new()
        .prefix(NEW)
        .permissions(PermissionsExt::from_mode(0o755))
        .tempdir_in(cache)
        .map_err(Phase1Error::write(cache))?;
    built.write(new.path())?;
    // One that is there and cannot be opened is damaged.
    match fs::remove_dir_all(&dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(Phase1Error::Write { file: dir, source: error });
        }
        _ => {}
    }
    if let Err(source) = fs::rename(new.path(), &dir) {
        // Somebody else may have built the same meanwhile.
        return match open(&dir) {
            Some(phase1) => Ok((phase1, true)),
            None => Err(Phase1Error::Write { file: dir, source }),
        };
    }
    forget_old(cache, &dir);
    Ok((Phase1::new(&dir, built.record), true))
}

/// Builds into a folder, which is created. Files of another phase 1 there are replaced, the record
/// last.
///
/// # Errors
/// As [`ensure`].
pub fn build(
    inputs: &Inputs,
    output: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<Phase1, Phase1Error> {
    fs::create_dir_all(output).map_err(Phase1Error::write(output))?;
    let built = Parts::gather(inputs, output, progress)?.compress(progress)?;
    built.write(output)?;
    Ok(Phase1::new(output, built.record))
}

/// The phase 1 in a folder, if it is whole and unaltered.
pub fn open(dir: &Path) -> Option<Phase1> {
    let record: Record = serde_json::from_slice(&fs::read(dir.join(RECORD_FILE)).ok()?).ok()?;
    let same = |file: &str, expect: &File| {
        fs::read(dir.join(file)).is_ok_and(|bytes| File::of(&bytes) == *expect)
    };
    let whole = record.format == record::FORMAT
        && same(KERNEL_FILE, &record.kernel)
        && same(INITRAMFS_FILE, &record.initramfs);
    whole.then(|| Phase1::new(dir, record))
}

/// All whole ones of a cache, the one that was built or used last at the front.
pub fn list(cache: &Path) -> Vec<Phase1> {
    let mut found: Vec<_> =
        dirs(cache).filter_map(|(time, dir)| Some((time, open(&dir)?))).collect();
    found.sort_by_key(|(time, _)| Reverse(*time));
    found.into_iter().map(|(_, phase1)| phase1).collect()
}

impl Phase1 {
    fn new(dir: &Path, record: Record) -> Self {
        Self {
            dir: dir.to_owned(),
            kernel: dir.join(KERNEL_FILE),
            initramfs: dir.join(INITRAMFS_FILE),
            version: record.version.clone(),
            record,
        }
    }
}

/// Everything but the compression, which takes longest.
struct Parts {
    key: String,
    kernel: Vec<u8>,
    archive: Vec<u8>,
    record: Record,
}

impl Parts {
    /// Reads everything. `spool_dir` must have room for the modules of a package.
    fn gather(
        inputs: &Inputs,
        spool_dir: &Path,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Self, Phase1Error> {
        let mut kernel = match &inputs.kernel {
            KernelChoice::Newest => Kernel::installed(&inputs.root, None)?,
            KernelChoice::Installed(version) => Kernel::installed(&inputs.root, Some(version))?,
            KernelChoice::Package(package) => Kernel::package(package, spool_dir, progress)?,
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
        let archive = contents.pack()?.encode().map_err(Phase1Error::Compress)?;
        record.unpacked_len = archive.len() as u64;
        record.key = match &inputs.kernel {
            KernelChoice::Package(package) => package_key(inputs, package)?,
            _ => key([&kernel.image[..], &archive, record.compression.as_str().as_bytes()]),
        };
        Ok(Self { key: record.key.clone(), kernel: kernel.image, archive, record })
    }

    fn compress(self, progress: &mut dyn FnMut(Progress)) -> Result<Built, Phase1Error> {
        let Self { kernel, archive, mut record, .. } = self;
        let total = archive.len() as u64;
        let mut tell = |done| progress(Progress { step: Step::Compressing, done, total });
        let initramfs =
            record.compression.compress(&archive, &mut tell).map_err(Phase1Error::Compress)?;
        record.initramfs = File::of(&initramfs);
        Ok(Built { kernel, initramfs, record })
    }
}

impl Built {
    /// Puts the three files into a folder, each whole or not at all.
    fn write(&self, dir: &Path) -> Result<(), Phase1Error> {
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
    let mut required = inputs.modules.clone();
    if inputs.all_net {
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
fn package_key(inputs: &Inputs, package: &Path) -> Result<String, Phase1Error> {
    let file = |path: &Path| hash_file(path).map_err(Phase1Error::read(path));
    let absent = |path: &Path| hash_file(path).unwrap_or_default();
    let usual: Vec<&str> = drivers::always().chain(contents::applets()).collect();
    let options = format!("{:?} {:?} {} {}", usual, inputs.modules, inputs.all_net, inputs.key);
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
    io::copy(&mut fs::File::open(path)?, &mut hash)?;
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

/// Removes all but the newest. That one stays behind is no reason to fail.
fn forget_old(cache: &Path, current: &Path) {
    let mut old: Vec<_> = dirs(cache).filter(|(_, dir)| dir != current).collect();
    old.sort_by_key(|(time, _)| Reverse(*time));
    for (_, dir) in old.into_iter().skip(KEPT_MAX - 1) {
        let _ = fs::remove_dir_all(dir);
    }
}

/// The folders of a cache, and when they were made.
fn dirs(cache: &Path) -> impl Iterator<Item = (std::time::SystemTime, PathBuf)> {
    let entries = fs::read_dir(cache).into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let hidden = entry.file_name().to_str().is_none_or(|name| name.starts_with('.'));
        let metadata = entry.metadata().ok().filter(|it| it.is_dir() && !hidden)?;
        Some((metadata.modified().ok()?, entry.path()))
    })
}
