//! All of it behind one door: decides what to be, and answers.
//!
//! ```text
//!              mode auto, or server without force            mode proxy, or force
//!                          │                                          │
//!                      Deciding ── nobody, or not proved ──►  Serving(role) ─┐
//!                          │                                     ▲    ▲      │ looks around again
//!                          └─ somebody else ──► Waiting ─────────┘    └──────┘ from time to time
//!                                     silent for two looks
//! ```
//!
//! **What one packet says decides nothing.** Another server is there if it answers two looks, which
//! are seconds apart and have different numbers; it is gone if it is silent for two. Another lab is
//! there if it proves its key. Both hold at the first start only: a service that has served here
//! before goes on doing so (see [`Service::new`]), but for a second server of its own lab, and in
//! `auto` for a server that proves itself.
//!
//! Once it serves, a service goes on whatever it hears: a laptop that shares its connection must not
//! be able to stop a room from booting. It only says so.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use crate::asker::{Asker, MachineId};
use crate::config::{Config, ConfigError, LabId, Mode, Role};
use crate::io::{Conflict, Event, Input, Output, Port};
use crate::lease::{Lease, Pool};
use crate::message::{DecodeError, Message, code};
use crate::probe::{Heard, Marker, Probe, introduce};
use crate::proof::Prover;
use crate::proxy;
use crate::server::Server;
use crate::time::Time;

use dhcproto::v4::MessageType;

/// How often others are looked for while serving; up to a quarter more, so that servers that were
/// started together do not look together.
pub const LOOK_AROUND: Duration = Duration::from_secs(5 * 60);

/// How often the one is looked for because of whom it waits: the first start of a lab beside another
/// server, which somebody sits before.
pub const WAITING: Duration = Duration::from_secs(30);

/// How long after a first answer the second look begins: longer than a packet and its repetition
/// are apart, and not much of a start.
pub const SECOND_LOOK: Duration = Duration::from_secs(2);

/// Looks without an answer after which another server is gone.
const SILENT_LOOKS: u32 = 2;

/// Servers that are remembered of one look. Those beyond are as good as not heard.
const HEARD_MAX: usize = 16;

/// Answers a second to others' questions: each costs a signature, and a server asks four in two
/// seconds.
const INTRODUCTIONS_PER_S: u32 = 16;

/// The same server is reported again after this.
pub const REPORT_AGAIN: Duration = Duration::from_secs(60 * 60);

/// Other servers that are remembered as reported. Beyond that none is reported for
/// [`TROUBLE_INTERVAL`], and then the first of them is forgotten.
pub const OTHERS_MAX: usize = 16;

/// Messages a second that are called a flood. A fleet of 10,000 that is switched on at once sends
/// fewer: its firmwares need longer than 10 s from the first to the last.
pub const FLOOD_PER_S: u32 = 4_000;

/// How often floods and datagrams that cannot be read are reported.
pub const TROUBLE_INTERVAL: Duration = Duration::from_secs(60);

const SECOND: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Deciding,
    Serving(Role),
    Waiting(Conflict),
}

/// A DHCP service. Its driver drains [`Self::poll`] after every [`Self::handle`], and calls that with
/// [`Input::Tick`] at [`Self::next_timeout`].
#[derive(Debug)]
pub struct Service {
    config: Config,
    me: Marker,
    phase: Phase,
    server: Server,
    /// What it was when it served here last.
    last_role: Option<Role>,
    probe: Option<Probe>,
    look_around_at: Time,
    looks: Looks,
    introductions: (Time, u32),
    reported: BTreeMap<Ipv4Addr, Time>,
    trouble: Trouble,
    prover: Box<dyn Prover>,
    rng: fastrand::Rng,
    /// Bounded by the contract with the driver: one input makes a handful.
    outputs: VecDeque<Output>,
}

/// What looks have found of servers that give addresses.
#[derive(Clone, Debug, Default)]
struct Looks {
    /// In this one.
    heard: BTreeSet<Ipv4Addr>,
    /// In the one before.
    before: BTreeSet<Ipv4Addr>,
    /// The one that is waited for was heard in this one.
    is_conflict_there: bool,
    /// Looks without an answer, one after the other.
    silent_count: u32,
    /// Looks that have ended.
    count: u64,
}

/// What a service begins with besides its configuration.
#[derive(Debug)]
pub struct Start {
    /// Leases of before.
    pub leases: Vec<Lease>,
    /// What it was when it served on this network last, if it did: [`Event::Serving`] says what to
    /// remember.
    pub last_role: Option<Role>,
    /// By which it knows other servers of its lab.
    pub prover: Box<dyn Prover>,
    /// Of the system's randomness: two servers of one lab tell themselves apart by what comes of it.
    pub seed: u64,
}

impl Service {
    /// A service that begins at `now`.
    ///
    /// # Errors
    /// If the configuration contradicts itself.
    pub fn new(config: Config, start: Start, now: Time) -> Result<Self, ConfigError> {
        config.check()?;
        let Start { leases, last_role, prover, seed } = start;
        let mut rng = fastrand::Rng::with_seed(seed);
        let me = Marker { lab: config.lab, run: rng.u64(..).to_be_bytes(), serves: false };
        let mut service = Self {
            server: Server::new(now, &config, leases),
            config,
            me,
            phase: Phase::Deciding,
            last_role,
            probe: None,
            look_around_at: Time::NEVER,
            looks: Looks::default(),
            introductions: (now, 0),
            reported: BTreeMap::new(),
            trouble: Trouble::default(),
            prover,
            rng,
            outputs: VecDeque::new(),
        };
        service.look_around(now);
        // A proxy contradicts nobody, and who forces has decided: no need to wait.
        match (service.config.mode, service.config.force) {
            (Mode::Proxy, _) => service.serve(Role::Proxy, None),
            (Mode::Server, true) => service.serve(Role::Server, None),
            (Mode::Server, false) | (Mode::Auto, _) => {}
        }
        Ok(service)
    }

    /// Takes another configuration with immediate effect. The role stays; leases that still fit do
    /// too.
    ///
    /// # Errors
    /// If the configuration contradicts itself; then the one before stays.
    pub fn configure(&mut self, config: Config) -> Result<(), ConfigError> {
        config.check()?;
        self.server.configure(&config);
        self.me.lab = config.lab;
        self.config = config;
        Ok(())
    }

    /// All leases, also those that have ended.
    pub fn leases(&self) -> impl Iterator<Item = Lease> + '_ {
        self.server.leases().iter()
    }

    /// How its addresses are used.
    #[must_use]
    pub fn pool(&self) -> Pool {
        self.server.leases().pool()
    }

    /// [`Event::Draining`], if it was said lately.
    #[must_use]
    pub fn drained(&self, now: Time) -> Option<Event> {
        self.server.drained(now)
    }

    /// Why it serves nobody, if so.
    #[must_use]
    pub const fn waits_for(&self) -> Option<Conflict> {
        match self.phase {
            Phase::Waiting(conflict) => Some(conflict),
            Phase::Deciding | Phase::Serving(_) => None,
        }
    }

    /// What it does, once that is decided.
    #[must_use]
    pub const fn role(&self) -> Option<Role> {
        match self.phase {
            Phase::Serving(role) => Some(role),
            Phase::Deciding | Phase::Waiting(_) => None,
        }
    }

    /// Takes one input.
    pub fn handle(&mut self, now: Time, input: Input<'_>) {
        match input {
            Input::Packet { port, from, bytes } => match Message::decode(bytes) {
                Ok(message) => self.on_message(now, port, from, &message),
                Err(reason) => self.trouble.malformed(now, from, reason),
            },
            Input::Looked { address, user } => {
                self.server.looked(now, address, user, &mut self.outputs);
            }
            Input::Used(mac) => self.server.used(mac),
            Input::Tick => {}
        }
        self.on_time(now);
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Self::handle`] must be called at the latest.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Time> {
        let probe = self.probe.as_ref().map_or(self.look_around_at, Probe::next_timeout);
        Some(probe.min(self.trouble.report_at()))
    }

    fn event(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }

    fn on_message(&mut self, now: Time, port: Port, from: SocketAddrV4, message: &Message) {
        self.trouble.message(now);
        if message.is_reply {
            let heard = self.probe.as_ref().and_then(|probe| {
                let prover = self.prover.as_ref();
                probe.answer(&self.config, self.me, prover, message, *from.ip())
            });
            if let Some(heard) = heard {
                self.on_heard(now, heard);
            }
            return;
        }
        if let Some(marker) = Marker::of(message) {
            self.on_question(now, marker, message, *from.ip());
            return;
        }
        // Port 68 hears what other servers broadcast, nothing that is for us.
        let Phase::Serving(role) = self.phase else {
            return;
        };
        self.see(message);
        let is_answered = self.config.audience.has(message.mac);
        if port == Port::Binl || proxy::is_boot_server_request(message) {
            if is_answered {
                proxy::handle_boot_server(&self.config, message, port, from, &mut self.outputs);
            }
        } else if port == Port::Server {
            self.look_for_foreign(now, role, message);
            match role {
                _ if !is_answered => {}
                Role::Server => self.server.handle(now, &self.config, message, &mut self.outputs),
                Role::Proxy => proxy::handle(&self.config, message, &mut self.outputs),
            }
        }
    }

    /// Tells who asks, at the beginning of each of its conversations.
    fn see(&mut self, message: &Message) {
        let begins = match message.kind {
            MessageType::Discover | MessageType::Inform => true,
            MessageType::Request => message.option(code::SERVER_ID).is_none(),
            _ => false,
        };
        if begins {
            self.event(Event::Seen {
                mac: message.mac,
                asker: Asker::of(message),
                machine: MachineId::of(message),
                relay: Some(message.giaddr).filter(|relay| !relay.is_unspecified()),
            });
        }
    }

    /// A machine that chooses another server's offer tells everybody of that server.
    fn look_for_foreign(&mut self, now: Time, role: Role, message: &Message) {
        let chosen = message.address(code::SERVER_ID).filter(|id| *id != self.config.address);
        if let (Role::Server, MessageType::Request, Some(address)) = (role, message.kind, chosen) {
            self.report(now, address, Event::ForeignServer { address, boot_file: None });
        }
    }

    fn on_time(&mut self, now: Time) {
        if let Some(event) = self.trouble.report(now) {
            self.event(event);
        }
        if let Some(probe) = &mut self.probe {
            self.outputs.extend(probe.questions(now, &self.config, self.me));
            if probe.is_over(now) {
                self.on_silence(now);
            }
        } else if now >= self.look_around_at {
            self.look_around(now);
        }
    }

    fn look_around(&mut self, now: Time) {
        self.outputs.push_back(Output::Listen(true));
        let mut probe = Probe::new(now, self.rng.u32(..));
        self.outputs.extend(probe.questions(now, &self.config, self.me));
        self.probe = Some(probe);
    }

    fn stop_looking(&mut self, now: Time) {
        self.probe = None;
        self.looks.count += 1;
        self.outputs.push_back(Output::Listen(false));
        let pause = match self.phase {
            Phase::Waiting(_) => WAITING,
            _ => LOOK_AROUND,
        };
        self.look_around_at = now + pause + pause.mul_f64(self.rng.f64() / 4.0);
    }

    /// Everybody who is there has had the time to say so.
    fn on_silence(&mut self, now: Time) {
        self.stop_looking(now);
        let is_first = self.looks.count == 1;
        self.looks.before = std::mem::take(&mut self.looks.heard);
        let is_conflict_there = std::mem::take(&mut self.looks.is_conflict_there);
        let is_there = is_conflict_there || !self.looks.before.is_empty();
        self.looks.silent_count = if is_there { 0 } else { self.looks.silent_count + 1 };
        let is_gone = self.looks.silent_count >= SILENT_LOOKS;
        match self.phase {
            // It must say so once more.
            Phase::Deciding if is_first && is_there => self.look_around(now),
            Phase::Deciding => self.decide_alone(),
            Phase::Waiting(_) if is_gone => self.decide_alone(),
            Phase::Serving(Role::Proxy) if !is_there => {
                if is_gone && self.config.mode == Mode::Auto && self.config.gives_addresses() {
                    self.serve(Role::Server, None);
                } else {
                    self.event(Event::NoServer);
                }
            }
            Phase::Serving(_) | Phase::Waiting(_) => {}
        }
    }

    /// No other server has proved to be there. A proxy of before waits for one more look: after a
    /// power cut the server that it was beside may need longer to start than this one.
    fn decide_alone(&mut self) {
        let was_proxy = self.last_role == Some(Role::Proxy) && self.config.mode == Mode::Auto;
        let is_gone = self.looks.silent_count >= SILENT_LOOKS;
        if self.config.mode == Mode::Proxy
            || !self.config.gives_addresses()
            || (was_proxy && !is_gone)
        {
            self.serve(Role::Proxy, None);
            self.event(Event::NoServer);
        } else {
            self.serve(Role::Server, None);
        }
    }

    fn on_heard(&mut self, now: Time, heard: Heard) {
        let Heard { address, marker, is_proved, gives_addresses, boot_file } = heard;
        if let Some(marker) = marker {
            if marker.run != self.me.run {
                self.on_other_lab(now, address, marker, is_proved);
            }
            return;
        }
        if gives_addresses && self.looks.heard.len() < HEARD_MAX {
            self.looks.heard.insert(address);
        }
        let is_proved = gives_addresses && self.looks.before.contains(&address);
        match (self.phase, self.config.mode) {
            (Phase::Deciding, Mode::Auto) if is_proved => {
                self.serve(Role::Proxy, Some(address));
                if boot_file.is_some() {
                    self.report(now, address, Event::ForeignServer { address, boot_file });
                }
            }
            (Phase::Deciding, Mode::Server) if is_proved && self.last_role.is_none() => {
                self.wait_for(now, Conflict::ForeignServer(address));
            }
            (Phase::Deciding, _) if gives_addresses && !is_proved => {
                if let Some(probe) = self.probe.as_mut().filter(|_| self.looks.count == 0) {
                    probe.hurry(now, SECOND_LOOK);
                }
                // Who is no more than heard of is worth a line when it turns out to be one.
                if self.looks.count > 0 || self.last_role.is_some() {
                    self.report(now, address, Event::ForeignServer { address, boot_file });
                }
            }
            // What a proxy is beside is no news, unless it also says what to boot.
            (Phase::Serving(Role::Proxy) | Phase::Waiting(_), _) if boot_file.is_none() => {}
            _ => self.report(now, address, Event::ForeignServer { address, boot_file }),
        }
    }

    /// Another BootTorrent server looks around, or somebody who says so.
    fn on_question(&mut self, now: Time, marker: Marker, message: &Message, from: Ipv4Addr) {
        if marker.run == self.me.run {
            return; // Our own broadcast came back.
        }
        if now.since(self.introductions.0) >= SECOND {
            self.introductions = (now, 0);
        }
        self.introductions.1 += 1;
        if self.introductions.1 <= INTRODUCTIONS_PER_S {
            let me = Marker { serves: self.role().is_some(), ..self.me };
            let prover = self.prover.as_ref();
            self.outputs.extend(introduce(&self.config, me, prover, marker, message));
        }
        if let Phase::Serving(_) = self.phase {
            let (address, lab) = (from, marker.lab);
            let event = match self.is_twin(marker) {
                true => Event::Twin { address },
                false => Event::OtherLab { address, lab, is_proved: false },
            };
            self.report(now, from, event);
        }
    }

    /// Of two that begin at the same time one must yield, and both must agree on which. A second
    /// server of this lab is believed always, others only where nobody has served yet.
    fn on_other_lab(&mut self, now: Time, address: Ipv4Addr, marker: Marker, is_proved: bool) {
        let lab = marker.lab;
        if self.is_twin(marker) {
            return self.report(now, address, Event::Twin { address });
        }
        let is_ours = lab == self.me.lab && lab != LabId::NONE;
        let is_before_us = marker.serves || (marker.lab, marker.run) < (self.me.lab, self.me.run);
        let may_wait = self.looks.count == 0 || self.role().is_none();
        if !is_proved
            || self.config.force
            || !may_wait
            || !is_before_us
            || (self.last_role.is_some() && !is_ours)
        {
            return self.report(now, address, Event::OtherLab { address, lab, is_proved });
        }
        self.wait_for(now, Conflict::OtherLab { address, lab });
    }

    /// Whether that is a second server of this lab, and this one only adds to what others lease: both
    /// say the same, a node takes the answer of either, and boots while one of them lives.
    fn is_twin(&self, marker: Marker) -> bool {
        self.config.mode == Mode::Proxy && marker.lab == self.me.lab && marker.lab != LabId::NONE
    }

    fn report(&mut self, now: Time, address: Ipv4Addr, event: Event) {
        self.reported.retain(|_, at| now.since(*at) < REPORT_AGAIN);
        if self.reported.contains_key(&address) {
            return;
        }
        if self.reported.len() >= OTHERS_MAX {
            let first = self.reported.iter().min_by_key(|(_, at)| **at);
            match first.map(|(address, at)| (*address, *at)) {
                Some((first, at)) if now.since(at) >= TROUBLE_INTERVAL => {
                    self.reported.remove(&first);
                }
                _ => return,
            }
        }
        self.reported.insert(address, now);
        self.event(event);
    }

    fn serve(&mut self, role: Role, beside: Option<Ipv4Addr>) {
        self.phase = Phase::Serving(role);
        self.event(Event::Serving { role, beside });
    }

    fn wait_for(&mut self, now: Time, conflict: Conflict) {
        self.looks.is_conflict_there = true;
        if self.phase != Phase::Waiting(conflict) {
            self.phase = Phase::Waiting(conflict);
            self.look_around_at = self.look_around_at.min(now + WAITING);
            self.event(Event::Waiting(conflict));
        }
    }
}

/// What strangers could fill a log with, counted and said once a minute.
#[derive(Clone, Debug, Default)]
struct Trouble {
    malformed_count: u64,
    last: Option<(SocketAddrV4, DecodeError)>,
    /// No report before this.
    quiet_until: Time,
    second: Time,
    in_second: u32,
    flood_per_s: u32,
}

impl Trouble {
    fn malformed(&mut self, now: Time, from: SocketAddrV4, reason: DecodeError) {
        self.message(now);
        self.malformed_count += 1;
        self.last = Some((from, reason));
    }

    fn message(&mut self, now: Time) {
        if now.since(self.second) >= SECOND {
            self.second = now;
            self.in_second = 0;
        }
        self.in_second = self.in_second.saturating_add(1);
        if self.in_second > FLOOD_PER_S {
            self.flood_per_s = self.flood_per_s.max(self.in_second);
        }
    }

    /// One thing at a time: with both, the flood is the cause.
    fn report(&mut self, now: Time) -> Option<Event> {
        if now < self.report_at() {
            return None;
        }
        self.quiet_until = now + TROUBLE_INTERVAL;
        if self.flood_per_s > 0 {
            let per_s = std::mem::take(&mut self.flood_per_s);
            return Some(Event::Flood { per_s });
        }
        let (from, reason) = self.last.take()?;
        let count = std::mem::take(&mut self.malformed_count);
        Some(Event::Malformed { count, from, reason })
    }

    fn report_at(&self) -> Time {
        if self.flood_per_s > 0 || self.last.is_some() { self.quiet_until } else { Time::NEVER }
    }
}
