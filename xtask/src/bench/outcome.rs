//! What one run measured.

use super::case::{Plan, Role};
use super::machine::Load;

/// One node's part in a run.
#[derive(Debug, Clone)]
pub(crate) struct NodeOutcome {
    pub(crate) name: String,
    pub(crate) role: Role,
    /// From its own start until it said that it is complete.
    pub(crate) seconds: Option<f64>,
    /// Its file has the right SHA-256 (looked at after the run).
    pub(crate) verified: bool,
    pub(crate) anonymous_len_max: u64,
}

/// One run of one contender in one case.
#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    pub(crate) plan: Plan,
    pub(crate) contender: &'static str,
    pub(crate) number: usize,
    /// B: goodput of one TCP stream on the same link, bytes per second; none without a shaper.
    pub(crate) goodput: Option<f64>,
    pub(crate) nodes: Vec<NodeOutcome>,
    pub(crate) server_sent_len: u64,
    pub(crate) server_dropped_count: u64,
    pub(crate) server_anonymous_len_max: u64,
    /// CPU seconds of all processes of the run, the server's included.
    pub(crate) cpu_s: f64,
    /// While the goodput was measured, which itself costs little: what else the machine is doing.
    pub(crate) load_before: Option<Load>,
    pub(crate) load: Load,
    /// What went wrong, one sentence each.
    pub(crate) problems: Vec<String>,
}

/// First, median and last of the times of some nodes, in multiples of their limit (or in seconds
/// where there is no limit).
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Spread {
    pub(crate) first: f64,
    pub(crate) median: f64,
    pub(crate) last: f64,
}

impl Outcome {
    /// F/B in seconds.
    pub(crate) fn limit_s(&self) -> Option<f64> {
        self.goodput.map(|goodput| self.plan.len as f64 / goodput)
    }

    /// The times of the nodes of a role; `None` if it has no nodes or one of them did not finish.
    pub(crate) fn spread(&self, role: Role) -> Option<Spread> {
        let unit = self.limit_s().unwrap_or(1.0) * self.plan.slowness(role);
        let nodes = self.nodes.iter().filter(|node| node.role == role);
        let times: Option<Vec<f64>> =
            nodes.map(|node| node.seconds.filter(|_| node.verified)).collect();
        spread_of(times?.into_iter().map(|seconds| seconds / unit).collect())
    }

    /// Nodes that should have finished and did with the right bytes, of how many.
    pub(crate) fn done_count(&self) -> (usize, usize) {
        let expected = self.nodes.iter().filter(|node| node.role != Role::Doomed);
        let done = expected.clone().filter(|node| node.seconds.is_some() && node.verified);
        (done.count(), expected.count())
    }

    pub(crate) fn server_upload_f(&self) -> f64 {
        self.server_sent_len as f64 / self.plan.len as f64
    }

    pub(crate) fn delivered_gib(&self) -> f64 {
        let done_count = self.nodes.iter().filter(|node| node.verified).count();
        done_count as f64 * self.plan.len as f64 / (1_u64 << 30) as f64
    }

    pub(crate) fn cpu_s_per_gib(&self) -> Option<f64> {
        (self.delivered_gib() > 0.0).then(|| self.cpu_s / self.delivered_gib())
    }

    pub(crate) fn machine_cpu_s_per_gib(&self) -> Option<f64> {
        (self.delivered_gib() > 0.0).then(|| self.load.busy_s / self.delivered_gib())
    }

    pub(crate) fn anonymous_len_max(&self) -> u64 {
        self.nodes.iter().map(|node| node.anonymous_len_max).max().unwrap_or(0)
    }
}

fn spread_of(mut times: Vec<f64>) -> Option<Spread> {
    times.sort_by(f64::total_cmp);
    Some(Spread {
        first: *times.first()?,
        // The lower middle for an even count: a time that some node had.
        median: times[(times.len() - 1) / 2],
        last: *times.last()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spread_is_of_times_that_nodes_had() {
        assert_eq!(spread_of(vec![]), None);
        let spread = spread_of(vec![4.0, 1.0, 3.0, 2.0]);
        assert_eq!(spread, Some(Spread { first: 1.0, median: 2.0, last: 4.0 }));
    }
}
