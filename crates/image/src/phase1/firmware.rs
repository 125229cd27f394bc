//! Firmware that drivers load into cards: which files a phase 1 needs, and where they are installed.
//!
//! Most of it is not free, so it is in packages that may not be installed, and most cards work with
//! what they have in flash. So a file that is missing is named, and is no error.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use super::closure::Closure;
use super::compression;
use super::error::Phase1Error;
use super::name::ModuleName;
use super::record::Record;
use crate::tree::root::Root;
use boot::kernel::KernelVersion;

/// The most bytes of a firmware file; Linux's own loader has the same limit (`INT_MAX`), and network
/// cards' have 4 MB at most.
pub const FIRMWARE_LEN_MAX: u64 = 64 << 20;

/// Debian's packages for firmware of the usual drivers.
const PACKAGES: &[(&str, &str)] = &[
    ("bnx2", "firmware-bnx2"),
    ("bnx2x", "firmware-bnx2x"),
    ("cxgb4", "firmware-misc-nonfree"),
    ("e100", "firmware-misc-nonfree"),
    ("ice", "firmware-misc-nonfree"),
    ("qede", "firmware-qlogic"),
    ("qed", "firmware-qlogic"),
    ("r8152", "firmware-realtek"),
    ("r8169", "firmware-realtek"),
    ("tg3", "firmware-misc-nonfree"),
];

/// Firmware of a phase 1.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Firmware {
    /// By the name that drivers ask for.
    pub files: BTreeMap<String, Vec<u8>>,
    /// What is not installed, by driver.
    pub missing: BTreeMap<ModuleName, Vec<String>>,
}

impl Firmware {
    /// Finds what these modules ask for, where the kernel looks for it (Linux,
    /// Documentation/driver-api/firmware/fw_search_path.rst), below `root`.
    ///
    /// # Errors
    /// If a file is there and cannot be read.
    pub fn gather(
        root: &Path,
        version: &KernelVersion,
        closure: &Closure,
    ) -> Result<Self, Phase1Error> {
        let (tree, dirs) = (open(root)?, dirs(version));
        let mut firmware = Self::default();
        for (driver, module) in &closure.modules {
            for name in module.info.firmware.iter().filter(|name| is_path(name)) {
                if firmware.files.contains_key(name) {
                    continue;
                }
                match find(&tree, &dirs, name)? {
                    Some(bytes) => drop(firmware.files.insert(name.clone(), bytes)),
                    None => firmware.missing.entry(driver.clone()).or_default().push(name.clone()),
                }
            }
        }
        Ok(firmware)
    }
}

/// Whether the firmware of a phase 1 that was built earlier would be taken today.
pub(super) fn is_unchanged(root: &Path, record: &Record) -> bool {
    let (Ok(tree), dirs) = (open(root), dirs(&record.version)) else { return false };
    let len =
        |name: &String| find(&tree, &dirs, name).ok().flatten().map(|bytes| bytes.len() as u64);
    record.firmware.iter().all(|(name, expect)| len(name) == Some(*expect))
        && record.firmware_missing.values().flatten().all(|name| len(name).is_none())
}

/// The Debian package that has a driver's firmware, if it is known.
pub fn package(driver: &ModuleName) -> Option<&'static str> {
    PACKAGES.iter().find(|(name, _)| *name == driver.as_str()).map(|(_, package)| *package)
}

/// Names with stars are patterns for programs that make initramfs; those that a driver asks for are
/// beside them.
fn is_path(name: &str) -> bool {
    name.split('/').all(|part| !matches!(part, "" | "." | ".."))
        && !name.contains(|c: char| c.is_control() || "*?[".contains(c))
}

fn open(root: &Path) -> Result<Root, Phase1Error> {
    Root::open(root).map_err(|error| Phase1Error::Read {
        file: root.to_owned(),
        source: io::Error::other(error),
    })
}

/// Where the kernel looks, in its order.
fn dirs(version: &KernelVersion) -> [String; 4] {
    let base = "lib/firmware";
    [
        format!("{base}/updates/{version}"),
        format!("{base}/updates"),
        format!("{base}/{version}"),
        base.to_owned(),
    ]
}

fn find(tree: &Root, dirs: &[String], name: &str) -> Result<Option<Vec<u8>>, Phase1Error> {
    for file in
        dirs.iter().flat_map(|dir| ["", ".zst", ".xz"].map(|it| format!("{dir}/{name}{it}")))
    {
        if tree.has(&file) && !tree.has_file(&file) {
            continue;
        }
        let read = || match tree.try_file(&file)? {
            // Its own name may end as that of something compressed.
            Some(open) => {
                let name = if file.ends_with(name) { "" } else { &file };
                compression::read_all(name, open, FIRMWARE_LEN_MAX).map(Some)
            }
            None => Ok(None),
        };
        if let Some(bytes) = read().map_err(Phase1Error::read(&tree.shown(&file)))? {
            return Ok(Some(bytes));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::phase1::library::Module;
    use crate::phase1::modinfo::ModInfo;

    fn closure(firmware: &[&str]) -> Closure {
        let firmware = firmware.iter().map(|name| (*name).to_owned()).collect();
        let info = ModInfo { firmware, ..ModInfo::default() };
        let module = Module { path: "kernel/bnx2.ko".to_owned(), bytes: vec![], info };
        let modules = [("bnx2".parse().unwrap(), module)].into();
        Closure { modules, absent: vec![] }
    }

    fn gather(root: &Path, firmware: &[&str]) -> Firmware {
        Firmware::gather(root, &"6.1.0-40-amd64".parse().unwrap(), &closure(firmware)).unwrap()
    }

    #[test]
    fn installed_files_are_taken_and_others_named() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("lib/firmware/bnx2");
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("a.fw"), b"a").unwrap();
        fs::write(dir.join("b.fw.zst"), zstd::encode_all(&b"b"[..], 1).unwrap()).unwrap();
        let firmware = gather(root.path(), &["bnx2/a.fw", "bnx2/b.fw", "bnx2/c.fw"]);
        assert_eq!(
            firmware.files,
            [("bnx2/a.fw".to_owned(), b"a".to_vec()), ("bnx2/b.fw".to_owned(), b"b".to_vec())]
                .into()
        );
        assert_eq!(
            firmware.missing,
            [("bnx2".parse().unwrap(), vec!["bnx2/c.fw".to_owned()])].into()
        );
    }

    #[test]
    fn updates_go_before_what_came_with_the_system() {
        let root = tempfile::tempdir().unwrap();
        for (dir, content) in [("", "old"), ("updates", "new")] {
            let dir = root.path().join("lib/firmware").join(dir);
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join("x.fw"), content).unwrap();
        }
        assert_eq!(gather(root.path(), &["x.fw"]).files["x.fw"], b"new");
    }

    #[test]
    fn names_that_lead_elsewhere_or_are_patterns_are_passed_over() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("lib/firmware")).unwrap();
        fs::write(root.path().join("lib/secret"), b"x").unwrap();
        assert_eq!(
            gather(root.path(), &["../secret", "/etc/passwd", "a/*.fw"]),
            Firmware::default()
        );
    }
}
