//! The other boot program: for BIOS machines whose cards iPXE's drivers do not like. And nobody comes to the
//! menu.

use anyhow::{Result, ensure};

use super::{BOOT_TIMEOUT, IMAGE, SERVER_TIMEOUT, serve, start, wait_ready};
use crate::e2e::Stage;
use crate::e2e::machine::{Card, Firmware, Spec};
use crate::e2e::server::Config;
use crate::lab::Lab;

/// As short as somebody would have it who never chooses.
const MENU_TIMEOUT_S: u64 = 3;

pub(super) fn run(stage: &Stage<'_>) -> Result<()> {
    let lab = Lab::new(0, None, &stage.dir)?;
    let config = Config { loader: "pxelinux", menu_timeout_s: MENU_TIMEOUT_S, ..Config::default() };
    let mut server = serve(&lab, stage, &config, &[(IMAGE, 0)])?;
    let machine = start(&lab, stage, Spec::new(1, Firmware::Pxe).card(Card::E1000))?;
    // The menu is shown, and its default is booted when the time is over.
    machine.wait_for("Any key stops the clock.", BOOT_TIMEOUT)?;
    wait_ready(&machine, IMAGE)?;
    let booted = format!("({IMAGE}, by default)");
    ensure!(machine.console()?.has(&booted), "it was not the clock that chose");
    server.wait_stage(&machine.mac(), "booted", SERVER_TIMEOUT)?;
    ensure!(machine.console()?.has("PXELINUX"), "another boot program was run");
    server.keep_status(&stage.dir)?;
    server.stop()
}
