//! The DHCP client of one interface, with its sockets: drives `dhcp::client::Client`.
//!
//! It is turned by [`Dialogue::wait`], first by the thread that brings the network up and then by the
//! one that keeps the lease: at any time one thread owns it.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::{Duration, Instant};

use dhcp::Time;
use dhcp::client::{Client, ClientConfig, Destination, Input, Lease, LostReason, Output};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use super::frame;
use super::interface::Interface;
use super::socket::{PACKET_ROOM, PacketSocket, RenewalSocket};

/// ARP probes for one address. RFC 5227 section 1.1 has three, 1 to 2 s apart, for hosts that
/// configure themselves; here a server has leased the address and most have looked for themselves.
const PROBES: u32 = 2;

/// Between two probes, and from the last one to the verdict. On a switch the answer comes within a
/// few milliseconds, from a machine that is asleep within some tens.
const PROBE_INTERVAL: Duration = Duration::from_millis(120);

/// Packets that are read before anything else is looked at again: a flood may fill the socket, it may
/// not hold the client up.
const PACKETS_PER_TURN_MAX: usize = 64;

/// What becomes of an interface's lease.
#[derive(Debug)]
pub(super) enum LeaseEvent {
    /// It has one.
    Bound(Lease),
    /// It goes on.
    Renewed(Lease),
    /// It has none any more.
    Lost(Ipv4Addr, LostReason),
    /// The address that was leased is another machine's.
    Declined(Ipv4Addr),
}

/// What [`Dialogue::wait`] came back with.
#[derive(Debug)]
pub(super) enum Turn {
    Event(LeaseEvent),
    /// Nothing happened until then.
    Deadline,
    /// The descriptor that was to end the wait has something to say.
    Interrupted,
}

/// How the client reaches the network: it depends on whether there is an address.
enum Path {
    Packets(PacketSocket),
    Udp(RenewalSocket),
}

/// An address that is being probed.
struct Probe {
    address: Ipv4Addr,
    socket: PacketSocket,
    sent_count: u32,
    next_at: Instant,
}

pub(super) struct Dialogue {
    client: Client,
    /// The zero of the client's clock.
    start: Instant,
    interface: Interface,
    /// `None` when the one that there was can no longer be used.
    path: Option<Path>,
    probe: Option<Probe>,
}

impl Dialogue {
    /// Wants an address for an interface that is up.
    pub(super) fn new(interface: Interface, config: ClientConfig) -> io::Result<Self> {
        let path = Path::Packets(PacketSocket::dhcp(&interface)?);
        let client = Client::new(config, Time::ZERO);
        Ok(Self { client, start: Instant::now(), interface, path: Some(path), probe: None })
    }

    pub(super) fn interface(&self) -> &Interface {
        &self.interface
    }

    /// DISCOVERs sent since there was last an address.
    pub(super) fn attempt(&self) -> u32 {
        self.client.attempt()
    }

    /// The interface has the leased address from now on: goes on through UDP, and tells the
    /// neighbours.
    pub(super) fn address_is_set(&mut self, address: Ipv4Addr) -> io::Result<()> {
        self.path = Some(Path::Udp(RenewalSocket::open(&self.interface)?));
        let announcement = frame::arp_announcement(self.interface.mac, address);
        PacketSocket::arp(&self.interface)?.broadcast(&announcement)
    }

    /// Takes part until something has become of the lease, until `deadline`, or until `interrupt` is
    /// readable.
    pub(super) fn wait(
        &mut self,
        deadline: Option<Instant>,
        interrupt: Option<BorrowedFd<'_>>,
    ) -> io::Result<Turn> {
        loop {
            if self.path.is_none() {
                self.path = Some(Path::Packets(PacketSocket::dhcp(&self.interface)?));
            }
            self.handle(Input::Tick);
            if let Some(event) = self.drain()? {
                return Ok(Turn::Event(event));
            }
            let now = Instant::now();
            if deadline.is_some_and(|deadline| deadline <= now) {
                return Ok(Turn::Deadline);
            }
            let wake_at = [self.client_timeout(), self.probe.as_ref().map(|p| p.next_at), deadline]
                .into_iter()
                .flatten()
                .min();
            if self.sleep(wake_at.map(|at| at.saturating_duration_since(now)), interrupt)? {
                return Ok(Turn::Interrupted);
            }
            self.receive()?;
            self.probe_on()?;
        }
    }

    /// Does what the client wants, up to something that the caller has to know.
    fn drain(&mut self) -> io::Result<Option<LeaseEvent>> {
        while let Some(output) = self.client.poll() {
            match output {
                Output::Send { datagram, to } => self.send(&datagram, to),
                Output::Probe(address) => {
                    let socket = PacketSocket::arp(&self.interface)?;
                    self.probe =
                        Some(Probe { address, socket, sent_count: 0, next_at: Instant::now() });
                    self.probe_on()?;
                }
                Output::Declined(address) => return Ok(Some(LeaseEvent::Declined(address))),
                Output::Bound(lease) => return Ok(Some(LeaseEvent::Bound(lease))),
                Output::Renewed(lease) => return Ok(Some(LeaseEvent::Renewed(lease))),
                Output::Lost { address, reason } => {
                    self.path = None;
                    return Ok(Some(LeaseEvent::Lost(address, reason)));
                }
            }
        }
        Ok(None)
    }

    /// A datagram that cannot be sent is as good as one that is lost: the client sends it again.
    fn send(&self, datagram: &[u8], to: Destination) {
        let sent = match (&self.path, to) {
            (None, _) => return,
            (Some(Path::Packets(socket)), _) => socket.broadcast(&frame::broadcast(datagram)),
            (Some(Path::Udp(socket)), Destination::Broadcast) => {
                socket.send(datagram, Ipv4Addr::BROADCAST)
            }
            (Some(Path::Udp(socket)), Destination::Server(server)) => socket.send(datagram, server),
        };
        let interface = &self.interface.name;
        match sent {
            Ok(()) => tracing::debug!(interface, ?to, "DHCP packet sent"),
            Err(error) => tracing::warn!(interface, ?to, %error, "DHCP packet not sent"),
        }
    }

    /// Sends the next probe, or ends the probing.
    fn probe_on(&mut self) -> io::Result<()> {
        let Some(probe) = &mut self.probe else {
            return Ok(());
        };
        if probe.next_at > Instant::now() {
            return Ok(());
        }
        if probe.sent_count < PROBES {
            probe.socket.broadcast(&frame::arp_probe(self.interface.mac, probe.address))?;
            probe.sent_count += 1;
            probe.next_at = Instant::now() + PROBE_INTERVAL;
            return Ok(());
        }
        let address = probe.address;
        self.probe = None;
        self.handle(Input::AddressFree(address));
        Ok(())
    }

    /// Waits for a packet; true if it was the interrupt that came.
    fn sleep(
        &self,
        timeout: Option<Duration>,
        interrupt: Option<BorrowedFd<'_>>,
    ) -> io::Result<bool> {
        let path = self.path.as_ref().map(|path| match path {
            Path::Packets(socket) => socket.as_fd(),
            Path::Udp(socket) => socket.as_fd(),
        });
        let probe = self.probe.as_ref().map(|probe| probe.socket.as_fd());
        let mut fds: Vec<PollFd<'_>> = [path, probe]
            .into_iter()
            .flatten()
            .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
            .collect();
        let others = fds.len();
        fds.extend(interrupt.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        // A timeout beyond what the system can count is as good as none.
        let timeout = timeout.and_then(|timeout| timeout.try_into().ok());
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(fds[others..].iter().any(|fd| !fd.revents().is_empty()))
    }

    /// Reads what has come.
    fn receive(&mut self) -> io::Result<()> {
        let mut buffer = [0; PACKET_ROOM];
        for _ in 0..PACKETS_PER_TURN_MAX {
            let now = self.now();
            match &self.path {
                Some(Path::Packets(socket)) => match tolerate(socket.receive(&mut buffer))? {
                    Some(packet) => {
                        if let Some(payload) = frame::dhcp_payload(packet) {
                            self.client.handle(now, Input::Datagram(payload));
                        }
                    }
                    None => break,
                },
                Some(Path::Udp(socket)) => match tolerate(socket.receive(&mut buffer))? {
                    Some(datagram) => self.client.handle(now, Input::Datagram(datagram)),
                    None => break,
                },
                None => break,
            }
        }
        let Some(probe) = &self.probe else {
            return Ok(());
        };
        let address = probe.address;
        for _ in 0..PACKETS_PER_TURN_MAX {
            let Some(packet) = tolerate(probe.socket.receive(&mut buffer))? else {
                break;
            };
            if let Some(by) = frame::claimant(packet, self.interface.mac, address) {
                tracing::warn!(%address, %by, "the leased address is in use");
                self.probe = None;
                self.handle(Input::AddressTaken(address));
                break;
            }
        }
        Ok(())
    }

    fn handle(&mut self, input: Input<'_>) {
        self.client.handle(self.now(), input);
    }

    fn now(&self) -> Time {
        Time::ZERO + self.start.elapsed()
    }

    fn client_timeout(&self) -> Option<Instant> {
        let next = self.client.next_timeout();
        (next < Time::NEVER).then(|| self.start + next.since(Time::ZERO))
    }
}

/// An interface that goes down tells its sockets once, and they work again when it is back.
fn tolerate<T>(result: io::Result<Option<T>>) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NetworkDown => Ok(None),
        other => other,
    }
}
