//! The sockets of an interface: packet sockets while it has no address, a UDP socket afterwards.
//!
//! Once there is an address, nothing must be read through a packet socket any more: the kernel would
//! hand every packet of a download at wire speed to its filter.

use std::io;
use std::mem::size_of;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::addr::{SocketAddrArg, SocketAddrLen, SocketAddrOpaque};
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, bind, eth, recv,
    sendto, socket_with,
};
use socket2::{Domain, SockFilter, SockRef, Socket, Type};

use super::frame::{CLIENT_PORT, SERVER_PORT};
use super::interface::Interface;

/// Room for a packet: of longer ones, which no Ethernet without jumbo frames carries, the end is cut
/// off, and the length in their header shows it.
pub(super) const PACKET_ROOM: usize = 2_048;

/// Lets pass UDP datagrams to port 68 that are not fragments (classic BPF, linux/bpf_common.h;
/// offsets count from the IP header).
const DHCP_FILTER: [SockFilter; 9] = [
    SockFilter::new(0x30, 0, 0, 9),                  // A = protocol
    SockFilter::new(0x15, 0, 6, 17),                 // UDP?
    SockFilter::new(0x28, 0, 0, 6),                  // A = flags and fragment offset
    SockFilter::new(0x45, 4, 0, 0x1fff),             // not the first fragment?
    SockFilter::new(0xb1, 0, 0, 0),                  // X = length of the IP header
    SockFilter::new(0x48, 0, 0, 2),                  // A = destination port
    SockFilter::new(0x15, 0, 1, CLIENT_PORT as u32), // 68?
    SockFilter::new(0x06, 0, 0, u32::MAX),           // all of it
    SockFilter::new(0x06, 0, 0, 0),                  // nothing
];

/// Ethernet's broadcast address.
const BROADCAST: [u8; 6] = [0xff; 6];

/// A socket for one protocol of one interface, below IP.
pub(super) struct PacketSocket {
    socket: OwnedFd,
    everybody: LinkAddress,
}

impl PacketSocket {
    /// For DHCP without an address.
    pub(super) fn dhcp(interface: &Interface) -> io::Result<Self> {
        Self::open(interface, eth::IP, Some(&DHCP_FILTER))
    }

    /// For ARP.
    pub(super) fn arp(interface: &Interface) -> io::Result<Self> {
        Self::open(interface, eth::ARP, None)
    }

    fn open(
        interface: &Interface,
        protocol: Protocol,
        filter: Option<&[SockFilter]>,
    ) -> io::Result<Self> {
        // No protocol yet: it hears nothing before its filter is in place and it is bound.
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::PACKET, SocketType::DGRAM, flags, None)?;
        if let Some(filter) = filter {
            SockRef::from(&socket).attach_filter(filter)?;
        }
        let everybody = LinkAddress {
            // The lower half, which is in the network's byte order already.
            protocol: protocol.as_raw().get() as u16,
            index: interface.index,
            mac: BROADCAST,
        };
        bind(&socket, &everybody)?;
        Ok(Self { socket, everybody })
    }

    /// Sends a packet to everybody on the link.
    pub(super) fn broadcast(&self, packet: &[u8]) -> io::Result<()> {
        sendto(&self.socket, packet, SendFlags::empty(), &self.everybody)?;
        Ok(())
    }

    /// The next packet; `None` if there is none now.
    pub(super) fn receive<'a>(
        &self,
        buffer: &'a mut [u8; PACKET_ROOM],
    ) -> io::Result<Option<&'a [u8]>> {
        match recv(&self.socket, &mut buffer[..], RecvFlags::empty()) {
            Ok((len, _)) => Ok(buffer.get(..len)),
            Err(Errno::WOULDBLOCK | Errno::INTR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The UDP socket of a DHCP client that has an address: renewals go out and come in through it, and
/// while it is there the kernel does not tell servers that nobody listens on port 68.
pub(super) struct RenewalSocket(UdpSocket);

impl RenewalSocket {
    pub(super) fn open(interface: &Interface) -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM.nonblocking(), None)?;
        socket.set_reuse_address(true)?;
        socket.set_broadcast(true)?;
        socket.bind_device(Some(interface.name.as_bytes()))?;
        // Any address: a DHCPNAK is a broadcast (RFC 2131 section 4.1).
        socket.bind(&SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, CLIENT_PORT).into())?;
        Ok(Self(socket.into()))
    }

    pub(super) fn send(&self, datagram: &[u8], to: Ipv4Addr) -> io::Result<()> {
        self.0.send_to(datagram, SocketAddrV4::new(to, SERVER_PORT))?;
        Ok(())
    }

    /// The next datagram; `None` if there is none now.
    pub(super) fn receive<'a>(
        &self,
        buffer: &'a mut [u8; PACKET_ROOM],
    ) -> io::Result<Option<&'a [u8]>> {
        match self.0.recv(buffer) {
            Ok(len) => Ok(buffer.get(..len)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl AsFd for RenewalSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// `sockaddr_ll` (packet(7)), which rustix does not have.
struct LinkAddress {
    /// In the network's byte order.
    protocol: u16,
    index: u32,
    mac: [u8; 6],
}

// SAFETY: `f` gets a pointer to a whole `sockaddr_ll` and its length; it lives until `f` returns.
unsafe impl SocketAddrArg for LinkAddress {
    unsafe fn with_sockaddr<R>(
        &self,
        f: impl FnOnce(*const SocketAddrOpaque, SocketAddrLen) -> R,
    ) -> R {
        let mut sll_addr = [0; 8];
        sll_addr[..6].copy_from_slice(&self.mac);
        let address = libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as u16,
            sll_protocol: self.protocol,
            // The kernel's indices are positive ints.
            sll_ifindex: self.index as i32,
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 6,
            sll_addr,
        };
        f((&raw const address).cast(), size_of::<libc::sockaddr_ll>() as SocketAddrLen)
    }
}
