//! What goes into a [`crate::Service`] and what comes out.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use crate::asker::{Asker, MachineId};
use crate::config::{LabId, Role, Subnet};
use crate::lease::{Lease, NoAddress, Pool, Refusal};
use crate::mac::Mac;
use crate::message::DecodeError;

/// A UDP port that a service has packets on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Port {
    /// 67: always open.
    Server,
    /// 68: open while [`Output::Listen`] says so, to hear other servers' answers to ours.
    Client,
    /// 4011: always open (PXE 2.1 section 2.2.3, which calls it the PXE boot service).
    Binl,
}

impl Port {
    /// Its number.
    #[must_use]
    pub const fn number(self) -> u16 {
        match self {
            Self::Server => 67,
            Self::Client => 68,
            Self::Binl => 4011,
        }
    }
}

/// Something that happened.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// A datagram came.
    Packet {
        /// To which port.
        port: Port,
        /// From where.
        from: SocketAddrV4,
        /// All of it.
        bytes: &'a [u8],
    },
    /// A time that [`crate::Service::next_timeout`] named has come.
    Tick,
    /// The answer to [`Output::Look`].
    Looked {
        /// Where.
        address: Ipv4Addr,
        /// Whose Ethernet address answers there; none if nobody does.
        user: Option<Mac>,
    },
    /// This server has seen the machine use the address that it leased to it: it fetched something
    /// from there.
    Used(Mac),
}

/// Something to do, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Store a lease before sending what follows: an acknowledged lease must survive.
    Store(Lease),
    /// Forget the lease of an address.
    Forget(Ipv4Addr),
    /// Send a datagram.
    Send {
        /// From which port.
        port: Port,
        /// To where; 255.255.255.255 is everybody on the interface.
        to: SocketAddrV4,
        /// What.
        bytes: Vec<u8>,
    },
    /// Open or close port 68. Where it cannot be opened, because the machine's own DHCP client has
    /// it, others are still heard by the answers to port 67.
    Listen(bool),
    /// Something that people or other parts of the server want to know.
    Event(Event),
    /// Find out by ARP who uses an address of the interface's network, and say so by
    /// [`Input::Looked`], within [`crate::lease::DOUBT_TIME`] or not at all.
    Look(Ipv4Addr),
}

/// Why a service waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Conflict {
    /// Somebody else gives addresses.
    #[error(
        "another DHCP server, {0}, answers on this network: two would contradict one another. \
         Set dhcp mode to `auto` or `proxy` to boot nodes beside it, switch it off, or force ours"
    )]
    ForeignServer(Ipv4Addr),
    /// Somebody else boots nodes with this program.
    #[error(
        "another BootTorrent server, {address} (lab {lab}), boots nodes on this network: stop one of \
         the two, put them on separate networks, or force this one"
    )]
    OtherLab {
        /// Where.
        address: Ipv4Addr,
        /// Which lab; possibly the same one, started twice.
        lab: LabId,
    },
}

/// Something to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// What this service does from now on; because of whom, if it is a proxy for somebody.
    Serving {
        /// What.
        role: Role,
        /// The server that gives the addresses.
        beside: Option<Ipv4Addr>,
    },
    /// It gives neither addresses nor boot programs until the other one was silent for two looks.
    Waiting(Conflict),
    /// Nobody gives addresses, and neither do we: no node can boot.
    NoServer,
    /// A machine asks.
    Seen {
        /// Which.
        mac: Mac,
        /// As what.
        asker: Asker,
        /// Option 97.
        machine: Option<MachineId>,
        /// Through which relay agent.
        relay: Option<Ipv4Addr>,
    },
    /// It was offered something.
    Offered {
        /// Which.
        mac: Mac,
        /// An address, or only a boot program.
        address: Option<Ipv4Addr>,
    },
    /// It was given an address.
    Leased {
        /// Which.
        mac: Mac,
        /// What.
        address: Ipv4Addr,
        /// As what it asked.
        asker: Asker,
    },
    /// It was told what to boot.
    BootProgram {
        /// Which.
        mac: Mac,
        /// As what it asked.
        asker: Asker,
        /// A file name or URL.
        file: String,
    },
    /// It wants to boot, and there is no program for its kind.
    NoBootProgram {
        /// Which.
        mac: Mac,
        /// As what it asked.
        asker: Asker,
    },
    /// It must not use the address that it asked for.
    Refused {
        /// Which.
        mac: Mac,
        /// What.
        address: Ipv4Addr,
        /// Why.
        reason: Refusal,
    },
    /// It says that another machine uses its address.
    Declined {
        /// Which.
        mac: Mac,
        /// What.
        address: Ipv4Addr,
    },
    /// It says so, and it is not its to say: nothing follows.
    Disbelieved {
        /// Which.
        mac: Mac,
        /// What.
        address: Ipv4Addr,
    },
    /// This server has seen that another machine uses its address.
    Conflict {
        /// Whose it is.
        mac: Mac,
        /// What.
        address: Ipv4Addr,
        /// Who uses it.
        user: Mac,
        /// Whether it is reserved for `mac`, which is given another meanwhile.
        is_reserved: bool,
    },
    /// A node of the lab was offered the address of a stranger, as no other was left.
    Displaced {
        /// The stranger.
        mac: Mac,
        /// What.
        address: Ipv4Addr,
        /// The node.
        by: Mac,
    },
    /// Strangers have taken much of the ranges. Said once in [`crate::drain::AGAIN`].
    Draining {
        /// How many of them, in
        count: usize,
        /// this time.
        within: Duration,
        /// What there is.
        pool: Pool,
    },
    /// It gave its address back.
    Released {
        /// Which.
        mac: Mac,
        /// What.
        address: Ipv4Addr,
    },
    /// There is no address for a machine. Said once a minute.
    Exhausted {
        /// For which network.
        subnet: Subnet,
        /// Who had to go away, the first of them.
        mac: Mac,
        /// Why.
        why: NoAddress,
        /// What there is.
        pool: Pool,
    },
    /// A relay agent asks for a network without a range. Said once for each.
    UnknownRelay(Ipv4Addr),
    /// Another DHCP server is there. Said once an hour.
    ForeignServer {
        /// Where.
        address: Ipv4Addr,
        /// The boot program that it offers, if any.
        boot_file: Option<String>,
    },
    /// Another BootTorrent server is there. Said once an hour.
    OtherLab {
        /// Where.
        address: Ipv4Addr,
        /// Which lab.
        lab: LabId,
        /// Whether it has the lab's key. Anybody can say to be another server.
        is_proved: bool,
    },
    /// A second server of this lab is there, which is as it should be. Said once an hour.
    Twin {
        /// Where.
        address: Ipv4Addr,
    },
    /// More messages come than any fleet sends. Said once a minute.
    Flood {
        /// Messages in the last second.
        per_s: u32,
    },
    /// Datagrams that could not be read, since this was said before.
    Malformed {
        /// How many.
        count: u64,
        /// The sender of the last of them.
        from: SocketAddrV4,
        /// What was wrong with it.
        reason: DecodeError,
    },
}
