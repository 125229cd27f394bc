//! The thread of a session, which owns engine and discovery and passes on what each has for the
//! other.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::Instant;

use torrent::Bitfield;
use torrent::swarm::{Role, Stats};

use super::disk::Disk;
use super::prepare::Prepared;
use super::{DISK_FAREWELL, SAVE_INTERVAL, SessionEvent, TorrentKey};
use crate::discovery::{Discovery, DiscoveryEvent, Figures, Wanted};
use crate::engine::{Engine, TorrentConfig, TorrentEvent, TorrentId};
use crate::storage::{Storage, StorageError};

pub(super) enum Message {
    Add(TorrentKey, Box<Prepared>, Vec<SocketAddr>),
    Remove(TorrentKey),
    Engine(TorrentKey, TorrentEvent),
    Discovery(DiscoveryEvent),
    Completed(TorrentKey, Result<(), StorageError>),
    NotSaved(TorrentKey, StorageError),
    Stop,
}

pub(super) struct Keeper {
    engine: Engine,
    discovery: Discovery,
    disk: Disk,
    torrents: BTreeMap<TorrentKey, Torrent>,
    messages: Sender<Message>,
    queue: Receiver<Message>,
    events: Box<dyn FnMut(TorrentKey, SessionEvent) + Send>,
    save_at: Instant,
}

struct Torrent {
    id: TorrentId,
    storage: Arc<Storage>,
    data_len: u64,
    figures: Arc<Figures>,
    /// Pieces that were good at the last look.
    have: Bitfield,
    /// How many the resume file knows of.
    saved_count: u32,
    /// There is something to resume: a download that is not complete.
    is_unfinished: bool,
}

impl Keeper {
    pub(super) fn new(
        engine: Engine,
        discovery: Discovery,
        messages: Sender<Message>,
        queue: Receiver<Message>,
        events: Box<dyn FnMut(TorrentKey, SessionEvent) + Send>,
    ) -> io::Result<Self> {
        let disk = Disk::start(messages.clone())?;
        let save_at = Instant::now() + SAVE_INTERVAL;
        let torrents = BTreeMap::new();
        Ok(Self { engine, discovery, disk, torrents, messages, queue, events, save_at })
    }

    pub(super) fn run(mut self) {
        loop {
            let timeout = self.save_at.saturating_duration_since(Instant::now());
            match self.queue.recv_timeout(timeout) {
                Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => break,
                Ok(message) => self.on_message(message),
                Err(RecvTimeoutError::Timeout) => {}
            }
            if self.save_at <= Instant::now() {
                self.save_at = Instant::now() + SAVE_INTERVAL;
                self.save_all();
            }
        }
        self.stop();
    }

    /// Trackers are told while the engine ends and the disk writes.
    fn stop(self) {
        let Self { engine, discovery, disk, mut torrents, queue, .. } = self;
        discovery.stop();
        drop(engine);
        // Its last words.
        for message in queue.try_iter() {
            match message {
                Message::Engine(key, event) => {
                    let Some(torrent) = torrents.get_mut(&key) else { continue };
                    match event {
                        TorrentEvent::Progress(progress) => torrent.have = progress.have,
                        TorrentEvent::Completed => {
                            torrent.is_unfinished = false;
                            disk.complete(key, torrent.storage.clone());
                        }
                        _ => {}
                    }
                }
                Message::Add(_, prepared, _) => prepared.abandon(),
                _ => {}
            }
        }
        for (key, torrent) in torrents {
            torrent.close(key, &disk);
        }
        if !disk.finish(DISK_FAREWELL) {
            tracing::warn!("the disk is too slow to wait for; the next start hashes everything");
        }
    }

    fn on_message(&mut self, message: Message) {
        match message {
            Message::Add(key, prepared, peers) => self.add(key, *prepared, peers),
            Message::Remove(key) => {
                if let Some(torrent) = self.torrents.remove(&key) {
                    self.engine.remove(torrent.id);
                    self.discovery.leave(key);
                    torrent.close(key, &self.disk);
                }
            }
            Message::Engine(key, event) => self.on_engine(key, event),
            Message::Discovery(event) => self.on_discovery(event),
            Message::Completed(key, Ok(())) => (self.events)(key, SessionEvent::Completed),
            Message::Completed(key, Err(error)) => self.fail(key, error),
            Message::NotSaved(key, error) => (self.events)(key, SessionEvent::NotSaved(error)),
            Message::Stop => {}
        }
    }

    fn add(&mut self, key: TorrentKey, prepared: Prepared, peers: Vec<SocketAddr>) {
        let (metainfo, role) = (prepared.metainfo().clone(), prepared.role());
        let (storage, have) = (prepared.storage().clone(), prepared.have().clone());
        let data_len = metainfo.geometry().data_len();
        let figures = Arc::new(Figures::default());
        figures.left.store(data_len - prepared.have_len(), Ordering::Relaxed);
        let wanted = Wanted::new(&metainfo, figures.clone());
        let messages = self.messages.clone();
        let events = Box::new(move |event| {
            let _ = messages.send(Message::Engine(key, event));
        });
        let id = self.engine.add(TorrentConfig {
            metainfo,
            storage: storage.clone(),
            have: have.clone(),
            role,
            web_seeds: prepared.web_seeds().to_vec(),
            events,
        });
        let is_unfinished = role == Role::Leech;
        let saved_count = have.count();
        let torrent = Torrent { id, storage, data_len, figures, have, saved_count, is_unfinished };
        self.torrents.insert(key, torrent);
        if !peers.is_empty() {
            self.engine.add_peers(id, peers);
        }
        self.discovery.join(key, wanted);
    }

    fn on_engine(&mut self, key: TorrentKey, event: TorrentEvent) {
        let Some(torrent) = self.torrents.get_mut(&key) else { return };
        match event {
            TorrentEvent::Completed => {
                torrent.is_unfinished = false;
                torrent.figures.left.store(0, Ordering::Relaxed);
                self.disk.complete(key, torrent.storage.clone());
                self.discovery.completed(key);
            }
            TorrentEvent::Failed(error) => self.fail(key, error),
            TorrentEvent::NeedPeers => self.discovery.need_peers(key),
            TorrentEvent::Banned(addr) => (self.events)(key, SessionEvent::Banned(addr)),
            TorrentEvent::WebSeed { url, trouble } => {
                (self.events)(key, SessionEvent::WebSeed { url, trouble });
            }
            TorrentEvent::Sources(sources) => (self.events)(key, SessionEvent::Sources(sources)),
            TorrentEvent::Progress(progress) => {
                torrent.note(&progress.stats);
                torrent.have = progress.have;
                (self.events)(key, SessionEvent::Progress(progress.stats));
            }
        }
    }

    fn fail(&mut self, key: TorrentKey, error: StorageError) {
        if let Some(torrent) = self.torrents.remove(&key) {
            self.engine.remove(torrent.id);
            self.discovery.leave(key);
            torrent.close(key, &self.disk);
        }
        (self.events)(key, SessionEvent::Failed(error));
    }

    fn on_discovery(&mut self, event: DiscoveryEvent) {
        match event {
            DiscoveryEvent::Found { torrent, addrs } => {
                if let Some(torrent) = self.torrents.get(&torrent) {
                    self.engine.add_peers(torrent.id, addrs);
                }
            }
            DiscoveryEvent::TrackerFailed { torrent, error } => {
                (self.events)(torrent, SessionEvent::TrackerFailed(error));
            }
            DiscoveryEvent::TrackerWarning { torrent, url, text } => {
                (self.events)(torrent, SessionEvent::TrackerWarning { url, text });
            }
            DiscoveryEvent::LsdFailed(error) => {
                (self.events)(TorrentKey(0), SessionEvent::LsdFailed(error));
            }
        }
    }

    fn save_all(&mut self) {
        for (&key, torrent) in &mut self.torrents {
            let count = torrent.have.count();
            if torrent.is_unfinished && count != torrent.saved_count {
                torrent.saved_count = count;
                self.disk.save(key, torrent.storage.clone(), torrent.have.clone(), false);
            }
        }
    }
}

impl Torrent {
    fn note(&self, stats: &Stats) {
        let figures = &self.figures;
        figures.uploaded.store(stats.uploaded, Ordering::Relaxed);
        figures.downloaded.store(stats.downloaded, Ordering::Relaxed);
        figures.left.store(self.data_len.saturating_sub(stats.verified), Ordering::Relaxed);
    }

    /// The engine writes no more of it, or only to pieces that are not good.
    fn close(self, key: TorrentKey, disk: &Disk) {
        if self.is_unfinished {
            disk.save(key, self.storage, self.have, true);
        }
    }
}
