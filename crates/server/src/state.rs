//! `state/state.db`: what must survive a restart and `kill -9`, in one SQLite file.
//!
//! Each part of the server has tables of its own in it, named after the part, and brings them up to
//! date by itself when it opens the file: a list of steps, of which the file remembers how many were
//! taken. Parts never look into one another's tables. Each has a connection of its own, on a thread
//! of its own; SQLite's write-ahead log lets them do so.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

/// The folder of the lab that this is in.
pub(crate) const FOLDER: &str = "state";

const FILE: &str = "state.db";

/// How long one part waits for another's transaction: they last milliseconds, the disk's flush some
/// hundred at worst.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// The tables of a part.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    /// Its name, which its tables begin with.
    pub(crate) name: &'static str,
    /// SQL that makes the tables of version n + 1 from those of version n. Only ever added to.
    pub(crate) steps: &'static [&'static str],
}

/// Why the state cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StateError {
    /// The folder cannot be made.
    #[error("cannot make the folder {}", path.display())]
    Folder { path: PathBuf, source: io::Error },
    /// It is not a database, or a damaged one, or cannot be written.
    #[error(
        "cannot use {}; if it is damaged, move it away: leases and the nodes' history begin anew",
        path.display()
    )]
    Database { path: PathBuf, source: rusqlite::Error },
    /// It was written by a later version of this program.
    #[error(
        "{} has {part} of version {found}, this program knows {known}: use the newer program, \
         or move the file away",
        path.display()
    )]
    Newer { path: PathBuf, part: &'static str, found: usize, known: usize },
}

/// Opens the state of the lab in `lab`, with the tables of `part` up to date.
///
/// # Errors
/// [`StateError`], which names the file.
pub(crate) fn open(lab: &Path, part: Part) -> Result<Connection, StateError> {
    let folder = lab.join(FOLDER);
    fs::create_dir_all(&folder)
        .map_err(|source| StateError::Folder { path: folder.clone(), source })?;
    let path = folder.join(FILE);
    let refuse = |source| StateError::Database { path: path.clone(), source };
    let mut connection = Connection::open(&path).map_err(refuse)?;
    prepare(&connection).map_err(refuse)?;
    let found = migrate(&mut connection, part).map_err(refuse)?;
    if found > part.steps.len() {
        let known = part.steps.len();
        return Err(StateError::Newer { path, part: part.name, found, known });
    }
    Ok(connection)
}

fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    // The mode is answered as a row.
    connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
    // What was committed is on the disk: an address that was promised survives a power cut.
    connection.execute_batch("PRAGMA synchronous = FULL;")
}

/// Takes the steps that are missing, and returns the version that the file had or has now.
fn migrate(connection: &mut Connection, part: Part) -> rusqlite::Result<usize> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute_batch(
        "CREATE TABLE IF NOT EXISTS parts (name TEXT PRIMARY KEY, version INTEGER NOT NULL) STRICT;",
    )?;
    let found: Option<i64> = transaction
        .query_row("SELECT version FROM parts WHERE name = ?1", [part.name], |row| row.get(0))
        .optional()?;
    let found = usize::try_from(found.unwrap_or(0)).unwrap_or(0);
    let Some(missing) = part.steps.get(found..) else {
        return Ok(found);
    };
    for step in missing {
        transaction.execute_batch(step)?;
    }
    let version = i64::try_from(part.steps.len()).unwrap_or(i64::MAX);
    transaction.execute(
        "INSERT INTO parts (name, version) VALUES (?1, ?2)
         ON CONFLICT (name) DO UPDATE SET version = excluded.version",
        params![part.name, version],
    )?;
    transaction.commit()?;
    Ok(part.steps.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Part = Part { name: "t", steps: &["CREATE TABLE t (a INTEGER) STRICT;"] };
    const TWO: Part =
        Part { name: "t", steps: &[ONE.steps[0], "ALTER TABLE t ADD COLUMN b INTEGER;"] };

    #[test]
    fn tables_are_brought_up_to_date_and_keep_their_rows() {
        let lab = tempfile::tempdir().unwrap();
        open(lab.path(), ONE).unwrap().execute("INSERT INTO t VALUES (7)", []).unwrap();
        let connection = open(lab.path(), TWO).unwrap();
        let row: (i64, Option<i64>) =
            connection.query_row("SELECT a, b FROM t", [], |r| Ok((r.get(0)?, r.get(1)?))).unwrap();
        assert_eq!(row, (7, None));
    }

    #[test]
    fn state_of_a_newer_program_is_left_alone() {
        let lab = tempfile::tempdir().unwrap();
        open(lab.path(), TWO).unwrap();
        let error = open(lab.path(), ONE).unwrap_err();
        assert!(matches!(error, StateError::Newer { found: 2, known: 1, .. }), "{error}");
    }

    #[test]
    fn parts_write_at_the_same_time() {
        let lab = tempfile::tempdir().unwrap();
        let other = Part { name: "u", steps: &["CREATE TABLE u (a INTEGER) STRICT;"] };
        let (first, second) = (open(lab.path(), ONE).unwrap(), open(lab.path(), other).unwrap());
        let writers = [(first, "t"), (second, "u")].map(|(connection, table)| {
            std::thread::spawn(move || {
                for row in 0..50 {
                    connection.execute(&format!("INSERT INTO {table} VALUES (?1)"), [row]).unwrap();
                }
            })
        });
        for writer in writers {
            writer.join().unwrap();
        }
        let check = open(lab.path(), ONE).unwrap();
        let rows: i64 = check
            .query_row("SELECT (SELECT count(*) FROM t) + (SELECT count(*) FROM u)", [], |r| {
                r.get(0)
            })
            .unwrap();
        assert_eq!(rows, 100);
    }

    #[test]
    fn what_is_no_database_is_named() {
        let lab = tempfile::tempdir().unwrap();
        fs::create_dir(lab.path().join(FOLDER)).unwrap();
        fs::write(lab.path().join(FOLDER).join(FILE), "this is no database, but long enough")
            .unwrap();
        let error = open(lab.path(), ONE).unwrap_err().to_string();
        assert!(error.contains("state.db") && error.contains("move it away"), "{error}");
    }
}
