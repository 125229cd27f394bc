//! One case, in a lab of its own.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::cases::Case;
use super::content::Contents;
use super::program::{self, Peer, Place, Program};
use super::torrent::Maker;
use crate::lab::{Lab, Slot, wait_until};

/// At memory speed a transfer takes less than a second; the rest is timers of programs that look
/// for peers, and other cases that run at the same time.
const TIMEOUT: Duration = Duration::from_secs(45);

/// A program may say that it is complete while its last writes are under way.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// Time from the start of the nodes until the last is complete.
pub(super) fn run(case: &Case, contents: &Contents, logs: &Path) -> Result<Duration> {
    let lab = Lab::new(case.nodes.len(), None, logs)?;
    let torrent = &case.torrent;
    contents.copy(torrent.shape, &lab.slot_dir(Slot::SERVER))?;
    let web_seed = (case.seed == Program::Nginx).then(program::web_seed);
    let metainfo = torrent.make(&lab, case.tracker, web_seed).context("making the torrent")?;
    let _tracker = case.tracker.map(|tracker| tracker.start(&lab, &metainfo)).transpose()?;
    let place = |slot| {
        let is_local = case.tracker.is_none() && case.seed != Program::Nginx;
        Place { lab: &lab, slot, metainfo: &metainfo, is_local }
    };
    let seed = case.seed.seed(&place(Slot::SERVER))?;
    let start = Instant::now();
    let mut nodes: Vec<(Slot, Peer)> = vec![];
    for (program, slot) in case.nodes.iter().zip(lab.nodes()) {
        nodes.push((slot, program.get(&place(slot))?));
    }
    wait_until(TIMEOUT, || {
        let all = nodes.iter().all(|(_, node)| node.is_complete());
        all || nodes.iter().any(|(_, node)| node.process.exit().is_some())
    });
    let time = start.elapsed();
    for ((slot, node), program) in nodes.iter().zip(&case.nodes) {
        ensure!(
            node.is_complete(),
            "{} ({}) is not complete after {:.1} s{}\n--- its log:\n{}\n--- the seed's log:\n{}",
            program.name(),
            slot.name(),
            time.as_secs_f64(),
            node.process.exit().map_or(String::new(), |exit| format!(", ended {}", exit.code)),
            node.process.log_tail(),
            seed.process.log_tail()
        );
    }
    for ((slot, _), program) in nodes.iter().zip(&case.nodes) {
        let with_empty = *program != Program::Transmission && torrent.maker != Maker::Transmission;
        let compare = || contents.compare(torrent.shape, &lab.slot_dir(*slot), with_empty);
        wait_until(WRITE_TIMEOUT, || compare().is_ok());
        compare().with_context(|| format!("what {} has received", program.name()))?;
    }
    Ok(time)
}
