//! Trackers: ours, and opentracker, over HTTP and UDP. They run in the server's namespace.

use std::path::Path;

use anyhow::{Context as _, Result};

use crate::lab::{Lab, Process, Slot, Spawn};
use crate::release_binary;

const PORT: u16 = 6_969;

#[derive(Debug, Clone, Copy)]
pub(super) struct Tracker {
    is_ours: bool,
    scheme: &'static str,
}

impl Tracker {
    pub(super) const OURS_HTTP: Self = Self { is_ours: true, scheme: "http" };
    pub(super) const OURS_UDP: Self = Self { is_ours: true, scheme: "udp" };
    pub(super) const OPEN_HTTP: Self = Self { is_ours: false, scheme: "http" };
    pub(super) const OPEN_UDP: Self = Self { is_ours: false, scheme: "udp" };

    pub(super) fn name(self) -> String {
        format!("{} ({})", if self.is_ours { "our tracker" } else { "opentracker" }, self.scheme)
    }

    /// Its URL.
    pub(super) fn announce(self) -> String {
        format!("{}://{}:{PORT}/announce", self.scheme, Slot::SERVER.address())
    }

    pub(super) fn start(self, lab: &Lab, metainfo: &Path) -> Result<Process> {
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
    let binary = release_binary()?.to_string_lossy().into_owned();
    let metainfo = metainfo.to_string_lossy().into_owned();
    let shown = lab.run(Slot::SERVER, &[&binary, "torrent", "show", "-o", "json", &metainfo])?;
    let shown: serde_json::Value = serde_json::from_str(&shown).context("what show printed")?;
    let hashes = ["info_hash_v1", "info_hash_v2"].map(|name| shown[name].as_str());
    // BEP 52: a tracker is told the first 20 bytes of a v2 infohash.
    let lines = hashes.into_iter().flatten().map(|hash| format!("{}\n", &hash[..40]));
    super::write(&dir.join("whitelist"), &lines.collect::<String>())?;
    let (address, port) = (Slot::SERVER.address().to_string(), PORT.to_string());
    Ok(Spawn::new("opentracker", "opentracker")
        .args(["-i", &address, "-p", &port, "-P", &port, "-w", "whitelist", "-d"])
        .arg(dir))
}
