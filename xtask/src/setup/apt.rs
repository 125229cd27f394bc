//! apt-get, run without anybody to answer it.

use std::ffi::OsString;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::asking::Answer;

/// On a machine that has just been installed, unattended-upgrades holds apt's locks: it downloads and
/// installs what has changed since the medium was made, some minutes on a slow one.
const LOCK_PATIENCE: Duration = Duration::from_secs(600);

/// Locks that apt itself does not wait for (its lists, its downloads) are asked for again after this.
const LOCK_INTERVAL: Duration = Duration::from_secs(5);

/// Lines of its output that are shown when it fails: its errors come last, after the packages that
/// do not fit together.
const REASON_LINES: usize = 20;

/// apt-get of this machine, or of a test.
pub(super) struct Apt {
    /// The program, and what comes before all arguments.
    pub(super) program: Vec<OsString>,
    pub(super) lock_interval: Duration,
}

impl Apt {
    pub(super) fn this() -> Self {
        Self { program: vec!["apt-get".into()], lock_interval: LOCK_INTERVAL }
    }

    /// Fetches the lists. A failure is worth telling only if an installation fails, too: the lists at
    /// hand may be good enough, or only one source of many be away.
    pub(super) fn update(&self) -> Result<()> {
        let out = self.run(&["update", "-qq"])?;
        ensure!(out.status.success(), "apt-get update: {}\n{}", out.status, reason(&out));
        Ok(())
    }

    /// One transaction.
    pub(super) fn install(&self, packages: &[&str]) -> Result<Answer> {
        let options = ["install", "-y", "-qq", "--no-install-recommends"];
        let out = self.run(&[&options, packages].concat())?;
        Ok(if out.status.success() { Answer::Done } else { Answer::Refused(reason(&out)) })
    }

    /// Runs it to its end, again while another program has a lock.
    fn run(&self, args: &[&str]) -> Result<Output> {
        let until = Instant::now() + LOCK_PATIENCE;
        let mut is_told = false;
        loop {
            let out = self.command(args).output().context("apt-get, of Debian or Ubuntu")?;
            if out.status.success() || !is_locked(&out) || Instant::now() >= until {
                return Ok(out);
            }
            if !is_told {
                eprintln!("waiting for another program that uses apt:\n{}", reason(&out));
                is_told = true;
            }
            std::thread::sleep(self.lock_interval);
        }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program[0]);
        command
            .args(&self.program[1..])
            .args(args)
            .arg(format!("-oDPkg::Lock::Timeout={}", LOCK_PATIENCE.as_secs()))
            // A question about a changed configuration would find nobody: the user's file stays.
            .args(["-oDpkg::Options::=--force-confdef", "-oDpkg::Options::=--force-confold"])
            .env("DEBIAN_FRONTEND", "noninteractive")
            // What it says is looked at.
            .env("LC_ALL", "C")
            // In the runlevel of a single user no service is started: in.tftpd and others would take
            // ports.
            .env("RUNLEVEL", "1")
            .stdin(Stdio::null());
        command
    }
}

fn is_locked(out: &Output) -> bool {
    let said = String::from_utf8_lossy(&out.stderr);
    said.contains("Could not get lock") || said.contains("Unable to lock")
}

/// The end of what it said.
fn reason(out: &Output) -> String {
    let said = [&out.stdout[..], &out.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let lines: Vec<_> = said.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(REASON_LINES)..].join("\n")
}
