//! A laboratory network on one machine: a network namespace per node, joined by a bridge.
//!
//! Every slot (the server is slot 0, nodes count from 1) has its own namespace with one veth whose
//! other end is a port of a bridge in a namespace of its own, so nothing of the machine's own
//! network is touched or can be reached. Links are shaped on both ends, so each slot has an uplink
//! and a downlink of the same rate, as a switch port has. Neighbour and forwarding entries are
//! permanent: the kernel has one table of 1,024 neighbours for all namespaces together, and 64
//! nodes that resolve each other would overflow it and lose packets no real network loses.
//!
//! Dropping a `Lab` removes all of it; `Lab::new` also removes what killed runs left behind.
//! Needs root, iproute2 and nothing else.

mod process;
mod rate;
pub(crate) mod sweep;
mod window;

pub(crate) use process::{Exit, Process, Spawn, wait_until};
pub(crate) use rate::Rate;

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, Result, bail, ensure};

/// Prefix of every namespace that this module makes; the pid of the run and the lab's number follow.
const PREFIX: &str = "btl";

/// A run may have several labs at once.
static LAB_COUNT: AtomicUsize = AtomicUsize::new(0);

/// Labs are set up one at a time: `ip netns add` mounts, and two that do it at once may find the
/// mount point half made.
static SETUP: Mutex<()> = Mutex::new(());

/// One /24 after another inside 10.77.0.0/16, 250 slots each; far more than one machine carries.
const SLOTS_MAX: usize = 1_000;

/// The router's address in a network behind a node.
pub(crate) const BEHIND: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 1);

/// Longest packet a veth hands over whole: a 64 KiB GSO packet, counted with the headers of each of
/// its 45 segments. A token bucket smaller than this makes the kernel cut packets up in software,
/// and the benchmark would measure that.
const GSO_LEN_MAX: u64 = 65_536 + 45 * 66;

/// A bucket must also hold what arrives between two timer ticks of the shaper; hrtimers are good
/// to well under 2 ms even on a busy virtual machine.
const BURST_TIME_MS: u64 = 2;

/// Bytes a port queues before it drops: what a small switch has per port, 64 ms at 50 Mbit/s.
const QUEUE_LEN: u64 = 400_000;

/// A place in the lab: the server or a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Slot(usize);

impl Slot {
    pub(crate) const SERVER: Self = Self(0);

    /// The node with this number, from 1.
    pub(crate) fn node(number: usize) -> Self {
        assert!(number >= 1, "nodes count from one");
        Self(number)
    }

    pub(crate) fn number(self) -> usize {
        self.0
    }

    pub(crate) fn name(self) -> String {
        if self.0 == 0 { "server".into() } else { format!("n{:02}", self.0) }
    }

    pub(crate) fn address(self) -> Ipv4Addr {
        // .1 to .250, so that neither 0 nor 255 ends an address that some tool finds odd.
        Ipv4Addr::new(10, 77, (self.0 / 250) as u8, (self.0 % 250 + 1) as u8)
    }

    pub(crate) fn mac(self) -> String {
        format!("02:b7:00:00:{:02x}:{:02x}", self.0 >> 8, self.0 & 0xff)
    }

    fn port(self) -> String {
        format!("p{:02}", self.0)
    }
}

/// Bytes that left a slot, as its link saw them (headers of every packet included), and what the
/// queue had to drop.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Traffic {
    pub(crate) sent_len: u64,
    pub(crate) dropped_count: u64,
}

/// See the module documentation.
pub(crate) struct Lab {
    prefix: String,
    node_count: usize,
    shaped: bool,
    dir: PathBuf,
    logs: PathBuf,
}

impl Lab {
    /// Sets up a server and `node_count` nodes. `rate` shapes every link in both directions;
    /// `None` leaves them as fast as memory. Logs of what is spawned go to `logs`.
    pub(crate) fn new(node_count: usize, rate: Option<Rate>, logs: &Path) -> Result<Self> {
        ensure!(node_count < SLOTS_MAX, "a lab has at most {} nodes", SLOTS_MAX - 1);
        require_root()?;
        let one_at_a_time = SETUP.lock().unwrap_or_else(PoisonError::into_inner);
        sweep::stale_labs()?;
        std::fs::create_dir_all(logs).with_context(|| format!("creating {}", logs.display()))?;
        let logs = logs.canonicalize()?;
        let number = LAB_COUNT.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("{PREFIX}{}.{number}", std::process::id());
        let dir = std::env::temp_dir().join(&prefix);
        // From here on Drop cleans up, also when a step below fails.
        let lab = Self { prefix, node_count, shaped: rate.is_some(), dir, logs };
        lab.mount_tmpfs()?;
        lab.add_namespaces()?;
        lab.configure_switch(rate)?;
        for slot in lab.slots() {
            lab.configure_slot(slot, rate)?;
        }
        drop(one_at_a_time);
        Ok(lab)
    }

    /// The server, then all nodes.
    pub(crate) fn slots(&self) -> impl Iterator<Item = Slot> + use<> {
        (0..=self.node_count).map(Slot)
    }

    pub(crate) fn nodes(&self) -> impl Iterator<Item = Slot> + use<> {
        (1..=self.node_count).map(Slot)
    }

    /// Where a slot keeps its files: memory, so that no run waits for a disk.
    pub(crate) fn slot_dir(&self, slot: Slot) -> PathBuf {
        self.dir.join(slot.name())
    }

    /// Starts a command in the namespace of a slot.
    pub(crate) fn spawn(&self, slot: Slot, spawn: Spawn) -> Result<Process> {
        spawn.start(&self.namespace(slot), &self.slot_dir(slot), &self.logs)
    }

    /// Adds a port to the switch for a virtual machine: a TAP device of this name, to be opened by a
    /// program that [`Lab::spawn_at_switch`] starts. `rate` shapes what the machine receives; what it
    /// sends is not shaped, as the kernel of this machine is on the other side of that queue.
    pub(crate) fn add_tap(&self, name: &str, rate: Option<Rate>) -> Result<()> {
        let switch = self.switch();
        let lines = format!(
            "tuntap add dev {name} mode tap\n\
             link set {name} master br0 addrgenmode none up\n"
        );
        batch(with_args("ip", &["-n", &switch]), &lines)?;
        match rate {
            Some(rate) => tc(&switch, &shape("add", name, rate)),
            None => Ok(()),
        }
    }

    /// Gives the TAP device of a virtual machine, shaped from the start, another rate.
    pub(crate) fn set_tap_rate(&self, name: &str, rate: Rate) -> Result<()> {
        tc(&self.switch(), &shape("change", name, rate))
    }

    /// Starts a command beside the switch, where the TAP devices are. It runs in the lab's folder.
    pub(crate) fn spawn_at_switch(&self, spawn: Spawn) -> Result<Process> {
        spawn.start(&self.switch(), &self.dir, &self.logs)
    }

    /// Runs a command in the namespace of a slot to its end; its output, or an error with stderr.
    pub(crate) fn run<S: AsRef<std::ffi::OsStr>>(&self, slot: Slot, argv: &[S]) -> Result<String> {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace(slot)]).args(argv);
        output(command.current_dir(self.slot_dir(slot)))
    }

    /// Runs something on a thread inside the namespace of a slot: its sockets, and those of threads
    /// that it starts, are there.
    pub(crate) fn inside<T: Send>(
        &self,
        slot: Slot,
        run: impl FnOnce() -> Result<T> + Send,
    ) -> Result<T> {
        let path = Path::new("/run/netns").join(self.namespace(slot));
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                let file = std::fs::File::open(&path)
                    .with_context(|| format!("opening {}", path.display()))?;
                rustix::thread::move_into_link_name_space(
                    file.as_fd(),
                    Some(rustix::thread::LinkNameSpaceType::Network),
                )
                .with_context(|| format!("entering {}", path.display()))?;
                run()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Gives a link another rate, both directions. The lab must have been shaped from the start.
    pub(crate) fn set_rate(&self, slot: Slot, rate: Rate) -> Result<()> {
        ensure!(self.shaped, "an unshaped lab has no rates to change");
        tc(&self.namespace(slot), &shape("change", "eth0", rate))?;
        tc(&self.switch(), &shape("change", &slot.port(), rate))
    }

    /// Takes a node off the switch and puts it into a network of its own behind `router`: 10.78.0.0/16,
    /// where that is 10.78.0.1 ([`BEHIND`]). The server knows the way there. The node has no address.
    pub(crate) fn put_behind(&self, router: Slot, node: Slot) -> Result<()> {
        let (behind, netns) = (self.namespace(router), self.namespace(node));
        ip(&["-n", &netns, "link", "delete", "eth0"])?;
        let lines = format!(
            "link add eth1 type veth peer name eth0 netns {netns}\n\
             address add {BEHIND}/16 dev eth1\n\
             link set eth1 addrgenmode none up\n"
        );
        batch(with_args("ip", &["-n", &behind]), &lines)?;
        ip(&["-n", &netns, "link", "set", "eth0", "addrgenmode", "none", "up"])?;
        let via = router.address().to_string();
        ip(&["-n", &self.namespace(Slot::SERVER), "route", "add", "10.78.0.0/16", "via", &via])?;
        let forward = "echo 1 > /proc/sys/net/ipv4/ip_forward";
        self.run(router, &["sh", "-c", forward]).map(drop)
    }

    /// Pulls the plug: from now on nothing reaches the slot or leaves it, and nobody is told.
    pub(crate) fn unplug(&self, slot: Slot) -> Result<()> {
        ip(&["-n", &self.switch(), "link", "set", &slot.port(), "down"])
    }

    /// Puts it in again.
    pub(crate) fn plug(&self, slot: Slot) -> Result<()> {
        ip(&["-n", &self.switch(), "link", "set", &slot.port(), "up"])
    }

    /// What a slot has sent so far. On shaped links this is what the shaper let through, with the
    /// headers of every packet; without a shaper the kernel counts the headers of a GSO packet
    /// once, so the number is some 4 % lower.
    pub(crate) fn traffic(&self, slot: Slot) -> Result<Traffic> {
        self.sent_by(&self.namespace(slot), "eth0")
    }

    /// What has been delivered to a slot so far: what its port of the switch has sent.
    pub(crate) fn delivered(&self, slot: Slot) -> Result<Traffic> {
        self.sent_by(&self.switch(), &slot.port())
    }

    fn sent_by(&self, namespace: &str, device: &str) -> Result<Traffic> {
        let mut command = if self.shaped {
            with_args("tc", &["-n", namespace, "-s", "-j", "qdisc", "show", "dev", device])
        } else {
            with_args("ip", &["-n", namespace, "-s", "-j", "link", "show", "dev", device])
        };
        let text = output(&mut command)?;
        let json: serde_json::Value = serde_json::from_str(&text).context("iproute2's JSON")?;
        let (sent, dropped) = if self.shaped {
            (&json[0]["bytes"], &json[0]["drops"])
        } else {
            (&json[0]["stats64"]["tx"]["bytes"], &json[0]["stats64"]["tx"]["dropped"])
        };
        let sent_len = sent.as_u64().context("iproute2 reports no bytes sent")?;
        Ok(Traffic { sent_len, dropped_count: dropped.as_u64().unwrap_or(0) })
    }

    /// Makes the kernel forget what earlier connections taught it about a path, so that a
    /// measurement before a run does not give the run a head start.
    pub(crate) fn forget_paths(&self, slot: Slot) -> Result<()> {
        ip(&["-n", &self.namespace(slot), "tcp_metrics", "flush", "all"])
    }

    fn namespace(&self, slot: Slot) -> String {
        format!("{}-{}", self.prefix, slot.name())
    }

    fn switch(&self) -> String {
        format!("{}-sw", self.prefix)
    }

    fn mount_tmpfs(&self) -> Result<()> {
        std::fs::create_dir_all(&self.dir)?;
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=90%", "boottorrent-lab"]).arg(&self.dir);
        output(&mut mount)?;
        for slot in self.slots() {
            std::fs::create_dir_all(self.slot_dir(slot))?;
        }
        Ok(())
    }

    fn add_namespaces(&self) -> Result<()> {
        let mut lines = format!("netns add {}\n", self.switch());
        for slot in self.slots() {
            let (namespace, switch) = (self.namespace(slot), self.switch());
            let (mac, port) = (slot.mac(), slot.port());
            writeln!(lines, "netns add {namespace}")?;
            writeln!(
                lines,
                "link add eth0 netns {namespace} address {mac} type veth peer name {port} \
                 netns {switch}"
            )?;
        }
        batch(Command::new("ip"), &lines)
    }

    fn configure_switch(&self, rate: Option<Rate>) -> Result<()> {
        // No spanning tree (ports forward at once) and no snooping (multicast reaches every port,
        // as on an unmanaged switch).
        let mut links = String::from(
            "link add br0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0\n\
             link set br0 addrgenmode none up\n",
        );
        let (mut forwarding, mut queues) = (String::new(), String::new());
        for slot in self.slots() {
            let (port, mac) = (slot.port(), slot.mac());
            writeln!(links, "link set {port} master br0 addrgenmode none up")?;
            // Where each address lives is known, so a dead port's traffic is not flooded to all.
            writeln!(forwarding, "fdb add {mac} dev {port} master static")?;
            writeln!(forwarding, "link set dev {port} flood off learning off")?;
            if let Some(rate) = rate {
                queues.push_str(&shape("add", &port, rate));
            }
        }
        let switch = self.switch();
        batch(with_args("ip", &["-n", &switch]), &links)?;
        batch(with_args("bridge", &["-n", &switch]), &forwarding)?;
        tc(&switch, &queues)
    }

    fn configure_slot(&self, slot: Slot, rate: Option<Rate>) -> Result<()> {
        let namespace = self.namespace(slot);
        let mut lines = format!(
            "link set lo up\n\
             link set eth0 addrgenmode none up\n\
             address add {}/16 broadcast 10.77.255.255 dev eth0\n\
             route add 224.0.0.0/4 dev eth0\n",
            slot.address()
        );
        for other in self.slots().filter(|other| *other != slot) {
            writeln!(
                lines,
                "neigh replace {} lladdr {} dev eth0 nud permanent",
                other.address(),
                other.mac()
            )?;
        }
        batch(with_args("ip", &["-n", &namespace]), &lines)?;
        match rate {
            Some(rate) => tc(&namespace, &shape("add", "eth0", rate)),
            None => Ok(()),
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        sweep::remove_lab(&self.prefix, &self.dir);
    }
}

/// One line for `tc -batch` that shapes what a device sends.
fn shape(verb: &str, device: &str, rate: Rate) -> String {
    let burst = (rate.bytes_per_s() * BURST_TIME_MS / 1_000).max(GSO_LEN_MAX);
    let bits = rate.bits_per_s();
    format!(
        "qdisc {verb} dev {device} root tbf rate {bits}bit burst {burst} limit {}\n",
        QUEUE_LEN.max(2 * burst)
    )
}

fn require_root() -> Result<()> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let uid = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap_or_default();
    if uid.split_whitespace().nth(1) != Some("0") {
        bail!("network namespaces need root: run this command with sudo");
    }
    Ok(())
}

fn with_args(program: &str, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(args);
    command
}

fn ip(args: &[&str]) -> Result<()> {
    output(&mut with_args("ip", args)).map(drop)
}

fn tc(namespace: &str, lines: &str) -> Result<()> {
    batch(with_args("tc", &["-n", namespace]), lines)
}

/// Feeds lines to one `ip`, `tc` or `bridge`: a process per namespace instead of one per line.
fn batch(mut command: Command, lines: &str) -> Result<()> {
    command.args(["-batch", "-"]);
    let name = format!("{command:?}");
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("{name}: is iproute2 installed? (cargo xtask setup)"))?;
    child.stdin.take().expect("stdin is piped").write_all(lines.as_bytes())?;
    let out = child.wait_with_output()?;
    ensure!(out.status.success(), "{name}: {}", String::from_utf8_lossy(&out.stderr).trim());
    Ok(())
}

/// Standard output of a command that must succeed.
fn output(command: &mut Command) -> Result<String> {
    let out = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("running {}", command.get_program().display()))?;
    ensure!(
        out.status.success(),
        "{command:?}: {}: {}",
        out.status,
        String::from_utf8_lossy(&out.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_have_distinct_addresses() {
        let mut addresses: Vec<_> = (0..SLOTS_MAX).map(|n| Slot(n).address()).collect();
        addresses.sort();
        addresses.dedup();
        assert_eq!(addresses.len(), SLOTS_MAX);
    }

    #[test]
    fn burst_passes_a_whole_gso_packet_at_any_rate() {
        for text in ["1mbit", "50mbit", "1gbit", "10gbit"] {
            let line = shape("add", "eth0", text.parse().unwrap());
            let burst = line.split("burst ").nth(1).unwrap().split(' ').next().unwrap();
            assert!(burst.parse::<u64>().unwrap() >= GSO_LEN_MAX, "{line}");
        }
    }
}
