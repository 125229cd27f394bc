//! Whether the network is as the configuration says, before any port is taken.

use std::net::Ipv4Addr;
use std::path::Path;

use nix::ifaddrs::getifaddrs;

/// What is wrong with `interface` and `address`; nothing, if a server can use them.
pub(crate) fn problems(interface: &str, address: Ipv4Addr) -> Vec<String> {
    let Ok(all) = getifaddrs() else {
        // Binding will say.
        return vec![];
    };
    let all: Vec<(String, Option<Ipv4Addr>)> = all
        .map(|entry| {
            let address = entry.address.as_ref().and_then(|address| address.as_sockaddr_in());
            (entry.interface_name, address.map(|address| address.ip()))
        })
        .collect();
    let is_there = Path::new("/sys/class/net").join(interface).exists()
        || all.iter().any(|(name, _)| name == interface);
    judge(interface, address, is_there, &all)
}

fn judge(
    interface: &str,
    address: Ipv4Addr,
    is_there: bool,
    all: &[(String, Option<Ipv4Addr>)],
) -> Vec<String> {
    let mut names: Vec<&str> = all.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    if !is_there {
        let names = names.join(", ");
        return vec![format!(
            "there is no interface `{interface}`: name one of {names} in Boottorrent.yaml"
        )];
    }
    let of = |name: &str| -> Vec<Ipv4Addr> {
        all.iter().filter(|(other, _)| other == name).filter_map(|(_, address)| *address).collect()
    };
    let here = of(interface);
    if here.contains(&address) {
        return vec![];
    }
    let elsewhere = names.iter().find(|name| of(name).contains(&address));
    let cure = match (elsewhere, here.first()) {
        (Some(other), _) => format!("it is on {other}"),
        (None, Some(found)) => {
            format!(
                "that has {found}; write that, or `ip address add {address}/24 dev {interface}`"
            )
        }
        (None, None) => format!(
            "that has no IPv4 address; `ip address add {address}/24 dev {interface}` gives it this one"
        ),
    };
    vec![format!("the address {address} is not on the interface `{interface}`: {cure}")]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(interface: &str, address: [u8; 4], expect: &str) {
        let all = [
            ("lo", Some([127, 0, 0, 1])),
            ("eth0", Some([10, 0, 0, 1])),
            ("eth0", Some([10, 0, 1, 1])),
            ("eth0", None),
            ("eth1", None),
        ];
        let all = all.map(|(name, address)| (name.to_owned(), address.map(Ipv4Addr::from)));
        let is_there = all.iter().any(|(name, _)| name == interface);
        assert_eq!(judge(interface, address.into(), is_there, &all).join("\n"), expect);
    }

    #[test]
    fn an_interface_that_has_the_address_is_fine() {
        check("eth0", [10, 0, 1, 1], "");
        assert_eq!(problems("lo", Ipv4Addr::LOCALHOST), Vec::<String>::new());
    }

    #[test]
    fn what_is_wrong_is_said_with_what_would_be_right() {
        check(
            "eth9",
            [10, 0, 0, 1],
            "there is no interface `eth9`: name one of eth0, eth1, lo in Boottorrent.yaml",
        );
        check(
            "eth1",
            [10, 0, 0, 1],
            "the address 10.0.0.1 is not on the interface `eth1`: it is on eth0",
        );
        check(
            "eth0",
            [10, 0, 0, 9],
            "the address 10.0.0.9 is not on the interface `eth0`: that has 10.0.0.1; write that, \
             or `ip address add 10.0.0.9/24 dev eth0`",
        );
        check(
            "eth1",
            [10, 0, 0, 9],
            "the address 10.0.0.9 is not on the interface `eth1`: that has no IPv4 address; `ip \
             address add 10.0.0.9/24 dev eth1` gives it this one",
        );
    }
}
