//! Who is to blame for corrupt data.

use super::harness::{A, B, Harness, addr};
use crate::swarm::{CloseReason, Input, Output, Verdict};

#[test]
fn liar_that_sent_a_whole_unit_is_banned_at_once() {
    let mut node = Harness::leech("...", 2);
    node.connect_holder(A, "###");
    node.send_block(A, 0, 0);
    node.send_block(A, 0, 1);
    node.look();
    node.verified(0, Verdict::Corrupt);
    let out = node.look();
    assert!(out.contains(&Output::Ban { addr: addr(A) }));
    assert!(out.contains(&Output::Close { peer: A, reason: CloseReason::Corrupt }));
    node.connect_holder(B, "###");
    assert_eq!(node.requests(B).len(), 6, "all of it is asked for again");
    node.check();
}

/// Unit 0 of two blocks, the first from A (which has left), the second from B, is corrupt.
fn failed_unit_of_two_senders() -> Harness {
    let mut node = Harness::leech("#.", 2);
    node.connect_holder(A, ".#");
    node.send_block(A, 1, 0);
    node.give(Input::Disconnected { peer: A });
    node.connect_holder(B, ".#");
    node.send_block(B, 1, 1);
    node.look();
    node.verified(1, Verdict::Corrupt);
    node
}

#[test]
fn of_two_senders_the_liar_is_banned_and_good_blocks_stay() {
    let mut node = failed_unit_of_two_senders();
    let unit = node.unit(1);
    assert_eq!(node.look(), [Output::RequestJudgement { peer: B, unit }]);
    node.give(Input::Judged { unit, corrupt: vec![0] });
    let out = node.look();
    assert!(out.contains(&Output::Ban { addr: addr(A) }));
    assert!(!out.contains(&Output::Ban { addr: addr(B) }));
    node.out = out;
    assert_eq!(node.requests(B), [(1, 0)], "only the corrupt block is asked for again");
    node.send_block(B, 1, 0);
    node.verified(1, Verdict::Good);
    assert!(node.swarm.is_complete());
    node.check();
}

#[test]
fn nobody_is_banned_by_a_judgement_that_finds_nothing() {
    let mut node = failed_unit_of_two_senders();
    node.look();
    let unit = node.unit(1);
    node.give(Input::Judged { unit, corrupt: vec![] });
    let out = node.look();
    assert!(!out.iter().any(|output| matches!(output, Output::Ban { .. })));
    node.out = out;
    assert_eq!(node.requests(B), [(1, 0), (1, 1)]);
    node.check();
}

#[test]
fn unit_is_taken_again_when_its_judge_leaves() {
    let mut node = failed_unit_of_two_senders();
    node.give(Input::Disconnected { peer: B });
    node.look();
    node.connect_holder(B, "##");
    assert_eq!(node.requests(B), [(1, 0), (1, 1)]);
    node.check();
}

#[test]
fn banned_address_is_refused_and_never_dialled() {
    let mut node = Harness::leech("..", 1);
    node.connect_holder(A, "##");
    node.send_block(A, 0, 0);
    node.verified(0, Verdict::Corrupt);
    node.look();
    node.connect(A, super::harness::OWN);
    assert_eq!(node.look(), [Output::Close { peer: A, reason: CloseReason::Corrupt }]);
    node.give(Input::PeersFound { addrs: vec![addr(A), addr(B)] });
    node.pass(2000);
    let out = node.look();
    assert!(!out.contains(&Output::Dial { addr: addr(A) }));
    assert!(out.contains(&Output::Dial { addr: addr(B) }));
}
