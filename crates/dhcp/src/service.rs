//! All of it behind one door: decides what to be, and answers.
//!
//! ```text
//!              mode auto, or server without force         mode proxy, or force
//!                          │                                       │
//!                      Deciding ── nobody, or time is up ──►  Serving(role) ─┐
//!                          │                                       ▲         │ looks around again
//!                          └─ somebody else ──► Stopped            └─────────┘ from time to time
//! ```
//!
//! Once it serves, a service goes on whatever it hears: a laptop that shares its connection must not
//! be able to stop a room from booting. It only says so.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use crate::asker::{Asker, MachineId};
use crate::config::{Config, ConfigError, LabId, Mode, Role};
use crate::io::{Conflict, Event, Input, Output, Port};
use crate::lease::Lease;
use crate::message::{DecodeError, Message, code};
use crate::probe::{Heard, Marker, Probe, introduce};
use crate::proxy;
use crate::server::Server;
use crate::time::Time;

use dhcproto::v4::MessageType;

/// How often others are looked for while serving; up to a quarter more, so that servers that were
/// started together do not look together.
pub const LOOK_AROUND: Duration = Duration::from_secs(5 * 60);

/// The same server is reported again after this.
pub const REPORT_AGAIN: Duration = Duration::from_secs(60 * 60);

/// Other servers that are remembered as reported. Beyond that none is reported.
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
    Stopped,
}

/// A DHCP service. Its driver drains [`Self::poll`] after every [`Self::handle`], and calls that with
/// [`Input::Tick`] at [`Self::next_timeout`].
#[derive(Clone, Debug)]
pub struct Service {
    config: Config,
    me: Marker,
    phase: Phase,
    server: Server,
    probe: Option<Probe>,
    look_around_at: Time,
    /// The first server heard that gives addresses.
    beside: Option<Ipv4Addr>,
    reported: BTreeMap<Ipv4Addr, Time>,
    trouble: Trouble,
    rng: fastrand::Rng,
    /// Bounded by the contract with the driver: one input makes a handful.
    outputs: VecDeque<Output>,
}

impl Service {
    /// A service with the leases of before, that begins at `now`. `seed` must be of the system's
    /// randomness: two servers of one lab tell themselves apart by what comes of it.
    ///
    /// # Errors
    /// If the configuration contradicts itself.
    pub fn new(
        config: Config,
        leases: impl IntoIterator<Item = Lease>,
        now: Time,
        seed: u64,
    ) -> Result<Self, ConfigError> {
        config.check()?;
        let mut rng = fastrand::Rng::with_seed(seed);
        let me = Marker { lab: config.lab, run: rng.u64(..).to_be_bytes() };
        let mut service = Self {
            server: Server::new(&config, leases),
            config,
            me,
            phase: Phase::Deciding,
            probe: None,
            look_around_at: Time::NEVER,
            beside: None,
            reported: BTreeMap::new(),
            trouble: Trouble::default(),
            rng,
            outputs: VecDeque::new(),
        };
        service.look_around(now);
        // A proxy contradicts nobody, and who forces has decided: no need to wait.
        match (service.config.mode, service.config.force) {
            (Mode::Proxy, _) => service.serve(Role::Proxy),
            (Mode::Server, true) => service.serve(Role::Server),
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
        let leases: Vec<Lease> = self.leases().collect();
        self.server = Server::new(&config, leases);
        self.me.lab = config.lab;
        self.config = config;
        Ok(())
    }

    /// All leases, also those that have ended.
    pub fn leases(&self) -> impl Iterator<Item = Lease> + '_ {
        self.server.leases().iter()
    }

    /// Addresses that nobody has or had.
    #[must_use]
    pub fn free_count(&self) -> usize {
        self.server.leases().free_count()
    }

    /// What it does, once that is decided.
    #[must_use]
    pub const fn role(&self) -> Option<Role> {
        match self.phase {
            Phase::Serving(role) => Some(role),
            Phase::Deciding | Phase::Stopped => None,
        }
    }

    /// Takes one input.
    pub fn handle(&mut self, now: Time, input: Input<'_>) {
        if self.phase == Phase::Stopped {
            return;
        }
        if let Input::Packet { port, from, bytes } = input {
            match Message::decode(bytes) {
                Ok(message) => self.on_message(now, port, from, &message),
                Err(reason) => self.trouble.malformed(now, from, reason),
            }
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
        if self.phase == Phase::Stopped {
            return None;
        }
        let probe = self.probe.as_ref().map_or(self.look_around_at, Probe::next_timeout);
        Some(probe.min(self.trouble.report_at()))
    }

    fn event(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }

    fn on_message(&mut self, now: Time, port: Port, from: SocketAddrV4, message: &Message) {
        self.trouble.message(now);
        if message.is_reply {
            let heard = self
                .probe
                .as_ref()
                .and_then(|probe| probe.answer(&self.config, message, *from.ip()));
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
        self.outputs.push_back(Output::Listen(false));
        self.look_around_at = now + LOOK_AROUND + LOOK_AROUND.mul_f64(self.rng.f64() / 4.0);
    }

    /// Everybody who is there has had the time to say so.
    fn on_silence(&mut self, now: Time) {
        self.stop_looking(now);
        match (self.phase, self.beside) {
            (Phase::Deciding, Some(address)) => self.stop(Conflict::ForeignServer(address)),
            (Phase::Deciding, None) if !self.config.gives_addresses() => {
                self.serve(Role::Proxy);
                self.event(Event::NoServer);
            }
            (Phase::Deciding, None) => self.serve(Role::Server),
            (Phase::Serving(Role::Proxy), None) => self.event(Event::NoServer),
            (Phase::Serving(_) | Phase::Stopped, _) => {}
        }
        // Whoever is there must say so again the next time.
        self.beside = None;
    }

    fn on_heard(&mut self, now: Time, heard: Heard) {
        let Heard { address, marker, gives_addresses, boot_file } = heard;
        if let Some(marker) = marker {
            if marker.run != self.me.run {
                self.on_other_lab(now, address, marker);
            }
            return;
        }
        if gives_addresses {
            self.beside.get_or_insert(address);
        }
        match (self.phase, self.config.mode) {
            // It goes on listening: there may be another lab as well, and that would be the end.
            (Phase::Deciding, Mode::Auto) if gives_addresses => {
                self.serve(Role::Proxy);
                if boot_file.is_some() {
                    self.report(now, address, Event::ForeignServer { address, boot_file });
                }
            }
            // Not yet the end: if there is another lab, that is the better reason.
            (Phase::Deciding, Mode::Server) if gives_addresses => {}
            // What a proxy is beside is no news, unless it also says what to boot.
            (Phase::Serving(Role::Proxy), _) if boot_file.is_none() => {}
            _ => self.report(now, address, Event::ForeignServer { address, boot_file }),
        }
    }

    /// Another BootTorrent server looks around.
    fn on_question(&mut self, now: Time, marker: Marker, message: &Message, from: Ipv4Addr) {
        if marker.run == self.me.run {
            return; // Our own broadcast came back.
        }
        // Of two that begin at the same time one must yield, and both must agree on which.
        if self.phase == Phase::Deciding && !self.config.force && marker < self.me {
            self.on_other_lab(now, from, marker);
            return;
        }
        self.outputs.extend(introduce(&self.config, self.me, message));
        if let Phase::Serving(_) = self.phase {
            let (address, lab) = (from, marker.lab);
            self.report(
                now,
                from,
                match self.is_twin(marker) {
                    true => Event::Twin { address },
                    false => Event::OtherLab { address, lab },
                },
            );
        }
    }

    fn on_other_lab(&mut self, now: Time, address: Ipv4Addr, marker: Marker) {
        let lab = marker.lab;
        let is_first_look = self.look_around_at == Time::NEVER;
        if self.is_twin(marker) {
            self.report(now, address, Event::Twin { address });
        } else if is_first_look && !self.config.force {
            self.stop(Conflict::OtherLab { address, lab });
        } else {
            self.report(now, address, Event::OtherLab { address, lab });
        }
    }

    /// Whether that is a second server of this lab, and this one only adds to what others lease: both
    /// say the same, a node takes the answer of either, and boots while one of them lives.
    fn is_twin(&self, marker: Marker) -> bool {
        self.config.mode == Mode::Proxy && marker.lab == self.me.lab && marker.lab != LabId::NONE
    }

    fn report(&mut self, now: Time, address: Ipv4Addr, event: Event) {
        self.reported.retain(|_, at| now.since(*at) < REPORT_AGAIN);
        if self.reported.len() < OTHERS_MAX && !self.reported.contains_key(&address) {
            self.reported.insert(address, now);
            self.event(event);
        }
    }

    fn serve(&mut self, role: Role) {
        self.phase = Phase::Serving(role);
        let beside = self.beside.filter(|_| role == Role::Proxy);
        self.event(Event::Serving { role, beside });
    }

    fn stop(&mut self, conflict: Conflict) {
        self.phase = Phase::Stopped;
        self.probe = None;
        self.outputs.push_back(Output::Listen(false));
        self.outputs.push_back(Output::Stop(conflict));
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
