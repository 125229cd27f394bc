//! How the seed spreads the first copy: each unit is shown to one peer before any is shown to two.
//!
//! The seed's uplink is the scarcest thing in the swarm. A repeat that it sends delays some unit's
//! first copy, and no node can end before the last first copy is out. A seed that shows all it has
//! and serves whoever asks sends a quarter of the image twice and ends at 1.27 × the limit; one that
//! tells a single peer of a unit, in order, ends at 1.02. So towards our own peers a seed says "have
//! none" and then gives out single `have`s, just ahead of what its link can send: the peer that
//! hears of a unit asks for it at once, and passes it on.
//!
//! When everything was shown once the seed goes on with what is rarest among its peers: this costs
//! nothing while all is well, and brings back what died with somebody. Clients of other make, which
//! know nothing of this, see a plain seed.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use super::Swarm;
use super::io::{PeerKey, Role, Urgency};
use super::peer::{Peer, Pending, REQUEST_QUEUE_MAX};
use crate::geometry::{BLOCK_LEN, Block, UnitIndex};
use crate::time::Time;
use crate::wire::Message;

/// What is shown and not yet sent, at least: with less, the seed idles for the round trip between
/// showing and being asked (2 blocks end at 1.15 × the limit, 8 at 1.03, 16 at 1.02).
const BUDGET_MIN: u64 = 16 * BLOCK_LEN as u64;

/// The most that is shown and not yet sent: 2 ms at 10 GB/s, more than any link here.
const BUDGET_MAX: u64 = 20 << 20;

/// Blocks that are shown to one peer and not yet sent: half of what its queue here can hold.
const PENDING_MAX: usize = REQUEST_QUEUE_MAX / 2;

/// A peer whose units take this many times the usual to be fetched is slow: it is passed over while
/// there is another, and does not count against the budget.
const SLOW: u32 = 2;
const OVERDUE: u32 = 4;

/// Nothing heard for this long, or for so many unit times: what was shown to the peer alone is shown
/// to another.
const SILENT: Duration = Duration::from_millis(400);
const SILENT_UNIT_TIMES: u32 = 8;

/// A unit is not shown again within this many unit times: its first copy is still on the way. While
/// next to nothing flows a unit time means nothing, and a second is enough.
const AGAIN_UNIT_TIMES: u32 = 8;
const AGAIN_MAX: Duration = Duration::from_secs(1);

/// A unit that nobody but the peer that it was shown to has after this long, or so many unit times,
/// does not spread: the peer lies, shares nothing or is cut off. Several times what it takes a unit
/// to come back around a fleet of a thousand, of which only some are our peers.
const HOARDED: Duration = Duration::from_secs(1);
const HOARDED_UNIT_TIMES: u32 = 200;

/// A seed that has had nothing to send has no rate to reckon with.
const HOARDED_MAX: Duration = Duration::from_secs(10);

/// So many hoarded units in a row make a hoarder, which is shown units when nobody else can be.
const HOARDER: u32 = 4;

/// The peer number of a unit that was shown to nobody.
const NOBODY: u32 = u32::MAX;

/// What the seed has shown to whom.
#[derive(Debug)]
pub(super) struct Reveal {
    /// Serial number of the peer that each unit was last shown to, and when.
    shown: Vec<(u32, Time)>,
    /// Units before this one have been shown, or were had by somebody.
    cursor: u32,
    /// What was shown and is not known to have spread, oldest first: unit, serial number, moment.
    unspread: VecDeque<(UnitIndex, u32, Time)>,
    /// Units whose only holder was lost.
    lost: BTreeSet<UnitIndex>,
    budget: u64,
    /// Smoothed time from showing a unit to having sent it, over all peers.
    usual: Duration,
    turn: u64,
}

impl Reveal {
    pub(super) fn new(unit_count: u32) -> Self {
        Self {
            shown: vec![(NOBODY, Time::ZERO); unit_count as usize],
            cursor: 0,
            unspread: VecDeque::new(),
            lost: BTreeSet::new(),
            budget: BUDGET_MIN,
            usual: Duration::ZERO,
            turn: 0,
        }
    }
}

impl Swarm {
    /// Shows units until enough is shown to keep the link busy.
    pub(super) fn reveal(&mut self, now: Time) {
        if self.role != Role::Seed || self.reveal.is_none() {
            return;
        }
        let Some(mut reveal) = self.reveal.take() else {
            return;
        };
        let unit_len = u64::from(self.geometry.unit_len());
        while self.shown_bytes(now, &reveal) < reveal.budget.max(2 * unit_len) {
            let Some((slot, unit)) = self.next_reveal(now, &mut reveal) else {
                break;
            };
            let blocks_left = self.geometry.block_count(unit);
            reveal.turn += 1;
            let peer = &mut self.slots[slot];
            reveal.shown[unit.get() as usize] = (peer.serial, now);
            reveal.unspread.push_back((unit, peer.serial, now));
            reveal.lost.remove(&unit);
            peer.revealed_turn = reveal.turn;
            peer.reveals_pending.push_back(Pending { unit, blocks_left, at: now });
            let key = peer.key;
            let message = self.have_message(key, unit);
            self.send_with(key, message, Urgency::Now);
        }
        self.reveal = Some(reveal);
    }

    fn have_message(&self, key: PeerKey, unit: UnitIndex) -> Message {
        let speaks_units = self.peer(key).is_some_and(|peer| peer.speaks_units);
        if speaks_units && !self.geometry.unit_is_piece() {
            Message::HaveUnit(unit.get())
        } else {
            Message::Have(self.geometry.piece_of(unit).get())
        }
    }

    /// Bytes shown and not sent, by peers that are not overdue.
    fn shown_bytes(&self, now: Time, reveal: &Reveal) -> u64 {
        let patience = (reveal.usual * OVERDUE).max(SILENT);
        let blocks: u64 = self
            .peers()
            .flat_map(|peer| &peer.reveals_pending)
            .filter(|pending| now - pending.at < patience)
            .map(|pending| u64::from(pending.blocks_left))
            .sum();
        blocks * u64::from(BLOCK_LEN)
    }

    /// The next unit to show, and to whom.
    fn next_reveal(&mut self, now: Time, reveal: &mut Reveal) -> Option<(usize, UnitIndex)> {
        let slow = reveal.usual * SLOW;
        let unit_blocks = self.geometry.unit_len().div_ceil(BLOCK_LEN) as usize;
        let pending_max = (PENDING_MAX / unit_blocks).max(2);
        let mut order: Vec<usize> = (0..self.slots.len())
            .filter(|&slot| {
                let peer = &self.slots[slot];
                peer.can_be_shown() && peer.reveals_pending.len() < pending_max
            })
            .collect();
        order.sort_by_key(|&slot| {
            let peer = &self.slots[slot];
            let is_slow = !slow.is_zero() && peer.reveal_time > slow;
            let hoards = peer.hoards >= HOARDER;
            (hoards, is_slow, peer.reveals_pending.len(), peer.revealed_turn)
        });
        for slot in order {
            if let Some(unit) = self.unit_to_show(now, slot, reveal) {
                return Some((slot, unit));
            }
        }
        None
    }

    fn unit_to_show(&self, now: Time, slot: usize, reveal: &mut Reveal) -> Option<UnitIndex> {
        let peer = &self.slots[slot];
        let lost = reveal.lost.iter().copied().find(|unit| !peer.have.contains(unit.get()));
        if lost.is_some() {
            return lost;
        }
        while let Some(unit) = self.geometry.unit(reveal.cursor) {
            if reveal.shown[unit.get() as usize].0 == NOBODY
                && self.geometry.unit_data_len(unit) > 0
                && self.picker.availability(unit) == 0
            {
                return Some(unit);
            }
            reveal.cursor += 1;
        }
        self.rarest_to_show(now, peer, reveal)
    }

    /// After the first copy: the rarest unit that the peer lacks and that was not shown just now.
    fn rarest_to_show(&self, now: Time, peer: &Peer, reveal: &Reveal) -> Option<UnitIndex> {
        let unit_time =
            self.upload_rate.time_for(u64::from(self.geometry.unit_len())).unwrap_or_default();
        let recent = AGAIN_MAX.min(unit_time * AGAIN_UNIT_TIMES);
        self.picker
            .have()
            .iter_without(&peer.have, &peer.have, 0)
            .filter_map(|index| self.geometry.unit(index))
            .filter(|&unit| self.geometry.unit_data_len(unit) > 0)
            .filter(|unit| {
                let (to, at) = reveal.shown[unit.get() as usize];
                to == NOBODY || now - at >= recent
            })
            .min_by_key(|&unit| self.picker.availability(unit))
    }

    /// A block was handed to a socket: is it one of a unit that we showed to that peer?
    pub(super) fn reveal_sent(&mut self, now: Time, key: PeerKey, block: Block) {
        let Some(reveal) = &mut self.reveal else {
            return;
        };
        let Some(unit) = self.geometry.unit_at(block.piece, block.offset) else {
            return;
        };
        let Some(peer) = self.slots.iter_mut().find(|peer| peer.key == key) else {
            return;
        };
        let Some(at) = peer.reveals_pending.iter().position(|pending| pending.unit == unit) else {
            return;
        };
        let pending = &mut peer.reveals_pending[at];
        pending.blocks_left = pending.blocks_left.saturating_sub(1);
        if pending.blocks_left > 0 {
            return;
        }
        let took = now - pending.at;
        peer.reveals_pending.remove(at);
        peer.reveal_time = average(peer.reveal_time, took, 2);
        reveal.usual = average(reveal.usual, took, 16);
        self.may_reveal = true;
    }

    /// A request was withdrawn: its unit comes from elsewhere.
    pub(super) fn forget_reveal(&mut self, key: PeerKey, block: Block) {
        if let Some(unit) = self.geometry.unit_at(block.piece, block.offset) {
            self.reveal_is_over(key, unit);
        }
    }

    /// A request could not be taken: its unit must be shown again.
    pub(super) fn reveal_refused(&mut self, key: PeerKey, block: Block) {
        let Some(unit) = self.geometry.unit_at(block.piece, block.offset) else {
            return;
        };
        let was_shown = self
            .peer(key)
            .is_some_and(|peer| peer.reveals_pending.iter().any(|pending| pending.unit == unit));
        if was_shown && let Some(reveal) = &mut self.reveal {
            reveal.lost.insert(unit);
            self.reveal_is_over(key, unit);
        }
    }

    /// The peer has the unit, or does not want it from us.
    pub(super) fn reveal_is_over(&mut self, key: PeerKey, unit: UnitIndex) {
        if self.reveal.is_some()
            && let Some(peer) = self.peer_mut(key)
        {
            peer.reveals_pending.retain(|pending| pending.unit != unit);
            self.may_reveal = true;
        }
    }

    /// The link ran dry although units are shown: show more at a time from now on.
    pub(super) fn widen_reveal(&mut self) {
        let waiting = self.peers().any(|peer| !peer.reveals_pending.is_empty());
        if let Some(reveal) = &mut self.reveal
            && waiting
        {
            let step = u64::from(BLOCK_LEN).max(reveal.budget / 8);
            reveal.budget = (reveal.budget + step).min(BUDGET_MAX);
            self.may_reveal = true;
        }
    }

    /// Finds peers that have gone quiet; called a few times a second.
    pub(super) fn check_reveals(&mut self, now: Time) {
        if self.reveal.is_none() {
            return;
        }
        let unit_time =
            self.upload_rate.time_for(u64::from(self.geometry.unit_len())).unwrap_or_default();
        let silence = SILENT.max(unit_time.min(Duration::from_secs(1)) * SILENT_UNIT_TIMES);
        for slot in 0..self.slots.len() {
            let peer = &mut self.slots[slot];
            let is_silent = now - peer.heard_at > silence && !peer.have.is_full();
            if is_silent && !peer.is_silent {
                peer.reveals_pending.clear();
                let (serial, have) = (peer.serial, peer.have.clone());
                self.units_lost(serial, |unit| have.contains(unit.get()));
            }
            self.slots[slot].is_silent = is_silent;
        }
        self.check_spread(now, unit_time);
        self.may_reveal = true;
    }

    /// Finds peers that keep to themselves what they are shown, and has it shown to others.
    fn check_spread(&mut self, now: Time, unit_time: Duration) {
        let Some(mut reveal) = self.reveal.take() else {
            return;
        };
        let patience = HOARDED.max(unit_time * HOARDED_UNIT_TIMES).min(HOARDED_MAX);
        while let Some(&(unit, serial, at)) = reveal.unspread.front() {
            let has_spread = self.picker.availability(unit) > 1;
            if !has_spread && now - at < patience {
                break;
            }
            reveal.unspread.pop_front();
            if reveal.shown[unit.get() as usize].0 != serial {
                continue;
            }
            let others_lack_it = self.peers().any(|peer| {
                peer.serial != serial && peer.can_be_shown() && !peer.have.contains(unit.get())
            });
            if let Some(peer) = self.peers_mut().find(|peer| peer.serial == serial) {
                if has_spread {
                    peer.hoards = 0;
                } else if peer.have.contains(unit.get()) && others_lack_it {
                    peer.hoards += 1;
                    reveal.lost.insert(unit);
                }
            }
        }
        self.reveal = Some(reveal);
    }

    /// The peer of that serial number is gone or silent: what was shown to it and is held by nobody
    /// else must be shown again. `holds` says what it still counts for as available.
    pub(super) fn units_lost(&mut self, serial: u32, holds: impl Fn(UnitIndex) -> bool) {
        let Some(reveal) = &mut self.reveal else {
            return;
        };
        for (index, &(to, _)) in reveal.shown.iter().enumerate() {
            let Some(unit) = self.geometry.unit(index as u32) else {
                continue;
            };
            if to == serial && self.picker.availability(unit) <= u16::from(holds(unit)) {
                reveal.lost.insert(unit);
            }
        }
        self.may_reveal = true;
    }
}

/// `old` moved by one `part`-th towards `new`; `new` if there was nothing yet.
fn average(old: Duration, new: Duration, part: u32) -> Duration {
    if old.is_zero() { new } else { (old * (part - 1) + new) / part }
}
