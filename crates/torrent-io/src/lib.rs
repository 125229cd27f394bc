//! Drives the `torrent` crate over real sockets, files and threads.
//!
//! Read in this order: where the bytes live, how they are hashed, how what is there already is
//! checked, and how an HTTP server helps as a seed.

pub mod storage;

pub mod hash;

pub mod check;

pub mod web_seed;
