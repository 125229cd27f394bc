//! What was verified before, so that a seed need not read all its files again to say the same.
//!
//! A note has for each file of a torrent what a look at it tells: device, inode, length, times of
//! change of its data and of its inode. While all are the same the bytes are, but for three cases,
//! which a note excludes: a file that is written twice within one tick of the file system's clock
//! keeps its times, so what had changed only just before it was read is not noted; a machine that
//! crashed may have lost bytes and kept the times, so a note counts until the next boot; and the times
//! of a file can be set back, but not that of its inode. A disk that fails is no such case: its bytes
//! are refused by every node that they reach.
//!
//! Notes are a convenience: one that cannot be read or written costs the time to hash.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use std::{fs, io};

use rustix::fs::Stat;
use torrent::metainfo::Metainfo;

use crate::storage::Storage;

const MAGIC: &str = "boottorrent-verified 1";

/// How long a file must have been as it is. Linux counts time in ticks of at most 10 ms.
const SETTLED: Duration = Duration::from_millis(50);

/// The same where times are without a fraction: FAT keeps them to two seconds.
const SETTLED_COARSE: Duration = Duration::from_secs(3);

/// The longest note that is read: a hundred thousand files.
const LEN_MAX: u64 = 10 << 20;

/// Notes of what was verified, a file for each torrent.
#[derive(Clone, Debug)]
pub struct Notes {
    dir: PathBuf,
    boot_id: String,
}

impl Notes {
    /// Those in `dir`, which need not be there. `None` if the system does not say when it was booted.
    #[must_use]
    pub fn in_dir(dir: PathBuf) -> Option<Self> {
        let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        Some(Self { dir, boot_id: boot_id.trim().to_owned() })
    }

    /// Whether the files of a seed are as they were when they were verified last.
    #[must_use]
    pub fn know(&self, metainfo: &Metainfo, storage: &Storage) -> bool {
        let Ok(stats) = storage.stats() else { return false };
        let read = || -> io::Result<String> {
            let mut text = String::new();
            let file = fs::File::open(self.path(metainfo))?;
            io::Read::read_to_string(&mut io::Read::take(file, LEN_MAX), &mut text)?;
            Ok(text)
        };
        read().is_ok_and(|text| text == self.encode(&stats))
    }

    /// Notes that the files of a seed are what the torrent says; `began` is before the first byte of
    /// them was read. What changed since, or only just before, is not noted.
    pub fn keep(&self, metainfo: &Metainfo, storage: &Storage, began: SystemTime) {
        let kept = storage.stats().map_err(io::Error::other).and_then(|stats| {
            if !stats.iter().all(|stat| is_settled(stat, began)) {
                return Ok(());
            }
            self.write(&self.path(metainfo), &self.encode(&stats))
        });
        if let Err(error) = kept {
            tracing::debug!(%error, dir = %self.dir.display(), "what was verified cannot be noted");
        }
    }

    fn path(&self, metainfo: &Metainfo) -> PathBuf {
        let hash = metainfo.info_hashes().last().map(|hash| hash.to_string());
        self.dir.join(hash.unwrap_or_default())
    }

    fn encode(&self, stats: &[Stat]) -> String {
        let mut text = format!("{MAGIC}\nboot {}\n", self.boot_id);
        for stat in stats {
            let _ = writeln!(
                text,
                "file {} {} {} {}.{:09} {}.{:09}",
                stat.st_dev,
                stat.st_ino,
                stat.st_size,
                stat.st_mtime,
                stat.st_mtime_nsec,
                stat.st_ctime,
                stat.st_ctime_nsec,
            );
        }
        text
    }

    fn write(&self, path: &Path, text: &str) -> io::Result<()> {
        fs::create_dir_all(&self.dir)?;
        self.forget_other_boots()?;
        let new = path.with_extension("new");
        fs::File::create(&new)?.write_all(text.as_bytes())?;
        fs::rename(&new, path)
    }

    /// Notes from before the last boot are worth nothing, and nobody else removes them.
    fn forget_other_boots(&self) -> io::Result<()> {
        let ours = format!("{MAGIC}\nboot {}\n", self.boot_id);
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            let mut head = vec![];
            let file = fs::File::open(&path)?;
            io::Read::read_to_end(&mut io::Read::take(file, ours.len() as u64), &mut head)?;
            if head.starts_with(MAGIC.as_bytes()) && head != ours.as_bytes() {
                fs::remove_file(&path)?;
            }
        }
        Ok(())
    }
}

/// Whether a file had been as it is for so long that another change would show.
fn is_settled(stat: &Stat, began: SystemTime) -> bool {
    let since_epoch = began.duration_since(UNIX_EPOCH).unwrap_or_default();
    let times = [(stat.st_mtime, stat.st_mtime_nsec), (stat.st_ctime, stat.st_ctime_nsec)];
    times.into_iter().all(|(seconds, nanos)| {
        let settled = if nanos == 0 { SETTLED_COARSE } else { SETTLED };
        let Ok(seconds) = u64::try_from(seconds) else { return false };
        Duration::from_secs(seconds) + Duration::from_nanos(nanos) + settled <= since_epoch
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::create::create;
    use crate::storage::Layout;
    use std::num::NonZeroUsize;
    use torrent::metainfo::create::Spec;

    struct Seed {
        temp: tempfile::TempDir,
        metainfo: Metainfo,
        notes: Notes,
    }

    impl Seed {
        /// A seed whose file was verified long after it was written.
        fn verified() -> Self {
            let temp = tempfile::tempdir().unwrap();
            fs::write(temp.path().join("image"), b"some bytes").unwrap();
            let bytes =
                create(&temp.path().join("image"), Spec::default(), NonZeroUsize::MIN, &|_, _| {});
            let metainfo = Metainfo::decode(&bytes.unwrap()).unwrap();
            let notes = Notes::in_dir(temp.path().join("notes")).unwrap();
            let seed = Self { temp, metainfo, notes };
            seed.keep(SystemTime::now() + Duration::from_secs(10));
            seed
        }

        fn storage(&self) -> Storage {
            Storage::seed(self.temp.path(), Layout::try_from(&self.metainfo).unwrap()).unwrap()
        }

        fn keep(&self, began: SystemTime) {
            self.notes.keep(&self.metainfo, &self.storage(), began);
        }

        fn is_known(&self) -> bool {
            self.notes.know(&self.metainfo, &self.storage())
        }
    }

    #[test]
    fn what_was_verified_and_is_as_it_was_is_known() {
        let seed = Seed::verified();
        assert!(seed.is_known());
        let nobody = Notes::in_dir(seed.temp.path().join("none")).unwrap();
        assert!(!nobody.know(&seed.metainfo, &seed.storage()));
    }

    #[test]
    fn a_change_is_seen_even_if_its_time_is_set_back() {
        let seed = Seed::verified();
        let path = seed.temp.path().join("image");
        let before = fs::metadata(&path).unwrap().modified().unwrap();
        // The inode's time must move, and ticks are what it moves by.
        loop {
            fs::write(&path, b"other byte").unwrap();
            fs::File::options().write(true).open(&path).unwrap().set_modified(before).unwrap();
            if !seed.is_known() {
                break;
            }
        }
        assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), before);
    }

    #[test]
    fn another_file_of_that_name_is_not_known() {
        let seed = Seed::verified();
        fs::write(seed.temp.path().join("new"), b"some bytes").unwrap();
        fs::rename(seed.temp.path().join("new"), seed.temp.path().join("image")).unwrap();
        assert!(!seed.is_known());
    }

    #[test]
    fn what_changed_while_it_was_read_or_just_before_is_not_noted() {
        let seed = Seed::verified();
        fs::remove_dir_all(seed.temp.path().join("notes")).unwrap();
        let changed = fs::metadata(seed.temp.path().join("image")).unwrap().modified().unwrap();
        seed.keep(changed - Duration::from_secs(1));
        assert!(!seed.is_known());
        seed.keep(changed + SETTLED / 2);
        assert!(!seed.is_known());
    }

    #[test]
    fn notes_of_another_boot_count_for_nothing_and_are_removed() {
        let mut seed = Seed::verified();
        seed.notes.boot_id = "another".to_owned();
        assert!(!seed.is_known());
        let old = seed.notes.path(&seed.metainfo).with_extension("old");
        fs::copy(seed.notes.path(&seed.metainfo), &old).unwrap();
        seed.keep(SystemTime::now() + Duration::from_secs(10));
        assert!(seed.is_known());
        assert!(!old.exists());
    }
}
