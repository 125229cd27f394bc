//! Makes publications of a lab: hashes what was changed, signs, and tells apart what can change while
//! the server runs from what waits for a restart.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::SystemTime;

use boot::{Image, ImageName, LabKey};
use torrent::metainfo::Metainfo;
use torrent::metainfo::create::{INFOHASH, Spec};
use torrent_io::create::{CreateError, Options, create_with};

use super::config::ImageConfig;
use super::hashes::Hashes;
use super::key::{self, KeyError};
use super::keymap::{self, NoKeymap};
use super::phase1s::{NoPhase1, Shelf};
use super::publication::{self, AssembleError, Publication};
use super::scan::{Scan, is_part_of_image};
use super::serial::Serials;
use super::settings::Settings;
use super::{Lab, OpenError};
use crate::state::StateError;

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
    #[error("cannot note the manifest's serial number in state/state.db")]
    Serial(#[from] rusqlite::Error),
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
        let mut torrents = vec![];
        let mut images = vec![];
        let is_touched = !self.seen.has_same_images(&lab.scan);
        self.seen = lab.scan.clone();
        for image in &lab.images {
            let (described, bytes) = self.image(&lab.settings, image, on_hashing)?;
            torrents.extend(bytes.map(|bytes| (image.name.clone(), bytes)));
            images.push(described);
        }
        let phase1 = self.shelf.for_images(&lab)?;
        let described: Vec<_> = phase1.iter().map(|files| files.described.clone()).collect();
        let keymap = lab.settings.keyboard.as_deref().map(keymap::find).transpose()?;
        let manifest = |serial| {
            let (images, described) = (images.clone(), described.clone());
            publication::manifest(&lab.settings, images, described, keymap.clone(), serial)
        };
        if let Some(current) = &self.current {
            let same = manifest(current.manifest.serial);
            if same == current.manifest
                && torrents == current.torrents
                && lab.settings == current.settings
            {
                // For nodes nothing is new, but files that were touched have to be opened anew.
                let publication = match is_touched {
                    true => Arc::new(Publication::clone(current)),
                    false => Arc::clone(current),
                };
                self.current = Some(Arc::clone(&publication));
                return Ok(Outcome { publication, is_new: is_touched, waits });
            }
        }
        let folders: Vec<PathBuf> = lab
            .images
            .iter()
            .map(|image| lab.settings.images_dir().join(image.name.as_str()))
            .collect();
        self.hashes.retain(&folders);
        let serial = self.serials.next(SystemTime::now())?;
        let manifest = manifest(serial);
        let publication = publication::assemble(&lab, manifest, torrents, phase1, &self.key)?;
        let out = lab.settings.out_dir();
        publication.write(&out).map_err(|source| PublishError::Out { path: out, source })?;
        let publication = Arc::new(publication);
        self.current = Some(Arc::clone(&publication));
        Ok(Outcome { publication, is_new: true, waits })
    }

    /// An image, and its torrent if it has files; what is known of them is not read.
    fn image(
        &mut self,
        settings: &Settings,
        image: &ImageConfig,
        on_hashing: OnHashing<'_>,
    ) -> Result<(Image, Option<Vec<u8>>), PublishError> {
        let name = &image.name;
        if !image.loader.has_payload() {
            return Ok((described(image, 0, [0; 32]), None));
        }
        let folder = settings.images_dir().join(name.as_str());
        let began = SystemTime::now();
        let known = |state: &torrent_io::create::FileState<'_>| self.hashes.find(state);
        let options = Options {
            threads: thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            progress: &|done, total| on_hashing(Hashing { image: name, done, total }),
            takes: &is_part_of_image,
            known: &known,
            stop: &self.stop,
        };
        let refuse = |source| PublishError::Create { image: name.clone(), source };
        let created = create_with(&folder, spec(settings), &options).map_err(refuse)?;
        if created.read_len > 0 {
            self.hashes.keep(&folder, &created, began);
        }
        let metainfo = Metainfo::decode(&created.bytes);
        let metainfo = metainfo.map_err(|_| PublishError::Metainfo(name.clone()))?;
        let hash = metainfo.info_hash_v2();
        let infohash = hash.and_then(|hash| hash.as_bytes().try_into().ok());
        let infohash = infohash.ok_or_else(|| PublishError::Metainfo(name.clone()))?;
        let described = described(image, metainfo.layout().data_len(), infohash);
        Ok((described, Some(created.bytes)))
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
