//! The serial number of the manifest: it grows with each that the lab signs, also over restarts and
//! if the clock goes back.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior, params};

use crate::state::{self, Part, StateError};

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
    connection: Connection,
}

impl Serials {
    /// Those of the lab in `lab`.
    pub(crate) fn open(lab: &Path) -> Result<Self, StateError> {
        state::open(lab, PART).map(|connection| Self { connection })
    }

    /// The next: seconds since 1970 at `now`, or one more than the last. It is on the disk before it
    /// is returned, so that it is never given twice.
    pub(crate) fn next(&mut self, now: SystemTime) -> rusqlite::Result<u64> {
        let transaction =
            self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let last: Option<i64> =
            transaction.query_row("SELECT last FROM serial", [], |row| row.get(0)).optional()?;
        let now_s = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let next = last.map_or(now_s, |last| now_s.max(last.cast_unsigned() + 1));
        transaction.execute(
            "INSERT INTO serial (id, last) VALUES (1, ?1)
             ON CONFLICT (id) DO UPDATE SET last = excluded.last",
            params![next.cast_signed()],
        )?;
        transaction.commit()?;
        Ok(next)
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
        assert_eq!(serials.next(at(2000)).unwrap(), 2000);
    }
}
