//! PXE boot server (DHCP, proxyDHCP, BINL) and the agent's DHCP client, without I/O.
#![deny(missing_docs)]

pub mod time;

pub mod client;

pub use time::Time;
