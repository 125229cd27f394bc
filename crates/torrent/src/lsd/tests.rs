//! Announces, written and read, and when they are sent.

use super::*;
use proptest::prelude::*;

const A: [u8; 20] = [0xaa; 20];
const B: [u8; 20] = [0xbb; 20];

fn secs(secs: u64) -> Time {
    Time::ZERO + Duration::from_secs(secs)
}

fn encoded(announce: &Announce<'_>, group: Group) -> Vec<u8> {
    let mut out = vec![];
    announce.encode(group, &mut out);
    out
}

#[test]
fn announce_is_laid_out_as_bep_14_says() {
    let announce = Announce { port: 6881, infohashes: vec![A, B], cookie: Some(b"c00c1e") };
    let rest = format!(
        "Port: 6881\r\nInfohash: {}\r\nInfohash: {}\r\ncookie: c00c1e\r\n\r\n\r\n",
        "aa".repeat(20),
        "bb".repeat(20)
    );
    for (group, host) in
        [(Group::V4, "239.192.152.143:6771"), (Group::V6, "[ff15::efc0:988f]:6771")]
    {
        let expect = format!("BT-SEARCH * HTTP/1.1\r\nHost: {host}\r\n{rest}");
        let bytes = encoded(&announce, group);
        assert_eq!(String::from_utf8_lossy(&bytes), expect);
        assert_eq!(Announce::decode(&bytes), Ok(announce.clone()));
    }
}

#[test]
fn foreign_announces_are_understood() {
    let hash = "AA".repeat(20);
    let check = |datagram: String, cookie: Option<&[u8]>| {
        let expect = Announce { port: 80, infohashes: vec![A], cookie };
        assert_eq!(Announce::decode(datagram.as_bytes()), Ok(expect), "{datagram}");
    };
    let start = "BT-SEARCH * HTTP/1.1\r\n";
    check(format!("{start}Port: 80\r\nInfohash: {hash}\r\n\r\n"), None);
    check(format!("{start}INFOHASH:{hash}\r\nport:80\r\nCOOKIE:x\r\n"), Some(b"x"));
    check(format!("{start}Port: 80\nX: y\nInfohash: {hash}\nInfohash: {hash}"), None);
    check(format!("{start}Port: 80\r\nInfohash: {hash}{hash}\r\nInfohash: {hash}"), None);
}

#[test]
fn what_is_no_announce_is_refused() {
    let hash = "aa".repeat(20);
    let start = "BT-SEARCH * HTTP/1.1\r\n";
    let check = |datagram: String, expect| {
        assert_eq!(Announce::decode(datagram.as_bytes()), Err(expect), "{datagram}");
    };
    check(String::new(), DecodeError::NotSearch);
    check("M-SEARCH * HTTP/1.1\r\n".into(), DecodeError::NotSearch);
    check(format!("{start}Infohash: {hash}"), DecodeError::Port);
    for port in ["0", "65536", "+1", "", "x"] {
        check(format!("{start}Port: {port}\r\nInfohash: {hash}"), DecodeError::Port);
    }
    check(format!("{start}Port: 1"), DecodeError::Infohash);
    check(format!("{start}Port: 1\r\nInfohash: {}", &hash[1..]), DecodeError::Infohash);
    check(format!("{start}Port: 1\r\nInfohash: zz{}", &hash[2..]), DecodeError::Infohash);
    let long = "c".repeat(COOKIE_LEN_MAX + 1);
    check(format!("{start}Port: 1\r\ncookie: {long}"), DecodeError::Cookie);
    check(format!("{start}Port: 1\r\ncookie: a b"), DecodeError::Cookie);
    check(" ".repeat(1401), DecodeError::TooLong(1401));
}

#[test]
fn surplus_infohashes_are_not_read() {
    let many: String = (0..26).map(|at| format!("\nInfohash:{at:040x}")).collect();
    let datagram = format!("BT-SEARCH * HTTP/1.1\nPort:1{many}");
    let announce = Announce::decode(datagram.as_bytes()).unwrap();
    assert_eq!(announce.infohashes.len(), INFOHASHES_MAX);
}

#[test]
fn largest_announce_fits_a_datagram() {
    let infohashes = (0..INFOHASHES_MAX as u8).map(|at| [at; 20]).collect();
    let announce = Announce { port: 65535, infohashes, cookie: Some(&[b'c'; 16]) };
    for group in Group::ALL {
        assert!(encoded(&announce, group).len() <= DATAGRAM_LEN_MAX);
    }
}

fn join(lsd: &mut Lsd, now: Time, infohash: [u8; 20]) {
    lsd.handle(now, Input::Joined { infohash, private: false });
}

/// The infohashes that were announced since the last call, once the groups agree on them.
fn announced(lsd: &mut Lsd) -> Vec<[u8; 20]> {
    let sent: Vec<_> = std::iter::from_fn(|| lsd.poll())
        .map(|output| match output {
            Output::Send { group, datagram } => {
                (group, Announce::decode(&datagram).unwrap().infohashes)
            }
            Output::Found { .. } => panic!("nobody is there"),
        })
        .collect();
    match &sent[..] {
        [] => vec![],
        [(Group::V4, v4), (Group::V6, v6)] => {
            assert_eq!(v4, v6);
            v4.clone()
        }
        _ => panic!("{sent:?}"),
    }
}

#[test]
fn announces_at_once_and_then_every_five_minutes() {
    let mut lsd = Lsd::new(6881, 1);
    assert_eq!(lsd.next_timeout(), Time::NEVER);
    let mut now = secs(10);
    join(&mut lsd, now, A);
    assert_eq!(announced(&mut lsd), [A]);
    for _ in 0..10 {
        let pause = lsd.next_timeout() - now;
        assert!((INTERVAL..=INTERVAL + JITTER_MAX).contains(&pause), "{pause:?}");
        let early = now + (pause - Duration::from_nanos(1));
        lsd.handle(early, Input::Tick);
        assert!(announced(&mut lsd).is_empty());
        now += pause;
        lsd.handle(now, Input::Tick);
        assert_eq!(announced(&mut lsd), [A]);
    }
}

#[test]
fn second_swarm_waits_for_the_minute_to_pass() {
    let mut lsd = Lsd::new(6881, 1);
    join(&mut lsd, secs(0), A);
    assert_eq!(announced(&mut lsd), [A]);
    join(&mut lsd, secs(1), B);
    assert!(announced(&mut lsd).is_empty());
    assert_eq!(lsd.next_timeout(), secs(60));
    lsd.handle(secs(60), Input::Tick);
    assert_eq!(announced(&mut lsd), [B]);
}

#[test]
fn joining_again_does_not_announce_again() {
    let mut lsd = Lsd::new(6881, 1);
    join(&mut lsd, secs(0), A);
    announced(&mut lsd);
    join(&mut lsd, secs(90), A);
    assert!(announced(&mut lsd).is_empty());
}

#[test]
fn many_swarms_take_turns() {
    let mut lsd = Lsd::new(6881, 1);
    for at in 0..=TORRENTS_MAX as u8 {
        join(&mut lsd, secs(0), [at; 20]);
    }
    let mut all = announced(&mut lsd);
    assert_eq!(all.len(), 1);
    for minute in 1..=5 {
        lsd.handle(secs(60 * minute), Input::Tick);
        let turn = announced(&mut lsd);
        assert!(!turn.is_empty() && turn.len() <= INFOHASHES_MAX);
        all.extend(turn);
    }
    all.sort_unstable();
    let expect: Vec<_> = (0..TORRENTS_MAX as u8).map(|at| [at; 20]).collect();
    assert_eq!(all, expect);
}

#[test]
fn private_and_left_swarms_are_neither_announced_nor_found() {
    let mut lsd = Lsd::new(6881, 1);
    lsd.handle(secs(0), Input::Joined { infohash: A, private: true });
    assert_eq!(lsd.next_timeout(), Time::NEVER);
    join(&mut lsd, secs(0), B);
    assert_eq!(announced(&mut lsd), [B]);
    lsd.handle(secs(0), Input::Left { infohash: B });
    assert_eq!(lsd.next_timeout(), Time::NEVER);
    let theirs = Announce { port: 1, infohashes: vec![A, B], cookie: None };
    let bytes = encoded(&theirs, Group::V4);
    let from = "10.0.0.9:6771".parse().unwrap();
    lsd.handle(secs(1), Input::Datagram { from, bytes: &bytes });
    assert_eq!(lsd.poll(), None);
}

#[test]
fn peers_of_our_swarms_are_found_where_they_listen() {
    let mut lsd = Lsd::new(6881, 1);
    join(&mut lsd, secs(0), A);
    announced(&mut lsd);
    let mut check = |from: &str, port, cookie: Option<&[u8]>, expect: Option<&str>| {
        let theirs = Announce { port, infohashes: vec![B, A], cookie };
        let bytes = encoded(&theirs, Group::V4);
        let from = from.parse().unwrap();
        lsd.handle(secs(1), Input::Datagram { from, bytes: &bytes });
        let addr = expect.map(|addr| addr.parse().unwrap());
        let found = addr.map(|addr| Output::Found { infohash: A, addr });
        assert_eq!(lsd.poll(), found);
        assert_eq!(lsd.poll(), None);
    };
    check("10.0.0.9:6771", 7000, None, Some("10.0.0.9:7000"));
    check("[fe80::9%3]:6771", 7000, Some(b"other"), Some("[fe80::9%3]:7000"));
    check("0.0.0.0:6771", 7000, None, None);
    // Our own, heard back through the group.
    check("10.0.0.1:6771", 6881, Some(b"0000000000000001"), None);
}

proptest! {
    #[test]
    fn announces_survive_the_wire(
        port in 1u16..,
        infohashes in prop::collection::btree_set(any::<[u8; 20]>(), 1..=INFOHASHES_MAX),
        cookie in prop::option::of("[!-~]{0,16}"),
    ) {
        let infohashes = infohashes.into_iter().collect();
        let cookie = cookie.as_deref().map(str::as_bytes);
        let announce = Announce { port, infohashes, cookie };
        let bytes = encoded(&announce, Group::V6);
        prop_assert_eq!(Announce::decode(&bytes), Ok(announce));
    }

    #[test]
    fn noise_is_passed_over(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut lsd = Lsd::new(6881, 1);
        join(&mut lsd, secs(0), A);
        announced(&mut lsd);
        let from = "10.0.0.9:6771".parse().unwrap();
        lsd.handle(secs(1), Input::Datagram { from, bytes: &bytes });
        prop_assert_eq!(lsd.poll(), None);
    }

    #[test]
    fn never_two_announces_within_a_minute(
        joins in prop::collection::vec((0u64..400, any::<u8>()), 1..60), seed: u64,
    ) {
        let mut lsd = Lsd::new(6881, seed);
        let (mut joins, mut last) = (joins, None::<Time>);
        joins.sort_unstable();
        for (at, infohash) in joins {
            while lsd.next_timeout() < secs(at) {
                let now = lsd.next_timeout();
                lsd.handle(now, Input::Tick);
                prop_assert!(!announced(&mut lsd).is_empty());
                prop_assert!(last.is_none_or(|last| now - last >= INTERVAL_MIN));
                last = Some(now);
            }
            join(&mut lsd, secs(at), [infohash; 20]);
            if !announced(&mut lsd).is_empty() {
                prop_assert!(last.is_none_or(|last| secs(at) - last >= INTERVAL_MIN));
                last = Some(secs(at));
            }
        }
    }
}
