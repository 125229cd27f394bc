//! The main job: a room in server mode, every firmware, all at once, and one that joins late.

use anyhow::Result;

use super::{IMAGE, SERVER_TIMEOUT, serve, start, wait_agent, wait_ready};
use crate::e2e::Stage;
use crate::e2e::machine::{Card, Firmware, Spec};
use crate::e2e::server::Config;
use crate::lab::Lab;

/// Enough for several seconds in which nodes exchange pieces.
const BALLAST_LEN: u64 = 64 << 20;

pub(super) fn run(stage: &Stage<'_>) -> Result<()> {
    let lab = Lab::new(0, None, &stage.dir)?;
    let config = Config { seed_time_s: 5, ..Config::default() };
    let mut server = serve(&lab, stage, &config, &[(IMAGE, BALLAST_LEN)])?;
    let mut machines = vec![];
    for spec in [
        Spec::new(1, Firmware::Ipxe),
        Spec::new(2, Firmware::Uefi),
        Spec::new(3, Firmware::Pxe).card(Card::E1000),
    ] {
        machines.push(start(&lab, stage, spec)?);
    }
    wait_agent(&machines[0], "downloading")?;
    machines.push(start(&lab, stage, Spec::new(4, Firmware::UefiHttp))?);
    for machine in &machines {
        wait_ready(machine, IMAGE)?;
    }
    for machine in &machines {
        server.wait_stage(&machine.mac(), "booted", SERVER_TIMEOUT)?;
    }
    server.keep_status(&stage.dir)?;
    server.stop()
}
