//! How busy the whole machine was: the kernel's part of a transfer (shaping, bridging, receiving in
//! soft interrupts) is nobody's CPU time, and a machine without any left measures itself.

use anyhow::{Context as _, Result};

/// `/proc/stat` counts in this unit on every Linux (USER_HZ).
const TICKS_PER_S: f64 = 100.0;

/// Below this share of idle time the shaper no longer sets the pace.
const IDLE_MIN: f64 = 0.10;

/// CPU time of all processors since boot, in ticks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    busy: u64,
    idle: u64,
}

/// CPU time between two clocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) busy_s: f64,
    /// Share of all processors' time, 0 to 1.
    pub(crate) idle: f64,
}

impl Clock {
    pub(crate) fn now() -> Result<Self> {
        Self::parse(&std::fs::read_to_string("/proc/stat")?)
    }

    fn parse(stat: &str) -> Result<Self> {
        let line = stat.lines().find_map(|line| line.strip_prefix("cpu ")).context("/proc/stat")?;
        let ticks: Vec<u64> = line.split_whitespace().filter_map(|t| t.parse().ok()).collect();
        // user nice system idle iowait irq softirq steal; guest time is inside user already.
        let all: u64 = ticks.iter().take(8).sum();
        let idle = ticks.iter().skip(3).take(2).sum();
        Ok(Self { busy: all - idle, idle })
    }

    pub(crate) fn until(self, end: Self) -> Load {
        let (busy, idle) = (end.busy - self.busy, end.idle - self.idle);
        let all = (busy + idle).max(1);
        Load { busy_s: busy as f64 / TICKS_PER_S, idle: idle as f64 / all as f64 }
    }
}

impl Load {
    pub(crate) fn is_cpu_bound(self) -> bool {
        self.idle < IDLE_MIN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_for_disk_is_idle_and_stolen_time_is_busy() {
        let start = Clock::parse("cpu  0 0 0 0 0 0 0 0 0 0\ncpu0 1 1\n").unwrap();
        let end = Clock::parse("cpu  100 0 50 20 10 0 10 10 7 0\n").unwrap();
        let load = start.until(end);
        assert_eq!((load.busy_s, load.idle), (1.7, 0.15));
        assert!(!load.is_cpu_bound());
    }
}
