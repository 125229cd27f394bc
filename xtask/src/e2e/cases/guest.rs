//! Systems that no kexec can start: a virtual machine on a node, where the lab has decided it and where
//! somebody chooses it, with the swarm alive under it; from raw disks, qcow2, floppies and discs; and what
//! a guest writes stays where the lab wants it so.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::{BOOT_TIMEOUT, IMAGE, SERVER_TIMEOUT, start, wait_agent, wait_failure};
use crate::e2e::Stage;
use crate::e2e::console::Console;
use crate::e2e::guest::{self, KEPT, Medium, READY, WRITTEN};
use crate::e2e::machine::{Firmware, Machine, Spec};
use crate::e2e::screenshot;
use crate::e2e::server::{Config, Server};
use crate::lab::{Lab, Slot};

/// Before the default in the menu.
const GUEST: &str = "guest";

/// What else a guest can be started from: each an image of that name.
const MEDIA: [(&str, Medium); 3] =
    [("disc", Medium::Disc), ("floppy", Medium::Floppy), (KEPT_IMAGE, Medium::Qcow2)];

/// What its guest writes stays on the node's disk.
const KEPT_IMAGE: &str = "cow";

/// The label of that disk's file system, and its bytes: more than an ext4 takes for itself.
const LABEL: &str = "guests";
const DISK_LEN: u64 = 64 << 20;

/// Behind the default: QEMU does not know its machine, and ends at once.
const WRONG: &str = "wrong";

const WRONG_CONFIG: &str = "dispname: Wrong\nmethod: bin-qemu-x86_64\ndisplay: serial\n\
                            args: -m 16 -machine nonsense -drive file=disk.img,format=raw\n";

/// Behind the default, too: what its guest writes would have to stay on a disk that no node has.
const HOMELESS: &str = "homeless";

const HOMELESS_CONFIG: &str = "dispname: Without a disk\nmethod: bin-qemu-x86_64\ndisplay: serial\n\
                               args: -m 16 -hda disk.img\nwrites: disk nowhere\n";

const BALLAST_LEN: u64 = 32 << 20;

/// Slow enough that the server is gone before the second node has it all.
const SLOW: &str = "20mbit";

/// Phase 1, the extension, the image, QEMU and what the guest writes.
const MEMORY_MIB: u32 = 768;

/// Up and Enter, as a VT100 sends them.
const CHOOSE_GUEST: &str = "\x1b[A\r";

/// A processor that is emulated emulates another one.
const GUEST_TIMEOUT: Duration = Duration::from_secs(300);

pub(super) fn run(stage: &Stage<'_>) -> Result<()> {
    let lab = Lab::new(0, None, &stage.dir)?;
    let config = Config { menu_timeout_s: 3_600, ..Config::default() };
    let mut server = Server::init_as(&lab, Slot::SERVER, &config, stage.lab)?;
    install(stage, &server)?;
    let spec = |number| Spec::new(number, Firmware::Ipxe).memory_mib(MEMORY_MIB);
    let assigned = format!("nodes:\n  n01: {{mac: {}, image: {GUEST}}}\n", spec(1).mac());
    server.write("nodes.yaml", &assigned)?;
    server.start()?;
    // Unattended: nobody touches it.
    let first = start(&lab, stage, spec(1))?;
    says(&first, GUEST, 1)?;
    server.wait_node(&first.mac(), "booted, seeding", SERVER_TIMEOUT, |node| {
        node["stage"] == "booted"
            && node["image"] == GUEST
            && node["seeding"]["limit_bytes_per_s"].is_u64()
    })?;
    screenshot::keep(stage, &first, "usecase-4")?;
    // Attended: somebody chooses it.
    let disk = disk(stage)?;
    let second = start(&lab, stage, spec(2).rate(SLOW.parse()?).disk(disk))?;
    second.wait_for("Any key stops the clock.", BOOT_TIMEOUT)?;
    screenshot::keep(stage, &second, "usecase-3")?;
    let menus = failures(&server, &second)?;
    let (menus, written) = media(&second, menus)?;
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
    says(&second, GUEST, written + 1)?;
    // The guest ends at a key, and its node decides anew.
    second.type_keys("x")?;
    second.wait_for(&format!("The guest {GUEST} has ended."), GUEST_TIMEOUT)?;
    menu_again(&second, menus + 1)
}

/// The extension and the images.
fn install(stage: &Stage<'_>, server: &Server<'_>) -> Result<()> {
    let built = server.run(&["extension", "build", "qemu", "-o", "json"])?;
    eprintln!("  {}", built.lines().last().unwrap_or_default());
    let oss = server.oss();
    stage.testos.install(&oss, IMAGE, 0)?;
    guest::install(&oss, GUEST, Medium::Raw, "display: serial\n", BALLAST_LEN)?;
    for (name, medium) in MEDIA {
        let writes =
            if name == KEPT_IMAGE { format!("writes: disk {LABEL}\n") } else { String::new() };
        guest::install(&oss, name, medium, &format!("display: serial\n{writes}"), 0)?;
    }
    for (name, config) in [(WRONG, WRONG_CONFIG), (HOMELESS, HOMELESS_CONFIG)] {
        guest::install(&oss, name, Medium::Raw, "", 0)?;
        server.write(&format!("oss/{name}/config.yaml"), config)?;
    }
    Ok(())
}

/// The second node's disk, with a file system and nothing on it.
fn disk(stage: &Stage<'_>) -> Result<PathBuf> {
    let path = stage.dir.join("disk");
    std::fs::File::create(&path)?.set_len(DISK_LEN).context("making a disk")?;
    let mut make = Command::new("mkfs.ext4");
    let made = make.args(["-q", "-L", LABEL]).arg(&path).status().context("running mkfs.ext4")?;
    ensure!(made.success(), "mkfs.ext4: {made}");
    Ok(path)
}

/// Chooses what cannot run; how often the menu has come by then.
fn failures(server: &Server<'_>, machine: &Machine<'_>) -> Result<usize> {
    let mut menus = 1;
    for (image, code, said) in [
        (HOMELESS, "BT60", "no disk of this node has an ext4 with that label"),
        (WRONG, "BT54", "unsupported machine type"),
    ] {
        // Typing finds it.
        machine.type_keys(&format!("{image}\r"))?;
        wait_failure(server, machine, code)?;
        ensure!(machine.console()?.has(said), "`{said}` is not on the screen");
        // It would try again by itself.
        machine.type_keys("m")?;
        menus += 1;
        menu_again(machine, menus)?;
    }
    Ok(menus)
}

/// Chooses guests that start from all that they can start from, the last one again, which finds what it
/// wrote; how often the menu has come and guests have written by then.
fn media(machine: &Machine<'_>, mut menus: usize) -> Result<(usize, usize)> {
    let mut written = 0;
    for (name, medium) in MEDIA.into_iter().chain(MEDIA.last().copied()) {
        machine.type_keys(&format!("{name}\r"))?;
        written += usize::from(medium != Medium::Disc);
        says(machine, name, written)?;
        let is_second = written == MEDIA.len();
        ensure!(machine.console()?.has(KEPT) == is_second, "{name}: kept too much or too little");
        machine.type_keys("x")?;
        menus += 1;
        menu_again(machine, menus)?;
    }
    Ok((menus, written))
}

/// Waits until the menu has come so often.
fn menu_again(machine: &Machine<'_>, count: usize) -> Result<()> {
    let is_back =
        |console: &Console| console.text().matches("BOOTTORRENT stage=menu").count() >= count;
    machine.wait(&format!("the menu {count} times"), BOOT_TIMEOUT, is_back).map(drop)
}

/// Waits until the guest speaks on its serial port, and guests of this node have written so often.
fn says(machine: &Machine<'_>, image: &str, written: usize) -> Result<()> {
    wait_agent(machine, &format!("loading image={image}"))?;
    machine.wait_for(&format!("{READY} {image}"), GUEST_TIMEOUT)?;
    let has_written = |console: &Console| console.text().matches(WRITTEN).count() >= written;
    let what = format!("{WRITTEN} {written} times");
    let time = machine.wait(&what, GUEST_TIMEOUT, has_written)?;
    let (name, seconds) = (machine.spec().name(), time.as_secs_f64());
    eprintln!("  the guest {image} on {name} runs after {seconds:.0} s");
    Ok(())
}
