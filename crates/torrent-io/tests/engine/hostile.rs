//! Peers that lie, babble, stall or crowd.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};

use torrent::Block;
use torrent::metainfo::create::Format;
use torrent::swarm::SEED_PEERS_MAX;
use torrent::wire::{ExtendedHandshake, Message};
use torrent_io::engine::{EngineConfig, HALF_OPEN_MAX};

use super::node::{Content, config};
use super::stranger::{self, Stranger};

const KIB: u32 = 1 << 10;

fn content(format: Format) -> Content {
    Content::file(format, 64 * KIB, 1_000_000)
}

fn corrupt(bytes: &mut [u8]) {
    bytes[0] ^= 1;
}

#[test]
fn foreign_seeds_are_as_good_as_ours() {
    for format in [Format::Hybrid, Format::V1] {
        let content = content(format);
        let leech = content.leech();
        leech.knows([stranger::seed(&content, |_, _| true)]);
        leech.completes(&content);
    }
}

#[test]
fn a_liar_is_banned_and_the_honest_bring_the_rest() {
    for format in [Format::Hybrid, Format::V1, Format::V2] {
        let content = content(format);
        let liar = stranger::seed(&content, |_, bytes| {
            corrupt(bytes);
            true
        });
        let leech = content.leech();
        leech.knows([liar]);
        assert_eq!(leech.bans(), liar);
        let seed = content.seed();
        leech.knows([seed.addr()]);
        leech.completes(&content);
    }
}

#[test]
fn the_liar_among_two_senders_of_a_unit_is_found() {
    // With v1 the unit is the piece of four blocks: the liar sends one of them and is gone, an
    // honest peer sends the others, and what differs once the piece verifies was the lie.
    let content = content(Format::V1);
    let liar = stranger::seed(&content, |number, bytes| {
        corrupt(bytes);
        number == 0
    });
    let leech = content.leech();
    leech.knows([liar]);
    leech.stats(|stats| stats.downloaded > 0);
    leech.knows([stranger::seed(&content, |_, _| true)]);
    assert_eq!(leech.bans(), liar);
    leech.completes(&content);
}

#[test]
fn a_liar_in_a_unit_of_several_blocks_is_found_by_block_and_costs_one() {
    // From 64 MiB on the units of a v2 torrent with long pieces are two blocks or more.
    let content = Content::file(Format::V2, 128 * KIB, 64 << 20);
    assert_eq!(content.metainfo.geometry().unit_len(), 32 * KIB);
    // On a machine that pauses, other blocks are asked for twice in the same moment, and the lie is
    // told again. If it cost more than its block, it would each time.
    let costs_one_block = |_| wasted_by_a_lie(&content) == u64::from(16 * KIB);
    assert!((0..8).any(costs_one_block));
}

/// What a leech had received for nothing soon after a liar was banned that had sent the first block of a
/// unit and was gone. Our seed sends the rest of the unit, and tells the hashes of its blocks.
fn wasted_by_a_lie(content: &Content) -> u64 {
    let liar = stranger::seed(content, |number, bytes| {
        corrupt(bytes);
        number == 0
    });
    let leech = content.leech();
    leech.knows([liar]);
    leech.stats(|stats| stats.downloaded > 0);
    let seed = content.seed();
    leech.knows([seed.addr()]);
    assert_eq!(leech.bans(), liar);
    let stats = leech.stats(|_| true);
    leech.completes(content);
    stats.wasted
}

#[test]
fn a_socket_for_all_addresses_knows_ipv4_peers_by_their_plain_address() {
    let content = content(Format::Hybrid);
    let listen = "[::]:0".parse().unwrap();
    let leech = content.leech_with(EngineConfig { listen, ..config() });
    let addr = SocketAddr::from(([127, 0, 0, 1], leech.addr().port()));
    let mut liar = Stranger::dial(addr, &content);
    liar.send_handshake(content.infohash());
    liar.serve(64 * KIB, &content.data(), &|_, bytes| {
        corrupt(bytes);
        true
    });
    assert_eq!(leech.bans(), liar.stream.local_addr().unwrap());
}

#[test]
fn another_torrents_infohash_is_hung_up_on() {
    let content = content(Format::Hybrid);
    let seed = content.seed();
    let mut stranger = Stranger::dial(seed.addr(), &content);
    stranger.send_handshake([7; 20]);
    stranger.end();
}

#[test]
fn both_infohashes_of_a_hybrid_torrent_are_answered_in_kind() {
    let content = content(Format::Hybrid);
    let seed = content.seed();
    for infohash in content.metainfo.info_hashes() {
        let mut stranger = Stranger::dial(seed.addr(), &content);
        stranger.send_handshake(infohash.truncated());
        assert_eq!(stranger.read_handshake().infohash, infohash.truncated());
    }
}

#[test]
fn a_hybrid_torrents_peer_that_knows_only_the_v2_infohash_is_dialled_again_with_it() {
    let content = content(Format::Hybrid);
    let leech = content.leech();
    leech.knows([stranger::v2_seed(&content)]);
    leech.completes(&content);
}

#[test]
fn a_request_past_the_end_is_answered_with_the_padding() {
    for format in [Format::Hybrid, Format::V1, Format::V2] {
        // 1,000,000 bytes end 576 bytes into the last block, 16,960 bytes into the last piece.
        let content = content(format);
        let seed = content.seed();
        let mut stranger = Stranger::dial(seed.addr(), &content);
        stranger.send_handshake(content.infohash());
        stranger.read_handshake();
        stranger.say(&Message::Interested, &[]);
        for offset in [16 * KIB, 32 * KIB, 48 * KIB] {
            let block = Block { piece: 15, offset, len: 16 * KIB };
            stranger.say(&Message::Request(block), &[]);
            while stranger.next().unwrap() != Message::Piece(block) {}
        }
    }
}

#[test]
fn an_ipv4_peer_of_a_socket_for_both_families_has_its_ipv4_address() {
    let content = content(Format::Hybrid);
    let seed = content.seed_with(EngineConfig { listen: "[::]:0".parse().unwrap(), ..config() });
    let addr = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), seed.addr().port());
    let mut stranger = Stranger::dial(addr, &content);
    stranger.send_handshake_with(content.infohash(), true);
    stranger.read_handshake();
    let handshake = loop {
        if let Message::Extended { id: 0, payload } = stranger.next().unwrap() {
            break ExtendedHandshake::decode(&payload).unwrap();
        }
    };
    assert_eq!(handshake.your_ip, Some(Ipv4Addr::LOCALHOST.into()));
}

#[test]
fn babble_is_hung_up_on() {
    let content = content(Format::Hybrid);
    let seed = content.seed();
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\x14", b"\x13BitTorrent protocoL"] {
        let mut stranger = Stranger::dial(seed.addr(), &content);
        stranger.stream.write_all(bytes).unwrap();
        stranger.end();
    }
}

/// A stranger that has shaken hands says this, and is hung up on.
fn check_refused(bytes: &[u8]) {
    let content = content(Format::Hybrid);
    let seed = content.seed();
    let mut stranger = Stranger::dial(seed.addr(), &content);
    stranger.send_handshake(content.infohash());
    stranger.read_handshake();
    stranger.stream.write_all(bytes).unwrap();
    stranger.end();
}

#[test]
fn messages_that_cannot_be_are_hung_up_on() {
    // Longer than any message.
    check_refused(&[0xff, 0xff, 0xff, 0xff]);
    check_refused(&[0, 0x10, 0, 1, 20]);
    // A block longer than any that we would ask for.
    check_refused(&[0, 0, 0x40, 10, 7, 0, 0, 0, 0, 0, 0, 0, 0]);
    // A piece that there is not, an extended handshake that is no dictionary.
    check_refused(&[0, 0, 0, 5, 4, 0xff, 0, 0, 0]);
    check_refused(b"\0\0\0\x05\x14\0abc");
}

#[test]
fn blocks_that_nobody_asked_for_are_thrown_away() {
    let content = content(Format::Hybrid);
    let leech = content.leech();
    let mut stranger = Stranger::dial(leech.addr(), &content);
    stranger.send_handshake(content.infohash());
    stranger.read_handshake();
    let block = Block { piece: 0, offset: 0, len: 16_384 };
    assert!(stranger.say(&Message::Piece(block), &[0; 16_384]));
    let stats = leech.stats(|stats| stats.downloaded > 0);
    assert_eq!((stats.wasted, stats.verified), (16_384, 0));
    let seed = content.seed();
    leech.knows([seed.addr()]);
    leech.completes(&content);
}

#[test]
fn peers_that_speak_and_hang_up_at_once_are_gone() {
    let content = content(Format::Hybrid);
    let leech = content.leech();
    for _ in 0..50 {
        let mut stranger = Stranger::dial(leech.addr(), &content);
        stranger.send_handshake(content.infohash());
        stranger.read_handshake();
        stranger.say(&Message::HaveNone, &[]);
    }
    // It would be two minutes until their silence is noticed.
    leech.forget();
    let mut ticks = 0;
    let stats = leech.stats(|stats| {
        ticks += 1;
        stats.peers == 0 || ticks > 20
    });
    assert_eq!(stats.peers, 0);
}

#[test]
fn a_crowd_of_peers_finds_a_limit_and_leaves_no_trace() {
    let content = content(Format::Hybrid);
    let seed = content.seed();
    // One after the other: of many handshakes that wait at once, one address has but so many places.
    let arrive = |number: u32| {
        let mut peer_id = stranger::PEER_ID;
        peer_id[16..].copy_from_slice(&number.to_be_bytes());
        let mut stranger = Stranger::dial(seed.addr(), &content);
        stranger.send_handshake_as(content.infohash(), peer_id, false);
        stranger
    };
    let mut taken = vec![];
    for number in 0..SEED_PEERS_MAX as u32 {
        let mut stranger = arrive(number);
        stranger.read_handshake();
        taken.push(stranger);
    }
    assert_eq!(seed.stats(|stats| stats.peers >= SEED_PEERS_MAX).peers, SEED_PEERS_MAX);
    // The rest is hung up on.
    (300..400).map(arrive).for_each(Stranger::end);
    assert_eq!(seed.stats(|_| true).peers, SEED_PEERS_MAX);
    drop(taken);
    seed.stats(|stats| stats.peers == 0);
    let leech = content.leech();
    leech.knows([seed.addr()]);
    leech.completes(&content);
}

#[test]
fn a_handshake_in_drips_is_answered_and_one_that_never_ends_is_given_up() {
    let content = content(Format::Hybrid);
    let seed = content.seed();
    // What decides is the time that the engine gives a handshake, four seconds of its own clock.
    let mut slow = Stranger::dial(seed.addr(), &content);
    slow.stream.write_all(b"\x13BitTorrent pro").unwrap();
    let mut stranger = Stranger::dial(seed.addr(), &content);
    let features = torrent::wire::Features::default();
    let handshake = torrent::wire::Handshake {
        features,
        infohash: content.infohash(),
        peer_id: stranger::PEER_ID,
    };
    for byte in handshake.encode() {
        stranger.stream.write_all(&[byte]).unwrap();
    }
    stranger.read_handshake();
    slow.end();
}

#[test]
fn a_flood_of_silent_connections_does_not_keep_peers_out() {
    let content = content(Format::Hybrid);
    let seed = content.seed();
    let flood: Vec<_> =
        (0..HALF_OPEN_MAX + 40).map(|_| Stranger::dial(seed.addr(), &content)).collect();
    // Those beyond the limit are closed at once, the others when they have said nothing for long;
    // and then there is room.
    flood.into_iter().for_each(Stranger::end);
    let leech = content.leech();
    leech.knows([seed.addr()]);
    leech.completes(&content);
}
