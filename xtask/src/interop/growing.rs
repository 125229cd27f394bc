//! More than one server: fleets of real agents that boot on when a boot server dies in mid-download,
//! carried by a further seed, a second server of the same lab, other people's tracker and client, or
//! a web server that has the files. What docs/growing.md says is done here, command by command.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::program::{Place, Program};
use super::tracker::Tracker;
use super::{Row, line, write};
use crate::lab::{Lab, Process, Rate, Slot, Spawn, wait_until};
use crate::{artifact, release_binary};

/// Two seconds and more at [`RATE`]: a server that is killed when the nodes have begun leaves them
/// nearly all to get.
const IMAGE_LEN: usize = 16 << 20;
const RATE: &str = "50mbit";

/// A server is ready in a second and a node done in five, on a machine that does nothing else.
const TIMEOUT: Duration = Duration::from_secs(120);

const HTTP_PORT: u16 = 8_081;

type Case = fn(&Room<'_>) -> Result<()>;

const CASES: &[(&str, usize, Case)] = &[
    ("growing: a further seed goes on", 4, further_seed),
    ("growing: the other of two servers goes on", 5, two_servers),
    ("growing: opentracker and libtorrent go on", 4, strangers),
    ("growing: a web server of the files goes on", 2, web_server),
];

/// Runs the cases whose names have one of the filters in them.
pub(super) fn run(filters: &[String], dir: &Path) -> Result<Vec<Row>> {
    let is_wanted = |name: &str| {
        filters.is_empty() || filters.iter().any(|filter| name.contains(filter.as_str()))
    };
    let mut rows = vec![];
    for (name, node_count, case) in CASES.iter().filter(|(name, ..)| is_wanted(name)) {
        let agent = artifact::build_agent()?;
        let start = Instant::now();
        let logs = dir.join("logs").join(name.replace([' ', ':'], "-"));
        let rate: Rate = RATE.parse().map_err(anyhow::Error::msg)?;
        let result = Lab::new(*node_count, Some(rate), &logs)
            .and_then(|lab| case(&Room { lab: &lab, agent: &agent }));
        let row = Row { name: (*name).to_owned(), time: start.elapsed(), error: result.err() };
        eprintln!("{}", line(&row));
        rows.push(row);
    }
    Ok(rows)
}

/// Where it happens, and the agent's program.
struct Room<'a> {
    lab: &'a Lab,
    agent: &'a Path,
}

/// The server dies when its nodes have begun; a further seed on another host has all of it.
fn further_seed(room: &Room<'_>) -> Result<()> {
    let lab = room.make_lab(Slot::SERVER, "")?;
    let server = room.start(Slot::SERVER)?;
    let beside = Slot::node(1);
    let spawn = Spawn::new("seed", release_binary()?)
        .args(["seed", "--lab", &url(Slot::SERVER), "--upload-limit", "5M", "-o", "json"])
        .args(["--dir", "seed", "--key"])
        .arg(lab.join("keys/lab.pub"));
    let seed = room.lab.spawn(beside, spawn)?;
    room.said(&seed, r#""event":"complete""#)?;
    let nodes = room.boot((2..=4).map(|node| (Slot::node(node), Slot::SERVER)))?;
    room.kill_when_they_have_begun(&server, &nodes)?;
    room.all_boot(&nodes)
}

/// Two servers of one lab, each adding to what another server would lease: one dies, its nodes and
/// the other's go on, and a node that comes late boots from the other.
fn two_servers(room: &Room<'_>) -> Result<()> {
    let servers = [Slot::SERVER, Slot::node(1)];
    let other = |slot: Slot| if slot == servers[0] { servers[1] } else { servers[0] };
    let shared = room.lab.slot_dir(servers[0]).join("shared");
    let mut started = vec![];
    for slot in servers {
        let tracker = format!("  trackers: http://{}:10001/announce\n", other(slot).address());
        let lab = room.make_lab(slot, &format!("dhcp:\n  mode: proxy\nswarm:\n{tracker}"))?;
        if !shared.exists() {
            std::fs::create_dir(&shared)?;
            for name in ["oss", "keys"] {
                std::fs::rename(lab.join(name), shared.join(name))?;
            }
        }
        for name in ["oss", "keys"] {
            let _ = std::fs::remove_dir_all(lab.join(name));
            symlink(shared.join(name), lab.join(name))
                .with_context(|| format!("linking {name} of {}", lab.display()))?;
        }
        started.push(room.start(slot)?);
    }
    let first = room.boot([(2, servers[0]), (3, servers[1]), (4, servers[0])].map(numbered))?;
    room.kill_when_they_have_begun(&started[0], &first)?;
    room.all_boot(&first)?;
    let late = room.boot([(5, servers[1])].map(numbered))?;
    room.all_boot(&late)?;
    ensure!(started[1].exit().is_none(), "the other ended:\n{}", started[1].log_tail());
    Ok(())
}

/// Neither tracker nor further seed is ours.
fn strangers(room: &Room<'_>) -> Result<()> {
    let (tracker, beside) = (Tracker::OPEN_HTTP, Slot::node(1));
    let swarm = format!("swarm:\n  tracker: false\n  trackers: {}\n", tracker.announce());
    let lab = room.make_lab(Slot::SERVER, &swarm)?;
    let server = room.start(Slot::SERVER)?;
    let metainfo = lab.join("out/torrents/debian.torrent");
    let _tracker = tracker.start(room.lab, &metainfo)?;
    room.copy_image(&lab, &room.lab.slot_dir(beside))?;
    let place = Place { lab: room.lab, slot: beside, metainfo: &metainfo, is_local: false };
    let _seed = Program::Libtorrent.seed(&place)?;
    let nodes = room.boot((2..=4).map(|node| (Slot::node(node), Slot::SERVER)))?;
    room.kill_when_they_have_begun(&server, &nodes)?;
    room.all_boot(&nodes)
}

/// No peer has anything, as nobody finds one; the server dies, and nginx has the folder `oss`.
fn web_server(room: &Room<'_>) -> Result<()> {
    let beside = Slot::node(1);
    // A tracker that nobody runs: the only way to bytes is HTTP.
    let nobody = format!("udp://{}:9", beside.address());
    let web = format!("http://{}:8080/oss/", beside.address());
    let swarm = format!("swarm:\n  tracker: false\n  trackers: {nobody}\n  web_seeds: {web}\n");
    let lab = room.make_lab(Slot::SERVER, &swarm)?;
    let server = room.start(Slot::SERVER)?;
    room.copy_image(&lab, &room.lab.slot_dir(beside).join("oss"))?;
    let metainfo = lab.join("out/torrents/debian.torrent");
    let place = Place { lab: room.lab, slot: beside, metainfo: &metainfo, is_local: false };
    let _nginx = Program::Nginx.seed(&place)?;
    let nodes = room.boot([(2, Slot::SERVER)].map(numbered))?;
    room.kill_when_they_have_begun(&server, &nodes)?;
    room.all_boot(&nodes)
}

fn numbered((node, server): (usize, Slot)) -> (Slot, Slot) {
    (Slot::node(node), server)
}

fn url(server: Slot) -> String {
    format!("http://{}:{HTTP_PORT}", server.address())
}

/// Bytes that do not repeat.
fn content(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut word = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 32) as u32
    };
    (0..len.div_ceil(4)).flat_map(|_| word().to_le_bytes()).take(len).collect()
}

impl Room<'_> {
    /// A lab in the folder of a slot, with one image.
    fn make_lab(&self, slot: Slot, more: &str) -> Result<PathBuf> {
        let program = release_binary()?.display().to_string();
        self.lab.run(slot, &[program.as_str(), "init", "lab"])?;
        let lab = self.lab.slot_dir(slot).join("lab");
        let dhcp = if more.contains("dhcp:") { "" } else { "dhcp:\n  mode: \"off\"\n" };
        let text = format!(
            "version: 1\nserver:\n  interface: eth0\n  address: {}\n\
             boot:\n  timeout: 0\n  seed_time: 1s\n\
             tftp:\n  enabled: false\nhttp:\n  port: {HTTP_PORT}\n{dhcp}{more}",
            slot.address()
        );
        write(&lab.join("Boottorrent.yaml"), &text)?;
        let image = lab.join("oss/debian");
        for folder in [&image, &lab.join("phase1")] {
            std::fs::create_dir_all(folder)?;
        }
        write(
            &image.join("config.yaml"),
            "dispname: Debian\nmethod: kexec\nkernel: vmlinuz\ninitrd: initrd.img\n",
        )?;
        write(&image.join("vmlinuz"), "a kernel")?;
        std::fs::write(image.join("initrd.img"), content(IMAGE_LEN))?;
        write(&lab.join("phase1/vmlinuz"), "phase 1's kernel")?;
        write(&lab.join("phase1/initramfs.img"), "phase 1's initramfs")?;
        Ok(lab)
    }

    /// The image's files as a torrent has them, in a folder of its name in `to`.
    fn copy_image(&self, lab: &Path, to: &Path) -> Result<()> {
        let to = to.join("debian");
        std::fs::create_dir_all(&to)?;
        for name in ["vmlinuz", "initrd.img"] {
            std::fs::copy(lab.join("oss/debian").join(name), to.join(name))?;
        }
        Ok(())
    }

    /// Starts the server of a slot's lab; returns when nodes can boot.
    fn start(&self, slot: Slot) -> Result<Process> {
        let spawn = Spawn::new(format!("server-{}", slot.name()), release_binary()?);
        let spawn = spawn.args(["-C", "lab", "start", "-o", "json", "--phase1", "lab/phase1"]);
        let server = self.lab.spawn(slot, spawn)?;
        self.said(&server, r#""event":"ready""#)?;
        Ok(server)
    }

    /// Waits until a process has said something.
    fn said(&self, process: &Process, what: &str) -> Result<()> {
        let is_over = || process.log().contains(what) || process.exit().is_some();
        let said = wait_until(TIMEOUT, is_over) && process.log().contains(what);
        ensure!(said, "{} does not say {what}:\n{}", process.name(), process.log_tail());
        Ok(())
    }

    /// Starts agents, each at a node, with the server that it is told to boot from.
    fn boot(&self, nodes: impl IntoIterator<Item = (Slot, Slot)>) -> Result<Vec<(Slot, Process)>> {
        nodes.into_iter().map(|(slot, server)| Ok((slot, self.agent(slot, server)?))).collect()
    }

    fn agent(&self, slot: Slot, server: Slot) -> Result<Process> {
        let root = self.lab.slot_dir(slot).join("root");
        std::fs::create_dir_all(root.join("etc/boottorrent"))?;
        std::fs::create_dir_all(self.lab.slot_dir(slot).join("saved"))?;
        let key = self.lab.slot_dir(server).join("lab/keys/lab.pub");
        std::fs::copy(&key, root.join("etc/boottorrent/lab.pub"))
            .with_context(|| format!("copying {}", key.display()))?;
        let spawn = Spawn::new(format!("agent-{}", slot.name()), self.agent)
            .args(["run", "--no-init", "--interface", "none", "--retry-ms", "500"])
            .args(["--server", &url(server), "--mac", &slot.mac()])
            .args(["--root", "root", "--then", "save=saved"]);
        self.lab.spawn(slot, spawn)
    }

    fn kill_when_they_have_begun(&self, server: &Process, nodes: &[(Slot, Process)]) -> Result<()> {
        for (_, agent) in nodes {
            // The torrent is there when there is a first figure.
            self.said(agent, " % of ")?;
        }
        server.signal(libc::SIGKILL);
        server.wait(TIMEOUT).context("the server survived SIGKILL")?;
        for (slot, _) in nodes {
            let saved = self.lab.slot_dir(*slot).join("saved/initrd");
            ensure!(!saved.exists(), "{} was done before the server died", slot.name());
        }
        Ok(())
    }

    /// Every node has loaded the image, byte for byte.
    fn all_boot(&self, nodes: &[(Slot, Process)]) -> Result<()> {
        for (slot, agent) in nodes {
            agent.succeed(TIMEOUT)?;
            let saved = std::fs::read(self.lab.slot_dir(*slot).join("saved/initrd"))?;
            ensure!(saved == content(IMAGE_LEN), "{} has other bytes", slot.name());
        }
        Ok(())
    }
}
