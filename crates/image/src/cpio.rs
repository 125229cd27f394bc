//! Archives that the kernel unpacks into its first file system: cpio, form `newc` (Linux,
//! Documentation/driver-api/early-userspace/buffer-format.rst).
//!
//! The same content makes the same bytes: entries are sorted by path, belong to root, and date from
//! 1970; inodes are counted.

use std::collections::BTreeMap;
use std::io::{self, Write};

use ::cpio::newc;

/// Type bits of a mode (inode(7)).
const DIRECTORY: u32 = 0o040_000;
const CHAR_DEVICE: u32 = 0o020_000;
const REGULAR: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;

/// The most bytes of a path: `PATH_MAX` of Linux is 4096 with the NUL, and the kernel passes over
/// entries with longer names.
pub const PATH_LEN_MAX: usize = 4095;

/// What is to be packed. Built up in memory, since archives of this kind live in memory anyway.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Archive {
    /// By path, so that folders come before what is in them.
    entries: BTreeMap<String, Entry>,
}

/// What is at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A folder, mode 0755.
    Directory,
    /// A file, mode 0755 or 0644.
    File {
        /// What is in it.
        bytes: Vec<u8>,
        /// Whether it is a program.
        executable: bool,
    },
    /// A symbolic link to this path.
    Symlink(String),
    /// A character device.
    CharDevice {
        /// Its driver.
        major: u32,
        /// The driver's number for it.
        minor: u32,
        /// Who may use it, such as 0o600.
        permissions: u32,
    },
}

/// Why an entry cannot be in an archive.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CpioError {
    /// The path is empty, absolute, too long, or leads elsewhere.
    #[error("`{0}` is no path within an archive: write it relative, without `.` and `..`")]
    Path(String),
    /// Two entries for one path.
    #[error("`{0}` is in the archive already")]
    Twice(String),
    /// Something is to be in what is no folder.
    #[error("`{0}` is no folder, and something is to be in it")]
    NotADirectory(String),
    /// The form has 32 bits for a length.
    #[error("`{path}` has {len} bytes, more than the archive's form can hold")]
    TooLong {
        /// The file.
        path: String,
        /// Its bytes.
        len: usize,
    },
}

impl Archive {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a file that is no program.
    ///
    /// # Errors
    /// As [`Archive::add`].
    pub fn add_file(&mut self, path: &str, bytes: impl Into<Vec<u8>>) -> Result<(), CpioError> {
        self.add(path, Entry::File { bytes: bytes.into(), executable: false })
    }

    /// Adds an entry, and the folders above it. A folder may be added again.
    ///
    /// # Errors
    /// If the path cannot be, is taken, or is below something that is no folder.
    pub fn add(&mut self, path: &str, entry: Entry) -> Result<(), CpioError> {
        check_path(path)?;
        if let Entry::File { bytes, .. } = &entry
            && u32::try_from(bytes.len()).is_err()
        {
            return Err(CpioError::TooLong { path: path.to_owned(), len: bytes.len() });
        }
        for (end, _) in path.match_indices('/') {
            let parent = &path[..end];
            match self.entries.get(parent) {
                Some(Entry::Directory) => {}
                Some(_) => return Err(CpioError::NotADirectory(parent.to_owned())),
                None => drop(self.entries.insert(parent.to_owned(), Entry::Directory)),
            }
        }
        match self.entries.get(path) {
            Some(Entry::Directory) if entry == Entry::Directory => Ok(()),
            Some(_) => Err(CpioError::Twice(path.to_owned())),
            None => {
                self.entries.insert(path.to_owned(), entry);
                Ok(())
            }
        }
    }

    /// What is in it, by path.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.entries.iter().map(|(path, entry)| (path.as_str(), entry))
    }

    /// Writes it, trailer and all. Its length is a multiple of four, so that another archive can
    /// follow.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write<W: Write>(&self, mut out: W) -> io::Result<W> {
        for (inode, (path, entry)) in (1..).zip(&self.entries) {
            let builder = newc::Builder::new(path).ino(inode);
            let (builder, bytes): (_, &[u8]) = match entry {
                Entry::Directory => (builder.mode(DIRECTORY | 0o755).nlink(2), b""),
                Entry::File { bytes, executable } => {
                    let permissions = if *executable { 0o755 } else { 0o644 };
                    (builder.mode(REGULAR | permissions), bytes)
                }
                Entry::Symlink(target) => (builder.mode(SYMLINK | 0o777), target.as_bytes()),
                Entry::CharDevice { major, minor, permissions } => {
                    let builder = builder.mode(CHAR_DEVICE | permissions);
                    (builder.rdev_major(*major).rdev_minor(*minor), b"")
                }
            };
            let len = u32::try_from(bytes.len()).map_err(io::Error::other)?;
            let mut file = builder.write(out, len);
            file.write_all(bytes)?;
            out = file.finish()?;
        }
        newc::trailer(out)
    }

    /// The bytes of the archive.
    ///
    /// # Errors
    /// None that memory does not give.
    pub fn encode(&self) -> io::Result<Vec<u8>> {
        self.write(Vec::new())
    }
}

fn check_path(path: &str) -> Result<(), CpioError> {
    let good = |name: &str| !matches!(name, "" | "." | "..");
    if path.len() > PATH_LEN_MAX || path.contains('\0') || !path.split('/').all(good) {
        return Err(CpioError::Path(path.chars().take(80).collect()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    /// Path, mode, content of each entry, read back.
    fn list(mut bytes: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let mut found = vec![];
        loop {
            let mut reader = newc::Reader::new(bytes).unwrap();
            let entry = reader.entry().clone();
            if entry.is_trailer() {
                return found;
            }
            let mut content = vec![];
            reader.read_to_end(&mut content).unwrap();
            assert_eq!((entry.uid(), entry.gid(), entry.mtime()), (0, 0, 0), "{}", entry.name());
            assert_eq!(entry.ino() as usize, found.len() + 1);
            found.push((entry.name().to_owned(), entry.mode(), content));
            bytes = reader.finish().unwrap();
        }
    }

    fn sample() -> Archive {
        let mut archive = Archive::new();
        archive.add("bin/sh", Entry::Symlink("busybox".to_owned())).unwrap();
        archive.add_file("a/b/c", *b"hello").unwrap();
        let program = Entry::File { bytes: b"\x7fELF".to_vec(), executable: true };
        archive.add("init", program).unwrap();
        archive
            .add("dev/console", Entry::CharDevice { major: 5, minor: 1, permissions: 0o600 })
            .unwrap();
        archive
    }

    #[test]
    fn folders_come_before_what_is_in_them() {
        let names: Vec<_> = sample().entries().map(|(path, _)| path.to_owned()).collect();
        assert_eq!(names, ["a", "a/b", "a/b/c", "bin", "bin/sh", "dev", "dev/console", "init"]);
    }

    #[test]
    fn what_was_added_is_read_back() {
        let bytes = sample().encode().unwrap();
        let entries = list(&bytes);
        let find = |name| entries.iter().find(|(path, ..)| path == name).unwrap().clone();
        assert_eq!(find("a/b/c"), ("a/b/c".to_owned(), 0o100_644, b"hello".to_vec()));
        assert_eq!(find("bin"), ("bin".to_owned(), 0o040_755, vec![]));
        assert_eq!(find("bin/sh"), ("bin/sh".to_owned(), 0o120_777, b"busybox".to_vec()));
        assert_eq!(find("init").1, 0o100_755);
        assert_eq!(find("dev/console").1, 0o020_600);
    }

    #[test]
    fn devices_have_their_numbers() {
        let mut archive = Archive::new();
        archive.add("null", Entry::CharDevice { major: 1, minor: 3, permissions: 0o666 }).unwrap();
        let bytes = archive.encode().unwrap();
        let reader = newc::Reader::new(bytes.as_slice()).unwrap();
        assert_eq!((reader.entry().rdev_major(), reader.entry().rdev_minor()), (1, 3));
    }

    #[test]
    fn order_of_adding_does_not_show() {
        let mut other = Archive::new();
        for (path, entry) in sample().entries().collect::<Vec<_>>().into_iter().rev() {
            other.add(path, entry.clone()).unwrap();
        }
        assert_eq!(other.encode().unwrap(), sample().encode().unwrap());
    }

    #[test]
    fn another_archive_can_follow() {
        for len in 0..5 {
            let mut archive = Archive::new();
            archive.add_file("x", vec![b'x'; len]).unwrap();
            assert_eq!(archive.encode().unwrap().len() % 4, 0, "{len}");
        }
    }

    #[test]
    fn paths_that_lead_elsewhere_are_refused() {
        let mut archive = Archive::new();
        for path in ["", "/init", "../x", "a/../b", "a//b", "a/", "./a", "a\0b"] {
            let error = archive.add_file(path, *b"").unwrap_err();
            assert!(matches!(error, CpioError::Path(_)), "{path}: {error}");
        }
        let longest = "x".repeat(PATH_LEN_MAX);
        assert!(archive.add_file(&longest, *b"").is_ok());
        assert!(archive.add_file(&format!("{longest}x"), *b"").is_err());
    }

    #[test]
    fn a_path_is_taken_once() {
        let mut archive = sample();
        assert_eq!(archive.add_file("init", *b""), Err(CpioError::Twice("init".to_owned())));
        assert_eq!(archive.add("bin", Entry::Directory), Ok(()));
        assert_eq!(archive.add_file("bin", *b""), Err(CpioError::Twice("bin".to_owned())));
        assert_eq!(
            archive.add_file("init/x", *b""),
            Err(CpioError::NotADirectory("init".to_owned()))
        );
    }
}
