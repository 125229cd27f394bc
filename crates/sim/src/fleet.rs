//! Nodes with a swarm each, driven over the simulated network.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use torrent::swarm::{
    Config, Direction, Input, LAZY_DELAY, Output, PeerKey, PeerTraits, Role, Standing, Swarm,
    Urgency,
};
use torrent::wire::Message;
use torrent::{Bitfield, Geometry, Time};

use crate::network::{End, Event, Item, Network};
use crate::oracle::Bytes;
use crate::scenario::{Outcome, Scenario};

/// A run that takes this many times the ideal, for its slowest node, is stuck.
const PATIENCE: u32 = 4;

/// When deaths and late joins happen, as a part of the ideal time.
pub const FAULT_AT: f64 = 0.4;

/// The rate of a slow node, as a part of the others'.
pub const SLOW_PART: u64 = 5;

/// Units between two words of progress: some ten milliseconds of this machine's time.
const PROGRESS_UNITS: u64 = 4_096;

/// How many nodes the tracker tells of the seed at once: about half of them dial it, the others have
/// enough peers.
const SEED_KNOWN_TO: u32 = 64;

/// Out of how many random peers a tracker chooses those that it hands out.
const HANDOUT_SAMPLE: usize = 2 * torrent::swarm::DEGREE;

/// How long a dial to a dead address takes to fail.
const DIAL_TIMEOUT: Duration = Duration::from_secs(3);

#[derive(Debug)]
struct Node {
    swarm: Swarm,
    bytes: Bytes,
    /// The end of each connection, by its number in the swarm.
    ends: Vec<Option<End>>,
    kind: Kind,
    alive: bool,
    started: Time,
    finished: Option<Time>,
    handed_out: u32,
    seed_told: bool,
    tick_at: Time,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Seed,
    Plain,
    Doomed { silent: bool },
    Slow,
    Late,
    Liar,
}

struct Fleet<'a> {
    scenario: &'a Scenario,
    geometry: Geometry,
    nodes: Vec<Node>,
    network: Network,
    rng: fastrand::Rng,
    /// How many units somebody other than the seed has, and which.
    spread: Bitfield,
    seed_told: u32,
    unfinished: u32,
    /// Units that nodes have, of all together.
    done: u64,
    banned: Bitfield,
    /// Ends with messages that leave when the node has said all that it has to say.
    urgent: Vec<End>,
}

/// Runs a scenario to its end.
///
/// # Panics
/// If an invariant is broken: a bug, not an outcome.
#[must_use]
pub fn run(scenario: &Scenario) -> Outcome {
    run_watched(scenario, &mut |_| {})
}

/// As [`run`]; `progress` is told again and again which part is done of what all nodes are to get. It
/// ends below 1 if nodes die.
///
/// # Panics
/// As [`run`].
#[must_use]
pub fn run_watched(scenario: &Scenario, progress: &mut dyn FnMut(f64)) -> Outcome {
    let mut fleet = Fleet::new(scenario);
    let slowest = if scenario.faults.slow > 0 { SLOW_PART as u32 } else { 1 };
    let limit = Time::ZERO + scenario.ideal() * slowest * PATIENCE;
    let all = u64::from(fleet.geometry.unit_count()) * u64::from(scenario.nodes);
    while fleet.unfinished > 0 {
        let nodes = &fleet.nodes;
        let touch = |node: usize| {
            black_box((
                nodes[node].alive,
                nodes[node].swarm.is_complete(),
                nodes[node].swarm.next_timeout(),
            ));
        };
        let Some(event) = fleet.network.next(touch) else { break };
        if fleet.network.now > limit {
            break;
        }
        let before = fleet.done / PROGRESS_UNITS;
        fleet.on_event(event);
        if fleet.done / PROGRESS_UNITS != before {
            progress(fleet.done as f64 / all as f64);
        }
    }
    fleet.outcome()
}

impl<'a> Fleet<'a> {
    fn new(scenario: &'a Scenario) -> Self {
        let geometry =
            Geometry::contiguous(scenario.file_len, scenario.piece_len, scenario.unit_len)
                .expect("a scenario has a possible shape");
        let mut rng = fastrand::Rng::with_seed(scenario.random_seed);
        let kinds = kinds(scenario, &mut rng);
        let rate = |kind: &Kind| match kind {
            Kind::Slow => scenario.rate / SLOW_PART,
            Kind::Seed => scenario.seed_rate.unwrap_or(scenario.rate),
            _ => scenario.rate,
        };
        let mut network = Network::new(
            kinds.iter().map(rate).collect(),
            scenario.latency,
            scenario.jitter,
            scenario.faults.loss_one_in,
            rng.u64(..),
        );
        let fault_at = Time::ZERO + scenario.ideal().mul_f64(FAULT_AT);
        let mut nodes = vec![];
        for (index, kind) in kinds.into_iter().enumerate() {
            let start = match kind {
                Kind::Seed => Time::ZERO,
                Kind::Late => fault_at,
                _ => Time::ZERO + scenario.stagger.mul_f64(rng.f64()),
            };
            network.at(start, Event::Start { node: index as u32 });
            if let Kind::Doomed { silent } = kind {
                network.at(fault_at, Event::Die { node: index as u32, silent });
            }
            nodes.push(node(index, kind, start, &geometry, rng.u64(..)));
        }
        let unfinished = nodes
            .iter()
            .filter(|node| !matches!(node.kind, Kind::Seed | Kind::Doomed { .. } | Kind::Liar));
        Self {
            scenario,
            unfinished: unfinished.count() as u32,
            spread: Bitfield::new(geometry.unit_count()),
            banned: Bitfield::new(nodes.len() as u32),
            geometry,
            nodes,
            network,
            rng,
            seed_told: 0,
            done: 0,
            urgent: vec![],
        }
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Start { node } => self.start(node as usize),
            Event::Die { node, silent } => self.die(node as usize, silent),
            Event::PortFree { node, block } => {
                if let Some((end, len)) = block {
                    self.tell(end, |peer| Input::BlockSent { peer, len });
                }
                if self.nodes[node as usize].alive {
                    self.network.port_free(node as usize);
                }
            }
            Event::Delivered { end } => self.tell(end, |peer| Input::BlockDelivered { peer }),
            Event::Arrive { end, item } => self.arrive(end, item),
            Event::Flush { end } => self.flush(end),
            Event::Dialled { from, to } => self.connect(from as usize, to as usize),
            Event::Gone { end } => self.gone(end),
            Event::Tick { node } => self.tick(node as usize),
            Event::Handout { node } => self.handout(node as usize),
        }
    }

    /// Gives an input to the node at this end, if the connection is still there.
    fn tell(&mut self, end: End, input: impl FnOnce(PeerKey) -> Input) {
        let socket = self.network.socket(end);
        let (node, peer) = (socket.node as usize, socket.key);
        if socket.known {
            self.handle(node, input(peer));
        }
    }

    fn handle(&mut self, node: usize, input: Input) {
        if !self.nodes[node].alive {
            return;
        }
        self.nodes[node].swarm.handle(self.network.now, input);
        while let Some(output) = self.nodes[node].swarm.poll() {
            self.act(node, output);
        }
        let mut urgent = std::mem::take(&mut self.urgent);
        for end in urgent.drain(..) {
            self.send_lazy(end);
        }
        self.urgent = urgent;
        self.schedule_tick(node);
    }

    fn schedule_tick(&mut self, node: usize) {
        let due = self.nodes[node].swarm.next_timeout().max(self.network.now);
        if due != self.nodes[node].tick_at {
            self.nodes[node].tick_at = due;
            self.network.at(due, Event::Tick { node: node as u32 });
        }
    }

    fn tick(&mut self, node: usize) {
        if self.network.now == self.nodes[node].tick_at {
            self.handle(node, Input::Tick);
        }
    }

    fn start(&mut self, node: usize) {
        self.nodes[node].alive = true;
        self.handle(node, Input::Tick);
        self.announce(node);
    }

    fn announce(&mut self, node: usize) {
        let round_trip = self.network.delay() * 3;
        self.network.after(round_trip, Event::Handout { node: node as u32 });
    }

    fn die(&mut self, node: usize, silent: bool) {
        self.nodes[node].alive = false;
        self.network.silence(node);
        if silent {
            return;
        }
        for end in self.nodes[node].ends.clone().into_iter().flatten() {
            let delay = self.network.delay();
            self.network.disconnect(end);
            self.network.after(delay, Event::Gone { end: end.other() });
        }
    }

    /// The tracker: of some random peers those that were handed out least, so that the mesh is nearly
    /// regular. (Of all peers it would be the newest, who have nothing yet.)
    fn handout(&mut self, node: usize) {
        let mut others: Vec<usize> = (1..self.nodes.len())
            .filter(|&other| other != node && self.nodes[other].started < self.network.now)
            .filter(|&other| self.nodes[other].alive || self.nodes[other].kind.died_silently())
            .collect();
        let count = others.len();
        for at in 0..count.min(HANDOUT_SAMPLE) {
            others.swap(at, self.rng.usize(at..count));
        }
        others.truncate(HANDOUT_SAMPLE);
        others.sort_by_key(|&other| self.nodes[other].handed_out);
        let reannounce = self.nodes[node].seed_told;
        let share = f64::from(SEED_KNOWN_TO) / self.nodes.len() as f64;
        let tell_seed = node != 0
            && self.nodes[0].alive
            && (self.seed_told < SEED_KNOWN_TO || (reannounce && self.rng.f64() < share));
        others.truncate(if node == 0 {
            0
        } else {
            torrent::swarm::DEGREE - usize::from(tell_seed)
        });
        for &other in &others {
            self.nodes[other].handed_out += 1;
        }
        if tell_seed {
            self.seed_told += 1;
            others.push(0);
        }
        self.nodes[node].seed_told = true;
        let addrs = others.into_iter().map(addr_of).collect();
        self.handle(node, Input::PeersFound { addrs });
    }

    fn dial(&mut self, from: usize, to: SocketAddr) {
        let to = index_of(to);
        let reachable = self.nodes[to].alive;
        let delay = if reachable { self.network.delay() * 2 } else { DIAL_TIMEOUT };
        self.network.after(delay, Event::Dialled { from: from as u32, to: to as u32 });
    }

    fn connect(&mut self, from: usize, to: usize) {
        if !self.nodes[from].alive {
            return;
        }
        if !self.nodes[to].alive {
            self.handle(from, Input::DialFailed { addr: addr_of(to) });
            return;
        }
        let keys = [self.free_key(from), self.free_key(to)];
        let dialler = self.network.connect([from, to], keys);
        let both = [dialler, dialler.other()];
        for ((end, node), key) in both.into_iter().zip([from, to]).zip(keys) {
            let at = key.0 as usize;
            let ends = &mut self.nodes[node].ends;
            ends.resize(ends.len().max(at + 1), None);
            ends[at] = Some(end);
        }
        for (end, direction) in both.into_iter().zip([Direction::Outgoing, Direction::Incoming]) {
            let other = self.network.node(end.other());
            let addr = addr_of(other);
            let traits = PeerTraits { peer_id: peer_id(other), fast: true, own: true, v2: true };
            let reveals = self.nodes[self.network.node(end)].swarm.reveals();
            self.tell(end, |peer| Input::Connected {
                peer,
                addr,
                direction,
                traits,
                standing: Standing::Stranger,
            });
            if self.network.socket(end).open {
                self.network.send(end, Item::ExtendedHandshake { reveals });
            }
        }
    }

    fn free_key(&self, node: usize) -> PeerKey {
        let ends = &self.nodes[node].ends;
        PeerKey(ends.iter().position(Option::is_none).unwrap_or(ends.len()) as u32)
    }

    fn gone(&mut self, end: End) {
        let socket = self.network.socket(end);
        let (node, peer) = (socket.node as usize, socket.key);
        if std::mem::replace(&mut socket.known, false) {
            self.nodes[node].ends[peer.0 as usize] = None;
            self.handle(node, Input::Disconnected { peer });
        }
    }

    fn close(&mut self, node: usize, peer: PeerKey) {
        let Some(end) = self.nodes[node].ends[peer.0 as usize].take() else { return };
        self.network.socket(end).known = false;
        self.network.disconnect(end);
        let delay = self.network.delay();
        self.network.after(delay, Event::Gone { end: end.other() });
    }

    fn act(&mut self, node: usize, output: Output) {
        match output {
            Output::Dial { addr } => self.dial(node, addr),
            Output::Close { peer, .. } => self.close(node, peer),
            Output::Send { peer, message, urgency } => self.send(node, peer, message, urgency),
            Output::SendBlock { peer, block } => {
                let block = block.block();
                self.nodes[node].bytes.serve(&self.geometry, block);
                let corrupt = self.nodes[node].kind == Kind::Liar;
                if let Some(end) = self.end(node, peer) {
                    self.send_lazy(end);
                    self.network.send(end, Item::Block { block, corrupt });
                }
            }
            Output::Verify { unit } => {
                let verdict = self.nodes[node].bytes.verify(&self.geometry, unit);
                self.nodes[node].swarm.handle(self.network.now, Input::Verified { unit, verdict });
            }
            Output::RequestHashes { peer, piece } => {
                if let Some(end) = self.end(node, peer) {
                    self.network.send(end, Item::HashRequest { piece });
                }
            }
            Output::RequestJudgement { peer, unit } => {
                if let Some(end) = self.end(node, peer) {
                    self.network.send(end, Item::JudgementRequest { unit });
                }
            }
            Output::NeedPeers => self.announce(node),
            Output::Ban { addr } => {
                self.banned.insert(index_of(addr) as u32);
            }
            // No web seed takes part.
            Output::WebSeedLied { .. } => {}
            Output::UnitDone { unit } => self.unit_done(unit.get()),
            Output::Completed => self.completed(node),
        }
    }

    fn end(&self, node: usize, peer: PeerKey) -> Option<End> {
        self.nodes[node].ends.get(peer.0 as usize).copied().flatten()
    }

    fn send(&mut self, node: usize, peer: PeerKey, message: Message, urgency: Urgency) {
        let Some(end) = self.end(node, peer) else { return };
        let socket = self.network.socket(end);
        socket.lazy.push(message.into());
        match urgency {
            Urgency::Now => self.urgent.push(end),
            Urgency::Lazy => {
                if !std::mem::replace(&mut socket.flush_due, true) {
                    self.network.after(LAZY_DELAY, Event::Flush { end });
                }
            }
        }
    }

    fn send_lazy(&mut self, end: End) {
        let messages = std::mem::take(&mut self.network.socket(end).lazy);
        if !messages.is_empty() {
            self.network.send(end, Item::Messages(messages));
        }
    }

    fn flush(&mut self, end: End) {
        let socket = self.network.socket(end);
        socket.flush_due = false;
        let (node, open) = (socket.node as usize, socket.open);
        if open && self.nodes[node].alive {
            self.send_lazy(end);
        }
    }

    fn arrive(&mut self, end: End, item: Item) {
        let socket = self.network.socket(end);
        let (node, peer, open) = (socket.node as usize, socket.key, socket.open);
        if !self.nodes[node].alive || !open {
            return;
        }
        match item {
            Item::Messages(messages) => {
                for message in messages {
                    self.tell(end, |peer| Input::Message { peer, message: message.into() });
                }
            }
            Item::ExtendedHandshake { reveals } => {
                let unit_len = Some(self.geometry.unit_len());
                self.tell(end, |peer| Input::ExtendedHandshake {
                    peer,
                    unit_len,
                    request_queue_len: None,
                    upload_only: reveals,
                });
            }
            Item::HashRequest { piece } => {
                let len = (self.geometry.units_per_piece() + 12) * 32;
                self.network.send(end, Item::Hashes { piece, len });
            }
            Item::Hashes { piece, .. } => self.tell(end, |_| Input::HashesKnown { piece }),
            Item::JudgementRequest { unit } => {
                let len = (self.geometry.block_count(unit) + 12) * 32;
                self.network.send(end, Item::Judgement { unit, len });
            }
            Item::Judgement { unit, .. } => {
                let corrupt = self.nodes[node].bytes.judge(unit);
                self.tell(end, |_| Input::Judged { unit, corrupt });
            }
            Item::Block { block, corrupt } => {
                let ack = self.network.delay();
                self.network.after(ack, Event::Delivered { end: end.other() });
                if self.nodes[node].swarm.wants(peer, block) {
                    self.nodes[node].bytes.store(&self.geometry, block, corrupt);
                }
                self.tell(end, |peer| Input::Block { peer, block });
            }
        }
    }

    fn unit_done(&mut self, unit: u32) {
        self.done += 1;
        if self.spread.insert(unit) && self.spread.is_full() && self.scenario.faults.seed_dies {
            self.die(0, true);
        }
    }

    fn completed(&mut self, node: usize) {
        assert!(self.nodes[node].bytes.is_complete(&self.geometry), "complete without its bytes");
        self.nodes[node].finished = Some(self.network.now);
        if !matches!(self.nodes[node].kind, Kind::Seed | Kind::Doomed { .. } | Kind::Liar) {
            self.unfinished -= 1;
        }
    }

    fn outcome(&self) -> Outcome {
        let ideal = self.scenario.ideal().as_secs_f64();
        let times = |wanted: fn(Kind) -> bool, ideal: f64| {
            let mut times: Vec<f64> = self
                .nodes
                .iter()
                .filter(|node| wanted(node.kind))
                .filter_map(|node| Some((node.finished? - node.started).as_secs_f64() / ideal))
                .collect();
            times.sort_by(f64::total_cmp);
            times
        };
        let stats = || self.nodes.iter().map(|node| node.swarm.stats());
        let downloaded: u64 = stats().map(|stats| stats.downloaded).sum();
        let wasted: u64 = stats().map(|stats| stats.wasted).sum();
        let sent: u64 = self.network.ports.iter().map(|port| port.sent).sum();
        let payload: u64 = self.network.ports.iter().map(|port| port.sent_payload).sum();
        let banned = |liar: bool| {
            self.banned
                .iter()
                .filter(|&node| (self.nodes[node as usize].kind == Kind::Liar) == liar)
                .count() as u32
        };
        Outcome {
            finished: times(|kind| kind == Kind::Plain, ideal),
            slow: times(|kind| kind == Kind::Slow, ideal * SLOW_PART as f64),
            late: times(|kind| kind == Kind::Late, ideal),
            seed_upload: self.network.ports[0].sent_payload as f64 / self.scenario.file_len as f64,
            waste: wasted as f64 / downloaded.max(1) as f64,
            control: (sent - payload) as f64 / sent.max(1) as f64,
            banned_honest: banned(false),
            banned_liars: banned(true),
            stuck: self.unfinished,
        }
    }
}

impl Kind {
    const fn died_silently(self) -> bool {
        matches!(self, Self::Doomed { silent: true })
    }
}

/// Who is what: the seed first, the rest in random order.
fn kinds(scenario: &Scenario, rng: &mut fastrand::Rng) -> Vec<Kind> {
    let faults = &scenario.faults;
    let groups = [
        (faults.silent_deaths, Kind::Doomed { silent: true }),
        (faults.kills, Kind::Doomed { silent: false }),
        (faults.slow, Kind::Slow),
        (faults.late, Kind::Late),
        (faults.liars, Kind::Liar),
    ];
    let mut kinds: Vec<Kind> =
        groups.into_iter().flat_map(|(count, kind)| vec![kind; count as usize]).collect();
    assert!(kinds.len() <= scenario.nodes as usize, "more faults than nodes");
    kinds.resize(scenario.nodes as usize, Kind::Plain);
    rng.shuffle(&mut kinds);
    kinds.insert(0, Kind::Seed);
    kinds
}

fn node(index: usize, kind: Kind, started: Time, geometry: &Geometry, random_seed: u64) -> Node {
    let is_seed = kind == Kind::Seed;
    let count = geometry.unit_count();
    let swarm = Swarm::new(Config {
        peer_id: peer_id(index),
        geometry: geometry.clone(),
        role: if is_seed { Role::Seed } else { Role::Leech },
        have: if is_seed { Bitfield::full(count) } else { Bitfield::new(count) },
        unit_hashes_known: is_seed,
        commit_min_blocks: 2,
        random_seed,
    });
    Node {
        swarm,
        bytes: Bytes::new(geometry, is_seed),
        ends: vec![],
        kind,
        alive: false,
        started,
        finished: None,
        handed_out: 0,
        seed_told: false,
        tick_at: Time::NEVER,
    }
}

fn addr_of(node: usize) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + node as u32)), 6881)
}

fn index_of(addr: SocketAddr) -> usize {
    match addr.ip() {
        IpAddr::V4(ip) => (ip.to_bits() - 0x0a00_0000) as usize,
        IpAddr::V6(_) => unreachable!("the simulated network is IPv4"),
    }
}

fn peer_id(node: usize) -> [u8; 20] {
    let mut id = *b"-BN0100-000000000000";
    // Ids in another order than the numbers: ties between nodes must not favour the first.
    let mixed = (node as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    id[8..16].copy_from_slice(&mixed.to_be_bytes());
    id[16..20].copy_from_slice(&(node as u32).to_be_bytes());
    id
}
