//! The built program as a tracker, over real sockets on loopback.

// Clippy knows the tests here, but not what they share.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use torrent::tracker::{AnnounceRequest, AnnounceResponse, Event};
use torrent_io::tracker_client::{Announce, Timeouts, TrackerClient};

struct Tracker {
    child: Child,
    /// Kept open: whoever prints into a closed pipe fails.
    out: BufReader<ChildStdout>,
    http: String,
    udp: String,
    addr: SocketAddr,
}

impl Tracker {
    fn start(listen: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_boottorrent"))
            .args(["tracker", "--listen", listen, "-o", "json"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        let ready: serde_json::Value = serde_json::from_str(&line).unwrap();
        let url = |key: &str| ready[key].as_str().unwrap().to_owned();
        let (http, udp) = (url("http"), url("udp"));
        let addr = http.split('/').nth(2).unwrap().parse().unwrap();
        assert_eq!(ready["event"], "listening");
        assert_eq!(udp, http.replace("http:", "udp:"));
        Self { child, out, http, udp, addr }
    }

    fn get(&self, path: &str) -> Vec<u8> {
        let mut stream = TcpStream::connect(self.addr).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.addr).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let head_len = answer.windows(4).position(|at| at == b"\r\n\r\n").unwrap() + 4;
        answer.split_off(head_len)
    }

    /// Sends the signal; returns exit code, and how long it took.
    fn stop(mut self, signal: Signal) -> (Option<i32>, Duration) {
        let begin = Instant::now();
        kill_process(Pid::from_child(&self.child), signal).unwrap();
        let status = self.child.wait().unwrap();
        let mut rest = String::new();
        self.out.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "");
        (status.code(), begin.elapsed())
    }
}

impl Drop for Tracker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn announce(url: &str, port: u16, left: u64, event: Event) -> AnnounceResponse {
    let (sender, outcomes) = mpsc::channel();
    let client = TrackerClient::new("test", Timeouts::default(), move |outcome| {
        sender.send(outcome).expect("the test waits");
    });
    client.announce(Announce {
        token: 0,
        url: url.to_owned(),
        request: AnnounceRequest {
            info_hash: *b"\x00\xff%&=+ hash of bytes",
            peer_id: *b"-XX0001-abcdefghijkl",
            port,
            uploaded: 0,
            downloaded: 0,
            left: Some(left),
            event,
            numwant: None,
            key: None,
        },
        tracker_id: None,
    });
    outcomes.recv().unwrap().result.unwrap()
}

fn ports(response: &AnnounceResponse) -> Vec<u16> {
    let mut ports: Vec<u16> = response.peers.iter().map(|peer| peer.addr.port()).collect();
    ports.sort_unstable();
    ports
}

#[test]
fn peers_of_http_and_udp_find_one_another() {
    let tracker = Tracker::start("127.0.0.1:0");
    let seed = announce(&tracker.http, 1, 0, Event::Started);
    assert!(ports(&seed).is_empty());
    assert_eq!(seed.interval, Duration::from_secs(15));
    assert_eq!(seed.interval_min, Some(Duration::from_secs(1)));
    let first = announce(&tracker.udp, 2, 9, Event::Started);
    assert_eq!(ports(&first), [1]);
    assert_eq!(first.interval, Duration::from_secs(15));
    let second = announce(&tracker.http, 3, 9, Event::Started);
    assert_eq!(ports(&second), [1, 2]);
    assert_eq!((second.complete, second.incomplete), (Some(1), Some(2)));
    let done = announce(&tracker.udp, 2, 0, Event::Completed);
    assert_eq!((done.complete, done.incomplete), (Some(2), Some(1)));
    announce(&tracker.http, 3, 9, Event::Stopped);

    let scrape = tracker.get("/scrape?info_hash=%00%ff%25%26%3d%2b%20hash%20of%20bytes");
    assert_eq!(
        scrape,
        b"d5:filesd20:\x00\xff%&=+ hash of bytesd8:completei2e10:downloadedi1e10:incompletei0eeee"
    );
    let stats: serde_json::Value = serde_json::from_slice(&tracker.get("/stats")).unwrap();
    assert_eq!(stats["peer_count"], 2);
    assert_eq!(stats["announce_count"]["http"], 3);
    assert_eq!(stats["announce_count"]["udp"], 2);
    assert_eq!(stats["torrents"][0]["completed_count"], 1);
    let page = String::from_utf8(tracker.get("/")).unwrap();
    assert!(
        page.contains("00ff25263d2b2068617368206f66206279746573      2       0         1     15 s"),
        "{page}"
    );
}

#[test]
fn one_socket_for_both_families() {
    let tracker = Tracker::start("[::]:0");
    let url = |host: &str| tracker.http.replace("[::]", host);
    announce(&url("127.0.0.1"), 1, 9, Event::Started);
    let second = announce(&url("127.0.0.1").replace("http", "udp"), 2, 9, Event::Started);
    assert_eq!(second.peers[0].addr, "127.0.0.1:1".parse().unwrap());
    let third = announce(&url("[::1]"), 3, 9, Event::Started);
    assert!(ports(&third).is_empty());
    let fourth = announce(&url("[::1]").replace("http", "udp"), 4, 9, Event::Started);
    assert_eq!(fourth.peers[0].addr, "[::1]:3".parse().unwrap());
}

#[test]
fn silent_connections_hold_up_nobody() {
    let tracker = Tracker::start("127.0.0.1:0");
    let silent: Vec<TcpStream> =
        (0..200).map(|_| TcpStream::connect(tracker.addr).unwrap()).collect();
    announce(&tracker.http, 1, 9, Event::Started);
    announce(&tracker.udp, 1, 9, Event::Started);
    assert_eq!(silent.len(), 200);
    assert_eq!(tracker.stop(Signal::TERM).0, Some(0));
}

#[test]
fn signals_end_it_at_once() {
    for signal in [Signal::INT, Signal::TERM] {
        let (code, took) = Tracker::start("127.0.0.1:0").stop(signal);
        assert_eq!(code, Some(0));
        assert!(took < Duration::from_secs(2), "{took:?}");
    }
}

#[test]
fn taken_port_is_an_error_that_names_it() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let output = Command::new(env!("CARGO_BIN_EXE_boottorrent"))
        .args(["tracker", "--listen", &addr])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        error,
        format!("boottorrent: cannot listen on {addr}: Address already in use (os error 98)\n")
    );
    assert_eq!(output.stdout, b"");
}

#[test]
fn text_output_says_where_it_listens() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_boottorrent"))
        .args(["tracker", "--listen", "127.0.0.1:0"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let addr = line.split(['/', ' ']).nth(5).unwrap();
    assert!(addr.parse::<SocketAddr>().is_ok(), "{addr}");
    assert_eq!(
        line,
        format!("tracker listening on http://{addr}/announce and udp://{addr}/announce\n")
    );
}
