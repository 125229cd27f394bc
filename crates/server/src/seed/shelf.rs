//! The folder of a further seed. Everything in it can be deleted while the seed does not run.
//!
//! ```text
//! manifest.json, manifest.sig            of the last look, for a start while the server is away
//! versions/INFOHASH.torrent
//! versions/INFOHASH/NAME/…               the files of an image
//! verified/                              notes, so that a restart need not hash
//! lock
//! ```
//!
//! Below `versions` it is laid out as the server's own URLs are, so that any web server of this
//! folder is a web seed (BEP 19).

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use boot::{Image, LabPublicKey, hex};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use torrent::metainfo::{METAINFO_LEN_MAX, Metainfo};
use torrent_io::session::Notes;
use torrent_io::storage::Layout;

use super::source::{Signed, open_torrent};
use crate::lab::publication::replace;

const MANIFEST: &str = "manifest.json";
const SIGNATURE: &str = "manifest.sig";
const VERSIONS: &str = "versions";

/// Why the folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum ShelfError {
    #[error("another seed keeps its images in {}: choose another folder with --dir", .0.display())]
    Taken(PathBuf),
    #[error("cannot write {}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error(
        "{free} are free in {}, and the image `{image}` needs {needed}: make room, or choose \
         another folder with --dir, or other images with --image",
        dir.display()
    )]
    Full { dir: PathBuf, image: String, free: String, needed: String },
}

/// The folder, as long as this lives nobody else's.
#[derive(Debug)]
pub(super) struct Shelf {
    dir: PathBuf,
    _lock: File,
}

impl Shelf {
    /// Makes the folder if it is not there.
    ///
    /// # Errors
    /// If another seed has it, or it cannot be written.
    pub(super) fn open(dir: &Path) -> Result<Self, ShelfError> {
        let versions = dir.join(VERSIONS);
        fs::create_dir_all(&versions).map_err(|source| failed(&versions, source))?;
        let path = dir.join("lock");
        let lock = File::options().create(true).truncate(false).write(true).open(&path);
        let lock = lock.map_err(|source| failed(&path, source))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { dir: dir.to_owned(), _lock: lock }),
            Err(Errno::WOULDBLOCK) => Err(ShelfError::Taken(dir.to_owned())),
            Err(errno) => Err(failed(&path, errno.into())),
        }
    }

    /// The manifest of the last run, if it is this lab's.
    pub(super) fn manifest(&self, key: &LabPublicKey) -> Option<Signed> {
        let read = |name| read(&self.dir.join(name), boot::manifest::LEN_MAX);
        Signed::open(MANIFEST, read(MANIFEST)?, read(SIGNATURE)?, key).ok()
    }

    /// Keeps a manifest for the next start. A power cut between the two files leaves a pair that
    /// does not verify, which is as none.
    pub(super) fn keep_manifest(&self, signed: &Signed) -> Result<(), ShelfError> {
        self.write(MANIFEST, &signed.bytes)?;
        self.write(SIGNATURE, signed.signature.as_bytes())
    }

    /// The torrent of an image, if it was kept.
    pub(super) fn torrent(&self, image: &Image) -> Option<Metainfo> {
        let bytes = read(&self.dir.join(torrent_path(image)), METAINFO_LEN_MAX)?;
        open_torrent(&bytes, image).ok()?
    }

    /// Keeps the torrent of an image.
    pub(super) fn keep_torrent(&self, image: &Image, bytes: &[u8]) -> Result<(), ShelfError> {
        self.write(&torrent_path(image), bytes)
    }

    /// The folder that has, or is to have, this version of an image by its name.
    pub(super) fn version(&self, image: &Image) -> PathBuf {
        self.dir.join(VERSIONS).join(hex::encode(&image.infohash))
    }

    /// Makes the folder for a version, with a copy of each file that another version of the image
    /// has by the same path and length: what did not change is hashed and need not be sent again.
    pub(super) fn make_version(
        &self,
        image: &Image,
        layout: &Layout,
    ) -> Result<PathBuf, ShelfError> {
        let version = self.version(image);
        if version.is_dir() {
            return Ok(version);
        }
        let before = self.other_version(image);
        fs::create_dir_all(&version).map_err(|source| failed(&version, source))?;
        for file in layout.files().iter().filter(|file| !file.padding) {
            let Some(from) = before.as_ref().map(|before| before.join(&file.path)) else { break };
            if !fs::symlink_metadata(&from).is_ok_and(|old| old.is_file() && old.len() == file.len)
            {
                continue;
            }
            let to = version.join(&file.path);
            let copied = fs::create_dir_all(to.parent().unwrap_or(&version))
                .and_then(|()| fs::copy(&from, &to));
            copied.map_err(|source| failed(&to, source))?;
        }
        Ok(version)
    }

    /// The latest version of an image, other than this one.
    fn other_version(&self, image: &Image) -> Option<PathBuf> {
        let this = self.version(image);
        let has_it = |path: &PathBuf| *path != this && path.join(image.name.as_str()).is_dir();
        let changed = |path: &PathBuf| fs::metadata(path).and_then(|data| data.modified()).ok();
        let entries = fs::read_dir(self.dir.join(VERSIONS)).ok()?.flatten();
        entries.map(|entry| entry.path()).filter(has_it).max_by_key(changed)
    }

    /// Fails unless `needed` bytes are free.
    pub(super) fn require(&self, image: &Image, needed: u64) -> Result<(), ShelfError> {
        let stat = rustix::fs::statvfs(&self.dir);
        let stat = stat.map_err(|errno| failed(&self.dir, errno.into()))?;
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        if needed <= free {
            return Ok(());
        }
        Err(ShelfError::Full {
            dir: self.dir.clone(),
            image: image.name.to_string(),
            free: crate::quantity::bytes(free),
            needed: crate::quantity::bytes(needed),
        })
    }

    /// Removes versions whose infohash, in hexadecimal, is not wanted; how many there were.
    pub(super) fn sweep(&self, is_wanted: impl Fn(&str) -> bool) -> usize {
        let mut count = 0;
        let entries = fs::read_dir(self.dir.join(VERSIONS)).into_iter().flatten().flatten();
        for path in entries.map(|entry| entry.path()) {
            let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
            // Only what was put there is removed.
            if hex::decode::<32>(stem).is_none() || is_wanted(stem) {
                continue;
            }
            if path.is_dir() {
                count += usize::from(fs::remove_dir_all(&path).is_ok());
            } else {
                let _ = fs::remove_file(&path);
            }
        }
        count
    }

    /// Notes of what was verified.
    pub(super) fn notes(&self) -> Option<Notes> {
        Notes::in_dir(self.dir.join("verified"))
    }

    fn write(&self, path: &str, bytes: &[u8]) -> Result<(), ShelfError> {
        let path = self.dir.join(path);
        replace(&path, bytes).map_err(|source| failed(&path, source))
    }
}

fn failed(path: &Path, source: io::Error) -> ShelfError {
    ShelfError::Io { path: path.to_owned(), source }
}

fn torrent_path(image: &Image) -> String {
    format!("{VERSIONS}/{}.torrent", hex::encode(&image.infohash))
}

/// A file, if it is there and no longer than `len_max`.
fn read(path: &Path, len_max: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![];
    File::open(path).ok()?.take(len_max as u64 + 1).read_to_end(&mut bytes).ok()?;
    (bytes.len() <= len_max).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shelf() -> (tempfile::TempDir, Shelf) {
        let temp = tempfile::tempdir().unwrap();
        let shelf = Shelf::open(temp.path()).unwrap();
        (temp, shelf)
    }

    #[test]
    fn a_folder_is_one_seed_s() {
        let (temp, shelf) = shelf();
        assert!(matches!(Shelf::open(temp.path()), Err(ShelfError::Taken(_))));
        drop(shelf);
        assert!(Shelf::open(temp.path()).is_ok());
    }

    #[test]
    fn only_what_a_seed_put_there_is_swept() {
        let (temp, shelf) = shelf();
        let (kept, gone) = ("a".repeat(64), "b".repeat(64));
        let versions = temp.path().join(VERSIONS);
        for name in [&kept, &gone, "holiday pictures"] {
            fs::create_dir(versions.join(name)).unwrap();
            fs::write(versions.join(format!("{name}.torrent")), "").unwrap();
        }
        assert_eq!(shelf.sweep(|infohash| infohash == kept), 1);
        let mut left: Vec<String> = fs::read_dir(&versions)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        let expect =
            [&kept, &format!("{kept}.torrent"), "holiday pictures", "holiday pictures.torrent"];
        assert_eq!(left, expect);
    }

    #[test]
    fn an_image_that_does_not_fit_is_refused_with_what_to_do() {
        let (_temp, shelf) = shelf();
        let image = Image {
            name: "debian".parse().unwrap(),
            title: String::new(),
            description: String::new(),
            password: None,
            len: 0,
            infohash: [1; 32],
            loader: boot::Loader::Unknown,
        };
        assert!(shelf.require(&image, 1).is_ok());
        let error = shelf.require(&image, 1 << 60).unwrap_err().to_string();
        assert!(error.contains("`debian` needs 1152922 TB"), "{error}");
        assert!(error.contains("--dir"), "{error}");
    }
}
