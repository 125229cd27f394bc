//! udpcast: multicast with repair by request, one sender for all.

use anyhow::Result;

use super::{Contender, Done, Stage, named};
use crate::bench::case::Case;
use crate::lab::{Process, Slot, Spawn};
use crate::setup::{self, Tool};

pub(super) struct Udpcast;

impl Contender for Udpcast {
    fn name(&self) -> &'static str {
        "udpcast"
    }

    fn tools(&self) -> Vec<Tool> {
        vec![setup::UDP_SENDER]
    }

    fn fits(&self, case: Case, node_count: usize) -> bool {
        // It cannot admit a node after the start, nor outlive its sender.
        !matches!(case, Case::Late | Case::DeadSeed) && node_count > 1
    }

    fn start_server(&self, stage: &Stage<'_>) -> Result<Vec<Process>> {
        let count = stage.node_count.to_string();
        // It starts by itself once all nodes are there.
        let sender = Spawn::new("udp-sender", "udp-sender")
            .args(["--interface", "eth0", "--nokbd", "--full-duplex", "--retries-until-drop", "30"])
            .args(["--min-receivers", &count, "--file"])
            .arg(&stage.path);
        Ok(vec![stage.lab.spawn(Slot::SERVER, sender)?])
    }

    fn node(&self, stage: &Stage<'_>, node: Slot) -> Result<(Spawn, Done)> {
        let receiver =
            named(node, "udp-receiver").args(["--interface", "eth0", "--nokbd", "--file"]);
        Ok((receiver.arg(stage.result(node)), Done::Exit))
    }
}
