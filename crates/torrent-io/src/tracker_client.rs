//! Carries out announces over HTTP (BEP 3) and UDP (BEP 15), each to its end or its timeout.
//!
//! Not when to announce, and not what to do after a failure: that is `torrent::tracker::Announcer`.
//! Blocking calls on short-lived threads: a node announces a few times a minute, and a dead tracker
//! must not hold up another.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, ToSocketAddrs, UdpSocket};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use torrent::tracker::http::{
    RESPONSE_LEN_MAX, ResponseError, decode_announce_response, encode_announce_url,
};
use torrent::tracker::udp::{Family, Request, Response};
use torrent::tracker::{AnnounceRequest, AnnounceResponse};

/// The most announces under way at once: one for each tier of the longest list that we take would
/// be 32, of which most are alive and answer within milliseconds.
const WORKERS_MAX: usize = 16;

/// Stack of a worker. The deepest call is TLS, well below this.
const WORKER_STACK_LEN: usize = 256 * 1024;

/// A tracker that is behind a load balancer may redirect; two hops are generous.
const REDIRECTS_MAX: u32 = 2;

/// Room for the largest UDP response with a thousand peers, far above what fits a packet in practice.
const PACKET_ROOM: usize = 8 * 1024;

/// How long to wait for what.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// For a TCP connection: five retransmissions' worth on a LAN, and two on any network.
    pub connect: Duration,
    /// For a whole HTTP announce, redirects included.
    pub total: Duration,
    /// For the first UDP packet. BEP 15 says 15 s, doubled eight times, which a node that boots in
    /// less than a minute cannot wait. A LAN answers within a millisecond; if half a second has passed,
    /// the packet fell out of a full socket buffer.
    pub udp_first: Duration,
    /// How often a UDP packet is sent, each time with twice the wait: 0.5 + 1 + 2 + 4 s, so that
    /// connecting and announcing together take as long as HTTP may.
    pub udp_sends: u32,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            total: Duration::from_secs(15),
            udp_first: Duration::from_millis(500),
            udp_sends: 4,
        }
    }
}

/// An announce to be carried out.
#[derive(Clone, Debug)]
pub struct Announce {
    /// Comes back in the [`Outcome`].
    pub token: u64,
    /// The tracker: `http://` or `udp://`, and `https://` with the feature `tls`.
    pub url: String,
    /// What to say.
    pub request: AnnounceRequest,
    /// What the tracker wants repeated.
    pub tracker_id: Option<Vec<u8>>,
}

/// What came of an [`Announce`].
#[derive(Debug)]
pub struct Outcome {
    /// As given.
    pub token: u64,
    /// What the tracker said.
    pub result: Result<AnnounceResponse, TrackerError>,
}

/// Why an announce failed.
#[derive(Debug, thiserror::Error)]
pub enum TrackerError {
    /// The URL is not one of a tracker.
    #[error("tracker {url}: {reason}")]
    Url {
        /// The tracker.
        url: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// HTTP failed.
    #[error("tracker {url} cannot be reached")]
    Http {
        /// The tracker.
        url: String,
        /// Why.
        source: Box<ureq::Error>,
    },
    /// HTTP succeeded, with a status that is no success.
    #[error("tracker {url} answers with HTTP status {status}")]
    Status {
        /// The tracker.
        url: String,
        /// Such as 404.
        status: u16,
    },
    /// The answer is a refusal, or none.
    #[error("tracker {url} gives no usable answer")]
    Response {
        /// The tracker.
        url: String,
        /// Why.
        source: ResponseError,
    },
    /// A UDP socket failed, or the name is unknown.
    #[error("tracker {url} cannot be reached")]
    Udp {
        /// The tracker.
        url: String,
        /// Why.
        source: io::Error,
    },
    /// No answer in time over UDP.
    #[error("tracker {url} does not answer")]
    Timeout {
        /// The tracker.
        url: String,
    },
    /// No thread could be started.
    #[error("no thread to reach tracker {url}")]
    Thread {
        /// The tracker.
        url: String,
        /// Why.
        source: io::Error,
    },
}

type Report = dyn Fn(Outcome) + Send + Sync;

struct Shared {
    state: Mutex<State>,
    idle: Condvar,
    agent: ureq::Agent,
    timeouts: Timeouts,
    report: Box<Report>,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Announce>,
    workers: usize,
}

/// Carries out announces in the background.
pub struct TrackerClient {
    shared: Arc<Shared>,
}

impl TrackerClient {
    /// A client that gives each outcome to `report`, on threads of its own.
    #[must_use]
    pub fn new(
        user_agent: &str,
        timeouts: Timeouts,
        report: impl Fn(Outcome) + Send + Sync + 'static,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                state: Mutex::default(),
                idle: Condvar::new(),
                agent: agent(user_agent, timeouts),
                timeouts,
                report: Box::new(report),
            }),
        }
    }

    /// Starts an announce, or queues it behind 16 others. It is reported exactly once.
    pub fn announce(&self, announce: Announce) {
        let mut state = self.shared.lock();
        if state.workers >= WORKERS_MAX {
            state.queue.push_back(announce);
            return;
        }
        state.workers += 1;
        drop(state);
        let (token, url) = (announce.token, announce.url.clone());
        let shared = Arc::clone(&self.shared);
        let started = std::thread::Builder::new()
            .name("tracker".to_owned())
            .stack_size(WORKER_STACK_LEN)
            .spawn(move || work(&shared, announce));
        if let Err(source) = started {
            self.shared.lock().workers -= 1;
            self.shared.idle.notify_all();
            (self.shared.report)(Outcome {
                token,
                result: Err(TrackerError::Thread { url, source }),
            });
        }
    }

    /// Waits until all is reported, at most `within`: for the last announce of a program. Says
    /// whether all was.
    #[must_use]
    pub fn flush(&self, within: Duration) -> bool {
        let state = self.shared.lock();
        let waited = self.shared.idle.wait_timeout_while(state, within, |state| state.workers > 0);
        match waited {
            Ok((_, timeout)) => !timeout.timed_out(),
            Err(_) => false,
        }
    }
}

impl Shared {
    /// A panic elsewhere leaves nothing half done in there.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn work(shared: &Shared, first: Announce) {
    let mut next = Some(first);
    while let Some(announce) = next {
        let token = announce.token;
        let result = carry_out(&shared.agent, shared.timeouts, announce);
        (shared.report)(Outcome { token, result });
        let mut state = shared.lock();
        next = state.queue.pop_front();
        if next.is_none() {
            state.workers -= 1;
            shared.idle.notify_all();
        }
    }
}

fn agent(user_agent: &str, timeouts: Timeouts) -> ureq::Agent {
    ureq::Agent::config_builder()
        .user_agent(user_agent)
        .timeout_connect(Some(timeouts.connect))
        .timeout_global(Some(timeouts.total))
        .max_redirects(REDIRECTS_MAX)
        // A tracker that refuses may say why in the body, whatever the status.
        .http_status_as_error(false)
        // A proxy would register itself: a tracker takes the peer's address from the connection.
        .proxy(None)
        // The next announce is far away, and the tracker's connections are few.
        .max_idle_connections(0)
        .build()
        .into()
}

fn carry_out(
    agent: &ureq::Agent,
    timeouts: Timeouts,
    announce: Announce,
) -> Result<AnnounceResponse, TrackerError> {
    let url = announce.url.as_str();
    let wrong = |reason| Err(TrackerError::Url { url: url.to_owned(), reason });
    match url.split_once("://") {
        Some(("http", _)) => announce_http(agent, &announce),
        Some(("https", _)) if cfg!(feature = "tls") => announce_http(agent, &announce),
        Some(("https", _)) => wrong("this program was built without TLS"),
        Some(("udp", rest)) => {
            let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
            announce_udp(authority, timeouts, &announce)
        }
        _ => wrong("not an http:// or udp:// URL"),
    }
}

fn announce_http(
    agent: &ureq::Agent,
    announce: &Announce,
) -> Result<AnnounceResponse, TrackerError> {
    let url = || announce.url.clone();
    let failed = |source| TrackerError::Http { url: url(), source: Box::new(source) };
    let full =
        encode_announce_url(&announce.url, &announce.request, announce.tracker_id.as_deref());
    let mut response = agent.get(&full).call().map_err(failed)?;
    let body = response
        .body_mut()
        .with_config()
        .limit(RESPONSE_LEN_MAX as u64)
        .read_to_vec()
        .map_err(failed)?;
    match decode_announce_response(&body) {
        Err(source) if response.status().is_success() => {
            Err(TrackerError::Response { url: url(), source })
        }
        Err(source @ ResponseError::Failure(_)) => {
            Err(TrackerError::Response { url: url(), source })
        }
        _ if !response.status().is_success() => {
            Err(TrackerError::Status { url: url(), status: response.status().as_u16() })
        }
        decoded => decoded.map_err(|source| TrackerError::Response { url: url(), source }),
    }
}

/// Tries each address of the name in turn; a name that resolves to a dead IPv6 address and a living
/// IPv4 one is common.
fn announce_udp(
    authority: &str,
    timeouts: Timeouts,
    announce: &Announce,
) -> Result<AnnounceResponse, TrackerError> {
    let url = || announce.url.clone();
    let failed = |source| TrackerError::Udp { url: url(), source };
    if authority.rsplit_once(':').is_none_or(|(_, port)| port.parse::<u16>().is_err()) {
        return Err(TrackerError::Url { url: url(), reason: "a udp:// URL needs a port" });
    }
    let deadline = Instant::now() + timeouts.total;
    let mut last = None;
    for addr in authority.to_socket_addrs().map_err(failed)? {
        let result = UdpExchange::open(addr, timeouts, deadline)
            .and_then(|exchange| exchange.announce(&announce.request));
        match result {
            Ok(Answer::Response(response)) => return Ok(response),
            Ok(Answer::Refused(message)) => {
                return Err(TrackerError::Response {
                    url: url(),
                    source: ResponseError::Failure(message),
                });
            }
            Err(error) => last = Some(error),
        }
    }
    Err(match last {
        Some(error) if error.kind() == ErrorKind::TimedOut => TrackerError::Timeout { url: url() },
        Some(error) => failed(error),
        None => failed(ErrorKind::NotFound.into()),
    })
}

enum Answer {
    Response(AnnounceResponse),
    Refused(String),
}

/// One connect and one announce with one address.
struct UdpExchange {
    socket: UdpSocket,
    family: Family,
    timeouts: Timeouts,
    deadline: Instant,
}

impl UdpExchange {
    fn open(addr: SocketAddr, timeouts: Timeouts, deadline: Instant) -> io::Result<Self> {
        let local: SocketAddr =
            if addr.is_ipv4() { ([0; 4], 0).into() } else { ([0; 8], 0).into() };
        let socket = UdpSocket::bind(local)?;
        // From now on only this tracker's packets come in, and its host's "port unreachable" is an
        // error at once instead of a timeout.
        socket.connect(addr)?;
        Ok(Self { socket, family: Family::of(addr.ip()), timeouts, deadline })
    }

    fn announce(&self, request: &AnnounceRequest) -> io::Result<Answer> {
        let transaction = random();
        let connection = match self.ask(&Request::Connect { transaction }, transaction)? {
            Response::Connect { connection, .. } => connection,
            Response::Error { message, .. } => return Ok(Answer::Refused(message)),
            _ => return Err(ErrorKind::InvalidData.into()),
        };
        let transaction = random();
        let packet = Request::Announce { connection, transaction, request: request.clone() };
        match self.ask(&packet, transaction)? {
            Response::Announce { response, .. } => Ok(Answer::Response(response)),
            Response::Error { message, .. } => Ok(Answer::Refused(message)),
            _ => Err(ErrorKind::InvalidData.into()),
        }
    }

    /// Sends until the response with this transaction comes. Foreign and broken packets are
    /// skipped: they may be late, or forged.
    fn ask(&self, request: &Request, transaction: u32) -> io::Result<Response> {
        let mut room = vec![0; PACKET_ROOM];
        for send in 0..self.timeouts.udp_sends {
            self.socket.send(&request.encode())?;
            let until = (Instant::now() + self.timeouts.udp_first * (1 << send)).min(self.deadline);
            while let Some(left) = until.checked_duration_since(Instant::now())
                && !left.is_zero()
            {
                self.socket.set_read_timeout(Some(left))?;
                let len = match self.socket.recv(&mut room) {
                    Ok(len) => len,
                    Err(error) if is_timeout(&error) => break,
                    Err(error) => return Err(error),
                };
                match Response::decode(&room[..len], self.family) {
                    Ok(response) if response.transaction() == transaction => return Ok(response),
                    _ => {}
                }
            }
        }
        Err(ErrorKind::TimedOut.into())
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

/// A number that a stranger cannot foresee, or he could answer in the tracker's place: the keys of
/// `RandomState` come from the system's randomness.
fn random() -> u32 {
    (RandomState::new().hash_one(()) >> 32) as u32
}

#[cfg(test)]
#[path = "tracker_client_tests.rs"]
mod tests;
