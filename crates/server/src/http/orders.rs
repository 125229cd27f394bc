//! What agents are told to do with the answer to their next report: signed by the lab's key for this
//! node, this boot and this moment (`boot::order`), since whoever is on the network can answer too.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use boot::order::Deed;
use boot::{LabKey, Mac, Order, Report};

use crate::lab::key::{self, KeyError};

/// How long an order waits for the node's next report: agents report every five seconds, and a switch
/// that is replugged is back in less.
const WAITS_MAX: Duration = Duration::from_secs(120);

/// Orders that wait at once: as many as a lab can name nodes.
const ORDERS_MAX: usize = 50_000;

/// Orders that wait for their nodes.
#[derive(Clone, Default)]
pub(crate) struct Orders(Arc<Inner>);

#[derive(Default)]
struct Inner {
    /// Read when it is needed first.
    key: OnceLock<LabKey>,
    waiting: Mutex<BTreeMap<Mac, Waiting>>,
}

struct Waiting {
    deed: Deed,
    /// The boot that it is for: in the next one it is not wanted any more.
    boot: u64,
    since: Instant,
}

impl Orders {
    /// Gives an order to nodes in their present boots; `lab` has the key. May wait for the disk.
    ///
    /// # Errors
    /// If there is no key to sign with.
    pub(crate) fn give(
        &self,
        lab: &Path,
        deed: Deed,
        nodes: &[(Mac, u64)],
        now: Instant,
    ) -> Result<(), KeyError> {
        if self.0.key.get().is_none() {
            // If another was quicker, it has read the same.
            let _ = self.0.key.set(key::load(lab)?);
        }
        let mut waiting = self.waiting();
        waiting.retain(|_, order| now.saturating_duration_since(order.since) < WAITS_MAX);
        for &(node, boot) in nodes {
            if waiting.len() < ORDERS_MAX {
                waiting.insert(node, Waiting { deed, boot, since: now });
            }
        }
        Ok(())
    }

    /// What the answer to this report orders. It is said again with each report until the node has
    /// obeyed, since an answer can be lost.
    pub(super) fn answer(&self, report: &Report, now: Instant) -> Option<Order> {
        let key = self.0.key.get()?;
        let waiting = self.waiting();
        let order = waiting.get(&report.node).filter(|order| order.boot == report.boot)?;
        let waits = now.saturating_duration_since(order.since);
        let deed = order.deed;
        drop(waiting);
        (waits < WAITS_MAX)
            .then(|| Order::sign(key, deed, report.node, report.boot, report.uptime_ms))
    }

    fn waiting(&self) -> MutexGuard<'_, BTreeMap<Mac, Waiting>> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: Mac = Mac([2, 0, 0, 0, 0, 1]);

    #[test]
    fn an_order_is_said_until_the_boot_or_the_time_is_over() {
        let lab = tempfile::tempdir().unwrap();
        let orders = Orders::default();
        let begin = Instant::now();
        let report = |boot| Report {
            node: NODE,
            boot,
            sequence: 1,
            uptime_ms: 9_000,
            stage: boot::Stage::Menu,
            machine: None,
            hardware: None,
            sources: vec![],
            log: vec![],
        };
        assert_eq!(orders.answer(&report(7), begin), None);
        orders.give(lab.path(), Deed::Reboot, &[(NODE, 7)], begin).unwrap();
        let key = key::load(lab.path()).unwrap().public();
        for _ in 0..2 {
            let order = orders.answer(&report(7), begin).unwrap();
            assert_eq!(order.open(&key, NODE, 7, 9_001), Some(Deed::Reboot));
        }
        assert_eq!(orders.answer(&report(8), begin), None);
        assert_eq!(orders.answer(&report(7), begin + WAITS_MAX), None);
        orders.give(lab.path(), Deed::Reboot, &[], begin + WAITS_MAX).unwrap();
        assert!(orders.waiting().is_empty());
    }
}
