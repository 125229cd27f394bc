//! The engine: one thread that owns all swarms, their sockets and their timers.
//!
//! Programs talk to it through [`Engine`], which sends commands, and through the callback of each
//! torrent, which hears what happens. Everything a swarm decides is decided in the `torrent` crate;
//! here bytes move.

mod reactor;

mod incoming;
mod outgoing;

mod connection;
mod limits;
mod pex;
mod torrent;
mod web;

mod pace;
mod sockopt;
mod worker;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};

use ::torrent::Bitfield;
use ::torrent::metainfo::Metainfo;
use ::torrent::swarm::{Role, Standing, Stats};
use mio::Waker;

pub use reactor::{CONNECTIONS_MAX, HALF_OPEN_MAX, PER_ADDRESS_MAX};

use crate::storage::{Storage, StorageError};
use crate::web_seed::WebSeedError;
use reactor::Reactor;

/// How an engine is set up.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Where peers may connect to; port 0 for any.
    pub listen: SocketAddr,
    /// Our id (BEP 20).
    pub peer_id: [u8; 20],
    /// Seed of all random choices.
    pub random_seed: u64,
    /// Bytes a second that may be uploaded, by all torrents together.
    pub upload_limit: Option<u64>,
    /// Bytes a second that may be downloaded, by all torrents together.
    pub download_limit: Option<u64>,
    /// Peer exchange (BEP 11), for torrents that are not private.
    pub pex: bool,
    /// Whose connections are kept when there are too many.
    pub known: Known,
}

/// Says of an address how much it is worth a place; by default every address is a stranger's. It is
/// asked on the engine's thread and must not block.
#[derive(Clone, Default)]
pub struct Known(Option<Arc<dyn Fn(IpAddr) -> Standing + Send + Sync>>);

impl Known {
    /// Asks a function.
    #[must_use]
    pub fn new(standing: Arc<dyn Fn(IpAddr) -> Standing + Send + Sync>) -> Self {
        Self(Some(standing))
    }

    fn standing(&self, address: IpAddr) -> Standing {
        self.0.as_ref().map_or(Standing::Stranger, |standing| standing(address))
    }
}

impl std::fmt::Debug for Known {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Known").field(&self.0.is_some()).finish()
    }
}

/// A torrent to be run.
pub struct TorrentConfig {
    /// What it is.
    pub metainfo: Metainfo,
    /// Where its bytes are.
    pub storage: Arc<Storage>,
    /// Pieces that are there and verified.
    pub have: Bitfield,
    /// Whether it began with everything.
    pub role: Role,
    /// URLs of web seeds, beside those of the metainfo; plain HTTP.
    pub web_seeds: Vec<String>,
    /// Hears what happens, on the engine's thread: it must not block.
    pub events: Box<dyn FnMut(TorrentEvent) + Send>,
}

/// A torrent of an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TorrentId(u64);

/// Something that happened to a torrent.
#[derive(Debug)]
pub enum TorrentEvent {
    /// Everything is there and verified.
    Completed,
    /// It cannot go on: its storage failed. The engine has dropped it.
    Failed(StorageError),
    /// There are too few peers: trackers should be asked now.
    NeedPeers,
    /// A peer sent corrupt data, or broke the protocol, and will not be connected again.
    Banned(SocketAddr),
    /// A web seed failed.
    WebSeed {
        /// As it was given.
        url: String,
        /// How, and whether it is used any more.
        trouble: WebSeedTrouble,
    },
    /// The figures, each half second.
    Progress(Progress),
    /// Who gave how much ([`Swarm::sources`](torrent::swarm::Swarm::sources)): before what it is about is
    /// told as completed, and with the figures, unless nobody gave anything.
    Sources(Vec<(IpAddr, u64)>),
}

/// What is wrong with a web seed.
#[derive(Debug, thiserror::Error)]
pub enum WebSeedTrouble {
    /// It is tried again later.
    #[error("the web seed failed and is tried again later")]
    Failed(#[source] WebSeedError),
    /// It is not used any more: what is wrong does not pass.
    #[error("the web seed cannot be used")]
    Unusable(#[source] WebSeedError),
    /// It is not used any more: it sent other data than the torrent's.
    #[error("the web seed sent corrupt data and is not used any more")]
    Corrupt,
}

/// How a torrent is doing.
#[derive(Clone, Debug)]
pub struct Progress {
    /// The figures.
    pub stats: Stats,
    /// Pieces that are verified, for the resume file.
    pub have: Bitfield,
}

/// Why an engine could not start.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The address cannot be listened on.
    #[error("cannot listen on {addr}")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The kernel gave no epoll, no thread, or none of another thing.
    #[error("cannot start the engine")]
    System(#[source] io::Error),
}

/// What programs ask of the engine's thread.
pub(crate) enum Command {
    Add { id: TorrentId, config: Box<TorrentConfig> },
    Remove { id: TorrentId },
    Peers { id: TorrentId, addrs: Vec<SocketAddr> },
    Stop,
}

/// A running engine. It stops when this is dropped.
pub struct Engine {
    commands: Sender<Command>,
    waker: Arc<Waker>,
    addr: SocketAddr,
    thread: Option<JoinHandle<()>>,
    next_id: u64,
}

impl Engine {
    /// Listens, and starts the thread.
    ///
    /// # Errors
    /// If the address cannot be listened on.
    pub fn start(config: EngineConfig) -> Result<Self, EngineError> {
        let (commands, queue) = channel();
        let reactor = Reactor::new(config, queue)?;
        let (waker, addr) = (reactor.waker(), reactor.addr());
        let thread = thread::Builder::new()
            .name("engine".to_owned())
            .spawn(move || reactor.run())
            .map_err(EngineError::System)?;
        Ok(Self { commands, waker, addr, thread: Some(thread), next_id: 0 })
    }

    /// Where peers can connect to.
    #[must_use]
    pub const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Runs a torrent.
    pub fn add(&mut self, config: TorrentConfig) -> TorrentId {
        self.next_id += 1;
        let id = TorrentId(self.next_id);
        self.send(Command::Add { id, config: Box::new(config) });
        id
    }

    /// Drops a torrent and its connections.
    pub fn remove(&self, id: TorrentId) {
        self.send(Command::Remove { id });
    }

    /// Tells a torrent of peers.
    pub fn add_peers(&self, id: TorrentId, addrs: Vec<SocketAddr>) {
        self.send(Command::Peers { id, addrs });
    }

    fn send(&self, command: Command) {
        // If the thread is gone there is nobody to tell, and its torrents have said why.
        if self.commands.send(command).is_ok() {
            let _ = self.waker.wake();
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.send(Command::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
