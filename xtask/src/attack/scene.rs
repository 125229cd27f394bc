//! The room in which cases play: a server, an attacker with a card of 70 addresses, and a victim that is
//! several nodes, each in a namespace of its own on one switch.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::attacker::{Attack, Attacker};
use super::cage::Cage;
use super::victim::{Probes, Victim};
use super::wire::{self, Mac};
use crate::e2e::machine::{Firmware, Spec};
use crate::e2e::server::{Config, HTTP_PORT, Server};
use crate::e2e::testos::TestOs;
use crate::interrupt;
use crate::lab::{Lab, Slot};

const ATTACKER: usize = 1;
const VICTIM: usize = 2;

/// What the server may have. Half a gibibyte is what a small server has left for it.
const MEMORY_LIMIT: u64 = 512 << 20;

/// What it must not need with all attacks at once.
pub(super) const RSS_MAX: u64 = 300 << 20;

/// Time in which tables fill before anything is measured.
const SETTLE: Duration = Duration::from_secs(1);

/// Nodes that nodes.yaml names with an address; what the others are called follows.
const NAMED: u8 = 12;

/// Image of the lab that boots by default, and another.
pub(super) const IMAGE: &str = "tiny";
pub(super) const OTHER: &str = "other";

/// What all cases share.
pub(super) struct Stage {
    pub(super) testos: TestOs,
    /// A lab that has a key and a phase 1.
    pub(super) phase1: PathBuf,
    pub(super) dir: PathBuf,
}

/// See the module documentation.
pub(super) struct Scene<'a> {
    pub(super) lab: &'a Lab,
    pub(super) stage: &'a Stage,
    pub(super) server: Server<'a>,
    /// Where consoles and logs are left.
    pub(super) evidence: PathBuf,
    pub(super) probes: Probes,
    rss_peak: u64,
    cage: Option<Cage>,
}

/// The Ethernet address of a node that nodes.yaml names `c0NN`.
pub(super) fn named(number: u8) -> Mac {
    [0x52, 0x54, 0, 0x12, 0x34, number]
}

/// The address that is reserved for it.
pub(super) fn reserved(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 5, number)
}

/// Where the server's HTTP is.
pub(super) fn http() -> SocketAddrV4 {
    SocketAddrV4::new(Slot::SERVER.address(), HTTP_PORT)
}

impl<'a> Scene<'a> {
    /// A lab with two images and named nodes, not started yet. `more` are further settings.
    pub(super) fn new(lab: &'a Lab, stage: &'a Stage, evidence: PathBuf) -> Result<Self> {
        let server = Server::init_as(lab, Slot::SERVER, &Config::default(), &stage.phase1)?;
        for image in [IMAGE, OTHER] {
            stage.testos.install(&server.oss(), image, 0)?;
        }
        let scene = Self {
            lab,
            stage,
            server,
            evidence,
            probes: Probes::default(),
            rss_peak: 0,
            cage: Cage::new(MEMORY_LIMIT),
        };
        scene.configure("server", true)?;
        scene.server.write("nodes.yaml", &nodes_yaml())?;
        let attackers = format!(
            "for n in $(seq {}); do ip address add 10.77.66.$n/16 dev eth0; done",
            super::attacker::ADDRESSES
        );
        lab.run(Slot::node(ATTACKER), &["sh", "-c", &attackers])?;
        // The last of them is nobody's, for who looks whether an address is in use.
        let nodes = format!(
            "for n in $(seq {}); do ip address add 10.77.5.$n/16 dev eth0; done",
            NAMED - 1
        );
        lab.run(Slot::node(VICTIM), &["sh", "-c", &nodes])?;
        Ok(scene)
    }

    /// Other settings of DHCP. With `force` the server does not first look for others.
    pub(super) fn configure(&self, mode: &'static str, force: bool) -> Result<()> {
        self.server.configure(&Config { dhcp: mode, ..Config::default() })?;
        let path = self.server.dir().join("Boottorrent.yaml");
        let text = std::fs::read_to_string(&path)?;
        let text = text.replace("dhcp:\n", &format!("dhcp:\n  force: {force}\n"));
        self.server.write("Boottorrent.yaml", &text)
    }

    /// Starts the server, with an end of its memory.
    pub(super) fn start(&mut self) -> Result<()> {
        self.server.start()?;
        if let (Some(cage), Some(process)) = (&self.cage, self.server.process()) {
            cage.hold(process.pid())?;
        }
        Ok(())
    }

    /// Kills it as a power cut of its process would, and starts it again.
    pub(super) fn restart(&mut self) -> Result<()> {
        self.note_memory();
        self.server.kill();
        self.start()
    }

    /// Runs something with the attacker's network.
    pub(super) fn attacker<T: Send>(
        &self,
        run: impl FnOnce(&Attacker<'_>) -> Result<T> + Send,
    ) -> Result<T> {
        let stop = AtomicBool::new(false);
        self.lab.inside(Slot::node(ATTACKER), || run(&Attacker::new(&stop)))
    }

    /// Runs something with the victim's network.
    pub(super) fn victim<T: Send>(
        &self,
        run: impl FnOnce(&Victim<'_>) -> Result<T> + Send,
    ) -> Result<T> {
        let victim = Victim { server: &self.server };
        self.lab.inside(Slot::node(VICTIM), || run(&victim))
    }

    /// Runs attacks and, once they have had a moment, something else beside them. Each attack must have
    /// done something, or nothing would be proved.
    pub(super) fn under<T: Send>(
        &self,
        attacks: &[Attack],
        run: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let start = |attack: &Attack| {
                let (attack, stop) = (*attack, &stop);
                scope.spawn(move || {
                    let attack = || Ok((attack.run)(&Attacker::new(stop)));
                    self.lab.inside(Slot::node(ATTACKER), attack)
                })
            };
            let running: Vec<_> = attacks.iter().map(start).collect();
            std::thread::sleep(SETTLE);
            let result = run();
            stop.store(true, Ordering::Relaxed);
            for (attack, thread) in attacks.iter().zip(running) {
                let deeds =
                    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
                eprintln!("  {}: {deeds}", attack.what);
                ensure!(deeds > 0, "the attack did nothing: {}", attack.what);
            }
            interrupt::check()?;
            result
        })
    }

    /// Measures the victim's boot path for a time while attacks run.
    pub(super) fn measure(&mut self, attacks: &[Attack], time: Duration) -> Result<()> {
        // Who boots then is known before anybody does it harm.
        let room = self.victim(|victim| victim.room())?;
        let probes = self.under(attacks, || self.victim(|victim| victim.measure(&room, time)))?;
        self.probes.add(probes);
        self.alive()
    }

    /// Fails if the server has ended, or once needed more memory than it may.
    pub(super) fn alive(&mut self) -> Result<()> {
        self.note_memory();
        let process = self.server.process().context("the server was not started")?;
        if let Some(exit) = process.exit() {
            anyhow::bail!("the server ended with {}:\n{}", exit.code, process.log_tail());
        }
        ensure!(
            self.rss_peak < RSS_MAX,
            "the server needed {} MiB, more than {}",
            self.rss_peak >> 20,
            RSS_MAX >> 20
        );
        Ok(())
    }

    /// The most memory that it had, in bytes; 0 if it never ran.
    pub(super) fn rss_peak(&mut self) -> u64 {
        self.note_memory();
        self.rss_peak
    }

    fn note_memory(&mut self) {
        let Some(process) = self.server.process() else { return };
        let path = format!("/proc/{}/status", process.pid());
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        self.rss_peak = self.rss_peak.max(kib.unwrap_or(0) << 10);
    }

    /// Bytes that it has written so far, to files above all (`wchar` of proc(5)).
    pub(super) fn written(&self) -> Result<u64> {
        let pid = self.server.process().context("the server does not run")?.pid();
        let text = std::fs::read_to_string(format!("/proc/{pid}/io"))?;
        let count = text.lines().find_map(|line| line.strip_prefix("wchar: ")?.parse().ok());
        count.context("no wchar")
    }

    /// A command of the owner's; its output as JSON.
    pub(super) fn owner(&self, args: &[&str]) -> Result<serde_json::Value> {
        let text = self.server.run(&[args, &["-o", "json"]].concat())?;
        serde_json::from_str(&text).with_context(|| format!("{args:?} is not JSON: {text}"))
    }

    /// What the server's status says of a node.
    pub(super) fn node(&self, mac: Mac) -> Result<serde_json::Value> {
        let mac = wire::mac_text(mac);
        self.server.node(&mac)?.with_context(|| format!("the status has no {mac}"))
    }
}

/// A node that nodes.yaml names without an address: the first virtual machine of a lab.
pub(super) const ANY_ADDRESS: Mac = [0x52, 0x54, 0, 0xb7, 0, 1];

fn nodes_yaml() -> String {
    let mut text = "nodes:\n".to_owned();
    for number in 1..=NAMED {
        let (mac, address) = (wire::mac_text(named(number)), reserved(number));
        let _ = writeln!(text, "  c{number:03}:\n    mac: {mac}\n    address: {address}");
    }
    // Machines that are not the lab's can be kept from an address: docs/security.md.
    for number in [1, 2] {
        let mac = Spec::new(number, Firmware::Ipxe).mac();
        let _ = writeln!(text, "  vm{number:02}:\n    mac: {mac}");
    }
    text
}

/// An empty folder for a case.
pub(super) fn folder(stage: &Stage, name: &str) -> Result<PathBuf> {
    let dir = stage.dir.join(name);
    crate::e2e::fresh(&dir)?;
    Ok(dir)
}

/// Whether a file has these bytes in it.
pub(super) fn write(path: &Path, bytes: impl AsRef<[u8]>) -> Result<()> {
    std::fs::write(path, bytes).with_context(|| format!("writing {}", path.display()))
}
