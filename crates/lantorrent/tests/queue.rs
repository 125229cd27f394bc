//! The queue against a model of it, with whoever uses it dying at any moment.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::unwrap_used,
    reason = "tests of the I/O"
)]

use std::collections::BTreeMap;
use std::time::Duration;

use lantorrent::queue::Policy;
use lantorrent::store::{Ask, Batch, Queue, QueueError, State};
use proptest::prelude::*;

const POLICY: Policy = Policy {
    requests: 3,
    delay: Duration::from_secs(10),
    attempts: 3,
    retry_delay: Duration::from_secs(5),
    expiry: Duration::from_secs(1_000),
};

#[derive(Clone, Debug)]
enum Step {
    /// Request `rid` for file `src` on host `host`.
    Add {
        rid: u8,
        src: u8,
        host: u8,
    },
    Cancel {
        rid: u8,
    },
    /// The daemon takes what is due, and ends with success of those whose number is even, if so.
    Send {
        fails: bool,
    },
    /// It takes what is due, and dies; the next one begins.
    Crash,
    Wait {
        seconds: u8,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0_u8..12, 0_u8..3, 0_u8..6).prop_map(|(rid, src, host)| Step::Add { rid, src, host }),
        1 => (0_u8..12).prop_map(|rid| Step::Cancel { rid }),
        3 => any::<bool>().prop_map(|fails| Step::Send { fails }),
        1 => Just(Step::Crash),
        2 => (0_u8..30).prop_map(|seconds| Step::Wait { seconds }),
    ]
}

/// What a request must be like.
#[derive(Clone, Debug, PartialEq)]
struct Known {
    src: u8,
    host: u8,
    done: bool,
    rc: u8,
    attempts: u32,
}

fn ask(rid: u8, src: u8, host: u8) -> Ask {
    Ask {
        src: format!("/src{src}"),
        dst: "/dst".to_owned(),
        rid: format!("r{rid:02}"),
        host: format!("h{host}"),
        port: 2893,
    }
}

fn number(text: &str) -> u8 {
    text[1..].parse().unwrap()
}

struct Both {
    dir: tempfile::TempDir,
    queue: Queue,
    model: BTreeMap<u8, Known>,
    now: u64,
}

impl Both {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let queue = Queue::open(&dir.path().join("q")).unwrap();
        Self { dir, queue, model: BTreeMap::new(), now: 1_000_000 }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Add { rid, src, host } => self.add(rid, src, host),
            Step::Cancel { rid } => {
                let found = self.queue.cancel(&format!("r{rid:02}"));
                assert_eq!(found.is_ok(), self.model.remove(&rid).is_some());
            }
            Step::Send { fails } => self.send(fails),
            Step::Crash => {
                let _ = self.queue.take(&POLICY, &[], self.now).unwrap();
                self.queue = Queue::open(&self.dir.path().join("q")).unwrap();
                self.queue.recover().unwrap();
            }
            Step::Wait { seconds } => self.now += u64::from(seconds) * 1_000,
        }
    }

    fn add(&mut self, rid: u8, src: u8, host: u8) {
        let taken = self.model.values().any(|known| known.host == host && !known.done);
        let result = self.queue.add(&ask(rid, src, host), self.now);
        match result {
            Ok(()) => {
                assert!(!self.model.contains_key(&rid) && !taken);
                let known = Known { src, host, done: false, rc: 0, attempts: 0 };
                self.model.insert(rid, known);
            }
            Err(QueueError::RidTaken(_)) => assert!(self.model.contains_key(&rid)),
            Err(QueueError::TargetTaken { .. }) => assert!(taken),
            Err(error) => panic!("{error}"),
        }
    }

    fn send(&mut self, fails: bool) {
        let Some(batch) = self.queue.take(&POLICY, &[], self.now).unwrap() else { return };
        let Batch { src, requests } = batch;
        assert!(!requests.is_empty());
        let mut results = Vec::new();
        for queued in &requests {
            let known = self.model.get_mut(&number(&queued.rid)).expect("taken once, and not gone");
            assert_eq!(format!("/src{}", known.src), src);
            assert!(!known.done, "nothing is sent twice");
            let code = if fails && number(&queued.rid) % 2 == 1 { 505 } else { 0 };
            known.attempts += u32::from(code != 0);
            known.done = code == 0 || known.attempts >= POLICY.attempts;
            known.rc = u8::from(known.done && code != 0);
            results.push((queued.rid.clone(), code, "m".to_owned()));
        }
        self.queue.settle(&POLICY, &results, self.now).unwrap();
    }

    fn compare(&self) {
        let found = self.queue.list().unwrap().into_iter().map(|queued| {
            assert_ne!(queued.state, State::Active, "nobody sends");
            let known = Known {
                src: number(&queued.src[3..]),
                host: number(&queued.host),
                done: queued.state == State::Done,
                rc: queued.rc(),
                attempts: queued.attempts,
            };
            (number(&queued.rid), known)
        });
        assert_eq!(found.collect::<BTreeMap<_, _>>(), self.model);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_queue_is_its_model_whoever_dies(steps in proptest::collection::vec(step(), 1..40)) {
        let mut both = Both::new();
        for step in &steps {
            both.step(step);
            both.compare();
        }
        // In the end everything is answered.
        for _ in 0..12 {
            both.now += 100_000;
            while let Some(batch) = both.queue.take(&POLICY, &[], both.now).unwrap() {
                let results: Vec<_> = batch
                    .requests
                    .iter()
                    .map(|queued| (queued.rid.clone(), 0, "Success".to_owned()))
                    .collect();
                both.queue.settle(&POLICY, &results, both.now).unwrap();
            }
        }
        for queued in both.queue.list().unwrap() {
            assert_eq!(queued.state, State::Done);
        }
    }
}

#[test]
fn l5_names_and_targets_are_taken_once() {
    let both = Both::new();
    both.queue.add(&ask(1, 0, 0), 0).unwrap();
    assert!(matches!(both.queue.add(&ask(1, 0, 1), 0), Err(QueueError::RidTaken(_))));
    assert!(matches!(both.queue.add(&ask(2, 0, 0), 0), Err(QueueError::TargetTaken { .. })));
}

#[test]
fn l6_requests_wait_for_others_or_for_quiet() {
    let both = Both::new();
    both.queue.add(&ask(1, 0, 1), 1_000).unwrap();
    both.queue.add(&ask(2, 0, 2), 6_000).unwrap();
    // Ten seconds after the last, not after the first.
    assert_eq!(both.queue.take(&POLICY, &[], 15_999).unwrap(), None);
    assert_eq!(both.queue.take(&POLICY, &[], 16_000).unwrap().unwrap().requests.len(), 2);
    for rid in 3..6 {
        both.queue.add(&ask(rid, 1, rid), 20_000).unwrap();
    }
    assert_eq!(both.queue.take(&POLICY, &[], 20_000).unwrap().unwrap().requests.len(), 3);
}

#[test]
fn l20_many_at_once_find_the_database_busy_and_come_again() {
    let both = Both::new();
    let path = both.dir.path().join("q");
    std::thread::scope(|scope| {
        for client in 0..8_u32 {
            let path = path.clone();
            scope.spawn(move || {
                let queue = Queue::open(&path).unwrap();
                for index in 0..10 {
                    let ask = Ask {
                        src: "/s".into(),
                        dst: format!("/{index}"),
                        rid: format!("{client}-{index}"),
                        host: format!("h{client}"),
                        port: 1,
                    };
                    queue.add(&ask, 0).unwrap();
                }
            });
        }
    });
    assert_eq!(both.queue.list().unwrap().len(), 80);
}

#[test]
fn what_waits_too_long_expires_and_stalls_nobody() {
    let both = Both::new();
    both.queue.add(&ask(1, 0, 1), 0).unwrap();
    both.queue.expire(&POLICY, 1_000_001).unwrap();
    let queued = both.queue.find("r01").unwrap();
    assert_eq!((queued.state, queued.rc()), (State::Done, 1));
    assert_eq!(queued.line(), "1,True,expired");
}
