//! What is sent to whom.

use super::harness::{A, B, Harness, PLAIN};
use crate::swarm::{Output, PeerKey, REQUEST_QUEUE_MAX};
use crate::wire::Message;
use crate::{BLOCK_LEN, Block};

fn served(out: &[Output]) -> Vec<(PeerKey, Block)> {
    out.iter()
        .filter_map(|output| match output {
            Output::SendBlock { peer, block } => Some((*peer, block.block())),
            _ => None,
        })
        .collect()
}

#[test]
fn nothing_unverified_is_served() {
    let mut node = Harness::leech("#..", 2);
    node.connect_holder(A, ".##");
    node.connect_holder(B, "...");
    // Unit 1 is here whole, but the verdict is out.
    node.send_block(A, 1, 0);
    node.send_block(A, 1, 1);
    node.look();
    let len = 2 * BLOCK_LEN;
    for (piece, offset, len, good) in [
        (0, 0, BLOCK_LEN, true),
        (0, 5, 100, true),
        (0, 0, len, true),
        (0, 1, len, false),
        (1, 0, BLOCK_LEN, false),
        (2, 0, BLOCK_LEN, false),
        (3, 0, BLOCK_LEN, false),
        (u32::MAX, u32::MAX, u32::MAX, false),
        (0, u32::MAX, 2, false),
        (0, 0, 0, false),
    ] {
        let block = Block { piece, offset, len };
        node.say(B, Message::Request(block));
        let out = node.look();
        let reject = Output::Send {
            peer: B,
            message: Message::Reject(block),
            urgency: crate::swarm::Urgency::Now,
        };
        assert_eq!(out.contains(&reject), !good, "{block:?}");
        for (peer, _) in served(&out) {
            node.give(crate::swarm::Input::BlockSent { peer, len: u32::MAX });
            node.give(crate::swarm::Input::BlockDelivered { peer });
        }
    }
}

#[test]
fn peer_with_the_fewest_units_is_served_first() {
    let mut node = Harness::leech(&format!("{}.", "#".repeat(63)), 1);
    let rich = "#".repeat(63) + ".";
    node.connect_holder(A, &rich);
    node.connect_holder(B, &".".repeat(64));
    node.look();
    for unit in 0..10 {
        for peer in [A, B] {
            let block = node.block(unit, 0);
            node.say(peer, Message::Request(block));
        }
    }
    let mut order = vec![];
    loop {
        let out = node.look();
        let blocks = served(&out);
        if blocks.is_empty() {
            break;
        }
        for (peer, block) in blocks {
            order.push(peer);
            node.give(crate::swarm::Input::BlockSent { peer, len: block.len });
            node.give(crate::swarm::Input::BlockDelivered { peer });
        }
    }
    assert_eq!(order.len(), 20);
    // The first two went out before B had asked for more than its first.
    assert!(order[2..11].iter().all(|&peer| peer == B), "{order:?}");
}

#[test]
fn queue_of_requests_is_limited() {
    let units = REQUEST_QUEUE_MAX as u32 + 100;
    let mut node = Harness::seed(units as usize, 1);
    node.connect(A, crate::swarm::PeerTraits { fast: true, ..PLAIN });
    node.look();
    for unit in 0..units {
        let block = node.block(unit, 0);
        node.say(A, Message::Request(block));
    }
    let waiting = node.block(300, 0);
    node.say(A, Message::Request(waiting));
    let out = node.look();
    let rejected = out
        .iter()
        .filter(|output| matches!(output, Output::Send { message: Message::Reject(_), .. }))
        .count();
    let committed = served(&out).len();
    assert_eq!(node.swarm.peer(A).unwrap().queue.len(), REQUEST_QUEUE_MAX);
    // The last was one more than the queue takes, although it waits already.
    assert_eq!(rejected, 100 - committed + 1);
}

#[test]
fn cancelled_request_is_not_served() {
    let mut node = Harness::seed(8, 1);
    node.connect(A, PLAIN);
    for unit in 0..8 {
        let block = node.block(unit, 0);
        node.say(A, Message::Request(block));
    }
    let first = served(&node.look());
    let last = node.block(7, 0);
    node.say(A, Message::Cancel(last));
    for (peer, block) in first {
        node.give(crate::swarm::Input::BlockSent { peer, len: block.len });
        node.give(crate::swarm::Input::BlockDelivered { peer });
    }
    assert!(!node.swarm.peer(A).unwrap().queue.contains(&last));
    assert_eq!(node.swarm.peer(A).unwrap().queue.len(), 3);
}

#[test]
fn slow_receiver_holds_up_four_blocks_while_others_wait() {
    let mut node = Harness::seed(64, 1);
    for peer in [A, B] {
        node.connect(peer, PLAIN);
    }
    for unit in 0..32 {
        for peer in [A, B] {
            let block = node.block(unit, 0);
            node.say(peer, Message::Request(block));
        }
    }
    // Everything leaves, but only B acknowledges.
    let mut to_a = 0;
    for _ in 0..8 {
        for (peer, block) in served(&node.look()) {
            to_a += u32::from(peer == A);
            if peer == B {
                node.give(crate::swarm::Input::BlockDelivered { peer });
            }
            node.give(crate::swarm::Input::BlockSent { peer, len: block.len });
        }
    }
    assert_eq!(to_a, 4);
}
