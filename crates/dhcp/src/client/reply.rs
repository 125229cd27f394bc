//! What servers send, as far as the client needs it.
//!
//! Read with the lazy half of dhcproto: each option is looked at alone, so that one that is
//! malformed or unknown does not hide those behind it, and nothing is decoded that is not used.

use std::net::Ipv4Addr;

use dhcproto::v4::borrowed::{DhcpOption, DhcpOptionIterator, Message};
use dhcproto::v4::{MAGIC, OptionCode};

/// Options that are looked at in a packet. A full one of 1,500 bytes could have 600 of two bytes; the
/// longest seen have 20.
pub const OPTIONS_MAX: usize = 128;

/// The header of a packet (RFC 2131 figure 1) with the magic cookie.
pub(super) const HEADER_LEN: usize = 240;

/// The kinds that a client is sent (RFC 2132 section 9.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReplyKind {
    Offer,
    Ack,
    Nak,
}

/// A server's packet. Options that are absent or malformed are `None` or empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) kind: ReplyKind,
    /// `yiaddr`.
    pub(super) address: Ipv4Addr,
    /// `siaddr`.
    pub(super) next_server: Ipv4Addr,
    pub(super) server: Option<Ipv4Addr>,
    pub(super) mask: Option<Ipv4Addr>,
    pub(super) routers: Vec<Ipv4Addr>,
    pub(super) dns: Vec<Ipv4Addr>,
    pub(super) domain: Option<Vec<u8>>,
    pub(super) hostname: Option<Vec<u8>>,
    pub(super) mtu: Option<u16>,
    pub(super) lease_time_s: Option<u32>,
    pub(super) renew_s: Option<u32>,
    pub(super) rebind_s: Option<u32>,
    pub(super) boot_file: Option<Vec<u8>>,
}

/// Which fields of the header hold options, too (RFC 2132 section 9.3).
#[derive(Clone, Copy, Default)]
struct Overload {
    sname: bool,
    file: bool,
}

impl Reply {
    /// The reply to our transaction that these bytes are; `None` for anything else: many nodes share
    /// the broadcasts of a room.
    pub(super) fn decode(bytes: &[u8], xid: u32, mac: [u8; 6]) -> Option<Self> {
        let header = bytes.get(..HEADER_LEN)?;
        // op BOOTREPLY, htype Ethernet, hlen: dhcproto slices by hlen without looking.
        if header[..3] != [2, 1, 6] || header[236..] != MAGIC {
            return None;
        }
        let message = Message::new(bytes).ok()?;
        if message.xid() != xid || message.chaddr() != mac {
            return None;
        }
        let mut found = Found::default();
        let mut left = OPTIONS_MAX;
        found.take(message.opts(), &mut left);
        let overload = found.overload;
        if overload.file {
            found.take(DhcpOptionIterator::new(&header[108..236]), &mut left);
        } else if !message.fname().is_empty() && found.boot_file.is_none() {
            found.boot_file = Some(message.fname().to_vec());
        }
        if overload.sname {
            found.take(DhcpOptionIterator::new(&header[44..108]), &mut left);
        }
        found.into_reply(message.yiaddr(), message.siaddr())
    }
}

/// The options of a packet while they are gathered. The first of a code counts.
#[derive(Default)]
struct Found {
    kind: Option<u8>,
    overload: Overload,
    server: Option<Ipv4Addr>,
    mask: Option<Ipv4Addr>,
    routers: Option<Vec<Ipv4Addr>>,
    dns: Option<Vec<Ipv4Addr>>,
    domain: Option<Vec<u8>>,
    hostname: Option<Vec<u8>>,
    mtu: Option<u16>,
    lease_time_s: Option<u32>,
    renew_s: Option<u32>,
    rebind_s: Option<u32>,
    boot_file: Option<Vec<u8>>,
}

impl Found {
    fn take(&mut self, options: DhcpOptionIterator<'_>, left: &mut usize) {
        for option in options.take(*left) {
            *left -= 1;
            self.take_one(&option);
        }
    }

    fn take_one(&mut self, option: &DhcpOption<'_>) {
        let data = option.data();
        match option.code() {
            OptionCode::MessageType => keep(&mut self.kind, one(data)),
            OptionCode::OptionOverload => {
                if let Some([value]) = fixed::<1>(data) {
                    self.overload = Overload { file: value & 1 != 0, sname: value & 2 != 0 };
                }
            }
            OptionCode::ServerIdentifier => keep(&mut self.server, address(data)),
            OptionCode::SubnetMask => keep(&mut self.mask, address(data)),
            OptionCode::Router => keep(&mut self.routers, addresses(data)),
            OptionCode::DomainNameServer => keep(&mut self.dns, addresses(data)),
            OptionCode::DomainName => keep(&mut self.domain, Some(data.to_vec())),
            OptionCode::Hostname => keep(&mut self.hostname, Some(data.to_vec())),
            OptionCode::InterfaceMtu => {
                keep(&mut self.mtu, fixed(data).map(u16::from_be_bytes));
            }
            OptionCode::AddressLeaseTime => keep(&mut self.lease_time_s, seconds(data)),
            OptionCode::Renewal => keep(&mut self.renew_s, seconds(data)),
            OptionCode::Rebinding => keep(&mut self.rebind_s, seconds(data)),
            OptionCode::BootfileName => keep(&mut self.boot_file, Some(data.to_vec())),
            _ => {}
        }
    }

    fn into_reply(self, address: Ipv4Addr, next_server: Ipv4Addr) -> Option<Reply> {
        let kind = match self.kind? {
            2 => ReplyKind::Offer,
            5 => ReplyKind::Ack,
            6 => ReplyKind::Nak,
            _ => return None,
        };
        Some(Reply {
            kind,
            address,
            next_server,
            server: self.server,
            mask: self.mask,
            routers: self.routers.unwrap_or_default(),
            dns: self.dns.unwrap_or_default(),
            domain: self.domain,
            hostname: self.hostname,
            mtu: self.mtu,
            lease_time_s: self.lease_time_s,
            renew_s: self.renew_s,
            rebind_s: self.rebind_s,
            boot_file: self.boot_file,
        })
    }
}

fn keep<T>(place: &mut Option<T>, value: Option<T>) {
    if place.is_none() {
        *place = value;
    }
}

fn fixed<const N: usize>(data: &[u8]) -> Option<[u8; N]> {
    data.try_into().ok()
}

fn one(data: &[u8]) -> Option<u8> {
    fixed(data).map(|[value]| value)
}

fn address(data: &[u8]) -> Option<Ipv4Addr> {
    fixed::<4>(data).map(Ipv4Addr::from)
}

fn seconds(data: &[u8]) -> Option<u32> {
    fixed(data).map(u32::from_be_bytes)
}

fn addresses(data: &[u8]) -> Option<Vec<Ipv4Addr>> {
    let (addresses, rest) = data.as_chunks::<4>();
    (!addresses.is_empty() && rest.is_empty())
        .then(|| addresses.iter().map(|&bytes| Ipv4Addr::from(bytes)).collect())
}

#[cfg(test)]
impl Reply {
    /// An ACK of 10.0.0.1 for an address, without any option.
    pub(super) fn sample(address: Ipv4Addr) -> Self {
        let found =
            Found { kind: Some(5), server: Some(Ipv4Addr::new(10, 0, 0, 1)), ..Found::default() };
        found.into_reply(address, Ipv4Addr::UNSPECIFIED).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];

    fn packet(options: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; HEADER_LEN];
        bytes[..3].copy_from_slice(&[2, 1, 6]);
        bytes[4..8].copy_from_slice(&9_u32.to_be_bytes());
        bytes[16..20].copy_from_slice(&[10, 0, 0, 50]);
        bytes[28..34].copy_from_slice(&MAC);
        bytes[236..].copy_from_slice(&MAGIC);
        bytes.extend_from_slice(options);
        bytes
    }

    fn decode(options: &[u8]) -> Option<Reply> {
        Reply::decode(&packet(options), 9, MAC)
    }

    #[test]
    fn a_malformed_option_does_not_hide_the_next() {
        let reply = decode(&[
            53, 1, 5, 12, 2, 0xff, 0xfe, 80, 1, 0, 1, 3, 255, 255, 0, 51, 4, 0, 0, 1, 0, 255,
        ])
        .unwrap();
        assert_eq!((reply.mask, reply.lease_time_s), (None, Some(256)));
    }

    #[test]
    fn an_option_that_is_longer_than_the_packet_ends_it() {
        assert_eq!(decode(&[53, 1, 2, 1, 200, 1]).unwrap().mask, None);
        assert_eq!(decode(&[53, 9, 2]), None);
    }

    #[test]
    fn other_transactions_and_nodes_are_passed_over() {
        let bytes = packet(&[53, 1, 2, 255]);
        assert!(Reply::decode(&bytes, 9, MAC).is_some());
        assert_eq!(Reply::decode(&bytes, 8, MAC), None);
        assert_eq!(Reply::decode(&bytes, 9, [2, 0, 0, 0, 0, 8]), None);
        for (at, value) in [(0, 1), (1, 6), (2, 255), (239, 0)] {
            let mut other = bytes.clone();
            other[at] = value;
            assert_eq!(Reply::decode(&other, 9, MAC), None, "byte {at}");
        }
    }

    #[test]
    fn options_overflow_into_the_fields_of_the_header() {
        let mut bytes = packet(&[53, 1, 5, 52, 1, 3, 255]);
        bytes[108..114].copy_from_slice(&[51, 4, 0, 0, 0, 60]);
        bytes[114] = 255;
        bytes[44..48].copy_from_slice(&[26, 2, 5, 220]);
        bytes[48] = 255;
        let reply = Reply::decode(&bytes, 9, MAC).unwrap();
        assert_eq!((reply.lease_time_s, reply.mtu), (Some(60), Some(1500)));
        assert_eq!(reply.boot_file, None);
    }

    #[test]
    fn lists_of_addresses_come_in_fours() {
        let routers = |data: &[u8]| {
            decode(&[&[53, 1, 5, 3, data.len() as u8], data].concat()).unwrap().routers
        };
        assert_eq!(routers(&[10, 0, 0, 1, 10, 0, 0, 2]).len(), 2);
        assert!(routers(&[10, 0, 0, 1, 10]).is_empty());
        assert!(routers(&[]).is_empty());
    }
}
