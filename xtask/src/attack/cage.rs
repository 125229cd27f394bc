//! A control group whose memory ends: what is in it and needs more is killed by the kernel, as the unit of
//! the packages has it (`MemoryMax=`). Both hierarchies of Linux are known, as machines with the old one go on.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::lab::wait_until;

/// Where memory is limited: the folder, the file with the limit.
const PLACES: [(&str, &str); 2] =
    [("/sys/fs/cgroup", "memory.max"), ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")];

const PREFIX: &str = "boottorrent-attack";

static COUNT: AtomicUsize = AtomicUsize::new(0);

/// How long a killed process may take to be gone.
const ENDS: Duration = Duration::from_secs(2);

/// A group, removed when dropped.
pub(super) struct Cage(PathBuf);

impl Cage {
    /// Nothing where this process may make no group: then the peak that is read of the process is all
    /// that is judged, which is below this limit anyway.
    pub(super) fn new(limit_bytes: u64) -> Option<Self> {
        PLACES.iter().find_map(|(root, file)| {
            let root = Path::new(root);
            if !root.join("cgroup.procs").exists() {
                return None;
            }
            sweep(root);
            if *file == "memory.max" {
                std::fs::write(root.join("cgroup.subtree_control"), "+memory").ok()?;
            }
            // One for each server: cases run side by side.
            let number = COUNT.fetch_add(1, Ordering::Relaxed);
            let cage = Self(root.join(format!("{PREFIX}-{}.{number}", std::process::id())));
            std::fs::create_dir(&cage.0).ok()?;
            std::fs::write(cage.0.join(file), limit_bytes.to_string()).ok()?;
            Some(cage)
        })
    }

    /// Puts a process into it. What the process has already stays counted where it was.
    pub(super) fn hold(&self, pid: i32) -> Result<()> {
        let path = self.0.join("cgroup.procs");
        std::fs::write(&path, pid.to_string())
            .with_context(|| format!("writing {}", path.display()))
    }
}

impl Drop for Cage {
    fn drop(&mut self) {
        // The server that was killed just now is in it for some milliseconds yet.
        wait_until(ENDS, || std::fs::remove_dir(&self.0).is_ok());
    }
}

/// Removes groups of runs that are gone. One of this run may be empty for a moment.
fn sweep(root: &Path) {
    for entry in std::fs::read_dir(root).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let own = format!("{PREFIX}-{}.", std::process::id());
        if name.starts_with(PREFIX) && !name.starts_with(&own) {
            let _ = std::fs::remove_dir(entry.path());
        }
    }
}
