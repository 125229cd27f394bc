//! Opening and creating files beneath a directory without ever following a symbolic link: each
//! component is opened by itself with `O_NOFOLLOW`, and the paths, vetted by
//! [`Layout`](super::Layout), have no `..`. (`openat2` would do it in one call, but only from Linux
//! 5.6 on and not under every seccomp filter: one way that works everywhere is tested better than
//! two.)

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::error::StorageError;

/// A directory that files are opened beneath.
#[derive(Debug)]
pub(crate) struct Dir {
    fd: OwnedFd,
    path: PathBuf,
}

/// How to open a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Open {
    Read,
    Write,
    /// Made, with the directories on the way, if it is not there.
    Create,
    /// Made, or emptied.
    Truncate,
}

impl Dir {
    pub(crate) fn open(path: &Path) -> Result<Self, StorageError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(fd) => Ok(Self { fd, path: path.to_owned() }),
            Err(Errno::NOENT) => Err(StorageError::DirMissing(path.to_owned())),
            Err(errno) => Err(StorageError::new(path, errno)),
        }
    }

    /// The path as the user gave it.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The whole path of `relative`, for people.
    pub(crate) fn full(&self, relative: &Path) -> PathBuf {
        self.path.join(relative)
    }

    /// Opens a regular file.
    pub(crate) fn file(&self, relative: &Path, how: Open) -> Result<OwnedFd, StorageError> {
        // O_NONBLOCK: opening a FIFO must not wait; it has no effect on a regular file.
        let mut flags = OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        flags |= match how {
            Open::Read => OFlags::RDONLY,
            Open::Write => OFlags::RDWR,
            Open::Create => OFlags::RDWR | OFlags::CREATE,
            Open::Truncate => OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC,
        };
        let (parent, name) = self.parent(relative, matches!(how, Open::Create))?;
        let dir = parent.as_ref().unwrap_or(&self.fd);
        let fd = rustix::fs::openat(dir, name, flags, Mode::from_raw_mode(0o666))
            .map_err(|errno| StorageError::new(&self.full(relative), errno))?;
        let stat = rustix::fs::fstat(&fd)
            .map_err(|errno| StorageError::new(&self.full(relative), errno))?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile {
            Ok(fd)
        } else {
            Err(StorageError::NotAFile(self.full(relative)))
        }
    }

    /// What is known of a file, `None` if it is not there.
    pub(crate) fn stat(&self, relative: &Path) -> Result<Option<rustix::fs::Stat>, StorageError> {
        let (parent, name) = match self.parent(relative, false) {
            Ok(found) => found,
            Err(StorageError::Missing(_)) => return Ok(None),
            Err(error) => return Err(error),
        };
        let dir = parent.as_ref().unwrap_or(&self.fd);
        let stat = match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(StorageError::new(&self.full(relative), errno)),
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Ok(Some(stat)),
            FileType::Symlink => Err(StorageError::Symlink(self.full(relative))),
            _ => Err(StorageError::NotAFile(self.full(relative))),
        }
    }

    /// Gives `from` the name `to`, both directly in the directory, at once.
    pub(crate) fn rename(&self, from: &Path, to: &Path) -> Result<(), StorageError> {
        rustix::fs::renameat(&self.fd, from, &self.fd, to)
            .map_err(|errno| StorageError::new(&self.full(to), errno))
    }

    /// Removes a name directly in the directory; one that is not there is removed already.
    pub(crate) fn unlink(&self, name: &Path) -> Result<(), StorageError> {
        match rustix::fs::unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(StorageError::new(&self.full(name), errno)),
        }
    }

    /// Makes renames and removals in the directory survive a power cut.
    pub(crate) fn sync(&self) -> Result<(), StorageError> {
        match rustix::fs::fsync(&self.fd) {
            // Some network file systems cannot, and need not.
            Ok(()) | Err(Errno::INVAL) => Ok(()),
            Err(errno) => Err(StorageError::new(&self.path, errno)),
        }
    }

    /// Bytes that an ordinary user can still store here.
    pub(crate) fn space(&self) -> Result<u64, StorageError> {
        let stat =
            rustix::fs::fstatvfs(&self.fd).map_err(|errno| StorageError::new(&self.path, errno))?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    /// The directory that `relative` lies in (`None`: this one) and its last component.
    fn parent<'a>(
        &self,
        relative: &'a Path,
        create: bool,
    ) -> Result<(Option<OwnedFd>, &'a Path), StorageError> {
        let mut dir: Option<OwnedFd> = None;
        let mut done = PathBuf::new();
        let mut components = relative.components().peekable();
        while let Some(component) = components.next() {
            let name = Path::new(component.as_os_str());
            if components.peek().is_none() {
                return Ok((dir, name));
            }
            done.push(name);
            let at = dir.as_ref().unwrap_or(&self.fd);
            let next = self.step(at, name, &done, create)?;
            dir = Some(next);
        }
        unreachable!("a layout has no empty path")
    }

    /// Enters, or makes and enters, the directory `name` of `at`.
    fn step(
        &self,
        at: &OwnedFd,
        name: &Path,
        done: &Path,
        create: bool,
    ) -> Result<OwnedFd, StorageError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = || rustix::fs::openat(at.as_fd(), name, flags, Mode::empty());
        let mut found = open();
        if create && matches!(found, Err(Errno::NOENT)) {
            match rustix::fs::mkdirat(at.as_fd(), name, Mode::from_raw_mode(0o777)) {
                Ok(()) | Err(Errno::EXIST) => found = open(),
                Err(errno) => found = Err(errno),
            }
        }
        found.map_err(|errno| {
            // O_DIRECTORY looks before O_NOFOLLOW does, so a link shows as ENOTDIR.
            let link = rustix::fs::statat(at.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW)
                .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink);
            let errno = if link { Errno::LOOP } else { errno };
            StorageError::new(&self.full(done), errno)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn check(found: Result<OwnedFd, StorageError>, expect: &str) {
        match found {
            Ok(_) => panic!("opened, expected {expect}"),
            Err(error) => assert!(format!("{error:?}").starts_with(expect), "{error:?}"),
        }
    }

    #[test]
    fn links_are_not_followed() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("secret"), "x").unwrap();
        let temp = tempfile::tempdir().unwrap();
        let link = |to: &Path, name: &str| {
            std::os::unix::fs::symlink(to, temp.path().join(name)).unwrap();
        };
        link(outside.path(), "dir");
        link(&outside.path().join("secret"), "file");
        link(&outside.path().join("new"), "dangling");
        let dir = Dir::open(temp.path()).unwrap();
        for how in [Open::Read, Open::Write, Open::Create] {
            check(dir.file(Path::new("dir/secret"), how), "Symlink");
            check(dir.file(Path::new("file"), how), "Symlink");
        }
        check(dir.file(Path::new("dangling"), Open::Create), "Symlink");
        check(dir.file(Path::new("dir/new/a"), Open::Create), "Symlink");
        assert!(matches!(dir.stat(Path::new("file")), Err(StorageError::Symlink(_))));
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_no_file_is_said_to_be_none() {
        let temp = tempfile::tempdir().unwrap();
        fs::create_dir(temp.path().join("d")).unwrap();
        fs::write(temp.path().join("f"), "x").unwrap();
        let fifo = temp.path().join("fifo");
        rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, Mode::from_raw_mode(0o600)).unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        check(dir.file(Path::new("d"), Open::Write), "NotAFile");
        check(dir.file(Path::new("fifo"), Open::Read), "NotAFile");
        check(dir.file(Path::new("f/x"), Open::Create), "NotADirectory");
        check(dir.file(Path::new("absent"), Open::Read), "Missing");
        check(dir.file(Path::new("absent/x"), Open::Write), "Missing");
        assert!(dir.stat(Path::new("absent/x")).unwrap().is_none());
    }

    #[test]
    fn a_directory_must_be_one() {
        let temp = tempfile::tempdir().unwrap();
        fs::write(temp.path().join("f"), "x").unwrap();
        assert!(matches!(Dir::open(&temp.path().join("absent")), Err(StorageError::DirMissing(_))));
        assert!(matches!(Dir::open(&temp.path().join("f")), Err(StorageError::NotADirectory(_))));
    }

    #[test]
    fn directories_on_the_way_are_made() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        dir.file(Path::new("a/b/c"), Open::Create).unwrap();
        assert!(temp.path().join("a/b/c").is_file());
    }
}
