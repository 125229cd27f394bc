//! Makes publications of a lab: hashes what was changed, signs, and tells apart what can change while
//! the server runs from what waits for a restart.
//!
//! Nothing waits for a large image: what is too long to be read at once is left to the
//! [`Hasher`](super::hasher::Hasher). Until it is done, the version of before stays on offer, and an image
//! that is new is not there yet.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::SystemTime;

use boot::{Image, ImageName, LabKey};
use torrent::metainfo::Metainfo;
use torrent::metainfo::create::{INFOHASH, Spec};
use torrent_io::create::{CreateError, Options, create_with};

use super::config::ImageConfig;
use super::hasher::{Job, Progress};
use super::hashes::Hashes;
use super::key::{self, KeyError};
use super::keymap::{self, NoKeymap};
use super::phase1s::{NoPhase1, Shelf};
use super::publication::{self, AssembleError, Publication};
use super::scan::{Folder, Scan, is_part_of_image};
use super::serial::Serials;
use super::settings::Settings;
use super::{Lab, OpenError};
use crate::state::StateError;

/// So many bytes that are new are read at once, of all images together: a second of a slow disk. What is beyond
/// is hashed aside.
const READ_LEN_MAX: u64 = 64 << 20;

/// How far the hashing of an image is, in bytes of what has to be read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hashing<'a> {
    pub(crate) image: &'a ImageName,
    pub(crate) done: u64,
    pub(crate) total: u64,
}

/// Told by any thread.
pub(crate) type OnHashing<'a> = &'a (dyn Fn(Hashing<'_>) + Sync);

/// Why nothing was published.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PublishError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    State(#[from] StateError),
    #[error("no memory for the hashes of images")]
    Hashes(#[from] rusqlite::Error),
    #[error("cannot note the manifest's serial number")]
    Serial(#[source] StateError),
    #[error("no torrent of the image `{image}`")]
    Create { image: ImageName, source: CreateError },
    #[error("the torrent of the image `{0}` cannot be read back")]
    Metainfo(ImageName),
    #[error(transparent)]
    Keymap(#[from] NoKeymap),
    #[error(transparent)]
    Phase1(#[from] NoPhase1),
    #[error(transparent)]
    Assemble(#[from] AssembleError),
    #[error("cannot write to {}", path.display())]
    Out { path: PathBuf, source: std::io::Error },
}

/// Makes publications of one lab.
#[derive(Debug)]
pub(crate) struct Publisher {
    dir: PathBuf,
    key: LabKey,
    hashes: Hashes,
    serials: Serials,
    shelf: Shelf,
    /// The last.
    current: Option<Arc<Publication>>,
    /// What lay in the lab when it was read for that.
    seen: Scan,
    /// What is read at once, in bytes.
    read_len_max: u64,
    /// Torrents that were made aside, and of what.
    hashed: BTreeMap<ImageName, (Folder, Vec<u8>)>,
    /// What is to be hashed aside since it was last published.
    jobs: Vec<Job>,
    progress: Progress,
    /// Ends hashing.
    stop: Arc<AtomicBool>,
}

/// What a change came to.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    /// The last publication.
    pub(crate) publication: Arc<Publication>,
    /// It is not the one before: nodes see something else, or files have to be opened anew, since
    /// they were touched or replaced by the same. In that case its manifest is the one before.
    pub(crate) is_new: bool,
    /// Sections whose change waits for a restart.
    pub(crate) waits: Vec<&'static str>,
}

impl Publisher {
    /// For the lab in `dir`, which is absolute.
    pub(crate) fn new(dir: &Path) -> Result<Self, PublishError> {
        let key = key::load(dir)?;
        let (hashes, serials) = (Hashes::open(dir)?, Serials::open(dir)?);
        Ok(Self {
            dir: dir.to_owned(),
            key,
            hashes,
            serials,
            shelf: Shelf::default(),
            current: None,
            seen: Scan::default(),
            read_len_max: READ_LEN_MAX,
            hashed: BTreeMap::new(),
            jobs: vec![],
            progress: Progress::default(),
            stop: Arc::default(),
        })
    }

    /// With what nodes run first.
    pub(crate) fn with_phase1(self, shelf: Shelf) -> Self {
        Self { shelf, ..self }
    }

    /// The lab's key.
    pub(crate) const fn key(&self) -> &LabKey {
        &self.key
    }

    /// The lab's directory.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Set, it ends hashing that is under way and all that would follow, by an error.
    pub(crate) fn stopper(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.stop)
    }

    /// What lay in the lab when it was last published.
    pub(super) const fn seen(&self) -> &Scan {
        &self.seen
    }

    /// Reads the lab again and publishes it, if anything that nodes see is other than before.
    pub(crate) fn refresh(&mut self, on_hashing: OnHashing<'_>) -> Result<Outcome, PublishError> {
        let lab = Lab::open(&self.dir)?;
        self.publish(lab, on_hashing)
    }

    /// What is to be hashed aside.
    pub(super) fn take_jobs(&mut self) -> Vec<Job> {
        std::mem::take(&mut self.jobs)
    }

    /// Takes what was made aside, for the next publication.
    pub(super) fn take_hashed(&mut self, name: ImageName, seen: Folder, torrent: Vec<u8>) {
        self.hashed.insert(name, (seen, torrent));
    }

    /// What is being hashed.
    pub(crate) fn progress(&self) -> Progress {
        self.progress.clone()
    }

    /// Leaves all that is longer to be hashed aside.
    #[cfg(test)]
    pub(super) fn reads_at_most(self, read_len_max: u64) -> Self {
        Self { read_len_max, ..self }
    }

    /// Publishes a lab that was just opened.
    pub(crate) fn publish(
        &mut self,
        mut lab: Lab,
        on_hashing: OnHashing<'_>,
    ) -> Result<Outcome, PublishError> {
        let mut waits = vec![];
        if let Some(current) = &self.current {
            (lab.settings, waits) = live(&current.settings, &lab.settings);
        }
        let is_touched = !self.seen.has_same_images(&lab.scan);
        self.seen = lab.scan.clone();
        let Gathered { images, torrents, hashing } = self.gather(&mut lab, on_hashing)?;
        let phase1 = self.shelf.for_images(&lab)?;
        let described: Vec<_> = phase1.iter().map(|files| files.described.clone()).collect();
        let keymap = lab.settings.keyboard.as_deref().map(keymap::find).transpose()?;
        let manifest = |serial| {
            let (images, described) = (images.clone(), described.clone());
            publication::manifest(&lab.settings, images, described, keymap.clone(), serial)
        };
        let out = lab.settings.out_dir();
        let last = match &self.current {
            Some(current) => Some(current.manifest.clone()),
            None => Publication::last_manifest(&out, &self.key),
        };
        let last = last.inspect(|last| self.serials.was_given(last.serial));
        let same = last.filter(|last| *last == manifest(last.serial));
        if let (Some(current), Some(_)) = (&self.current, &same)
            && torrents == current.torrents
        {
            let settings = lab.settings;
            return Ok(self.go_on(Arc::clone(current), settings, hashing, is_touched, waits));
        }
        let folders = lab.images.iter().map(|image| lab.folder(&image.name)).collect::<Vec<_>>();
        self.hashes.retain(&folders);
        let is_same = same.is_some();
        let manifest = match same {
            // What is signed again is signed the same: nodes need not hear of a restart.
            Some(same) => same,
            None => manifest(self.serials.next(SystemTime::now()).map_err(PublishError::Serial)?),
        };
        let publication =
            publication::assemble(&lab, manifest, torrents, phase1, hashing, &self.key)?;
        match publication.write(&out) {
            Err(error) if is_same => {
                tracing::error!(target: "LAB", "{} is not written anew: {error}", out.display());
            }
            written => written.map_err(|source| PublishError::Out { path: out, source })?,
        }
        let publication = Arc::new(publication);
        self.current = Some(Arc::clone(&publication));
        Ok(Outcome { publication, is_new: true, waits })
    }

    /// For nodes nothing is new. But files that were touched have to be opened anew, and settings may say
    /// something that only this server needs to know.
    fn go_on(
        &mut self,
        current: Arc<Publication>,
        settings: Settings,
        hashing: Vec<ImageName>,
        is_touched: bool,
        waits: Vec<&'static str>,
    ) -> Outcome {
        let is_same = settings == current.settings && hashing == current.hashing;
        let is_new = is_touched || !is_same;
        let publication = match is_new {
            true => Arc::new(Publication { settings, hashing, ..Publication::clone(&current) }),
            false => current,
        };
        self.current = Some(Arc::clone(&publication));
        Outcome { publication, is_new, waits }
    }

    /// All images as far as they can be offered now, and what of them is still to be hashed.
    fn gather(
        &mut self,
        lab: &mut Lab,
        on_hashing: OnHashing<'_>,
    ) -> Result<Gathered, PublishError> {
        let mut gathered = Gathered::default();
        self.hashes.try_again();
        let mut left = self.read_len_max;
        self.jobs.clear();
        for image in &lab.images {
            // A menu cannot be without the image that is booted when nobody chooses.
            let is_needed = image.name == lab.settings.menu.default
                && !self.has_default(&image.name, &lab.images);
            let read_max = if is_needed { u64::MAX } else { left };
            match self.image(lab, image, read_max, on_hashing)? {
                Some((described, torrent, read_len)) => {
                    left = left.saturating_sub(read_len);
                    gathered.add(described, torrent);
                }
                None => self.leave_for_later(lab, &image.name, &mut gathered),
            }
        }
        if let Some(current) = &self.current
            && !gathered.images.iter().any(|image| image.name == lab.settings.menu.default)
        {
            lab.settings.menu.default = current.manifest.menu.default.clone();
        }
        Ok(gathered)
    }

    /// Whether there is an image to be booted when nobody chooses, also if `name` is not hashed yet.
    fn has_default(&self, name: &ImageName, images: &[ImageConfig]) -> bool {
        self.current.as_ref().is_some_and(|current| {
            let before = &current.manifest.menu.default;
            current.manifest.image(name).is_some()
                || images.iter().any(|image| image.name == *before)
                    && current.manifest.image(before).is_some()
        })
    }

    /// The image is hashed aside; until then its last version is offered, if there is one.
    fn leave_for_later(&mut self, lab: &Lab, name: &ImageName, gathered: &mut Gathered) {
        gathered.hashing.push(name.clone());
        if let Some(seen) = lab.scan.folder(name.as_str()) {
            self.jobs.push(Job {
                name: name.clone(),
                lab: self.dir.clone(),
                folder: lab.folder(name),
                spec: spec(&lab.settings),
                seen: seen.clone(),
            });
        }
        if let Some(current) = &self.current
            && let Some(image) = current.manifest.image(name)
        {
            let torrent = current.torrents.iter().find(|(known, _)| known == name);
            gathered.add(image.clone(), torrent.map(|(_, bytes)| bytes.clone()));
        }
    }

    /// An image, its torrent if it has files, and how much of them was read; what is known is not. Nothing
    /// if more than `read_max` bytes would have to be.
    fn image(
        &mut self,
        lab: &Lab,
        image: &ImageConfig,
        read_max: u64,
        on_hashing: OnHashing<'_>,
    ) -> Result<Option<Found>, PublishError> {
        let name = &image.name;
        if !image.loader.has_payload() {
            return Ok(Some((described(image, 0, [0; 32]), None, 0)));
        }
        let (bytes, read_len) = match self.hashed.remove(name) {
            Some((seen, bytes)) if lab.scan.folder(name.as_str()) == Some(&seen) => (bytes, 0),
            _ => match self.hash(lab, name, read_max, on_hashing)? {
                Some(made) => made,
                None => return Ok(None),
            },
        };
        let metainfo = Metainfo::decode(&bytes);
        let metainfo = metainfo.map_err(|_| PublishError::Metainfo(name.clone()))?;
        let hash = metainfo.info_hash_v2();
        let infohash = hash.and_then(|hash| hash.as_bytes().try_into().ok());
        let infohash = infohash.ok_or_else(|| PublishError::Metainfo(name.clone()))?;
        let described = described(image, metainfo.layout().data_len(), infohash);
        Ok(Some((described, Some(bytes), read_len)))
    }

    /// The torrent of an image and how much was read for it, unless that is more than `read_max`.
    fn hash(
        &mut self,
        lab: &Lab,
        name: &ImageName,
        read_max: u64,
        on_hashing: OnHashing<'_>,
    ) -> Result<Option<(Vec<u8>, u64)>, PublishError> {
        let folder = lab.folder(name);
        let began = SystemTime::now();
        let (unread, is_too_much) = (Cell::new(0_u64), AtomicBool::new(false));
        let known = |state: &torrent_io::create::FileState<'_>| {
            let found = self.hashes.find(state);
            if found.is_none() {
                unread.set(unread.get().saturating_add(state.len));
                if unread.get() > read_max {
                    is_too_much.store(true, Ordering::Relaxed);
                }
            }
            found
        };
        let options = Options {
            threads: thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            progress: &|done, total| on_hashing(Hashing { image: name, done, total }),
            takes: &is_part_of_image,
            known: &known,
            begun: &|state| self.hashes.begun(state),
            hashed: &|_, _, _| {},
            stop: if read_max == u64::MAX { &self.stop } else { &is_too_much },
        };
        let created = match create_with(&folder, spec(&lab.settings), &options) {
            Err(CreateError::Stopped(_)) if is_too_much.load(Ordering::Relaxed) => return Ok(None),
            created => {
                created.map_err(|source| PublishError::Create { image: name.clone(), source })?
            }
        };
        if created.read_len > 0 {
            self.hashes.keep(&folder, &created, began);
        }
        Ok(Some((created.bytes, created.read_len)))
    }
}

/// An image, its torrent if it has files, and how many bytes of them were read.
type Found = (Image, Option<Vec<u8>>, u64);

/// What can be offered.
#[derive(Debug, Default)]
struct Gathered {
    images: Vec<Image>,
    torrents: Vec<(ImageName, Vec<u8>)>,
    /// Images of which this is the version before, or which are not among them yet.
    hashing: Vec<ImageName>,
}

impl Gathered {
    fn add(&mut self, image: Image, torrent: Option<Vec<u8>>) {
        self.torrents.extend(torrent.map(|bytes| (image.name.clone(), bytes)));
        self.images.push(image);
    }
}

fn described(image: &ImageConfig, len: u64, infohash: [u8; 32]) -> Image {
    let ImageConfig { name, title, description, password, loader, .. } = image.clone();
    Image { name, title, description, password, len, infohash, loader }
}

/// Hybrid: the agent trusts the v2 infohash alone, and clients that know only v1 can help to seed.
fn spec(settings: &Settings) -> Spec {
    let mut trackers = vec![];
    if settings.tracker.enabled {
        let (address, port) = (settings.address, settings.tracker.port);
        // One tracker, asked in either way.
        trackers.push(vec![
            format!("http://{address}:{port}/announce"),
            format!("udp://{address}:{port}/announce"),
        ]);
    }
    // Others are announced to at the same time: a tier of its own each (BEP 12).
    trackers.extend(settings.tracker.external.iter().map(|url| vec![url.clone()]));
    // Of one version: what is at another URL later must not be taken for it.
    let mut web_seeds = vec![settings.http_base() + &boot::image::version_path(INFOHASH)];
    // Theirs, too, if they name it: `{infohash}` is what stands for it there.
    web_seeds.extend(settings.seeding.web_seeds.iter().cloned());
    Spec {
        trackers,
        web_seeds,
        created_by: Some(concat!("BootTorrent/", env!("CARGO_PKG_VERSION")).to_owned()),
        ..Spec::default()
    }
}

/// The settings that hold from now on, if `new` is read while the server runs with `old`: what
/// sockets and phase 1 were made of stays, and its sections are named if they were changed.
fn live(old: &Settings, new: &Settings) -> (Settings, Vec<&'static str>) {
    let mut settings = old.clone();
    settings.menu = new.menu.clone();
    (settings.seed_time, settings.seed_auto) = (new.seed_time, new.seed_auto);
    settings.keyboard.clone_from(&new.keyboard);
    settings.nodes = new.nodes.clone();
    settings.unknown = new.unknown;
    settings.power = new.power.clone();
    settings.history = new.history;
    settings.ignored = new.ignored.clone();
    settings.groups = new.groups.clone();
    settings.dashboard = new.dashboard.clone();
    // The port is taken at the start, or not.
    let port = |settings: &Settings| settings.dashboard.tls.as_ref().map(|tls| tls.port);
    let has_same_door = port(old) == port(new);
    if !has_same_door {
        settings.dashboard.tls = old.dashboard.tls.clone();
    }
    settings.dhcp.reservations = new.dhcp.reservations.clone();
    let mut waits = vec![];
    let mut note = |section, is_same: bool| {
        if !is_same {
            waits.push(section);
        }
    };
    note("server", (&old.interface, old.address) == (&new.interface, new.address));
    note("dhcp", settings.dhcp == new.dhcp);
    note("tftp", old.tftp == new.tftp);
    note("http", old.http == new.http);
    note("swarm", (&old.tracker, &old.seeding) == (&new.tracker, &new.seeding));
    note("phase1", old.phase1 == new.phase1);
    note("dashboard", has_same_door);
    note("log", (old.log_level, old.log_format) == (new.log_level, new.log_format));
    (settings, waits)
}

#[cfg(test)]
mod tests;
