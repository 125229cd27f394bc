//! Simulated fleets: the real [`torrent::swarm::Swarm`] of every node, on a network that is only
//! arithmetic.
//!
//! A run is a function of its [`Scenario`], whose random seed it prints on failure. The network has
//! what decides a transfer on a switched LAN (port rates both ways, queues, latency, lost nodes) and
//! leaves out what does not (routing, TCP's slow start on a warm LAN). An oracle watches every block:
//! nothing unverified is served, nobody is left behind, all bytes end right.

mod scenario;

mod events;
mod fleet;
mod network;
mod oracle;

pub mod table;

pub use fleet::{FAULT_AT, SLOW_PART, run, run_watched};
pub use scenario::{Faults, Outcome, Scenario};
pub use table::{Row, rows};
