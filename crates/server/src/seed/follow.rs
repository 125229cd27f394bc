//! The thread that looks at the lab: which images there are, and for each that is new a torrent that
//! is open, checked and ready to run. It retries for ever, and says what is wrong once, not at each
//! look.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context as _;
use boot::manifest::{Discovery, Manifest, ManifestError};
use boot::signature::SignatureError;
use boot::{Image, ImageName, LabPublicKey, hex};
use torrent::metainfo::Metainfo;
use torrent_io::session::{Place, Prepared, SessionError};
use torrent_io::storage::{Allocation, Layout, Storage};

use super::Event;
use super::shelf::Shelf;
use super::source::{Signed, Source, SourceError};
use crate::torrent::hash_threads;

/// What the thread tells.
#[derive(Debug)]
pub(super) enum News {
    /// A manifest is in force.
    Manifest {
        serial: u64,
        discovery: Discovery,
        /// What is to be seeded: no other version is.
        wanted: Vec<Image>,
        /// It is that of the last run, and whether it still holds is not known.
        is_kept: bool,
    },
    /// Pieces of what lies there are hashed.
    Checking { name: ImageName, done: u64, total: u64 },
    /// An image can run.
    Ready(Image, Box<Prepared>),
    /// Something is wrong, and is tried again.
    Trouble(String),
    /// This lab's manifest is not to be had with this key: trying again would not help.
    Refused(SourceError),
}

/// What the thread has.
pub(super) struct Follower {
    pub(super) source: Source,
    pub(super) key: LabPublicKey,
    pub(super) shelf: Arc<Shelf>,
    /// Only these images; all if none are named.
    pub(super) only: Vec<ImageName>,
    pub(super) every: Duration,
    /// The program is about to end.
    pub(super) stop: Arc<AtomicBool>,
    pub(super) events: Sender<Event>,
}

impl Follower {
    /// Until `lost`, which has the infohash of each version that could not go on and is to be opened
    /// again, is closed.
    pub(super) fn run(self, lost: &Receiver<String>) {
        let mut following =
            Following { follower: self, newest: None, ready: BTreeSet::new(), trouble: vec![] };
        following.begin();
        loop {
            if following.look().is_err() {
                return;
            }
            let next = Instant::now() + following.follower.every;
            loop {
                match lost.recv_timeout(next.saturating_duration_since(Instant::now())) {
                    Ok(infohash) => {
                        following.ready.remove(&infohash);
                    }
                    Err(RecvTimeoutError::Timeout) => break,
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
        }
    }
}

struct Following {
    follower: Follower,
    newest: Option<Manifest>,
    /// Infohashes of what was told to be ready.
    ready: BTreeSet<String>,
    /// What was wrong at the last look.
    trouble: Vec<String>,
}

/// Nobody listens any more.
struct Over;

impl Following {
    /// What was wanted the last time runs at once: the server may be what is missing.
    fn begin(&mut self) {
        if let Some(signed) = self.follower.shelf.manifest(&self.follower.key) {
            self.take(signed, true);
        }
    }

    fn look(&mut self) -> Result<(), Over> {
        let mut trouble = vec![];
        match self.manifest() {
            Ok(Some(signed)) => {
                if let Err(error) = self.follower.shelf.keep_manifest(&signed) {
                    trouble.push(chain(&error.into()));
                }
                self.take(signed, false);
            }
            Ok(None) => {}
            Err(error) if self.newest.is_none() && is_final(&error) => {
                let _ = self.tell(News::Refused(error));
                return Err(Over);
            }
            Err(error) => trouble.push(chain(&error.into())),
        }
        let wanted = self.newest.as_ref().map(|newest| self.wanted(newest)).unwrap_or_default();
        for image in wanted {
            if self.follower.stop.load(Ordering::Relaxed) {
                return Err(Over);
            }
            let infohash = hex::encode(&image.infohash);
            if self.ready.contains(&infohash) {
                continue;
            }
            match self.open(&image) {
                Ok(Some(prepared)) => {
                    self.ready.insert(infohash);
                    self.tell(News::Ready(image, Box::new(prepared)))?;
                }
                Ok(None) => return Err(Over),
                Err(error) => trouble.push(chain(&error)),
            }
        }
        for text in &trouble {
            if !self.trouble.contains(text) {
                self.tell(News::Trouble(text.clone()))?;
            }
        }
        self.trouble = trouble;
        Ok(())
    }

    fn manifest(&mut self) -> Result<Option<Signed>, SourceError> {
        let newest = self.newest.as_ref().map_or(0, |manifest| manifest.serial);
        match self.follower.source.manifest(newest) {
            // Another may have been published between the manifest and its signature.
            Err(SourceError::Manifest {
                source: ManifestError::Signature(SignatureError::Altered(_)),
                ..
            }) => self.follower.source.manifest(newest),
            other => other,
        }
    }

    fn take(&mut self, signed: Signed, is_kept: bool) {
        let manifest = signed.manifest;
        let wanted = self.wanted(&manifest);
        let hashes: BTreeSet<String> =
            wanted.iter().map(|image| hex::encode(&image.infohash)).collect();
        self.ready.retain(|infohash| hashes.contains(infohash));
        let (serial, discovery) = (manifest.serial, manifest.discovery.clone());
        let _ = self.tell(News::Manifest { serial, discovery, wanted, is_kept });
        self.newest = Some(manifest);
    }

    /// Images that are to be seeded: those with files.
    fn wanted(&self, manifest: &Manifest) -> Vec<Image> {
        let only = &self.follower.only;
        let is_wanted = |image: &&Image| {
            image.loader.has_payload() && (only.is_empty() || only.contains(&image.name))
        };
        manifest.images.iter().filter(is_wanted).cloned().collect()
    }

    /// Opens a version of an image, with what is there of it; none if the program is to end.
    fn open(&self, image: &Image) -> anyhow::Result<Option<Prepared>> {
        let shelf = &self.follower.shelf;
        let metainfo = match shelf.torrent(image) {
            Some(metainfo) => metainfo,
            None => {
                let (metainfo, bytes) = self.follower.source.torrent(image)?;
                shelf.keep_torrent(image, &bytes)?;
                metainfo
            }
        };
        let layout = || {
            Layout::try_from(&metainfo)
                .with_context(|| format!("the image `{}` cannot be stored", image.name))
        };
        let dir = shelf.make_version(image, &layout()?)?;
        let notes = shelf.notes();
        if let (Some(notes), Ok(storage)) = (&notes, Storage::seed(&dir, layout()?))
            && notes.know(&metainfo, &storage)
        {
            return Ok(Some(Prepared::hashed(metainfo, Arc::new(storage))));
        }
        let began = SystemTime::now();
        let Some(prepared) =
            self.check(image, metainfo, Place::Download(dir, Allocation::Sparse))?
        else {
            return Ok(None);
        };
        if prepared.have().is_full() {
            if let Some(notes) = &notes {
                notes.keep(prepared.metainfo(), prepared.storage(), began);
            }
        } else {
            let total = prepared.metainfo().geometry().data_len();
            shelf.require(image, total - prepared.have_len())?;
        }
        Ok(Some(prepared))
    }

    fn check(
        &self,
        image: &Image,
        metainfo: Metainfo,
        place: Place,
    ) -> anyhow::Result<Option<Prepared>> {
        let (events, name) = (self.follower.events.clone(), image.name.clone());
        let mut progress = |progress: torrent_io::check::Progress| {
            let (done, total) = (progress.checked.into(), progress.piece_count.into());
            let _ = events.send(Event::News(News::Checking { name: name.clone(), done, total }));
        };
        let stop = &self.follower.stop;
        match Prepared::open(metainfo, &place, hash_threads(), stop, &mut progress) {
            Ok(prepared) => Ok(Some(prepared)),
            Err(SessionError::Cancelled { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn tell(&self, news: News) -> Result<(), Over> {
        self.follower.events.send(Event::News(news)).map_err(|_| Over)
    }
}

/// Whether the lab is another one than the key is of, or speaks another format.
fn is_final(error: &SourceError) -> bool {
    matches!(
        error,
        SourceError::Manifest {
            source: ManifestError::Signature(SignatureError::OtherKey { .. })
                | ManifestError::Version(_),
            ..
        }
    )
}

fn chain(error: &anyhow::Error) -> String {
    format!("{error:#}")
}
