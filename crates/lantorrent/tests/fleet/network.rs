//! Hosts with full-duplex links on one switch, in steps of a millisecond.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::time::Duration;

use lantorrent::Time;
use lantorrent::chain::{Action, BranchIndex, Chain, Event};
use lantorrent::header::{Destination, MEASURE_LEN};
use lantorrent::report::{Line, Report};

use crate::endpoint::{Opening, Session, WireId, config, destinations};

const STEP: Duration = Duration::from_millis(1);

/// Any message takes so long.
const LATENCY: Duration = Duration::from_millis(1);

/// Sent at once: a packet.
const PACKET_LEN: u64 = 1_500;

/// How long a measurement may be on its way before it came to nothing, as on sockets.
const MEASURE_TIMEOUT: Duration = Duration::from_secs(2);

/// What the kernels of both ends hold of a connection.
const SOCKET_LEN: u64 = 512 * 1024;

/// What happens to a host. 0 is the origin.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// Its process is killed: all connections are reset, and nobody listens.
    Die { host: usize, at: Time },
    /// It is unplugged, or stopped and goes on later.
    Freeze { host: usize, at: Time, until: Option<Time> },
    /// Its link has another rate from now on, in bytes a second.
    Slow { host: usize, at: Time, rate: u64 },
}

impl Fault {
    pub(crate) fn host(&self) -> usize {
        let (Self::Die { host, .. } | Self::Freeze { host, .. } | Self::Slow { host, .. }) = self;
        *host
    }

    fn at(&self) -> Time {
        let (Self::Die { at, .. } | Self::Freeze { at, .. } | Self::Slow { at, .. }) = self;
        *at
    }
}

#[derive(Debug)]
enum Role {
    Origin(Box<Chain>),
    Idle,
    Busy(Box<Session>),
    /// It remembers what the transfer came to.
    Ended(Vec<Report>),
}

#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) name: String,
    role: Role,
    /// Bytes in a step.
    rate: u64,
    is_dead: bool,
    frozen_until: Option<Time>,
    pub(crate) had_fault: bool,
    pub(crate) done_at: Option<Time>,
    /// By branch.
    links: Vec<Option<WireId>>,
    /// What its link may still send and take in this step.
    up: u64,
    down: u64,
    is_up_full: bool,
    is_down_full: bool,
}

impl Host {
    pub(crate) fn is_complete(&self) -> bool {
        self.done_at.is_some()
    }

    /// It may be reported as lost: it was, for a while at least.
    pub(crate) fn was_lost(&self) -> bool {
        self.is_dead || self.frozen_until.is_some()
    }

    fn chain(&mut self) -> Option<&mut Chain> {
        match &mut self.role {
            Role::Origin(chain) => Some(chain),
            Role::Busy(session) => Some(&mut session.chain),
            Role::Idle | Role::Ended(_) => None,
        }
    }
}

#[derive(Debug)]
struct Wire {
    from: usize,
    to: usize,
    branch: BranchIndex,
    opening: Option<Opening>,
    opens_at: Time,
    is_open: bool,
    /// On its way.
    buffered: u64,
    has_footer: bool,
    is_footer_read: bool,
    /// The sender has closed it, or has died.
    is_dropped: bool,
    /// The receiver has; what it said before still arrives.
    is_left: bool,
    lines: VecDeque<(Time, Line)>,
}

/// A transfer beside the stream.
#[derive(Debug)]
struct Measurement {
    wire: WireId,
    to: usize,
    since: Time,
    left: u64,
}

pub(crate) struct Network {
    now: Time,
    /// When somebody last took a piece of the payload.
    moved_at: Time,
    length: u64,
    degree: u32,
    hosts: Vec<Host>,
    wires: BTreeMap<WireId, Wire>,
    next_wire: WireId,
    measurements: Vec<Measurement>,
    /// Messages beside the stream.
    appends: VecDeque<(Time, usize, Vec<Destination>)>,
    /// How long ways are, for those who asked.
    probes: VecDeque<(Time, WireId, Option<Duration>, Duration)>,
    reports: Vec<Report>,
    origin_sent: u64,
    log: Vec<String>,
}

impl Network {
    pub(crate) fn new(count: usize, rate: u64, length: u64, degree: u32) -> Self {
        let names: Vec<String> = (1..=count).map(|number| format!("{number}")).collect();
        let chain = Chain::new(
            config(length, degree, true),
            destinations(&names, degree, length),
            Time::ZERO,
        );
        let host = |name: &str, role| Host {
            name: name.to_owned(),
            role,
            rate: rate / 1_000,
            is_dead: false,
            frozen_until: None,
            had_fault: false,
            done_at: None,
            links: vec![],
            up: 0,
            down: 0,
            is_up_full: false,
            is_down_full: false,
        };
        let mut hosts = vec![host("0", Role::Origin(Box::new(chain)))];
        hosts.extend(names.iter().map(|name| host(name, Role::Idle)));
        Self {
            now: Time::ZERO,
            moved_at: Time::ZERO,
            length,
            degree,
            hosts,
            wires: BTreeMap::new(),
            next_wire: 0,
            measurements: vec![],
            appends: VecDeque::new(),
            probes: VecDeque::new(),
            reports: vec![],
            origin_sent: 0,
            log: vec![],
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        matches!(&self.hosts[0].role, Role::Origin(chain) if chain.is_done())
    }

    pub(crate) fn reports(&self) -> &[Report] {
        &self.reports
    }

    pub(crate) fn endpoints(&self) -> &[Host] {
        &self.hosts[1..]
    }

    pub(crate) fn origin_sent(&self) -> u64 {
        self.origin_sent
    }

    /// What happened, for whoever looks for a fault.
    pub(crate) fn describe(&self) -> String {
        let mut text = self.log.join("\n");
        for host in &self.hosts {
            let received = match &host.role {
                Role::Busy(session) => format!("{} bytes, {session:?}", session.received()),
                Role::Origin(chain) => format!("{chain:?}"),
                Role::Idle => "idle".to_owned(),
                Role::Ended(reports) => format!("ended, {} reports", reports.len()),
            };
            let _ = write!(text, "\n{} done at {:?}: {received}", host.name, host.done_at);
        }
        text
    }

    fn note(&mut self, text: String) {
        self.log.push(format!("{:>6} {text}", self.now.as_millis()));
    }

    /// Until the origin knows of all, or no byte has arrived anywhere for `patience`.
    pub(crate) fn run(&mut self, faults: &[Fault], patience: Duration) {
        let mut faults = faults.to_vec();
        faults.sort_by_key(Fault::at);
        let mut faults = VecDeque::from(faults);
        while !self.is_done() && self.now < self.moved_at + patience {
            while faults.front().is_some_and(|fault| fault.at() <= self.now) {
                let fault = faults.pop_front().expect("it is the front");
                self.strike(fault);
            }
            self.open_wires();
            self.deliver_messages();
            self.deliver_lines();
            for index in 0..self.hosts.len() {
                self.drive(index);
            }
            self.move_bytes();
            self.now += STEP;
        }
    }

    fn is_awake(&self, host: usize) -> bool {
        let host = &self.hosts[host];
        !host.is_dead && host.frozen_until.is_none_or(|until| self.now >= until)
    }

    fn strike(&mut self, fault: Fault) {
        self.note(format!("{fault:?}"));
        let host = &mut self.hosts[fault.host()];
        host.had_fault = true;
        match fault {
            Fault::Die { host: index, .. } => {
                host.is_dead = true;
                host.role = Role::Idle;
                for wire in self.wires.values_mut() {
                    wire.is_dropped |= wire.from == index;
                    wire.is_left |= wire.to == index;
                }
            }
            Fault::Freeze { until, .. } => {
                host.frozen_until =
                    Some(until.unwrap_or(Time::MAX).max(host.frozen_until.unwrap_or_default()));
            }
            Fault::Slow { rate, .. } => host.rate = rate / 1_000,
        }
    }

    fn open_wires(&mut self) {
        let due: Vec<WireId> = self
            .wires
            .iter()
            .filter(|(_, wire)| !wire.is_open && !wire.is_dropped && wire.opens_at <= self.now)
            .map(|(id, _)| *id)
            .collect();
        for id in due {
            let wire = &self.wires[&id];
            let (from, to, branch) = (wire.from, wire.to, wire.branch);
            if self.hosts[to].is_dead {
                self.tell(from, Event::NotConnected(branch, "refused".to_owned()));
                continue;
            }
            if !self.is_awake(to) || !self.is_awake(from) {
                continue;
            }
            let wire = self.wires.get_mut(&id).expect("it was just there");
            wire.is_open = true;
            let opening = wire.opening.take().expect("it opens once");
            self.tell(from, Event::Connected(branch));
            self.receive(id, to, opening);
        }
    }

    /// A header arrives.
    fn receive(&mut self, id: WireId, to: usize, opening: Opening) {
        let (now, length) = (self.now, self.length);
        let host = &mut self.hosts[to];
        match &mut host.role {
            Role::Busy(session) => session.attach(id, opening, now),
            Role::Ended(reports) => {
                let hello = Line::Hello { offset: length };
                let lines = reports.iter().cloned().map(Line::Report);
                let lines: Vec<Line> = std::iter::once(hello).chain(lines).collect();
                lines.into_iter().for_each(|line| self.say(id, line));
                self.leave(id);
            }
            Role::Idle => {
                let session = Session::new(&host.name, length, id, opening, now);
                host.role = Role::Busy(Box::new(session));
            }
            Role::Origin(_) => panic!("nobody sends to the origin"),
        }
    }

    fn say(&mut self, id: WireId, line: Line) {
        if let Some(wire) = self.wires.get_mut(&id).filter(|wire| !wire.is_left) {
            wire.lines.push_back((self.now + LATENCY, line));
        }
    }

    fn leave(&mut self, id: WireId) {
        if let Some(wire) = self.wires.get_mut(&id) {
            wire.is_left = true;
        }
    }

    fn deliver_messages(&mut self) {
        while self.appends.front().is_some_and(|(at, ..)| *at <= self.now) {
            let Some((_, to, behind)) = self.appends.pop_front() else { break };
            if self.is_awake(to) {
                self.tell(to, Event::Append(behind));
            }
        }
        while self.probes.front().is_some_and(|(at, ..)| *at <= self.now) {
            let Some((_, id, way, childs)) = self.probes.pop_front() else { break };
            if let Some((from, branch)) = self.asker(id) {
                self.tell(from, Event::Probed(branch, way, childs));
            }
        }
    }

    /// Whose question it was, if the wire that it was about is still its child's.
    fn asker(&self, id: WireId) -> Option<(usize, BranchIndex)> {
        let wire = self.wires.get(&id)?;
        let is_current = self.hosts[wire.from].links.get(wire.branch) == Some(&Some(id));
        (is_current && self.is_awake(wire.from)).then_some((wire.from, wire.branch))
    }

    fn deliver_lines(&mut self) {
        for id in self.wires.keys().copied().collect::<Vec<_>>() {
            while let Some(wire) = self.wires.get_mut(&id) {
                let from = wire.from;
                if wire.is_dropped {
                    wire.lines.clear();
                }
                let is_due = wire.lines.front().is_some_and(|(at, _)| *at <= self.now);
                let has_ended = wire.lines.is_empty() && wire.is_left;
                if !self.is_awake(from) || !(is_due || has_ended) {
                    break;
                }
                let Some(wire) = self.wires.get_mut(&id) else { break };
                let line = is_due.then(|| wire.lines.pop_front()).flatten();
                let Some((from, branch)) = self.asker(id) else {
                    // It is parked.
                    if has_ended {
                        self.wires.remove(&id);
                    }
                    continue;
                };
                match line {
                    Some((_, line)) => self.tell(from, Event::Line(branch, line)),
                    None => {
                        self.tell(from, Event::Closed(branch, "it ended".to_owned()));
                        self.wires.remove(&id);
                    }
                }
            }
        }
    }

    /// What a chain does about an event is done before the next.
    fn tell(&mut self, host: usize, event: Event) {
        let now = self.now;
        if let Some(chain) = self.hosts[host].chain() {
            chain.handle(now, event);
        }
        self.act(host);
    }

    fn act(&mut self, index: usize) {
        while let Some(action) = self.hosts[index].chain().and_then(Chain::poll) {
            self.carry_out(index, action);
        }
        let now = self.now;
        if let Some(chain) = self.hosts[index].chain() {
            chain.tick(now);
        }
    }

    fn carry_out(&mut self, index: usize, action: Action) {
        match action {
            Action::Connect { branch, destination, behind } => {
                let behind_names: Vec<&str> = behind.iter().map(|d| d.host.as_str()).collect();
                self.note(format!("{index} -> {} [{}]", destination.host, behind_names.join(" ")));
                self.connect(index, branch, &destination, behind);
            }
            Action::Drop { branch } => {
                self.note(format!("{index} drops branch {branch}"));
                if let Some(id) = self.unlink(index, branch)
                    && let Some(wire) = self.wires.get_mut(&id)
                {
                    wire.is_dropped = true;
                }
            }
            Action::Park { branch } => {
                self.note(format!("{index} parks branch {branch}"));
                self.unlink(index, branch);
            }
            Action::Append { to, destinations } => {
                self.appends.push_back((self.now + LATENCY * 2, number(&to), destinations));
            }
            Action::Probe { branch, destination } => {
                self.probe(index, branch, number(&destination))
            }
            Action::Measure { branch, destination } => {
                if let Some(wire) = self.hosts[index].links.get(branch).copied().flatten() {
                    let (to, since, left) = (number(&destination), self.now, MEASURE_LEN);
                    self.measurements.push(Measurement { wire, to, since, left });
                }
            }
            Action::Back(destination) => {
                if let Role::Busy(session) = &mut self.hosts[index].role {
                    session.put_back(destination);
                }
            }
            Action::Report(report) => match &mut self.hosts[index].role {
                Role::Busy(session) => session.pass_on(report),
                _ => self.reports.push(report),
            },
        }
    }

    fn connect(
        &mut self,
        from: usize,
        branch: BranchIndex,
        to: &Destination,
        behind: Vec<Destination>,
    ) {
        let is_moved = to.pace.is_some();
        let to = number(to);
        let depth = match &self.hosts[from].role {
            Role::Busy(session) => session.child_depth(),
            _ => 0,
        };
        self.next_wire += 1;
        let wire = Wire {
            from,
            to,
            branch,
            opening: Some(Opening { depth, is_moved, degree: self.degree, behind }),
            opens_at: self.now + LATENCY,
            is_open: false,
            buffered: 0,
            has_footer: false,
            is_footer_read: false,
            is_dropped: false,
            is_left: false,
            lines: VecDeque::new(),
        };
        self.wires.insert(self.next_wire, wire);
        let links = &mut self.hosts[from].links;
        if links.len() <= branch {
            links.resize(branch + 1, None);
        }
        links[branch] = Some(self.next_wire);
    }

    fn unlink(&mut self, host: usize, branch: BranchIndex) -> Option<WireId> {
        self.hosts[host].links.get_mut(branch).and_then(Option::take)
    }

    /// A way is as long as the queues on it.
    fn probe(&mut self, from: usize, branch: BranchIndex, next: usize) {
        let Some(id) = self.hosts[from].links.get(branch).copied().flatten() else { return };
        let child = self.wires[&id].to;
        let up = self.queue(from, |wire| wire.from == from, |host| host.is_up_full);
        let way_to = |to| self.queue(to, |wire| wire.to == to, |host| host.is_down_full);
        let (way, childs) = (LATENCY + up + way_to(next), LATENCY + up + way_to(child));
        let way = self.is_awake(next).then_some(way);
        self.probes.push_back((self.now + way.unwrap_or(childs), id, way, childs));
    }

    fn queue(
        &self,
        host: usize,
        on: impl Fn(&Wire) -> bool,
        full: impl Fn(&Host) -> bool,
    ) -> Duration {
        if !full(&self.hosts[host]) {
            return Duration::ZERO;
        }
        let waiting: u64 = self.wires.values().filter(|wire| on(wire)).map(|w| w.buffered).sum();
        Duration::from_millis(waiting / self.hosts[host].rate.max(1))
    }

    /// A host does what it does in a step.
    fn drive(&mut self, index: usize) {
        if !self.is_awake(index) {
            return;
        }
        let now = self.now;
        if let Some(chain) = self.hosts[index].chain() {
            chain.tick(now);
        }
        self.act(index);
        self.fill(index);
        let host = &mut self.hosts[index];
        let Role::Busy(session) = &mut host.role else { return };
        let ended = session.look_around(now);
        if session.is_complete() && host.done_at.is_none() {
            host.done_at = Some(now);
        }
        let (said, mut left) =
            (std::mem::take(&mut session.said), std::mem::take(&mut session.left));
        if let Some(reports) = ended {
            left.extend(session.upstream);
            let has_all = session.is_complete();
            host.role = if has_all { Role::Ended(reports) } else { Role::Idle };
            for id in host.links.drain(..).flatten() {
                if let Some(wire) = self.wires.get_mut(&id) {
                    wire.is_dropped = true;
                }
            }
        }
        said.into_iter().for_each(|(id, line)| self.say(id, line));
        left.into_iter().for_each(|id| self.leave(id));
    }

    /// Fills the sockets of its children.
    fn fill(&mut self, index: usize) {
        let now = self.now;
        let host = &mut self.hosts[index];
        let may_end = match &host.role {
            Role::Busy(session) => session.is_complete(),
            _ => true,
        };
        for branch in 0..host.links.len() {
            let Some(id) = host.links[branch] else { continue };
            let Some(wire) = self.wires.get_mut(&id).filter(|wire| wire.is_open) else { continue };
            let Some(chain) = host.chain() else { return };
            if let Some((_, len)) = chain.sendable(branch) {
                let len = len.min(SOCKET_LEN - wire.buffered);
                if len > 0 {
                    wire.buffered += len;
                    chain.handle(now, Event::Sent(branch, len));
                    if index == 0 {
                        self.origin_sent += len;
                    }
                }
            }
            if may_end && chain.wants_footer(branch) && !wire.has_footer {
                wire.has_footer = true;
                chain.handle(now, Event::FooterSent(branch));
            }
        }
        self.act(index);
    }

    /// The links carry what they can: packet by packet, each wire in its turn.
    fn move_bytes(&mut self) {
        for host in &mut self.hosts {
            (host.up, host.down) = (host.rate, host.rate);
        }
        let mut taken: BTreeMap<WireId, u64> = BTreeMap::new();
        let mut ids: Vec<WireId> = self.wires.keys().copied().collect();
        // A link that carries less than a packet in a step must not carry the same wire's each time.
        let first = self.now.as_millis() as usize;
        let ids_len = ids.len().max(1);
        ids.rotate_left(first % ids_len);
        let mut is_moving = true;
        // Whoever comes first may fill a slow link for the whole step.
        if first.is_multiple_of(2) {
            self.move_measured();
        }
        while is_moving {
            is_moving = false;
            for id in &ids {
                let wire = &self.wires[id];
                if !wire.is_open || wire.is_dropped || wire.buffered == 0 || !self.is_awake(wire.to)
                {
                    continue;
                }
                let len = self.carry(wire.from, wire.to, wire.buffered);
                if let Some(wire) = self.wires.get_mut(id) {
                    wire.buffered -= len;
                }
                *taken.entry(*id).or_default() += len;
                is_moving |= len > 0;
            }
            is_moving |= self.move_measured();
        }
        self.end_measurements();
        for host in &mut self.hosts {
            (host.is_up_full, host.is_down_full) = (host.up == 0, host.down == 0);
        }
        for id in ids {
            self.take(id, taken.get(&id).copied().unwrap_or(0));
        }
    }

    /// A packet of each measurement.
    fn move_measured(&mut self) -> bool {
        let mut is_moving = false;
        for at in 0..self.measurements.len() {
            let Measurement { wire, to, left, .. } = self.measurements[at];
            let Some(from) = self.wires.get(&wire).map(|wire| wire.from) else { continue };
            if self.is_awake(to) {
                let len = self.carry(from, to, left);
                self.measurements[at].left -= len;
                is_moving |= len > 0;
            }
        }
        is_moving
    }

    /// One packet of what waits, if the links have room for it.
    fn carry(&mut self, from: usize, to: usize, waiting: u64) -> u64 {
        let len = PACKET_LEN.min(waiting).min(self.hosts[from].up).min(self.hosts[to].down);
        self.hosts[from].up -= len;
        self.hosts[to].down -= len;
        len
    }

    fn end_measurements(&mut self) {
        let now = self.now;
        let hosts = &self.hosts;
        let has_ended = |m: &Measurement| {
            m.left == 0 || hosts[m.to].is_dead || now >= m.since + MEASURE_TIMEOUT
        };
        let (ended, waiting) =
            std::mem::take(&mut self.measurements).into_iter().partition(has_ended);
        self.measurements = waiting;
        for Measurement { wire, to, since, left } in ended {
            let taken = (now - since + LATENCY * 2).as_secs_f64();
            let rate = (left == 0).then(|| (MEASURE_LEN as f64 / taken) as u64);
            if let Some((from, branch)) = self.asker(wire) {
                self.note(format!("{to} takes {rate:?} B/s beside the stream"));
                self.tell(from, Event::Measured(branch, rate));
            }
        }
    }

    /// What arrived on a wire is read, and its end.
    fn take(&mut self, id: WireId, len: u64) {
        let now = self.now;
        let Some(wire) = self.wires.get_mut(&id) else { return };
        let to = wire.to;
        let has_ended = wire.is_dropped || (wire.has_footer && wire.buffered == 0);
        let is_news = has_ended && !wire.is_footer_read;
        let has_footer = wire.has_footer && wire.buffered == 0;
        if !self.is_awake(to) {
            return;
        }
        if let Role::Busy(session) = &mut self.hosts[to].role
            && session.upstream == Some(id)
        {
            if len > 0 {
                self.moved_at = now;
                session.take(len, now);
            }
            if is_news {
                session.end(has_footer, now);
            }
            if self.wires.get(&id).is_some_and(|wire| wire.is_dropped) {
                session.lose_predecessor();
            }
        }
        if let Some(wire) = self.wires.get_mut(&id) {
            wire.is_footer_read |= is_news;
            if wire.is_dropped {
                self.wires.remove(&id);
            }
        }
    }
}

/// Hosts are called by their numbers.
fn number(destination: &Destination) -> usize {
    destination.host.parse().expect("a number")
}
