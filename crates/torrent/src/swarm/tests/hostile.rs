//! Whatever strangers say, nothing breaks and nothing grows.
#![expect(clippy::disallowed_types, reason = "prop_oneof! keeps its strategies in an Arc")]

use proptest::prelude::*;

use super::harness::{Harness, OWN, PLAIN};
use crate::swarm::{Input, Output, PeerKey, PeerTraits, Verdict};
use crate::wire::Message;
use crate::{BLOCK_LEN, Block};

const UNITS: u32 = 6;

#[derive(Clone, Debug)]
enum Step {
    Connect(PeerTraits),
    Disconnect,
    Say(Message),
    Handshake {
        unit_len: Option<u32>,
        reqq: Option<u32>,
        upload_only: bool,
    },
    Send(Block),
    /// Answers one of the requests that the node has made, if there is one.
    Answer,
    Sent,
    Pass(u64),
    Verify {
        good: bool,
    },
    Judge(Vec<u32>),
}

fn a_block() -> impl Strategy<Value = Block> {
    let any = (any::<u32>(), any::<u32>(), any::<u32>());
    let near = (0..UNITS + 1, 0..3u32, prop::sample::select(vec![BLOCK_LEN, 1, 2 * BLOCK_LEN]));
    prop_oneof![
        1 => any.prop_map(|(piece, offset, len)| Block { piece, offset, len }),
        9 => near.prop_map(|(piece, at, len)| Block { piece, offset: at * BLOCK_LEN, len }),
    ]
}

fn a_message() -> impl Strategy<Value = Message> {
    prop_oneof![
        1 => Just(Message::KeepAlive),
        1 => Just(Message::Choke),
        4 => Just(Message::Unchoke),
        2 => Just(Message::Interested),
        1 => Just(Message::NotInterested),
        6 => (0..UNITS + 1).prop_map(Message::Have),
        1 => any::<u32>().prop_map(Message::Have),
        1 => (0..UNITS + 1).prop_map(Message::HaveUnit),
        1 => prop::collection::vec(any::<u8>(), 0..3).prop_map(Message::Bitfield),
        1 => (0..64u8).prop_map(|bits| Message::Bitfield(vec![bits << 2])),
        1 => Just(Message::HaveAll),
        1 => Just(Message::HaveNone),
        4 => a_block().prop_map(Message::Request),
        2 => a_block().prop_map(Message::Cancel),
        2 => a_block().prop_map(Message::Reject),
        1 => any::<u8>().prop_map(Message::Unknown),
    ]
}

fn a_step() -> impl Strategy<Value = Step> {
    let flags = (any::<bool>(), any::<bool>(), any::<bool>());
    let traits = flags.prop_map(|(fast, own, v2)| PeerTraits { fast, own, v2, ..PLAIN });
    let unit_len = prop::sample::select(vec![None, Some(2 * BLOCK_LEN), Some(1)]);
    prop_oneof![
        2 => traits.prop_map(Step::Connect),
        1 => Just(Step::Disconnect),
        12 => a_message().prop_map(Step::Say),
        2 => (unit_len, any::<Option<u32>>(), any::<bool>())
            .prop_map(|(unit_len, reqq, upload_only)| Step::Handshake { unit_len, reqq, upload_only }),
        2 => a_block().prop_map(Step::Send),
        8 => Just(Step::Answer),
        3 => Just(Step::Sent),
        2 => prop::sample::select(vec![1, 60, 200, 3000]).prop_map(Step::Pass),
        4 => prop::bool::weighted(0.7).prop_map(|good| Step::Verify { good }),
        1 => prop::collection::vec(0..3u32, 0..3).prop_map(Step::Judge),
    ]
}

/// What the driver would know: what to verify, and what was asked of whom.
#[derive(Default)]
struct Driver {
    to_verify: Vec<crate::UnitIndex>,
    to_judge: Vec<crate::UnitIndex>,
    asked: Vec<(PeerKey, Block)>,
    committed: Vec<(PeerKey, Block)>,
}

impl Driver {
    fn note(&mut self, out: Vec<Output>) {
        for output in out {
            match output {
                Output::Verify { unit } => self.to_verify.push(unit),
                Output::RequestJudgement { unit, .. } => self.to_judge.push(unit),
                Output::Send { peer, message: Message::Request(block), .. } => {
                    self.asked.push((peer, block));
                }
                Output::SendBlock { peer, block } => self.committed.push((peer, block.block())),
                _ => {}
            }
        }
    }
}

fn take_step(node: &mut Harness, driver: &mut Driver, key: PeerKey, step: Step) {
    match step {
        Step::Connect(traits) if node.swarm.peer(key).is_none() => node.connect(key, traits),
        Step::Connect(_) => {}
        Step::Disconnect => node.give(Input::Disconnected { peer: key }),
        Step::Say(message) => node.say(key, message),
        Step::Handshake { unit_len, reqq, upload_only } => {
            node.give(Input::ExtendedHandshake {
                peer: key,
                unit_len,
                request_queue_len: reqq,
                upload_only,
            });
        }
        Step::Send(block) => node.give(Input::Block { peer: key, block }),
        Step::Answer => {
            if let Some((peer, block)) = driver.asked.pop() {
                node.give(Input::Block { peer, block });
            }
        }
        Step::Sent => {
            if let Some((peer, block)) = driver.committed.pop() {
                node.give(Input::BlockSent { peer, len: block.len });
                node.give(Input::BlockDelivered { peer });
            }
        }
        Step::Pass(millis) => node.pass(millis),
        Step::Verify { good } => {
            if let Some(unit) = driver.to_verify.pop() {
                let verdict = if good { Verdict::Good } else { Verdict::Corrupt };
                node.give(Input::Verified { unit, verdict });
            }
        }
        Step::Judge(corrupt) => {
            if let Some(unit) = driver.to_judge.pop() {
                node.give(Input::Judged { unit, corrupt });
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn strangers_can_say_what_they_like(
        is_seed: bool,
        steps in prop::collection::vec((0..4u32, a_step()), 1..150),
    ) {
        let mut node = if is_seed {
            Harness::seed(UNITS as usize, 2)
        } else {
            Harness::leech("#.....", 2)
        };
        let mut driver = Driver::default();
        for peer in 0..4 {
            node.connect(PeerKey(peer), OWN);
        }
        for (peer, step) in steps {
            take_step(&mut node, &mut driver, PeerKey(peer), step);
            driver.note(node.look());
            node.check();
        }
    }
}
