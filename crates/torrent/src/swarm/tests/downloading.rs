//! What is asked of whom.

use super::harness::{A, B, C, Harness};
use crate::swarm::{CloseReason, Input, Output, Urgency, Verdict};
use crate::wire::Message;

#[test]
fn rarest_unit_is_asked_for_first() {
    let mut node = Harness::leech("....", 16);
    node.connect_holder(B, "##.#");
    node.connect_holder(C, "##.#");
    node.look();
    node.connect_holder(A, "####");
    // The window has place for two units of 16 blocks each; both others had room before.
    let asked = node.requests(A);
    assert!(asked.iter().all(|&(unit, _)| unit == 2), "{asked:?}");
    node.check();
}

#[test]
fn one_unit_comes_from_one_peer() {
    let mut node = Harness::leech("........", 4);
    node.connect_holder(A, "########");
    node.connect_holder(B, "########");
    let mut sender = std::collections::BTreeMap::new();
    let mut asked = 0;
    for output in node.look() {
        if let Output::Send { peer, message: Message::Request(block), .. } = output {
            assert_eq!(*sender.entry(block.piece).or_insert(peer), peer, "piece {}", block.piece);
            asked += 1;
        }
    }
    assert!(asked >= 16, "{asked} blocks asked for");
    node.check();
}

#[test]
fn unit_left_unfinished_goes_first() {
    let mut node = Harness::leech("...", 2);
    node.connect_holder(A, "#..");
    node.send_block(A, 0, 0);
    node.give(Input::Disconnected { peer: A });
    node.look();
    node.connect_holder(B, "###");
    assert_eq!(node.requests(B)[0], (0, 1));
    node.check();
}

#[test]
fn unit_whose_next_block_was_not_asked_for_yet_is_finished_by_others() {
    let mut node = Harness::leech(&".".repeat(40), 2);
    node.connect(A, super::harness::OWN);
    let reqq = Some(1);
    node.give(Input::ExtendedHandshake {
        peer: A,
        unit_len: None,
        request_queue_len: reqq,
        upload_only: false,
    });
    node.say(A, Message::Have(0));
    node.say(A, Message::Unchoke);
    assert_eq!(node.requests(A), [(0, 0)]);
    // B looks so much faster that the window is filled with it when A's block arrives.
    node.swarm.peer_mut(A).unwrap().block_interval = std::time::Duration::from_secs(100);
    node.connect_holder(B, &format!(".{}", "#".repeat(39)));
    node.swarm.peer_mut(B).unwrap().block_interval = std::time::Duration::from_nanos(1);
    node.send_block(A, 0, 0);
    assert_eq!(node.requests(A), []);
    node.give(Input::Disconnected { peer: A });
    node.check();
}

#[test]
fn loser_of_a_block_is_told_to_cancel() {
    let mut node = Harness::leech("##.", 1);
    node.connect_holder(A, "###");
    assert_eq!(node.requests(A), [(2, 0)]);
    node.connect_holder(B, "###");
    // B is known to be fast, A is silent.
    node.swarm.peer_mut(B).unwrap().block_interval = std::time::Duration::from_millis(1);
    node.swarm.peer_mut(A).unwrap().block_interval = std::time::Duration::from_millis(10);
    node.pass(60);
    assert_eq!(node.requests(B), [(2, 0)], "the block is asked of a second peer");
    node.send_block(B, 2, 0);
    let block = node.block(2, 0);
    assert_eq!(node.messages(A), [Message::Cancel(block)]);
    node.check();
}

#[test]
fn block_that_nobody_asked_for_is_waste() {
    let mut node = Harness::leech("..", 1);
    node.connect(A, super::harness::OWN);
    let block = node.block(0, 0);
    assert!(!node.swarm.wants(A, block));
    node.send_block(A, 0, 0);
    assert_eq!(node.swarm.stats().wasted, u64::from(crate::BLOCK_LEN));
    assert!(!node.look().iter().any(|output| matches!(output, Output::Verify { .. })));
    node.check();
}

#[test]
fn stalled_peer_loses_its_requests_to_another() {
    let mut node = Harness::leech("....", 2);
    node.connect_holder(A, "####");
    assert_eq!(node.requests(A).len(), 8);
    node.pass(100);
    node.connect_holder(B, "####");
    node.pass(40);
    assert_eq!(node.requests(B), [], "nothing is taken back before the stall time");
    node.pass(100);
    let out = node.look();
    let count = |key, is: fn(&Message) -> bool| {
        let to = |output: &&Output| matches!(output, Output::Send { peer, message, .. } if *peer == key && is(message));
        out.iter().filter(to).count()
    };
    assert_eq!(count(A, |message| matches!(message, Message::Cancel(_))), 8);
    let to_b = count(B, |message| matches!(message, Message::Request(_)));
    assert!(to_b >= 7, "{to_b} blocks asked of the other");
    assert!(count(A, |message| matches!(message, Message::Request(_))) <= 1);
    node.check();
}

#[test]
fn peer_that_stays_silent_is_given_up() {
    let mut node = Harness::leech("....", 2);
    node.connect_holder(A, "####");
    node.connect_holder(B, "....");
    node.pass(1400);
    node.give(Input::Alive { peer: B });
    node.pass(300);
    let closed = Output::Close { peer: A, reason: CloseReason::Stalled };
    assert!(node.look().contains(&closed));
    node.check();
}

#[test]
fn news_waits_for_company() {
    let mut node = Harness::leech("....", 1);
    node.connect_holder(A, "#...");
    node.connect_holder(B, "....");
    node.pass(100);
    node.send_block(A, 0, 0);
    node.verified(0, Verdict::Good);
    // At once while no rate is known; from then on the wait is a few unit times.
    assert_eq!(node.haves(), [(A, 0, Urgency::Lazy), (B, 0, Urgency::Now)]);
    node.pass(100);
    node.say(A, Message::Have(1));
    node.send_block(A, 1, 0);
    node.verified(1, Verdict::Good);
    assert_eq!(node.haves(), []);
    node.pass(61);
    assert_eq!(node.haves(), [(A, 1, Urgency::Lazy), (B, 1, Urgency::Now)]);
}

#[test]
fn news_leaves_with_a_block_for_the_same_peer() {
    let mut node = Harness::leech("#...", 1);
    node.connect_holder(A, "..#.");
    node.connect_holder(B, "....");
    node.pass(100);
    node.send_block(A, 2, 0);
    node.verified(2, Verdict::Good);
    node.pass(100);
    node.say(A, Message::Have(3));
    node.send_block(A, 3, 0);
    node.verified(3, Verdict::Good);
    node.look();
    let block = node.block(0, 0);
    node.say(B, Message::Request(block));
    let to_b: Vec<Output> = node.look();
    assert!(
        matches!(
            &to_b[..],
            [
                Output::Send { peer: B, message: Message::Have(3), .. },
                Output::SendBlock { peer: B, .. }
            ]
        ),
        "{to_b:?}"
    );
}

#[test]
fn all_units_of_the_last_peer_are_asked_for_again_after_it_left() {
    let mut node = Harness::leech("......", 2);
    node.connect_holder(A, "######");
    node.give(Input::Disconnected { peer: A });
    node.look();
    node.connect_holder(B, "######");
    assert_eq!(node.requests(B).len(), 12);
    node.check();
}

#[test]
fn others_help_with_the_last_long_unit() {
    let mut node = Harness::leech("#.", 64);
    node.connect(A, super::harness::OWN);
    let reqq = Some(4);
    node.give(Input::ExtendedHandshake {
        peer: A,
        unit_len: None,
        request_queue_len: reqq,
        upload_only: false,
    });
    node.say(A, Message::Have(1));
    node.say(A, Message::Unchoke);
    assert_eq!(node.requests(A), [(1, 0), (1, 1), (1, 2), (1, 3)]);
    node.connect_holder(B, ".#");
    let helped = node.requests(B);
    assert!(helped.len() >= 8 && helped[0] == (1, 4), "{helped:?}");
    node.check();
}

#[test]
fn peer_that_rejects_a_block_is_not_asked_for_its_unit_again() {
    let mut node = Harness::leech("..", 40);
    node.connect_holder(A, "##");
    let (unit, _) = node.requests(A)[0];
    let block = node.block(unit, 0);
    node.say(A, Message::Reject(block));
    for (asked, _) in node.requests(A) {
        assert_ne!(asked, unit);
    }
    node.check();
}
