//! Leases on disk, in the lab's `state/leases.db`, which nothing else writes.
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
//!
//! **Without a disk** that takes them, leases are given all the same: all of them are in memory, too, with
//! what of them is not stored yet, and the disk is tried again every few seconds.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context;
use dhcp::{Lease, Mac, Time};
use rusqlite::{Connection, OpenFlags, params};

use crate::state::{self, FOLDER, Part, StateError};

/// The file in `state/`.
const FILE: &str = "leases.db";

/// Answers that wait to be stored: a fleet of 10,000 all of whose nodes were answered within the
/// longest flush of a slow disk. What is beyond is dropped; nodes ask again.
const QUEUE_MAX: usize = 4_096;

/// Answers in one transaction: a millisecond's work.
const BATCH_MAX: usize = 256;

/// After so long a disk that took nothing is tried again: soon enough for somebody who makes room, and
/// seldom enough that a try that takes its time delays one answer of many.
const RETRY_INTERVAL: Duration = Duration::from_secs(10);

/// What becomes of leases that cannot be stored.
const WITHOUT: &str = "leases are given all the same, and forgotten with the next restart";

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

/// The leases of a lab: all of them, and how much of that is stored.
pub(crate) struct Leases {
    /// None if nothing is to be stored.
    lab: Option<PathBuf>,
    /// None while it cannot be used.
    disk: Option<Connection>,
    /// When it failed last; then it is left alone for a while.
    failed: Option<Instant>,
    by_address: BTreeMap<Ipv4Addr, Lease>,
    by_mac: HashMap<Mac, Ipv4Addr>,
    /// Where the disk may have something else. As many as there are addresses at most.
    unstored: BTreeSet<Ipv4Addr>,
}

impl Leases {
    /// Opens those of the lab in `lab`. If they cannot be stored that is said, and they are in memory alone.
    ///
    /// # Errors
    /// If a newer program has stored them in its own way.
    pub(crate) fn open(lab: &Path) -> anyhow::Result<Self> {
        let mut leases = Self::in_memory()?;
        leases.lab = Some(lab.to_owned());
        match open_disk(lab) {
            Ok(disk) => {
                leases.take(load(&disk).context("cannot read the leases in state/leases.db")?);
                leases.disk = Some(disk);
            }
            Err(error @ StateError::Newer { .. }) => return Err(error.into()),
            Err(_) => {
                let copy = state::open_or_copy(lab, FILE, PART, WITHOUT)?;
                leases.take(load(&copy).unwrap_or_default());
                leases.failed = Some(Instant::now());
            }
        }
        Ok(leases)
    }

    /// Leases that nothing keeps.
    #[expect(clippy::unnecessary_wraps, reason = "as `open`, for who has either")]
    pub(crate) fn in_memory() -> anyhow::Result<Self> {
        Ok(Self {
            lab: None,
            disk: None,
            failed: None,
            by_address: BTreeMap::new(),
            by_mac: HashMap::new(),
            unstored: BTreeSet::new(),
        })
    }

    /// Reads what the lab in `lab` has stored, beside the server that stores more.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(crate) fn read(lab: &Path) -> anyhow::Result<Vec<Lease>> {
        let path = lab.join(FOLDER).join(FILE);
        if !path.exists() {
            return Ok(vec![]);
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let read = || load(&Connection::open_with_flags(&path, flags)?);
        read().with_context(|| format!("cannot read the leases in {}", path.display()))
    }

    /// All of them.
    #[expect(clippy::unnecessary_wraps, reason = "callers do not depend on where they are")]
    pub(crate) fn load(&self) -> anyhow::Result<Vec<Lease>> {
        Ok(self.by_address.values().copied().collect())
    }

    /// Takes over what is stored.
    fn take(&mut self, leases: Vec<Lease>) {
        leases.into_iter().for_each(|lease| self.note(&Change::Store(lease)));
        self.unstored.clear();
    }

    /// Makes a change, which is not stored yet.
    fn note(&mut self, change: &Change) {
        match *change {
            Change::Store(lease) => {
                // An address that another had, and another address that this one had.
                if let Some(before) = self.by_mac.insert(lease.mac, lease.address)
                    && before != lease.address
                {
                    self.by_address.remove(&before);
                    self.unstored.insert(before);
                }
                if let Some(before) = self.by_address.insert(lease.address, lease)
                    && before.mac != lease.mac
                {
                    self.by_mac.remove(&before.mac);
                }
                self.unstored.insert(lease.address);
            }
            Change::Forget(address) => {
                if let Some(lease) = self.by_address.remove(&address) {
                    self.by_mac.remove(&lease.mac);
                }
                self.unstored.insert(address);
            }
        }
    }

    /// Makes all changes, and stores them with all that could not be stored before. A disk that takes
    /// nothing is said once.
    pub(crate) fn apply(&mut self, changes: &[Change], now: Instant) {
        changes.iter().for_each(|change| self.note(change));
        let Some(lab) = self.lab.clone() else {
            self.unstored.clear();
            return;
        };
        let is_left_alone =
            self.failed.is_some_and(|failed| now.duration_since(failed) < RETRY_INTERVAL);
        if is_left_alone {
            return;
        }
        match self.store(&lab) {
            Ok(()) if self.failed.take().is_some() => state::recovered(&lab, PART.name),
            Ok(()) => {}
            Err(error) => {
                self.failed = Some(now);
                state::suffers(&lab, PART.name, &format!("{error}; {WITHOUT}"));
            }
        }
    }

    /// Whether something waits for the disk.
    fn waits(&self) -> bool {
        !self.unstored.is_empty()
    }

    /// Stores all that is not stored, or nothing.
    fn store(&mut self, lab: &Path) -> Result<(), StateError> {
        if self.disk.is_none() {
            self.disk = Some(open_disk(lab)?);
            // It may be a new one.
            self.unstored.extend(self.by_address.keys());
        }
        let Some(disk) = &mut self.disk else { return Ok(()) };
        let (unstored, leases) = (&self.unstored, &self.by_address);
        match write_all(disk, unstored, leases) {
            Ok(()) => {
                self.unstored.clear();
                Ok(())
            }
            Err(source) => {
                if state::is_damage(&source) {
                    self.disk = None;
                    state::put_aside(lab, FILE);
                }
                Err(StateError::Database { path: lab.join(FOLDER).join(FILE), source })
            }
        }
    }
}

fn open_disk(lab: &Path) -> Result<Connection, StateError> {
    let disk = state::open_file(lab, FILE, PART)?;
    let relaxed = disk.execute_batch("PRAGMA synchronous = NORMAL;");
    relaxed.map_err(|source| StateError::Database { path: lab.join(FOLDER).join(FILE), source })?;
    Ok(disk)
}

/// All that are stored. A row that makes no sense is as good as none.
fn load(disk: &Connection) -> rusqlite::Result<Vec<Lease>> {
    let mut select = disk.prepare("SELECT address, mac, until_unix_s FROM leases")?;
    let rows = select.query_map([], |row| {
        let (address, mac): (String, String) = (row.get(0)?, row.get(1)?);
        Ok((address, mac, row.get::<_, i64>(2)?))
    })?;
    let rows = rows.collect::<rusqlite::Result<Vec<_>>>()?;
    Ok(rows.into_iter().filter_map(|(address, mac, until)| decode(&address, &mac, until)).collect())
}

fn write_all(
    disk: &mut Connection,
    unstored: &BTreeSet<Ipv4Addr>,
    leases: &BTreeMap<Ipv4Addr, Lease>,
) -> rusqlite::Result<()> {
    let transaction = disk.transaction()?;
    for address in unstored {
        transaction
            .prepare_cached("DELETE FROM leases WHERE address = ?1")?
            .execute([address.to_string()])?;
    }
    for Lease { mac, address, until } in unstored.iter().filter_map(|one| leases.get(one)) {
        let until = i64::try_from(until.as_secs()).unwrap_or(i64::MAX);
        transaction
            .prepare_cached(
                "INSERT OR REPLACE INTO leases (address, mac, until_unix_s) VALUES (?1, ?2, ?3)",
            )?
            .execute(params![address.to_string(), mac.to_string(), until])?;
    }
    transaction.commit()
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
    loop {
        let first = match leases.waits() {
            true => receiver.recv_timeout(RETRY_INTERVAL),
            false => receiver.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        let mut entries: Vec<Entry<T>> = match first {
            Ok(first) => vec![first],
            Err(RecvTimeoutError::Timeout) => vec![],
            Err(RecvTimeoutError::Disconnected) => return,
        };
        entries.extend(receiver.try_iter().take(BATCH_MAX - 1));
        let changes: Vec<Change> =
            entries.iter().flat_map(|entry| entry.changes.iter().copied()).collect();
        leases.apply(&changes, Instant::now());
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
        Leases::open(lab.path()).unwrap().apply(changes, Instant::now());
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
            let stored = Leases::read(&path).unwrap();
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
    fn leases_of_before_are_taken_over_once_from_the_file_of_all_parts() {
        let lab = tempfile::tempdir().unwrap();
        let stored = |lab: &Path| Leases::open(lab).unwrap().load().unwrap();
        let old = state::open(lab.path(), PART).unwrap();
        let all = BTreeMap::from([(lease(1, 5).address, lease(1, 5))]);
        let mut old = old;
        write_all(&mut old, &all.keys().copied().collect(), &all).unwrap();
        drop(old);
        assert_eq!(stored(lab.path()), [lease(1, 5)]);
        let forget = [Change::Forget(lease(1, 5).address)];
        Leases::open(lab.path()).unwrap().apply(&forget, Instant::now());
        assert_eq!(stored(lab.path()), [], "what was taken over once is not taken over again");
    }

    #[test]
    fn what_a_full_disk_does_not_take_is_stored_when_it_has_room() {
        let lab = tempfile::tempdir().unwrap();
        let mut leases = Leases::open(lab.path()).unwrap();
        let limit = |leases: &Leases, pages: u32| {
            let disk = leases.disk.as_ref().unwrap();
            disk.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(())).unwrap();
        };
        let now = Instant::now();
        leases.apply(&[Change::Store(lease(1, 1))], now);
        limit(&leases, 1);
        let many: Vec<Change> = (2..=250).map(|one| Change::Store(lease(one, one))).collect();
        leases.apply(&many, now);
        assert!(leases.waits());
        let said = state::degraded(lab.path());
        assert!(said.len() == 1 && said[0].contains("leases.db"), "{said:?}");
        assert_eq!(Leases::read(lab.path()).unwrap(), [lease(1, 1)]);
        assert_eq!(leases.load().unwrap().len(), 250, "they are given all the same");
        limit(&leases, 10_000);
        leases.apply(&[], now + RETRY_INTERVAL / 2);
        assert!(leases.waits(), "the disk is left alone for a while");
        leases.apply(&[], now + RETRY_INTERVAL);
        assert_eq!(Leases::read(lab.path()).unwrap().len(), 250);
        assert_eq!(state::degraded(lab.path()), [""; 0]);
    }

    /// What the kernel has of the files at this moment, as `kill -9` leaves it, in another lab.
    fn as_if_killed(lab: &Path) -> tempfile::TempDir {
        let after = tempfile::tempdir().unwrap();
        std::fs::create_dir(after.path().join(FOLDER)).unwrap();
        for suffix in ["", "-wal"] {
            let name = format!("{FOLDER}/{FILE}{suffix}");
            std::fs::copy(lab.join(&name), after.path().join(&name)).unwrap();
        }
        after
    }

    #[test]
    fn acknowledged_leases_outlive_a_kill_within_the_next_transaction() {
        let lab = tempfile::tempdir().unwrap();
        let mut leases = Leases::open(lab.path()).unwrap();
        for number in 1..=40 {
            leases.apply(&[Change::Store(lease(number, number))], Instant::now());
            // The next one is half written.
            let disk = leases.disk.as_mut().unwrap();
            let next = disk.transaction().unwrap();
            next.execute("DELETE FROM leases", []).unwrap();
            next.execute("INSERT INTO leases VALUES ('10.0.0.250', 'x', 1)", []).unwrap();
            let after = as_if_killed(lab.path());
            drop(next);
            let kept = Leases::open(after.path()).unwrap().load().unwrap();
            assert_eq!(kept, (1..=number).map(|one| lease(one, one)).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_store_that_breaks_while_it_is_used_is_begun_anew_with_all_leases() {
        let lab = tempfile::tempdir().unwrap();
        let mut leases = Leases::open(lab.path()).unwrap();
        let now = Instant::now();
        leases.apply(&[Change::Store(lease(1, 1))], now);
        leases.disk.as_ref().unwrap().execute_batch("DROP TABLE leases").unwrap();
        leases.apply(&[Change::Store(lease(2, 2))], now);
        assert!(leases.waits());
        leases.apply(&[], now + RETRY_INTERVAL);
        assert_eq!(Leases::read(lab.path()).unwrap().len(), 2);
    }

    #[test]
    fn rows_that_make_no_sense_are_none() {
        assert_eq!(decode("10.0.0.5", "02:00:00:00:00:01", 1_001), Some(lease(1, 5)));
        assert_eq!(decode("10.0.0.555", "02:00:00:00:00:01", 1_001), None);
        assert_eq!(decode("10.0.0.5", "02:00", 1_001), None);
        assert_eq!(decode("10.0.0.5", "02:00:00:00:00:01", -1), None);
    }
}
