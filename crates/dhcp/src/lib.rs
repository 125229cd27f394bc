//! PXE boot server (DHCP, proxyDHCP, BINL) and the agent's DHCP client, without I/O.
//!
//! Read in this order: [`asker`] (what asks), [`boot_files`] (what it is given), [`config`], `lease`
//! (who has which address), `server` and `proxy` (the two ways to answer), `probe` (other servers),
//! and [`service`], which puts them together. A driver owns a [`Service`], feeds it [`Input`]s and
//! does what its [`Output`]s say. The other side, by which the agent leases its address, is [`client`].
//!
//! What is not here: DHCPv6, BOOTP without DHCP, other hardware than Ethernet, failover between
//! servers, and pings before offers (nodes look by ARP whether an address is free, and decline it).
#![deny(missing_docs)]

pub mod asker;
pub mod boot_files;
pub mod config;
pub mod io;
pub mod lease;
pub mod service;

pub mod client;

mod answer;
pub mod drain;
mod probe;
pub mod proof;
mod proxy;
mod server;
mod vendor;

pub mod mac;
pub mod message;
pub mod time;

#[cfg(test)]
mod testing;

pub use asker::{Asker, Machine, MachineId};
pub use boot_files::{BootFiles, FileName, Pxelinux};
pub use config::{Audience, Config, ConfigError, LabId, Mode, Range, Reservation, Role, Subnet};
pub use io::{Conflict, Event, Input, Output, Port};
pub use lease::{Lease, NoAddress, Pool};
pub use mac::Mac;
pub use message::Message;
pub use proof::{Proof, Prover, Unproved};
pub use service::{Service, Start};
pub use time::Time;
