//! How many lines of the log strangers may cause: whoever can send packets must not be able to fill
//! a disk.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Lines a second; those beyond are counted. A fleet of 1,000 nodes that starts within a minute
/// makes fewer.
const LINES_PER_S: u32 = 50;

/// The limit of one service, which its threads share.
#[derive(Debug, Default)]
pub(crate) struct LineLimit(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    second: u64,
    lines: u32,
    dropped: u64,
}

impl LineLimit {
    /// Whether there is room for one more line at `now`, the time since the start. In the first call
    /// of a second `say_dropped` is told how many lines there was no room for before, if any.
    pub(crate) fn has_room(&self, now: Duration, say_dropped: impl FnOnce(u64)) -> bool {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Threads read the clock before they come here, so seconds may seem to go back.
        if now.as_secs() > state.second {
            state.second = now.as_secs();
            state.lines = 0;
            let dropped = std::mem::take(&mut state.dropped);
            if dropped > 0 {
                say_dropped(dropped);
            }
        }
        state.lines += 1;
        let has_room = state.lines <= LINES_PER_S;
        state.dropped += u64::from(!has_room);
        has_room
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_beyond_the_limit_are_counted_and_told_of_in_the_next_second() {
        let limit = LineLimit::default();
        let at = |millis| {
            let mut said = None;
            let has_room =
                limit.has_room(Duration::from_millis(millis), |count| said = Some(count));
            (has_room, said)
        };
        for _ in 0..LINES_PER_S {
            assert_eq!(at(1_000), (true, None));
        }
        assert_eq!(at(1_999), (false, None));
        assert_eq!(at(1_998), (false, None));
        assert_eq!(at(2_000), (true, Some(2)));
        assert_eq!(at(1_999), (true, None), "a thread that is late begins no second");
    }
}
