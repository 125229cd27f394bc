//! Our DHCP server, other people's programs that ask it, and other people's servers beside it.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::{Row, line};
use crate::lab::{BEHIND, Lab, Process, Slot, Spawn, wait_until};
use crate::setup;

pub(super) const TOOLS: &[setup::Tool] = &[setup::BUSYBOX, setup::DNSMASQ, setup::PERFDHCP];

const TIMEOUT: Duration = Duration::from_secs(30);

/// What busybox calls with the lease in its environment.
const SCRIPT: &str = "#!/bin/sh\n[ \"$1\" = bound ] || exit 0\n\
     echo \"lease $ip $subnet $router $lease\"\necho \"boot $siaddr $boot_file\"\n";

/// Options with which busybox asks as the PXE client of a BIOS does.
const AS_PXE: &str = "-V PXEClient:Arch:00000:UNDI:002001 -x 0x5d:0000";

type Case = fn(&Path) -> Result<()>;

const CASES: &[(&str, Case)] = &[
    ("dhcp → busybox leases", busybox_leases),
    ("dhcp → perfdhcp leases, renews and releases", perfdhcp_renews),
    ("dhcp → leases survive kill -9", leases_survive),
    ("dhcp behind dnsmasq as relay agent", behind_a_relay),
    ("dhcp beside dnsmasq", beside_dnsmasq),
    ("dhcp: of two labs one refuses", two_labs),
];

/// Runs the cases whose names have one of the filters in them.
pub(super) fn run(filters: &[String], dir: &Path) -> Vec<Row> {
    let is_wanted = |name: &str| {
        filters.is_empty() || filters.iter().any(|filter| name.contains(filter.as_str()))
    };
    let mut rows = vec![];
    for (name, case) in CASES.iter().filter(|(name, _)| is_wanted(name)) {
        let start = Instant::now();
        let keep = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
        let logs =
            dir.join("logs").join(name.replace('→', "to").chars().map(keep).collect::<String>());
        let error = case(&logs).err();
        let row = Row { name: (*name).to_owned(), time: start.elapsed(), error };
        eprintln!("{}", line(&row));
        rows.push(row);
    }
    rows
}

/// Our server in a slot, with leases kept there.
fn start(lab: &Lab, slot: Slot, name: &str, args: &[&str]) -> Result<Process> {
    let address = slot.address().to_string();
    let spawn = Spawn::new(name, crate::release_binary()?)
        .args(["dhcp", "--interface", "eth0", "--address", &address, "--keep", "."])
        .args(args);
    lab.spawn(slot, spawn)
}

/// Waits until a log says something.
fn said(logs: &Path, name: &str, text: &str) -> Result<()> {
    let log = logs.join(format!("{name}.log"));
    let read = || std::fs::read_to_string(&log).unwrap_or_default();
    ensure!(
        wait_until(TIMEOUT, || read().contains(text)),
        "{name} does not say {text:?}: {}",
        read()
    );
    Ok(())
}

/// The lease that busybox was given in a slot; nothing if nobody answered for ten seconds. dnsmasq
/// looks for three whether an address is free.
fn udhcpc(lab: &Lab, slot: Slot) -> Result<Option<String>> {
    let text = udhcpc_with(lab, slot, "")?;
    Ok(text.lines().find_map(|line| line.strip_prefix("lease ")).map(str::to_owned))
}

/// All that busybox says when it asks with more options.
fn udhcpc_with(lab: &Lab, slot: Slot, options: &str) -> Result<String> {
    let script = lab.slot_dir(slot).join("script");
    super::write(&script, SCRIPT)?;
    lab.run(slot, &["chmod", "+x", "script"])?;
    // The program that is installed may be called otherwise than what it is asked to be.
    let command =
        format!("busybox udhcpc -i eth0 -n -q -t 10 -T 1 -s ./script {options} 2>&1 || true");
    lab.run(slot, &["sh", "-c", &command])
}

const SERVE: [&str; 3] = ["--mode", "server", "--force"];

fn busybox_leases(logs: &Path) -> Result<()> {
    let lab = Lab::new(2, None, logs)?;
    let args = [&SERVE[..], &["--range", "10.77.64.1-10.77.64.9", "--lease-time", "600"]].concat();
    let _server = start(&lab, Slot::SERVER, "boottorrent", &args)?;
    said(logs, "boottorrent", "DHCP server")?;
    let first = udhcpc(&lab, Slot::node(1))?.context("the first node has no lease")?;
    let second = udhcpc(&lab, Slot::node(2))?.context("the second node has no lease")?;
    for lease in [&first, &second] {
        ensure!(
            lease.starts_with("10.77.64.")
                && lease.contains("255.255.0.0")
                // Whom the server does not know has a short one first.
                && lease.ends_with("300"),
            "a strange lease: {lease}"
        );
    }
    ensure!(first != second, "both have {first}");
    ensure!(udhcpc(&lab, Slot::node(1))?.as_ref() == Some(&first), "another address for the same");
    Ok(())
}

fn perfdhcp_renews(logs: &Path) -> Result<()> {
    let lab = Lab::new(1, None, logs)?;
    let args = [&SERVE[..], &["--range", "10.77.64.1-10.77.80.254"]].concat();
    let server = start(&lab, Slot::SERVER, "boottorrent", &args)?;
    said(logs, "boottorrent", "DHCP server")?;
    let perfdhcp = setup::find(setup::PERFDHCP.file).context("perfdhcp is gone")?;
    let spawn = Spawn::new("perfdhcp", perfdhcp)
        .args(["-4", "-l", "eth0", "-r", "100", "-f", "40", "-F", "20", "-R", "2000", "-p", "3"])
        .arg(Slot::SERVER.address().to_string());
    let process = lab.spawn(Slot::node(1), spawn)?;
    process.wait(TIMEOUT).context("perfdhcp does not end")?;
    let text = std::fs::read_to_string(logs.join("perfdhcp.log"))?;
    for title in ["DISCOVER-OFFER", "REQUEST-ACK", "REQUEST-ACK (renewal)"] {
        let section = text.split_once(&format!("Statistics for: {title}***"));
        let section = section.with_context(|| format!("nothing of {title}: {text}"))?.1;
        let number = |label: &str| {
            let found = section.lines().find_map(|line| line.trim().strip_prefix(label));
            found.and_then(|rest| rest.trim().parse::<u32>().ok()).context("a number is missing")
        };
        let (sent, received) = (number("sent packets:")?, number("received packets:")?);
        // The last ones may be asked when the run is over, and a busy machine may lose some.
        let enough = sent > 50 && received * 20 >= sent * 19;
        ensure!(enough, "{title}: {received} of {sent} answered");
    }
    ensure!(server.exit().is_none(), "our server ended:\n{}", server.log_tail());
    Ok(())
}

/// With one address to give, only a server that remembers to whom can keep it from another.
fn leases_survive(logs: &Path) -> Result<()> {
    let lab = Lab::new(2, None, logs)?;
    let args = [&SERVE[..], &["--range", "10.77.64.1-10.77.64.1"]].concat();
    let server = start(&lab, Slot::SERVER, "before", &args)?;
    said(logs, "before", "DHCP server")?;
    let lease = udhcpc(&lab, Slot::node(1))?.context("the first node has no lease")?;
    server.signal(libc::SIGKILL);
    server.wait(TIMEOUT).context("the server survived kill -9")?;
    let _server = start(&lab, Slot::SERVER, "after", &args)?;
    said(logs, "after", "DHCP server")?;
    ensure!(udhcpc(&lab, Slot::node(2))?.is_none(), "the address was given to another");
    ensure!(udhcpc(&lab, Slot::node(1))? == Some(lease), "the lease is forgotten");
    Ok(())
}

/// A node in another network, whose router carries its questions to us and our answers to it.
fn behind_a_relay(logs: &Path) -> Result<()> {
    let lab = Lab::new(3, None, logs)?;
    let (router, near, far) = (Slot::node(1), Slot::node(2), Slot::node(3));
    lab.put_behind(router, far)?;
    let ranges = ["--range", "10.77.64.1-10.77.64.9", "--range", "10.78.64.1-10.78.64.9"];
    let _server = start(&lab, Slot::SERVER, "boottorrent", &[&SERVE[..], &ranges[..]].concat())?;
    said(logs, "boottorrent", "DHCP server")?;
    let dnsmasq = setup::find(setup::DNSMASQ.file).context("dnsmasq is gone")?;
    let spawn = Spawn::new("relay", dnsmasq)
        .args(["--keep-in-foreground", "--conf-file=/dev/null", "--user=root", "--port=0"])
        .args(["--log-facility=-", "--pid-file="])
        .arg(format!("--dhcp-relay={BEHIND},{}", Slot::SERVER.address()));
    let _relay = lab.spawn(router, spawn)?;
    said(logs, "relay", "DHCP relay")?;
    let text = udhcpc_with(&lab, far, AS_PXE)?;
    let of_far = |line: &str| {
        line.starts_with("lease 10.78.64.") && line.contains(&format!(" 255.255.0.0 {BEHIND} "))
    };
    ensure!(text.lines().any(of_far), "no lease of its network, with its router: {text}");
    let boot = format!("boot {} undionly.kpxe", Slot::SERVER.address());
    ensure!(text.lines().any(|line| line == boot), "no `{boot}`: {text}");
    let lease = udhcpc(&lab, near)?.context("a node beside the server has no lease")?;
    ensure!(lease.starts_with("10.77.64."), "{lease} is of the other network");
    Ok(())
}

fn beside_dnsmasq(logs: &Path) -> Result<()> {
    let lab = Lab::new(2, None, logs)?;
    let dnsmasq = setup::find(setup::DNSMASQ.file).context("dnsmasq is gone")?;
    let spawn = Spawn::new("dnsmasq", dnsmasq)
        .args(["--keep-in-foreground", "--conf-file=/dev/null", "--user=root", "--port=0"])
        .args(["--log-facility=-", "--pid-file=", "--interface=eth0", "--dhcp-authoritative"])
        .args(["--dhcp-range=10.77.200.1,10.77.200.9,255.255.0.0,1h", "--dhcp-leasefile=leases"]);
    let other = Slot::node(1);
    let _dnsmasq = lab.spawn(other, spawn)?;
    said(logs, "dnsmasq", "DHCP")?;
    let range = ["--range", "10.77.64.1-10.77.64.9"];
    let waits = start(&lab, Slot::SERVER, "server", &[&["--mode", "server"], &range[..]].concat())?;
    said(
        logs,
        "server",
        &format!(
            "waits until it is alone, the rest of the server runs: another DHCP server, {}, answers",
            other.address()
        ),
    )?;
    ensure!(waits.exit().is_none(), "it ended:\n{}", waits.log_tail());
    waits.signal(libc::SIGKILL);
    waits.wait(TIMEOUT).context("the server survived kill -9")?;
    let _proxy = start(&lab, Slot::SERVER, "auto", &range)?;
    said(logs, "auto", &format!("proxyDHCP, beside {}", other.address()))?;
    let lease = udhcpc(&lab, Slot::node(2))?.context("nobody gives a lease")?;
    ensure!(lease.starts_with("10.77.200."), "{lease} is not of dnsmasq");
    Ok(())
}

fn two_labs(logs: &Path) -> Result<()> {
    let lab = Lab::new(1, None, logs)?;
    let range = ["--range", "10.77.64.1-10.77.64.9"];
    let first = start(&lab, Slot::SERVER, "first", &range)?;
    said(logs, "first", "DHCP server")?;
    for mode in ["auto", "server", "proxy"] {
        let name = format!("second-{mode}");
        let args = [&["--mode", mode], &range[..]].concat();
        let second = start(&lab, Slot::node(1), &name, &args)?;
        let waits =
            "waits until it is alone, the rest of the server runs: another BootTorrent server";
        said(logs, &name, &format!("{waits}, {}", Slot::SERVER.address()))?;
        ensure!(second.exit().is_none(), "{name} ended:\n{}", second.log_tail());
        second.signal(libc::SIGKILL);
        second.wait(TIMEOUT).context("the second server survived kill -9")?;
    }
    ensure!(first.exit().is_none(), "the first one ended:\n{}", first.log_tail());
    said(logs, "first", &format!("another BootTorrent server, {}", Slot::node(1).address()))
}
