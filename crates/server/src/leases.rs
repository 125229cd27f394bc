//! Leases on disk, in the lab's `state/state.db`.
//!
//! A lease is stored before its node is told of it, so that none is given twice after `kill -9`: what
//! was committed is in the write-ahead log, which the kernel keeps when a process dies. It is not
//! forced to the disk for each lease, which would cost milliseconds for every node of a fleet. After
//! a power cut the last seconds may be missing; nodes that are still up then ask to keep their
//! addresses, and get them, as the server is authoritative for its ranges.
//!
//! A thread of its own writes: it takes all that has come together as one transaction, and sends the
//! answers that waited for it. When the log is merged into the file and the disk must be waited for,
//! only acknowledgements are late, and no question is missed.

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

use anyhow::Context;
use dhcp::{Lease, Mac, Time};
use rusqlite::{Connection, params};

use crate::state::{self, Part};

/// Answers that wait to be stored: a fleet of 10,000 all of whose nodes were answered within the
/// longest flush of a slow disk. What is beyond is dropped; nodes ask again.
const QUEUE_MAX: usize = 4_096;

/// Answers in one transaction: a millisecond's work.
const BATCH_MAX: usize = 256;

const PART: Part = Part {
    name: "leases",
    steps: &["CREATE TABLE leases (
        address TEXT PRIMARY KEY,
        mac TEXT NOT NULL UNIQUE,
        until_unix_s INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;"],
};

/// What becomes of a lease. Times count from the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// It is given, or ends at another time.
    Store(Lease),
    /// It was never good.
    Forget(Ipv4Addr),
}

/// The stored leases of a lab.
pub(crate) struct Leases(Connection);

impl Leases {
    /// Opens those of the lab in `lab`.
    pub(crate) fn open(lab: &Path) -> anyhow::Result<Self> {
        let connection = state::open(lab, PART)?;
        connection.execute_batch("PRAGMA synchronous = NORMAL;").context("cannot use leases")?;
        Ok(Self(connection))
    }

    /// Leases that nothing keeps.
    pub(crate) fn in_memory() -> anyhow::Result<Self> {
        let connection = Connection::open_in_memory().context("cannot make a table of leases")?;
        PART.steps
            .iter()
            .try_for_each(|step| connection.execute_batch(step))
            .context("cannot make a table of leases")?;
        Ok(Self(connection))
    }

    /// All of them. A row that makes no sense is as good as none.
    pub(crate) fn load(&self) -> anyhow::Result<Vec<Lease>> {
        let read = || {
            let mut select = self.0.prepare("SELECT address, mac, until_unix_s FROM leases")?;
            let rows = select.query_map([], |row| {
                let (address, mac): (String, String) = (row.get(0)?, row.get(1)?);
                Ok((address, mac, row.get::<_, i64>(2)?))
            })?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        };
        let rows = read().context("cannot read the leases in state/state.db")?;
        Ok(rows
            .into_iter()
            .filter_map(|(address, mac, until)| decode(&address, &mac, until))
            .collect())
    }

    /// Makes all changes, or none.
    pub(crate) fn apply(&mut self, changes: &[Change]) -> rusqlite::Result<()> {
        let transaction = self.0.transaction()?;
        for change in changes {
            match *change {
                Change::Store(Lease { mac, address, until }) => {
                    // An address that another had, and another address that this one had.
                    let mut store = transaction.prepare_cached(
                        "INSERT OR REPLACE INTO leases (address, mac, until_unix_s)
                         VALUES (?1, ?2, ?3)",
                    )?;
                    let until = i64::try_from(until.as_secs()).unwrap_or(i64::MAX);
                    store.execute(params![address.to_string(), mac.to_string(), until])?;
                }
                Change::Forget(address) => {
                    transaction
                        .prepare_cached("DELETE FROM leases WHERE address = ?1")?
                        .execute([address.to_string()])?;
                }
            }
        }
        transaction.commit()
    }
}

fn decode(address: &str, mac: &str, until: i64) -> Option<Lease> {
    let boot::Mac(mac) = mac.parse().ok()?;
    let until = Time::from_secs(u64::try_from(until).ok()?);
    Some(Lease { mac: Mac(mac), address: address.parse().ok()?, until })
}

/// What waits to be stored, and what is to be done once it is.
pub(crate) struct Entry<T> {
    pub(crate) changes: Vec<Change>,
    pub(crate) then: T,
}

/// The thread that writes. Dropping it lets the thread finish what it has.
pub(crate) struct Writer<T> {
    sender: Option<SyncSender<Entry<T>>>,
    thread: Option<JoinHandle<()>>,
}

impl<T: Send + 'static> Writer<T> {
    /// Begins. `then` is called with each entry's promise when its changes are stored.
    pub(crate) fn start(
        leases: Leases,
        then: impl FnMut(T) + Send + 'static,
    ) -> anyhow::Result<Self> {
        let (sender, receiver) = sync_channel(QUEUE_MAX);
        let thread = std::thread::Builder::new()
            .name("leases".to_owned())
            .spawn(move || write(leases, &receiver, then))
            .context("cannot start the thread that stores leases")?;
        Ok(Self { sender: Some(sender), thread: Some(thread) })
    }

    /// Whether there was room for it.
    pub(crate) fn submit(&self, entry: Entry<T>) -> bool {
        let result = self.sender.as_ref().map(|sender| sender.try_send(entry));
        !matches!(result, Some(Err(TrySendError::Full(_))))
    }
}

impl<T> Drop for Writer<T> {
    fn drop(&mut self) {
        drop(self.sender.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn write<T>(mut leases: Leases, receiver: &Receiver<Entry<T>>, mut then: impl FnMut(T)) {
    let mut is_failing = false;
    while let Ok(first) = receiver.recv() {
        let mut entries = vec![first];
        entries.extend(receiver.try_iter().take(BATCH_MAX - 1));
        let changes: Vec<Change> =
            entries.iter().flat_map(|entry| entry.changes.iter().copied()).collect();
        match leases.apply(&changes) {
            Ok(()) if is_failing => {
                is_failing = false;
                tracing::info!("leases are stored again");
            }
            Ok(()) => {}
            // A full disk must not keep a room from booting. It is said once.
            Err(error) if !is_failing => {
                is_failing = true;
                tracing::error!(
                    %error,
                    "cannot store leases in state/state.db: they are given all the same, and \
                     forgotten with the next restart"
                );
            }
            Err(_) => {}
        }
        entries.into_iter().for_each(|entry| then(entry.then));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(number: u8, address: u8) -> Lease {
        Lease {
            mac: Mac([2, 0, 0, 0, 0, number]),
            address: Ipv4Addr::new(10, 0, 0, address),
            until: Time::from_secs(1_000 + u64::from(number)),
        }
    }

    /// What is there after the changes, and a restart.
    fn check(changes: &[Change], expect: &[Lease]) {
        let lab = tempfile::tempdir().unwrap();
        Leases::open(lab.path()).unwrap().apply(changes).unwrap();
        let mut stored = Leases::open(lab.path()).unwrap().load().unwrap();
        stored.sort_by_key(|lease| lease.address);
        assert_eq!(stored, expect, "{changes:?}");
    }

    #[test]
    fn leases_are_there_after_a_restart() {
        use Change::{Forget, Store};
        let longer = Lease { until: Time::from_secs(9_999), ..lease(1, 5) };
        check(&[], &[]);
        check(&[Store(lease(1, 5)), Store(lease(2, 6))], &[lease(1, 5), lease(2, 6)]);
        check(&[Store(lease(1, 5)), Store(longer)], &[longer]);
        check(&[Store(lease(1, 5)), Store(lease(1, 6))], &[lease(1, 6)]);
        check(&[Store(lease(1, 5)), Store(lease(2, 5))], &[lease(2, 5)]);
        check(&[Store(lease(1, 5)), Forget(lease(1, 5).address)], &[]);
    }

    #[test]
    fn a_lease_is_stored_before_what_waits_for_it() {
        let lab = tempfile::tempdir().unwrap();
        let path = lab.path().to_owned();
        let (sender, receiver) = std::sync::mpsc::channel();
        let writer = Writer::start(Leases::open(&path).unwrap(), move |number: u8| {
            let stored = Leases::open(&path).unwrap().load().unwrap();
            sender.send(stored.contains(&lease(number, number))).unwrap();
        })
        .unwrap();
        for number in 1..=50 {
            let changes = vec![Change::Store(lease(number, number))];
            assert!(writer.submit(Entry { changes, then: number }));
        }
        drop(writer);
        assert_eq!(receiver.iter().collect::<Vec<_>>(), [true; 50]);
    }

    #[test]
    fn rows_that_make_no_sense_are_none() {
        assert_eq!(decode("10.0.0.5", "02:00:00:00:00:01", 1_001), Some(lease(1, 5)));
        assert_eq!(decode("10.0.0.555", "02:00:00:00:00:01", 1_001), None);
        assert_eq!(decode("10.0.0.5", "02:00", 1_001), None);
        assert_eq!(decode("10.0.0.5", "02:00:00:00:00:01", -1), None);
    }
}
