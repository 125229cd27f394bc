//! `boottorrent tracker`: `torrent::tracker::Registry` behind HTTP (BEP 3) and UDP (BEP 15) sockets
//! of one port number.
//!
//! One thread: an answer takes microseconds, and a fleet of 10,000 asks 500 times a second.
//!
//! **Whose address.** A peer is where its packets come from. The `ip` field of an announce would let
//! anybody aim a fleet's connections at anybody, and is needed by nobody on a LAN, with one exception
//! that cannot be abused from outside: a seed on the tracker's own host announces from loopback,
//! where no node can reach it, and may say which address is meant. (Not from any private address: on
//! a LAN all are private, strangers too.) Behind a reverse proxy this tracker would see one peer, so
//! there is no header for that either.
//!
//! **Slow and hostile clients.** Connections are limited in number ([`CONNECTIONS_MAX`], of which one
//! address has an eighth; when all are taken the one that has waited longest is cut off, a stranger's
//! before a node's), in time ([`HEADER_TIMEOUT`], [`CONNECTION_TIMEOUT`]) and in bytes
//! ([`HEADER_LEN_MAX`]); one request each, bodies are not read. What peers make the registry remember
//! has its limits there.

use std::future::Future;
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use axum::Router;
use axum::extract::{Extension, RawQuery, Request as HttpRequest, State};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, HOST};
use axum::http::uri::Authority;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response as HttpResponse};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use places::{Bounds, Standing, Table};
use serde::Serialize;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, UdpSocket};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use torrent::Time;
use torrent::tracker::http::{
    decode_announce_query, decode_scrape_query, encode_announce_response, encode_failure,
    encode_scrape_response,
};
use torrent::tracker::udp::{ConnectionIds, Family, Request, Response};
use torrent::tracker::{AnnounceRequest, AnnounceResponse, Refusal, Registry, SWEEP_INTERVAL};
use tower::ServiceExt;

use crate::cli::{OutputFormat, TrackerArgs};
use crate::fleet::{Standings, strangers};

/// HTTP connections at once. An answered one lives for a millisecond, so that is 100,000 announces a
/// second; and it stays below the 1,024 files that a process may have open by default.
const CONNECTIONS_MAX: usize = 768;

/// Connections that the kernel holds for us meanwhile: a fleet that starts in the same second.
const BACKLOG: u32 = 4_096;

/// How long the request may take to arrive: it is one packet that follows the connection at once, and
/// three retransmissions of it, on any network of a lab.
const HEADER_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a connection may live in all. The answer, of a few hundred bytes, needs one round trip.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(5);

/// The longest request: twice the longest query.
const HEADER_LEN_MAX: usize = 16 * 1024;

/// Fields in a request's header: clients send five.
const HEADER_FIELDS_MAX: usize = 64;

/// The largest UDP request that is of use: a scrape of 74 torrents is 1,496 bytes.
const PACKET_ROOM: usize = 2_048;

/// How often a free port is looked for that is free for both TCP and UDP, if any will do.
const BIND_TRIES: usize = 16;

/// How long to leave the listener alone when it fails (no free file descriptor).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Runs the tracker until Ctrl+C or SIGTERM.
pub(crate) fn run(args: &TrackerArgs) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the tracker")?;
    runtime.block_on(async {
        let (tcp, udp) =
            bind(args.listen).await.with_context(|| format!("cannot listen on {}", args.listen))?;
        let addr = tcp.local_addr().context("cannot listen")?;
        let tracker = Shared::new(strangers()).context("no randomness from the system")?;
        // Before the line that says "ready", after which somebody may want us to end.
        let stopped = stop_signal().context("cannot wait for signals")?;
        print_ready(args.output, addr).context("cannot write to standard output")?;
        tokio::select! {
            () = serve(tcp, udp, tracker) => {}
            () = stopped => {}
        }
        Ok(())
    })
}

/// Answers announces for ever, by HTTP and UDP.
pub(crate) async fn serve(tcp: TcpListener, udp: UdpSocket, tracker: Shared) {
    tokio::select! {
        () = serve_http(tcp, tracker.clone()) => {}
        () = serve_udp(udp, tracker.clone()) => {}
        () = sweep(tracker) => {}
    }
}

fn print_ready(format: OutputFormat, addr: SocketAddr) -> io::Result<()> {
    let (http, udp) = (format!("http://{addr}/announce"), format!("udp://{addr}/announce"));
    let line = match format {
        OutputFormat::Text => format!("tracker listening on {http} and {udp}"),
        OutputFormat::Json => json!({"event": "listening", "http": http, "udp": udp}).to_string(),
    };
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

fn stop_signal() -> io::Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

async fn bind(listen: SocketAddr) -> io::Result<(TcpListener, UdpSocket)> {
    let mut tries = if listen.port() == 0 { BIND_TRIES } else { 1 };
    loop {
        let socket = match listen {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        // Connections of the run before, in TIME_WAIT, are no reason to refuse.
        socket.set_reuseaddr(true)?;
        socket.bind(listen)?;
        let tcp = socket.listen(BACKLOG)?;
        tries -= 1;
        match UdpSocket::bind(tcp.local_addr()?).await {
            Ok(udp) => return Ok((tcp, udp)),
            Err(error) if tries == 0 => return Err(error),
            Err(_) => {}
        }
    }
}

/// The tracker, for its tasks.
#[derive(Clone)]
pub(crate) struct Shared {
    state: Arc<Mutex<Tracker>>,
    /// Connections, and what ends each when it is dropped.
    door: Arc<Mutex<Table<oneshot::Sender<()>>>>,
    standings: Standings,
    started: Instant,
}

struct Tracker {
    registry: Registry,
    connections: ConnectionIds,
    announces_http: u64,
    announces_udp: u64,
}

/// What a tracker has done.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct TrackerCounts {
    pub(crate) peer_count: usize,
    pub(crate) http_announce_count: u64,
    pub(crate) udp_announce_count: u64,
}

impl Shared {
    pub(crate) fn counts(&self) -> TrackerCounts {
        let tracker = self.lock();
        TrackerCounts {
            peer_count: tracker.registry.peer_count(),
            http_announce_count: tracker.announces_http,
            udp_announce_count: tracker.announces_udp,
        }
    }

    /// `standings` says which addresses keep their places.
    pub(crate) fn new(standings: Standings) -> Result<Self, getrandom::Error> {
        let (mut secret, mut seed) = ([0; 32], [0; 8]);
        getrandom::fill(&mut secret)?;
        getrandom::fill(&mut seed)?;
        Ok(Self {
            state: Arc::new(Mutex::new(Tracker {
                registry: Registry::new(u64::from_ne_bytes(seed)),
                connections: ConnectionIds::new(secret),
                announces_http: 0,
                announces_udp: 0,
            })),
            door: Arc::new(Mutex::new(Table::new(Bounds::of(CONNECTIONS_MAX, Duration::ZERO)))),
            standings,
            started: Instant::now(),
        })
    }

    /// Lets a connection in, if there is a place: its ticket, and what says that it has to go.
    fn enter(&self, source: IpAddr) -> Option<(u64, oneshot::Receiver<()>)> {
        let (guest, sent_away) = oneshot::channel();
        let (now, standing) = (self.started.elapsed(), (self.standings)(source));
        let entered = self.door().enter(now, source, standing, guest)?;
        Some((entered.ticket, sent_away))
    }

    fn door(&self) -> MutexGuard<'_, Table<oneshot::Sender<()>>> {
        self.door.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, Tracker> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Time {
        Time::ZERO + self.started.elapsed()
    }
}

impl Tracker {
    /// An announce from `source`, which may name another address if it is loopback: then it is of this
    /// host's own seed, which keeps its place.
    fn announce(
        &mut self,
        now: Time,
        source: IpAddr,
        standing: Standing,
        claimed: Option<IpAddr>,
        request: &AnnounceRequest,
    ) -> Result<AnnounceResponse, Refusal> {
        let believed = claimed
            .map(|ip| ip.to_canonical())
            .filter(|_| source.is_loopback())
            .filter(|ip| !ip.is_unspecified() && !ip.is_multicast());
        let addr = SocketAddr::new(believed.unwrap_or(source), request.port);
        let standing = if source.is_loopback() { Standing::Named } else { standing };
        self.registry.announce_as(now, addr, standing, request)
    }
}

async fn sweep(tracker: Shared) {
    let mut ticks = tokio::time::interval(SWEEP_INTERVAL);
    loop {
        ticks.tick().await;
        tracker.lock().registry.sweep(tracker.now());
    }
}

async fn serve_http(listener: TcpListener, tracker: Shared) {
    let router = router(tracker.clone());
    loop {
        match listener.accept().await {
            Ok((stream, from)) => {
                let source = from.ip().to_canonical();
                let Some((ticket, sent_away)) = tracker.enter(source) else { continue };
                let (router, tracker) = (router.clone(), tracker.clone());
                tokio::spawn(async move {
                    tokio::select! {
                        () = serve_connection(stream, source, router) => {}
                        _ = sent_away => {}
                    }
                    tracker.door().leave(ticket);
                });
            }
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

/// Answers one request. How it went is the client's affair.
async fn serve_connection(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    source: IpAddr,
    router: Router,
) {
    let service =
        hyper::service::service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
            request.extensions_mut().insert(Source(source));
            router.clone().oneshot(request)
        });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(HEADER_LEN_MAX)
        .max_headers(HEADER_FIELDS_MAX)
        // The next announce is seconds away, and places are few.
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    let _ = tokio::time::timeout(CONNECTION_TIMEOUT, connection).await;
}

/// Where a request came from.
#[derive(Clone, Copy)]
struct Source(IpAddr);

fn router(tracker: Shared) -> Router {
    Router::new()
        .route("/announce", get(announce))
        .route("/scrape", get(scrape))
        .merge(
            Router::new()
                .route("/stats", get(stats_json))
                .route("/", get(stats_text))
                .route_layer(from_fn(by_address)),
        )
        .with_state(tracker)
}

/// What people look at is asked for by an address: a page of another site could make a name of its own point
/// here, and read it (DNS rebinding).
async fn by_address(request: HttpRequest, next: Next) -> HttpResponse {
    let Some(host) = request.headers().get(HOST) else {
        // No browser leaves it out.
        return next.run(request).await;
    };
    let host = host.to_str().ok().and_then(|host| host.parse::<Authority>().ok());
    let is_address = host.is_some_and(|host| {
        let name = host.host().trim_start_matches('[').trim_end_matches(']');
        name == "localhost" || name.parse::<IpAddr>().is_ok()
    });
    match is_address {
        true => next.run(request).await,
        false => (StatusCode::MISDIRECTED_REQUEST, "ask for this by the server's address\n")
            .into_response(),
    }
}

/// Always status 200: a client that meets another looks no further, and misses the reason.
async fn announce(
    State(tracker): State<Shared>,
    Extension(Source(source)): Extension<Source>,
    RawQuery(query): RawQuery,
) -> impl IntoResponse {
    let body = match decode_announce_query(query.unwrap_or_default().as_bytes()) {
        Ok(query) => {
            let (now, standing) = (tracker.now(), (tracker.standings)(source));
            let mut tracker = tracker.lock();
            tracker.announces_http += 1;
            match tracker.announce(now, source, standing, query.ip, &query.request) {
                Ok(response) => {
                    encode_announce_response(&response, query.compact, query.no_peer_id)
                }
                Err(refusal) => encode_failure(&refusal.to_string()),
            }
        }
        Err(error) => encode_failure(&error.to_string()),
    };
    ([(CONTENT_TYPE, "text/plain")], body)
}

async fn scrape(State(tracker): State<Shared>, RawQuery(query): RawQuery) -> impl IntoResponse {
    let body = match decode_scrape_query(query.unwrap_or_default().as_bytes()) {
        Ok(hashes) => {
            let tracker = tracker.lock();
            let files: Vec<_> =
                hashes.into_iter().map(|hash| (hash, tracker.registry.scrape(&hash))).collect();
            encode_scrape_response(&files)
        }
        Err(error) => encode_failure(&error.to_string()),
    };
    ([(CONTENT_TYPE, "text/plain")], body)
}

async fn stats_json(State(tracker): State<Shared>) -> impl IntoResponse {
    let now = tracker.now();
    let tracker = tracker.lock();
    let torrents: Vec<_> = tracker
        .registry
        .stats(now)
        .map(|torrent| {
            json!({
                "info_hash": hex(&torrent.info_hash),
                "seed_count": torrent.scrape.complete,
                "leech_count": torrent.scrape.incomplete,
                "completed_count": torrent.scrape.downloaded,
                "interval_s": torrent.interval.as_secs(),
            })
        })
        .collect();
    let body = json!({
        "uptime_s": now.as_secs_f64() as u64,
        "peer_count": tracker.registry.peer_count(),
        "announce_count": {"http": tracker.announces_http, "udp": tracker.announces_udp},
        "torrents": torrents,
    });
    ([(CONTENT_TYPE, "application/json")], body.to_string())
}

async fn stats_text(State(tracker): State<Shared>) -> String {
    let now = tracker.now();
    let tracker = tracker.lock();
    let mut page = format!(
        "BootTorrent tracker\n\nup {} s, {} peers, {} announces by HTTP, {} by UDP\n\n{:40} {:>6} {:>7} {:>9} {:>8}\n",
        now.as_secs_f64() as u64,
        tracker.registry.peer_count(),
        tracker.announces_http,
        tracker.announces_udp,
        "torrent",
        "seeds",
        "leeches",
        "completed",
        "interval",
    );
    for torrent in tracker.registry.stats(now) {
        page.push_str(&format!(
            "{:40} {:>6} {:>7} {:>9} {:>6} s\n",
            hex(&torrent.info_hash),
            torrent.scrape.complete,
            torrent.scrape.incomplete,
            torrent.scrape.downloaded,
            torrent.interval.as_secs(),
        ));
    }
    page
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn serve_udp(socket: UdpSocket, tracker: Shared) {
    let mut room = [0; PACKET_ROOM];
    loop {
        let Ok((len, from)) = socket.recv_from(&mut room).await else {
            // News of an earlier answer that could not be delivered, if anything.
            tokio::task::yield_now().await;
            continue;
        };
        let ip = from.ip().to_canonical();
        if let Some(response) = answer_udp(&tracker, ip, &room[..len]) {
            // If the socket's buffer is full the client asks again.
            let _ = socket.try_send_to(&response.encode(Family::of(ip)), from);
        }
    }
}

/// What to answer, if anything: what is no request gets none, or we would be a reflector of noise.
fn answer_udp(tracker: &Shared, ip: IpAddr, packet: &[u8]) -> Option<Response> {
    let now = tracker.now();
    let request = Request::decode(packet).ok()?;
    let standing = (tracker.standings)(ip);
    let mut tracker = tracker.lock();
    let (connection, transaction) = match &request {
        Request::Connect { transaction } => {
            return Some(Response::Connect {
                transaction: *transaction,
                connection: tracker.connections.issue(now, ip),
            });
        }
        Request::Announce { connection, transaction, .. }
        | Request::Scrape { connection, transaction, .. } => (*connection, *transaction),
    };
    let refuse = |message: String| Response::Error { transaction, message };
    if !tracker.connections.accepts(now, ip, connection) {
        // Shorter than the request, so of no use for amplification.
        return Some(refuse("unknown connection id".to_owned()));
    }
    Some(match request {
        Request::Announce { request, .. } => {
            tracker.announces_udp += 1;
            match tracker.announce(now, ip, standing, None, &request) {
                Ok(response) => Response::Announce { transaction, response },
                Err(refusal) => refuse(refusal.to_string()),
            }
        }
        Request::Scrape { info_hashes, .. } => Response::Scrape {
            transaction,
            stats: info_hashes.iter().map(|hash| tracker.registry.scrape(hash)).collect(),
        },
        Request::Connect { .. } => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use torrent::tracker::Event;

    fn request(port: u16) -> AnnounceRequest {
        AnnounceRequest {
            info_hash: [1; 20],
            peer_id: [2; 20],
            port,
            uploaded: 0,
            downloaded: 0,
            left: Some(1),
            event: Event::Started,
            numwant: None,
            key: None,
        }
    }

    fn announce(
        tracker: &mut Tracker,
        source: IpAddr,
        claimed: Option<IpAddr>,
        request: &AnnounceRequest,
    ) -> Result<AnnounceResponse, Refusal> {
        tracker.announce(Time::ZERO, source, Standing::Stranger, claimed, request)
    }

    /// Sends `bytes` over one connection and returns the answer, and how long it took in all.
    async fn exchange(bytes: &[u8]) -> (String, Duration) {
        let (mut client, server) = tokio::io::duplex(64 * 1024);
        let tracker = Shared::new(strangers()).unwrap();
        let source = IpAddr::from([10, 0, 0, 1]);
        let begin = tokio::time::Instant::now();
        let serving = tokio::spawn(serve_connection(server, source, router(tracker)));
        client.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        let _ = client.read_to_end(&mut answer).await;
        serving.await.unwrap();
        (String::from_utf8_lossy(&answer).into_owned(), begin.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn connection_is_closed_after_one_answer() {
        let (answer, took) = exchange(b"GET /stats HTTP/1.1\r\nHost: 10.0.0.1:6969\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.ends_with("\"torrents\":[],\"uptime_s\":0}"), "{answer}");
        assert!(took < Duration::from_secs(1));
        let (answer, _) = exchange(b"GET /stats HTTP/1.1\r\nHost: evil.example.org\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 421 "), "{answer}");
    }

    #[test]
    fn idle_connections_of_one_address_and_of_many_keep_nobody_out() {
        let node = IpAddr::from([10, 0, 5, 5]);
        let known: Standings =
            Arc::new(move |peer| if peer == node { Standing::Leased } else { Standing::Stranger });
        let shared = Shared::new(known).unwrap();
        let mut held = Vec::new();
        for _ in 0..5_500 {
            held.push(shared.enter(IpAddr::from([10, 0, 66, 1])).unwrap());
        }
        assert_eq!(shared.door().len(), CONNECTIONS_MAX / 8);
        let (_, mut kept) = shared.enter(node).unwrap();
        for host in 0..=255 {
            for _ in 0..CONNECTIONS_MAX / 8 {
                held.push(shared.enter(IpAddr::from([10, 0, 66, host])).unwrap());
            }
        }
        assert_eq!(shared.door().len(), CONNECTIONS_MAX);
        assert_eq!(kept.try_recv(), Err(oneshot::error::TryRecvError::Empty));
        // A stranger comes in too, in place of who has waited longest.
        assert!(shared.enter(IpAddr::from([10, 0, 7, 7])).is_some());
        assert_eq!(shared.door().len(), CONNECTIONS_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn slow_request_is_given_up() {
        for begun in [b"" as &[u8], b"GET /announce?info_hash=", b"GET / HTTP/1.1\r\nHost:"] {
            let (_, took) = exchange(begun).await;
            assert!(took >= HEADER_TIMEOUT && took <= CONNECTION_TIMEOUT, "{took:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn body_is_not_waited_for() {
        let head = b"GET / HTTP/1.1\r\nHost: 10.0.0.1:6969\r\nContent-Length: 1000000\r\n\r\n";
        let (answer, took) = exchange(head).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(took <= CONNECTION_TIMEOUT, "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn oversize_requests_and_other_methods_are_refused() {
        let long = format!("GET /announce?{} HTTP/1.1\r\n", "a".repeat(HEADER_LEN_MAX));
        let (answer, _) = exchange(long.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
        let (answer, _) = exchange(b"POST /announce HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 405"), "{answer}");
    }

    #[tokio::test(start_paused = true)]
    async fn broken_query_is_told_in_bencode() {
        let (answer, _) = exchange(b"GET /announce HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(answer.ends_with("d14:failure reason25:info_hash is not 20 bytese"), "{answer}");
    }

    #[test]
    fn claimed_address_is_believed_from_loopback_only() {
        let check = |source: &str, claimed: Option<&str>, expect: &str| {
            let shared = Shared::new(strangers()).unwrap();
            let mut tracker = shared.lock();
            let claimed = claimed.map(|ip| ip.parse().unwrap());
            let peer = |ip: &str| ip.parse::<IpAddr>().unwrap();
            announce(&mut tracker, peer(source), claimed, &request(1)).unwrap();
            // Who is told of it sees under which address it is known.
            let asker = if expect.contains(':') { "::1" } else { "127.0.0.1" };
            let told = announce(&mut tracker, peer(asker), None, &request(2)).unwrap();
            assert_eq!(told.peers[0].addr.ip(), peer(expect));
        };
        check("10.0.0.1", None, "10.0.0.1");
        check("10.0.0.1", Some("10.0.0.2"), "10.0.0.1");
        check("127.0.0.1", Some("10.0.0.2"), "10.0.0.2");
        check("127.0.0.1", Some("::ffff:10.0.0.2"), "10.0.0.2");
        check("127.0.0.1", Some("224.0.0.1"), "127.0.0.1");
        check("::1", Some("0.0.0.0"), "::1");
        check("fd00::1", None, "fd00::1");
    }

    #[test]
    fn udp_needs_a_connection_id() {
        let shared = Shared::new(strangers()).unwrap();
        let ip = IpAddr::from([10, 0, 0, 1]);
        let ask = |packet: Request| answer_udp(&shared, ip, &packet.encode());
        let announce =
            |connection| Request::Announce { connection, transaction: 5, request: request(1) };
        assert_eq!(
            ask(announce(0)),
            Some(Response::Error { transaction: 5, message: "unknown connection id".to_owned() })
        );
        let Some(Response::Connect { connection, .. }) = ask(Request::Connect { transaction: 4 })
        else {
            panic!("no connection id")
        };
        assert!(matches!(ask(announce(connection)), Some(Response::Announce { .. })));
        assert_eq!(answer_udp(&shared, ip, b"hello"), None);
        assert_eq!(shared.lock().registry.peer_count(), 1);
    }
}
