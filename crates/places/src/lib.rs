//! Who gets a place in a table that strangers fill, and who gives it up.
//!
//! A bound that refuses whoever comes last is held by who comes first, for as long as they like. Here
//! a table that is full lets go of who has done least for longest, keeps what it has for nodes that are
//! known, and has an end for one address. [`admit`] decides for a table that is kept elsewhere;
//! [`Table`] keeps one. One look is one walk through it, so tables are some thousand seats at most.
//!
//! **One network** (a /24, or a /64 of IPv6) has an end only where others want in: a room whose
//! addresses another DHCP server gives is one /24 of strangers, and may have the whole table as long
//! as nobody else asks.

#![forbid(unsafe_code)]

mod table;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

pub use table::{Entered, Table};

/// How much an address is worth a place, least first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// Nobody knows whose address it is.
    #[default]
    Stranger,
    /// A node has leased it, or its peer has proved something.
    Leased,
    /// A node has leased it which the lab names.
    Named,
}

/// Part of a table that one address may have at most: whoever wants all of it needs eight machines,
/// or a card with eight addresses, and the rest of them are seen by the other rules.
pub const ADDRESS_SHARE: usize = 8;

/// Part of a table that strangers of one network may keep while others want in: half is more than one
/// of two rooms needs, and leaves the other half to everybody else.
pub const NETWORK_SHARE: usize = 2;

/// How many places there are, and for whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Seats in all.
    pub seats: usize,
    /// Seats of one address. Loopback has no end of its own: whole test fleets live there, and no
    /// stranger.
    pub of_address: usize,
    /// Seats that strangers of one network keep when a stranger of another network comes who has less.
    pub of_network: usize,
    /// How long a seat must have done nothing before somebody of the same standing gets it.
    pub patience: Duration,
}

impl Bounds {
    /// The shares that are usual: [`ADDRESS_SHARE`] and [`NETWORK_SHARE`].
    #[must_use]
    pub const fn of(seats: usize, patience: Duration) -> Self {
        let of_address = if seats < ADDRESS_SHARE { 1 } else { seats / ADDRESS_SHARE };
        Self { seats, of_address, of_network: seats.div_ceil(NETWORK_SHARE), patience }
    }
}

/// A seat that is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seat<K> {
    /// Its name in the table.
    pub key: K,
    /// Who has it.
    pub address: IpAddr,
    /// How much that is worth.
    pub standing: Standing,
    /// When it last did what the table is for, since any moment that is the same for all seats.
    pub idle_since: Duration,
}

/// What becomes of a newcomer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission<K> {
    /// There is room.
    Free,
    /// There is, once this seat has been given up.
    InPlaceOf(K),
    /// There is none.
    Refused,
}

/// Decides on a newcomer from `address`, at `now` on the clock of [`Seat::idle_since`].
pub fn admit<K: Copy>(
    bounds: &Bounds,
    seats: impl Iterator<Item = Seat<K>>,
    address: IpAddr,
    standing: Standing,
    now: Duration,
) -> Admission<K> {
    let address = address.to_canonical();
    let seats: Vec<Seat<K>> =
        seats.map(|seat| Seat { address: seat.address.to_canonical(), ..seat }).collect();
    let is_idle = |seat: &Seat<K>| now.saturating_sub(seat.idle_since) >= bounds.patience;
    if !address.is_loopback() {
        // What has proved more than the newcomer neither counts nor goes.
        let own =
            || seats.iter().filter(|seat| seat.address == address && seat.standing <= standing);
        if own().count() >= bounds.of_address {
            // Its own seats, so nobody else loses by it: a machine that was restarted comes again.
            return give_up(longest_idle(own().filter(|seat| is_idle(seat))));
        }
    }
    if seats.len() < bounds.seats {
        return Admission::Free;
    }
    let lesser = seats.iter().filter(|seat| seat.standing < standing);
    if let Some(seat) = lesser.min_by_key(|seat| (seat.standing, seat.idle_since)) {
        return Admission::InPlaceOf(seat.key);
    }
    let equal = || seats.iter().filter(|seat| seat.standing == standing);
    if standing == Standing::Stranger {
        let counts = networks(equal());
        let held = |address| counts.get(&network(address)).copied().unwrap_or(0);
        if held(address) < bounds.of_network {
            let greedy = equal().filter(|seat| {
                !seat.address.is_loopback() && held(seat.address) > bounds.of_network
            });
            if let Some(seat) = longest_idle(greedy) {
                return Admission::InPlaceOf(seat.key);
            }
        }
    }
    give_up(longest_idle(equal().filter(|seat| is_idle(seat))))
}

fn give_up<K: Copy>(seat: Option<&Seat<K>>) -> Admission<K> {
    seat.map_or(Admission::Refused, |seat| Admission::InPlaceOf(seat.key))
}

fn longest_idle<'a, K>(seats: impl Iterator<Item = &'a Seat<K>>) -> Option<&'a Seat<K>> {
    seats.min_by_key(|seat| seat.idle_since)
}

fn networks<'a, K: 'a>(seats: impl Iterator<Item = &'a Seat<K>>) -> BTreeMap<IpAddr, usize> {
    let mut counts = BTreeMap::new();
    for seat in seats {
        *counts.entry(network(seat.address)).or_default() += 1;
    }
    counts
}

/// The /24 of an address, or the /64: what one machine can easily have many addresses of.
#[must_use]
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => Ipv4Addr::from_bits(address.to_bits() & !0xff).into(),
        IpAddr::V6(address) => {
            Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds::of(16, Duration::from_secs(10));

    fn seat(key: u32, address: &str, standing: Standing, idle_since: u64) -> Seat<u32> {
        let address = address.parse().unwrap();
        Seat { key, address, standing, idle_since: Duration::from_secs(idle_since) }
    }

    /// Sixteen strangers, each in a network of its own, the first ones idle for longest.
    fn full() -> Vec<Seat<u32>> {
        (0..16).map(|n| seat(n, &format!("10.0.{n}.1"), Standing::Stranger, n.into())).collect()
    }

    fn ask(seats: &[Seat<u32>], address: &str, standing: Standing, now: u64) -> Admission<u32> {
        let address = address.parse().unwrap();
        admit(&BOUNDS, seats.iter().copied(), address, standing, Duration::from_secs(now))
    }

    #[test]
    fn a_full_table_lets_go_of_who_did_nothing_for_longest() {
        let seats = full();
        assert_eq!(ask(&seats[1..], "10.9.9.9", Standing::Stranger, 15), Admission::Free);
        let ask = |now| ask(&seats, "10.9.9.9", Standing::Stranger, now);
        assert_eq!(ask(9), Admission::Refused);
        assert_eq!(ask(15), Admission::InPlaceOf(0));
    }

    #[test]
    fn a_node_takes_the_place_of_a_stranger_however_busy() {
        let mut seats = full();
        assert_eq!(ask(&seats, "10.9.9.9", Standing::Leased, 0), Admission::InPlaceOf(0));
        for seat in &mut seats[..15] {
            seat.standing = Standing::Leased;
        }
        assert_eq!(ask(&seats, "10.9.9.9", Standing::Leased, 99), Admission::InPlaceOf(15));
        assert_eq!(ask(&seats, "10.9.9.9", Standing::Named, 99), Admission::InPlaceOf(15));
        seats[15].standing = Standing::Leased;
        assert_eq!(ask(&seats, "10.9.9.9", Standing::Named, 0), Admission::InPlaceOf(0));
        assert_eq!(ask(&seats, "10.9.9.9", Standing::Stranger, 99), Admission::Refused);
    }

    #[test]
    fn one_address_has_an_eighth_and_goes_on_at_its_own_cost() {
        let own = [
            seat(1, "10.0.0.1", Standing::Stranger, 5),
            seat(2, "::ffff:10.0.0.1", Standing::Stranger, 3),
        ];
        assert_eq!(ask(&own, "10.0.0.1", Standing::Stranger, 12), Admission::Refused);
        assert_eq!(ask(&own, "10.0.0.1", Standing::Stranger, 13), Admission::InPlaceOf(2));
        assert_eq!(ask(&own, "10.0.0.2", Standing::Stranger, 12), Admission::Free);
        let local = own.map(|seat| Seat { address: Ipv4Addr::LOCALHOST.into(), ..seat });
        assert_eq!(ask(&local, "127.0.0.1", Standing::Stranger, 0), Admission::Free);
    }

    #[test]
    fn one_network_may_fill_the_table_until_others_want_in() {
        let mut seats: Vec<_> = (0..16)
            .map(|n| seat(n, &format!("10.0.0.{n}"), Standing::Stranger, 100 - u64::from(n)))
            .collect();
        // Of its own, nobody who is busy goes.
        assert_eq!(ask(&seats, "10.0.0.99", Standing::Stranger, 90), Admission::Refused);
        // Others get half of it, and no more.
        for n in 0..8 {
            let Admission::InPlaceOf(key) = ask(&seats, "10.0.1.1", Standing::Stranger, 90) else {
                panic!("{n}: no place")
            };
            seats.retain(|seat| seat.key != key);
            seats.push(seat(100 + n, &format!("10.0.1.{}", n + 10), Standing::Stranger, 100));
        }
        assert_eq!(ask(&seats, "10.0.1.1", Standing::Stranger, 90), Admission::Refused);
    }

    #[test]
    fn networks_are_a_24_and_a_64() {
        for (address, expect) in [
            ("10.1.2.3", "10.1.2.0"),
            ("::ffff:10.1.2.3", "10.1.2.0"),
            ("fd00:1:2:3:4:5:6:7", "fd00:1:2:3::"),
        ] {
            let expect: IpAddr = expect.parse().unwrap();
            assert_eq!(network(address.parse().unwrap()), expect);
        }
    }
}
