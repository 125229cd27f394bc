//! Phase 1 of a system's own kernel: made there by the package's program, and served as it was made.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::super::{output, sha256_of};
use super::{ADDRESS, Debian};

/// A card of many machines, one of cheap ones, those of virtual ones, and what live images need: modules
/// of every kernel that Debian builds.
const DRIVERS: &[&str] = &["e1000e", "r8169", "virtio_net", "squashfs", "overlay"];

/// Promised in SPECIFICATION.md for Debian's kernels.
const INITRAMFS_LEN_MAX: u64 = 16 << 20;

/// What `phase1 show` says of the newest.
pub(super) struct Phase1Record(Value);

impl Phase1Record {
    /// Has it made, by root, as before a first start.
    pub(super) fn build(debian: &Debian) -> Result<Self> {
        debian.in_lab("boottorrent phase1 build")?;
        let said = debian.in_lab("boottorrent phase1 show --output json")?;
        let record = Self(serde_json::from_str(&said).context("phase1 show")?);
        record.is_of(debian).with_context(|| format!("phase 1 is {said}"))?;
        Ok(record)
    }

    fn is_of(&self, debian: &Debian) -> Result<()> {
        let kernel = debian.release.kernel;
        let version = self.0["version"].as_str().unwrap_or_default();
        ensure!(version.starts_with(kernel), "its kernel is {version}, not {kernel}…");
        for driver in DRIVERS {
            ensure!(!self.0["modules"][driver].is_null(), "it has no driver {driver}");
        }
        let agent = debian.tree.join("usr/lib/boottorrent/boottorrent-agent");
        ensure!(self.0["agent"]["sha256"] == sha256_of(&agent)?, "its agent is another");
        let len = self.0["initramfs"]["len"].as_u64().unwrap_or(u64::MAX);
        ensure!(len <= INITRAMFS_LEN_MAX, "its initramfs has {len} bytes");
        Ok(())
    }

    /// The running service hands out these files.
    pub(super) fn is_served(&self, debian: &Debian) -> Result<()> {
        for (file, field) in [("vmlinuz", "kernel"), ("initramfs.img", "initramfs")] {
            let url = format!("http://{ADDRESS}:8080/phase1/{file}");
            let to = debian.tree.with_extension(file);
            let mut curl = debian.machine.outside("curl");
            output(curl.args(["--fail", "--silent", &url, "--output"]).arg(&to))?;
            let sha256 = sha256_of(&to)?;
            ensure!(self.0[field]["sha256"] == sha256, "{url} has the SHA-256 {sha256}");
        }
        Ok(())
    }
}
