//! What ails the nodes of a running server: those that failed, and those that wait for longer than a
//! boot that goes well. A wrong next-server, a missing driver, no carrier, Secure Boot or too little
//! memory show only there.

use std::collections::BTreeMap;
use std::path::Path;

use super::{Finding, State};
use crate::client::Target;
use crate::fleet::{self, Summary, UnixMs};
use crate::quantity;
use crate::status;

/// Ailments that are told: who has more reads `boottorrent status`.
const AILMENTS_MAX: usize = 10;

/// Nodes that are named of each.
const NAMES_MAX: usize = 5;

/// Asks the server of the lab in `lab`.
pub(super) fn findings(lab: &Path) -> Vec<Finding> {
    match status::ask(&Target::Lab(lab.to_owned())) {
        Ok(report) => judge(&report.nodes, UnixMs::now()),
        Err(error) => vec![Finding::new("nodes", State::Unknown, format!("{error:#}"))],
    }
}

fn judge(nodes: &[Summary], now: UnixMs) -> Vec<Finding> {
    // One cure for all who need it.
    let mut ailing: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for node in nodes.iter().filter(|node| node.stage.is_some()) {
        let why = fleet::why(node, now);
        if let Some(cure) = why.cure.filter(|_| why.is_late) {
            ailing.entry(cure).or_default().push(node.label());
        }
    }
    if ailing.is_empty() {
        let count = quantity::count(nodes.len(), "node");
        return vec![Finding::good("nodes", format!("of {count} none failed or waits too long"))];
    }
    let told = ailing.into_iter().take(AILMENTS_MAX);
    told.map(|(cure, labels)| {
        let more = labels.len().saturating_sub(NAMES_MAX);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let names = labels.iter().take(NAMES_MAX).cloned().collect::<Vec<_>>().join(", ");
        Finding::new("nodes", State::Warning, format!("{names}{more}: {cure}"))
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nodes_that_ail_alike_are_told_together_with_the_cure() {
        let node = |last: u8, stage: &str| -> Summary {
            serde_json::from_value(json!({
                "mac": format!("52:54:00:00:00:{last:02x}"), "name": format!("c{last:03}"),
                "stage": stage, "failure": "BT12", "reason": "eth0", "retry_in_s": 4,
                "since_unix_ms": 1000, "seen_unix_ms": 1000
            }))
            .unwrap()
        };
        let mut nodes: Vec<Summary> = (1..=7).map(|last| node(last, "failed")).collect();
        nodes.push(node(8, "menu"));
        let findings = judge(&nodes, UnixMs(2000));
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert!(
            findings[0].text.starts_with("c001, c002, c003, c004, c005 and 2 more: check cable"),
            "{findings:?}"
        );
        assert_eq!(judge(&nodes[7..], UnixMs(2000))[0].state, State::Good);
    }
}
