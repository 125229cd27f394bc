//! What one machine with a card of 70 addresses does to the server: each attack bounded in count and rate, so
//! that it is the same on every machine and leaves two processors something for the server.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::scene::http;
use super::victim::{self, infohash};
use super::wire::{self, DhcpSocket, Http, Mac, mac_text};

/// Addresses of the card.
pub(super) const ADDRESSES: u8 = 70;

/// Connections from one address to HTTP: as many as are allowed.
const EACH: usize = 64;

/// A receive window that is full at once: the least that Linux gives.
const NO_WINDOW: usize = 2_048;

/// How often connections are looked at, and those that were closed are opened again.
const ROUND: Duration = Duration::from_millis(500);

/// How long it waits to be let in before it tries the next.
const DOOR: Duration = Duration::from_millis(300);

/// Threads that open connections.
const HANDS: u8 = 8;

/// An attack: a name for people, and what it does until it is told to stop. It says how often it did it.
#[derive(Clone, Copy)]
pub(super) struct Attack {
    pub(super) what: &'static str,
    pub(super) run: fn(&Attacker<'_>) -> u64,
}

/// See the module documentation. To be used inside the attacker's namespace.
pub(super) struct Attacker<'a> {
    stop: &'a AtomicBool,
}

pub(super) const UNREAD_LISTS: Attack = Attack {
    what: "lists of nodes are asked for and not read, 3 × 64 connections",
    run: unread_lists,
};
pub(super) const SLOW_DOWNLOADS: Attack =
    Attack { what: "phase 1 is downloaded at 16 kB/s, 64 × 64 connections", run: slow_downloads };
pub(super) const IDLE_DOORS: Attack =
    Attack { what: "64 × 64 connections say nothing", run: idle_doors };
pub(super) const SMALL_REPORTS: Attack = Attack {
    what: "reports of 8,192 invented nodes, 2,000/s",
    run: |it| it.reports(4, 500, false),
};
pub(super) const FAT_REPORTS: Attack = Attack {
    what: "reports of 15 kB of invented nodes, 600/s",
    run: |it| it.reports(3, 200, true),
};
pub(super) const STARVE: Attack =
    Attack { what: "leases for invented machines, 400/s", run: |it| it.starve(1_000) };
pub(super) const SEED_PEERS: Attack =
    Attack { what: "4 × 50 peers shake hands with the seed and stay", run: seed_peers };
pub(super) const TRACKER_IDLE: Attack =
    Attack { what: "1,500 idle connections to the tracker from one address", run: tracker_idle };
pub(super) const TFTP_REQUESTS: Attack =
    Attack { what: "TFTP is asked by 64 addresses that take nothing, 2,000/s", run: tftp_requests };
pub(super) const LISTENERS: Attack =
    Attack { what: "one address listens to the live events 64 times", run: listeners };
pub(super) const LAN_IDLE: Attack = Attack {
    what: "300 idle connections to a LANTorrent endpoint from one address",
    run: lan_idle,
};
pub(super) const LIES: Attack =
    Attack { what: "reports, scripts and DHCP in named nodes' names, 100/s", run: lies };

/// All that can be done over the network at once.
pub(super) const ALL: &[Attack] = &[
    UNREAD_LISTS,
    SLOW_DOWNLOADS,
    SMALL_REPORTS,
    FAT_REPORTS,
    STARVE,
    SEED_PEERS,
    TRACKER_IDLE,
    TFTP_REQUESTS,
    LISTENERS,
    LIES,
];

/// The address of the card with this number, from 1.
pub(super) fn address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 66, number)
}

/// A machine that is not there.
pub(super) fn invented(number: u64) -> Mac {
    let number = (number as u32).to_be_bytes();
    [0x52, 0x66, number[0], number[1], number[2], number[3]]
}

/// A report as a stranger makes it.
pub(super) fn report(mac: Mac, boot: u64, sequence: u64, more: Value) -> Value {
    let mut report = json!({
        "node": mac_text(mac), "boot": boot, "sequence": sequence, "uptime_ms": 9_000, "stage": "menu",
    });
    if let (Some(report), Value::Object(more)) = (report.as_object_mut(), more) {
        report.extend(more);
    }
    report
}

/// Connections to hold.
struct Hold<'a> {
    port: u16,
    addresses: u8,
    each: usize,
    window: Option<usize>,
    /// Said at first, and in each round after it.
    first: &'a (dyn Fn(u64) -> Vec<u8> + Sync),
    again: &'a [u8],
    /// Bytes read in each round.
    nibble: usize,
}

impl<'a> Attacker<'a> {
    pub(super) fn new(stop: &'a AtomicBool) -> Self {
        Self { stop }
    }

    pub(super) fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Does something so often a second until it is to stop; how often.
    pub(super) fn paced(
        &self,
        per_s: u32,
        count_max: u64,
        mut deed: impl FnMut(u64) -> bool,
    ) -> u64 {
        let (start, mut done) = (Instant::now(), 0);
        for number in 0..count_max {
            let due = start + Duration::from_secs(1) * number as u32 / per_s;
            while Instant::now() < due && !self.is_over() {
                std::thread::sleep((due - Instant::now().min(due)).min(ROUND));
            }
            if self.is_over() {
                break;
            }
            done += u64::from(deed(number));
        }
        done
    }

    /// Waits for the end of what was done once.
    fn linger(&self) {
        while !self.is_over() {
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Opens connections and keeps them open; how many were opened in all.
    fn hold(&self, hold: &Hold<'_>) -> u64 {
        let count = AtomicU64::new(0);
        std::thread::scope(|scope| {
            let hands = HANDS.min(hold.addresses);
            for hand in 0..hands {
                let count = &count;
                scope.spawn(move || {
                    let mine = (1..=hold.addresses).filter(|number| number % hands == hand);
                    let mine: Vec<u8> = mine.collect();
                    let mut held: Vec<Option<TcpStream>> = vec![];
                    held.resize_with(mine.len() * hold.each, || None);
                    while !self.is_over() {
                        let begin = Instant::now();
                        for (at, slot) in held.iter_mut().enumerate() {
                            let from = address(mine[at / hold.each]);
                            self.keep(hold, from, slot, count);
                        }
                        std::thread::sleep(ROUND.saturating_sub(begin.elapsed()));
                    }
                });
            }
        });
        count.into_inner()
    }

    fn keep(
        &self,
        hold: &Hold<'_>,
        from: Ipv4Addr,
        slot: &mut Option<TcpStream>,
        count: &AtomicU64,
    ) {
        if self.is_over() {
            return;
        }
        let Some(stream) = slot else {
            let to = SocketAddrV4::new(victim::server(), hold.port);
            if let Ok(mut stream) = wire::connect(from, to, hold.window, DOOR)
                && stream.write_all(&(hold.first)(count.load(Ordering::Relaxed))).is_ok()
                && stream.set_nonblocking(true).is_ok()
            {
                count.fetch_add(1, Ordering::Relaxed);
                *slot = Some(stream);
            }
            return;
        };
        let mut room = [0; 16 << 10];
        let is_cut = match stream.read(&mut room[..hold.nibble.clamp(1, 16 << 10)]) {
            _ if hold.nibble == 0 => false,
            Ok(0) => true,
            Ok(_) => false,
            Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
        };
        if is_cut || (!hold.again.is_empty() && stream.write_all(hold.again).is_err()) {
            *slot = None;
        }
    }

    /// Reports of invented nodes, so many a second from each of some addresses.
    fn reports(&self, addresses: u8, per_s: u32, is_fat: bool) -> u64 {
        let log: Vec<String> = if is_fat { vec!["x".repeat(500); 28] } else { vec![] };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (1..=addresses)
                .map(|number| {
                    let log = &log;
                    scope.spawn(move || {
                        let mut line = None;
                        self.paced(per_s, 100_000, |at| {
                            let node = (at * u64::from(addresses) + u64::from(number)) % 8_192;
                            let stages = ["menu", "lease", "agent"];
                            let stage = stages[(at / 2_048) as usize % stages.len()];
                            let more = json!({"stage": stage, "log": log});
                            let body = report(invented(node), 1, at + 1, more).to_string();
                            say(&mut line, address(number), &body)
                        })
                    })
                })
                .collect();
            threads.into_iter().filter_map(|thread| thread.join().ok()).sum()
        })
    }

    /// Takes addresses for machines that are not there.
    pub(super) fn starve(&self, count: u64) -> u64 {
        let Ok(socket) = DhcpSocket::open(68) else { return 0 };
        let done = self.paced(400, count, |number| {
            let soon = Duration::from_millis(20);
            let _ = socket.lease_within(invented(number), &[], soon);
            // A question that is not answered is an attack as well.
            true
        });
        self.linger();
        done
    }
}

/// A report on a connection that is kept; whether it was answered.
fn say(line: &mut Option<Http>, from: Ipv4Addr, body: &str) -> bool {
    if line.is_none() {
        *line = Http::connect(from, http()).ok();
    }
    let Some(http_line) = line else { return false };
    let fields = [("Content-Type", "application/json")];
    let request = wire::request(http(), "POST", "/api/v1/reports", &fields, body);
    let is_answered = http_line.ask(&request).is_ok();
    if !is_answered {
        *line = None;
    }
    is_answered
}

fn unread_lists(attacker: &Attacker<'_>) -> u64 {
    // Nodes first, that there is something to list.
    let mut line = None;
    for number in 0..8_192 {
        if attacker.is_over() {
            break;
        }
        say(&mut line, address(5), &report(invented(number), 1, 1, json!({})).to_string());
    }
    drop(line);
    let first = wire::request(http(), "GET", "/api/v1/nodes", &[], "");
    attacker.hold(&Hold {
        port: http().port(),
        addresses: 3,
        each: EACH,
        window: Some(NO_WINDOW),
        first: &|_| first.clone().into_bytes(),
        again: &[],
        nibble: 0,
    })
}

fn slow_downloads(attacker: &Attacker<'_>) -> u64 {
    let first = wire::request(http(), "GET", "/phase1/initramfs.img", &[], "");
    attacker.hold(&Hold {
        port: http().port(),
        addresses: 64,
        each: EACH,
        window: Some(NO_WINDOW),
        first: &|_| first.clone().into_bytes(),
        again: &[],
        nibble: 8 << 10,
    })
}

fn idle_doors(attacker: &Attacker<'_>) -> u64 {
    let hold = Hold { addresses: 64, each: EACH, ..idle(http().port()) };
    attacker.hold(&hold)
}

/// Connections from one address that say nothing.
const fn idle(port: u16) -> Hold<'static> {
    Hold { port, addresses: 1, each: 300, window: None, first: &|_| vec![], again: &[], nibble: 1 }
}

fn tracker_idle(attacker: &Attacker<'_>) -> u64 {
    attacker.hold(&Hold { each: 1_500, ..idle(10_001) })
}

fn lan_idle(attacker: &Attacker<'_>) -> u64 {
    attacker.hold(&idle(2_893))
}

fn listeners(attacker: &Attacker<'_>) -> u64 {
    let first = wire::request(http(), "GET", "/v1/events", &[], "");
    let hold = Hold {
        each: EACH,
        first: &|_| first.clone().into_bytes(),
        nibble: 16 << 10,
        ..idle(http().port())
    };
    attacker.hold(&hold)
}

fn seed_peers(attacker: &Attacker<'_>) -> u64 {
    // With others at the door it may take a while until that is known.
    let infohash = loop {
        match infohash(address(1)) {
            Ok(infohash) => break infohash,
            Err(_) if attacker.is_over() => return 0,
            Err(_) => std::thread::sleep(ROUND),
        }
    };
    // Each round a keep-alive.
    attacker.hold(&Hold {
        addresses: 4,
        each: 50,
        first: &|number| wire::handshake(infohash, number),
        again: &[0; 4],
        nibble: 16 << 10,
        ..idle(6_881)
    })
}

fn tftp_requests(attacker: &Attacker<'_>) -> u64 {
    let ask = b"\0\x01undionly.kpxe\0octet\0";
    attacker.paced(2_000, 1_000_000, |number| {
        // A socket of its own for each, as a transfer is a pair of ports.
        let Ok(socket) = UdpSocket::bind((address((number % 64) as u8 + 1), 0)) else {
            return false;
        };
        socket.send_to(ask, (victim::server(), 69)).is_ok()
    })
}

/// Says another architecture, asks for scripts and reports the end of a boot, all in named nodes' names.
fn lies(attacker: &Attacker<'_>) -> u64 {
    let Ok(socket) = DhcpSocket::open(68) else { return 0 };
    let mut line = None;
    attacker.paced(100, 100_000, |number| {
        let mac = super::scene::named((number / 3 % 8) as u8 + 1);
        match number % 3 {
            0 => {
                socket.send(67, &wire::dhcp_message(wire::DISCOVER, mac, wire::xid(), ARM)).is_ok()
            }
            1 => {
                let path = format!("/boot.ipxe?mac={}", mac_text(mac));
                wire::get(address(1), http(), &path).is_ok()
            }
            _ => {
                let machine =
                    json!({"machine": machine("arm64"), "stage": "booted", "image": "tiny"});
                say(&mut line, address(1), &report(mac, number, u64::MAX, machine).to_string())
            }
        }
    })
}

/// A PXE ROM of another architecture.
pub(super) const ARM: wire::Options<'static> =
    &[(60, b"PXEClient:Arch:00011:UNDI:003000"), (93, &[0, 11]), (94, &[1, 3, 0])];

/// What an agent says of its machine.
pub(super) fn machine(arch: &str) -> Value {
    json!({
        "arch": arch, "firmware": "bios", "memory_bytes": 1, "processors": 1, "agent": "x",
        "kernel": "y",
    })
}
