//! What does not fit is said before it is fetched, and what every node fetches is small.

use anyhow::{Context as _, Result, ensure};

use super::{IMAGE, serve, start, wait_failure};
use crate::artifact::AGENT_LEN_MAX;
use crate::e2e::Stage;
use crate::e2e::machine::{Firmware, Spec};
use crate::e2e::server::{Config, HTTP_PORT};
use crate::lab::{Lab, Slot};
use crate::target_dir;

/// Of the machine.
const MEMORY_MIB: u32 = 512;

/// More than its memory.
const IMAGE_LEN: u64 = 1 << 30;

/// Of phase 1's initramfs: firmware fetches it, often by TFTP, before any peer can help.
const INITRAMFS_LEN_MAX: u64 = 16 << 20;

pub(super) fn run(stage: &Stage<'_>) -> Result<()> {
    let agent_len = std::fs::metadata(target_dir().join("release/boottorrent-agent"))?.len();
    ensure!(agent_len <= AGENT_LEN_MAX, "the agent has {agent_len} bytes, {AGENT_LEN_MAX} at most");
    let lab = Lab::new(0, None, &stage.dir)?;
    let mut server = serve(&lab, stage, &Config::default(), &[(IMAGE, 0)])?;
    server.stop()?;
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
    let machine = start(&lab, stage, Spec::new(1, Firmware::Ipxe).memory_mib(MEMORY_MIB))?;
    wait_failure(&server, &machine, "BT43")?;
    ensure!(
        !machine.console()?.has("BOOTTORRENT stage=downloading"),
        "it began to fetch an image that cannot fit"
    );
    server.keep_status(&stage.dir)?;
    server.stop()
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
