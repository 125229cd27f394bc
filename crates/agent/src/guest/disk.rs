//! Where what a guest writes stays: a file system on a disk of the node, found by its label. Of each disk
//! of the image only what differs is kept (an overlay in QEMU's format), in a folder of this version of
//! the image: over another one's bytes it would be a file system that is neither.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use boot::ImageName;
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

/// Of a version's name on the screen: enough to tell it from the others.
const VERSION_SHOWN: usize = 12;

/// Block devices that have no file systems of this node, or take their time to say so.
const NO_DISKS: &[&str] = &["fd", "loop", "nbd", "ram", "sr", "zram"];

/// The file system, mounted for as long as the guest runs.
pub(super) struct Kept {
    target: PathBuf,
    /// For people: where it is.
    pub(super) place: String,
    /// For people: what other versions of the image have left, if they have.
    pub(super) others: Option<String>,
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
    lay_out(&image, &guest.version, disks, |disk| create(guest, disk))
        .map_err(|what| failed(label, what))?;
    kept.others = Others::of(&image, &guest.version).describe(&guest.image, &device);
    let folder = image.join(&guest.version);
    for disk in disks {
        check_room(&kept.target, &folder.join(disk.overlay())).map_err(|what| {
            let others = kept.others.iter().map(|others| format!(". {others}"));
            failed(label, what + &others.collect::<String>())
        })?;
    }
    Ok(kept)
}

/// Makes the overlays of a version that are not there yet, in its folder within that of its image.
fn lay_out(
    image: &Path,
    version: &str,
    disks: &[Disk],
    create: impl Fn(&Disk) -> Result<(), String>,
) -> Result<(), String> {
    let folder = image.join(version);
    fs::create_dir_all(&folder).map_err(|error| format!("writing to it: {error}"))?;
    let mut missing = disks.iter().filter(|disk| !folder.join(disk.overlay()).is_file());
    missing.try_for_each(create)
}

/// What versions of an image beside the one that is run have left: nobody but people knows whether it is
/// needed any more.
#[derive(Debug, Default, PartialEq, Eq)]
struct Others {
    versions: Vec<String>,
    /// Bytes that it takes.
    len: u64,
}

impl Others {
    fn of(image: &Path, version: &str) -> Self {
        let entries = |path: &Path| fs::read_dir(path).into_iter().flatten().flatten();
        let mut others = Self::default();
        for entry in entries(image).filter(|entry| entry.file_name() != *version) {
            others.versions.push(entry.file_name().to_string_lossy().into_owned());
            let files = entries(&entry.path()).filter_map(|file| file.metadata().ok());
            others.len += files.map(|file| file.blocks() * 512).sum::<u64>();
        }
        others.versions.sort();
        others
    }

    /// For the person at the node, who can remove it.
    fn describe(&self, image: &ImageName, device: &Path) -> Option<String> {
        let first = self.versions.first()?;
        let (count, len, device) = (self.versions.len(), mib(self.len), device.display());
        let first = first.get(..VERSION_SHOWN).unwrap_or(first);
        Some(format!(
            "What was written over other versions of {image} ({count}) is still there and takes {len}; \
             this one does not see it. If nobody needs it, remove it at a shell: `mkdir /mnt; mount \
             {device} /mnt; rm -r /mnt/boottorrent/{image}/{first}*; umount /mnt`"
        ))
    }
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
    Ok(Kept { target, place, others: None })
}

/// Makes the overlay of a disk: whole, or not at all, also if the node loses its power meanwhile.
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
    settle(&outside(&new), &outside(&name)).map_err(|error| format!("writing to it: {error}"))
}

/// Gives a new file its name once the disk has all of it. A file system may write names before what they
/// stand for: after a power cut an empty overlay would be there for ever.
fn settle(new: &Path, name: &Path) -> io::Result<()> {
    File::open(new)?.sync_all()?;
    fs::rename(new, name)?;
    let folder = name.parent().unwrap_or(Path::new("/"));
    File::open(folder)?.sync_all()
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

    /// An image's folder on the disk after each of these versions has run, and how many overlays that made.
    fn after(versions: &[&str]) -> (tempfile::TempDir, usize) {
        let dir = tempfile::tempdir().unwrap();
        let made = std::cell::Cell::new(0);
        let disk = |path: &str| Disk { path: path.parse().unwrap(), format: None };
        let disks = [disk("a.img"), disk("b/c.qcow2")];
        for version in versions {
            let create = |disk: &Disk| {
                made.set(made.get() + 1);
                let name = dir.path().join(version).join(disk.overlay());
                let new = name.with_extension("new");
                fs::write(&new, version).unwrap();
                settle(&new, &name).map_err(|error| error.to_string())
            };
            lay_out(dir.path(), version, &disks, create).unwrap();
        }
        (dir, made.get())
    }

    #[test]
    fn a_version_finds_its_own_writes_and_no_other_s() {
        let (dir, made) = after(&["one", "one", "two", "one", "two"]);
        assert_eq!(made, 4);
        for version in ["one", "two"] {
            for file in ["a.img.qcow2", "b%2fc.qcow2.qcow2"] {
                let text = fs::read_to_string(dir.path().join(version).join(file)).unwrap();
                assert_eq!(text, version, "{file}");
            }
        }
        // Nothing half-made is left.
        assert_eq!(fs::read_dir(dir.path().join("one")).unwrap().count(), 2);
    }

    #[test]
    fn an_overlay_that_could_not_be_made_is_made_the_next_time() {
        let (dir, disk) = (tempfile::tempdir().unwrap(), "a.img".parse().unwrap());
        let disks = [Disk { path: disk, format: None }];
        let refuse = |_: &Disk| Err("refused".to_owned());
        assert_eq!(lay_out(dir.path(), "one", &disks, refuse), Err("refused".to_owned()));
        let cut_off = dir.path().join("one/a.img.qcow2.new");
        fs::write(&cut_off, "half").unwrap();
        let create = |disk: &Disk| {
            let new = dir.path().join("one").join(disk.overlay() + ".new");
            fs::write(&new, "whole").unwrap();
            settle(&new, &new.with_extension("")).map_err(|error| error.to_string())
        };
        lay_out(dir.path(), "one", &disks, create).unwrap();
        assert_eq!(fs::read(dir.path().join("one/a.img.qcow2")).unwrap(), b"whole");
        assert!(!cut_off.exists());
    }

    #[test]
    fn what_other_versions_left_is_counted_and_how_to_remove_it_is_said() {
        let image: ImageName = "cow".parse().unwrap();
        let (dir, _) = after(&["0123456789abcdef", "fedcba9876543210", "now"]);
        let others = Others::of(dir.path(), "now");
        assert_eq!(others.versions, ["0123456789abcdef", "fedcba9876543210"]);
        let said = others.describe(&image, Path::new("/dev/sda1")).unwrap();
        let command = "mount /dev/sda1 /mnt; rm -r /mnt/boottorrent/cow/0123456789ab*; umount";
        assert!(said.contains("of cow (2)") && said.contains(command), "{said}");
        let (dir, _) = after(&["now"]);
        let others = Others::of(dir.path(), "now");
        assert_eq!(others, Others::default());
        assert_eq!(others.describe(&image, Path::new("/dev/sda1")), None);
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
