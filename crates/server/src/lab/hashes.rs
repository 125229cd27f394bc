//! Hashes that outlive the program: a restart reads no image again.
//!
//! Of each file the hashes of its pieces, under all that they depend on as far as a look at the file
//! tells: path, inode, length, time of change. A file that is overwritten twice within one tick of
//! the kernel's clock (some milliseconds) could keep its time, so what was changed only just before it
//! was read is not kept.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, OptionalExtension as _, params};
use torrent::metainfo::create::PieceHash;
use torrent_io::create::{Created, FileState};

use crate::state::{self, Part};

/// How long a file must have been as it is: file systems keep times to 2 s at the worst (FAT).
const SETTLED: Duration = Duration::from_secs(2);

/// SHA-1 and SHA-256 of a piece.
const HASH_LEN: usize = 20 + 32;

/// What becomes of hashes that cannot be stored.
const WITHOUT: &str = "images are hashed again at the next start";

/// The file in `state/`.
const FILE: &str = "hashes.db";

const PART: Part = Part {
    name: "hashes",
    steps: &[
        "CREATE TABLE hashes (
            path TEXT NOT NULL,
            inode INTEGER NOT NULL,
            len INTEGER NOT NULL,
            modified_s INTEGER NOT NULL,
            modified_ns INTEGER NOT NULL,
            piece_len INTEGER NOT NULL,
            is_last INTEGER NOT NULL,
            hashes BLOB NOT NULL,
            PRIMARY KEY (path, piece_len, is_last)
        ) STRICT",
        // Of files that are being hashed.
        "CREATE TABLE hashes_begun (
            path TEXT NOT NULL,
            inode INTEGER NOT NULL,
            len INTEGER NOT NULL,
            modified_s INTEGER NOT NULL,
            modified_ns INTEGER NOT NULL,
            piece_len INTEGER NOT NULL,
            is_last INTEGER NOT NULL,
            first INTEGER NOT NULL,
            hashes BLOB NOT NULL
        ) STRICT; CREATE INDEX hashes_begun_path ON hashes_begun (path)",
    ],
};

/// Pieces of a file: where they begin in it, and their hashes.
pub(crate) type Pieces = (u32, Vec<PieceHash>);

/// The hashes that are kept.
#[derive(Debug)]
pub(crate) struct Hashes {
    connection: Connection,
    /// Paths are relative to it, so that a lab can be moved.
    lab: PathBuf,
    /// Else they are a copy, in memory.
    is_stored: bool,
}

impl Hashes {
    /// Those of the lab in `lab`. Without them files are read, which costs time and nothing else.
    pub(crate) fn open(lab: &Path) -> rusqlite::Result<Self> {
        let is_stored = |connection| Self { connection, lab: lab.to_owned(), is_stored: true };
        if let Ok(connection) = state::open_file(lab, FILE, PART) {
            return Ok(is_stored(connection));
        }
        let connection = match state::open_or_copy(lab, FILE, PART, WITHOUT) {
            Ok(connection) => connection,
            Err(error) => {
                state::suffers(lab, PART.name, &format!("{error}; {WITHOUT}"));
                let connection = Connection::open_in_memory()?;
                PART.steps.iter().try_for_each(|step| connection.execute_batch(step))?;
                connection
            }
        };
        Ok(Self { is_stored: false, ..is_stored(connection) })
    }

    /// If they could not be stored, tries that again; what was hashed meanwhile is not among them.
    pub(crate) fn try_again(&mut self) {
        if !self.is_stored
            && let Ok(connection) = state::open_file(&self.lab, FILE, PART)
        {
            (self.connection, self.is_stored) = (connection, true);
        }
    }

    /// The hashes of a file in this state. Without them it is read, so that a failing database costs
    /// time and nothing else.
    pub(crate) fn find(&self, state: &FileState<'_>) -> Option<Vec<PieceHash>> {
        let (path, inode) = (self.relative(state.path)?, state.inode.cast_signed());
        let found = self
            .connection
            .query_row(
                "SELECT hashes FROM hashes WHERE path = ?1 AND inode = ?2 AND len = ?3
                 AND modified_s = ?4 AND modified_ns = ?5 AND piece_len = ?6 AND is_last = ?7",
                params![
                    path,
                    inode,
                    state.len.cast_signed(),
                    state.modified.0,
                    state.modified.1,
                    state.piece_len,
                    state.is_last
                ],
                |row| row.get::<_, Vec<u8>>(0),
            )
            .optional();
        let bytes = match found {
            Ok(bytes) => bytes?,
            Err(error) => {
                tracing::warn!("cannot look up hashes, files are read again: {error}");
                return None;
            }
        };
        decode(&bytes)
    }

    /// The hashes of pieces of a file in this state whose hashing came to no end.
    pub(crate) fn begun(&self, state: &FileState<'_>) -> Vec<(u32, PieceHash)> {
        let read = || -> rusqlite::Result<Vec<(u32, Vec<u8>)>> {
            let mut select = self.connection.prepare_cached(
                "SELECT first, hashes FROM hashes_begun WHERE path = ?1 AND inode = ?2 AND len = ?3
                 AND modified_s = ?4 AND modified_ns = ?5 AND piece_len = ?6 AND is_last = ?7",
            )?;
            let rows = select.query_map(
                params![
                    self.relative(state.path),
                    state.inode.cast_signed(),
                    state.len.cast_signed(),
                    state.modified.0,
                    state.modified.1,
                    state.piece_len,
                    state.is_last
                ],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )?;
            rows.collect()
        };
        let rows = read().unwrap_or_default();
        let pieces = rows.into_iter().filter_map(|(first, bytes)| Some((first, decode(&bytes)?)));
        pieces.flat_map(|(first, hashes)| (first..).zip(hashes)).collect()
    }

    /// Keeps the hashes of pieces of a file whose hashing began before `now`, until all of it is known.
    pub(crate) fn keep_begun(&self, state: &FileState<'_>, pieces: &[Pieces], now: SystemTime) {
        let (true, Some(path)) = (is_settled(state.modified, now), self.relative(state.path))
        else {
            return;
        };
        let write = || -> rusqlite::Result<()> {
            let transaction = self.connection.unchecked_transaction()?;
            for (first, hashes) in pieces {
                transaction.execute(
                    "INSERT INTO hashes_begun VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
                    params![
                        path,
                        state.inode.cast_signed(),
                        state.len.cast_signed(),
                        state.modified.0,
                        state.modified.1,
                        state.piece_len,
                        state.is_last,
                        first,
                        encode(hashes)
                    ],
                )?;
            }
            transaction.commit()
        };
        if let Err(error) = write() {
            tracing::debug!("what is hashed of a file is not kept: {error}");
        }
    }

    /// The path in the lab.
    fn relative<'a>(&self, path: &'a Path) -> Option<&'a str> {
        path.strip_prefix(&self.lab).ok()?.to_str()
    }

    /// Forgets those of folders that the lab no longer has.
    pub(crate) fn retain(&mut self, folders: &[PathBuf]) {
        let folders: Vec<&str> = folders.iter().filter_map(|path| self.relative(path)).collect();
        let forget = || -> rusqlite::Result<()> {
            let mut statement = self
                .connection
                .prepare("SELECT path FROM hashes UNION SELECT path FROM hashes_begun")?;
            let paths = statement.query_map([], |row| row.get::<_, String>(0))?;
            for path in paths {
                let path = path?;
                let is_in = |folder: &&str| {
                    path.strip_prefix(*folder).is_some_and(|rest| rest.starts_with('/'))
                };
                if !folders.iter().any(is_in) {
                    self.connection.execute("DELETE FROM hashes WHERE path = ?1", [&path])?;
                    self.connection.execute("DELETE FROM hashes_begun WHERE path = ?1", [&path])?;
                }
            }
            Ok(())
        };
        if let Err(error) = forget() {
            tracing::warn!("cannot forget hashes of images that are gone: {error}");
        }
    }

    /// Keeps the hashes of a torrent that was made before `now` of files in `folder`, and forgets
    /// those of files that the folder no longer has.
    pub(crate) fn keep(&mut self, folder: &Path, created: &Created, now: SystemTime) {
        let result = match self.relative(folder) {
            Some(relative) => self.write(relative, created, now),
            None => return,
        };
        if let Err(error) = result {
            tracing::warn!("cannot keep hashes, files are read again: {error}");
        }
    }

    fn write(&mut self, folder: &str, created: &Created, now: SystemTime) -> rusqlite::Result<()> {
        let lab = self.lab.clone();
        let relative = |path: &Path| path.strip_prefix(&lab).ok()?.to_str().map(str::to_owned);
        let transaction = self.connection.transaction()?;
        // Every path below the folder and no other: '0' follows '/' in ASCII.
        let below = [format!("{folder}/"), format!("{folder}0")];
        transaction.execute(
            "DELETE FROM hashes WHERE path >= ?1 AND path < ?2",
            params![below[0], below[1]],
        )?;
        transaction.execute(
            "DELETE FROM hashes_begun WHERE path >= ?1 AND path < ?2",
            params![below[0], below[1]],
        )?;
        for (state, hashes) in created.files() {
            let is_settled = is_settled(state.modified, now);
            let (true, Some(path)) = (is_settled, relative(state.path)) else { continue };
            transaction.execute(
                "INSERT INTO hashes VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
                params![
                    path,
                    state.inode.cast_signed(),
                    state.len.cast_signed(),
                    state.modified.0,
                    state.modified.1,
                    state.piece_len,
                    state.is_last,
                    encode(hashes)
                ],
            )?;
        }
        transaction.commit()
    }
}

/// Whether a file that was `modified` then (seconds and nanoseconds since 1970) cannot be changed
/// from `now` on and keep its time.
fn is_settled(modified: (i64, i64), now: SystemTime) -> bool {
    let settled = now.checked_sub(SETTLED).unwrap_or(UNIX_EPOCH);
    let settled = settled.duration_since(UNIX_EPOCH).unwrap_or_default();
    modified <= (settled.as_secs().cast_signed(), i64::from(settled.subsec_nanos()))
}

#[cfg(test)]
impl Hashes {
    /// The files whose hashes are kept.
    pub(crate) fn paths(&self) -> Vec<String> {
        let mut statement =
            self.connection.prepare("SELECT path FROM hashes ORDER BY path").unwrap();
        let paths = statement.query_map([], |row| row.get(0)).unwrap();
        paths.map(Result::unwrap).collect()
    }
}

fn encode(hashes: &[PieceHash]) -> Vec<u8> {
    let both = |hash: &PieceHash| Some([hash.v1()?.as_slice(), hash.v2()?.as_slice()].concat());
    hashes.iter().filter_map(both).flatten().collect()
}

fn decode(bytes: &[u8]) -> Option<Vec<PieceHash>> {
    let (hashes, rest) = bytes.as_chunks::<HASH_LEN>();
    let hash = |bytes: &[u8; HASH_LEN]| {
        let (v1, v2) = bytes.split_first_chunk::<20>()?;
        Some(PieceHash::new(Some(*v1), Some(v2.try_into().ok()?)))
    };
    rest.is_empty().then(|| hashes.iter().map(hash).collect()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_settles_when_its_time_cannot_come_again() {
        let now = UNIX_EPOCH + Duration::new(1000, 500);
        let check = |modified, expect| assert_eq!(is_settled(modified, now), expect);
        check((997, 0), true);
        check((998, 500), true);
        check((998, 501), false);
        check((999, 0), false);
        check((2000, 0), false);
        check((-5, 0), true);
    }
}
