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
