//! Connections to other endpoints. Names are resolved and connections made on threads of their own,
//! as both may take seconds and the stream must not wait.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use socket2::{SockRef, TcpKeepalive};

use crate::chain::CONNECT_TIMEOUT;
use crate::header::MEASURE_LEN;
use crate::report::Line;

/// A predecessor that was switched off says nothing; after a second of that the kernel asks, and
/// after three more without an answer the connection is gone.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(1);
const KEEPALIVE_COUNT: u32 = 3;

/// Sent and not acknowledged for so long is lost. Longer than a stall, which is noticed by itself.
const USER_TIMEOUT: Duration = Duration::from_secs(5);

/// Connects to the first address of a name that answers.
pub(super) fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    let deadline = Instant::now() + CONNECT_TIMEOUT;
    let mut last = io::Error::new(io::ErrorKind::NotFound, format!("{host} has no address"));
    for address in (host, port).to_socket_addrs()? {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        match TcpStream::connect_timeout(&address, left) {
            Ok(stream) => {
                prepare(&stream)?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// What every connection of a chain needs.
pub(super) fn prepare(stream: &TcpStream) -> io::Result<()> {
    let socket = SockRef::from(stream);
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_IDLE)
        .with_retries(KEEPALIVE_COUNT);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    socket.set_tcp_nodelay(true)
}

/// How long it takes to reach an endpoint and back: it may not even have to wake up for it.
pub(super) fn way(host: &str, port: u16) -> Option<Duration> {
    let start = Instant::now();
    let address = (host, port).to_socket_addrs().ok()?.next()?;
    let resolved = start.elapsed();
    let stream = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT).ok()?;
    let way = start.elapsed() - resolved;
    let _ = stream.shutdown(Shutdown::Both);
    Some(way)
}

/// How long what is measured with may be on its way: slower than a megabit is nothing to gain by.
const MEASURE_TIMEOUT: Duration = Duration::from_secs(2);

/// Bytes a second that reach an endpoint: [`MEASURE_LEN`] of them, until it says that it has them all.
pub(super) fn measure(host: &str, port: u16, header: &[u8]) -> io::Result<u64> {
    let mut stream = connect(host, port)?;
    stream.set_write_timeout(Some(MEASURE_TIMEOUT))?;
    stream.set_read_timeout(Some(MEASURE_TIMEOUT))?;
    stream.write_all(header)?;
    let start = Instant::now();
    let mut payload = io::repeat(0).take(MEASURE_LEN);
    io::copy(&mut payload, &mut stream)?;
    // One that does not know the question hangs up.
    stream.read_exact(&mut [0])?;
    Ok((MEASURE_LEN as f64 / start.elapsed().as_secs_f64()) as u64)
}

/// The other end of [`measure`]; `pending` has come with the header.
pub(super) fn be_measured(stream: &mut TcpStream, pending: &[u8]) -> io::Result<()> {
    stream.set_read_timeout(Some(MEASURE_TIMEOUT))?;
    let left = MEASURE_LEN.saturating_sub(pending.len() as u64);
    if io::copy(&mut (&mut *stream).take(left), &mut io::sink())? < left {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    stream.write_all(Line::Hello { offset: MEASURE_LEN }.encode().as_bytes())
}

/// The kernel's own estimate for a connection.
pub(super) fn round_trip(stream: &TcpStream) -> Duration {
    use std::os::fd::AsRawFd as _;
    // SAFETY: all bytes zero is a valid tcp_info, and the kernel writes at most `len` bytes to it.
    let info = unsafe {
        let mut info: libc::tcp_info = std::mem::zeroed();
        let mut len = size_of::<libc::tcp_info>() as libc::socklen_t;
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut len,
        );
        info
    };
    Duration::from_micros(u64::from(info.tcpi_rtt))
}
