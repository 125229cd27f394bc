//! The reference chain, see [`crate::peer::chain`].

use anyhow::Result;

use super::{Contender, Done, Stage, own};
use crate::bench::case::Case;
use crate::lab::{Process, Slot, Spawn};
use crate::setup::Tool;

const PORT: u16 = 5_002;

pub(super) struct Chain;

impl Contender for Chain {
    fn name(&self) -> &'static str {
        "chain"
    }

    fn tools(&self) -> Vec<Tool> {
        Vec::new()
    }

    fn fits(&self, case: Case, _: usize) -> bool {
        matches!(case, Case::Clean | Case::Slow | Case::One | Case::Unlimited)
    }

    fn start_server(&self, stage: &Stage<'_>) -> Result<Vec<Process>> {
        // It tries to reach the first node until that one is there.
        let head = own("chain-head")?.arg(&stage.path).arg(address(Slot::node(1)));
        Ok(vec![stage.lab.spawn(Slot::SERVER, head)?])
    }

    fn node(&self, stage: &Stage<'_>, node: Slot) -> Result<(Spawn, Done)> {
        let relay = own("chain-relay")?
            .name(node.name())
            .arg(stage.result(node))
            .arg(address(node))
            .arg(stage.image.len.to_string())
            .arg(&stage.image.sha256);
        let next = Slot::node(node.number() + 1);
        let is_last = next.number() > stage.node_count;
        Ok((if is_last { relay } else { relay.arg(address(next)) }, Done::Exit))
    }
}

fn address(slot: Slot) -> String {
    format!("{}:{PORT}", slot.address())
}
