//! LSD over multicast sockets (BEP 14): one socket for each group, joined on every interface where
//! we can be reached. What is said and when is `torrent::lsd`'s.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};

use mio::{Interest, Registry, Token};
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, SockAddr, SockRef, Socket, Type};
use torrent::Time;
use torrent::lsd::{DATAGRAM_LEN_MAX, Group, Input, Lsd, Output};

use super::DiscoveryConfig;
use super::interfaces::{self, Interface};

/// Datagrams taken in one turn: a flood of them must not keep the trackers waiting.
const TURN_MAX: usize = 64;

pub(super) struct LocalSearch {
    lsd: Lsd,
    listen: SocketAddr,
    sockets: Vec<GroupSocket>,
    found: Vec<([u8; 20], SocketAddr)>,
    /// A turn ended before all was read.
    unread: bool,
}

struct GroupSocket {
    group: Group,
    socket: mio::net::UdpSocket,
    /// Indexes of the interfaces on which it has joined.
    joined: BTreeSet<u32>,
}

impl LocalSearch {
    /// Opens the sockets of the families in which we listen.
    pub(super) fn open(config: &DiscoveryConfig, registry: &Registry) -> io::Result<Self> {
        let mut sockets = vec![];
        let mut failure = None;
        for (number, group) in groups(config.listen.ip()).iter().enumerate() {
            match GroupSocket::open(*group, registry, Token(number)) {
                Ok(socket) => sockets.push(socket),
                Err(error) => failure = Some(error),
            }
        }
        // A machine without IPv6 has no socket for that, which is fine.
        if let (true, Some(error)) = (sockets.is_empty(), failure) {
            return Err(error);
        }
        let lsd = Lsd::new(config.listen.port(), config.random_seed);
        let mut search = Self { lsd, listen: config.listen, sockets, found: vec![], unread: false };
        search.join();
        Ok(search)
    }

    pub(super) fn next_timeout(&self) -> Time {
        if self.unread { Time::ZERO } else { self.lsd.next_timeout() }
    }

    pub(super) fn handle(&mut self, now: Time, input: Input<'_>) {
        self.lsd.handle(now, input);
        self.serve();
    }

    /// Takes what has come in.
    pub(super) fn receive(&mut self, now: Time) {
        // One more than fits shows what is too long.
        let mut room = [0; DATAGRAM_LEN_MAX + 1];
        self.unread = false;
        for at in 0..self.sockets.len() {
            let mut turns = TURN_MAX;
            while let Ok((len, from)) = self.sockets[at].socket.recv_from(&mut room) {
                self.lsd.handle(now, Input::Datagram { from, bytes: &room[..len] });
                self.serve();
                turns -= 1;
                if turns == 0 {
                    self.unread = true;
                    break;
                }
            }
        }
    }

    /// Peers found since the last call.
    pub(super) fn found(&mut self) -> Vec<([u8; 20], SocketAddr)> {
        std::mem::take(&mut self.found)
    }

    fn serve(&mut self) {
        while let Some(output) = self.lsd.poll() {
            match output {
                Output::Found { infohash, addr } => self.found.push((infohash, addr)),
                Output::Send { group, datagram } => self.send(group, &datagram),
            }
        }
    }

    /// Sends from each interface, those included that have come up since the last time.
    fn send(&mut self, group: Group, datagram: &[u8]) {
        let interfaces = self.join();
        let Some(socket) = self.sockets.iter().find(|socket| socket.group == group) else {
            return;
        };
        for interface in interfaces {
            // An interface without an address of the family has nobody there to talk to.
            if let Err(error) = socket.send(&interface, datagram) {
                tracing::debug!(%error, interface = interface.index, "no LSD on an interface");
            }
        }
    }

    fn join(&mut self) -> Vec<Interface> {
        let all = interfaces::all().unwrap_or_else(|error| {
            tracing::warn!(%error, "network interfaces cannot be listed");
            vec![]
        });
        let interfaces = interfaces::select(all, self.listen);
        self.sockets.iter_mut().for_each(|socket| socket.join(&interfaces));
        interfaces
    }
}

/// The groups in whose family a peer that listens at `ip` can be reached. `[::]` is both.
fn groups(ip: IpAddr) -> &'static [Group] {
    match ip {
        IpAddr::V4(_) => &[Group::V4],
        IpAddr::V6(ip) if ip.is_unspecified() => &Group::ALL,
        IpAddr::V6(_) => &[Group::V6],
    }
}

impl GroupSocket {
    fn open(group: Group, registry: &Registry, token: Token) -> io::Result<Self> {
        let addr = group.addr();
        let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
        if addr.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        // The port is everybody's: each client on the machine gets a copy of what comes.
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        // Bound to the group, what is sent to the port otherwise does not come in.
        socket.bind(&SockAddr::from(addr))?;
        let mut socket = mio::net::UdpSocket::from_std(UdpSocket::from(socket));
        registry.register(&mut socket, token, Interest::READABLE)?;
        Ok(Self { group, socket, joined: BTreeSet::new() })
    }

    fn join(&mut self, interfaces: &[Interface]) {
        let socket = SockRef::from(&self.socket);
        for interface in interfaces {
            if self.joined.contains(&interface.index) {
                continue;
            }
            let index = interface.index;
            let joined = match self.group.addr().ip() {
                IpAddr::V4(ip) => {
                    socket.join_multicast_v4_n(&ip, &InterfaceIndexOrAddress::Index(index))
                }
                IpAddr::V6(ip) => socket.join_multicast_v6(&ip, index),
            };
            if joined.is_ok() {
                self.joined.insert(index);
            }
        }
    }

    fn send(&self, interface: &Interface, datagram: &[u8]) -> io::Result<()> {
        let socket = SockRef::from(&self.socket);
        match (self.group, interface.v4) {
            (Group::V4, Some(addr)) => socket.set_multicast_if_v4(&addr)?,
            (Group::V4, None) => return Ok(()),
            (Group::V6, _) => socket.set_multicast_if_v6(interface.index)?,
        }
        self.socket.send_to(datagram, self.group.addr()).map(drop)
    }
}
