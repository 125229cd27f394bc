//! A table of guests, each of which is told when it has to go.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::{Admission, Bounds, Seat, Standing, admit};

/// A table. `G` is what ends a guest that is sent away: whoever gets it back does so.
#[derive(Debug)]
pub struct Table<G> {
    bounds: Bounds,
    seats: BTreeMap<u64, (Seat<u64>, G)>,
    next: u64,
}

/// A guest has entered.
#[derive(Debug)]
pub struct Entered<G> {
    /// Names its seat, and no other one ever.
    pub ticket: u64,
    /// Who had to go for it.
    pub displaced: Option<G>,
}

impl<G> Table<G> {
    /// An empty one.
    #[must_use]
    pub const fn new(bounds: Bounds) -> Self {
        Self { bounds, seats: BTreeMap::new(), next: 0 }
    }

    /// Gives a newcomer a seat, if there is one for it. `now` is time since any fixed moment.
    pub fn enter(
        &mut self,
        now: Duration,
        address: IpAddr,
        standing: Standing,
        guest: G,
    ) -> Option<Entered<G>> {
        let seats = self.seats.values().map(|(seat, _)| *seat);
        let displaced = match admit(&self.bounds, seats, address, standing, now) {
            Admission::Refused => return None,
            Admission::Free => None,
            Admission::InPlaceOf(key) => self.seats.remove(&key).map(|(_, guest)| guest),
        };
        let ticket = self.next;
        self.next += 1;
        let seat = Seat { key: ticket, address, standing, idle_since: now };
        self.seats.insert(ticket, (seat, guest));
        Some(Entered { ticket, displaced })
    }

    /// A guest has proved that it is worth more. Gives what ends it, unless it had to go meanwhile.
    pub fn raise(&mut self, ticket: u64, standing: Standing) -> Option<&mut G> {
        let (seat, guest) = self.seats.get_mut(&ticket)?;
        seat.standing = standing;
        Some(guest)
    }

    /// A guest has gone.
    pub fn leave(&mut self, ticket: u64) {
        self.seats.remove(&ticket);
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.seats.len()
    }

    /// Whether nobody is there.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.seats.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn who_holds_all_that_it_can_holds_an_eighth_and_others_come_in() {
        let mut table = Table::new(Bounds::of(768, Duration::ZERO));
        for n in 0..5_500 {
            let now = Duration::from_millis(n);
            assert!(table.enter(now, address("10.0.0.9"), Standing::Stranger, n).is_some());
        }
        assert_eq!(table.len(), 96);
        let now = Duration::from_secs(6);
        let victim = table.enter(now, address("10.0.0.5"), Standing::Stranger, 0).unwrap();
        assert_eq!(victim.displaced, None);
    }

    #[test]
    fn the_longest_idle_goes_and_who_is_raised_stays() {
        let mut table = Table::new(Bounds::of(8, Duration::ZERO));
        for n in 0..8 {
            let from = address(&format!("10.0.{n}.1"));
            let entered = table.enter(Duration::from_secs(n), from, Standing::Stranger, n).unwrap();
            if n == 0 {
                table.raise(entered.ticket, Standing::Leased);
            }
        }
        let now = Duration::from_secs(9);
        let entered = table.enter(now, address("10.9.0.1"), Standing::Stranger, 9).unwrap();
        assert_eq!((entered.displaced, table.len()), (Some(1), 8));
        // It makes no room for others of its address either.
        let own = table.enter(now, address("10.0.0.1"), Standing::Stranger, 10).unwrap();
        assert_eq!(own.displaced, Some(2));
        table.leave(own.ticket);
        assert_eq!(table.len(), 7);
    }
}
