//! Read-only TFTP without I/O (RFC 1350), with options (RFC 2347): blksize (RFC 2348), tsize and
//! timeout (RFC 2349), windowsize (RFC 7440).
//!
//! TFTP is what firmware speaks before it speaks anything better: a node fetches its boot program
//! and perhaps a kernel. [`Server`] owns any number of transfers, each of which is a [`Transfer`];
//! a driver brings it datagrams and the time, and does what it is told by [`Output`]: open a file,
//! send some blocks of it, send a small packet, tell of an [`Event`]. [`Receiver`] is the other end,
//! for tests, benchmarks and a server that looks whether it can be reached.
//!
//! Not here: sockets, files, and which names there are. Not anywhere: writing, `netascii`.
#![deny(missing_docs)]

mod event;
mod name;
mod options;
mod packet;
mod receiver;
mod server;
mod time;
mod transfer;
mod window;

#[cfg(test)]
mod tests;

pub use event::{Counts, Event, Outcome, Refusal};
pub use name::{FileName, NAME_LEN_MAX, NameError};
pub use options::{
    BLKSIZE_DEFAULT, BLKSIZE_MAX, BLKSIZE_MIN, Options, TIMEOUT_S_MAX, WINDOWSIZE_MAX,
};
pub use packet::{DecodeError, ErrorCode, MESSAGE_LEN_MAX, Mode, Packet, Request};
pub use places::Standing;
pub use receiver::{FetchError, Heard, Receiver};
pub use server::{
    Config, HALF_OPEN_MAX, IDLE_MAX, Input, NODE_TRANSFERS_MAX, OpenError, Output, Port, Server,
    TRANSFERS_MAX, TransferId, WINDOWS_LEN_MAX, WINDOWSIZE_FEW,
};
pub use time::Time;
pub use transfer::{PATIENCE, Step, Transfer};
pub use window::Window;
