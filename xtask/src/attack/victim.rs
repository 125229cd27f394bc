//! The victim: nodes that boot, over and over, as firmware, iPXE and agent do, and how long each step takes
//! them. A step that fails counts as one that takes for ever.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tftp::Receiver;

use super::scene::{self, http, named, reserved};
use super::wire::{self, BIOS, DhcpSocket, Mac, PATIENCE, mac_text};
use crate::e2e::server::Server;
use crate::lab::Slot;

/// Where the tracker, the server's peer and TFTP are.
const TRACKER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 77, 0, 1), 10_001);
const SEED: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 77, 0, 1), 6_881);
const TFTP: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 77, 0, 1), 69);

/// Between two tries of a step: what a room of a few dozen nodes that boot asks.
const DHCP_EACH: Duration = Duration::from_millis(40);
const SCRIPT_EACH: Duration = Duration::from_millis(40);
const REST_EACH: Duration = Duration::from_millis(150);

/// Nodes that nodes.yaml names, and others, that boot in turn.
const NODES_NAMED: u8 = 8;
const NODES_UNKNOWN: u8 = 8;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    DhcpNamed,
    DhcpUnknown,
    Script,
    Phase1,
    Tftp,
    Announce,
    Handshake,
    Status,
}

impl Step {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::DhcpNamed => "DHCP",
            Self::DhcpUnknown => "DHCP, unknown",
            Self::Script => "script",
            Self::Phase1 => "phase 1",
            Self::Tftp => "TFTP",
            Self::Announce => "announce",
            Self::Handshake => "handshake",
            Self::Status => "status",
        }
    }

    /// Within which 99 of 100 must be done. Of DHCP what a switch that opens its port adds unnoticed, of
    /// script and phase 1 what a person at the machine does not call slow; the rest must come at all.
    pub(super) fn bar(self) -> Duration {
        match self {
            Self::DhcpNamed | Self::DhcpUnknown => Duration::from_millis(200),
            Self::Script | Self::Phase1 => Duration::from_secs(2),
            Self::Tftp | Self::Announce | Self::Handshake | Self::Status => PATIENCE,
        }
    }
}

/// How long steps took, in milliseconds, sorted once they are summed up.
#[derive(Default)]
pub(super) struct Probes {
    times: BTreeMap<Step, Vec<f64>>,
    failures: BTreeMap<Step, (usize, String)>,
}

/// Of one step.
pub(super) struct Summary {
    pub(super) step: Step,
    pub(super) count: usize,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) max_ms: f64,
    pub(super) failed_count: usize,
}

impl Probes {
    fn note(&mut self, step: Step, start: Instant, result: Result<()>) {
        let time = match result {
            Ok(()) => start.elapsed().as_secs_f64() * 1e3,
            Err(error) => {
                self.failures.entry(step).or_insert((0, format!("{error:#}"))).0 += 1;
                f64::INFINITY
            }
        };
        self.times.entry(step).or_default().push(time);
    }

    pub(super) fn add(&mut self, other: Self) {
        for (step, times) in other.times {
            self.times.entry(step).or_default().extend(times);
        }
        for (step, (count, first)) in other.failures {
            self.failures.entry(step).or_insert((0, first)).0 += count;
        }
    }

    pub(super) fn summaries(&self) -> Vec<Summary> {
        let sum_up = |(step, times): (&Step, &Vec<f64>)| {
            let mut times = times.clone();
            times.sort_by(f64::total_cmp);
            let at = |part: f64| times[((times.len() as f64 * part).ceil() as usize).max(1) - 1];
            Summary {
                step: *step,
                count: times.len(),
                p50_ms: at(0.5),
                p99_ms: at(0.99),
                max_ms: at(1.0),
                failed_count: self.failures.get(step).map_or(0, |(count, _)| *count),
            }
        };
        self.times.iter().map(sum_up).collect()
    }

    /// Fails if a step is slower than it may be.
    pub(super) fn judge(&self) -> Result<()> {
        let mut missed = vec![];
        for Summary { step, count, p99_ms, failed_count, .. } in self.summaries() {
            if p99_ms > step.bar().as_secs_f64() * 1e3 {
                let why = self.failures.get(&step).map_or("slow", |(_, why)| why);
                let name = step.name();
                missed.push(format!(
                    "{name}: p99 {p99_ms:.0} ms, {failed_count} of {count} failed ({why})"
                ));
            }
        }
        ensure!(missed.is_empty(), "the victim's boot path is missed: {}", missed.join("; "));
        Ok(())
    }
}

/// A machine that boots.
#[derive(Clone, Copy)]
pub(super) struct Node {
    pub(super) mac: Mac,
    pub(super) address: Ipv4Addr,
}

/// Nodes that boot, those that nodes.yaml names first, and what they download.
pub(super) struct Room {
    nodes: Vec<Node>,
    infohash: [u8; 20],
}

/// What an agent says of itself, and by what the server knows that it is this boot's.
pub(super) struct Agent {
    pub(super) node: Node,
    pub(super) boot: u64,
    /// As the script says it: a word of phase 1's command line.
    proof: Option<String>,
}

/// See the module documentation. To be used inside the victim's namespace.
pub(super) struct Victim<'a> {
    pub(super) server: &'a Server<'a>,
}

impl Victim<'_> {
    /// A node that nodes.yaml names, with its lease.
    pub(super) fn node(&self, number: u8) -> Result<Node> {
        let node = Node { mac: named(number), address: reserved(number) };
        let address = DhcpSocket::open(68)?.lease(node.mac, BIOS)?;
        ensure!(address == node.address, "{} has {address}", mac_text(node.mac));
        Ok(node)
    }

    /// One that it does not name, with the address that it got on the card.
    pub(super) fn stranger(&self, number: u8) -> Result<Node> {
        let mac = [0x52, 0x54, 0, 0x99, 0, number];
        let address = DhcpSocket::open(68)?.lease(mac, BIOS)?;
        // It may be there from another time.
        let mut ip = Command::new("ip");
        ip.args(["address", "replace", &format!("{address}/16"), "dev", "eth0"]);
        ensure!(ip.status().context("running ip")?.success(), "{ip:?}");
        Ok(Node { mac, address })
    }

    /// The script of a node as its iPXE asks for it.
    pub(super) fn script(&self, node: Node) -> Result<String> {
        script(node, "arch=i386&platform=pcbios")
    }

    /// A node boots to where its agent runs.
    pub(super) fn boot(&self, node: Node, boot: u64) -> Result<Agent> {
        DhcpSocket::open(68)?.lease(node.mac, BIOS)?;
        let script = self.script(node)?;
        let proof = word(&script, PROOF).map(str::to_owned);
        Ok(Agent { node, boot, proof })
    }

    /// All nodes with their leases, before anybody does them harm.
    pub(super) fn room(&self) -> Result<Room> {
        let named = (1..=NODES_NAMED).map(|number| self.node(number));
        let nodes = named.chain((1..=NODES_UNKNOWN).map(|number| self.stranger(number)));
        Ok(Room { nodes: nodes.collect::<Result<_>>()?, infohash: infohash(reserved(1))? })
    }

    /// Boots all of them in turn for a time.
    pub(super) fn measure(&self, room: &Room, time: Duration) -> Result<Probes> {
        let Room { nodes: room, infohash } = room;
        let until = Instant::now() + time;
        let mut all = Probes::default();
        std::thread::scope(|scope| {
            let threads = [
                scope.spawn(|| lease_in_turn(room, until)),
                scope.spawn(|| {
                    in_turn(until, SCRIPT_EACH, |round, probes| {
                        let node = room[round % room.len()];
                        let start = Instant::now();
                        probes.note(Step::Script, start, is_phase1(&self.script(node)));
                    })
                }),
                scope.spawn(|| {
                    in_turn(until, REST_EACH, |round, probes| {
                        let node = room[round % room.len()];
                        let start = Instant::now();
                        probes.note(Step::Phase1, start, phase1(node));
                    })
                }),
                scope.spawn(|| {
                    in_turn(until, REST_EACH, |round, probes| {
                        self.rest(room[round % room.len()], *infohash, probes);
                    })
                }),
            ];
            for thread in threads {
                all.add(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            }
        });
        Ok(all)
    }

    fn rest(&self, node: Node, infohash: [u8; 20], probes: &mut Probes) {
        let start = Instant::now();
        probes.note(Step::Tftp, start, tftp(node.address, "undionly.kpxe").map(drop));
        let start = Instant::now();
        probes.note(Step::Announce, start, announce(node.address, infohash));
        let start = Instant::now();
        probes.note(Step::Handshake, start, shake_hands(node.address, infohash));
        let start = Instant::now();
        probes.note(Step::Status, start, self.server.run(&["status"]).map(drop));
    }
}

impl Agent {
    /// Reports a stage, with more fields; the server's answer.
    pub(super) fn report(&self, sequence: u64, uptime_ms: u64, more: Value) -> Result<Value> {
        let mut report = json!({
            "node": mac_text(self.node.mac), "boot": self.boot, "sequence": sequence,
            "uptime_ms": uptime_ms,
        });
        if let (Some(report), Value::Object(more)) = (report.as_object_mut(), more) {
            report.extend(more);
        }
        post_report_with(self.node.address, self.proof.as_deref(), &report)?.json()
    }
}

/// The word of phase 1's command line by which a node's reports are known to be of this boot.
const PROOF: &str = "boottorrent.proof=";

fn word<'a>(text: &'a str, begin: &str) -> Option<&'a str> {
    text.split_whitespace().find_map(|word| word.strip_prefix(begin))
}

/// Sends a report as who has no proof does.
pub(super) fn post_report(from: Ipv4Addr, report: &Value) -> Result<wire::Answer> {
    post_report_with(from, None, report)
}

fn post_report_with(from: Ipv4Addr, proof: Option<&str>, report: &Value) -> Result<wire::Answer> {
    let mut fields = vec![("Content-Type", "application/json")];
    fields.extend(proof.map(|proof| ("Boottorrent-Proof", proof)));
    let request = wire::request(http(), "POST", "/api/v1/reports", &fields, &report.to_string());
    wire::Http::connect(from, http())?.ask(&request)
}

/// Asks for the script of a node in the words of an iPXE.
pub(super) fn script(node: Node, words: &str) -> Result<String> {
    let path = format!("/boot.ipxe?mac={}&{words}", mac_text(node.mac));
    let answer = wire::get(node.address, http(), &path)?;
    ensure!(answer.status == 200, "the script is {}: {}", answer.status, answer.text());
    Ok(answer.text())
}

/// Whether a script loads phase 1.
pub(super) fn is_phase1(script: &Result<String>) -> Result<()> {
    let script = script.as_ref().map_err(|error| anyhow::anyhow!("{error:#}"))?;
    ensure!(script.contains("initrd=initramfs.img"), "not the script of phase 1: {script}");
    Ok(())
}

fn in_turn(until: Instant, each: Duration, mut run: impl FnMut(usize, &mut Probes)) -> Probes {
    let mut probes = Probes::default();
    for round in 0.. {
        if Instant::now() >= until {
            break;
        }
        run(round, &mut probes);
        std::thread::sleep(each);
    }
    probes
}

fn lease_in_turn(room: &[Node], until: Instant) -> Probes {
    in_turn(until, DHCP_EACH, |round, probes| {
        let at = round % room.len();
        let step = if at < usize::from(NODES_NAMED) { Step::DhcpNamed } else { Step::DhcpUnknown };
        let start = Instant::now();
        let lease = DhcpSocket::open(68).and_then(|socket| socket.lease(room[at].mac, BIOS));
        let right = lease.and_then(|address| {
            ensure!(address == room[at].address, "{address} in place of {}", room[at].address);
            Ok(())
        });
        probes.note(step, start, right);
    })
}

/// Kernel and initramfs, whole.
fn phase1(node: Node) -> Result<()> {
    let mut http = wire::Http::connect(node.address, http())?;
    for name in ["vmlinuz", "initramfs.img", "../lab.cpio"] {
        let path = format!("/phase1/{name}").replace("/phase1/..", "");
        let answer = http.get(&path)?;
        ensure!(answer.status == 200 && !answer.body.is_empty(), "{path} is {}", answer.status);
    }
    Ok(())
}

/// A file by TFTP, in blocks as a BIOS asks for them.
pub(super) fn tftp(from: Ipv4Addr, name: &str) -> Result<u64> {
    let socket = UdpSocket::bind((from, 0))?;
    let mut receiver = Receiver::new(name.as_bytes(), tftp::Options::default());
    socket.send_to(&receiver.request(), TFTP)?;
    socket.set_read_timeout(Some(Duration::from_millis(500)))?;
    let until = Instant::now() + PATIENCE;
    let mut room = [0; 2_048];
    while receiver.result().is_none() {
        ensure!(Instant::now() < until, "no answer of TFTP");
        let Ok((len, from)) = socket.recv_from(&mut room) else {
            let (to, packet) =
                receiver.again().unwrap_or((SocketAddr::from(TFTP), receiver.request()));
            socket.send_to(&packet, to)?;
            continue;
        };
        if let Some(answer) = receiver.handle(from, &room[..len]).answer {
            socket.send_to(&answer, from)?;
        }
    }
    Ok(receiver.result().context("it has ended")??)
}

fn announce(from: Ipv4Addr, infohash: [u8; 20]) -> Result<()> {
    let escaped: String = infohash.iter().map(|byte| format!("%{byte:02x}")).collect();
    let path = format!(
        "/announce?info_hash={escaped}&peer_id=-XX0100-000000000001&port=6881&uploaded=0&downloaded=0\
         &left=1&compact=1&event=started"
    );
    let request = wire::request(TRACKER, "GET", &path, &[("Connection", "close")], "");
    let mut stream = wire::connect(from, TRACKER, None, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = vec![];
    stream.take(64 << 10).read_to_end(&mut answer)?;
    let text = String::from_utf8_lossy(&answer);
    ensure!(text.contains(" 200") && text.contains("5:peers"), "the tracker answers {text:?}");
    Ok(())
}

fn shake_hands(from: Ipv4Addr, infohash: [u8; 20]) -> Result<()> {
    let mut stream = wire::connect(from, SEED, None, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(&wire::handshake(infohash, u64::from(u32::from(from))))?;
    let mut answer = [0; 68];
    stream.read_exact(&mut answer).context("the seed hangs up")?;
    ensure!(answer[28..48] == infohash, "a handshake of something else");
    Ok(())
}

/// That of the default image: of a torrent of the second version what fits into a handshake (BEP 52).
pub(super) fn infohash(from: Ipv4Addr) -> Result<[u8; 20]> {
    let images = wire::get(from, http(), "/v1/images")?.json()?;
    let mut all = images["images"].as_array().into_iter().flatten();
    let image = all.find(|image| image["name"] == scene::IMAGE);
    let text = image.and_then(|image| image["infohash"].as_str()?.get(..40));
    let text = text.with_context(|| format!("no infohash: {images}"))?;
    let mut bytes = [0; 20];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16)?;
    }
    Ok(bytes)
}

/// The server's address, as the victim sees it.
pub(super) fn server() -> Ipv4Addr {
    Slot::SERVER.address()
}
