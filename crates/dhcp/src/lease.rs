//! Who has which address, and whom to give a new one.
//!
//! **By Ethernet address.** On its way from power-on to its system one machine asks as PXE ROM, as
//! iPXE, as our agent and as an installed system, each with another client identifier (option 61).
//! RFC 2131 would have them be four clients with four addresses; here they are one node with one.
//!
//! **Stable.** A machine that comes back gets its old address while nobody else needed it. A new one
//! is given the first free address from a place that its Ethernet address decides, so that it gets
//! the same one again even from a server that has lost its memory. When none is free, a lease that
//! has ended is taken.
//!
//! **Named first.** Anybody can invent Ethernet addresses. So a machine that the lab does not name is
//! given its first lease for [`FIRST_LEASE`] only, and the whole time once it has shown that it uses
//! the address; and one that the lab names takes a stranger's address when no other is left.
//!
//! Every address is in exactly one place: free, held by somebody until some time, or nobody's
//! because a machine found somebody else using it.

mod declines;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

pub use declines::{
    DECLINE_TIME, DECLINE_WITHIN, DECLINERS_MAX, DECLINES_MAX, DOUBT_TIME, DOUBTS_MAX,
};
pub(crate) use declines::{Decline, Looked};

use crate::config::{Config, Range, Reservation, Subnet};
use crate::mac::Mac;
use crate::message::{Message, code};
use crate::time::Time;

/// How long an offer is held. A ROM chooses within the 4 or 8 s that it collects offers for; if
/// it needs longer its address is taken only by who finds no other, and it begins anew.
pub const OFFER_TIME: Duration = Duration::from_secs(10);

/// How long a stranger has an address before it was seen to use it. Long enough to boot (a ROM, a
/// boot program and a system each ask anew, and what is fetched meanwhile counts), and twice what
/// a system waits before it renews; short enough that invented machines must be kept alive every few
/// minutes, which is seen.
pub const FIRST_LEASE: Duration = Duration::from_secs(5 * 60);

/// One of so many addresses of the ranges at most is kept for nodes of the lab that have none yet: it is
/// not given to strangers that were not seen to use one. Small, as a room of new nodes is a room of
/// strangers, and a node of the lab takes more than that if it has to.
pub const KEPT_ONE_OF: usize = 64;

/// What must survive a restart: who was given which address until when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Whose.
    pub mac: Mac,
    /// What.
    pub address: Ipv4Addr,
    /// When it ends. A lease that has ended still says which address its machine would get again.
    pub until: Time,
}

/// Why an address is not given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Somebody else has it.
    #[error("it is given to {0}")]
    Held(Mac),
    /// A machine found somebody else using it.
    #[error("another machine was found using it")]
    Declined,
    /// It is reserved for another machine.
    #[error("it is reserved for another machine")]
    Reserved,
    /// This machine has another one reserved.
    #[error("{0} is reserved for this machine")]
    HasReserved(Ipv4Addr),
    /// It is in no range of the network.
    #[error("it is not in a range of this network")]
    NotOurs,
    /// What is left is not for strangers.
    #[error("the last addresses are kept for nodes of the lab")]
    Kept,
}

/// Why there is no address for a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoAddress {
    /// All are given.
    #[error("all addresses are given")]
    Taken,
    /// The few that are left are not for strangers.
    #[error("the last addresses are kept for nodes of the lab")]
    Kept,
    /// The one that is reserved for it is used by another, and all others are given.
    #[error("{0}, which is reserved for it, is used by another machine, and all others are given")]
    Conflict(Ipv4Addr),
}

/// Who asks: by its Ethernet address, and under which client identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Who {
    pub(crate) mac: Mac,
    /// A hash of option 61: whole ones would let strangers choose how much is remembered.
    pub(crate) client: u64,
}

impl Who {
    pub(crate) fn of(message: &Message) -> Self {
        let client = hash(message.option(code::CLIENT_ID).unwrap_or_default());
        Self { mac: message.mac, client }
    }
}

/// An address for a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Offer {
    pub(crate) address: Ipv4Addr,
    /// Whether the machine held nothing before.
    pub(crate) is_new: bool,
    /// The stranger whose lease had to go.
    pub(crate) displaced: Option<Mac>,
}

/// How the addresses of all ranges are used. A lease that has ended counts as one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pool {
    /// All of them.
    pub address_count: usize,
    /// Nobody has or had them.
    pub free_count: usize,
    /// Offered or given to strangers that were not seen to use them.
    pub unconfirmed_count: usize,
    /// Given to strangers that use them.
    pub confirmed_count: usize,
    /// Offered or given to nodes of the lab.
    pub named_count: usize,
    /// Used by somebody who does not have them of this server, as others found.
    pub declined_count: usize,
}

/// Who must give way, first to last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// An offer to a stranger, until it is asked for.
    Offered,
    /// A stranger's first lease.
    Unconfirmed,
    /// Nobody's for a while.
    Declined,
    /// A stranger's that was seen to use it.
    Confirmed,
    /// A node's of the lab.
    Named,
}

impl Rank {
    const ALL: [Self; 5] =
        [Self::Offered, Self::Unconfirmed, Self::Declined, Self::Confirmed, Self::Named];
}

#[derive(Clone, Copy, Debug)]
struct Holding {
    address: Ipv4Addr,
    /// A lease, or one that has ended; else an offer.
    is_given: bool,
    /// Its machine was seen to use it.
    is_confirmed: bool,
    until: Time,
    /// When it was first offered.
    since: Time,
    /// When it was last acknowledged, and under which client identifier (none: before a restart).
    acked: Time,
    client: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
enum Holder {
    Machine(Mac),
    /// Somebody else uses it.
    Declined {
        until: Time,
    },
    /// A machine says that somebody else uses it, and this server looks.
    Doubted {
        mac: Mac,
        was: Holding,
        until: Time,
    },
}

impl Holder {
    /// Until when it is nobody's, if it is.
    const fn left_alone(self) -> Option<Time> {
        match self {
            Self::Machine(_) => None,
            Self::Declined { until } | Self::Doubted { until, .. } => Some(until),
        }
    }
}

/// All addresses of a server. Bounded by the configuration: [`crate::config::ADDRESSES_MAX`] and
/// [`crate::config::RESERVATIONS_MAX`]; strangers only move addresses from one place to another, and
/// nothing that is kept of them has a length that they choose.
#[derive(Clone, Debug)]
pub(crate) struct Leases {
    ranges: Vec<Range>,
    reserved: BTreeMap<Mac, Reservation>,
    reserved_addresses: BTreeMap<Ipv4Addr, Mac>,
    /// Addresses of the ranges that can be given to anybody.
    address_count: usize,
    free: BTreeSet<Ipv4Addr>,
    holdings: BTreeMap<Mac, Holding>,
    holders: BTreeMap<Ipv4Addr, Holder>,
    /// Held addresses that can be given to anybody, in the order in which they are taken away.
    order: BTreeMap<Rank, BTreeSet<(Time, Ipv4Addr)>>,
    decliners: declines::Decliners,
}

impl Leases {
    /// All free, but for the server's own address and reservations.
    pub(crate) fn new(config: &Config) -> Self {
        let reserved: BTreeMap<_, _> =
            config.reservations.iter().map(|one| (one.mac, one.clone())).collect();
        let reserved_addresses: BTreeMap<_, _> =
            reserved.values().filter_map(|one| Some((one.address?, one.mac))).collect();
        let mut free = BTreeSet::new();
        for range in &config.ranges {
            let all = u32::from(range.first)..=u32::from(range.last);
            let usable = |address: &Ipv4Addr| {
                *address != config.address
                    && Some(*address) != range.router
                    && !reserved_addresses.contains_key(address)
            };
            free.extend(all.map(Ipv4Addr::from).filter(usable));
        }
        Self {
            ranges: config.ranges.clone(),
            reserved,
            reserved_addresses,
            address_count: free.len(),
            free,
            holdings: BTreeMap::new(),
            holders: BTreeMap::new(),
            order: Rank::ALL.map(|rank| (rank, BTreeSet::new())).into(),
            decliners: declines::Decliners::default(),
        }
    }

    /// Takes back a lease of before a restart. One that no longer fits is forgotten. Who has it for
    /// longer than a first lease was seen to use it; of any other nothing is known yet, as on its first day.
    pub(crate) fn restore(&mut self, now: Time, lease: Lease) {
        let Lease { mac, address, until } = lease;
        let is_confirmed = until > now + FIRST_LEASE;
        let was = Holding {
            address,
            is_given: true,
            is_confirmed,
            until,
            since: now,
            acked: Time::ZERO,
            client: None,
        };
        self.take_over(mac, was);
    }

    /// The same with another configuration: what still fits stays as it is.
    pub(crate) fn reconfigured(&self, config: &Config) -> Self {
        let mut table = Self::new(config);
        // First, as they say who may have another address than the one that is reserved for it.
        for (address, holder) in &self.holders {
            let is_known =
                table.free.contains(address) || table.reserved_addresses.contains_key(address);
            if is_known && holder.left_alone().is_some() {
                table.leave_alone(*address, *holder);
            }
        }
        for (mac, holding) in self.holdings.iter().filter(|(_, holding)| holding.is_given) {
            table.take_over(*mac, *holding);
        }
        table.decliners = self.decliners.clone();
        table
    }

    fn take_over(&mut self, mac: Mac, holding: Holding) {
        let known = self.holdings.contains_key(&mac) || self.holders.contains_key(&holding.address);
        if !known && self.may_hold(mac, holding.address) {
            self.hold(mac, holding);
        }
    }

    /// All leases, also those that have ended.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Lease> + '_ {
        self.holdings.iter().filter(|(_, holding)| holding.is_given).map(|(&mac, holding)| Lease {
            mac,
            address: holding.address,
            until: holding.until,
        })
    }

    pub(crate) fn hostname(&self, mac: Mac) -> Option<&str> {
        self.reserved.get(&mac)?.hostname.as_deref()
    }

    /// Whether the lab names this machine.
    pub(crate) fn is_named(&self, mac: Mac) -> bool {
        self.reserved.contains_key(&mac)
    }

    pub(crate) fn is_reserved_for(&self, mac: Mac, address: Ipv4Addr) -> bool {
        self.reserved_addresses.get(&address) == Some(&mac)
    }

    pub(crate) fn pool(&self) -> Pool {
        let count = |rank| self.order[&rank].len();
        Pool {
            address_count: self.address_count,
            free_count: self.free.len(),
            unconfirmed_count: count(Rank::Offered) + count(Rank::Unconfirmed),
            confirmed_count: count(Rank::Confirmed),
            named_count: count(Rank::Named),
            declined_count: count(Rank::Declined),
        }
    }

    /// Whether a stranger that has nothing yet must leave the free addresses to others.
    fn is_kept(&self, mac: Mac) -> bool {
        let of_lab = self.reserved.len() - self.reserved_addresses.len();
        let without = of_lab.saturating_sub(self.order[&Rank::Named].len());
        let share = without.min(self.address_count / KEPT_ONE_OF);
        !self.is_named(mac) && share > 0 && self.free.len() <= share
    }

    /// How long a machine may have an address for, of the `whole` time that leases last.
    pub(crate) fn term(&self, now: Time, mac: Mac, address: Ipv4Addr, whole: Duration) -> Duration {
        let held = self.holdings.get(&mac).filter(|held| held.address == address);
        match self.is_named(mac) || held.is_some_and(|held| held.is_used(now)) {
            true => whole,
            false => whole.min(FIRST_LEASE),
        }
    }

    /// This server has seen the machine use its address: it fetched something.
    pub(crate) fn used(&mut self, mac: Mac) {
        if let Some(held) = self.holdings.get(&mac).copied().filter(|held| held.is_given) {
            self.hold(mac, Holding { is_confirmed: true, ..held });
        }
    }

    /// An address for a machine in `subnet`, held for [`OFFER_TIME`]. The order is that of RFC 2131
    /// section 4.3.1: what it has, had, wants, and then any.
    pub(crate) fn offer(
        &mut self,
        now: Time,
        mac: Mac,
        wanted: Option<Ipv4Addr>,
        subnet: Subnet,
    ) -> Result<Offer, NoAddress> {
        let until = now + OFFER_TIME;
        let reserved = self.reserved_in(mac, subnet);
        let is_new = !self.holdings.contains_key(&mac);
        if let Some(held) = self.holdings.get(&mac).copied() {
            let is_substitute = reserved.is_some_and(|reserved| {
                reserved != held.address && self.is_grantable(now, mac, reserved)
            });
            if self.fits(mac, held.address, subnet) && !is_substitute {
                // Not to be taken by another while this machine makes up its mind.
                self.hold(mac, Holding { until: held.until.max(until), ..held });
                return Ok(Offer { address: held.address, is_new, displaced: None });
            }
            self.let_go(mac);
        }
        let (address, displaced) = match reserved {
            Some(address) if self.is_grantable(now, mac, address) => (address, None),
            _ => self.find(now, mac, wanted, subnet).map_err(|why| match reserved {
                Some(address) => NoAddress::Conflict(address),
                None => why,
            })?,
        };
        self.hold(mac, Holding::offered(address, now, until));
        Ok(Offer { address, is_new, displaced })
    }

    /// Any address that a machine can have, and who had to give way for it.
    fn find(
        &mut self,
        now: Time,
        mac: Mac,
        wanted: Option<Ipv4Addr>,
        subnet: Subnet,
    ) -> Result<(Ipv4Addr, Option<Mac>), NoAddress> {
        let is_kept = self.is_kept(mac);
        let free = || {
            wanted
                .filter(|address| self.free.contains(address) && subnet.contains(*address))
                .or_else(|| self.first_free(mac, subnet))
        };
        if let Some(address) = (!is_kept).then(free).flatten() {
            return Ok((address, None));
        }
        let ended = Rank::ALL.iter().find_map(|rank| self.earliest(*rank, now, subnet));
        if let Some(address) = ended {
            self.empty(address);
            return Ok((address, None));
        }
        if !self.is_named(mac) {
            let is_one_left = is_kept && !self.free.is_empty();
            return Err(if is_one_left { NoAddress::Kept } else { NoAddress::Taken });
        }
        let address = self.stranger_s(subnet).ok_or(NoAddress::Taken)?;
        let displaced = match self.holders.get(&address) {
            Some(Holder::Machine(holder)) => Some(*holder),
            _ => None,
        };
        let displaced =
            displaced.filter(|holder| self.holdings.get(holder).is_some_and(|held| held.is_given));
        self.empty(address);
        Ok((address, displaced))
    }

    /// The address that a stranger misses least: one that was only offered; one that nobody has
    /// shown to use, silent for longest; the one that was given last.
    fn stranger_s(&self, subnet: Subnet) -> Option<Ipv4Addr> {
        let unused = [Rank::Offered, Rank::Unconfirmed];
        unused.iter().find_map(|rank| self.earliest(*rank, Time::NEVER, subnet)).or_else(|| {
            let since = |address: &Ipv4Addr| match self.holders.get(address) {
                Some(Holder::Machine(mac)) => self.holdings.get(mac).map(|held| held.since),
                _ => None,
            };
            self.order[&Rank::Confirmed]
                .iter()
                .map(|(_, address)| *address)
                .filter(|address| subnet.contains(*address))
                .max_by_key(since)
        })
    }

    /// Gives the address that a machine asks for, for `time`.
    pub(crate) fn give(
        &mut self,
        now: Time,
        who: Who,
        address: Ipv4Addr,
        subnet: Subnet,
        time: Duration,
    ) -> Result<Lease, Refusal> {
        let Who { mac, client } = who;
        if !self.fits(mac, address, subnet) {
            return Err(self.why_not(mac, address));
        }
        let before = match self.holders.get(&address).copied() {
            Some(Holder::Machine(holder)) if holder != mac => return Err(Refusal::Held(holder)),
            Some(Holder::Machine(_)) => self.holdings.get(&mac).copied(),
            // It says that it uses the address: nobody else does.
            Some(Holder::Doubted { mac: holder, was, .. }) if holder == mac => Some(was),
            Some(holder) if holder.left_alone().is_some_and(|until| until > now) => {
                return Err(Refusal::Declined);
            }
            _ if self.is_kept(mac) && !self.holdings.contains_key(&mac) => {
                return Err(Refusal::Kept);
            }
            _ => None,
        };
        // What was an offer, or nothing, becomes a lease now.
        let before = before
            .filter(|before| before.is_given)
            .unwrap_or_else(|| Holding::offered(address, now, now));
        let (is_confirmed, until) = (before.is_used(now), now + time);
        let client = Some(client);
        let given = Holding { is_given: true, is_confirmed, until, acked: now, client, ..before };
        self.hold(mac, given);
        Ok(Lease { mac, address, until })
    }

    /// The machine has chosen another server's offer.
    pub(crate) fn withdraw(&mut self, mac: Mac) {
        if self.holdings.get(&mac).is_some_and(|held| !held.is_given) {
            self.let_go(mac);
        }
    }

    /// The machine gives its address back; the lease ends now, and is remembered. Only who has the
    /// lease can, under the name that it has it.
    pub(crate) fn release(&mut self, now: Time, who: Who, address: Ipv4Addr) -> Option<Lease> {
        let Who { mac, .. } = who;
        let held = self.held_by(who, address)?;
        if !held.is_given {
            self.let_go(mac);
            return None;
        }
        self.hold(mac, Holding { until: now.min(held.until), ..held });
        Some(Lease { mac, address, until: now.min(held.until) })
    }

    /// What a machine holds, if it is this address under this client identifier.
    fn held_by(&self, who: Who, address: Ipv4Addr) -> Option<Holding> {
        let held = self.holdings.get(&who.mac).copied()?;
        let is_its = held.client.is_none_or(|client| client == who.client);
        (held.address == address && is_its).then_some(held)
    }

    /// Whether this machine could be given this address at all.
    fn may_hold(&self, mac: Mac, address: Ipv4Addr) -> bool {
        let is_left_alone =
            |address| self.holders.get(&address).and_then(|one| one.left_alone()).is_some();
        match self.reserved.get(&mac).and_then(|one| one.address) {
            Some(reserved) if !is_left_alone(reserved) => reserved == address,
            _ => {
                self.in_a_range(address)
                    && self.reserved_addresses.get(&address).is_none_or(|owner| *owner == mac)
            }
        }
    }

    fn in_a_range(&self, address: Ipv4Addr) -> bool {
        self.ranges.iter().any(|range| (range.first..=range.last).contains(&address))
    }

    /// What is reserved for a machine in a network. One whose reservation is for another network (a
    /// laptop that was carried over) is given any address there.
    fn reserved_in(&self, mac: Mac, subnet: Subnet) -> Option<Ipv4Addr> {
        let address = self.reserved.get(&mac)?.address?;
        subnet.contains(address).then_some(address)
    }

    /// Whether a machine may have an address in a network: the reserved one, or, while somebody else
    /// uses that, the one that it was given in its place.
    fn fits(&self, mac: Mac, address: Ipv4Addr, subnet: Subnet) -> bool {
        if let Some(reserved) = self.reserved_in(mac, subnet) {
            let has_other = || self.holdings.get(&mac).is_some_and(|held| held.address == address);
            return reserved == address || has_other();
        }
        let in_range = self
            .ranges
            .iter()
            .any(|range| range.subnet == subnet && (range.first..=range.last).contains(&address));
        in_range
            && !self.reserved_addresses.contains_key(&address)
            && (self.free.contains(&address) || self.holders.contains_key(&address))
    }

    fn why_not(&self, mac: Mac, address: Ipv4Addr) -> Refusal {
        match self.reserved.get(&mac).and_then(|one| one.address) {
            Some(reserved) => Refusal::HasReserved(reserved),
            None if self.reserved_addresses.contains_key(&address) => Refusal::Reserved,
            None => Refusal::NotOurs,
        }
    }

    /// Whether nobody else has an address now.
    fn is_grantable(&self, now: Time, mac: Mac, address: Ipv4Addr) -> bool {
        match self.holders.get(&address) {
            None => true,
            Some(Holder::Machine(holder)) => *holder == mac,
            Some(holder) => holder.left_alone().is_none_or(|until| until <= now),
        }
    }

    /// The first free address from a machine's place on, around all ranges of the network.
    fn first_free(&self, mac: Mac, subnet: Subnet) -> Option<Ipv4Addr> {
        let ranges: Vec<&Range> =
            self.ranges.iter().filter(|range| range.subnet == subnet).collect();
        let len = |range: &Range| u64::from(u32::from(range.last) - u32::from(range.first)) + 1;
        let total: u64 = ranges.iter().map(|range| len(range)).sum();
        let mut place = hash(&mac.0).checked_rem(total)?;
        let mut at = 0;
        while place >= len(ranges[at]) {
            place -= len(ranges[at]);
            at += 1;
        }
        let start = Ipv4Addr::from(u32::from(ranges[at].first) + u32::try_from(place).ok()?);
        let all = |range: &&Range| (range.first, range.last);
        std::iter::once((start, ranges[at].last))
            .chain(ranges[at + 1..].iter().map(all))
            .chain(ranges[..=at].iter().map(all))
            .find_map(|(first, last)| self.free.range(first..=last).next().copied())
    }

    /// The address of a rank whose time is over first, and not after `now`.
    fn earliest(&self, rank: Rank, now: Time, subnet: Subnet) -> Option<Ipv4Addr> {
        let ended = self.order[&rank].range(..=(now, Ipv4Addr::BROADCAST));
        ended.map(|(_, address)| *address).find(|address| subnet.contains(*address))
    }

    fn rank(&self, mac: Mac, holding: &Holding) -> Rank {
        match (self.is_named(mac), holding.is_given, holding.is_confirmed) {
            (true, _, _) => Rank::Named,
            (false, false, _) => Rank::Offered,
            (false, true, false) => Rank::Unconfirmed,
            (false, true, true) => Rank::Confirmed,
        }
    }

    /// Moves an address, free or nobody's, to a machine that holds none, or keeps it there as
    /// something else.
    fn hold(&mut self, mac: Mac, holding: Holding) {
        self.let_go(mac);
        self.empty(holding.address);
        self.free.remove(&holding.address);
        self.holders.insert(holding.address, Holder::Machine(mac));
        let rank = self.rank(mac, &holding);
        self.put_in_order(rank, holding.until, holding.address);
        self.holdings.insert(mac, holding);
    }

    /// Moves what a machine holds to where it belongs when it is nobody's.
    fn let_go(&mut self, mac: Mac) {
        if let Some(held) = self.holdings.remove(&mac) {
            let rank = self.rank(mac, &held);
            self.take_from_order(rank, held.until, held.address);
            self.vacate(held.address);
        }
    }

    /// Takes an address from whoever holds it.
    fn empty(&mut self, address: Ipv4Addr) {
        match self.holders.get(&address).copied() {
            Some(Holder::Machine(mac)) => self.let_go(mac),
            Some(Holder::Declined { until } | Holder::Doubted { until, .. }) => {
                self.take_from_order(Rank::Declined, until, address);
                self.vacate(address);
            }
            None => {}
        }
    }

    /// Makes an address nobody's for a while.
    fn leave_alone(&mut self, address: Ipv4Addr, holder: Holder) {
        self.empty(address);
        self.free.remove(&address);
        self.holders.insert(address, holder);
        self.put_in_order(Rank::Declined, holder.left_alone().unwrap_or_default(), address);
    }

    fn vacate(&mut self, address: Ipv4Addr) {
        self.holders.remove(&address);
        if self.in_a_range(address) && !self.reserved_addresses.contains_key(&address) {
            self.free.insert(address);
        }
    }

    /// What is reserved is nobody's to take.
    fn put_in_order(&mut self, rank: Rank, until: Time, address: Ipv4Addr) {
        if !self.reserved_addresses.contains_key(&address) {
            self.order.entry(rank).or_default().insert((until, address));
        }
    }

    fn take_from_order(&mut self, rank: Rank, until: Time, address: Ipv4Addr) {
        self.order.entry(rank).or_default().remove(&(until, address));
    }
}

impl Holding {
    const fn offered(address: Ipv4Addr, since: Time, until: Time) -> Self {
        Self {
            address,
            is_given: false,
            is_confirmed: false,
            until,
            since,
            acked: Time::ZERO,
            client: None,
        }
    }

    /// Whether its machine was seen to use it. Who uses an address renews it after half of its lease
    /// or, switched on again, asks for it; who only invents machines has to come back for each.
    fn is_used(&self, now: Time) -> bool {
        self.is_confirmed || (self.is_given && now.since(self.since) >= FIRST_LEASE / 2)
    }
}

/// FNV-1a: spreads addresses that differ in their last byte over a whole range, and is the same in
/// every release.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
