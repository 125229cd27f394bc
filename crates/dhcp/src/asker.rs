//! What asks: a boot ROM of which kind, iPXE, our agent, or a system that only wants an address.
//!
//! Options 60 (`PXEClient`, `HTTPClient`), 77 (`iPXE`), 93 (architecture) and 97 (machine
//! identifier): RFC 4578, the list at IANA "Processor Architecture Types", and what firmwares make
//! of them. Type 7 was EFI byte code in the RFC and 9 was x86-64; firmwares took it the other way
//! round, IANA followed, and both mean x86-64 today.

use std::fmt;

use crate::client::VENDOR_CLASS;
use crate::message::{Message, code};
use crate::vendor;

const PXE_CLASS: &[u8] = b"PXEClient";
const HTTP_CLASS: &[u8] = b"HTTPClient";
const IPXE_CLASS: &[u8] = b"iPXE";

/// A processor that there are boot programs for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Machine {
    /// 64-bit x86.
    X64,
    /// 64-bit ARM.
    Arm64,
}

/// What asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Asker {
    /// A BIOS with a PXE ROM.
    Bios,
    /// UEFI, boot by TFTP.
    Uefi(Machine),
    /// UEFI, boot by HTTP.
    UefiHttp(Machine),
    /// iPXE, from a ROM or loaded by one of the others.
    Ipxe {
        /// What it was loaded by: UEFI of this machine, or a BIOS.
        uefi: Option<Machine>,
        /// Whether it can load by HTTP. If not, it is given our own, which can.
        http: bool,
    },
    /// A boot ROM that there is no boot program for, with its architecture type.
    Unsupported(u16),
    /// Our agent.
    Agent,
    /// Something that does not boot from the network now: an installed system, a telephone.
    Plain,
}

impl Asker {
    /// Looks at options 60, 77, 93 and 175.
    #[must_use]
    pub fn of(message: &Message) -> Self {
        let class = message.option(code::CLASS).unwrap_or_default();
        if class.starts_with(VENDOR_CLASS) {
            return Self::Agent;
        }
        let by_http = class.starts_with(HTTP_CLASS);
        let is_ipxe = is_ipxe(message);
        if !by_http && !is_ipxe && !class.starts_with(PXE_CLASS) {
            return Self::Plain;
        }
        let firmware = match architecture(message, class) {
            // ROMs of before RFC 4578.
            None if by_http => Self::UefiHttp(Machine::X64),
            None => Self::Bios,
            Some(kind) => firmware(kind),
        };
        if !is_ipxe {
            return firmware;
        }
        let http = vendor::ipxe_has_http(message.option(code::IPXE));
        match firmware {
            Self::Uefi(machine) | Self::UefiHttp(machine) => {
                Self::Ipxe { uefi: Some(machine), http }
            }
            Self::Unsupported(kind) => Self::Unsupported(kind),
            _ => Self::Ipxe { uefi: None, http },
        }
    }

    /// Whether it boots from the network: everything but the agent and plain systems.
    #[must_use]
    pub const fn boots(self) -> bool {
        !matches!(self, Self::Agent | Self::Plain)
    }

    /// What the answer's option 60 must be for it to be believed by a boot ROM.
    pub(crate) const fn class(self) -> &'static [u8] {
        match self {
            Self::UefiHttp(_) => HTTP_CLASS,
            _ => PXE_CLASS,
        }
    }
}

impl fmt::Display for Asker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bios => "BIOS",
            Self::Uefi(Machine::X64) => "UEFI x86-64",
            Self::Uefi(Machine::Arm64) => "UEFI arm64",
            Self::UefiHttp(Machine::X64) => "UEFI x86-64 by HTTP",
            Self::UefiHttp(Machine::Arm64) => "UEFI arm64 by HTTP",
            Self::Ipxe { uefi: None, .. } => "iPXE on a BIOS",
            Self::Ipxe { uefi: Some(Machine::X64), .. } => "iPXE on UEFI x86-64",
            Self::Ipxe { uefi: Some(Machine::Arm64), .. } => "iPXE on UEFI arm64",
            Self::Unsupported(kind) => return write!(f, "firmware of architecture type {kind}"),
            Self::Agent => "the agent",
            Self::Plain => "a system",
        })
    }
}

/// RFC 3004 wants lengths before the classes in option 77. iPXE writes its name without one.
fn is_ipxe(message: &Message) -> bool {
    message.option(code::USER_CLASS).is_some_and(|classes| {
        classes == IPXE_CLASS || classes.strip_prefix(&[4]).is_some_and(|c| c.starts_with(b"iPXE"))
    })
}

/// The first type in option 93 that we can serve, else the first; without the option, what the
/// class says (`PXEClient:Arch:00007:UNDI:003016`).
fn architecture(message: &Message, class: &[u8]) -> Option<u16> {
    let types: Vec<u16> = message
        .option(code::ARCHITECTURE)
        .unwrap_or_default()
        .as_chunks()
        .0
        .iter()
        .map(|pair| u16::from_be_bytes(*pair))
        .collect();
    let served = types.iter().find(|kind| !matches!(firmware(**kind), Asker::Unsupported(_)));
    served.or(types.first()).copied().or_else(|| {
        let text = std::str::from_utf8(class).ok()?;
        text.split_once(":Arch:")?.1.get(..5)?.parse().ok()
    })
}

/// IANA "Processor Architecture Types".
const fn firmware(kind: u16) -> Asker {
    match kind {
        0 => Asker::Bios,
        7 | 9 => Asker::Uefi(Machine::X64),
        11 => Asker::Uefi(Machine::Arm64),
        16 | 17 => Asker::UefiHttp(Machine::X64),
        19 => Asker::UefiHttp(Machine::Arm64),
        kind => Asker::Unsupported(kind),
    }
}

/// A machine identifier (option 97), as SMBIOS has it. Displayed in the canonical form, as iPXE and
/// `dmidecode` do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MachineId(pub [u8; 16]);

impl MachineId {
    /// What a message says. Firmwares that have none send zeros or ones, or nothing at all; some
    /// forget the type byte before it.
    #[must_use]
    pub fn of(message: &Message) -> Option<Self> {
        let bytes = match message.option(code::MACHINE_ID)? {
            [0, id @ ..] if id.len() == 16 => id,
            id if id.len() == 16 => id,
            _ => return None,
        };
        let id: [u8; 16] = bytes.try_into().ok()?;
        (id != [0; 16] && id != [0xff; 16]).then_some(Self(id))
    }
}

impl fmt::Display for MachineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The first three fields are little-endian (SMBIOS 2.6 section 7.2.1).
        const ORDER: [usize; 16] = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];
        for (place, at) in ORDER.into_iter().enumerate() {
            if matches!(place, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{:02x}", self.0[at])?;
        }
        Ok(())
    }
}

impl fmt::Debug for MachineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Ask;

    fn check(ask: &Ask, expect: Asker) {
        assert_eq!(Asker::of(&ask.message()), expect, "{ask:?}");
    }

    #[test]
    fn firmwares_are_known_by_their_architecture_type() {
        for (kind, expect) in [
            (0, Asker::Bios),
            (7, Asker::Uefi(Machine::X64)),
            (9, Asker::Uefi(Machine::X64)),
            (11, Asker::Uefi(Machine::Arm64)),
            (6, Asker::Unsupported(6)),
            (27, Asker::Unsupported(27)),
        ] {
            check(&Ask::discover(1).pxe(kind), expect);
        }
        check(&Ask::discover(1).http(16), Asker::UefiHttp(Machine::X64));
        check(&Ask::discover(1).http(19), Asker::UefiHttp(Machine::Arm64));
    }

    #[test]
    fn of_several_architecture_types_one_that_can_be_served_counts() {
        let ask = Ask::discover(1).option(60, b"PXEClient").option(93, &[0, 6, 0, 7]);
        check(&ask, Asker::Uefi(Machine::X64));
    }

    #[test]
    fn without_option_93_the_class_tells_the_architecture() {
        let class = b"PXEClient:Arch:00007:UNDI:003016";
        check(&Ask::discover(1).option(60, class), Asker::Uefi(Machine::X64));
        check(&Ask::discover(1).option(60, b"PXEClient"), Asker::Bios);
        check(&Ask::discover(1).option(60, b"PXEClient:Arch:xy"), Asker::Bios);
        check(&Ask::discover(1).option(60, b"PXEClient").option(93, &[7]), Asker::Bios);
    }

    #[test]
    fn ipxe_is_known_by_its_user_class_with_and_without_a_length() {
        for class in [&b"iPXE"[..], b"\x04iPXE"] {
            let ask = Ask::discover(1).pxe(7).option(77, class);
            check(&ask, Asker::Ipxe { uefi: Some(Machine::X64), http: true });
        }
        let ask = Ask::discover(1).pxe(0).option(77, b"iPXE").option(175, &[21, 1, 1]);
        check(&ask, Asker::Ipxe { uefi: None, http: false });
    }

    #[test]
    fn systems_and_the_agent_do_not_boot() {
        check(&Ask::discover(1), Asker::Plain);
        check(&Ask::discover(1).option(60, b"android-dhcp-13"), Asker::Plain);
        check(&Ask::discover(1).option(60, b"boottorrent-agent"), Asker::Agent);
        assert!(!Asker::Agent.boots() && !Asker::Plain.boots() && Asker::Unsupported(6).boots());
    }

    #[test]
    fn machine_identifiers_are_read_as_firmwares_err() {
        let id: Vec<u8> = (1..=16).collect();
        let typed = [&[0], &id[..]].concat();
        let read = |bytes: &[u8]| {
            MachineId::of(&Ask::discover(1).option(97, bytes).message()).map(|id| id.to_string())
        };
        let text = "04030201-0605-0807-090a-0b0c0d0e0f10";
        assert_eq!(read(&typed).as_deref(), Some(text));
        assert_eq!(read(&id).as_deref(), Some(text));
        assert_eq!(read(&[0; 17]), None);
        assert_eq!(read(&[0xff; 16]), None);
        assert_eq!(read(&[0, 1, 2]), None);
    }
}
