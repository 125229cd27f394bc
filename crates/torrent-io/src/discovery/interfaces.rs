//! The network interfaces on which peers are looked for.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use nix::ifaddrs::getifaddrs;
use nix::net::if_::{InterfaceFlags, if_nametoindex};

/// The most interfaces that are searched; Linux lets a socket join 20 IPv4 groups by default
/// (`igmp_max_memberships`). A server with more has its interesting ones among the first.
pub(super) const INTERFACES_MAX: usize = 20;

/// An interface that is up and takes multicast.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Interface {
    pub(super) index: u32,
    pub(super) is_loopback: bool,
    /// Its first IPv4 address, by which the kernel takes it for sending.
    pub(super) v4: Option<Ipv4Addr>,
    pub(super) addrs: Vec<IpAddr>,
}

/// The interfaces of this machine (network namespace), in the kernel's order.
pub(super) fn all() -> io::Result<Vec<Interface>> {
    let mut found: Vec<(String, Interface)> = vec![];
    for entry in getifaddrs()? {
        let loopback = entry.flags.contains(InterfaceFlags::IFF_LOOPBACK);
        // Linux does not flag loopback as capable of multicast, but it is, within the machine.
        if !entry.flags.contains(InterfaceFlags::IFF_UP)
            || !(loopback || entry.flags.contains(InterfaceFlags::IFF_MULTICAST))
        {
            continue;
        }
        let Some(address) = entry.address else { continue };
        let addr = match (address.as_sockaddr_in(), address.as_sockaddr_in6()) {
            (Some(v4), _) => IpAddr::V4(v4.ip()),
            (_, Some(v6)) => IpAddr::V6(v6.ip()),
            _ => continue,
        };
        let known = found.iter().position(|(name, _)| *name == entry.interface_name);
        let at = match known {
            Some(at) => at,
            None => {
                // Gone in between.
                let Ok(index) = if_nametoindex(entry.interface_name.as_str()) else { continue };
                let interface = Interface { index, is_loopback: loopback, v4: None, addrs: vec![] };
                found.push((entry.interface_name, interface));
                found.len() - 1
            }
        };
        let interface = &mut found[at].1;
        interface.addrs.push(addr);
        if let IpAddr::V4(v4) = addr {
            interface.v4.get_or_insert(v4);
        }
    }
    Ok(found.into_iter().map(|(_, interface)| interface).collect())
}

/// Those on which somebody could reach a peer that listens at `listen`: the one that has the
/// address; or for any address all but loopback, and loopback if there is nothing else.
pub(super) fn select(all: Vec<Interface>, listen: SocketAddr) -> Vec<Interface> {
    let ip = listen.ip();
    let lonely = all.iter().all(|interface| interface.is_loopback);
    let wanted = |interface: &Interface| match ip.is_unspecified() {
        // 127.0.0.0/8 is all on loopback, though it has but one of them.
        false if ip.is_loopback() => interface.is_loopback,
        false => interface.addrs.contains(&ip),
        true => lonely || !interface.is_loopback,
    };
    all.into_iter().filter(wanted).take(INTERFACES_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(index: u32, addrs: &[&str]) -> Interface {
        let addrs: Vec<IpAddr> = addrs.iter().map(|addr| addr.parse().unwrap()).collect();
        Interface { index, is_loopback: index == 1, v4: None, addrs }
    }

    #[track_caller]
    fn check(listen: &str, expect: &[u32]) {
        let all = vec![
            interface(1, &["127.0.0.1", "::1"]),
            interface(2, &["10.0.0.1", "fe80::1"]),
            interface(3, &["192.168.1.1"]),
        ];
        let found = select(all, listen.parse().unwrap());
        let indexes: Vec<u32> = found.iter().map(|interface| interface.index).collect();
        assert_eq!(indexes, expect, "{listen}");
    }

    #[test]
    fn peers_are_looked_for_where_we_can_be_reached() {
        check("0.0.0.0:1", &[2, 3]);
        check("[::]:1", &[2, 3]);
        check("10.0.0.1:1", &[2]);
        check("[fe80::1]:1", &[2]);
        check("127.0.0.1:1", &[1]);
        check("127.9.0.1:1", &[1]);
        check("[::1]:1", &[1]);
        check("10.9.9.9:1", &[]);
    }

    #[test]
    fn a_machine_on_its_own_talks_to_itself() {
        let all = vec![interface(1, &["127.0.0.1"])];
        assert_eq!(select(all.clone(), "0.0.0.0:1".parse().unwrap()), all);
    }

    #[test]
    fn this_machine_has_loopback() {
        assert!(all().unwrap().iter().any(|interface| interface.is_loopback));
    }
}
