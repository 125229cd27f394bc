//! Reading peer messages out of a receive buffer (BEP 3, 6, 10, 52).
//!
//! [`decode`] keeps no state: it looks at the bytes that are there and says what they begin with, so
//! the driver may own the buffer, and the payload of `piece`, which is nearly all the traffic, need
//! never pass through it. Nothing is allocated before the length of the message was found right, and
//! nothing at all for `have`, `request`, `piece` and `cancel`.
//!
//! Whether what a message says makes sense in this torrent and at this moment is not asked here.

use std::ops::RangeInclusive;

use super::message::{ExtensionIds, HashRange, Message, id};
use crate::geometry::{BLOCK_LEN, Block, Geometry, PIECES_MAX};

/// The longest extended message, and the longest of a number that we do not know, number included.
/// What we read of them are a few KiB and nothing above 64 KiB is parsed, so this is what a hostile peer
/// can make a connection keep: as much as a bitfield of the largest torrent, and its double.
pub const EXTENDED_LEN_MAX: u32 = 256 * 1024;

/// The most hashes in one message. BEP 52 lets a receiver refuse requests for more than 512, which
/// is also what we ask for at most; twice that for those who send more than they were asked for, and
/// a proof is never longer than 64 layers, as a file's length has 64 bits.
pub const HASHES_MAX: u32 = 2 * 512 + 64;

/// The length of a receive buffer that any message fits, in bytes: payload of `piece` stays out of
/// it. Hardly any connection ever needs that much, so let buffers grow by what
/// [`Decoded::Incomplete`] asks for.
pub const BUFFER_LEN_MAX: usize = 4 + EXTENDED_LEN_MAX as usize;

const _: () = assert!(
    PIECES_MAX.div_ceil(8) < EXTENDED_LEN_MAX && 32 * (HASHES_MAX + 2) < EXTENDED_LEN_MAX,
    "no message may be longer than extended ones"
);

/// Bytes of a `piece` message before its payload, the length included.
const PIECE_HEAD_LEN: usize = 4 + 1 + 8;

/// What a torrent allows a message to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a bitfield: no other length is right.
    bitfield_len: u32,
}

/// What a buffer begins with. `used` bytes of it are done with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decoded {
    /// The beginning of something.
    Incomplete {
        /// Call again when the buffer has this many bytes in all: more than it has now, and not
        /// more than [`BUFFER_LEN_MAX`].
        need: usize,
    },
    /// A message, whole. Never `Message::Piece`.
    Message {
        /// The message.
        message: Message,
        /// Bytes that it took.
        used: usize,
    },
    /// The head of a `piece` message: `block.len` bytes of payload follow it, at least one and at
    /// most [`BLOCK_LEN`].
    Piece {
        /// What the payload fills.
        block: Block,
        /// Bytes that the head took, without any payload.
        used: usize,
    },
}

/// A message that cannot be. Nothing after it can be read either: close the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// No message is that long.
    #[error("message of {len} bytes is longer than any message")]
    TooLong {
        /// Its length, number included.
        len: u32,
    },
    /// The message is shorter or longer than messages of its number are.
    #[error("{name} message cannot be of {len} bytes")]
    WrongLen {
        /// Which message.
        name: &'static str,
        /// Its length, number included.
        len: u32,
    },
}

impl Limits {
    /// The limits for a torrent of this shape.
    #[must_use]
    pub const fn new(geometry: &Geometry) -> Self {
        Self { bitfield_len: geometry.piece_count().div_ceil(8) }
    }
}

/// Says what message `buffer` begins with.
///
/// # Errors
/// If its length, or its length for its number, is not allowed: found as soon as the first 4 or 5
/// bytes are there.
pub fn decode(buffer: &[u8], limits: &Limits) -> Result<Decoded, DecodeError> {
    let Some((head, rest)) = buffer.split_first_chunk() else {
        return Ok(Decoded::Incomplete { need: 4 });
    };
    let len = u32::from_be_bytes(*head);
    if len == 0 {
        let message = Message::KeepAlive;
        return Ok(Decoded::Message { message, used: 4 });
    }
    if len > EXTENDED_LEN_MAX {
        return Err(DecodeError::TooLong { len });
    }
    let Some((&id, payload)) = rest.split_first() else {
        return Ok(Decoded::Incomplete { need: 5 });
    };
    let name = check_len(id, len, payload, limits)?;
    if id == id::PIECE {
        return Ok(decode_piece(payload, len));
    }
    let used = 4 + len as usize;
    let Some(payload) = payload.get(..len as usize - 1) else {
        return Ok(Decoded::Incomplete { need: used });
    };
    match decode_payload(id, payload) {
        Some(message) => Ok(Decoded::Message { message, used }),
        None => Err(DecodeError::WrongLen { name, len }),
    }
}

/// Refuses a message of the wrong length for its number; gives its name.
fn check_len(
    id: u8,
    len: u32,
    payload: &[u8],
    limits: &Limits,
) -> Result<&'static str, DecodeError> {
    // Our own extension is as fixed as a message of BEP 3, once its number is there.
    let (name, lens) = if id == id::EXTENDED && payload.first().is_some_and(|&id| is_unit(id)) {
        ("bt_unit", 6..=6)
    } else {
        shape(id, limits)
    };
    let whole_hashes = id != id::HASHES || len.abs_diff(*lens.start()).is_multiple_of(32);
    if lens.contains(&len) && whole_hashes {
        Ok(name)
    } else {
        Err(DecodeError::WrongLen { name, len })
    }
}

/// Name and lengths of the messages of a number, the number included.
const fn shape(id: u8, limits: &Limits) -> (&'static str, RangeInclusive<u32>) {
    const RANGE_LEN: u32 = 1 + HashRange::LEN as u32;
    match id {
        id::CHOKE => ("choke", 1..=1),
        id::UNCHOKE => ("unchoke", 1..=1),
        id::INTERESTED => ("interested", 1..=1),
        id::NOT_INTERESTED => ("not interested", 1..=1),
        id::HAVE => ("have", 5..=5),
        id::BITFIELD => ("bitfield", 1 + limits.bitfield_len..=1 + limits.bitfield_len),
        id::REQUEST => ("request", 13..=13),
        id::PIECE => ("piece", 10..=9 + BLOCK_LEN),
        id::CANCEL => ("cancel", 13..=13),
        id::PORT => ("port", 3..=3),
        id::SUGGEST_PIECE => ("suggest piece", 5..=5),
        id::HAVE_ALL => ("have all", 1..=1),
        id::HAVE_NONE => ("have none", 1..=1),
        id::REJECT => ("reject", 13..=13),
        id::ALLOWED_FAST => ("allowed fast", 5..=5),
        id::EXTENDED => ("extended", 2..=EXTENDED_LEN_MAX),
        id::HASH_REQUEST => ("hash request", RANGE_LEN..=RANGE_LEN),
        id::HASHES => ("hashes", RANGE_LEN..=RANGE_LEN + 32 * HASHES_MAX),
        id::HASH_REJECT => ("hash reject", RANGE_LEN..=RANGE_LEN),
        _ => ("unknown", 1..=EXTENDED_LEN_MAX),
    }
}

fn decode_piece(payload: &[u8], len: u32) -> Decoded {
    let Some([piece, offset]) = numbers(payload) else {
        let need = PIECE_HEAD_LEN;
        return Decoded::Incomplete { need };
    };
    let len = len - 9;
    let block = Block { piece, offset, len };
    let used = PIECE_HEAD_LEN;
    Decoded::Piece { block, used }
}

/// Reads a payload whose length [`check_len`] found right; `None` if it is not after all.
fn decode_payload(id: u8, payload: &[u8]) -> Option<Message> {
    Some(match id {
        id::CHOKE => Message::Choke,
        id::UNCHOKE => Message::Unchoke,
        id::INTERESTED => Message::Interested,
        id::NOT_INTERESTED => Message::NotInterested,
        id::HAVE => Message::Have(number(payload)?),
        id::BITFIELD => Message::Bitfield(payload.to_vec()),
        id::REQUEST => Message::Request(block(payload)?),
        id::CANCEL => Message::Cancel(block(payload)?),
        id::PORT => Message::Port(u16::from_be_bytes(*payload.first_chunk()?)),
        id::SUGGEST_PIECE => Message::SuggestPiece(number(payload)?),
        id::HAVE_ALL => Message::HaveAll,
        id::HAVE_NONE => Message::HaveNone,
        id::REJECT => Message::Reject(block(payload)?),
        id::ALLOWED_FAST => Message::AllowedFast(number(payload)?),
        id::EXTENDED => {
            let (&id, payload) = payload.split_first()?;
            return extended(id, payload);
        }
        id::HASH_REQUEST => Message::HashRequest(range(payload)?),
        id::HASHES => {
            let list = payload.get(HashRange::LEN..)?.as_chunks().0;
            Message::Hashes(range(payload)?, list.to_vec())
        }
        id::HASH_REJECT => Message::HashReject(range(payload)?),
        _ => Message::Unknown(id),
    })
}

/// An extended message by the number that *we* gave.
fn extended(id: u8, payload: &[u8]) -> Option<Message> {
    if is_unit(id) {
        return number(payload).map(Message::HaveUnit);
    }
    let payload = payload.to_vec();
    Some(Message::Extended { id, payload })
}

fn is_unit(id: u8) -> bool {
    ExtensionIds::OURS.unit.is_some_and(|unit| unit.get() == id)
}

/// The `N` numbers that `bytes` begins with.
fn numbers<const N: usize>(bytes: &[u8]) -> Option<[u32; N]> {
    let values = bytes.as_chunks().0.first_chunk::<N>()?;
    Some(values.map(u32::from_be_bytes))
}

fn number(bytes: &[u8]) -> Option<u32> {
    numbers(bytes).map(|[value]| value)
}

fn block(bytes: &[u8]) -> Option<Block> {
    let [piece, offset, len] = numbers(bytes)?;
    Some(Block { piece, offset, len })
}

fn range(bytes: &[u8]) -> Option<HashRange> {
    let (pieces_root, rest) = bytes.split_first_chunk()?;
    let [base_layer, index, len, proof_layers] = numbers(rest)?;
    Some(HashRange { pieces_root: *pieces_root, base_layer, index, len, proof_layers })
}
