//! What is there of a torrent already, found out before any peer is let in.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use torrent::Bitfield;
use torrent::metainfo::Metainfo;
use torrent::swarm::Role;

use crate::check::{self, MetainfoCheck, Progress};
use crate::storage::{Allocation, Layout, LayoutError, Prior, Storage, StorageError};

/// Where the bytes of a torrent are, or are to be.
#[derive(Clone, Debug)]
pub enum Place {
    /// Whole in this directory, to be seeded; nothing is written.
    Seed(PathBuf),
    /// In this directory, as far as they are there.
    Download(PathBuf, Allocation),
    /// In memory, nothing yet.
    Memory,
}

/// Why a torrent cannot run.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// Its files cannot be stored as it says.
    #[error("torrent {name:?} cannot be stored")]
    Layout {
        /// The torrent.
        name: String,
        /// Why.
        source: LayoutError,
    },
    /// Its files cannot be read or written.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// To be seeded, but not what the torrent says.
    #[error(
        "{}: {bad_count} of {piece_count} pieces of torrent {name:?} are corrupt{}; restore the file, or repair it with `torrent get`",
        path.display(), others(*other_files)
    )]
    Corrupt {
        /// The torrent.
        name: String,
        /// The first file that is wrong.
        path: PathBuf,
        /// How many other files are.
        other_files: usize,
        /// Pieces that are wrong.
        bad_count: u32,
        /// Pieces in all.
        piece_count: u32,
    },
    /// The check was cancelled.
    #[error("stopped while the files of {name:?} were checked")]
    Cancelled {
        /// The torrent.
        name: String,
    },
}

fn others(count: usize) -> String {
    match count {
        0 => String::new(),
        1 => " (and one more file is wrong)".to_owned(),
        _ => format!(" (and {count} more files are wrong)"),
    }
}

/// A torrent whose storage is open and checked.
#[derive(Debug)]
pub struct Prepared {
    metainfo: Metainfo,
    storage: Arc<Storage>,
    have: Bitfield,
    role: Role,
    lost_count: u32,
    web_seeds: Vec<String>,
}

impl Prepared {
    /// Opens the storage of a torrent and hashes, on `threads` threads, what must be hashed;
    /// `progress` is called after each piece. What is not good of a seed is an error, what is not
    /// good of a download will be downloaded.
    ///
    /// # Errors
    /// If the files cannot be read or written, a seed is not whole, or `cancel` became true.
    pub fn open(
        metainfo: Metainfo,
        place: &Place,
        threads: NonZeroUsize,
        cancel: &AtomicBool,
        progress: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<Self, SessionError> {
        let name = || metainfo.name().to_owned();
        let layout = Layout::try_from(&metainfo)
            .map_err(|source| SessionError::Layout { name: name(), source })?;
        let piece_count = metainfo.geometry().piece_count();
        let (storage, prior) = match place {
            Place::Seed(dir) => (Storage::seed(dir, layout)?, Prior::Existing),
            Place::Memory => (Storage::memory(layout)?, Prior::Fresh),
            Place::Download(dir, allocation) => {
                let hash = metainfo.info_hashes().last();
                let id = hash.as_ref().map_or(&[] as &[u8], |hash| hash.as_bytes());
                Storage::download(dir, layout, metainfo.name(), id, *allocation)?
            }
        };
        let to_check = prior.to_check(piece_count);
        let hashes = MetainfoCheck::new(&metainfo);
        let checked = check::check(&storage, &to_check, &hashes, threads, cancel, progress)?;
        if checked.cancelled {
            if let Prior::Closed(good) = &prior {
                // As it was: nothing has been written.
                storage.save(good, true)?;
            }
            return Err(SessionError::Cancelled { name: name() });
        }
        let (have, role) = (
            checked.good,
            match place {
                Place::Seed(_) => Role::Seed,
                Place::Download(..) | Place::Memory => Role::Leech,
            },
        );
        if let (Place::Seed(dir), false) = (place, have.is_full()) {
            return Err(corrupt(&metainfo, dir, storage.layout(), &have));
        }
        let lost_count = prior.lost_count(&have);
        let (storage, web_seeds) = (Arc::new(storage), vec![]);
        Ok(Self { metainfo, storage, have, role, lost_count, web_seeds })
    }

    /// A torrent to be seeded whose files the caller has hashed itself, as when it made the torrent
    /// of them: they are not hashed again. `storage` is from [`Storage::seed`], by which a file that
    /// is changed from then on is an error at the next read of it.
    #[must_use]
    pub fn hashed(metainfo: Metainfo, storage: Arc<Storage>) -> Self {
        let have = Bitfield::full(metainfo.geometry().piece_count());
        let web_seeds = vec![];
        Self { metainfo, storage, have, role: Role::Seed, lost_count: 0, web_seeds }
    }

    /// What it is.
    #[must_use]
    pub const fn metainfo(&self) -> &Metainfo {
        &self.metainfo
    }

    /// Where its bytes are.
    #[must_use]
    pub const fn storage(&self) -> &Arc<Storage> {
        &self.storage
    }

    /// Pieces that are there and verified.
    #[must_use]
    pub const fn have(&self) -> &Bitfield {
        &self.have
    }

    /// Their length in bytes, padding left out.
    #[must_use]
    pub fn have_len(&self) -> u64 {
        let geometry = self.metainfo.geometry();
        let pieces = self.have.iter().filter_map(|piece| geometry.piece(piece));
        pieces.map(|piece| u64::from(geometry.piece_data_len(piece))).sum()
    }

    /// Whether it is to be seeded.
    #[must_use]
    pub const fn role(&self) -> Role {
        self.role
    }

    /// Pieces that were good once and are no more: if any, somebody wrote to the files, or the disk
    /// has lost them.
    #[must_use]
    pub const fn lost_count(&self) -> u32 {
        self.lost_count
    }

    /// One more web seed (BEP 19), beside those of the metainfo; plain HTTP. One that is there already
    /// is passed over.
    pub fn add_web_seed(&mut self, url: String) {
        self.web_seeds.push(url);
    }

    /// The web seeds that were added.
    pub(super) fn web_seeds(&self) -> &[String] {
        &self.web_seeds
    }

    /// It never ran: leaves what can be resumed.
    pub(super) fn abandon(&self) {
        if self.role == Role::Leech
            && let Err(error) = self.storage.save(&self.have, true)
        {
            tracing::warn!(%error, "what is there cannot be noted");
        }
    }
}

/// A file with pieces that are not good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadFile {
    /// Index into [`Layout::files`].
    pub index: usize,
    /// How many of the pieces that it has a part in are not good.
    pub bad_count: u32,
}

/// The files of `layout` with pieces that are not in `good`, in order.
#[must_use]
pub fn bad_files(layout: &Layout, good: &Bitfield) -> Vec<BadFile> {
    let piece_len = u64::from(layout.piece_len());
    let bad = layout.files().iter().enumerate().filter_map(|(index, file)| {
        // Within the count of pieces, which is a u32.
        let pieces = (file.start / piece_len) as u32..file.end().div_ceil(piece_len) as u32;
        let bad_count = pieces.filter(|&piece| file.len > 0 && !good.contains(piece)).count();
        (bad_count > 0).then_some(BadFile { index, bad_count: bad_count as u32 })
    });
    bad.collect()
}

fn corrupt(metainfo: &Metainfo, dir: &Path, layout: &Layout, good: &Bitfield) -> SessionError {
    let bad = bad_files(layout, good);
    let path = match bad.first() {
        Some(file) => dir.join(&layout.files()[file.index].path),
        None => dir.join(metainfo.name()),
    };
    SessionError::Corrupt {
        name: metainfo.name().to_owned(),
        path,
        other_files: bad.len().saturating_sub(1),
        bad_count: good.len() - good.count(),
        piece_count: good.len(),
    }
}
