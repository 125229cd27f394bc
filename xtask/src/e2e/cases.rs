//! The cases.

mod accepted;
mod altered;
mod classic;
mod debian;
mod fallback;
mod guest;
mod harness;
mod images;
mod limits;
mod livenet;
mod menu;
mod nfs;
mod poweroff;
mod proxy;
mod pxelinux;
mod room;
mod survival;

use std::time::Duration;

use anyhow::{Result, ensure};

use super::machine::{Machine, Spec};
use super::server::{Config, Server};
use super::{Stage, testos};
use crate::lab::{Lab, Slot};

/// From power-on to the image's system takes 30 to 40 s on an idle processor; up to four machines run on two,
/// and a machine that tests is not always theirs alone.
const BOOT_TIMEOUT: Duration = Duration::from_secs(400);

/// For what the server does by itself once a machine has done its part.
const SERVER_TIMEOUT: Duration = Duration::from_secs(30);

/// The image that most cases boot.
const IMAGE: &str = "tiny";

/// See the module documentation of [`super`].
pub(super) struct Case {
    pub(super) name: &'static str,
    /// The use case of docs/usecases.md that it is, by which it can be called, too.
    pub(super) also: &'static [&'static str],
    /// How many it has running at once.
    pub(super) machines: usize,
    /// One sentence: what must be true.
    pub(super) what: &'static str,
    pub(super) run: fn(&Stage<'_>) -> Result<()>,
}

/// The case that needs nothing of ours.
pub(super) const HARNESS: &str = "harness";

/// The case that a browser watches.
pub(super) const ROOM: &str = "room";

/// In the order in which they say most: a broken harness or a plain boot that fails explains the rest.
pub(super) const ALL: &[Case] = &[
    Case {
        name: HARNESS,
        also: &[],
        machines: 2,
        what: "without any part of ours, BIOS and UEFI machines boot the test system",
        run: harness::run,
    },
    // Early, as it makes what others need.
    Case {
        name: "images",
        also: &[],
        machines: 1,
        what: "images are built from packages, rpms and containers, edited, killed, and lose nothing",
        run: images::run,
    },
    Case {
        name: ROOM,
        also: &[],
        machines: 4,
        what: "two BIOS and a UEFI machine boot at once, another joins late; a browser watches",
        run: room::run,
    },
    Case {
        name: "proxy",
        also: &[],
        machines: 2,
        what: "beside a foreign DHCP server we only add what to boot; a second lab refuses to start",
        run: proxy::run,
    },
    Case {
        name: "pxelinux",
        also: &[],
        machines: 1,
        what: "with PXELINUX a BIOS machine boots, by nothing but TFTP up to phase 1; the menu waits in vain",
        run: pxelinux::run,
    },
    Case {
        name: "survival",
        also: &["usecase-1"],
        machines: 2,
        what: "the server is killed once a node has the image: the other node gets it from there",
        run: survival::run,
    },
    Case {
        name: "livenet",
        also: &[],
        machines: 2,
        what: "a node runs a root in memory and seeds under it: another boots with the server stopped",
        run: livenet::run,
    },
    Case {
        name: "nfs",
        also: &[],
        machines: 1,
        what: "a node's root is its own folder on an NFS server; an assigned image runs on its own kernel",
        run: nfs::run,
    },
    Case {
        name: "fallback",
        also: &[],
        machines: 2,
        what: "no tracker and no peer can be reached: the image comes by HTTP",
        run: fallback::run,
    },
    Case {
        name: "poweroff",
        also: &[],
        machines: 2,
        what: "a node loses power in mid-download: others boot, and so does it when it is back",
        run: poweroff::run,
    },
    Case {
        name: "altered",
        also: &[],
        machines: 1,
        what: "a bit flips in manifest, torrent or image, or the key is another: nodes refuse by name",
        run: altered::run,
    },
    Case {
        name: "menu",
        also: &["usecase-2"],
        machines: 1,
        what: "keys on the serial line choose the other image, cancel, choose again; the keyboard is German",
        run: menu::run,
    },
    Case {
        name: "accepted",
        also: &[],
        machines: 1,
        what: "who is ignored boots once accepted, reboots when told, and has its group's words",
        run: accepted::run,
    },
    Case {
        name: "guest",
        also: &["usecase-3", "usecase-4"],
        machines: 2,
        what: "virtual machines run from all media, assigned and chosen, are seen, keep what they shall",
        run: guest::run,
    },
    Case {
        name: "debian",
        also: &[],
        machines: 2,
        what: "a Debian built from packages runs from memory; another boots from its node without the server",
        run: debian::run,
    },
    Case {
        name: "classic",
        also: &[],
        machines: 1,
        what: "an initramfs made by dracut in the image gets its root by HTTP, without our agent",
        run: classic::run,
    },
    Case {
        name: "limits",
        also: &[],
        machines: 1,
        what: "an image larger than memory is refused before it is fetched; phase 1 is small",
        run: limits::run,
    },
];

/// A server with test systems, that serves. `images` are names and bytes of ballast.
fn serve<'a>(
    lab: &'a Lab,
    stage: &Stage<'_>,
    config: &Config,
    images: &[(&str, u64)],
) -> Result<Server<'a>> {
    let mut server = Server::init_as(lab, Slot::SERVER, config, stage.lab)?;
    for (name, ballast_len) in images {
        stage.testos.install(&server.oss(), name, *ballast_len)?;
    }
    server.start()?;
    Ok(server)
}

/// Switches a machine on.
fn start<'a>(lab: &'a Lab, stage: &Stage<'_>, spec: Spec) -> Result<Machine<'a>> {
    Machine::start(lab, spec.capture(stage.capture), &stage.dir)
}

/// Slow enough that the server is gone before a node has all of its image.
const SLOW: &str = "8mbit";

/// Switches a node on that begins to download its image, and stops the server once another, whose system runs,
/// gives it some: the rest can only come from there.
fn downloads_from<'a>(
    giver: &Machine<'_>,
    taker: Spec,
    lab: &'a Lab,
    stage: &Stage<'_>,
    server: &mut Server<'_>,
) -> Result<Machine<'a>> {
    server.wait_node(&giver.mac(), "booted, seeding", SERVER_TIMEOUT, |node| {
        node["stage"] == "booted" && node["seeding"]["uploaded_bytes"].is_u64()
    })?;
    let taker = start(lab, stage, taker.rate(SLOW.parse()?))?;
    wait_agent(&taker, "downloading")?;
    server.wait_node(&giver.mac(), "it sends", BOOT_TIMEOUT, |node| {
        node["seeding"]["uploaded_bytes"].as_u64().is_some_and(|bytes| bytes > 0)
    })?;
    ensure!(
        !taker.console()?.has("BOOTTORRENT stage=verified"),
        "the slow node was done before the server could be stopped"
    );
    server.keep_status(&stage.dir)?;
    server.stop()?;
    taker.set_rate("1gbit".parse()?)?;
    Ok(taker)
}

/// Waits until an image's system is up.
fn wait_ready(machine: &Machine<'_>, image: &str) -> Result<()> {
    let time = machine.wait_for(&testos::ready(image), BOOT_TIMEOUT)?;
    eprintln!("  {} runs {image} after {:.0} s", machine.spec().name(), time.as_secs_f64());
    Ok(())
}

/// Waits for a stage, as the agent prints it.
fn wait_agent(machine: &Machine<'_>, stage: &str) -> Result<()> {
    machine.wait_for(&format!("BOOTTORRENT stage={stage}"), BOOT_TIMEOUT).map(drop)
}

/// Waits for a failure with this code, on the screen and in the server's status.
fn wait_failure(server: &Server<'_>, machine: &Machine<'_>, code: &str) -> Result<()> {
    machine.wait_for(&format!("BOOTTORRENT failed code={code}"), BOOT_TIMEOUT)?;
    let is_so = |node: &serde_json::Value| node["stage"] == "failed" && node["failure"] == code;
    server.wait_node(&machine.mac(), code, SERVER_TIMEOUT, is_so).map(drop)
}
