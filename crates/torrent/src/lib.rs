//! The BitTorrent engine, without I/O.
//!
//! Nothing here opens a socket, reads a clock, starts a thread or draws randomness from the system:
//! time is a parameter ([`Time`]), randomness is a seed, bytes go in and come out. The `torrent-io`
//! crate drives these state machines over real sockets and files, the `sim` crate over a simulated
//! network; both run the same code.
//!
//! Read in this order: the shape of a torrent, its encoding, the messages between peers, the swarm,
//! and how peers find one another.
#![deny(missing_docs)]

mod time;

pub mod bitfield;
pub mod geometry;

pub mod bencode;
pub mod merkle;
pub mod metainfo;

pub mod wire;

pub mod swarm;

pub mod lsd;
pub mod tracker;

pub use bitfield::Bitfield;
pub use geometry::{BLOCK_LEN, Block, Geometry, PieceIndex, UnitIndex};
pub use time::Time;
