//! Starts: beside who speaks at that moment, on a full disk, with damaged state, after `kill -9`.

use std::collections::BTreeMap;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use super::super::attacker::{self, Attack, Attacker};
use super::super::scene::{Scene, http, named, reserved, write};
use super::super::victim::{self, Node};
use super::super::wire::{self, DISCOVER, DhcpSocket, Mac, OFFER};

/// How long a server looks for others, and what a busy machine adds.
const LOOKS: Duration = Duration::from_secs(12);

const MARKERS: Attack = Attack { what: "DISCOVERs with the marker of a server, 2/s", run: markers };
const ROGUE: Attack = Attack {
    what: "every DISCOVER that is heard is offered an address",
    run: |it| rogue(it, usize::MAX),
};
/// As one look asks: who answers two is a server (docs/dhcp.md).
const ROGUE_ONCE: Attack =
    Attack { what: "the four DISCOVERs of a start are offered an address", run: |it| rogue(it, 4) };

fn markers(attacker: &Attacker<'_>) -> u64 {
    let Ok(socket) = DhcpSocket::open(68) else { return 0 };
    let marker = [&b"BootTorrent"[..], &[0; 16]].concat();
    attacker.paced(2, 1_000, |_| {
        let options: wire::Options<'_> =
            &[(60, b"PXEClient:Arch:00000:UNDI:002001"), (224, &marker)];
        let message = wire::dhcp_message(DISCOVER, attacker::invented(1), wire::xid(), options);
        socket.send(67, &message).is_ok()
    })
}

/// A DHCP server that offers whoever asks an address.
fn rogue(attacker: &Attacker<'_>, questions: usize) -> u64 {
    let Ok(socket) = DhcpSocket::open(67) else { return 0 };
    let me = attacker::address(1).octets();
    let (mut count, mut left) = (0, questions);
    while !attacker.is_over() && left > 0 {
        let Ok(asked) = socket.receive(Duration::from_millis(200), |message| {
            !message.is_reply && u8::from(message.kind) == DISCOVER
        }) else {
            continue;
        };
        let options: wire::Options<'_> = &[(54, &me), (51, &[0, 0, 1, 0]), (1, &[255, 255, 0, 0])];
        let mut offer = wire::dhcp_message(OFFER, asked.mac.0, asked.xid, options);
        offer[0] = 2;
        offer[16..20].copy_from_slice(&[10, 77, 99, 9]);
        offer[24..28].copy_from_slice(&asked.giaddr.octets());
        left -= 1;
        // A relay agent's question came from the server's own port.
        for port in [67, 68] {
            count += u64::from(socket.send(port, &offer).is_ok());
        }
    }
    count
}

/// A named node has its lease within a time.
fn leases(scene: &Scene<'_>, within: Duration) -> Result<()> {
    scene.victim(|victim| {
        let until = std::time::Instant::now() + within;
        loop {
            match victim.node(1) {
                Ok(_) => return Ok(()),
                Err(error) if std::time::Instant::now() > until => return Err(error),
                Err(_) => {}
            }
        }
    })
}

pub(super) fn marker_at_start(scene: &mut Scene<'_>) -> Result<()> {
    scene.configure("server", false)?;
    started_under(scene, MARKERS)
}

pub(super) fn rogue_at_start(scene: &mut Scene<'_>) -> Result<()> {
    // At a first start DHCP waits until who answers every look was silent for two, and DHCP alone.
    scene.configure("server", false)?;
    beside(scene, ROGUE)?;
    let node = Node { mac: named(1), address: reserved(1) };
    scene.victim(|victim| victim::is_phase1(&victim.script(node)))?;
    scene.server.kill();
    scene.configure("auto", false)?;
    scene.start()?;
    leases(scene, LOOKS)?;
    // What has served the network goes on doing so, and one answer is no server.
    for (mode, attack) in [("server", ROGUE), ("auto", ROGUE_ONCE)] {
        scene.server.kill();
        scene.configure(mode, false)?;
        started_under(scene, attack).with_context(|| format!("dhcp.mode: {mode}"))?;
    }
    Ok(())
}

/// Starts the server while somebody speaks, and boots a node once that has ended.
fn started_under(scene: &mut Scene<'_>, attack: Attack) -> Result<()> {
    beside(scene, attack)?;
    leases(scene, LOOKS)
}

/// Starts the server while somebody speaks; it must live longer than it looks around.
fn beside(scene: &mut Scene<'_>, attack: Attack) -> Result<()> {
    let stop = AtomicBool::new(false);
    let lab = scene.lab;
    std::thread::scope(|scope| {
        let slot = crate::lab::Slot::node(1);
        let stop = &stop;
        let run = move || Ok((attack.run)(&Attacker::new(stop)));
        let speaks = scope.spawn(move || lab.inside(slot, run));
        std::thread::sleep(Duration::from_millis(300));
        let result = scene.start().and_then(|()| {
            // Longer than it looks: what ends it, ends it then.
            std::thread::sleep(LOOKS / 2);
            scene.alive()
        });
        stop.store(true, Ordering::Relaxed);
        let count = speaks.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        ensure!(count > 0, "the attack did nothing: {}", attack.what);
        result
    })
}

/// Room of a state folder beside what phase 1 needs.
const STATE_LEN: u64 = 24 << 20;

pub(super) fn full_disk(scene: &mut Scene<'_>) -> Result<()> {
    let state = scene.server.dir().join("state");
    let kept = state.with_file_name("state-before");
    std::fs::rename(&state, &kept)?;
    std::fs::create_dir(&state)?;
    let len = tree_len(&kept)? + STATE_LEN;
    let size = format!("size={len}");
    command(
        Command::new("mount").args(["-t", "tmpfs", "-o", &size, "boottorrent-lab"]).arg(&state),
    )?;
    command(Command::new("cp").arg("-a").arg(kept.join(".")).arg(&state))?;
    let result = (|| {
        scene.start()?;
        boots(scene)?;
        fill(&state.join("filler"))?;
        // Nothing ends while the server runs.
        boots(scene)?;
        scene.restart()?;
        boots(scene)?;
        scene.alive()
    })();
    scene.server.kill();
    command(Command::new("umount").arg("-l").arg(&state))?;
    result
}

fn boots(scene: &Scene<'_>) -> Result<()> {
    leases(scene, LOOKS)?;
    scene.victim(|victim| victim::is_phase1(&victim.script(victim.node(1)?)))
}

fn fill(path: &Path) -> Result<()> {
    let mut file = std::fs::File::create(path)?;
    let block = vec![0x5a; 64 << 10];
    for len in [block.len(), 4_096, 1] {
        while file.write_all(&block[..len]).is_ok() {}
    }
    Ok(())
}

fn tree_len(dir: &Path) -> Result<u64> {
    let mut len = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let found = entry.metadata()?;
        len += if found.is_dir() { tree_len(&entry.path())? } else { found.len() + 4_096 };
    }
    Ok(len)
}

fn command(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("{command:?}"))?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(())
}

/// What is done to a file.
type Damage = fn(&Path) -> Result<()>;

/// Ways in which a file is not what it was.
const DAMAGES: &[(&str, Damage)] = &[
    ("header", |path| write(path, "no database at all")),
    ("pages", |path| {
        let mut file = std::fs::OpenOptions::new().write(true).open(path)?;
        let len = file.metadata()?.len();
        for at in (4_096..len).step_by(4_096) {
            file.seek(SeekFrom::Start(at))?;
            file.write_all(&[0xa5; 512])?;
        }
        Ok(())
    }),
    ("cut", |path| Ok(std::fs::OpenOptions::new().write(true).open(path)?.set_len(1_000)?)),
];

pub(super) fn damaged_state(scene: &mut Scene<'_>) -> Result<()> {
    scene.start()?;
    boots(scene)?;
    for (name, damage) in DAMAGES {
        scene.server.kill();
        let state = scene.server.dir().join("state");
        let databases: Vec<_> = std::fs::read_dir(&state)?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|extension| extension == "db"))
            .collect();
        for path in &databases {
            for end in ["-wal", "-shm"] {
                let _ = std::fs::remove_file(format!("{}{end}", path.display()));
            }
            damage(path)?;
        }
        scene.start().with_context(|| format!("{} damaged databases: {name}", databases.len()))?;
        boots(scene)?;
        let log = scene.server.log();
        ensure!(log.contains("damaged"), "nothing is said of the damage ({name}):\n{log}");
    }
    scene.alive()
}

const KILLS: usize = 20;

/// How long it works before each, in milliseconds: a little longer each time, so that it is hit elsewhere.
const WORKS_MS: u64 = 250;

/// Leases are asked for, as fast as they come, and reports and scripts beside them; the server is killed and
/// started meanwhile. Whatever was acknowledged must be in its leases.
pub(super) fn killed_twenty_times(scene: &mut Scene<'_>) -> Result<()> {
    let acknowledged: Mutex<BTreeMap<Mac, Ipv4Addr>> = Mutex::default();
    let stop = AtomicBool::new(false);
    let lab = scene.lab;
    std::thread::scope(|scope| {
        let (slot, other) = (crate::lab::Slot::node(2), crate::lab::Slot::node(1));
        let (stop, given) = (&stop, &acknowledged);
        let leasing = scope.spawn(move || lab.inside(slot, || lease_until(stop, given)));
        let load = move || Ok((attacker::SMALL_REPORTS.run)(&Attacker::new(stop)));
        let loading = scope.spawn(move || lab.inside(other, load));
        let result = (0..KILLS as u64).try_for_each(|kill| {
            std::thread::sleep(Duration::from_millis(WORKS_MS + 7 * kill));
            scene.restart()
        });
        stop.store(true, Ordering::Relaxed);
        for thread in [leasing, loading] {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        result
    })?;
    let acknowledged = acknowledged.into_inner().unwrap_or_else(PoisonError::into_inner);
    ensure!(acknowledged.len() >= KILLS, "only {} leases were given", acknowledged.len());
    let leases = scene.victim(|_| wire::get(reserved(1), http(), "/v1/leases"))?;
    let leases = leases.text();
    for (mac, address) in &acknowledged {
        let mac = wire::mac_text(*mac);
        if !(leases.contains(&mac) && leases.contains(&format!("\"{address}\""))) {
            bail!("the lease of {mac}, {address}, is lost: {leases}");
        }
    }
    eprintln!("  {} leases acknowledged, none lost", acknowledged.len());
    scene.alive()
}

/// Machines of this case: fewer than there are addresses.
const MACHINES: u64 = 200;

fn lease_until(stop: &AtomicBool, acknowledged: &Mutex<BTreeMap<Mac, Ipv4Addr>>) -> Result<u64> {
    let socket = DhcpSocket::open(68)?;
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) {
        let mac = attacker::invented(100_000 + count % MACHINES);
        let soon = Duration::from_millis(200);
        if let Ok(address) = socket.lease_within(mac, wire::BIOS, soon) {
            acknowledged.lock().unwrap_or_else(PoisonError::into_inner).insert(mac, address);
            count += 1;
        }
        // At such a pace that some are new after each start.
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(count)
}
