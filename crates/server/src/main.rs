//! `boottorrent`: the program on the boot server.

mod cli;
mod commands;

mod image;
mod kernel;
mod lab;
mod phase1;

mod start;

mod node;
mod status;
mod stop;
mod why;

mod services;

mod dhcp;
mod fleet;
mod http;
mod leases;
mod tftp;
mod torrent;
mod tracker;

mod progress;
mod quantity;
mod signals;
mod sockets;
mod state;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match cli::Cli::parse().run() {
        Ok(code) => code,
        Err(error) => {
            // The whole chain in one line: the last link is often the one that helps.
            eprintln!("boottorrent: {error:#}");
            ExitCode::FAILURE
        }
    }
}
