//! What a swarm knows of one connected peer.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use places::Standing;

use super::io::{Direction, PeerKey, PeerTraits};
use crate::bitfield::Bitfield;
use crate::geometry::{Block, UnitIndex};
use crate::time::Time;

/// Requests of one peer that we remember: 16 MiB of blocks, 13 ms at 10 Gbit/s. BEP 10 `reqq` tells
/// the peer. More are rejected (BEP 6) or dropped.
pub const REQUEST_QUEUE_MAX: usize = 1024;

/// Blocks shown to one peer and not yet sent. It asks for them at once, and what does not fit into
/// the queue of its requests would be rejected.
const SHOWN_MAX: u32 = REQUEST_QUEUE_MAX as u32 / 2;

/// One connected peer.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) key: PeerKey,
    pub(super) addr: SocketAddr,
    pub(super) direction: Direction,
    pub(super) traits: PeerTraits,
    /// Its number among all peers that ever were connected, from 1; blame is laid by it.
    pub(super) serial: u32,

    /// Units that it says it has.
    pub(super) have: Bitfield,
    /// Units that it has and that nobody was asked for yet: work that we could give it.
    pub(super) wanted: u32,
    /// It relays in our units and understands `HaveUnit`.
    pub(super) speaks_units: bool,
    /// Its extended handshake has been seen.
    pub(super) extended: bool,
    /// One of ours that began with everything: each `have` from it is meant for us alone.
    pub(super) reveals: bool,
    /// Whether we reveal to it, rather than telling it of all that we have.
    pub(super) revealed_to: bool,
    /// `HaveAll` or `HaveNone` is only allowed as the first message (BEP 6).
    pub(super) said_anything: bool,

    pub(super) chokes_us: bool,
    pub(super) is_interested: bool,
    pub(super) we_are_interested: bool,

    /// Our requests, oldest first.
    pub(super) outstanding: VecDeque<Outstanding>,
    /// How many of them are answers to a reveal, and so outside our request window.
    pub(super) outstanding_reveals: u32,
    /// The most requests it takes (`reqq`).
    pub(super) request_limit: u32,
    /// Smoothed time between two of its blocks while something was outstanding.
    pub(super) block_interval: Duration,
    /// How much its address is worth a place.
    pub(super) standing: Standing,
    /// When it last asked for a block, gave one or took one; at first, when it came.
    pub(super) moved_at: Time,
    /// When it last made progress on our requests, or was first asked.
    pub(super) progress_at: Time,
    /// When anything was last heard of it.
    pub(super) heard_at: Time,
    /// How much of the log of news it has been told.
    pub(super) news_told: u32,
    /// When it was last sent a message.
    pub(super) told_at: Time,
    /// The unit that it is being asked for block by block.
    pub(super) current: Option<UnitIndex>,
    /// Stalls in a row: at one it may hold a single request, at two it is given up.
    pub(super) strikes: u8,

    /// Bytes of blocks that it sent and that were wanted.
    pub(super) brought: u64,

    /// Its requests, oldest first.
    pub(super) queue: VecDeque<Block>,
    /// Bytes handed to its socket that have not left for the network.
    pub(super) unsent: u64,
    /// Since when `unsent` has not shrunk.
    pub(super) unsent_since: Time,
    /// Blocks handed to its socket that it has not acknowledged.
    pub(super) in_flight: u32,
    /// When it was last served, by a counter: round robin among equals.
    pub(super) served_at: u64,

    /// Units that we revealed to it and have not sent whole, with the blocks left and the moment.
    pub(super) reveals_pending: VecDeque<Pending>,
    /// Smoothed time from revealing a unit to having sent it.
    pub(super) reveal_time: Duration,
    /// When it was last shown a unit, by a counter.
    pub(super) revealed_turn: u64,
    /// Units in a row that it was shown and did not pass on.
    pub(super) hoards: u32,
    /// Nothing has been heard of it for so long that it is shown nothing.
    pub(super) is_silent: bool,
}

/// A request that was sent and not answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outstanding {
    pub(super) unit: UnitIndex,
    pub(super) index: u32,
    pub(super) at: Time,
    pub(super) by_reveal: bool,
}

/// A unit revealed and not yet sent whole.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pending {
    pub(super) unit: UnitIndex,
    pub(super) blocks_left: u32,
    pub(super) at: Time,
}

impl Peer {
    pub(super) fn new(
        key: PeerKey,
        addr: SocketAddr,
        direction: Direction,
        traits: PeerTraits,
        unit_count: u32,
        now: Time,
    ) -> Self {
        Self {
            key,
            addr,
            direction,
            traits,
            serial: 0,
            have: Bitfield::new(unit_count),
            wanted: 0,
            speaks_units: false,
            extended: false,
            reveals: false,
            revealed_to: false,
            said_anything: false,
            chokes_us: true,
            is_interested: false,
            we_are_interested: false,
            outstanding: VecDeque::new(),
            outstanding_reveals: 0,
            request_limit: REQUEST_QUEUE_MAX as u32,
            block_interval: Duration::ZERO,
            standing: Standing::Stranger,
            moved_at: now,
            progress_at: now,
            heard_at: now,
            news_told: 0,
            told_at: now,
            current: None,
            strikes: 0,
            brought: 0,
            queue: VecDeque::new(),
            unsent: 0,
            unsent_since: now,
            in_flight: 0,
            served_at: 0,
            reveals_pending: VecDeque::new(),
            reveal_time: Duration::ZERO,
            revealed_turn: 0,
            hoards: 0,
            is_silent: false,
        }
    }

    /// Whether it has something that we could ask it for without asking anybody twice.
    pub(super) fn has_work(&self) -> bool {
        self.wanted > 0 || self.current.is_some()
    }

    /// Whether it can be shown units now: its extended handshake said how it relays.
    pub(super) fn can_be_shown(&self) -> bool {
        self.revealed_to
            && self.extended
            && self.is_interested
            && !self.is_silent
            && !self.have.is_full()
            && (self.reveals_pending.is_empty() || self.shown_blocks() < SHOWN_MAX)
    }

    /// Blocks that it was shown and not sent.
    fn shown_blocks(&self) -> u32 {
        self.reveals_pending.iter().map(|pending| pending.blocks_left).sum()
    }

    /// How many more requests it takes.
    pub(super) fn room(&self) -> u32 {
        self.request_limit.saturating_sub(self.outstanding.len() as u32)
    }

    /// The most requests that it may hold: what it takes, or one after a stall.
    pub(super) fn limit(&self) -> u32 {
        if self.strikes > 0 { 1 } else { self.request_limit }
    }

    /// Requests that count against our request window.
    pub(super) fn windowed(&self) -> u32 {
        self.outstanding.len() as u32 - self.outstanding_reveals
    }

    /// Notes that a block of ours arrived; returns the request it answers, if there is one.
    pub(super) fn answered(
        &mut self,
        unit: UnitIndex,
        index: u32,
        now: Time,
    ) -> Option<Outstanding> {
        let at = self.outstanding.iter().position(|o| o.unit == unit && o.index == index)?;
        let request = self.outstanding.remove(at)?;
        self.outstanding_reveals -= u32::from(request.by_reveal);
        // The first block after idling says how long the queue was; later ones how fast it drains.
        let since = now - self.progress_at.max(request.at);
        self.block_interval = if self.block_interval.is_zero() {
            since
        } else {
            (self.block_interval * 7 + since) / 8
        };
        self.progress_at = now;
        self.strikes = 0;
        Some(request)
    }

    /// Forgets a request; says whether there was one.
    pub(super) fn withdraw(&mut self, unit: UnitIndex, index: u32) -> bool {
        let Some(at) = self.outstanding.iter().position(|o| o.unit == unit && o.index == index)
        else {
            return false;
        };
        if let Some(request) = self.outstanding.remove(at) {
            self.outstanding_reveals -= u32::from(request.by_reveal);
        }
        true
    }
}
