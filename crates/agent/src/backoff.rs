//! How long to wait before the next attempt: longer each time, never for ever, and never the same
//! for a thousand nodes that failed together.

use std::time::Duration;

/// The first wait is about this: a server that restarts is back within it.
pub(crate) const FIRST: Duration = Duration::from_secs(2);

/// No wait is longer: somebody who has repaired something stands before the node and watches.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// Waits that double, each drawn from the upper half of its span.
#[derive(Debug)]
pub(crate) struct Backoff {
    first: Duration,
    next: Duration,
    rng: fastrand::Rng,
}

impl Backoff {
    /// Begins with about `first`; `seed` is another on each node.
    pub(crate) fn new(first: Duration, seed: u64) -> Self {
        Self { first, next: first, rng: fastrand::Rng::with_seed(seed) }
    }

    /// The next wait.
    pub(crate) fn next(&mut self) -> Duration {
        let span = self.next;
        self.next = (span * 2).min(WAIT_MAX.max(self.first));
        let half = span / 2;
        half + half.mul_f64(self.rng.f64())
    }

    /// Something else went wrong than before, so there was progress.
    pub(crate) fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_minute_and_begin_anew_after_progress() {
        let mut backoff = Backoff::new(FIRST, 1);
        for span in [2, 4, 8, 16, 32, 60, 60] {
            let wait = backoff.next();
            let span = Duration::from_secs(span);
            assert!(span / 2 <= wait && wait <= span, "{wait:?} of {span:?}");
        }
        backoff.reset();
        assert!(backoff.next() <= FIRST);
    }

    #[test]
    fn nodes_that_fail_together_come_back_apart() {
        let waits: Vec<_> = (0..100).map(|seed| Backoff::new(FIRST, seed).next()).collect();
        let mut apart = waits.clone();
        apart.sort_unstable();
        apart.dedup();
        assert!(apart.len() > 90, "{waits:?}");
    }

    #[test]
    fn a_first_wait_beyond_the_limit_is_kept() {
        let mut backoff = Backoff::new(Duration::from_secs(100), 1);
        assert!(backoff.next() >= Duration::from_secs(50));
        assert!(backoff.next() <= Duration::from_secs(100));
    }
}
