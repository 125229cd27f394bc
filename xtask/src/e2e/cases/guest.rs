//! Systems that no kexec can start: a virtual machine on a node, where the lab has decided it and where
//! somebody chooses it, with the swarm alive under it; from raw disks, qcow2, floppies and discs; what a guest
//! writes stays where the lab wants it so, through a power cut, and not under another version; it is seen from
//! elsewhere; and its node starts anew when it has ended.

use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::{BOOT_TIMEOUT, IMAGE, SERVER_TIMEOUT, start, wait_agent, wait_failure};
use crate::e2e::Stage;
use crate::e2e::console::Console;
use crate::e2e::guest::{self, KEPT, Medium, READY, SCREEN, WRITTEN};
use crate::e2e::machine::{Firmware, Machine, Spec};
use crate::e2e::screenshot;
use crate::e2e::server::{Config, Server};
use crate::e2e::viewer::Viewer;
use crate::interrupt;
use crate::lab::{Lab, Slot, wait_until};

/// Before the default in the menu.
const GUEST: &str = "guest";

/// What else a guest can be started from: each an image of that name.
const MEDIA: [(&str, Medium); 3] =
    [("disc", Medium::Disc), ("floppy", Medium::Floppy), (KEPT_IMAGE, Medium::Qcow2)];

/// What its guest writes stays on the node's disk.
const KEPT_IMAGE: &str = "cow";

/// Seen by VNC at this address of the second node, and at no other.
const SEEN: &str = "far";
const SEEN_AT: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 77, 200, 77), 5_901);

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

/// Slow enough that the server is gone before the second node has it all: 46 s, while the first node says every
/// 5 s what it has sent.
const SLOW: &str = "6mbit";
const FAST: &str = "1gbit";

/// The boot program says so each time that a machine starts anew.
const FIRMWARE: &str = "SeaBIOS (version";

/// Phase 1, the extension, the image, QEMU and what the guest writes.
const MEMORY_MIB: u32 = 768;

/// Up and Enter, as a VT100 sends them.
const CHOOSE_GUEST: &str = "\x1b[A\r";

/// Between two looks at a guest's screen.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// A processor that is emulated emulates another one.
const GUEST_TIMEOUT: Duration = Duration::from_secs(300);

pub(super) fn run(stage: &Stage<'_>) -> Result<()> {
    let lab = Lab::new(0, None, &stage.dir)?;
    let config = Config { menu_timeout_s: 3_600, ..Config::default() };
    let mut server = Server::init_as(&lab, Slot::SERVER, &config, stage.lab)?;
    install(stage, &server)?;
    let spec = |number| Spec::new(number, Firmware::Ipxe).memory_mib(MEMORY_MIB);
    let (one, two) = (spec(1).mac(), spec(2).mac());
    let nodes = format!(
        "nodes:\n  n01: {{mac: {one}, image: {GUEST}}}\n  n02: {{mac: {two}, address: {}}}\n",
        SEEN_AT.ip()
    );
    server.write("nodes.yaml", &nodes)?;
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
    let mut second = start(&lab, stage, spec(2).rate(FAST.parse()?).disk(disk))?;
    second.wait_for("Any key stops the clock.", BOOT_TIMEOUT)?;
    screenshot::keep(stage, &second, "usecase-3")?;
    failures(&server, &second)?;
    media(&second)?;
    power_cut(&mut second)?;
    another_version(&server, &second)?;
    seen(&lab, &server, &second)?;
    seeded_without_the_server(stage, &mut server, &first, &second)?;
    // The guest ends at a key, and its node starts anew: nobody answers it, as the server is gone.
    let starts = |console: &Console| console.text().matches(FIRMWARE).count();
    let before = starts(second.console()?);
    second.type_keys("x")?;
    second.wait_for(&format!("The guest {GUEST} has ended."), GUEST_TIMEOUT)?;
    second.wait("the node starts anew", BOOT_TIMEOUT, |console| starts(console) > before).map(drop)
}

/// The second node gets the image from the first, though the server is stopped meanwhile.
fn seeded_without_the_server(
    stage: &Stage<'_>,
    server: &mut Server<'_>,
    first: &Machine<'_>,
    second: &Machine<'_>,
) -> Result<()> {
    second.set_rate(SLOW.parse()?)?;
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
    second.set_rate(FAST.parse()?)?;
    let written = second.console()?.text().matches(WRITTEN).count();
    says(second, GUEST, written + 1)
}

/// The extension and the images.
fn install(stage: &Stage<'_>, server: &Server<'_>) -> Result<()> {
    let built = server.run(&["extension", "build", "qemu", "-o", "json"])?;
    eprintln!("  {}", built.lines().last().unwrap_or_default());
    let oss = server.oss();
    stage.testos.install(&oss, IMAGE, 0)?;
    guest::install(&oss, GUEST, Medium::Raw, "display: serial\nafter: reboot\n", BALLAST_LEN)?;
    for (name, medium) in MEDIA {
        let writes =
            if name == KEPT_IMAGE { format!("writes: disk {LABEL}\n") } else { String::new() };
        guest::install(&oss, name, medium, &format!("display: serial\n{writes}"), 0)?;
    }
    guest::install(&oss, SEEN, Medium::Raw, &format!("display: vnc {SEEN_AT}\n"), 0)?;
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

/// Chooses what cannot run.
fn failures(server: &Server<'_>, machine: &Machine<'_>) -> Result<()> {
    for (image, code, said) in [
        (HOMELESS, "BT60", "no disk of this node has an ext4 with that label"),
        (WRONG, "BT54", "unsupported machine type"),
    ] {
        let menus = menus(machine.console()?);
        choose(machine, image)?;
        wait_failure(server, machine, code)?;
        ensure!(machine.console()?.has(said), "`{said}` is not on the screen");
        // It would try again by itself.
        machine.type_keys("m")?;
        menu_again(machine, menus)?;
    }
    Ok(())
}

/// Chooses guests that start from all that they can start from. The last one is left running.
fn media(machine: &Machine<'_>) -> Result<()> {
    let mut written = 0;
    for (name, medium) in MEDIA {
        choose(machine, name)?;
        written += usize::from(medium != Medium::Disc);
        says(machine, name, written)?;
        ensure!(!machine.console()?.has(KEPT), "{name} finds what nobody wrote");
        if name != KEPT_IMAGE {
            ends(machine, name, "x")?;
        }
    }
    Ok(())
}

/// Somebody pulls the cord when a guest has written to the node's disk: it finds that the next time.
fn power_cut(machine: &mut Machine<'_>) -> Result<()> {
    machine.power_off();
    machine.power_on()?;
    machine.wait_for("Any key stops the clock.", BOOT_TIMEOUT)?;
    choose(machine, KEPT_IMAGE)?;
    says(machine, KEPT_IMAGE, 1)?;
    ensure!(machine.console()?.has(KEPT), "what was written has not outlived the power cut");
    Ok(())
}

/// The image gets another version while its guest runs. That begins anew, and says what the older one has
/// left; what it advises for that helps.
fn another_version(server: &Server<'_>, machine: &Machine<'_>) -> Result<()> {
    server.write(&format!("oss/{KEPT_IMAGE}/note"), "another version")?;
    server.run(&["reload"])?;
    ends(machine, KEPT_IMAGE, "x")?;
    choose(machine, KEPT_IMAGE)?;
    says(machine, KEPT_IMAGE, 2)?;
    let kept = machine.console()?.text().matches(KEPT).count();
    ensure!(kept == 1, "the new version has found what was written over the old one");
    let log = server.run(&["node", "log", &machine.mac()])?;
    let advice = between(&log, "remove it at a shell: `", "`");
    let advice = advice.context("nobody says what the old version has left")?.to_owned();
    ends(machine, KEPT_IMAGE, "x")?;
    machine.type_keys("\x13")?;
    machine.wait_for("A shell.", BOOT_TIMEOUT)?;
    let device = between(&advice, "; mount ", " /mnt").context("no device is named")?;
    let count =
        format!("mount {device} /mnt; echo versions: $(ls /mnt/boottorrent/{KEPT_IMAGE} | wc -l)");
    machine.type_keys(&format!("{advice}\r{count}; umount /mnt\r"))?;
    machine.wait_for("versions: 1\n", BOOT_TIMEOUT)?;
    leave_shell(machine)
}

/// Somebody looks at a guest from elsewhere, and ends it by a key.
fn seen(lab: &Lab, server: &Server<'_>, machine: &Machine<'_>) -> Result<()> {
    choose(machine, SEEN)?;
    machine.wait_for(&format!("The guest's screen is at {SEEN_AT}, by VNC."), GUEST_TIMEOUT)?;
    // Who has the lab's key learns the password without walking to the node.
    let log = server.run(&["node", "log", &machine.mac()])?;
    let password = between(&log, "The password of this run is ", ".");
    let password = password.context("no password in the log of the node")?;
    let stranger = reach(lab)?;
    ensure!(Viewer::open(stranger, "password")?.is_none(), "any password is good");
    let viewer = Viewer::open(reach(lab)?, password)?;
    let mut viewer = viewer.context("the password is refused")?;
    let deadline = Instant::now() + GUEST_TIMEOUT;
    while !is_painted(&viewer.screen()?) {
        ensure!(Instant::now() < deadline, "the guest's screen is not what it paints");
        interrupt::check()?;
        std::thread::sleep(LOOK_INTERVAL);
    }
    // Without a terminal the guest leaves that to the person at the node, whom nobody answers at another address.
    machine.type_keys("s")?;
    machine.wait("a second shell", BOOT_TIMEOUT, |console| {
        console.text().matches("A shell.").count() == 2
    })?;
    let knock = |ip: Ipv4Addr| {
        format!("nc {ip} {} </dev/null >/dev/null; echo {ip} says $?\r", SEEN_AT.port())
    };
    machine.type_keys(&(knock(Ipv4Addr::LOCALHOST) + &knock(*SEEN_AT.ip())))?;
    machine.wait_for(&format!("{} says 0", SEEN_AT.ip()), BOOT_TIMEOUT)?;
    let elsewhere = format!("{} says 1", Ipv4Addr::LOCALHOST);
    ensure!(machine.console()?.has(&elsewhere), "it is seen at another address, too");
    leave_shell(machine)?;
    let menus = menus(machine.console()?);
    viewer.press(b'x')?;
    machine.wait_for(&format!("The guest {SEEN} has ended."), GUEST_TIMEOUT)?;
    menu_again(machine, menus)
}

/// A connection to a guest's screen, once QEMU listens.
fn reach(lab: &Lab) -> Result<TcpStream> {
    let mut stream = lab.connect(Slot::SERVER, SEEN_AT.into());
    wait_until(GUEST_TIMEOUT, || {
        if stream.is_err() {
            stream = lab.connect(Slot::SERVER, SEEN_AT.into());
        }
        stream.is_ok() || interrupt::check().is_err()
    });
    stream
}

/// Whether it is as the guest paints it, but for the letters.
fn is_painted(screen: &[[u8; 4]]) -> bool {
    let painted = |pixel: &&[u8; 4]| pixel.iter().zip(SCREEN).all(|(is, shall)| is & 0xfc == shall);
    screen.iter().filter(painted).count() > screen.len() / 10 * 9
}

fn leave_shell(machine: &Machine<'_>) -> Result<()> {
    let left = |console: &Console| console.text().matches("The shell is left").count();
    let before = left(machine.console()?);
    machine.type_keys("exit\r")?;
    machine.wait("the shell is left", BOOT_TIMEOUT, |console| left(console) > before).map(drop)
}

/// Types the name of an image, which finds it, and Enter.
fn choose(machine: &Machine<'_>, image: &str) -> Result<()> {
    machine.type_keys(&format!("{image}\r"))
}

/// Ends a guest by a key of its serial line, and waits for the menu.
fn ends(machine: &Machine<'_>, image: &str, key: &str) -> Result<()> {
    let menus = menus(machine.console()?);
    machine.type_keys(key)?;
    machine.wait_for(&format!("The guest {image} has ended."), GUEST_TIMEOUT)?;
    menu_again(machine, menus)
}

/// How often the menu has come.
fn menus(console: &Console) -> usize {
    console.text().matches("BOOTTORRENT stage=menu").count()
}

/// Waits until the menu has come once more.
fn menu_again(machine: &Machine<'_>, before: usize) -> Result<()> {
    machine.wait("the menu", BOOT_TIMEOUT, |console| menus(console) > before).map(drop)
}

/// What stands between the last of two texts and what follows.
fn between<'a>(text: &'a str, begin: &str, end: &str) -> Option<&'a str> {
    let (_, rest) = text.rsplit_once(begin)?;
    rest.split_once(end).map(|(between, _)| between)
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
