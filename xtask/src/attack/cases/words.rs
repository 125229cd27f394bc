//! What a stranger says of nodes, and that it decides nothing.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::super::attacker;
use super::super::scene::{OTHER, Scene, http, named, reserved};
use super::super::victim::{self, Agent, Node};
use super::super::wire::{self, BIOS, DISCOVER, DhcpSocket};
use super::floods::stranger_says;

pub(super) fn architecture_is_its_own(scene: &mut Scene<'_>) -> Result<()> {
    let boots = |scene: &Scene<'_>| {
        scene.victim(|victim| victim::is_phase1(&victim.script(victim.node(1)?)))
    };
    boots(scene)?;
    scene.attacker(|_| {
        let discover = wire::dhcp_message(DISCOVER, named(1), wire::xid(), attacker::ARM);
        DhcpSocket::open(68)?.send(67, &discover)
    })?;
    std::thread::sleep(Duration::from_millis(200));
    let machine = json!({"machine": attacker::machine("arm64")});
    stranger_says(scene, &attacker::report(named(1), 8, 1, machine))?;
    // Without DHCP in between, as what comes before it counts too.
    let node = Node { mac: named(1), address: reserved(1) };
    scene.victim(|victim| victim::is_phase1(&victim.script(node)))?;
    boots(scene)?;
    // Nothing of it is kept, either.
    std::thread::sleep(Duration::from_millis(1_500));
    scene.restart()?;
    scene.victim(|victim| victim::is_phase1(&victim.script(node)))
}

/// How long the server may look whether somebody else has an address: docs/dhcp.md, and a busy machine.
const LOOK: Duration = Duration::from_secs(20);

pub(super) fn declined_by_another(scene: &mut Scene<'_>) -> Result<()> {
    // Nobody answers for the address of this one.
    let (mac, address) = (named(12), reserved(12));
    let lease = |scene: &Scene<'_>| scene.victim(|_| DhcpSocket::open(68)?.lease(mac, BIOS));
    ensure!(lease(scene)? == address, "c012 has another address from the start");
    scene.attacker(|_| DhcpSocket::open(68)?.decline(mac, address, victim::server()))?;
    let until = Instant::now() + LOOK;
    loop {
        // While the server looks it is another one, and never none.
        std::thread::sleep(Duration::from_millis(300));
        let now = lease(scene).context("c012 has no address after a DECLINE")?;
        if now == address {
            return Ok(());
        }
        ensure!(Instant::now() < until, "c012 still has {now} in place of {address}");
    }
}

pub(super) fn ordered_boot_stays(scene: &mut Scene<'_>) -> Result<()> {
    scene.server.run(&["node", "assign", "c001", "--disk", "--next-boot-only"])?;
    scene.server.run(&["node", "assign", "c002", OTHER, "--next-boot-only"])?;
    scene.attacker(|_| {
        for number in [1, 2] {
            let stranger = Node { mac: named(number), address: attacker::address(1) };
            // It may be refused.
            let _ = victim::script(stranger, "arch=i386&platform=pcbios");
        }
        Ok(())
    })?;
    for stage in [json!({"stage": "agent"}), json!({"stage": "booted", "image": "tiny"})] {
        for number in [1, 2] {
            stranger_says(scene, &attacker::report(named(number), 9, 1, stage.clone()))?;
        }
    }
    let (disk, other) = scene.victim(|victim| {
        let disk = victim.script(victim.node(1)?)?;
        Ok((disk, victim.script(victim.node(2)?)?))
    })?;
    ensure!(disk.contains("boots from its disk"), "c001 does not boot from its disk: {disk}");
    ensure!(other.contains(OTHER), "c002 does not boot {OTHER}: {other}");
    Ok(())
}

/// How long an order holds, and what a busy machine adds to what it was told of.
const ORDER_MS: u64 = 30_000 + 10_000;

pub(super) fn agent_is_believed(scene: &mut Scene<'_>) -> Result<()> {
    let agent = scene.victim(|victim| {
        let agent = victim.boot(victim.node(4)?, 4_711)?;
        let first = json!({"stage": "agent", "machine": attacker::machine("x86_64")});
        agent.report(1, 9_000, first)?;
        agent.report(2, 9_100, json!({"stage": "menu"}))?;
        Ok(agent)
    })?;
    let stage = |scene: &Scene<'_>| -> Result<Value> { Ok(scene.node(named(4))?["stage"].clone()) };
    ensure!(stage(scene)? == "menu", "the agent's own report does not count: {}", stage(scene)?);
    let booted = json!({"stage": "booted", "image": "tiny"});
    for boot in [4_711, 4_712] {
        stranger_says(scene, &attacker::report(named(4), boot, u64::MAX, booted.clone()))?;
    }
    ensure!(stage(scene)? == "menu", "a stranger's word counts: {}", stage(scene)?);
    let failure =
        json!({"stage": "failed", "failure": "BT44", "reason": "as it is", "retry_in_s": 9});
    scene.victim(|_| agent.report(3, 9_200, failure))?;
    ensure!(stage(scene)? == "failed", "the agent is not heard any more: {}", stage(scene)?);
    ensure!(
        scene.owner(&["node", "show", "c004"])?["boot"].is_null(),
        "the number of the boot is shown"
    );
    only_the_agent_is_told(scene, &agent)?;
    nobody_downloads(scene)
}

fn only_the_agent_is_told(scene: &Scene<'_>, agent: &Agent) -> Result<()> {
    scene.server.run(&["node", "reboot", "c004"])?;
    for (boot, uptime_ms) in [(4_711, 2_592_000_000_u64), (4_712, 9_000)] {
        let lie = json!({"uptime_ms": uptime_ms});
        let answer = stranger_says(scene, &attacker::report(named(4), boot, u64::MAX, lie))?;
        ensure!(
            !answer.text().contains("signature"),
            "a stranger has the order: {}",
            answer.text()
        );
    }
    let answer = scene.victim(|_| agent.report(4, 9_300, json!({"stage": "menu"})))?;
    let until = answer["order"]["until_uptime_ms"].as_u64();
    let is_bounded = until.is_some_and(|until| (9_300..=9_300 + ORDER_MS).contains(&until));
    ensure!(is_bounded, "the agent is told {answer}");
    // What it says of its own clock later does not lengthen what was ordered.
    let late = scene.victim(|_| agent.report(5, 2_592_000_000, json!({"stage": "menu"})))?;
    let until = late["order"]["until_uptime_ms"].as_u64().unwrap_or(0);
    ensure!(until <= 9_300 + ORDER_MS, "an order holds until {until} ms: {late}");
    Ok(())
}

/// Invented downloads keep nobody waiting.
fn nobody_downloads(scene: &Scene<'_>) -> Result<()> {
    for number in 0..3 {
        let stage = json!({
            "stage": "downloading", "image": "tiny", "verified_bytes": 1, "total_bytes": 100,
            "rate_bytes_per_s": 1, "peers": 1, "uploaded_bytes": 0, "http": false,
        });
        stranger_says(scene, &attacker::report(attacker::invented(number), 1, 1, stage))?;
    }
    let answer = scene.victim(|victim| {
        let agent = victim.boot(victim.node(5)?, 7)?;
        agent.report(1, 9_000, json!({"stage": "verified", "image": "tiny"}))
    })?;
    ensure!(answer["downloading"] == 0, "{answer}");
    Ok(())
}

/// What pages of other sites can reach by rebinding a name, or by a request that browsers send unasked.
pub(super) fn pages_of_others(scene: &mut Scene<'_>) -> Result<()> {
    const PATHS: &[&str] = &[
        "/",
        "/metrics",
        "/v1/nodes",
        "/api/v1/nodes",
        "/api/v1/status",
        "/api/v1/nodes/c001",
        "/boot.ipxe?mac=52:54:00:12:34:01",
        "/manifest.json",
        "/phase1/vmlinuz",
        "/lab.cpio",
        "/torrents/tiny.torrent",
        "/images/tiny/vmlinuz",
    ];
    let report = attacker::report(named(1), 8, 1, json!({})).to_string();
    scene.attacker(|_| {
        let ask = |method: &str, path: &str, fields: &[(&str, &str)], body: &str| -> Result<u16> {
            let request = wire::request(http(), method, path, fields, body);
            Ok(wire::Http::connect(attacker::address(1), http())?.ask(&request)?.status)
        };
        let mut open = vec![];
        for path in PATHS {
            let status = ask("GET", path, &[("Host", "evil.example.org")], "")?;
            if !(400..500).contains(&status) {
                open.push(format!("GET {path} with a foreign Host: {status}"));
            }
        }
        let json = ("Content-Type", "application/json");
        let origin = ("Origin", "http://evil.example.org");
        let site = ("Sec-Fetch-Site", "cross-site");
        for fields in [&[origin, json][..], &[("Content-Type", "text/plain")], &[site, json]] {
            let status = ask("POST", "/api/v1/reports", fields, &report)?;
            if !(400..500).contains(&status) {
                open.push(format!("POST /api/v1/reports with {fields:?}: {status}"));
            }
        }
        let path = "/boot.ipxe?mac=52:54:00:12:34:01";
        let status = ask("GET", path, &[site], "")?;
        if !(400..500).contains(&status) {
            open.push(format!("GET {path} with {site:?}: {status}"));
        }
        ensure!(open.is_empty(), "{}", open.join("; "));
        let own = ask("GET", "/api/v1/nodes", &[], "")?;
        ensure!(own == 200, "by its address the server answers {own}");
        Ok(())
    })
}

/// A file of holes, which costs nothing but the time to hash it: ten seconds and more.
const LARGE_LEN: u64 = 12 << 30;

/// What SPECIFICATION.md promises.
const IN_FORCE: Duration = Duration::from_secs(1);

pub(super) fn large_image(scene: &mut Scene<'_>) -> Result<()> {
    let oss = scene.server.oss();
    let (beside, folder) = (oss.with_file_name("large"), oss.join("large"));
    scene.stage.testos.install(&beside.with_file_name(""), "large", 0)?;
    std::fs::File::create(beside.join("disk.img"))?.set_len(LARGE_LEN)?;
    std::fs::rename(&beside, &folder)?;
    std::thread::sleep(Duration::from_millis(1_500));
    for image in [OTHER, "tiny", OTHER] {
        let start = Instant::now();
        scene.server.run(&["node", "assign", "c001", image, "--yes"])?;
        let script = scene.victim(|victim| victim.script(victim.node(1)?));
        let time = start.elapsed();
        ensure!(time < IN_FORCE, "in force after {:.2} s", time.as_secs_f64());
        script?;
    }
    Ok(())
}
