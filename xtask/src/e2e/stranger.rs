//! Other people's boot server: dnsmasq for DHCP and TFTP, Python for HTTP. It shows that firmware,
//! switch and test system of this harness work when ours is not there, so that a boot that fails with
//! ours is ours to explain; and it is the DHCP server beside which our proxy must live.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::testos::{self, TestOs};
use crate::lab::{Lab, Process, Slot, Spawn, wait_until};
use crate::setup;

const HTTP_PORT: u16 = 8_000;

/// Programs that run until they are dropped.
pub(crate) struct Stranger {
    pub(crate) dnsmasq: Process,
    _http: Option<Process>,
}

/// Starts dnsmasq as a network's DHCP server that knows nothing of booting, with a range of its own.
pub(crate) fn dhcp_server(lab: &Lab, slot: Slot) -> Result<Stranger> {
    let dnsmasq = dnsmasq(lab, slot, &[])?;
    Ok(Stranger { dnsmasq, _http: None })
}

/// As [`dhcp_server`], for a network where iPXE is told to run a script.
pub(crate) fn dhcp_server_for(lab: &Lab, slot: Slot, script_url: &str) -> Result<Stranger> {
    let dnsmasq = dnsmasq(lab, slot, &[&format!("--dhcp-boot={script_url}")])?;
    Ok(Stranger { dnsmasq, _http: None })
}

/// Starts a complete boot server that boots a test system without any part of ours.
pub(crate) fn boot_server(lab: &Lab, slot: Slot, testos: &TestOs) -> Result<Stranger> {
    let dir = lab.slot_dir(slot);
    for (from, to) in [
        (Path::new("/usr/lib/ipxe/undionly.kpxe"), "undionly.kpxe"),
        (Path::new("/usr/lib/ipxe/snponly.efi"), "snponly.efi"),
        (&testos.kernel().path(), "vmlinuz"),
        (testos.initrd(), "initrd.img"),
    ] {
        std::fs::copy(from, dir.join(to)).with_context(|| format!("copying {}", from.display()))?;
    }
    let base = format!("http://{}:{HTTP_PORT}", slot.address());
    let script = format!(
        "#!ipxe\nkernel {base}/vmlinuz initrd=initrd.img {}\ninitrd {base}/initrd.img\nboot\n",
        testos::cmdline("stranger")
    );
    std::fs::write(dir.join("boot.ipxe"), script).context("writing boot.ipxe")?;
    let dnsmasq = dnsmasq(
        lab,
        slot,
        &[
            "--enable-tftp",
            &format!("--tftp-root={}", dir.display()),
            "--dhcp-userclass=set:ipxe,iPXE",
            "--dhcp-match=set:uefi,option:client-arch,7",
            "--dhcp-boot=tag:!ipxe,tag:!uefi,undionly.kpxe",
            "--dhcp-boot=tag:!ipxe,tag:uefi,snponly.efi",
            &format!("--dhcp-boot=tag:ipxe,{base}/boot.ipxe"),
        ],
    )?;
    let spawn = Spawn::new("stranger-http", setup::PYTHON.file);
    let http = lab.spawn(slot, spawn.args(["-m", "http.server", &HTTP_PORT.to_string()]))?;
    http.wait_listening(HTTP_PORT)?;
    Ok(Stranger { dnsmasq, _http: Some(http) })
}

fn dnsmasq(lab: &Lab, slot: Slot, more: &[&str]) -> Result<Process> {
    let leases = lab.slot_dir(slot).join("dnsmasq.leases");
    let spawn = Spawn::new(format!("dnsmasq-{}", slot.name()), setup::DNSMASQ.file)
        .args(["--no-daemon", "--conf-file=/dev/null", "--port=0", "--log-dhcp", "--user=root"])
        .args(["--interface=eth0", "--bind-interfaces", "--dhcp-authoritative"])
        .arg(format!("--dhcp-leasefile={}", leases.display()))
        .arg("--dhcp-range=10.77.200.1,10.77.200.200,255.255.0.0,1h")
        .args(more);
    let process = lab.spawn(slot, spawn)?;
    // It says so on standard error once its sockets are open.
    let started = || process.exit().is_some() || process.log_tail().contains("DHCP, IP range");
    wait_until(Duration::from_secs(10), started);
    ensure!(process.exit().is_none(), "dnsmasq ended:\n{}", process.log_tail());
    Ok(process)
}
