//! Connections: how many, from whom, and for how long.
//!
//! **Slow and hostile peers.** Connections are limited in number ([`CONNECTIONS_MAX`]; the kernel
//! queues the rest), in number from one address ([`PER_ADDRESS_MAX`]), in the time that a request
//! may take to arrive ([`HEADER_TIMEOUT`]) and its size ([`HEADER_LEN_MAX`]), and in the time in which
//! no byte moves either way ([`STALL_TIMEOUT`]), unless it is this server that takes its time with an
//! answer, as a command that switches many nodes on does. How long an answer takes in all is not limited:
//! an image over a slow link takes as long as it takes.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, Sleep};
use tower::ServiceExt;

use super::tls::Tls;

/// Connections at once: a thousand nodes that boot in the same second, with their agents' reports
/// beside their downloads.
pub(crate) const CONNECTIONS_MAX: usize = 4_096;

/// Connections at once from one address: an agent has four for its downloads at most, and a person's
/// browser six. Connections beyond that are closed without an answer.
pub(crate) const PER_ADDRESS_MAX: usize = 64;

/// How long a request may take to arrive, counted from the connection or the answer before it: several
/// retransmissions on any network.
const HEADER_TIMEOUT: Duration = Duration::from_secs(15);

/// How long nothing may move: a switch that is replugged takes less, and so does a disk that wakes up.
const STALL_TIMEOUT: Duration = Duration::from_secs(60);

/// The longest request without its body.
const HEADER_LEN_MAX: usize = 32 * 1024;

/// Fields in a request's header: browsers send twenty.
const HEADER_FIELDS_MAX: usize = 64;

/// How long to leave the listener alone when it fails (no free file descriptor).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a listener's connections begin with.
#[derive(Clone)]
pub(crate) enum Door {
    /// The first request.
    Plain,
    /// A handshake.
    Tls(Tls),
}

/// That a request came encrypted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Encrypted;

/// Where a request came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// The network, or this machine's loopback.
    Peer(IpAddr),
    /// The socket in the lab, which only the lab's owner and root can open.
    Owner,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Peer(address) => address.fmt(f),
            Self::Owner => f.write_str("the lab's owner"),
        }
    }
}

/// Serves `router` for ever.
pub(crate) async fn serve(listener: TcpListener, door: Door, router: Router) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let places = Places::default();
    loop {
        let Ok(place) = Arc::clone(&room).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, from)) => {
                let source = from.ip().to_canonical();
                let Some(seat) = places.take(source) else {
                    tracing::debug!(target: "HTTP", peer = %source, "has too many connections");
                    continue;
                };
                let _ = stream.set_nodelay(true);
                let (door, router) = (door.clone(), router.clone());
                tokio::spawn(async move {
                    match door {
                        Door::Plain => serve_peer(stream, source, router).await,
                        Door::Tls(tls) => serve_encrypted(stream, &tls, source, router).await,
                    }
                    drop((place, seat));
                });
            }
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

async fn serve_encrypted(stream: TcpStream, tls: &Tls, source: IpAddr, router: Router) {
    match tls.greet(stream).await {
        Ok(stream) => serve_peer(stream, source, router.layer(Extension(Encrypted))).await,
        Err(error) => tracing::debug!(target: "HTTP", peer = %source, %error, "no handshake"),
    }
}

/// Answers the requests of a peer, as long as bytes move.
async fn serve_peer(stream: impl AsyncRead + AsyncWrite + Unpin, peer: IpAddr, router: Router) {
    let answering = Answering::default();
    let stream = Moving::new(stream, answering.clone());
    serve_connection(stream, Source::Peer(peer), answering, router).await;
}

/// Answers the requests of the lab's owner, who may wait as long as it takes.
pub(crate) async fn serve_owner(stream: UnixStream, router: Router) {
    serve_connection(stream, Source::Owner, Answering::default(), router).await;
}

/// Answers the requests of one connection. How it went is the peer's affair.
async fn serve_connection(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    source: Source,
    answering: Answering,
    router: Router,
) {
    let service =
        hyper::service::service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
            request.extensions_mut().insert(source);
            let (router, turn) = (router.clone(), answering.begin());
            async move {
                let answer = router.oneshot(request).await;
                drop(turn);
                answer
            }
        });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(HEADER_LEN_MAX)
        .max_headers(HEADER_FIELDS_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let _ = connection.await;
}

/// How many connections there are from each address.
#[derive(Clone, Debug, Default)]
struct Places(Arc<Mutex<BTreeMap<IpAddr, usize>>>);

/// One of them.
struct Seat {
    places: Places,
    source: IpAddr,
}

impl Places {
    fn take(&self, source: IpAddr) -> Option<Seat> {
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = places.entry(source).or_default();
        if *count >= PER_ADDRESS_MAX {
            return None;
        }
        *count += 1;
        Some(Seat { places: self.clone(), source })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut places = self.places.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = places.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                places.remove(&self.source);
            }
        }
    }
}

/// How many requests of a connection wait for their answer to begin.
#[derive(Clone, Debug, Default)]
struct Answering(Arc<AtomicUsize>);

/// One of them.
struct Turn(Answering);

impl Answering {
    fn begin(&self) -> Turn {
        self.0.fetch_add(1, Ordering::Relaxed);
        Turn(self.clone())
    }

    fn is_under_way(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection that fails when nothing has moved for [`STALL_TIMEOUT`] and it is not this server that is
/// waited for.
struct Moving<S> {
    stream: S,
    deadline: Pin<Box<Sleep>>,
    answering: Answering,
}

impl<S> Moving<S> {
    fn new(stream: S, answering: Answering) -> Self {
        let deadline = Box::pin(tokio::time::sleep(STALL_TIMEOUT));
        Self { stream, deadline, answering }
    }

    /// Passes on what the stream says, unless that has been "wait" for too long.
    fn watch<T>(
        &mut self,
        context: &mut Context<'_>,
        polled: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.deadline.as_mut().reset(Instant::now() + STALL_TIMEOUT);
            return polled;
        }
        while self.deadline.as_mut().poll(context).is_ready() {
            if !self.answering.is_under_way() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            self.deadline.as_mut().reset(Instant::now() + STALL_TIMEOUT);
        }
        Poll::Pending
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Moving<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.watch(context, polled)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Moving<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watch(context, polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(context, bytes);
        self.watch(context, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));

    /// How long `/slow` takes.
    const LONG: Duration = Duration::from_secs(600);

    fn router() -> Router {
        let slow = || async {
            tokio::time::sleep(LONG).await;
            "done"
        };
        Router::new().route("/", get(|| async { "x".repeat(1 << 20) })).route("/slow", get(slow))
    }

    /// Sends `bytes`, reads the answer if `reads`, and returns how long the connection lived.
    async fn exchange(bytes: &[u8], reads: bool) -> (usize, Duration) {
        let (mut peer, server) = tokio::io::duplex(64 * 1024);
        let begin = Instant::now();
        let serving = tokio::spawn(serve_peer(server, PEER, router()));
        peer.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        if reads {
            let _ = peer.read_to_end(&mut answer).await;
        }
        serving.await.unwrap();
        (answer.len(), begin.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_does_not_arrive_is_given_up() {
        for begun in [b"" as &[u8], b"GET / HTTP/1.1\r\nHost:"] {
            let (_, lived) = exchange(begun, true).await;
            assert!(lived >= HEADER_TIMEOUT && lived < STALL_TIMEOUT, "{lived:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_kept_for_the_next_request_but_not_for_ever() {
        let request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
        let (len, lived) = exchange(&request.repeat(2), true).await;
        assert!(len > 2 << 20);
        assert!(lived >= HEADER_TIMEOUT && lived <= STALL_TIMEOUT, "{lived:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_this_server_is_not_given_up() {
        let request = b"GET /slow HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        let (len, lived) = exchange(request, true).await;
        assert!(len > 0 && lived >= LONG, "{len} {lived:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_reads_nothing_is_given_up() {
        let (_, lived) = exchange(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", false).await;
        assert!(lived >= STALL_TIMEOUT && lived < STALL_TIMEOUT * 2, "{lived:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn oversize_requests_are_refused() {
        let long = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(HEADER_LEN_MAX));
        let (len, _) = exchange(long.as_bytes(), true).await;
        assert!(len < 1 << 10, "{len}");
    }

    #[test]
    fn one_address_takes_only_its_share() {
        let places = Places::default();
        let seats: Vec<_> = (0..PER_ADDRESS_MAX).map(|_| places.take(PEER)).collect();
        assert!(seats.iter().all(Option::is_some) && places.take(PEER).is_none());
        assert!(places.take([10, 0, 0, 2].into()).is_some());
        drop(seats);
        assert!(places.take(PEER).is_some());
        assert!(places.0.lock().unwrap().is_empty());
    }
}
