//! Trackers: who knows the peers of a torrent (BEP 3, 7, 12, 15, 23, 48).
//!
//! Both ends are here, as codecs and state machines: what a peer says ([`AnnounceRequest`]) and is
//! told ([`AnnounceResponse`]), over HTTP ([`http`]) and UDP ([`udp`]); when a peer announces to
//! which tracker ([`Announcer`]); and whom a tracker tells of whom ([`Registry`], by the policy of
//! `handout.rs`). Sockets are the driver's.

mod announcer;
mod benc;
mod compact;
mod handout;
pub mod http;
mod registry;
mod rng;
pub mod udp;

use std::net::SocketAddr;
use std::time::Duration;

pub use announcer::{Announcer, Input, Output, TRACKERS_MAX, TrackerIndex};
pub use handout::HANDOUT;
pub use registry::{
    ADDR_PEERS_MAX, PEERS_MAX, Refusal, Registry, SWEEP_INTERVAL, TORRENT_PEERS_MAX, TORRENTS_MAX,
    TorrentStats,
};

/// The most peers that we take from one response. Far above what a swarm connects to, so that it
/// never hurts, and far below what would cost memory (32 KiB).
pub const RESPONSE_PEERS_MAX: usize = 1_000;

/// The most torrents in one scrape: BEP 15 says "about 74" fit a packet.
pub const SCRAPE_MAX: usize = 74;

/// Why a peer announces (BEP 3 `event`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Event {
    /// No event: the interval has passed, or peers are wanted.
    #[default]
    Regular,
    /// The first announce to this tracker.
    Started,
    /// The download has become complete.
    Completed,
    /// The peer leaves.
    Stopped,
}

/// What a peer tells a tracker (BEP 3, 15).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnnounceRequest {
    /// The torrent: SHA-1 of the info dictionary (v1), or the first 20 bytes of its SHA-256 (v2,
    /// BEP 52).
    pub info_hash: [u8; 20],
    /// Who asks (BEP 20).
    pub peer_id: [u8; 20],
    /// TCP port at which the peer listens; not zero.
    pub port: u16,
    /// Bytes sent since `Started`.
    pub uploaded: u64,
    /// Bytes received since `Started`.
    pub downloaded: u64,
    /// Bytes still to get; `None` if the peer did not say, which counts as unfinished.
    pub left: Option<u64>,
    /// Why.
    pub event: Event,
    /// How many peers are wanted; `None` leaves it to the tracker.
    pub numwant: Option<u32>,
    /// A number that stays with the peer when its address changes. Sent, never used by ours.
    pub key: Option<u32>,
}

/// A peer in a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ResponsePeer {
    /// Where to dial.
    pub addr: SocketAddr,
    /// Its id, which only the dictionary form of BEP 3 carries.
    pub peer_id: Option<[u8; 20]>,
}

/// What a tracker tells a peer (BEP 3, 15).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AnnounceResponse {
    /// When to announce again; whole seconds on the wire.
    pub interval: Duration,
    /// How soon to announce again at the earliest; UDP has no field for it.
    pub interval_min: Option<Duration>,
    /// To be repeated in later announces (HTTP only).
    pub tracker_id: Option<Vec<u8>>,
    /// How many peers have everything.
    pub complete: Option<u32>,
    /// How many peers have not.
    pub incomplete: Option<u32>,
    /// For a human.
    pub warning: Option<String>,
    /// The handout.
    pub peers: Vec<ResponsePeer>,
}

/// The figures of one torrent in a scrape (BEP 48).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScrapeStats {
    /// Peers that have everything.
    pub complete: u32,
    /// How often a download was completed.
    pub downloaded: u32,
    /// Peers that have not everything.
    pub incomplete: u32,
}
