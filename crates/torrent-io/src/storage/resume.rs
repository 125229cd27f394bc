//! The file beside an unfinished torrent that says so, and which pieces were good when it was
//! written: `.NAME.boottorrent-resume`.
//!
//! Data is written under its final name, as aria2 and libtorrent do, so that a torrent of a
//! thousand files needs no thousand renames and anybody can look. What keeps an unfinished file
//! from being taken for a complete one is this file: it is there before the first byte of data and
//! goes only after the last is verified and synced. It is a hint and never a proof: whatever it
//! names is hashed again. After an orderly end (`closed`) the pieces that it does not name need no
//! hashing; after a crash all data is hashed, so that nothing that arrived since it was written is
//! lost. One that cannot be read, or is of another torrent, is as none.
//!
//! It is text, because somebody whose download hangs will look into it.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use torrent::Bitfield;

use super::beneath::{Dir, Open};
use super::error::StorageError;

const SUFFIX: &str = ".boottorrent-resume";
const NEW_SUFFIX: &str = ".boottorrent-resume.new";
const MAGIC: &str = "boottorrent-resume 1";

/// The longest file name of Linux file systems, in bytes.
const NAME_MAX: usize = 255;

/// The longest resume file that is read: 2^20 pieces are 2^18 hex digits.
const LEN_MAX: u64 = 512 << 10;

/// Whether a file of a torrent would be taken for one of ours.
pub(super) fn is_ours(path: &Path) -> bool {
    let name = path.as_os_str().as_encoded_bytes();
    name.ends_with(SUFFIX.as_bytes()) || name.ends_with(NEW_SUFFIX.as_bytes())
}

/// The resume file of one torrent.
#[derive(Debug)]
pub(super) struct ResumeFile {
    name: PathBuf,
    new: PathBuf,
    id: String,
}

/// What a resume file says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Resume {
    /// The last run ended in order: `good` is all there is.
    pub(super) closed: bool,
    /// Pieces that were verified.
    pub(super) good: Bitfield,
}

impl ResumeFile {
    /// `name` is the torrent's, `id` its infohash.
    pub(super) fn new(name: &str, id: &[u8]) -> Self {
        let id = hex(id);
        // A name that is too long, or no file name at all, gives way to the infohash.
        let fits = name.len() + 1 + NEW_SUFFIX.len() <= NAME_MAX && !name.contains(['/', '\0']);
        let stem = if fits { name } else { &id };
        Self {
            name: format!(".{stem}{SUFFIX}").into(),
            new: format!(".{stem}{NEW_SUFFIX}").into(),
            id,
        }
    }

    pub(super) fn read(&self, dir: &Dir, piece_count: u32) -> Result<Option<Resume>, StorageError> {
        let fd = match dir.file(&self.name, Open::Read) {
            Ok(fd) => fd,
            Err(StorageError::Missing(_)) => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut text = String::new();
        let file = std::fs::File::from(fd);
        let read =
            std::io::Read::read_to_string(&mut std::io::Read::take(file, LEN_MAX), &mut text);
        Ok(read.ok().and_then(|_| self.decode(&text, piece_count)))
    }

    /// Replaces the file at once: a crash leaves the old one or the new one.
    pub(super) fn write(&self, dir: &Dir, resume: &Resume) -> Result<(), StorageError> {
        let fd = dir.file(&self.new, Open::Truncate)?;
        let mut file = std::fs::File::from(fd);
        file.write_all(self.encode(resume).as_bytes()).and_then(|()| file.sync_data()).map_err(
            |error| match rustix::io::Errno::from_io_error(&error) {
                Some(errno) => StorageError::new(&dir.full(&self.new), errno),
                None => StorageError::Io { path: dir.full(&self.new), source: error },
            },
        )?;
        dir.rename(&self.new, &self.name)?;
        dir.sync()
    }

    pub(super) fn remove(&self, dir: &Dir) -> Result<(), StorageError> {
        dir.unlink(&self.new)?;
        dir.unlink(&self.name)?;
        dir.sync()
    }

    fn encode(&self, resume: &Resume) -> String {
        let closed = if resume.closed { "yes" } else { "no" };
        format!(
            "{MAGIC}\ntorrent {}\npieces {}\nclosed {closed}\ngood {}\n",
            self.id,
            resume.good.len(),
            hex(&resume.good.encode())
        )
    }

    fn decode(&self, text: &str, piece_count: u32) -> Option<Resume> {
        // The last line ends, or the file was cut.
        let mut lines = text.strip_suffix('\n')?.split('\n');
        let mut line = |key: &str| lines.next()?.strip_prefix(key);
        line(MAGIC).filter(|rest| rest.is_empty())?;
        line("torrent ").filter(|&id| id == self.id)?;
        line("pieces ").filter(|count| count.parse() == Ok(piece_count))?;
        let closed = line("closed ")? == "yes";
        let good = Bitfield::decode(&unhex(line("good ")?)?, piece_count).ok()?;
        Some(Resume { closed, good })
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let bytes = text.as_bytes().chunks(2);
    bytes
        .map(|pair| match pair {
            &[high, low] => u8::try_from(digit(high)? * 16 + digit(low)?).ok(),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resume(closed: bool) -> Resume {
        let mut good = Bitfield::new(11);
        good.insert(0);
        good.insert(10);
        Resume { closed, good }
    }

    #[test]
    fn what_is_written_is_read() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        let file = ResumeFile::new("image", &[0xab; 20]);
        assert_eq!(file.read(&dir, 11).unwrap(), None);
        for closed in [false, true] {
            file.write(&dir, &resume(closed)).unwrap();
            assert_eq!(file.read(&dir, 11).unwrap(), Some(resume(closed)));
        }
        assert!(temp.path().join(".image.boottorrent-resume").is_file());
        file.remove(&dir).unwrap();
        file.remove(&dir).unwrap();
        assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 0);
    }

    #[test]
    fn damaged_or_foreign_hints_are_as_none() {
        let file = ResumeFile::new("image", &[0xab; 20]);
        let text = file.encode(&resume(true));
        assert!(file.decode(&text, 11).is_some());
        for cut in 0..text.len() {
            assert_eq!(file.decode(&text[..cut], 11), None, "{cut}");
        }
        assert_eq!(file.decode(&text, 12), None);
        assert_eq!(file.decode(&text.replace("abab", "abac"), 11), None);
        assert_eq!(file.decode(&text.replace("resume 1", "resume 2"), 11), None);
        assert_eq!(file.decode(&text.replace("good ", "good g"), 11), None);
    }

    #[test]
    fn names_that_do_not_fit_give_way_to_the_infohash() {
        for name in ["a/b".to_owned(), "n".repeat(250)] {
            let file = ResumeFile::new(&name, &[1; 20]);
            assert!(file.name.starts_with(format!(".{}{SUFFIX}", "01".repeat(20))));
        }
    }

    #[test]
    fn a_planted_link_is_not_written_through() {
        let temp = tempfile::tempdir().unwrap();
        let victim = temp.path().join("victim");
        std::fs::write(&victim, "x").unwrap();
        let file = ResumeFile::new("image", &[1; 20]);
        std::os::unix::fs::symlink(&victim, temp.path().join(&file.new)).unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        let found = file.write(&dir, &resume(false));
        assert!(matches!(found, Err(StorageError::Symlink(_))), "{found:?}");
        assert_eq!(std::fs::read(&victim).unwrap(), b"x");
    }
}
