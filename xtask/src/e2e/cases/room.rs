//! The main job: a room in server mode, every firmware, all at once, and one that joins late. A browser
//! watches it from power-on to the end.

use std::time::Duration;

use anyhow::Result;

use super::{BOOT_TIMEOUT, IMAGE, SERVER_TIMEOUT, serve, start, wait_agent, wait_ready};
use crate::browser::Watcher;
use crate::e2e::Stage;
use crate::e2e::machine::{Card, Firmware, Spec};
use crate::e2e::server::{Config, HTTP_PORT};
use crate::lab::{Lab, Slot};

/// Enough for several seconds in which nodes exchange pieces.
const BALLAST_LEN: u64 = 64 << 20;

const MACHINE_COUNT: usize = 4;

/// As long as the slowest may take, with what the page takes to show it.
const WATCH_TIMEOUT: Duration = BOOT_TIMEOUT.saturating_mul(2);

pub(super) fn run(stage: &Stage<'_>) -> Result<()> {
    let lab = Lab::new(0, None, &stage.dir)?;
    let config = Config { seed_time_s: 5, ..Config::default() };
    let mut server = serve(&lab, stage, &config, &[(IMAGE, BALLAST_LEN)])?;
    let port = lab.open_window(Slot::SERVER, HTTP_PORT, HTTP_PORT)?;
    let page = format!("http://localhost:{port}");
    let watcher = Watcher::start(&page, MACHINE_COUNT, WATCH_TIMEOUT, &stage.dir)?;
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
    watcher.finish()?;
    server.stop()
}
