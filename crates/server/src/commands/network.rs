//! The network that this machine has, for a guess of what a new lab will be for.

use std::fs;
use std::net::Ipv4Addr;

use nix::ifaddrs::getifaddrs;

use crate::lab::settings::Range;

/// An interface and its first IPv4 address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Interface {
    pub(super) name: String,
    pub(super) address: Ipv4Addr,
    pub(super) netmask: Ipv4Addr,
}

/// The interface of the default route; without one, the first that has an address beside loopback.
pub(super) fn guess() -> Option<Interface> {
    let routes = fs::read_to_string("/proc/net/route").unwrap_or_default();
    choose(default_interface(&routes), &interfaces())
}

fn interfaces() -> Vec<Interface> {
    let Ok(all) = getifaddrs() else { return vec![] };
    let usable = all.filter_map(|entry| {
        let address = entry.address.as_ref()?.as_sockaddr_in()?.ip();
        let netmask = entry.netmask.as_ref()?.as_sockaddr_in()?.ip();
        let name = entry.interface_name;
        (!address.is_loopback()).then_some(Interface { name, address, netmask })
    });
    usable.collect()
}

fn choose(default: Option<&str>, interfaces: &[Interface]) -> Option<Interface> {
    let has_route = interfaces.iter().find(|interface| Some(interface.name.as_str()) == default);
    has_route.or(interfaces.first()).cloned()
}

/// Of the kernel's table of routes, the interface of the first to 0.0.0.0 with mask 0.0.0.0.
fn default_interface(routes: &str) -> Option<&str> {
    routes.lines().skip(1).find_map(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let is_default = columns.get(1) == Some(&"00000000") && columns.get(7) == Some(&"00000000");
        columns.first().copied().filter(|_| is_default)
    })
}

/// Addresses that could be leased on the interface's network: the half of it that the server is not
/// in, without the network's and the broadcast address. None if it is smaller than a /29.
pub(super) fn suggest_range(interface: &Interface) -> Option<Range> {
    let mask = u32::from(interface.netmask);
    let own = u32::from(interface.address);
    // A whole /8 would be a range that nobody can look through.
    let size = (u64::from(!mask) + 1).min(1 << 16) as u32;
    if size < 8 {
        return None;
    }
    let network = own & !(size - 1);
    let (lower, upper) = (network + 1..network + size / 2, network + size / 2..network + size - 1);
    let half = if upper.contains(&own) { lower } else { upper };
    Some(Range { first: half.start.into(), last: (half.end - 1).into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(name: &str, address: [u8; 4], prefix: u32) -> Interface {
        let netmask = u32::MAX.checked_shl(32 - prefix).unwrap_or(0);
        Interface { name: name.to_owned(), address: address.into(), netmask: netmask.into() }
    }

    #[test]
    fn the_default_route_chooses() {
        let routes = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\n\
                      eth1\t0000A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\n\
                      eth0\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\n";
        assert_eq!(default_interface(routes), Some("eth0"));
        let all = [interface("eth1", [192, 168, 0, 1], 24), interface("eth0", [10, 0, 0, 2], 24)];
        assert_eq!(choose(Some("eth0"), &all).unwrap().name, "eth0");
        assert_eq!(choose(None, &all).unwrap().name, "eth1");
        assert_eq!(choose(Some("eth0"), &[]), None);
    }

    #[test]
    fn the_range_is_the_half_without_the_server() {
        let check = |address, prefix, expect: &str| {
            let range = suggest_range(&interface("eth0", address, prefix));
            assert_eq!(range.map(|range| range.to_string()).unwrap_or_default(), expect);
        };
        check([192, 168, 1, 1], 24, "192.168.1.128-192.168.1.254");
        check([192, 168, 1, 200], 24, "192.168.1.1-192.168.1.127");
        check([10, 1, 2, 3], 8, "10.1.128.0-10.1.255.254");
        check([10, 0, 0, 1], 29, "10.0.0.4-10.0.0.6");
        check([10, 0, 0, 1], 30, "");
        check([10, 0, 0, 1], 32, "");
    }
}
