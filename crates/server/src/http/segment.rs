//! Who is at an address of this machine's own networks, as the kernel knows: a peer there that a connection is
//! held with has an entry in its table of neighbours (arp(7)). Who is on none of them is beyond a router.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use boot::Mac;

use crate::fleet;

/// How long a table that was read is believed: nobody else takes over an address with a connection in it. Who
/// is not in it, though on one of its networks, has come since.
const BELIEVED: Duration = Duration::from_secs(1);

/// What the kernel knew when it was asked last.
#[derive(Debug, Default)]
pub(super) struct Segment(Mutex<Option<(Instant, Tables)>>);

#[derive(Debug, Default)]
struct Tables {
    /// An address without an Ethernet address is one that the kernel is still looking for.
    neighbours: BTreeMap<Ipv4Addr, Option<Mac>>,
    /// Address and mask of each network that no router is between.
    networks: Vec<(u32, u32)>,
}

impl Segment {
    /// Who is at `address`.
    pub(super) fn look(&self, address: Ipv4Addr, now: Instant) -> fleet::Segment {
        self.look_up(address, now).unwrap_or_else(|| match is_this_machines(address) {
            true => fleet::Segment::Beyond,
            false => fleet::Segment::Unknown,
        })
    }

    fn look_up(&self, address: Ipv4Addr, now: Instant) -> Option<fleet::Segment> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((read, tables)) = &*known
            && now.saturating_duration_since(*read) < BELIEVED
            && let Some(found) = tables.find(address)
        {
            return Some(found);
        }
        let (Ok(neighbours), Ok(routes)) =
            (fs::read_to_string("/proc/net/arp"), fs::read_to_string("/proc/net/route"))
        else {
            return None;
        };
        let tables = Tables { neighbours: parse(&neighbours), networks: networks(&routes) };
        let found = tables.find(address);
        *known = Some((now, tables));
        found
    }
}

/// Who speaks with an address of this machine is behind a web server on it that passes requests on: as little
/// seen as who is beyond a router. Nobody else can have such an address for a connection.
fn is_this_machines(address: Ipv4Addr) -> bool {
    UdpSocket::bind((address, 0)).is_ok()
}

impl Tables {
    /// Who is at `address`, if that can be said.
    fn find(&self, address: Ipv4Addr) -> Option<fleet::Segment> {
        if let Some(mac) = self.neighbours.get(&address) {
            return mac.map(fleet::Segment::At);
        }
        let is_here = self.networks.iter().any(|(at, mask)| address.to_bits() & mask == *at);
        (!is_here).then_some(fleet::Segment::Beyond)
    }
}

/// Interface, destination, gateway, flags, three counts and the mask in each line but the first (proc(5)); numbers
/// are hexadecimal, and addresses in this machine's order.
fn networks(text: &str) -> Vec<(u32, u32)> {
    let number = |field: &str| u32::from_str_radix(field, 16).ok().map(u32::from_be);
    let entry = |line: &str| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let (at, gateway, mask) =
            (number(fields.get(1)?)?, number(fields.get(2)?)?, number(fields.get(7)?)?);
        (gateway == 0 && mask != 0).then_some((at, mask))
    };
    text.lines().filter_map(entry).collect()
}

/// Address, type, flags, Ethernet address, mask and device in each line but the first (proc(5)).
fn parse(text: &str) -> BTreeMap<Ipv4Addr, Option<Mac>> {
    let entry = |line: &str| {
        let mut fields = line.split_ascii_whitespace();
        let address = fields.next()?.parse().ok()?;
        let flags = fields.nth(1)?.strip_prefix("0x")?;
        // ATF_COM: the Ethernet address is there.
        let is_complete = u32::from_str_radix(flags, 16).ok()? & 2 != 0;
        Some((address, fields.next()?.parse().ok().filter(|_| is_complete)))
    };
    text.lines().filter_map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_table_is_read() {
        let text = "\
IP address       HW type     Flags       HW address            Mask     Device
10.0.0.50        0x1         0x2         52:54:00:00:00:01     *        eth0
10.0.0.51        0x1         0x0         00:00:00:00:00:00     *        eth0
";
        let mac = Mac([0x52, 0x54, 0, 0, 0, 1]);
        let expect = [([10, 0, 0, 50].into(), Some(mac)), ([10, 0, 0, 51].into(), None)];
        assert_eq!(parse(text), BTreeMap::from(expect));
    }

    #[test]
    fn who_is_behind_a_web_server_of_this_machine_is_beyond() {
        let segment = Segment::default();
        assert_eq!(segment.look(Ipv4Addr::LOCALHOST, Instant::now()), fleet::Segment::Beyond);
        assert!(is_this_machines(Ipv4Addr::LOCALHOST));
        // For examples and nobody's (RFC 5737).
        assert!(!is_this_machines(Ipv4Addr::new(192, 0, 2, 1)));
    }

    #[test]
    fn only_who_is_on_none_of_the_networks_is_beyond_a_router() {
        let routes = "\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t0000000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
";
        let mac = Mac([0x52, 0x54, 0, 0, 0, 1]);
        let here = |last| Ipv4Addr::new(10, 0, 0, last);
        let neighbours = BTreeMap::from([(here(50), Some(mac)), (here(51), None)]);
        let tables = Tables { neighbours, networks: networks(routes) };
        assert_eq!(tables.networks, [(0x0a00_0000, 0xffff_ff00)]);
        assert_eq!(tables.find(here(50)), Some(fleet::Segment::At(mac)));
        assert_eq!((tables.find(here(51)), tables.find(here(52))), (None, None));
        assert_eq!(tables.find(Ipv4Addr::new(10, 0, 1, 1)), Some(fleet::Segment::Beyond));
    }
}
