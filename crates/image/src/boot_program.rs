//! Boot programs (NBPs): what firmware loads first over the network, from Debian's packages. They are
//! read into memory at start, so that an upgrade of a package does not change them under a node.

use crate::host;
use std::io;
use std::path::{Path, PathBuf};

/// The most bytes of a boot program; iPXE's have 70 kB to 1 MB, and a BIOS has room for 500 kB.
pub const LEN_MAX: u64 = 16 << 20;

/// A family of boot programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// iPXE: for BIOS, UEFI x64 and, where it is installed, UEFI arm64.
    Ipxe,
    /// PXELINUX: for BIOS.
    Pxelinux,
}

/// A boot program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootProgram {
    /// The name by which nodes ask for it.
    pub name: &'static str,
    /// Where it was found.
    pub file: PathBuf,
    /// The program.
    pub bytes: Vec<u8>,
}

/// Why a boot program cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum BootProgramError {
    /// Its package is not installed.
    #[error("the boot program {name} is not installed: there is no {}; install it with `apt install {package}`", file.display())]
    Missing {
        /// The name by which nodes ask for it.
        name: &'static str,
        /// Where it should be.
        file: PathBuf,
        /// Debian's package.
        package: &'static str,
    },
    /// It is there.
    #[error("cannot read the boot program {}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No firmware would load that.
    #[error("{} has {len} bytes: that is no boot program; reinstall {package}", file.display())]
    TooLong {
        /// The file.
        file: PathBuf,
        /// Its bytes.
        len: u64,
        /// Debian's package.
        package: &'static str,
    },
}

/// Where a boot program can be.
struct Source {
    name: &'static str,
    /// In the order of preference, without the root; Debian's places, then those of Red Hat's kin.
    files: &'static [&'static str],
    package: &'static str,
    /// Whether nodes of the usual kind depend on it.
    required: bool,
}

const IPXE: &[Source] = &[
    Source {
        name: "undionly.kpxe",
        files: &["usr/lib/ipxe/undionly.kpxe", "usr/share/ipxe/undionly.kpxe"],
        package: "ipxe",
        required: true,
    },
    Source {
        name: "snponly.efi",
        // It uses the firmware's own driver, which is the one that has just worked. The other has
        // drivers of its own.
        files: &[
            "usr/lib/ipxe/snponly.efi",
            "usr/lib/ipxe/ipxe.efi",
            "usr/share/ipxe/ipxe-snponly-x86_64.efi",
            "usr/share/ipxe/ipxe-x86_64.efi",
        ],
        package: "ipxe",
        required: true,
    },
    Source {
        name: "snponly-arm64.efi",
        files: &[
            "usr/lib/ipxe/snponly-arm64.efi",
            "usr/lib/ipxe/arm64-efi/snponly.efi",
            "usr/lib/ipxe/ipxe-arm64.efi",
            "usr/lib/ipxe/arm64-efi/ipxe.efi",
            "usr/share/ipxe/arm64-efi/snponly.efi",
            "usr/share/ipxe/arm64-efi/ipxe.efi",
        ],
        package: "ipxe",
        required: false,
    },
];

const PXELINUX: &[Source] = &[
    Source {
        name: "pxelinux.0",
        files: &["usr/lib/PXELINUX/pxelinux.0", "usr/share/syslinux/pxelinux.0"],
        package: "pxelinux",
        required: true,
    },
    Source {
        name: "ldlinux.c32",
        files: &["usr/lib/syslinux/modules/bios/ldlinux.c32", "usr/share/syslinux/ldlinux.c32"],
        package: "syslinux-common",
        required: true,
    },
];

/// The programs of a family, below `root`, which is `/`. Those for rare nodes are left out if they
/// are not installed.
///
/// # Errors
/// If one that is needed is not installed, or one cannot be read.
pub fn find(root: &Path, family: Family) -> Result<Vec<BootProgram>, BootProgramError> {
    let sources = match family {
        Family::Ipxe => IPXE,
        Family::Pxelinux => PXELINUX,
    };
    sources.iter().filter_map(|source| source.find(root).transpose()).collect()
}

impl Source {
    fn find(&self, root: &Path) -> Result<Option<BootProgram>, BootProgramError> {
        let files = self.files.iter().map(|file| root.join(file));
        for file in files.clone() {
            let len = match host::metadata(&file) {
                Ok(metadata) => metadata.len(),
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(source) => return Err(BootProgramError::Read { file, source }),
            };
            if len > LEN_MAX {
                return Err(BootProgramError::TooLong { file, len, package: self.package });
            }
            return match host::read(&file) {
                Ok(bytes) => Ok(Some(BootProgram { name: self.name, file, bytes })),
                Err(source) => Err(BootProgramError::Read { file, source }),
            };
        }
        match files.clone().next() {
            Some(file) if self.required => {
                let Self { name, package, .. } = *self;
                Err(BootProgramError::Missing { name, file, package })
            }
            _ => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn root(files: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for file in files {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, file).unwrap();
        }
        root
    }

    fn names(root: &tempfile::TempDir, family: Family) -> Vec<&'static str> {
        find(root.path(), family).unwrap().iter().map(|program| program.name).collect()
    }

    #[test]
    fn installed_programs_are_found() {
        let base = ["usr/lib/ipxe/undionly.kpxe", "usr/lib/ipxe/ipxe.efi"];
        assert_eq!(names(&root(&base), Family::Ipxe), ["undionly.kpxe", "snponly.efi"]);
        let all =
            root(&[base[0], base[1], "usr/lib/ipxe/snponly.efi", "usr/lib/ipxe/ipxe-arm64.efi"]);
        assert_eq!(
            names(&all, Family::Ipxe),
            ["undionly.kpxe", "snponly.efi", "snponly-arm64.efi"]
        );
        let programs = find(all.path(), Family::Ipxe).unwrap();
        assert_eq!(programs[1].bytes, b"usr/lib/ipxe/snponly.efi");
        let linux = ["usr/lib/PXELINUX/pxelinux.0", "usr/lib/syslinux/modules/bios/ldlinux.c32"];
        assert_eq!(names(&root(&linux), Family::Pxelinux), ["pxelinux.0", "ldlinux.c32"]);
    }

    #[test]
    fn a_missing_program_names_its_package() {
        let check = |files: &[&str], family, expect: &str| {
            let text = find(root(files).path(), family).unwrap_err().to_string();
            assert!(text.ends_with(expect), "{text}");
        };
        check(&[], Family::Ipxe, "usr/lib/ipxe/undionly.kpxe; install it with `apt install ipxe`");
        check(&["usr/lib/PXELINUX/pxelinux.0"], Family::Pxelinux, "`apt install syslinux-common`");
    }

    #[test]
    fn what_no_firmware_would_load_is_refused() {
        let root = root(&["usr/lib/PXELINUX/pxelinux.0"]);
        let file = fs::File::create(root.path().join("usr/lib/PXELINUX/pxelinux.0")).unwrap();
        file.set_len(LEN_MAX + 1).unwrap();
        let error = find(root.path(), Family::Pxelinux).unwrap_err();
        assert!(matches!(error, BootProgramError::TooLong { .. }), "{error}");
    }
}
