//! An open file and positional I/O on it: reads and writes whole runs of buffers, and notices when
//! the file is no longer the one that was verified.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::Stat;
use rustix::io::Errno;

use super::error::{Change, StorageError};

/// Buffers given to one system call; Linux takes 1024 (`UIO_MAXIOV`).
const IOV_MAX: usize = 1024;

/// An open file of a torrent. It stays open while anybody holds it, also when it has left the
/// bounded set of open files meanwhile, so that a `sendfile` under way is never cut.
#[derive(Clone, Debug)]
pub struct FileHandle(Arc<OpenFile>);

#[derive(Debug)]
struct OpenFile {
    fd: OwnedFd,
    path: PathBuf,
    /// What a file under a seed must stay; `None` while we write to it ourselves.
    stamp: Option<Stamp>,
}

/// What tells a file from a changed one without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    inode: (u64, u64),
    len: u64,
    modified: (i64, u64),
}

impl Stamp {
    pub(super) fn new(stat: &Stat) -> Self {
        Self {
            inode: (stat.st_dev, stat.st_ino),
            len: u64::try_from(stat.st_size).unwrap_or(0),
            modified: (stat.st_mtime, stat.st_mtime_nsec),
        }
    }

    pub(super) const fn len(&self) -> u64 {
        self.len
    }

    fn change_to(&self, now: &Self) -> Option<Change> {
        if self.inode != now.inode {
            Some(Change::Replaced)
        } else if now.len < self.len {
            Some(Change::Shrunk)
        } else if now.len != self.len {
            Some(Change::Len)
        } else if self.modified != now.modified {
            Some(Change::Modified)
        } else {
            None
        }
    }
}

impl AsFd for FileHandle {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.fd.as_fd()
    }
}

impl FileHandle {
    pub(super) fn new(fd: OwnedFd, path: PathBuf, stamp: Option<Stamp>) -> Self {
        Self(Arc::new(OpenFile { fd, path, stamp }))
    }

    /// The path, for people.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Whether the file still is what was verified. One `fstat`: 0.2 µs against the 3 µs that the
    /// hash of a block takes, so it is done at each read.
    ///
    /// # Errors
    /// If it was shortened, written to or replaced.
    pub fn check_unchanged(&self) -> Result<(), StorageError> {
        let Some(stamp) = self.0.stamp else {
            return Ok(());
        };
        match stamp.change_to(&Stamp::new(&self.stat()?)) {
            Some(what) => Err(self.changed(what)),
            None => Ok(()),
        }
    }

    pub(super) fn stat(&self) -> Result<Stat, StorageError> {
        rustix::fs::fstat(&self.0.fd).map_err(|errno| self.error(errno))
    }

    pub(super) fn error(&self, errno: Errno) -> StorageError {
        StorageError::new(&self.0.path, errno)
    }

    fn changed(&self, what: Change) -> StorageError {
        StorageError::Changed { path: self.0.path.clone(), what }
    }

    pub(super) fn read(&self, mut buf: &mut [u8], mut offset: u64) -> Result<(), StorageError> {
        self.check_unchanged()?;
        while !buf.is_empty() {
            match rustix::io::pread(&self.0.fd, &mut *buf, offset) {
                Ok(0) => return Err(self.changed(Change::Shrunk)),
                Ok(len) => {
                    buf = &mut buf[len..];
                    offset += len as u64;
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(self.error(errno)),
            }
        }
        Ok(())
    }

    pub(super) fn read_run(
        &self,
        mut bufs: &mut [IoSliceMut<'_>],
        mut offset: u64,
    ) -> Result<(), StorageError> {
        self.check_unchanged()?;
        IoSliceMut::advance_slices(&mut bufs, 0);
        while !bufs.is_empty() {
            let most = bufs.len().min(IOV_MAX);
            match rustix::io::preadv(&self.0.fd, &mut bufs[..most], offset) {
                Ok(0) => return Err(self.changed(Change::Shrunk)),
                Ok(len) => {
                    IoSliceMut::advance_slices(&mut bufs, len);
                    offset += len as u64;
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(self.error(errno)),
            }
        }
        Ok(())
    }

    pub(super) fn write(&self, mut buf: &[u8], mut offset: u64) -> Result<(), StorageError> {
        while !buf.is_empty() {
            match rustix::io::pwrite(&self.0.fd, buf, offset) {
                Ok(0) => return Err(self.error(Errno::IO)),
                Ok(len) => {
                    buf = &buf[len..];
                    offset += len as u64;
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(self.error(errno)),
            }
        }
        Ok(())
    }

    pub(super) fn write_run(
        &self,
        mut bufs: &mut [IoSlice<'_>],
        mut offset: u64,
    ) -> Result<(), StorageError> {
        IoSlice::advance_slices(&mut bufs, 0);
        while !bufs.is_empty() {
            let most = bufs.len().min(IOV_MAX);
            match rustix::io::pwritev(&self.0.fd, &bufs[..most], offset) {
                Ok(0) => return Err(self.error(Errno::IO)),
                Ok(len) => {
                    IoSlice::advance_slices(&mut bufs, len);
                    offset += len as u64;
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(self.error(errno)),
            }
        }
        Ok(())
    }

    /// Whether there is no data between `offset` and `offset + len`. Where the file system cannot
    /// tell, there is.
    pub(super) fn is_hole(&self, offset: u64, len: u64) -> bool {
        match rustix::fs::seek(&self.0.fd, rustix::fs::SeekFrom::Data(offset)) {
            Ok(data) => data >= offset + len,
            Err(Errno::NXIO) => true,
            Err(_) => false,
        }
    }

    pub(super) fn sync(&self) -> Result<(), StorageError> {
        rustix::fs::fdatasync(&self.0.fd).map_err(|errno| self.error(errno))
    }
}
