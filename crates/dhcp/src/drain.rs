//! Notices that strangers empty the ranges.

use std::time::Duration;

use crate::io::Event;
use crate::lease::{FIRST_LEASE, Pool};
use crate::time::Time;

/// How long takers are counted: who wants to hold all addresses with invented machines must take
/// each anew in this time.
pub const WINDOW: Duration = FIRST_LEASE;

/// How often it is said at most, and how long it is shown as so.
pub const AGAIN: Duration = Duration::from_secs(10 * 60);

/// One of so many addresses is left when it is said.
const LEFT_ONE_OF: usize = 8;

/// Strangers below this are a small network that is full, not one that is being emptied.
const COUNT_MIN: usize = 16;

/// Counts strangers that took an address.
#[derive(Clone, Debug, Default)]
pub(crate) struct Drain {
    since: Time,
    count: usize,
    said: Option<(Time, Event)>,
}

impl Drain {
    /// One more; whether that is to be said.
    pub(crate) fn took(&mut self, now: Time, pool: Pool) -> Option<Event> {
        if now.since(self.since) > WINDOW || self.count == 0 {
            (self.since, self.count) = (now, 0);
        }
        self.count += 1;
        let is_much = self.count >= (pool.address_count / 2).max(COUNT_MIN);
        let is_short = pool.free_count <= pool.address_count / LEFT_ONE_OF;
        if !is_much || !is_short || self.said(now).is_some() {
            return None;
        }
        let within = now.since(self.since);
        let event = Event::Draining { count: self.count, within, pool };
        self.said = Some((now, event.clone()));
        Some(event)
    }

    /// What was said, while it is still so.
    pub(crate) fn said(&self, now: Time) -> Option<Event> {
        self.said.as_ref().filter(|(at, _)| now.since(*at) < AGAIN).map(|(_, event)| event.clone())
    }
}
