//! Options of a transfer (RFC 2347): what a node asks for, what holds.
//!
//! An option whose value makes no sense is passed over as one that is not known is: the transfer
//! then goes on without it, which a boot prefers to a refusal.

use std::time::Duration;

use crate::packet::{put_text, take_text};

/// Bytes of a block if nobody asks for others (RFC 1350).
pub const BLKSIZE_DEFAULT: u16 = 512;

/// The fewest bytes of a block (RFC 2348).
pub const BLKSIZE_MIN: u16 = 8;

/// The most bytes of a block (RFC 2348): the longest UDP datagram, without headers.
pub const BLKSIZE_MAX: u16 = 65_464;

/// The most blocks sent before an acknowledgement is waited for. 64 blocks of 1,468 bytes are
/// 94 kB: what a gigabit carries in 0.75 ms, so that with any LAN's round trip the link is full;
/// twice as many would not be faster and would overflow the queues of small switches, as TFTP has
/// no congestion control. It is also what u-root asks for.
pub const WINDOWSIZE_MAX: u16 = 64;

/// The longest interval between retransmissions that a node may ask for, of the 255 s of RFC 2349.
/// Beyond it we say nothing and keep to our own: a lost packet should not cost a minute.
pub const TIMEOUT_S_MAX: u8 = 30;

/// The most options read of a packet: there are four of any use.
const OPTIONS_MAX: usize = 16;

/// Those that are known. In a request: what is wanted; in its answer: what holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Bytes of a block, from [`BLKSIZE_MIN`] to [`BLKSIZE_MAX`] (RFC 2348).
    pub blksize: Option<u16>,
    /// Length of the file in bytes; 0 in a request (RFC 2349).
    pub tsize: Option<u64>,
    /// Seconds before a retransmission, at least 1 (RFC 2349).
    pub timeout: Option<u8>,
    /// Blocks before an acknowledgement, at least 1 (RFC 7440).
    pub windowsize: Option<u16>,
}

impl Options {
    /// Reads pairs of names (in any case) and values. Of an option that comes twice, the first
    /// counts (RFC 2347 forbids a second).
    pub(crate) fn decode(mut bytes: &[u8]) -> Self {
        let mut options = Self::default();
        for _ in 0..OPTIONS_MAX {
            let (name, rest) = take_text(bytes);
            let (value, rest) = take_text(rest);
            bytes = rest;
            if name.is_empty() {
                break;
            }
            let Some(value) = decode_number(value) else { continue };
            let at_most = |max: u16| u16::try_from(value).unwrap_or(max).min(max);
            if name.eq_ignore_ascii_case(b"blksize") && value >= BLKSIZE_MIN.into() {
                options.blksize.get_or_insert(at_most(BLKSIZE_MAX));
            } else if name.eq_ignore_ascii_case(b"tsize") {
                options.tsize.get_or_insert(value);
            } else if name.eq_ignore_ascii_case(b"timeout") && (1..=255).contains(&value) {
                options.timeout.get_or_insert(at_most(255) as u8);
            } else if name.eq_ignore_ascii_case(b"windowsize") && value >= 1 {
                options.windowsize.get_or_insert(at_most(u16::MAX));
            }
        }
        options
    }

    /// Appends the pairs.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let pairs = [
            (&b"blksize"[..], self.blksize.map(u64::from)),
            (b"tsize", self.tsize),
            (b"timeout", self.timeout.map(u64::from)),
            (b"windowsize", self.windowsize.map(u64::from)),
        ];
        for (name, value) in pairs {
            if let Some(value) = value {
                put_text(name, out);
                put_text(value.to_string().as_bytes(), out);
            }
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What holds of these wishes for a file of `len` bytes, if blocks may have `blksize_max` at
    /// most: smaller blocks and windows than asked for (RFC 2348, RFC 7440), the timeout as it is
    /// or not at all (RFC 2349). The length of an empty file is not told: curl takes it for an error.
    #[must_use]
    pub fn agree(&self, len: u64, blksize_max: u16) -> Self {
        Self {
            blksize: self.blksize.map(|wish| wish.min(blksize_max.max(BLKSIZE_MIN))),
            tsize: self.tsize.map(|_| len).filter(|len| *len > 0),
            timeout: self.timeout.filter(|wish| *wish <= TIMEOUT_S_MAX),
            windowsize: self.windowsize.map(|wish| wish.min(WINDOWSIZE_MAX)),
        }
    }

    /// The timeout that holds, if one was agreed on.
    pub(crate) fn interval(&self) -> Option<Duration> {
        self.timeout.map(|seconds| Duration::from_secs(seconds.into()))
    }
}

/// Decimal digits alone; what is more than 2^64 is no length of any file.
fn decode_number(digits: &[u8]) -> Option<u64> {
    // `parse` would take a plus sign.
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}
