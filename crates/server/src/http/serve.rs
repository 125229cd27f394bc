//! Connections: whose, and for how long.
//!
//! **Slow and hostile peers.** Each connection has a place in one table, from before its handshake until its end;
//! when that is full who is worth least goes (`places`). Limited are the time that a request may take
//! to arrive ([`HEADER_TIMEOUT`]) and its size ([`HEADER_LEN_MAX`]), the time in which nothing moves,
//! and how slowly an answer may be taken (`moving`). How long an answer takes in all is not limited:
//! an image over a slow link takes as long as it takes.
//!
//! **Bytes.** A body's bytes are counted until the kernel has them (`keeper`). Files come in blocks as they are taken
//! (`files`), lists of nodes piece by piece (`pieces`); other answers are made whole, and share a bound.

use std::fmt;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use axum::http::Response;
use axum::{Extension, Router};
use hyper::body::{Bytes, Frame, SizeHint};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tower::ServiceExt;

use super::keeper::{Keeper, Seat};
use super::moving::{Answering, BUFFER_LEN, Moving, Socket};
use super::tls::Tls;

/// How long a request may take to arrive, counted from the connection or the answer before it: several
/// retransmissions on any network.
const HEADER_TIMEOUT: Duration = Duration::from_secs(15);

/// The longest request without its body, and what is kept of an answer beside what the kernel has: browsers send a few
/// KiB with all their cookies.
const HEADER_LEN_MAX: usize = 16 * 1024;

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

/// Of an answer: its bytes are shared, or have a bound of their own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounded;

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

/// Serves `router` for ever, whomever `keeper` gives a place.
pub(crate) async fn serve(listener: TcpListener, door: Door, router: Router, keeper: Keeper) {
    // Connections have these from their first packet on.
    let options = socket2::SockRef::from(&listener);
    let _ = options.set_send_buffer_size(BUFFER_LEN);
    let _ = options.set_recv_buffer_size(BUFFER_LEN);
    loop {
        let Ok((stream, from)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let source = from.ip().to_canonical();
        let Some((seat, is_cut)) = keeper.enter(source) else {
            stream.reset_when_closed();
            continue;
        };
        let _ = stream.set_nodelay(true);
        let (door, router) = (door.clone(), router.clone());
        tokio::spawn(async move {
            let serving = async {
                match door {
                    Door::Plain => serve_peer(stream, source, router, seat).await,
                    Door::Tls(tls) => serve_encrypted(stream, &tls, source, router, seat).await,
                }
            };
            tokio::select! {
                biased;
                _ = is_cut => {}
                () = serving => {}
            }
        });
    }
}

async fn serve_encrypted(
    stream: TcpStream,
    tls: &Tls,
    source: IpAddr,
    router: Router,
    seat: Arc<Seat>,
) {
    let answering = Answering::default();
    let moving = Moving::new(stream, answering.clone(), Arc::clone(&seat));
    match tls.greet(moving).await {
        Ok(stream) => {
            let router = router.layer(Extension(Encrypted));
            serve_connection(stream, Source::Peer(source), answering, router, Some(seat)).await;
        }
        Err(error) => tracing::debug!(target: "HTTP", peer = %source, %error, "no handshake"),
    }
}

/// Answers the requests of a peer, as long as bytes move.
async fn serve_peer(
    stream: impl AsyncRead + AsyncWrite + Socket + Unpin,
    peer: IpAddr,
    router: Router,
    seat: Arc<Seat>,
) {
    let answering = Answering::default();
    let stream = Moving::new(stream, answering.clone(), Arc::clone(&seat));
    serve_connection(stream, Source::Peer(peer), answering, router, Some(seat)).await;
}

/// Answers the requests of the lab's owner, who may wait as long as it takes.
pub(crate) async fn serve_owner(stream: UnixStream, router: Router) {
    serve_connection(stream, Source::Owner, Answering::default(), router, None).await;
}

/// Answers the requests of one connection. How it went is the peer's affair.
async fn serve_connection(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    source: Source,
    answering: Answering,
    router: Router,
    seat: Option<Arc<Seat>>,
) {
    let service =
        hyper::service::service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
            request.extensions_mut().insert(source);
            if let Some(seat) = &seat {
                request.extensions_mut().insert(Arc::clone(seat));
            }
            let (router, turn, seat) = (router.clone(), answering.begin(), seat.clone());
            async move {
                let answer = router.oneshot(request).await;
                drop(turn);
                answer.map(|answer| Weighed::answer(answer, seat))
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

/// A body whose bytes are counted until they are taken.
struct Weighed {
    body: Body,
    seat: Option<Arc<Seat>>,
    is_bounded: bool,
}

impl Weighed {
    fn answer(answer: Response<Body>, seat: Option<Arc<Seat>>) -> Response<Self> {
        let is_bounded = answer.extensions().get::<Bounded>().is_some();
        answer.map(|body| Self { body, seat, is_bounded })
    }
}

impl hyper::body::Body for Weighed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        Poll::Ready(frame.map(|frame| {
            frame.map(|frame| match &self.seat {
                Some(seat) => frame.map_data(|bytes| seat.hold(bytes, self.is_bounded)),
                None => frame,
            })
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::Instant;

    use crate::http::moving::STALL_TIMEOUT;

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
        let (seat, _cut) = Keeper::for_tests().enter(PEER).unwrap();
        let serving = tokio::spawn(serve_peer(server, PEER, router(), seat));
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

    /// Strangers with small windows take every place that they can get.
    #[tokio::test(start_paused = true)]
    async fn who_does_not_read_costs_its_own_small_buffers_alone() {
        let keeper = Keeper::for_tests();
        let list = || async {
            let mut numbers = 0..1_000_000_u32;
            let whole = serde_json::json!({ "numbers": [] });
            crate::http::pieces::listing("numbers", &whole, move || numbers.next())
        };
        let made = || async { vec![0_u8; 512 << 10] };
        let router = Router::new().route("/list", get(list)).route("/made", get(made));
        let mut peers = vec![];
        for path in ["/list", "/made"] {
            for number in 0..1_000_u16 {
                let [network, host] = number.to_be_bytes();
                let from = IpAddr::from([10, network, host, 1]);
                let (mut peer, server) = tokio::io::duplex(1 << 10);
                let (seat, is_cut) = keeper.enter(from).unwrap();
                let serving = serve_peer(server, from, router.clone(), seat);
                tokio::spawn(async move {
                    tokio::select! {
                        _ = is_cut => {}
                        () = serving => {}
                    }
                });
                let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
                peer.write_all(request.as_bytes()).await.unwrap();
                peers.push(peer);
                tokio::task::yield_now().await;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
            let held = keeper.counts().held_bytes;
            assert!(held > 1 << 20 && held < 64 << 20, "{path}: {held}");
        }
        // Whoever comes now is answered at once.
        let (mut peer, server) = tokio::io::duplex(1 << 10);
        let (seat, _cut) = keeper.enter(PEER).unwrap();
        tokio::spawn(serve_peer(server, PEER, router, seat));
        let begin = Instant::now();
        peer.write_all(b"GET /made HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut answer = vec![0; 512 << 10];
        peer.read_exact(&mut answer).await.unwrap();
        assert!(begin.elapsed() < Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_a_byte_now_and_then_is_cut_off() {
        let (mut peer, server) = tokio::io::duplex(1 << 10);
        let keeper = Keeper::for_tests();
        let (seat, _cut) = keeper.enter(PEER).unwrap();
        let begin = Instant::now();
        let serving = tokio::spawn(serve_peer(server, PEER, router(), seat));
        peer.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut taken = [0; 1 << 10];
        while !serving.is_finished() {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let _ = peer.read(&mut taken).await;
        }
        assert!(begin.elapsed() < STALL_TIMEOUT * 3, "{:?}", begin.elapsed());
        assert_eq!(keeper.counts().slow_count, 1);
    }
}
