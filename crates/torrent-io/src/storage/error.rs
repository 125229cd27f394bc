//! What can go wrong between the bytes of a torrent and where they live: each case names the path
//! and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::layout::OutOfRange;

/// Why bytes cannot be stored or read.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The directory to store in, or to seed from, is not there.
    #[error("{}: no such directory; create it, or name another with --dir", .0.display())]
    DirMissing(PathBuf),
    /// A file is where a directory must be.
    #[error("{}: not a directory; move it away, or name another directory with --dir", .0.display())]
    NotADirectory(PathBuf),
    /// A file of the torrent is not there.
    #[error("{}: the file is missing; is --dir the directory that holds it?", .0.display())]
    Missing(PathBuf),
    /// Links are never followed: a torrent must not reach outside its directory.
    #[error("{}: a symbolic link; put the file itself there", .0.display())]
    Symlink(PathBuf),
    /// A device, socket or directory is where a file must be.
    #[error("{}: not a regular file; move it away", .0.display())]
    NotAFile(PathBuf),
    /// An existing file is not of this torrent.
    #[error(
        "{}: the file has {found} bytes where the torrent has {expected}; move it away, or check that it is of this torrent",
        path.display()
    )]
    WrongLen {
        /// The file.
        path: PathBuf,
        /// Bytes by the metainfo.
        expected: u64,
        /// Bytes on disk.
        found: u64,
    },
    /// Known before the start.
    #[error(
        "{}: {} more bytes are needed ({needed} to store, {available} free); free some space, or name another directory with --dir",
        dir.display(), needed - available
    )]
    NoSpace {
        /// The directory.
        dir: PathBuf,
        /// Bytes still to be stored.
        needed: u64,
        /// Bytes that the file system has for us.
        available: u64,
    },
    /// Known before the start.
    #[error(
        "the image needs {} more bytes of memory ({needed} to store, {available} free); boot it on a node with more memory",
        needed - available
    )]
    NoMemory {
        /// Bytes to be stored.
        needed: u64,
        /// Bytes that the kernel can give without killing anybody.
        available: u64,
    },
    /// More files than descriptors (a memory file exists only as long as it is open).
    #[error("{found} files: at most {max} can be held in memory")]
    TooManyFiles {
        /// How many there are.
        found: usize,
        /// The limit.
        max: usize,
    },
    /// ENOSPC or EDQUOT in mid-run: somebody else took the space.
    #[error("{}: the disk or quota is full; free some space and start again, what is verified is kept", .0.display())]
    Full(PathBuf),
    /// EFBIG: a limit of the file system or of the process.
    #[error("{}: the file system or `ulimit -f` does not allow files of that length", .0.display())]
    TooLong(PathBuf),
    /// EROFS.
    #[error("{}: the file system is read-only; remount it, or name another directory with --dir", .0.display())]
    ReadOnly(PathBuf),
    /// EACCES or EPERM.
    #[error("{}: permission denied; check the owner and mode of the path", .0.display())]
    Denied(PathBuf),
    /// EIO.
    #[error("{}: the disk reports an I/O error; check it (dmesg) before trusting its data", .0.display())]
    Medium(PathBuf),
    /// The file is not the one that was verified.
    #[error("{}: {what} since it was verified; verify it and start again", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
        /// What is different.
        what: Change,
    },
    /// A write after [`Storage::complete`](super::Storage::complete), or to a seed.
    #[error("the torrent is complete: nothing can be written any more")]
    Complete,
    /// A range that the torrent does not have.
    #[error(transparent)]
    OutOfRange(#[from] OutOfRange),
    /// Anything else.
    #[error("{}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// How a file differs from what was verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It ends early.
    Shrunk,
    /// Its length is another.
    Len,
    /// Somebody wrote to it.
    Modified,
    /// Another file has its name.
    Replaced,
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Shrunk => "the file has shrunk",
            Self::Len => "the length of the file has changed",
            Self::Modified => "the file was modified",
            Self::Replaced => "the file was replaced by another",
        })
    }
}

impl StorageError {
    /// Names `path` in what the kernel said.
    pub(crate) fn new(path: &Path, errno: Errno) -> Self {
        let path = path.to_owned();
        match errno {
            Errno::NOSPC | Errno::DQUOT => Self::Full(path),
            Errno::FBIG => Self::TooLong(path),
            Errno::ROFS => Self::ReadOnly(path),
            Errno::ACCESS | Errno::PERM => Self::Denied(path),
            Errno::IO => Self::Medium(path),
            Errno::NOENT => Self::Missing(path),
            Errno::NOTDIR => Self::NotADirectory(path),
            Errno::LOOP => Self::Symlink(path),
            Errno::ISDIR | Errno::NXIO => Self::NotAFile(path),
            other => Self::Io { path, source: other.into() },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_path_and_what_to_do() {
        for errno in [
            Errno::NOSPC,
            Errno::DQUOT,
            Errno::FBIG,
            Errno::ROFS,
            Errno::ACCESS,
            Errno::IO,
            Errno::NOENT,
            Errno::NOTDIR,
            Errno::LOOP,
            Errno::ISDIR,
        ] {
            let said = StorageError::new(Path::new("/x/image"), errno).to_string();
            assert!(said.starts_with("/x/image: "), "{said}");
            assert!(said.contains(';') || said.contains("ulimit"), "{said}");
        }
    }

    #[test]
    fn missing_space_is_said_in_bytes() {
        let said = StorageError::NoSpace { dir: "/x".into(), needed: 100, available: 30 };
        assert!(said.to_string().starts_with("/x: 70 more bytes are needed"));
    }
}
