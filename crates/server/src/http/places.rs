//! Who has a place at the web server: a table of connections without I/O or clock. Times are those since the
//! server began.
//!
//! **When it is full.** Nobody is refused because others came first. There are bounds ([`Bounds`]) for one
//! address, for the strangers of one network, for all strangers, and for all; a newcomer for whom one of
//! them leaves no room takes the place of who is worth least among those whom it counts, unless each of them is worth more
//! than the newcomer. What they have of answers that were made for them is bounded in the same way, in bytes.
//!
//! **What a connection is worth.** First who it is ([`Rank`]), then what it has moved lately: its bytes,
//! halved every [`HALF_LIFE_S`]. A newcomer counts as one that has just moved [`WELCOME_LEN`], so that it has the time to
//! begin, and so that no download above 73 kB/s ever goes for a newcomer of its rank.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ::places::Standing;

/// Bytes that were moved so many seconds ago count for half: longer than a switch or a disk pauses, shorter
/// than the patience of who waits for a place.
const HALF_LIFE_S: f64 = 10.0;

/// What a newcomer is worth, in bytes. Who moves on goes for nobody from `WELCOME_LEN * ln 2 / HALF_LIFE_S` on,
/// 73 kB/s: strangers that hold all their places so need 75 MB/s, and then it is the link that is full.
const WELCOME_LEN: f64 = 1_048_576.0;

/// What it is worth once it has its place: less, so that the next one finds a place, too, however fast they come, and what the
/// kernel takes for a peer that reads nothing is not enough to stay.
const BEGUN_LEN: f64 = WELCOME_LEN / 2.0;

/// How many places there are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) all: usize,
    pub(super) strangers: usize,
    pub(super) of_network: usize,
    pub(super) of_address: usize,
    /// Bytes of answers that were made for readers who have not taken them.
    pub(super) held_len: usize,
}

/// The places of the web server.
pub(super) const BOUNDS: Bounds = Bounds {
    // A thousand nodes that boot in the same second, with their agents' reports beside their downloads.
    all: 4_096,
    // People's browsers, what watches over services, and machines that have just come: three quarters of
    // all places are kept for nodes. All that strangers can hold, in this program and in the kernel, is about 200 MiB.
    strangers: 1_024,
    // A room is often one /24: two connections for each of 254 machines that nobody knows yet. Nodes are
    // not strangers.
    of_network: 512,
    // An agent has four for its downloads at most, and a person's browser six; ten people behind one router.
    of_address: 64,
    // The largest answer, a page of 1,000 nodes' swarm or an hour of samples, has half a megabyte, and who
    // reads at all has it in a tenth of a second: room for a hundred that are made at once.
    held_len: 48 << 20,
};

/// Whose a connection is, least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    /// Somebody on the network.
    Of(Standing),
    /// Somebody who has shown the lab's token, or is logged in.
    Trusted,
    /// This machine itself: what watches over the service here always finds a place.
    Own,
}

/// The network that an address is counted with: its /24, or of IPv6 its /64, which a machine has to itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Network(IpAddr);

impl Network {
    pub(super) fn of(address: IpAddr) -> Self {
        Self(::places::network(address))
    }
}

impl std::fmt::Display for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.0, if self.0.is_ipv4() { 24 } else { 64 })
    }
}

/// What a connection is worth: the second in which all that it has moved will count for a byte. Whose comes first is worth
/// least, and that does not change as long as nothing moves.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Worth(f64);

impl Worth {
    fn new(now_s: f64, bytes: f64) -> Self {
        Self(now_s + HALF_LIFE_S * bytes.max(1.0).log2())
    }

    fn and(self, now_s: f64, bytes: f64) -> Self {
        Self::new(now_s, ((self.0 - now_s) / HALF_LIFE_S).exp2() + bytes)
    }
}

#[derive(Debug)]
struct Place<T> {
    source: IpAddr,
    rank: Rank,
    worth: Worth,
    held_len: usize,
    connection: T,
}

/// Which connection; none has the number of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Id(u64);

/// The table. `T` is how a connection is let go of.
#[derive(Debug)]
pub(super) struct Places<T> {
    bounds: Bounds,
    places: BTreeMap<Id, Place<T>>,
    next: u64,
    of_address: BTreeMap<IpAddr, usize>,
    /// Strangers alone.
    of_network: BTreeMap<Network, usize>,
    stranger_count: usize,
    held_len: usize,
}

/// What came of a newcomer.
#[derive(Debug)]
pub(super) struct Entry<T> {
    /// Its place; none if everybody who might have gone is worth more.
    pub(super) id: Option<Id>,
    /// Who has to go for it.
    pub(super) displaced: Vec<T>,
}

impl Rank {
    fn is_stranger(self) -> bool {
        self == Self::Of(Standing::Stranger)
    }
}

impl<T> Places<T> {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            places: BTreeMap::new(),
            next: 0,
            of_address: BTreeMap::new(),
            of_network: BTreeMap::new(),
            stranger_count: 0,
            held_len: 0,
        }
    }

    /// A connection has come.
    pub(super) fn enter(
        &mut self,
        now_s: f64,
        source: IpAddr,
        rank: Rank,
        connection: T,
    ) -> Entry<T> {
        let welcome = Worth::new(now_s, WELCOME_LEN);
        let mut displaced = vec![];
        while let Some(least) = self.in_the_way(source, rank) {
            let is_worth_more = self.places.get(&least).is_none_or(|place| {
                (place.rank, place.worth.0.total_cmp(&welcome.0))
                    > (rank, std::cmp::Ordering::Equal)
            });
            if is_worth_more {
                return Entry { id: None, displaced };
            }
            displaced.extend(self.leave(least));
        }
        let worth = Worth::new(now_s, BEGUN_LEN);
        let id = Id(self.next);
        self.next += 1;
        *self.of_address.entry(source).or_default() += 1;
        if rank.is_stranger() {
            self.stranger_count += 1;
            *self.of_network.entry(Network::of(source)).or_default() += 1;
        }
        self.places.insert(id, Place { source, rank, worth, held_len: 0, connection });
        Entry { id: Some(id), displaced }
    }

    /// A connection has ended.
    pub(super) fn leave(&mut self, id: Id) -> Option<T> {
        let place = self.places.remove(&id)?;
        decrease(&mut self.of_address, place.source);
        if place.rank.is_stranger() {
            self.stranger_count -= 1;
            decrease(&mut self.of_network, Network::of(place.source));
        }
        self.held_len -= place.held_len;
        Some(place.connection)
    }

    /// A peer has taken so many bytes.
    pub(super) fn moved(&mut self, now_s: f64, id: Id, len: usize) {
        if let Some(place) = self.places.get_mut(&id) {
            place.worth = place.worth.and(now_s, len as f64);
        }
    }

    /// A connection has turned out to be of somebody of this rank.
    pub(super) fn raise(&mut self, id: Id, rank: Rank) {
        let Some(place) = self.places.get_mut(&id).filter(|place| place.rank < rank) else {
            return;
        };
        if place.rank.is_stranger() {
            self.stranger_count -= 1;
            decrease(&mut self.of_network, Network::of(place.source));
        }
        place.rank = rank;
    }

    /// So many bytes were made for a connection. Returns whom that leaves no room; the connection itself,
    /// if everybody else is worth more by rank.
    pub(super) fn hold(&mut self, id: Id, len: usize) -> Vec<T> {
        let Some(place) = self.places.get_mut(&id) else { return vec![] };
        let rank = place.rank;
        place.held_len += len;
        self.held_len += len;
        let mut displaced = vec![];
        while self.held_len > self.bounds.held_len {
            let is_one =
                |of: &Id, place: &Place<T>| *of != id && place.held_len > 0 && place.rank <= rank;
            let least = self.least(is_one).unwrap_or(id);
            displaced.extend(self.leave(least));
        }
        displaced
    }

    /// As many of them were taken, or thrown away.
    pub(super) fn release(&mut self, id: Id, len: usize) {
        if let Some(place) = self.places.get_mut(&id) {
            let len = len.min(place.held_len);
            place.held_len -= len;
            self.held_len -= len;
        }
    }

    pub(super) fn count(&self) -> usize {
        self.places.len()
    }

    /// The network from which most connections come, and how many.
    pub(super) fn fullest(&self) -> Option<(Network, usize)> {
        let mut counts = BTreeMap::new();
        for place in self.places.values() {
            *counts.entry(Network::of(place.source)).or_insert(0_usize) += 1;
        }
        counts.into_iter().max_by_key(|&(_, count)| count)
    }

    /// Who is worth least of those that leave no room for a newcomer; nobody if there is room.
    fn in_the_way(&self, source: IpAddr, rank: Rank) -> Option<Id> {
        let Bounds { all, strangers, of_network, of_address, .. } = self.bounds;
        let network = Network::of(source);
        if self.of_address.get(&source).is_some_and(|&count| count >= of_address) {
            return self.least(|_, place| place.source == source);
        }
        let is_full = self.of_network.get(&network).is_some_and(|&count| count >= of_network);
        if rank.is_stranger() && is_full {
            return self.least(|_, place| {
                place.rank.is_stranger() && Network::of(place.source) == network
            });
        }
        if rank.is_stranger() && self.stranger_count >= strangers {
            return self.least(|_, place| place.rank.is_stranger());
        }
        if self.places.len() >= all {
            return self.least(|_, _| true);
        }
        None
    }

    fn least(&self, is_one: impl Fn(&Id, &Place<T>) -> bool) -> Option<Id> {
        let ones = self.places.iter().filter(|(id, place)| is_one(id, place));
        let least = ones.min_by(|(_, one), (_, other)| {
            one.rank.cmp(&other.rank).then(one.worth.0.total_cmp(&other.worth.0))
        });
        least.map(|(&id, _)| id)
    }
}

fn decrease<K: Ord>(counts: &mut BTreeMap<K, usize>, of: K) {
    if let Some(count) = counts.get_mut(&of) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&of);
        }
    }
}

#[cfg(test)]
mod tests;
