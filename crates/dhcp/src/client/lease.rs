//! What a server leases, read from its DHCPACK. Everything here comes from a stranger and ends in
//! interfaces, routes and files of the node, so only what is well-formed is kept.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::reply::Reply;

/// Routers that are kept: one is used, the others are for a person to see.
pub const ROUTERS_MAX: usize = 4;

/// Name servers that are kept: resolvers read three (`MAXNS` of resolv.h).
pub const DNS_MAX: usize = 3;

/// The longest name of the domain name system (RFC 1035 section 2.3.4, written with dots).
pub const NAME_LEN_MAX: usize = 253;

/// The longest boot file: what one option holds.
pub const BOOT_FILE_LEN_MAX: usize = 255;

/// The shortest lease that timers are made for. A server that says 0 would otherwise be asked as
/// fast as it answers.
pub const LEASE_TIME_MIN: Duration = Duration::from_secs(4);

/// Of option 51 (RFC 2132 section 9.2): the lease does not end.
const INFINITE: u32 = u32::MAX;

/// An address, and what came with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The address.
    pub address: Ipv4Addr,
    /// Bits of its network, 1 to 32.
    pub prefix_len: u8,
    /// Ways out of the network, the preferred one first; at most [`ROUTERS_MAX`].
    pub routers: Vec<Ipv4Addr>,
    /// Name servers, the preferred one first; at most [`DNS_MAX`].
    pub dns: Vec<Ipv4Addr>,
    /// The domain for names without a dot.
    pub domain: Option<String>,
    /// The node's name.
    pub hostname: Option<String>,
    /// The longest packet of the network, from 576 bytes on (RFC 791's least).
    pub mtu: Option<u16>,
    /// The server that leased it.
    pub server: Ipv4Addr,
    /// How long it holds from when it was asked for; `None` for ever.
    pub lease_time: Option<Duration>,
    /// The server to boot from, as DHCP says it (`siaddr`).
    pub next_server: Option<Ipv4Addr>,
    /// What to boot, as DHCP says it.
    pub boot_file: Option<String>,
}

/// When to ask again, counted as the lease is; `None` never.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Terms {
    /// T1: the server that leased it.
    pub(super) renew: Option<Duration>,
    /// T2: any server.
    pub(super) rebind: Option<Duration>,
}

impl Lease {
    /// What a DHCPACK grants; `None` if it lacks what RFC 2131 table 3 demands.
    pub(super) fn from_ack(reply: &Reply) -> Option<(Self, Terms)> {
        let address = reply.address;
        let server = reply.server?;
        let granted = reply.lease_time_s?;
        if !is_usable(address) {
            return None;
        }
        let lease_time =
            (granted != INFINITE).then(|| Duration::from_secs(granted.into()).max(LEASE_TIME_MIN));
        let lease = Self {
            address,
            prefix_len: prefix_len(address, reply.mask)?,
            routers: usable(&reply.routers, ROUTERS_MAX),
            dns: usable(&reply.dns, DNS_MAX),
            domain: reply.domain.as_deref().and_then(name),
            hostname: reply.hostname.as_deref().and_then(name),
            mtu: reply.mtu.filter(|&mtu| mtu >= 576),
            server,
            lease_time,
            next_server: Some(reply.next_server).filter(|&server| is_usable(server)),
            boot_file: reply.boot_file.as_deref().and_then(boot_file),
        };
        Some((lease, terms(lease_time, reply.renew_s, reply.rebind_s)))
    }

    /// The address to which all of the network listen.
    #[must_use]
    pub fn broadcast(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.address) | !mask(self.prefix_len))
    }

    /// Whether an address is of the same network, and reached without a router.
    #[must_use]
    pub fn is_on_link(&self, other: Ipv4Addr) -> bool {
        let mask = mask(self.prefix_len);
        u32::from(self.address) & mask == u32::from(other) & mask
    }
}

/// Whether an address can be one machine's, other than the own one's loopback.
pub(super) fn is_usable(address: Ipv4Addr) -> bool {
    (1..=223).contains(&address.octets()[0]) && !address.is_loopback()
}

fn usable(addresses: &[Ipv4Addr], max: usize) -> Vec<Ipv4Addr> {
    addresses.iter().copied().filter(|&address| is_usable(address)).take(max).collect()
}

/// The bits of a mask, if they are its first ones. Without a mask the address' class has to do
/// (RFC 950), as other clients have it.
fn prefix_len(address: Ipv4Addr, mask: Option<Ipv4Addr>) -> Option<u8> {
    let Some(mask) = mask.map(u32::from) else {
        return Some(match address.octets()[0] {
            0..=127 => 8,
            128..=191 => 16,
            _ => 24,
        });
    };
    let ones = mask.leading_ones();
    if ones == 0 || ones + mask.trailing_zeros() < 32 {
        return None;
    }
    u8::try_from(ones).ok()
}

fn mask(prefix_len: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix_len)).unwrap_or(0)
}

/// T1 and T2 as the server says if they are in order, else half and seven eighths of the lease (RFC
/// 2131 section 4.4.5).
fn terms(lease_time: Option<Duration>, renew_s: Option<u32>, rebind_s: Option<u32>) -> Terms {
    let Some(lease_time) = lease_time else {
        return Terms { renew: None, rebind: None };
    };
    let seconds = |value: Option<u32>| value.map(|s| Duration::from_secs(s.into()));
    let rebind = seconds(rebind_s).filter(|&t2| t2 < lease_time).unwrap_or(lease_time * 7 / 8);
    let renew = seconds(renew_s)
        .filter(|&t1| t1 >= LEASE_TIME_MIN / 2 && t1 < rebind)
        .unwrap_or((lease_time / 2).min(rebind));
    Terms { renew: Some(renew), rebind: Some(rebind.max(renew)) }
}

/// A name of letters, digits, `-`, `_` and dots; servers may end it with NUL (RFC 2132 section 2).
fn name(bytes: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(bytes).ok()?.trim_end_matches(['\0', '.']);
    let is_sound = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
    };
    (text.len() <= NAME_LEN_MAX && text.split('.').all(is_sound)).then(|| text.to_owned())
}

fn boot_file(bytes: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(bytes).ok()?.trim_end_matches('\0');
    let is_sound =
        (1..=BOOT_FILE_LEN_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
    is_sound.then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 168, 7, 9);

    #[test]
    fn masks_are_prefixes() {
        let check = |mask: [u8; 4], expect| {
            assert_eq!(prefix_len(ADDRESS, Some(mask.into())), expect, "{mask:?}");
        };
        check([255, 255, 255, 0], Some(24));
        check([255, 255, 254, 0], Some(23));
        check([255, 255, 255, 255], Some(32));
        check([128, 0, 0, 0], Some(1));
        check([0, 0, 0, 0], None);
        check([255, 0, 255, 0], None);
        check([0, 255, 255, 255], None);
    }

    #[test]
    fn without_a_mask_the_class_has_to_do() {
        for (first, expect) in [(10, 8), (172, 16), (192, 24)] {
            assert_eq!(prefix_len(Ipv4Addr::new(first, 1, 1, 1), None), Some(expect));
        }
    }

    #[test]
    fn names_of_strangers_have_no_room_for_tricks() {
        let check = |text: &str, expect: Option<&str>| {
            assert_eq!(name(text.as_bytes()).as_deref(), expect, "{text:?}");
        };
        check("lab.example\0", Some("lab.example"));
        check("lab.example.", Some("lab.example"));
        check("n_1-a", Some("n_1-a"));
        check("", None);
        check("a..b", None);
        check("-rf", None);
        check("lab\nnameserver 6.6.6.6", None);
        check("$(reboot)", None);
        check(&"a".repeat(64), None);
        check(&"a.".repeat(127), Some(&"a.".repeat(127)[..253]));
        check(&"a.".repeat(128), None);
    }

    #[test]
    fn renewal_comes_before_rebinding_and_that_before_the_end() {
        let s = |secs| Some(Duration::from_secs(secs));
        let check = |lease, renew_s, rebind_s, renew, rebind| {
            assert_eq!(terms(s(lease), renew_s, rebind_s), Terms { renew, rebind });
        };
        check(800, None, None, s(400), s(700));
        check(800, Some(100), Some(200), s(100), s(200));
        check(800, Some(300), Some(200), s(200), s(200));
        check(800, Some(100), Some(900), s(100), s(700));
        check(800, Some(0), None, s(400), s(700));
    }

    #[test]
    fn a_lease_without_end_is_never_renewed() {
        assert_eq!(terms(None, Some(1), Some(2)), Terms { renew: None, rebind: None });
    }

    #[test]
    fn the_network_of_a_lease() {
        let reply = Reply {
            lease_time_s: Some(60),
            mask: Some(Ipv4Addr::new(255, 255, 252, 0)),
            ..Reply::sample(ADDRESS)
        };
        let (lease, _) = Lease::from_ack(&reply).unwrap();
        assert_eq!(lease.broadcast(), Ipv4Addr::new(192, 168, 7, 255));
        assert!(lease.is_on_link(Ipv4Addr::new(192, 168, 4, 1)));
        assert!(!lease.is_on_link(Ipv4Addr::new(192, 168, 8, 1)));
    }
}
