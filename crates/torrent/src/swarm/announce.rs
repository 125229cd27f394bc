//! Telling the peers what we have, in few packets.
//!
//! A `have` is nine bytes in a packet that costs 66 more, to each of ten or twenty peers for each
//! unit: told one by one they are 2 % of all bytes, half of what is lost against wire speed. So news
//! waits a moment: for a block or a request that leaves for the same peer anyway, at most for the
//! time that a few units take to arrive. That a unit is known of so much later at each of the few
//! hops that it travels costs far less than the packets.
//!
//! To a peer that has the unit itself the news only says that we are richer by it, which decides
//! whom it serves first; this never gets a packet of its own.

use std::time::Duration;

use super::Swarm;
use super::io::{Output, PeerKey, Urgency};
use crate::geometry::UnitIndex;
use crate::time::Time;
use crate::wire::Message;

/// News waits for so many units to come in: 64 nodes end at 1.049 × the limit without waiting, at
/// 1.034 with 3 unit times, 1.029 with 6, and more than 8 gain nothing.
const UNIT_TIMES: u32 = 6;

/// And never longer than this: on slow links the packets matter less than the time.
const DELAY_MAX: Duration = Duration::from_millis(60);

/// What was verified since the start, in order: each peer has been told up to some point of it.
#[derive(Debug, Default)]
pub(super) struct News {
    log: Vec<Item>,
    /// When those that lack something of it are to be told, if nothing took it along before.
    due: Option<Time>,
}

#[derive(Clone, Copy, Debug)]
struct Item {
    unit: UnitIndex,
    /// The unit was the last of its piece.
    piece_done: bool,
}

impl News {
    pub(super) fn len(&self) -> u32 {
        self.log.len() as u32
    }

    pub(super) const fn due(&self) -> Time {
        match self.due {
            Some(due) => due,
            None => Time::NEVER,
        }
    }
}

impl Swarm {
    /// A unit was verified: its news begins to wait.
    pub(super) fn announce(&mut self, now: Time, unit: UnitIndex) {
        let piece = self.geometry.piece_of(unit);
        let piece_done = self.geometry.units_of(piece).all(|unit| self.picker.has(unit));
        self.news.log.push(Item { unit, piece_done });
        if self.picker.is_complete() {
            self.news.due = Some(now);
        } else if self.news.due.is_none() {
            self.news.due = Some(now + self.news_delay());
        }
    }

    fn news_delay(&self) -> Duration {
        let unit_len = u64::from(self.geometry.unit_len());
        let unit_time = self.download_rate.time_for(unit_len).unwrap_or_default();
        (unit_time.min(DELAY_MAX) * UNIT_TIMES).min(DELAY_MAX)
    }

    /// Tells all peers what they have not been told.
    pub(super) fn tell_news(&mut self, now: Time) {
        if self.news.due.is_none_or(|due| due > now) {
            return;
        }
        self.news.due = None;
        for slot in 0..self.slots.len() {
            let peer = &self.slots[slot];
            let fresh = &self.news.log[peer.news_told as usize..];
            let is_news = fresh.iter().any(|item| !peer.have.contains(item.unit.get()));
            let urgency = if is_news { Urgency::Now } else { Urgency::Lazy };
            let key = peer.key;
            self.tell_news_to(key, urgency);
        }
    }

    /// Tells a peer what it has not been told, along with something that is about to leave for it.
    pub(super) fn tell_news_to(&mut self, key: PeerKey, urgency: Urgency) {
        let now = self.now;
        let unit_is_piece = self.geometry.unit_is_piece();
        let Some(slot) = self.slot(key) else { return };
        let peer = &mut self.slots[slot];
        let told = std::mem::replace(&mut peer.news_told, self.news.len()) as usize;
        if peer.have.is_full() || told == self.news.log.len() {
            return;
        }
        peer.told_at = now;
        for item in &self.news.log[told..] {
            let message = if peer.speaks_units && !unit_is_piece {
                Message::HaveUnit(item.unit.get())
            } else if item.piece_done {
                Message::Have(self.geometry.piece_of(item.unit).get())
            } else {
                continue;
            };
            self.out.push_back(Output::Send { peer: key, message, urgency });
        }
    }
}
