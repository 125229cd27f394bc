//! What the cases are made of: agents, DHCP servers, and looks at an interface.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::lab::{Lab, Process, Slot, Spawn, wait_until};
use crate::{release_binary, setup};

/// A lab and the agent's program.
pub(crate) struct Room<'a> {
    pub(crate) lab: &'a Lab,
    pub(crate) agent: &'a Path,
}

/// A running agent, and the leases that it has printed.
pub(crate) struct Agent {
    pub(crate) process: Process,
    leases: Arc<Mutex<Vec<Value>>>,
}

impl Agent {
    /// The latest lease that `is_it` says yes to.
    pub(crate) fn lease(&self, within: Duration, is_it: impl Fn(&Value) -> bool) -> Result<Value> {
        let find = || {
            let leases = self.leases.lock().unwrap_or_else(PoisonError::into_inner);
            leases.iter().rev().find(|lease| is_it(lease)).cloned()
        };
        wait_until(within, || find().is_some() || self.process.exit().is_some_and(|e| e.code != 0));
        match find() {
            Some(lease) => Ok(lease),
            None => bail!("no such lease within {within:?}:\n{}", self.process.log_tail()),
        }
    }

    /// The end of an agent that must fail, with this code on its standard error.
    pub(crate) fn fails(&self, within: Duration, code: &str) -> Result<()> {
        let exit = self.process.wait(within).context("the agent goes on")?;
        let log = self.process.log_tail();
        ensure!(
            exit.code == 1 && log.contains(code),
            "exit {} instead of {code}:\n{log}",
            exit.code
        );
        Ok(())
    }
}

impl Room<'_> {
    /// A node as its kernel finds itself: no address, and no interface up, loopback neither.
    pub(crate) fn bare_node(&self, number: usize) -> Result<Slot> {
        let slot = Slot::node(number);
        self.ip(slot, "address flush dev eth0")?;
        self.ip(slot, "link set eth0 down")?;
        self.ip(slot, "link set lo down")?;
        Ok(slot)
    }

    /// Starts the agent's network part there.
    pub(crate) fn agent(&self, slot: Slot, args: &str) -> Result<Agent> {
        let leases = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&leases);
        let spawn = Spawn::new(format!("agent-{}", slot.name()), self.agent)
            .args(["network", "--interface", "eth0"])
            .args(args.split_whitespace())
            .on_line(move |line| {
                if let Ok(lease) = serde_json::from_str(line) {
                    heard.lock().unwrap_or_else(PoisonError::into_inner).push(lease);
                }
            });
        Ok(Agent { process: self.lab.spawn(slot, spawn)?, leases })
    }

    /// Starts a DHCP server for 10.77.`range`.50 to .99. It does not look whether an address is
    /// free before it offers it, which takes dnsmasq 3 s.
    pub(crate) fn dnsmasq(&self, slot: Slot, range: u8, more: &[&str]) -> Result<Process> {
        let leases = self.lab.slot_dir(slot).join(format!("{range}.leases"));
        let spawn = Spawn::new(format!("dnsmasq-{}-{range}", slot.name()), setup::DNSMASQ.file)
            .args(["--no-daemon", "--conf-file=/dev/null", "--port=0", "--log-dhcp", "--user=root"])
            .args(["--interface=eth0", "--bind-interfaces", "--dhcp-authoritative", "--no-ping"])
            .arg(format!("--dhcp-leasefile={}", leases.display()))
            .arg(format!("--dhcp-range=10.77.{range}.50,10.77.{range}.99,255.255.0.0,1h"))
            .args(more);
        let process = self.lab.spawn(slot, spawn)?;
        let started = || process.exit().is_some() || process.log_tail().contains("DHCP, IP range");
        wait_until(super::SOON, started);
        ensure!(process.exit().is_none(), "dnsmasq ended:\n{}", process.log_tail());
        Ok(process)
    }

    /// Starts our own for the same addresses. Leases are kept in the slot's folder.
    pub(crate) fn boottorrent_dhcp(&self, slot: Slot, range: u8, args: &str) -> Result<Process> {
        let spawn = Spawn::new("boottorrent-dhcp", release_binary()?)
            .args(["dhcp", "--interface", "eth0", "--mode", "server", "--force", "--keep", "."])
            .arg("--address")
            .arg(slot.address().to_string())
            .arg("--range")
            .arg(format!("10.77.{range}.50-10.77.{range}.99"))
            .args(args.split_whitespace());
        let process = self.lab.spawn(slot, spawn)?;
        let started = || process.exit().is_some() || process.log().contains("10.77.");
        wait_until(super::SOON, started);
        ensure!(process.exit().is_none(), "boottorrent dhcp ended:\n{}", process.log_tail());
        Ok(process)
    }

    /// IPv4 addresses of a node's interface, with their prefixes.
    pub(crate) fn addresses(&self, slot: Slot) -> Result<Vec<String>> {
        let text = self.ip(slot, "-4 -j address show dev eth0")?;
        let json: Value = serde_json::from_str(&text).context("iproute2's JSON")?;
        let all = json[0]["addr_info"].as_array().cloned().unwrap_or_default();
        Ok(all
            .iter()
            .map(|one| format!("{}/{}", text_of(&one["local"]), one["prefixlen"]))
            .collect())
    }

    /// The way to somewhere outside of the lab.
    pub(crate) fn way_out(&self, slot: Slot) -> Result<String> {
        let text = self.ip(slot, "-j route get 192.0.2.1")?;
        let json: Value = serde_json::from_str(&text).context("iproute2's JSON")?;
        Ok(format!("{} from {}", text_of(&json[0]["gateway"]), text_of(&json[0]["prefsrc"])))
    }

    /// Runs `ip` in a slot.
    pub(crate) fn ip(&self, slot: Slot, args: &str) -> Result<String> {
        let argv: Vec<&str> = std::iter::once("ip").chain(args.split_whitespace()).collect();
        self.lab.run(slot, &argv)
    }
}

/// A string of a JSON value; empty if it is none.
pub(crate) fn text_of(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
