//! An endpoint as the service drives it, without sockets and files.

use lantorrent::Time;
use lantorrent::chain::{BEAT_INTERVAL, Chain, Config, Event, STALL_TIMEOUT};
use lantorrent::code::Code;
use lantorrent::header::{Destination, Request};
use lantorrent::intake::{End, Intake, Want};
use lantorrent::plan::{self, Wanted};
use lantorrent::report::{Line, Report};

/// Names a wire of the network.
pub(crate) type WireId = u64;

/// The footer of all transfers; whether hashes agree is tested elsewhere.
const FOOTER: &[u8] = br#"{"sha256": "x"}"#;

pub(crate) fn config(length: u64, degree: u32, is_origin: bool) -> Config {
    Config { length, degree, compat: false, is_origin, stall: STALL_TIMEOUT }
}

/// One file on each of `names`.
pub(crate) fn destinations(names: &[String], degree: u32, length: u64) -> Vec<Destination> {
    let wanted =
        names.iter().map(|name| Wanted { host: name.clone(), port: 1, request: request(name) });
    plan::destinations(wanted.collect(), degree, length)
}

fn request(name: &str) -> Request {
    Request { filename: format!("/{name}"), id: name.to_owned(), rename: true }
}

/// What a header tells.
#[derive(Clone, Debug)]
pub(crate) struct Opening {
    pub(crate) depth: u32,
    pub(crate) is_moved: bool,
    pub(crate) degree: u32,
    pub(crate) behind: Vec<Destination>,
}

/// What is said to whom.
pub(crate) type Said = (WireId, Line);

/// A transfer under way.
#[derive(Debug)]
pub(crate) struct Session {
    name: String,
    intake: Intake,
    pub(crate) chain: Chain,
    pub(crate) upstream: Option<WireId>,
    depth: u32,
    reports: Vec<Report>,
    beat_at: Time,
    is_own_done: bool,
    is_over: bool,
    /// Until the driver takes them.
    pub(crate) said: Vec<Said>,
    /// Predecessors that were replaced.
    pub(crate) left: Vec<WireId>,
}

impl Session {
    pub(crate) fn new(name: &str, length: u64, wire: WireId, opening: Opening, now: Time) -> Self {
        let Opening { depth, is_moved: _, degree, behind } = opening;
        let mut session = Self {
            name: name.to_owned(),
            intake: Intake::new(length, Some(depth), now),
            chain: Chain::new(config(length, degree, false), behind, now),
            upstream: Some(wire),
            depth,
            reports: vec![],
            beat_at: now,
            is_own_done: false,
            is_over: false,
            said: vec![],
            left: vec![],
        };
        session.greet();
        session
    }

    /// Of the headers that it sends.
    pub(crate) fn child_depth(&self) -> u32 {
        self.depth + 1
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.is_own_done
    }

    pub(crate) fn received(&self) -> u64 {
        self.intake.received()
    }

    fn say(&mut self, line: Line) {
        self.said.extend(self.upstream.map(|wire| (wire, line)));
    }

    fn greet(&mut self) {
        self.say(Line::Hello { offset: self.intake.received() });
        for report in self.reports.clone() {
            self.say(Line::Report(report));
        }
    }

    /// Somebody comes with a header.
    pub(crate) fn attach(&mut self, wire: WireId, opening: Opening, now: Time) {
        let has_predecessor = self.upstream.is_some();
        if !self.intake.admits(opening.depth, opening.is_moved, has_predecessor) {
            self.said.push((wire, Line::Moved));
            self.left.push(wire);
            return;
        }
        self.intake.attach(now, opening.depth, opening.is_moved);
        self.depth = opening.depth;
        self.say(Line::Moved);
        self.left.extend(self.upstream.replace(wire));
        self.greet();
        self.chain.handle(now, Event::Append(opening.behind));
    }

    /// At most so many bytes would be taken.
    pub(crate) fn take(&mut self, len: u64, now: Time) {
        if let Want::Payload(most) = self.intake.wants() {
            self.intake.on_payload(now, len.min(most));
            self.chain.handle(now, Event::Stored(self.intake.received()));
        }
    }

    /// The predecessor's connection is gone, after its stream's end.
    pub(crate) fn lose_predecessor(&mut self) {
        self.upstream = None;
    }

    /// The predecessor's stream ended, with its footer or without.
    pub(crate) fn end(&mut self, has_footer: bool, now: Time) {
        if has_footer && matches!(self.intake.wants(), Want::Footer) {
            assert!(self.intake.on_footer(now, FOOTER));
        }
        match self.intake.on_end(now) {
            End::Complete(_) => {
                self.is_own_done = true;
                self.report(Code::SUCCESS);
            }
            End::Orphan => self.upstream = None,
            End::Lost(_) => self.fail(),
            End::Known => {}
        }
    }

    fn report(&mut self, code: Code) {
        let report = Report::new(&self.name, 1, &request(&self.name), code, String::new());
        self.pass_on(report);
    }

    fn fail(&mut self) {
        self.report(Code::BROKEN);
        self.is_over = true;
    }

    pub(crate) fn pass_on(&mut self, report: Report) {
        self.say(Line::Report(report.clone()));
        self.reports.push(report);
    }

    pub(crate) fn put_back(&mut self, Destination { host, port, pace, .. }: Destination) {
        self.say(Line::Back { host, port, pace: pace.unwrap_or(0) });
    }

    /// All that time brings. When it is over: what it came to, and whether it is remembered.
    pub(crate) fn look_around(&mut self, now: Time) -> Option<Vec<Report>> {
        if !self.is_own_done && self.intake.tick(now).is_some() {
            self.fail();
        }
        if now >= self.beat_at {
            self.beat_at = now + BEAT_INTERVAL;
            self.say(Line::Beat { received: self.intake.received() });
        }
        let is_done = self.is_own_done && self.chain.is_done();
        (is_done || self.is_over).then(|| self.reports.clone())
    }
}
