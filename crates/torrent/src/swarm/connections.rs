//! Which peers to be connected to: enough for a well-mixed mesh, each once, none that lied.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use places::Standing;

use super::io::{CloseReason, Direction, Output, PeerKey, PeerTraits, Role};
use super::peer::Peer;
use super::{Swarm, TICK};
use crate::time::Time;
use crate::wire::Message;

/// Connections that a node wants. A random graph of degree 8 to 16 is as good as any (ring 1.05 × the
/// limit, degree 4 1.024, 8 to 16 1.017, full mesh of 64 1.043).
pub const DEGREE: usize = 10;

/// Connections that a node dials at once. The nodes of a fleet start together and dial each other:
/// if each dialled all that it wants it would have twice as many, and tell each of them everything.
const DIALS: usize = DEGREE / 2;

/// After this long the others have had time to dial us, and we dial what is still missing.
const DIAL_MORE_AFTER: Duration = Duration::from_secs(1);

/// Connections that a node takes. A node that is dialled by more has its link cut into slices too
/// thin to keep pieces flowing, and the kernel's buffers are most of its memory.
pub const PEERS_MAX: usize = 40;

/// Connections that a seed takes: it shows each unit to one peer whatever their number, so more
/// peers cost it only memory and `have`s.
pub const SEED_PEERS_MAX: usize = 200;

/// Addresses remembered. A tracker hands out 10 to 200; PEX tells 50 a minute.
pub const ADDRS_MAX: usize = 1000;

/// First and longest wait before a failed address is dialled again: a node that is just booting is
/// back in a second, one that is gone should not cost a dial a second.
const REDIAL_MIN: Duration = Duration::from_secs(1);
const REDIAL_MAX: Duration = Duration::from_secs(30);

/// How often the tracker may be asked for more.
const NEED_PEERS_INTERVAL: Duration = Duration::from_secs(1);

/// The addresses that a swarm knows.
#[derive(Debug, Default)]
pub(super) struct Addrs {
    known: BTreeMap<SocketAddr, Known>,
    asked_at: Option<Time>,
    /// When there first was somebody to dial.
    dialled_since: Option<Time>,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    state: State,
    failures: u32,
    not_before: Time,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    Dialling,
    Connected,
    Banned,
}

impl Addrs {
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    fn dialling(&self) -> usize {
        self.known.values().filter(|known| known.state == State::Dialling).count()
    }

    fn set(&mut self, addr: SocketAddr, state: State) {
        if let Some(known) = self.known.get_mut(&addr)
            && known.state != State::Banned
        {
            known.state = state;
        }
    }
}

impl Swarm {
    pub(super) fn on_peers_found(&mut self, now: Time, addrs: Vec<SocketAddr>) {
        for addr in addrs {
            if self.addrs.known.len() >= ADDRS_MAX {
                break;
            }
            self.addrs.known.entry(addr).or_insert(Known {
                state: State::Idle,
                failures: 0,
                not_before: now,
            });
        }
        self.dial(now);
    }

    pub(super) fn on_connected(
        &mut self,
        now: Time,
        key: PeerKey,
        addr: SocketAddr,
        direction: Direction,
        traits: PeerTraits,
        standing: Standing,
    ) {
        if direction == Direction::Outgoing {
            self.addrs.set(addr, State::Connected);
        }
        let refusal = self
            .refusal(key, addr, direction, traits)
            .or_else(|| (!self.make_room(now, addr.ip(), standing)).then_some(CloseReason::Full));
        if let Some(reason) = refusal {
            if reason == CloseReason::Duplicate && direction == Direction::Outgoing {
                // Never dial it again: it is ourselves, or connected the other way.
                self.addrs.set(addr, State::Banned);
            }
            self.out.push_back(Output::Close { peer: key, reason });
            return;
        }
        self.serials += 1;
        let mut peer = Peer::new(key, addr, direction, traits, self.geometry.unit_count(), now);
        peer.serial = self.serials;
        peer.standing = standing;
        peer.served_at = self.serves;
        peer.news_told = self.news.len();
        peer.revealed_to = self.reveal.is_some() && traits.own && traits.fast;
        self.slots.push(peer);
        self.index_peers();
        self.greet(key);
        // An idle swarm ticks rarely; a fast link would be half done before its rate was known.
        self.next_tick = self.next_tick.min(now + TICK);
        self.former.push_back((self.serials, addr));
        if self.former.len() > ADDRS_MAX {
            self.former.pop_front();
        }
    }

    /// Why a new connection is not taken.
    fn refusal(
        &mut self,
        key: PeerKey,
        addr: SocketAddr,
        direction: Direction,
        traits: PeerTraits,
    ) -> Option<CloseReason> {
        if traits.peer_id == self.peer_id || self.peer(key).is_some() {
            return Some(CloseReason::Duplicate);
        }
        if self.addrs.known.get(&addr).is_some_and(|known| known.state == State::Banned) {
            return Some(CloseReason::Corrupt);
        }
        let other = self.peers().find(|peer| peer.traits.peer_id == traits.peer_id);
        if let Some((old, old_direction)) = other.map(|peer| (peer.key, peer.direction)) {
            // Both ends must keep the same one of two: that which the smaller id has dialled.
            let ours = direction == Direction::Outgoing;
            let keep_new = old_direction != direction && ours == (self.peer_id < traits.peer_id);
            if !keep_new {
                return Some(CloseReason::Duplicate);
            }
            self.close(old, CloseReason::Duplicate);
        }
        None
    }

    /// Says what we have, that we serve, and whether we want anything.
    fn greet(&mut self, key: PeerKey) {
        let Some(peer) = self.peer(key) else { return };
        let (fast, revealed_to) = (peer.traits.fast, peer.revealed_to);
        let pieces = self.pieces();
        if revealed_to || (fast && pieces.is_empty()) {
            self.send(key, Message::HaveNone);
        } else if fast && pieces.is_full() {
            self.send(key, Message::HaveAll);
        } else if !pieces.is_empty() {
            self.send(key, Message::Bitfield(pieces.encode()));
        }
        self.send(key, Message::Unchoke);
        if !self.picker.is_complete() {
            self.send(key, Message::Interested);
            if let Some(peer) = self.peer_mut(key) {
                peer.we_are_interested = true;
            }
        }
    }

    /// Dials known addresses until there are enough connections.
    pub(super) fn dial(&mut self, now: Time) {
        if self.picker.is_complete() && self.role == Role::Leech {
            return;
        }
        let mut places = self.places_to_dial(now);
        let mut ready: Vec<SocketAddr> = vec![];
        if places > 0 {
            let due = |known: &Known| known.state == State::Idle && known.not_before <= now;
            let known = self.addrs.known.iter();
            ready.extend(known.filter(|(_, known)| due(known)).map(|(addr, _)| *addr));
            self.rng.shuffle(&mut ready);
        }
        for addr in ready {
            if places == 0 {
                break;
            }
            if self.peers().any(|peer| peer.addr == addr) {
                continue;
            }
            places -= 1;
            self.addrs.set(addr, State::Dialling);
            self.out.push_back(Output::Dial { addr });
        }
        self.ask_for_peers(now);
    }

    /// How many more connections to open now.
    fn places_to_dial(&mut self, now: Time) -> usize {
        if self.addrs.known.is_empty() {
            return 0;
        }
        let since = *self.addrs.dialled_since.get_or_insert(now);
        let dialling = self.addrs.dialling();
        let missing = DEGREE.saturating_sub(self.slots.len() + dialling);
        if now - since >= DIAL_MORE_AFTER {
            return missing;
        }
        let ours = self.peers().filter(|peer| peer.direction == Direction::Outgoing).count();
        missing.min(DIALS.saturating_sub(ours + dialling))
    }

    /// Asks for more peers when too few are connected and nothing is left to dial.
    fn ask_for_peers(&mut self, now: Time) {
        let few = self.slots.len() + self.addrs.dialling() < DEGREE / 2;
        let due = self.addrs.asked_at.is_none_or(|at| now - at >= NEED_PEERS_INTERVAL);
        if few && due && !self.picker.is_complete() {
            self.addrs.asked_at = Some(now);
            self.out.push_back(Output::NeedPeers);
        }
    }

    pub(super) fn on_dial_failed(&mut self, now: Time, addr: SocketAddr) {
        let Some(known) = self.addrs.known.get_mut(&addr) else {
            return;
        };
        if known.state != State::Dialling {
            return;
        }
        known.state = State::Idle;
        let wait = (REDIAL_MIN * 2u32.saturating_pow(known.failures.min(10))).min(REDIAL_MAX);
        known.failures += 1;
        known.not_before = now + wait;
    }

    pub(super) fn close(&mut self, key: PeerKey, reason: CloseReason) {
        self.remove(key);
        self.out.push_back(Output::Close { peer: key, reason });
    }

    /// Forgets a peer: takes back what it was asked for and what it counted for.
    pub(super) fn remove(&mut self, key: PeerKey) {
        self.release_requests(key, false);
        let Some(slot) = self.slot(key) else { return };
        let peer = self.slots.swap_remove(slot);
        self.index_peers();
        for index in peer.have.iter() {
            if let Some(unit) = self.geometry.unit(index) {
                self.picker.peer_lost(unit);
            }
        }
        self.forget_unsent(&peer);
        self.sources.add(peer.addr.ip().to_canonical(), peer.brought);
        self.units_lost(peer.serial, |_| false);
        self.hash_source_lost(key);
        if let Some(known) = self.addrs.known.get_mut(&peer.addr)
            && known.state == State::Connected
        {
            known.state = State::Idle;
            known.not_before = self.now + REDIAL_MIN * (known.failures + 1);
            known.failures += 1;
        }
        self.may_request = true;
        self.may_dial = true;
    }

    /// Never again: the peer that sent block data under this serial number lied.
    pub(super) fn ban(&mut self, serial: u32) {
        if let Some(web_seed) = super::web::web_seed_of(serial) {
            self.web_seed_lied(web_seed);
            return;
        }
        let Some(&(_, addr)) = self.former.iter().find(|(former, _)| *former == serial) else {
            return;
        };
        self.addrs
            .known
            .insert(addr, Known { state: State::Banned, failures: 0, not_before: Time::NEVER });
        self.out.push_back(Output::Ban { addr });
        let key = self.peers().find(|peer| peer.serial == serial).map(|peer| peer.key);
        if let Some(key) = key {
            self.close(key, CloseReason::Corrupt);
        }
    }

    /// Closes connections on which neither side wants anything.
    pub(super) fn close_useless(&mut self) {
        if !self.picker.is_complete() {
            return;
        }
        let useless: Vec<PeerKey> = self
            .peers()
            .filter(|peer| peer.have.is_full() && peer.queue.is_empty() && peer.unsent == 0)
            .map(|peer| peer.key)
            .collect();
        for key in useless {
            self.close(key, CloseReason::Useless);
        }
    }
}
