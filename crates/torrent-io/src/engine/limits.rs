//! Bytes a second that may be uploaded and downloaded, by all torrents of an engine together.
//!
//! Upload: blocks wait in their connections, other messages do not, as a swarm that hears nothing
//! works badly at any rate. Download: connections are not read, and TCP slows the senders down. Who
//! waits is served in turn. The swarm needs no word of it: it sees slower peers.

use std::collections::VecDeque;
use std::time::Duration;

use torrent::{BLOCK_LEN, Time};

/// What may pass at once after a pause: enough to ride out a busy machine, too little to be felt by
/// the others on the link.
const BURST: Duration = Duration::from_millis(100);

/// A token bucket. It lets something pass while it holds [`Self::quantum`] bytes, however long that
/// something is, and is then in debt: no block is too long for a low rate, and over time the rate is
/// exact.
#[derive(Clone, Debug)]
pub(super) struct Bucket {
    /// `None`: no limit.
    bytes_per_s: Option<u64>,
    /// In billionths of a byte, so that nothing is lost to rounding.
    level: i128,
    filled_at: Time,
}

const NANOS: i128 = 1_000_000_000;

impl Bucket {
    /// A full one.
    pub(super) const fn new(bytes_per_s: Option<u64>) -> Self {
        let mut bucket = Self { bytes_per_s, level: 0, filled_at: Time::ZERO };
        bucket.level = bucket.burst();
        bucket
    }

    const fn rate(&self) -> i128 {
        match self.bytes_per_s {
            Some(rate) => rate as i128,
            None => 0,
        }
    }

    const fn burst(&self) -> i128 {
        self.rate() * BURST.as_nanos() as i128
    }

    /// Waking up for less than a block costs more than it brings.
    const fn quantum(&self) -> i128 {
        let block = BLOCK_LEN as i128 * NANOS;
        if self.burst() < block { self.burst() } else { block }
    }

    /// Lets time pass.
    pub(super) fn fill(&mut self, now: Time) {
        let nanos = now.since(self.filled_at).as_nanos() as i128;
        self.filled_at = self.filled_at.max(now);
        self.level = (self.level + self.rate() * nanos).min(self.burst());
    }

    /// Whether something may pass. A rate of zero lets nothing pass.
    pub(super) fn is_open(&self) -> bool {
        match self.bytes_per_s {
            None => true,
            Some(0) => false,
            Some(_) => self.level >= self.quantum(),
        }
    }

    /// Bytes that may pass without going into debt, at least 1.
    pub(super) fn room(&self) -> usize {
        match self.bytes_per_s {
            None => usize::MAX,
            Some(_) => usize::try_from(self.level / NANOS).unwrap_or(0).max(1),
        }
    }

    /// Something passes.
    pub(super) const fn take(&mut self, len: usize) {
        if self.bytes_per_s.is_some() {
            self.level -= len as i128 * NANOS;
        }
    }

    /// When it is open again.
    pub(super) fn opens_at(&self) -> Time {
        let missing = self.quantum() - self.level;
        match self.rate() {
            _ if self.is_open() => self.filled_at,
            0 => Time::NEVER,
            // Rounded up, or the last nanosecond would be waited for in vain.
            rate => {
                let nanos = u64::try_from((missing + rate - 1) / rate).unwrap_or(u64::MAX);
                self.filled_at + Duration::from_nanos(nanos)
            }
        }
    }
}

/// A bucket and the connections that wait for it, each once, longest first.
#[derive(Debug)]
pub(super) struct Limit {
    pub(super) bucket: Bucket,
    waiting: VecDeque<usize>,
}

impl Limit {
    pub(super) const fn new(bytes_per_s: Option<u64>) -> Self {
        Self { bucket: Bucket::new(bytes_per_s), waiting: VecDeque::new() }
    }

    pub(super) fn wait(&mut self, token: usize) {
        if !self.waiting.contains(&token) {
            self.waiting.push_back(token);
        }
    }

    /// The connections that wait, if the bucket is open. Whoever finds it closed again before its
    /// turn has come keeps its place by waiting again.
    pub(super) fn next(&mut self) -> Option<usize> {
        if self.bucket.is_open() { self.waiting.pop_front() } else { None }
    }

    pub(super) fn next_timeout(&self) -> Time {
        if self.waiting.is_empty() { Time::NEVER } else { self.bucket.opens_at() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    fn at(millis: u64) -> Time {
        Time::from_nanos(millis * 1_000_000)
    }

    /// Bytes that pass in ten seconds when blocks of `len` always wait.
    fn passed(bytes_per_s: u64, len: usize) -> usize {
        let mut bucket = Bucket::new(Some(bytes_per_s));
        let mut now = Time::ZERO;
        let mut passed = 0;
        loop {
            bucket.fill(now);
            while bucket.is_open() {
                bucket.take(len);
                passed += len;
            }
            assert!(bucket.opens_at() > now, "a wake-up for nothing");
            now = bucket.opens_at();
            if now > at(10_000) {
                return passed;
            }
        }
    }

    #[test]
    fn the_rate_is_kept_whatever_passes() {
        for rate in [10_000, 1_000_000, 125_000_000] {
            for len in [1_400, 16_384, 100_000] {
                let (expect, found) = (rate * 101 / 10, passed(rate, len));
                let slack = len + 16_384;
                assert!(found.abs_diff(expect as usize) <= slack, "{rate} {len}: {found}");
            }
        }
    }

    #[test]
    fn a_pause_saves_up_a_tenth_of_a_second_and_no_more() {
        let mut bucket = Bucket::new(Some(10 * MIB as u64));
        bucket.take(5 * MIB);
        bucket.fill(at(400));
        assert!(!bucket.is_open());
        bucket.fill(at(1_000));
        assert_eq!(bucket.room(), MIB);
        bucket.fill(at(100_000));
        assert_eq!(bucket.room(), MIB);
    }

    #[test]
    fn no_limit_is_always_open_and_a_limit_of_zero_never() {
        let mut none = Bucket::new(None);
        none.take(MIB);
        assert!(none.is_open());
        let mut zero = Bucket::new(Some(0));
        zero.fill(at(1_000));
        assert!(!zero.is_open());
        assert_eq!(zero.opens_at(), Time::NEVER);
    }

    #[test]
    fn time_that_runs_backwards_gives_nothing() {
        let mut bucket = Bucket::new(Some(MIB as u64));
        bucket.fill(at(500));
        bucket.take(MIB);
        bucket.fill(at(400));
        bucket.fill(at(500));
        assert_eq!(bucket.opens_at(), at(500) + Duration::from_nanos(915_625_000));
    }

    #[test]
    fn who_waits_is_served_in_turn() {
        let mut limit = Limit::new(Some(MIB as u64));
        assert_eq!(limit.next_timeout(), Time::NEVER);
        for token in [3, 1, 3, 2] {
            limit.wait(token);
        }
        assert_eq!(limit.next(), Some(3));
        limit.bucket.take(MIB);
        limit.wait(3);
        assert_eq!(limit.next(), None);
        limit.bucket.fill(limit.next_timeout());
        let order: Vec<_> = std::iter::from_fn(|| limit.next()).collect();
        assert_eq!(order, [1, 2, 3]);
    }
}
