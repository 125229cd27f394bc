//! What strangers say beyond plain messages: extended handshakes, peer exchanges and local
//! announces. Reading never panics, keeps to its limits, and what was read survives being written.
#![no_main]

use libfuzzer_sys::fuzz_target;
use torrent::Time;
use torrent::lsd::{self, Announce, Group, Input, Lsd};
use torrent::wire::{CLIENT_NAME_LEN_MAX, ExtendedHandshake, PEX_PEERS_MAX, Pex};

fuzz_target!(|bytes: &[u8]| {
    handshake(bytes);
    pex(bytes);
    announce(bytes);
});

fn handshake(bytes: &[u8]) {
    let Ok(handshake) = ExtendedHandshake::decode(bytes) else {
        return;
    };
    let name = handshake.client.as_deref().unwrap_or_default();
    assert!(name.chars().count() <= CLIENT_NAME_LEN_MAX);
    assert!(handshake.unit_len != Some(0) && handshake.port != Some(0));
    let mut again = vec![];
    handshake.encode(&mut again);
    assert_eq!(ExtendedHandshake::decode(&again), Ok(handshake));
}

fn pex(bytes: &[u8]) {
    let Ok(pex) = Pex::decode(bytes) else {
        return;
    };
    assert!(pex.added.len() <= PEX_PEERS_MAX && pex.dropped.len() <= PEX_PEERS_MAX);
    let mut again = vec![];
    pex.encode(&mut again);
    let again = Pex::decode(&again).expect("ours can be read");
    // Mapped addresses move from the IPv6 list to the IPv4 one, so the order may differ.
    let sorted = |pex: &Pex| {
        let mut added: Vec<_> = pex
            .added
            .iter()
            .map(|peer| (peer.addr, peer.flags))
            .collect();
        added.sort_unstable();
        let mut dropped = pex.dropped.clone();
        dropped.sort_unstable();
        (added, dropped)
    };
    assert_eq!(sorted(&again), sorted(&pex));
}

fn announce(bytes: &[u8]) {
    let mut lsd = Lsd::new(6881, 1);
    let infohash = [0xaa; 20];
    lsd.handle(
        Time::ZERO,
        Input::Joined {
            infohash,
            private: false,
        },
    );
    while lsd.poll().is_some() {}
    let from = ([10, 0, 0, 9], 6771).into();
    lsd.handle(Time::ZERO, Input::Datagram { from, bytes });
    let found = lsd.poll();
    assert_eq!(lsd.poll(), None);

    let Ok(announce) = Announce::decode(bytes) else {
        assert_eq!(found, None);
        return;
    };
    assert!(announce.infohashes.len() <= lsd::INFOHASHES_MAX);
    let mut again = vec![];
    announce.encode(Group::V4, &mut again);
    assert!(again.len() <= lsd::DATAGRAM_LEN_MAX + lsd::COOKIE_LEN_MAX);
    if again.len() <= lsd::DATAGRAM_LEN_MAX {
        assert_eq!(Announce::decode(&again), Ok(announce));
    }
}
