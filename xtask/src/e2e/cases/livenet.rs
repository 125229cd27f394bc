//! A root in memory: the node seeds under the system that runs, says so, and another node, for which
//! the image comes from nowhere else, boots from it.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::{IMAGE, downloads_from, start, wait_ready};
use crate::e2e::Stage;
use crate::e2e::machine::{Firmware, Machine, Spec};
use crate::e2e::server::{Config, Server};
use crate::lab::{Lab, Slot};

const BALLAST_LEN: u64 = 48 << 20;

pub(super) fn run(stage: &Stage<'_>) -> Result<()> {
    let lab = Lab::new(0, None, &stage.dir)?;
    let mut server = Server::init_as(&lab, Slot::SERVER, &Config::default(), stage.lab)?;
    stage.testos.install_live(&server.oss(), IMAGE, BALLAST_LEN, "")?;
    server.write(
        "nodes.yaml",
        &format!("nodes:\n  n01: {{mac: {}}}\n", Spec::new(1, Firmware::Ipxe).mac()),
    )?;
    server.start()?;
    let assigned = server.run(&["node", "assign", "n01", IMAGE, "--yes", "-o", "json"])?;
    eprintln!("  {}", assigned.trim());
    let first = start(&lab, stage, Spec::new(1, Firmware::Ipxe))?;
    wait_ready(&first, IMAGE)?;
    looks_like_a_boot(&first)?;
    let second = Spec::new(2, Firmware::Ipxe);
    let second = downloads_from(&first, second, &lab, stage, &mut server)?;
    second.wait_for("BOOTTORRENT stage=verified", Duration::from_secs(90))?;
    wait_ready(&second, IMAGE)
}

/// What the system says of how it was started.
fn looks_like_a_boot(machine: &Machine<'_>) -> Result<()> {
    let text = machine.console()?.text();
    for line in [
        "LIVE pid 1 root overlay",
        "LIVE files:.",
        "LIVE name n01",
        "LIVE seed 1",
        "LIVE initramfs 0",
        "LIVE written",
    ] {
        ensure!(text.contains(line), "the console has no line `{line}`");
    }
    ensure!(!text.contains("not empty"), "signals are blocked or ignored");
    let uptime = |mark: &str| -> Result<f64> {
        let line = text.lines().find(|line| line.contains(mark));
        let line = line.with_context(|| format!("no `{mark}`"))?;
        let number = line.rsplit(' ').next().context("an empty line")?;
        number.parse().with_context(|| format!("`{line}` has no time"))
    };
    eprintln!("  up {:.1} s after the kernel's start", uptime("LIVE uptime")?);
    Ok(())
}
