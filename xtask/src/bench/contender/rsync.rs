//! rsync from a daemon, one node after the other, as a script for a few hosts does it.

use anyhow::Result;

use super::{Contender, Done, Stage, named};
use crate::bench::case::Case;
use crate::bench::image;
use crate::lab::{Process, Slot, Spawn};
use crate::setup::{self, Tool};

const PORT: u16 = 5_004;

pub(super) struct Rsync;

impl Contender for Rsync {
    fn name(&self) -> &'static str {
        "rsync"
    }

    fn tools(&self) -> Vec<Tool> {
        vec![setup::RSYNC]
    }

    fn fits(&self, case: Case, node_count: usize) -> bool {
        // N copies over one link take N times as long: `bench lan` shows it once.
        node_count == 1 && case == Case::Unlimited
    }

    fn start_server(&self, stage: &Stage<'_>) -> Result<Vec<Process>> {
        let dir = stage.server_dir();
        let config = dir.join("rsyncd.conf");
        let text = format!(
            "use chroot = no\nuid = 0\ngid = 0\nmax connections = 1\nlock file = {0}/rsyncd.lock\n\
             [files]\npath = {0}\n",
            dir.display()
        );
        std::fs::write(&config, text)?;
        let daemon = Spawn::new("rsyncd", "rsync")
            .args(["--daemon", "--no-detach", "--port", &PORT.to_string(), "--config"])
            .arg(config);
        let daemon = stage.lab.spawn(Slot::SERVER, daemon)?;
        daemon.wait_listening(PORT)?;
        Ok(vec![daemon])
    }

    fn node(&self, stage: &Stage<'_>, node: Slot) -> Result<(Spawn, Done)> {
        let url = format!("rsync://{}:{PORT}/files/{}", Slot::SERVER.address(), image::NAME);
        // The daemon lets one in at a time; the others come again.
        let script = r#"until rsync --whole-file -q "$0" "$1" 2>/dev/null; do sleep 0.05; done"#;
        let spawn = named(node, "sh").args(["-c", script]).arg(url).arg(stage.result(node));
        Ok((spawn, Done::Exit))
    }
}
