//! The log of the fleet: what nodes did, newest last, numbered, bounded.

use std::collections::VecDeque;

use boot::Mac;

use super::node::UnixMs;

/// Lines kept: a room of a hundred makes ten each in a boot. With the longest texts half a megabyte.
pub(crate) const LOG_MAX: usize = 1_024;

/// A line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LogLine {
    /// Counts from 1; a gap at the beginning says that older ones are gone.
    pub(crate) number: u64,
    pub(crate) at: UnixMs,
    pub(crate) mac: Mac,
    /// The node's name, or its Ethernet address.
    pub(crate) label: String,
    pub(crate) text: String,
    pub(crate) is_failure: bool,
}

/// All lines that are kept.
#[derive(Debug, Default)]
pub(crate) struct FleetLog {
    lines: VecDeque<LogLine>,
    count: u64,
}

impl FleetLog {
    pub(super) fn push(&mut self, line: LogLine) {
        self.count += 1;
        if self.lines.len() >= LOG_MAX {
            self.lines.pop_front();
        }
        self.lines.push_back(LogLine { number: self.count, ..line });
    }

    /// The number of the latest line, zero if there was none.
    pub(crate) fn last(&self) -> u64 {
        self.count
    }

    /// The latest lines after that of number `after`, at most `count_max`, oldest first.
    pub(crate) fn after(&self, after: u64, count_max: usize) -> impl Iterator<Item = &LogLine> {
        let missing = usize::try_from(self.count.saturating_sub(after)).unwrap_or(usize::MAX);
        let missing = missing.min(count_max);
        self.lines.iter().skip(self.lines.len().saturating_sub(missing))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_numbered_and_the_oldest_give_way() {
        let mut log = FleetLog::default();
        for second in 0..LOG_MAX as u64 + 10 {
            let at = UnixMs(second * 1000);
            let (label, text) = (String::new(), String::new());
            log.push(LogLine { number: 0, at, mac: Mac([2; 6]), label, text, is_failure: false });
        }
        assert_eq!(log.after(0, LOG_MAX).next().unwrap().number, 11);
        let numbers: Vec<u64> =
            log.after(log.last() - 2, LOG_MAX).map(|line| line.number).collect();
        assert_eq!(numbers, [LOG_MAX as u64 + 9, LOG_MAX as u64 + 10]);
        assert_eq!(log.after(log.last(), LOG_MAX).count(), 0);
        assert_eq!(log.after(u64::MAX, LOG_MAX).count(), 0);
        assert_eq!(log.after(0, 3).next().unwrap().number, LOG_MAX as u64 + 8);
    }
}
