//! Asking a second peer for what the first is slow to send.
//!
//! When nothing is left that nobody was asked for, but a long unit has blocks that its sender has not
//! been asked for yet, others help with these: one unit from one peer is for healthy times.
//!
//! Near the end there is nothing left to ask that nobody was asked for, and the last blocks sit in
//! the queues of whoever happens to be slowest. Then, and whenever a node runs out of fresh work with
//! half its window empty, the fastest holder is asked as well for the block that would come last.
//! At most two peers are asked for a block, and the loser is told to cancel at once. A free hand
//! before the end would cost 4 to 10 % of duplicates, so until then the gain must be large.

use std::time::Duration;

use super::Swarm;
use super::io::PeerKey;
use super::peer::Peer;
use super::picker::Slot;
use crate::geometry::{BLOCK_LEN, UnitIndex};
use crate::time::Time;

/// In the endgame the second copy must be this many times sooner; below that, noise decides.
const GAIN: u32 = 3;
const GAIN_OF: u32 = 2;

/// Before the endgame it must be sooner by this many block times: a real stall, not a queue.
const BLOCK_TIMES: u32 = 40;

impl Swarm {
    /// Lets others help with a unit that one peer is sending; says whether there is one.
    pub(super) fn share(&mut self, window: u32) -> bool {
        if self.windowed >= window / 2 {
            return false;
        }
        let unit = self.peers().find_map(|owner| {
            let unit = owner.current?;
            let is_left = self.picker.partial(unit)?.first_free().is_some();
            let helps = |peer: &Peer| {
                peer.key != owner.key && peer.have.contains(unit.get()) && peer.is_willing()
            };
            (is_left && !self.picker.is_released(unit) && self.peers().any(helps)).then_some(unit)
        });
        let Some(unit) = unit else { return false };
        self.release(unit);
        true
    }

    /// The rest of a unit that a stalled peer was asked a block of, to see whether it lives, is for
    /// others to send.
    pub(super) fn share_if_slow(&mut self, key: PeerKey, unit: UnitIndex) {
        if let Some(peer) = self.peer_mut(key)
            && peer.strikes > 0
        {
            peer.current = None;
            self.release(unit);
        }
    }

    /// Duplicates the worst outstanding blocks at better peers, while the window is half empty.
    pub(super) fn steal(&mut self, now: Time, window: u32) {
        while self.windowed < window / 2 {
            let Some((thief, unit, index)) = self.worst_block(now) else {
                return;
            };
            self.ask(now, thief, unit, index, false);
        }
    }

    /// The block that would come last, and the peer that would send it soonest, if it is worth it.
    fn worst_block(&self, now: Time) -> Option<(PeerKey, UnitIndex, u32)> {
        let mut owners: Vec<(Duration, &Peer)> = self
            .peers()
            .filter(|peer| !peer.outstanding.is_empty())
            .map(|peer| (peer.expected_wait(now), peer))
            .collect();
        owners.sort_by_key(|(wait, peer)| (std::cmp::Reverse(*wait), peer.key));
        for (wait, owner) in owners {
            // With one peer that has all, as many requests as there are would be looked at for each
            // block: a fifth of what a node does at full speed.
            if !self.peers().any(|peer| peer.key != owner.key && peer.could_be_sooner()) {
                continue;
            }
            for request in owner.outstanding.iter().rev() {
                let Some(partial) = self.picker.partial(request.unit) else {
                    continue;
                };
                let Slot::Asked([Some(_), None] | [None, Some(_)]) =
                    partial.slots[request.index as usize]
                else {
                    continue;
                };
                let Some((thief, sooner)) = self.soonest_holder(now, request.unit, owner.key)
                else {
                    continue;
                };
                return self.is_worth_stealing(wait, sooner).then_some((
                    thief,
                    request.unit,
                    request.index,
                ));
            }
        }
        None
    }

    fn soonest_holder(
        &self,
        now: Time,
        unit: UnitIndex,
        owner: PeerKey,
    ) -> Option<(PeerKey, Duration)> {
        self.peers()
            .filter(|peer| peer.key != owner && peer.could_be_sooner())
            .filter(|peer| peer.have.contains(unit.get()))
            .map(|peer| (peer.key, peer.expected_wait(now) + peer.block_interval))
            .min_by_key(|&(key, wait)| (wait, key))
    }

    fn is_worth_stealing(&self, wait: Duration, sooner: Duration) -> bool {
        let block_time = self.download_rate.time_for(u64::from(BLOCK_LEN)).unwrap_or_default();
        if self.picker.is_endgame() {
            return wait * GAIN_OF > sooner * GAIN;
        }
        wait > sooner + block_time * BLOCK_TIMES
    }
}

impl Peer {
    fn is_willing(&self) -> bool {
        !self.chokes_us && self.strikes == 0
    }

    /// It sends what it is asked for, and how fast is known.
    fn could_be_sooner(&self) -> bool {
        self.is_willing() && !self.block_interval.is_zero()
    }

    /// When all that was asked of it should have come: its queue at its usual pace, and what it is
    /// already late by.
    fn expected_wait(&self, now: Time) -> Duration {
        let silent =
            if self.outstanding.is_empty() { Duration::ZERO } else { now - self.progress_at };
        let late = silent.saturating_sub(self.block_interval);
        self.block_interval * self.outstanding.len() as u32 + late
    }
}
