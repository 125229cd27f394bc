//! `boottorrent`: the program on the boot server.

mod cli;
mod client;
mod commands;

mod extension;
mod image;
mod kernel;
mod lab;
mod phase1;

mod start;

mod node;
mod status;
mod stop;
mod why;

mod rehearse;
mod seed;
mod services;

mod dhcp;
mod fleet;
mod http;
mod lan;
mod leases;
mod tftp;
mod torrent;
mod tracker;

mod line_limit;
mod progress;
mod quantity;
mod signals;
mod sockets;
mod state;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            // The whole chain in one line: the last link is often the one that helps.
            eprintln!("boottorrent: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<ExitCode> {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let program = arguments.first().and_then(|path| Path::new(path).file_name());
    match program.and_then(|name| name.to_str()).filter(|name| lan::is_name(name)) {
        Some(name) => {
            let name = name.to_owned();
            lan::run_original(&name, arguments)
        }
        None => cli::Cli::parse_from(arguments).run(),
    }
}
