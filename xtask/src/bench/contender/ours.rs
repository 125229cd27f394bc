//! BootTorrent itself: the release binary, as a user starts it.

use anyhow::{Result, ensure};

use super::{Contender, Done, Stage, TRACKER_PORT, named};
use crate::bench::case::Case;
use crate::lab::{Process, Slot, Spawn};
use crate::setup::Tool;

pub(crate) const PORT: u16 = 6_881;

pub(super) struct Ours;

impl Contender for Ours {
    fn name(&self) -> &'static str {
        "ours"
    }

    fn tools(&self) -> Vec<Tool> {
        Vec::new()
    }

    fn fits(&self, _: Case, _: usize) -> bool {
        true
    }

    fn start_server(&self, stage: &Stage<'_>) -> Result<Vec<Process>> {
        start_server(stage)
    }

    fn node(&self, stage: &Stage<'_>, node: Slot) -> Result<(Spawn, Done)> {
        Ok((get(stage, node)?, Done::Line(COMPLETE)))
    }
}

/// What `-o json` prints when all is there and verified.
pub(crate) const COMPLETE: &str = r#""event":"complete""#;

/// Tracker, metainfo and seed; `cargo xtask demo` starts the same.
pub(crate) fn start_server(stage: &Stage<'_>) -> Result<Vec<Process>> {
    let binary = crate::release_binary()?;
    ensure!(binary.is_file(), "{} is missing: cargo build --release", binary.display());
    let lab = stage.lab;
    let tracker = Spawn::new("tracker", &binary).args(["tracker", "--listen"]);
    let tracker = lab.spawn(Slot::SERVER, tracker.arg(stage.tracker().to_string()))?;
    tracker.wait_listening(TRACKER_PORT)?;
    let create = Spawn::new("create", &binary)
        .args(["torrent", "create"])
        .arg(&stage.path)
        .arg("-o")
        .arg(stage.metainfo())
        .args(["--announce", &format!("http://{}/announce", stage.tracker())]);
    lab.spawn(Slot::SERVER, create)?.succeed(std::time::Duration::from_secs(60))?;
    let seed = Spawn::new("seed", &binary).args(["torrent", "seed"]);
    let seed = seed.arg(stage.metainfo()).arg("--dir").arg(stage.server_dir());
    let seed = lab.spawn(Slot::SERVER, seed.args(["--listen", &listen(Slot::SERVER)]))?;
    seed.wait_listening(PORT)?;
    Ok(vec![tracker, seed])
}

/// A node that stays as a seed once it has everything.
pub(crate) fn get(stage: &Stage<'_>, node: Slot) -> Result<Spawn> {
    let spawn = named(node, crate::release_binary()?).args(["torrent", "get"]);
    let spawn = spawn.arg(stage.metainfo()).arg("--dir").arg(stage.lab.slot_dir(node));
    Ok(spawn.args(["--listen", &listen(node), "--then", "seed", "-o", "json"]))
}

fn listen(slot: Slot) -> String {
    format!("{}:{PORT}", slot.address())
}
