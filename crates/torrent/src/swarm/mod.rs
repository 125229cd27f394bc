//! One torrent's swarm as seen from one peer: whom to ask for what, whom to serve first.
//!
//! The swarm is a state machine without I/O, clock or threads. The contract with its driver:
//! every call of `Swarm::handle` is followed by draining `Swarm::poll` until it returns `None`,
//! and [`Input::Tick`] is given when `Swarm::next_timeout` has come.

mod io;

pub use io::{
    CloseReason, Direction, Input, Output, PeerKey, PeerTraits, Role, Urgency, Verdict,
    VerifiedBlock,
};

use std::time::Duration;

/// The longest that a lazy message waits for company.
pub const LAZY_DELAY: Duration = Duration::from_millis(100);

/// The state of one torrent's swarm.
#[derive(Debug)]
pub struct Swarm {}
