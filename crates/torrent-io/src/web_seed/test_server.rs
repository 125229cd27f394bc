//! A small HTTP server for tests, of the web seed here and of engines in `tests/engine`: each request
//! is answered as the test says, faults included.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

pub(crate) struct Request {
    pub(crate) path: String,
    /// First and last byte.
    pub(crate) range: (usize, usize),
    /// Which request it is, over all connections.
    pub(crate) number: usize,
}

pub(crate) struct Reply {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
    /// Close after the body, else keep.
    pub(crate) close: bool,
    /// Wait with the connection open, sending nothing.
    pub(crate) stall: bool,
}

pub(crate) struct Server {
    addr: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    connections: usize,
    requests: Vec<String>,
    /// Held open by stalls until the server goes.
    stalled: Vec<TcpStream>,
}

impl Server {
    pub(crate) fn start(reply: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let (reply, shared) = (Arc::new(reply), Arc::clone(&state));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                shared.lock().unwrap().connections += 1;
                let (reply, shared) = (Arc::clone(&reply), Arc::clone(&shared));
                std::thread::spawn(move || serve(stream.unwrap(), &*reply, &shared));
            }
        });
        Self { addr, state }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }

    #[allow(dead_code, reason = "one of the two crates that include this counts them")]
    pub(crate) fn connection_count(&self) -> usize {
        self.state.lock().unwrap().connections
    }

    pub(crate) fn requests(&self) -> Vec<String> {
        self.state.lock().unwrap().requests.clone()
    }
}

fn serve(mut stream: TcpStream, reply: &dyn Fn(&Request) -> Reply, state: &Mutex<State>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    loop {
        let mut path = String::new();
        let mut range = (0, 0);
        let mut line = String::new();
        while reader.read_line(&mut line).unwrap_or(0) > 2 {
            let lower = line.trim().to_ascii_lowercase();
            if path.is_empty() {
                path = line.split(' ').nth(1).unwrap().to_owned();
            } else if let Some(value) = lower.strip_prefix("range: bytes=") {
                let (first, last) = value.split_once('-').unwrap();
                range = (first.parse().unwrap(), last.parse().unwrap());
            }
            line.clear();
        }
        if path.is_empty() {
            return;
        }
        let number = {
            let mut state = state.lock().unwrap();
            state.requests.push(format!("{path} {}-{}", range.0, range.1));
            state.requests.len() - 1
        };
        let reply = reply(&Request { path, range, number });
        // The client may have gone on purpose.
        if stream.write_all(reply.head.as_bytes()).is_err()
            || stream.write_all(&reply.body).is_err()
        {
            return;
        }
        if reply.stall {
            state.lock().unwrap().stalled.push(stream);
            return;
        }
        if reply.close {
            return;
        }
    }
}

/// What a good server answers.
pub(crate) fn partial(data: &[u8], range: (usize, usize)) -> Reply {
    let body = data[range.0..=range.1].to_vec();
    Reply {
        head: format!(
            "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {}-{}/{}\r\nContent-Length: {}\r\n\r\n",
            range.0,
            range.1,
            data.len(),
            body.len()
        ),
        body,
        close: false,
        stall: false,
    }
}

/// An answer with no body but what it says.
#[allow(dead_code, reason = "one of the two crates that include this has faulty servers")]
pub(crate) fn plain(status: &str, headers: &str, body: &[u8]) -> Reply {
    Reply {
        head: format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n", body.len()),
        body: body.to_vec(),
        close: false,
        stall: false,
    }
}
