//! The sending half of an endpoint, and all of the origin, as a state machine: whom to connect to,
//! how far each has come, when to give one up, and whom to go on with.
//!
//! The driver tells what happened ([`Chain::handle`]), does what [`Chain::poll`] says until it says
//! nothing more, and comes again at [`Chain::next_timeout`] at the latest, and every few
//! [`BEAT_INTERVAL`]s. Bytes do not pass through here; the machine only counts them.

mod child;
mod pace;

#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use crate::Time;
use crate::code::Code;
use crate::header::Destination;
use crate::plan;
use crate::report::{Line, Report};
use child::{Child, Phase};

/// How long one of ours may be silent, or take no byte although there are some for it, before it is
/// cut out. It says something every [`BEAT_INTERVAL`], so fifteen times are missing by then, and the
/// chain is whole again within the two seconds that are promised.
pub const STALL_TIMEOUT: Duration = Duration::from_millis(1_500);

/// How often an endpoint says how far it is: a tenth of a second finds a slow one within a second,
/// and is a packet where the stream has hundreds.
pub const BEAT_INTERVAL: Duration = Duration::from_millis(100);

/// Who is awake comes every [`BEAT_INTERVAL`].
const SLEEP: Duration = Duration::from_millis(500);

/// How long an endpoint may take to accept a connection. On a LAN it takes a millisecond; a SYN that
/// was lost is sent again after one second.
pub const CONNECT_TIMEOUT: Duration = Duration::from_millis(1_300);

/// How long it may take to answer the header. An old one never does; one of ours does at once.
pub const HELLO_TIMEOUT: Duration = Duration::from_millis(1_500);

/// How long an old peer, which says nothing on the way, may take no byte.
pub const OLD_STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// How long an old peer may take from the last byte until the last report: everything behind it
/// must be done first, and it may be slow and have no hash left to skip.
pub const OLD_REPORT_TIMEOUT: Duration = Duration::from_secs(600);

/// What the machine must know from the start.
#[derive(Clone, Debug)]
pub struct Config {
    /// Payload, in bytes.
    pub length: u64,
    /// Branches of this endpoint.
    pub degree: u32,
    /// Whether a peer may be an old one.
    pub compat: bool,
    /// The origin has all bytes from the start, and therefore no pace to compare with.
    pub is_origin: bool,
    /// See [`STALL_TIMEOUT`].
    pub stall: Duration,
}

/// One of the branches.
pub type BranchIndex = usize;

/// What the driver tells.
#[derive(Clone, Debug)]
pub enum Event {
    /// So many bytes are there to be sent.
    Stored(u64),
    /// The connection that was asked for is made, and the header is on its way.
    Connected(BranchIndex),
    /// It could not be made.
    NotConnected(BranchIndex, String),
    /// So many bytes were handed to the kernel for the child.
    Sent(BranchIndex, u64),
    /// The footer was.
    FooterSent(BranchIndex),
    /// The child said something.
    Line(BranchIndex, Line),
    /// The child said something that is no JSON.
    NotJson(BranchIndex),
    /// The child's connection ended.
    Closed(BranchIndex, String),
    /// How long the way to the next but one is, and how long the child's.
    Probed(BranchIndex, Option<Duration>, Duration),
    /// So many bytes a second reached the endpoint that was to be measured; nothing if none did.
    Measured(BranchIndex, Option<u64>),
    /// Endpoints that come behind all others.
    Append(Vec<Destination>),
    /// Nobody wants these requests any more.
    Forget(Vec<String>),
}

/// What the driver must do.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Connect, and send a header with those behind.
    Connect { branch: BranchIndex, destination: Destination, behind: Vec<Destination> },
    /// End the connection.
    Drop { branch: BranchIndex },
    /// Send nothing more, but keep the connection until the endpoint has another predecessor.
    Park { branch: BranchIndex },
    /// Tell the endpoint of these, which come behind it.
    Append { to: Destination, destinations: Vec<Destination> },
    /// Find out how long the way to this endpoint is.
    Probe { branch: BranchIndex, destination: Destination },
    /// Find out how much reaches this endpoint beside the stream.
    Measure { branch: BranchIndex, destination: Destination },
    /// Say upwards that this endpoint was put to the end of the chain.
    Back(Destination),
    /// Say this upwards.
    Report(Report),
}

/// See the module documentation.
#[derive(Debug)]
pub struct Chain {
    config: Config,
    branches: Vec<Branch>,
    /// Bytes that can be sent.
    stored: u64,
    /// When the driver came last.
    seen_at: Time,
    /// Requests that something is known of.
    reported: BTreeSet<Key>,
    actions: VecDeque<Action>,
}

#[derive(Debug, Default)]
struct Branch {
    child: Option<Child>,
    /// Behind the child, nearest first.
    rest: VecDeque<Destination>,
    /// A connection was made before: those behind may hold a part already.
    is_old: bool,
    /// Moves to the end that the origin may still try.
    trials: u32,
    /// The child's pace when the origin has found that no other would be faster, in bytes a second.
    measured: Option<u64>,
}

/// Host, port, file and id: ids are the user's, and may repeat.
type Key = (String, u16, String, String);

/// Moves to the end that an origin tries before it takes the pace for its own: with an eighth of a
/// fleet slow, four slow ones in a row at the head are one case in four thousand.
const TRIALS_MAX: u32 = 4;

impl Chain {
    /// Begins with nothing stored.
    pub fn new(config: Config, destinations: Vec<Destination>, now: Time) -> Self {
        let branches = plan::branches(destinations, config.degree)
            .into_iter()
            .map(|rest| Branch { rest: rest.into(), trials: TRIALS_MAX, ..Branch::default() })
            .collect();
        let stored = if config.is_origin { config.length } else { 0 };
        let (reported, actions) = (BTreeSet::new(), VecDeque::new());
        let mut chain = Self { config, branches, stored, seen_at: now, reported, actions };
        for index in 0..chain.branches.len() {
            chain.advance(index, now);
        }
        chain
    }

    /// Takes what happened.
    pub fn handle(&mut self, now: Time, event: Event) {
        match event {
            // What is there stays there.
            Event::Stored(stored) => self.stored = self.stored.max(stored),
            Event::Connected(index) => self.on_connected(index, now),
            Event::NotConnected(index, why) => self.lose(index, now, Code::UNREACHABLE, &why),
            Event::Sent(index, len) => {
                if let Some(child) = self.child(index) {
                    child.on_sent(len, now);
                }
            }
            Event::FooterSent(index) => {
                if let Some(child) = self.child(index) {
                    child.on_footer_sent(now);
                }
            }
            Event::Line(index, line) => self.on_line(index, now, line),
            Event::NotJson(index) => self.lose(index, now, Code::NOT_JSON, ""),
            Event::Closed(index, why) => self.on_closed(index, now, &why),
            Event::Probed(index, way, childs) => self.on_probed(index, now, way, childs),
            Event::Measured(index, rate) => self.on_measured(index, now, rate),
            Event::Append(destinations) => self.append(destinations, now),
            Event::Forget(ids) => self.forget(&ids),
        }
        self.check_timeouts(now);
    }

    /// Lets time pass.
    pub fn tick(&mut self, now: Time) {
        self.check_timeouts(now);
    }

    /// What to do next.
    pub fn poll(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When [`Self::tick`] must be called at the latest.
    pub fn next_timeout(&self) -> Option<Time> {
        let children = self.branches.iter().filter_map(|branch| branch.child.as_ref());
        children.map(|child| child.deadline(&self.config, self.stored)).min()
    }

    /// From where, and how many bytes, can be sent to a child now.
    pub fn sendable(&self, index: BranchIndex) -> Option<(u64, u64)> {
        let child = self.branches.get(index)?.child.as_ref()?;
        let is_streaming = matches!(child.phase, Phase::Streaming);
        let len = self.stored.saturating_sub(child.sent);
        (is_streaming && len > 0).then_some((child.sent, len))
    }

    /// Whether a child has all bytes and waits for the footer.
    pub fn wants_footer(&self, index: BranchIndex) -> bool {
        let child = self.branches.get(index).and_then(|branch| branch.child.as_ref());
        child.is_some_and(|child| {
            matches!(child.phase, Phase::Streaming)
                && child.sent == self.config.length
                && !child.has_footer
        })
    }

    /// How many branches there are.
    pub fn branch_count(&self) -> usize {
        self.branches.len()
    }

    /// Whether nothing is to be expected any more.
    pub fn is_done(&self) -> bool {
        self.actions.is_empty()
            && self.branches.iter().all(|branch| branch.child.is_none() && branch.rest.is_empty())
    }

    /// The least that a child is known to have, for people; all if there is none.
    pub fn received(&self) -> u64 {
        let children = self.branches.iter().filter_map(|branch| branch.child.as_ref());
        children.map(|child| child.received).min().unwrap_or(self.config.length)
    }

    fn child(&mut self, index: BranchIndex) -> Option<&mut Child> {
        self.branches.get_mut(index)?.child.as_mut()
    }

    /// Connects a branch without a child to the first of its rest that something is to be heard of.
    fn advance(&mut self, index: BranchIndex, now: Time) {
        let reported = &self.reported;
        let branch = &mut self.branches[index];
        if branch.child.is_some() {
            return;
        }
        branch.rest.retain(|destination| !is_reported(reported, destination));
        let Some(destination) = branch.rest.pop_front() else { return };
        let behind = branch.rest.iter().cloned().collect();
        branch.child = Some(Child::new(destination.clone(), branch.is_old, now));
        self.actions.push_back(Action::Connect { branch: index, destination, behind });
    }

    fn on_connected(&mut self, index: BranchIndex, now: Time) {
        let compat = self.config.compat;
        let Some(branch) = self.branches.get_mut(index) else { return };
        let Some(child) = &mut branch.child else { return };
        child.phase = Phase::Greeting;
        child.since = now;
        // An old peer says nothing until the end. One that never was in the stream has nothing, so
        // there is nothing to ask either.
        if compat && !child.was_behind {
            child.start(0, false, now);
        }
        branch.is_old = true;
    }

    fn on_line(&mut self, index: BranchIndex, now: Time, line: Line) {
        let length = self.config.length;
        let Some(child) = self.child(index) else { return };
        child.heard_at = now;
        match line {
            Line::Hello { offset } => {
                child.is_own = true;
                if matches!(child.phase, Phase::Greeting) {
                    if offset > length {
                        self.lose(index, now, Code::NOT_JSON, "it has more than there is");
                    } else {
                        child.start(offset, true, now);
                    }
                }
            }
            Line::Beat { received } => {
                child.on_beat(received.min(length), now);
                self.watch_pace(index, now);
            }
            Line::Report(report) => self.on_report(index, report),
            Line::Back { host, port, pace } => self.on_back(index, &host, port, pace),
            Line::Moved => {
                // Whoever feeds it now knows all that are behind it, and hears of them.
                let branch = &mut self.branches[index];
                branch.child = None;
                branch.rest.clear();
                self.actions.push_back(Action::Drop { branch: index });
            }
            Line::Unknown => {}
        }
    }

    /// Whoever is behind has put an endpoint to the end: were it still named where it was, it would be
    /// taken from there with all that came behind it, should those before it die.
    fn on_back(&mut self, index: BranchIndex, host: &str, port: u16, pace: u64) {
        let rest = &mut self.branches[index].rest;
        let found = rest.iter().position(|known| known.host == host && known.port == port);
        let Some(mut destination) = found.and_then(|at| rest.remove(at)) else { return };
        destination.pace = Some(pace);
        rest.push_back(destination.clone());
        self.actions.push_back(Action::Back(destination));
    }

    /// Passes a report on, once. One without an id is about all that is not known of its endpoint.
    fn on_report(&mut self, index: BranchIndex, report: Report) {
        if let (Some(file), Some(id)) = (report.file.clone(), report.id.clone()) {
            let key = (report.host.clone(), report.port, file, id);
            if self.reported.insert(key) {
                self.actions.push_back(Action::Report(report));
            }
            return;
        }
        let Some(child) = self.child(index) else { return };
        let destination = child.destination.clone();
        let message = report.message.unwrap_or_default();
        self.report_missing(&destination, Code(report.code), &message);
    }

    fn report_missing(&mut self, destination: &Destination, code: Code, why: &str) {
        for request in &destination.requests {
            let key = key(destination, &request.filename, &request.id);
            if self.reported.insert(key) {
                let report = Report::about(destination, request, code, why);
                self.actions.push_back(Action::Report(report));
            }
        }
    }

    /// Gives the child up and goes on with the one behind it.
    fn lose(&mut self, index: BranchIndex, now: Time, code: Code, why: &str) {
        let Some(branch) = self.branches.get_mut(index) else { return };
        let Some(child) = branch.child.take() else { return };
        self.actions.push_back(Action::Drop { branch: index });
        self.report_missing(&child.destination, code, why);
        self.advance(index, now);
    }

    fn on_closed(&mut self, index: BranchIndex, now: Time, why: &str) {
        let Some(child) = self.child(index) else { return };
        let code = match child.phase {
            Phase::Connecting => Code::UNREACHABLE,
            // It takes the connection and then does not speak: something is there, and it refuses.
            Phase::Greeting | Phase::Streaming if child.has_footer => Code::NEVER_REPORTED,
            Phase::Greeting | Phase::Streaming => Code::BROKEN,
        };
        self.lose(index, now, code, why);
    }

    fn append(&mut self, mut destinations: Vec<Destination>, now: Time) {
        let known =
            |destination: &Destination| {
                self.branches.iter().any(|branch| {
                    let child = branch.child.as_ref().map(|child| &child.destination);
                    branch.rest.iter().chain(child).any(|known| {
                        known.host == destination.host && known.port == destination.port
                    })
                })
            };
        destinations.retain(|new| !is_reported(&self.reported, new) && !known(new));
        if destinations.is_empty() {
            return;
        }
        if self.branches.is_empty() {
            self.branches.push(Branch { is_old: true, ..Branch::default() });
        }
        let branch = &mut self.branches[0];
        branch.rest.extend(destinations.iter().cloned());
        // They were in the stream before they came here.
        branch.is_old = true;
        match &branch.child {
            Some(child) => {
                let to = child.destination.clone();
                self.actions.push_back(Action::Append { to, destinations });
            }
            None => self.advance(0, now),
        }
    }

    /// Requests that were cancelled count as known; an endpoint all of whose requests are is not
    /// connected to. One that is in the stream goes on passing it on.
    fn forget(&mut self, ids: &[String]) {
        let known: Vec<Destination> =
            self.branches.iter().flat_map(|branch| branch.rest.iter().cloned()).collect();
        for destination in known {
            for request in destination.requests.iter().filter(|r| ids.contains(&r.id)) {
                self.reported.insert(key(&destination, &request.filename, &request.id));
            }
        }
    }

    fn check_timeouts(&mut self, now: Time) {
        // Nobody came for so long: this machine was stopped, or starved. Of the others that says nothing, and
        // what they said meanwhile is still to be read.
        let has_slept = now > self.seen_at + SLEEP;
        self.seen_at = now;
        if has_slept {
            let children = self.branches.iter_mut().filter_map(|branch| branch.child.as_mut());
            children.for_each(|child| child.begin_anew(now));
        }
        for index in 0..self.branches.len() {
            let (config, stored) = (&self.config, self.stored);
            let Some(child) = &mut self.branches[index].child else { continue };
            if now < child.deadline(config, stored) {
                continue;
            }
            match child.phase {
                Phase::Connecting => self.lose(index, now, Code::UNREACHABLE, "no answer"),
                // It never heard of the transfer and cannot go on with it: an old one.
                Phase::Greeting if self.config.compat => child.start(0, false, now),
                Phase::Greeting if child.was_behind => {
                    self.lose(index, now, Code::BROKEN, "it accepts and says nothing");
                }
                Phase::Greeting => {
                    self.lose(index, now, Code::UNREACHABLE, "it accepts and says nothing");
                }
                Phase::Streaming if child.has_footer && !child.is_own => {
                    self.lose(index, now, Code::NEVER_REPORTED, "");
                }
                Phase::Streaming => self.lose(index, now, Code::BROKEN, "it stalls"),
            }
        }
    }
}

fn key(destination: &Destination, file: &str, id: &str) -> Key {
    (destination.host.clone(), destination.port, file.to_owned(), id.to_owned())
}

fn is_reported(reported: &BTreeSet<Key>, destination: &Destination) -> bool {
    let mut requests = destination.requests.iter();
    requests.all(|request| reported.contains(&key(destination, &request.filename, &request.id)))
}
