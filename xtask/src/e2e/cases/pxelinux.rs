//! The other boot program: for BIOS machines whose cards iPXE's drivers do not like.

use anyhow::{Result, ensure};

use super::{IMAGE, SERVER_TIMEOUT, serve, start, wait_ready};
use crate::e2e::Stage;
use crate::e2e::machine::{Card, Firmware, Spec};
use crate::e2e::server::Config;
use crate::lab::Lab;

pub(super) fn run(stage: &Stage<'_>) -> Result<()> {
    let lab = Lab::new(0, None, &stage.dir)?;
    let config = Config { loader: "pxelinux", ..Config::default() };
    let mut server = serve(&lab, stage, &config, &[(IMAGE, 0)])?;
    let machine = start(&lab, stage, Spec::new(1, Firmware::Pxe).card(Card::E1000))?;
    wait_ready(&machine, IMAGE)?;
    server.wait_stage(&machine.mac(), "booted", SERVER_TIMEOUT)?;
    ensure!(machine.console()?.has("PXELINUX"), "another boot program was run");
    server.keep_status(&stage.dir)?;
    server.stop()
}
