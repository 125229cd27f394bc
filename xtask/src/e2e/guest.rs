//! The smallest system that proves a virtual machine: a boot sector that says on its serial port that it
//! runs, writes to its disk, and switches itself off when it gets a key. Made byte by byte, as no
//! assembler is needed for so little.

use std::path::Path;

use anyhow::{Context as _, Result};

use crate::bench::image::Image;

/// What it says when it runs; the name of its image follows.
pub(crate) const READY: &str = "BOOTTORRENT-TEST-GUEST ready";

/// What it says when it has written to its disk.
pub(crate) const WRITTEN: &str = "BOOTTORRENT-TEST-GUEST written";

/// Its disk: room for a partition table's worth of sectors.
const DISK_LEN: usize = 1 << 20;

const SECTOR_LEN: usize = 512;

/// Where a BIOS puts the first sector.
const ORIGIN: usize = 0x7c00;

/// Makes the folder of an image of it, `name` under `oss`; `keys` are lines of its config.yaml, and
/// `ballast_len` bytes that nothing can compress make its download longer.
pub(crate) fn install(oss: &Path, name: &str, keys: &str, ballast_len: u64) -> Result<()> {
    let dir = oss.join(name);
    std::fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
    let mut disk = boot_sector(name);
    disk.resize(DISK_LEN, 0);
    std::fs::write(dir.join("disk.img"), disk).context("writing the guest's disk")?;
    if ballast_len > 0 {
        Image::create(&dir, ballast_len)?;
    }
    let config = format!(
        "dispname: Guest {name}\ndescription: A virtual machine that no kexec could start.\n\
         method: bin-qemu-x86_64\nargs: -m 16 -drive file=disk.img,format=raw\n{keys}"
    );
    std::fs::write(dir.join("config.yaml"), config).context("writing config.yaml")
}

/// 16-bit code of an 8086, in the order of running.
fn boot_sector(name: &str) -> Vec<u8> {
    let mut code = vec![
        0xfa, // cli
        0x31, 0xc0, // xor ax, ax
        0x8e, 0xd8, // mov ds, ax
        0x8e, 0xc0, // mov es, ax
        0x8e, 0xd0, // mov ss, ax
        0xbc, 0x00, 0x7c, // mov sp, ORIGIN
        0xfb, // sti
    ];
    let first = call_print(&mut code);
    code.extend([
        0xb8, 0x01, 0x03, // mov ax, 0x0301: write one sector,
        0xb9, 0x02, 0x00, // mov cx, 2: the second,
        0xba, 0x80, 0x00, // mov dx, 0x80: of the first disk,
        0xbb, 0x00, 0x7c, // mov bx, ORIGIN: from here
        0xcd, 0x13, // int 0x13
        0x72, 0x06, // jc over the next two
    ]);
    let second = call_print(&mut code);
    code.extend([
        0xf4, // hlt: until the timer ticks, so that the node has its processor for other things
        0xba, 0xfd, 0x03, // mov dx, 0x3fd: line status of COM1
        0xec, // in al, dx
        0xa8, 0x01, // test al, 1: is there a key?
        0x74, 0xf7, // jz to the hlt
        0xba, 0x04,
        0x06, // mov dx, 0x604: power management control of the PIIX4, where SeaBIOS puts it
        0xb8, 0x00, 0x20, // mov ax, 0x2000: off
        0xef, // out dx, ax
        0xf4, // hlt
        0xeb, 0xfd, // jmp to the hlt
    ]);
    let print = code.len();
    code.extend([
        0xac, // lodsb
        0x84, 0xc0, // test al, al
        0x74, 0x12, // jz to the ret
        0x88, 0xc4, // mov ah, al
        0xba, 0xfd, 0x03, // mov dx, 0x3fd
        0xec, // in al, dx
        0xa8, 0x20, // test al, 0x20: can it take a byte?
        0x74, 0xfb, // jz to the in
        0x88, 0xe0, // mov al, ah
        0xba, 0xf8, 0x03, // mov dx, 0x3f8
        0xee, // out dx, al
        0xeb, 0xe9, // jmp to the lodsb
        0xc3, // ret
    ]);
    for (call, text) in [(first, format!("{READY} {name}")), (second, WRITTEN.to_owned())] {
        let at = (ORIGIN + code.len()) as u16;
        code[call + 1..call + 3].copy_from_slice(&at.to_le_bytes());
        // Relative to what follows the call.
        let distance = (print as i16) - (call as i16 + 6);
        code[call + 4..call + 6].copy_from_slice(&distance.to_le_bytes());
        code.extend(format!("{text}\r\n\0").bytes());
    }
    assert!(code.len() <= SECTOR_LEN - 2, "the name is too long for a boot sector");
    code.resize(SECTOR_LEN - 2, 0);
    code.extend([0x55, 0xaa]);
    code
}

/// `mov si, TEXT; call print`, both to be filled in; where it is.
fn call_print(code: &mut Vec<u8>) -> usize {
    let at = code.len();
    code.extend([0xbe, 0, 0, 0xe8, 0, 0]);
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boot_sector_is_one() {
        let sector = boot_sector("guest");
        assert_eq!(sector.len(), SECTOR_LEN);
        assert_eq!(sector[SECTOR_LEN - 2..], [0x55, 0xaa]);
        // The first text is where the first call looks for it.
        let at = usize::from(u16::from_le_bytes([sector[14], sector[15]])) - ORIGIN;
        assert!(sector[at..].starts_with(b"BOOTTORRENT-TEST-GUEST ready guest\r\n\0"));
    }
}
