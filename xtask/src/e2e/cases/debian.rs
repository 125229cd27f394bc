//! What a newcomer does in four commands: a Debian that was built from packages runs on a node, from
//! memory, on its own kernel, under systemd, which leaves the seeding process alone.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::{IMAGE, SERVER_TIMEOUT, start};
use crate::e2e::Stage;
use crate::e2e::live::Live;
use crate::e2e::machine::{Firmware, Spec};
use crate::e2e::server::{Config, Server};
use crate::lab::{Lab, Slot};

/// All of a Debian's start in an emulator: a few times what the smallest system takes.
const TIMEOUT: Duration = Duration::from_secs(400);

/// The image is 75 MB and its system is in memory, too.
const MEMORY_MIB: u32 = 1_024;

/// Longer than systemd's start jobs go on after the login prompt, in which it ends what it does not
/// know.
const ALIVE: Duration = Duration::from_secs(60);

pub(super) fn run(stage: &Stage<'_>) -> Result<()> {
    let live = Live::build()?;
    let lab = Lab::new(0, None, &stage.dir)?;
    let mut server = Server::init_as(&lab, Slot::SERVER, &Config::default(), stage.lab)?;
    let folder = server.oss().parent().context("oss/ is in a lab")?.to_owned();
    live.install(&folder, IMAGE)?;
    let spec = Spec::new(1, Firmware::Ipxe).memory_mib(MEMORY_MIB);
    server.write("nodes.yaml", &format!("nodes:\n  n01: {{mac: {}}}\n", spec.mac()))?;
    server.start()?;
    server.run(&["node", "assign", "n01", IMAGE, "--yes"])?;
    let machine = start(&lab, stage, spec)?;
    let time = machine.wait_for("n01 login:", TIMEOUT)?;
    eprintln!("  n01 asks for a login after {:.0} s", time.as_secs_f64());
    let kernel = live.kernel()?;
    ensure!(
        server.log().contains(&format!("/phase1/{kernel}/vmlinuz")),
        "the node did not load the kernel of its image, {kernel}:\n{}",
        server.log_tail()
    );
    let seeds = |node: &serde_json::Value| {
        node["stage"] == "booted" && node["seeding"]["uploaded_bytes"].is_u64()
    };
    let first = server.wait_node(&machine.mac(), "booted, seeding", SERVER_TIMEOUT, seeds)?;
    // It still says so later, of its own accord.
    let said = |node: &serde_json::Value| node["seen_unix_ms"].as_u64().unwrap_or(0);
    let later = said(&first) + u64::try_from(ALIVE.as_millis()).context("a minute")?;
    server.wait_node(&machine.mac(), "seeding a minute later", ALIVE * 2, |node| {
        seeds(node) && said(node) >= later
    })?;
    server.keep_status(&stage.dir)?;
    server.stop()
}
