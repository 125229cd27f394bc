//! Which requests are due: gathered until N want the same file, or N' seconds have passed since the
//! last of them, as the original's description says (its code looked at the oldest instead).
//!
//! Pure: [`crate::store`] keeps the requests and asks here.

use std::time::Duration;

/// The original's attempts.
pub const ATTEMPTS_MAX: u32 = 3;

/// Requests of a queue: a thousand hosts with a hundred files each.
pub const REQUESTS_MAX: usize = 100_000;

/// A moment: milliseconds since 1970, which survive a restart.
pub type UnixMs = u64;

/// When the requests for a file are due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// N: so many requests need not wait.
    pub requests: u32,
    /// N': quiet since the last request.
    pub delay: Duration,
    /// A request that failed so often is done.
    pub attempts: u32,
    /// A failed request waits so long, times the number of its attempts.
    pub retry_delay: Duration,
    /// A request that waited so long is done.
    pub expiry: Duration,
}

impl Default for Policy {
    /// N' is the original's delay. N is a rack; failed endpoints get time for a restart of their
    /// service; what nobody could have within a day nobody waits for.
    fn default() -> Self {
        Self {
            requests: 32,
            delay: Duration::from_secs(30),
            attempts: ATTEMPTS_MAX,
            retry_delay: Duration::from_secs(5),
            expiry: Duration::from_secs(24 * 3600),
        }
    }
}

/// What is known of the waiting requests for one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    pub src: String,
    /// Waiting, and not held back after a failure.
    pub count: u32,
    /// When the first and the last of them came.
    pub first: UnixMs,
    pub last: UnixMs,
}

impl Policy {
    /// Whether the group is due.
    pub fn is_due(&self, group: &Group, now: UnixMs) -> bool {
        let quiet = now.saturating_sub(group.last);
        group.count > 0 && (group.count >= self.requests || quiet >= millis(self.delay))
    }

    /// Of the files that no session sends now, the one whose requests wait longest and are due.
    pub fn choose<'a>(
        &self,
        groups: &'a [Group],
        busy: &[String],
        now: UnixMs,
    ) -> Option<&'a Group> {
        let free = groups.iter().filter(|group| !busy.contains(&group.src));
        free.filter(|group| self.is_due(group, now)).min_by_key(|group| (group.first, &group.src))
    }

    /// When a request that has failed `attempts` times may be sent again; `None` if never.
    pub fn retry_at(&self, attempts: u32, now: UnixMs) -> Option<UnixMs> {
        let wait = millis(self.retry_delay).saturating_mul(u64::from(attempts));
        (attempts < self.attempts).then(|| now.saturating_add(wait))
    }

    /// Requests that came before this are too old.
    pub fn expired_before(&self, now: UnixMs) -> UnixMs {
        now.saturating_sub(millis(self.expiry))
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: Policy = Policy {
        requests: 3,
        delay: Duration::from_secs(10),
        attempts: 3,
        retry_delay: Duration::from_secs(5),
        expiry: Duration::from_secs(100),
    };

    fn group(src: &str, count: u32, first: u64, last: u64) -> Group {
        Group { src: src.into(), count, first, last }
    }

    #[test]
    fn requests_are_due_when_there_are_enough_or_none_came_for_a_while() {
        for (count, last, now, expect) in [
            (1, 1_000, 1_000, false),
            (2, 1_000, 10_999, false),
            (2, 1_000, 11_000, true),
            (3, 1_000, 1_000, true),
            (0, 1_000, 99_000, false),
            // A clock that was set back makes nothing due.
            (1, 5_000, 1_000, false),
        ] {
            assert_eq!(POLICY.is_due(&group("a", count, 0, last), now), expect, "{count} {now}");
        }
    }

    #[test]
    fn the_longest_wait_is_served_first_and_a_busy_file_not_twice() {
        let groups = [group("a", 3, 50, 60), group("b", 3, 10, 20), group("c", 1, 5, 90_000)];
        let chosen = |busy: &[&str]| {
            let busy: Vec<String> = busy.iter().map(|src| (*src).to_owned()).collect();
            POLICY.choose(&groups, &busy, 90_001).map(|group| group.src.clone())
        };
        assert_eq!(chosen(&[]).as_deref(), Some("b"));
        assert_eq!(chosen(&["b"]).as_deref(), Some("a"));
        assert_eq!(chosen(&["a", "b"]), None);
    }

    #[test]
    fn attempts_are_counted_and_wait_longer_each_time() {
        assert_eq!(POLICY.retry_at(1, 1_000), Some(6_000));
        assert_eq!(POLICY.retry_at(2, 1_000), Some(11_000));
        assert_eq!(POLICY.retry_at(3, 1_000), None);
    }
}
