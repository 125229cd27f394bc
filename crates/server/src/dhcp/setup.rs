//! From a lab's settings to what `dhcp` is told, with what only the running system knows.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, ensure};
use dhcp::config::RESERVATIONS_MAX;
use dhcp::{Audience, BootFiles, Config, LabId, Mac, Mode, Range, Reservation, Subnet};
use nix::ifaddrs::getifaddrs;

use crate::http;
use crate::lab::settings::{BootProgram, DhcpMode, Settings, Unknown};

/// What to serve, and where.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) interface: String,
    pub(crate) config: Config,
}

/// What the system knows of an interface with an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Attachment {
    pub(super) subnet: Subnet,
    /// Zeros for what has none, such as loopback.
    pub(super) mac: Mac,
}

impl Setup {
    /// The setup of a lab, unless its DHCP is off. `lab` is the id of its key.
    ///
    /// # Errors
    /// If the interface is not there or does not have the address.
    pub(crate) fn of(settings: &Settings, lab: LabId) -> anyhow::Result<Option<Self>> {
        let mode = match settings.dhcp.mode {
            DhcpMode::Off => return Ok(None),
            DhcpMode::Auto => Mode::Auto,
            DhcpMode::Server => Mode::Server,
            DhcpMode::Proxy => Mode::Proxy,
        };
        let attachment = attachment(&settings.interface, settings.address)?;
        let config = config(settings, mode, lab, attachment);
        Ok(Some(Self { interface: settings.interface.clone(), config }))
    }
}

fn config(settings: &Settings, mode: Mode, lab: LabId, attachment: Attachment) -> Config {
    let Attachment { subnet, mac } = attachment;
    let dhcp = &settings.dhcp;
    let ranges =
        dhcp.ranges.iter().map(|range| range_of(range.first, range.last, subnet, dhcp.router));
    let reservations = dhcp.reservations.iter().map(|one| Reservation {
        mac: Mac(one.mac.0),
        address: Some(one.address),
        hostname: one.hostname.clone(),
    });
    let known = http::named(settings).into_keys();
    // Named without an address of their own: they have one before strangers do.
    let reserved: BTreeSet<_> = dhcp.reservations.iter().map(|one| one.mac).collect();
    let others = http::named(settings).into_keys().filter(|mac| !reserved.contains(mac));
    let others = others.map(|mac| Reservation { mac: Mac(mac.0), address: None, hostname: None });
    // Beyond the limit they have what is left.
    let room = RESERVATIONS_MAX.saturating_sub(dhcp.reservations.len());
    let reservations = reservations.chain(others.take(room));
    let audience = match settings.unknown {
        Unknown::Ignore => Audience::Only(known.map(|mac| Mac(mac.0)).collect()),
        Unknown::Boot | Unknown::Wait => {
            let known: BTreeSet<_> = known.collect();
            let ignored = settings.ignored.iter().filter(|mac| !known.contains(mac));
            Audience::AllBut(ignored.map(|mac| Mac(mac.0)).collect())
        }
    };
    let boot = BootFiles::usual(settings.address, settings.http.port);
    Config {
        mode,
        force: dhcp.force,
        lab,
        address: settings.address,
        subnet,
        mac,
        ranges: ranges.collect(),
        reservations: reservations.collect(),
        lease_time: dhcp.lease_time,
        dns: dhcp.dns.clone(),
        domain: dhcp.domain.clone(),
        boot: match settings.phase1.loader {
            BootProgram::Ipxe => boot,
            BootProgram::Pxelinux => boot.with_pxelinux(),
        },
        audience,
    }
}

/// A range that is not of the interface's network is for relay agents; its network is taken to be as
/// large as ours. Only a router of the same network is one for it.
pub(super) fn range_of(
    first: Ipv4Addr,
    last: Ipv4Addr,
    ours: Subnet,
    router: Option<Ipv4Addr>,
) -> Range {
    let subnet = if ours.contains(first) { ours } else { ours.same_size(first) };
    Range { first, last, subnet, router: router.filter(|router| subnet.contains(*router)) }
}

/// Looks at an interface.
pub(super) fn attachment(interface: &str, address: Ipv4Addr) -> anyhow::Result<Attachment> {
    let entries: Vec<_> = getifaddrs()
        .context("cannot list the network interfaces")?
        // Addresses may have labels, such as eth0:1.
        .filter(|entry| entry.interface_name.split(':').next() == Some(interface))
        .collect();
    ensure!(
        !entries.is_empty(),
        "there is no interface {interface}: `ip link` lists those that there are"
    );
    let mac = entries
        .iter()
        .find_map(|entry| entry.address.as_ref()?.as_link_addr()?.addr())
        .unwrap_or_default();
    let of_address = |entry: &&nix::ifaddrs::InterfaceAddress| {
        entry.address.as_ref().and_then(|one| one.as_sockaddr_in()).map(|one| one.ip())
            == Some(address)
    };
    let entry = entries.iter().find(of_address).with_context(|| {
        format!(
            "{address} is not an address of {interface}: set the address that `ip address show \
             {interface}` shows, or give it this one with `ip address add {address}/24 dev {interface}`"
        )
    })?;
    let mask = entry.netmask.as_ref().and_then(|mask| mask.as_sockaddr_in()).map(|mask| mask.ip());
    let prefix_len = mask.map_or(32, |mask| u32::from(mask).count_ones());
    let subnet = Subnet::of(address, u8::try_from(prefix_len).unwrap_or(32));
    Ok(Attachment { subnet, mac: Mac(mac) })
}

/// The netmask of the network that this machine has `address` in, at `interface`.
///
/// # Errors
/// If it has it not.
pub(crate) fn netmask(interface: &str, address: Ipv4Addr) -> anyhow::Result<Ipv4Addr> {
    Ok(attachment(interface, address)?.subnet.mask())
}

/// Used where nothing is configured.
pub(super) const LEASE_TIME_USUAL: Duration = Duration::from_secs(12 * 3600);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::settings::NodeSettings;

    #[test]
    fn loopback_is_looked_at() {
        let found = attachment("lo", Ipv4Addr::LOCALHOST).unwrap();
        assert_eq!(found.subnet, Subnet::of(Ipv4Addr::LOCALHOST, 8));
        assert_eq!(netmask("lo", Ipv4Addr::LOCALHOST).unwrap(), Ipv4Addr::new(255, 0, 0, 0));
        assert_eq!(found.mac, Mac([0; 6]));
    }

    #[test]
    fn what_is_not_there_is_named() {
        let text = |interface, address| attachment(interface, address).unwrap_err().to_string();
        let missing = text("nosuch0", Ipv4Addr::LOCALHOST);
        assert!(missing.starts_with("there is no interface nosuch0"), "{missing}");
        let elsewhere = text("lo", Ipv4Addr::new(192, 0, 2, 1));
        assert!(elsewhere.starts_with("192.0.2.1 is not an address of lo"), "{elsewhere}");
    }

    #[test]
    fn ranges_of_other_networks_are_for_relay_agents() {
        let ours = Subnet::of(Ipv4Addr::new(10, 0, 0, 1), 24);
        let router = Some(Ipv4Addr::new(10, 0, 0, 254));
        let check = |third, expect: Option<Ipv4Addr>| {
            let at = |last| Ipv4Addr::new(10, 0, third, last);
            let range = range_of(at(5), at(9), ours, router);
            assert_eq!((range.subnet, range.router), (Subnet::of(at(0), 24), expect));
        };
        check(0, router);
        check(7, None);
    }

    #[test]
    fn settings_of_a_lab_become_a_configuration() {
        let dir = tempfile::tempdir().unwrap();
        let mut settings = Settings::for_tests(dir.path());
        assert!(Setup::of(&settings, LabId([1; 8])).unwrap().is_none());
        settings.dhcp.mode = DhcpMode::Proxy;
        let setup = Setup::of(&settings, LabId([1; 8])).unwrap().unwrap();
        assert_eq!(setup.interface, "lo");
        assert_eq!(setup.config.mode, Mode::Proxy);
        assert_eq!(setup.config.boot, BootFiles::usual(Ipv4Addr::LOCALHOST, 8080));
        setup.config.check().unwrap();
    }

    #[test]
    fn only_nodes_of_the_lab_are_answered_where_it_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let mut settings = Settings::for_tests(dir.path());
        settings.dhcp.mode = DhcpMode::Proxy;
        let mac = |last| [2, 0, 0, 0, 0, last];
        settings.nodes = vec![NodeSettings::for_tests("c001", boot::Mac(mac(1)))];
        settings.ignored = vec![boot::Mac(mac(1)), boot::Mac(mac(2))];
        let mut check = |unknown, expect: [bool; 3]| {
            settings.unknown = unknown;
            let setup = Setup::of(&settings, LabId::NONE).unwrap().unwrap();
            let has = |last| setup.config.audience.has(Mac(mac(last)));
            assert_eq!([1, 2, 3].map(has), expect, "{unknown:?}");
        };
        // Who has a name is a node of the lab, whatever else is said of it.
        check(Unknown::Boot, [true, false, true]);
        check(Unknown::Wait, [true, false, true]);
        check(Unknown::Ignore, [true, false, false]);
    }
}
