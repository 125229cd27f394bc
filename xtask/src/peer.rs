//! Small programs that a lab runs inside its namespaces: a TCP stream to measure a link with, the
//! relay of the reference chain, the load of a benchmark. They are this same binary, started by itself.

mod announce;
mod blast;
pub(crate) mod chain;
mod lan;
mod tftp;

use std::net::SocketAddr;

use anyhow::Result;
use clap::Subcommand;

/// See the module documentation.
#[derive(Subcommand)]
pub(crate) enum Peer {
    /// Accept one connection and report its goodput
    BlastReceive { listen: SocketAddr },
    /// Send for some seconds as fast as the link takes it
    BlastSend { to: SocketAddr, seconds: f64 },
    /// Send a file to the first node of a chain
    ChainHead(chain::Head),
    /// Receive a file, pass it on while it arrives
    ChainRelay(chain::Relay),
    /// Send a file through a chain once its endpoints are there
    LanOrigin(lan::Origin),
    /// Announce to a tracker as fast as it answers
    Announce(announce::Announce),
    /// Fetch a file by TFTP, several times at once
    TftpFetch(tftp::Fetch),
}

impl Peer {
    pub(crate) fn run(&self) -> Result<()> {
        match self {
            Self::BlastReceive { listen } => blast::receive(*listen),
            Self::BlastSend { to, seconds } => blast::send(*to, *seconds),
            Self::ChainHead(head) => head.run(),
            Self::ChainRelay(relay) => relay.run(),
            Self::LanOrigin(origin) => origin.run(),
            Self::Announce(announce) => announce.run(),
            Self::TftpFetch(fetch) => fetch.run(),
        }
    }
}
