//! `cargo xtask agent-network`: the agent's way onto a network, for real: `boottorrent-agent network`
//! against DHCP servers in network namespaces, each case in a lab of its own.

mod cases;
mod parts;

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Args;

use self::cases::CASES;
use self::parts::Room;
use crate::lab::Lab;
use crate::{artifact, build_release, setup, target_dir};

const TOOLS: &[setup::Tool] = &[setup::IP, setup::DNSMASQ];

/// How a case goes.
pub(crate) type Case = fn(&Room<'_>) -> Result<()>;

#[derive(Args, Default)]
pub(crate) struct AgentNetworkArgs {
    /// Run only cases with one of these in their names; all by default
    filters: Vec<String>,
}

/// Runs the cases; fails if one does.
pub(crate) fn run(args: &AgentNetworkArgs) -> Result<()> {
    setup::install(TOOLS)?;
    build_release()?;
    let agent = artifact::build_agent()?;
    let logs = target_dir().join("agent-network");
    let is_wanted =
        |name: &str| args.filters.is_empty() || args.filters.iter().any(|f| name.contains(f));
    let (mut ran, mut failed) = (0, 0);
    for (name, node_count, case) in CASES.iter().filter(|(name, ..)| is_wanted(name)) {
        let start = Instant::now();
        let result = Lab::new(*node_count, None, &logs.join(name.replace(' ', "-")))
            .and_then(|lab| case(&Room { lab: &lab, agent: &agent }));
        let verdict = if result.is_ok() { "ok" } else { "FAILED" };
        println!("{verdict:<6} {:>6.2} s  {name}", start.elapsed().as_secs_f64());
        if let Err(error) = result {
            println!("{error:#}");
            failed += 1;
        }
        ran += 1;
    }
    ensure!(ran > 0, "no case is called so");
    ensure!(failed == 0, "{failed} of {ran} cases failed");
    Ok(())
}

/// Enough for a lease on a busy machine, where each packet takes milliseconds.
const SOON: Duration = Duration::from_secs(10);
