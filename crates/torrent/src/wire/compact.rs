//! Compact peer lists: addresses as bare bytes (BEP 23 for IPv4, BEP 7 for IPv6).
//!
//! Trackers and peer exchange (BEP 11) use the same two forms: 4 or 16 bytes of address, then the
//! port, all in network byte order. How many addresses to take from a stranger is the caller's
//! business; reading here allocates nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Bytes of one IPv4 peer (BEP 23).
pub const V4_LEN: usize = 6;

/// Bytes of one IPv6 peer (BEP 7).
pub const V6_LEN: usize = 18;

/// A compact peer list that is not a whole number of peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("compact peer list of {len} bytes is not a whole number of peers of {peer_len} bytes")]
pub struct CompactError {
    /// Bytes in the list.
    pub len: usize,
    /// Bytes that one peer takes.
    pub peer_len: usize,
}

/// Reads a list of IPv4 peers of [`V4_LEN`] bytes each (BEP 23), in order and unjudged.
///
/// # Errors
/// If the length is not a multiple of [`V4_LEN`].
pub fn decode_v4(bytes: &[u8]) -> Result<impl Iterator<Item = SocketAddr> + '_, CompactError> {
    let (peers, rest) = bytes.as_chunks::<V4_LEN>();
    whole(bytes, rest, V4_LEN)?;
    Ok(peers.iter().map(|&[a, b, c, d, high, low]| {
        let ip = Ipv4Addr::new(a, b, c, d);
        SocketAddr::from((ip, u16::from_be_bytes([high, low])))
    }))
}

/// Reads a list of IPv6 peers of [`V6_LEN`] bytes each (BEP 7), in order and unjudged. An IPv4
/// address in IPv6 clothes (`::ffff:a.b.c.d`) comes out as IPv4, so that one peer has one address.
///
/// # Errors
/// If the length is not a multiple of [`V6_LEN`].
pub fn decode_v6(bytes: &[u8]) -> Result<impl Iterator<Item = SocketAddr> + '_, CompactError> {
    let (peers, rest) = bytes.as_chunks::<V6_LEN>();
    whole(bytes, rest, V6_LEN)?;
    Ok(peers.iter().map(|peer| {
        let mut ip = [0; 16];
        ip.copy_from_slice(&peer[..16]);
        let ip = Ipv6Addr::from(ip).to_canonical();
        SocketAddr::from((ip, u16::from_be_bytes([peer[16], peer[17]])))
    }))
}

/// Appends one peer to the list of its family, `v4` or `v6`. Flow label and scope are lost.
pub fn encode(addr: SocketAddr, v4: &mut Vec<u8>, v6: &mut Vec<u8>) {
    let out = match addr.ip().to_canonical() {
        IpAddr::V4(ip) => {
            v4.extend_from_slice(&ip.octets());
            v4
        }
        IpAddr::V6(ip) => {
            v6.extend_from_slice(&ip.octets());
            v6
        }
    };
    out.extend_from_slice(&addr.port().to_be_bytes());
}

/// Whether anybody could listen there: a port, and an address of one host. Other addresses in a
/// stranger's list would only make us spray the network.
#[must_use]
pub fn is_dialable(addr: SocketAddr) -> bool {
    let ip = addr.ip().to_canonical();
    let broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    addr.port() != 0 && !ip.is_unspecified() && !ip.is_multicast() && !broadcast
}

const fn whole(bytes: &[u8], rest: &[u8], peer_len: usize) -> Result<(), CompactError> {
    if rest.is_empty() {
        return Ok(());
    }
    let len = bytes.len();
    Err(CompactError { len, peer_len })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encoded(addr: &str) -> (Vec<u8>, Vec<u8>) {
        let (mut v4, mut v6) = (vec![], vec![]);
        encode(addr.parse().unwrap(), &mut v4, &mut v6);
        (v4, v6)
    }

    #[test]
    fn addresses_are_in_network_byte_order() {
        assert_eq!(encoded("10.0.1.2:6881").0, [10, 0, 1, 2, 0x1a, 0xe1], "BEP 23");
        let (v4, v6) = encoded("[fd00::1:2]:6881");
        assert!(v4.is_empty());
        assert_eq!(v6, [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 2, 0x1a, 0xe1]);
    }

    #[test]
    fn mapped_addresses_are_ipv4() {
        assert_eq!(encoded("[::ffff:10.0.1.2]:6881"), encoded("10.0.1.2:6881"));
        let mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 10, 0, 1, 2, 0, 80];
        let read: Vec<_> = decode_v6(&mapped).unwrap().collect();
        assert_eq!(read, ["10.0.1.2:80".parse().unwrap()]);
    }

    #[test]
    fn torn_lists_are_refused() {
        let (len, peer_len) = (7, V4_LEN);
        assert_eq!(decode_v4(&[1; 7]).err(), Some(CompactError { len, peer_len }));
        let (len, peer_len) = (19, V6_LEN);
        assert_eq!(decode_v6(&[1; 19]).err(), Some(CompactError { len, peer_len }));
        assert_eq!(decode_v4(&[]).unwrap().count(), 0);
    }

    #[test]
    fn only_one_hosts_address_can_be_dialled() {
        let check = |addr: &str, expect: bool| {
            assert_eq!(is_dialable(addr.parse().unwrap()), expect, "{addr}");
        };
        check("10.0.1.2:6881", true);
        check("127.0.0.1:1", true);
        check("[fe80::1]:6881", true);
        check("10.0.1.2:0", false);
        check("0.0.0.0:6881", false);
        check("[::]:6881", false);
        check("255.255.255.255:6881", false);
        check("239.192.152.143:6771", false);
        check("[::ffff:224.0.0.1]:80", false);
        check("[ff15::efc0:988f]:6771", false);
    }

    proptest! {
        #[test]
        fn lists_survive_the_wire(peers in prop::collection::vec(any::<([u8; 4], u16)>(), 0..20),
                                  peers6 in prop::collection::vec(any::<([u8; 16], u16)>(), 0..20)) {
            let (mut v4, mut v6) = (vec![], vec![]);
            let peers: Vec<SocketAddr> = peers.into_iter().map(SocketAddr::from).collect();
            // A random address is as good as never a mapped one.
            let peers6: Vec<SocketAddr> = peers6.into_iter().map(SocketAddr::from).collect();
            for &addr in peers.iter().chain(&peers6) {
                encode(addr, &mut v4, &mut v6);
            }
            prop_assert_eq!(decode_v4(&v4).unwrap().collect::<Vec<_>>(), peers);
            prop_assert_eq!(decode_v6(&v6).unwrap().collect::<Vec<_>>(), peers6);
        }
    }
}
