//! The packets of an interface without an address: IPv4 with UDP for DHCP (RFC 791, 768), and ARP (RFC
//! 826) to find out whether an address is in use (RFC 5227). Without Ethernet's own header: a packet
//! socket of the kind `SOCK_DGRAM` adds and removes it.
//!
//! What comes is read as a stranger's: every length is checked, and everything that is not what we
//! wait for is `None`.

use std::net::Ipv4Addr;

use boot::Mac;

/// Where DHCP clients listen (RFC 2131 section 4.1).
pub(super) const CLIENT_PORT: u16 = 68;
/// Where DHCP servers listen.
pub(super) const SERVER_PORT: u16 = 67;

const IP_HEADER_LEN: usize = 20;
const UDP_HEADER_LEN: usize = 8;
const PROTOCOL_UDP: u8 = 17;

/// The length of an ARP packet for IPv4 on Ethernet.
pub(super) const ARP_LEN: usize = 28;

/// Hardware type Ethernet, protocol type IPv4, and the lengths of their addresses.
const ARP_HEAD: [u8; 6] = [0, 1, 8, 0, 6, 4];

/// A DHCP client's broadcast: `payload` from 0.0.0.0:68 to 255.255.255.255:67.
pub(super) fn broadcast(payload: &[u8]) -> Vec<u8> {
    let udp_len = UDP_HEADER_LEN + payload.len();
    let mut packet = vec![0; IP_HEADER_LEN];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&((IP_HEADER_LEN + udp_len) as u16).to_be_bytes());
    packet[8] = 64;
    packet[9] = PROTOCOL_UDP;
    packet[16..20].copy_from_slice(&Ipv4Addr::BROADCAST.octets());
    let header_sum = checksum(&packet);
    packet[10..12].copy_from_slice(&header_sum.to_be_bytes());

    packet.extend_from_slice(&CLIENT_PORT.to_be_bytes());
    packet.extend_from_slice(&SERVER_PORT.to_be_bytes());
    packet.extend_from_slice(&(udp_len as u16).to_be_bytes());
    packet.extend_from_slice(&[0, 0]);
    packet.extend_from_slice(payload);

    // The sum also covers a header that is not sent: addresses, protocol and length (RFC 768).
    let mut covered = packet[12..20].to_vec();
    covered.extend_from_slice(&[0, PROTOCOL_UDP]);
    covered.extend_from_slice(&(udp_len as u16).to_be_bytes());
    covered.extend_from_slice(&packet[IP_HEADER_LEN..]);
    let udp_sum = match checksum(&covered) {
        // A sum of zero says that there is none.
        0 => u16::MAX,
        sum => sum,
    };
    packet[IP_HEADER_LEN + 6..][..2].copy_from_slice(&udp_sum.to_be_bytes());
    packet
}

/// The payload of a UDP datagram to port 68, if the packet is a whole one.
///
/// UDP's checksum is not looked at: a packet from a program on the same machine (a virtual one, a
/// namespace) has not got it yet when a packet socket sees it. Ethernet's own is stronger.
pub(super) fn dhcp_payload(packet: &[u8]) -> Option<&[u8]> {
    let header = packet.get(..IP_HEADER_LEN)?;
    let header_len = usize::from(header[0] & 0x0f) * 4;
    let total_len = usize::from(be16(header, 2));
    // Fragments (an offset, or more to come) are not put together: no DHCP packet needs it.
    if header[0] >> 4 != 4 || header[9] != PROTOCOL_UDP || be16(header, 6) & 0x3fff != 0 {
        return None;
    }
    if header_len < IP_HEADER_LEN || checksum(packet.get(..header_len)?) != 0 {
        return None;
    }
    let datagram = packet.get(header_len..total_len)?;
    let (udp, payload) = datagram.split_at_checked(UDP_HEADER_LEN)?;
    if be16(udp, 2) != CLIENT_PORT {
        return None;
    }
    payload.get(..usize::from(be16(udp, 4)).checked_sub(UDP_HEADER_LEN)?)
}

/// RFC 5227 section 2.1.1: who has this address? Asked by nobody, so that nobody notes it down.
pub(super) fn arp_probe(mac: Mac, address: Ipv4Addr) -> [u8; ARP_LEN] {
    arp_request(mac, Ipv4Addr::UNSPECIFIED, address)
}

/// RFC 5227 section 2.3: this address is mine now. Others correct what they remember.
pub(super) fn arp_announcement(mac: Mac, address: Ipv4Addr) -> [u8; ARP_LEN] {
    arp_request(mac, address, address)
}

fn arp_request(mac: Mac, sender: Ipv4Addr, target: Ipv4Addr) -> [u8; ARP_LEN] {
    let mut packet = [0; ARP_LEN];
    packet[..6].copy_from_slice(&ARP_HEAD);
    packet[7] = 1;
    packet[8..14].copy_from_slice(&mac.0);
    packet[14..18].copy_from_slice(&sender.octets());
    packet[24..28].copy_from_slice(&target.octets());
    packet
}

/// Who lays claim to an address that we (`mac`) want, according to an ARP packet: its owner, or a
/// machine that probes for it at the same moment (RFC 5227 section 2.1.1).
pub(super) fn claimant(packet: &[u8], mac: Mac, address: Ipv4Addr) -> Option<Mac> {
    let packet: &[u8; ARP_LEN] = packet.get(..ARP_LEN)?.try_into().ok()?;
    if packet[..6] != ARP_HEAD {
        return None;
    }
    let mut by = Mac([0; 6]);
    by.0.copy_from_slice(&packet[8..14]);
    let sender = &packet[14..18];
    let is_owner = sender == address.octets();
    let is_rival = packet[7] == 1 && sender == [0; 4] && packet[24..28] == address.octets();
    (by != mac && (is_owner || is_rival)).then_some(by)
}

/// The Internet checksum (RFC 1071). Zero over what has its own in it.
fn checksum(bytes: &[u8]) -> u16 {
    let (pairs, rest) = bytes.as_chunks::<2>();
    let mut sum: u32 = pairs.iter().map(|&pair| u32::from(u16::from_be_bytes(pair))).sum();
    if let [last] = rest {
        sum += u32::from(*last) << 8;
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OURS: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const OTHER: Mac = Mac([2, 0, 0, 0, 0, 2]);
    const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 50);

    /// A server's answer: our broadcast with the ports exchanged, which leaves the sums as they are.
    fn answer(payload: &[u8]) -> Vec<u8> {
        let mut packet = broadcast(payload);
        packet[20..24].copy_from_slice(&[0, 67, 0, 68]);
        packet
    }

    /// RFC 1071 section 3 has this sum, before the complement, as its example.
    #[test]
    fn the_checksum_of_the_rfc() {
        assert_eq!(checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
        assert_eq!(checksum(&[0x00, 0x01, 0xf2]), !0xf201);
    }

    #[test]
    fn the_header_of_a_broadcast_sums_up_to_nothing() {
        let packet = broadcast(b"payload");
        assert_eq!(checksum(&packet[..20]), 0);
        let udp_len = [packet[24], packet[25]];
        let covered = [&packet[12..20], &[0, 17], &udp_len, &packet[20..]].concat();
        assert_eq!(checksum(&covered), 0);
        assert_eq!(usize::from(be16(&packet, 2)), packet.len());
    }

    #[test]
    fn a_sum_of_zero_is_written_otherwise() {
        // What brings the sum to zero is the sum itself.
        let sum = [broadcast(&[0, 0])[26], broadcast(&[0, 0])[27]];
        assert_eq!(broadcast(&sum)[26..28], [0xff, 0xff]);
    }

    #[test]
    fn an_answer_is_read_with_what_ethernet_pads() {
        let mut packet = answer(b"abc");
        assert_eq!(dhcp_payload(&packet), Some(&b"abc"[..]));
        packet.resize(60, 0xee);
        assert_eq!(dhcp_payload(&packet), Some(&b"abc"[..]));
    }

    #[test]
    fn an_answer_with_ip_options_is_read() {
        let mut packet = answer(b"abc");
        packet.splice(20..20, [1, 1, 1, 0]);
        packet[0] = 0x46;
        packet[3] += 4;
        packet[10..12].fill(0);
        let sum = checksum(&packet[..24]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        assert_eq!(dhcp_payload(&packet), Some(&b"abc"[..]));
    }

    #[test]
    fn other_packets_are_passed_over() {
        let check = |at: usize, value: u8| {
            let mut packet = answer(b"abc");
            packet[at] = value;
            // So that it is not the checksum alone that refuses it.
            packet[10..12].fill(0);
            let sum = checksum(&packet[..20]);
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
            assert_eq!(dhcp_payload(&packet), None, "byte {at}");
        };
        check(0, 0x65);
        check(0, 0x44);
        check(3, 10);
        check(3, 200);
        check(6, 0x20);
        check(7, 1);
        check(9, 6);
        check(23, 67);
        check(25, 7);
        check(25, 100);
        assert_eq!(dhcp_payload(&broadcast(b"abc")), None, "our own");
    }

    #[test]
    fn a_header_with_a_wrong_sum_is_passed_over() {
        let mut packet = answer(b"abc");
        packet[12] ^= 1;
        assert_eq!(dhcp_payload(&packet), None);
    }

    #[test]
    fn the_owner_and_a_rival_lay_claim_to_an_address() {
        let mut reply = arp_request(OTHER, ADDRESS, Ipv4Addr::UNSPECIFIED);
        reply[7] = 2;
        assert_eq!(claimant(&reply, OURS, ADDRESS), Some(OTHER));
        assert_eq!(claimant(&arp_announcement(OTHER, ADDRESS), OURS, ADDRESS), Some(OTHER));
        assert_eq!(claimant(&arp_probe(OTHER, ADDRESS), OURS, ADDRESS), Some(OTHER));
    }

    #[test]
    fn who_only_asks_for_an_address_lays_no_claim_to_it() {
        let asks = arp_request(OTHER, Ipv4Addr::new(10, 0, 0, 1), ADDRESS);
        assert_eq!(claimant(&asks, OURS, ADDRESS), None);
        assert_eq!(claimant(&arp_probe(OURS, ADDRESS), OURS, ADDRESS), None, "our own");
        let mut reply = arp_probe(OTHER, ADDRESS);
        reply[7] = 2;
        assert_eq!(claimant(&reply, OURS, ADDRESS), None, "a reply of nobody");
        assert_eq!(claimant(&arp_probe(OTHER, ADDRESS)[..27], OURS, ADDRESS), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_reading_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = dhcp_payload(&bytes);
            let _ = claimant(&bytes, OURS, ADDRESS);
        }

        #[test]
        fn what_was_sent_is_read(payload in proptest::collection::vec(any::<u8>(), 0..600)) {
            let packet = answer(&payload);
            prop_assert_eq!(dhcp_payload(&packet), Some(&payload[..]));
        }
    }
}
