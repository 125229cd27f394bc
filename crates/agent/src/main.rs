//! `boottorrent-agent`: PID 1 of phase 1.

// What phase 1 uses of them is not here yet.
#[allow(dead_code)]
mod modules;
#[allow(dead_code)]
mod network;

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let result = match args.split_first() {
        Some((mode, args)) if mode == "network" => network::run_alone(args),
        _ => Ok(()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
