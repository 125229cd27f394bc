//! Removes a lab: its processes, namespaces, and memory file system.
//!
//! Only things that carry a lab's prefix are touched, and of labs of other runs only those whose
//! run is gone.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::Result;

use super::{PREFIX, output};

/// Removes labs whose run no longer exists (it was killed, so its `Drop` never ran).
pub(super) fn stale_labs() -> Result<()> {
    let listed = output(Command::new("ip").args(["netns", "list"]))?;
    let mut prefixes: Vec<&str> = listed
        .lines()
        .filter_map(|line| line.split_whitespace().next()?.split_once('-'))
        .map(|(prefix, _)| prefix)
        .filter(|prefix| run_is_gone(prefix))
        .collect();
    prefixes.dedup();
    for prefix in prefixes {
        remove_lab(prefix, &std::env::temp_dir().join(prefix));
    }
    Ok(())
}

fn run_is_gone(prefix: &str) -> bool {
    let run = prefix.strip_prefix(PREFIX).and_then(|run| run.split('.').next());
    match run.map(str::parse::<u32>) {
        Some(Ok(pid)) => !is_xtask(pid),
        _ => false,
    }
}

/// Whether a process is a run of these commands: a number that another program got since does not
/// keep alive what a run has left.
pub(crate) fn is_xtask(pid: u32) -> bool {
    let comm = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    comm.starts_with("xtask")
}

/// Removes one lab. Never fails: it runs in `Drop`, and what cannot go now is swept next time.
pub(super) fn remove_lab(prefix: &str, dir: &Path) {
    let listed = output(Command::new("ip").args(["netns", "list"])).unwrap_or_default();
    let marker = format!("{prefix}-");
    let namespaces = listed
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| name.starts_with(&marker));
    let mut lines = String::new();
    for namespace in namespaces {
        let pids = output(Command::new("ip").args(["netns", "pids", namespace]));
        for pid in pids.unwrap_or_default().split_whitespace().filter_map(|pid| pid.parse().ok()) {
            super::process::kill(pid, libc::SIGKILL);
        }
        lines.push_str(&format!("netns del {namespace}\n"));
    }
    if let Err(error) = super::batch(Command::new("ip"), &lines) {
        eprintln!("lab {prefix}: {error}");
    }
    // Lazy: a process that dies just now may still hold a file.
    let _ = Command::new("umount")
        .args(["-l", "-q"])
        .arg(dir)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    let _ = std::fs::remove_dir(dir);
}
