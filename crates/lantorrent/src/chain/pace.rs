//! Whether the child is much slower than the rest, and is to move to the end.
//!
//! An endpoint compares what its child takes with what comes in. If that is less than half in two
//! windows one after another, it looks whether its own uplink is the reason: then the way to any
//! other endpoint is as long as the child's, as all wait in the same queue.
//!
//! The origin has nothing that comes in. It sends a little to the endpoint behind its child, beside the
//! stream, and moves the child only if that arrives much faster than the stream: with a slow child most
//! of the origin's uplink is free for it; where all links are alike the two share it. Should the one behind
//! be no faster, one from the middle of the chain is asked as well: two slow ones can stand side by side.
//! Queues tell it nothing: on links that are alike they stand in front of a healthy child, too.
//!
//! One that was moved takes its pace along: whoever is slower still goes behind it. All before it are
//! told that it is at the end now.

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

/// How much faster what the origin sends beside the stream must arrive than the stream, in halves. Sharing a
/// link it is as fast at most; beside a child with half of the uplink it is as fast, with a third twice.
const FASTER_HALVES: u64 = 3;

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
    /// What reached the next but one beside the stream, if the origin has asked for it.
    next_rate: Option<u64>,
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
        // It was found that no other would be faster; only if it has become slower since that may change.
        let is_known =
            branch.measured.is_some_and(|then| child.pace.rate.saturating_mul(3) > then * 2);
        // Behind one that was moved there is nothing to gain, unless that one is faster.
        let gains = next.pace.is_none_or(|pace| pace > child.pace.rate.saturating_mul(2));
        let counts = is_slow && gains && is_worth_it && !is_known;
        child.pace.slow_count = if counts { child.pace.slow_count + 1 } else { 0 };
        if child.pace.slow_count >= 2 {
            child.pace.is_probing = true;
            self.actions.push_back(match is_origin {
                true => Action::Measure { branch: index, destination: next },
                false => Action::Probe { branch: index, destination: next },
            });
        }
    }

    pub(super) fn on_probed(
        &mut self,
        index: BranchIndex,
        now: Time,
        way: Option<Duration>,
        childs: Duration,
    ) {
        let Some(rate) = self.asked_for(index) else { return };
        // The one behind cannot be reached: nothing to gain.
        let Some(way) = way else { return };
        let waits_here = way > QUEUED && way * 2 > childs;
        if !waits_here {
            self.put_back(index, now, rate);
        }
    }

    pub(super) fn on_measured(&mut self, index: BranchIndex, now: Time, others: Option<u64>) {
        let Some(branch) = self.branches.get_mut(index) else { return };
        let Some(child) = branch.child.as_mut().filter(|child| child.pace.is_probing) else {
            return;
        };
        let rate = child.pace.rate;
        // One that cannot be reached, or does not know the question, promises nothing.
        let is_faster = others
            .is_some_and(|others| others.saturating_mul(2) > rate.saturating_mul(FASTER_HALVES));
        let further = branch.rest.iter().skip(1).filter(|known| known.pace.is_none());
        let middle = further.clone().nth(further.count() / 2);
        match (is_faster, child.pace.next_rate, middle) {
            (true, next_rate, _) => {
                if let Some(next_rate) = next_rate
                    && let Some(mut next) = branch.rest.pop_front()
                {
                    next.pace = Some(next_rate);
                    branch.rest.push_back(next.clone());
                    self.actions.push_back(Action::Back(next));
                }
                self.put_back(index, now, rate);
            }
            (false, None, Some(middle)) => {
                child.pace.next_rate = Some(others.unwrap_or(0));
                let destination = middle.clone();
                self.actions.push_back(Action::Measure { branch: index, destination });
            }
            (false, ..) => {
                child.pace = Pace::default();
                branch.measured = Some(rate);
            }
        }
    }

    /// The pace of the child that a question was asked because of, if it is still the child.
    fn asked_for(&mut self, index: BranchIndex) -> Option<u64> {
        let child = self.branches.get_mut(index)?.child.as_mut()?;
        child.pace.is_probing.then(|| std::mem::take(&mut child.pace).rate)
    }

    /// Puts the child to the end of the chain.
    fn put_back(&mut self, index: BranchIndex, now: Time, rate: u64) {
        let Some(branch) = self.branches.get_mut(index) else { return };
        let Some(mut child) = branch.child.take() else { return };
        branch.trials -= 1;
        branch.measured = None;
        child.destination.pace = Some(rate);
        branch.rest.push_back(child.destination.clone());
        self.actions.push_back(Action::Park { branch: index });
        self.actions.push_back(Action::Back(child.destination));
        self.advance(index, now);
    }
}
