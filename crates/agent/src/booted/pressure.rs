//! Whether the system needs the memory that seeding takes: socket buffers, some MiB for each fast peer.
//! Decides; reads nothing.

use std::time::Duration;

/// What the kernel says at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Look {
    /// `MemAvailable`, bytes.
    pub(super) available: u64,
    /// `MemTotal`, bytes.
    pub(super) total: u64,
    /// Of 100, how much of the last ten seconds some process waited for memory
    /// (`/proc/pressure/memory`, `some avg10`); none where the kernel does not count it.
    pub(super) waiting: Option<f64>,
}

/// Below this share of all memory available, and this much, seeding stops. The kernel begins to write
/// back and to drop caches well before, at its watermarks of some 1 %; a system that starts a large
/// program needs some hundred MiB at once.
const AVAILABLE_SHARE: u64 = 16;
const AVAILABLE_MAX: u64 = 256 << 20;

/// A tenth of the time without progress is what people feel.
const WAITING_MAX: f64 = 10.0;

/// How long all must be well before seeding goes on: three times the window of the kernel's average.
const CALM: Duration = Duration::from_secs(30);

/// Whether seeding is stopped.
#[derive(Debug, Default)]
pub(super) struct Pressure {
    /// Stopped, and for how long all has been well since.
    paused: Option<Duration>,
}

impl Pressure {
    /// Takes a look, `elapsed` after the last one. Whether seeding has to be stopped.
    pub(super) fn observe(&mut self, look: Look, elapsed: Duration) -> bool {
        let floor = (look.total / AVAILABLE_SHARE).min(AVAILABLE_MAX);
        let waits = look.waiting.is_some_and(|waiting| waiting > WAITING_MAX);
        if look.available < floor || waits {
            self.paused = Some(Duration::ZERO);
        } else if let Some(calm) = self.paused {
            // As much again must be free, or it would stop at once.
            let calm = if look.available < 2 * floor { Duration::ZERO } else { calm + elapsed };
            self.paused = (calm < CALM).then_some(calm);
        }
        self.paused.is_some()
    }
}

/// The figure of `/proc/pressure/memory`.
pub(super) fn waiting(text: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix("some "))?;
    line.split_whitespace().find_map(|word| word.strip_prefix("avg10="))?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn look(available_mib: u64, waiting: f64) -> Look {
        Look { available: available_mib * MIB, total: 1024 * MIB, waiting: Some(waiting) }
    }

    #[test]
    fn seeding_stops_when_memory_runs_out_and_goes_on_when_all_is_calm() {
        let mut pressure = Pressure::default();
        let second = Duration::from_secs(1);
        let mut check = |look, seconds: u32, expect| {
            assert_eq!(pressure.observe(look, second * seconds), expect, "{look:?}");
        };
        check(look(64, 0.0), 1, false);
        check(look(63, 0.0), 1, true);
        check(look(127, 0.0), 60, true);
        check(look(128, 0.0), 29, true);
        check(look(128, 0.0), 1, false);
        check(look(900, 11.0), 1, true);
        check(look(900, 0.0), 30, false);
        check(Look { waiting: None, ..look(900, 0.0) }, 1, false);
    }

    #[test]
    fn large_machines_keep_no_more_free_than_needed() {
        let look = Look { available: 256 * MIB, total: 1 << 40, waiting: None };
        assert!(!Pressure::default().observe(look, Duration::ZERO));
    }

    #[test]
    fn the_kernels_figure_is_read() {
        let text = "some avg10=1.53 avg60=0.87 avg300=0.10 total=1234\nfull avg10=0.00 total=1\n";
        assert_eq!(waiting(text), Some(1.53));
        assert_eq!(waiting(""), None);
    }
}
