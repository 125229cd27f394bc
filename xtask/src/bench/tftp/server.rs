//! The servers that are compared, each as its documentation advises for many nodes.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::lab::{Lab, Process, Slot, Spawn, wait_until};
use crate::setup;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Server {
    Ours,
    Dnsmasq,
    TftpdHpa,
}

impl Server {
    pub(super) const ALL: [Self; 3] = [Self::Ours, Self::Dnsmasq, Self::TftpdHpa];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Ours => "boottorrent",
            Self::Dnsmasq => "dnsmasq",
            Self::TftpdHpa => "tftpd-hpa",
        }
    }

    /// Whether it knows windows of this size.
    pub(super) fn fits(self, windowsize: u16) -> bool {
        self == Self::Ours || windowsize == 1
    }

    /// Starts it on port 69 of the lab's server; returns when it listens.
    pub(super) fn start(self, lab: &Lab, root: &Path) -> Result<Process> {
        let address = Slot::SERVER.address().to_string();
        let spawn = match self {
            Self::Ours => Spawn::new("boottorrent", crate::release_binary()?)
                .arg("tftp")
                .arg(root)
                .args(["--listen", &format!("{address}:69"), "--interface", "eth0"]),
            Self::Dnsmasq => Spawn::new("dnsmasq", program("dnsmasq"))
                .args(["--keep-in-foreground", "--conf-file=/dev/null", "--user=root", "--port=0"])
                .args(["--enable-tftp", "--tftp-max=1000", "--log-facility=-"])
                .args(["--pid-file="])
                .arg(format!("--tftp-root={}", root.display()))
                .arg(format!("--listen-address={address}")),
            Self::TftpdHpa => Spawn::new("tftpd-hpa", program("in.tftpd"))
                .args(["--foreground", "--user", "root", "--secure", "--address"])
                .arg(format!("{address}:69"))
                .arg(root),
        };
        let process = lab.spawn(Slot::SERVER, spawn)?;
        let listens = || {
            // As the kernel prints port 69.
            let table = lab.run(Slot::SERVER, &["cat", "/proc/net/udp"]).unwrap_or_default();
            process.exit().is_some() || table.contains(":0045 ")
        };
        let found = wait_until(Duration::from_secs(10), listens);
        ensure!(
            found && process.exit().is_none(),
            "{} does not listen:\n{}",
            self.name(),
            process.log_tail()
        );
        Ok(process)
    }
}

fn program(name: &str) -> std::path::PathBuf {
    setup::find(name).unwrap_or_else(|| name.into())
}
