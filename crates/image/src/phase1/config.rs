//! What a kernel can do: `/boot/config-VERSION`, the options that it was built with.

use std::collections::BTreeSet;

/// What phase 1 cannot do without: the option, and what fails without it.
const NEEDED: &[(&str, &str)] = &[
    ("CONFIG_BLK_DEV_INITRD", "it cannot unpack an initramfs, so it will not boot"),
    ("CONFIG_DEVTMPFS", "the agent finds no devices"),
    ("CONFIG_TMPFS", "there is no place for an image"),
    ("CONFIG_KEXEC_FILE", "images with `method: kexec` cannot be loaded"),
    ("CONFIG_MODULES", "it loads no drivers"),
];

/// The options of a kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelConfig {
    built_in: BTreeSet<String>,
}

impl KernelConfig {
    /// Reads the lines `CONFIG_NAME=y`; others are of no use to us.
    pub fn parse(text: &str) -> Self {
        let options = text.lines().filter_map(|line| line.trim().strip_suffix("=y"));
        Self { built_in: options.map(str::to_owned).collect() }
    }

    /// Whether it is in the kernel itself, not a module.
    pub fn is_built_in(&self, option: &str) -> bool {
        self.built_in.contains(option)
    }

    /// A sentence for each thing that phase 1 needs and this kernel lacks.
    pub fn shortcomings(&self) -> impl Iterator<Item = String> {
        let lacks = NEEDED.iter().filter(|(option, _)| !self.is_built_in(option));
        lacks.map(|(option, effect)| format!("this kernel is without {option}: {effect}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_built_in_or_not() {
        let config = KernelConfig::parse("CONFIG_A=y\nCONFIG_B=m\n# CONFIG_C is not set\n");
        assert!(config.is_built_in("CONFIG_A"));
        assert!(!config.is_built_in("CONFIG_B"));
        assert!(!config.is_built_in("CONFIG_C"));
    }

    #[test]
    fn what_a_kernel_lacks_is_said() {
        let needed: String = NEEDED.iter().map(|(option, _)| format!("{option}=y\n")).collect();
        assert_eq!(KernelConfig::parse(&needed).shortcomings().count(), 0);
        let without = needed.replace("CONFIG_KEXEC_FILE=y\n", "");
        let said: Vec<_> = KernelConfig::parse(&without).shortcomings().collect();
        assert!(said.len() == 1 && said[0].contains("`method: kexec`"), "{said:?}");
    }
}
