//! Interfaces, addresses and the default route, set through rtnetlink (rtnetlink(7)).
//!
//! Five requests, written by hand: the crate that knows all of rtnetlink brings 33 others and an
//! asynchronous runtime, into a program that a node downloads before it does anything else.
//!
//! ```text
//! length u32 | type u16 | flags u16 | sequence u32 | port u32      nlmsghdr
//! a structure that the type names                                  ifinfomsg, ifaddrmsg, rtmsg
//! length u16 | type u16 | value, padded to 4                       attributes
//! ```
//!
//! Numbers have the machine's byte order, addresses the network's.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;

use dhcp::client::Lease;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, sendto, socket_with,
};

// linux/netlink.h and linux/rtnetlink.h; numbers of the kernel's interface, which never change.
const NLMSG_ERROR: u16 = 2;
const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_NEWROUTE: u16 = 24;

const REQUEST_ACK: u16 = 1 | 4;
const REPLACE: u16 = 0x100;
const CREATE: u16 = 0x400;

const IFLA_MTU: u16 = 4;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PREFSRC: u16 = 7;

const IFF_UP: u32 = 1;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_DHCP: u8 = 16;
const RTN_UNICAST: u8 = 1;
const RTNH_F_ONLINK: u32 = 4;
const AF_INET: u8 = 2;

const HEADER_LEN: usize = 16;

/// The loopback interface's index, in every network namespace.
pub(super) const LOOPBACK: u32 = 1;

/// Messages that are read while the answer to a request is awaited. Nothing else is subscribed to,
/// so the first is the answer.
const ANSWERS_MAX: usize = 16;

/// A connection to the kernel.
pub(super) struct Netlink {
    socket: OwnedFd,
    sequence: u32,
}

impl Netlink {
    pub(super) fn open() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
        bind(&socket, &SocketAddrNetlink::new(0, 0))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Switches an interface on.
    pub(super) fn set_up(&mut self, index: u32) -> io::Result<()> {
        self.ask(Request::new(RTM_NEWLINK, 0).link(index, IFF_UP))
    }

    /// Sets the longest packet that an interface sends.
    pub(super) fn set_mtu(&mut self, index: u32, mtu: u16) -> io::Result<()> {
        let request = Request::new(RTM_NEWLINK, 0).link(index, 0);
        self.ask(request.attribute(IFLA_MTU, &u32::from(mtu).to_ne_bytes()))
    }

    /// Gives an interface a lease's address.
    pub(super) fn add_address(&mut self, index: u32, lease: &Lease) -> io::Result<()> {
        let request = Request::new(RTM_NEWADDR, REPLACE | CREATE).address(index, lease);
        self.ask(request.attribute(IFA_BROADCAST, &lease.broadcast().octets()))
    }

    /// Takes it away, and with it the routes that say it is their source.
    pub(super) fn remove_address(&mut self, index: u32, lease: &Lease) -> io::Result<()> {
        self.ask(Request::new(RTM_DELADDR, 0).address(index, lease))
    }

    /// Sends everything that is not on the link through `router`.
    pub(super) fn set_default_route(
        &mut self,
        index: u32,
        lease: &Lease,
        router: Ipv4Addr,
    ) -> io::Result<()> {
        self.ask(default_route(index, lease, router))
    }

    fn ask(&mut self, request: Request) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let bytes = request.finish(self.sequence);
        sendto(&self.socket, &bytes, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
        let mut buffer = [0; 4_096];
        for _ in 0..ANSWERS_MAX {
            let (_, len) = recv(&self.socket, &mut buffer, RecvFlags::empty())?;
            if let Some(answer) = answer(&buffer[..len.min(buffer.len())], self.sequence) {
                return answer;
            }
        }
        Err(io::Error::other("the kernel does not answer on rtnetlink"))
    }
}

fn default_route(index: u32, lease: &Lease, router: Ipv4Addr) -> Request {
    // Some networks lease a /32 and a router outside of it.
    let flags = if lease.is_on_link(router) { 0 } else { RTNH_F_ONLINK };
    let mut request = Request::new(RTM_NEWROUTE, REPLACE | CREATE);
    request.bytes.extend_from_slice(&[AF_INET, 0, 0, 0]);
    request.bytes.extend_from_slice(&[RT_TABLE_MAIN, RTPROT_DHCP, 0, RTN_UNICAST]);
    request.bytes.extend_from_slice(&flags.to_ne_bytes());
    request
        .attribute(RTA_GATEWAY, &router.octets())
        .attribute(RTA_OIF, &index.to_ne_bytes())
        .attribute(RTA_PREFSRC, &lease.address.octets())
}

/// A message while it is put together.
struct Request {
    bytes: Vec<u8>,
}

impl Request {
    fn new(kind: u16, flags: u16) -> Self {
        let mut bytes = vec![0; HEADER_LEN];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(REQUEST_ACK | flags).to_ne_bytes());
        Self { bytes }
    }

    /// `ifinfomsg`: switches the flags `on`.
    fn link(mut self, index: u32, on: u32) -> Self {
        self.bytes.extend_from_slice(&[0; 4]);
        for number in [index, on, on] {
            self.bytes.extend_from_slice(&number.to_ne_bytes());
        }
        self
    }

    /// `ifaddrmsg`, with the address at both of its ends: only point-to-point links have two.
    fn address(mut self, index: u32, lease: &Lease) -> Self {
        self.bytes.extend_from_slice(&[AF_INET, lease.prefix_len, 0, 0]);
        self.bytes.extend_from_slice(&index.to_ne_bytes());
        let address = lease.address.octets();
        self.attribute(IFA_LOCAL, &address).attribute(IFA_ADDRESS, &address)
    }

    fn attribute(mut self, kind: u16, value: &[u8; 4]) -> Self {
        self.bytes.extend_from_slice(&8_u16.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self
    }

    fn finish(mut self, sequence: u32) -> Vec<u8> {
        let len = self.bytes.len() as u32;
        self.bytes[..4].copy_from_slice(&len.to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.bytes
    }
}

/// What the kernel says to the request with this number; `None` if the message is another.
fn answer(bytes: &[u8], sequence: u32) -> Option<io::Result<()>> {
    let bytes: &[u8; 20] = bytes.get(..20)?.try_into().ok()?;
    if bytes[4..6] != NLMSG_ERROR.to_ne_bytes() || bytes[8..12] != sequence.to_ne_bytes() {
        return None;
    }
    let [.., a, b, c, d] = *bytes;
    Some(match i32::from_ne_bytes([a, b, c, d]) {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error.saturating_neg())),
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::lease;
    use super::*;

    /// What `strace` shows of `ip link set dev lo up`, less what iproute2 adds to be safe.
    #[test]
    #[cfg(target_endian = "little")]
    fn a_link_is_switched_on() {
        let bytes = Request::new(RTM_NEWLINK, 0).link(LOOPBACK, IFF_UP).finish(7);
        let expect = [
            32, 0, 0, 0, 16, 0, 5, 0, 7, 0, 0, 0, 0, 0, 0, 0, // header
            0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, // ifinfomsg
        ];
        assert_eq!(bytes, expect);
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn an_address_has_both_its_ends() {
        let bytes = Request::new(RTM_DELADDR, 0).address(2, &lease()).finish(1);
        let expect = [
            40, 0, 0, 0, 21, 0, 5, 0, 1, 0, 0, 0, 0, 0, 0, 0, // header
            2, 24, 0, 0, 2, 0, 0, 0, // ifaddrmsg
            8, 0, 2, 0, 10, 0, 0, 50, 8, 0, 1, 0, 10, 0, 0, 50,
        ];
        assert_eq!(bytes, expect);
    }

    #[test]
    fn a_router_outside_of_the_network_is_on_the_link() {
        let flags = |router: [u8; 4]| {
            let bytes = default_route(2, &lease(), router.into()).finish(1);
            u32::from_ne_bytes([bytes[24], bytes[25], bytes[26], bytes[27]])
        };
        assert_eq!(flags([10, 0, 0, 1]), 0);
        assert_eq!(flags([192, 0, 2, 1]), RTNH_F_ONLINK);
    }

    #[test]
    fn the_kernels_answer_is_an_errno_or_nothing() {
        let message = |error: i32| {
            let mut bytes = Request::new(NLMSG_ERROR, 0).finish(7);
            bytes.extend_from_slice(&error.to_ne_bytes());
            bytes
        };
        assert!(answer(&message(0), 7).unwrap().is_ok());
        let error = answer(&message(-17), 7).unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert!(answer(&message(0), 8).is_none(), "of another request");
        assert!(answer(&message(0)[..19], 7).is_none());
    }
}
