//! What of this program goes on when the image's system runs: a process that seeds the image from
//! memory, tells the server so, and keeps the node's address until the system does that itself.
//!
//! It is started by the first process just before that becomes the system's init, from the same
//! program file, which may be deleted by then. Its name begins with `@`: systemd takes that for a
//! process of the initramfs that it must not kill at shutdown (systemd.io/ROOT_STORAGE_DAEMONS), so it
//! looks itself for the end ([`system`]).

mod pressure;
mod process;
pub(crate) mod seeding;
mod system;

use std::io::{self, Read as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use boot::report::Machine;
use boot::{ImageName, Mac};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::{Deserialize, Serialize};

pub(crate) use self::process::run;

/// The word that this program is started with.
pub(crate) const WORD: &str = "booted";

/// What it is shown as.
const NAME: &str = "@boottorrent-agent";

/// In the folder that only the first user can look into, which comes along into the new root.
const FILE: &str = "/run/boottorrent/handover.json";

/// What it says on its standard output when it seeds, or will not.
const READY: &[u8] = b"ready\n";

/// How long the system's start may wait for that: it takes some milliseconds, as nothing is hashed.
const READY_TIMEOUT: Timespec = Timespec { tv_sec: 2, tv_nsec: 0 };

/// What goes from the one process to the other.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Handover {
    /// The server's URL, if it is known.
    pub(crate) server: Option<String>,
    /// This node.
    pub(crate) node: Option<Mac>,
    /// What shows the server that it is this node which reports.
    #[serde(default)]
    pub(crate) proof: Option<String>,
    /// The number of this boot.
    pub(crate) boot: u64,
    /// The number of the last report; more may have been tried.
    pub(crate) sequence: u64,
    /// What this node is.
    pub(crate) machine: Machine,
    /// What it boots.
    pub(crate) image: ImageName,
    /// What is seeded, if anything is.
    pub(crate) seed: Option<Seed>,
    /// Seconds for which the address is leased, from now on; for ever if none.
    pub(crate) lease_s: Option<u64>,
}

/// A verified image in memory.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Seed {
    /// The folder that the torrent's paths are relative to.
    pub(crate) dir: PathBuf,
    /// The torrent's file.
    pub(crate) torrent: PathBuf,
    /// Whether peers tell of peers.
    pub(crate) pex: bool,
    /// Whether peers are looked for by multicast.
    pub(crate) lsd: bool,
    /// The most to send.
    pub(crate) upload_limit_bytes_per_s: Option<u64>,
    /// Bytes that others have had from this node before.
    pub(crate) uploaded_bytes: u64,
}

impl Handover {
    /// Writes it to where the other process looks.
    pub(super) fn save(&self) -> io::Result<()> {
        let bytes = serde_json::to_vec(self)?;
        if let Some(dir) = Path::new(FILE).parent() {
            std::fs::create_dir_all(dir)?;
        }
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.create(true).write(true).truncate(true).mode(0o600).open(FILE)?;
        io::Write::write_all(&mut file, &bytes)
    }

    fn load() -> io::Result<Self> {
        Ok(serde_json::from_slice(&std::fs::read(FILE)?)?)
    }
}

/// Starts the process, and waits until it seeds: for a moment at most, the system comes first.
///
/// # Errors
/// If it cannot be started.
pub(crate) fn spawn() -> io::Result<()> {
    // The link leads to the file itself, which has no name any more.
    let mut command = Command::new("/proc/self/exe");
    command.arg0(NAME).arg(WORD).env_clear();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    // SAFETY: one system call, allowed between fork and exec.
    unsafe {
        // A session of its own: no terminal's signals are for it.
        command.pre_exec(|| {
            libc::setsid();
            Ok(())
        });
    }
    let mut child = command.spawn()?;
    if let Some(mut out) = child.stdout.take() {
        let mut fds = [PollFd::from_borrowed_fd(out.as_fd(), PollFlags::IN)];
        if poll(&mut fds, Some(&READY_TIMEOUT)).is_ok_and(|count| count > 0) {
            // Its end says as much as its word.
            let _ = out.read(&mut [0; READY.len()]);
        }
    }
    // Its end is for the system's init to see, as that of any orphan.
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_handed_over_arrives() {
        let handover = Handover {
            server: Some("http://10.0.0.1:8080".to_owned()),
            node: Some(Mac([2, 0, 0, 0, 0, 1])),
            proof: Some("1a-2b".to_owned()),
            boot: u64::MAX,
            sequence: 7,
            machine: crate::machine::look(Path::new("/nonexistent")),
            image: "debian".parse().unwrap(),
            seed: Some(Seed {
                dir: "/run/boottorrent/images/ab".into(),
                torrent: "/run/boottorrent/torrent".into(),
                pex: true,
                lsd: false,
                upload_limit_bytes_per_s: Some(1 << 20),
                uploaded_bytes: 9,
            }),
            lease_s: Some(3_600),
        };
        let bytes = serde_json::to_vec(&handover).unwrap();
        let read: Handover = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(format!("{read:?}"), format!("{handover:?}"));
    }
}
