//! The loop: waits for packets and times, and does what `tftp::Server` says.
//!
//! There may be several, each on a thread of its own with ports of its own. In lock-step a server
//! does as much for a block as its node does, so with one thread half of the processors wait.

use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use rustix::net::RecvFlags;
use socket2::SockRef;
use tftp::{Event, Input, Output, Port, Server, Time, TransferId};
use tokio::sync::mpsc;

use super::log::Log;
use super::root::{Content, OpenFiles};
use super::send::{QUEUE_LEN, SendError, Sender};
use super::{Config, Tftp};
use crate::fleet::Standings;

/// Marks the well-known port among what can wake us; smaller numbers are ports for transfers.
const REQUESTS: u64 = 256;

/// Marks the waker.
const WAKER: u64 = 257;

/// Datagrams taken from one socket before others have their turn.
const DATAGRAMS_AT_ONCE: usize = 64;

/// Longer than any request of use; what is beyond is cut off.
const DATAGRAM_LEN_MAX: usize = 2_048;

/// Requests that wait for a thread: a fleet's that is switched on at once. Nodes whose request does
/// not fit ask again.
const REQUESTS_MAX: usize = 4_096;

/// Wakes a driver, for its end or for a request.
#[derive(Debug)]
struct Waker {
    event: OwnedFd,
    is_stopping: AtomicBool,
}

impl Waker {
    fn new() -> io::Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { event, is_stopping: AtomicBool::new(false) })
    }

    fn wake(&self) {
        // It fails only if it was woken 2^64 times before.
        let _ = rustix::io::write(&self.event, &1_u64.to_ne_bytes());
    }
}

/// Ends drivers.
#[derive(Debug)]
pub(super) struct Stop(Vec<Arc<Waker>>);

impl Stop {
    pub(super) fn stop(&self) {
        for waker in &self.0 {
            waker.is_stopping.store(true, Ordering::Release);
            waker.wake();
        }
    }
}

/// A request, on its way to the thread that serves its node.
struct Request {
    from: SocketAddr,
    datagram: Vec<u8>,
}

/// Where another driver takes requests.
struct Colleague {
    requests: SyncSender<Request>,
    waker: Arc<Waker>,
}

/// A server with its sockets, for the nodes whose turn it is ([`turn`]). The first of them reads the
/// well-known port, for all.
pub(super) struct Driver {
    server: Server<Content>,
    requests: Option<UdpSocket>,
    /// Of the others, in order; only the first has any.
    colleagues: Vec<Colleague>,
    passed_on: Receiver<Request>,
    waker: Arc<Waker>,
    ports: Vec<UdpSocket>,
    epoll: OwnedFd,
    config: Config,
    files: OpenFiles,
    sender: Sender,
    standings: Standings,
    events: mpsc::Sender<Event>,
    log: Arc<Log>,
    started: Instant,
}

/// Drivers for up to `count` threads, and what ends them. They share the ports and all limits.
pub(super) fn drivers(
    tftp: Tftp,
    limits: tftp::Config,
    standings: &Standings,
    events: &mpsc::Sender<Event>,
    count: usize,
) -> io::Result<(Vec<Driver>, Stop)> {
    let Tftp { requests, ports, config } = tftp;
    let count = count.clamp(1, ports.len().max(1));
    let (log, started) = (Arc::new(Log::default()), Instant::now());
    let mut ports = ports.into_iter();
    let mut drivers = vec![];
    let mut colleagues = vec![];
    for number in 0..count {
        let ports: Vec<UdpSocket> =
            ports.by_ref().take(usize::from(limits.port_count) / count).collect();
        let (sender, passed_on) = sync_channel(REQUESTS_MAX);
        let waker = Arc::new(Waker::new()?);
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &waker.event, EventData::new_u64(WAKER), EventFlags::IN)?;
        for (number, port) in (0..).zip(&ports) {
            // They block when they are full, so that we send no faster than the network carries.
            SockRef::from(port).set_send_buffer_size(QUEUE_LEN)?;
            epoll::add(&epoll, port, EventData::new_u64(number), EventFlags::IN)?;
        }
        let share = count as u64;
        let limits = tftp::Config {
            port_count: limits.port_count / count as u8,
            transfers_max: limits.transfers_max / count,
            half_open_max: limits.half_open_max / count,
            windows_len_max: limits.windows_len_max / share,
            ..limits
        };
        if number > 0 {
            colleagues.push(Colleague { requests: sender, waker: Arc::clone(&waker) });
        }
        drivers.push(Driver {
            server: Server::new(limits),
            requests: None,
            colleagues: vec![],
            passed_on,
            waker,
            ports,
            epoll,
            config: config.clone(),
            files: OpenFiles::default(),
            sender: Sender::new(),
            standings: Arc::clone(standings),
            events: events.clone(),
            log: Arc::clone(&log),
            started,
        });
    }
    let stop = Stop(drivers.iter().map(|driver| Arc::clone(&driver.waker)).collect());
    if let Some(first) = drivers.first_mut() {
        epoll::add(&first.epoll, &requests, EventData::new_u64(REQUESTS), EventFlags::IN)?;
        first.requests = Some(requests);
        first.colleagues = colleagues;
    }
    Ok((drivers, stop))
}

/// Which of `count` threads serves a node: always the same, so that a request that comes twice is
/// known, and addresses one after the other, as fleets have them, in turn.
fn turn(node: IpAddr, count: usize) -> usize {
    let last = match node {
        IpAddr::V4(address) => address.octets()[3],
        IpAddr::V6(address) => address.octets()[15],
    };
    usize::from(last) % count
}

impl Driver {
    /// Until it is stopped.
    pub(super) fn run(mut self) -> io::Result<()> {
        let mut ready = [MaybeUninit::uninit(); 16];
        let mut datagram = [0; DATAGRAM_LEN_MAX];
        loop {
            let wait = self.wait();
            let ready = match epoll::wait(&self.epoll, &mut ready, wait.as_ref()) {
                Ok((ready, _)) => ready,
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            for event in ready {
                match event.data.u64() {
                    WAKER if self.waker.is_stopping.load(Ordering::Acquire) => return Ok(()),
                    WAKER => self.take_passed_on(),
                    REQUESTS => self.receive_requests(&mut datagram),
                    number => self.receive(number, &mut datagram),
                }
            }
            let now = self.now();
            if self.server.next_timeout() <= now {
                self.server.handle(now, Input::Tick);
                self.drain(now);
            }
        }
    }

    /// How long until something is to be done; `None` if nothing ever is.
    fn wait(&self) -> Option<Timespec> {
        let due = self.server.next_timeout();
        if due == Time::NEVER {
            return None;
        }
        // A millisecond more, as the kernel may count in those and round down.
        let wait = due.since(self.now()) + Duration::from_millis(1);
        Timespec::try_from(wait).ok()
    }

    fn now(&self) -> Time {
        Time::ZERO + self.started.elapsed()
    }

    /// Takes what came to the well-known port, and passes on what is for others.
    fn receive_requests(&mut self, datagram: &mut [u8]) {
        for _ in 0..DATAGRAMS_AT_ONCE {
            let Some(requests) = &self.requests else { return };
            // Nothing more, or an error that is not ours: an answer that did not arrive, for example.
            let Ok((len, from)) = receive(requests, datagram) else { return };
            let number = turn(from.ip().to_canonical(), self.colleagues.len() + 1);
            match number.checked_sub(1).and_then(|number| self.colleagues.get(number)) {
                Some(colleague) => {
                    let datagram = datagram[..len].to_vec();
                    // Full: the node asks again.
                    let _ = colleague.requests.try_send(Request { from, datagram });
                    colleague.waker.wake();
                }
                None => self.take_request(from, &datagram[..len]),
            }
        }
    }

    fn take_passed_on(&mut self) {
        let _ = rustix::io::read(&self.waker.event, &mut [0; 8]);
        while let Ok(Request { from, datagram }) = self.passed_on.try_recv() {
            self.take_request(from, &datagram);
        }
    }

    fn take_request(&mut self, from: SocketAddr, datagram: &[u8]) {
        let standing = (self.standings)(from.ip());
        self.take(Input::Request { from, standing, datagram });
    }

    /// Takes what came to a port for transfers. While there is one transfer, that is one datagram:
    /// asking for another one first would only make its answer late.
    fn receive(&mut self, number: u64, datagram: &mut [u8]) {
        let Ok(port) = u8::try_from(number) else { return };
        for _ in 0..DATAGRAMS_AT_ONCE {
            let Some(socket) = self.ports.get(usize::from(port)) else { return };
            let Ok((len, peer)) = receive(socket, datagram) else { return };
            let to = TransferId { peer, port: Port(port) };
            self.take(Input::Datagram { to, datagram: &datagram[..len] });
            if self.server.transfer_count() <= 1 {
                return;
            }
        }
    }

    fn take(&mut self, input: Input<'_, Content>) {
        let now = self.now();
        self.server.handle(now, input);
        self.drain(now);
    }

    fn drain(&mut self, now: Time) {
        while let Some(output) = self.server.poll() {
            match output {
                Output::Open { transfer, name } => {
                    let file = self.files.open(&self.config.root.borrow(), &name);
                    self.server.handle(now, Input::Opened { transfer, file });
                }
                Output::Blocks { transfer, window } => self.send(now, transfer, window),
                Output::Packet { transfer, datagram } => {
                    let socket = &self.ports[usize::from(transfer.port.0)];
                    if let Err(error) = socket.send_to(&datagram, transfer.peer) {
                        self.log.not_sent(self.started.elapsed(), transfer.peer, &error);
                    }
                }
                Output::Event(event) => {
                    self.log.event(self.started.elapsed(), &event);
                    // Full, or nobody listens: a boot does not wait for who looks on.
                    let _ = self.events.try_send(event);
                }
            }
        }
    }

    fn send(&mut self, now: Time, transfer: TransferId, window: tftp::Window) {
        // A transfer that ended while its last blocks were waiting here has none.
        let Some(content) = self.server.file(transfer) else { return };
        let socket = &self.ports[usize::from(transfer.port.0)];
        match self.sender.send(socket, transfer.peer, content, window) {
            Ok(()) => {}
            Err(SendError::Read(error)) => {
                tracing::error!(%error, "cannot read a file that is served by TFTP");
                self.server.handle(now, Input::ReadFailed { transfer });
            }
            Err(SendError::Send(error)) => {
                self.log.not_sent(self.started.elapsed(), transfer.peer, &error);
            }
        }
    }
}

/// A datagram, its length and its sender, if one is there.
fn receive(socket: &UdpSocket, datagram: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
    let (len, _, from) = rustix::net::recvfrom(socket, datagram, RecvFlags::DONTWAIT)?;
    let from = from.and_then(|from| SocketAddr::try_from(from).ok());
    Ok((len, from.ok_or(io::ErrorKind::InvalidData)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_take_turns_and_keep_to_their_thread() {
        let of = |node: &str| turn(node.parse().unwrap(), 2);
        assert_eq!([of("10.0.0.1"), of("10.0.0.2"), of("10.0.0.3")], [1, 0, 1]);
        assert_eq!(of("10.0.0.1"), of("10.0.0.1"));
        assert_eq!([of("fe80::1"), of("fe80::2")], [1, 0]);
        assert_eq!(turn(IpAddr::from([10, 0, 0, 1]), 1), 0);
    }
}
