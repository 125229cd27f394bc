//! Discovery with a tracker of one connection at a time, and with itself over loopback multicast.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use super::*;

const DEADLINE: Duration = Duration::from_secs(20);

fn start(port: u16, lsd: bool) -> (Discovery, Receiver<DiscoveryEvent>) {
    let (sender, events) = channel();
    let config = DiscoveryConfig {
        peer_id: [b'p'; 20],
        listen: ([127, 0, 0, 1], port).into(),
        random_seed: u64::from(port),
        lsd,
        user_agent: "test".to_owned(),
    };
    let report = move |event| {
        let _ = sender.send(event);
    };
    (Discovery::start(config, report).unwrap(), events)
}

fn wanted(trackers: &[&str], infohashes: &[[u8; 20]], left: u64) -> Wanted {
    let figures = Arc::new(Figures::default());
    figures.left.store(left, Ordering::Relaxed);
    Wanted {
        trackers: trackers.iter().map(|&url| vec![url.to_owned()]).collect(),
        infohashes: infohashes.to_vec(),
        is_private: false,
        figures,
    }
}

/// Answers every announce with one peer, and tells its request line.
fn tracker() -> (String, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/announce", listener.local_addr().unwrap());
    let (sender, requests) = channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = vec![];
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                if stream.read(&mut byte).unwrap() == 0 {
                    break;
                }
                head.push(byte[0]);
            }
            let body = b"d8:intervali900e5:peers6:\x0a\x00\x00\x02\x1a\xe1e";
            let length = body.len();
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n").unwrap();
            stream.write_all(body).unwrap();
            let line = String::from_utf8_lossy(&head).lines().next().unwrap_or("").to_owned();
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    (url, requests)
}

/// The next requests, in the order of their infohashes.
fn next<const N: usize>(requests: &Receiver<String>) -> [String; N] {
    let mut lines = [(); N].map(|()| requests.recv_timeout(DEADLINE).unwrap());
    lines.sort();
    lines
}

#[test]
fn both_swarms_are_announced_and_peers_asked_for_in_one() {
    let (url, requests) = tracker();
    let (discovery, events) = start(6881, false);
    let key = TorrentKey(7);
    let wanted = wanted(&[&url], &[[b'1'; 20], [b'2'; 20]], 500);
    let figures = wanted.figures.clone();
    discovery.join(key, wanted);
    let [v1, v2] = next(&requests);
    assert!(v1.contains("info_hash=11111111111111111111&"), "{v1}");
    assert!(v1.contains("&left=500&") && v1.contains("event=started"), "{v1}");
    assert!(!v1.contains("numwant=0"), "{v1}");
    assert!(v2.contains("info_hash=22222222222222222222&"), "{v2}");
    assert!(v2.contains("numwant=0"), "{v2}");
    match events.recv_timeout(DEADLINE).unwrap() {
        DiscoveryEvent::Found { torrent, addrs } => {
            assert_eq!((torrent, addrs), (key, vec!["10.0.0.2:6881".parse().unwrap()]));
        }
        other => panic!("{other:?}"),
    }
    figures.left.store(0, Ordering::Relaxed);
    figures.uploaded.store(9, Ordering::Relaxed);
    discovery.completed(key);
    for line in next::<2>(&requests) {
        assert!(line.contains("event=completed") && line.contains("&left=0"), "{line}");
        assert!(line.contains("uploaded=9&"), "{line}");
    }
    let begin = Instant::now();
    drop(discovery);
    assert!(begin.elapsed() < FAREWELL, "both have answered");
    for line in next::<2>(&requests) {
        assert!(line.contains("event=stopped"), "{line}");
    }
}

#[test]
fn farewell_to_a_dead_tracker_is_short() {
    // It takes connections, and never says a word after the first.
    let (url, requests) = tracker();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent_url = format!("http://{}/announce", silent.local_addr().unwrap());
    let (discovery, _events) = start(6881, false);
    discovery.join(TorrentKey(0), wanted(&[&url, &silent_url], &[[b'1'; 20]], 1));
    let [line] = next(&requests);
    assert!(line.contains("event=started"), "{line}");
    let begin = Instant::now();
    drop(discovery);
    assert!(begin.elapsed() < 2 * FAREWELL, "{:?}", begin.elapsed());
    let [line] = next(&requests);
    assert!(line.contains("event=stopped"), "{line}");
}

#[test]
fn failing_tracker_is_reported_once_and_named() {
    let (discovery, events) = start(6881, false);
    discovery.join(TorrentKey(3), wanted(&["http://127.0.0.1:1/announce"], &[[1; 20], [2; 20]], 1));
    match events.recv_timeout(DEADLINE).unwrap() {
        DiscoveryEvent::TrackerFailed { torrent, error } => {
            assert_eq!(torrent, TorrentKey(3));
            let expect = "tracker http://127.0.0.1:1/announce cannot be reached";
            assert_eq!(error.to_string(), expect);
        }
        other => panic!("{other:?}"),
    }
    drop(discovery);
    assert!(events.recv().is_err(), "nothing more was said");
}

#[test]
fn peers_hear_of_one_another_by_multicast() {
    let infohash = *b"of this test, alone!";
    let (first, first_events) = start(50_001, true);
    first.join(TorrentKey(0), wanted(&[], &[infohash], 1));
    // Who comes second announces itself; the first has the group joined before it is started.
    let (second, _second_events) = start(50_002, true);
    second.join(TorrentKey(0), wanted(&[], &[infohash], 1));
    match first_events.recv_timeout(DEADLINE).unwrap() {
        DiscoveryEvent::Found { torrent, addrs } => {
            assert_eq!((torrent, addrs), (TorrentKey(0), vec!["127.0.0.1:50002".parse().unwrap()]));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn private_torrents_are_not_looked_for_by_multicast() {
    let infohash = *b"of this one, hidden!";
    let (first, first_events) = start(50_003, true);
    first.join(TorrentKey(0), wanted(&[], &[infohash], 1));
    first.join(TorrentKey(1), wanted(&[], &[*b"of this one, public!"], 1));
    let (second, _second_events) = start(50_004, true);
    let hidden = Wanted { is_private: true, ..wanted(&[], &[infohash], 1) };
    second.join(TorrentKey(0), hidden);
    // What comes after it is heard, so it would have been.
    second.join(TorrentKey(1), wanted(&[], &[*b"of this one, public!"], 1));
    match first_events.recv_timeout(DEADLINE).unwrap() {
        DiscoveryEvent::Found { torrent, .. } => assert_eq!(torrent, TorrentKey(1)),
        other => panic!("{other:?}"),
    }
}
