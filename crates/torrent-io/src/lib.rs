//! The driver of the `torrent` crate: sockets, timers, hashing threads, storage and web seeds.

pub mod create;
