//! Everything that runs inside `boottorrent start`.
//!
//! Read in this order: how a start goes, what it needs first, what it publishes, how it seeds, how it
//! is watched and controlled.

pub(crate) mod run;

pub(crate) mod lock;
mod network;
mod sockets;

mod dhcp;
pub(crate) mod edition;
mod press;
pub(crate) mod seeding;
mod tftp;

pub(crate) mod changes;
pub(crate) mod control;
pub(crate) mod deeds;
mod facts;
pub(crate) mod log;
mod notify;
pub(crate) mod status;
pub(crate) mod versions;

#[cfg(test)]
mod tests;
