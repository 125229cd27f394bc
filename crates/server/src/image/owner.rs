//! Gives what a command of root has made to the lab's owner: the packaged service is a user of its own,
//! and could neither read which versions of an image there are nor go back to one.
//!
//! Only what belongs to root, lies in a place of images, and is a folder or a file in one of them. The
//! trees below (`state/nfs`) are systems, and keep their owners. Whoever owns the lab could put a link
//! where a folder was while this looks: so folders are opened one below the other, links never followed.

use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use image::data::DATA_FILE;
use image::installations::{INSTALLATIONS_FILE, LOCK_FILE};
use rustix::fs::{AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, Stat, Uid};
use rustix::io::{Errno, Result};

/// Gives it, if this is root and the lab another user's.
///
/// # Errors
/// If something cannot be given.
pub(super) fn settle(lab: &Path) -> std::io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let lab = folder(CWD, lab)?;
    let Some(state) = found(folder(&lab, "state"))? else { return Ok(()) };
    let owner = Owner::of(&rustix::fs::fstat(&state)?);
    if owner.uid.is_root() {
        return Ok(());
    }
    if let Some(oss) = found(folder(&lab, "oss"))? {
        each(&oss, |name, below| match is_built(below) {
            true => owner.take_folder(&oss, name, below),
            false => Ok(()),
        })?;
    }
    owner.take(&state, "builds")?;
    owner.take(&state, INSTALLATIONS_FILE)?;
    owner.take(&state, LOCK_FILE)?;
    let Some(images) = found(folder(&state, "images"))? else { return Ok(()) };
    owner.take(&state, "images")?;
    each(&images, |name, belongings| {
        owner.take(&images, name)?;
        let Some(versions) = found(folder(belongings, "versions"))? else { return Ok(()) };
        owner.take(belongings, "versions")?;
        each(&versions, |number, below| owner.take_folder(&versions, number, below))
    })?;
    Ok(())
}

struct Owner {
    uid: Uid,
    gid: Gid,
}

impl Owner {
    fn of(stat: &Stat) -> Self {
        Self { uid: Uid::from_raw(stat.st_uid), gid: Gid::from_raw(stat.st_gid) }
    }

    /// A folder and the files in it, not the folders.
    fn take_folder(&self, within: impl AsFd, name: &CStr, below: &OwnedFd) -> Result<()> {
        for entry in Dir::read_from(below)? {
            let entry = entry?;
            let stat = rustix::fs::statat(below, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW)?;
            if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile {
                self.take(below, entry.file_name())?;
            }
        }
        self.take(within, name)
    }

    /// A file or a folder that is root's; nothing else, and nothing if it is not there.
    fn take(&self, within: impl AsFd, name: impl rustix::path::Arg + Copy) -> Result<()> {
        let stat = rustix::fs::statat(&within, name, AtFlags::SYMLINK_NOFOLLOW);
        let Some(stat) = found(stat)? else { return Ok(()) };
        let kind = FileType::from_raw_mode(stat.st_mode);
        if stat.st_uid != 0 || !matches!(kind, FileType::RegularFile | FileType::Directory) {
            return Ok(());
        }
        let (uid, gid) = (Some(self.uid), Some(self.gid));
        rustix::fs::chownat(within, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
    }
}

/// Does something with each folder in a folder; links to folders are none.
fn each(within: &OwnedFd, mut what: impl FnMut(&CStr, &OwnedFd) -> Result<()>) -> Result<()> {
    for entry in Dir::read_from(within)? {
        let entry = entry?;
        let name = entry.file_name();
        if name.to_bytes().starts_with(b".") {
            continue;
        }
        if let Ok(below) = folder(within, name) {
            what(name, &below)?;
        }
    }
    Ok(())
}

fn is_built(below: &OwnedFd) -> bool {
    rustix::fs::statat(below, DATA_FILE, AtFlags::SYMLINK_NOFOLLOW).is_ok()
}

fn folder(within: impl AsFd, name: impl rustix::path::Arg) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(within, name, flags, Mode::empty())
}

fn found<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Err(Errno::NOENT) => Ok(None),
        result => result.map(Some),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, chown, symlink};

    use super::*;

    /// Somebody who is not root.
    const OWNER: u32 = 1234;

    #[test]
    fn what_root_made_of_images_becomes_the_lab_owners_and_nothing_else() {
        let temp = tempfile::tempdir().unwrap();
        let lab = temp.path();
        let folders = ["oss/built/tree", "oss/by-hand", "state/images/built/versions/1"];
        folders.iter().for_each(|path| fs::create_dir_all(lab.join(path)).unwrap());
        let version = "state/images/built/versions/1/image_data.yml";
        let lock = "state/.installations.lock";
        for path in ["oss/built/image_data.yml", "oss/built/tree/file", "outside", version, lock] {
            fs::write(lab.join(path), "").unwrap();
        }
        symlink(lab.join("outside"), lab.join("oss/built/link")).unwrap();
        symlink(lab.join("oss/by-hand"), lab.join("oss/alias")).unwrap();
        // Who is not root can give nothing away, and so need not.
        if chown(lab.join("state"), Some(OWNER), Some(OWNER)).is_err() {
            settle(lab).unwrap();
            return;
        }
        settle(lab).unwrap();
        let check = |path: &str, expect: u32| {
            assert_eq!(fs::symlink_metadata(lab.join(path)).unwrap().uid(), expect, "{path}");
        };
        let given = ["oss/built", "oss/built/image_data.yml", "state/images", version, lock];
        given.iter().for_each(|path| check(path, OWNER));
        let kept = ["oss/built/tree", "oss/built/tree/file", "outside", "oss/by-hand", "oss/alias"];
        kept.iter().for_each(|path| check(path, 0));
    }
}
