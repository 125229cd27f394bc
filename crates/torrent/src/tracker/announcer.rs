//! When one torrent's peer announces itself to which of its trackers (BEP 3, 12).
//!
//! A state machine like the swarm: [`Announcer::handle`] what happens, [`Announcer::poll`] until
//! `None`, and [`Input::Tick`] when [`Announcer::next_timeout`] has come. What it asks to announce
//! the driver carries out in its own time and always answers, at the latest by a timeout.
//!
//! **Tiers.** Within a tier BEP 12 holds: shuffled once, asked in order until one answers, which then
//! is the first; its members are taken for mirrors of one tracker. Between tiers we differ: BEP 12
//! would ask the second tier only when all of the first are dead, and a tracker that is alive but
//! was just restarted, and knows nobody, would hide the peers of another. So each tier is served for
//! itself, all at once; that costs one small request per tier and interval.
//!
//! **After a failure** of a whole tier: again after 1 s, 2 s, 4 s … at most 30 s, each shortened at
//! random by up to a half, so that a fleet that waits for a tracker does not come back in step. A
//! node boots in less than a minute: the minutes that clients elsewhere wait are for ever here.

use std::net::SocketAddr;
use std::time::Duration;

use super::rng::Rng;
use super::{AnnounceResponse, Event, HANDOUT};
use crate::Time;

/// The most trackers we use of one torrent: a metainfo is a stranger's. The first ones count.
pub const TRACKERS_MAX: usize = 32;

/// First wait after a whole tier failed.
const RETRY_FIRST: Duration = Duration::from_secs(1);
/// Longest such wait: what a node loses at most after a tracker came back.
const RETRY_MAX: Duration = Duration::from_secs(30);

/// The shortest interval that we obey, whatever a tracker says: it must not make us a flood.
const INTERVAL_FLOOR: Duration = Duration::from_secs(1);
/// The longest: a broken tracker must not lose us for days.
const INTERVAL_CEILING: Duration = Duration::from_secs(2 * 3600);
/// When peers may be asked for again if the tracker gives no `min interval` (UDP cannot): far above
/// what bothers a tracker, and not more than a node can wait that has nobody.
const INTERVAL_MIN_DEFAULT: Duration = Duration::from_secs(30);

/// The part of the interval by which a regular announce is late at most, at random, so that a fleet
/// that started in one second spreads out.
const INTERVAL_JITTER: f64 = 0.1;

/// A tracker, as a number: its place in [`Announcer::url`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TrackerIndex(usize);

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// The download has become complete.
    Completed,
    /// The swarm has too few peers: ask as soon as the trackers allow.
    NeedPeers {
        /// How many it would like.
        numwant: u32,
    },
    /// The peer leaves: tell the trackers that know it, and then be quiet.
    Stop,
    /// The outcome of an [`Output::Announce`]; `None` if it failed, for whatever reason.
    Answer {
        /// Which tracker.
        tracker: TrackerIndex,
        /// What it said.
        response: Option<AnnounceResponse>,
    },
    /// A time that [`Announcer::next_timeout`] named has come.
    Tick,
}

/// Something to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Announce, and give [`Input::Answer`].
    Announce {
        /// Where.
        tracker: TrackerIndex,
        /// Why.
        event: Event,
        /// How many peers to ask for.
        numwant: u32,
        /// What the tracker wants repeated.
        tracker_id: Option<Vec<u8>>,
    },
    /// Addresses for the swarm; perhaps known already, perhaps our own.
    Peers(Vec<SocketAddr>),
}

#[derive(Clone, Debug)]
struct Tracker {
    url: String,
    id: Option<Vec<u8>>,
    /// It answered an announce, so it must hear of our end.
    knows_us: bool,
    /// It has heard that we are complete, or that we came complete.
    knows_complete: bool,
}

/// An announce under way, as it was when it left.
#[derive(Clone, Copy, Debug)]
struct InFlight {
    event: Event,
    numwant: u32,
    complete: bool,
}

#[derive(Clone, Debug)]
struct Tier {
    /// In the order of BEP 12.
    order: Vec<usize>,
    /// Place in `order` of the tracker that is asked or will be asked next.
    turn: usize,
    /// The announce under way.
    in_flight: Option<InFlight>,
    /// Whole rounds that failed since the last answer.
    failed_rounds: u32,
    /// The next announce.
    due: Time,
    /// No announce for more peers before this.
    earliest: Time,
    /// Peers the swarm wants beyond the regular announce.
    want: Option<u32>,
}

/// The announces of one torrent.
#[derive(Clone, Debug)]
pub struct Announcer {
    trackers: Vec<Tracker>,
    tiers: Vec<Tier>,
    complete: bool,
    /// It was complete from the start.
    is_origin: bool,
    stopping: bool,
    rng: Rng,
    outputs: Vec<Output>,
}

impl Announcer {
    /// Announces to the trackers of `tiers` (BEP 12 `announce-list`, or one tier with BEP 3's
    /// `announce`), from `now` on. `complete` says whether the peer has everything already; `seed`
    /// should differ between peers. A URL that comes twice is used once.
    #[must_use]
    pub fn new(now: Time, tiers: &[Vec<String>], complete: bool, seed: u64) -> Self {
        let mut announcer = Self {
            trackers: Vec::new(),
            tiers: Vec::new(),
            complete,
            is_origin: complete,
            stopping: false,
            rng: Rng::new(seed),
            outputs: Vec::new(),
        };
        for tier in tiers {
            announcer.add_tier(now, tier);
        }
        announcer.serve_tiers(now);
        announcer
    }

    /// The URL of a tracker.
    #[must_use]
    pub fn url(&self, tracker: TrackerIndex) -> &str {
        &self.trackers[tracker.0].url
    }

    /// Takes what happened at `now`.
    pub fn handle(&mut self, now: Time, input: Input) {
        match input {
            Input::Completed => self.complete = true,
            Input::NeedPeers { numwant } => {
                for tier in &mut self.tiers {
                    tier.want = Some(numwant);
                }
            }
            Input::Stop => self.stopping = true,
            Input::Answer { tracker, response } => self.handle_answer(now, tracker.0, response),
            Input::Tick => {}
        }
        self.serve_tiers(now);
    }

    /// What to do next, if anything.
    pub fn poll(&mut self) -> Option<Output> {
        (!self.outputs.is_empty()).then(|| self.outputs.remove(0))
    }

    /// When to give [`Input::Tick`]; [`Time::NEVER`] if only events matter.
    #[must_use]
    pub fn next_timeout(&self) -> Time {
        self.tiers.iter().map(|tier| self.tier_due(tier)).min().unwrap_or(Time::NEVER)
    }

    /// Whether all is said after [`Input::Stop`].
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.stopping
            && self
                .tiers
                .iter()
                .all(|tier| tier.in_flight.is_none() && self.next_event(tier).is_none())
    }

    fn add_tier(&mut self, now: Time, urls: &[String]) {
        let mut order = Vec::new();
        for url in urls {
            let known = self.trackers.iter().any(|tracker| tracker.url == *url);
            if known || self.trackers.len() >= TRACKERS_MAX {
                continue;
            }
            order.push(self.trackers.len());
            self.trackers.push(Tracker {
                url: url.clone(),
                id: None,
                knows_us: false,
                knows_complete: self.complete,
            });
        }
        if order.is_empty() {
            return;
        }
        self.rng.shuffle(&mut order);
        self.tiers.push(Tier {
            order,
            turn: 0,
            in_flight: None,
            failed_rounds: 0,
            due: now,
            earliest: now,
            want: Some(HANDOUT as u32),
        });
    }

    /// Starts what is due in each tier that has nothing under way.
    fn serve_tiers(&mut self, now: Time) {
        for at in 0..self.tiers.len() {
            let tier = &self.tiers[at];
            if self.tier_due(tier) > now {
                continue;
            }
            let Some(event) = self.next_event(tier) else {
                continue;
            };
            let tracker = tier.order[tier.turn];
            let numwant = match event {
                Event::Stopped => 0,
                // An origin seed dials whoever cannot dial it.
                _ => tier.want.unwrap_or(if self.is_origin { HANDOUT as u32 } else { 0 }),
            };
            self.tiers[at].in_flight = Some(InFlight { event, numwant, complete: self.complete });
            self.outputs.push(Output::Announce {
                tracker: TrackerIndex(tracker),
                event,
                numwant,
                tracker_id: self.trackers[tracker].id.clone(),
            });
        }
    }

    /// When the tier's next announce may start.
    fn tier_due(&self, tier: &Tier) -> Time {
        let Some(event) = self.next_event(tier) else {
            return Time::NEVER;
        };
        if tier.in_flight.is_some() {
            return Time::NEVER;
        }
        match event {
            // One attempt, now or never.
            Event::Stopped => Time::ZERO,
            // A tier that failed is left in peace first.
            _ if tier.failed_rounds > 0 => tier.due,
            // BEP 3 has it sent when it happens.
            Event::Completed => Time::ZERO,
            _ if tier.want.is_some() => tier.due.min(tier.earliest),
            _ => tier.due,
        }
    }

    /// What the tracker whose turn it is should hear next.
    fn next_event(&self, tier: &Tier) -> Option<Event> {
        let tracker = &self.trackers[tier.order[tier.turn]];
        if self.stopping {
            tracker.knows_us.then_some(Event::Stopped)
        } else if !tracker.knows_us {
            Some(Event::Started)
        } else if self.complete && !tracker.knows_complete {
            Some(Event::Completed)
        } else {
            Some(Event::Regular)
        }
    }

    fn handle_answer(&mut self, now: Time, tracker: usize, response: Option<AnnounceResponse>) {
        let tier = self
            .tiers
            .iter()
            .position(|tier| tier.order[tier.turn] == tracker && tier.in_flight.is_some());
        // An answer that was not asked for is the driver's mistake and changes nothing.
        let Some(tier) = tier else { return };
        let Some(sent) = self.tiers[tier].in_flight.take() else {
            return;
        };
        if sent.event == Event::Stopped {
            // One attempt: we are about to go, and the tracker will notice.
            self.trackers[tracker].knows_us = false;
            return;
        }
        match response {
            Some(response) => self.handle_response(now, tier, sent, response),
            None => self.handle_failure(now, tier),
        }
    }

    fn handle_response(
        &mut self,
        now: Time,
        at: usize,
        sent: InFlight,
        response: AnnounceResponse,
    ) {
        let tier = &mut self.tiers[at];
        let tracker = &mut self.trackers[tier.order[tier.turn]];
        tracker.knows_us = true;
        // BEP 3: no `completed` from a peer that was complete when it started here.
        tracker.knows_complete |= sent.complete;
        if response.tracker_id.is_some() {
            tracker.id = response.tracker_id;
        }
        tier.order[..=tier.turn].rotate_right(1);
        tier.turn = 0;
        tier.failed_rounds = 0;
        if sent.numwant > 0 {
            tier.want = None;
        }
        let interval = response.interval.clamp(INTERVAL_FLOOR, INTERVAL_CEILING);
        let interval_min =
            response.interval_min.unwrap_or(INTERVAL_MIN_DEFAULT).clamp(INTERVAL_FLOOR, interval);
        tier.earliest = now + interval_min;
        tier.due = now + interval.mul_f64(1.0 + INTERVAL_JITTER * self.rng.unit());
        if !response.peers.is_empty() {
            let addrs = response.peers.iter().map(|peer| peer.addr).collect();
            self.outputs.push(Output::Peers(addrs));
        }
    }

    /// The next tracker of the tier at once; after the last one a wait.
    fn handle_failure(&mut self, now: Time, at: usize) {
        let tier = &mut self.tiers[at];
        tier.turn += 1;
        tier.due = now;
        if tier.turn == tier.order.len() {
            tier.turn = 0;
            let wait = RETRY_FIRST.saturating_mul(1 << tier.failed_rounds.min(16)).min(RETRY_MAX);
            tier.due = now + wait.mul_f64(1.0 - 0.5 * self.rng.unit());
            tier.failed_rounds += 1;
        }
    }
}

#[cfg(test)]
#[path = "announcer_tests.rs"]
mod tests;
