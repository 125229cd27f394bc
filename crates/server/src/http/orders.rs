//! What agents are told to do with the answer to their next report: signed by the lab's key for this
//! node, this boot and this moment (`boot::order`), since whoever is on the network can answer too.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use boot::order::Deed;
use boot::{LabKey, Mac, Order, Report};

use crate::fleet::{Proven, Reach};

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
    /// The boot that it is for, and its uptime at `since`: in the next one it is not wanted any more.
    reach: Reach,
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
        nodes: &[(Mac, Reach)],
        now: Instant,
    ) -> Result<(), KeyError> {
        if self.0.key.get().is_none() {
            // If another was quicker, it has read the same.
            let _ = self.0.key.set(key::load(lab)?);
        }
        let mut waiting = self.waiting();
        waiting.retain(|_, order| now.saturating_duration_since(order.since) < WAITS_MAX);
        for &(node, reach) in nodes {
            if waiting.len() < ORDERS_MAX {
                waiting.insert(node, Waiting { deed, reach, since: now });
            }
        }
        Ok(())
    }

    /// What the answer to this report orders. It is said again with each report until the node has
    /// obeyed, since an answer can be lost. How long it holds is reckoned by this server's clock from what was
    /// known when it was given: no report moves that.
    pub(super) fn answer(&self, report: &Proven<Report>, now: Instant) -> Option<Order> {
        let key = self.0.key.get()?;
        let report = report.what();
        let waiting = self.waiting();
        let order = waiting.get(&report.node)?;
        let (deed, Reach { boot, uptime_ms }) = (order.deed, order.reach);
        let waits = now.saturating_duration_since(order.since);
        drop(waiting);
        if boot != report.boot || waits >= WAITS_MAX {
            return None;
        }
        let waits_ms = u64::try_from(waits.as_millis()).unwrap_or(u64::MAX);
        Some(Order::sign(key, deed, report.node, boot, uptime_ms.saturating_add(waits_ms)))
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
        let report = |boot| {
            let report = Report {
                node: NODE,
                boot,
                sequence: 1,
                uptime_ms: 2_592_000_000,
                stage: boot::Stage::Menu,
                machine: None,
                hardware: None,
                sources: vec![],
                log: vec![],
            };
            Proven::for_tests(report, None)
        };
        assert_eq!(orders.answer(&report(7), begin), None);
        let reach = Reach { boot: 7, uptime_ms: 9_000 };
        orders.give(lab.path(), Deed::Reboot, &[(NODE, reach)], begin).unwrap();
        let key = key::load(lab.path()).unwrap().public();
        for _ in 0..2 {
            let order = orders.answer(&report(7), begin).unwrap();
            assert_eq!(order.open(&key, NODE, 7, 9_001), Some(Deed::Reboot));
            // Whatever uptime the report says.
            assert_eq!(order.open(&key, NODE, 7, 2_592_000_000), None);
        }
        assert_eq!(orders.answer(&report(8), begin), None);
        assert_eq!(orders.answer(&report(7), begin + WAITS_MAX), None);
        orders.give(lab.path(), Deed::Reboot, &[], begin + WAITS_MAX).unwrap();
        assert!(orders.waiting().is_empty());
    }
}
