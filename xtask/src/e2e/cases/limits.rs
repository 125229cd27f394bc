//! What does not fit is said before it is fetched, and what every node fetches is small. The machine is
//! one that nobody knows, so that it waits before it boots, and has a disk, so that there is one to list.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::{BOOT_TIMEOUT, IMAGE, serve, start, wait_failure};
use crate::artifact::AGENT_LEN_MAX;
use crate::e2e::Stage;
use crate::e2e::machine::{Firmware, Spec};
use crate::e2e::server::{Config, HTTP_PORT, Server};
use crate::lab::{Lab, Slot};
use crate::{interrupt, target_dir};

/// Of the machine.
const MEMORY_MIB: u32 = 512;

/// More than its memory.
const IMAGE_LEN: u64 = 1 << 30;

/// Of its disk, which is for the list alone.
const DISK_LEN: u64 = 8 << 20;

/// Of phase 1's initramfs: firmware fetches it, often by TFTP, before any peer can help.
const INITRAMFS_LEN_MAX: u64 = 16 << 20;

pub(super) fn run(stage: &Stage<'_>) -> Result<()> {
    let agent_len = std::fs::metadata(target_dir().join("release/boottorrent-agent"))?.len();
    ensure!(agent_len <= AGENT_LEN_MAX, "the agent has {agent_len} bytes, {AGENT_LEN_MAX} at most");
    let lab = Lab::new(0, None, &stage.dir)?;
    let mut server = serve(&lab, stage, &Config::default(), &[(IMAGE, 0)])?;
    server.stop()?;
    let settings = std::fs::read_to_string(server.oss().with_file_name("Boottorrent.yaml"))?;
    server.write("Boottorrent.yaml", &format!("{settings}nodes:\n  unknown: wait\n"))?;
    // Holes in a file in memory cost nothing.
    let ballast = std::fs::File::create(server.oss().join(IMAGE).join("ballast"))?;
    ballast.set_len(IMAGE_LEN).context("making a large file")?;
    server.start()?;
    let initramfs_len = content_len(&lab, "/phase1/initramfs.img")?;
    eprintln!("  agent {agent_len} bytes, initramfs {initramfs_len} bytes");
    ensure!(
        initramfs_len <= INITRAMFS_LEN_MAX,
        "the initramfs has {initramfs_len} bytes, {INITRAMFS_LEN_MAX} at most"
    );
    let disk = stage.dir.join("disk");
    std::fs::File::create(&disk)?.set_len(DISK_LEN).context("making a disk")?;
    let spec = Spec::new(1, Firmware::Ipxe).memory_mib(MEMORY_MIB).disk(disk);
    let machine = start(&lab, stage, spec)?;
    let waits = |node: &serde_json::Value| node["standing"] == "waiting";
    server.wait_node(&machine.mac(), "waiting", BOOT_TIMEOUT, waits)?;
    server.run(&["node", "accept", &machine.mac(), "n01"])?;
    wait_failure(&server, &machine, "BT43")?;
    ensure!(
        !machine.console()?.has("BOOTTORRENT stage=downloading"),
        "it began to fetch an image that cannot fit"
    );
    wait_stock(&server)?;
    server.keep_status(&stage.dir)?;
    server.stop()
}

/// Waits until the server knows what the node is made of: its disk may answer later than its network.
fn wait_stock(server: &Server<'_>) -> Result<()> {
    let deadline = Instant::now() + BOOT_TIMEOUT;
    let expect =
        ["product    ACME Rocket", "serial     BT-0001", "sda, 8.39 MB, Drum", "eth0 (virtio_net)"];
    loop {
        let text = server.run(&["node", "show", "n01"])?;
        if expect.iter().all(|part| text.contains(part)) {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "the server does not know what the node is:\n{text}");
        interrupt::check()?;
        std::thread::sleep(Duration::from_millis(300));
    }
}

/// What the server says of a file's length.
fn content_len(lab: &Lab, path: &str) -> Result<u64> {
    let url = format!("http://{}:{HTTP_PORT}{path}", Slot::SERVER.address());
    let head = lab.run(Slot::SERVER, &["curl", "-sSfI", &url])?;
    let field = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().to_owned())
    });
    field.with_context(|| format!("no length of {url}"))?.parse().context("the length is no number")
}
