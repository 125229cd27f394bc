//! What a driver may want to tell people.

use std::net::SocketAddr;
use std::time::Duration;

use crate::name::{FileName, NameError};
use crate::options::Options;
use crate::packet::ErrorCode;

/// Something that people may want to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A node gets a file.
    Started {
        /// Who: the node's address and the port that it has for this transfer.
        peer: SocketAddr,
        /// What.
        name: FileName,
        /// Its length in bytes.
        len: u64,
        /// What holds.
        options: Options,
    },
    /// It does no longer.
    Ended {
        /// As when it started.
        peer: SocketAddr,
        /// As when it started.
        name: FileName,
        /// Bytes that the node acknowledged.
        acked_len: u64,
        /// Blocks that were sent more than once.
        resent_count: u64,
        /// Since it started.
        took: Duration,
        /// How.
        outcome: Outcome,
    },
    /// A node was refused what it asked for.
    Refused {
        /// Who.
        peer: SocketAddr,
        /// As it was sent: any bytes, at most [`crate::NAME_LEN_MAX`].
        name: Vec<u8>,
        /// Why.
        refusal: Refusal,
    },
    /// A node asks in vain because nobody gives up a place for it ([`crate::TRANSFERS_MAX`],
    /// [`crate::NODE_TRANSFERS_MAX`], [`crate::HALF_OPEN_MAX`]).
    Busy {
        /// Who.
        peer: SocketAddr,
    },
}

/// How a transfer ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The node has acknowledged the last block.
    Complete,
    /// The node only wanted to know how long the file is, as firmware does before it makes room.
    Probed,
    /// The last blocks were sent, and then the node was silent: most likely it has all it wants.
    Unconfirmed,
    /// The node sent an error.
    Aborted {
        /// What kind.
        code: ErrorCode,
        /// What it says, escaped: at most [`crate::MESSAGE_LEN_MAX`] bytes, which may be four
        /// times as many characters.
        message: String,
    },
    /// The node has been silent for [`crate::PATIENCE`].
    Silent,
    /// Another one got its place: it had brought nothing for longest.
    Displaced,
    /// The file could not be read to its end.
    Unreadable,
}

/// Why a node does not get what it asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is no such file.
    NotFound,
    /// No file can be called so.
    Name(NameError),
    /// It wants to write.
    Write,
    /// It asks for a mode other than octet. Sent in that mode, lines of a text file would need other
    /// ends, and everything else would arrive damaged; sent as octets nevertheless, the node would
    /// damage it. A sentence is better than either.
    Mode,
    /// The file is there and cannot be opened.
    Unreadable,
}

impl Refusal {
    /// What the node is told.
    #[must_use]
    pub const fn answer(self) -> (ErrorCode, &'static str) {
        match self {
            Self::NotFound => (ErrorCode::NotFound, "file not found"),
            Self::Name(NameError::Outside) => {
                (ErrorCode::AccessViolation, "name leads out of what is served")
            }
            Self::Name(_) => (ErrorCode::NotFound, "no file can have this name"),
            Self::Write => (ErrorCode::AccessViolation, "this server is read-only"),
            Self::Mode => (ErrorCode::IllegalOperation, "ask for octet (binary) mode"),
            Self::Unreadable => (ErrorCode::Undefined, "file cannot be read"),
        }
    }
}

/// What is not worth an event each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Datagrams that are no packets.
    pub malformed: u64,
    /// Packets that belong to no transfer: late copies, mostly.
    pub stray: u64,
    /// Requests and transfers for which there was no room.
    pub busy: u64,
}
