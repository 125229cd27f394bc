//! A connection as a stream that ends when its peer does not keep up, or is not there any more.
//!
//! **Both ways.** Nothing may move for [`STALL_TIMEOUT`], unless it is this server that takes its time with an
//! answer, as a command that switches many nodes on does.
//!
//! **Answers.** While one waits for its reader, that has to take [`LEAST_RATE`] on average. Counted are the bytes
//! for which the kernel has room again, and the time in which it had none: a server with a slow disk
//! cuts off nobody.
//!
//! **The kernel's buffers** are part of what a slow reader costs. They are small ([`BUFFER_LEN`]) until a peer has
//! shown that it is quick, and grow then if the purse of all connections has something left.
//!
//! **The end.** What was answered is waited for ([`LINGER_TIMEOUT`]) with the place kept, since the kernel would
//! keep it for minutes otherwise, where nobody counts it; who is cut off is reset.

use std::io;
use std::os::fd::AsRawFd as _;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

use super::keeper::Seat;
use super::purse::Grant;

/// How long nothing may move: a switch that is replugged takes less, and so does a disk that wakes up.
pub(super) const STALL_TIMEOUT: Duration = Duration::from_secs(60);

/// Bytes a second that a reader must take: a modem's, and a hundredth of what iPXE manages on the worst network that boots.
const LEAST_RATE: u64 = 4 << 10;

/// Over how long: as for [`STALL_TIMEOUT`].
const PATIENCE: Duration = Duration::from_secs(60);

/// The kernel's buffers each way, to begin with; it doubles what it is told, for its own records. A boot script and a
/// request fit. (Without bound it grows them to 4 MiB and more for each connection.)
pub(super) const BUFFER_LEN: usize = 16 << 10;

/// The same for a peer that is quick, as long as the purse has this: the kernel sizes the buffer itself then, for what is on its
/// way, and takes half of this beyond it. Fixed buffers cost half of the speed of a link of 30 Gbit/s.
const GROWING_LEN: usize = 1 << 20;

/// For one that is quick if the purse has less: a gigabit with 1 ms there and back, and always less than
/// `net.core.wmem_max`.
const BUFFER_LEN_MAX: usize = 128 << 10;

/// Bytes after which it is looked whether a peer is quick, and how long they take if it is.
const QUICK_LEN: usize = 256 << 10;
const QUICK_TIME: Duration = Duration::from_secs(1);

/// How long an answer's end is waited for: the smallest buffer at [`LEAST_RATE`], twice.
pub(super) const LINGER_TIMEOUT: Duration = Duration::from_secs(15);

/// What the kernel is told about a connection.
pub(super) trait Socket {
    /// Whatever is on its way is thrown away when it closes.
    fn reset_when_closed(&self);
    /// How much may be in the kernel for the peer.
    fn set_buffer(&self, len: usize);
    /// As much as the kernel finds good may be on its way, and `unsent_len` wait to be.
    fn let_buffer_grow(&self, unsent_len: usize);
}

impl Socket for TcpStream {
    fn reset_when_closed(&self) {
        let _ = self.set_zero_linger();
    }

    fn set_buffer(&self, len: usize) {
        let _ = socket2::SockRef::from(self).set_send_buffer_size(len);
    }

    fn let_buffer_grow(&self, unsent_len: usize) {
        let unsent_len = u32::try_from(unsent_len).unwrap_or(u32::MAX);
        let _ = socket2::SockRef::from(self).set_tcp_notsent_lowat(unsent_len);
        let unlocked: libc::c_int = 0;
        // SAFETY: the descriptor is open, and the option is read from one int at the address given.
        unsafe {
            libc::setsockopt(
                self.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_BUF_LOCK,
                (&raw const unlocked).cast(),
                size_of::<libc::c_int>() as libc::socklen_t,
            );
        }
    }
}

#[cfg(test)]
impl Socket for tokio::io::DuplexStream {
    fn reset_when_closed(&self) {}

    fn set_buffer(&self, _: usize) {}

    fn let_buffer_grow(&self, _: usize) {}
}

/// How many requests of a connection wait for their answer to begin.
#[derive(Clone, Debug, Default)]
pub(super) struct Answering(Arc<AtomicUsize>);

/// One of them.
pub(super) struct Turn(Answering);

impl Answering {
    pub(super) fn begin(&self) -> Turn {
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

/// How a reader keeps up. Times are those since the connection began.
#[derive(Clone, Copy, Debug, Default)]
struct Pace {
    /// Since when this waits for the reader.
    since: Option<Duration>,
    /// How long it has waited before that, and the bytes taken meanwhile.
    waited: Duration,
    taken: u64,
}

impl Pace {
    /// There is no room for more. Returns when that will have been so for too long.
    fn waits(&mut self, now: Duration) -> Duration {
        let since = *self.since.get_or_insert(now);
        since + PATIENCE.saturating_sub(self.waited)
    }

    /// There was room for so many bytes.
    fn took(&mut self, now: Duration, len: usize) {
        if let Some(since) = self.since.take() {
            self.waited += now.saturating_sub(since);
        }
        // What goes into empty buffers was not taken yet.
        if !self.waited.is_zero() {
            self.taken += len as u64;
        }
        if self.waited >= PATIENCE && self.is_enough() {
            *self = Self::default();
        }
    }

    fn is_enough(&self) -> bool {
        self.taken >= LEAST_RATE * PATIENCE.as_secs()
    }

    /// Whether the reader took too little of late.
    fn is_too_slow(&mut self, now: Duration) -> bool {
        if let Some(since) = self.since {
            self.waited += now.saturating_sub(since);
            self.since = Some(now);
        }
        if self.waited < PATIENCE {
            return false;
        }
        let is_enough = self.is_enough();
        *self = Self { since: self.since, ..Self::default() };
        !is_enough
    }
}

/// How the end is waited for.
#[derive(Debug)]
enum End {
    Open,
    Waited(Pin<Box<Sleep>>),
    Closed,
}

/// The stream.
pub(super) struct Moving<S: Socket> {
    stream: S,
    begun: Instant,
    stall: Pin<Box<Sleep>>,
    patience: Pin<Box<Sleep>>,
    pace: Pace,
    answering: Answering,
    seat: Arc<Seat>,
    buffer: Grant,
    /// Bytes since it was looked whether the peer is quick, and when that was.
    looked: (usize, Instant),
    end: End,
}

impl<S: Socket> Moving<S> {
    pub(super) fn new(stream: S, answering: Answering, seat: Arc<Seat>) -> Self {
        let begun = Instant::now();
        Self {
            stream,
            begun,
            stall: Box::pin(tokio::time::sleep(STALL_TIMEOUT)),
            patience: Box::pin(tokio::time::sleep(PATIENCE)),
            pace: Pace::default(),
            answering,
            buffer: seat.buffer(),
            seat,
            looked: (0, begun),
            end: End::Open,
        }
    }

    /// Passes on what the stream says, unless that has been "wait" for too long.
    fn watch<T>(
        &mut self,
        context: &mut Context<'_>,
        polled: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.stall.as_mut().reset(Instant::now() + STALL_TIMEOUT);
            return polled;
        }
        while self.stall.as_mut().poll(context).is_ready() {
            if !self.answering.is_under_way() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            self.stall.as_mut().reset(Instant::now() + STALL_TIMEOUT);
        }
        Poll::Pending
    }

    /// As [`Self::watch`], of an answer.
    fn watch_reader(
        &mut self,
        context: &mut Context<'_>,
        polled: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let now = self.begun.elapsed();
        match &polled {
            Poll::Ready(Ok(len)) => {
                self.pace.took(now, *len);
                self.seat.moved(*len);
                self.look(*len);
            }
            Poll::Ready(Err(_)) => {}
            Poll::Pending => {
                let until = self.begun + self.pace.waits(now);
                self.patience.as_mut().reset(until);
                while self.patience.as_mut().poll(context).is_ready() {
                    if self.pace.is_too_slow(self.begun.elapsed()) {
                        self.seat.is_slow();
                        return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                    }
                    let until = self.begun + self.pace.waits(self.begun.elapsed());
                    self.patience.as_mut().reset(until);
                }
            }
        }
        self.watch(context, polled)
    }

    /// Has the kernel buffer more for a peer that is quick, and less for one that has been.
    fn look(&mut self, len: usize) {
        self.looked.0 += len;
        if self.looked.0 < QUICK_LEN {
            return;
        }
        let is_quick = self.looked.1.elapsed() < QUICK_TIME;
        self.looked = (0, Instant::now());
        // The kernel takes twice of what it is told.
        let fixed_len = 2 * BUFFER_LEN_MAX;
        match (is_quick, self.buffer.len()) {
            (true, 0) if self.buffer.resize(GROWING_LEN) => {
                self.stream.let_buffer_grow(GROWING_LEN / 2);
            }
            (true, 0) if self.buffer.resize(fixed_len) => self.stream.set_buffer(BUFFER_LEN_MAX),
            (false, len) if len > 0 => {
                self.buffer.resize(0);
                self.stream.set_buffer(BUFFER_LEN);
            }
            _ => {}
        }
    }
}

impl<S: Socket> Drop for Moving<S> {
    fn drop(&mut self) {
        if !matches!(self.end, End::Closed) {
            self.stream.reset_when_closed();
        }
    }
}

impl<S: AsyncRead + Socket + Unpin> AsyncRead for Moving<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.watch(context, polled)
    }
}

impl<S: AsyncRead + AsyncWrite + Socket + Unpin> AsyncWrite for Moving<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watch_reader(context, polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if matches!(self.end, End::Open) {
            ready!(Pin::new(&mut self.stream).poll_shutdown(context))?;
            self.end = End::Waited(Box::pin(tokio::time::sleep(LINGER_TIMEOUT)));
        }
        let Self { stream, end, .. } = &mut *self;
        let End::Waited(until) = end else { return Poll::Ready(Ok(())) };
        // The peer closes when it has everything; what else it says comes too late.
        let mut scrap = [0; 1024];
        loop {
            if until.as_mut().poll(context).is_ready() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            let mut buffer = ReadBuf::new(&mut scrap);
            ready!(Pin::new(&mut *stream).poll_read(context, &mut buffer))?;
            if buffer.filled().is_empty() {
                *end = End::Closed;
                return Poll::Ready(Ok(()));
            }
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(context, bytes);
        self.watch_reader(context, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn who_takes_a_little_now_and_then_is_too_slow() {
        let mut pace = Pace::default();
        pace.took(at(0), 1 << 20);
        let mut end = pace.waits(at(0));
        for second in 1..60 {
            pace.took(at(second), 4_000);
            end = pace.waits(at(second));
        }
        assert_eq!(end, at(60));
        assert!(pace.is_too_slow(end));
    }

    #[test]
    fn who_takes_enough_goes_on_for_ever() {
        let mut pace = Pace::default();
        for second in 0..600 {
            let end = pace.waits(at(second));
            assert!(end > at(second));
            pace.took(at(second + 1), 4_100);
            assert!(!pace.is_too_slow(at(second + 1)));
        }
    }

    #[test]
    fn time_that_this_server_takes_does_not_count() {
        let mut pace = Pace::default();
        for hour in 0..20 {
            pace.waits(at(hour * 3_600));
            pace.took(at(hour * 3_600 + 1), 1);
        }
        assert!(!pace.is_too_slow(at(100_000)));
    }
}
