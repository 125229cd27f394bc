//! A whole phase 1 out of a made-up system: what goes in comes out, the same each time.

use std::fs;
use std::path::{Path, PathBuf};

use boot::LabKey;

use super::deb::tests::package;
use super::program::tests::{elf, kernel};
use super::*;
use crate::phase1::cache::KEPT_MAX;

const VERSION: &str = "6.1.0-40-amd64";
const X86_64: u16 = 62;
const PE_X86_64: u16 = 0x8664;
const LOAD: u32 = 1;
const INTERP: u32 = 3;

/// A module whose `.modinfo` has these fields.
fn module(fields: &[&str]) -> Vec<u8> {
    let names = b"\0.modinfo\0.shstrtab\0";
    let mut modinfo = format!("vermagic={VERSION} SMP \0").into_bytes();
    for field in fields {
        modinfo.extend(field.as_bytes());
        modinfo.push(0);
    }
    let (modinfo_at, names_at) = (64, 64 + modinfo.len());
    let sections_at = (names_at + names.len()).next_multiple_of(8);
    let mut bytes = elf(X86_64, &[])[..64].to_vec();
    bytes[16..18].copy_from_slice(&1_u16.to_le_bytes());
    bytes[40..48].copy_from_slice(&(sections_at as u64).to_le_bytes());
    bytes[60..62].copy_from_slice(&3_u16.to_le_bytes());
    bytes[62..64].copy_from_slice(&2_u16.to_le_bytes());
    bytes.extend(&modinfo);
    bytes.extend(names);
    bytes.resize(sections_at, 0);
    for (name, kind, at, len) in
        [(0_u32, 0_u32, 0, 0), (1, 1, modinfo_at, modinfo.len()), (10, 3, names_at, names.len())]
    {
        bytes.extend(name.to_le_bytes());
        bytes.extend(kind.to_le_bytes());
        for word in [0, 0, at as u64, len as u64] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend([0; 8]);
        bytes.extend(1_u64.to_le_bytes());
        bytes.extend(0_u64.to_le_bytes());
    }
    bytes
}

/// The files of a kernel, by their paths in its package.
fn kernel_files(version: &str) -> Vec<(String, Vec<u8>)> {
    let modules = format!("lib/modules/{version}");
    let at = |path: &str| format!("{modules}/kernel/{path}");
    vec![
        (format!("boot/vmlinuz-{version}"), kernel(PE_X86_64)),
        (format!("boot/config-{version}"), b"CONFIG_RD_ZSTD=y\nCONFIG_TMPFS=y\n".to_vec()),
        (format!("{modules}/modules.builtin"), b"kernel/net/unix/unix.ko\n".to_vec()),
        (at("drivers/net/e1000.ko"), module(&["alias=pci:v8086d100Esv*"])),
        (at("drivers/net/r8169.ko"), module(&["softdep=pre: realtek", "firmware=rtl_nic/a.fw"])),
        (at("drivers/net/phy/realtek.ko"), module(&["depends=libphy"])),
        (at("drivers/net/phy/libphy.ko"), module(&[])),
        (at("drivers/net/mlx4/mlx4_en.ko"), module(&["depends=mlx4-core", "softdep=pre: crc32c"])),
        (at("drivers/net/mlx4/mlx4_core.ko"), module(&["depends=unix"])),
        (at("drivers/net/ethernet/odd/odd.ko"), module(&[])),
        (at("crypto/crc32c_generic.ko"), module(&["alias=crc32c", "alias=crypto-crc32c"])),
    ]
}

/// A system with kernels, agent and busybox in a folder that goes away at the end.
struct System {
    root: tempfile::TempDir,
}

impl System {
    fn new() -> Self {
        let system = Self { root: tempfile::tempdir().unwrap() };
        for (path, bytes) in kernel_files(VERSION) {
            system.write(&path, &bytes);
        }
        system.write("agent", &elf(X86_64, &[LOAD]));
        system.write("busybox", &[elf(X86_64, &[LOAD]), b"busybox".to_vec()].concat());
        system
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    fn write(&self, path: &str, bytes: &[u8]) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn inputs(&self) -> Inputs {
        Inputs {
            kernel: KernelChoice::Newest,
            root: self.root.path().to_owned(),
            agent: self.path("agent"),
            busybox: self.path("busybox"),
            key: LabKey::from_seed([1; 32]).public(),
            modules: vec![],
        }
    }

    fn build(&self, inputs: &Inputs, output: &str) -> Result<Phase1, Phase1Error> {
        build(inputs, &self.path(output), &mut |_| ())
    }

    fn ensure(&self, inputs: &Inputs) -> (Phase1, bool) {
        ensure(inputs, &self.path("cache"), &mut |_| ()).unwrap()
    }

    /// The text of the error that building ends with.
    fn refusal(&self, inputs: &Inputs) -> String {
        self.build(inputs, "refused").unwrap_err().to_string()
    }
}

fn module_names(phase1: &Phase1) -> Vec<&str> {
    phase1.record.modules.keys().map(ModuleName::as_str).collect()
}

fn files(dir: &Path) -> Vec<Vec<u8>> {
    ["vmlinuz", "initramfs.img", "phase1.json"].map(|file| fs::read(dir.join(file)).unwrap()).into()
}

#[test]
fn usual_drivers_come_with_what_they_need() {
    let system = System::new();
    let phase1 = system.build(&system.inputs(), "out").unwrap();
    assert_eq!(
        module_names(&phase1),
        ["crc32c_generic", "e1000", "libphy", "mlx4_core", "mlx4_en", "r8169", "realtek"]
    );
    assert_eq!(fs::read(&phase1.kernel).unwrap(), kernel(PE_X86_64));
    let record = &phase1.record;
    assert_eq!(record.compression, compression::Compression::Zstd);
    assert!(record.drivers_absent.contains(&"tg3".to_owned()), "{:?}", record.drivers_absent);
    assert!(!record.drivers_absent.contains(&"unix".to_owned()));
    assert_eq!(record.firmware_missing[&"r8169".parse().unwrap()], ["rtl_nic/a.fw"]);
    assert!(record.warnings.iter().any(|text| text.contains("CONFIG_KEXEC_FILE")));
}

#[test]
fn same_inputs_make_same_bytes() {
    let system = System::new();
    system.build(&system.inputs(), "one").unwrap();
    system.build(&system.inputs(), "two").unwrap();
    assert!(files(&system.path("one")) == files(&system.path("two")));
}

#[test]
fn a_package_makes_what_its_installation_makes() {
    let system = System::new();
    let installed = system.build(&system.inputs(), "installed").unwrap();
    let files = kernel_files(VERSION);
    let files: Vec<_> = files.iter().map(|(path, bytes)| (path.as_str(), &bytes[..])).collect();
    system.write("kernel.deb", &package(&files));
    let kernel = KernelChoice::Package(system.path("kernel.deb"));
    let packaged = system.build(&Inputs { kernel, ..system.inputs() }, "packaged").unwrap();
    assert_eq!(packaged.record.initramfs, installed.record.initramfs);
    assert_eq!(packaged.record.kernel, installed.record.kernel);
}

#[test]
fn compressed_modules_make_what_plain_ones_make() {
    let system = System::new();
    let plain = system.build(&system.inputs(), "plain").unwrap();
    let module = format!("lib/modules/{VERSION}/kernel/drivers/net/e1000.ko");
    let bytes = fs::read(system.path(&module)).unwrap();
    fs::remove_file(system.path(&module)).unwrap();
    system.write(&format!("{module}.zst"), &zstd::encode_all(&bytes[..], 1).unwrap());
    let compressed = system.build(&system.inputs(), "compressed").unwrap();
    assert_eq!(compressed.record.initramfs, plain.record.initramfs);
}

#[test]
fn newest_kernel_is_taken_unless_one_is_named() {
    let system = System::new();
    // A folder that a removed kernel left behind is none.
    system.write("lib/modules/6.9.0-1-amd64/modules.builtin", b"");
    for (path, bytes) in kernel_files("6.1.0-9-amd64") {
        system.write(&path, &bytes);
    }
    assert_eq!(system.build(&system.inputs(), "out").unwrap().version.as_str(), VERSION);
    let kernel = KernelChoice::Installed("6.1.0-7-amd64".parse().unwrap());
    assert_eq!(
        system.refusal(&Inputs { kernel, ..system.inputs() }),
        "kernel 6.1.0-7-amd64 is not installed; there is 6.1.0-40-amd64, 6.1.0-9-amd64"
    );
    // Its modules say that they are for another.
    let kernel = KernelChoice::Installed("6.1.0-9-amd64".parse().unwrap());
    let text = system.refusal(&Inputs { kernel, ..system.inputs() });
    assert!(text.contains("was built for kernel 6.1.0-40-amd64"), "{text}");
}

#[test]
fn modules_can_be_added_by_name_or_service() {
    let system = System::new();
    let modules = vec!["odd".to_owned(), "crypto-crc32c".to_owned()];
    let phase1 = system.build(&Inputs { modules, ..system.inputs() }, "out").unwrap();
    assert!(module_names(&phase1).contains(&"odd"));
    let all = system
        .build(&Inputs { modules: vec!["all-net".to_owned()], ..system.inputs() }, "all")
        .unwrap();
    assert!(module_names(&all).contains(&"odd"));
    let modules = vec!["e100O".to_owned()];
    assert_eq!(
        system.refusal(&Inputs { modules, ..system.inputs() }),
        "kernel 6.1.0-40-amd64 has no module e100O; is e1000 meant?"
    );
}

#[test]
fn drivers_that_were_added_go_before_the_kernels_own() {
    let system = System::new();
    let before = system.build(&system.inputs(), "before").unwrap().record.modules;
    let added = module(&["alias=pci:v8086d9999sv*", "version=newer"]);
    system.write(&format!("lib/modules/{VERSION}/updates/dkms/e1000.ko"), &added);
    let after = system.build(&system.inputs(), "after").unwrap().record.modules;
    let name = "e1000".parse().unwrap();
    assert_eq!((after.len(), after[&name]), (before.len(), added.len() as u64));
    assert!(before[&name] < after[&name]);
}

#[test]
fn a_needed_module_that_is_missing_is_an_error() {
    let system = System::new();
    fs::remove_file(
        system.path(&format!("lib/modules/{VERSION}/kernel/drivers/net/mlx4/mlx4_core.ko")),
    )
    .unwrap();
    let text = system.refusal(&system.inputs());
    assert!(text.starts_with("module mlx4_en needs mlx4_core, which"), "{text}");
}

#[test]
fn programs_of_no_use_are_refused_with_a_cure() {
    let system = System::new();
    let check = |expect: &str| {
        let text = system.refusal(&system.inputs());
        assert!(text.contains(expect), "{text}");
    };
    system.write("busybox", &elf(X86_64, &[LOAD, INTERP]));
    check(
        "needs shared libraries, and the initramfs has none; install it with `apt install busybox-static`",
    );
    fs::remove_file(system.path("busybox")).unwrap();
    check("busybox is not there");
    system.write("agent", &elf(183, &[LOAD]));
    check("is for Arm64, and the kernel is for X86_64");
    fs::remove_dir_all(system.path("boot")).unwrap();
    check("install linux-image-amd64, or name a package with --kernel FILE.deb");
    // Nothing half made is left.
    assert_eq!(fs::read_dir(system.path("refused")).unwrap().count(), 0);
}

#[test]
fn packages_without_a_kernel_are_refused() {
    let system = System::new();
    let check = |files: &[(&str, &[u8])], expect: &str| {
        system.write("kernel.deb", &package(files));
        let kernel = KernelChoice::Package(system.path("kernel.deb"));
        let text = system.refusal(&Inputs { kernel, ..system.inputs() });
        assert!(text.contains(expect), "{text}");
    };
    check(&[("./usr/share/doc/linux-image-amd64/copyright", b"")], "holds no boot/vmlinuz-VERSION");
    check(&[("./boot/vmlinuz-6.1.0", b"")], "holds no lib/modules/VERSION/modules.builtin");
    let kernel = KernelChoice::Package(system.path("nothing.deb"));
    let text = system.refusal(&Inputs { kernel, ..system.inputs() });
    assert!(text.starts_with("cannot read ") && text.ends_with("nothing.deb"), "{text}");
}

#[test]
fn what_is_in_the_cache_is_not_built_again() {
    let system = System::new();
    let (first, built) = system.ensure(&system.inputs());
    assert!(built);
    assert_eq!(system.ensure(&system.inputs()), (first.clone(), false));
    assert_eq!(list(&system.path("cache")), std::slice::from_ref(&first));

    system.write("agent", &[elf(X86_64, &[LOAD]), b"newer".to_vec()].concat());
    let (second, built) = system.ensure(&system.inputs());
    assert!(built && second.dir != first.dir);

    let files = kernel_files(VERSION);
    let files: Vec<_> = files.iter().map(|(path, bytes)| (path.as_str(), &bytes[..])).collect();
    system.write("kernel.deb", &package(&files));
    let inputs =
        Inputs { kernel: KernelChoice::Package(system.path("kernel.deb")), ..system.inputs() };
    let (third, built) = system.ensure(&inputs);
    assert!(built);
    assert_eq!(system.ensure(&inputs), (third, false));
    system.write("lib/firmware/rtl_nic/a.fw", b"firmware");
    let (fourth, built) = system.ensure(&inputs);
    assert!(built && fourth.record.firmware_missing.is_empty());
}

#[test]
fn drivers_are_compressed_once_for_all_agents_and_keys() {
    let system = System::new();
    let (first, _) = system.ensure(&system.inputs());
    system.write("agent", &[elf(X86_64, &[LOAD]), b"newer".to_vec()].concat());
    let inputs = Inputs { key: LabKey::from_seed([2; 32]).public(), ..system.inputs() };
    let mut steps = vec![];
    let (second, built) =
        ensure(&inputs, &system.path("cache"), &mut |progress| steps.push(progress.done)).unwrap();
    assert!(built && second.record.base == first.record.base);
    // Only the end was compressed.
    assert_eq!(steps, [second.record.unpacked_len]);
    let fresh = system.build(&inputs, "fresh").unwrap();
    assert_eq!(fresh.record, second.record);
}

#[test]
fn damage_in_the_cache_is_repaired() {
    let system = System::new();
    let (phase1, _) = system.ensure(&system.inputs());
    let good = fs::read(&phase1.initramfs).unwrap();
    let mut bad = good.clone();
    bad[100] ^= 1;
    fs::write(&phase1.initramfs, bad).unwrap();
    assert_eq!(open(&phase1.dir), None);
    assert_eq!(system.ensure(&system.inputs()), (phase1.clone(), true));
    assert!(fs::read(&phase1.initramfs).unwrap() == good);
}

#[test]
fn one_that_is_used_again_is_not_old() {
    let system = System::new();
    let (first, _) = system.ensure(&system.inputs());
    // As if it had been built long ago.
    let ago = std::time::SystemTime::UNIX_EPOCH;
    fs::File::open(&first.dir).unwrap().set_modified(ago).unwrap();
    let key = LabKey::from_seed([2; 32]).public();
    let (second, _) = system.ensure(&Inputs { key, ..system.inputs() });
    let list = || list(&system.path("cache")).into_iter().map(|it| it.dir).collect::<Vec<_>>();
    assert_eq!(list(), [second.dir.clone(), first.dir.clone()]);
    fs::File::open(&second.dir).unwrap().set_modified(ago).unwrap();
    assert!(!system.ensure(&system.inputs()).1);
    assert_eq!(list(), [first.dir, second.dir]);
}

#[test]
fn old_ones_are_forgotten() {
    let system = System::new();
    for seed in 0..KEPT_MAX as u8 + 2 {
        let key = LabKey::from_seed([seed; 32]).public();
        let (phase1, _) = system.ensure(&Inputs { key, ..system.inputs() });
        assert!(phase1.initramfs.is_file());
    }
    let left = fs::read_dir(system.path("cache")).unwrap().count();
    assert_eq!(left, KEPT_MAX);
}
