//! aria2, seed and nodes, with opentracker.

use anyhow::Result;

use super::{Contender, Done, Stage, named};
use crate::bench::case::Case;
use crate::lab::{Process, Slot, Spawn};
use crate::setup::{self, Tool};

const PORT: u16 = 6_881;

/// Printed by the hook below, as aria2's own messages depend on its log level.
const MARKER: &str = "complete";

pub(super) struct Aria2;

impl Contender for Aria2 {
    fn name(&self) -> &'static str {
        "aria2"
    }

    fn tools(&self) -> Vec<Tool> {
        vec![setup::ARIA2, setup::OPENTRACKER, setup::TRANSMISSION_SHOW]
    }

    fn fits(&self, case: Case, _: usize) -> bool {
        case != Case::One
    }

    fn start_server(&self, stage: &Stage<'_>) -> Result<Vec<Process>> {
        stage.make_torrent()?;
        let tracker = stage.start_opentracker()?;
        let seed = command(Spawn::new("aria2-seed", "aria2c"), stage, Slot::SERVER)?;
        let seed = stage.lab.spawn(Slot::SERVER, seed.arg("--bt-seed-unverified=true"))?;
        seed.wait_listening(PORT)?;
        Ok(vec![tracker, seed])
    }

    fn node(&self, stage: &Stage<'_>, node: Slot) -> Result<(Spawn, Done)> {
        Ok((command(named(node, "aria2c"), stage, node)?, Done::Line(MARKER)))
    }
}

/// aria2c's arguments, the same for everybody; the original stack's nodes use them too.
pub(super) fn command(spawn: Spawn, stage: &Stage<'_>, slot: Slot) -> Result<Spawn> {
    let dir = stage.lab.slot_dir(slot);
    let hook = dir.join("done.sh");
    std::fs::write(&hook, format!("#!/bin/sh\necho {MARKER}\n"))?;
    std::fs::set_permissions(&hook, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    Ok(spawn
        .args(["--no-conf=true", "--enable-dht=false", "--enable-dht6=false"])
        .args(["--enable-peer-exchange=true", "--bt-enable-lpd=false", "--disable-ipv6=true"])
        .args(["--file-allocation=none", "--disk-cache=16M", "--bt-max-peers=0"])
        // Leave only when told to: a node that is done serves the others.
        .args(["--seed-ratio=0.0", "--seed-time=10000", "--bt-tracker-interval=2"])
        // Otherwise it asks for more peers only below 50 kB/s.
        .arg("--bt-request-peer-speed-limit=100M")
        .args(["--summary-interval=0", "--show-console-readout=false"])
        .arg(format!("--listen-port={PORT}"))
        .arg(format!("--on-bt-download-complete={}", hook.display()))
        .arg(format!("--dir={}", dir.display()))
        .arg(stage.metainfo()))
}
