//! The server dies when one node has the whole image and the other has begun: the swarm finishes it.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::{IMAGE, SERVER_TIMEOUT, serve, start, wait_agent, wait_ready};
use crate::e2e::Stage;
use crate::e2e::machine::{Firmware, Spec};
use crate::e2e::screenshot;
use crate::e2e::server::Config;
use crate::lab::Lab;

const BALLAST_LEN: u64 = 96 << 20;

/// Slow enough that the download outlasts the other node's, fast enough for phase 1.
const SLOW: &str = "20mbit";

pub(super) fn run(stage: &Stage<'_>) -> Result<()> {
    let lab = Lab::new(0, None, &stage.dir)?;
    // The first node stays for the second one.
    let config = Config { seed_time_s: 45, ..Config::default() };
    let mut server = serve(&lab, stage, &config, &[(IMAGE, BALLAST_LEN)])?;
    let first = start(&lab, stage, Spec::new(1, Firmware::Ipxe))?;
    let second = start(&lab, stage, Spec::new(2, Firmware::Ipxe).rate(SLOW.parse()?))?;
    wait_agent(&second, "downloading")?;
    // The swarm holds a copy once the first node does, and is one once the second knows the first:
    // nobody can tell it when the tracker is gone.
    wait_agent(&first, "verified")?;
    server.wait_node(&second.mac(), "two peers", SERVER_TIMEOUT, |node| {
        node["peers"].as_u64().is_some_and(|peers| peers >= 2)
    })?;
    ensure!(
        !second.console()?.has("BOOTTORRENT stage=verified"),
        "the slow node was done before the server could be killed"
    );
    server.keep_status(&stage.dir)?;
    server.kill();
    second.set_rate("1gbit".parse()?)?;
    second.wait_for("BOOTTORRENT stage=verified", Duration::from_secs(60))?;
    screenshot::keep(stage, &second, "usecase-1")?;
    for machine in [&first, &second] {
        wait_ready(machine, IMAGE)?;
    }
    Ok(())
}
