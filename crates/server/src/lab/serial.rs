//! The serial number of the manifest: it grows with each that the lab signs, also over restarts, if the
//! clock goes back, and if `state/state.db`, which remembers the last, was damaged: `out/` has it, too.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior, params};

#[cfg(test)]
use super::config::SERVER_FILE;
use crate::state::{self, FOLDER, Part, STATE_FILE, StateError};

const PART: Part = Part {
    name: "serial",
    steps: &["CREATE TABLE serial (
            id INTEGER PRIMARY KEY CHECK (id = 1),
            last INTEGER NOT NULL
        ) STRICT"],
};

/// The serial numbers of a lab.
#[derive(Debug)]
pub(crate) struct Serials {
    lab: PathBuf,
    /// None while the file cannot be used.
    connection: Option<Connection>,
    /// Known from elsewhere to have been given.
    floor: Option<u64>,
}

impl Serials {
    /// Those of the lab in `lab`.
    ///
    /// # Errors
    /// If a newer program keeps them in its own way. That the file cannot be used matters when one is drawn.
    pub(crate) fn open(lab: &Path) -> Result<Self, StateError> {
        let connection = match state::open(lab, PART) {
            Ok(connection) => Some(connection),
            Err(error @ StateError::Newer { .. }) => return Err(error),
            Err(error) => {
                let without = "what changes in the lab is not published until it can be written";
                state::suffers(lab, PART.name, &format!("{error}; {without}"));
                None
            }
        };
        Ok(Self { lab: lab.to_owned(), connection, floor: None })
    }

    /// This one was given, whatever the file says.
    pub(crate) fn was_given(&mut self, serial: u64) {
        self.floor = self.floor.max(Some(serial));
    }

    /// The next: seconds since 1970 at `now`, or one more than the last. It is on the disk before it
    /// is returned, so that it is never given twice.
    pub(crate) fn next(&mut self, now: SystemTime) -> Result<u64, StateError> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => none.insert(state::open(&self.lab, PART)?),
        };
        let next = draw(connection, self.floor, now);
        next.map_err(|source| StateError::Database {
            path: self.lab.join(FOLDER).join(STATE_FILE),
            source,
        })
    }
}

fn draw(connection: &mut Connection, floor: Option<u64>, now: SystemTime) -> rusqlite::Result<u64> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let last: Option<i64> =
        transaction.query_row("SELECT last FROM serial", [], |row| row.get(0)).optional()?;
    let last = last.map(i64::cast_unsigned).max(floor);
    let now_s = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let next = last.map_or(now_s, |last| now_s.max(last + 1));
    transaction.execute(
        "INSERT INTO serial (id, last) VALUES (1, ?1)
         ON CONFLICT (id) DO UPDATE SET last = excluded.last",
        params![next.cast_signed()],
    )?;
    transaction.commit()?;
    Ok(next)
}

#[cfg(test)]
impl Serials {
    /// Those of a lab whose disk takes nothing.
    pub(crate) fn unusable_for_tests(lab: &Path) -> Self {
        Self { lab: lab.join(SERVER_FILE), connection: None, floor: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn serials_grow_though_the_clock_goes_back() {
        let lab = tempfile::tempdir().unwrap();
        let at = |s| UNIX_EPOCH + Duration::from_secs(s);
        let mut serials = Serials::open(lab.path()).unwrap();
        assert_eq!(serials.next(at(1000)).unwrap(), 1000);
        assert_eq!(serials.next(at(1000)).unwrap(), 1001);
        let mut serials = Serials::open(lab.path()).unwrap();
        assert_eq!(serials.next(at(5)).unwrap(), 1002);
        serials.was_given(1500);
        assert_eq!(serials.next(at(1400)).unwrap(), 1501);
        assert_eq!(serials.next(at(2000)).unwrap(), 2000);
    }
}
