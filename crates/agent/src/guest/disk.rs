//! Where what a guest writes stays: a file system on a disk of the node, found by its label. Of each disk
//! of the image only what differs is kept (an overlay in QEMU's format), in a folder of this version of
//! the image: over another one's bytes it would be a file system that is neither.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use boot::image::DiskLabel;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::overlay::Disk;
use super::process::enter;
use super::{Guest, GuestFailure, load};
use crate::console::mib;

/// Where it is mounted, as programs of the extension see it.
const TARGET: &str = "/run/boottorrent/kept";

/// What makes overlays, in the extension.
const QEMU_IMG: &str = "/usr/bin/qemu-img";

/// Ext2 and its successors (Linux, Documentation/filesystems/ext4/super.rst): the first superblock, where
/// in it the magic number and the label are, and the number.
const SUPERBLOCK: u64 = 1024;
const SUPERBLOCK_LEN: usize = 1024;
const MAGIC_AT: usize = 0x38;
const LABEL_AT: usize = 0x78;
const MAGIC: [u8; 2] = [0x53, 0xef];

/// Where an overlay has the bytes that the guest sees, in the order of the network (QEMU,
/// docs/interop/qcow2.txt).
const QCOW2_MAGIC: &[u8] = b"QFI\xfb";
const QCOW2_LEN_AT: u64 = 24;

/// An overlay beside its data: 8 bytes of a table and 2 of a count for each 64 KiB, and its head.
const TABLES: u64 = 4096;
const HEAD_LEN: u64 = 1 << 20;

/// Block devices that have no file systems of this node, or take their time to say so.
const NO_DISKS: &[&str] = &["fd", "loop", "nbd", "ram", "sr", "zram"];

/// The file system, mounted for as long as the guest runs.
pub(super) struct Kept {
    target: PathBuf,
    /// For people: where it is.
    pub(super) place: String,
    /// Versions of the image beside this one that have left something.
    pub(super) others: usize,
}

impl Drop for Kept {
    fn drop(&mut self) {
        // It waits until everything is on the disk.
        if let Err(error) = unmount(&self.target, UnmountFlags::empty()) {
            tracing::warn!(%error, "{} cannot be unmounted", self.target.display());
            rustix::fs::sync();
        }
    }
}

/// The folder of a version of an image, as programs of the extension see it.
pub(super) fn folder(image: &str, version: &str) -> String {
    format!("{TARGET}/{}", within(image, version))
}

fn within(image: &str, version: &str) -> String {
    format!("boottorrent/{image}/{version}")
}

/// The device with the file system of this label.
///
/// # Errors
/// If there is none, or several.
pub(crate) fn find(root: &Path, label: &DiskLabel) -> Result<PathBuf, GuestFailure> {
    let mut all: Vec<(String, String)> = vec![];
    for entry in fs::read_dir(root.join("sys/class/block")).into_iter().flatten().flatten() {
        let Ok(name) = entry.file_name().into_string() else { continue };
        if !NO_DISKS.iter().any(|prefix| name.starts_with(prefix))
            && let Some(found) = label_of(&root.join("dev").join(&name))
        {
            all.push((name, found));
        }
    }
    all.sort();
    let mut found = all.iter().filter(|(_, found)| found == label.as_str());
    match (found.next(), found.next()) {
        (Some((name, _)), None) => Ok(root.join("dev").join(name)),
        (Some((one, _)), Some((other, _))) => {
            Err(failed(label, format!("{one} and {other} both have that label")))
        }
        (None, _) => {
            let there: Vec<_> =
                all.iter().map(|(name, label)| format!("`{label}` on {name}")).collect();
            let there = if there.is_empty() { "none".to_owned() } else { there.join(", ") };
            Err(failed(
                label,
                format!("no disk of this node has an ext4 with that label (there is: {there})"),
            ))
        }
    }
}

/// The label of an ext4; nothing if it is none or cannot be read.
fn label_of(device: &Path) -> Option<String> {
    let mut block = [0; SUPERBLOCK_LEN];
    File::open(device).ok()?.read_exact_at(&mut block, SUPERBLOCK).ok()?;
    if block[MAGIC_AT..][..2] != MAGIC {
        return None;
    }
    let label = &block[LABEL_AT..][..boot::image::DISK_LABEL_LEN_MAX];
    let len = label.iter().position(|byte| *byte == 0).unwrap_or(label.len());
    Some(String::from_utf8_lossy(&label[..len]).into_owned())
}

/// Mounts it, and makes the overlays that are not there yet.
///
/// # Errors
/// If there is no such file system, it cannot be written to, or has no room for all that the guest could
/// write: a guest whose disk is full in the midst of its work loses it.
pub(super) fn prepare(
    guest: &Guest,
    label: &DiskLabel,
    disks: &[Disk],
) -> Result<Kept, GuestFailure> {
    if disks.is_empty() {
        let what = "the image's `args` name no disk of the image that the guest could write to";
        return Err(failed(label, what));
    }
    load(&["ext4"]);
    let device = find(Path::new("/"), label)?;
    let mut kept = mounted(guest, label, &device)?;
    let image = kept.target.join("boottorrent").join(guest.image.as_str());
    let folder = image.join(&guest.version);
    fs::create_dir_all(&folder)
        .map_err(|error| failed(label, format!("writing to it: {error}")))?;
    let entries = fs::read_dir(&image).into_iter().flatten().flatten();
    kept.others = entries.filter(|entry| entry.file_name() != *guest.version).count();
    for disk in disks {
        let overlay = folder.join(disk.overlay());
        if !overlay.is_file() {
            create(guest, disk).map_err(|what| failed(label, what))?;
        }
        check_room(&kept.target, &overlay).map_err(|what| failed(label, what))?;
    }
    Ok(kept)
}

/// Where programs of the extension and nobody else see it.
fn mounted(guest: &Guest, label: &DiskLabel, device: &Path) -> Result<Kept, GuestFailure> {
    let target = guest.root.join(TARGET.trim_start_matches('/'));
    let refused = |error: io::Error| {
        let hint = match error.raw_os_error() {
            Some(libc::ENODEV) => ": phase 1 has no ext4; write `phase1: {modules: [ext4]}`",
            Some(libc::EROFS) => ": the disk cannot be written to",
            _ => "",
        };
        failed(label, format!("{} cannot be mounted: {error}{hint}", device.display()))
    };
    fs::create_dir_all(&target).map_err(refused)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC | MountFlags::NOATIME;
    mount(device, &target, "ext4", flags, None).map_err(|error| refused(error.into()))?;
    let within = within(guest.image.as_str(), &guest.version);
    let place = format!("/{within} of {label} ({})", device.display());
    Ok(Kept { target, place, others: 0 })
}

/// Makes the overlay of a disk: whole, or not at all.
fn create(guest: &Guest, disk: &Disk) -> Result<(), String> {
    let said = |error: io::Error| format!("{QEMU_IMG} cannot be run: {error}");
    let backing = guest.folder.join(disk.path.as_str());
    let format = match &disk.format {
        Some(format) => format.as_str(),
        None => format_of(&backing).map_err(|error| format!("`{}`: {error}", disk.path))?,
    };
    let name = format!("{}/{}", folder(guest.image.as_str(), &guest.version), disk.overlay());
    let new = format!("{name}.new");
    let mut command = Command::new(QEMU_IMG);
    command.args(["create", "-q", "-f", "qcow2", "-F", format, "-b"]).arg(&backing).arg(&new);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    enter(&mut command, &guest.root, &guest.folder).map_err(said)?;
    let output = command.output().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => "the extension `qemu` has no qemu-img: install qemu-utils on \
                                    the server and run `boottorrent extension build qemu`"
            .to_owned(),
        _ => said(error),
    })?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
    }
    let outside = |name: &str| guest.root.join(name.trim_start_matches('/'));
    fs::rename(outside(&new), outside(&name)).map_err(|error| format!("writing to it: {error}"))
}

/// What the first bytes of an image's file say. It was verified: no guest has written them.
fn format_of(file: &Path) -> io::Result<&'static str> {
    let mut magic = vec![];
    File::open(file)?.take(QCOW2_MAGIC.len() as u64).read_to_end(&mut magic)?;
    Ok(if magic == QCOW2_MAGIC { "qcow2" } else { "raw" })
}

/// Whether all that the guest could still write has room.
fn check_room(target: &Path, overlay: &Path) -> Result<(), String> {
    let unread = |error: io::Error| format!("{}: {error}", overlay.display());
    let mut len = [0; 8];
    let file = File::open(overlay).map_err(unread)?;
    file.read_exact_at(&mut len, QCOW2_LEN_AT).map_err(unread)?;
    let used = file.metadata().map_err(unread)?.blocks() * 512;
    let free = rustix::fs::statvfs(target).map_err(|error| unread(error.into()))?;
    let free = free.f_bavail.saturating_mul(free.f_frsize);
    match missing(u64::from_be_bytes(len), used, free) {
        0 => Ok(()),
        missing => Err(format!(
            "it is too small: the guest's disk has {}, of which {} are kept already, and {} are \
             free: {} are missing",
            mib(u64::from_be_bytes(len)),
            mib(used),
            mib(free),
            mib(missing)
        )),
    }
}

/// Bytes that are missing for an overlay of a disk of `len`, which has `used` already.
fn missing(len: u64, used: u64, free: u64) -> u64 {
    let whole = len.saturating_add(len / TABLES).saturating_add(HEAD_LEN);
    whole.saturating_sub(used).saturating_sub(free)
}

fn failed(label: &DiskLabel, what: impl Into<String>) -> GuestFailure {
    GuestFailure::Disk { label: label.clone(), what: what.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A node with these block devices, each with a label if it has an ext4.
    fn node(devices: &[(&str, Option<&str>)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("dev")).unwrap();
        for (name, label) in devices {
            fs::create_dir_all(root.path().join("sys/class/block").join(name)).unwrap();
            let mut bytes = vec![0; 4096];
            if let Some(label) = label {
                bytes[1024 + 0x38..][..2].copy_from_slice(&[0x53, 0xef]);
                bytes[1024 + 0x78..][..label.len()].copy_from_slice(label.as_bytes());
            }
            fs::write(root.path().join("dev").join(name), bytes).unwrap();
        }
        root
    }

    #[track_caller]
    fn check(devices: &[(&str, Option<&str>)], expect: Result<&str, &str>) {
        let root = node(devices);
        match (find(root.path(), &"guests".parse().unwrap()), expect) {
            (Ok(found), Ok(expect)) => assert_eq!(found, root.path().join(expect)),
            (Err(error), Err(expect)) => {
                assert!(error.to_string().contains(expect), "{error}");
            }
            (found, _) => panic!("{found:?}"),
        }
    }

    #[test]
    fn a_file_system_is_found_by_its_label() {
        let disks = [("sda", None), ("sda1", Some("data")), ("sda2", Some("guests"))];
        check(&disks, Ok("dev/sda2"));
        // Its whole length counts.
        check(&[("vda", Some("guests-of-others"))], Err("`guests-of-others` on vda"));
        check(
            &[("vda", Some("data")), ("loop0", Some("guests"))],
            Err("(there is: `data` on vda)"),
        );
        check(&[("vda", None)], Err("(there is: none)"));
        check(&[("vda", Some("guests")), ("vdb", Some("guests"))], Err("vda and vdb both"));
    }

    #[test]
    fn all_that_a_guest_could_write_must_have_room() {
        const MIB: u64 = 1 << 20;
        assert_eq!(missing(1024 * MIB, 0, 1026 * MIB), 0);
        assert_eq!(missing(4096 * MIB, 0, 4000 * MIB), 98 * MIB);
        assert_eq!(missing(4096 * MIB, 4000 * MIB, 98 * MIB), 0);
        assert_eq!(missing(u64::MAX, 0, 0), u64::MAX);
    }

    #[test]
    fn the_first_bytes_say_how_a_disk_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let check = |bytes: &[u8], expect| {
            let file = dir.path().join("disk");
            fs::write(&file, bytes).unwrap();
            assert_eq!(format_of(&file).unwrap(), expect);
        };
        check(b"QFI\xfb\0\0\0\x03", "qcow2");
        check(b"QF", "raw");
    }
}
