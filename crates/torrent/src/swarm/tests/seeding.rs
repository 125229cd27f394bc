//! How a seed shows what it has.

use std::collections::BTreeSet;

use super::harness::{A, B, C, Harness, OWN, PLAIN};
use crate::BLOCK_LEN;
use crate::swarm::{Input, Output, PeerKey, PeerTraits};
use crate::wire::Message;

/// Lets the peers ask for all that is shown to them until the seed shows no more, and returns what
/// was shown, in order. Peers of `hoarders` say that they have it; all others tell each other.
fn drain(seed: &mut Harness, rounds: usize) -> Vec<(PeerKey, u32)> {
    let mut shown = vec![];
    for _ in 0..rounds {
        let out = seed.look();
        for output in &out {
            match output {
                Output::Send { peer, message: Message::Have(piece), .. } => {
                    shown.push((*peer, *piece));
                    for index in 0..seed.swarm.geometry.block_count(seed.unit(*piece)) {
                        let block = seed.block(*piece, index);
                        seed.say(*peer, Message::Request(block));
                    }
                }
                Output::SendBlock { peer, .. } => {
                    seed.give(Input::BlockSent { peer: *peer, len: BLOCK_LEN });
                    seed.give(Input::BlockDelivered { peer: *peer });
                }
                _ => {}
            }
        }
    }
    shown
}

#[test]
fn each_unit_is_shown_once_before_any_is_shown_twice() {
    let mut seed = Harness::seed(60, 2);
    for peer in [A, B, C] {
        seed.connect_own_leech(peer);
    }
    let shown = drain(&mut seed, 200);
    let units: BTreeSet<u32> = shown.iter().take(60).map(|(_, unit)| *unit).collect();
    assert_eq!(units.len(), 60, "{shown:?}");
    for peer in [A, B, C] {
        let count = shown.iter().take(60).filter(|(to, _)| *to == peer).count();
        assert!((15..=25).contains(&count), "{peer:?} was shown {count} of 60");
    }
    seed.check();
}

#[test]
fn no_more_is_shown_than_the_link_can_send_soon() {
    let mut seed = Harness::seed(600, 2);
    seed.connect_own_leech(A);
    assert_eq!(seed.haves().len(), 8, "16 blocks");
}

#[test]
fn what_was_shown_to_a_peer_that_left_is_shown_to_another() {
    let mut seed = Harness::seed(20, 1);
    seed.connect_own_leech(A);
    let lost: BTreeSet<u32> = seed.haves().into_iter().map(|(_, unit, _)| unit).collect();
    seed.give(Input::Disconnected { peer: A });
    seed.connect_own_leech(B);
    let again: Vec<u32> = seed.haves().into_iter().map(|(_, unit, _)| unit).collect();
    assert!(lost.iter().eq(&again), "{lost:?} before {again:?}");
}

#[test]
fn peer_that_passes_nothing_on_is_shown_no_more() {
    let mut seed = Harness::seed(64, 1);
    for peer in [A, B, C] {
        seed.connect_own_leech(peer);
    }
    let shown = drain(&mut seed, 2);
    // A gets its units and nobody ever hears of them; the others' units come back around.
    for (to, unit) in shown {
        seed.say(to, Message::Have(unit));
        if to != A {
            seed.say(if to == B { C } else { B }, Message::Have(unit));
        }
    }
    for _ in 0..240 {
        seed.pass(50);
        for peer in [A, B, C] {
            seed.give(Input::Alive { peer });
        }
    }
    seed.look();
    assert!(seed.swarm.peer(A).unwrap().hoards >= 4);
    assert_eq!(seed.swarm.peer(B).unwrap().hoards, 0);
    seed.check();
}

#[test]
fn seed_says_have_none_to_ours_and_have_all_to_others() {
    let check = |traits: PeerTraits, expect: Message| {
        let mut seed = Harness::seed(9, 1);
        seed.connect(A, traits);
        assert_eq!(seed.messages(A), [expect, Message::Unchoke]);
    };
    check(OWN, Message::HaveNone);
    check(PeerTraits { fast: true, ..PLAIN }, Message::HaveAll);
    check(PLAIN, Message::Bitfield(vec![0xff, 0x80]));
}

#[test]
fn peer_that_relays_in_other_units_is_told_of_everything() {
    let mut seed = Harness::seed(3, 1);
    seed.connect(A, OWN);
    seed.give(Input::ExtendedHandshake {
        peer: A,
        unit_len: None,
        request_queue_len: None,
        upload_only: false,
    });
    let told: Vec<u32> = seed.haves().into_iter().map(|(_, unit, _)| unit).collect();
    assert_eq!(told, [0, 1, 2]);
}

#[test]
fn unit_that_is_shown_is_asked_for_whole_and_outside_the_window() {
    let mut node = Harness::leech(&".".repeat(100), 2);
    node.connect(A, OWN);
    node.say(A, Message::HaveNone);
    node.say(A, Message::Unchoke);
    let unit_len = Some(2 * BLOCK_LEN);
    node.give(Input::ExtendedHandshake {
        peer: A,
        unit_len,
        request_queue_len: None,
        upload_only: true,
    });
    for unit in 0..100 {
        node.say(A, Message::Have(unit));
    }
    assert_eq!(node.requests(A).len(), 200);
    assert_eq!(node.swarm.windowed, 0);
    node.check();
}

#[test]
fn unit_longer_than_the_seeds_queue_is_asked_for_in_parts() {
    let mut node = Harness::leech("...", 600);
    node.connect(A, OWN);
    node.say(A, Message::Unchoke);
    let unit_len = Some(600 * BLOCK_LEN);
    node.give(Input::ExtendedHandshake {
        peer: A,
        unit_len,
        request_queue_len: Some(512),
        upload_only: true,
    });
    node.say(A, Message::Have(0));
    let first = node.requests(A);
    assert_eq!(first.len(), 512);
    for (unit, index) in first {
        node.send_block(A, unit, index);
    }
    assert!(!node.requests(A).is_empty());
    node.check();
}
