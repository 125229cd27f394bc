//! What a newcomer does in four commands: a Debian that was built from packages runs on a node, from
//! memory, on its own kernel, under systemd, which leaves the seeding process alone: another node gets the
//! image from there when the server is gone.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::{IMAGE, downloads_from, start};
use crate::e2e::Stage;
use crate::e2e::live::Live;
use crate::e2e::machine::{Firmware, Machine, Spec};
use crate::e2e::server::{Config, Server};
use crate::lab::{Lab, Slot};

/// All of a Debian's start in an emulator: a few times what the smallest system takes.
pub(super) const TIMEOUT: Duration = Duration::from_secs(400);

/// The image is 75 MB and its system is in memory, too.
pub(super) const MEMORY_MIB: u32 = 1_024;

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
    // It still sends minutes later, when systemd has long ended what it does not know.
    let second = downloads_from(&first, spec(2), &lab, stage, &mut server)?;
    wait_login(&second)
}

fn wait_login(machine: &Machine<'_>) -> Result<()> {
    let name = machine.spec().name();
    let time = machine.wait_for(&format!("{name} login:"), TIMEOUT)?;
    eprintln!("  {name} asks for a login after {:.0} s", time.as_secs_f64());
    Ok(())
}
