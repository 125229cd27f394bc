//! A torrent in a directory: made sparse or preallocated while it downloads, read-only and watched
//! for changes while it seeds, with a bounded number of open descriptors.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{FallocateFlags, Stat};
use rustix::io::Errno;
use torrent::Bitfield;

use super::beneath::{Dir, Open};
use super::error::{Change, StorageError};
use super::handle::{FileHandle, Stamp};
use super::layout::Layout;
use super::resume::{Resume, ResumeFile};

/// Descriptors that one torrent keeps open. A swarm moves through a few files at a time, so more
/// would save nothing, and a server that seeds ten torrents stays far below the usual 1024.
pub const OPEN_FILES_MAX: usize = 64;

/// How room is made for a download.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Allocation {
    /// Files grow as blocks arrive; holes cost nothing, a disk may fill up in mid-run.
    #[default]
    Sparse,
    /// All room is taken at the start, where the file system can; else as `Sparse`.
    Preallocate,
}

/// What was there before a download started, which says what is worth hashing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prior {
    /// Nothing.
    Fresh,
    /// An earlier run, ended in order with these pieces good.
    Closed(Bitfield),
    /// An earlier run that ended in a crash some time after these pieces were good.
    Crashed(Bitfield),
    /// Files of the right lengths, and nobody knows from where.
    Existing,
}

impl Prior {
    /// The pieces to hash before the download goes on; holes among them cost nothing.
    #[must_use]
    pub fn to_check(&self, piece_count: u32) -> Bitfield {
        match self {
            Self::Fresh => Bitfield::new(piece_count),
            Self::Closed(good) => good.clone(),
            Self::Crashed(_) | Self::Existing => Bitfield::full(piece_count),
        }
    }

    /// How many of the pieces that were good once are not in `good` any more: if any, somebody
    /// wrote to the files, or the disk lost what it had promised to keep.
    #[must_use]
    pub fn lost_count(&self, good: &Bitfield) -> u32 {
        match self {
            Self::Fresh | Self::Existing => 0,
            Self::Closed(were) | Self::Crashed(were) => {
                were.iter().filter(|&piece| !good.contains(piece)).count() as u32
            }
        }
    }
}

#[derive(Debug)]
pub(super) struct Files {
    dir: Dir,
    resume: Option<ResumeFile>,
    open: Mutex<OpenFiles>,
}

#[derive(Debug, Default)]
struct OpenFiles {
    /// By index of the file, with the time of its last use.
    files: BTreeMap<usize, (FileHandle, u64)>,
    uses: u64,
    /// What each file must stay, once it is read-only.
    stamps: Option<Vec<Stamp>>,
}

impl Files {
    pub(super) fn seed(dir: &Path, layout: &Layout) -> Result<Self, StorageError> {
        let files = Self { dir: Dir::open(dir)?, resume: None, open: Mutex::default() };
        files.lock().stamps = Some(files.stamps(layout)?);
        // As many as stay open: a file that somebody replaces by another or deletes is still seeded.
        for index in 0..layout.files().len().min(OPEN_FILES_MAX) {
            files.handle(layout, index, false)?;
        }
        Ok(files)
    }

    pub(super) fn download(
        dir: &Path,
        layout: &Layout,
        name: &str,
        id: &[u8],
        allocation: Allocation,
    ) -> Result<(Self, Prior), StorageError> {
        let dir = Dir::open(dir)?;
        let resume = ResumeFile::new(name, id);
        let before = resume.read(&dir, layout.piece_count())?;
        let found = survey(&dir, layout, before.is_some())?;
        check_space(&dir, layout, &found)?;

        let prior = match before {
            Some(Resume { closed: true, good }) => Prior::Closed(good),
            Some(Resume { good, .. }) => Prior::Crashed(good),
            None if found.iter().any(Option::is_some) => Prior::Existing,
            None => Prior::Fresh,
        };
        // Before the first file: from here on nothing in the directory looks complete.
        let good = match &prior {
            Prior::Closed(good) | Prior::Crashed(good) => good.clone(),
            Prior::Fresh | Prior::Existing => Bitfield::new(layout.piece_count()),
        };
        let files = Self { dir, resume: Some(resume), open: Mutex::default() };
        files.save(good, false)?;
        for (index, found) in found.iter().enumerate() {
            files.create(layout, index, found.as_ref(), allocation)?;
        }
        files.dir.sync()?;
        Ok((files, prior))
    }

    /// The file of that index, to write to or only to read.
    pub(super) fn handle(
        &self,
        layout: &Layout,
        index: usize,
        write: bool,
    ) -> Result<FileHandle, StorageError> {
        let mut open = self.lock();
        if write && open.stamps.is_some() {
            return Err(StorageError::Complete);
        }
        open.uses += 1;
        let now = open.uses;
        if let Some((file, used)) = open.files.get_mut(&index) {
            *used = now;
            return Ok(file.clone());
        }
        let stamp = open.stamps.as_ref().map(|stamps| stamps[index]);
        let how = if stamp.is_some() { Open::Read } else { Open::Write };
        let path = &layout.files()[index].path;
        let fd = self.dir.file(path, how)?;
        let file = FileHandle::new(fd, self.dir.full(path), stamp);
        file.check_unchanged()?;
        open.insert(index, file.clone());
        Ok(file)
    }

    pub(super) fn save(&self, good: Bitfield, closed: bool) -> Result<(), StorageError> {
        match &self.resume {
            Some(resume) => resume.write(&self.dir, &Resume { closed, good }),
            None => Ok(()),
        }
    }

    pub(super) fn complete(&self, layout: &Layout) -> Result<(), StorageError> {
        if self.lock().stamps.is_some() {
            return Ok(());
        }
        for index in 0..layout.files().len() {
            self.handle(layout, index, true)?.sync()?;
        }
        let stamps = self.stamps(layout)?;
        {
            let mut open = self.lock();
            open.files.clear();
            open.stamps = Some(stamps);
        }
        match &self.resume {
            Some(resume) => resume.remove(&self.dir),
            None => Ok(()),
        }
    }

    fn create(
        &self,
        layout: &Layout,
        index: usize,
        found: Option<&Stat>,
        allocation: Allocation,
    ) -> Result<(), StorageError> {
        let span = &layout.files()[index];
        let fd = self.dir.file(&span.path, Open::Create)?;
        let file = FileHandle::new(fd, self.dir.full(&span.path), None);
        if found.is_none_or(|stat| file_len(stat) != span.len) {
            rustix::fs::ftruncate(&file, span.len).map_err(|errno| file.error(errno))?;
        }
        if allocation == Allocation::Preallocate && span.len > 0 {
            match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, span.len) {
                Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
                Err(errno) => return Err(file.error(errno)),
            }
        }
        self.lock().insert(index, file);
        Ok(())
    }

    /// What the files are now; each must be there with the length of the metainfo.
    fn stamps(&self, layout: &Layout) -> Result<Vec<Stamp>, StorageError> {
        let stamps = layout.files().iter().map(|span| {
            let path = self.dir.full(&span.path);
            let stamp = match self.dir.stat(&span.path)? {
                Some(stat) => Stamp::new(&stat),
                None => return Err(StorageError::Missing(path)),
            };
            if stamp.len() == span.len {
                Ok(stamp)
            } else if self.resume.is_some() {
                let what = Change::Len;
                Err(StorageError::Changed { path, what })
            } else {
                Err(wrong_len(path, span.len, stamp.len()))
            }
        });
        stamps.collect()
    }

    fn lock(&self) -> MutexGuard<'_, OpenFiles> {
        // Nothing in there is left half done by a panic.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(super) fn open_count(&self) -> usize {
        self.lock().files.len()
    }

    /// Puts another descriptor in place of a file, so that a test can have a full disk.
    #[cfg(test)]
    pub(super) fn replace(&self, index: usize, file: FileHandle) {
        self.lock().insert(index, file);
    }
}

impl OpenFiles {
    fn insert(&mut self, index: usize, file: FileHandle) {
        if self.files.len() >= OPEN_FILES_MAX
            && let Some((&oldest, _)) = self.files.iter().min_by_key(|(_, (_, used))| *used)
        {
            self.files.remove(&oldest);
        }
        self.files.insert(index, (file, self.uses));
    }
}

/// What is there of each file already. Without a resume file a file of another length was not made
/// by us, and overwriting it could destroy what somebody still needs; with one it may be short. A
/// longer one is refused always: nobody knows what its end is.
fn survey(dir: &Dir, layout: &Layout, ours: bool) -> Result<Vec<Option<Stat>>, StorageError> {
    let found = layout.files().iter().map(|span| {
        let found = dir.stat(&span.path)?;
        match found.as_ref().map(file_len) {
            Some(len) if len > span.len || (len < span.len && !ours) => {
                Err(wrong_len(dir.full(&span.path), span.len, len))
            }
            _ => Ok(found),
        }
    });
    found.collect()
}

fn check_space(dir: &Dir, layout: &Layout, found: &[Option<Stat>]) -> Result<(), StorageError> {
    let needed = layout
        .files()
        .iter()
        .zip(found)
        .map(|(span, found)| {
            // st_blocks counts 512 bytes whatever the file system's own blocks are.
            let stored = found.as_ref().map_or(0, |stat| stat.st_blocks * 512);
            span.len.saturating_sub(u64::try_from(stored).unwrap_or(0))
        })
        .fold(0, u64::saturating_add);
    let available = dir.space()?;
    if needed > available {
        return Err(StorageError::NoSpace { dir: dir.path().to_owned(), needed, available });
    }
    Ok(())
}

fn file_len(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or(0)
}

fn wrong_len(path: std::path::PathBuf, expected: u64, found: u64) -> StorageError {
    StorageError::WrongLen { path, expected, found }
}
