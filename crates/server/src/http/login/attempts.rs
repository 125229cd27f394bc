//! How often somebody may give a wrong password or token. Pure: the clock is handed in.
//!
//! Counted for each address, so that who guesses locks out only itself. That somebody has many
//! addresses is what the length of the password and of the token is for.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::fleet::UnixMs;

/// Attempts that may go wrong within [`WINDOW_MS`]: a person's slips of the keyboard.
pub(super) const ATTEMPTS_MAX: u32 = 5;

/// After how long the count begins anew: 7,200 attempts a day from one address.
pub(super) const WINDOW_MS: u64 = 60_000;

/// Addresses that are remembered; the oldest window gives way.
const ADDRESSES_MAX: usize = 1_024;

#[derive(Debug, Default)]
pub(super) struct Attempts(BTreeMap<IpAddr, Window>);

#[derive(Clone, Copy, Debug)]
struct Window {
    began: UnixMs,
    count: u32,
}

impl Attempts {
    /// Another attempt from an address, which counts as wrong until it is forgiven: those that are
    /// under way at the same time count too.
    ///
    /// # Errors
    /// In how many seconds there may be another, if these were too many.
    pub(super) fn begin(&mut self, now: UnixMs, from: IpAddr) -> Result<(), u64> {
        self.0.retain(|_, window| now.since(window.began) < WINDOW_MS);
        if !self.0.contains_key(&from)
            && self.0.len() >= ADDRESSES_MAX
            && let Some((&oldest, _)) = self.0.iter().min_by_key(|(_, window)| window.began)
        {
            self.0.remove(&oldest);
        }
        let window = self.0.entry(from).or_insert(Window { began: now, count: 0 });
        if window.count >= ATTEMPTS_MAX {
            return Err((WINDOW_MS - now.since(window.began)).div_ceil(1000));
        }
        window.count += 1;
        Ok(())
    }

    /// The attempt was right.
    pub(super) fn forgive(&mut self, from: IpAddr) {
        self.0.remove(&from);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u16) -> IpAddr {
        let [high, low] = last.to_be_bytes();
        [10, 0, high, low].into()
    }

    #[test]
    fn who_guesses_waits_and_nobody_else() {
        let mut attempts = Attempts::default();
        for _ in 0..ATTEMPTS_MAX {
            assert_eq!(attempts.begin(UnixMs(1_000), address(1)), Ok(()));
        }
        assert_eq!(attempts.begin(UnixMs(11_500), address(1)), Err(50));
        assert_eq!(attempts.begin(UnixMs(11_500), address(2)), Ok(()));
        assert_eq!(attempts.begin(UnixMs(1_000 + WINDOW_MS), address(1)), Ok(()));
    }

    #[test]
    fn who_was_right_begins_anew() {
        let mut attempts = Attempts::default();
        for _ in 0..10 * ATTEMPTS_MAX {
            assert_eq!(attempts.begin(UnixMs(0), address(1)), Ok(()));
            attempts.forgive(address(1));
        }
    }

    #[test]
    fn only_so_many_addresses_are_remembered() {
        let mut attempts = Attempts::default();
        for last in 0..2 * ADDRESSES_MAX as u16 {
            assert_eq!(attempts.begin(UnixMs(u64::from(last)), address(last)), Ok(()));
        }
        assert_eq!(attempts.0.len(), ADDRESSES_MAX);
        assert!(attempts.0.contains_key(&address(2 * ADDRESSES_MAX as u16 - 1)));
    }
}
