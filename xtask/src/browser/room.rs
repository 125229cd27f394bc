//! A room of virtual machines, watched in the browser from power-on to their own system.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::script;
use crate::e2e::machine::{Firmware, Machine, Spec};
use crate::e2e::server::{Config, HTTP_PORT, Server};
use crate::e2e::testos::TestOs;
use crate::e2e::{self, fresh};
use crate::lab::{Lab, Slot};
use crate::{artifact, interrupt, setup, target_dir};

const IMAGE: &str = "tiny";

/// Enough for seconds of download, which are to be seen.
const BALLAST_LEN: u64 = 64 << 20;

/// Late ones are to find somebody who gives.
const SEED_TIME_S: u64 = 10;

/// From power-on to their own systems, two processors for three machines and a browser.
const TIMEOUT: Duration = Duration::from_secs(480);

/// Fails unless the page shows each machine on its way, at its goal, and what it did.
pub(super) fn watch(tools: &Path, shots: &Path, no_build: bool) -> Result<()> {
    setup::install(e2e::TOOLS)?;
    interrupt::remember_signals();
    if !no_build {
        artifact::build_all()?;
    }
    let dir = target_dir().join("browser/room");
    fresh(&dir)?;
    let testos = TestOs::build(&dir)?;
    let lab = Lab::new(0, None, &dir)?;
    let config = Config { image: IMAGE, seed_time_s: SEED_TIME_S, ..Config::default() };
    let mut server = Server::init(&lab, Slot::SERVER, &config)?;
    testos.install(&server.oss(), IMAGE, BALLAST_LEN)?;
    server.start()?;
    let port = lab.open_window(Slot::SERVER, HTTP_PORT, HTTP_PORT)?;
    let mut machines = vec![];
    for (number, firmware) in [(1, Firmware::Ipxe), (2, Firmware::Pxe), (3, Firmware::Uefi)] {
        machines.push(Machine::start(&lab, Spec::new(number, firmware), &dir)?);
    }
    let mut watcher = script(tools, "room.mjs");
    watcher.arg(format!("http://localhost:{port}")).arg(machines.len().to_string());
    watcher.arg(TIMEOUT.as_secs().to_string()).arg(shots);
    let status = watcher.status()?;
    interrupt::check()?;
    if !status.success() {
        server.keep_status(&dir)?;
    }
    ensure!(status.success(), "what the browser saw is not a room that boots: {status}");
    server.stop()
}
