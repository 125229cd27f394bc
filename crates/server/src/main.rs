//! `boottorrent`: the program on the boot server.

mod cli;
mod commands;

// Until the services read all of it.
#[allow(dead_code)]
mod lab;

// `ensure` is for the services.
#[allow(dead_code)]
mod phase1;

// Until all of it is wired.
#[allow(dead_code, unused_imports)]
mod fleet;
#[allow(dead_code, unused_imports)]
mod http;
#[allow(dead_code, unused_imports)]
mod services;
#[allow(dead_code)]
mod state;
// Until the services hand it what is in memory.
#[allow(dead_code, unused_imports)]
mod tftp;

// Until `start` runs it.
#[allow(dead_code, unused_imports)]
mod dhcp;
mod leases;
mod torrent;
#[allow(dead_code)]
mod tracker;

mod progress;
mod quantity;
mod signals;
// Until all services take their ports by it.
#[allow(dead_code)]
mod sockets;

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
