//! The smallest system that proves a virtual machine: a boot sector that says on its serial port and its red
//! screen that it runs, and what it finds and writes where it was started from, and switches itself off when
//! it gets a key on either. Made byte by byte, as no assembler is needed for so little.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::bench::image::Image;

/// What it says when it runs; the name of its image follows.
pub(crate) const READY: &str = "BOOTTORRENT-TEST-GUEST ready";

/// What it says when an earlier run of it has written to its disk.
pub(crate) const KEPT: &str = "BOOTTORRENT-TEST-GUEST kept";

/// What it says when it has written to its disk, and the disk has it.
pub(crate) const WRITTEN: &str = "BOOTTORRENT-TEST-GUEST written";

/// Its disk: room for a partition table's worth of sectors.
const DISK_LEN: usize = 1 << 20;

/// 80 tracks with two sides of 18 sectors.
const FLOPPY_LEN: usize = 80 * 2 * 18 * SECTOR_LEN;

const SECTOR_LEN: usize = 512;

/// ISO 9660.
const DISC_SECTOR_LEN: usize = 2048;

/// Where a BIOS puts the first sector.
const ORIGIN: usize = 0x7c00;

/// What it is started from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Medium {
    Raw,
    Qcow2,
    Floppy,
    /// What it cannot write to.
    Disc,
}

impl Medium {
    /// QEMU's arguments for it.
    fn args(self) -> &'static str {
        match self {
            Self::Raw => "-drive file=disk.img,format=raw",
            Self::Qcow2 => "-hda disk.qcow2",
            Self::Floppy => "-fda floppy.img",
            Self::Disc => "-cdrom disc.iso",
        }
    }

    /// Makes its file in `dir`.
    fn create(self, dir: &Path, sector: &[u8]) -> Result<()> {
        let padded = |len| {
            let mut bytes = sector.to_vec();
            bytes.resize(len, 0);
            bytes
        };
        let write = |file, bytes| {
            let path = dir.join(file);
            fs::write(&path, bytes).with_context(|| format!("writing {}", path.display()))
        };
        match self {
            Self::Raw => write("disk.img", padded(DISK_LEN)),
            Self::Floppy => write("floppy.img", padded(FLOPPY_LEN)),
            Self::Disc => write("disc.iso", disc(sector)),
            Self::Qcow2 => {
                write("disk.img", padded(DISK_LEN))?;
                let mut convert = Command::new("qemu-img");
                convert.args(["convert", "-O", "qcow2", "disk.img", "disk.qcow2"]);
                let done = convert.current_dir(dir).status().context("running qemu-img")?;
                ensure!(done.success(), "qemu-img: {done}");
                fs::remove_file(dir.join("disk.img")).context("removing the raw disk")
            }
        }
    }
}

/// Makes the folder of an image of it, `name` under `oss`; `keys` are lines of its config.yaml, and
/// `ballast_len` bytes that nothing can compress make its download longer.
pub(crate) fn install(
    oss: &Path,
    name: &str,
    medium: Medium,
    keys: &str,
    ballast_len: u64,
) -> Result<()> {
    install_sector(oss, name, &boot_sector(name), medium, keys, ballast_len)
}

/// As [`install`], of one that says for ever how far it comes: [`ticks`].
pub(crate) fn install_ticking(oss: &Path, name: &str, ballast_len: u64) -> Result<()> {
    install_sector(oss, name, &sector(TICKING), Medium::Raw, "display: serial\n", ballast_len)
}

/// How far a guest that ticks has come within each of the ticks that it measured, by what a console says.
pub(crate) fn ticks(text: &str) -> Vec<u32> {
    let value = |line: &str| {
        let letters = line.bytes().all(|letter| (b'a'..=b'p').contains(&letter));
        let digit = |value, letter| value * 16 + u32::from(letter - b'a');
        (letters && line.len() == 4).then(|| line.bytes().fold(0, digit))
    };
    text.lines().filter_map(value).collect()
}

fn install_sector(
    oss: &Path,
    name: &str,
    sector: &[u8],
    medium: Medium,
    keys: &str,
    ballast_len: u64,
) -> Result<()> {
    let dir = oss.join(name);
    fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
    medium.create(&dir, sector)?;
    if ballast_len > 0 {
        Image::create(&dir, ballast_len)?;
    }
    let config = format!(
        "dispname: Guest {name}\ndescription: A virtual machine that no kexec could start.\n\
         method: bin-qemu-x86_64\nargs: -m 16 {}\n{keys}",
        medium.args()
    );
    fs::write(dir.join("config.yaml"), config).context("writing config.yaml")
}

/// A disc that a BIOS starts ("El Torito", sections 2.0 and 2.2 to 2.4): a boot record where it looks for
/// one, a catalogue with one entry, which is not to be taken for a floppy or a disk, and the sector.
fn disc(sector: &[u8]) -> Vec<u8> {
    const RECORD: usize = 17;
    const CATALOGUE: usize = 19;
    const CODE: usize = 20;
    let mut disc = vec![0; (CODE + 1) * DISC_SECTOR_LEN];
    let mut put = |sector: usize, at: usize, bytes: &[u8]| {
        disc[sector * DISC_SECTOR_LEN + at..][..bytes.len()].copy_from_slice(bytes);
    };
    // Primary volume, boot record, end of the list.
    put(16, 0, b"\x01CD001\x01");
    put(RECORD, 0, b"\0CD001\x01EL TORITO SPECIFICATION");
    put(RECORD, 0x47, &(CATALOGUE as u32).to_le_bytes());
    put(18, 0, b"\xffCD001\x01");
    // The entry that makes the words of the catalogue's first 32 bytes add up to nothing.
    put(CATALOGUE, 0, &[1]);
    put(CATALOGUE, 28, &[0xaa, 0x55, 0x55, 0xaa]);
    // It can be started, without emulation, at the usual place, one of the 512-byte sectors.
    put(CATALOGUE, 32, &[0x88, 0, 0, 0, 0, 0, 1, 0]);
    put(CATALOGUE, 40, &(CODE as u32).to_le_bytes());
    put(CODE, 0, sector);
    disc
}

/// The colour of its screen but for the letters, blue first: number 4 of those that a VGA begins with. That has
/// six bits for each, and nothing to say of the other two.
pub(crate) const SCREEN: [u8; 3] = [0, 0, 0x2a << 2];

const PAINT: &[u8] = &[
    0xb8, 0x00, 0x06, // mov ax, 0x0600: empty
    0xb7, 0x4f, // mov bh, 0x4f: white on red
    0x31, 0xc9, // xor cx, cx: from the first place
    0xba, 0x4f, 0x18, // mov dx, 0x184f: to the last of 25 lines of 80
    0xcd, 0x10, // int 0x10
];

/// Has an ATA disk write down what it was given; where there is none nothing is waited for.
const FLUSH: &[u8] = &[
    0xba, 0xf7, 0x01, // mov dx, 0x1f7: command and status of the first channel
    0xb0, 0xe7, // mov al, 0xe7: flush
    0xee, // out dx, al
    0xec, // in al, dx
    0xa8, 0x80, // test al, 0x80: is it busy?
    0x75, 0xfb, // jnz to the in
];

/// Waits for a key and switches the machine off.
const END: &[u8] = &[
    0xf4, // hlt: until the timer ticks, so that the node has its processor for other things
    0xb4, 0x01, // mov ah, 1: is there a key
    0xcd, 0x16, // int 0x16: of the keyboard?
    0x75, 0x08, // jnz to the end of the next jump
    0xba, 0xfd, 0x03, // mov dx, 0x3fd: line status of COM1
    0xec, // in al, dx
    0xa8, 0x01, // test al, 1: is there a key?
    0x74, 0xf1, // jz to the hlt
    0xba, 0x04,
    0x06, // mov dx, 0x604: power management control of the PIIX4, where SeaBIOS puts it
    0xb8, 0x00, 0x20, // mov ax, 0x2000: off
    0xef, // out dx, ax
    0xf4, // hlt
    0xeb, 0xfd, // jmp to the hlt
];

/// Says the text at si on the screen and the first serial port.
const PRINT: &[u8] = &[
    0xac, // lodsb
    0x84, 0xc0, // test al, al
    0x74, 0x1a, // jz to the ret
    0x50, // push ax
    0x31, 0xdb, // xor bx, bx: the first page
    0xb4, 0x0e, // mov ah, 0x0e: as a teletype
    0xcd, 0x10, // int 0x10
    0x58, // pop ax
    0x88, 0xc4, // mov ah, al
    0xba, 0xfd, 0x03, // mov dx, 0x3fd
    0xec, // in al, dx
    0xa8, 0x20, // test al, 0x20: can it take a byte?
    0x74, 0xfb, // jz to the in
    0x88, 0xe0, // mov al, ah
    0xba, 0xf8, 0x03, // mov dx, 0x3f8
    0xee, // out dx, al
    0xeb, 0xe1, // jmp to the lodsb
    0xc3, // ret
];

/// Says for ever how far it comes within every other tick of the BIOS's clock, as a word of four letters.
const TICKING: &[u8] = &[
    0x31, 0xc0, // xor ax, ax
    0x8e, 0xd8, // mov ds, ax
    0x8e, 0xd0, // mov ss, ax
    0xbc, 0x00, 0x7c, // mov sp, ORIGIN
    0xfb, // sti
    0xa1, 0x6c, 0x04, // mov ax, [0x46c]: the clock
    0x3b, 0x06, 0x6c, 0x04, // cmp ax, [0x46c]
    0x74, 0xfa, // je to the cmp
    0xa1, 0x6c, 0x04, // mov ax, [0x46c]
    0x31, 0xff, // xor di, di
    0xb9, 0x40, 0x00, // mov cx, 64
    0xe2, 0xfe, // loop to itself
    0x47, // inc di
    0x3b, 0x06, 0x6c, 0x04, // cmp ax, [0x46c]
    0x74, 0xf4, // je to the mov cx
    0xb9, 0x05, 0x00, // mov cx, 5: letters, and the end of the line
    0xb4, 0x0a, // mov ah, 10
    0x83, 0xf9, 0x01, // cmp cx, 1
    0x74, 0x0b, // je to the mov dx
    0xc1, 0xc7, 0x04, // rol di, 4
    0x89, 0xf8, // mov ax, di
    0x24, 0x0f, // and al, 0x0f
    0x04, 0x61, // add al, 'a'
    0x88, 0xc4, // mov ah, al
    0xba, 0xfd, 0x03, // mov dx, 0x3fd
    0xec, // in al, dx
    0xa8, 0x20, // test al, 0x20: can it take a byte?
    0x74, 0xfb, // jz to the in
    0x88, 0xe0, // mov al, ah
    0xba, 0xf8, 0x03, // mov dx, 0x3f8
    0xee, // out dx, al
    0xe2, 0xde, // loop to the mov ah
    0xeb, 0xbf, // jmp to the first mov ax
];

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
        0xb6, 0x00, // mov dh, 0: first side; dl is what it was started from
        0x52, // push dx
    ];
    code.extend(PAINT);
    let ready = call_print(&mut code);
    code.extend([
        0x5a, // pop dx
        0x52, // push dx
        0xb8, 0x01, 0x02, // mov ax, 0x0201: read one sector,
        0xb9, 0x02, 0x00, // mov cx, 2: the second,
        0xbb, 0x00, 0x7e, // mov bx, ORIGIN + 512: to there
        0xcd, 0x13, // int 0x13
        0x72, 0x0e, // jc over all that follows up to the next pop
        0x81, 0x3e, 0xfe, 0x7f, 0x55,
        0xaa, // cmp word [0x7ffe], 0xaa55: is it a copy of this?
        0x75, 0x06, // jne over the next two
    ]);
    let kept = call_print(&mut code);
    code.extend([
        0x5a, // pop dx
        0xb8, 0x01, 0x03, // mov ax, 0x0301: write one sector,
        0xb9, 0x02, 0x00, // mov cx, 2: the second,
        0xbb, 0x00, 0x7c, // mov bx, ORIGIN: from here
        0xcd, 0x13, // int 0x13
        0x72, 0x11, // jc over all that follows up to the next hlt
    ]);
    code.extend(FLUSH);
    let written = call_print(&mut code);
    code.extend(END);
    let print = code.len();
    code.extend(PRINT);
    let said = [
        (ready, format!("{READY} {name}")),
        (kept, KEPT.to_owned()),
        (written, WRITTEN.to_owned()),
    ];
    for (call, text) in said {
        let at = (ORIGIN + code.len()) as u16;
        code[call + 1..call + 3].copy_from_slice(&at.to_le_bytes());
        // Relative to what follows the call.
        let distance = (print as i16) - (call as i16 + 6);
        code[call + 4..call + 6].copy_from_slice(&distance.to_le_bytes());
        code.extend(format!("{text}\r\n\0").bytes());
    }
    sector(&code)
}

/// What a BIOS takes for something to start.
fn sector(code: &[u8]) -> Vec<u8> {
    assert!(code.len() <= SECTOR_LEN - 2, "this is too long for a boot sector");
    let mut sector = code.to_vec();
    sector.resize(SECTOR_LEN - 2, 0);
    sector.extend([0x55, 0xaa]);
    sector
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
    fn ticks_are_read_among_other_lines() {
        let text = "BOOTTORRENT stage=loading\nabcd\nzzzz\nabc\naaap\n";
        assert_eq!(ticks(text), [0x0123, 15]);
    }

    #[test]
    fn a_boot_sector_is_one() {
        let sector = boot_sector("guest");
        assert_eq!(sector.len(), SECTOR_LEN);
        assert_eq!(sector[SECTOR_LEN - 2..], [0x55, 0xaa]);
        // The first text is where the first call looks for it.
        let at = usize::from(u16::from_le_bytes([sector[29], sector[30]])) - ORIGIN;
        assert!(sector[at..].starts_with(b"BOOTTORRENT-TEST-GUEST ready guest\r\n\0"));
    }
}
