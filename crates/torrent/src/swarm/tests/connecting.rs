//! Whom to be connected to.

use super::harness::{A, B, Harness, OWN, addr};
use crate::Time;
use crate::swarm::{
    ADDRS_MAX, CloseReason, DEGREE, Direction, Input, Output, PEERS_MAX, PeerKey, PeerTraits,
    SEED_PEERS_MAX, Standing,
};
use crate::wire::Message;

fn dials(out: &[Output]) -> usize {
    out.iter().filter(|output| matches!(output, Output::Dial { .. })).count()
}

fn is_closed(out: &[Output], key: PeerKey) -> bool {
    out.iter().any(|output| matches!(output, Output::Close { peer, .. } if *peer == key))
}

#[test]
fn half_of_the_peers_are_dialled_at_once_and_the_rest_if_they_do_not_dial() {
    let mut node = Harness::leech("...", 1);
    node.give(Input::PeersFound { addrs: (0..30).map(|n| addr(PeerKey(n))).collect() });
    let out = node.look();
    assert_eq!(dials(&out), DEGREE / 2);
    let dialled = out.iter().filter_map(|output| match output {
        Output::Dial { addr } => Some(*addr),
        _ => None,
    });
    for (peer, addr) in dialled.enumerate() {
        let traits = PeerTraits { peer_id: [peer as u8; 20], ..OWN };
        let (peer, direction) = (PeerKey(peer as u32), Direction::Outgoing);
        node.give(Input::Connected { peer, addr, direction, traits, standing: Standing::Stranger });
    }
    // Two dial us.
    node.connect(PeerKey(40), OWN);
    node.connect(PeerKey(41), OWN);
    node.pass(900);
    assert_eq!(dials(&node.look()), 0);
    node.pass(300);
    assert_eq!(dials(&node.look()), DEGREE - 5 - 2);
}

#[test]
fn of_two_connections_between_two_nodes_both_keep_the_same() {
    // One was dialled by us, the other by them; either may come up first at either end.
    for ours_first in [false, true] {
        for our_id_is_smaller in [false, true] {
            let mut node = Harness::leech("...", 1);
            let their_id = if our_id_is_smaller { [9; 20] } else { [1; 20] };
            let traits = PeerTraits { peer_id: their_id, ..OWN };
            let ours = (A, Direction::Outgoing);
            let theirs = (B, Direction::Incoming);
            let order = if ours_first { [ours, theirs] } else { [theirs, ours] };
            for (peer, direction) in order {
                node.give(Input::Connected {
                    peer,
                    addr: addr(A),
                    direction,
                    traits,
                    standing: Standing::Stranger,
                });
            }
            let out = node.look();
            let closed = if our_id_is_smaller { B } else { A };
            assert!(is_closed(&out, closed), "{ours_first} {our_id_is_smaller}");
            assert_eq!(node.swarm.stats().peers, 1);
        }
    }
}

#[test]
fn connection_to_ourselves_is_closed() {
    let mut node = Harness::leech("...", 1);
    let traits = PeerTraits { peer_id: [7; 20], ..OWN };
    let direction = Direction::Outgoing;
    node.look();
    node.give(Input::Connected {
        peer: A,
        addr: addr(A),
        direction,
        traits,
        standing: Standing::Stranger,
    });
    assert_eq!(node.look(), [Output::Close { peer: A, reason: CloseReason::Duplicate }]);
}

#[test]
fn no_more_peers_are_taken_than_allowed() {
    let mut node = Harness::leech("...", 1);
    for peer in 0..=PEERS_MAX as u32 {
        node.connect(PeerKey(peer), OWN);
    }
    let full = Output::Close { peer: PeerKey(PEERS_MAX as u32), reason: CloseReason::Full };
    assert_eq!(node.look().last(), Some(&full));
    node.check();
}

#[test]
fn no_more_addresses_are_remembered_than_allowed() {
    let mut node = Harness::leech("...", 1);
    node.give(Input::PeersFound { addrs: (0..5000).map(|n| addr(PeerKey(n))).collect() });
    assert_eq!(node.swarm.addrs.len(), ADDRS_MAX);
}

#[test]
fn failed_address_is_dialled_again_ever_later() {
    let mut node = Harness::leech("...", 1);
    node.give(Input::PeersFound { addrs: vec![addr(A)] });
    let mut last = node.now;
    let mut waits = vec![];
    for _ in 0..8 {
        assert_eq!(dials(&node.look()), 1);
        node.give(Input::DialFailed { addr: addr(A) });
        while node.out.iter().all(|output| !matches!(output, Output::Dial { .. })) {
            node.pass(100);
            assert!(node.now < Time::from_nanos(1 << 50), "never dialled again");
        }
        waits.push((node.now - last).as_secs());
        last = node.now;
    }
    assert!(waits[0] <= 2 && waits[7] >= 28, "{waits:?}");
    assert!(waits.is_sorted() && waits[7] <= 32, "{waits:?}");
}

#[test]
fn connection_on_which_neither_side_wants_anything_is_closed() {
    let mut node = Harness::leech("###", 1);
    node.connect_holder(A, "###");
    node.connect_holder(B, "##.");
    node.pass(100);
    let out = node.look();
    assert!(out.contains(&Output::Close { peer: A, reason: CloseReason::Useless }));
    assert!(!is_closed(&out, B));
}

#[test]
fn first_messages_are_only_allowed_first() {
    for message in [Message::HaveAll, Message::HaveNone] {
        let mut node = Harness::leech("...", 1);
        node.connect(A, OWN);
        node.say(A, Message::Interested);
        node.say(A, message.clone());
        let out = node.look();
        let broke = |output: &Output| {
            matches!(output, Output::Close { peer: A, reason: CloseReason::Protocol(_) })
        };
        assert!(out.iter().any(broke), "{message:?}");
    }
}

#[test]
fn a_later_bitfield_tells_what_is_new_and_takes_nothing_back() {
    let mut node = Harness::leech("...", 1);
    node.connect_holder(A, "#..");
    node.look();
    node.say(A, Message::Bitfield(vec![0b0110_0000]));
    assert_eq!(node.requests(A).len(), 2);
    assert!(node.swarm.stats().seeds == 1);
    node.check();
}

#[test]
fn what_does_not_exist_cannot_be_had() {
    for message in [
        Message::Have(3),
        Message::Have(u32::MAX),
        Message::HaveUnit(3),
        Message::Bitfield(vec![0, 0]),
        Message::Bitfield(vec![0b0001_0000]),
    ] {
        let mut node = Harness::leech("...", 1);
        node.connect(A, OWN);
        node.say(A, message.clone());
        assert!(is_closed(&node.look(), A), "{message:?}");
        node.check();
    }
}

#[test]
fn idle_connections_are_kept_alive() {
    let mut node = Harness::leech("..#", 1);
    node.connect_holder(A, "...");
    node.look();
    for _ in 0..11 {
        node.pass(10_000);
        node.give(Input::Alive { peer: A });
    }
    assert_eq!(node.messages(A), [Message::KeepAlive]);
}

/// A handshake from an address, and nothing more but a keep-alive now and then.
fn idler(node: &mut Harness, peer: u32, host: [u8; 4], standing: Standing) {
    let mut peer_id = [0; 20];
    peer_id[..4].copy_from_slice(&(peer + 1).to_be_bytes());
    let traits = PeerTraits { peer_id, ..OWN };
    let addr = (host, 1_000 + peer as u16).into();
    let direction = Direction::Incoming;
    node.give(Input::Connected { peer: PeerKey(peer), addr, direction, traits, standing });
}

fn keep_alive(node: &mut Harness, peers: u32) {
    for peer in 0..peers {
        node.say(PeerKey(peer), Message::KeepAlive);
    }
}

#[test]
fn four_addresses_with_fifty_idle_handshakes_each_keep_nobody_out() {
    let mut node = Harness::seed(8, 1);
    for peer in 0..200 {
        idler(&mut node, peer, [10, 0, 66, 1 + peer as u8 / 50], Standing::Stranger);
    }
    assert_eq!(node.swarm.stats().peers, 4 * SEED_PEERS_MAX / 8);
    // Eight addresses have all places, and keep them alive.
    for peer in 200..400 {
        idler(&mut node, peer, [10, 0, 66, 5 + (peer - 200) as u8 / 25], Standing::Stranger);
    }
    assert_eq!(node.swarm.stats().peers, SEED_PEERS_MAX);
    node.look();
    idler(&mut node, 400, [10, 0, 66, 99], Standing::Stranger);
    assert!(is_closed(&node.look(), PeerKey(400)), "everybody has only just come");
    idler(&mut node, 400, [10, 0, 66, 99], Standing::Leased);
    assert!(!is_closed(&node.look(), PeerKey(400)), "a node takes a stranger's place");
    for _ in 0..3 {
        node.pass(10_500);
        keep_alive(&mut node, 400);
    }
    idler(&mut node, 401, [10, 0, 66, 98], Standing::Stranger);
    let out = node.look();
    assert!(!is_closed(&out, PeerKey(401)) && !is_closed(&out, PeerKey(400)));
    assert_eq!(node.swarm.stats().peers, SEED_PEERS_MAX);
}

#[test]
fn who_waits_for_a_busy_seed_keeps_its_place() {
    let mut node = Harness::seed(400, 1);
    for peer in 0..SEED_PEERS_MAX as u32 {
        let host = 1 + peer as u8;
        idler(&mut node, peer, [10, 0, 1, host], Standing::Stranger);
        node.say(PeerKey(peer), Message::HaveNone);
        node.say(PeerKey(peer), Message::Interested);
        let unit_len = Some(crate::BLOCK_LEN);
        let (request_queue_len, upload_only) = (None, false);
        let peer = PeerKey(peer);
        node.give(Input::ExtendedHandshake { peer, unit_len, request_queue_len, upload_only });
    }
    let out = node.look();
    let shown = |peer| {
        out.iter().any(|output| {
            let is_have = |message: &Message| matches!(message, Message::Have(_) | Message::HaveUnit(_));
            matches!(output, Output::Send { peer: to, message, .. } if *to == peer && is_have(message))
        })
    };
    let waiting: Vec<PeerKey> = (0..200).map(PeerKey).filter(|peer| !shown(*peer)).collect();
    assert!(waiting.len() > 100, "the link is busy with the first of them");
    for _ in 0..31 {
        node.pass(1_000);
        // All are heard, as nodes that serve one another are.
        for peer in 0..200 {
            node.give(Input::Alive { peer: PeerKey(peer) });
        }
    }
    node.look();
    idler(&mut node, 300, [10, 0, 2, 1], Standing::Leased);
    let out = node.look();
    assert!(
        waiting.iter().all(|peer| !is_closed(&out, *peer)),
        "who was shown and did not ask goes"
    );
    assert!(!is_closed(&out, PeerKey(300)));
}
