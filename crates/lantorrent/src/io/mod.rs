//! The edges: sockets, files, threads. One thread for each transfer waits with `poll` for its few
//! sockets; another hashes.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "this is the I/O")]

mod connect;
mod hash;
mod mailbox;
mod target;

mod children;
mod origin;
mod session;

mod endpoint;
mod registry;

use std::time::{Instant, SystemTime, UNIX_EPOCH};

pub use endpoint::{Endpoint, EndpointError, Limits, Observer, Serving, serve_stdin};
pub use origin::{Cancel, Outcome, Progress, SendError, Shape, Source, send};
pub use target::{RootError, Roots};

use crate::Time;
use crate::signature::{Compat, Password};

/// What all ends of a chain share.
#[derive(Clone, Debug)]
pub struct Identity {
    pub password: Password,
    pub compat: Compat,
}

/// Time since something began.
#[derive(Clone, Copy, Debug)]
struct Clock(Instant);

impl Clock {
    fn start() -> Self {
        Self(Instant::now())
    }

    fn now(self) -> Time {
        self.0.elapsed()
    }
}

/// Seconds since 1970.
fn unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

/// 16 random bytes in hexadecimal: never the same twice.
fn nonce() -> Result<String, getrandom::Error> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)?;
    Ok(hex(&bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(digit).collect()
}

fn digit(value: u8) -> char {
    char::from_digit(u32::from(value), 16).expect("a half byte is a digit")
}
