//! Trackers: ours, and opentracker, over HTTP and UDP. They run in the server's namespace.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::lab::{Lab, Process, Slot, Spawn};
use crate::release_binary;

const PORT: u16 = 6_969;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Tracker {
    is_ours: bool,
    scheme: &'static str,
}

impl Tracker {
    pub(crate) const OURS_HTTP: Self = Self { is_ours: true, scheme: "http" };
    pub(crate) const OURS_UDP: Self = Self { is_ours: true, scheme: "udp" };
    pub(crate) const OPEN_HTTP: Self = Self { is_ours: false, scheme: "http" };
    pub(crate) const OPEN_UDP: Self = Self { is_ours: false, scheme: "udp" };

    pub(crate) fn name(self) -> String {
        format!("{} ({})", if self.is_ours { "our tracker" } else { "opentracker" }, self.scheme)
    }

    pub(crate) fn is_udp(self) -> bool {
        self.scheme == "udp"
    }

    /// Where it listens.
    pub(crate) fn address(self) -> SocketAddr {
        (Slot::SERVER.address(), PORT).into()
    }

    /// The infohash that both trackers know a torrent by, in hexadecimal digits.
    pub(crate) fn infohash(lab: &Lab, metainfo: &Path) -> Result<String> {
        infohashes(lab, metainfo)?.into_iter().next().context("a torrent without infohash")
    }

    /// Its URL.
    pub(crate) fn announce(self) -> String {
        format!("{}://{}:{PORT}/announce", self.scheme, Slot::SERVER.address())
    }

    pub(crate) fn start(self, lab: &Lab, metainfo: &Path) -> Result<Process> {
        let spawn = if self.is_ours {
            let listen = format!("{}:{PORT}", Slot::SERVER.address());
            Spawn::new("tracker", release_binary()?).args(["tracker", "--listen", &listen])
        } else {
            opentracker(lab, metainfo)?
        };
        let process = lab.spawn(Slot::SERVER, spawn)?;
        process.wait_listening(PORT)?;
        Ok(process)
    }
}

/// Debian's build serves only torrents on a list, which it reads after it has locked itself into its
/// directory.
fn opentracker(lab: &Lab, metainfo: &Path) -> Result<Spawn> {
    let dir = lab.slot_dir(Slot::SERVER);
    let lines = infohashes(lab, metainfo)?.into_iter().map(|hash| hash + "\n");
    super::write(&dir.join("whitelist"), &lines.collect::<String>())?;
    let (address, port) = (Slot::SERVER.address().to_string(), PORT.to_string());
    Ok(Spawn::new("opentracker", "opentracker")
        .args(["-i", &address, "-p", &port, "-P", &port, "-w", "whitelist", "-d"])
        .arg(dir))
}

/// What trackers are told of a torrent's infohashes: their first 20 bytes (BEP 52).
fn infohashes(lab: &Lab, metainfo: &Path) -> Result<Vec<String>> {
    let binary = release_binary()?.to_string_lossy().into_owned();
    let metainfo = metainfo.to_string_lossy().into_owned();
    let shown = lab.run(Slot::SERVER, &[&binary, "torrent", "show", "-o", "json", &metainfo])?;
    let shown: serde_json::Value = serde_json::from_str(&shown).context("what show printed")?;
    let hashes = ["info_hash_v1", "info_hash_v2"].map(|name| shown[name].as_str());
    Ok(hashes.into_iter().flatten().map(|hash| hash[..40].to_owned()).collect())
}
