//! What a server can tell a node to do: to start anew. An order comes with the answer to a report, and
//! a node believes it only if the lab's key has signed it for this node, this boot and this moment.
//!
//! **Why nothing else has to be kept.** The number of a boot is drawn by the node itself when its agent
//! starts, from 64 bits, so it is a question that only the lab's key can answer: an order that was
//! heard on the network holds for no other node and for no other boot, and obeying it ends the boot. A
//! node has no clock to trust; but it says in each report for how long its kernel has run, and an order
//! holds until so many milliseconds of that, so who holds one back cannot use it later.

use serde::{Deserialize, Serialize};

use crate::node::Mac;
use crate::signature::{Domain, LabKey, LabPublicKey, Signature};

/// For how long an order holds after the report that it answers: answers take milliseconds, and a node
/// that is told nothing asks again after five seconds.
pub const HOLDS_MS: u64 = 30_000;

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Deed {
    /// Start anew, as after Ctrl-Alt-Del: a system that runs shuts down in its own way.
    Reboot,
    /// What a newer program calls otherwise: it is not done.
    #[serde(other)]
    Unknown,
}

/// An order to one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// What to do.
    pub deed: Deed,
    /// It holds while the node's kernel has run for no longer than this.
    pub until_uptime_ms: u64,
    /// The line of the lab's signature.
    pub signature: String,
}

impl Order {
    /// An order to `node`, in the boot of the number `boot`, in answer to a report that it sent when it
    /// had run for `uptime_ms`.
    pub fn sign(key: &LabKey, deed: Deed, node: Mac, boot: u64, uptime_ms: u64) -> Self {
        let until_uptime_ms = uptime_ms.saturating_add(HOLDS_MS);
        let bytes = signed(deed, node, boot, until_uptime_ms);
        let signature = key.sign(Domain::Order, &bytes).to_string();
        Self { deed, until_uptime_ms, signature }
    }

    /// What `node` has to do in this boot at this moment, if this is an order of the lab for it.
    pub fn open(&self, key: &LabPublicKey, node: Mac, boot: u64, uptime_ms: u64) -> Option<Deed> {
        let signature: Signature = self.signature.parse().ok()?;
        let bytes = signed(self.deed, node, boot, self.until_uptime_ms);
        key.verify(Domain::Order, &bytes, &signature).ok()?;
        (uptime_ms <= self.until_uptime_ms && self.deed != Deed::Unknown).then_some(self.deed)
    }
}

/// All of fixed length, so that no two orders have the same bytes.
fn signed(deed: Deed, node: Mac, boot: u64, until_uptime_ms: u64) -> Vec<u8> {
    let mut bytes = vec![match deed {
        Deed::Unknown => 0,
        Deed::Reboot => 1,
    }];
    bytes.extend(node.0);
    bytes.extend(boot.to_be_bytes());
    bytes.extend(until_uptime_ms.to_be_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: Mac = Mac([2, 0, 0, 0, 0, 1]);

    #[test]
    fn an_order_holds_for_one_node_in_one_boot_for_a_while() {
        let key = LabKey::from_seed([1; 32]);
        let order = Order::sign(&key, Deed::Reboot, NODE, 7, 1_000);
        let text = serde_json::to_string(&order).unwrap();
        let order: Order = serde_json::from_str(&text).unwrap();
        let check = |node, boot, uptime_ms, expect| {
            assert_eq!(order.open(&key.public(), node, boot, uptime_ms), expect, "{boot}");
        };
        check(NODE, 7, 1_001, Some(Deed::Reboot));
        check(NODE, 7, 1_000 + HOLDS_MS, Some(Deed::Reboot));
        check(NODE, 7, 1_001 + HOLDS_MS, None);
        check(NODE, 8, 1_001, None);
        check(Mac([2, 0, 0, 0, 0, 2]), 7, 1_001, None);
        let other = LabKey::from_seed([2; 32]).public();
        assert_eq!(order.open(&other, NODE, 7, 1_001), None);
    }

    #[test]
    fn what_was_altered_or_is_not_known_is_not_done() {
        let key = LabKey::from_seed([1; 32]);
        let order = Order::sign(&key, Deed::Reboot, NODE, 7, 1_000);
        let check = |order: &Order| {
            assert_eq!(order.open(&key.public(), NODE, 7, 1_001), None, "{order:?}");
        };
        check(&Order { until_uptime_ms: u64::MAX, ..order.clone() });
        check(&Order { signature: String::new(), ..order.clone() });
        check(&Order { deed: Deed::Unknown, ..order });
        check(&Order::sign(&key, Deed::Unknown, NODE, 7, 1_000));
        let newer = r#"{"deed":"dance","until_uptime_ms":9000,"signature":""}"#;
        assert_eq!(serde_json::from_str::<Order>(newer).unwrap().deed, Deed::Unknown);
    }
}
