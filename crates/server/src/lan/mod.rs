//! `boottorrent lan`: one file to many running hosts, through a chain of them; and LANTorrent's own
//! commands, when called by their names (`original`).

mod daemon;
mod list;
mod options;
mod original;
mod request;
mod send;
mod serve;

use std::process::ExitCode;

use clap::Subcommand;

pub(crate) use original::{is_name, run as run_original};

/// See the module documentation.
#[derive(Debug, Subcommand)]
pub(crate) enum LanCommand {
    /// Receive files on this host, and pass them on.
    Serve(serve::ServeArgs),
    /// Gather requests, and send each file once to all who want it.
    Daemon(daemon::DaemonArgs),
    /// Ask for a file on a host, and wait until it is there.
    Request(request::RequestArgs),
    /// List requests.
    List(list::ListArgs),
    /// Take a request back, also while it is being fulfilled.
    Cancel(list::CancelArgs),
    /// Send a file now; destinations on standard input, host:port/absolute/path a line.
    Send(send::SendArgs),
}

pub(crate) fn run(command: &LanCommand, lab: &std::path::Path) -> anyhow::Result<ExitCode> {
    match command {
        LanCommand::Serve(args) => serve::run(args),
        LanCommand::Daemon(args) => daemon::run(args),
        LanCommand::Request(args) => request::run(args),
        LanCommand::List(args) => list::run(args),
        LanCommand::Cancel(args) => list::cancel(args),
        LanCommand::Send(args) => send::run(args, lab),
    }
}
