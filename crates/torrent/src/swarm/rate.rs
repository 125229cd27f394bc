//! A smoothed rate.

use std::time::Duration;

use crate::time::Time;

/// How much of the newest sample counts. With a sample each 50 ms the estimate follows a change
/// within about 150 ms.
const NEWEST: f64 = 0.3;

/// Bytes a second, smoothed over a few samples.
#[derive(Debug, Default)]
pub(super) struct Rate {
    pending: u64,
    since: Time,
    bytes_per_s: f64,
}

impl Rate {
    pub(super) fn add(&mut self, bytes: u64) {
        self.pending += bytes;
    }

    /// Closes a sample; samples are as long as the time between two calls.
    pub(super) fn sample(&mut self, now: Time) {
        let elapsed = (now - self.since).as_secs_f64();
        if elapsed <= 0.0 {
            return;
        }
        let newest = self.pending as f64 / elapsed;
        // A faster sample is believed at once: windows that are too small hold the rate down, and
        // an average would climb only as fast as they let it.
        self.bytes_per_s = if newest > self.bytes_per_s {
            newest
        } else {
            self.bytes_per_s + NEWEST * (newest - self.bytes_per_s)
        };
        self.pending = 0;
        self.since = now;
    }

    pub(super) const fn bytes_per_s(&self) -> f64 {
        self.bytes_per_s
    }

    /// Bytes in that time at this rate.
    pub(super) fn over(&self, time: Duration) -> u64 {
        (self.bytes_per_s * time.as_secs_f64()) as u64
    }

    /// The time that so many bytes take at this rate; `None` while nothing flows.
    pub(super) fn time_for(&self, bytes: u64) -> Option<Duration> {
        (self.bytes_per_s > 1.0).then(|| Duration::from_secs_f64(bytes as f64 / self.bytes_per_s))
    }
}
