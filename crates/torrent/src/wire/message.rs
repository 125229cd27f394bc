//! The messages between peers and how they are written; how they are read is in `decode`.
//!
//! Every message is a 4-byte big-endian length, a 1-byte number and a payload whose layout the
//! number decides (BEP 3). The numbers of BEP 6, 10 and 52 join those of BEP 3.

use std::num::NonZeroU8;

use crate::geometry::Block;

/// One peer message after the handshake (BEP 3, 6, 10, 52).
///
/// The payload of `piece` is not part of it: the driver moves those bytes straight between socket
/// and storage, and only the [`Block`] they fill is worth knowing here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// BEP 3: an empty message, sent so that an idle connection is not closed.
    KeepAlive,
    /// BEP 3: requests are not answered until `Unchoke`.
    Choke,
    /// BEP 3: requests are answered.
    Unchoke,
    /// BEP 3: the sender wants something that the receiver has.
    Interested,
    /// BEP 3: the sender wants nothing that the receiver has.
    NotInterested,
    /// BEP 3: the sender has this piece, verified.
    Have(u32),
    /// BEP 3: all pieces that the sender has; still encoded, as only the torrent knows its length.
    Bitfield(Vec<u8>),
    /// BEP 3: please send this block.
    Request(Block),
    /// BEP 3: head of a block; `len` bytes of payload follow it on the wire.
    Piece(Block),
    /// BEP 3: the request is withdrawn.
    Cancel(Block),
    /// BEP 5: DHT port. Read and ignored: there is no DHT here.
    Port(u16),
    /// BEP 6: a hint, ignored.
    SuggestPiece(u32),
    /// BEP 6: the sender has everything; in place of `Bitfield`.
    HaveAll,
    /// BEP 6: the sender has nothing; in place of `Bitfield`.
    HaveNone,
    /// BEP 6: the request will not be answered.
    Reject(Block),
    /// BEP 6: may be requested even while choked.
    AllowedFast(u32),
    /// BEP 52: please send these hashes.
    HashRequest(HashRange),
    /// BEP 52: `len` hashes of the base layer, then the uncle hashes that prove them.
    Hashes(HashRange, Vec<[u8; 32]>),
    /// BEP 52: the hash request will not be answered.
    HashReject(HashRange),
    /// BEP 10: id 0 is the extended handshake; others as the receiver numbered them.
    Extended {
        /// The receiver's number for the extension, 0 for the handshake.
        id: u8,
        /// What follows the number, usually bencode.
        payload: Vec<u8>,
    },
    /// Ours (BEP 10 extension `bt_unit`): the sender has this unit of the pieces, verified.
    HaveUnit(u32),
    /// A message number that we do not know: skipped.
    Unknown(u8),
}

/// The range of hashes that a BEP 52 hash request names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashRange {
    /// Root of the file's Merkle tree.
    pub pieces_root: [u8; 32],
    /// Lowest layer asked for; 0 is the layer of blocks.
    pub base_layer: u32,
    /// First hash of that layer, a multiple of `len`.
    pub index: u32,
    /// How many hashes of it, a power of two of at least 2.
    pub len: u32,
    /// How many layers above the base to prove the range by uncle hashes.
    pub proof_layers: u32,
}

/// The numbers of the messages (BEP 3, 5, 6, 10, 52).
pub(super) mod id {
    pub(in crate::wire) const CHOKE: u8 = 0;
    pub(in crate::wire) const UNCHOKE: u8 = 1;
    pub(in crate::wire) const INTERESTED: u8 = 2;
    pub(in crate::wire) const NOT_INTERESTED: u8 = 3;
    pub(in crate::wire) const HAVE: u8 = 4;
    pub(in crate::wire) const BITFIELD: u8 = 5;
    pub(in crate::wire) const REQUEST: u8 = 6;
    pub(in crate::wire) const PIECE: u8 = 7;
    pub(in crate::wire) const CANCEL: u8 = 8;
    pub(in crate::wire) const PORT: u8 = 9;
    pub(in crate::wire) const SUGGEST_PIECE: u8 = 13;
    pub(in crate::wire) const HAVE_ALL: u8 = 14;
    pub(in crate::wire) const HAVE_NONE: u8 = 15;
    pub(in crate::wire) const REJECT: u8 = 16;
    pub(in crate::wire) const ALLOWED_FAST: u8 = 17;
    pub(in crate::wire) const EXTENDED: u8 = 20;
    pub(in crate::wire) const HASH_REQUEST: u8 = 21;
    pub(in crate::wire) const HASHES: u8 = 22;
    pub(in crate::wire) const HASH_REJECT: u8 = 23;
}

/// The numbers that one side gave to the extensions that it takes (BEP 10): the other side puts
/// them on what it sends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExtensionIds {
    /// `ut_pex` (BEP 11).
    pub pex: Option<NonZeroU8>,
    /// `bt_unit`, ours.
    pub unit: Option<NonZeroU8>,
}

impl ExtensionIds {
    /// The numbers that we give: what peers send to us.
    pub const OURS: Self = Self { pex: NonZeroU8::new(1), unit: NonZeroU8::new(2) };
}

impl Message {
    /// Appends the message as it is sent, to a peer that gave these numbers to its extensions.
    ///
    /// Of `Piece` only the head is written: the caller owes the `len` bytes of payload. `HaveUnit`
    /// to a peer without a number for it is nothing at all, as there is nobody to understand it.
    pub fn encode(&self, peer_ids: ExtensionIds, out: &mut Vec<u8>) {
        match *self {
            Self::KeepAlive => out.extend_from_slice(&[0; 4]),
            Self::Choke => head(out, 0, id::CHOKE),
            Self::Unchoke => head(out, 0, id::UNCHOKE),
            Self::Interested => head(out, 0, id::INTERESTED),
            Self::NotInterested => head(out, 0, id::NOT_INTERESTED),
            Self::Have(piece) => numbers(out, id::HAVE, [piece]),
            Self::Bitfield(ref bits) => bytes(out, id::BITFIELD, &[], bits),
            Self::Request(block) => numbers(out, id::REQUEST, block_numbers(block)),
            Self::Piece(block) => {
                head(out, 8 + block.len as usize, id::PIECE);
                extend(out, [block.piece, block.offset]);
            }
            Self::Cancel(block) => numbers(out, id::CANCEL, block_numbers(block)),
            Self::Port(port) => bytes(out, id::PORT, &[], &port.to_be_bytes()),
            Self::SuggestPiece(piece) => numbers(out, id::SUGGEST_PIECE, [piece]),
            Self::HaveAll => head(out, 0, id::HAVE_ALL),
            Self::HaveNone => head(out, 0, id::HAVE_NONE),
            Self::Reject(block) => numbers(out, id::REJECT, block_numbers(block)),
            Self::AllowedFast(piece) => numbers(out, id::ALLOWED_FAST, [piece]),
            Self::HashRequest(range) => hashes(out, id::HASH_REQUEST, range, &[]),
            Self::Hashes(range, ref list) => hashes(out, id::HASHES, range, list),
            Self::HashReject(range) => hashes(out, id::HASH_REJECT, range, &[]),
            Self::Extended { id, ref payload } => bytes(out, id::EXTENDED, &[id], payload),
            Self::HaveUnit(unit) => {
                if let Some(id) = peer_ids.unit {
                    bytes(out, id::EXTENDED, &[id.get()], &unit.to_be_bytes());
                }
            }
            Self::Unknown(id) => head(out, 0, id),
        }
    }
}

/// Length and number of a message of `payload_len` bytes after the number.
fn head(out: &mut Vec<u8>, payload_len: usize, id: u8) {
    let len = u32::try_from(payload_len + 1).expect("our messages are far below 4 GiB");
    extend(out, [len]);
    out.push(id);
}

fn numbers<const N: usize>(out: &mut Vec<u8>, id: u8, values: [u32; N]) {
    head(out, 4 * N, id);
    extend(out, values);
}

fn bytes(out: &mut Vec<u8>, id: u8, first: &[u8], rest: &[u8]) {
    head(out, first.len() + rest.len(), id);
    out.extend_from_slice(first);
    out.extend_from_slice(rest);
}

fn hashes(out: &mut Vec<u8>, id: u8, range: HashRange, list: &[[u8; 32]]) {
    let list = list.as_flattened();
    head(out, HashRange::LEN + list.len(), id);
    out.extend_from_slice(&range.pieces_root);
    extend(out, [range.base_layer, range.index, range.len, range.proof_layers]);
    out.extend_from_slice(list);
}

const fn block_numbers(block: Block) -> [u32; 3] {
    [block.piece, block.offset, block.len]
}

fn extend<const N: usize>(out: &mut Vec<u8>, values: [u32; N]) {
    out.extend_from_slice(values.map(u32::to_be_bytes).as_flattened());
}

impl HashRange {
    /// Bytes of it on the wire (BEP 52): a hash and four numbers.
    pub(super) const LEN: usize = 32 + 4 * 4;
}
