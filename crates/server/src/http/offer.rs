//! What is on offer over HTTP at one moment: one published state of the lab, whole.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use boot::{ImageName, ImagePath};
use torrent::metainfo::Metainfo;
use torrent_io::storage::{Layout, LayoutError, Storage, StorageError};

use super::files::Served;

/// The files of one image, as they were when its torrent was made.
#[derive(Clone, Debug)]
pub(crate) struct ImageFiles {
    storage: Arc<Storage>,
    /// Of each path within the image's folder, its index in the storage and its length.
    files: Arc<BTreeMap<String, (usize, u64)>>,
    /// In hexadecimal.
    infohash: String,
}

/// Why an image cannot be served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OfferError {
    #[error("the image `{name}` cannot be stored as its torrent says")]
    Layout { name: String, source: LayoutError },
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl ImageFiles {
    /// The files of the torrent `metainfo`, which lie in the folder of its name in `dir`. From here
    /// on a file that is changed is an error at the next read of it.
    ///
    /// # Errors
    /// If a file is missing or has another length.
    pub(crate) fn open(dir: &Path, metainfo: &Metainfo) -> Result<Self, OfferError> {
        let name = metainfo.name();
        let refuse = |source| OfferError::Layout { name: name.to_owned(), source };
        let layout = Layout::try_from(metainfo).map_err(refuse)?;
        let files = layout.files().iter().enumerate().filter_map(|(index, file)| {
            let path = file.path.strip_prefix(name).ok()?.to_str()?;
            Some((path.to_owned(), (index, file.len)))
        });
        let files = Arc::new(files.collect());
        let infohash = metainfo.info_hashes().last();
        let infohash = infohash.map(|hash| hash.to_string()).unwrap_or_default();
        Ok(Self { storage: Arc::new(Storage::seed(dir, layout)?), files, infohash })
    }

    /// Whether all files still are what was opened: none was written to or touched. One that was
    /// deleted, or whose name another has now, still is, as long as it is open.
    pub(crate) fn is_unchanged(&self) -> bool {
        let is_same = |&(index, _): &(usize, u64)| {
            self.storage.file(index).is_ok_and(|file| file.check_unchanged().is_ok())
        };
        self.files.values().all(is_same)
    }

    /// Where the bytes are.
    pub(crate) fn storage(&self) -> Arc<Storage> {
        Arc::clone(&self.storage)
    }

    /// Which version it is: the infohash, of v2 if there is one, in hexadecimal.
    pub(crate) fn infohash(&self) -> &str {
        &self.infohash
    }

    /// A file.
    ///
    /// # Errors
    /// If it was changed since it was published.
    pub(crate) fn file(&self, path: &ImagePath) -> Result<Option<Served>, StorageError> {
        let Some(&(index, len)) = self.files.get(path.as_str()) else {
            return Ok(None);
        };
        let handle = self.storage.file(index)?;
        handle.check_unchanged()?;
        // Enough of it to tell versions apart.
        let version = self.infohash.get(..16).unwrap_or(&self.infohash);
        Ok(Some(Served::image(handle, len, &format!("{version}-{index}"))))
    }
}

/// All that nodes can fetch.
#[derive(Clone, Debug, Default)]
pub(crate) struct Offer {
    /// The manifest's.
    pub(crate) serial: u64,
    /// Files with a fixed path, such as `/manifest.json`.
    pub(crate) fixed: BTreeMap<String, Served>,
    /// The .torrent files.
    pub(crate) torrents: BTreeMap<ImageName, Served>,
    pub(crate) images: BTreeMap<ImageName, ImageFiles>,
}
