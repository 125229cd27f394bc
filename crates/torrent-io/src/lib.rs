//! Drives the `torrent` crate over real sockets, files and threads.
//!
//! Read in this order: where the bytes live, how they are hashed, how what is there already is
//! checked, how a torrent is made, the engine that runs swarms over sockets, how trackers are asked,
//! how an HTTP server helps as a seed, how peers are found, and the session that makes one thing of
//! all this.

pub mod storage;

pub mod hash;

pub mod check;

pub mod create;

pub mod engine;

pub mod tracker_client;

pub mod web_seed;

pub mod discovery;

pub mod session;

pub use tracker_client::TrackerClient;
