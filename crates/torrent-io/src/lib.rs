//! Drives the `torrent` crate over real sockets, files and threads.
//!
//! Read in this order: where the bytes live, how they are hashed, and how what is there already
//! is checked.

pub mod storage;

pub mod hash;

pub mod check;
