//! `cargo xtask`: the commands of development. `cargo xtask --help` lists them.

mod bench;
mod lab;
mod peer;
mod setup;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "BootTorrent's development commands")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure; see the subcommands
    #[command(subcommand)]
    Bench(Bench),
    /// Install what the other commands need (Debian 12, root)
    Setup,
    /// Roles that a lab starts inside its namespaces
    #[command(subcommand, hide = true)]
    Peer(peer::Peer),
}

#[derive(Subcommand)]
enum Bench {
    /// Distribute a file to many nodes on shaped links, beside other programs
    Swarm(bench::SwarmArgs),
}

fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Bench(Bench::Swarm(args)) => bench::swarm(&args),
        Command::Setup => setup::install_all(),
        Command::Peer(peer) => peer.run(),
    }
}

/// The repository.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask is a folder of the repository")
}

/// Where cargo puts what it builds.
fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// Our program as a release build has it.
fn release_binary() -> Result<PathBuf> {
    let path = target_dir().join("release/boottorrent");
    std::path::absolute(&path).with_context(|| format!("finding {}", path.display()))
}
