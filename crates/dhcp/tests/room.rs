//! A room of nodes and our server on one simulated network that loses, delays and repeats packets:
//! both sides as they are shipped, for days of simulated time. A failure prints its seed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use dhcp::Time;
use dhcp::client::{self, Client, ClientConfig, Destination};
use dhcp::{
    Audience, BootFiles, Config, Input, LabId, Lease, Mac, Mode, Output, Port, Range, Service,
    Start, Subnet, Unproved,
};
use fastrand::Rng;

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const FIRST: u32 = 0x0a00_0032;
const LEASE_TIME: Duration = Duration::from_secs(600);
const MINUTE: Duration = Duration::from_secs(60);

/// As long as the agent's probe takes.
const PROBE_TIME: Duration = Duration::from_millis(240);

/// Something that is to happen.
#[derive(Clone, Debug)]
enum Event {
    SwitchOn(usize),
    /// A packet from a node reaches the server.
    ToServer {
        from: Ipv4Addr,
        bytes: Vec<u8>,
    },
    ToNode {
        node: usize,
        bytes: Vec<u8>,
    },
    /// The server has found out who uses an address.
    Looked(Ipv4Addr),
    Probed {
        node: usize,
        address: Ipv4Addr,
    },
}

struct Node {
    client: Option<Client>,
    address: Option<Ipv4Addr>,
    bound_count: u32,
}

struct Room {
    rng: Rng,
    now: Time,
    events: BTreeMap<(Time, u64), Event>,
    event_count: u64,
    server: Option<Service>,
    stored: BTreeMap<Ipv4Addr, Lease>,
    nodes: Vec<Node>,
    /// Machines that use an address without having asked anybody.
    squatters: BTreeSet<Ipv4Addr>,
    loss: f64,
    address_count: u32,
}

impl Room {
    fn new(seed: u64, node_count: usize, address_count: u32, loss: f64) -> Self {
        let nodes = (0..node_count).map(|_| Node { client: None, address: None, bound_count: 0 });
        let mut room = Self {
            rng: Rng::with_seed(seed),
            now: Time::ZERO,
            events: BTreeMap::new(),
            event_count: 0,
            server: None,
            stored: BTreeMap::new(),
            nodes: nodes.collect(),
            squatters: BTreeSet::new(),
            loss,
            address_count,
        };
        room.start_server();
        for node in 0..node_count {
            let after = Duration::from_millis(room.rng.u64(..3_000));
            room.after(after, Event::SwitchOn(node));
        }
        room
    }

    fn start_server(&mut self) {
        let subnet = Subnet::of(SERVER, 16);
        let last = Ipv4Addr::from(FIRST + self.address_count - 1);
        let config = Config {
            audience: Audience::ALL,
            mode: Mode::Server,
            force: true,
            lab: LabId([7; 8]),
            address: SERVER,
            subnet,
            mac: Mac([2, 0, 0, 0, 0, 1]),
            ranges: vec![Range { first: FIRST.into(), last, subnet, router: None }],
            reservations: vec![],
            lease_time: LEASE_TIME,
            dns: vec![],
            domain: None,
            boot: BootFiles::usual(SERVER, 8080),
        };
        let leases: Vec<Lease> = self.stored.values().cloned().collect();
        let prover = Box::new(Unproved);
        let start = Start { leases, last_role: None, prover, seed: self.rng.u64(..) };
        let service = Service::new(config, start, self.now);
        self.server = Some(service.expect("the configuration is sound"));
    }

    fn after(&mut self, delay: Duration, event: Event) {
        self.event_count += 1;
        self.events.insert((self.now + delay, self.event_count), event);
    }

    /// Sends a packet through the network: lost, late, or twice.
    fn send(&mut self, event: Event) {
        for _ in 0..=usize::from(self.rng.f64() < self.loss / 4.0) {
            if self.rng.f64() >= self.loss {
                let delay = Duration::from_micros(self.rng.u64(100..5_000));
                self.after(delay, event.clone());
            }
        }
    }

    /// Lets time pass.
    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let event = self.events.first_key_value().map(|((at, _), _)| *at);
            let server = self.server.as_ref().and_then(Service::next_timeout);
            let clients = self.nodes.iter().filter_map(|node| node.client.as_ref());
            let client = clients.map(Client::next_timeout).min();
            let next = [event, server, client].into_iter().flatten().min().unwrap_or(Time::NEVER);
            if next > end {
                self.now = end;
                return;
            }
            self.now = next;
            while let Some(entry) = self.events.first_entry()
                && entry.key().0 <= next
            {
                let event = entry.remove();
                self.happen(event);
            }
            self.tick();
        }
    }

    fn tick(&mut self) {
        if self.server.as_ref().and_then(Service::next_timeout).is_some_and(|at| at <= self.now) {
            self.serve(Input::Tick);
        }
        for node in 0..self.nodes.len() {
            let client = self.nodes[node].client.as_ref();
            if client.is_some_and(|client| client.next_timeout() <= self.now) {
                self.turn(node, client::Input::Tick);
            }
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::SwitchOn(node) => {
                let config = ClientConfig {
                    mac: mac(node),
                    uuid: None,
                    hostname: None,
                    boot_server: Some(SERVER),
                    random_seed: self.rng.u64(..),
                };
                self.nodes[node].client = Some(Client::new(config, self.now));
                self.nodes[node].address = None;
            }
            Event::ToServer { from, bytes } => {
                let from = SocketAddrV4::new(from, 68);
                self.serve(Input::Packet { port: Port::Server, from, bytes: &bytes });
            }
            Event::Looked(address) => {
                let node = self.nodes.iter().position(|node| node.address == Some(address));
                let squatter = self.squatters.contains(&address).then_some(Mac([2; 6]));
                let user = node.map(|node| Mac(mac(node))).or(squatter);
                self.serve(Input::Looked { address, user });
            }
            Event::ToNode { node, bytes } => self.turn(node, client::Input::Datagram(&bytes)),
            Event::Probed { node, address } => {
                let is_used = self.squatters.contains(&address)
                    || self.nodes.iter().any(|other| other.address == Some(address));
                let input = match is_used {
                    true => client::Input::AddressTaken(address),
                    false => client::Input::AddressFree(address),
                };
                self.turn(node, input);
            }
        }
    }

    fn serve(&mut self, input: Input<'_>) {
        let Some(mut server) = self.server.take() else {
            return;
        };
        server.handle(self.now, input);
        while let Some(output) = server.poll() {
            match output {
                Output::Store(lease) => {
                    self.stored.insert(lease.address, lease);
                }
                Output::Forget(address) => {
                    self.stored.remove(&address);
                }
                Output::Send { port: Port::Server, to, bytes } if to.port() == 68 => {
                    let to_all = *to.ip() == Ipv4Addr::BROADCAST;
                    for node in 0..self.nodes.len() {
                        if to_all || bytes[28..34] == mac(node) {
                            self.send(Event::ToNode { node, bytes: bytes.clone() });
                        }
                    }
                }
                Output::Look(address) => self.after(PROBE_TIME, Event::Looked(address)),
                Output::Send { .. } | Output::Listen(_) | Output::Event(_) => {}
            }
        }
        self.server = Some(server);
    }

    fn turn(&mut self, node: usize, input: client::Input<'_>) {
        let Some(mut client) = self.nodes[node].client.take() else {
            return;
        };
        client.handle(self.now, input);
        while let Some(output) = client.poll() {
            match output {
                client::Output::Send { datagram, to } => {
                    let from = self.nodes[node].address.unwrap_or(Ipv4Addr::UNSPECIFIED);
                    assert!(to == Destination::Broadcast || to == Destination::Server(SERVER));
                    self.send(Event::ToServer { from, bytes: datagram });
                }
                client::Output::Probe(address) => {
                    self.after(PROBE_TIME, Event::Probed { node, address });
                }
                client::Output::Bound(lease) => {
                    self.nodes[node].address = Some(lease.address);
                    self.nodes[node].bound_count += 1;
                    self.check();
                }
                client::Output::Renewed(lease) => {
                    assert_eq!(self.nodes[node].address, Some(lease.address));
                }
                client::Output::Lost { .. } => self.nodes[node].address = None,
                client::Output::Declined(_) => {}
            }
        }
        self.nodes[node].client = Some(client);
    }

    /// What must hold whenever a node takes an address.
    fn check(&self) {
        let used: Vec<Ipv4Addr> = self.nodes.iter().filter_map(|node| node.address).collect();
        let distinct: BTreeSet<&Ipv4Addr> = used.iter().collect();
        assert_eq!(distinct.len(), used.len(), "two nodes share an address: {used:?}");
        assert!(used.iter().all(|address| !self.squatters.contains(address)), "{used:?}");
    }

    fn addresses(&self) -> Vec<Option<Ipv4Addr>> {
        self.nodes.iter().map(|node| node.address).collect()
    }

    fn bound_count(&self) -> usize {
        self.nodes.iter().filter(|node| node.address.is_some()).count()
    }
}

fn mac(node: usize) -> [u8; 6] {
    let [.., high, low] = node.to_be_bytes();
    [2, 0, 0, 1, high, low]
}

/// Runs a test with several seeds, and says which it was.
fn with_seeds(count: u64, test: impl Fn(u64) + std::panic::RefUnwindSafe) {
    for seed in 0..count {
        if let Err(panic) = std::panic::catch_unwind(|| test(seed)) {
            eprintln!("with the seed {seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn a_room_has_its_addresses_within_seconds() {
    with_seeds(4, |seed| {
        let mut room = Room::new(seed, 100, 150, 0.0);
        room.run(Duration::from_millis(3_500));
        assert_eq!(room.bound_count(), 100);
    });
}

#[test]
fn a_network_that_loses_a_fifth_costs_time_and_no_address() {
    with_seeds(4, |seed| {
        let mut room = Room::new(seed, 100, 100, 0.2);
        room.run(MINUTE);
        assert_eq!(room.bound_count(), 100);
    });
}

#[test]
fn leases_are_kept_for_days() {
    let mut room = Room::new(1, 20, 20, 0.05);
    room.run(MINUTE);
    let addresses = room.addresses();
    room.run(2 * 24 * 60 * MINUTE);
    assert_eq!(room.addresses(), addresses);
    assert!(room.nodes.iter().all(|node| node.bound_count == 1), "none was ever lost");
}

#[test]
fn a_server_that_was_killed_knows_its_leases() {
    with_seeds(4, |seed| {
        let mut room = Room::new(seed, 50, 50, 0.1);
        room.run(MINUTE);
        let addresses = room.addresses();
        room.server = None;
        room.run(4 * MINUTE);
        room.start_server();
        room.run(10 * MINUTE);
        assert_eq!(room.addresses(), addresses);
    });
}

#[test]
fn nodes_outlive_a_server_that_is_gone_for_longer_than_their_leases() {
    let mut room = Room::new(1, 30, 40, 0.0);
    room.run(MINUTE);
    room.server = None;
    room.run(30 * MINUTE);
    assert_eq!(room.bound_count(), 0, "an address is not used beyond its lease");
    room.start_server();
    room.run(Duration::from_secs(20));
    assert_eq!(room.bound_count(), 30);
}

#[test]
fn addresses_of_others_are_declined_until_a_free_one_is_found() {
    with_seeds(4, |seed| {
        let mut room = Room::new(seed, 20, 60, 0.0);
        room.squatters = (0..60).step_by(2).map(|n| Ipv4Addr::from(FIRST + n)).collect();
        room.run(MINUTE);
        assert_eq!(room.bound_count(), 20);
    });
}

#[test]
fn who_finds_no_address_gets_one_when_there_is_one() {
    let mut room = Room::new(1, 12, 10, 0.0);
    room.run(MINUTE);
    assert_eq!(room.bound_count(), 10);
    // Two are switched off; their leases end.
    let idle = (0..12).filter(|&node| room.nodes[node].address.is_some()).take(2);
    for node in idle.collect::<Vec<_>>() {
        room.nodes[node].client = None;
        room.nodes[node].address = None;
    }
    room.run(15 * MINUTE);
    assert_eq!(room.bound_count(), 10);
}

#[test]
fn a_node_that_is_switched_on_again_gets_its_address_again() {
    let mut room = Room::new(1, 40, 100, 0.0);
    room.run(MINUTE);
    let addresses = room.addresses();
    for node in 0..40 {
        room.after(Duration::from_millis(10 * node as u64), Event::SwitchOn(node));
    }
    room.run(Duration::from_secs(10));
    assert_eq!(room.addresses(), addresses);
}
