//! A web seed against a small HTTP server, with the faults that servers have.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Instant;

use super::test_server::{Reply, Request, Server, partial, plain};
use super::*;
use crate::storage::FileSpan;

/// Far more than any step takes; only a test that fails waits for it.
const LONG: Duration = Duration::from_secs(60);

struct Collect {
    blocks: Mutex<BTreeMap<u64, Vec<u8>>>,
    piece_len: u64,
    /// Cancel after so many blocks.
    most: usize,
    ended: Sender<(u64, Result<(), WebSeedError>)>,
}

impl WebSeedSink for Arc<Collect> {
    fn block(&self, _: u64, block: Block, data: &[u8]) -> ControlFlow<()> {
        assert_eq!(data.len(), block.len as usize);
        let mut blocks = self.blocks.lock().unwrap();
        let start = u64::from(block.piece) * self.piece_len + u64::from(block.offset);
        blocks.insert(start, data.to_vec());
        if blocks.len() < self.most { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }

    fn ended(&self, fetch: u64, result: Result<(), WebSeedError>) {
        self.ended.send((fetch, result)).unwrap();
    }
}

/// A web seed of one file of pieces of 64 KiB, and what it gave.
struct Run {
    web_seed: WebSeed,
    collect: Arc<Collect>,
    ended: Receiver<(u64, Result<(), WebSeedError>)>,
}

impl Run {
    fn new(url: &str, layout: Layout, most: usize, patience: Duration) -> Self {
        let piece_len = layout.piece_len();
        let geometry = Geometry::contiguous(layout.total_len(), piece_len, piece_len).unwrap();
        let (send, ended) = channel();
        let collect = Arc::new(Collect {
            blocks: Mutex::default(),
            piece_len: u64::from(piece_len),
            most,
            ended: send,
        });
        let sink = Arc::clone(&collect);
        let web_seed = WebSeed::with_patience(url, layout, geometry, sink, patience).unwrap();
        Self { web_seed, collect, ended }
    }

    fn file(server: &Server, data: &[u8]) -> Self {
        Self::new(&server.url("/a"), one_file(data.len()), usize::MAX, LONG)
    }

    fn fetch(&self, units: std::ops::Range<u32>) -> Result<(), WebSeedError> {
        self.web_seed.fetch(Fetch { id: 7, units });
        let (id, result) = self.ended.recv_timeout(LONG).unwrap();
        assert_eq!(id, 7);
        result
    }

    /// All blocks so far, and where the first begins; they must be one run.
    fn data(&self) -> (u64, Vec<u8>) {
        let blocks = self.collect.blocks.lock().unwrap();
        let start = blocks.keys().next().copied().unwrap_or(0);
        let mut data = Vec::new();
        for (&at, block) in &*blocks {
            assert_eq!(at, start + data.len() as u64);
            data.extend_from_slice(block);
        }
        (start, data)
    }
}

fn one_file(len: usize) -> Layout {
    let span = FileSpan { path: "x".into(), start: 0, len: len as u64, padding: false };
    Layout::new(65_536, vec![span]).unwrap()
}

fn data(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at / 3 * 7 + at) as u8).collect()
}

#[test]
fn ranges_arrive_as_blocks_over_a_kept_connection() {
    let all = data(300_000);
    let served = all.clone();
    let server = Server::start(move |request| partial(&served, request.range));
    let run = Run::file(&server, &all);
    for (units, expect) in
        [(1..2, 65_536..131_072), (2..4, 65_536..262_144), (4..5, 65_536..300_000)]
    {
        run.fetch(units).unwrap();
        assert_eq!(run.data(), (65_536, all[expect].to_vec()));
    }
    assert_eq!(server.requests(), ["/a 65536-131071", "/a 131072-262143", "/a 262144-299999"]);
    assert_eq!(server.connection_count(), 1);
}

#[test]
fn files_of_a_torrent_are_asked_one_by_one_and_padding_not_at_all() {
    let span =
        |path: &str, start, len, padding| FileSpan { path: path.into(), start, len, padding };
    let layout = Layout::new(
        65_536,
        vec![
            span("t/a b", 0, 20_000, false),
            span("t/.pad", 20_000, 45_536, true),
            span("t/empty", 65_536, 0, false),
            span("t/d/c", 65_536, 10_000, false),
        ],
    )
    .unwrap();
    let served = data(20_000);
    let server = Server::start(move |request| {
        let len = if request.path.ends_with("c") { 10_000 } else { 20_000 };
        partial(&served[..len], request.range)
    });
    let run = Run::new(&server.url("/pub"), layout, usize::MAX, LONG);
    run.fetch(0..2).unwrap();
    let mut expect = data(20_000);
    expect.resize(65_536, 0);
    expect.extend(data(10_000));
    assert_eq!(run.data(), (0, expect));
    assert_eq!(server.requests(), ["/pub/t/a%20b 0-19999", "/pub/t/d/c 0-9999"]);
}

#[test]
fn a_body_that_is_cut_is_taken_up_where_it_broke_off() {
    let all = data(400_000);
    let served = all.clone();
    let server = Server::start(move |request| {
        let mut reply = partial(&served, request.range);
        if request.number < 2 {
            reply.body.truncate(10_001);
            reply.close = true;
        }
        reply
    });
    let run = Run::file(&server, &all);
    run.fetch(0..7).unwrap();
    assert_eq!(run.data(), (0, all));
    assert_eq!(server.requests(), ["/a 0-399999", "/a 10001-399999", "/a 20002-399999"]);
}

#[test]
fn a_server_that_breaks_off_again_and_again_is_given_up() {
    let all = data(400_000);
    let served = all.clone();
    let server = Server::start(move |request| {
        let mut reply = partial(&served, request.range);
        reply.body.truncate(1);
        reply.close = true;
        reply
    });
    let run = Run::file(&server, &all);
    let found = run.fetch(0..1);
    assert!(matches!(found, Err(WebSeedError::Short { .. })), "{found:?}");
    assert_eq!(server.requests().len(), 4);
}

#[test]
fn breaking_off_is_forgiven_as_long_as_much_arrives() {
    let all = data(400_000);
    let served = all.clone();
    let server = Server::start(move |request| {
        let mut reply = partial(&served, request.range);
        reply.close = reply.body.len() > 65_536;
        reply.body.truncate(65_536);
        reply
    });
    let run = Run::file(&server, &all);
    run.fetch(0..7).unwrap();
    assert_eq!(run.data(), (0, all));
    assert_eq!(server.requests().len(), 7);
}

#[test]
fn a_server_may_limit_its_answers() {
    let all = data(400_000);
    let served = all.clone();
    let server = Server::start(move |request| {
        let (first, last) = request.range;
        partial(&served, (first, last.min(first + 65_535)))
    });
    let run = Run::file(&server, &all);
    run.fetch(0..7).unwrap();
    assert_eq!(run.data(), (0, all));
    assert_eq!(server.requests().len(), 7);
}

#[test]
fn without_ranges_only_short_files_or_their_start_are_fetched() {
    let check = |len: usize, units: std::ops::Range<u32>, good: bool| {
        let all = data(len);
        let served = all.clone();
        let server = Server::start(move |_| plain("200 OK", "", &served));
        let run = Run::file(&server, &all);
        let found = run.fetch(units);
        if good {
            found.unwrap();
            let (start, data) = run.data();
            assert_eq!(data, all[start as usize..][..data.len()]);
            assert!(!data.is_empty());
        } else {
            assert!(matches!(found, Err(WebSeedError::NoRanges { .. })), "{found:?}");
        }
    };
    check(300_000, 2..3, true);
    check(300_000, 0..5, true);
    check(5 << 20, 0..1, true);
    check(5 << 20, 1..2, false);
}

/// One fetch of unit 1 of a file of 300,000 bytes, answered like this.
fn check_error(reply: impl Fn(&[u8], &Request) -> Reply + Send + Sync + 'static) -> WebSeedError {
    let all = data(300_000);
    let served = all.clone();
    let server = Server::start(move |request| reply(&served, request));
    let run = Run::file(&server, &all);
    let found = run.fetch(1..2).unwrap_err();
    assert!(found.to_string().starts_with("http://127.0.0.1:"), "{found}");
    assert_eq!(run.data(), (0, vec![]));
    found
}

#[test]
fn another_range_than_asked_for_is_refused() {
    let bad: [fn(&[u8], &Request) -> Reply; 5] = [
        |data, _| partial(data, (0, 65_535)),
        |data, request| partial(data, (request.range.0, request.range.1 + 1)),
        |data, request| partial(data, (request.range.0 - 1, request.range.1)),
        |_, _| plain("206 Partial Content", "", b"x"),
        |data, request| {
            let mut reply = partial(data, request.range);
            let at = reply.head.find("Content-Range").unwrap();
            reply.head.insert_str(at, "Content-Encoding: gzip\r\n");
            reply
        },
    ];
    for reply in bad {
        let found = check_error(reply);
        assert!(matches!(found, WebSeedError::WrongRange { .. }), "{found}");
        assert_eq!(found.retry_after(), None);
    }
}

#[test]
fn another_file_than_that_of_the_torrent_is_refused() {
    let bad: [fn(&[u8], &Request) -> Reply; 3] = [
        |data, request| partial(&data[..200_000], request.range),
        |data, _| plain("200 OK", "", &data[1..]),
        |_, _| plain("416 Range Not Satisfiable", "Content-Range: bytes */100\r\n", b""),
    ];
    for (reply, len) in bad.into_iter().zip([200_000, 299_999, 100]) {
        let found = check_error(reply);
        assert!(
            matches!(found, WebSeedError::WrongLen { expected: 300_000, found, .. } if found == len),
            "{found}"
        );
        assert_eq!(found.retry_after(), None);
    }
}

#[test]
fn a_busy_server_says_for_how_long() {
    let after = |headers: &'static str| {
        let found = check_error(move |_, _| plain("503 Service Unavailable", headers, b"later"));
        assert!(matches!(found, WebSeedError::Busy { .. }), "{found}");
        found.retry_after().unwrap().as_secs()
    };
    assert_eq!(after("Retry-After: 17\r\n"), 17);
    assert_eq!(after("Retry-After: 99999\r\n"), 60);
    assert_eq!(after("Retry-After: Wed, 21 Oct 2026 07:28:00 GMT\r\n"), 5);
    assert_eq!(after(""), 5);
}

#[test]
fn statuses_say_whether_to_try_again() {
    for (status, again) in [
        ("404 Not Found", false),
        ("403 Forbidden", false),
        ("500 Internal Server Error", true),
        ("502 Bad Gateway", true),
    ] {
        let found = check_error(move |_, _| plain(status, "", b"<html>"));
        assert!(matches!(found, WebSeedError::Status { .. }), "{found}");
        assert_eq!(found.retry_after().is_some(), again, "{status}");
    }
}

#[test]
fn redirects_are_followed_with_their_range_but_not_for_ever() {
    let all = data(300_000);
    let served = all.clone();
    let server = Server::start(move |request| match &*request.path {
        "/a" => plain("302 Found", "Location: /b\r\n", b""),
        _ => partial(&served, request.range),
    });
    let run = Run::file(&server, &all);
    run.fetch(1..2).unwrap();
    assert_eq!(run.data(), (65_536, all[65_536..131_072].to_vec()));
    assert_eq!(server.requests(), ["/a 65536-131071", "/b 65536-131071"]);

    let found = check_error(|_, _| plain("302 Found", "Location: /a\r\n", b""));
    assert!(matches!(found, WebSeedError::Redirects { .. }), "{found}");
    // To a server that is there, so that it is not the connection that fails.
    let tls = server.url("/").replace("http", "https");
    let to_tls =
        move |_: &[u8], _: &Request| plain("302 Found", &format!("Location: {tls}\r\n"), b"");
    let found = check_error(to_tls);
    assert!(matches!(found, WebSeedError::Scheme(_)), "{found}");
}

#[test]
fn a_server_that_stalls_is_left() {
    for sent in [None, Some(0), Some(100)] {
        let all = data(300_000);
        let served = all.clone();
        let server = Server::start(move |request| {
            let mut reply = partial(&served, request.range);
            reply.stall = true;
            reply.body.truncate(sent.unwrap_or(0));
            if sent.is_none() {
                reply.head.clear();
            }
            reply
        });
        let patience = Duration::from_millis(50);
        let run = Run::new(&server.url("/a"), one_file(all.len()), usize::MAX, patience);
        let start = Instant::now();
        let found = run.fetch(0..5);
        assert!(matches!(found, Err(WebSeedError::Stalled { .. })), "{found:?}");
        // The bound on the whole body alone would be half a minute.
        assert!(start.elapsed() < LONG / 3);
        assert!(found.unwrap_err().retry_after().is_some());
    }
}

#[test]
fn nobody_there_is_said_and_tried_again() {
    let addr = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let run = Run::new(&format!("http://{addr}/a"), one_file(1000), usize::MAX, LONG);
    let found = run.fetch(0..1).unwrap_err();
    assert!(matches!(found, WebSeedError::Lost { .. }), "{found:?}");
    assert!(found.retry_after().is_some());
}

#[test]
fn a_fetch_can_be_cancelled() {
    let all = data(300_000);
    let served = all.clone();
    let server = Server::start(move |request| partial(&served, request.range));
    let run = Run::new(&server.url("/a"), one_file(all.len()), 3, LONG);
    let found = run.fetch(0..5);
    assert!(matches!(found, Err(WebSeedError::Cancelled)), "{found:?}");
    assert_eq!(run.data(), (0, all[..3 * 16_384].to_vec()));
}

#[test]
fn two_fetches_are_under_way_at_once() {
    let all = data(300_000);
    let served = all.clone();
    // Each request is answered only once the other is there.
    let both = std::sync::Barrier::new(2);
    let server = Server::start(move |request| {
        both.wait();
        partial(&served, request.range)
    });
    let run = Run::file(&server, &all);
    for id in 0..2 {
        let at = id as u32;
        run.web_seed.fetch(Fetch { id, units: at..at + 1 });
    }
    let mut ids: Vec<_> = (0..2)
        .map(|_| {
            let (id, result) = run.ended.recv_timeout(LONG).unwrap();
            result.unwrap();
            id
        })
        .collect();
    ids.sort_unstable();
    assert_eq!(ids, [0, 1]);
    assert_eq!(run.data(), (0, all[..131_072].to_vec()));
}

#[test]
fn dropping_it_ends_what_is_under_way_in_silence() {
    let all = data(300_000);
    let served = all.clone();
    let (asked, was_asked) = channel();
    let server = Server::start(move |request| {
        let mut reply = partial(&served, request.range);
        reply.body.truncate(100);
        reply.stall = true;
        asked.send(()).unwrap();
        reply
    });
    let run = Run::file(&server, &all);
    run.web_seed.fetch(Fetch { id: 1, units: 0..5 });
    was_asked.recv_timeout(LONG).unwrap();
    let start = Instant::now();
    let Run { web_seed, collect, ended } = run;
    drop(web_seed);
    drop(collect);
    // The threads hold the sink, so this ends when they have ended; they would wait for minutes.
    assert_eq!(ended.recv_timeout(LONG).unwrap_err(), RecvTimeoutError::Disconnected);
    assert!(start.elapsed() < LONG / 2);
}
