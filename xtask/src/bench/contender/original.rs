//! The stack of the first BootTorrent: Transmission seeds, opentracker, aria2 on the nodes.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::{Contender, Done, Stage, aria2, named};
use crate::bench::case::Case;
use crate::lab::{Process, Slot, Spawn, wait_until};
use crate::setup::{self, Tool};

const RPC_PORT: u16 = 9_091;

pub(super) struct Original;

impl Contender for Original {
    fn name(&self) -> &'static str {
        "original"
    }

    fn tools(&self) -> Vec<Tool> {
        vec![
            setup::ARIA2,
            setup::OPENTRACKER,
            setup::TRANSMISSION_SHOW,
            setup::TRANSMISSION_DAEMON,
            setup::TRANSMISSION_REMOTE,
        ]
    }

    fn fits(&self, case: Case, node_count: usize) -> bool {
        case != Case::Unlimited && node_count > 1
    }

    fn start_server(&self, stage: &Stage<'_>) -> Result<Vec<Process>> {
        stage.make_torrent()?;
        let tracker = stage.start_opentracker()?;
        let dir = stage.server_dir();
        let daemon = Spawn::new("transmission-daemon", "transmission-daemon")
            .args(["--foreground", "--no-dht", "--no-lpd", "--no-utp", "--no-portmap"])
            .args(["--encryption-tolerated", "--no-auth", "--allowed", "127.0.0.1"])
            .args(["--port", &RPC_PORT.to_string(), "--no-global-seedratio"])
            .arg("--config-dir")
            .arg(dir.join("transmission"))
            .arg("--download-dir")
            .arg(&dir);
        let daemon = stage.lab.spawn(Slot::SERVER, daemon)?;
        daemon.wait_listening(RPC_PORT)?;
        let remote = |args: &[&str]| {
            let endpoint = format!("127.0.0.1:{RPC_PORT}");
            let argv = [&["transmission-remote", &endpoint][..], args].concat();
            stage.lab.run(Slot::SERVER, &argv)
        };
        remote(&["--add", &stage.metainfo().to_string_lossy()])?;
        let is_seeding = wait_until(Duration::from_secs(60), || {
            remote(&["--torrent", "1", "--info"])
                .is_ok_and(|info| info.contains("Percent Done: 100%"))
        });
        ensure!(is_seeding, "transmission-daemon does not seed:\n{}", daemon.log_tail());
        Ok(vec![tracker, daemon])
    }

    fn node(&self, stage: &Stage<'_>, node: Slot) -> Result<(Spawn, Done)> {
        Ok((aria2::command(named(node, "aria2c"), stage, node)?, Done::Line("complete")))
    }
}
