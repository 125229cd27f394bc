//! Somebody sits at a node, by its serial line and by its keyboard.

use anyhow::{Result, ensure};

use super::{BOOT_TIMEOUT, IMAGE, SERVER_TIMEOUT, serve, start, wait_ready};
use crate::e2e::Stage;
use crate::e2e::machine::{Firmware, Spec};
use crate::e2e::screenshot;
use crate::e2e::server::Config;
use crate::lab::Lab;

/// Before the default in the menu.
const OTHER: &str = "other";

const BALLAST_LEN: u64 = 48 << 20;

/// Slow enough that a download can be cancelled.
const SLOW: &str = "20mbit";

/// Up and Enter, as a VT100 sends them.
const CHOOSE_OTHER: &str = "\x1b[A\r";

/// Of an image, beside the list.
const DETAIL: &str = "starts its kernel vmlinuz";

const ESCAPE: &str = "\x1b";

pub(super) fn run(stage: &Stage<'_>) -> Result<()> {
    let lab = Lab::new(0, None, &stage.dir)?;
    // Nobody waits so long: if the default is booted, no key was read.
    let config = Config { menu_timeout_s: 3_600, keyboard: Some("de-latin1"), ..Config::default() };
    let mut server = serve(&lab, stage, &config, &[(IMAGE, 0), (OTHER, BALLAST_LEN)])?;
    let machine = start(&lab, stage, Spec::new(1, Firmware::Ipxe).rate(SLOW.parse()?))?;
    let wait_count = |text: &str, count: usize| {
        let is_so =
            |console: &crate::e2e::console::Console| console.text().matches(text).count() >= count;
        machine.wait(&format!("{text} {count} times"), BOOT_TIMEOUT, is_so)
    };
    machine.wait_for("Any key stops the clock.", BOOT_TIMEOUT)?;
    screenshot::keep(stage, &machine, "usecase-2")?;
    // Where the United States have Y a German keyboard has Z.
    machine.press("y")?;
    machine.wait_for("Find: z_", BOOT_TIMEOUT)?;
    // Who sits at the server sees the same. The key has stopped the clock.
    let mac = machine.mac();
    let (screen, log) =
        (server.run(&["node", "screen", &mac])?, server.run(&["node", "log", &mac])?);
    for text in ["Find: z_", "Waiting for a choice."] {
        ensure!(screen.contains(text), "`{text}` is not on the screen:\n{screen}");
    }
    ensure!(log.contains("BOOTTORRENT stage=menu"), "the log says nothing of the menu:\n{log}");
    let described = machine.console()?.text().matches(DETAIL).count();
    machine.press("esc")?;
    wait_count(DETAIL, described + 1)?;
    machine.type_keys(CHOOSE_OTHER)?;
    let downloading = format!("BOOTTORRENT stage=downloading image={OTHER}");
    wait_count(&downloading, 1)?;
    machine.type_keys(ESCAPE)?;
    wait_count("BOOTTORRENT stage=menu", 2)?;
    machine.set_rate("1gbit".parse()?)?;
    machine.type_keys(CHOOSE_OTHER)?;
    wait_count(&downloading, 2)?;
    wait_ready(&machine, OTHER)?;
    let node = server.wait_stage(&machine.mac(), "booted", SERVER_TIMEOUT)?;
    ensure!(node["image"] == OTHER, "the server knows it otherwise: {node}");
    server.keep_status(&stage.dir)?;
    server.stop()
}
