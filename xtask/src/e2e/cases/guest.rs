//! Systems that no kexec can start: a virtual machine on a node, where the lab has decided it and where
//! somebody chooses it, with the swarm alive under it.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::{BOOT_TIMEOUT, IMAGE, SERVER_TIMEOUT, start, wait_agent, wait_failure};
use crate::e2e::Stage;
use crate::e2e::console::Console;
use crate::e2e::guest::{self, READY, WRITTEN};
use crate::e2e::machine::{Firmware, Machine, Spec};
use crate::e2e::screenshot;
use crate::e2e::server::{Config, Server};
use crate::lab::{Lab, Slot};

/// Before the default in the menu.
const GUEST: &str = "guest";

/// Behind the default: QEMU does not know its machine, and ends at once.
const WRONG: &str = "wrong";

const WRONG_CONFIG: &str = "dispname: Wrong\nmethod: bin-qemu-x86_64\ndisplay: serial\n\
                            args: -m 16 -machine nonsense -drive file=disk.img,format=raw\n";

const BALLAST_LEN: u64 = 32 << 20;

/// Slow enough that the server is gone before the second node has it all.
const SLOW: &str = "20mbit";

/// Phase 1, the extension, the image, QEMU and what the guest writes.
const MEMORY_MIB: u32 = 768;

/// Up and Enter, as a VT100 sends them.
const CHOOSE_GUEST: &str = "\x1b[A\r";

/// Down and Enter.
const CHOOSE_WRONG: &str = "\x1b[B\r";

/// A processor that is emulated emulates another one.
const GUEST_TIMEOUT: Duration = Duration::from_secs(300);

pub(super) fn run(stage: &Stage<'_>) -> Result<()> {
    let lab = Lab::new(0, None, &stage.dir)?;
    let config = Config { menu_timeout_s: 3_600, ..Config::default() };
    let mut server = Server::init_as(&lab, Slot::SERVER, &config, stage.lab)?;
    let built = server.run(&["extension", "build", "qemu", "-o", "json"])?;
    eprintln!("  {}", built.lines().last().unwrap_or_default());
    stage.testos.install(&server.oss(), IMAGE, 0)?;
    guest::install(&server.oss(), GUEST, "display: serial\n", BALLAST_LEN)?;
    guest::install(&server.oss(), WRONG, "", 0)?;
    server.write(&format!("oss/{WRONG}/config.yaml"), WRONG_CONFIG)?;
    let spec = |number| Spec::new(number, Firmware::Ipxe).memory_mib(MEMORY_MIB);
    let assigned = format!("nodes:\n  n01: {{mac: {}, image: {GUEST}}}\n", spec(1).mac());
    server.write("nodes.yaml", &assigned)?;
    server.start()?;
    // Unattended: nobody touches it.
    let first = start(&lab, stage, spec(1))?;
    runs(&first)?;
    server.wait_node(&first.mac(), "booted, seeding", SERVER_TIMEOUT, |node| {
        node["stage"] == "booted" && node["image"] == GUEST && node["seeding"].is_object()
    })?;
    screenshot::keep(stage, &first, "usecase-4")?;
    // Attended: somebody chooses it.
    let second = start(&lab, stage, spec(2).rate(SLOW.parse()?))?;
    second.wait_for("Any key stops the clock.", BOOT_TIMEOUT)?;
    screenshot::keep(stage, &second, "usecase-3")?;
    second.type_keys(CHOOSE_WRONG)?;
    wait_failure(&server, &second, "BT54")?;
    let said = second.console()?.has("unsupported machine type");
    ensure!(said, "QEMU's own words are not on the screen");
    // It would try again by itself.
    second.type_keys("m")?;
    menu_again(&second, 2)?;
    second.type_keys(CHOOSE_GUEST)?;
    second.wait_for(&format!("BOOTTORRENT stage=downloading image={GUEST}"), GUEST_TIMEOUT)?;
    server.wait_node(&first.mac(), "it sends", BOOT_TIMEOUT, |node| {
        node["seeding"]["uploaded_bytes"].as_u64().is_some_and(|bytes| bytes > 0)
    })?;
    ensure!(
        !second.console()?.has(&format!("BOOTTORRENT stage=verified image={GUEST}")),
        "the slow node was done before the server could be stopped"
    );
    server.keep_status(&stage.dir)?;
    server.stop()?;
    second.set_rate("1gbit".parse()?)?;
    runs(&second)?;
    // The guest ends at a key, and its node decides anew.
    second.type_keys("x")?;
    second.wait_for(&format!("The guest {GUEST} has ended."), GUEST_TIMEOUT)?;
    menu_again(&second, 3)
}

/// Waits until the menu has come so often.
fn menu_again(machine: &Machine<'_>, count: usize) -> Result<()> {
    let is_back =
        |console: &Console| console.text().matches("BOOTTORRENT stage=menu").count() >= count;
    machine.wait(&format!("the menu {count} times"), BOOT_TIMEOUT, is_back).map(drop)
}

/// Waits until the guest speaks on its serial port.
fn runs(machine: &Machine<'_>) -> Result<()> {
    wait_agent(machine, &format!("loading image={GUEST}"))?;
    let time = machine.wait_for(&format!("{READY} {GUEST}"), GUEST_TIMEOUT)?;
    machine.wait_for(WRITTEN, GUEST_TIMEOUT)?;
    eprintln!("  the guest on {} runs after {:.0} s", machine.spec().name(), time.as_secs_f64());
    Ok(())
}
