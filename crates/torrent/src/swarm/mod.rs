//! One torrent's swarm as seen from one peer: whom to ask for what, whom to serve first.
//!
//! The special case is the normal case here: many willing peers, one seed, all starting within
//! seconds, every link full duplex. The policies are one file each, with the argument for them at
//! the head: [`reveal`] (how the seed spreads the first copy), [`downloads`] and [`picker`] (what to
//! ask of whom), [`uploads`] (whom to serve first), [`endgame`], [`stall`] (quiet peers),
//! [`trust`] (corrupt data), [`connections`].
//!
//! The swarm is a state machine without I/O, clock or threads. **The contract with its driver:**
//! every [`Swarm::handle`] is followed by draining [`Swarm::poll`] until it returns `None`, and
//! [`Input::Tick`] is given when [`Swarm::next_timeout`] has come.

mod io;

mod reveal;

mod downloads;
mod picker;

mod announce;
mod uploads;

mod endgame;

mod stall;

mod trust;

mod connections;
mod room;

mod pex;

mod web;

mod peer;
mod rate;
mod sources;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

pub use connections::{ADDRS_MAX, DEGREE, PEERS_MAX, SEED_PEERS_MAX};
pub use io::{
    CloseReason, Direction, Input, Output, PeerKey, PeerTraits, Role, Standing, Urgency, Verdict,
    VerifiedBlock,
};
pub use peer::REQUEST_QUEUE_MAX;
pub use pex::{PEX_ADDRS_MAX, PexState};
pub use sources::SOURCES_MAX;
pub use web::WEB_SEEDS_MAX;

use crate::bitfield::Bitfield;
use crate::geometry::{BLOCK_LEN, Geometry, UnitIndex};
use crate::time::Time;
use crate::wire::Message;
use announce::News;
use connections::Addrs;
use peer::Peer;
use picker::Picker;
use rate::Rate;
use reveal::Reveal;
use sources::Sources;
use trust::Trust;

/// The longest that a lazy message waits for company.
pub const LAZY_DELAY: Duration = Duration::from_millis(100);

/// How often rates are sampled and stalls looked for while there are peers: a third of the shortest
/// stall, so that one is noticed at most a third late.
const TICK: Duration = Duration::from_millis(50);

/// How often a swarm without peers looks around.
const IDLE_TICK: Duration = Duration::from_secs(1);

/// A keep-alive goes out after this long without a message; BEP 3 gives two minutes.
const KEEP_ALIVE: Duration = Duration::from_secs(100);

/// What a swarm must be told at its start.
#[derive(Clone, Debug)]
pub struct Config {
    /// Our own id (BEP 20).
    pub peer_id: [u8; 20],
    /// The torrent's shape.
    pub geometry: Geometry,
    /// Whether we begin with everything.
    pub role: Role,
    /// Units that are here and verified.
    pub have: Bitfield,
    /// Whether the hash of every unit is known from the metainfo. If not, they are asked for with
    /// BEP 52 hash requests, piece by piece.
    pub unit_hashes_known: bool,
    /// Blocks committed to sockets at least, whatever the rate: as many as leave while the driver has
    /// yet to say so. Two are enough where [`Input::BlockSent`] comes as the block leaves. A driver
    /// that waits for acknowledgements, on a machine that wakes it some milliseconds late, needs eight:
    /// 16 real nodes on a busy machine ended at 1.085 with three, 1.036 with eight, no better with 12.
    pub commit_min_blocks: u32,
    /// Seed of all random choices.
    pub random_seed: u64,
}

/// Figures for progress displays and tests.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Stats {
    /// Bytes of data verified, of [`Geometry::data_len`].
    pub verified: u64,
    /// Bytes of block payload received, repeats and corrupt ones too.
    pub downloaded: u64,
    /// Bytes of block payload handed to sockets.
    pub uploaded: u64,
    /// Bytes received for nothing: repeats, corrupt units, blocks that were not asked for.
    pub wasted: u64,
    /// Bytes a second.
    pub download_rate: f64,
    /// Bytes a second.
    pub upload_rate: f64,
    /// Connections.
    pub peers: usize,
    /// Of them, to peers that have everything (or reveal, as our seeds do).
    pub seeds: usize,
}

/// The state of one torrent's swarm.
#[derive(Debug)]
pub struct Swarm {
    peer_id: [u8; 20],
    geometry: Geometry,
    role: Role,
    rng: fastrand::Rng,
    now: Time,
    next_tick: Time,

    picker: Picker,
    reveal: Option<Reveal>,
    trust: Trust,
    news: News,
    addrs: Addrs,

    /// The connected peers, in no order that means anything.
    slots: Vec<Peer>,
    /// Place in `slots` by connection number, plus one; zero where there is none.
    places: Vec<u32>,
    serials: u32,
    /// Serial numbers and addresses of peers that are or were connected, newest last.
    former: VecDeque<(u32, SocketAddr)>,
    sources: Sources,

    /// Requests outstanding at all peers, reveals left out.
    windowed: u32,
    round_trip_min: Duration,
    download_rate: Rate,
    upload_rate: Rate,
    /// Bytes handed to sockets that have not left.
    unsent: u64,
    /// Bytes to hand to sockets at least, and whether the last time there were as many.
    commit_floor: u64,
    commit_min: u64,
    commit_was_full: bool,
    serves: u64,
    downloaded: u64,
    uploaded: u64,
    wasted: u64,
    /// When a peer last brought something; at first, when the swarm was first asked for anything.
    brought_at: Option<Time>,

    may_request: bool,
    may_serve: bool,
    may_reveal: bool,
    may_dial: bool,
    out: VecDeque<Output>,
}

impl Swarm {
    /// A swarm without peers.
    ///
    /// # Panics
    /// If `have` has not one bit for each unit.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let unit_count = config.geometry.unit_count();
        let known = (!config.unit_hashes_known && !config.geometry.unit_is_piece())
            .then(|| Bitfield::new(config.geometry.piece_count()));
        let picker = Picker::new(&config.geometry, config.have);
        let reveals = config.role == Role::Seed && picker.is_complete();
        Self {
            peer_id: config.peer_id,
            role: config.role,
            rng: fastrand::Rng::with_seed(config.random_seed),
            now: Time::ZERO,
            next_tick: Time::ZERO,
            picker,
            reveal: reveals.then(|| Reveal::new(unit_count)),
            trust: Trust::new(known),
            news: News::default(),
            addrs: Addrs::default(),
            slots: vec![],
            places: vec![],
            serials: 0,
            former: VecDeque::new(),
            sources: Sources::default(),
            windowed: 0,
            round_trip_min: Duration::MAX,
            download_rate: Rate::default(),
            upload_rate: Rate::default(),
            unsent: 0,
            commit_floor: u64::from(config.commit_min_blocks * BLOCK_LEN),
            commit_min: u64::from(config.commit_min_blocks * BLOCK_LEN),
            commit_was_full: false,
            serves: 0,
            downloaded: 0,
            uploaded: 0,
            wasted: 0,
            brought_at: None,
            may_request: false,
            may_serve: false,
            may_reveal: false,
            may_dial: false,
            out: VecDeque::new(),
            geometry: config.geometry,
        }
    }

    /// Takes in what happened; what to do about it comes out of [`Self::poll`].
    pub fn handle(&mut self, now: Time, input: Input) {
        self.now = now;
        match input {
            Input::Connected { peer, addr, direction, traits, standing } => {
                self.on_connected(now, peer, addr, direction, traits, standing);
            }
            Input::Disconnected { peer } => self.remove(peer),
            Input::DialFailed { addr } => self.on_dial_failed(now, addr),
            Input::Message { peer, message } => self.on_message(now, peer, message),
            Input::ExtendedHandshake { peer, unit_len, request_queue_len, upload_only } => {
                self.on_extended_handshake(peer, unit_len, request_queue_len, upload_only);
            }
            Input::Alive { peer } => self.hear(now, peer),
            Input::Block { peer, block } => self.on_block(now, peer, block),
            sent @ (Input::BlockSent { .. } | Input::BlockDelivered { .. }) => {
                self.on_block_sent(now, &sent);
            }
            Input::Verified { unit, verdict } => self.on_verified(now, unit, verdict),
            Input::Judged { unit, corrupt } => self.on_judged(unit, &corrupt),
            Input::HashesKnown { piece } => self.on_hashes_known(piece),
            Input::HashesFailed { peer, piece, lied } => self.on_hashes_failed(peer, piece, lied),
            Input::LentBlock { web_seed, block } => self.on_lent_block(web_seed, block),
            Input::PieceFailed { piece } => self.on_piece_failed(piece),
            Input::PeersFound { addrs } => self.on_peers_found(now, addrs),
            Input::Tick => self.on_tick(now),
        }
        self.settle(now);
    }

    /// The next thing to do, if there is one.
    pub fn poll(&mut self) -> Option<Output> {
        let output = self.out.pop_front();
        if output.is_none() {
            // Back to the start of its memory, which is in the cache, rather than around all of it.
            self.out.clear();
        }
        output
    }

    /// When [`Input::Tick`] is due.
    #[must_use]
    pub fn next_timeout(&self) -> Time {
        self.next_tick.min(self.news.due())
    }

    /// Whether everything is here and verified.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.picker.is_complete()
    }

    /// The units that are here and verified.
    #[must_use]
    pub const fn have(&self) -> &Bitfield {
        self.picker.have()
    }

    /// Whether new connections are shown units one by one rather than told of everything.
    #[must_use]
    pub const fn reveals(&self) -> bool {
        self.reveal.is_some()
    }

    /// Payload that arrives, in bytes a second: as [`Stats::download_rate`], for hot paths.
    #[must_use]
    pub const fn download_rate(&self) -> f64 {
        self.download_rate.bytes_per_s()
    }

    /// Payload that leaves, in bytes a second: as [`Stats::upload_rate`], for hot paths.
    #[must_use]
    pub const fn upload_rate(&self) -> f64 {
        self.upload_rate.bytes_per_s()
    }

    /// Figures for progress displays and tests.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let have = self.picker.have();
        let verified = if have.is_full() {
            self.geometry.data_len()
        } else {
            have.iter()
                .filter_map(|index| self.geometry.unit(index))
                .map(|unit| u64::from(self.geometry.unit_data_len(unit)))
                .sum()
        };
        Stats {
            verified,
            downloaded: self.downloaded,
            uploaded: self.uploaded,
            wasted: self.wasted,
            download_rate: self.download_rate.bytes_per_s(),
            upload_rate: self.upload_rate.bytes_per_s(),
            peers: self.slots.len(),
            seeds: self.peers().filter(|peer| peer.reveals || peer.have.is_full()).count(),
        }
    }

    /// Acts on what changed: fresh requests first, since an empty request window idles the link.
    fn settle(&mut self, now: Time) {
        if std::mem::take(&mut self.may_request) && !self.picker.is_complete() {
            self.request(now);
        }
        if std::mem::take(&mut self.may_serve) {
            self.serve(now);
            if self.unsent == 0 {
                self.widen_reveal();
            }
        }
        if std::mem::take(&mut self.may_reveal) {
            self.reveal(now);
        }
        if std::mem::take(&mut self.may_dial) {
            self.dial(now);
        }
        self.tell_news(now);
    }

    fn on_tick(&mut self, now: Time) {
        if now < self.next_tick {
            return;
        }
        self.brought_at.get_or_insert(now);
        self.download_rate.sample(now);
        self.upload_rate.sample(now);
        self.lower_commit_floor();
        self.check_stalls(now);
        self.check_reveals(now);
        self.close_useless();
        self.ask_missing_hashes();
        self.keep_alive(now);
        self.may_request = true;
        self.may_serve = true;
        self.may_dial = true;
        self.next_tick = now + if self.slots.is_empty() { IDLE_TICK } else { TICK };
    }

    fn keep_alive(&mut self, now: Time) {
        let idle: Vec<PeerKey> = self
            .peers()
            .filter(|peer| now - peer.told_at > KEEP_ALIVE)
            .map(|peer| peer.key)
            .collect();
        for key in idle {
            self.send(key, Message::KeepAlive);
        }
    }

    fn hear(&mut self, now: Time, key: PeerKey) {
        if let Some(peer) = self.peer_mut(key) {
            peer.heard_at = now;
        }
    }

    fn on_message(&mut self, now: Time, key: PeerKey, message: Message) {
        let Some(peer) = self.peer_mut(key) else {
            return;
        };
        peer.heard_at = now;
        let first = !std::mem::replace(&mut peer.said_anything, true);
        match message {
            Message::Choke => {
                peer.chokes_us = true;
                self.release_requests(key, false);
            }
            Message::Unchoke => {
                peer.chokes_us = false;
                self.may_request = true;
            }
            Message::Interested => peer.is_interested = true,
            Message::NotInterested => peer.is_interested = false,
            Message::Have(piece) => self.on_have_piece(now, key, piece),
            Message::HaveUnit(unit) => match self.geometry.unit(unit) {
                Some(unit) => self.on_have_unit(now, key, unit),
                None => self.close(key, CloseReason::Protocol("have-unit out of range")),
            },
            Message::Bitfield(bytes) => self.on_bitfield(now, key, &bytes),
            Message::HaveAll => self.on_have_all(now, key, first),
            Message::HaveNone if !first => {
                self.close(key, CloseReason::Protocol("have-none is not the first message"));
            }
            Message::Request(block) => self.on_request(key, block),
            Message::Cancel(block) => self.on_cancel(key, block),
            Message::Reject(block) => self.on_reject(key, block),
            // Hashes are the driver's; hints and what we do not know are nobody's.
            Message::KeepAlive
            | Message::HaveNone
            | Message::Piece(_)
            | Message::Port(_)
            | Message::SuggestPiece(_)
            | Message::AllowedFast(_)
            | Message::HashRequest(_)
            | Message::Hashes(..)
            | Message::HashReject(_)
            | Message::Extended { .. }
            | Message::Unknown(_) => {}
        }
    }

    fn on_have_piece(&mut self, now: Time, key: PeerKey, piece: u32) {
        match self.geometry.piece(piece) {
            Some(piece) => {
                for unit in self.geometry.units_of(piece) {
                    self.on_have_unit(now, key, unit);
                }
            }
            None => self.close(key, CloseReason::Protocol("have out of range")),
        }
    }

    fn on_have_unit(&mut self, now: Time, key: PeerKey, unit: UnitIndex) {
        if !self.peer_gains(key, unit) {
            return;
        }
        self.reveal_is_over(key, unit);
        let Some(peer) = self.peer(key) else { return };
        if peer.reveals && !peer.chokes_us && self.picker.is_open(unit) {
            // Shown to us alone: nobody else has it, so it does not compete for the window.
            self.take(key, unit);
            // What its queue cannot take is asked for block by block, as any other unit.
            let room = self.peer(key).map_or(0, Peer::room);
            for index in 0..self.geometry.block_count(unit).min(room) {
                self.ask(now, key, unit, index, true);
            }
        } else {
            self.may_request = true;
        }
    }

    /// BEP 3 has a bitfield as the first message only, but aria2 sends one in place of several `have`s
    /// wherever it is shorter. What is not in it is not lost.
    fn on_bitfield(&mut self, now: Time, key: PeerKey, bytes: &[u8]) {
        match Bitfield::decode(bytes, self.geometry.piece_count()) {
            Ok(pieces) => {
                for piece in pieces.iter() {
                    self.on_have_piece(now, key, piece);
                }
            }
            Err(_) => self.close(key, CloseReason::Protocol("bitfield does not fit the torrent")),
        }
    }

    fn on_have_all(&mut self, now: Time, key: PeerKey, first: bool) {
        if !first {
            self.close(key, CloseReason::Protocol("have-all is not the first message"));
            return;
        }
        for piece in 0..self.geometry.piece_count() {
            self.on_have_piece(now, key, piece);
        }
    }

    fn on_extended_handshake(
        &mut self,
        key: PeerKey,
        unit_len: Option<u32>,
        request_queue_len: Option<u32>,
        upload_only: bool,
    ) {
        let ours = self.geometry.unit_len();
        let Some(peer) = self.peer_mut(key) else {
            return;
        };
        if std::mem::replace(&mut peer.extended, true) {
            return;
        }
        peer.speaks_units = unit_len == Some(ours);
        peer.reveals = upload_only && peer.speaks_units;
        if let Some(len) = request_queue_len {
            peer.request_limit = len.clamp(1, REQUEST_QUEUE_MAX as u32);
        }
        if peer.speaks_units {
            self.tell_partial_pieces(key);
        } else if std::mem::replace(&mut peer.revealed_to, false) {
            // It looked like one of ours and is not: it is told of everything, as anybody is.
            for piece in self.pieces().iter() {
                self.send_with(key, Message::Have(piece), Urgency::Lazy);
            }
        }
        self.may_reveal = true;
    }

    /// The units of pieces that are not whole, which a bitfield cannot tell.
    fn tell_partial_pieces(&mut self, key: PeerKey) {
        if self.geometry.unit_is_piece() || self.picker.is_complete() {
            return;
        }
        let pieces = self.pieces();
        for index in self.picker.have().clone().iter() {
            let Some(unit) = self.geometry.unit(index) else {
                continue;
            };
            let empty = self.geometry.unit_data_len(unit) == 0;
            if !empty && !pieces.contains(self.geometry.piece_of(unit).get()) {
                self.send_with(key, Message::HaveUnit(index), Urgency::Lazy);
            }
        }
    }

    fn completed(&mut self) {
        self.out.push_back(Output::Completed);
        let interested: Vec<PeerKey> =
            self.peers().filter(|peer| peer.we_are_interested).map(|peer| peer.key).collect();
        for key in interested {
            self.send_with(key, Message::NotInterested, Urgency::Lazy);
            if let Some(peer) = self.peer_mut(key) {
                peer.we_are_interested = false;
            }
        }
    }

    /// The pieces of which every unit is here.
    fn pieces(&self) -> Bitfield {
        if self.geometry.unit_is_piece() {
            return self.picker.have().clone();
        }
        let count = self.geometry.piece_count();
        let mut pieces = Bitfield::new(count);
        for piece in (0..count).filter_map(|index| self.geometry.piece(index)) {
            if self.geometry.units_of(piece).all(|unit| self.picker.has(unit)) {
                pieces.insert(piece.get());
            }
        }
        pieces
    }

    /// Notes that a peer has a unit; says whether that is news.
    fn peer_gains(&mut self, key: PeerKey, unit: UnitIndex) -> bool {
        let open = self.picker.is_open(unit);
        let Some(peer) = self.peer_mut(key) else {
            return false;
        };
        if !peer.have.insert(unit.get()) {
            return false;
        }
        peer.wanted += u32::from(open);
        self.picker.peer_gained(unit);
        true
    }

    fn peer_loses(&mut self, key: PeerKey, unit: UnitIndex) {
        let open = self.picker.is_open(unit);
        let Some(peer) = self.peer_mut(key) else {
            return;
        };
        if peer.have.remove(unit.get()) {
            peer.wanted -= u32::from(open);
            self.picker.peer_lost(unit);
        }
    }

    fn send(&mut self, key: PeerKey, message: Message) {
        self.send_with(key, message, Urgency::Now);
    }

    fn send_with(&mut self, key: PeerKey, message: Message, urgency: Urgency) {
        let now = self.now;
        if let Some(peer) = self.peer_mut(key) {
            peer.told_at = now;
            self.out.push_back(Output::Send { peer: key, message, urgency });
        }
    }

    fn peers(&self) -> impl Iterator<Item = &Peer> {
        self.slots.iter()
    }

    fn peers_mut(&mut self) -> impl Iterator<Item = &mut Peer> {
        self.slots.iter_mut()
    }

    fn slot(&self, key: PeerKey) -> Option<usize> {
        let place = *self.places.get(key.0 as usize)?;
        (place as usize).checked_sub(1)
    }

    fn peer(&self, key: PeerKey) -> Option<&Peer> {
        self.slot(key).map(|slot| &self.slots[slot])
    }

    fn peer_mut(&mut self, key: PeerKey) -> Option<&mut Peer> {
        self.slot(key).map(|slot| &mut self.slots[slot])
    }

    /// Finds the places of all peers anew; they only change when a peer comes or goes.
    fn index_peers(&mut self) {
        self.places.fill(0);
        for (slot, peer) in self.slots.iter().enumerate() {
            let key = peer.key.0 as usize;
            if key >= self.places.len() {
                self.places.resize(key + 1, 0);
            }
            self.places[key] = slot as u32 + 1;
        }
    }
}
