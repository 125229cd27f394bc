use super::*;
use proptest::prelude::*;

const HASH: [u8; 20] =
    *b"\x12\x34\x56\x78\x9a\xbc\xde\xf1\x23\x45\x67\x89\xab\xcd\xef\x12\x34\x56\x78\x9a";
const REST: &str = "&peer_id=-XX0001-abcdefghijkl&port=6881&uploaded=1&downloaded=2&left=3";

fn request() -> AnnounceRequest {
    AnnounceRequest {
        info_hash: HASH,
        peer_id: *b"-XX0001-abcdefghijkl",
        port: 6881,
        uploaded: 1,
        downloaded: 2,
        left: Some(3),
        event: Event::Started,
        numwant: Some(10),
        key: Some(0xbeef),
    }
}

fn peer(addr: &str) -> ResponsePeer {
    ResponsePeer { addr: addr.parse().unwrap(), peer_id: None }
}

fn response(peers: &[&str]) -> AnnounceResponse {
    AnnounceResponse {
        interval: Duration::from_secs(15),
        interval_min: Some(Duration::from_secs(1)),
        complete: Some(1),
        incomplete: Some(2),
        peers: peers.iter().map(|addr| peer(addr)).collect(),
        ..AnnounceResponse::default()
    }
}

#[test]
fn query_as_in_the_specification_is_read() {
    let query = format!(
        "info_hash=%124Vx%9A%BC%DE%F1%23Eg%89%AB%CD%EF%124Vx%9A{REST}&event=completed&ip=10.0.0.9&compact=0"
    );
    let got = decode_announce_query(query.as_bytes()).unwrap();
    assert_eq!(got.request.info_hash, HASH);
    assert_eq!(got.request.event, Event::Completed);
    assert_eq!(got.request.left, Some(3));
    assert_eq!(got.ip, Some("10.0.0.9".parse().unwrap()));
    assert!(!got.compact);
}

#[test]
fn plus_is_itself() {
    let query = format!("info_hash=++++++++++++++++++++{REST}");
    let got = decode_announce_query(query.as_bytes()).unwrap();
    assert_eq!(got.request.info_hash, [b'+'; 20]);
}

#[test]
fn hostile_queries_are_refused() {
    let hash = "info_hash=aaaaaaaaaaaaaaaaaaaa";
    let check = |query: &str, expect: QueryError| {
        assert_eq!(decode_announce_query(query.as_bytes()), Err(expect), "{query}");
    };
    check("", QueryError::InfoHash);
    check("&&&=&=", QueryError::InfoHash);
    check(&format!("info_hash=aaaaaaaaaaaaaaaaaaa{REST}"), QueryError::InfoHash);
    check(&format!("info_hash=aaaaaaaaaaaaaaaaaaaaa{REST}"), QueryError::InfoHash);
    check(&format!("info_hash=%{REST}"), QueryError::Escape);
    check(&format!("info_hash=%g0{REST}"), QueryError::Escape);
    check(&format!("{hash}{REST}&x=%f"), QueryError::Escape);
    check(hash, QueryError::PeerId);
    let no_port = format!("{hash}&peer_id=aaaaaaaaaaaaaaaaaaaa");
    check(&no_port, QueryError::Port);
    for port in ["0", "-1", "65536", "http", ""] {
        check(&format!("{no_port}&port={port}"), QueryError::Port);
    }
    check(&format!("{no_port}&port=1&left=-1"), QueryError::Number("left"));
    check(
        &format!("{no_port}&port=1&uploaded=99999999999999999999"),
        QueryError::Number("uploaded"),
    );
    check(&"a".repeat(QUERY_LEN_MAX + 1), QueryError::TooLong);
}

#[test]
fn scrape_names_its_torrents() {
    let one = "info_hash=aaaaaaaaaaaaaaaaaaaa";
    let check = |query: &str, expect: Result<usize, QueryError>| {
        let got = decode_scrape_query(query.as_bytes()).map(|hashes| hashes.len());
        assert_eq!(got, expect);
    };
    check(&format!("{one}&{one}"), Ok(2));
    check("", Err(QueryError::ScrapeAll));
    check(&format!("{one}&info_hash=a"), Err(QueryError::InfoHash));
    check(&vec![one; SCRAPE_MAX].join("&"), Ok(SCRAPE_MAX));
    check(&vec![one; SCRAPE_MAX + 1].join("&"), Err(QueryError::ScrapeMax));
}

#[test]
fn announce_url_keeps_the_trackers_own_query() {
    let url = |url| encode_announce_url(url, &request(), Some(b"i d"));
    assert_eq!(
        url("http://t/announce"),
        "http://t/announce?info_hash=%124Vx%9A%BC%DE%F1%23Eg%89%AB%CD%EF%124Vx%9A\
         &peer_id=-XX0001-abcdefghijkl&port=6881&uploaded=1&downloaded=2&left=3&compact=1\
         &no_peer_id=1&numwant=10&key=0000beef&event=started&trackerid=i%20d"
    );
    assert!(url("http://t/a?k=1").starts_with("http://t/a?k=1&info_hash="));
    assert!(url("http://t/a?").starts_with("http://t/a?info_hash="));
    assert!(url("http://t/a#x").starts_with("http://t/a?info_hash="));
}

#[test]
fn scrape_url_is_the_announce_url_with_another_name() {
    let check = |url: &str, expect: Option<&str>| {
        assert_eq!(encode_scrape_url(url, &[*b"aaaaaaaaaaaaaaaaaaaa"]).as_deref(), expect);
    };
    check("http://t/announce", Some("http://t/scrape?info_hash=aaaaaaaaaaaaaaaaaaaa"));
    check(
        "http://t/x/announce.php?k=a/b",
        Some("http://t/x/scrape.php?k=a/b&info_hash=aaaaaaaaaaaaaaaaaaaa"),
    );
    check("http://t/a", None);
    check("http://t/announce/x", None);
}

#[test]
fn compact_response_is_golden() {
    let bytes = encode_announce_response(&response(&["10.1.2.3:6881", "[fd00::1]:2"]), true, false);
    assert_eq!(
        bytes,
        b"d8:completei1e10:incompletei2e8:intervali15e12:min intervali1e5:peers6:\x0a\x01\x02\x03\x1a\xe1\
          6:peers618:\xfd\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x02e"
    );
}

#[test]
fn dictionary_response_is_golden() {
    let mut response = response(&["10.1.2.3:6881"]);
    response.peers[0].peer_id = Some(*b"-XX0001-abcdefghijkl");
    assert_eq!(
        encode_announce_response(&response, false, false),
        b"d8:completei1e10:incompletei2e8:intervali15e12:min intervali1e5:peersl\
          d2:ip8:10.1.2.37:peer id20:-XX0001-abcdefghijkl4:porti6881eeee"
    );
    assert!(
        !encode_announce_response(&response, false, true).windows(7).any(|at| at == b"peer id")
    );
}

#[test]
fn response_of_a_sloppy_tracker_is_read() {
    // Keys out of order, a host name, a port 0, no ids, unknown keys, a newline.
    let body = b"d5:peersld4:porti1e2:ip8:10.0.0.1ed2:ip4:host4:porti1eed2:ip8:10.0.0.14:porti0ee\
                 d2:ip16:::ffff:10.0.0.2 4:porti1eed2:ip7:fd00::14:porti7eeli1eei5ee\
                 8:intervali1800e1:xd1:yleee\n";
    let got = decode_announce_response(body).unwrap();
    assert_eq!(got.peers, [peer("10.0.0.1:1"), peer("[fd00::1]:7")]);
    assert_eq!(got.interval, Duration::from_secs(1800));
    assert_eq!(got.interval_min, None);
}

#[test]
fn broken_responses_are_errors() {
    let check = |body: &[u8], expect: ResponseError| {
        assert_eq!(decode_announce_response(body), Err(expect));
    };
    check(b"<html>", ResponseError::Bencode);
    check(b"i1e", ResponseError::Bencode);
    check(b"de", ResponseError::Interval);
    check(b"d8:intervali-1ee", ResponseError::Interval);
    check(b"d8:intervali1e5:peers5:aaaaae", ResponseError::Peers);
    check(b"d8:intervali1e5:peersi1ee", ResponseError::Peers);
    check(b"d8:intervali1e6:peers61:ae", ResponseError::Peers);
    check(&encode_failure("no\x1b[2J"), ResponseError::Failure("no [2J".to_owned()));
    check(&vec![b' '; RESPONSE_LEN_MAX + 1], ResponseError::Bencode);
}

#[test]
fn surplus_peers_are_left_out() {
    let mut many = response(&[]);
    for port in 1..=RESPONSE_PEERS_MAX as u16 + 5 {
        many.peers.push(peer(&format!("10.0.0.1:{port}")));
    }
    many.peers.push(peer("[fd00::1]:1"));
    for compact in [true, false] {
        let got =
            decode_announce_response(&encode_announce_response(&many, compact, true)).unwrap();
        assert_eq!(got.peers.len(), RESPONSE_PEERS_MAX);
    }
}

#[test]
fn scrape_response_is_golden() {
    let stats = ScrapeStats { complete: 1, downloaded: 2, incomplete: 3 };
    let bytes = encode_scrape_response(&[([b'b'; 20], stats), ([b'a'; 20], stats)]);
    assert_eq!(
        bytes,
        b"d5:filesd20:aaaaaaaaaaaaaaaaaaaad8:completei1e10:downloadedi2e10:incompletei3ee\
          20:bbbbbbbbbbbbbbbbbbbbd8:completei1e10:downloadedi2e10:incompletei3eeee"
    );
    assert_eq!(decode_scrape_response(&bytes), Ok(vec![([b'a'; 20], stats), ([b'b'; 20], stats)]));
    assert_eq!(decode_scrape_response(b"de"), Err(ResponseError::Files));
}

prop_compose! {
    fn any_request()(
        info_hash: [u8; 20], peer_id: [u8; 20], port in 1u16.., uploaded: u64, downloaded: u64,
        left: Option<u64>, event in 0..4, numwant: Option<u32>, key: Option<u32>,
    ) -> AnnounceRequest {
        let event = [Event::Regular, Event::Started, Event::Completed, Event::Stopped][event as usize];
        AnnounceRequest { info_hash, peer_id, port, uploaded, downloaded, left, event, numwant, key }
    }
}

proptest! {
    #[test]
    fn announce_url_is_read_back(request in any_request(), id: Option<[u8; 5]>) {
        let url = encode_announce_url("http://t/announce", &request, id.as_ref().map(|id| &id[..]));
        let query = url.split_once('?').unwrap().1;
        prop_assert_eq!(decode_announce_query(query.as_bytes()).unwrap().request, request);
    }

    #[test]
    fn responses_are_read_back(
        v4 in prop::collection::vec((1u32..0xe000_0000, 1u16..), 0..20),
        v6 in prop::collection::vec((1u64.., 1u16..), 0..20),
        interval: u32, min: Option<u32>, complete: Option<u32>, id: Option<Vec<u8>>, compact: bool,
    ) {
        let v4 = v4.into_iter().map(|(ip, port)| SocketAddr::new(IpAddr::V4(ip.into()), port));
        let v6 = v6.into_iter().map(|(ip, port)| {
            SocketAddr::new(IpAddr::V6(((0xfd00 << 112) | u128::from(ip)).into()), port)
        });
        let response = AnnounceResponse {
            interval: Duration::from_secs(interval.into()),
            interval_min: min.map(|min| Duration::from_secs(min.into())),
            tracker_id: id,
            complete,
            incomplete: None,
            warning: None,
            peers: bare(v4.chain(v6).collect()),
        };
        let bytes = encode_announce_response(&response, compact, true);
        prop_assert_eq!(decode_announce_response(&bytes), Ok(response));
    }

    #[test]
    fn no_bytes_panic(bytes: Vec<u8>) {
        let _ = decode_announce_query(&bytes);
        let _ = decode_scrape_query(&bytes);
        let _ = decode_announce_response(&bytes);
        let _ = decode_scrape_response(&bytes);
    }
}
