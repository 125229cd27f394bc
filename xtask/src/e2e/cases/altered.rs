//! Somebody in the path, or a dying disk, changes a bit: the node refuses, names what it refuses, and
//! boots once it is repaired. It never runs what it refused.
//!
//! Between node and server is a web server that lies as it is told (`peers/liar.py`); the image is
//! altered on the server itself, behind its back.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use super::{IMAGE, serve, start, wait_failure, wait_ready};
use crate::e2e::machine::{Firmware, Spec};
use crate::e2e::server::{Config, HTTP_PORT, Server};
use crate::e2e::{Stage, stranger};
use crate::lab::{Lab, Process, Slot, Spawn};
use crate::setup;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/peers/liar.py");

const LIAR: Slot = Slot::SERVER;

const LIAR_PORT: u16 = 8_000;

/// A number in the manifest follows.
const SEED_TIME: &str = "\"seed_time_s\":";

/// The name in a torrent's info dictionary follows.
const NAME: &str = "4:name";

const BALLAST_LEN: u64 = 8 << 20;

pub(super) fn run(stage: &Stage<'_>) -> Result<()> {
    let lab = Lab::new(2, None, &stage.dir)?;
    let config = Config { dhcp: "off", seed_time_s: 0, ..Config::default() };
    let mut server = serve(&lab, stage, &config, &[(IMAGE, BALLAST_LEN)])?;
    let mut other = Server::init(&lab, Slot::node(2), &config)?;
    stage.testos.install(&other.oss(), IMAGE, 0)?;
    other.start()?;
    let liar = Liar::start(&lab)?;
    let script = format!("http://{}:{LIAR_PORT}/boot.ipxe", LIAR.address());
    let _dhcp = stranger::dhcp_server_for(&lab, Slot::node(1), &script)?;

    // What the initramfs brings is altered for as long as the machine is on.
    liar.tell(&[
        flip("/lab.cpio", SEED_TIME),
        flip("/lab.cpio", NAME),
        flip("/manifest.json", SEED_TIME),
    ])?;
    let machine = start(&lab, stage, Spec::new(1, Firmware::Ipxe))?;
    wait_failure(&server, &machine, "BT32")?;

    let url = format!("http://{}:{HTTP_PORT}", Slot::node(2).address());
    liar.tell(&["/manifest.json", "/manifest.sig"].map(|path| format!("from {path} {url}")))?;
    wait_failure(&server, &machine, "BT33")?;

    liar.tell(&[flip(&format!("/torrents/{IMAGE}.torrent"), NAME)])?;
    wait_failure(&server, &machine, "BT42")?;

    let ballast = server.oss().join(IMAGE).join(crate::bench::image::NAME);
    flip_on_disk(&ballast, BALLAST_LEN / 2)?;
    liar.tell(&[])?;
    wait_failure(&server, &machine, "BT45")?;
    ensure!(!machine.console()?.has(crate::e2e::testos::READY), "it ran what it refused");

    flip_on_disk(&ballast, BALLAST_LEN / 2)?;
    wait_ready(&machine, IMAGE)?;
    server.keep_status(&stage.dir)?;
    other.stop()?;
    server.stop()
}

/// One bit of the answer to `path`, after the first `text` in it.
fn flip(path: &str, text: &str) -> String {
    format!("flip {path} {text}")
}

struct Liar {
    _process: Process,
    lies: PathBuf,
}

impl Liar {
    fn start(lab: &Lab) -> Result<Self> {
        let lies = lab.slot_dir(LIAR).join("lies");
        std::fs::write(&lies, "").context("writing the lies")?;
        let upstream = format!("http://{}:{HTTP_PORT}", Slot::SERVER.address());
        let spawn = Spawn::new("liar", setup::PYTHON.file).arg(SCRIPT);
        let spawn = spawn.args([LIAR_PORT.to_string(), upstream]).arg(&lies);
        let process = lab.spawn(LIAR, spawn)?;
        process.wait_listening(LIAR_PORT)?;
        Ok(Self { _process: process, lies })
    }

    fn tell(&self, lies: &[String]) -> Result<()> {
        // Whole at once: the liar reads it at each request.
        let part = self.lies.with_extension("part");
        std::fs::write(&part, lies.join("\n")).context("writing the lies")?;
        std::fs::rename(&part, &self.lies).context("telling the lies")
    }
}

/// One bit, without a trace in the file's times, as a disk would do it.
fn flip_on_disk(path: &Path, offset: u64) -> Result<()> {
    let context = || format!("altering {}", path.display());
    let modified = File::open(path).and_then(|file| file.metadata()?.modified());
    let modified = modified.with_context(context)?;
    let file = OpenOptions::new().read(true).write(true).open(path).with_context(context)?;
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).with_context(context)?;
    byte[0] ^= 1;
    file.write_all_at(&byte, offset).with_context(context)?;
    file.set_modified(modified).with_context(context)
}
