//! What the services tell the fleet: one event for each thing that a node did and we saw. Whoever says that
//! he is a node is believed by DHCP alone, where there is no other way, and for no more than where it is.

use std::fmt;
use std::net::Ipv4Addr;

use boot::{Arch, Firmware, ImageName, Mac, Report};

use super::trust::{Proven, UpSaid};

/// Something that a node did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// It asked for an address or a boot server.
    Asked { mac: Mac, asker: Asker },
    /// We have answered: as the DHCP server with an address, beside another one without.
    Offered { mac: Mac, address: Option<Ipv4Addr> },
    /// It has leased an address from us.
    Leased { mac: Mac, address: Ipv4Addr },
    /// It fetched something.
    Fetched { address: Ipv4Addr, service: Service, what: Fetched },
    /// Its boot program asks for its script, and says who it is.
    Script(Proven<ScriptAsked>),
    /// Its agent says where it is.
    Reported(Box<Proven<Report>>),
    /// Its own system says that it is up.
    Up(Proven<UpSaid>),
}

#[cfg(test)]
impl Event {
    /// A report that counts, from `address`.
    pub(crate) fn reported(address: Option<Ipv4Addr>, report: Report) -> Self {
        Self::Reported(Box::new(Proven::for_tests(report, address)))
    }

    /// A request for a boot script that counts, from `address`.
    pub(crate) const fn script(address: Ipv4Addr, asked: ScriptAsked) -> Self {
        Self::Script(Proven::for_tests(asked, Some(address)))
    }
}

/// What on a node speaks DHCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asker {
    /// Its firmware, or iPXE: a boot begins or goes on.
    Firmware(Firmware),
    /// The agent.
    Agent,
    /// An operating system.
    System,
}

/// Who served a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Service {
    Tftp,
    Http,
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tftp => "TFTP",
            Self::Http => "HTTP",
        })
    }
}

/// What was fetched, as far as it says where a node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fetched {
    /// A network boot program.
    BootProgram(String),
    /// The kernel, the initramfs or the archive of phase 1.
    Phase1(&'static str),
    /// The manifest or its signature.
    Manifest,
    /// The torrent of an image.
    Torrent(ImageName),
    /// A file of an image, or a part of one.
    Image(ImageName),
}

impl fmt::Display for Fetched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BootProgram(name) => f.write_str(name),
            Self::Phase1(name) => f.write_str(name),
            Self::Manifest => f.write_str("the manifest"),
            Self::Torrent(image) => write!(f, "the torrent of {image}"),
            Self::Image(image) => write!(f, "files of {image}"),
        }
    }
}

/// What iPXE says of the node it runs on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ScriptAsked {
    pub(crate) mac: Mac,
    /// The SMBIOS UUID, if it is one.
    pub(crate) uuid: Option<String>,
    /// What it runs on, as far as iPXE says.
    pub(crate) arch: Option<Arch>,
    /// `pcbios` or `efi`.
    pub(crate) firmware: Option<Firmware>,
    /// From where it asks.
    pub(crate) address: Option<Ipv4Addr>,
}
