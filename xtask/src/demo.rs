//! `cargo xtask demo`: a room of machines with nothing but a network card boots a real Debian from
//! one server, before your eyes. With `--swarm`: only the middle of it, a swarm on shaped links.

mod room;
mod swarm;

use anyhow::Result;
use clap::Args;

use crate::host;

/// What to show.
#[derive(Args)]
pub(crate) struct DemoArgs {
    /// No machines, only a file that goes through a swarm of network namespaces
    #[arg(long)]
    swarm: bool,
    #[command(flatten)]
    room: room::RoomArgs,
    #[command(flatten)]
    link: swarm::SwarmArgs,
}

/// Where it was run.
const DEBIANS: &[u32] = &[12, 13];

pub(crate) fn run(args: &DemoArgs) -> Result<()> {
    host::greet("cargo xtask demo", DEBIANS)?;
    if args.swarm { swarm::run(&args.link) } else { room::run(&args.room) }
}
