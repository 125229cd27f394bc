//! The agent's DHCP client (RFC 2131 section 4.4, figure 5): INIT, SELECTING, REQUESTING, BOUND,
//! RENEWING, REBINDING, with a probe of the address between REQUESTING and BOUND.
//!
//! It decides what to send and when; sockets, the ARP probe and the interface are the driver's. What
//! it does otherwise than the RFC recommends, it does because a room boots at once and people wait:
//! it begins without the random delay of 1 to 10 s (firmware has spread the nodes already), retries
//! after half a second at first, and starts again after a refusal at once, slower each time.
//!
//! INIT-REBOOT is left out: a node without a disk has no address to remember.

mod lease;
mod reply;
mod request;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::time::Duration;

use fastrand::Rng;

use crate::time::Time;

use self::lease::Terms;
pub use self::lease::{
    BOOT_FILE_LEN_MAX, DNS_MAX, LEASE_TIME_MIN, Lease, NAME_LEN_MAX, ROUTERS_MAX,
};
pub use self::reply::OPTIONS_MAX;
use self::reply::{Reply, ReplyKind};
pub use self::request::{PACKET_LEN_MAX, PACKET_LEN_MIN, VENDOR_CLASS};
use self::request::{Request, RequestKind};

/// How long to wait for an answer before the same is sent again, the first time. A server on the
/// same switch answers in well under 100 ms; the RFC's 4 s would be most of a boot.
pub const RETRY_MIN: Duration = Duration::from_millis(500);

/// The longest wait between two DISCOVERs; each is twice the one before until then. The RFC ends at
/// 64 s; 1,000 nodes that ask every 16 s are 60 packets a second, and when the server is back a room
/// boots within that time.
pub const RETRY_MAX: Duration = Duration::from_secs(16);

/// REQUESTs for one offer: with the waits between them 3.5 s, after which the server that offered is
/// taken to be gone.
pub const REQUESTS_MAX: u32 = 3;

/// How long offers are collected when a boot server is known and another server was faster. Servers
/// that probe an address before they offer it take longer, but then any offer is as good.
pub const OFFER_WAIT: Duration = Duration::from_millis(200);

/// The longest wait before a new start after refusals (RFC 2131 section 3.1 asks for 10 s after a
/// DECLINE, "to avoid excessive network traffic in case of looping"). The first is [`RETRY_MIN`],
/// each is twice the one before.
pub const RESTART_MAX: Duration = Duration::from_secs(10);

/// How long the driver has for its probe. One that does not answer must not keep the node from
/// booting: the address then counts as free.
pub const PROBE_TIME_MAX: Duration = Duration::from_secs(3);

/// The least time between two REQUESTs for a lease that is held (RFC 2131 section 4.4.5).
pub const RENEW_RETRY_MIN: Duration = Duration::from_secs(60);

/// From this DISCOVER on, answers are asked for by broadcast: until then nothing came, and some
/// servers and relays cannot send to an address that nobody has yet.
pub const BROADCAST_FROM_ATTEMPT: u32 = 3;

/// What the client knows of its node.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// The interface's Ethernet address.
    pub mac: [u8; 6],
    /// The SMBIOS UUID in the order of bytes that the firmware gives (RFC 4578 section 2.3), so that
    /// a server sees one node in firmware and agent.
    pub uuid: Option<[u8; 16]>,
    /// The node's name, if it has one already.
    pub hostname: Option<String>,
    /// The server that the node boots from: of several offers, its own is taken.
    pub boot_server: Option<Ipv4Addr>,
    /// Any number that differs between nodes and boots: transaction ids and jitter come from it.
    pub random_seed: u64,
}

/// Something that happened.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// A UDP datagram came to port 68 of the interface.
    Datagram(&'a [u8]),
    /// Nobody answered to the probe of this address.
    AddressFree(Ipv4Addr),
    /// Somebody did: the address is in use.
    AddressTaken(Ipv4Addr),
    /// A time that [`Client::next_timeout`] named has come.
    Tick,
}

/// Something to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send a UDP datagram from port 68 to port 67.
    Send {
        /// Its payload.
        datagram: Vec<u8>,
        /// Where to.
        to: Destination,
    },
    /// Find out whether anybody uses this address (RFC 5227), and say so within [`PROBE_TIME_MAX`].
    Probe(Ipv4Addr),
    /// The address is in use by another machine; the server has been told, and it begins again.
    Declined(Ipv4Addr),
    /// The interface has an address from now on.
    Bound(Lease),
    /// The lease of the address that it has was prolonged; the other fields may have changed.
    Renewed(Lease),
    /// The address must not be used any more. The search for another has begun.
    Lost {
        /// Which.
        address: Ipv4Addr,
        /// Why.
        reason: LostReason,
    },
}

/// Where a datagram goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// 255.255.255.255, and from 0.0.0.0 while there is no address.
    Broadcast,
    /// A server, from the leased address.
    Server(Ipv4Addr),
}

/// Why an address is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LostReason {
    /// No server prolonged the lease before it ended.
    Expired,
    /// The server took it back (DHCPNAK).
    Refused,
}

/// An offer that is as good as any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Offer {
    address: Ipv4Addr,
    server: Ipv4Addr,
    is_boot_server: bool,
}

/// A lease that is in force, and until when.
#[derive(Clone, Debug)]
struct Held {
    lease: Lease,
    renew_at: Time,
    rebind_at: Time,
    expires_at: Time,
}

/// RFC 2131 figure 5, with the times that each state waits for.
#[derive(Clone, Debug)]
enum State {
    Init { at: Time },
    Selecting { resend_at: Time, best: Option<(Offer, Time)> },
    Requesting { offer: Offer, sent_count: u32, sent_at: Time, resend_at: Time },
    Probing { held: Held, until: Time },
    Bound { held: Held },
    Renewing { held: Held, sent_at: Time, resend_at: Time },
    Rebinding { held: Held, sent_at: Time, resend_at: Time },
}

/// One interface's client. Its driver drains [`Self::poll`] after every [`Self::handle`]; one input
/// makes at most three outputs.
#[derive(Clone, Debug)]
pub struct Client {
    config: ClientConfig,
    rng: Rng,
    state: State,
    xid: u32,
    /// When the present attempt to get or keep an address began, for the field `secs`.
    began: Time,
    attempt: u32,
    /// Refusals since the last lease.
    setbacks: u32,
    outputs: VecDeque<Output>,
}

impl Client {
    /// Wants an address from `now` on; the first DISCOVER comes with the first [`Input::Tick`].
    #[must_use]
    pub fn new(config: ClientConfig, now: Time) -> Self {
        let mut rng = Rng::with_seed(config.random_seed);
        let xid = rng.u32(..);
        Self {
            config,
            rng,
            state: State::Init { at: now },
            xid,
            began: now,
            attempt: 0,
            setbacks: 0,
            outputs: VecDeque::new(),
        }
    }

    /// DISCOVERs sent since there was last an address.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// The lease in force.
    #[must_use]
    pub fn lease(&self) -> Option<&Lease> {
        match &self.state {
            State::Bound { held }
            | State::Renewing { held, .. }
            | State::Rebinding { held, .. } => Some(&held.lease),
            State::Init { .. }
            | State::Selecting { .. }
            | State::Requesting { .. }
            | State::Probing { .. } => None,
        }
    }

    /// The address that is being probed.
    #[must_use]
    pub fn probing(&self) -> Option<Ipv4Addr> {
        match &self.state {
            State::Probing { held, .. } => Some(held.lease.address),
            _ => None,
        }
    }

    /// Takes note of something that happened, and does what is due.
    pub fn handle(&mut self, now: Time, input: Input<'_>) {
        match input {
            Input::Datagram(bytes) => {
                if let Some(reply) = Reply::decode(bytes, self.xid, self.config.mac) {
                    self.hear(now, &reply);
                }
            }
            Input::AddressFree(address) => self.probed(now, address, false),
            Input::AddressTaken(address) => self.probed(now, address, true),
            Input::Tick => {}
        }
        // Ends: what is due leads to a state whose own time is later than `now`, or to INIT and from
        // there to SELECTING, whose time is. Only at the end of time nothing is later.
        while self.next_timeout() <= now && now < Time::NEVER {
            self.advance(now);
        }
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to give [`Input::Tick`]; [`Time::NEVER`] with a lease that does not end.
    #[must_use]
    pub fn next_timeout(&self) -> Time {
        match &self.state {
            State::Init { at } => *at,
            State::Selecting { resend_at, best } => {
                best.map_or(*resend_at, |(_, decide_at)| decide_at.min(*resend_at))
            }
            State::Requesting { resend_at, .. } => *resend_at,
            State::Probing { until, .. } => *until,
            State::Bound { held } => held.renew_at,
            State::Renewing { held, resend_at, .. } => held.rebind_at.min(*resend_at),
            State::Rebinding { held, resend_at, .. } => held.expires_at.min(*resend_at),
        }
    }

    /// Does what the state waited for.
    fn advance(&mut self, now: Time) {
        match self.state.clone() {
            State::Init { .. } => {
                self.xid = self.rng.u32(..);
                self.began = now;
                self.discover(now, None);
            }
            State::Selecting { best: Some((offer, decide_at)), .. } if decide_at <= now => {
                self.request(now, offer, 0);
            }
            State::Selecting { best, .. } => self.discover(now, best),
            State::Requesting { offer, sent_count, .. } if sent_count < REQUESTS_MAX => {
                self.request(now, offer, sent_count);
            }
            State::Requesting { .. } => self.state = State::Init { at: now },
            State::Probing { held, .. } => self.bind(held),
            State::Bound { held }
            | State::Renewing { held, .. }
            | State::Rebinding { held, .. } => self.prolong(now, held),
        }
    }

    /// Broadcasts a DISCOVER; an offer that has come meanwhile is kept.
    fn discover(&mut self, now: Time, best: Option<(Offer, Time)>) {
        self.attempt = self.attempt.saturating_add(1);
        self.send(now, RequestKind::Discover, Destination::Broadcast);
        let resend_at = now + self.backoff(self.attempt - 1, RETRY_MAX);
        self.state = State::Selecting { resend_at, best };
    }

    /// Asks for what was offered, having asked `sent_count` times.
    fn request(&mut self, now: Time, offer: Offer, sent_count: u32) {
        let kind = RequestKind::Select { address: offer.address, server: offer.server };
        self.send(now, kind, Destination::Broadcast);
        let resend_at = now + self.backoff(sent_count, RETRY_MAX);
        let sent_count = sent_count + 1;
        self.state = State::Requesting { offer, sent_count, sent_at: now, resend_at };
    }

    /// The lease nears its end: asks its server, then any server, then gives it up.
    fn prolong(&mut self, now: Time, held: Held) {
        let address = held.lease.address;
        if held.expires_at <= now {
            return self.lose(now, address, LostReason::Expired);
        }
        if matches!(self.state, State::Bound { .. }) {
            self.xid = self.rng.u32(..);
            self.began = now;
        }
        let kind = RequestKind::Prolong { address };
        if held.rebind_at <= now {
            self.send(now, kind, Destination::Broadcast);
            let resend_at = now + retry_while_held(now, held.expires_at);
            self.state = State::Rebinding { held, sent_at: now, resend_at };
        } else {
            self.send(now, kind, Destination::Server(held.lease.server));
            let resend_at = now + retry_while_held(now, held.rebind_at);
            self.state = State::Renewing { held, sent_at: now, resend_at };
        }
    }

    fn hear(&mut self, now: Time, reply: &Reply) {
        match (self.state.clone(), reply.kind) {
            (State::Selecting { resend_at, best }, ReplyKind::Offer) => {
                self.consider(now, resend_at, best, reply);
            }
            (State::Requesting { offer, sent_at, .. }, ReplyKind::Ack)
                if reply.server == Some(offer.server) && reply.address == offer.address =>
            {
                if let Some((lease, terms)) = Lease::from_ack(reply) {
                    let held = self.hold(lease, terms, sent_at);
                    self.outputs.push_back(Output::Probe(offer.address));
                    self.state = State::Probing { held, until: now + PROBE_TIME_MAX };
                }
            }
            (State::Requesting { offer, .. }, ReplyKind::Nak)
                if reply.server.is_none_or(|server| server == offer.server) =>
            {
                self.set_back(now);
            }
            (
                State::Renewing { held, sent_at, .. } | State::Rebinding { held, sent_at, .. },
                ReplyKind::Ack,
            ) if reply.address == held.lease.address => {
                if let Some((lease, terms)) = Lease::from_ack(reply) {
                    self.outputs.push_back(Output::Renewed(lease.clone()));
                    self.state = State::Bound { held: self.hold(lease, terms, sent_at) };
                }
            }
            (State::Renewing { held, .. }, ReplyKind::Nak)
                if reply.server.is_none_or(|server| server == held.lease.server) =>
            {
                self.lose(now, held.lease.address, LostReason::Refused);
            }
            (State::Rebinding { held, .. }, ReplyKind::Nak) => {
                self.lose(now, held.lease.address, LostReason::Refused);
            }
            // Late, repeated, or from a server that was not asked.
            _ => {}
        }
    }

    /// Keeps an offer if it is the first or the boot server's own.
    fn consider(&mut self, now: Time, resend_at: Time, best: Option<(Offer, Time)>, reply: &Reply) {
        // An answer of a proxyDHCP server has no address.
        let (Some(server), true) = (reply.server, lease::is_usable(reply.address)) else {
            return;
        };
        let is_boot_server = self.config.boot_server.is_none_or(|wanted| wanted == server);
        let offer = Offer { address: reply.address, server, is_boot_server };
        let best = match best {
            _ if is_boot_server => (offer, now),
            None => (offer, now + OFFER_WAIT),
            Some(earlier) => earlier,
        };
        self.state = State::Selecting { resend_at, best: Some(best) };
    }

    /// The driver has probed.
    fn probed(&mut self, now: Time, address: Ipv4Addr, taken: bool) {
        let State::Probing { held, .. } = &self.state else {
            return;
        };
        if held.lease.address != address {
            return;
        }
        if !taken {
            return self.bind(held.clone());
        }
        let kind = RequestKind::Decline { address, server: held.lease.server };
        self.send(now, kind, Destination::Broadcast);
        self.outputs.push_back(Output::Declined(address));
        self.set_back(now);
    }

    fn bind(&mut self, held: Held) {
        self.attempt = 0;
        self.setbacks = 0;
        self.outputs.push_back(Output::Bound(held.lease.clone()));
        self.state = State::Bound { held };
    }

    fn lose(&mut self, now: Time, address: Ipv4Addr, reason: LostReason) {
        self.outputs.push_back(Output::Lost { address, reason });
        self.state = State::Init { at: now };
    }

    /// Begins again, later each time, so that a server and a client that disagree do not do so at
    /// the speed of the network.
    fn set_back(&mut self, now: Time) {
        let wait = self.backoff(self.setbacks, RESTART_MAX);
        self.setbacks = self.setbacks.saturating_add(1);
        self.state = State::Init { at: now + wait };
    }

    /// The lease counts from when it was asked for (RFC 2131 section 4.4.1), T1 is brought forward
    /// by up to an eighth: nodes that were switched on together need not renew together.
    fn hold(&mut self, lease: Lease, terms: Terms, asked_at: Time) -> Held {
        let fraction = 1.0 - self.rng.f64() / 8.0;
        let renew_at = terms.renew.map_or(Time::NEVER, |after| asked_at + after.mul_f64(fraction));
        let [rebind_at, expires_at] = [terms.rebind, lease.lease_time]
            .map(|after| after.map_or(Time::NEVER, |after| asked_at + after));
        Held { lease, renew_at, rebind_at, expires_at }
    }

    fn send(&mut self, now: Time, kind: RequestKind, to: Destination) {
        let request = Request {
            kind,
            xid: self.xid,
            elapsed: now - self.began,
            broadcast: self.attempt >= BROADCAST_FROM_ATTEMPT,
        };
        self.outputs.push_back(Output::Send { datagram: request.encode(&self.config), to });
    }

    /// [`RETRY_MIN`], doubled `doublings` times, within a quarter of that, and at most `max`.
    fn backoff(&mut self, doublings: u32, max: Duration) -> Duration {
        let wait = RETRY_MIN.saturating_mul(1 << doublings.min(16)).min(max);
        wait.mul_f64(0.75 + self.rng.f64() / 4.0)
    }
}

/// Half of what is left, but no less than [`RENEW_RETRY_MIN`] (RFC 2131 section 4.4.5).
fn retry_while_held(now: Time, end: Time) -> Duration {
    (end.since(now) / 2).max(RENEW_RETRY_MIN)
}
