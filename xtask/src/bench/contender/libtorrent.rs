//! libtorrent-rasterbar through its Python binding, with opentracker.

use anyhow::Result;

use super::{Contender, Done, Stage, named};
use crate::bench::case::Case;
use crate::lab::{Process, Slot, Spawn};
use crate::setup::{self, Tool};

const PORT: u16 = 6_881;

/// Also tells a peer that it is the seed, see the script's head.
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/peers/libtorrent_peer.py");

pub(super) struct Libtorrent;

impl Contender for Libtorrent {
    fn name(&self) -> &'static str {
        "libtorrent"
    }

    fn tools(&self) -> Vec<Tool> {
        vec![setup::PYTHON, setup::LIBTORRENT, setup::OPENTRACKER, setup::TRANSMISSION_SHOW]
    }

    fn fits(&self, case: Case, _: usize) -> bool {
        case != Case::One
    }

    fn start_server(&self, stage: &Stage<'_>) -> Result<Vec<Process>> {
        stage.make_torrent()?;
        let tracker = stage.start_opentracker()?;
        let seed = Spawn::new("libtorrent-seed", setup::PYTHON.file);
        let mut seed = stage.lab.spawn(Slot::SERVER, command(seed, stage, Slot::SERVER, "seed"))?;
        seed.release()?;
        seed.wait_listening(PORT)?;
        Ok(vec![tracker, seed])
    }

    fn node(&self, stage: &Stage<'_>, node: Slot) -> Result<(Spawn, Done)> {
        let spawn = named(node, setup::PYTHON.file);
        Ok((command(spawn, stage, node, "get"), Done::Line("complete")))
    }
}

fn command(spawn: Spawn, stage: &Stage<'_>, slot: Slot, role: &str) -> Spawn {
    let listen = format!("{}:{PORT}", slot.address());
    let spawn = spawn.arg(SCRIPT).arg(role).arg(stage.metainfo()).arg(stage.lab.slot_dir(slot));
    spawn.arg(listen).held()
}
