//! An engine with one torrent, and torrents to run.

use std::fs;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use torrent::Bitfield;
use torrent::metainfo::Metainfo;
use torrent::metainfo::create::{Format, Spec};
use torrent::swarm::{Role, Stats};
use torrent::wire::peer_id;
use torrent_io::create::create;
use torrent_io::engine::{Engine, EngineConfig, Known, TorrentConfig, TorrentEvent, TorrentId};
use torrent_io::storage::{Layout, Storage};

/// Far more than any step takes; only a test that fails waits for it.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// A torrent and its files.
pub(crate) struct Content {
    pub(crate) metainfo: Metainfo,
    dir: TempDir,
}

impl Content {
    /// One file of `len` bytes.
    pub(crate) fn file(format: Format, piece_len: u32, len: usize) -> Self {
        Self::new(Spec { format, piece_len: Some(piece_len), ..Spec::default() }, &[("disk", len)])
    }

    /// A folder of these files, or the file if it is one without a folder.
    pub(crate) fn new(spec: Spec, files: &[(&str, usize)]) -> Self {
        let dir = TempDir::new().unwrap();
        for (number, &(path, len)) in files.iter().enumerate() {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes(number as u64, len)).unwrap();
        }
        let top = files[0].0.split('/').next().unwrap();
        let threads = NonZeroUsize::new(1).unwrap();
        let encoded = create(&dir.path().join(top), spec, threads, &|_, _| {}).unwrap();
        Self { metainfo: Metainfo::decode(&encoded).unwrap(), dir }
    }

    pub(crate) fn layout(&self) -> Layout {
        Layout::of(&self.metainfo).unwrap()
    }

    pub(crate) fn infohash(&self) -> [u8; 20] {
        self.metainfo.info_hashes().next().unwrap().truncated()
    }

    /// The whole piece space.
    pub(crate) fn data(&self) -> Vec<u8> {
        read(&Storage::seed(self.dir.path(), self.layout()).unwrap())
    }

    pub(crate) fn seed(&self) -> Node {
        self.seed_with(config())
    }

    pub(crate) fn seed_with(&self, config: EngineConfig) -> Node {
        let storage = Storage::seed(self.dir.path(), self.layout()).unwrap();
        let have = Bitfield::full(self.metainfo.geometry().piece_count());
        Node::start(self, config, storage, have, Role::Seed)
    }

    pub(crate) fn leech(&self) -> Node {
        self.leech_with(config())
    }

    pub(crate) fn leech_with(&self, config: EngineConfig) -> Node {
        let storage = Storage::memory(self.layout()).unwrap();
        let have = Bitfield::new(self.metainfo.geometry().piece_count());
        Node::start(self, config, storage, have, Role::Leech)
    }
}

/// Bytes that no two blocks of any two files have in common.
pub(crate) fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut bytes: Vec<u8> = (0..len.div_ceil(8)).flat_map(|_| next()).collect();
    bytes.truncate(len);
    bytes
}

fn read(storage: &Storage) -> Vec<u8> {
    let mut data = vec![0; storage.layout().total_len() as usize];
    storage.read(0, &mut data).unwrap();
    data
}

/// An engine on any port of the loopback interface.
pub(crate) fn config() -> EngineConfig {
    // Peer ids must differ between the engines of this process, and nothing else is random.
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
    let seed = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    EngineConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        peer_id: peer_id(seed),
        random_seed: seed,
        upload_limit: None,
        download_limit: None,
        pex: false,
        known: Known::default(),
    }
}

/// An engine with one torrent.
pub(crate) struct Node {
    pub(crate) engine: Engine,
    torrent: Running,
}

/// A torrent of an engine.
pub(crate) struct Running {
    pub(crate) id: TorrentId,
    storage: Arc<Storage>,
    events: Receiver<TorrentEvent>,
}

impl std::ops::Deref for Node {
    type Target = Running;

    fn deref(&self) -> &Running {
        &self.torrent
    }
}

impl Node {
    fn start(
        content: &Content,
        config: EngineConfig,
        storage: Storage,
        have: Bitfield,
        role: Role,
    ) -> Self {
        let mut engine = Engine::start(config).unwrap();
        let torrent = Running::add(&mut engine, content, storage, have, role);
        Self { engine, torrent }
    }

    /// One more torrent for the same engine.
    pub(crate) fn add_leech(&mut self, content: &Content) -> Running {
        let storage = Storage::memory(content.layout()).unwrap();
        let have = Bitfield::new(content.metainfo.geometry().piece_count());
        Running::add(&mut self.engine, content, storage, have, Role::Leech)
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.engine.addr()
    }

    pub(crate) fn knows(&self, addrs: impl IntoIterator<Item = SocketAddr>) {
        self.engine.add_peers(self.id, addrs.into_iter().collect());
    }
}

impl Running {
    fn add(
        engine: &mut Engine,
        content: &Content,
        storage: Storage,
        have: Bitfield,
        role: Role,
    ) -> Self {
        let storage = Arc::new(storage);
        let (send, events) = channel();
        let id = engine.add(TorrentConfig {
            metainfo: content.metainfo.clone(),
            storage: storage.clone(),
            have,
            role,
            web_seeds: vec![],
            // The test may have ended.
            events: Box::new(move |event| drop(send.send(event))),
        });
        Self { id, storage, events }
    }

    /// The first event that `pick` takes.
    pub(crate) fn wait<T>(&self, mut pick: impl FnMut(&TorrentEvent) -> Option<T>) -> T {
        let start = Instant::now();
        let mut last = None;
        while let Some(left) = LONG.checked_sub(start.elapsed())
            && let Ok(event) = self.events.recv_timeout(left)
        {
            if let Some(found) = pick(&event) {
                return found;
            }
            assert!(!matches!(event, TorrentEvent::Failed(_)), "{event:?}");
            if let TorrentEvent::Progress(progress) = event {
                last = Some(progress.stats);
            }
        }
        panic!("waited in vain; the last figures are {last:?}");
    }

    /// Waits for the end of the download and compares every byte.
    pub(crate) fn completes(&self, content: &Content) {
        let len = content.metainfo.geometry().data_len();
        self.wait(|event| match event {
            TorrentEvent::Completed => Some(()),
            // Waiting for something else may have passed over the news.
            TorrentEvent::Progress(progress) => (progress.stats.verified == len).then_some(()),
            _ => None,
        });
        assert!(read(&self.storage) == content.data(), "other bytes than those of the seed");
    }

    /// Drops the events that are waiting, so that figures are those of now.
    pub(crate) fn forget(&self) {
        while self.events.try_recv().is_ok() {}
    }

    /// Waits for figures that satisfy.
    pub(crate) fn stats(&self, mut good: impl FnMut(&Stats) -> bool) -> Stats {
        self.wait(|event| match event {
            TorrentEvent::Progress(progress) if good(&progress.stats) => Some(progress.stats),
            _ => None,
        })
    }

    pub(crate) fn bans(&self) -> SocketAddr {
        self.wait(|event| match event {
            TorrentEvent::Banned(addr) => Some(*addr),
            _ => None,
        })
    }
}
