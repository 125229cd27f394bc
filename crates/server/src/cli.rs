//! The command line: what can be said, and who does it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::dhcp::{self, DhcpArgs};
use crate::phase1::{self, Phase1Command};
use crate::tftp::{self, TftpArgs};
use crate::torrent::{self, TorrentCommand};
use crate::tracker;

/// Boots a room full of diskless computers from one small server.
#[derive(Debug, Parser)]
#[command(name = "boottorrent", version)]
pub(crate) struct Cli {
    /// The lab: the directory with Boottorrent.yaml.
    #[arg(short = 'C', global = true, value_name = "DIR", default_value = ".")]
    lab: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build and show the kernel and initramfs that nodes run first.
    #[command(subcommand)]
    Phase1(Phase1Command),
    /// Make, show, verify, seed and download torrents.
    #[command(subcommand)]
    Torrent(TorrentCommand),
    /// Run a BitTorrent tracker, over HTTP and UDP, until Ctrl+C.
    Tracker(TrackerArgs),
    /// Give addresses and name boot programs by DHCP or proxyDHCP, without a lab, until Ctrl+C.
    Dhcp(DhcpArgs),
    /// Serve the files of a folder by TFTP, read-only, until Ctrl+C.
    Tftp(TftpArgs),
}

#[derive(Debug, Args)]
pub(crate) struct TrackerArgs {
    /// Where to listen, for HTTP and UDP alike; port 0 takes a free one. [::]:PORT is IPv4 and IPv6.
    #[arg(long, value_name = "ADDR:PORT", default_value = "[::]:6969")]
    pub(crate) listen: SocketAddr,
    /// How to print.
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    pub(crate) output: OutputFormat,
}

/// How a command that runs on prints what happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OutputFormat {
    /// Sentences.
    Text,
    /// A JSON object a line.
    Json,
}

impl Cli {
    /// Does what was asked for.
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Phase1(command) => phase1::run(&command, &self.lab),
            Command::Torrent(command) => torrent::run(&command),
            Command::Tracker(args) => tracker::run(&args).map(|()| ExitCode::SUCCESS),
            Command::Dhcp(args) => dhcp::run(&args).map(|()| ExitCode::SUCCESS),
            Command::Tftp(args) => tftp::run(&args).map(|()| ExitCode::SUCCESS),
        }
    }
}
