//! What must survive a restart and `kill -9`: a few SQLite files under `state/`, each with one
//! purpose, so that none can hold up, fill or damage another.
//!
//! | File | Holds | Without it |
//! |---|---|---|
//! | `state.db` | the manifest's last serial, next boots | the serial comes from `out/manifest.json` |
//! | `leases.db` | who has which address | leases are kept in memory |
//! | `history.db` | what nodes did | the history begins anew |
//! | `hashes.db` | hashes of images' files | files are read again |
//!
//! Each part of the server has tables of its own, named after the part, and brings them up to date by
//! itself when it opens its file: a list of steps, of which the file remembers how many were taken.
//!
//! **What is wrong with a file keeps no room from booting.** A damaged one is put aside
//! ([`aside`]) and begun anew. One that cannot be written, since the disk is full or not ours, is read
//! ([`open_or_copy`]), and what it is for goes on in memory. Both is said in the log, and by [`degraded`] to
//! whoever asks. Only tables of a newer program are refused: an operator has just put an older one
//! there and looks on, and it would give addresses again that are in use.

mod aside;
mod degraded;

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, TransactionBehavior, params};
use rustix::fs::{Gid, Mode, OFlags, Uid};

pub(crate) use aside::put_aside_files;
pub(crate) use degraded::{degraded, recovered, suffers};

/// The folder of the lab that this is in.
pub(crate) const FOLDER: &str = "state";

/// The file of what is small and rarely written.
pub(crate) const STATE_FILE: &str = "state.db";

/// How long one connection waits for another's transaction: they last milliseconds, the disk's flush
/// some hundred at worst.
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
    /// It cannot be read or written, or is damaged and cannot be put aside.
    #[error("cannot use {}: {}", path.display(), cure(path, source))]
    Database { path: PathBuf, source: rusqlite::Error },
    /// It was written by a later version of this program.
    #[error(
        "{} has {part} of version {found}, this program knows {known}: use the newer program, \
         or move the file away",
        path.display()
    )]
    Newer { path: PathBuf, part: &'static str, found: usize, known: usize },
}

const FULL: &str = "the disk is full, make room";

/// Below so much free space the disk of a file is said to be full: the least that a database needs beside it.
const SPACE_MIN: u64 = 64 << 10;

fn is_full(path: &Path) -> bool {
    let folder = path.parent().unwrap_or(Path::new("."));
    rustix::fs::statvfs(folder)
        .is_ok_and(|stat| stat.f_bavail.saturating_mul(stat.f_frsize) < SPACE_MIN)
}

/// What to do about an error of SQLite's.
fn cure(path: &Path, error: &rusqlite::Error) -> &'static str {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => FULL,
        // SQLite's index of its log could not be made.
        Some(ErrorCode::SystemIoFailure) if is_full(path) => FULL,
        Some(ErrorCode::PermissionDenied | ErrorCode::ReadOnly) => {
            "this user may not write it, give it back with chown"
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            "another program holds it, see `fuser`"
        }
        _ => "the disk may be full or failing, see `dmesg` and `df`",
    }
}

/// Makes `state/` of the lab in `lab`, which nobody but its owner may look into: there are secrets in it, and
/// trees with programs that are root's for whoever runs them. One that an earlier version of this program
/// left open is closed.
///
/// # Errors
/// If it cannot be made. That it cannot be closed, as it is another user's, is no error.
pub(crate) fn make_folder(lab: &Path) -> io::Result<()> {
    let folder = lab.join(FOLDER);
    if !folder.exists() {
        fs::DirBuilder::new().recursive(true).mode(CLOSED).create(&folder)?;
        give_to_owner(lab, &folder)?;
    }
    let metadata = fs::symlink_metadata(&folder)?;
    let is_open = metadata.is_dir() && metadata.permissions().mode() & 0o077 != 0;
    if is_open && fs::set_permissions(&folder, fs::Permissions::from_mode(CLOSED)).is_ok() {
        tracing::info!(target: "LAB", "{} is closed to other users from now on", folder.display());
    }
    Ok(())
}

/// A command of root may be the first in a lab of the service's own user, who could not enter what is root's.
fn give_to_owner(lab: &Path, folder: &Path) -> io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let owner = fs::metadata(lab)?;
    // Whoever owns the lab may have put a link there meanwhile.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let made = rustix::fs::open(folder, flags, Mode::empty())?;
    let (uid, gid) = (Uid::from_raw(owner.uid()), Gid::from_raw(owner.gid()));
    Ok(rustix::fs::fchown(made, Some(uid), Some(gid))?)
}

/// What only its owner may look into.
const CLOSED: u32 = 0o700;

/// Opens `state.db` of the lab in `lab`, with the tables of `part` up to date.
///
/// # Errors
/// [`StateError`], which names the file.
pub(crate) fn open(lab: &Path, part: Part) -> Result<Connection, StateError> {
    open_file(lab, STATE_FILE, part)
}

/// Opens `file` in `state/`, with the tables of `part` up to date. What is damaged is put aside first. Rows
/// that an earlier version of this program kept in `state.db` are taken over once.
///
/// # Errors
/// [`StateError`], which names the file.
pub(crate) fn open_file(
    lab: &Path,
    file: &'static str,
    part: Part,
) -> Result<Connection, StateError> {
    let folder = lab.join(FOLDER);
    make_folder(lab).map_err(|source| StateError::Folder { path: folder.clone(), source })?;
    let path = folder.join(file);
    aside::clear_the_place(&path);
    let opened = match try_open(&path, part) {
        Err(StateError::Database { source, .. }) if is_damage(&source) && aside::put(&path) => {
            try_open(&path, part)
        }
        other => other,
    };
    let mut connection = opened?;
    if file != STATE_FILE
        && let Err(error) = take_over(&mut connection, &folder.join(STATE_FILE), part)
    {
        tracing::warn!(target: "LAB", "what {STATE_FILE} has of {} is not taken over: {error}", part.name);
    }
    recovered(lab, part.name);
    Ok(connection)
}

/// As [`open_file`], or a copy in memory of what is there if it cannot be written.
///
/// # Errors
/// [`StateError`], if the tables are those of a newer program.
pub(crate) fn open_or_copy(
    lab: &Path,
    file: &'static str,
    part: Part,
    without: &str,
) -> Result<Connection, StateError> {
    let error = match open_file(lab, file, part) {
        Err(error @ (StateError::Database { .. } | StateError::Folder { .. })) => error,
        other => return other,
    };
    suffers(lab, part.name, &format!("{error}; {without}"));
    let path = lab.join(FOLDER).join(file);
    copy(&path, part).map_err(|source| StateError::Database { path, source })
}

fn try_open(path: &Path, part: Part) -> Result<Connection, StateError> {
    let refuse = |source| StateError::Database { path: path.to_owned(), source };
    let mut connection = Connection::open(path).map_err(refuse)?;
    prepare(&connection).map_err(refuse)?;
    let found = migrate(&mut connection, part).map_err(refuse)?;
    if found > part.steps.len() {
        let known = part.steps.len();
        return Err(StateError::Newer { path: path.to_owned(), part: part.name, found, known });
    }
    check_tables(&connection, part).map_err(refuse)?;
    Ok(connection)
}

/// Finds tables that are not as this program makes them.
fn check_tables(connection: &Connection, part: Part) -> rusqlite::Result<()> {
    let mut fresh = Connection::open_in_memory()?;
    migrate(&mut fresh, part)?;
    match tables(connection, part)? == tables(&fresh, part)? {
        true => Ok(()),
        false => Err(corrupt("its tables are not those of this program")),
    }
}

/// The names of a part's tables and how they were made.
fn tables(connection: &Connection, part: Part) -> rusqlite::Result<Vec<(String, String)>> {
    let mut select = connection
        .prepare("SELECT name, sql FROM sqlite_master WHERE type = 'table' ORDER BY name")?;
    let tables = select.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get(1)?)))?;
    let tables = tables.collect::<rusqlite::Result<Vec<_>>>()?;
    Ok(tables.into_iter().filter(|(name, _)| name.starts_with(part.name)).collect())
}

/// Puts a file aside that turned out to be damaged while it was used, and was closed.
pub(crate) fn put_aside(lab: &Path, file: &str) {
    aside::put(&lab.join(FOLDER).join(file));
}

fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    // The mode is answered as a row.
    connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
    // What was committed is on the disk: an address that was promised survives a power cut.
    connection.execute_batch("PRAGMA synchronous = FULL;")?;
    // A torn page is found now, when nothing depends on it yet. All of it is read soon anyway.
    let verdict: String =
        connection.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0))?;
    match verdict.as_str() {
        "ok" => Ok(()),
        found => Err(corrupt(found)),
    }
}

fn corrupt(found: &str) -> rusqlite::Error {
    let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
    rusqlite::Error::SqliteFailure(code, Some(found.to_owned()))
}

/// Whether the file itself is at fault, and not the disk or who may write it. Tables that are not as
/// this program makes them (an error in SQL) are no state of its own either.
pub(crate) fn is_damage(error: &rusqlite::Error) -> bool {
    match error.sqlite_error_code() {
        Some(code) => matches!(
            code,
            ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::Unknown
        ),
        // A column that is not there or of another kind.
        None => true,
    }
}

/// Takes the steps that are missing, and returns the version that the file had or has now.
fn migrate(connection: &mut Connection, part: Part) -> rusqlite::Result<usize> {
    if version(connection, "main", part)? == Some(part.steps.len()) {
        // A full disk takes no transaction.
        return Ok(part.steps.len());
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute_batch(
        "CREATE TABLE IF NOT EXISTS parts (name TEXT PRIMARY KEY, version INTEGER NOT NULL) STRICT;",
    )?;
    let found = version(&transaction, "main", part)?.unwrap_or(0);
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

/// The version of a part's tables in `schema`, if it has any.
fn version(connection: &Connection, schema: &str, part: Part) -> rusqlite::Result<Option<usize>> {
    let has_parts: bool = connection.query_row(
        &format!("SELECT count(*) FROM {schema}.sqlite_master WHERE name = 'parts'"),
        [],
        |row| row.get(0),
    )?;
    if !has_parts {
        return Ok(None);
    }
    let select = format!("SELECT version FROM {schema}.parts WHERE name = ?1");
    let found: Option<i64> =
        connection.query_row(&select, [part.name], |row| row.get(0)).optional()?;
    Ok(found.map(|found| usize::try_from(found).unwrap_or(0)))
}

/// Whether `state.db` has tables of a part.
pub(crate) fn has_part(lab: &Path, part: Part) -> bool {
    let path = lab.join(FOLDER).join(STATE_FILE);
    path.is_file()
        && Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_ONLY)
            .is_ok_and(|file| version(&file, "main", part).is_ok_and(|found| found.is_some()))
}

/// Removes the tables of a part that `state.db` no longer needs.
///
/// # Errors
/// If the disk does not take it.
pub(crate) fn drop_part(lab: &Path, part: Part) -> rusqlite::Result<()> {
    if !has_part(lab, part) {
        return Ok(());
    }
    let file = Connection::open(lab.join(FOLDER).join(STATE_FILE))?;
    file.busy_timeout(BUSY_TIMEOUT)?;
    for (name, _) in tables(&file, part)? {
        file.execute_batch(&format!("DROP TABLE {name}"))?;
    }
    file.execute("DELETE FROM parts WHERE name = ?1", [part.name])?;
    Ok(())
}

/// Moves the rows of a part out of the file that once held all parts. They are in the new file before
/// they leave the old one: whoever is killed between does it again, to the same effect.
fn take_over(connection: &mut Connection, old: &Path, part: Part) -> rusqlite::Result<()> {
    if !old.is_file() {
        return Ok(());
    }
    let moved = with_old(connection, old, |connection| {
        if version(connection, "old", part)? != Some(1) {
            return Ok(false);
        }
        copy_tables(connection, part)?;
        Ok(true)
    })?;
    if moved && let Some(lab) = old.parent().and_then(Path::parent) {
        drop_part(lab, part)?;
        tracing::info!(target: "LAB", "{} moved from {STATE_FILE} into a file of their own", part.name);
    }
    Ok(())
}

/// Calls `work` while the file `old` is there as the schema `old`.
fn with_old<T>(
    connection: &mut Connection,
    old: &Path,
    work: impl FnOnce(&mut Connection) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    let path = old.to_string_lossy();
    connection.execute("ATTACH ?1 AS old", [&*path])?;
    let result = work(connection);
    connection.execute_batch("DETACH old")?;
    result
}

/// The tables of a part in the schema `old`.
fn table_names(connection: &Connection, part: Part) -> rusqlite::Result<Vec<String>> {
    let mut select =
        connection.prepare("SELECT name FROM old.sqlite_master WHERE type = 'table'")?;
    let names = select.query_map([], |row| row.get::<_, String>(0))?;
    let names = names.collect::<rusqlite::Result<Vec<_>>>()?;
    Ok(names.into_iter().filter(|name| name.starts_with(part.name)).collect())
}

/// Copies what the schema `old` has of a part and this one does not, in one transaction.
fn copy_tables(connection: &mut Connection, part: Part) -> rusqlite::Result<()> {
    let names = table_names(connection, part)?;
    let transaction = connection.transaction()?;
    for name in names {
        transaction.execute_batch(&format!(
            "INSERT OR IGNORE INTO main.{name} SELECT * FROM old.{name}"
        ))?;
    }
    transaction.commit()
}

/// What can be read of a file, in memory. That nothing of it can be read is as good as an empty one.
fn copy(path: &Path, part: Part) -> rusqlite::Result<Connection> {
    let mut connection = Connection::open_in_memory()?;
    migrate(&mut connection, part)?;
    // With the file to itself SQLite keeps its index of the log in memory, and so needs no room.
    connection.execute_batch("PRAGMA locking_mode = EXCLUSIVE")?;
    if let Err(error) = with_old(&mut connection, path, |it| copy_tables(it, part)) {
        tracing::error!(target: "LAB", "{} cannot be read either: {error}", path.display());
    }
    Ok(connection)
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

    /// What is wrong with a file, and how it came so.
    type Damage = (&'static str, fn(&Path));

    /// A file of many pages, with all of it in the file and not in the log.
    fn filled(lab: &Path) -> PathBuf {
        let connection = open(lab, ONE).unwrap();
        let rows =
            "WITH RECURSIVE n (i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
                    INSERT INTO t SELECT i FROM n";
        connection.execute(rows, []).unwrap();
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
        lab.join(FOLDER).join(STATE_FILE)
    }

    fn overwrite(path: &Path, at: u64) {
        use std::os::unix::fs::FileExt as _;
        let file = fs::File::options().write(true).open(path).unwrap();
        file.write_all_at(&[0xa5; 700], at).unwrap();
    }

    fn beside(path: &Path, suffix: &str) -> PathBuf {
        PathBuf::from(format!("{}{suffix}", path.display()))
    }

    #[test]
    fn what_is_damaged_is_put_aside_said_and_begun_anew() {
        let kinds: [Damage; 6] = [
            ("no database at all", |path| {
                fs::write(path, "this is no database, ".repeat(9)).unwrap()
            }),
            ("another header", |path| overwrite(path, 0)),
            ("a torn page", |path| overwrite(path, 4096 * 3)),
            ("cut off", |path| {
                fs::File::options().write(true).open(path).unwrap().set_len(9_000).unwrap();
            }),
            ("tables of somebody else", |path| {
                let connection = Connection::open(path).unwrap();
                connection.execute_batch("DROP TABLE t; CREATE TABLE t (b TEXT)").unwrap();
            }),
            ("a folder in its place", |path| {
                fs::remove_file(path).unwrap();
                fs::create_dir_all(path.join("x")).unwrap();
            }),
        ];
        for (kind, damage) in kinds {
            let lab = tempfile::tempdir().unwrap();
            damage(&filled(lab.path()));
            let connection =
                open(lab.path(), ONE).unwrap_or_else(|error| panic!("{kind}: {error}"));
            connection.execute("INSERT INTO t VALUES (1)", []).unwrap();
            let aside = put_aside_files(lab.path());
            assert_eq!(aside.len(), 1, "{kind}: {aside:?}");
            assert!(aside[0].starts_with("state.db.damaged-20"), "{kind}: {aside:?}");
            let said = degraded(lab.path());
            assert!(said.len() == 1 && said[0].contains(&aside[0]), "{kind}: {said:?}");
        }
    }

    #[test]
    fn a_log_that_cannot_be_read_costs_what_was_in_it_alone() {
        let kinds: [Damage; 2] = [
            ("a folder", |wal| fs::create_dir(wal).unwrap()),
            ("nonsense", |wal| fs::write(wal, [7; 9_000]).unwrap()),
        ];
        for (kind, damage) in kinds {
            let lab = tempfile::tempdir().unwrap();
            let path = filled(lab.path());
            damage(&beside(&path, "-wal"));
            let connection =
                open(lab.path(), ONE).unwrap_or_else(|error| panic!("{kind}: {error}"));
            let rows: i64 =
                connection.query_row("SELECT count(*) FROM t", [], |r| r.get(0)).unwrap();
            assert_eq!(rows, 5_000, "{kind}");
        }
    }

    #[test]
    fn what_cannot_be_written_is_read_and_goes_on_in_memory() {
        let lab = tempfile::tempdir().unwrap();
        let path = filled(lab.path());
        // Somebody else holds it: neither full nor damaged, and not to be used all the same.
        let other = Connection::open(&path).unwrap();
        other.execute_batch("PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE").unwrap();
        drop(other);
        let copy = copy(&path, ONE).unwrap();
        let rows: i64 = copy.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap();
        assert_eq!(rows, 5_000);
        copy.execute("DELETE FROM t", []).unwrap();
        let disk = open(lab.path(), ONE).unwrap();
        let rows: i64 = disk.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap();
        assert_eq!(rows, 5_000);
    }

    #[test]
    fn rows_of_a_part_move_into_its_own_file_once() {
        let lab = tempfile::tempdir().unwrap();
        open(lab.path(), ONE).unwrap().execute("INSERT INTO t VALUES (7)", []).unwrap();
        let count = |connection: &Connection| -> i64 {
            connection.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap()
        };
        let moved = open_file(lab.path(), "t.db", ONE).unwrap();
        assert_eq!(count(&moved), 1);
        moved.execute("DELETE FROM t", []).unwrap();
        drop(moved);
        assert_eq!(count(&open_file(lab.path(), "t.db", ONE).unwrap()), 0);
        assert_eq!(count(&open(lab.path(), ONE).unwrap()), 0, "it has left the old file");
    }

    #[test]
    fn a_state_made_by_root_is_the_labs_owners() {
        let lab = tempfile::tempdir().unwrap();
        std::os::unix::fs::chown(lab.path(), Some(4_321), Some(4_322)).unwrap();
        make_folder(lab.path()).unwrap();
        let made = fs::metadata(lab.path().join(FOLDER)).unwrap();
        assert_eq!((made.uid(), made.gid()), (4_321, 4_322));
    }

    #[test]
    fn nobody_else_looks_into_the_state_also_of_an_old_lab() {
        let lab = tempfile::tempdir().unwrap();
        let folder = lab.path().join(FOLDER);
        let mode = || fs::metadata(&folder).unwrap().permissions().mode() & 0o777;
        make_folder(lab.path()).unwrap();
        assert_eq!(mode(), 0o700);
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        open(lab.path(), ONE).unwrap();
        assert_eq!(mode(), 0o700);
    }
}
