//! Drives the `torrent` crate over real sockets, files and threads.
//!
//! Read in this order: where the bytes live, how they are hashed, how what is there already is
//! checked, how a torrent is made, and the engine that runs swarms over sockets.

pub mod storage;

pub mod hash;

pub mod check;

pub mod create;

pub mod engine;
