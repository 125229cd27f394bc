//! The loop: waits for packets and times, and does what `tftp::Server` says.

use std::io;
use std::mem::MaybeUninit;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::Arc;
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

/// Marks the well-known port among what can wake us; smaller numbers are ports for transfers.
const REQUESTS: u64 = 256;

/// Marks the end.
const STOP: u64 = 257;

/// Datagrams taken from one socket before others have their turn.
const DATAGRAMS_AT_ONCE: usize = 64;

/// Longer than any request of use; what is beyond is cut off.
const DATAGRAM_LEN_MAX: usize = 2_048;

/// Wakes the driver, for its end.
#[derive(Debug)]
pub(super) struct Waker(OwnedFd);

impl Waker {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }

    pub(super) fn wake(&self) {
        // It fails only if it was woken 2^64 times before.
        let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }
}

/// The server with its sockets.
pub(super) struct Driver {
    server: Server<Content>,
    requests: UdpSocket,
    ports: Vec<UdpSocket>,
    epoll: OwnedFd,
    /// Must live as long as it is waited for.
    _waker: Arc<Waker>,
    config: Config,
    files: OpenFiles,
    sender: Sender,
    events: mpsc::Sender<Event>,
    log: Log,
    started: Instant,
}

impl Driver {
    pub(super) fn new(
        tftp: Tftp,
        limits: tftp::Config,
        events: mpsc::Sender<Event>,
        waker: Arc<Waker>,
    ) -> io::Result<Self> {
        let Tftp { requests, ports, config } = tftp;
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &requests, EventData::new_u64(REQUESTS), EventFlags::IN)?;
        epoll::add(&epoll, &waker.0, EventData::new_u64(STOP), EventFlags::IN)?;
        for (number, port) in (0..).zip(&ports) {
            // They block when they are full, so that we send no faster than the network carries.
            SockRef::from(port).set_send_buffer_size(QUEUE_LEN)?;
            epoll::add(&epoll, port, EventData::new_u64(number), EventFlags::IN)?;
        }
        Ok(Self {
            server: Server::new(limits),
            requests,
            ports,
            epoll,
            _waker: waker,
            config,
            files: OpenFiles::default(),
            sender: Sender::new(),
            events,
            log: Log::default(),
            started: Instant::now(),
        })
    }

    /// Until it is woken by its [`Waker`].
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
                    STOP => return Ok(()),
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

    /// Takes what came to a socket. While there is one transfer, that is one datagram: asking for
    /// another one first would only make its answer late.
    fn receive(&mut self, number: u64, datagram: &mut [u8]) {
        for _ in 0..DATAGRAMS_AT_ONCE {
            let socket = usize::try_from(number).ok().and_then(|number| self.ports.get(number));
            let socket = socket.unwrap_or(&self.requests);
            let received = rustix::net::recvfrom(socket, &mut *datagram, RecvFlags::DONTWAIT);
            // Nothing more, or an error that is not ours: a packet that did not arrive, for example.
            let Ok((len, _, Some(from))) = received else { return };
            let Ok(from) = SocketAddr::try_from(from) else { return };
            self.take(number, from, &datagram[..len]);
            if self.server.transfer_count() <= 1 {
                return;
            }
        }
    }

    fn take(&mut self, number: u64, from: SocketAddr, datagram: &[u8]) {
        let input = match u8::try_from(number) {
            Ok(port) => {
                Input::Datagram { to: TransferId { peer: from, port: Port(port) }, datagram }
            }
            Err(_) => Input::Request { from, datagram },
        };
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
