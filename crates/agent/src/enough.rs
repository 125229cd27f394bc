//! When a node that seeds before it loads its image (`boot.seed_time: auto`) may go: the swarm has
//! enough copies when nobody downloads any more. Pure: the clock and the figures are handed in.

use std::time::Duration;

/// A node that has just become whole stays this long: the others of a room that was switched on at once
/// come to their downloads within it, and twice over the server has said how many those are.
const LEAST: Duration = Duration::from_secs(12);

/// What the server has said counts for so long: reports go out every five seconds.
const SAID_MAX: Duration = Duration::from_secs(12);

/// Without a word of the server, and with nobody who takes anything: as long as when nothing is said of
/// `seed_time`.
const SILENT: Duration = Duration::from_secs(30);

/// What is known of the swarm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Look {
    /// How long this node has seeded.
    pub(crate) elapsed: Duration,
    /// How many other nodes download the image, as the server has said, and how long ago.
    pub(crate) said: Option<(u32, Duration)>,
    /// Bytes a second that others take from this node.
    pub(crate) upload_rate: u64,
}

/// Whether this node may go.
pub(crate) fn is_enough(look: Look) -> bool {
    if look.elapsed < LEAST || look.upload_rate > 0 {
        return false;
    }
    match look.said {
        Some((downloading, age)) if age <= SAID_MAX => downloading == 0,
        _ => look.elapsed >= SILENT,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(elapsed: u64, said: Option<(u32, u64)>, upload_rate: u64, expect: bool) {
        let said = said.map(|(count, age)| (count, Duration::from_secs(age)));
        let look = Look { elapsed: Duration::from_secs(elapsed), said, upload_rate };
        assert_eq!(is_enough(look), expect, "{look:?}");
    }

    #[test]
    fn a_node_goes_when_nobody_downloads() {
        check(11, Some((0, 1)), 0, false);
        check(12, Some((0, 1)), 0, true);
        check(500, Some((1, 1)), 0, false);
        check(500, Some((0, 1)), 1, false);
    }

    #[test]
    fn without_the_server_a_node_stays_as_usual() {
        check(29, None, 0, false);
        check(30, None, 0, true);
        check(30, None, 1, false);
        check(29, Some((0, 13)), 0, false);
        check(30, Some((5, 13)), 0, true);
    }
}
