//! The cases, by name, with the nodes that each needs.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::parts::{Room, text_of};
use super::{Case, SOON};
use crate::lab::{Slot, wait_until};

pub(super) const CASES: &[(&str, usize, Case)] = &[
    ("a lease is set", 1, a_lease_is_set),
    ("a lease is renewed", 1, a_lease_is_renewed),
    ("a lease taken back", 1, a_lease_taken_back),
    ("an address in use", 2, an_address_in_use),
    ("a server that comes late", 1, a_server_that_comes_late),
    ("a cable that comes late", 1, a_cable_that_comes_late),
    ("no cable", 1, no_cable),
    ("no server", 1, no_server),
    ("the boot server is preferred", 2, the_boot_server_is_preferred),
    ("a card on the wrong switch", 1, a_card_on_the_wrong_switch),
    ("a room at once", ROOM_NODES, a_room_at_once),
    ("our own server", ROOM_NODES, our_own_server),
];

/// Nodes that are switched on together: fewer than there are addresses.
const ROOM_NODES: usize = 24;

fn any(_: &Value) -> bool {
    true
}

/// Everything that a lease brings is where it belongs, and loopback is up.
fn a_lease_is_set(room: &Room<'_>) -> Result<()> {
    let node = room.bare_node(1)?;
    let more = ["--domain=lab.example", "--dhcp-option=option:dns-server,10.77.0.1,10.77.0.2"];
    let router = "--dhcp-option=option:router,10.77.0.1";
    let mtu = "--dhcp-option=option:mtu,1400";
    let _dnsmasq = room.dnsmasq(Slot::SERVER, 101, &[more[0], more[1], router, mtu])?;
    let agent = room.agent(node, "--once --resolv-conf resolv.conf")?;
    agent.process.succeed(SOON)?;
    let lease = agent.lease(SOON, any)?;
    let address = text_of(&lease["address"]);
    ensure!(address.starts_with("10.77.101."), "{lease}");
    ensure!(room.addresses(node)? == [format!("{address}/16")], "{:?}", room.addresses(node));
    ensure!(room.way_out(node)? == format!("10.77.0.1 from {address}"), "{}", room.way_out(node)?);
    let resolv_conf = std::fs::read_to_string(room.lab.slot_dir(node).join("resolv.conf"))?;
    let expect = "search lab.example\nnameserver 10.77.0.1\nnameserver 10.77.0.2\n";
    ensure!(resolv_conf.ends_with(expect), "{resolv_conf}");
    ensure!(room.ip(node, "link show lo")?.contains("LOOPBACK,UP"), "loopback is down");
    ensure!(room.ip(node, "link show eth0")?.contains("mtu 1400"), "the MTU is not set");
    Ok(())
}

/// Renewals go to the server that leased, by unicast, and leave the address where it is.
fn a_lease_is_renewed(room: &Room<'_>) -> Result<()> {
    let node = room.bare_node(1)?;
    let dnsmasq = room.dnsmasq(Slot::SERVER, 101, &["--dhcp-option-force=option:T1,3s"])?;
    let agent = room.agent(node, "")?;
    let lease = agent.lease(SOON, any)?;
    let acks = || dnsmasq.log().matches("DHCPACK").count();
    ensure!(wait_until(SOON, || acks() >= 3), "{} DHCPACKs:\n{}", acks(), dnsmasq.log_tail());
    let discovers = dnsmasq.log().matches("DHCPDISCOVER").count();
    ensure!(discovers == 1, "{discovers} DHCPDISCOVERs");
    ensure!(room.addresses(node)? == [format!("{}/16", text_of(&lease["address"]))]);
    Ok(())
}

/// A server that knows nothing of the lease refuses its renewal: the node takes another address and
/// leaves the one that it had.
fn a_lease_taken_back(room: &Room<'_>) -> Result<()> {
    let node = room.bare_node(1)?;
    let first = room.dnsmasq(Slot::SERVER, 101, &["--dhcp-option-force=option:T1,3s"])?;
    let agent = room.agent(node, "")?;
    agent.lease(SOON, any)?;
    first.stop(SOON).context("dnsmasq does not end")?;
    let _second = room.dnsmasq(Slot::SERVER, 102, &[])?;
    let lease = agent.lease(SOON, |lease| text_of(&lease["address"]).starts_with("10.77.102."))?;
    ensure!(room.addresses(node)? == [format!("{}/16", text_of(&lease["address"]))]);
    Ok(())
}

/// The address that is kept for the node is another machine's: it is declined, and another is taken.
fn an_address_in_use(room: &Room<'_>) -> Result<()> {
    let node = room.bare_node(1)?;
    room.ip(Slot::node(2), "address add 10.77.101.200/16 dev eth0")?;
    let kept = format!("--dhcp-host={},10.77.101.200", node.mac());
    let dnsmasq = room.dnsmasq(Slot::SERVER, 101, &[&kept])?;
    let agent = room.agent(node, "--once")?;
    let lease = agent.lease(SOON, any)?;
    ensure!(text_of(&lease["address"]) != "10.77.101.200", "{lease}");
    ensure!(dnsmasq.log().contains("DHCPDECLINE"), "not declined:\n{}", dnsmasq.log_tail());
    Ok(())
}

/// Nobody has to start things in order; who waits asks often enough.
fn a_server_that_comes_late(room: &Room<'_>) -> Result<()> {
    let node = room.bare_node(1)?;
    let agent = room.agent(node, "--once")?;
    thread::sleep(Duration::from_secs(3));
    let _dnsmasq = room.dnsmasq(Slot::SERVER, 101, &[])?;
    agent.lease(Duration::from_secs(8), any)?;
    Ok(())
}

/// A carrier is noticed at once.
fn a_cable_that_comes_late(room: &Room<'_>) -> Result<()> {
    let node = room.bare_node(1)?;
    let _dnsmasq = room.dnsmasq(Slot::SERVER, 101, &[])?;
    room.lab.unplug(node)?;
    let agent = room.agent(node, "--once")?;
    thread::sleep(Duration::from_secs(1));
    let plugged = Instant::now();
    room.lab.plug(node)?;
    agent.lease(SOON, any)?;
    let waited = plugged.elapsed();
    ensure!(waited < Duration::from_secs(3), "a lease after {waited:?}");
    Ok(())
}

fn no_cable(room: &Room<'_>) -> Result<()> {
    let node = room.bare_node(1)?;
    room.lab.unplug(node)?;
    room.agent(node, "--once --wait 2")?.fails(SOON, "BT12")
}

fn no_server(room: &Room<'_>) -> Result<()> {
    let node = room.bare_node(1)?;
    room.agent(node, "--once --wait 2")?.fails(SOON, "BT21")
}

/// Of two servers that offer, the one is taken that the node boots from; the other one is not harmed.
fn the_boot_server_is_preferred(room: &Room<'_>) -> Result<()> {
    let other = Slot::node(2);
    let _first = room.dnsmasq(Slot::SERVER, 101, &[])?;
    let _second = room.dnsmasq(other, 102, &["--dhcp-reply-delay=0"])?;
    for wanted in [Slot::SERVER, other] {
        let node = room.bare_node(1)?;
        let server = wanted.address().to_string();
        let agent = room.agent(node, &format!("--once --server {server}"))?;
        let lease = agent.lease(SOON, any)?;
        ensure!(text_of(&lease["server"]) == server, "wanted {server}: {lease}");
        agent.process.succeed(SOON)?;
    }
    Ok(())
}

/// The card that the boot program named has a carrier, and nobody there answers: the other one has its
/// turn.
fn a_card_on_the_wrong_switch(room: &Room<'_>) -> Result<()> {
    let node = room.bare_node(1)?;
    let wrong = "02:b7:00:00:ff:01";
    room.ip(node, &format!("link add eth1 address {wrong} type veth peer name wall"))?;
    room.ip(node, "link set wall up")?;
    let _dnsmasq = room.dnsmasq(Slot::SERVER, 101, &[])?;
    let agent = room.agent(node, &format!("--interface eth1 --prefer {wrong} --once"))?;
    let lease = agent.lease(2 * SOON, any)?;
    ensure!(lease["interface"] == "eth0", "{lease}");
    let log = agent.process.log();
    let asked = |name: &str| {
        log.find(&format!("AskingForLease {{ interface: Interface {{ name: \"{name}\""))
    };
    ensure!(asked("eth1").is_some() && asked("eth1") < asked("eth0"), "{log}");
    Ok(())
}

/// Every node of a room gets an address of its own.
fn a_room_at_once(room: &Room<'_>) -> Result<()> {
    let _dnsmasq = room.dnsmasq(Slot::SERVER, 101, &[])?;
    let nodes = (1..=ROOM_NODES).map(|n| room.bare_node(n)).collect::<Result<Vec<Slot>>>()?;
    let start = Instant::now();
    let agents =
        nodes.iter().map(|&node| room.agent(node, "--once")).collect::<Result<Vec<_>>>()?;
    let mut addresses = BTreeSet::new();
    for agent in &agents {
        let lease = agent.lease(2 * SOON, any)?;
        addresses.insert(text_of(&lease["address"]).to_owned());
    }
    println!("       {ROOM_NODES} leases in {:.2} s", start.elapsed().as_secs_f64());
    ensure!(addresses.len() == ROOM_NODES, "shared addresses: {addresses:?}");
    Ok(())
}

/// Our server leases to our agents, renews, and knows them again when it was killed in between.
fn our_own_server(room: &Room<'_>) -> Result<()> {
    let server = room.boottorrent_dhcp(Slot::SERVER, 101, "--lease-time 10")?;
    let nodes = (1..=ROOM_NODES).map(|n| room.bare_node(n)).collect::<Result<Vec<Slot>>>()?;
    let start = Instant::now();
    let agents = nodes.iter().map(|&node| room.agent(node, "")).collect::<Result<Vec<_>>>()?;
    let mut addresses = BTreeSet::new();
    for agent in &agents {
        addresses.insert(text_of(&agent.lease(SOON, any)?["address"]).to_owned());
    }
    println!("       {ROOM_NODES} leases in {:.2} s", start.elapsed().as_secs_f64());
    ensure!(addresses.len() == ROOM_NODES, "shared addresses: {addresses:?}");
    server.signal(libc::SIGKILL);
    drop(server);
    let _server = room.boottorrent_dhcp(Slot::SERVER, 101, "--lease-time 10")?;
    // Longer than a lease: whoever was not renewed has lost its address by then.
    thread::sleep(Duration::from_secs(11));
    for (&node, agent) in nodes.iter().zip(&agents) {
        let expect = format!("{}/16", text_of(&agent.lease(SOON, any)?["address"]));
        ensure!(room.addresses(node)? == [expect], "{}", agent.process.log_tail());
        ensure!(!agent.process.log().contains("lease lost"), "{}", agent.process.log_tail());
    }
    Ok(())
}
