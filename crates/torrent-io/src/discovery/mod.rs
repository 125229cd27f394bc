//! Finds peers for torrents: one thread that drives `torrent::tracker::Announcer` with a
//! [`TrackerClient`](crate::TrackerClient), and `torrent::lsd::Lsd` over multicast sockets.
//!
//! What it finds it reports; dialling is the engine's. PEX (BEP 11) is not here, as it runs within
//! connections of a swarm.
//!
//! **Hybrid torrents** are two swarms (BEP 52): one under the v1 infohash, with every peer that
//! knows both or v1 alone, and one under the v2 infohash with those that know v2 alone. We take part
//! in both, but ask for peers in the first only: the engine dials with the v1 infohash, which a
//! v2-only peer would not know. Such a peer learns of us from the tracker, or by LSD, and dials us
//! with the v2 infohash, which the engine answers. That costs one small request per interval, and
//! the handout of the first swarm stays the only one that shapes the mesh.
//!
//! **Private torrents** (BEP 27) are looked for by their trackers alone.

mod finder;
mod interfaces;
mod local;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use mio::Waker;
use torrent::metainfo::Metainfo;

use self::finder::{Finder, Message};
use crate::tracker_client::TrackerError;

/// How long [`Discovery`] waits for trackers to hear that we leave: a live one answers within
/// milliseconds, and a dead one notices by itself.
pub const FAREWELL: Duration = Duration::from_secs(1);

/// How discovery is set up.
#[derive(Clone, Debug)]
pub struct DiscoveryConfig {
    /// Our id (BEP 20), the engine's.
    pub peer_id: [u8; 20],
    /// Where the engine listens, its port resolved.
    pub listen: SocketAddr,
    /// Seed of all random choices; must differ between nodes.
    pub random_seed: u64,
    /// Look for peers on the local network (BEP 14).
    pub lsd: bool,
    /// What trackers are told of the program, such as `BootTorrent/0.1`.
    pub user_agent: String,
}

/// A torrent, as its owner numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TorrentKey(pub u32);

/// What a torrent's trackers are told, kept up to date by its owner; all in bytes.
#[derive(Debug, Default)]
pub struct Figures {
    /// Sent to peers.
    pub uploaded: AtomicU64,
    /// Received from peers.
    pub downloaded: AtomicU64,
    /// Not verified yet.
    pub left: AtomicU64,
}

/// What is to be found.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Announce URLs by tier (BEP 12).
    pub trackers: Vec<Vec<String>>,
    /// Names of its swarms, the one that the engine dials with first.
    pub infohashes: Vec<[u8; 20]>,
    /// BEP 27.
    pub is_private: bool,
    /// What to tell of it. `left` says whether it is complete at the start.
    pub figures: Arc<Figures>,
}

impl Wanted {
    /// The swarms of `metainfo`.
    #[must_use]
    pub fn new(metainfo: &Metainfo, figures: Arc<Figures>) -> Self {
        Self {
            trackers: metainfo.trackers().to_vec(),
            infohashes: metainfo.info_hashes().map(|hash| hash.truncated()).collect(),
            is_private: metainfo.is_private(),
            figures,
        }
    }

    fn is_complete(&self) -> bool {
        self.figures.left.load(Ordering::Relaxed) == 0
    }
}

/// Something that discovery has to say.
#[derive(Debug)]
pub enum DiscoveryEvent {
    /// There are peers; perhaps known already, perhaps ourselves.
    Found {
        /// Of which torrent.
        torrent: TorrentKey,
        /// Where.
        addrs: Vec<SocketAddr>,
    },
    /// A tracker failed. It is asked again, and this is not said again until it has answered.
    TrackerFailed {
        /// Of which torrent.
        torrent: TorrentKey,
        /// Names the tracker.
        error: TrackerError,
    },
    /// A tracker has something to say to a human.
    TrackerWarning {
        /// Of which torrent.
        torrent: TorrentKey,
        /// The tracker.
        url: String,
        /// What it says.
        text: String,
    },
    /// There is no LSD: its port cannot be used. Peers come from elsewhere.
    LsdFailed(io::Error),
}

/// A running search. When this is dropped, trackers are told that we leave, for at most
/// [`FAREWELL`].
pub struct Discovery {
    messages: Sender<Message>,
    waker: Arc<Waker>,
    thread: Option<JoinHandle<()>>,
}

impl Discovery {
    /// Starts the thread, on which `report` is called.
    ///
    /// # Errors
    /// If the kernel gives no epoll or no thread.
    pub fn start(
        config: DiscoveryConfig,
        report: impl FnMut(DiscoveryEvent) + Send + 'static,
    ) -> io::Result<Self> {
        let (messages, queue): (_, Receiver<Message>) = channel();
        let finder = Finder::new(config, messages.clone(), queue, Box::new(report))?;
        let waker = finder.waker();
        let thread =
            thread::Builder::new().name("discovery".to_owned()).spawn(move || finder.run())?;
        Ok(Self { messages, waker, thread: Some(thread) })
    }

    /// Looks for peers of a torrent.
    pub fn join(&self, torrent: TorrentKey, wanted: Wanted) {
        self.send(Message::Join(torrent, wanted));
    }

    /// The torrent has too few peers: trackers are asked as soon as they allow.
    pub fn need_peers(&self, torrent: TorrentKey) {
        self.send(Message::NeedPeers(torrent));
    }

    /// The torrent has become complete.
    pub fn completed(&self, torrent: TorrentKey) {
        self.send(Message::Completed(torrent));
    }

    /// The torrent is no longer of interest.
    pub fn leave(&self, torrent: TorrentKey) {
        self.send(Message::Leave(torrent));
    }

    /// Begins to leave; dropping this waits for the end of it.
    pub fn stop(&self) {
        self.send(Message::Stop);
    }

    fn send(&self, message: Message) {
        // A thread that is gone has nobody to tell.
        if self.messages.send(message).is_ok() {
            let _ = self.waker.wake();
        }
    }
}

impl Drop for Discovery {
    fn drop(&mut self) {
        self.stop();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests;
