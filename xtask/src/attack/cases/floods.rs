//! What must be so after a flood, or under one that is not measured by the boot path.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::super::attacker::{self, Attack};
use super::super::scene::{ANY_ADDRESS, Scene, http, named};
use super::super::victim::{self, post_report};
use super::super::wire::{self, DhcpSocket, PATIENCE, mac_text};
use crate::lab::{Slot, Spawn};

/// Bytes that may be written in a second of what is told of nodes: what a slow disk takes beside all else.
const WRITTEN_PER_S: u64 = 2 << 20;

/// The time in which they are counted.
const WRITES: Duration = Duration::from_secs(3);

/// Named nodes are still known, and reports of invented ones do not become many times their size on the disk.
pub(super) fn reports_are_written_once(scene: &mut Scene<'_>) -> Result<()> {
    let written = scene.under(&[attacker::SMALL_REPORTS, attacker::FAT_REPORTS], || {
        let before = scene.written()?;
        std::thread::sleep(WRITES);
        Ok(scene.written()? - before)
    })?;
    eprintln!("  {} kB/s written", written / 1_000 / WRITES.as_secs());
    ensure!(
        written <= WRITTEN_PER_S * WRITES.as_secs(),
        "{written} bytes were written in {WRITES:?} of reports of nodes that are not there"
    );
    (1..=8).try_for_each(|number| scene.node(named(number)).map(drop))
}

/// A named node without an address of its own that asks for the first time has one, and that others go
/// without is said.
pub(super) fn named_have_addresses(scene: &mut Scene<'_>) -> Result<()> {
    scene.under(&[attacker::STARVE], || {
        scene.victim(|_| DhcpSocket::open(68)?.lease(ANY_ADDRESS, wire::BIOS))
    })?;
    let log = scene.server.log();
    ensure!(log.contains("no address is left"), "the log says nothing of addresses that are gone");
    Ok(())
}

/// The live events greet who asks for them.
pub(super) fn others_listen(scene: &mut Scene<'_>) -> Result<()> {
    scene.under(&[attacker::LISTENERS], || {
        scene.victim(|_| {
            use std::io::{Read as _, Write as _};
            let node = super::super::scene::reserved(1);
            let mut stream = wire::connect(node, http(), None, PATIENCE)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.write_all(wire::request(http(), "GET", "/v1/events", &[], "").as_bytes())?;
            let mut room = [0; 4_096];
            let len = stream.read(&mut room).context("no events")?;
            let text = String::from_utf8_lossy(&room[..len]);
            ensure!(text.starts_with("HTTP/1.1 200"), "events are answered by {text}");
            Ok(())
        })
    })
}

/// A node that reports now is seen and can be accepted; one that reported before keeps what it did.
pub(super) fn history_stays(scene: &mut Scene<'_>) -> Result<()> {
    let tell = |scene: &Scene<'_>| {
        scene.victim(|victim| {
            let agent = victim.boot(victim.node(1)?, 7)?;
            agent.report(
                1,
                9_000,
                json!({"stage": "agent", "machine": attacker::machine("x86_64")}),
            )?;
            agent.report(2, 9_500, json!({"stage": "menu"})).map(drop)
        })
    };
    tell(scene)?;
    let events = |scene: &Scene<'_>| -> Result<usize> {
        let node = scene.owner(&["node", "show", "c001"])?;
        Ok(node["events"].as_array().map_or(0, Vec::len))
    };
    let before = events(scene)?;
    ensure!(before > 0, "nothing is known of c001");
    scene.attacker(|it| {
        let mut line = wire::Http::connect(attacker::address(1), http())?;
        for number in 0..9_000 {
            let report = attacker::report(attacker::invented(number), 1, 1, json!({}));
            let fields = [("Content-Type", "application/json")];
            let body = report.to_string();
            let request = wire::request(http(), "POST", "/api/v1/reports", &fields, &body);
            if line.ask(&request).is_err() {
                line = wire::Http::connect(attacker::address(1), http())?;
            }
        }
        let _ = it;
        Ok(())
    })?;
    let mac = scene.victim(|victim| {
        let agent = victim.boot(victim.stranger(40)?, 7)?;
        agent.report(1, 9_000, json!({"stage": "menu"}))?;
        Ok(agent.node.mac)
    })?;
    let pending = scene.server.run(&["node", "pending"])?;
    ensure!(pending.contains(&mac_text(mac)), "{} is not pending", mac_text(mac));
    ensure!(
        scene.server.run(&["node", "accept", &mac_text(mac), "fresh", "--yes"]).is_ok()
            || scene.server.run(&["node", "accept", &mac_text(mac), "fresh"]).is_ok(),
        "{} cannot be accepted",
        mac_text(mac)
    );
    let log = wire_log(scene)?;
    ensure!(log.to_string().contains("c001"), "the log has nothing of c001 any more");
    // History is stored some seconds late.
    std::thread::sleep(Duration::from_secs(2));
    scene.restart()?;
    let after = events(scene)?;
    ensure!(after >= before, "of {before} events of c001 {after} are left after a restart");
    Ok(())
}

fn wire_log(scene: &Scene<'_>) -> Result<Value> {
    scene.victim(|_| wire::get(super::super::scene::reserved(1), http(), "/v1/log")?.json())
}

/// Requests whose answers nobody takes, as if somebody else had been named as the sender.
const ECHO_REQUESTS: u64 = 2_000;

/// Bytes of a first block.
const ECHO_BLOCK_LEN: u64 = 516;

/// Bytes that may come back: a block for each request, which TFTP cannot do without, and one more for each
/// of as many transfers as may be half-open, for a network that loses packets.
const ECHO_LEN_MAX: u64 = (ECHO_REQUESTS + tftp::HALF_OPEN_MAX as u64) * ECHO_BLOCK_LEN;

pub(super) fn tftp_echo(scene: &mut Scene<'_>) -> Result<()> {
    let ask = b"\0\x01undionly.kpxe\0octet\0";
    let came = scene.attacker(|_| {
        let mut sockets = vec![];
        for number in 0..ECHO_REQUESTS {
            let socket = UdpSocket::bind((attacker::address((number % 64) as u8 + 1), 0))?;
            socket.set_nonblocking(true)?;
            socket.send_to(ask, (victim::server(), 69))?;
            sockets.push(socket);
        }
        let until = Instant::now() + Duration::from_secs(8);
        let (mut came, mut room) = (0, [0; 2_048]);
        while Instant::now() < until {
            for socket in &sockets {
                while let Ok(len) = socket.recv(&mut room) {
                    came += len as u64;
                }
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(came)
    })?;
    let factor = came / (ECHO_REQUESTS * ask.len() as u64);
    eprintln!("  {came} bytes for {ECHO_REQUESTS} requests of {} bytes: × {factor}", ask.len());
    ensure!(came <= ECHO_LEN_MAX, "{came} bytes came back, {factor} times what was sent");
    Ok(())
}

/// The endpoint takes a file while one address holds as many connections as it can.
pub(super) fn lan_is_open(scene: &mut Scene<'_>) -> Result<()> {
    let attack: Attack = attacker::LAN_IDLE;
    let _endpoint = endpoint(scene, Slot::SERVER)?;
    scene.under(&[attack], || {
        let out = send(scene, Slot::node(2), "10.77.0.1", Slot::SERVER)?;
        ensure!(out.0, "the endpoint takes no file: {}", out.1);
        Ok(())
    })
}

/// An endpoint of LANTorrent in a slot, whose root is the slot's folder.
pub(super) fn endpoint(scene: &Scene<'_>, slot: Slot) -> Result<crate::lab::Process> {
    let dir = scene.lab.slot_dir(slot);
    std::fs::create_dir_all(dir.join("vm"))?;
    std::fs::write(dir.join("password"), "secret\n")?;
    let spawn = Spawn::new(format!("endpoint-{}", slot.name()), crate::release_binary()?)
        .args(["lan", "serve", "--listen", "0.0.0.0:2893", "--root"])
        .arg(&dir)
        .args(["--password-file", "password"]);
    let process = scene.lab.spawn(slot, spawn)?;
    process.wait_listening(2_893)?;
    Ok(process)
}

/// Sends a file from a slot to a host, for the root of another slot; whether it succeeded, and what was said.
pub(super) fn send(
    scene: &Scene<'_>,
    from: Slot,
    host: &str,
    root: Slot,
) -> Result<(bool, String)> {
    let dir = scene.lab.slot_dir(from);
    std::fs::write(dir.join("password"), "secret\n")?;
    std::fs::write(dir.join("source"), vec![7; 1 << 20])?;
    let target = format!("{host}:2893{}", scene.lab.slot_dir(root).join("vm/disk").display());
    let line = format!(
        "echo {target} | {} lan send source --password-file password 2>&1 && echo sent whole || true",
        crate::release_binary()?.display()
    );
    let text = scene.lab.run(from, &["timeout", "20", "sh", "-c", &line]).unwrap_or_default();
    Ok((text.contains("sent whole"), text))
}

/// Reports of a stranger, as a helper of other cases.
pub(super) fn stranger_says(scene: &Scene<'_>, report: &Value) -> Result<wire::Answer> {
    scene.attacker(|_| post_report(attacker::address(1), report))
}
