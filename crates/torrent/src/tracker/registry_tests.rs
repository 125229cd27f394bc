use super::*;
use proptest::prelude::*;

const HASH: [u8; 20] = [1; 20];

fn at(seconds: u64) -> Time {
    Time::ZERO + Duration::from_secs(seconds)
}

fn addr(number: u32) -> SocketAddr {
    SocketAddr::new(IpAddr::V4((0x0a00_0000 + number).into()), 6881)
}

fn request(left: u64, event: Event) -> AnnounceRequest {
    AnnounceRequest {
        info_hash: HASH,
        peer_id: [2; 20],
        port: 6881,
        uploaded: 0,
        downloaded: 0,
        left: Some(left),
        event,
        numwant: None,
        key: None,
    }
}

/// Peers that a newcomer is told of, as the last number of their address.
fn told(registry: &mut Registry, now: Time, number: u32) -> Vec<u8> {
    let response = registry.announce(now, addr(number), &request(1, Event::Started));
    let last = |peer: &ResponsePeer| match peer.addr.ip() {
        IpAddr::V4(ip) => ip.octets()[3],
        IpAddr::V6(ip) => ip.octets()[15],
    };
    let mut told: Vec<u8> = response.unwrap().peers.iter().map(last).collect();
    told.sort_unstable();
    told
}

fn scrape(registry: &Registry) -> (u32, u32, u32) {
    let stats = registry.scrape(&HASH);
    (stats.complete, stats.downloaded, stats.incomplete)
}

#[test]
fn late_one_is_told_of_early_ones() {
    let mut registry = Registry::new(1);
    assert_eq!(told(&mut registry, at(0), 1), []);
    assert_eq!(told(&mut registry, at(0), 2), [1]);
    assert_eq!(told(&mut registry, at(0), 3), [1, 2]);
    assert_eq!(scrape(&registry), (0, 0, 3));
}

#[test]
fn who_wants_none_gets_none_and_who_wants_many_gets_ten() {
    let mut registry = Registry::new(1);
    for number in 0..40 {
        told(&mut registry, at(0), number);
    }
    for (wanted, expect) in [(Some(0), 0), (Some(3), 3), (Some(u32::MAX), HANDOUT), (None, HANDOUT)]
    {
        let request = AnnounceRequest { numwant: wanted, ..request(1, Event::Regular) };
        let number = 100 + expect as u32;
        let response = registry.announce(at(0), addr(number), &request).unwrap();
        assert_eq!(response.peers.len(), expect);
    }
}

#[test]
fn completing_is_counted_once() {
    let mut registry = Registry::new(1);
    told(&mut registry, at(0), 1);
    for _ in 0..2 {
        registry.announce(at(5), addr(1), &request(0, Event::Completed)).unwrap();
        assert_eq!(scrape(&registry), (1, 1, 0));
    }
    // A seed from the start has downloaded nothing.
    registry.announce(at(5), addr(2), &request(0, Event::Started)).unwrap();
    assert_eq!(scrape(&registry), (2, 1, 0));
}

#[test]
fn who_stops_is_forgotten_at_once() {
    let mut registry = Registry::new(1);
    told(&mut registry, at(0), 1);
    told(&mut registry, at(0), 2);
    let response = registry.announce(at(1), addr(1), &request(1, Event::Stopped)).unwrap();
    assert_eq!(response.peers, []);
    assert_eq!(told(&mut registry, at(1), 3), [2]);
    // Nobody is known by having stopped.
    registry.announce(at(1), addr(9), &request(1, Event::Stopped)).unwrap();
    assert_eq!(registry.peer_count(), 2);
}

#[test]
fn stop_of_the_predecessor_leaves_the_successor() {
    let mut registry = Registry::new(1);
    told(&mut registry, at(0), 1);
    let other = AnnounceRequest { peer_id: [3; 20], ..request(1, Event::Started) };
    registry.announce(at(1), addr(1), &other).unwrap();
    assert_eq!(registry.peer_count(), 1);
    registry.announce(at(2), addr(1), &request(1, Event::Stopped)).unwrap();
    assert_eq!(registry.peer_count(), 1);
}

#[test]
fn silent_peer_ranks_last_and_is_forgotten_later() {
    let mut registry = Registry::new(1);
    told(&mut registry, at(0), 1);
    registry.sweep(at(44));
    assert!(!registry.torrents[&HASH].roster.peer(0).stale);
    registry.sweep(at(45));
    assert!(registry.torrents[&HASH].roster.peer(0).stale);
    assert_eq!(told(&mut registry, at(46), 2), [1], "better than nobody");
    for number in 10..20 {
        told(&mut registry, at(46), number);
    }
    let told_to_last = told(&mut registry, at(46), 30);
    assert!(!told_to_last.contains(&1), "{told_to_last:?}");
    registry.sweep(at(11 * 60));
    assert_eq!(scrape(&registry).2, 12);
    registry.sweep(at(20 * 60));
    assert_eq!(registry.torrents.len(), 0);
    assert_eq!(registry.addr_peers.len(), 0);
}

#[test]
fn seed_that_announces_every_five_minutes_is_never_lost() {
    let mut registry = Registry::new(1);
    for seconds in 0..1800 {
        if seconds % 300 == 0 {
            registry.announce(at(seconds), addr(1), &request(0, Event::Regular)).unwrap();
        }
        registry.sweep(at(seconds));
        assert_eq!(scrape(&registry).0, 1);
    }
    assert_eq!(told(&mut registry, at(1799), 2), [1]);
}

#[test]
fn interval_is_short_while_nodes_join() {
    let mut registry = Registry::new(1);
    let mut interval = |seconds| {
        let response = registry.announce(at(seconds), addr(1), &request(1, Event::Regular));
        response.map(|response| response.interval.as_secs())
    };
    assert_eq!(interval(0), Ok(15));
    assert_eq!(interval(59), Ok(15));
    assert_eq!(interval(60), Ok(60));
}

#[test]
fn load_is_bounded_at_ten_thousand_peers() {
    let mut registry = Registry::new(1);
    let mut last = Duration::ZERO;
    for number in 0..10_000 {
        let response = registry.announce(at(0), addr(number), &request(1, Event::Started));
        last = response.unwrap().interval;
    }
    assert_eq!(last, Duration::from_secs(20));
    assert!(10_000 / last.as_secs() <= 500);
}

#[test]
fn who_comes_early_counts_as_lost() {
    let mut registry = Registry::new(1);
    registry.announce(at(0), addr(0), &request(0, Event::Started)).unwrap();
    for number in 1..=40 {
        told(&mut registry, at(0), number);
    }
    let mut seed_told = |seconds, number| {
        let request = AnnounceRequest { numwant: Some(5), ..request(1, Event::Regular) };
        let response = registry.announce(at(seconds), addr(number), &request).unwrap();
        response.peers.iter().any(|peer| peer.addr == addr(0))
    };
    assert!(!seed_told(12, 39));
    assert!(seed_told(11, 40));
}

#[test]
fn limits_hold_and_keep_who_is_in() {
    let mut registry = Registry::new(1);
    let port = |port| SocketAddr::new(addr(1).ip(), port);
    for number in 1..=ADDR_PEERS_MAX as u16 {
        registry.announce(at(0), port(number), &request(1, Event::Started)).unwrap();
    }
    let refused = registry.announce(at(0), port(9999), &request(1, Event::Started));
    assert_eq!(refused, Err(Refusal::AddrPeersMax));
    assert!(registry.announce(at(0), port(1), &request(1, Event::Regular)).is_ok());
    assert!(registry.announce(at(0), addr(2), &request(1, Event::Started)).is_ok());
}

#[test]
fn full_torrent_throws_out_stale_peers_first() {
    let mut registry = Registry::new(1);
    let want_none = AnnounceRequest { numwant: Some(0), ..request(1, Event::Started) };
    registry.announce(at(0), addr(0), &want_none).unwrap();
    for number in 1..TORRENT_PEERS_MAX as u32 {
        registry.announce(at(100), addr(number), &want_none).unwrap();
    }
    let mut join = |seconds, number| {
        registry.sweep(at(seconds));
        registry.announce(at(seconds), addr(number), &want_none).map(drop)
    };
    assert_eq!(join(100, 1 << 20), Ok(()), "in place of the stale one");
    assert_eq!(join(102, 1 << 21), Err(Refusal::TorrentPeersMax));
    assert_eq!(join(102, 7), Ok(()), "who is in stays in");
}

#[test]
fn torrents_are_limited() {
    let mut registry = Registry::new(1);
    let mut join = |torrent: u16| {
        let mut request = request(1, Event::Started);
        request.info_hash[..2].copy_from_slice(&torrent.to_be_bytes());
        registry.announce(at(0), addr(torrent.into()), &request).map(drop)
    };
    for torrent in 0..TORRENTS_MAX as u16 {
        join(torrent).unwrap();
    }
    assert_eq!(join(TORRENTS_MAX as u16), Err(Refusal::TorrentsMax));
    assert_eq!(join(0), Ok(()));
}

#[test]
fn addresses_that_fill_the_table_make_room_and_nodes_stay() {
    let mut registry = Registry::new(1);
    let want_none = AnnounceRequest { numwant: Some(0), ..request(1, Event::Started) };
    let node = SocketAddr::new(addr(7).ip(), 6881);
    for torrent in 0..2 * ADDR_PEERS_FAIR as u8 {
        let request = AnnounceRequest { info_hash: [torrent; 20], ..want_none };
        registry.announce_as(at(0), node, Standing::Leased, &request).unwrap();
    }
    let stays = registry.peer_count();
    let mut port = 0_u16;
    for host in 0..64 {
        for _ in 0..ADDR_PEERS_MAX {
            port = port.wrapping_add(1);
            let from = SocketAddr::new(addr(1_000 + host).ip(), port);
            let _ = registry.announce(at(0), from, &want_none);
        }
    }
    assert!(registry.announce(at(2), addr(8), &want_none).is_ok());
    assert!(registry.peer_count() <= stays + 64 * ADDR_PEERS_FAIR + 1);
    let scrape = registry.scrape(&[31; 20]);
    assert_eq!(scrape.incomplete, 1, "the node is still in all of its torrents");
}

#[test]
fn torrents_that_one_address_invents_make_room_for_another() {
    let mut registry = Registry::new(1);
    for torrent in 0..TORRENTS_MAX as u32 {
        let mut request = request(1, Event::Started);
        request.info_hash[..4].copy_from_slice(&torrent.to_be_bytes());
        registry.announce(at(0), addr(torrent / ADDR_PEERS_MAX as u32), &request).unwrap();
    }
    let another = AnnounceRequest { info_hash: [9; 20], ..request(1, Event::Started) };
    assert!(registry.announce(at(0), addr(99), &another).is_ok());
    assert_eq!(registry.peer_count(), 4 * ADDR_PEERS_FAIR + 1);
}

#[test]
fn mapped_address_is_the_same_peer() {
    let mut registry = Registry::new(1);
    told(&mut registry, at(0), 1);
    let mapped = SocketAddr::new("::ffff:10.0.0.1".parse().unwrap(), 6881);
    registry.announce(at(1), mapped, &request(1, Event::Regular)).unwrap();
    assert_eq!(registry.peer_count(), 1);
}

/// What the registry must agree with: a map from address to (complete, fresh until, gone at).
type Model = BTreeMap<SocketAddr, (bool, u64, u64)>;

proptest! {
    #[test]
    fn agrees_with_a_map(steps in prop::collection::vec((0u32..20, 0u8..5, 0u64..200), 0..200)) {
        let mut registry = Registry::new(1);
        let mut model = Model::new();
        let mut now = 0;
        for (number, step, wait) in steps {
            now += wait;
            registry.sweep(at(now));
            model.retain(|_, (_, _, gone)| *gone > now);
            let (left, event) = [(1, Event::Started), (1, Event::Regular), (0, Event::Completed), (0, Event::Regular), (1, Event::Stopped)][usize::from(step)];
            let response = registry.announce(at(now), addr(number), &request(left, event)).unwrap();
            if event == Event::Stopped {
                model.remove(&addr(number));
            } else {
                let fresh = now + 2 * response.interval.as_secs() + 15;
                model.insert(addr(number), (left == 0, fresh, fresh.max(now + 660)));
            }
            for peer in &response.peers {
                prop_assert!(model.contains_key(&peer.addr), "told of {} that is not there", peer.addr);
                prop_assert!(peer.addr != addr(number));
            }
            let complete = model.values().filter(|(complete, ..)| *complete).count();
            let stats = registry.scrape(&HASH);
            prop_assert_eq!(stats.complete as usize, complete);
            prop_assert_eq!(stats.incomplete as usize, model.len() - complete);
            prop_assert_eq!(registry.peer_count(), model.len());
        }
    }
}
