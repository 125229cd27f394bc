//! What a release consists of, built as it is shipped: `boottorrent`, and `boottorrent-agent` linked
//! statically, since phase 1 has no libraries.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use crate::{build_release, root, target_dir};

/// The agent's target. Naming it, though it is the machine's own, keeps `RUSTFLAGS` from build
/// scripts and procedural macros, which cannot be static.
const AGENT_TARGET: &str = "x86_64-unknown-linux-gnu";

/// As releases are, but small.
const AGENT_PROFILE: &str = "agent";

/// Most bytes of the agent: it is in every phase 1 that is sent to every node.
pub(crate) const AGENT_LEN_MAX: u64 = 4 << 20;

/// Builds both, and puts the agent where the server looks for it: beside itself.
pub(crate) fn build_all() -> Result<()> {
    build_release()?;
    build_agent()?;
    Ok(())
}

/// Builds the agent; where it is.
pub(crate) fn build_agent() -> Result<PathBuf> {
    let status = Command::new("cargo")
        .args(["build", "--profile", AGENT_PROFILE, "--package", "agent", "--target", AGENT_TARGET])
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .current_dir(root())
        .stdin(Stdio::null())
        .status()
        .context("running cargo")?;
    ensure!(status.success(), "building boottorrent-agent: {status}");
    let built = target_dir().join(AGENT_TARGET).join(AGENT_PROFILE).join("boottorrent-agent");
    let beside = target_dir().join("release/boottorrent-agent");
    // A server that runs may have it open: a new file, not new content.
    let _ = std::fs::remove_file(&beside);
    std::fs::copy(&built, &beside).with_context(|| format!("copying {}", built.display()))?;
    std::path::absolute(&beside).with_context(|| format!("finding {}", beside.display()))
}
