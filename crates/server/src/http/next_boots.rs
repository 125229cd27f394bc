//! What nodes boot the next time and then no more, in the lab's `state/state.db`: it is promised to who
//! decided it, and a server that is started anew in the evening keeps the promise.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context as _;
use boot::{ImageName, Mac};
use rusqlite::{Connection, params};
use serde::{Deserialize, Serialize};

use crate::fleet::Turn;
use crate::state::{self, Part};

const PART: Part = Part {
    name: "next_boots",
    steps: &["CREATE TABLE next_boots (
        mac TEXT PRIMARY KEY,
        boot TEXT NOT NULL,
        is_handed_out INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;"],
};

/// For one boot, whatever is assigned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum NextBoot {
    /// This image.
    Image(ImageName),
    /// The disk.
    Disk,
}

/// Kept until the node's agent reports from that boot, or its disk was named to it: a script that was lost
/// on the way is asked for again.
#[derive(Clone, Default)]
pub(crate) struct NextBoots(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    nodes: BTreeMap<Mac, Next>,
    /// Absent where nothing is kept: in tests.
    table: Option<Connection>,
}

#[derive(Clone)]
struct Next {
    boot: NextBoot,
    /// The boot in which it was told the node.
    told_in: Option<u64>,
}

/// The most nodes for which that is kept: as many as a lab can name.
const NEXT_MAX: usize = 50_000;

impl NextBoots {
    /// Those of the lab in `lab`.
    ///
    /// # Errors
    /// If its state cannot be read.
    pub(crate) fn open(lab: &Path) -> anyhow::Result<Self> {
        let without = "what is decided for next boots is forgotten with the next restart";
        let table = state::open_or_copy(lab, state::STATE_FILE, PART, without)?;
        // A row is written while a node waits for its script: not for the disk.
        table.execute_batch("PRAGMA synchronous = NORMAL;").context("cannot use next boots")?;
        let nodes = load(&table).context("cannot read the next boots in state/state.db")?;
        Ok(Self(Arc::new(Mutex::new(Inner { nodes, table: Some(table) }))))
    }

    /// Decides it for nodes; how many were taken.
    ///
    /// # Errors
    /// If it cannot be kept; then nothing is decided.
    pub(crate) fn decide(&self, macs: &[Mac], boot: &NextBoot) -> anyhow::Result<usize> {
        let mut inner = self.lock();
        let room = NEXT_MAX.saturating_sub(inner.nodes.len());
        let next = Next { boot: boot.clone(), told_in: None };
        let new: Vec<_> = macs.iter().take(room).map(|&mac| (mac, Some(next.clone()))).collect();
        inner.keep(&new).context("cannot keep it in state/state.db")?;
        inner.nodes.extend(new.iter().map(|(mac, _)| (*mac, next.clone())));
        Ok(new.len())
    }

    /// What is decided for a node's next boot.
    pub(super) fn waiting(&self, mac: Mac) -> Option<NextBoot> {
        self.lock().nodes.get(&mac).map(|next| next.boot.clone())
    }

    /// What a node that asks for its script boots. Only who is known to be that node, at a boot that was heard
    /// to begin, takes it along ([`Turn`]); who else asks learns of it and changes nothing.
    pub(super) fn of(&self, mac: Mac, turn: Option<Turn>) -> Option<NextBoot> {
        let mut inner = self.lock();
        let found = inner.nodes.get(&mac)?.clone();
        let Some(turn) = turn.filter(|turn| turn.is_heard) else {
            return Some(found.boot);
        };
        match found.told_in {
            None => inner.change(mac, Some(Next { told_in: Some(turn.boot), ..found.clone() })),
            // The system on its disk reports nothing: that it had its boot shows when the next one begins.
            Some(told_in) if found.boot == NextBoot::Disk && told_in != turn.boot => {
                inner.change(mac, None);
                return None;
            }
            Some(_) => {}
        }
        Some(found.boot)
    }

    /// A node's agent runs, as is proved.
    pub(super) fn reported(&self, mac: Mac) {
        let mut inner = self.lock();
        if inner.nodes.get(&mac).is_some_and(|next| next.told_in.is_some()) {
            inner.change(mac, None);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// A node has come further. It boots all the same if that cannot be written.
    fn change(&mut self, mac: Mac, next: Option<Next>) {
        if let Err(error) = self.keep(&[(mac, next.clone())]) {
            tracing::warn!(target: "HTTP", "the next boot of {mac} is not kept: {error}");
        }
        match next {
            Some(next) => self.nodes.insert(mac, next),
            None => self.nodes.remove(&mac),
        };
    }

    /// Writes all, or nothing.
    fn keep(&mut self, changed: &[(Mac, Option<Next>)]) -> anyhow::Result<()> {
        let Some(table) = &mut self.table else { return Ok(()) };
        let transaction = table.transaction()?;
        for (mac, next) in changed {
            let mac = mac.to_string();
            match next {
                Some(Next { boot, told_in }) => {
                    // Zero is nobody; boots count from there.
                    let told_in =
                        told_in.map_or(0, |boot| i64::try_from(boot).unwrap_or(i64::MAX - 1) + 1);
                    let row = params![mac, serde_json::to_string(boot)?, told_in];
                    transaction
                        .prepare_cached("INSERT OR REPLACE INTO next_boots VALUES (?1, ?2, ?3)")?
                        .execute(row)?
                }
                None => transaction
                    .prepare_cached("DELETE FROM next_boots WHERE mac = ?1")?
                    .execute([mac])?,
            };
        }
        Ok(transaction.commit()?)
    }
}

/// All of them. A row that makes no sense is as good as none.
fn load(table: &Connection) -> rusqlite::Result<BTreeMap<Mac, Next>> {
    let mut select = table.prepare("SELECT mac, boot, is_handed_out FROM next_boots")?;
    let rows = select.query_map([], |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, i64>(2)?))
    })?;
    let mut nodes = BTreeMap::new();
    for row in rows {
        let (mac, boot, told_in) = row?;
        if let (Ok(mac), Ok(boot)) = (mac.parse(), serde_json::from_str(&boot)) {
            let told_in = told_in.checked_sub(1).and_then(|boot| u64::try_from(boot).ok());
            nodes.insert(mac, Next { boot, told_in });
        }
    }
    Ok(nodes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const OTHER: Mac = Mac([2, 0, 0, 0, 0, 2]);
    const FIRST: Option<Turn> = Some(Turn { boot: 1, is_heard: true });
    const SECOND: Option<Turn> = Some(Turn { boot: 2, is_heard: true });

    fn image() -> NextBoot {
        NextBoot::Image("old".parse().unwrap())
    }

    #[test]
    fn a_next_boot_is_kept_until_the_node_has_come_that_far() {
        let next = NextBoots::default();
        assert_eq!(next.decide(&[NODE, OTHER], &image()).unwrap(), 2);
        // What still runs there reports, too.
        next.reported(NODE);
        assert_eq!(next.of(NODE, FIRST), Some(image()));
        assert_eq!(next.of(NODE, FIRST), Some(image()));
        next.reported(NODE);
        assert_eq!(next.of(NODE, FIRST), None);
        next.decide(&[OTHER], &NextBoot::Disk).unwrap();
        assert_eq!(next.of(OTHER, FIRST), Some(NextBoot::Disk));
        assert_eq!(next.of(OTHER, FIRST), Some(NextBoot::Disk), "a script that was lost");
        assert_eq!(next.of(OTHER, SECOND), None, "the disk's system reports nothing");
    }

    #[test]
    fn who_is_not_known_to_be_the_node_takes_nothing_along() {
        let unheard = Some(Turn { boot: 1, is_heard: false });
        for boot in [image(), NextBoot::Disk] {
            let next = NextBoots::default();
            next.decide(&[NODE], &boot).unwrap();
            for turn in [None, unheard] {
                assert_eq!(next.of(NODE, turn), Some(boot.clone()));
                next.reported(NODE);
            }
            assert_eq!(next.of(NODE, FIRST), Some(boot));
        }
    }

    #[test]
    fn what_is_decided_outlives_the_server() {
        let lab = tempfile::tempdir().unwrap();
        NextBoots::open(lab.path()).unwrap().decide(&[NODE, OTHER], &image()).unwrap();
        // Each server goes a step further, and its successor knows.
        assert_eq!(NextBoots::open(lab.path()).unwrap().of(NODE, FIRST), Some(image()));
        NextBoots::open(lab.path()).unwrap().reported(NODE);
        let last = NextBoots::open(lab.path()).unwrap();
        assert_eq!(last.waiting(NODE), None);
        assert_eq!(last.waiting(OTHER), Some(image()));
    }
}
