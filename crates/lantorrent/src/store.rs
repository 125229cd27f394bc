//! The queue of requests, in SQLite: it survives restarts and `kill -9` of whoever uses it.
//!
//! Commands that ask and the daemon that sends use it at the same time. SQLite lets one write at a
//! time; who finds it busy comes again after a random pause, as many at once would meet again.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "this is the I/O")]

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, ErrorCode, OptionalExtension as _, Transaction, TransactionBehavior};
use rusqlite::{Row, params};

use crate::header::Request;
use crate::plan::Wanted;
use crate::queue::{Group, Policy, REQUESTS_MAX, UnixMs};
use crate::report::Report;

/// How often a busy database is tried again. With pauses of up to [`PAUSE_MAX`] that is half a
/// minute on average; a hundred clients at once are through in one.
const TRIES_MAX: u32 = 120;

/// Longest pause: a few times what a transaction takes on a slow disk.
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// Requests that are done are kept so long, so that whoever asked can ask again.
const KEPT_FOR: Duration = Duration::from_secs(7 * 24 * 3600);

/// Of the third version: the first two were the original's.
const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS requests (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        rid TEXT NOT NULL UNIQUE,
        src_filename TEXT NOT NULL,
        dst_filename TEXT NOT NULL,
        hostname TEXT NOT NULL,
        port INTEGER NOT NULL,
        state TEXT NOT NULL DEFAULT 'waiting',
        code INTEGER,
        message TEXT,
        entry_time INTEGER NOT NULL,
        due_time INTEGER NOT NULL DEFAULT 0,
        done_time INTEGER,
        attempt_count INTEGER NOT NULL DEFAULT 0
    ) STRICT;
    CREATE INDEX IF NOT EXISTS requests_by_state ON requests (state, src_filename);
    CREATE UNIQUE INDEX IF NOT EXISTS requests_by_target
        ON requests (dst_filename, hostname, port) WHERE state <> 'done';";

/// Where a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// For others, or for its next attempt.
    Waiting,
    /// A session sends its file.
    Active,
    /// Successfully or not.
    Done,
}

/// A request of the queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queued {
    pub rid: String,
    pub src: String,
    pub dst: String,
    pub host: String,
    pub port: u16,
    pub state: State,
    /// Of the last report.
    pub code: Option<u16>,
    pub message: Option<String>,
    pub attempts: u32,
    pub entered: UnixMs,
}

impl Queued {
    /// The original's answer: 0, or 1 once all attempts have failed.
    pub fn rc(&self) -> u8 {
        u8::from(self.state == State::Done && self.code != Some(0))
    }

    /// `rc,done,message` in a line, as scripts of the original read it.
    pub fn line(&self) -> String {
        let done = if self.state == State::Done { "True" } else { "False" };
        let message = self.message.as_deref().unwrap_or("None").replace(['\n', '\r'], " ");
        format!("{},{done},{message}", self.rc())
    }
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    pub src: String,
    pub dst: String,
    pub rid: String,
    pub host: String,
    pub port: u16,
}

/// Why the queue cannot do it.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    #[error("cannot use the queue {}", path.display())]
    Database { path: PathBuf, source: rusqlite::Error },
    #[error("there is a request {0} already: each needs a name of its own")]
    RidTaken(String),
    #[error("{dst} on {host}:{port} is asked for already, by {rid}")]
    TargetTaken { dst: String, host: String, port: u16, rid: String },
    #[error("there is no request {0}")]
    Unknown(String),
    #[error("the queue holds {REQUESTS_MAX} requests, which is as many as it takes")]
    Full,
}

/// See the module documentation.
#[derive(Debug)]
pub struct Queue {
    connection: Connection,
    path: PathBuf,
}

impl Queue {
    /// Opens the queue, or makes it.
    ///
    /// # Errors
    /// [`QueueError::Database`].
    pub fn open(path: &Path) -> Result<Self, QueueError> {
        let refuse = |source| QueueError::Database { path: path.to_owned(), source };
        let connection = Connection::open(path).map_err(refuse)?;
        let queue = Self { connection, path: path.to_owned() };
        queue.again(|connection| {
            // The mode is answered as a row.
            connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
            connection.execute_batch("PRAGMA synchronous = FULL;")?;
            connection.execute_batch(SCHEMA)
        })?;
        Ok(queue)
    }

    /// Does something once more while others are busy.
    fn again<T>(
        &self,
        mut act: impl FnMut(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, QueueError> {
        let mut tries = 0;
        loop {
            tries += 1;
            match act(&self.connection) {
                Ok(value) => return Ok(value),
                Err(error) if is_busy(&error) && tries < TRIES_MAX => {
                    let longest = PAUSE_MAX.min(Duration::from_millis(1 << tries.min(9)));
                    std::thread::sleep(longest.mul_f64(fastrand::f64()));
                }
                Err(source) => {
                    return Err(QueueError::Database { path: self.path.clone(), source });
                }
            }
        }
    }

    /// All or nothing, and nobody else meanwhile.
    fn change<T>(
        &self,
        mut act: impl FnMut(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, QueueError> {
        self.again(|connection| {
            let behavior = TransactionBehavior::Immediate;
            let transaction = Transaction::new_unchecked(connection, behavior)?;
            let value = act(&transaction)?;
            transaction.commit()?;
            Ok(value)
        })
    }

    /// Adds a request. One for the same file on the same endpoint that is done makes room for it.
    ///
    /// # Errors
    /// [`QueueError`]: the name or the target is taken, or the queue is full.
    pub fn add(&self, ask: &Ask, now: UnixMs) -> Result<(), QueueError> {
        self.change(|transaction| {
            let count: i64 =
                transaction.query_row("SELECT count(*) FROM requests", [], |row| row.get(0))?;
            if usize::try_from(count).is_ok_and(|count| count >= REQUESTS_MAX) {
                return Ok(Err(QueueError::Full));
            }
            if find(transaction, &ask.rid)?.is_some() {
                return Ok(Err(QueueError::RidTaken(ask.rid.clone())));
            }
            let target = params![ask.dst, ask.host, ask.port];
            let taken: Option<String> = transaction
                .query_row(
                    "SELECT rid FROM requests WHERE dst_filename = ?1 AND hostname = ?2
                     AND port = ?3 AND state <> 'done'",
                    target,
                    |row| row.get(0),
                )
                .optional()?;
            if let Some(rid) = taken {
                let (dst, host, port) = (ask.dst.clone(), ask.host.clone(), ask.port);
                return Ok(Err(QueueError::TargetTaken { dst, host, port, rid }));
            }
            transaction.execute(
                "INSERT INTO requests (rid, src_filename, dst_filename, hostname, port, entry_time)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![ask.rid, ask.src, ask.dst, ask.host, ask.port, signed(now)],
            )?;
            Ok(Ok(()))
        })?
    }

    /// A request.
    ///
    /// # Errors
    /// [`QueueError::Unknown`] if there is none of this name.
    pub fn find(&self, rid: &str) -> Result<Queued, QueueError> {
        let found = self.again(|connection| find(connection, rid))?;
        found.ok_or_else(|| QueueError::Unknown(rid.to_owned()))
    }

    /// All requests, in the order in which they came.
    ///
    /// # Errors
    /// [`QueueError::Database`].
    pub fn list(&self) -> Result<Vec<Queued>, QueueError> {
        self.again(|connection| {
            let mut select = connection.prepare_cached(&format!("{SELECT} ORDER BY id"))?;
            select.query_map([], read)?.collect()
        })
    }

    /// Takes a request out. A session that is sending its file finds it gone.
    ///
    /// # Errors
    /// [`QueueError::Unknown`].
    pub fn cancel(&self, rid: &str) -> Result<(), QueueError> {
        let count = self.change(|transaction| {
            transaction.execute("DELETE FROM requests WHERE rid = ?1", [rid])
        })?;
        if count == 0 { Err(QueueError::Unknown(rid.to_owned())) } else { Ok(()) }
    }

    /// What a daemon that died was sending is to be sent again. Only for one that holds the lock.
    ///
    /// # Errors
    /// [`QueueError::Database`].
    pub fn recover(&self) -> Result<(), QueueError> {
        self.change(|transaction| {
            transaction
                .execute("UPDATE requests SET state = 'waiting' WHERE state = 'active'", [])
                .map(drop)
        })
    }

    /// Ends what is too old, forgets what has been done for long.
    ///
    /// # Errors
    /// [`QueueError::Database`].
    pub fn expire(&self, policy: &Policy, now: UnixMs) -> Result<(), QueueError> {
        let (expired, forgotten) =
            (signed(policy.expired_before(now)), signed(now) - KEPT_FOR.as_millis() as i64);
        self.change(|transaction| {
            transaction.execute(
                "UPDATE requests SET state = 'done', code = 500, done_time = ?2,
                 message = coalesce(message || '; ', '') || 'expired'
                 WHERE state = 'waiting' AND entry_time < ?1",
                params![expired, signed(now)],
            )?;
            transaction.execute(
                "DELETE FROM requests WHERE state = 'done' AND done_time < ?1",
                [forgotten],
            )?;
            Ok(())
        })
    }

    /// Takes all waiting requests for the file whose turn it is, if any is due; they are active
    /// from now on. `busy` are the files that are being sent.
    ///
    /// # Errors
    /// [`QueueError::Database`].
    pub fn take(
        &self,
        policy: &Policy,
        busy: &[String],
        now: UnixMs,
    ) -> Result<Option<Batch>, QueueError> {
        self.change(|transaction| {
            let groups = groups(transaction, now)?;
            let Some(chosen) = policy.choose(&groups, busy, now) else { return Ok(None) };
            let src = chosen.src.clone();
            let mut select = transaction.prepare_cached(&format!(
                "{SELECT} WHERE state = 'waiting' AND src_filename = ?1 AND due_time <= ?2
                 ORDER BY hostname, port, id"
            ))?;
            let rows = select.query_map(params![src, signed(now)], read)?;
            let requests = rows.collect::<rusqlite::Result<Vec<_>>>()?;
            let mut update = transaction
                .prepare_cached("UPDATE requests SET state = 'active' WHERE rid = ?1")?;
            for request in &requests {
                update.execute([&request.rid])?;
            }
            Ok(Some(Batch { src, requests }))
        })
    }

    /// Of these requests, those that have been cancelled.
    ///
    /// # Errors
    /// [`QueueError::Database`].
    pub fn gone(&self, rids: &[String]) -> Result<Vec<String>, QueueError> {
        self.again(|connection| {
            let mut gone = Vec::new();
            let mut select = connection.prepare_cached("SELECT 1 FROM requests WHERE rid = ?1")?;
            for rid in rids {
                if !select.exists([rid])? {
                    gone.push(rid.clone());
                }
            }
            Ok(gone)
        })
    }

    /// Notes how it went with requests: done, or waiting for another attempt.
    ///
    /// # Errors
    /// [`QueueError::Database`].
    pub fn settle(
        &self,
        policy: &Policy,
        results: &[(String, u16, String)],
        now: UnixMs,
    ) -> Result<(), QueueError> {
        self.change(|transaction| {
            for (rid, code, message) in results {
                let attempts: Option<u32> = transaction
                    .query_row("SELECT attempt_count FROM requests WHERE rid = ?1", [rid], |row| {
                        row.get(0)
                    })
                    .optional()?;
                // Cancelled meanwhile.
                let Some(attempts) = attempts else { continue };
                let attempts = attempts + u32::from(*code != 0);
                let retry = policy.retry_at(attempts, now).filter(|_| *code != 0);
                let state = if retry.is_some() { "waiting" } else { "done" };
                transaction.execute(
                    "UPDATE requests SET state = ?2, code = ?3, message = ?4, attempt_count = ?5,
                     due_time = ?6, done_time = ?7 WHERE rid = ?1",
                    params![
                        rid,
                        state,
                        code,
                        message,
                        attempts,
                        signed(retry.unwrap_or(0)),
                        signed(now)
                    ],
                )?;
            }
            Ok(())
        })
    }
}

/// Requests that are sent together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    pub src: String,
    pub requests: Vec<Queued>,
}

impl Batch {
    /// As the chain wants them. Files get their names only when they are whole, as the original's
    /// daemon always asks for.
    pub fn wanted(&self) -> Vec<Wanted> {
        let wanted = self.requests.iter().map(|queued| Wanted {
            host: queued.host.clone(),
            port: queued.port,
            request: Request { filename: queued.dst.clone(), id: queued.rid.clone(), rename: true },
        });
        wanted.collect()
    }

    /// What the reports say of each request, for [`Queue::settle`].
    pub fn results(&self, reports: &[Report]) -> Vec<(String, u16, String)> {
        let results = self.requests.iter().map(|queued| {
            let report = reports.iter().find(|report| report.id.as_deref() == Some(&queued.rid));
            let (code, message) = match report {
                Some(report) if report.is_success() => (0, "Success".to_owned()),
                Some(report) => (report.code, report.message.clone().unwrap_or_default()),
                None => (509, "Success was never reported, nor was a specific error".to_owned()),
            };
            (queued.rid.clone(), code, message)
        });
        results.collect()
    }
}

const SELECT: &str = "SELECT rid, src_filename, dst_filename, hostname, port, state, code, message,
    attempt_count, entry_time FROM requests";

fn find(connection: &Connection, rid: &str) -> rusqlite::Result<Option<Queued>> {
    let mut select = connection.prepare_cached(&format!("{SELECT} WHERE rid = ?1"))?;
    select.query_row([rid], read).optional()
}

fn read(row: &Row<'_>) -> rusqlite::Result<Queued> {
    let state: String = row.get(5)?;
    let entered: i64 = row.get(9)?;
    Ok(Queued {
        rid: row.get(0)?,
        src: row.get(1)?,
        dst: row.get(2)?,
        host: row.get(3)?,
        port: row.get(4)?,
        state: match state.as_str() {
            "waiting" => State::Waiting,
            "active" => State::Active,
            _ => State::Done,
        },
        code: row.get(6)?,
        message: row.get(7)?,
        attempts: row.get(8)?,
        entered: u64::try_from(entered).unwrap_or(0),
    })
}

fn groups(connection: &Connection, now: UnixMs) -> rusqlite::Result<Vec<Group>> {
    let mut select = connection.prepare_cached(
        "SELECT src_filename, count(*), min(entry_time), max(max(entry_time, due_time))
         FROM requests WHERE state = 'waiting' AND due_time <= ?1 GROUP BY src_filename",
    )?;
    let rows = select.query_map([signed(now)], |row| {
        let (first, last): (i64, i64) = (row.get(2)?, row.get(3)?);
        Ok(Group {
            src: row.get(0)?,
            count: row.get(1)?,
            first: u64::try_from(first).unwrap_or(0),
            last: u64::try_from(last).unwrap_or(0),
        })
    })?;
    rows.collect()
}

fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

/// SQLite's integers have signs. A moment fits for another 292 million years.
fn signed(time: UnixMs) -> i64 {
    i64::try_from(time).unwrap_or(i64::MAX)
}

/// Now, for the queue.
pub fn unix_ms() -> UnixMs {
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
