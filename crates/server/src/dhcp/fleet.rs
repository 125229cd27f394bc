//! What the fleet is told of DHCP's events.

use boot::{Arch, Firmware, Mac, Stage};
use dhcp::{Asker, Machine};

use crate::fleet::{self, Event, SharedFleet};

/// What an event means for a node; nothing if it is about the network.
pub(crate) fn told(event: &dhcp::Event) -> Option<Event> {
    Some(match *event {
        dhcp::Event::Seen { mac, asker, .. } => {
            Event::Asked { mac: node(mac), asker: kind(asker), arch: arch(asker) }
        }
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

/// A BIOS does not say whether its processor has 64 bits.
const fn arch(asker: Asker) -> Option<Arch> {
    match asker {
        Asker::Uefi(machine)
        | Asker::UefiHttp(machine)
        | Asker::Ipxe { uefi: Some(machine), .. } => Some(match machine {
            Machine::X64 => Arch::X86_64,
            Machine::Arm64 => Arch::Arm64,
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_is_told_in_the_fleets_words() {
        let check = |asker, expect: fleet::Asker, arch: Option<Arch>| {
            let mac = dhcp::Mac([2, 0, 0, 0, 0, 1]);
            let event = dhcp::Event::Seen { mac, asker, machine: None, relay: None };
            let expect = Event::Asked { mac: Mac(mac.0), asker: expect, arch };
            assert_eq!(told(&event), Some(expect), "{asker}");
        };
        let firmware = fleet::Asker::Firmware;
        check(Asker::Bios, firmware(Firmware::Bios), None);
        check(Asker::Uefi(Machine::X64), firmware(Firmware::Uefi), Some(Arch::X86_64));
        check(Asker::UefiHttp(Machine::Arm64), firmware(Firmware::UefiHttp), Some(Arch::Arm64));
        check(Asker::Ipxe { uefi: None, http: true }, firmware(Firmware::Ipxe), None);
        check(Asker::Agent, fleet::Asker::Agent, None);
        check(Asker::Plain, fleet::Asker::System, None);
    }
}
