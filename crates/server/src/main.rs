//! `boottorrent`: the program on the boot server.

mod cli;
mod tracker;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match cli::Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The whole chain in one line: the last link is often the one that helps.
            eprintln!("boottorrent: {error:#}");
            ExitCode::FAILURE
        }
    }
}
