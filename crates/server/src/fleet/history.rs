//! The fleet on the disk: one row a node, so that a restart, or `kill -9`, does not forget it.
//!
//! Rows are written each second for the nodes that have changed since, in one transaction: a fleet
//! of thousands that downloads costs one flush of the disk a second.

use std::path::Path;

use boot::Mac;
use rusqlite::{Connection, params};

use super::node::Node;
use crate::state::{self, Part, StateError};

const PART: Part = Part {
    name: "nodes",
    steps: &["CREATE TABLE nodes (mac TEXT PRIMARY KEY, node TEXT NOT NULL) STRICT;"],
};

/// The kept fleet.
#[derive(Debug)]
pub(crate) struct History(Connection);

impl History {
    /// The history of the lab in `lab`.
    ///
    /// # Errors
    /// [`StateError`], which names the file.
    pub(crate) fn open(lab: &Path) -> Result<Self, StateError> {
        state::open(lab, PART).map(Self)
    }

    /// All nodes, latest seen first. A row that cannot be read is passed over: it was written by
    /// another version, and the node will say again who it is.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub(crate) fn load(&self) -> rusqlite::Result<Vec<Node>> {
        let mut rows = self.0.prepare("SELECT node FROM nodes")?;
        let texts = rows.query_map([], |row| row.get::<_, String>(0))?;
        let mut nodes = vec![];
        for text in texts {
            if let Ok(node) = serde_json::from_str::<Node>(&text?) {
                nodes.push(node);
            }
        }
        nodes.sort_by_key(|node| std::cmp::Reverse(node.summary.seen));
        Ok(nodes)
    }

    /// Writes nodes, and forgets those that are gone.
    ///
    /// # Errors
    /// If the disk does not take it; then nothing is written.
    pub(crate) fn save(&mut self, changed: &[(Mac, Option<Node>)]) -> rusqlite::Result<()> {
        let transaction = self.0.transaction()?;
        {
            let mut put = transaction.prepare_cached(
                "INSERT INTO nodes (mac, node) VALUES (?1, ?2)
                 ON CONFLICT (mac) DO UPDATE SET node = excluded.node",
            )?;
            let mut delete = transaction.prepare_cached("DELETE FROM nodes WHERE mac = ?1")?;
            for (mac, node) in changed {
                match node.as_ref().map(serde_json::to_string) {
                    Some(Ok(text)) => put.execute(params![mac.to_string(), text])?,
                    Some(Err(_)) | None => delete.execute([mac.to_string()])?,
                };
            }
        }
        transaction.commit()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::UnixMs;

    #[test]
    fn what_was_saved_is_loaded_and_what_is_gone_is_not() {
        let lab = tempfile::tempdir().unwrap();
        let node = |last| Node::new(Mac([2, 0, 0, 0, 0, last]), UnixMs(u64::from(last)));
        let save = |nodes: &[(Mac, Option<Node>)]| {
            History::open(lab.path()).unwrap().save(nodes).unwrap();
        };
        save(&[1, 2, 3].map(|last| (node(last).summary.mac, Some(node(last)))));
        save(&[(node(2).summary.mac, None)]);
        assert_eq!(History::open(lab.path()).unwrap().load().unwrap(), [node(3), node(1)]);
    }

    #[test]
    fn rows_of_another_version_are_passed_over() {
        let lab = tempfile::tempdir().unwrap();
        let history = History::open(lab.path()).unwrap();
        history.0.execute("INSERT INTO nodes VALUES ('x', '{\"hologram\": 1}')", []).unwrap();
        assert_eq!(history.load().unwrap(), []);
    }
}
