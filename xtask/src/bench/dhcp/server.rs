//! The servers that are compared, each as its documentation advises for many machines.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::RANGE;
use crate::lab::{Lab, Process, Slot, Spawn, wait_until};
use crate::setup;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Server {
    Ours,
    Dnsmasq,
}

impl Server {
    pub(super) const ALL: [Self; 2] = [Self::Ours, Self::Dnsmasq];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Ours => "boottorrent",
            Self::Dnsmasq => "dnsmasq",
        }
    }

    /// Starts it on port 67 of the lab's server; returns when it listens. It must answer at once:
    /// ours does not look for others first, and neither pings addresses before it offers them.
    pub(super) fn start(self, lab: &Lab) -> Result<Process> {
        let address = Slot::SERVER.address().to_string();
        let leases = lab.slot_dir(Slot::SERVER).join(self.name());
        let [first, last] = RANGE;
        let spawn = match self {
            Self::Ours => Spawn::new(self.name(), crate::release_binary()?)
                .args(["dhcp", "--interface", "eth0", "--address", &address])
                .args(["--range", &format!("{first}-{last}"), "--mode", "server", "--force"])
                .arg("--keep")
                .arg(&leases),
            Self::Dnsmasq => Spawn::new(self.name(), program(setup::DNSMASQ.file))
                .args(["--keep-in-foreground", "--conf-file=/dev/null", "--user=root", "--port=0"])
                .args(["--log-facility=-", "--quiet-dhcp", "--pid-file=", "--interface=eth0"])
                .args(["--dhcp-authoritative", "--no-ping", "--dhcp-lease-max=100000"])
                .arg(format!("--dhcp-range={first},{last},255.255.0.0,12h"))
                .arg(format!("--dhcp-leasefile={}", leases.display())),
        };
        let process = lab.spawn(Slot::SERVER, spawn)?;
        let listens = || {
            // As the kernel prints port 67.
            let table = lab.run(Slot::SERVER, &["cat", "/proc/net/udp"]).unwrap_or_default();
            process.exit().is_some() || table.contains(":0043 ")
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
