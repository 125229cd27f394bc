//! Hashes that outlive the program: a restart reads no image again.
//!
//! Of each file the hashes of its pieces, under all that they depend on as far as a look at the file
//! tells: path, inode, length, time of change. A file that is overwritten twice within one tick of
//! the kernel's clock (some milliseconds) could keep its time, so what was changed only just before it
//! was read is not kept.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, OptionalExtension as _, params};
use torrent::metainfo::create::PieceHash;
use torrent_io::create::{Created, FileState};

use crate::state::{self, Part, StateError};

/// How long a file must have been as it is: file systems keep times to 2 s at the worst (FAT).
const SETTLED: Duration = Duration::from_secs(2);

/// SHA-1 and SHA-256 of a piece.
const HASH_LEN: usize = 20 + 32;

const PART: Part = Part {
    name: "hashes",
    steps: &["CREATE TABLE hashes (
            path TEXT NOT NULL,
            inode INTEGER NOT NULL,
            len INTEGER NOT NULL,
            modified_s INTEGER NOT NULL,
            modified_ns INTEGER NOT NULL,
            piece_len INTEGER NOT NULL,
            is_last INTEGER NOT NULL,
            hashes BLOB NOT NULL,
            PRIMARY KEY (path, piece_len, is_last)
        ) STRICT"],
};

/// The hashes that are kept.
#[derive(Debug)]
pub(crate) struct Hashes {
    connection: Connection,
}

impl Hashes {
    /// Those of the lab in `lab`.
    pub(crate) fn open(lab: &Path) -> Result<Self, StateError> {
        state::open(lab, PART).map(|connection| Self { connection })
    }

    /// The hashes of a file in this state. Without them it is read, so that a failing database costs
    /// time and nothing else.
    pub(crate) fn find(&self, state: &FileState<'_>) -> Option<Vec<PieceHash>> {
        let (path, inode) = (state.path.to_str()?, state.inode.cast_signed());
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

    /// Keeps the hashes of a torrent that was made before `now` of files in `folder`, and forgets
    /// those of files that the folder no longer has.
    pub(crate) fn keep(&mut self, folder: &Path, created: &Created, now: SystemTime) {
        if let Err(error) = self.write(folder, created, now) {
            tracing::warn!("cannot keep hashes, files are read again: {error}");
        }
    }

    fn write(&mut self, folder: &Path, created: &Created, now: SystemTime) -> rusqlite::Result<()> {
        let settled = now.checked_sub(SETTLED).unwrap_or(UNIX_EPOCH);
        let settled_s = settled.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let transaction = self.connection.transaction()?;
        // Every path below the folder and no other: '0' follows '/' in ASCII.
        let below = [format!("{}/", folder.display()), format!("{}0", folder.display())];
        transaction.execute(
            "DELETE FROM hashes WHERE path >= ?1 AND path < ?2",
            params![below[0], below[1]],
        )?;
        for (state, hashes) in created.files() {
            let is_settled = state.modified.0 < settled_s.cast_signed();
            let (true, Some(path)) = (is_settled, state.path.to_str()) else { continue };
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
