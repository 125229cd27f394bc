//! The fleet on the disk, in `state/history.db`, so that a restart, or `kill -9`, does not forget it.
//!
//! **Little is written for a little that is new.** What is known of a node is in rows by how often it
//! changes: where it is now, the stages of this boot, what it is made of, and a row for each event, past
//! boot and line of its log, which are only ever added and in the end removed. A row that is as it was is not
//! written: of each a hash is remembered.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};

use boot::Mac;
use rusqlite::{Connection, Transaction, params};
use serde_json::{Map, Value};

use super::node::Node;
use crate::state::{self, FOLDER, Part, StateError};

/// The file in `state/`.
pub(super) const FILE: &str = "history.db";

/// What becomes of the history without its file.
pub(super) const WITHOUT: &str = "what nodes do from now on is forgotten with the next restart";

/// So much of the log is merged into the file at once: a page that changes often is then written there
/// once for many times in the log.
const LOG_LEN_MAX: u64 = 8 << 20;

/// Rows that are replaced, and the fields of a node that are in them; all other fields are in `now`.
const ROWS: [(&str, &[&str]); 2] =
    [("boot", &["steps", "sources"]), ("machine", &["machine", "hardware", "last_failure"])];

/// Where all other fields are.
const NOW: &str = "now";

/// Fields that are lists, of which each entry is a row.
const LISTS: [&str; 3] = ["events", "past", "log"];

pub(super) const PART: Part = Part {
    name: "history",
    steps: &["CREATE TABLE history_now (mac TEXT PRIMARY KEY, fields TEXT NOT NULL) STRICT, WITHOUT ROWID;
              CREATE TABLE history_boot (mac TEXT PRIMARY KEY, fields TEXT NOT NULL) STRICT, WITHOUT ROWID;
              CREATE TABLE history_machine (mac TEXT PRIMARY KEY, fields TEXT NOT NULL) STRICT, WITHOUT ROWID;
              CREATE TABLE history_entries (
                  id INTEGER PRIMARY KEY, mac TEXT NOT NULL, list TEXT NOT NULL, entry TEXT NOT NULL
              ) STRICT;"],
};

/// The field of `now` that says where lists begin: rows of an entry before that are no longer in them. They
/// are removed many at a time, since one alone costs as much.
const FIRST_ROWS: &str = "first_rows";

/// So many rows at the beginning of a list are removed together: a page of the file holds some more.
const STALE_MAX: usize = 16;

/// How all of a node was in one row of `state.db`.
const OLD: Part = Part {
    name: "nodes",
    steps: &["CREATE TABLE nodes (mac TEXT PRIMARY KEY, node TEXT NOT NULL) STRICT;"],
};

/// The kept fleet.
#[derive(Debug)]
pub(crate) struct History {
    connection: Connection,
    /// SQLite's log beside the file.
    log: PathBuf,
    log_len: u64,
    stored: HashMap<Mac, Stored>,
}

/// What the file has of a node.
#[derive(Debug, Default)]
struct Stored {
    /// A hash of each row that is replaced: `now`, then [`ROWS`].
    rows: [Option<u64>; 1 + ROWS.len()],
    lists: [List; LISTS.len()],
}

/// The rows of a list.
#[derive(Debug, Default)]
struct List {
    /// Those that are in it, oldest first: their id and a hash.
    rows: Vec<(i64, u64)>,
    /// Those that were, and are still in the file.
    stale: Vec<i64>,
}

impl History {
    /// The history of the lab in `lab`, to be written.
    ///
    /// # Errors
    /// [`StateError`], which names the file.
    pub(crate) fn open(lab: &Path) -> Result<Self, StateError> {
        let connection = state::open_file(lab, FILE, PART)?;
        // After a power cut the last seconds are missing; `kill -9` costs nothing.
        let prepared =
            connection.execute_batch("PRAGMA synchronous = NORMAL; PRAGMA wal_autocheckpoint = 0;");
        let path = lab.join(FOLDER).join(FILE);
        prepared.map_err(|source| StateError::Database { path, source })?;
        let log = lab.join(FOLDER).join(format!("{FILE}-wal"));
        let mut history = Self { connection, log, log_len: 0, stored: HashMap::new() };
        history.log_len = history.log_len();
        Ok(history)
    }

    /// What the lab in `lab` knows of nodes, latest seen first; also if nothing can be written there. What
    /// cannot be read is passed over: the node will say again who it is.
    pub(crate) fn read(lab: &Path) -> Vec<Node> {
        let read = || -> anyhow::Result<Vec<Node>> {
            let connection = state::open_or_copy(lab, FILE, PART, WITHOUT)?;
            let nodes = load(&connection)?.into_values().map(|(node, _)| node);
            Ok(nodes.filter_map(|node| serde_json::from_value(Value::Object(node)).ok()).collect())
        };
        let mut nodes = read().unwrap_or_else(|error| {
            state::suffers(lab, PART.name, &format!("{error}; {WITHOUT}"));
            vec![]
        });
        if nodes.is_empty() {
            nodes = read_old(lab).unwrap_or_else(|error| {
                tracing::warn!(target: "NODE", "the nodes of before are not taken over: {error}");
                vec![]
            });
        }
        nodes.sort_by_key(|node| std::cmp::Reverse(node.summary.seen));
        nodes
    }

    /// Learns what the file has, so that only what is new is written.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(super) fn learn(&mut self) -> rusqlite::Result<()> {
        let loaded = load(&self.connection)?;
        self.stored = loaded.into_iter().map(|(mac, (_, stored))| (mac, stored)).collect();
        Ok(())
    }

    /// Writes what is new of nodes, and forgets those that are gone. Returns how many bytes that costs the
    /// disk, now and when the log is merged: each page is written into both.
    ///
    /// # Errors
    /// If the disk does not take it; then nothing is written.
    pub(super) fn save(&mut self, changed: &[(Mac, Option<Node>)]) -> rusqlite::Result<u64> {
        let transaction = self.connection.transaction()?;
        let mut stored = vec![];
        for (mac, node) in changed {
            let before = self.stored.get(mac);
            stored.push((*mac, put(&transaction, *mac, node.as_ref(), before)?));
        }
        transaction.commit()?;
        for (mac, after) in stored {
            match after {
                Some(after) => drop(self.stored.insert(mac, after)),
                None => drop(self.stored.remove(&mac)),
            }
        }
        let len = self.log_len();
        let cost = len.saturating_sub(self.log_len) * 2;
        self.log_len = len;
        if len >= LOG_LEN_MAX {
            self.merge()?;
        }
        Ok(cost)
    }

    fn merge(&mut self) -> rusqlite::Result<()> {
        self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        self.log_len = self.log_len();
        Ok(())
    }

    fn log_len(&self) -> u64 {
        std::fs::metadata(&self.log).map_or(0, |metadata| metadata.len())
    }
}

impl Drop for History {
    fn drop(&mut self) {
        // What is in the log is read from there.
        let _ = self.merge();
    }
}

/// Forgets how an earlier version of this program kept nodes, once the file has them.
pub(super) fn retire_old(lab: &Path) {
    if let Err(error) = state::drop_part(lab, OLD) {
        tracing::warn!(target: "NODE", "the nodes of before stay in state.db, too: {error}");
    }
}

fn read_old(lab: &Path) -> Result<Vec<Node>, Box<dyn std::error::Error>> {
    if !state::has_part(lab, OLD) {
        return Ok(vec![]);
    }
    let connection = state::open(lab, OLD)?;
    let mut select = connection.prepare("SELECT node FROM nodes")?;
    let texts = select.query_map([], |row| row.get::<_, String>(0))?;
    let texts = texts.collect::<rusqlite::Result<Vec<_>>>()?;
    Ok(texts.iter().filter_map(|text| serde_json::from_str(text).ok()).collect())
}

/// Writes what is new of a node; what the file has of it then.
fn put(
    transaction: &Transaction<'_>,
    mac: Mac,
    node: Option<&Node>,
    before: Option<&Stored>,
) -> rusqlite::Result<Option<Stored>> {
    let fields = node.and_then(|node| match serde_json::to_value(node) {
        Ok(Value::Object(fields)) => Some(fields),
        _ => None,
    });
    let nothing = Stored::default();
    let before = before.unwrap_or(&nothing);
    let Some(mut fields) = fields else {
        forget(transaction, mac, before)?;
        return Ok(None);
    };
    let mut stored = Stored::default();
    for (index, list) in LISTS.iter().enumerate() {
        let entries = match fields.remove(*list) {
            Some(Value::Array(entries)) => entries,
            _ => vec![],
        };
        stored.lists[index] = put_list(transaction, mac, list, &entries, &before.lists[index])?;
    }
    for (index, (table, names)) in ROWS.iter().enumerate() {
        let row: Map<String, Value> = names
            .iter()
            .filter_map(|name| Some(((*name).to_owned(), fields.remove(*name)?)))
            .collect();
        stored.rows[index + 1] =
            Some(put_row(transaction, mac, table, row, before.rows[index + 1])?);
    }
    let first = |list: &List| match (list.rows.first(), list.stale.last()) {
        (Some((first, _)), _) => *first,
        (None, Some(last)) => last + 1,
        (None, None) => 0,
    };
    fields.insert(FIRST_ROWS.to_owned(), stored.lists.iter().map(first).collect());
    stored.rows[0] = Some(put_row(transaction, mac, NOW, fields, before.rows[0])?);
    Ok(Some(stored))
}

fn put_row(
    transaction: &Transaction<'_>,
    mac: Mac,
    table: &str,
    fields: Map<String, Value>,
    before: Option<u64>,
) -> rusqlite::Result<u64> {
    let text = Value::Object(fields).to_string();
    let hash = hash(&text);
    if before != Some(hash) {
        transaction
            .prepare_cached(&format!(
                "INSERT INTO history_{table} (mac, fields) VALUES (?1, ?2)
                 ON CONFLICT (mac) DO UPDATE SET fields = excluded.fields"
            ))?
            .execute(params![mac.to_string(), text])?;
    }
    Ok(hash)
}

/// Entries leave a list at its beginning and come at its end, and the last may change.
fn put_list(
    transaction: &Transaction<'_>,
    mac: Mac,
    list: &str,
    entries: &[Value],
    before: &List,
) -> rusqlite::Result<List> {
    let texts: Vec<String> = entries.iter().map(Value::to_string).collect();
    let hashes: Vec<u64> = texts.iter().map(|text| hash(text)).collect();
    let rows = &before.rows;
    let gone = match hashes.first() {
        Some(first) => rows.iter().position(|(_, hash)| hash == first).unwrap_or(rows.len()),
        None => rows.len(),
    };
    let kept = rows[gone..].iter().zip(&hashes).take_while(|((_, was), is)| was == *is).count();
    let mut stale = before.stale.clone();
    stale.extend(rows[..gone].iter().map(|(id, _)| id));
    let changed = rows[gone + kept..].iter().map(|(id, _)| *id);
    let removed: Vec<i64> = match stale.len() >= STALE_MAX {
        true => stale.drain(..).chain(changed).collect(),
        false => changed.collect(),
    };
    remove(transaction, &removed)?;
    let mut rows = rows[gone..gone + kept].to_vec();
    let mut insert = transaction
        .prepare_cached("INSERT INTO history_entries (mac, list, entry) VALUES (?1, ?2, ?3)")?;
    for (text, hash) in texts.iter().zip(&hashes).skip(kept) {
        insert.execute(params![mac.to_string(), list, text])?;
        rows.push((transaction.last_insert_rowid(), *hash));
    }
    Ok(List { rows, stale })
}

fn remove(transaction: &Transaction<'_>, ids: &[i64]) -> rusqlite::Result<()> {
    let mut delete = transaction.prepare_cached("DELETE FROM history_entries WHERE id = ?1")?;
    ids.iter().try_for_each(|id| delete.execute([id]).map(drop))
}

fn forget(transaction: &Transaction<'_>, mac: Mac, before: &Stored) -> rusqlite::Result<()> {
    for table in [NOW].into_iter().chain(ROWS.iter().map(|(table, _)| *table)) {
        transaction
            .prepare_cached(&format!("DELETE FROM history_{table} WHERE mac = ?1"))?
            .execute([mac.to_string()])?;
    }
    for List { rows, stale } in &before.lists {
        let ids: Vec<i64> = rows.iter().map(|(id, _)| *id).chain(stale.iter().copied()).collect();
        remove(transaction, &ids)?;
    }
    Ok(())
}

/// The fields of a node, and what the file has of it.
type Loaded = (Map<String, Value>, Stored);

/// All nodes: their fields, and what the file has of them.
fn load(connection: &Connection) -> rusqlite::Result<HashMap<Mac, Loaded>> {
    let mut nodes: HashMap<Mac, Loaded> = HashMap::new();
    let tables = [NOW].into_iter().chain(ROWS.iter().map(|(table, _)| *table));
    for (index, table) in tables.enumerate() {
        let mut select = connection.prepare(&format!("SELECT mac, fields FROM history_{table}"))?;
        let mut rows = select.query([])?;
        while let Some(row) = rows.next()? {
            let (mac, text): (String, String) = (row.get(0)?, row.get(1)?);
            let (Ok(mac), Ok(Value::Object(fields))) = (mac.parse(), serde_json::from_str(&text))
            else {
                continue;
            };
            let (all, stored) = nodes.entry(mac).or_default();
            all.extend(fields);
            stored.rows[index] = Some(hash(&text));
        }
    }
    let mut select =
        connection.prepare("SELECT id, mac, list, entry FROM history_entries ORDER BY id")?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        let (mac, list, text): (String, String, String) = (row.get(1)?, row.get(2)?, row.get(3)?);
        let place = LISTS.iter().position(|known| *known == list);
        let (Ok(mac), Some(place), Ok(entry)) =
            (mac.parse::<Mac>(), place, serde_json::from_str(&text))
        else {
            continue;
        };
        let Some((all, stored)) = nodes.get_mut(&mac) else { continue };
        let id: i64 = row.get(0)?;
        let first = all.get(FIRST_ROWS).and_then(|first| first.get(place)).and_then(Value::as_i64);
        if first.is_some_and(|first| id < first) {
            stored.lists[place].stale.push(id);
            continue;
        }
        if let Value::Array(entries) = all.entry(list).or_insert_with(|| Value::Array(vec![])) {
            entries.push(entry);
            stored.lists[place].rows.push((id, hash(&text)));
        }
    }
    nodes.values_mut().for_each(|(fields, _)| drop(fields.remove(FIRST_ROWS)));
    Ok(nodes)
}

fn hash(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::{Event, Fleet, UnixMs};

    fn node(last: u8) -> Node {
        Node::new(Mac([2, 0, 0, 0, 0, last]), UnixMs(u64::from(last)))
    }

    fn open(lab: &Path) -> History {
        let mut history = History::open(lab).unwrap();
        history.learn().unwrap();
        history
    }

    #[test]
    fn what_was_saved_is_loaded_and_what_is_gone_is_not() {
        let lab = tempfile::tempdir().unwrap();
        let save = |nodes: &[(Mac, Option<Node>)]| {
            open(lab.path()).save(nodes).unwrap();
        };
        save(&[1, 2, 3].map(|last| (node(last).summary.mac, Some(node(last)))));
        save(&[(node(2).summary.mac, None)]);
        assert_eq!(History::read(lab.path()), [node(3), node(1)]);
    }

    /// A node that has booted so often, as the fleet knows it.
    fn booted(mac: Mac, times: u64) -> Node {
        let mut fleet = Fleet::default();
        for boot in 0..times {
            for sequence in 1..=4 {
                let stage = ["kernel", "lease", "manifest", "menu"][sequence as usize - 1];
                let report = serde_json::json!({
                    "node": mac, "boot": boot, "sequence": sequence, "uptime_ms": 9, "stage": stage,
                    "log": [format!("line {boot}.{sequence}")],
                });
                let report = serde_json::from_value(report).unwrap();
                let event = Event::reported(None, report);
                fleet.handle(UnixMs(boot * 100_000 + sequence * 1_000), &event);
            }
        }
        fleet.node(mac).unwrap().clone()
    }

    #[test]
    fn a_node_comes_back_as_it_was_after_each_of_many_boots() {
        let lab = tempfile::tempdir().unwrap();
        let mac = Mac([2, 0, 0, 0, 0, 9]);
        let mut history = open(lab.path());
        for times in 1..=30 {
            let node = booted(mac, times);
            history.save(&[(mac, Some(node.clone()))]).unwrap();
            if times % 7 == 0 {
                history = open(lab.path());
            }
            let mut loaded = History::read(lab.path());
            loaded[0].summary.revision = node.summary.revision;
            assert_eq!(loaded, [node], "after {times} boots");
        }
        let rows: i64 = history
            .connection
            .query_row("SELECT count(*) FROM history_entries", [], |row| row.get(0))
            .unwrap();
        assert!(rows < 180, "what is no longer known is removed: {rows} rows");
    }

    #[test]
    fn nodes_of_before_are_taken_over_from_the_file_of_all_parts() {
        let lab = tempfile::tempdir().unwrap();
        let text = serde_json::to_string(&node(4)).unwrap();
        let old = state::open(lab.path(), OLD).unwrap();
        old.execute("INSERT INTO nodes VALUES ('x', ?1)", [text]).unwrap();
        old.execute("INSERT INTO nodes VALUES ('y', '{\"hologram\": 1}')", []).unwrap();
        drop(old);
        assert_eq!(History::read(lab.path()), [node(4)]);
        retire_old(lab.path());
        assert_eq!(History::read(lab.path()), []);
    }

    #[test]
    fn rows_of_another_version_are_passed_over() {
        let lab = tempfile::tempdir().unwrap();
        let history = open(lab.path());
        let add = "INSERT INTO history_now VALUES ('020000000001', '{\"hologram\": 1}')";
        history.connection.execute(add, []).unwrap();
        drop(history);
        assert_eq!(History::read(lab.path()), []);
    }

    #[test]
    fn a_stage_that_changes_writes_little_whatever_the_past() {
        let lab = tempfile::tempdir().unwrap();
        let mut history = open(lab.path());
        let nodes: Vec<Mac> = (0..64).map(|last| Mac([2, 0, 0, 0, 1, last])).collect();
        let save = |history: &mut History, times| {
            let nodes: Vec<_> = nodes.iter().map(|mac| (*mac, Some(booted(*mac, times)))).collect();
            let len: usize =
                nodes.iter().map(|(_, node)| serde_json::to_string(node).unwrap().len()).sum();
            (history.save(&nodes).unwrap(), len as u64)
        };
        save(&mut history, 20);
        let (cost, len) = save(&mut history, 20);
        assert_eq!(cost, 0, "nothing is new");
        assert!(len > 64 * 4_000);
        let few: Vec<_> = nodes
            .iter()
            .map(|mac| {
                let mut node = booted(*mac, 20);
                node.told(UnixMs(9_999_999), "it is told to reboot");
                (*mac, Some(node))
            })
            .collect();
        let cost = history.save(&few).unwrap();
        assert!(cost < 64 * 2_048, "{cost} bytes for one event each of nodes of {len} bytes");
    }
}
