//! The thread that keeps the fleet on the disk. Nobody waits for it: it asks the fleet what has changed, a few
//! nodes at a time, and writes at a pace that leaves the disk to whoever boots.

use std::collections::{BTreeSet, HashMap};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use boot::Mac;

use super::history::{FILE, History, PART, WITHOUT, retire_old};
use super::{Node, SharedFleet};
use crate::state;

/// Bytes written in a second on average: a hundredth of what a slow disk writes, and enough for a fleet of
/// 10,000 that boots, of which each change is some hundred bytes.
const BYTES_PER_S: u64 = 1 << 20;

/// How often it is looked for what has changed: what a crash may forget of a node that the lab names.
const PERIOD: Duration = Duration::from_secs(1);

/// A stranger's row is written again after so long at the earliest: whoever invents nodes writes little.
const STRANGER_PERIOD: Duration = Duration::from_secs(30);

/// Nodes in one transaction: 32 KiB of each are 2 MiB in memory at most, and the fleet is locked for as long
/// as these are copied.
const BATCH_MAX: usize = 64;

/// After so long a file that could not be written is tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(30);

/// How long a graceful end may write what is left: ten times what a fleet of thousands needs, and below
/// what systemd lets a service take.
const FINISH_MAX: Duration = Duration::from_secs(5);

/// Where nodes are kept.
pub(crate) trait Keep {
    /// Writes nodes, and forgets those that are gone; what that cost, in bytes.
    ///
    /// # Errors
    /// Why the disk did not take it.
    fn keep(&mut self, nodes: &[(Mac, Option<Node>)]) -> anyhow::Result<u64>;
}

/// What is to be written, and when. Pure.
#[derive(Debug)]
struct Plan {
    known: BTreeSet<Mac>,
    strangers: BTreeSet<Mac>,
    /// When strangers were written last, as long as that matters.
    written: HashMap<Mac, Instant>,
    /// Bytes that may be written at once; below zero it is waited.
    purse: i64,
    filled: Instant,
}

impl Plan {
    fn new(now: Instant) -> Self {
        let purse = BYTES_PER_S.cast_signed();
        Self {
            known: BTreeSet::new(),
            strangers: BTreeSet::new(),
            written: HashMap::new(),
            purse,
            filled: now,
        }
    }

    /// Nodes have changed.
    fn note(&mut self, changed: impl IntoIterator<Item = (Mac, bool)>) {
        for (mac, is_known) in changed {
            // A node may have been given a name since.
            let (into, out_of) = match is_known {
                true => (&mut self.known, &mut self.strangers),
                false => (&mut self.strangers, &mut self.known),
            };
            into.insert(mac);
            out_of.remove(&mac);
        }
    }

    /// Whose turn it is, those first that the lab names; nobody if too much was written.
    fn next(&mut self, now: Instant) -> Vec<Mac> {
        let passed = now.duration_since(self.filled).as_millis();
        let earned = passed * u128::from(BYTES_PER_S) / 1_000;
        let earned = i64::try_from(earned).unwrap_or(i64::MAX);
        self.purse = self.purse.saturating_add(earned).min(BYTES_PER_S.cast_signed());
        self.filled = now;
        if self.purse <= 0 {
            return vec![];
        }
        self.written.retain(|_, at| now.duration_since(*at) < STRANGER_PERIOD);
        let due = self.strangers.iter().filter(|mac| !self.written.contains_key(mac));
        let batch: Vec<Mac> = self.known.iter().chain(due).take(BATCH_MAX).copied().collect();
        for mac in &batch {
            self.known.remove(mac);
            if self.strangers.remove(mac) {
                self.written.insert(*mac, now);
            }
        }
        batch
    }

    /// All that is left, at an end.
    fn rest(&mut self) -> Vec<Mac> {
        let known = std::mem::take(&mut self.known);
        let strangers = std::mem::take(&mut self.strangers);
        known.into_iter().chain(strangers).collect()
    }

    fn pay(&mut self, cost: u64) {
        self.purse = self.purse.saturating_sub_unsigned(cost);
    }
}

/// The thread, for who wants its end.
#[derive(Debug)]
pub(crate) struct Keeper {
    /// Closed to end it.
    stop: SyncSender<()>,
    ended: Receiver<()>,
}

impl Keeper {
    /// Begins to keep `fleet`. `open` is called by the thread, again and again while it fails.
    ///
    /// # Errors
    /// If there is no thread to be had.
    pub(crate) fn start<K: Keep>(
        fleet: SharedFleet,
        open: impl FnMut() -> Option<K> + Send + 'static,
    ) -> std::io::Result<Self> {
        let (stop, stopping) = sync_channel(0);
        let (tell_end, ended) = sync_channel(1);
        std::thread::Builder::new().name("history".to_owned()).spawn(move || {
            run(&fleet, open, &stopping);
            let _ = tell_end.send(());
        })?;
        Ok(Self { stop, ended })
    }

    /// Has it write what it can within [`FINISH_MAX`].
    pub(crate) fn finish(self) {
        let Self { stop, ended } = self;
        drop(stop);
        if ended.recv_timeout(FINISH_MAX) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!(target: "NODE", "the disk is too slow: the last of the history is not saved");
        }
    }
}

/// What keeps the nodes of the lab in `lab`, if it can be written.
pub(crate) fn of_lab(lab: std::path::PathBuf) -> impl FnMut() -> Option<OfLab> + Send {
    move || {
        let open = || -> anyhow::Result<History> {
            let mut history = History::open(&lab)?;
            history.learn()?;
            Ok(history)
        };
        match open() {
            Ok(history) => Some(OfLab { lab: lab.clone(), history, is_first: true }),
            Err(error) => {
                state::suffers(&lab, PART.name, &format!("{error}; {WITHOUT}"));
                None
            }
        }
    }
}

/// The history of a lab, and who hears when it cannot be written.
pub(crate) struct OfLab {
    lab: std::path::PathBuf,
    history: History,
    is_first: bool,
}

impl Keep for OfLab {
    fn keep(&mut self, nodes: &[(Mac, Option<Node>)]) -> anyhow::Result<u64> {
        let saved = self.history.save(nodes);
        match &saved {
            Ok(_) => {
                state::recovered(&self.lab, PART.name);
                if std::mem::take(&mut self.is_first) {
                    retire_old(&self.lab);
                }
            }
            Err(error) => {
                state::suffers(
                    &self.lab,
                    PART.name,
                    &format!("cannot write state/{FILE}: {error}; {WITHOUT}"),
                );
                if state::is_damage(error) {
                    state::put_aside(&self.lab, FILE);
                }
            }
        }
        Ok(saved?)
    }
}

fn run<K: Keep>(fleet: &SharedFleet, mut open: impl FnMut() -> Option<K>, stopping: &Receiver<()>) {
    let mut plan = Plan::new(Instant::now());
    let mut kept = open();
    let mut wait = PERIOD;
    while stopping.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
        plan.note(fleet.lock().take_changed());
        kept = kept.or_else(&mut open);
        wait = match &mut kept {
            Some(keep) => turn(fleet, &mut plan, keep),
            None => RETRY_INTERVAL,
        };
        if wait == RETRY_INTERVAL {
            // Opened anew once it can be written: what it has is learnt again.
            kept = None;
        }
    }
    plan.note(fleet.lock().take_changed());
    if let Some(keep) = &mut kept {
        let deadline = Instant::now() + FINISH_MAX;
        for batch in plan.rest().chunks(BATCH_MAX) {
            if Instant::now() >= deadline || keep.keep(&copies(fleet, batch)).is_err() {
                return;
            }
        }
    }
}

/// Writes whose turn it is; how long to wait until the next.
fn turn(fleet: &SharedFleet, plan: &mut Plan, keep: &mut impl Keep) -> Duration {
    loop {
        let batch = plan.next(Instant::now());
        if batch.is_empty() {
            return PERIOD;
        }
        match keep.keep(&copies(fleet, &batch)) {
            Ok(cost) => plan.pay(cost),
            Err(_) => {
                let fleet = fleet.lock();
                let is_known = |mac| fleet.node(mac).is_some_and(|node| node.summary.known);
                plan.note(batch.into_iter().map(|mac| (mac, is_known(mac))));
                return RETRY_INTERVAL;
            }
        }
    }
}

fn copies(fleet: &SharedFleet, batch: &[Mac]) -> Vec<(Mac, Option<Node>)> {
    let fleet = fleet.lock();
    batch.iter().map(|mac| (*mac, fleet.node(*mac).cloned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mac(number: u16) -> Mac {
        let [a, b] = number.to_be_bytes();
        Mac([2, 0, 0, 0, a, b])
    }

    #[test]
    fn named_nodes_are_written_first_and_strangers_seldom() {
        let start = Instant::now();
        let mut plan = Plan::new(start);
        plan.note([(mac(1), false), (mac(2), true)]);
        assert_eq!(plan.next(start), [mac(2), mac(1)]);
        let later = start + PERIOD;
        plan.note([(mac(1), false), (mac(2), true)]);
        assert_eq!(plan.next(later), [mac(2)]);
        assert_eq!(plan.next(start + STRANGER_PERIOD / 2), []);
        assert_eq!(plan.next(start + STRANGER_PERIOD), [mac(1)]);
        // One that is given a name is written at once.
        plan.note([(mac(1), false)]);
        assert_eq!(plan.next(start + STRANGER_PERIOD), []);
        plan.note([(mac(1), true)]);
        assert_eq!(plan.next(start + STRANGER_PERIOD), [mac(1)]);
    }

    #[test]
    fn no_more_than_its_share_is_written_whoever_floods() {
        let start = Instant::now();
        let mut plan = Plan::new(start);
        let mut written = 0;
        for tick in 0..600 {
            let now = start + PERIOD / 10 * tick;
            plan.note((0..4_000).map(|number| (mac(number), number % 2 == 0)));
            while !plan.next(now).is_empty() {
                written += 100_000;
                plan.pay(100_000);
            }
        }
        let allowed = BYTES_PER_S * 61 + 100_000;
        assert!(written <= allowed, "{written} of {allowed}");
        assert!(written >= allowed - 2 * BYTES_PER_S, "{written} of {allowed}");
    }

    /// Notes what it is given, or fails.
    struct Notes(SyncSender<usize>, bool);

    impl Keep for Notes {
        fn keep(&mut self, nodes: &[(Mac, Option<Node>)]) -> anyhow::Result<u64> {
            anyhow::ensure!(!self.1, "the disk is full");
            let _ = self.0.send(nodes.len());
            Ok(0)
        }
    }

    #[test]
    fn an_end_writes_what_is_left() {
        let fleet = SharedFleet::default();
        let (sender, written) = sync_channel(9);
        let keeper =
            Keeper::start(fleet.clone(), move || Some(Notes(sender.clone(), false))).unwrap();
        let known = (0..3).map(|number| (mac(number), None)).collect();
        fleet.lock().configure(crate::fleet::UnixMs(0), &known);
        for number in 0..3 {
            fleet.note(mac(number), "something");
        }
        keeper.finish();
        assert_eq!(written.iter().sum::<usize>(), 3);
    }

    #[test]
    fn what_could_not_be_written_is_written_later() {
        let fleet = SharedFleet::default();
        let mut plan = Plan::new(Instant::now());
        plan.note([(mac(1), true)]);
        let (sender, written) = sync_channel(9);
        let wait = turn(&fleet, &mut plan, &mut Notes(sender.clone(), true));
        assert_eq!(wait, RETRY_INTERVAL);
        assert_eq!(turn(&fleet, &mut plan, &mut Notes(sender, false)), PERIOD);
        assert_eq!(written.try_recv(), Ok(1));
    }
}
