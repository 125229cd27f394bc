//! Compact peer lists: address and port in network order, 6 bytes each for IPv4 (BEP 23), 18 for
//! IPv6 (BEP 7). A list has one family.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

pub(super) const V4_LEN: usize = 6;
pub(super) const V6_LEN: usize = 18;

/// Appends the addresses; the caller gives one family.
pub(super) fn encode(addrs: impl IntoIterator<Item = SocketAddr>, into: &mut Vec<u8>) {
    for addr in addrs {
        match addr.ip().to_canonical() {
            IpAddr::V4(ip) => into.extend_from_slice(&ip.octets()),
            IpAddr::V6(ip) => into.extend_from_slice(&ip.octets()),
        }
        into.extend_from_slice(&addr.port().to_be_bytes());
    }
}

/// The addresses that can be dialled, at most `max`; `None` if the length is not whole entries.
pub(super) fn decode_v4(bytes: &[u8], max: usize) -> Option<Vec<SocketAddr>> {
    let (entries, rest) = bytes.as_chunks::<V4_LEN>();
    rest.is_empty().then(|| {
        entries
            .iter()
            .map(|&[a, b, c, d, hi, lo]| {
                SocketAddr::new(Ipv4Addr::new(a, b, c, d).into(), u16::from_be_bytes([hi, lo]))
            })
            .filter(is_dialable)
            .take(max)
            .collect()
    })
}

/// As [`decode_v4`] for IPv6; mapped IPv4 addresses become IPv4.
pub(super) fn decode_v6(bytes: &[u8], max: usize) -> Option<Vec<SocketAddr>> {
    let (entries, rest) = bytes.as_chunks::<V6_LEN>();
    rest.is_empty().then(|| {
        entries
            .iter()
            .map(|entry| {
                let mut ip = [0; 16];
                ip.copy_from_slice(&entry[..16]);
                let port = u16::from_be_bytes([entry[16], entry[17]]);
                SocketAddr::new(Ipv6Addr::from(ip).to_canonical(), port)
            })
            .filter(is_dialable)
            .take(max)
            .collect()
    })
}

/// Whether a TCP connection to it can make sense at all.
pub(super) fn is_dialable(addr: &SocketAddr) -> bool {
    addr.port() != 0
        && !addr.ip().is_unspecified()
        && !addr.ip().is_multicast()
        && addr.ip() != IpAddr::V4(Ipv4Addr::BROADCAST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_as_the_beps_say() {
        let v4: SocketAddr = "10.1.2.3:6881".parse().unwrap();
        let v6: SocketAddr = "[fd00::1]:6881".parse().unwrap();
        let mut bytes = Vec::new();
        encode([v4], &mut bytes);
        assert_eq!(bytes, [10, 1, 2, 3, 0x1a, 0xe1]);
        assert_eq!(decode_v4(&bytes, 9), Some(vec![v4]));
        bytes.clear();
        encode([v6], &mut bytes);
        assert_eq!(bytes.len(), V6_LEN);
        assert_eq!(decode_v6(&bytes, 9), Some(vec![v6]));
    }

    #[test]
    fn undialable_and_surplus_entries_are_dropped() {
        let entries: &[u8] = &[
            [0, 0, 0, 0, 1, 1],
            [10, 0, 0, 1, 0, 0],
            [224, 0, 0, 1, 1, 1],
            [255, 255, 255, 255, 1, 1],
            [10, 0, 0, 1, 1, 1],
            [10, 0, 0, 2, 1, 1],
        ]
        .concat();
        assert_eq!(decode_v4(entries, 1), Some(vec!["10.0.0.1:257".parse().unwrap()]));
        assert_eq!(decode_v4(&entries[1..], 9), None);
        assert_eq!(decode_v6(&[0; 17], 9), None);
    }
}
