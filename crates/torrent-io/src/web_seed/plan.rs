//! Which range to ask a web seed for next: pure, so that it can be tested and simulated without a
//! server. The driver gives it what is still missing and not assigned to peers; it hands out runs.
//!
//! One request costs a round trip and, on a cold server, a seek; while it is under way nobody else
//! should fetch its units. So a request is as long as takes about [`FETCH_TIME`], longer the faster
//! the server is, and two are under way at a time, so that the second fills the pause between the
//! end of the first and the start of the next. Runs go on where the last one ended: servers read
//! ahead. Nodes that share a web seed start at different places, or all would fetch the same.

use std::ops::Range;
use std::time::Duration;

use torrent::{Bitfield, Geometry, Time};

/// Requests at a time: one that arrives, one that follows it without a pause.
pub const FETCHES_MAX: usize = 2;

/// What a request should take. Shorter wastes round trips, longer keeps units from the swarm that
/// peers could have given meanwhile.
const FETCH_TIME: Duration = Duration::from_millis(1500);

/// The first request, before the rate is known: 1 MiB is 90 ms at 100 Mbit/s, and is known soon.
const FETCH_LEN_FIRST: u64 = 1 << 20;

/// The longest request. At 10 Gbit/s it is 30 ms, and the pause between two is hidden by the other.
const FETCH_LEN_MAX: u64 = 32 << 20;

/// How much longer than the last one a request may be: one burst out of a cache proves no rate.
const GROWTH_MAX: u64 = 4;

/// The longest wait after failures: a server that comes back is found within a minute.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// A request for a run of units.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetch {
    /// Comes back with what belongs to it; never used twice by one plan.
    pub id: u64,
    /// The units, by number.
    pub units: Range<u32>,
}

/// The state of one web seed.
#[derive(Clone, Debug)]
pub struct WebSeedPlan {
    unit_len: u64,
    flights: Vec<Flight>,
    next_id: u64,
    /// Where the last run ended.
    cursor: u32,
    /// How long the next request should be, in bytes.
    len: u64,
    failure_count: u32,
    /// Nothing is asked before.
    not_before: Time,
}

#[derive(Clone, Debug)]
struct Flight {
    fetch: Fetch,
    asked: Time,
}

impl WebSeedPlan {
    /// A plan that begins at unit `cursor`, or behind it.
    #[must_use]
    pub fn new(geometry: &Geometry, cursor: u32) -> Self {
        Self {
            unit_len: u64::from(geometry.unit_len()),
            flights: Vec::new(),
            next_id: 0,
            cursor,
            len: FETCH_LEN_FIRST,
            failure_count: 0,
            not_before: Time::ZERO,
        }
    }

    /// The next request, if one more should be under way now. `wanted` are the units that are
    /// missing and that no peer was asked for; what this plan asked for is left out by itself.
    pub fn poll(&mut self, now: Time, wanted: &Bitfield) -> Option<Fetch> {
        // After a failure one request must succeed before there are two again.
        let most = if self.failure_count > 0 { 1 } else { FETCHES_MAX };
        if now < self.not_before || self.flights.len() >= most {
            return None;
        }
        let units = self.run(wanted)?;
        let fetch = Fetch { id: self.next_id, units };
        self.next_id += 1;
        self.cursor = fetch.units.end;
        self.flights.push(Flight { fetch: fetch.clone(), asked: now });
        Some(fetch)
    }

    /// All blocks of a fetch have arrived.
    pub fn handle_done(&mut self, now: Time, id: u64) {
        let Some(flight) = self.take(id) else { return };
        self.failure_count = 0;
        let len = u64::from(flight.fetch.units.end - flight.fetch.units.start) * self.unit_len;
        let took = now.since(flight.asked).max(Duration::from_millis(1));
        let fits = len as f64 * FETCH_TIME.as_secs_f64() / took.as_secs_f64();
        // Saturates, as `as` does.
        self.len = (fits as u64).min(len.saturating_mul(GROWTH_MAX)).min(FETCH_LEN_MAX);
    }

    /// A fetch failed; some of its blocks may have arrived. `retry_after` is as
    /// [`WebSeedError::retry_after`](super::WebSeedError::retry_after): `None` ends this web seed.
    pub fn handle_failed(&mut self, now: Time, id: u64, retry_after: Option<Duration>) {
        if self.take(id).is_none() {
            return;
        }
        let Some(wait) = retry_after else {
            self.not_before = Time::NEVER;
            return;
        };
        // Doubles with each failure in a row: 2^6 times anything sensible is past the cap.
        let wait = wait.saturating_mul(1 << self.failure_count.min(6));
        self.failure_count += 1;
        self.len /= 2;
        self.not_before = self.not_before.max(now + wait.min(WAIT_MAX));
    }

    /// A fetch was cancelled by the driver: nobody's fault.
    pub fn handle_cancelled(&mut self, id: u64) {
        self.take(id);
    }

    /// Whether a unit is being fetched.
    #[must_use]
    pub fn is_asked(&self, unit: u32) -> bool {
        let mut flights = self.flights.iter();
        flights.any(|flight| flight.fetch.units.contains(&unit))
    }

    /// Whether nothing will ever be asked of this web seed again.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.not_before == Time::NEVER
    }

    /// When to poll again although nothing has happened.
    #[must_use]
    pub fn next_timeout(&self, now: Time) -> Option<Time> {
        (now < self.not_before && !self.is_dead()).then_some(self.not_before)
    }

    fn take(&mut self, id: u64) -> Option<Flight> {
        let at = self.flights.iter().position(|flight| flight.fetch.id == id)?;
        Some(self.flights.swap_remove(at))
    }

    /// The first run from the cursor on that is long enough; else the longest.
    fn run(&self, wanted: &Bitfield) -> Option<Range<u32>> {
        let most = u32::try_from(self.len / self.unit_len).unwrap_or(u32::MAX).max(1);
        let mut best: Option<Range<u32>> = None;
        let mut consider = |run: &Range<u32>| {
            // Those before the cursor come first here, and lose a tie against those behind it.
            let len = |run: &Range<u32>| run.end - run.start;
            let behind = |run: &Range<u32>| run.start >= self.cursor;
            if best.as_ref().is_none_or(|best| {
                len(run) > len(best) || (len(run) == len(best) && !behind(best) && behind(run))
            }) {
                best = Some(run.clone());
            }
        };
        let mut run = 0..0;
        for unit in wanted.iter().filter(|&unit| !self.is_asked(unit)) {
            let full = run.end - run.start == most;
            if unit != run.end || unit == self.cursor || full {
                if !run.is_empty() {
                    consider(&run);
                    if full && run.start >= self.cursor {
                        return Some(run);
                    }
                }
                run = unit..unit;
            }
            run.end += 1;
        }
        if !run.is_empty() {
            consider(&run);
        }
        best
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u32 = 1 << 20;

    /// 64 units of 1 MiB.
    fn plan(cursor: u32) -> WebSeedPlan {
        let geometry = Geometry::contiguous(u64::from(64 * MIB), MIB, MIB).unwrap();
        WebSeedPlan::new(&geometry, cursor)
    }

    fn of(units: impl IntoIterator<Item = u32>) -> Bitfield {
        let mut field = Bitfield::new(64);
        units.into_iter().for_each(|unit| {
            field.insert(unit);
        });
        field
    }

    fn at(millis: u64) -> Time {
        Time::from_nanos(millis * 1_000_000)
    }

    #[test]
    fn two_requests_are_under_way() {
        let mut plan = plan(0);
        let all = Bitfield::full(64);
        assert_eq!(plan.poll(at(0), &all).unwrap().units, 0..1);
        assert_eq!(plan.poll(at(0), &all).unwrap().units, 1..2);
        assert_eq!(plan.poll(at(0), &all), None);
        plan.handle_done(at(1500), 0);
        assert_eq!(plan.poll(at(1500), &all).unwrap().units, 2..3);
        assert!(plan.is_asked(1) && plan.is_asked(2) && !plan.is_asked(0));
    }

    #[test]
    fn requests_grow_with_the_rate() {
        let lens = |rate: u64| {
            let mut plan = plan(0);
            let mut now = 0;
            let all = Bitfield::full(64);
            let lens = (0..5).map(|_| {
                let fetch = plan.poll(at(now), &all).unwrap();
                let len = fetch.units.end - fetch.units.start;
                now += u64::from(len) * u64::from(MIB) * 1000 / rate;
                plan.handle_done(at(now), fetch.id);
                len
            });
            lens.collect::<Vec<_>>()
        };
        assert_eq!(lens(100_000), [1, 1, 1, 1, 1]);
        assert_eq!(lens(10 << 20), [1, 4, 15, 15, 15]);
        assert_eq!(lens(1 << 30), [1, 4, 16, 32, 32]);
    }

    #[test]
    fn runs_are_contiguous_and_long_where_possible() {
        let check = |cursor, wanted: &[(u32, u32)], expect: Range<u32>| {
            let mut plan = plan(cursor);
            plan.len = 4 * u64::from(MIB);
            let wanted = of(wanted.iter().flat_map(|&(start, end)| start..end));
            assert_eq!(plan.poll(at(0), &wanted).unwrap().units, expect);
        };
        check(0, &[(0, 64)], 0..4);
        check(10, &[(0, 64)], 10..14);
        check(10, &[(0, 11), (12, 14), (20, 30)], 20..24);
        check(62, &[(0, 64)], 0..4);
        check(40, &[(0, 3), (5, 9), (40, 42)], 5..9);
        check(40, &[(0, 2), (40, 42)], 40..42);
        check(40, &[(0, 2), (3, 6), (41, 42)], 3..6);
        check(40, &[(7, 8)], 7..8);
        check(64, &[(60, 64)], 60..64);
    }

    #[test]
    fn nothing_wanted_is_nothing_asked() {
        assert_eq!(plan(0).poll(at(0), &Bitfield::new(64)), None);
    }

    #[test]
    fn failures_wait_longer_each_time_and_success_forgets() {
        let mut plan = plan(0);
        let all = Bitfield::full(64);
        let second = Some(Duration::from_secs(1));
        let mut now = 0;
        for wait in [1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000] {
            let fetch = plan.poll(at(now), &all).unwrap();
            assert!(now == 0 || plan.poll(at(now), &all).is_none());
            plan.handle_failed(at(now), fetch.id, second);
            assert_eq!(plan.next_timeout(at(now)), Some(at(now + wait)));
            assert_eq!(plan.poll(at(now + wait - 1), &all), None);
            now += wait;
        }
        let fetch = plan.poll(at(now), &all).unwrap();
        plan.handle_done(at(now + 10), fetch.id);
        assert!(plan.poll(at(now + 10), &all).is_some());
        assert!(plan.poll(at(now + 10), &all).is_some());
        assert_eq!(plan.next_timeout(at(now + 10)), None);
    }

    #[test]
    fn a_hopeless_web_seed_is_asked_no_more() {
        let mut plan = plan(0);
        let all = Bitfield::full(64);
        let first = plan.poll(at(0), &all).unwrap();
        let second = plan.poll(at(0), &all).unwrap();
        plan.handle_failed(at(0), first.id, None);
        plan.handle_failed(at(0), second.id, Some(Duration::ZERO));
        assert!(plan.is_dead());
        assert_eq!(plan.poll(at(1_000_000), &all), None);
        assert_eq!(plan.next_timeout(at(0)), None);
    }

    #[test]
    fn cancelled_units_can_be_asked_again() {
        let mut plan = plan(0);
        let fetch = plan.poll(at(0), &of([5])).unwrap();
        assert_eq!(plan.poll(at(0), &of([5])), None);
        plan.handle_cancelled(fetch.id);
        assert_eq!(plan.poll(at(0), &of([5])).unwrap().units, 5..6);
    }
}
