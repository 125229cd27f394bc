//! What the fleet is told of DHCP's events.

use boot::{Firmware, Mac, Stage};
use dhcp::{Asker, Role};

use crate::fleet::{self, DhcpRole, Event, SharedFleet};

/// What an event means for a node; nothing if it is about the network.
pub(crate) fn told(event: &dhcp::Event) -> Option<Event> {
    Some(match *event {
        dhcp::Event::Seen { mac, asker, .. } => Event::Asked { mac: node(mac), asker: kind(asker) },
        dhcp::Event::Offered { mac, address } => Event::Offered { mac: node(mac), address },
        dhcp::Event::Leased { mac, address, .. } => Event::Leased { mac: node(mac), address },
        _ => return None,
    })
}

/// Whether this server has seen that a machine does something with its address: it fetched its boot
/// program, or went on from there.
pub(crate) fn has_fetched(fleet: &SharedFleet, mac: dhcp::Mac) -> bool {
    let fleet = fleet.lock();
    let stage = fleet.node(node(mac)).and_then(|node| node.summary.stage.as_ref());
    stage.is_some_and(|stage| !matches!(stage, Stage::Discovered | Stage::Offered))
}

/// What the event says of who gives addresses.
pub(crate) const fn role(event: &dhcp::Event) -> Option<DhcpRole> {
    match event {
        dhcp::Event::Serving { role: Role::Server, .. } => Some(DhcpRole::Leases),
        dhcp::Event::Serving { role: Role::Proxy, .. } => Some(DhcpRole::Beside),
        _ => None,
    }
}

const fn node(mac: dhcp::Mac) -> Mac {
    Mac(mac.0)
}

const fn kind(asker: Asker) -> fleet::Asker {
    fleet::Asker::Firmware(match asker {
        Asker::Bios => Firmware::Bios,
        Asker::Uefi(_) => Firmware::Uefi,
        Asker::UefiHttp(_) => Firmware::UefiHttp,
        Asker::Ipxe { .. } => Firmware::Ipxe,
        Asker::Unsupported(_) => Firmware::Unknown,
        Asker::Agent => return fleet::Asker::Agent,
        Asker::Plain => return fleet::Asker::System,
    })
}

#[cfg(test)]
mod tests {
    use dhcp::Machine;

    use super::*;

    #[test]
    fn who_asks_is_told_in_the_fleets_words() {
        let check = |asker, expect: fleet::Asker| {
            let mac = dhcp::Mac([2, 0, 0, 0, 0, 1]);
            let event = dhcp::Event::Seen { mac, asker, machine: None, relay: None };
            let expect = Event::Asked { mac: Mac(mac.0), asker: expect };
            assert_eq!(told(&event), Some(expect), "{asker}");
        };
        let firmware = fleet::Asker::Firmware;
        check(Asker::Bios, firmware(Firmware::Bios));
        check(Asker::Uefi(Machine::X64), firmware(Firmware::Uefi));
        check(Asker::UefiHttp(Machine::Arm64), firmware(Firmware::UefiHttp));
        check(Asker::Ipxe { uefi: None, http: true }, firmware(Firmware::Ipxe));
        check(Asker::Agent, fleet::Asker::Agent);
        check(Asker::Plain, fleet::Asker::System);
    }
}
