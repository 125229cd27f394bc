//! What is known of programs that run images.

use std::path::{Path, PathBuf};

use anyhow::ensure;
use boot::image::QEMU_EXTENSION;

/// What an extension is made of.
#[derive(Debug, Default)]
pub(super) struct Parts {
    pub(super) programs: Vec<PathBuf>,
    pub(super) data: Vec<PathBuf>,
    /// How the names of files begin or end that are for other machines.
    left_out: &'static [&'static str],
}

impl Parts {
    /// Whether a file of a folder of data is for another machine.
    pub(super) fn leaves_out(&self, name: &str) -> bool {
        self.left_out.iter().any(|part| name.starts_with(part) || name.ends_with(part))
    }
}

/// QEMU and what Debian has as modules of it: the emulation of processors, screens of text, cards.
const QEMU_PROGRAMS: &[&str] = &["/usr/bin/qemu-system-x86_64"];
/// Only where what guests write is to stay.
const QEMU_IMG: &str = "/usr/bin/qemu-img";
const QEMU_MODULES: &[&str] = &[
    "accel-tcg-x86_64",
    "ui-curses",
    "hw-display-virtio-gpu",
    "hw-display-virtio-gpu-pci",
    "hw-display-virtio-vga",
    "hw-usb-host",
];
const MODULE_DIR: &str = "/usr/lib/x86_64-linux-gnu/qemu";

/// Firmware, option ROMs and keymaps; what a screen of text needs: terminals, and the characters of the
/// PC (CP437). What is not installed is left out but for the first two.
const QEMU_DATA: &[&str] = &[
    "/usr/share/qemu",
    "/usr/share/seabios",
    "/usr/lib/ipxe/qemu",
    "/usr/lib/x86_64-linux-gnu/gconv/IBM437.so",
    "/usr/lib/x86_64-linux-gnu/gconv/gconv-modules",
    "/usr/lib/x86_64-linux-gnu/gconv/gconv-modules.d",
    "/lib/terminfo/l/linux",
    "/lib/terminfo/v/vt100",
    "/lib/terminfo/v/vt220",
    "/lib/terminfo/x/xterm",
];
const QEMU_DATA_REQUIRED: usize = 2;

/// In `/usr/share/qemu` there is firmware for all machines that QEMU knows.
const QEMU_LEFT_OUT: &[&str] = &[
    "openbios-",
    "opensbi-",
    "palcode-",
    "s390-",
    "hppa-",
    "skiboot",
    "slof",
    "npcm7xx",
    "u-boot",
    "QEMU,",
    "trace-events",
    "vof",
    ".dtb",
    ".lid",
    "OVMF",
];

/// The parts of an extension that is known by this name; none if it is not.
///
/// # Errors
/// If what belongs to it is not installed.
pub(super) fn find(name: &str) -> anyhow::Result<Option<Parts>> {
    if name != QEMU_EXTENSION {
        return Ok(None);
    }
    let is_there = |path: &&PathBuf| path.exists();
    let paths = |names: &[&str]| names.iter().map(PathBuf::from).collect::<Vec<_>>();
    let modules: Vec<PathBuf> = QEMU_MODULES
        .iter()
        .map(|module| Path::new(MODULE_DIR).join(module).with_extension("so"))
        .collect();
    let mut programs = paths(QEMU_PROGRAMS);
    let data = paths(QEMU_DATA);
    let required = programs.iter().chain(data.iter().take(QEMU_DATA_REQUIRED));
    for path in required {
        ensure!(
            path.exists(),
            "{} is not on this machine: install it with `apt install qemu-system-x86`",
            path.display()
        );
    }
    let img = PathBuf::from(QEMU_IMG);
    programs.extend(modules.iter().chain([&img]).filter(is_there).cloned());
    let data = data.iter().filter(is_there).cloned().collect();
    Ok(Some(Parts { programs, data, left_out: QEMU_LEFT_OUT }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn firmware_of_other_machines_is_left_out() {
        let parts = Parts { left_out: QEMU_LEFT_OUT, ..Parts::default() };
        for name in ["openbios-ppc", "bamboo.dtb", "skiboot.lid", "QEMU,tcx.bin"] {
            assert!(parts.leaves_out(name), "{name}");
        }
        for name in ["bios-256k.bin", "kvmvapic.bin", "vgabios-stdvga.bin", "keymaps"] {
            assert!(!parts.leaves_out(name), "{name}");
        }
    }

    #[test]
    fn other_names_are_not_known() {
        assert!(find("tools").unwrap().is_none());
    }
}
