//! Nobody tells nodes of one another, and the server's own peer is not told to them either.

use anyhow::{Context as _, Result, ensure};

use super::{IMAGE, SERVER_TIMEOUT, serve, start, wait_ready};
use crate::e2e::Stage;
use crate::e2e::machine::{Firmware, Spec};
use crate::e2e::server::Config;
use crate::lab::Lab;

const BALLAST_LEN: u64 = 32 << 20;

/// Nobody has this address.
const DEAD_TRACKER: &str = "http://10.77.0.99:6969/announce";

pub(super) fn run(stage: &Stage<'_>) -> Result<()> {
    let lab = Lab::new(0, None, &stage.dir)?;
    let config =
        Config { tracker: false, external_tracker: Some(DEAD_TRACKER), ..Config::default() };
    let mut server = serve(&lab, stage, &config, &[(IMAGE, BALLAST_LEN)])?;
    let machines = [
        start(&lab, stage, Spec::new(1, Firmware::Ipxe))?,
        start(&lab, stage, Spec::new(2, Firmware::Uefi))?,
    ];
    for machine in &machines {
        wait_ready(machine, IMAGE)?;
        server.wait_stage(&machine.mac(), "booted", SERVER_TIMEOUT)?;
    }
    server.keep_status(&stage.dir)?;
    let status = server.status()?;
    let services = status["status"]["services"].as_array().context("the status has no services")?;
    let seed = services.iter().find(|service| service["name"] == "seeder");
    let uploaded = seed.map(|seed| &seed["counts"]["uploaded_bytes"]);
    ensure!(uploaded.is_some_and(|uploaded| uploaded == 0), "a peer was found: {seed:?}");
    server.stop()
}
