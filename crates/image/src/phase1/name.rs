//! Names of kernel modules.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The most bytes of a module's name (`MODULE_NAME_LEN` of Linux is 64 less a pointer, NUL counted).
pub const MODULE_NAME_LEN_MAX: usize = 55;

/// What modules are compressed with, as the ends of their files' names say; the empty end is last.
const SUFFIXES: [&str; 4] = [".xz", ".zst", ".gz", ""];

/// The name of a kernel module: letters, digits and `_`. In the names of files some have `-` for
/// `_`; those are the same module.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ModuleName(String);

/// A text that cannot name a module.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` cannot name a kernel module: write it as lsmod does, such as e1000e")]
pub struct ModuleNameError(String);

impl ModuleName {
    /// The name as lsmod writes it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The module that a file of this path is, compressed or not.
    pub fn of_file(path: &str) -> Option<Self> {
        let file = path.rsplit('/').next()?;
        let stem = SUFFIXES.iter().find_map(|suffix| file.strip_suffix(suffix))?;
        stem.strip_suffix(".ko")?.parse().ok()
    }
}

impl FromStr for ModuleName {
    type Err = ModuleNameError;

    fn from_str(text: &str) -> Result<Self, ModuleNameError> {
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        if text.is_empty() || text.len() > MODULE_NAME_LEN_MAX || !text.chars().all(good) {
            return Err(ModuleNameError(text.chars().take(MODULE_NAME_LEN_MAX).collect()));
        }
        Ok(Self(text.replace('-', "_")))
    }
}

impl TryFrom<String> for ModuleName {
    type Error = ModuleNameError;

    fn try_from(text: String) -> Result<Self, ModuleNameError> {
        text.parse()
    }
}

impl From<ModuleName> for String {
    fn from(name: ModuleName) -> Self {
        name.0
    }
}

impl fmt::Display for ModuleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dash_and_underscore_are_one_module() {
        assert_eq!("i2c-algo-bit".parse::<ModuleName>(), "i2c_algo_bit".parse());
        for text in ["", "../x", "a b", "x.ko", &"x".repeat(MODULE_NAME_LEN_MAX + 1)] {
            assert!(text.parse::<ModuleName>().is_err(), "{text}");
        }
    }

    #[test]
    fn files_are_modules_by_their_names() {
        let check = |path, expect: Option<&str>| {
            let name = ModuleName::of_file(path);
            assert_eq!(name.as_ref().map(ModuleName::as_str), expect, "{path}");
        };
        check("kernel/drivers/net/ethernet/intel/e1000e/e1000e.ko", Some("e1000e"));
        check("kernel/drivers/i2c/algos/i2c-algo-bit.ko.xz", Some("i2c_algo_bit"));
        check("x.ko.zst", Some("x"));
        check("x.ko.gz", Some("x"));
        check("x.ko.bz2", None);
        check("modules.dep", None);
        check(".ko", None);
    }
}
