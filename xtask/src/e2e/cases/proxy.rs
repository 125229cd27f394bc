//! Beside other people's DHCP server: `auto` finds it and becomes a proxy, also for a machine whose
//! firmware asks a second time on port 4011. A server that is told to lease waits with it.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::{IMAGE, SERVER_TIMEOUT, serve, start, wait_agent, wait_ready};
use crate::e2e::machine::{Card, Firmware, Spec};
use crate::e2e::server::{Config, Server};
use crate::e2e::{Stage, stranger};
use crate::lab::{Lab, Slot};

/// How long a server may look for another one before it says so.
const LOOK_TIMEOUT: Duration = Duration::from_secs(30);

pub(super) fn run(stage: &Stage<'_>) -> Result<()> {
    let lab = Lab::new(2, None, &stage.dir)?;
    let stranger = stranger::dhcp_server(&lab, Slot::node(1))?;
    waits_beside(&lab, stage, Slot::node(1))?;
    let config = Config { dhcp: "auto", ..Config::default() };
    let mut server = serve(&lab, stage, &config, &[(IMAGE, 0)])?;
    let mut machines = vec![];
    for spec in [
        Spec::new(1, Firmware::Uefi),
        Spec::new(2, Firmware::Pxe).card(Card::E1000),
        Spec::new(3, Firmware::Ipxe),
    ] {
        machines.push(start(&lab, stage, spec)?);
    }
    // Two that begin within the same five seconds wait for each other; this one is to come later.
    wait_agent(&machines[2], "agent")?;
    waits_beside(&lab, stage, Slot::SERVER)?;
    for machine in &machines {
        wait_ready(machine, IMAGE)?;
        server.wait_stage(&machine.mac(), "booted", SERVER_TIMEOUT)?;
    }
    ensure!(stranger.dnsmasq.exit().is_none(), "dnsmasq ended:\n{}", stranger.dnsmasq.log_tail());
    server.keep_status(&stage.dir)?;
    server.stop()
}

/// A lab that is to lease addresses waits, and names who does or boots nodes already.
fn waits_beside(lab: &Lab, stage: &Stage<'_>, other: Slot) -> Result<()> {
    let config = Config { dhcp: "server", ..Config::default() };
    let mut second = Server::init_as(lab, Slot::node(2), &config, stage.lab)?;
    stage.testos.install(&second.oss(), IMAGE, 0)?;
    let said = second.wait_with_dhcp(LOOK_TIMEOUT)?;
    let other = other.address().to_string();
    ensure!(said.contains(&other), "it waits, but does not name {other}:\n{said}");
    second.remove()
}
