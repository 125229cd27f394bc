//! Whether the child is much slower than the rest, and is to move to the end.
//!
//! An endpoint compares what its child takes with what comes in. If that is less than half in two
//! windows one after another, it looks whether its own uplink is the reason: then the way to any
//! other endpoint is as long as the child's, as all wait in the same queue. The origin has nothing
//! that comes in. It moves its child only if the child's way is much longer than another's, which
//! says that packets wait in front of the child and not here. That may be wrong where all links are
//! alike, so one that was moved takes its pace along: whoever is slower still goes behind it.

use std::time::Duration;

use super::child::Phase;
use super::{Action, BranchIndex, Chain};
use crate::Time;

/// What is compared. Two of them find a slow endpoint in less than a second, and each has four
/// beats in it.
const WINDOW: Duration = Duration::from_millis(400);

/// After the start of a stream buffers fill, and the pace says nothing.
const SETTLE: Duration = Duration::from_millis(200);

/// Less than this in a window is noise: 640 kB/s.
const WINDOW_LEN_MIN: u64 = 256 * 1024;

/// If the child will be done in this time nobody gains by moving it.
const WORTH_S: f64 = 2.0;

/// A way longer than this is a queue: within a LAN it is a tenth of a millisecond.
const QUEUED: Duration = Duration::from_millis(5);

#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Start of the window: when, what the child had, what was stored.
    start: Option<(Time, u64, u64)>,
    /// Windows in which it was slow, one after another.
    slow_count: u32,
    /// In the last window, in bytes a second.
    rate: u64,
    is_probing: bool,
}

impl Chain {
    pub(super) fn watch_pace(&mut self, index: BranchIndex, now: Time) {
        let (stored, length) = (self.stored, self.config.length);
        let is_origin = self.config.is_origin;
        let branch = &mut self.branches[index];
        let Some(next) = branch.rest.front().cloned() else { return };
        let trials = branch.trials;
        let Some(child) = &mut branch.child else { return };
        let is_candidate = child.is_own
            && child.phase == Phase::Streaming
            && child.destination.pace.is_none()
            && trials > 0
            && now >= child.since + SETTLE;
        if !is_candidate || child.pace.is_probing {
            return;
        }
        let Some((since, received, stored_then)) = child.pace.start else {
            child.pace.start = Some((now, child.received, stored));
            return;
        };
        if now < since + WINDOW {
            return;
        }
        let taken = child.received - received;
        let came = stored - stored_then;
        child.pace.start = Some((now, child.received, stored));
        let rate = taken as f64 / (now - since).as_secs_f64();
        let is_worth_it = (length - child.received) as f64 > rate * WORTH_S;
        child.pace.rate = rate as u64;
        let is_slow = is_origin || (came >= WINDOW_LEN_MIN && taken.saturating_mul(2) < came);
        // Behind one that was moved there is nothing to gain, unless that one is faster.
        let gains = next.pace.is_none_or(|pace| pace > child.pace.rate.saturating_mul(2));
        let counts = is_slow && gains && is_worth_it;
        child.pace.slow_count = if counts { child.pace.slow_count + 1 } else { 0 };
        if child.pace.slow_count >= 2 {
            child.pace.is_probing = true;
            self.actions.push_back(Action::Probe { branch: index, destination: next });
        }
    }

    pub(super) fn on_probed(
        &mut self,
        index: BranchIndex,
        now: Time,
        way: Option<Duration>,
        childs: Duration,
    ) {
        let is_origin = self.config.is_origin;
        let Some(branch) = self.branches.get_mut(index) else { return };
        let Some(child) = &mut branch.child else { return };
        if !child.pace.is_probing {
            return;
        }
        let rate = std::mem::take(&mut child.pace).rate;
        // The one behind cannot be reached: nothing to gain.
        let Some(way) = way else { return };
        let waits_before_child = childs > QUEUED && childs > way * 4;
        let waits_here = way > QUEUED && way * 2 > childs;
        if (is_origin && !waits_before_child) || waits_here {
            return;
        }
        branch.trials -= 1;
        let Some(mut child) = branch.child.take() else { return };
        child.destination.pace = Some(rate);
        branch.rest.push_back(child.destination);
        self.actions.push_back(Action::Park { branch: index });
        self.advance(index, now);
    }
}
