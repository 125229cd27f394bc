//! Who listens to what happens: a table without I/O. One address has an eighth of it at most, and when it is
//! full whoever listens longest of the address that has most goes for a newcomer. Who may command
//! never goes for somebody who may not.

use std::collections::BTreeMap;

use super::serve::Source;

/// Listeners at once: the screens of a few dozen people.
pub(super) const LISTENERS_MAX: usize = 64;

/// From one address: a person's windows.
pub(super) const OF_ADDRESS_MAX: usize = LISTENERS_MAX / 8;

#[derive(Debug)]
struct One<T> {
    source: Source,
    may_command: bool,
    listener: T,
}

/// The table. `T` is how a listener is let go of.
#[derive(Debug)]
pub(super) struct Listeners<T> {
    /// Oldest first.
    all: BTreeMap<u64, One<T>>,
    next: u64,
}

impl<T> Default for Listeners<T> {
    fn default() -> Self {
        Self { all: BTreeMap::new(), next: 0 }
    }
}

impl<T> Listeners<T> {
    /// Another listener: its number, and who goes for it; none if all who might go may command.
    pub(super) fn enter(
        &mut self,
        source: Source,
        may_command: bool,
        listener: T,
    ) -> Option<(u64, Option<T>)> {
        let goes = match self.count_of(source) < OF_ADDRESS_MAX {
            true if self.all.len() < LISTENERS_MAX => None,
            true => Some(self.least(may_command, |_| true)?),
            false => Some(self.least(may_command, |one| one.source == source)?),
        };
        let displaced = goes.and_then(|number| self.leave(number));
        let number = self.next;
        self.next += 1;
        self.all.insert(number, One { source, may_command, listener });
        Some((number, displaced))
    }

    pub(super) fn leave(&mut self, number: u64) -> Option<T> {
        self.all.remove(&number).map(|one| one.listener)
    }

    pub(super) fn count(&self) -> usize {
        self.all.len()
    }

    fn count_of(&self, source: Source) -> usize {
        self.all.values().filter(|one| one.source == source).count()
    }

    fn least(&self, may_command: bool, is_one: impl Fn(&One<T>) -> bool) -> Option<u64> {
        let ones = self.all.iter().filter(|(_, one)| is_one(one) && one.may_command <= may_command);
        let key = |(number, one): &(&u64, &One<T>)| {
            (one.may_command, std::cmp::Reverse(self.count_of(one.source)), **number)
        };
        ones.min_by_key(key).map(|(&number, _)| number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn peer(host: u8) -> Source {
        Source::Peer(std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, host)))
    }

    /// What `enter` makes of who has this number in the test.
    fn enter(
        all: &mut Listeners<u32>,
        host: u8,
        may_command: bool,
        who: u32,
    ) -> Option<Option<u32>> {
        all.enter(peer(host), may_command, who).map(|(_, displaced)| displaced)
    }

    #[test]
    fn one_address_has_an_eighth_and_displaces_its_own() {
        let mut all = Listeners::default();
        for who in 0..OF_ADDRESS_MAX as u32 {
            assert_eq!(enter(&mut all, 1, false, who), Some(None));
        }
        assert_eq!(enter(&mut all, 1, false, 100), Some(Some(0)));
        assert_eq!(enter(&mut all, 2, false, 101), Some(None));
    }

    #[test]
    fn a_newcomer_displaces_the_oldest_of_who_has_most() {
        let mut all = Listeners::default();
        enter(&mut all, 200, false, 1_000);
        for host in 1..=7 {
            for who in 0..8 {
                enter(&mut all, host, false, u32::from(host) * 10 + who);
            }
        }
        for who in 0..7 {
            enter(&mut all, 8, false, 80 + who);
        }
        assert_eq!(all.count(), LISTENERS_MAX);
        assert_eq!(enter(&mut all, 201, false, 1_001), Some(Some(10)));
        assert_eq!(enter(&mut all, 202, false, 1_002), Some(Some(20)));
    }

    #[test]
    fn who_may_command_stays_and_finds_a_place() {
        let mut all = Listeners::default();
        for host in 0..LISTENERS_MAX as u8 {
            enter(&mut all, host, host > 0, u32::from(host));
        }
        assert_eq!(enter(&mut all, 100, true, 100), Some(Some(0)));
        assert_eq!(enter(&mut all, 101, false, 101), None);
        assert_eq!(enter(&mut all, 101, true, 101), Some(Some(1)));
        assert_eq!(all.leave(5), Some(5));
        assert_eq!(enter(&mut all, 102, false, 102), Some(None));
    }
}
