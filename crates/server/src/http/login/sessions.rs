//! Sessions of browsers. Pure but for the random numbers of a new one: the clock is handed in.

use subtle::ConstantTimeEq as _;

use crate::fleet::UnixMs;

/// Sessions at once: a few dozen people. Of more the one that was unused for longest ends.
pub(super) const SESSIONS_MAX: usize = 32;

/// How long a session lasts at most: a working day.
pub(in crate::http) const SESSION_MS_MAX: u64 = 12 * 3_600_000;

/// How long it lasts without a command or a look at it.
const IDLE_MS_MAX: u64 = 2 * 3_600_000;

/// Bytes of chance in an id: more than can ever be guessed.
const ID_LEN: usize = 32;

/// A session.
#[derive(Clone, Debug)]
pub(in crate::http) struct Session {
    /// What the cookie has.
    pub(in crate::http) id: String,
    /// What each command repeats.
    pub(in crate::http) csrf: String,
    began: UnixMs,
    used: UnixMs,
}

impl Session {
    /// When it ends at the latest.
    pub(in crate::http) fn ends(&self) -> UnixMs {
        UnixMs(self.began.0.saturating_add(SESSION_MS_MAX))
    }

    fn is_over(&self, now: UnixMs) -> bool {
        now.since(self.began) >= SESSION_MS_MAX || now.since(self.used) >= IDLE_MS_MAX
    }
}

#[derive(Debug, Default)]
pub(super) struct Sessions(Vec<Session>);

impl Sessions {
    /// A new session; none if the system has no random numbers.
    pub(super) fn open(&mut self, now: UnixMs) -> Option<Session> {
        self.0.retain(|session| !session.is_over(now));
        if self.0.len() >= SESSIONS_MAX {
            let oldest = (0..self.0.len()).min_by_key(|&index| self.0[index].used)?;
            self.0.remove(oldest);
        }
        let session = Session { id: random()?, csrf: random()?, began: now, used: now };
        self.0.push(session.clone());
        Some(session)
    }

    /// The session of this id, which is used by that.
    pub(super) fn find(&mut self, now: UnixMs, id: &str) -> Option<Session> {
        self.0.retain(|session| !session.is_over(now));
        // All are compared, each in the same time.
        let mut found = None;
        for session in &mut self.0 {
            if session.id.as_bytes().ct_eq(id.as_bytes()).into() {
                session.used = now;
                found = Some(session.clone());
            }
        }
        found
    }

    pub(super) fn close(&mut self, id: &str) {
        self.0.retain(|session| !bool::from(session.id.as_bytes().ct_eq(id.as_bytes())));
    }
}

fn random() -> Option<String> {
    let mut bytes = [0; ID_LEN];
    getrandom::fill(&mut bytes).ok()?;
    Some(boot::hex::encode(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_ends_when_it_is_closed_unused_or_old() {
        let mut sessions = Sessions::default();
        let first = sessions.open(UnixMs(0)).unwrap();
        let second = sessions.open(UnixMs(0)).unwrap();
        assert!(first.id != second.id && first.id != first.csrf && first.id.len() == 64);
        sessions.close(&first.id);
        assert!(sessions.find(UnixMs(1), &first.id).is_none());
        let mut now = 0;
        while now + IDLE_MS_MAX / 2 < SESSION_MS_MAX {
            now += IDLE_MS_MAX / 2;
            let is_open = sessions.find(UnixMs(now), &second.id).is_some();
            assert_eq!(is_open, now < SESSION_MS_MAX, "{now}");
        }
        assert!(sessions.find(UnixMs(SESSION_MS_MAX), &second.id).is_none());
        let third = sessions.open(UnixMs(0)).unwrap();
        assert!(sessions.find(UnixMs(IDLE_MS_MAX), &third.id).is_none());
    }

    #[test]
    fn of_too_many_the_one_that_was_unused_for_longest_ends() {
        let mut sessions = Sessions::default();
        let opened: Vec<_> =
            (0..SESSIONS_MAX as u64).map(|at| sessions.open(UnixMs(at)).unwrap().id).collect();
        assert!(sessions.find(UnixMs(100), &opened[0]).is_some());
        sessions.open(UnixMs(101)).unwrap();
        assert!(sessions.find(UnixMs(102), &opened[0]).is_some());
        assert!(sessions.find(UnixMs(102), &opened[1]).is_none());
        assert_eq!(sessions.0.len(), SESSIONS_MAX);
    }
}
