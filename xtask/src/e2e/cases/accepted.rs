//! A machine that the lab does not name and ignores, accepted and commanded: what it is told to do it does,
//! and its group's words reach its image.

use anyhow::{Result, ensure};

use super::{BOOT_TIMEOUT, IMAGE, SERVER_TIMEOUT, serve, start, wait_agent, wait_ready};
use crate::e2e::Stage;
use crate::e2e::machine::{Firmware, Spec};
use crate::e2e::server::Config;
use crate::lab::Lab;

const ENTER: &str = "\r";

const SETTINGS: &str = "nodes:\n  unknown: ignore\npower:\n  hook: [echo, the switch of]\n";

const GROUP: &str = "groups:\n  room:\n    match: {nodes: 'n[01-09]'}\n    \
                     cmdline: 'place={{ vars.rack }}/{{ node.name }}'\n    vars: {rack: B7}\n";

pub(super) fn run(stage: &Stage<'_>) -> Result<()> {
    let lab = Lab::new(0, None, &stage.dir)?;
    // Nobody waits so long: it leaves phase 1 when it is told to.
    let config = Config { seed_time_s: 3_600, ..Config::default() };
    let mut server = serve(&lab, stage, &config, &[(IMAGE, 0)])?;
    let settings = std::fs::read_to_string(server.oss().with_file_name("Boottorrent.yaml"))?;
    server.write("Boottorrent.yaml", &format!("{settings}{SETTINGS}"))?;
    server.write("nodes.yaml", GROUP)?;
    server.run(&["reload"])?;
    let machine = start(&lab, stage, Spec::new(1, Firmware::Ipxe))?;
    let mac = machine.mac();
    // It asks again, as nobody has answered.
    server.wait_node(&mac, "ignored, asking again", BOOT_TIMEOUT, |node| {
        let time = |key: &str| node[key].as_u64();
        node["standing"] == "ignored" && time("seen_unix_ms") > time("since_unix_ms")
    })?;
    let seen = server.run(&["node", "show", &mac])?;
    ensure!(!seen.contains("offered"), "it was answered all the same:\n{seen}");
    server.run(&["node", "accept", &mac, "n01"])?;
    wait_agent(&machine, "verified")?;
    let told = server.run(&["node", "power", "status", "n01"])?;
    let expect = format!("the switch of n01 {mac} status");
    ensure!(told.contains(&expect), "the hook does not say `{expect}`:\n{told}");
    let nodes = server.run_elsewhere(&["node", "list"])?;
    ensure!(nodes.contains("n01") && nodes.contains("verified"), "from elsewhere: {nodes}");
    server.run_elsewhere(&["node", "reboot", "n01"])?;
    server.wait_node(&mac, "verified a second time", BOOT_TIMEOUT, |node| {
        node["stage"] == "verified" && node["boot_count"] == 2
    })?;
    let kernels = machine.console()?.text().matches("BOOTTORRENT stage=agent").count();
    ensure!(kernels == 2, "phase 1 has begun {kernels} times, not twice");
    machine.type_keys(ENTER)?;
    wait_ready(&machine, IMAGE)?;
    let text = machine.console()?.text();
    ensure!(text.contains("place=B7/n01 words"), "its group's words have not reached its image");
    server.wait_stage(&mac, "booted", SERVER_TIMEOUT)?;
    server.keep_status(&stage.dir)?;
    server.stop()
}
