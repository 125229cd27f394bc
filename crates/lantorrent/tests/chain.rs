//! Chains of real endpoints on loopback. What needs links that are slow or cut, and processes that
//! are killed, is in `cargo xtask interop lan`.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::unwrap_used,
    reason = "tests of the I/O"
)]

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use lantorrent::header::{Control, Destination, EOH, Extension, Header, MEASURE_LEN, Request};
use lantorrent::io::{Endpoint, Identity, Limits, Outcome, Roots, Serving, Shape, Source, send};
use lantorrent::plan::{self, Wanted};
use lantorrent::signature::{Compat, Password, Scheme};

/// Far longer than anything takes: a test that waits so long has failed.
const LONG: Duration = Duration::from_secs(60);

fn identity(compat: Compat) -> Identity {
    Identity { password: Password::new("secret"), compat }
}

/// An endpoint on loopback with a folder of its own.
struct Node {
    endpoint: Arc<Endpoint>,
    thread: Option<JoinHandle<()>>,
    address: SocketAddr,
    dir: tempfile::TempDir,
}

impl Node {
    fn start(compat: Compat) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), compat, Limits::default(), None)
    }

    fn start_in(
        dir: tempfile::TempDir,
        compat: Compat,
        limits: Limits,
        replay_file: Option<PathBuf>,
    ) -> Self {
        let roots = Roots::open(&[dir.path().to_owned()]).unwrap();
        let (identity, observer) = (identity(compat), Arc::new(|_: &_| ()));
        let names = vec![];
        let serving = Serving { roots, identity, limits, observer, replay_file, names };
        let endpoint = Arc::new(Endpoint::bind("127.0.0.1:0".parse().unwrap(), serving).unwrap());
        let address = endpoint.local_addr().unwrap();
        let running = Arc::clone(&endpoint);
        let thread = Some(std::thread::spawn(move || running.run()));
        Self { endpoint, thread, address, dir }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn wants(&self, name: &str) -> Wanted {
        wanted_at(self.address, &self.file(name))
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.dir.path()).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.endpoint.stop();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn wanted_at(address: SocketAddr, path: &Path) -> Wanted {
    let filename = path.display().to_string();
    let rename = filename != "/dev/null";
    let id = format!("{}{filename}", address.port());
    let request = Request { filename, id, rename };
    Wanted { host: address.ip().to_string(), port: address.port(), request }
}

/// An address where nobody listens.
fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Bytes that repeat nowhere.
fn content(len: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

struct Sent {
    outcome: Outcome,
    content: Vec<u8>,
}

fn transfer(len: usize, wanted: Vec<Wanted>, degree: u32, compat: Compat) -> Sent {
    let dir = tempfile::tempdir().unwrap();
    let content = content(len);
    fs::write(dir.path().join("source"), &content).unwrap();
    let source = Source::open(&dir.path().join("source")).unwrap();
    let destinations = plan::destinations(wanted, degree, source.length());
    let identity = Arc::new(identity(compat));
    let shape = Shape { degree, ..Shape::default() };
    let outcome = send(&source, destinations, shape, &identity, |_| (), |_, _| ()).unwrap();
    Sent { outcome, content }
}

impl Sent {
    fn codes(&self) -> Vec<u16> {
        self.outcome.reports.iter().map(|report| report.code).collect()
    }

    fn code_of(&self, wanted: &Wanted) -> u16 {
        let reports = &self.outcome.reports;
        reports.iter().find(|r| r.id.as_deref() == Some(&wanted.request.id)).unwrap().code
    }

    fn check(&self, node: &Node, name: &str) {
        assert!(fs::read(node.file(name)).unwrap() == self.content, "{name} is what was sent");
        assert!(!node.names().iter().any(|name| name.ends_with(".lantorrent")));
    }
}

#[test]
fn l8_a_chain_passes_on_while_it_receives_and_the_origin_sends_one_copy() {
    let nodes: Vec<Node> = (0..5).map(|_| Node::start(Compat::Off)).collect();
    let len = 3_000_001;
    let sent = transfer(len, nodes.iter().map(|node| node.wants("a")).collect(), 1, Compat::Off);
    assert_eq!(sent.codes(), [0; 5], "{:?}", sent.outcome.reports);
    assert_eq!(sent.outcome.sent, len as u64);
    nodes.iter().for_each(|node| sent.check(node, "a"));
}

#[test]
fn l24_trees_of_any_degree_reach_everybody_once() {
    for degree in [2, 3, 7] {
        let nodes: Vec<Node> = (0..7).map(|_| Node::start(Compat::Off)).collect();
        let wanted = nodes.iter().map(|node| node.wants("a")).collect();
        let sent = transfer(500_000, wanted, degree, Compat::Off);
        assert_eq!(sent.codes(), [0; 7], "degree {degree}");
        assert_eq!(sent.outcome.sent, 500_000 * u64::from(degree));
        nodes.iter().for_each(|node| sent.check(node, "a"));
    }
}

#[test]
fn l7_several_files_of_an_endpoint_travel_once() {
    let node = Node::start(Compat::Off);
    let wanted = ["a", "b", "c"].map(|name| node.wants(name)).to_vec();
    let sent = transfer(200_000, wanted, 1, Compat::Off);
    assert_eq!(sent.codes(), [0; 3]);
    assert_eq!(sent.outcome.sent, 200_000);
    ["a", "b", "c"].iter().for_each(|name| sent.check(&node, name));
}

#[test]
fn l13_each_file_reports_with_all_its_fields() {
    let nodes = [Node::start(Compat::Md5), Node::start(Compat::Md5)];
    let wanted: Vec<Wanted> = nodes.iter().map(|node| node.wants("a")).collect();
    let sent = transfer(1_000, wanted.clone(), 1, Compat::Md5);
    for wanted in &wanted {
        let mut reports = sent.outcome.reports.iter();
        let report = reports.find(|r| r.id.as_deref() == Some(&wanted.request.id)).unwrap();
        assert_eq!((report.code, report.port), (0, wanted.port));
        assert_eq!(report.file.as_deref(), Some(wanted.request.filename.as_str()));
        assert!(report.message.as_deref().unwrap().starts_with("Success"));
        assert_eq!(report.md5sum, sent.outcome.footer.md5sum);
        assert_eq!(report.sha256, sent.outcome.footer.sha256);
        assert!(report.md5sum.is_some() && report.sha256.is_some());
    }
}

#[test]
fn l15_unreachable_endpoints_are_reported_wherever_they_are() {
    for place in 0..3 {
        let nodes: Vec<Node> = (0..2).map(|_| Node::start(Compat::Off)).collect();
        let mut wanted: Vec<Wanted> = nodes.iter().map(|node| node.wants("a")).collect();
        let dead = wanted_at(nobody(), Path::new("/x"));
        wanted.insert(place, dead.clone());
        let sent = transfer(100_000, wanted, 1, Compat::Off);
        assert_eq!(sent.code_of(&dead), 505, "at {place}");
        assert_eq!(sent.codes().iter().filter(|code| **code == 0).count(), 2);
        nodes.iter().for_each(|node| sent.check(node, "a"));
    }
}

#[test]
fn l18_odd_lengths_and_dev_null_work() {
    for len in [0, 1, 11, 23, 53, 997, 5_093, 131_071, 131_072, 262_144, 262_145] {
        let nodes: Vec<Node> = (0..3).map(|_| Node::start(Compat::Off)).collect();
        let null = wanted_at(nodes[1].address, Path::new("/dev/null"));
        let sent =
            transfer(len, vec![nodes[0].wants("a"), null, nodes[2].wants("a")], 1, Compat::Off);
        assert_eq!(sent.codes(), [0; 3], "{len}");
        sent.check(&nodes[0], "a");
        sent.check(&nodes[2], "a");
        assert!(nodes[1].names().is_empty());
    }
}

/// Speaks to an endpoint by hand: header, signature under a password, payload and footer; what it
/// answers in the end.
fn speak(to: SocketAddr, header: &str, password: &str, scheme: Scheme, rest: &[u8]) -> String {
    let signature = Password::new(password).sign(scheme, header);
    let mut stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    let _ = stream.write_all(format!("{header}\n{EOH}{signature}\r\n").as_bytes());
    let _ = stream.write_all(rest);
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    answer
}

fn old_header(node: &Node, length: u64, destinations: Vec<Destination>) -> Header {
    let wanted = node.wants("a");
    Header {
        requests: vec![wanted.request],
        host: wanted.host,
        port: wanted.port,
        block_size: 131_072,
        degree: 1,
        length,
        destinations,
        boottorrent: None,
    }
}

#[test]
fn l10_a_wrong_password_is_denied_and_told_nothing() {
    let node = Node::start(Compat::Md5);
    let header = old_header(&node, 5, vec![]).encode();
    let answer = speak(node.address, &header, "wrong", Scheme::Md5, b"hello");
    assert!(answer.contains("\"code\":508"), "{answer}");
    let right = Password::new("secret");
    for scheme in [Scheme::Md5, Scheme::Sha1, Scheme::Sha256] {
        assert!(!answer.contains(&right.sign(scheme, &header)));
    }
    let lines: Vec<&str> = answer.lines().collect();
    assert_eq!(lines.len(), 1, "{answer}");
    // Without any signature it is the same.
    let mut stream = TcpStream::connect(node.address).unwrap();
    stream.write_all(format!("{header}\n").as_bytes()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut unsigned = String::new();
    stream.read_to_string(&mut unsigned).unwrap();
    assert_eq!(unsigned, answer);
    assert!(node.names().is_empty(), "nothing is written");
}

#[test]
fn l10_old_signatures_are_denied_without_compat() {
    let node = Node::start(Compat::Off);
    let header = old_header(&node, 5, vec![]).encode();
    for scheme in [Scheme::Md5, Scheme::Sha1, Scheme::Sha256] {
        let answer = speak(node.address, &header, "secret", scheme, b"hello");
        assert!(answer.contains("\"code\":508"), "{answer}");
    }
    assert!(node.names().is_empty());
}

#[test]
fn what_is_measured_with_is_answered_when_it_is_all_there_and_written_nowhere() {
    let node = Node::start(Compat::Off);
    let header = |nonce: &str| {
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let (transfer, nonce, control) = ("t".into(), nonce.into(), Some(Control::Measure));
        let extension = Extension { transfer, time, nonce, depth: 0, is_moved: false, control };
        Header { boottorrent: Some(extension), ..old_header(&node, 5, vec![]) }.encode()
    };
    let whole = vec![0; MEASURE_LEN as usize];
    let short = &whole[1..];
    for (nonce, password, payload, expect) in [
        ("a", "secret", whole.as_slice(), "\"offset\":262144"),
        ("b", "wrong", whole.as_slice(), "\"code\":508"),
        ("c", "secret", short, ""),
    ] {
        let answer = speak(node.address, &header(nonce), password, Scheme::Sha256, payload);
        match expect {
            "" => assert_eq!(answer, "", "{nonce}"),
            expect => assert!(answer.contains(expect), "{nonce}: {answer}"),
        }
    }
    assert!(node.names().is_empty());
}

#[test]
fn l11_the_footer_decides() {
    for (footer, code) in [
        (r#"{"md5sum": "5d41402abc4b2a76b9719d911017c592"}"#, 0),
        (r#"{"md5sum": "5d41402abc4b2a76b9719d911017c593"}"#, 510),
        (r#"{}"#, 510),
    ] {
        let node = Node::start(Compat::Md5);
        let header = old_header(&node, 5, vec![]).encode();
        let rest = format!("hello{footer}");
        let answer = speak(node.address, &header, "secret", Scheme::Md5, rest.as_bytes());
        assert!(answer.contains(&format!("\"code\":{code}")), "{answer}");
        let expect: &[&str] = if code == 0 { &["a"] } else { &[] };
        assert_eq!(node.names(), expect);
    }
}

#[test]
fn l17_a_stream_cut_short_ends_at_once_and_leaves_nothing() {
    let node = Node::start(Compat::Md5);
    let header = old_header(&node, 1_000_000, vec![]).encode();
    let start = Instant::now();
    let answer = speak(node.address, &header, "secret", Scheme::Md5, b"hello");
    assert!(answer.contains("\"code\":506"), "{answer}");
    assert!(start.elapsed() < LONG);
    assert!(node.names().is_empty());
}

#[test]
fn l14_headers_that_are_none_have_codes() {
    let node = Node::start(Compat::Md5);
    let good = old_header(&node, 0, vec![]).encode();
    let lines = "\n".repeat(300);
    for (header, code) in [
        (format!("{{{lines}}}"), 501),
        (good.replace("\"degree\":1,", ""), 502),
        (good.replace("\"destinations\":[]", "\"destinations\":[{}]"), 504),
        (good.replace(&node.dir.path().display().to_string(), "/etc"), 503),
        (good.replace("\"degree\":1", "\"degree\":\"x\""), 502),
    ] {
        let answer = speak(node.address, &header, "secret", Scheme::Md5, b"{}");
        assert!(answer.contains(&format!("\"code\":{code}")), "{code}: {answer}");
    }
    assert!(node.names().is_empty());
}

/// An endpoint that does as told: reads the header, says something, and closes.
fn impostor(says: &'static [u8], reads_all: bool) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut buffer = vec![0; 1 << 16];
        let _ = stream.read(&mut buffer);
        let _ = stream.write_all(says);
        if reads_all {
            while matches!(stream.read(&mut buffer), Ok(1..)) {}
        }
        let _ = stream.shutdown(Shutdown::Both);
    });
    (address, thread)
}

#[test]
fn l14_what_other_endpoints_do_wrong_has_codes() {
    for (says, reads_all, code) in [
        (&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], false, 507),
        (&b""[..], true, 509),
        (&b""[..], false, 506),
        (&b"{\"code\": 500, \"host\": \"h\", \"port\": 1, \"file\": null, \"id\": null, \"message\": \"x\", \"md5sum\": null}"[..], false, 500),
    ] {
        let (address, thread) = impostor(says, reads_all);
        let node = Node::start(Compat::Md5);
        let bad = wanted_at(address, Path::new("/x"));
        let sent = transfer(8_000_000, vec![bad.clone(), node.wants("a")], 1, Compat::Md5);
        thread.join().unwrap();
        let found = sent.code_of(&bad);
        // Whether the connection breaks before or after the last byte is a matter of buffers.
        assert!(found == code || (code == 509 && found == 506), "{code} {found}");
        assert_eq!(sent.codes().len(), 2);
        assert!(sent.codes().contains(&0), "{code}: {:?}", sent.outcome.reports);
        sent.check(&node, "a");
    }
}

/// A transfer to a node, and the bytes that went over the wire.
fn heard(node: &Node) -> Vec<u8> {
    let (address, captured) = tap(node.address);
    let sent =
        transfer(1_000, vec![Wanted { port: address.port(), ..node.wants("a") }], 1, Compat::Off);
    assert_eq!(sent.codes(), [0]);
    fs::remove_file(node.file("a")).unwrap();
    captured.join().unwrap()
}

/// What is answered to bytes that somebody has heard.
fn say_again(to: SocketAddr, heard: &[u8]) -> String {
    let mut stream = TcpStream::connect(to).unwrap();
    let _ = stream.write_all(heard);
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    answer
}

#[test]
fn a_replayed_header_is_denied() {
    let node = Node::start(Compat::Off);
    let heard = heard(&node);
    let answer = say_again(node.address, &heard);
    assert!(answer.contains("\"code\":508"), "{answer}");
    assert!(node.names().is_empty());
}

#[test]
fn a_replayed_header_is_denied_after_a_restart() {
    let memory = tempfile::tempdir().unwrap();
    let start = || {
        let (dir, file) = (tempfile::tempdir().unwrap(), memory.path().join("seen"));
        Node::start_in(dir, Compat::Off, Limits::default(), Some(file))
    };
    let node = start();
    let heard = heard(&node);
    drop(node);
    let node = start();
    let answer = say_again(node.address, &heard);
    assert!(answer.contains("\"code\":508"), "{answer}");
}

#[test]
fn a_header_for_another_host_is_denied() {
    let node = Node::start(Compat::Off);
    let extension = |nonce: &str| Extension {
        transfer: nonce.to_owned(),
        time: SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs(),
        nonce: nonce.to_owned(),
        depth: 0,
        is_moved: false,
        control: None,
    };
    for (host, expect) in [("10.99.5.5", "508"), ("127.0.0.1", "hello"), ("localhost", "hello")] {
        let header = Header {
            host: host.to_owned(),
            boottorrent: Some(extension(host)),
            ..old_header(&node, 0, vec![])
        };
        let answer = speak(node.address, &header.encode(), "secret", Scheme::Sha256, b"");
        assert!(answer.contains(expect), "{host}: {answer}");
    }
}

#[test]
fn connections_that_say_nothing_keep_nobody_out() {
    let limits = Limits { connections: 8, ..Limits::default() };
    let node = Node::start_in(tempfile::tempdir().unwrap(), Compat::Off, limits, None);
    let idle: Vec<TcpStream> =
        (0..300).map(|_| TcpStream::connect(node.address).unwrap()).collect();
    let sent = transfer(1_000, vec![node.wants("a")], 1, Compat::Off);
    assert_eq!(sent.codes(), [0]);
    sent.check(&node, "a");
    drop(idle);
}

/// Passes one connection on, and keeps what the sender said.
fn tap(to: SocketAddr) -> (SocketAddr, JoinHandle<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let thread = std::thread::spawn(move || {
        let (mut sender, _) = listener.accept().unwrap();
        let mut node = TcpStream::connect(to).unwrap();
        let (mut back, mut answers) = (sender.try_clone().unwrap(), node.try_clone().unwrap());
        let answering = std::thread::spawn(move || {
            let _ = std::io::copy(&mut answers, &mut back);
            let _ = back.shutdown(Shutdown::Write);
        });
        let (mut all, mut buffer) = (Vec::new(), [0; 4096]);
        while let Ok(len @ 1..) = sender.read(&mut buffer) {
            all.extend_from_slice(&buffer[..len]);
            node.write_all(&buffer[..len]).unwrap();
        }
        let _ = node.shutdown(Shutdown::Write);
        answering.join().unwrap();
        all
    });
    (address, thread)
}

#[test]
fn a_payload_that_was_changed_on_the_way_is_refused_and_reported() {
    // Somebody who knows the password of the header but not of the footer cannot forge.
    let node = Node::start(Compat::Off);
    let mut header = old_header(&node, 5, vec![]);
    header.boottorrent = Some(Extension {
        transfer: "t".into(),
        time: SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs(),
        nonce: "n".into(),
        depth: 0,
        is_moved: false,
        control: None,
    });
    let sha = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
    let rest = format!("hello{{\"sha256\":\"{sha}\"}}");
    let text = header.encode();
    let answer = speak(node.address, &text, "secret", Scheme::Sha256, rest.as_bytes());
    assert!(answer.contains("\"code\":510"), "{answer}");
    assert!(node.names().is_empty());
}

#[test]
fn a_source_that_becomes_shorter_ends_the_transfer_with_a_report() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("source");
    fs::write(&path, content(1_000_000)).unwrap();
    let source = Source::open(&path).unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_len(10).unwrap();
    let node = Node::start(Compat::Off);
    let destinations = plan::destinations(vec![node.wants("a")], 1, source.length());
    let identity = Arc::new(identity(Compat::Off));
    let outcome =
        send(&source, destinations, Shape::default(), &identity, |_| (), |_, _| ()).unwrap();
    assert_eq!(outcome.reports[0].code, 500);
    assert!(outcome.reports[0].message.as_deref().unwrap().contains("shorter"));
}

#[test]
fn l19_a_cancelled_request_leaves_nothing_and_the_others_get_theirs() {
    let nodes: Vec<Node> = (0..3).map(|_| Node::start(Compat::Off)).collect();
    let dir = tempfile::tempdir().unwrap();
    let content = content(64_000_000);
    fs::write(dir.path().join("source"), &content).unwrap();
    let source = Source::open(&dir.path().join("source")).unwrap();
    let wanted: Vec<Wanted> = nodes.iter().map(|node| node.wants("a")).collect();
    let id = wanted[1].request.id.clone();
    let destinations = plan::destinations(wanted, 1, source.length());
    let identity = Arc::new(identity(Compat::Off));
    let cancel = |cancel: lantorrent::io::Cancel| cancel.cancel(vec![id.clone()]);
    let outcome =
        send(&source, destinations, Shape::default(), &identity, cancel, |_, _| ()).unwrap();
    for report in &outcome.reports {
        let expect = if report.id.as_ref() == Some(&id) { 500 } else { 0 };
        assert_eq!(report.code, expect, "{report:?}");
    }
    assert!(fs::read(nodes[2].file("a")).unwrap() == content);
}
