//! The origin of a chain whose endpoints are just being started: waits for them, then becomes
//! `boottorrent lan send`.

use std::io::Write as _;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::Args;

/// Endpoints on two busy cores start in a fraction of this.
const START_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Args)]
pub(crate) struct Origin {
    binary: PathBuf,
    file: PathBuf,
    password: PathBuf,
    /// host:port/path
    targets: Vec<String>,
}

impl Origin {
    pub(super) fn run(&self) -> Result<()> {
        let deadline = Instant::now() + START_TIMEOUT;
        for target in &self.targets {
            let address = target.split('/').next().unwrap_or_default();
            while TcpStream::connect(address).is_err() {
                ensure!(Instant::now() < deadline, "{address} does not listen");
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        let mut send = Command::new(&self.binary)
            .args(["lan", "send", "-o", "json", "--password-file"])
            .arg(&self.password)
            .arg(&self.file)
            .stdin(Stdio::piped())
            .spawn()
            .context("starting the origin")?;
        let mut input = send.stdin.take().context("stdin is piped")?;
        input.write_all(self.targets.join("\n").as_bytes())?;
        drop(input);
        send.wait()?;
        Ok(())
    }
}
