//! What a newcomer does in four commands: a Debian that was built from packages runs on a node, from
//! memory, on its own kernel, under systemd, which leaves the seeding process alone: another node gets the
//! image from there when the server is gone.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::{IMAGE, SERVER_TIMEOUT, start, wait_agent};
use crate::e2e::Stage;
use crate::e2e::live::Live;
use crate::e2e::machine::{Firmware, Machine, Spec};
use crate::e2e::server::{Config, Server};
use crate::lab::{Lab, Slot};

/// All of a Debian's start in an emulator: a few times what the smallest system takes.
pub(super) const TIMEOUT: Duration = Duration::from_secs(400);

/// The image is 75 MB and its system is in memory, too.
pub(super) const MEMORY_MIB: u32 = 1_024;

/// Slow enough that the server is gone before the second node has it all.
const SLOW: &str = "8mbit";

pub(super) fn run(stage: &Stage<'_>) -> Result<()> {
    let live = Live::build()?;
    let lab = Lab::new(0, None, &stage.dir)?;
    let mut server = Server::init_as(&lab, Slot::SERVER, &Config::default(), stage.lab)?;
    let folder = server.oss().parent().context("oss/ is in a lab")?.to_owned();
    live.install(&folder, IMAGE)?;
    let spec = |number| Spec::new(number, Firmware::Ipxe).memory_mib(MEMORY_MIB);
    let nodes =
        format!("nodes:\n  n01: {{mac: {}}}\n  n02: {{mac: {}}}\n", spec(1).mac(), spec(2).mac());
    server.write("nodes.yaml", &nodes)?;
    server.start()?;
    server.run(&["node", "assign", "n[01-02]", IMAGE, "--yes"])?;
    let first = start(&lab, stage, spec(1))?;
    wait_login(&first)?;
    let kernel = live.kernel()?;
    ensure!(
        server.log().contains(&format!("/phase1/{kernel}/vmlinuz")),
        "the node did not load the kernel of its image, {kernel}:\n{}",
        server.log_tail()
    );
    server.wait_node(&first.mac(), "booted, seeding", SERVER_TIMEOUT, |node| {
        node["stage"] == "booted" && node["seeding"]["uploaded_bytes"].is_u64()
    })?;
    let second = start(&lab, stage, spec(2).rate(SLOW.parse()?))?;
    wait_agent(&second, "downloading")?;
    // It still does minutes later, when systemd has long ended what it does not know.
    server.wait_node(&first.mac(), "it sends", TIMEOUT, |node| {
        node["seeding"]["uploaded_bytes"].as_u64().is_some_and(|bytes| bytes > 0)
    })?;
    ensure!(
        !second.console()?.has("BOOTTORRENT stage=verified"),
        "the slow node was done before the server could be stopped"
    );
    server.keep_status(&stage.dir)?;
    server.stop()?;
    second.set_rate("1gbit".parse()?)?;
    wait_login(&second)
}

fn wait_login(machine: &Machine<'_>) -> Result<()> {
    let name = machine.spec().name();
    let time = machine.wait_for(&format!("{name} login:"), TIMEOUT)?;
    eprintln!("  {name} asks for a login after {:.0} s", time.as_secs_f64());
    Ok(())
}
