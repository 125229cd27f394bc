//! The loop: waits for packets and times, and does what `dhcp::Service` says.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use dhcp::lease::DOUBTS_MAX;
use dhcp::message::MESSAGE_LEN_MAX;
use dhcp::{Event, Input, Mac, Mode, Output, Port, Role, Service};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use tokio::sync::mpsc;

use super::heard::Heard;
use super::log::Log;
use super::neighbours::{self, ANSWER_TIME, DISCARD_PORT};
use super::sockets::Sockets;
use super::{Clock, Dhcp, Memory, Setup, Status};
use crate::leases::{Change, Entry, Writer};

/// Datagrams taken from one socket before others have their turn.
const DATAGRAMS_AT_ONCE: usize = 64;

/// How old the status may be.
const STATUS_INTERVAL: Duration = Duration::from_millis(500);

/// Machines that were seen to use their address and wait to be told. Beyond that they are not; they
/// are at their next file, or when they renew.
const USED_MAX: usize = 1_024;

/// What the driver shares with those who watch it.
pub(super) struct Shared {
    waker: Waker,
    is_stopping: AtomicBool,
    setup: Mutex<Setup>,
    is_setup_new: AtomicBool,
    used: Mutex<VecDeque<Mac>>,
    dropped_count: AtomicU64,
    sent_count: AtomicU64,
    pub(super) heard: Heard,
    pub(super) status: Mutex<Status>,
}

impl Shared {
    pub(super) fn new(setup: Setup) -> io::Result<Self> {
        Ok(Self {
            waker: Waker::new()?,
            is_stopping: AtomicBool::new(false),
            setup: Mutex::new(setup),
            is_setup_new: AtomicBool::new(false),
            used: Mutex::default(),
            dropped_count: AtomicU64::new(0),
            sent_count: AtomicU64::new(0),
            heard: Heard::default(),
            status: Mutex::new(Status::default()),
        })
    }

    pub(super) fn stop(&self) {
        self.is_stopping.store(true, Ordering::Release);
        self.waker.wake();
    }

    pub(super) fn configure(&self, setup: Setup) {
        *self.setup.lock().unwrap_or_else(PoisonError::into_inner) = setup;
        self.is_setup_new.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// The latest.
    pub(super) fn setup(&self) -> Setup {
        self.setup.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn used(&self, mac: Mac) {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        if used.len() < USED_MAX {
            used.push_back(mac);
            self.waker.wake();
        }
    }

    pub(super) fn failed(&self, error: &anyhow::Error) {
        let status = Status { failure: Some(format!("{error:#}")), ..Status::default() };
        *self.status.lock().unwrap_or_else(PoisonError::into_inner) = status;
    }

    fn count(&self, result: &io::Result<()>) {
        let counter = if result.is_ok() { &self.sent_count } else { &self.dropped_count };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// Wakes the driver.
pub(super) struct Waker(OwnedFd);

impl Waker {
    fn new() -> io::Result<Self> {
        Ok(Self(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }

    fn wake(&self) {
        // It fails only if it was woken 2^64 times before.
        let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }

    fn reset(&self) {
        let _ = rustix::io::read(&self.0, &mut [0; 8]);
    }
}

/// An answer on its way.
struct Datagram {
    port: Port,
    to: SocketAddrV4,
    bytes: Vec<u8>,
}

/// The service with its sockets.
pub(super) struct Driver {
    service: Service,
    sockets: Arc<Sockets>,
    writer: Writer<Vec<Datagram>>,
    clock: Clock,
    shared: Arc<Shared>,
    events: mpsc::Sender<Event>,
    log: Log,
    memory: Memory,
    /// Addresses that are looked at, and since when; at most [`DOUBTS_MAX`].
    looks: VecDeque<(Ipv4Addr, Instant)>,
    received_count: u64,
    status_at: Instant,
}

impl Driver {
    pub(super) fn new(dhcp: Dhcp, events: mpsc::Sender<Event>) -> anyhow::Result<Self> {
        let Dhcp { service, place, sockets, leases, clock, shared } = dhcp;
        let sockets = Arc::new(sockets);
        let (by_writer, counts) = (Arc::clone(&sockets), Arc::clone(&shared));
        let writer = Writer::start(leases, move |answers: Vec<Datagram>| {
            for Datagram { port, to, bytes } in answers {
                counts.count(&by_writer.send(port, to, &bytes));
            }
        })?;
        Ok(Self {
            service,
            sockets,
            writer,
            clock,
            shared,
            events,
            log: Log::default(),
            memory: place.memory,
            looks: VecDeque::new(),
            received_count: 0,
            status_at: Instant::now(),
        })
    }

    /// Until it is stopped.
    pub(super) fn run(mut self) -> anyhow::Result<()> {
        self.drain();
        loop {
            self.publish_status();
            let sockets = self.sockets.all();
            let ready = self.wait(&sockets).context("cannot wait for DHCP packets")?;
            if self.shared.is_stopping.load(Ordering::Acquire) {
                return Ok(());
            }
            self.take_news();
            for (port, socket) in ready {
                self.receive(port, &socket);
            }
            if self.service.next_timeout().is_some_and(|due| due <= self.clock.now()) {
                self.service.handle(self.clock.now(), Input::Tick);
                self.drain();
            }
        }
    }

    /// The sockets that have something, when one has or something is due.
    fn wait(&self, sockets: &[(Port, Arc<UdpSocket>)]) -> io::Result<Vec<(Port, Arc<UdpSocket>)>> {
        let mut fds: Vec<PollFd<'_>> =
            sockets.iter().map(|(_, socket)| PollFd::new(socket, PollFlags::IN)).collect();
        fds.push(PollFd::new(&self.shared.waker.0, PollFlags::IN));
        let due = self.service.next_timeout().map(|due| due.since(self.clock.now()));
        // A millisecond more, as the kernel may count in those and round down.
        let wait = due.map_or(STATUS_INTERVAL, |due| due.min(STATUS_INTERVAL));
        let wait = Timespec::try_from(wait + Duration::from_millis(1)).ok();
        match poll(&mut fds, wait.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        if fds.last().is_some_and(|fd| !fd.revents().is_empty()) {
            self.shared.waker.reset();
        }
        let is_ready = |fd: &PollFd<'_>| !fd.revents().is_empty();
        let ready = sockets.iter().zip(&fds).filter(|(_, fd)| is_ready(fd));
        Ok(ready.map(|((port, socket), _)| (*port, Arc::clone(socket))).collect())
    }

    /// What others of this process have said meanwhile, and the kernel.
    fn take_news(&mut self) {
        if self.shared.is_setup_new.swap(false, Ordering::AcqRel) {
            let config = self.shared.setup().config;
            if let Err(error) = self.service.configure(config) {
                tracing::error!("cannot take the new DHCP settings, those before stay: {error}");
            }
        }
        let used =
            std::mem::take(&mut *self.shared.used.lock().unwrap_or_else(PoisonError::into_inner));
        for mac in used {
            self.service.handle(self.clock.now(), Input::Used(mac));
        }
        while let Some((address, _)) =
            self.looks.pop_front_if(|(_, since)| since.elapsed() >= ANSWER_TIME)
        {
            match neighbours::user(self.sockets.interface(), address) {
                Ok(user) => {
                    self.service.handle(self.clock.now(), Input::Looked { address, user });
                }
                Err(error) => tracing::warn!("cannot read the neighbour table: {error}"),
            }
        }
        self.drain();
    }

    /// Has the kernel ask who uses an address.
    fn look(&mut self, address: Ipv4Addr) {
        if self.looks.len() < DOUBTS_MAX {
            let (port, to) = (Port::Server, SocketAddrV4::new(address, DISCARD_PORT));
            self.send(&Datagram { port, to, bytes: vec![0] });
            self.looks.push_back((address, Instant::now()));
        }
    }

    fn receive(&mut self, port: Port, socket: &UdpSocket) {
        // One more than is read, so that what is too long is seen to be.
        let mut datagram = [0; MESSAGE_LEN_MAX + 1];
        for _ in 0..DATAGRAMS_AT_ONCE {
            let (len, from) = match socket.recv_from(&mut datagram) {
                Ok((len, SocketAddr::V4(from))) => (len, from),
                Ok((_, SocketAddr::V6(_))) => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // An answer of before met a closed port, or the interface went down: not our end.
                Err(_) => break,
            };
            self.received_count += 1;
            let bytes = &datagram[..len];
            self.service.handle(self.clock.now(), Input::Packet { port, from, bytes });
            self.drain();
        }
    }

    /// Does what came of one input. Answers wait for the leases that they acknowledge.
    fn drain(&mut self) {
        let (mut changes, mut answers) = (vec![], vec![]);
        while let Some(output) = self.service.poll() {
            match output {
                Output::Store(lease) => changes.push(Change::Store(lease)),
                Output::Forget(address) => changes.push(Change::Forget(address)),
                Output::Send { port, to, bytes } if changes.is_empty() => {
                    self.send(&Datagram { port, to, bytes });
                }
                Output::Send { port, to, bytes } => answers.push(Datagram { port, to, bytes }),
                Output::Listen(is_wanted) => self.sockets.listen(is_wanted),
                Output::Look(address) => self.look(address),
                Output::Event(event) => {
                    self.remember(&event);
                    self.log.event(self.clock.start.elapsed(), &event);
                    // Who is slow to listen must not hold up a boot.
                    if self.events.try_send(event).is_ok() {
                        self.shared.heard.told();
                    }
                }
            }
        }
        if !changes.is_empty() && !self.writer.submit(Entry { changes, then: answers }) {
            self.shared.dropped_count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What it became by itself; where it is told what to be there is nothing to remember.
    fn remember(&self, event: &Event) {
        let Event::Serving { role, beside } = *event else {
            return;
        };
        let config = self.shared.setup().config;
        // A proxy beside nobody has not decided yet.
        let is_decided = role == Role::Server || beside.is_some();
        if config.mode != Mode::Proxy && is_decided {
            self.memory.keep(role, config.subnet);
        }
    }

    fn send(&mut self, datagram: &Datagram) {
        let result = self.sockets.send(datagram.port, datagram.to, &datagram.bytes);
        if let Err(error) = &result {
            self.log.not_sent(self.clock.start.elapsed(), datagram.to, error);
        }
        self.shared.count(&result);
    }

    fn publish_status(&mut self) {
        let now = Instant::now();
        if now < self.status_at {
            return;
        }
        self.status_at = now + STATUS_INTERVAL;
        let time = self.clock.now();
        let status = Status {
            role: self.service.role(),
            waits_for: self.service.waits_for(),
            failure: None,
            drained: self.service.drained(time),
            pool: self.service.pool(),
            lease_count: self.service.leases().filter(|lease| lease.until > time).count(),
            received_count: self.received_count,
            sent_count: self.shared.sent_count.load(Ordering::Relaxed),
            dropped_count: self.shared.dropped_count.load(Ordering::Relaxed),
        };
        *self.shared.status.lock().unwrap_or_else(PoisonError::into_inner) = status;
    }
}
