//! A header that was heard on the way must not work a second time.
//!
//! A signed header says when it was signed and has a nonce. Those of the last minutes are
//! remembered; older ones are refused by their time.

use std::collections::BTreeMap;

/// How far clocks may differ, in seconds. Hosts of a LAN that know the time differ by less than
/// one; those that do not are off by a time zone, which nothing reasonable would cover.
pub const WINDOW_S: u64 = 120;

/// Nonces remembered: 100,000 is 400 connections a second for the whole window both ways. Only
/// headers whose signature is right are remembered, so no stranger can fill it.
pub const NONCES_MAX: usize = 100_000;

/// Remembers headers.
#[derive(Debug, Default)]
pub struct Seen {
    /// By the time that they were signed at.
    nonces: BTreeMap<(u64, String), ()>,
}

/// Why a header is refused. Its sender is told nothing but [`crate::code::Code::DENIED`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("it was signed more than {WINDOW_S} s ago or ahead: do the clocks agree?")]
    Time,
    #[error("it was seen before")]
    Replay,
    #[error("too many connections to remember")]
    Full,
    #[error(
        "what was seen cannot be remembered: the replay file is not this user's own or not writable"
    )]
    Memory,
}

impl Seen {
    /// Takes a header signed at `time`, both in seconds since 1970.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn admit(&mut self, now: u64, time: u64, nonce: &str) -> Result<(), Refused> {
        let oldest = (now.saturating_sub(WINDOW_S), String::new());
        self.nonces = self.nonces.split_off(&oldest);
        if now.abs_diff(time) > WINDOW_S {
            return Err(Refused::Time);
        }
        if self.nonces.len() >= NONCES_MAX {
            return Err(Refused::Full);
        }
        match self.nonces.insert((time, nonce.to_owned()), ()) {
            Some(()) => Err(Refused::Replay),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_works_once_and_only_in_its_time() {
        let mut seen = Seen::default();
        for (now, time, nonce, expect) in [
            (1_000, 1_000, "a", Ok(())),
            (1_000, 1_000, "b", Ok(())),
            (1_001, 1_000, "a", Err(Refused::Replay)),
            (1_120, 1_000, "a", Err(Refused::Replay)),
            (1_121, 1_000, "a", Err(Refused::Time)),
            (1_121, 1_242, "c", Err(Refused::Time)),
            (1_121, 1_241, "c", Ok(())),
            (1_121, 1_241, "c", Err(Refused::Replay)),
        ] {
            assert_eq!(seen.admit(now, time, nonce), expect, "{now} {time} {nonce}");
        }
    }

    #[test]
    fn what_is_remembered_has_a_limit_and_ends() {
        let mut seen = Seen::default();
        for nonce in 0..NONCES_MAX {
            seen.admit(1_000, 1_000, &nonce.to_string()).unwrap();
        }
        assert_eq!(seen.admit(1_000, 1_000, "more"), Err(Refused::Full));
        assert_eq!(seen.admit(2_000, 2_000, "more"), Ok(()));
        assert_eq!(seen.nonces.len(), 1);
    }
}
