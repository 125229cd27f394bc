//! What a kernel module says of itself: the section `.modinfo` of its file (Linux,
//! include/linux/moduleinfo.h: `key=value` texts with a NUL after each).
//!
//! This is what `depmod` reads, too. Reading it here lets a kernel package be used that was never
//! installed, and names the firmware, which `modules.dep` does not.

use object::{Object as _, ObjectSection as _};

use super::name::ModuleName;

/// The most texts that are read of one module. `amdgpu` of Linux 6.12 has 1,100, most of them
/// firmware; device tables of `snd_hda_intel` and `usb_storage` are of the same order.
pub const FIELDS_MAX: usize = 16_384;

/// What we need to know of a module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModInfo {
    /// Modules whose symbols it uses.
    pub depends: Vec<ModuleName>,
    /// To be loaded before it if they are there: names of modules, or aliases.
    pub soft_pre: Vec<String>,
    /// To be loaded after it if they are there.
    pub soft_post: Vec<String>,
    /// Patterns of the devices and services that it is for.
    pub aliases: Vec<String>,
    /// Files that it asks for, below `/lib/firmware`.
    pub firmware: Vec<String>,
    /// The kernel it was built for.
    pub kernel: Option<String>,
}

/// Why a file is not a kernel module.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ModInfoError {
    /// It is no ELF file, or a broken one.
    #[error("not an ELF file that can be read: {0}")]
    Elf(String),
    /// It is no module.
    #[error("it has no section .modinfo")]
    NoModInfo,
    /// No module says that much.
    #[error("it has more than {FIELDS_MAX} fields in .modinfo")]
    TooMany,
    /// It needs something that cannot be a module.
    #[error("it depends on `{0}`, which cannot name a module")]
    Depends(String),
}

impl ModInfo {
    /// Reads the file of a module, uncompressed.
    ///
    /// # Errors
    /// If it is none.
    pub fn decode(file: &[u8]) -> Result<Self, ModInfoError> {
        let elf =
            object::File::parse(file).map_err(|error| ModInfoError::Elf(error.to_string()))?;
        let section = elf.section_by_name(".modinfo").ok_or(ModInfoError::NoModInfo)?;
        let data = section.data().map_err(|error| ModInfoError::Elf(error.to_string()))?;
        Self::decode_section(data)
    }

    /// Reads the content of the section. Keys that we have no use for are passed over, and so is
    /// what is not UTF-8.
    ///
    /// # Errors
    /// If it has too many fields, or names a dependency that cannot be.
    pub fn decode_section(data: &[u8]) -> Result<Self, ModInfoError> {
        let mut info = Self::default();
        let fields = data.split(|&byte| byte == 0).filter(|field| !field.is_empty());
        for (index, field) in fields.enumerate() {
            if index == FIELDS_MAX {
                return Err(ModInfoError::TooMany);
            }
            let Some((key, value)) =
                std::str::from_utf8(field).ok().and_then(|field| field.split_once('='))
            else {
                continue;
            };
            match key {
                "depends" => info.depends = depends(value)?,
                "alias" if is_word(value) => info.aliases.push(value.to_owned()),
                "firmware" => info.firmware.push(value.to_owned()),
                "softdep" => info.add_soft(value),
                "vermagic" => info.kernel = value.split(' ').next().map(str::to_owned),
                _ => {}
            }
        }
        Ok(info)
    }

    /// `pre: a b post: c`.
    fn add_soft(&mut self, value: &str) {
        let mut list = None;
        for word in value.split_ascii_whitespace() {
            match word {
                "pre:" => list = Some(&mut self.soft_pre),
                "post:" => list = Some(&mut self.soft_post),
                word => {
                    if let Some(list) = &mut list {
                        list.push(word.to_owned());
                    }
                }
            }
        }
    }
}

fn depends(value: &str) -> Result<Vec<ModuleName>, ModInfoError> {
    let names = value.split(',').filter(|name| !name.is_empty());
    names.map(|name| name.parse().map_err(|_| ModInfoError::Depends(name.to_owned()))).collect()
}

/// Aliases become words of a line in modules.alias.
fn is_word(text: &str) -> bool {
    !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c.is_control())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const R8169: &[u8] = b"firmware=rtl_nic/rtl8125b-2.fw\0firmware=rtl_nic/rtl8107e-2.fw\0\
        license=GPL\0softdep=pre: realtek\0alias=pci:v000010ECd00008125sv*sd*bc*sc*i*\0\
        depends=mii,i2c-core\0name=r8169\0vermagic=6.1.0-40-amd64 SMP preempt mod_unload \0";

    #[test]
    fn fields_are_read() {
        let info = ModInfo::decode_section(R8169).unwrap();
        assert_eq!(info.depends, ["mii".parse().unwrap(), "i2c_core".parse().unwrap()]);
        assert_eq!(info.soft_pre, ["realtek"]);
        assert_eq!(info.aliases, ["pci:v000010ECd00008125sv*sd*bc*sc*i*"]);
        assert_eq!(info.firmware, ["rtl_nic/rtl8125b-2.fw", "rtl_nic/rtl8107e-2.fw"]);
        assert_eq!(info.kernel.as_deref(), Some("6.1.0-40-amd64"));
    }

    #[test]
    fn soft_dependencies_are_before_or_after() {
        let info = ModInfo::decode_section(b"softdep=pre: a b post: c\0softdep=post: d\0").unwrap();
        assert_eq!(
            (info.soft_pre, info.soft_post),
            (vec!["a".to_owned(), "b".to_owned()], vec!["c".to_owned(), "d".to_owned()])
        );
    }

    #[test]
    fn what_no_module_says_is_refused() {
        assert!(ModInfo::decode_section(b"depends=\0").unwrap().depends.is_empty());
        assert_eq!(
            ModInfo::decode_section(b"depends=../x\0"),
            Err(ModInfoError::Depends("../x".to_owned()))
        );
        let many = b"alias=x\0".repeat(FIELDS_MAX + 1);
        assert_eq!(ModInfo::decode_section(&many), Err(ModInfoError::TooMany));
        assert!(ModInfo::decode_section(b"alias=a b\0").unwrap().aliases.is_empty());
    }

    #[test]
    fn other_files_are_no_modules() {
        assert!(matches!(ModInfo::decode(b"#!/bin/sh\n"), Err(ModInfoError::Elf(_))));
        assert!(matches!(ModInfo::decode(b""), Err(ModInfoError::Elf(_))));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(mut bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = ModInfo::decode_section(&bytes);
            bytes.splice(0..0, *b"\x7fELF\x02\x01\x01\0");
            let _ = ModInfo::decode(&bytes);
        }
    }
}
