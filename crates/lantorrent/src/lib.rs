//! LANTorrent: one file through a chain of hosts, each of which stores it and passes it on while it
//! arrives; and the queue that gathers requests for a file so that it is sent once.
//!
//! The wire is that of the original in Nimbus: a JSON header, `EOH : signature`, the payload, a
//! footer, and lines of JSON back. What our own endpoints say beyond it is in fields and lines of
//! their own ([`header::Extension`], [`report::Line`]).
//!
//! # How the chain heals
//!
//! An endpoint does not copy from socket to socket. What arrives is written to the first file, and
//! the next endpoint is served *from that file*, with `sendfile`: receiving and sending have paces
//! of their own, so a slow or dead successor never holds up a predecessor, and what a new successor
//! lacks is there to be sent. Every endpoint knows all that are behind it. It therefore can
//!
//! - skip an endpoint that cannot be reached (505) and go on with the one behind it;
//! - cut out one that dies, or is silent for [`chain::STALL_TIMEOUT`], and connect to the one behind
//!   it, which still holds the session and says with how many bytes it wants to go on;
//! - move one that is much slower than what comes in to the end, where nobody waits for it.
//!
//! Those further behind keep their connections and notice nothing. Each endpoint remembers what it
//! has reported upwards and says it again to a new predecessor, so no report dies with a messenger.
//!
//! # What is where
//!
//! Pure, all state in one owner, time a parameter: [`code`], [`header`], [`signature`], [`replay`],
//! [`report`], [`plan`] (who sends to whom), [`chain`] (the sending half of an endpoint as a state
//! machine: `handle`, `poll`, `next_timeout`), [`queue`] (which requests are due).
//! Edges: [`io`] (sockets, files, threads) and [`store`] (the queue in SQLite).

pub mod code;
pub mod header;
pub mod report;
pub mod signature;

pub mod replay;

pub mod plan;

pub mod chain;
pub mod intake;

pub mod queue;

pub mod io;

#[cfg(feature = "store")]
pub mod store;

/// The port of the original.
pub const PORT: u16 = 2893;

/// What a file is called until all of it is there.
pub const TEMPORARY_SUFFIX: &str = ".lantorrent";

/// A moment on the caller's clock, from a start that the caller chooses.
pub type Time = std::time::Duration;
