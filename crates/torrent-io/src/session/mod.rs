//! Torrents from a metainfo to a verified copy: what `torrent seed` and `torrent get` do, and what
//! the server and the agent do with their images.
//!
//! [`Prepared::open`] finds what is there already and checks it, before any peer is let in; a
//! [`Session`] then runs any number of prepared torrents over one [`Engine`], looks for their peers,
//! saves how far they are, and puts them on the disk for good when all is verified. Printing is not
//! done here, and neither is anything decided about what comes after.

mod disk;
mod keeper;
mod notes;
mod prepare;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use torrent::swarm::Stats;

pub use self::notes::Notes;
pub use self::prepare::{BadFile, Place, Prepared, SessionError, bad_files};
pub use crate::discovery::TorrentKey;

use self::keeper::{Keeper, Message};
use crate::discovery::{Discovery, DiscoveryConfig, DiscoveryEvent};
use crate::engine::{Engine, EngineConfig, EngineError, WebSeedTrouble};
use crate::storage::StorageError;
use crate::tracker_client::TrackerError;

/// How often the resume file is written. A crash loses no data by it, only the knowledge which
/// pieces need no hashing, so this is about wearing disks out.
pub const SAVE_INTERVAL: Duration = Duration::from_secs(30);

/// How long a stopping session waits for the disk: with the trackers' second all ends within two.
pub const DISK_FAREWELL: Duration = Duration::from_millis(1500);

/// How a session is set up.
#[derive(Clone, Debug)]
pub struct SessionConfig {
    /// The engine's part.
    pub engine: EngineConfig,
    /// Look for peers on the local network (BEP 14), for torrents that are not private.
    pub lsd: bool,
    /// What trackers are told of the program, such as `BootTorrent/0.1`.
    pub user_agent: String,
}

/// Something that happened to a torrent.
#[derive(Debug)]
pub enum SessionEvent {
    /// Everything is there, verified, and on the disk; read-only from here on.
    Completed,
    /// It cannot go on, and was dropped.
    Failed(StorageError),
    /// The figures, each half second.
    Progress(Stats),
    /// Bytes by the address of the peer that gave them, most first. Comes with the figures and before
    /// `Completed`, unless nobody gave anything.
    Sources(Vec<(IpAddr, u64)>),
    /// A peer sent corrupt data, or broke the protocol, and will not be connected again.
    Banned(SocketAddr),
    /// A web seed failed.
    WebSeed {
        /// As it was given.
        url: String,
        /// How, and whether it is used any more.
        trouble: WebSeedTrouble,
    },
    /// A tracker failed; it is asked again.
    TrackerFailed(TrackerError),
    /// A tracker has something to say to a human.
    TrackerWarning {
        /// The tracker.
        url: String,
        /// What it says.
        text: String,
    },
    /// The resume file cannot be written: the next start will have to hash everything.
    NotSaved(StorageError),
    /// There is no LSD, for any torrent.
    LsdFailed(io::Error),
}

/// Torrents that run. When it is dropped, it stops within [`DISK_FAREWELL`] or so and leaves what
/// can be resumed.
pub struct Session {
    messages: Sender<Message>,
    addr: SocketAddr,
    thread: Option<JoinHandle<()>>,
    next_key: u32,
}

impl Session {
    /// Listens, and starts the threads. `events` is called on one of them.
    ///
    /// # Errors
    /// If the address cannot be listened on.
    pub fn start(
        config: SessionConfig,
        events: impl FnMut(TorrentKey, SessionEvent) + Send + 'static,
    ) -> Result<Self, EngineError> {
        let (messages, queue) = channel();
        let (peer_id, random_seed) = (config.engine.peer_id, config.engine.random_seed);
        let engine = Engine::start(config.engine)?;
        let addr = engine.addr();
        let found = messages.clone();
        let report = move |event: DiscoveryEvent| {
            // A keeper that is gone has no use for peers.
            let _ = found.send(Message::Discovery(event));
        };
        let discovery = DiscoveryConfig {
            peer_id,
            listen: addr,
            random_seed,
            lsd: config.lsd,
            user_agent: config.user_agent,
        };
        let discovery = Discovery::start(discovery, report).map_err(EngineError::System)?;
        let keeper = Keeper::new(engine, discovery, messages.clone(), queue, Box::new(events))
            .map_err(EngineError::System)?;
        let thread = thread::Builder::new()
            .name("session".to_owned())
            .spawn(move || keeper.run())
            .map_err(EngineError::System)?;
        Ok(Self { messages, addr, thread: Some(thread), next_key: 0 })
    }

    /// Where peers can connect to.
    #[must_use]
    pub const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Runs a torrent. `peers` are dialled besides those that are found.
    pub fn add(&mut self, prepared: Prepared, peers: Vec<SocketAddr>) -> TorrentKey {
        let key = TorrentKey(self.next_key);
        self.next_key += 1;
        self.send(Message::Add(key, Box::new(prepared), peers));
        key
    }

    /// Ends a torrent, and leaves what can be resumed.
    pub fn remove(&self, key: TorrentKey) {
        self.send(Message::Remove(key));
    }

    fn send(&self, message: Message) {
        // A keeper that is gone has said why.
        let _ = self.messages.send(message);
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.send(Message::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests;
