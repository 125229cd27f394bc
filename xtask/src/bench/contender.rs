//! The programs that are compared: how each is started as a server and as a node, and how it says
//! that it is done. Each is tuned as well as its documentation allows; a contender that loses on a
//! default value would prove nothing.

mod aria2;
mod chain;
mod curl;
mod lan;
mod libtorrent;
mod original;
pub(crate) mod ours;
mod rsync;
mod udpcast;

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::case::Case;
use super::image::{self, Image};
use crate::lab::{Lab, Process, Slot, Spawn};
use crate::setup::Tool;

/// Where every tracker listens.
pub(crate) const TRACKER_PORT: u16 = 6_969;

/// Where a run takes place.
pub(crate) struct Stage<'a> {
    pub(crate) lab: &'a Lab,
    pub(crate) image: &'a Image,
    /// The image in the server's directory.
    pub(crate) path: PathBuf,
    pub(crate) node_count: usize,
}

/// How a node's completion shows.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Done {
    /// It ends with success.
    Exit,
    /// It prints a line with this in it, and stays.
    Line(&'static str),
}

/// A program to compare with.
pub(crate) trait Contender {
    fn name(&self) -> &'static str;

    /// What must be installed.
    fn tools(&self) -> Vec<Tool>;

    /// Whether it is run in a case unless told otherwise.
    fn fits(&self, case: Case, node_count: usize) -> bool;

    /// Starts all that runs on the server; returns when nodes can come.
    fn start_server(&self, stage: &Stage<'_>) -> Result<Vec<Process>>;

    /// The command of a node. It must leave the file at [`Stage::result`].
    fn node(&self, stage: &Stage<'_>, node: Slot) -> Result<(Spawn, Done)>;
}

/// All of them, ours first.
pub(crate) fn all() -> Vec<Box<dyn Contender>> {
    vec![
        Box::new(ours::Ours),
        Box::new(lan::Lan),
        Box::new(chain::Chain),
        Box::new(udpcast::Udpcast),
        Box::new(libtorrent::Libtorrent),
        Box::new(aria2::Aria2),
        Box::new(original::Original),
        Box::new(curl::Curl),
        Box::new(rsync::Rsync),
    ]
}

impl Stage<'_> {
    /// Where a node's file must end up.
    pub(crate) fn result(&self, node: Slot) -> PathBuf {
        self.lab.slot_dir(node).join(image::NAME)
    }

    pub(crate) fn server_dir(&self) -> PathBuf {
        self.lab.slot_dir(Slot::SERVER)
    }

    /// Where the metainfo is, once somebody made it.
    pub(crate) fn metainfo(&self) -> PathBuf {
        self.server_dir().join("image.torrent")
    }

    pub(crate) fn tracker(&self) -> SocketAddr {
        (Slot::SERVER.address(), TRACKER_PORT).into()
    }

    /// Makes the metainfo for programs that cannot: v1, 512 pieces, which measured better than
    /// fewer for all of them.
    fn make_torrent(&self) -> Result<()> {
        let power = (self.image.len / 512).max(1 << 15).next_power_of_two().ilog2();
        let announce = format!("http://{}/announce", self.tracker());
        let out = Command::new("mktorrent")
            .args(["-a", &announce, "-l", &power.to_string(), "-o"])
            .arg(self.metainfo())
            .arg(&self.path)
            .output()
            .context("running mktorrent")?;
        ensure!(out.status.success(), "mktorrent: {}", String::from_utf8_lossy(&out.stderr));
        Ok(())
    }

    /// Starts opentracker on the server. Debian's build serves only torrents on a list, which it
    /// reads after it has locked itself into its directory.
    fn start_opentracker(&self) -> Result<Process> {
        let shown = Command::new("transmission-show").arg(self.metainfo()).output();
        let shown = shown.context("running transmission-show")?;
        let shown = String::from_utf8_lossy(&shown.stdout);
        let hash = shown.lines().find_map(|line| line.trim().strip_prefix("Hash: "));
        let hash = hash.context("transmission-show prints no infohash")?;
        std::fs::write(self.server_dir().join("whitelist"), format!("{hash}\n"))?;
        let (address, port) = (Slot::SERVER.address().to_string(), TRACKER_PORT.to_string());
        let spawn = Spawn::new("opentracker", "opentracker")
            .args(["-i", &address, "-p", &port, "-P", &port, "-w", "whitelist", "-d"])
            .arg(self.server_dir());
        let tracker = self.lab.spawn(Slot::SERVER, spawn)?;
        tracker.wait_listening(TRACKER_PORT)?;
        Ok(tracker)
    }
}

/// This binary in another role.
pub(crate) fn own(role: &str) -> Result<Spawn> {
    let program = std::env::current_exe().context("finding this program")?;
    Ok(Spawn::new(role, program).args(["peer", role]))
}

fn named(node: Slot, program: impl AsRef<OsStr>) -> Spawn {
    Spawn::new(node.name(), program.as_ref())
}
