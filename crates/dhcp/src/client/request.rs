//! What the client sends (RFC 2131 table 5).

use std::net::Ipv4Addr;
use std::time::Duration;

use dhcproto::v4::{DhcpOption, Encodable as _, MAGIC, MessageType, OptionCode};

use super::ClientConfig;
use super::reply::HEADER_LEN;

/// Option 60: by it a server tells the agent from firmware, and leaves out what only a boot program
/// needs.
pub const VENDOR_CLASS: &[u8] = b"boottorrent-agent";

/// The shortest packet (RFC 1542 section 2.1): some relays drop shorter ones.
pub const PACKET_LEN_MIN: usize = 300;

/// The longest packet that is asked for: an Ethernet frame's, less 28 bytes of IP and UDP.
pub const PACKET_LEN_MAX: u16 = 1_472;

/// What is asked for besides the address. Not option 121: a server that has it would leave out the
/// router, and a node needs no more than that.
const WANTED: [OptionCode; 11] = [
    OptionCode::SubnetMask,
    OptionCode::Router,
    OptionCode::DomainNameServer,
    OptionCode::Hostname,
    OptionCode::DomainName,
    OptionCode::InterfaceMtu,
    OptionCode::AddressLeaseTime,
    OptionCode::ServerIdentifier,
    OptionCode::Renewal,
    OptionCode::Rebinding,
    OptionCode::BootfileName,
];

/// The packets of a client that wants an address for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequestKind {
    Discover,
    /// DHCPREQUEST for an offer.
    Select {
        address: Ipv4Addr,
        server: Ipv4Addr,
    },
    /// DHCPREQUEST for more time.
    Prolong {
        address: Ipv4Addr,
    },
    Decline {
        address: Ipv4Addr,
        server: Ipv4Addr,
    },
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    pub(super) kind: RequestKind,
    pub(super) xid: u32,
    /// Since the client began to want an address, or more time.
    pub(super) elapsed: Duration,
    /// Whether the answer has to be a broadcast.
    pub(super) broadcast: bool,
}

impl Request {
    /// The payload of the datagram.
    pub(super) fn encode(&self, config: &ClientConfig) -> Vec<u8> {
        let mut datagram = self.header(config.mac);
        for option in self.options(config) {
            // It cannot fail: a vector grows, and dhcproto splits what is too long for an option.
            if let Ok(bytes) = option.to_vec() {
                datagram.extend_from_slice(&bytes);
            }
        }
        datagram.push(OptionCode::End.into());
        datagram.resize(datagram.len().max(PACKET_LEN_MIN), 0);
        datagram
    }

    /// Written by hand: dhcproto's constructor draws a transaction id from the system's generator,
    /// which in the first second of a boot may wait for entropy, and is not pure.
    fn header(&self, mac: [u8; 6]) -> Vec<u8> {
        let mut header = vec![0; HEADER_LEN];
        let secs = u16::try_from(self.elapsed.as_secs()).unwrap_or(u16::MAX);
        header[..3].copy_from_slice(&[1, 1, 6]);
        header[4..8].copy_from_slice(&self.xid.to_be_bytes());
        header[8..10].copy_from_slice(&secs.to_be_bytes());
        if let RequestKind::Prolong { address } = self.kind {
            header[12..16].copy_from_slice(&address.octets());
        } else if self.broadcast {
            header[10] = 0x80;
        }
        header[28..34].copy_from_slice(&mac);
        header[236..].copy_from_slice(&MAGIC);
        header
    }

    /// In the order in which they are sent: the kind first, as firmware does and old relays expect.
    fn options(&self, config: &ClientConfig) -> Vec<DhcpOption> {
        let mut options = vec![
            DhcpOption::MessageType(match self.kind {
                RequestKind::Discover => MessageType::Discover,
                RequestKind::Select { .. } | RequestKind::Prolong { .. } => MessageType::Request,
                RequestKind::Decline { .. } => MessageType::Decline,
            }),
            DhcpOption::ClientIdentifier([&[1], &config.mac[..]].concat()),
        ];
        match self.kind {
            RequestKind::Select { address, server } | RequestKind::Decline { address, server } => {
                options.push(DhcpOption::RequestedIpAddress(address));
                options.push(DhcpOption::ServerIdentifier(server));
            }
            RequestKind::Discover | RequestKind::Prolong { .. } => {}
        }
        if matches!(self.kind, RequestKind::Decline { .. }) {
            return options;
        }
        options.push(DhcpOption::MaxMessageSize(PACKET_LEN_MAX));
        options.push(DhcpOption::ParameterRequestList(WANTED.to_vec()));
        options.push(DhcpOption::ClassIdentifier(VENDOR_CLASS.to_vec()));
        if let Some(hostname) = &config.hostname {
            options.push(DhcpOption::Hostname(hostname.clone()));
        }
        if let Some(uuid) = config.uuid {
            options.push(DhcpOption::ClientMachineIdentifier([&[0], &uuid[..]].concat()));
        }
        options
    }
}
