//! The server's own peer: it seeds every image for ever.
//!
//! An image that was changed is another torrent. The version before goes on being seeded while
//! somebody downloads it, as far as its bytes are still there: a node finishes what it began. Where
//! its bytes were overwritten the storage notices, and that torrent ends.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use anyhow::Context;
use boot::ImageName;
use serde::Serialize;
use torrent::metainfo::Metainfo;
use torrent::swarm::Stats;
use torrent::wire;
use torrent_io::engine::{EngineConfig, Known};
use torrent_io::session::{Prepared, Session, SessionConfig, SessionEvent, TorrentKey};
use torrent_io::storage::Storage;

use crate::fleet::Standings;
use crate::http::{FAREWELL, ImageFiles};
use crate::lab::settings::SeedingSettings;

/// A running one.
pub(crate) struct Seeding {
    session: Session,
    torrents: Arc<Mutex<BTreeMap<TorrentKey, Torrent>>>,
}

struct Torrent {
    name: ImageName,
    infohash: Vec<u8>,
    storage: Arc<Storage>,
    stats: Stats,
    /// Not on offer any more; since when nobody has been connected.
    retired: Option<Instant>,
    /// Its bytes cannot be read any more.
    failed: bool,
}

/// How the seeding of an image is doing.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct SeedCounts {
    pub(crate) image: ImageName,
    pub(crate) uploaded_bytes: u64,
    pub(crate) upload_rate_bytes_per_s: u64,
    pub(crate) peer_count: usize,
    /// An older version, which somebody still downloads.
    pub(crate) is_retired: bool,
    pub(crate) has_failed: bool,
}

impl Seeding {
    /// Listens at `listen`, and keeps places for those whom `standings` prefers.
    ///
    /// # Errors
    /// If the address cannot be listened on.
    pub(crate) fn start(
        listen: SocketAddr,
        settings: &SeedingSettings,
        standings: Standings,
    ) -> anyhow::Result<Self> {
        let random_seed = getrandom::u64().context("no randomness from the system")?;
        let config = SessionConfig {
            engine: EngineConfig {
                listen,
                peer_id: wire::peer_id(random_seed),
                random_seed,
                upload_limit: settings.upload_limit_bytes_per_s,
                download_limit: None,
                pex: settings.pex,
                known: Known::new(standings),
            },
            lsd: settings.lsd,
            user_agent: concat!("BootTorrent/", env!("CARGO_PKG_VERSION")).to_owned(),
        };
        let torrents: Arc<Mutex<BTreeMap<TorrentKey, Torrent>>> = Arc::default();
        let known = Arc::clone(&torrents);
        let session = Session::start(config, move |key, event| {
            on_event(&mut lock(&known), key, event);
        })?;
        Ok(Self { session, torrents })
    }

    /// Seeds these images, and retires what is not among them.
    pub(crate) fn publish(&mut self, images: &[(ImageName, Metainfo, ImageFiles)]) {
        let infohash = |metainfo: &Metainfo| {
            metainfo.info_hashes().last().map(|hash| hash.as_bytes().to_vec()).unwrap_or_default()
        };
        let wanted: Vec<Vec<u8>> =
            images.iter().map(|(_, metainfo, _)| infohash(metainfo)).collect();
        for torrent in lock(&self.torrents).values_mut() {
            let is_wanted = wanted.contains(&torrent.infohash) && !torrent.failed;
            torrent.retired = match torrent.retired {
                _ if is_wanted => None,
                Some(since) => Some(since),
                None => Some(Instant::now()),
            };
        }
        for ((name, metainfo, files), infohash) in images.iter().zip(wanted) {
            if self.has(&infohash, &files.storage()) {
                continue;
            }
            let prepared = Prepared::hashed(metainfo.clone(), files.storage());
            let key = self.session.add(prepared, vec![]);
            let torrent = Torrent {
                name: name.clone(),
                infohash,
                storage: files.storage(),
                stats: Stats::default(),
                retired: None,
                failed: false,
            };
            lock(&self.torrents).insert(key, torrent);
            tracing::info!(target: "SWARM", "seeds {name}");
        }
    }

    /// Whether the torrent is seeded from there. One that is seeded from files that were opened
    /// before, and that were touched since, is ended: it would fail at the next read.
    fn has(&mut self, infohash: &[u8], storage: &Arc<Storage>) -> bool {
        let mut has = false;
        let session = &mut self.session;
        lock(&self.torrents).retain(|&key, torrent| {
            let is_other = torrent.infohash == infohash && !Arc::ptr_eq(&torrent.storage, storage);
            if is_other {
                session.remove(key);
            } else {
                has |= torrent.infohash == infohash && torrent.retired.is_none();
            }
            !is_other
        });
        has
    }

    /// Ends old versions that nobody downloads any more; to be called every few seconds.
    pub(crate) fn sweep(&mut self) {
        let mut torrents = lock(&self.torrents);
        torrents.retain(|&key, torrent| {
            let Some(since) = &mut torrent.retired else {
                return true;
            };
            if torrent.stats.peers > 0 && !torrent.failed {
                *since = Instant::now();
                return true;
            }
            if since.elapsed() < FAREWELL && !torrent.failed {
                return true;
            }
            self.session.remove(key);
            tracing::info!(target: "SWARM", "seeds the version before of {} no more", torrent.name);
            false
        });
    }

    /// How it is doing, image by image.
    pub(crate) fn counts(&self) -> impl Fn() -> Vec<SeedCounts> + Send + Sync + use<> {
        let torrents = Arc::clone(&self.torrents);
        move || {
            let torrents = lock(&torrents);
            torrents
                .values()
                .map(|torrent| SeedCounts {
                    image: torrent.name.clone(),
                    uploaded_bytes: torrent.stats.uploaded,
                    upload_rate_bytes_per_s: torrent.stats.upload_rate.round() as u64,
                    peer_count: torrent.stats.peers,
                    is_retired: torrent.retired.is_some(),
                    has_failed: torrent.failed,
                })
                .collect()
        }
    }
}

fn lock(
    torrents: &Mutex<BTreeMap<TorrentKey, Torrent>>,
) -> MutexGuard<'_, BTreeMap<TorrentKey, Torrent>> {
    torrents.lock().unwrap_or_else(PoisonError::into_inner)
}

fn on_event(torrents: &mut BTreeMap<TorrentKey, Torrent>, key: TorrentKey, event: SessionEvent) {
    let name = torrents.get(&key).map_or_else(String::new, |torrent| torrent.name.to_string());
    match event {
        SessionEvent::Progress(stats) => {
            if let Some(torrent) = torrents.get_mut(&key) {
                torrent.stats = stats;
            }
        }
        SessionEvent::Failed(error) => {
            if let Some(torrent) = torrents.get_mut(&key) {
                torrent.failed = true;
            }
            let error = anyhow::Error::from(error);
            tracing::error!(target: "SWARM", "cannot seed {name} any more: {error:#}");
        }
        SessionEvent::Banned(peer) => {
            tracing::warn!(target: "SWARM", "peer {peer} broke the protocol and is shut out");
        }
        SessionEvent::TrackerFailed(error) => {
            let error = anyhow::Error::from(error);
            tracing::warn!(target: "SWARM", "{error:#}; it is asked again");
        }
        SessionEvent::TrackerWarning { url, text } => {
            tracing::warn!(target: "SWARM", "tracker {url} warns: {text}");
        }
        SessionEvent::LsdFailed(error) => {
            tracing::warn!(target: "SWARM", "no local service discovery: {error}");
        }
        SessionEvent::WebSeed { .. }
        | SessionEvent::NotSaved(_)
        | SessionEvent::Sources(_)
        | SessionEvent::Completed => {}
    }
}
