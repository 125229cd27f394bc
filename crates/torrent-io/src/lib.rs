//! Drives the `torrent` crate over real sockets, clocks and threads.

pub mod tracker_client;

pub use tracker_client::TrackerClient;
