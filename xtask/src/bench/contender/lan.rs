//! `boottorrent lan`: the chain that heals.

use anyhow::Result;

use super::{Contender, Done, Stage, named, own};
use crate::bench::case::Case;
use crate::lab::{Process, Slot, Spawn};
use crate::setup::Tool;

const PORT: u16 = 2_893;

pub(super) struct Lan;

impl Contender for Lan {
    fn name(&self) -> &'static str {
        "lan"
    }

    fn tools(&self) -> Vec<Tool> {
        Vec::new()
    }

    fn fits(&self, case: Case, _: usize) -> bool {
        // Who comes late asks again, and is in the next session.
        !matches!(case, Case::Late | Case::DeadSeed)
    }

    fn start_server(&self, stage: &Stage<'_>) -> Result<Vec<Process>> {
        let password = stage.server_dir().join("password");
        std::fs::write(&password, "secret\n")?;
        let nodes = (1..=stage.node_count).map(Slot::node);
        let targets =
            nodes.map(|node| format!("{}:{PORT}{}", node.address(), stage.result(node).display()));
        let origin = own("lan-origin")?
            .arg(crate::release_binary()?)
            .arg(&stage.path)
            .arg(password)
            .args(targets);
        Ok(vec![stage.lab.spawn(Slot::SERVER, origin)?])
    }

    fn node(&self, stage: &Stage<'_>, node: Slot) -> Result<(Spawn, Done)> {
        let spawn = named(node, crate::release_binary()?)
            .args(["lan", "serve", "--listen", &format!("{}:{PORT}", node.address()), "--root"])
            .arg(stage.lab.slot_dir(node))
            .arg("--password-file")
            .arg(stage.server_dir().join("password"))
            .args(["-o", "json"]);
        Ok((spawn, Done::Line(r#""event":"received""#)))
    }
}
