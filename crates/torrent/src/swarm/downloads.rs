//! What to ask of whom, and what to do with what arrives.
//!
//! Few requests are outstanding at any time. A long queue at an uploader ages: by the time a block's
//! turn comes another neighbour could have sent it, and the requester's choice of the rarest unit
//! is old news. In simulation a window of 16 blocks ends at 1.02 × the limit, one of 128 at 1.05,
//! one of 512 (what general clients use) at 1.06 and more; one of 4 at 1.13, because links then idle
//! for a round trip. So the window follows the rate: a few milliseconds of it, never under 16 blocks.

use std::time::Duration;

use super::Swarm;
use super::io::{Output, PeerKey, Urgency, Verdict};
use super::peer::{Outstanding, Peer};
use super::picker::{PartialState, Slot};
use crate::geometry::{BLOCK_LEN, Block, PieceIndex, UnitIndex};
use crate::time::Time;
use crate::wire::Message;

/// Requests outstanding in all, as time at the measured download rate. 6 ms cover the wake-ups of
/// both ends; with a longer path three round trips do.
const WINDOW_HORIZON: Duration = Duration::from_millis(6);

/// Round trips that the window covers: more than two, so that it can grow into a faster link.
const WINDOW_ROUND_TRIPS: u32 = 3;

/// The window is never smaller than this many blocks.
const WINDOW_MIN: u32 = 16;

/// Requests outstanding at one peer, at least; more when few peers have something for us.
const PER_PEER_MIN: u32 = 4;

impl Swarm {
    /// Whether a block that has just arrived from this peer is to be stored. It is not if it was
    /// never asked for, if another peer was faster, or if its unit is verified or being hashed.
    #[must_use]
    pub fn wants(&self, peer: PeerKey, block: Block) -> bool {
        let Some((unit, index)) = self.geometry.locate(block) else {
            return false;
        };
        self.peer(peer).is_some()
            && self.picker.partial(unit).is_some_and(|partial| {
                partial.state == PartialState::Downloading
                    && !matches!(partial.slots[index as usize], Slot::Received(_))
            })
    }

    pub(super) fn on_block(&mut self, now: Time, key: PeerKey, block: Block) {
        self.downloaded += u64::from(block.len);
        self.download_rate.add(u64::from(block.len));
        self.may_request = true;
        let wanted = self.wants(key, block);
        let Some((unit, index)) = self.geometry.locate(block) else {
            return;
        };
        let Some(peer) = self.peer_mut(key) else {
            return;
        };
        peer.heard_at = now;
        if let Some(request) = peer.answered(unit, index, now) {
            self.windowed -= u32::from(!request.by_reveal);
            self.round_trip_min = self.round_trip_min.min(now - request.at);
        }
        if !wanted {
            self.wasted += u64::from(block.len);
            return;
        }
        let Some(peer) = self.peer_mut(key) else {
            return;
        };
        peer.brought += u64::from(block.len);
        peer.moved_at = now;
        let serial = peer.serial;
        self.brought_at = Some(now);
        let Some(partial) = self.picker.partial_mut(unit) else {
            return;
        };
        let before = std::mem::replace(&mut partial.slots[index as usize], Slot::Received(serial));
        let whole = partial.is_whole();
        if let Slot::Asked(askers) = before {
            for other in askers.into_iter().flatten().filter(|other| *other != key) {
                self.cancel(other, unit, index);
            }
        }
        if whole {
            self.unit_is_whole(unit);
        }
    }

    /// Withdraws a request and tells the peer.
    pub(super) fn cancel(&mut self, key: PeerKey, unit: UnitIndex, index: u32) {
        let block = self.geometry.block(unit, index);
        let Some(peer) = self.peer_mut(key) else {
            return;
        };
        let before = peer.windowed();
        if peer.withdraw(unit, index) {
            self.windowed -= before - self.peer(key).map_or(before, Peer::windowed);
            self.send(key, Message::Cancel(block));
        }
    }

    pub(super) fn unit_is_whole(&mut self, unit: UnitIndex) {
        let known = self.hashes_known(self.geometry.piece_of(unit));
        let Some(partial) = self.picker.partial_mut(unit) else {
            return;
        };
        partial.state = if known { PartialState::Verifying } else { PartialState::AwaitingHashes };
        if known {
            self.out.push_back(Output::Verify { unit });
        }
    }

    pub(super) fn on_reject(&mut self, key: PeerKey, block: Block) {
        let Some((unit, index)) = self.geometry.locate(block) else {
            return;
        };
        let Some(peer) = self.peer_mut(key) else {
            return;
        };
        let before = peer.windowed();
        if !peer.withdraw(unit, index) {
            return;
        }
        let after = peer.windowed();
        let choked = peer.chokes_us;
        if peer.current == Some(unit) {
            peer.current = None;
        }
        self.windowed -= before - after;
        self.free_slot(key, unit, index);
        // A peer that rejects without choking does not have it after all. Asking again at once
        // would be a loop at the speed of the network.
        if !choked {
            self.peer_loses(key, unit);
        }
        self.may_request = true;
    }

    /// Takes back everything that was asked of a peer.
    pub(super) fn release_requests(&mut self, key: PeerKey, tell: bool) {
        let Some(peer) = self.peer_mut(key) else {
            return;
        };
        let requests: Vec<Outstanding> = peer.outstanding.drain(..).collect();
        peer.outstanding_reveals = 0;
        let current = peer.current.take();
        self.windowed -= requests.iter().filter(|request| !request.by_reveal).count() as u32;
        for request in requests {
            if tell {
                let block = self.geometry.block(request.unit, request.index);
                self.send(key, Message::Cancel(block));
            }
            self.free_slot(key, request.unit, request.index);
        }
        // Its next block may not have been asked for yet; nobody else would ask for it.
        if let Some(unit) = current {
            self.release(unit);
        }
        self.may_request = true;
    }

    fn free_slot(&mut self, key: PeerKey, unit: UnitIndex, index: u32) {
        let Some(partial) = self.picker.partial_mut(unit) else {
            return;
        };
        if partial.unask(index, key) {
            self.release(unit);
        }
    }

    /// Leaves what is missing of a unit to whoever comes first.
    pub(super) fn release(&mut self, unit: UnitIndex) {
        if self.picker.release(unit) {
            self.unit_opened(unit);
        }
    }

    /// Requests until the window is full or nobody has anything for us.
    pub(super) fn request(&mut self, now: Time) {
        let window = self.window();
        while self.windowed < window {
            match self.best_source(window) {
                Some(key) => self.request_from(now, key),
                None if self.share(window) => {}
                None => {
                    self.steal(now, window);
                    return;
                }
            }
        }
    }

    /// How many blocks to have outstanding in all.
    pub(super) fn window(&self) -> u32 {
        let horizon = match self.round_trip_min {
            Duration::MAX => WINDOW_HORIZON,
            round_trip => WINDOW_HORIZON.max(round_trip * WINDOW_ROUND_TRIPS),
        };
        let by_rate = self.download_rate.over(horizon) / u64::from(BLOCK_LEN);
        let two_units = self.geometry.unit_len().div_ceil(BLOCK_LEN).min(WINDOW_MIN) * 2;
        WINDOW_MIN.max(two_units).max(by_rate as u32)
    }

    /// The peer with something for us that would answer soonest.
    fn best_source(&mut self, window: u32) -> Option<PeerKey> {
        let any_released = self.picker.any_released();
        let useful = |peer: &&Peer| !peer.chokes_us && (peer.has_work() || any_released);
        let sources = self.peers().filter(useful).count() as u32;
        if sources == 0 {
            return None;
        }
        let per_peer = PER_PEER_MIN.max(2 * window / sources);
        let newcomer = self.fastest_interval();
        let mut best: Option<(f64, PeerKey)> = None;
        let mut rng = self.rng.clone();
        for peer in self.peers().filter(useful) {
            let limit = per_peer.min(peer.limit());
            if peer.windowed() >= limit {
                continue;
            }
            if !peer.has_work() && self.picker.pick_released(&peer.have).is_none() {
                continue;
            }
            let interval =
                if peer.block_interval.is_zero() { newcomer } else { peer.block_interval };
            // 10 % of jitter keeps nodes that see the same neighbours from choosing alike.
            let jitter = 0.95 + 0.1 * rng.f64();
            let wait = f64::from(peer.windowed() + 1) * interval.as_secs_f64() * jitter;
            if best.is_none_or(|(least, _)| wait < least) {
                best = Some((wait, peer.key));
            }
        }
        self.rng = rng;
        best.map(|(_, key)| key)
    }

    /// The best block interval of any peer: what a peer that was never tried is assumed to reach.
    fn fastest_interval(&self) -> Duration {
        self.peers()
            .map(|peer| peer.block_interval)
            .filter(|interval| !interval.is_zero())
            .min()
            .unwrap_or(Duration::from_millis(1))
    }

    /// Asks one peer for one block, if it turns out to have work after all.
    fn request_from(&mut self, now: Time, key: PeerKey) {
        let Some(unit) = self.choose_unit(key) else {
            if let Some(peer) = self.peer_mut(key) {
                debug_assert!(peer.wanted == 0, "{} wanted units, none to pick", peer.wanted);
                peer.wanted = 0;
            }
            return;
        };
        let Some(first) = self.picker.partial(unit).and_then(|partial| partial.first_free()) else {
            // It was left unfinished, and what was missing has come since.
            self.picker.not_released(unit);
            return;
        };
        self.ask(now, key, unit, first, false);
        self.share_if_slow(key, unit);
    }

    /// The unit to ask this peer for next: the one it is sending, one left unfinished, a new one.
    fn choose_unit(&mut self, key: PeerKey) -> Option<UnitIndex> {
        let slot = self.slot(key)?;
        if let Some(unit) = self.slots[slot].current.take()
            && self.picker.partial(unit).is_some_and(|partial| partial.first_free().is_some())
        {
            self.slots[slot].current = Some(unit);
            return Some(unit);
        }
        let theirs = &self.slots[slot].have;
        let unit = match self.picker.pick_released(theirs) {
            Some(unit) => unit,
            None => self.picker.pick(theirs, &mut self.rng)?,
        };
        self.take(key, unit);
        Some(unit)
    }

    /// Gives a unit to a peer to send.
    pub(super) fn take(&mut self, key: PeerKey, unit: UnitIndex) {
        if self.picker.is_open(unit) {
            for peer in self.peers_mut().filter(|peer| peer.have.contains(unit.get())) {
                peer.wanted -= 1;
            }
        }
        let blocks = self.geometry.block_count(unit);
        self.picker.take(unit, blocks);
        let before = self.peer_mut(key).and_then(|peer| peer.current.replace(unit));
        if let Some(before) = before.filter(|before| *before != unit) {
            self.release(before);
        }
        self.want_hashes(key, self.geometry.piece_of(unit));
    }

    pub(super) fn ask(
        &mut self,
        now: Time,
        key: PeerKey,
        unit: UnitIndex,
        index: u32,
        by_reveal: bool,
    ) {
        let block = self.geometry.block(unit, index);
        let Some(partial) = self.picker.partial_mut(unit) else {
            return;
        };
        partial.ask(index, key);
        let Some(peer) = self.peer_mut(key) else {
            return;
        };
        if peer.outstanding.is_empty() {
            peer.progress_at = now;
        }
        peer.outstanding.push_back(Outstanding { unit, index, at: now, by_reveal });
        peer.outstanding_reveals += u32::from(by_reveal);
        self.windowed += u32::from(!by_reveal);
        self.tell_news_to(key, Urgency::Lazy);
        self.send(key, Message::Request(block));
    }

    /// Nobody works on the unit any more, and nothing of it is here.
    pub(super) fn unit_opened(&mut self, unit: UnitIndex) {
        for peer in self.peers_mut() {
            if peer.current == Some(unit) {
                peer.current = None;
            }
            if peer.have.contains(unit.get()) {
                peer.wanted += 1;
            }
        }
    }

    pub(super) fn on_verified(&mut self, now: Time, unit: UnitIndex, verdict: Verdict) {
        match verdict {
            Verdict::Good => self.unit_done(now, unit),
            Verdict::Corrupt => self.unit_failed(now, unit),
        }
        self.may_request = true;
    }

    fn unit_done(&mut self, now: Time, unit: UnitIndex) {
        if self.picker.has(unit) {
            return;
        }
        self.picker.finish(unit);
        self.announce(now, unit);
        self.out.push_back(Output::UnitDone { unit });
        self.may_serve = true;
        if self.picker.is_complete() {
            self.completed();
        }
    }

    pub(super) fn on_hashes_known(&mut self, piece: PieceIndex) {
        self.note_hashes_known(piece);
        for unit in self.geometry.units_of(piece) {
            if let Some(partial) = self.picker.partial_mut(unit)
                && partial.state == PartialState::AwaitingHashes
            {
                partial.state = PartialState::Verifying;
                self.out.push_back(Output::Verify { unit });
            }
        }
    }
}
