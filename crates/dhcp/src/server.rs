//! The DHCP server: RFC 2131 section 4.3, authoritative for its ranges.
//!
//! Authoritative means that a machine which asks for an address that it cannot have is told so at
//! once, even if it was never seen before, and one that asks for a free address gets it: after a
//! loss of all leases everybody keeps what he has.

use std::collections::{BTreeSet, VecDeque};
use std::net::Ipv4Addr;
use std::time::Duration;

use dhcproto::v4::MessageType;

use crate::answer::{add_boot, destination, send};
use crate::asker::Asker;
use crate::config::{Config, LEASE_TIME_MIN, Role, Subnet};
use crate::drain::Drain;
use crate::io::{Event, Output, Port};
use crate::lease::{Decline, Lease, Leases, Looked, NoAddress, Refusal, Who};
use crate::mac::Mac;
use crate::message::{Draft, Message, code};
use crate::time::Time;

/// Relay agents without a range that are remembered as reported. More are not reported.
const UNKNOWN_RELAYS_MAX: usize = 16;

/// How often it is said that there is no address: a flood must not fill a log.
const EXHAUSTED_AGAIN: Duration = Duration::from_secs(60);

#[derive(Clone, Debug)]
pub(crate) struct Server {
    leases: Leases,
    /// When it may be said again that there is no address.
    exhausted_again: Time,
    drain: Drain,
    unknown_relays: BTreeSet<Ipv4Addr>,
}

impl Server {
    pub(crate) fn new(now: Time, config: &Config, leases: impl IntoIterator<Item = Lease>) -> Self {
        let mut table = Leases::new(config);
        leases.into_iter().for_each(|lease| table.restore(now, lease));
        Self {
            leases: table,
            exhausted_again: Time::ZERO,
            drain: Drain::default(),
            unknown_relays: BTreeSet::new(),
        }
    }

    /// Goes on with another configuration.
    pub(crate) fn configure(&mut self, config: &Config) {
        self.leases = self.leases.reconfigured(config);
        self.exhausted_again = Time::ZERO;
        self.unknown_relays.clear();
    }

    pub(crate) fn leases(&self) -> &Leases {
        &self.leases
    }

    /// The pool as it is being emptied, if that was said lately.
    pub(crate) fn drained(&self, now: Time) -> Option<Event> {
        self.drain.said(now)
    }

    /// A machine was seen to use its address.
    pub(crate) fn used(&mut self, mac: Mac) {
        self.leases.used(mac);
    }

    /// Somebody answers at an address that was declined, or nobody does.
    pub(crate) fn looked(
        &mut self,
        now: Time,
        address: Ipv4Addr,
        user: Option<Mac>,
        out: &mut VecDeque<Output>,
    ) {
        match (self.leases.looked(now, address, user), user) {
            (Looked::Conflict { mac }, Some(user)) => {
                out.push_back(Output::Forget(address));
                let is_reserved = self.leases.is_reserved_for(mac, address);
                out.push_back(Output::Event(Event::Conflict { mac, address, user, is_reserved }));
            }
            (Looked::Unused, _) => out.push_back(Output::Forget(address)),
            _ => {}
        }
    }

    /// A request that came to port 67.
    pub(crate) fn handle(
        &mut self,
        now: Time,
        config: &Config,
        ask: &Message,
        out: &mut VecDeque<Output>,
    ) {
        let Some(subnet) = config.subnet_of(ask.giaddr) else {
            if self.unknown_relays.len() < UNKNOWN_RELAYS_MAX
                && self.unknown_relays.insert(ask.giaddr)
            {
                out.push_back(Output::Event(Event::UnknownRelay(ask.giaddr)));
            }
            return;
        };
        let mut turn = Turn { now, config, ask, asker: Asker::of(ask), subnet, out };
        match ask.kind {
            MessageType::Discover => self.discover(&mut turn),
            MessageType::Request => self.request(&mut turn),
            MessageType::Inform => turn.inform(self.leases.hostname(ask.mac)),
            MessageType::Decline => self.decline(&mut turn),
            MessageType::Release => self.release(&mut turn),
            _ => {}
        }
    }

    fn discover(&mut self, turn: &mut Turn<'_>) {
        let Turn { now, ask, subnet, .. } = *turn;
        let wanted = ask.address(code::REQUESTED_ADDRESS);
        let offer = match self.leases.offer(now, ask.mac, wanted, subnet) {
            Ok(offer) => offer,
            Err(why) => return self.exhausted(turn, why),
        };
        let address = offer.address;
        if offer.is_new && !self.leases.is_named(ask.mac) {
            let pool = self.leases.pool();
            self.drain.took(now, pool).into_iter().for_each(|event| turn.event(event));
        }
        let time = self.leases.term(now, ask.mac, address, lease_time(turn.config, ask));
        turn.answer(MessageType::Offer, Some((address, time)), self.leases.hostname(ask.mac));
        if let Some(displaced) = offer.displaced {
            turn.event(Event::Displaced { mac: displaced, address, by: ask.mac });
        }
        turn.event(Event::Offered { mac: ask.mac, address: Some(address) });
    }

    fn exhausted(&mut self, turn: &mut Turn<'_>, why: NoAddress) {
        if turn.now >= self.exhausted_again {
            self.exhausted_again = turn.now + EXHAUSTED_AGAIN;
            let (subnet, mac) = (turn.subnet, turn.ask.mac);
            let pool = self.leases.pool();
            turn.event(Event::Exhausted { subnet, mac, why, pool });
        }
    }

    /// RFC 2131 section 4.3.2: what a request means depends on what is filled in.
    fn request(&mut self, turn: &mut Turn<'_>) {
        let ask = turn.ask;
        if ask.address(code::SERVER_ID).is_some_and(|chosen| chosen != turn.config.address) {
            self.leases.withdraw(ask.mac);
            return;
        }
        // Selecting and rebooting name the address in option 50, renewing and rebinding have it.
        let requested = ask.address(code::REQUESTED_ADDRESS);
        let Some(address) =
            requested.or_else(|| Some(ask.ciaddr).filter(|address| !address.is_unspecified()))
        else {
            return;
        };
        let time = self.leases.term(turn.now, ask.mac, address, lease_time(turn.config, ask));
        match self.leases.give(turn.now, Who::of(ask), address, turn.subnet, time) {
            Ok(lease) => {
                turn.out.push_back(Output::Store(lease));
                turn.event(Event::Leased { mac: ask.mac, address, asker: turn.asker });
                let hostname = self.leases.hostname(ask.mac);
                turn.answer(MessageType::Ack, Some((address, time)), hostname);
            }
            Err(reason) => turn.refuse(address, reason),
        }
    }

    fn decline(&mut self, turn: &mut Turn<'_>) {
        let mac = turn.ask.mac;
        let is_ours = turn.ask.address(code::SERVER_ID) == Some(turn.config.address);
        let Some(address) = turn.ask.address(code::REQUESTED_ADDRESS).filter(|_| is_ours) else {
            return;
        };
        let can_look = turn.config.subnet.contains(address) && turn.ask.giaddr.is_unspecified();
        match self.leases.decline(turn.now, Who::of(turn.ask), address, can_look) {
            Decline::NotBelieved => turn.event(Event::Disbelieved { mac, address }),
            Decline::Look => {
                turn.event(Event::Declined { mac, address });
                turn.out.push_back(Output::Look(address));
            }
            Decline::LeftAlone => {
                turn.event(Event::Declined { mac, address });
                turn.out.push_back(Output::Forget(address));
            }
        }
    }

    fn release(&mut self, turn: &mut Turn<'_>) {
        let (mac, address) = (turn.ask.mac, turn.ask.ciaddr);
        if turn.ask.address(code::SERVER_ID).is_some_and(|id| id != turn.config.address) {
            return;
        }
        if let Some(lease) = self.leases.release(turn.now, Who::of(turn.ask), address) {
            turn.out.push_back(Output::Store(lease));
            turn.event(Event::Released { mac, address });
        }
    }
}

/// One request and all that is known of it.
struct Turn<'a> {
    now: Time,
    config: &'a Config,
    ask: &'a Message,
    asker: Asker,
    subnet: Subnet,
    out: &'a mut VecDeque<Output>,
}

impl Turn<'_> {
    fn event(&mut self, event: Event) {
        self.out.push_back(Output::Event(event));
    }

    /// An offer or an acknowledgement, of an address or (to an `inform`) of everything but.
    fn answer(
        &mut self,
        kind: MessageType,
        given: Option<(Ipv4Addr, Duration)>,
        hostname: Option<&str>,
    ) {
        let Self { config, ask, asker, subnet, .. } = *self;
        let mut draft = Draft::answer(ask, kind);
        draft.address(code::SERVER_ID, config.address);
        draft.address(code::SUBNET_MASK, subnet.mask());
        // A relay agent is a router of its network.
        let relay = Some(ask.giaddr).filter(|relay| !relay.is_unspecified());
        let router =
            config.router(subnet, given.map_or(ask.ciaddr, |(address, _)| address)).or(relay);
        if let Some(router) = router {
            draft.address(code::ROUTER, router);
        }
        draft.addresses(code::DNS, &config.dns);
        draft.option(code::DOMAIN, config.domain.as_deref().unwrap_or_default().as_bytes());
        draft.option(code::HOSTNAME, hostname.unwrap_or_default().as_bytes());
        if let Some((address, time)) = given {
            draft.header().set_yiaddr(address);
            draft.number(code::LEASE_TIME, seconds(time));
            // RFC 2131 section 4.4.5.
            draft.number(code::RENEWAL, seconds(time / 2));
            draft.number(code::REBINDING, seconds(time * 7 / 8));
        }
        if kind == MessageType::Ack {
            draft.header().set_ciaddr(ask.ciaddr);
        }
        let file = add_boot(&mut draft, ask, asker, config, Role::Server);
        self.out.extend(send(draft, Port::Server, destination(ask, kind)));
        match file {
            Some(file) if kind == MessageType::Ack => self.event(Event::BootProgram {
                mac: ask.mac,
                asker,
                file: file.as_str().to_owned(),
            }),
            None if kind == MessageType::Offer && asker.boots() => {
                self.event(Event::NoBootProgram { mac: ask.mac, asker });
            }
            _ => {}
        }
    }

    /// RFC 2131 section 4.3.5. Without an address there is nobody to answer to.
    fn inform(&mut self, hostname: Option<&str>) {
        if !self.ask.ciaddr.is_unspecified() {
            self.answer(MessageType::Ack, None, hostname);
        }
    }

    fn refuse(&mut self, address: Ipv4Addr, reason: Refusal) {
        let ask = self.ask;
        let mut draft = Draft::answer(ask, MessageType::Nak);
        draft.address(code::SERVER_ID, self.config.address);
        draft.option(code::TEXT, reason.to_string().as_bytes());
        if !ask.giaddr.is_unspecified() {
            // RFC 2131 section 4.3.2: so that the relay agent broadcasts it.
            let flags = draft.header().flags().set_broadcast();
            draft.header().set_flags(flags);
        }
        self.out.extend(send(draft, Port::Server, destination(ask, MessageType::Nak)));
        self.event(Event::Refused { mac: ask.mac, address, reason });
    }
}

/// What was asked for (option 51), at most what is configured.
fn lease_time(config: &Config, ask: &Message) -> Duration {
    let wanted = ask.option(code::LEASE_TIME).and_then(|bytes| bytes.try_into().ok());
    let wanted = wanted.map(|bytes| Duration::from_secs(u32::from_be_bytes(bytes).into()));
    wanted.map_or(config.lease_time, |wanted| wanted.max(LEASE_TIME_MIN).min(config.lease_time))
}

/// All ones would be for ever (RFC 2131 section 3.3).
fn seconds(time: Duration) -> u32 {
    u32::try_from(time.as_secs()).unwrap_or(u32::MAX).min(u32::MAX - 1)
}
