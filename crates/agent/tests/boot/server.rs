//! A small HTTP server with what a lab publishes: files by path, ranges of them, reports.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use boot::Report;
use boot::report::{Answer, PROOF_FIELD};

const DEADLINE: Duration = Duration::from_secs(60);

const REPORTS: &str = "/api/v1/reports";

/// What every answer to a report gives.
pub(crate) const SECRET: &str = "1a-2b";

pub(crate) struct Server {
    addr: SocketAddr,
    shared: Arc<(Mutex<State>, Condvar)>,
}

#[derive(Default)]
struct State {
    files: BTreeMap<String, Vec<u8>>,
    requests: Vec<String>,
    reports: Vec<Report>,
    /// What each report brought as its secret.
    proofs: Vec<Option<String>>,
    serial: u64,
    /// What the tracker answers.
    peers: Vec<SocketAddr>,
}

impl Server {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let shared: Arc<(Mutex<State>, Condvar)> = Arc::default();
        let served = shared.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let shared = served.clone();
                std::thread::spawn(move || serve(stream.unwrap(), &shared));
            }
        });
        Self { addr, shared }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    pub(crate) fn put(&self, path: &str, bytes: Vec<u8>) {
        self.state().files.insert(path.to_owned(), bytes);
    }

    pub(crate) fn get(&self, path: &str) -> Vec<u8> {
        self.state().files[path].clone()
    }

    /// Takes away all that begins with `path`.
    pub(crate) fn remove(&self, path: &str) {
        self.state().files.retain(|name, _| !name.starts_with(path));
    }

    pub(crate) fn flip(&self, path: &str, at: usize) {
        self.state().files.get_mut(path).unwrap()[at] ^= 1;
    }

    /// Alters the first occurrence of `what`.
    pub(crate) fn flip_in(&self, path: &str, what: &[u8]) {
        let at = self.get(path).windows(what.len()).position(|window| window == what).unwrap();
        self.flip(path, at);
    }

    pub(crate) fn set_serial(&self, serial: u64) {
        self.state().serial = serial;
    }

    pub(crate) fn add_peer(&self, addr: SocketAddr) {
        self.state().peers.push(addr);
    }

    pub(crate) fn requests(&self) -> Vec<String> {
        self.state().requests.clone()
    }

    pub(crate) fn reports(&self) -> Vec<Report> {
        self.state().reports.clone()
    }

    pub(crate) fn proofs(&self) -> Vec<Option<String>> {
        self.state().proofs.clone()
    }

    pub(crate) fn wait_for_report(&self, fits: impl Fn(&Report) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        let mut state = self.state();
        while !state.reports.iter().any(&fits) {
            let left = deadline.checked_duration_since(Instant::now());
            let Some(left) = left else { panic!("no such report: {:#?}", state.reports) };
            state = self.shared.1.wait_timeout(state, left).unwrap().0;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.0.lock().unwrap()
    }
}

fn serve(mut stream: TcpStream, shared: &(Mutex<State>, Condvar)) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    loop {
        let (mut path, mut range, mut len, mut proof) = (String::new(), None, 0, None);
        let mut line = String::new();
        while reader.read_line(&mut line).unwrap_or(0) > 2 {
            let lower = line.trim().to_ascii_lowercase();
            if path.is_empty() {
                path = line.split(' ').nth(1).unwrap().to_owned();
            } else if let Some(value) = lower.strip_prefix("range: bytes=") {
                let (first, last) = value.split_once('-').unwrap();
                range = Some((first.parse().unwrap(), last.parse().unwrap()));
            } else if let Some(value) = lower.strip_prefix("content-length: ") {
                len = value.parse().unwrap();
            } else if let Some(value) = lower.strip_prefix(&format!("{PROOF_FIELD}: ")) {
                proof = Some(value.to_owned());
            }
            line.clear();
        }
        if path.is_empty() {
            return;
        }
        let mut body = vec![0; len];
        if reader.read_exact(&mut body).is_err() {
            return;
        }
        let (head, body) = {
            let mut state = shared.0.lock().unwrap();
            let path = current(&path);
            state.requests.push(path.clone());
            if path == REPORTS {
                state.proofs.push(proof);
            }
            let reply = reply(&mut state, &path, range, &body);
            shared.1.notify_all();
            reply
        };
        // The agent may have gone.
        if stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body)).is_err() {
            return;
        }
    }
}

/// An image has one version here.
fn current(path: &str) -> String {
    let name = path.strip_prefix("/versions/").and_then(|rest| rest.split_once('/'));
    name.map_or_else(|| path.to_owned(), |(_, rest)| format!("/images/{rest}"))
}

fn reply(
    state: &mut State,
    path: &str,
    range: Option<(usize, usize)>,
    body: &[u8],
) -> (String, Vec<u8>) {
    let head = |status: &str, extra: &str, len: usize| {
        format!("HTTP/1.1 {status}\r\n{extra}Content-Length: {len}\r\n\r\n")
    };
    if path == REPORTS {
        state.reports.push(serde_json::from_slice(body).unwrap());
        let answer = Answer {
            manifest_serial: state.serial,
            downloading: Some(0),
            proof: Some(SECRET.to_owned()),
            ..Answer::default()
        };
        let answer = serde_json::to_vec(&answer).unwrap();
        return (head("200 OK", "", answer.len()), answer);
    }
    if path.starts_with("/announce") {
        let mut answer = format!("d8:intervali60e5:peers{}:", state.peers.len() * 6).into_bytes();
        for peer in &state.peers {
            let SocketAddr::V4(peer) = peer else { panic!("{peer}") };
            answer.extend(peer.ip().octets());
            answer.extend(peer.port().to_be_bytes());
        }
        answer.push(b'e');
        return (head("200 OK", "", answer.len()), answer);
    }
    match (state.files.get(path), range) {
        (None, _) => (head("404 Not Found", "", 0), vec![]),
        (Some(file), None) => (head("200 OK", "", file.len()), file.clone()),
        (Some(file), Some((first, last))) => {
            let part = file[first..=last].to_vec();
            let extra = format!("Content-Range: bytes {first}-{last}/{}\r\n", file.len());
            (head("206 Partial Content", &extra, part.len()), part)
        }
    }
}
