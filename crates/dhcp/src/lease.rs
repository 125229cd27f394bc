//! Who has which address, and whom to give a new one.
//!
//! **By Ethernet address.** On its way from power-on to its system one machine asks as PXE ROM, as
//! iPXE, as our agent and as an installed system, each with another client identifier (option 61).
//! RFC 2131 would have them be four clients with four addresses; here they are one node with one.
//!
//! **Stable.** A machine that comes back gets its old address while nobody else needed it. A new one
//! is given the first free address from a place that its Ethernet address decides, so that it gets
//! the same one again even from a server that has lost its memory. When none is free, the lease that
//! ended first is taken.
//!
//! Every address is in exactly one place: free, held by somebody until some time, or nobody's
//! because a machine found somebody else using it.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use crate::config::{Config, Range, Reservation, Subnet};
use crate::mac::Mac;
use crate::time::Time;

/// How long an offer is held. PXE ROMs collect offers for up to 16 s before they choose one.
pub const OFFER_TIME: Duration = Duration::from_secs(30);

/// How long an address that somebody else was found to use is left alone.
pub const DECLINE_TIME: Duration = Duration::from_secs(10 * 60);

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
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Until it is asked for.
    Offered,
    /// A lease, or one that has ended.
    Given,
}

#[derive(Clone, Copy, Debug)]
struct Holding {
    address: Ipv4Addr,
    state: State,
    until: Time,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holder {
    Machine(Mac),
    Declined { until: Time },
}

/// All addresses of a server. Bounded by the configuration: [`crate::config::ADDRESSES_MAX`] and
/// [`crate::config::RESERVATIONS_MAX`]; strangers only move addresses from one place to another.
#[derive(Clone, Debug)]
pub(crate) struct Leases {
    ranges: Vec<Range>,
    reserved: BTreeMap<Mac, Reservation>,
    reserved_addresses: BTreeMap<Ipv4Addr, Mac>,
    free: BTreeSet<Ipv4Addr>,
    holdings: BTreeMap<Mac, Holding>,
    holders: BTreeMap<Ipv4Addr, Holder>,
    /// When each held address of a range can be taken away, earliest first.
    ends: BTreeSet<(Time, Ipv4Addr)>,
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
            free,
            holdings: BTreeMap::new(),
            holders: BTreeMap::new(),
            ends: BTreeSet::new(),
        }
    }

    /// Takes back a lease of before a restart or a change of configuration. One that no longer fits
    /// is forgotten.
    pub(crate) fn restore(&mut self, lease: Lease) {
        let Lease { mac, address, until } = lease;
        let known = self.holdings.contains_key(&mac) || self.holders.contains_key(&address);
        if !known && self.may_hold(mac, address) {
            self.hold(mac, Holding { address, state: State::Given, until });
        }
    }

    /// All leases, also those that have ended.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Lease> + '_ {
        self.holdings
            .iter()
            .filter(|(_, holding)| holding.state == State::Given)
            .map(|(&mac, holding)| Lease { mac, address: holding.address, until: holding.until })
    }

    pub(crate) fn hostname(&self, mac: Mac) -> Option<&str> {
        self.reserved.get(&mac)?.hostname.as_deref()
    }

    pub(crate) fn free_count(&self) -> usize {
        self.free.len()
    }

    /// An address for a machine in `subnet`, held for [`OFFER_TIME`]; none if all are taken. The
    /// order is that of RFC 2131 section 4.3.1: what it has, had, wants, and then any.
    pub(crate) fn offer(
        &mut self,
        now: Time,
        mac: Mac,
        wanted: Option<Ipv4Addr>,
        subnet: Subnet,
    ) -> Option<Ipv4Addr> {
        let until = now + OFFER_TIME;
        if let Some(held) = self.holdings.get(&mac).copied() {
            if self.fits(mac, held.address, subnet) {
                // Not to be taken by another while this machine makes up its mind.
                self.hold(mac, Holding { until: held.until.max(until), ..held });
                return Some(held.address);
            }
            self.let_go(mac);
        }
        let reserved = self.reserved.get(&mac).and_then(|one| one.address);
        let address = match reserved.filter(|address| subnet.contains(*address)) {
            Some(address) => self.is_grantable(now, mac, address).then_some(address)?,
            None => wanted
                .filter(|address| self.free.contains(address) && subnet.contains(*address))
                .or_else(|| self.first_free(mac, subnet))
                .or_else(|| self.take_ended(now, subnet))?,
        };
        self.hold(mac, Holding { address, state: State::Offered, until });
        Some(address)
    }

    /// Gives the address that a machine asks for, until `until`.
    pub(crate) fn give(
        &mut self,
        now: Time,
        mac: Mac,
        address: Ipv4Addr,
        subnet: Subnet,
        until: Time,
    ) -> Result<Lease, Refusal> {
        if !self.fits(mac, address, subnet) {
            return Err(self.why_not(mac, address));
        }
        match self.holders.get(&address) {
            Some(Holder::Machine(holder)) if *holder == mac => {}
            Some(Holder::Machine(holder)) => return Err(Refusal::Held(*holder)),
            Some(Holder::Declined { until }) if *until > now => return Err(Refusal::Declined),
            _ => {
                self.release_declined(address);
                self.let_go(mac);
            }
        }
        self.hold(mac, Holding { address, state: State::Given, until });
        Ok(Lease { mac, address, until })
    }

    /// The machine has chosen another server's offer.
    pub(crate) fn withdraw(&mut self, mac: Mac) {
        if self.holdings.get(&mac).is_some_and(|held| held.state == State::Offered) {
            self.let_go(mac);
        }
    }

    /// The machine gives its address back; the lease ends now, and is remembered.
    pub(crate) fn release(&mut self, now: Time, mac: Mac, address: Ipv4Addr) -> Option<Lease> {
        let held = self.holdings.get(&mac).copied().filter(|held| held.address == address)?;
        if held.state == State::Offered {
            self.let_go(mac);
            return None;
        }
        self.hold(mac, Holding { until: now.min(held.until), ..held });
        Some(Lease { mac, address, until: now.min(held.until) })
    }

    /// The machine found another using its address. Whether there was a lease of it to forget.
    pub(crate) fn decline(&mut self, now: Time, mac: Mac, address: Ipv4Addr) -> bool {
        if self.holdings.get(&mac).is_none_or(|held| held.address != address) {
            return false;
        }
        self.let_go(mac);
        self.free.remove(&address);
        let until = now + DECLINE_TIME;
        self.holders.insert(address, Holder::Declined { until });
        self.ends.insert((until, address));
        true
    }

    /// Whether this machine could be given this address at all.
    fn may_hold(&self, mac: Mac, address: Ipv4Addr) -> bool {
        match self.reserved.get(&mac).and_then(|one| one.address) {
            Some(reserved) => reserved == address,
            None => {
                self.ranges.iter().any(|range| (range.first..=range.last).contains(&address))
                    && self.reserved_addresses.get(&address).is_none_or(|owner| *owner == mac)
            }
        }
    }

    /// The same in a network. A machine whose reservation is for another network (a laptop that was
    /// carried over) is given any address there.
    fn fits(&self, mac: Mac, address: Ipv4Addr, subnet: Subnet) -> bool {
        let reserved = self.reserved.get(&mac).and_then(|one| one.address);
        if reserved.is_some_and(|reserved| subnet.contains(reserved)) {
            return reserved == Some(address);
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
            Some(Holder::Declined { until }) => *until <= now,
        }
    }

    /// The first free address from a machine's place on, around all ranges of the network.
    fn first_free(&self, mac: Mac, subnet: Subnet) -> Option<Ipv4Addr> {
        let ranges: Vec<&Range> =
            self.ranges.iter().filter(|range| range.subnet == subnet).collect();
        let len = |range: &Range| u64::from(u32::from(range.last) - u32::from(range.first)) + 1;
        let total: u64 = ranges.iter().map(|range| len(range)).sum();
        let mut place = hash(mac).checked_rem(total)?;
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

    /// The address whose lease ended first, taken from whoever had it.
    fn take_ended(&mut self, now: Time, subnet: Subnet) -> Option<Ipv4Addr> {
        let ended = self.ends.range(..=(now, Ipv4Addr::BROADCAST));
        let address = ended.map(|(_, address)| *address).find(|address| {
            subnet.contains(*address) && !self.reserved_addresses.contains_key(address)
        })?;
        match self.holders.get(&address).copied() {
            Some(Holder::Machine(mac)) => self.let_go(mac),
            _ => self.release_declined(address),
        }
        Some(address)
    }

    /// Moves an address to a machine that holds none, or keeps it there with another end.
    fn hold(&mut self, mac: Mac, holding: Holding) {
        let address = holding.address;
        if let Some(before) = self.holdings.insert(mac, holding) {
            self.ends.remove(&(before.until, before.address));
        }
        self.free.remove(&address);
        self.holders.insert(address, Holder::Machine(mac));
        self.ends.insert((holding.until, address));
    }

    /// Moves what a machine holds to where it belongs when it is nobody's.
    fn let_go(&mut self, mac: Mac) {
        if let Some(held) = self.holdings.remove(&mac) {
            self.ends.remove(&(held.until, held.address));
            self.vacate(held.address);
        }
    }

    fn release_declined(&mut self, address: Ipv4Addr) {
        if let Some(Holder::Declined { until }) = self.holders.get(&address).copied() {
            self.ends.remove(&(until, address));
            self.vacate(address);
        }
    }

    fn vacate(&mut self, address: Ipv4Addr) {
        self.holders.remove(&address);
        let in_range =
            self.ranges.iter().any(|range| (range.first..=range.last).contains(&address));
        if in_range && !self.reserved_addresses.contains_key(&address) {
            self.free.insert(address);
        }
    }
}

/// FNV-1a: spreads addresses that differ in their last byte over a whole range, and is the same in
/// every release.
fn hash(mac: Mac) -> u64 {
    mac.0.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
