use super::*;
use proptest::prelude::*;
use std::net::SocketAddr;

fn request() -> AnnounceRequest {
    AnnounceRequest {
        info_hash: [b'h'; 20],
        peer_id: [b'p'; 20],
        port: 6881,
        uploaded: 3,
        downloaded: 1,
        left: Some(2),
        event: Event::Started,
        numwant: None,
        key: Some(7),
    }
}

fn response(addrs: &[&str]) -> AnnounceResponse {
    AnnounceResponse {
        interval: Duration::from_secs(15),
        complete: Some(1),
        incomplete: Some(2),
        peers: addrs
            .iter()
            .map(|addr| ResponsePeer { addr: addr.parse().unwrap(), peer_id: None })
            .collect(),
        ..AnnounceResponse::default()
    }
}

#[test]
fn requests_are_golden() {
    let connect = Request::Connect { transaction: 5 };
    assert_eq!(
        connect.encode(),
        b"\x00\x00\x04\x17\x27\x10\x19\x80\x00\x00\x00\x00\x00\x00\x00\x05"
    );
    let announce = Request::Announce { connection: 9, transaction: 5, request: request() };
    let bytes = announce.encode();
    assert_eq!(bytes.len(), 98);
    assert_eq!(bytes[..16], *b"\0\0\0\0\0\0\0\x09\0\0\0\x01\0\0\0\x05");
    assert_eq!(bytes[16..56], [[b'h'; 20], [b'p'; 20]].concat());
    assert_eq!(
        bytes[56..],
        *b"\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\x03\0\0\0\x02\0\0\0\0\0\0\0\x07\xff\xff\xff\xff\x1a\xe1"
    );
    // BEP 41 options after it are ignored.
    let longer = [&bytes[..], b"\x02\x01/"].concat();
    assert_eq!(Request::decode(&longer), Ok(announce));
}

#[test]
fn responses_are_golden() {
    let announce = Response::Announce {
        transaction: 5,
        response: response(&["10.1.2.3:6881", "[fd00::1]:2"]),
    };
    assert_eq!(
        announce.encode(Family::V4),
        b"\0\0\0\x01\0\0\0\x05\0\0\0\x0f\0\0\0\x02\0\0\0\x01\x0a\x01\x02\x03\x1a\xe1"
    );
    assert_eq!(announce.encode(Family::V6)[20..], *b"\xfd\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\0\x02");
    let error = Response::Error { transaction: 5, message: "no".to_owned() };
    assert_eq!(error.encode(Family::V4), b"\0\0\0\x03\0\0\0\x05no");
    assert_eq!(Response::decode(&error.encode(Family::V4), Family::V4), Ok(error));
    let scrape = Response::Scrape {
        transaction: 5,
        stats: vec![ScrapeStats { complete: 1, downloaded: 2, incomplete: 3 }],
    };
    assert_eq!(scrape.encode(Family::V4), b"\0\0\0\x02\0\0\0\x05\0\0\0\x01\0\0\0\x02\0\0\0\x03");
    assert_eq!(Response::decode(&scrape.encode(Family::V6), Family::V6), Ok(scrape));
}

#[test]
fn hostile_requests_are_refused() {
    let check = |packet: &[u8], expect| assert_eq!(Request::decode(packet), Err(expect));
    check(b"", DecodeError::Short);
    check(&[0; 15], DecodeError::Short);
    check(&[0; 16], DecodeError::Action);
    check(b"\0\0\0\0\0\0\0\0\0\0\0\x04\0\0\0\0", DecodeError::Action);
    let mut announce =
        Request::Announce { connection: 0, transaction: 0, request: request() }.encode();
    check(&announce[..97], DecodeError::Short);
    announce[96..].fill(0);
    check(&announce, DecodeError::Port);
    let head = b"\0\0\0\0\0\0\0\0\0\0\0\x02\0\0\0\0";
    check(head, DecodeError::List);
    check(&[&head[..], &[0; 21]].concat(), DecodeError::List);
    check(&[&head[..], &vec![0; 20 * (SCRAPE_MAX + 1)]].concat(), DecodeError::List);
}

#[test]
fn packets_never_exceed_the_limit() {
    let addrs: Vec<String> = (1..=500).map(|port| format!("10.0.0.1:{port}")).collect();
    let addrs: Vec<&str> = addrs.iter().map(String::as_str).collect();
    let announce = Response::Announce { transaction: 0, response: response(&addrs) };
    assert_eq!(announce.encode(Family::V4).len(), 20 + 238 * 6);
    let error = Response::Error { transaction: 0, message: "x".repeat(9999) };
    assert_eq!(error.encode(Family::V4).len(), PACKET_LEN_MAX);
    let hashes = vec![[0; 20]; SCRAPE_MAX + 9];
    let scrape = Request::Scrape { connection: 0, transaction: 0, info_hashes: hashes };
    assert!((PACKET_LEN_MAX - 19..=PACKET_LEN_MAX).contains(&scrape.encode().len()));
    assert!(Request::decode(&scrape.encode()).is_ok());
}

#[test]
fn connection_ids_last_two_minutes_at_one_address() {
    let ids = ConnectionIds::new([1; 32]);
    let ip: IpAddr = "10.0.0.1".parse().unwrap();
    let at = |seconds| Time::ZERO + Duration::from_secs(seconds);
    let id = ids.issue(at(59), ip);
    for (seconds, expect) in [(59, true), (60, true), (179, true), (180, false), (0, true)] {
        assert_eq!(ids.accepts(at(seconds), ip, id), expect, "{seconds}");
    }
    assert!(ids.accepts(at(59), "::ffff:10.0.0.1".parse().unwrap(), id));
    assert!(!ids.accepts(at(59), "10.0.0.2".parse().unwrap(), id));
    assert!(!ConnectionIds::new([2; 32]).accepts(at(59), ip, id));
}

proptest! {
    #[test]
    fn requests_are_read_back(connection: u64, transaction: u32, left: u64, event in 0..4usize, want: Option<u16>) {
        let request = AnnounceRequest {
            left: Some(left),
            event: [Event::Regular, Event::Started, Event::Completed, Event::Stopped][event],
            numwant: want.map(u32::from),
            ..request()
        };
        let announce = Request::Announce { connection, transaction, request };
        prop_assert_eq!(Request::decode(&announce.encode()), Ok(announce));
    }

    #[test]
    fn responses_are_read_back(transaction: u32, peers in prop::collection::vec((1u32..0xe000_0000, 1u16..), 0..50)) {
        let peers = peers.into_iter().map(|(ip, port)| ResponsePeer {
            addr: SocketAddr::new(IpAddr::V4(ip.into()), port),
            peer_id: None,
        });
        let response = AnnounceResponse { peers: peers.collect(), ..response(&[]) };
        let announce = Response::Announce { transaction, response };
        prop_assert_eq!(Response::decode(&announce.encode(Family::V4), Family::V4), Ok(announce));
    }

    #[test]
    fn no_bytes_panic(bytes: Vec<u8>) {
        let _ = Request::decode(&bytes);
        let _ = Response::decode(&bytes, Family::V4);
        let _ = Response::decode(&bytes, Family::V6);
    }
}
