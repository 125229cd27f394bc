//! Somebody pulls a cord in mid-download.

use anyhow::{Result, ensure};

use super::{IMAGE, SERVER_TIMEOUT, serve, start, wait_agent, wait_ready};
use crate::e2e::Stage;
use crate::e2e::machine::{Firmware, Spec};
use crate::e2e::server::Config;
use crate::lab::Lab;

const BALLAST_LEN: u64 = 64 << 20;

const SLOW: &str = "40mbit";

pub(super) fn run(stage: &Stage<'_>) -> Result<()> {
    let lab = Lab::new(0, None, &stage.dir)?;
    let config = Config { seed_time_s: 2, ..Config::default() };
    let mut server = serve(&lab, stage, &config, &[(IMAGE, BALLAST_LEN)])?;
    let mut victim = start(&lab, stage, Spec::new(1, Firmware::Ipxe).rate(SLOW.parse()?))?;
    let other = start(&lab, stage, Spec::new(2, Firmware::Ipxe))?;
    wait_agent(&victim, "downloading")?;
    ensure!(!victim.console()?.has("BOOTTORRENT stage=verified"), "it was done too early");
    victim.power_off();
    victim.set_rate("1gbit".parse()?)?;
    wait_ready(&other, IMAGE)?;
    victim.power_on()?;
    wait_ready(&victim, IMAGE)?;
    for machine in [&victim, &other] {
        server.wait_stage(&machine.mac(), "booted", SERVER_TIMEOUT)?;
    }
    server.keep_status(&stage.dir)?;
    server.stop()
}
