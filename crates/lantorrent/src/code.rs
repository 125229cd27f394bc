//! What an endpoint says about a file in the end, as numbers that are as old as the original.

use std::fmt;

/// A code of a report. Strangers may send others, which stay what they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Code(pub u16);

impl Code {
    /// The file is there, and its hash is right.
    pub const SUCCESS: Self = Self(0);
    /// Something that has no code of its own; the message tells.
    pub const UNKNOWN: Self = Self(500);
    /// The header is longer than [`crate::header::HEADER_LEN_MAX`] or has too many lines.
    pub const HEADER_TOO_LONG: Self = Self(501);
    /// The header is no JSON object, or lacks a value.
    pub const HEADER_INCOMPLETE: Self = Self(502);
    /// The file could not be opened, written or renamed.
    pub const FILE: Self = Self(503);
    /// An entry of `destinations` makes no sense.
    pub const DESTINATION: Self = Self(504);
    /// The endpoint could not be reached.
    pub const UNREACHABLE: Self = Self(505);
    /// The connection broke in mid-stream.
    pub const BROKEN: Self = Self(506);
    /// The endpoint answered with something that is no JSON.
    pub const NOT_JSON: Self = Self(507);
    /// The signature is wrong, or the header was seen before. Why is not told.
    pub const DENIED: Self = Self(508);
    /// All was sent, and the endpoint never said how it went.
    pub const NEVER_REPORTED: Self = Self(509);
    /// What arrived is not what was sent.
    pub const CHECKSUM: Self = Self(510);

    /// The original's sentence for it.
    pub const fn sentence(self) -> &'static str {
        match self.0 {
            0 => "Success",
            501 => "Header too long",
            502 => "The header lacks a value",
            503 => "The output file could not be opened or written",
            504 => "Invalid destination entry",
            505 => "Failed to connect to the endpoint",
            506 => "The connection to the endpoint broke",
            507 => "The endpoint answered with something that is no JSON",
            508 => "Access denied",
            509 => "Completion status never received",
            510 => "Incorrect checksum",
            _ => "Unknown error",
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
