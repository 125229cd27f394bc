//! What goes into a swarm and what comes out of it.

use std::net::SocketAddr;

pub use places::Standing;

use crate::geometry::{Block, PieceIndex, UnitIndex};
use crate::wire::Message;

/// A connection of this swarm. The driver numbers its connections as it likes, small numbers first;
/// a number is free again once its `Disconnected` was handled or its `Close` was polled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerKey(pub u32);

/// Who opened the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// We dialled.
    Outgoing,
    /// They dialled.
    Incoming,
}

/// What the BEP 3 handshake told about the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerTraits {
    /// The peer's id (BEP 20): the same id twice is the same peer twice.
    pub peer_id: [u8; 20],
    /// Both sides speak BEP 6.
    pub fast: bool,
    /// The peer is a BootTorrent of our protocol version, by its id: it takes part in revealing.
    pub own: bool,
    /// The peer speaks v2 (BEP 52) on this torrent, so it can be asked for hashes.
    pub v2: bool,
}

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// A connection is up and handshakes have been exchanged.
    Connected {
        /// The driver's number for the connection.
        peer: PeerKey,
        /// The remote end.
        addr: SocketAddr,
        /// Who dialled.
        direction: Direction,
        /// What the handshake told.
        traits: PeerTraits,
        /// How much its address is worth a place.
        standing: Standing,
    },
    /// The connection is gone.
    Disconnected {
        /// The connection.
        peer: PeerKey,
    },
    /// A dial that [`Output::Dial`] asked for came to nothing.
    DialFailed {
        /// The address that was dialled.
        addr: SocketAddr,
    },
    /// A message arrived; anything but `Piece`.
    Message {
        /// The sender.
        peer: PeerKey,
        /// The message.
        message: Message,
    },
    /// The extended handshake (BEP 10) arrived.
    ExtendedHandshake {
        /// The sender.
        peer: PeerKey,
        /// The unit length it relays in, if it is one of ours and numbers our extension.
        unit_len: Option<u32>,
        /// How many requests it takes (`reqq`), if it says so.
        request_queue_len: Option<u32>,
        /// BEP 21: it will not download any more.
        upload_only: bool,
    },
    /// Bytes of a message that is not whole yet arrived: the peer lives, however slow its link.
    Alive {
        /// The sender.
        peer: PeerKey,
    },
    /// A block arrived whole and is stored, unverified; or was thrown away because
    /// [`Swarm::wants`](super::Swarm::wants) did not want it, and counts as waste.
    Block {
        /// The sender.
        peer: PeerKey,
        /// Which block.
        block: Block,
    },
    /// A block of [`Output::SendBlock`] has left for the network: it is no longer in a queue
    /// of this machine that a more urgent block could overtake.
    BlockSent {
        /// The receiver.
        peer: PeerKey,
        /// Bytes of payload.
        len: u32,
    },
    /// A block of [`Output::SendBlock`] was acknowledged by the receiver's TCP. Drivers that cannot
    /// tell give it together with `BlockSent`.
    BlockDelivered {
        /// The receiver.
        peer: PeerKey,
    },
    /// The verdict that [`Output::Verify`] asked for.
    Verified {
        /// The unit.
        unit: UnitIndex,
        /// What the hashes say.
        verdict: Verdict,
    },
    /// The blocks of a unit that once failed, judged one by one: by leaf hashes (v2), or by
    /// comparing with the unit that verified later (v1).
    Judged {
        /// The unit.
        unit: UnitIndex,
        /// Numbers within the unit of the blocks that were corrupt in the failed attempt.
        corrupt: Vec<u32>,
    },
    /// The hashes of a piece's units are known, so that its units can be verified.
    HashesKnown {
        /// The piece.
        piece: PieceIndex,
    },
    /// The hashes of a piece's units were refused, or proved wrong, by this peer.
    HashesFailed {
        /// The peer that was asked.
        peer: PeerKey,
        /// The piece.
        piece: PieceIndex,
        /// Whether it sent hashes that do not prove.
        lied: bool,
    },
    /// A block of a lent unit arrived from a web seed and is stored, unverified; or was thrown away
    /// because [`Swarm::wants_lent`](super::Swarm::wants_lent) did not want it.
    LentBlock {
        /// The web seed's number.
        web_seed: u32,
        /// Which block.
        block: Block,
    },
    /// All blocks of a piece are stored, the hashes of its units are not known, and by the hash of
    /// the piece some block is wrong. If it is right, the hashes of its units follow from the blocks
    /// and [`Input::HashesKnown`] is given.
    PieceFailed {
        /// The piece.
        piece: PieceIndex,
    },
    /// Addresses of peers, from a tracker, PEX, LSD or the user.
    PeersFound {
        /// Where to dial.
        addrs: Vec<SocketAddr>,
    },
    /// A time that [`Swarm::next_timeout`](super::Swarm::next_timeout) named has come.
    Tick,
}

/// What the hashes say of a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All bytes are right.
    Good,
    /// Some byte is wrong. What is stored will be overwritten.
    Corrupt,
}

/// Something to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Open a connection.
    Dial {
        /// Where to.
        addr: SocketAddr,
    },
    /// Close a connection at once; no `Disconnected` is to follow.
    Close {
        /// Which.
        peer: PeerKey,
        /// Why.
        reason: CloseReason,
    },
    /// Send a message.
    Send {
        /// To whom.
        peer: PeerKey,
        /// What.
        message: Message,
        /// When.
        urgency: Urgency,
    },
    /// Send a block, behind all that was sent to this peer before.
    SendBlock {
        /// To whom.
        peer: PeerKey,
        /// Which: only verified blocks can be named here.
        block: VerifiedBlock,
    },
    /// All blocks of the unit are stored: hash it and give [`Input::Verified`].
    Verify {
        /// Which.
        unit: UnitIndex,
    },
    /// Ask this peer for the hashes of a piece's units (BEP 52), then give
    /// [`Input::HashesKnown`] or [`Input::HashesFailed`].
    RequestHashes {
        /// Whom.
        peer: PeerKey,
        /// Which piece.
        piece: PieceIndex,
    },
    /// A unit of several senders failed: find out which of its blocks were corrupt, by leaf hashes
    /// from this peer, and give [`Input::Judged`].
    RequestJudgement {
        /// Whom to ask.
        peer: PeerKey,
        /// Which unit.
        unit: UnitIndex,
    },
    /// There are too few peers: announce now, as far as the tracker allows.
    NeedPeers,
    /// This peer is never to be connected again: it sent corrupt data or broke the protocol.
    Ban {
        /// Its address.
        addr: SocketAddr,
    },
    /// A web seed sent corrupt data: it is not to be used any more, and what it holds is to be given
    /// back ([`Swarm::give_back`](super::Swarm::give_back)).
    WebSeedLied {
        /// Its number.
        web_seed: u32,
    },
    /// A unit was verified.
    UnitDone {
        /// Which.
        unit: UnitIndex,
    },
    /// Everything is verified.
    Completed,
}

/// When a message is to leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// At once.
    Now,
    /// With whatever leaves for this peer next, at the latest after
    /// [`LAZY_DELAY`](super::LAZY_DELAY): a packet of its own would cost more than the message.
    Lazy,
}

/// A block whose unit was verified: the only thing that can be read for upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerifiedBlock(pub(super) Block);

impl VerifiedBlock {
    /// The range.
    #[must_use]
    pub const fn block(self) -> Block {
        self.0
    }
}

/// How this peer came into the swarm, which decides how it announces what it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It began with everything: it reveals each unit to one peer before any unit to two.
    Seed,
    /// It began with less: it announces what it gets to all.
    Leech,
}

/// Why a connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// A message that the protocol or our limits do not allow.
    Protocol(&'static str),
    /// It sent corrupt data.
    Corrupt,
    /// The same peer, or we ourselves, at both ends.
    Duplicate,
    /// More connections than allowed.
    Full,
    /// Its place went to another one: it had done nothing for longest, or is worth less.
    Idle,
    /// It had requests outstanding and sent nothing, twice.
    Stalled,
    /// Both sides have everything.
    Useless,
}
