//! Who gave how much of what we have: for people who watch a fleet. Nothing is decided by it.
//!
//! Counted are blocks that were wanted, by the address that they came from without its port: a peer that
//! comes back has another. Web seeds are not among them: what no peer gave came from there.

use std::net::IpAddr;

use super::Swarm;

/// Addresses of peers that have left and whose bytes are remembered: more than a leech is connected to at
/// a time ([`PEERS_MAX`](super::PEERS_MAX)). Of more, those that gave least are forgotten.
pub const SOURCES_MAX: usize = 64;

/// Bytes by address, of peers that have left; in no order that means anything.
#[derive(Debug, Default)]
pub(super) struct Sources(Vec<(IpAddr, u64)>);

impl Sources {
    /// A peer leaves.
    pub(super) fn add(&mut self, addr: IpAddr, bytes: u64) {
        add(&mut self.0, addr, bytes);
        if self.0.len() > SOURCES_MAX {
            most_first(&mut self.0);
            self.0.truncate(SOURCES_MAX);
        }
    }
}

impl Swarm {
    /// Bytes of wanted blocks by the address that they came from, who gave most first; web seeds left out.
    #[must_use]
    pub fn sources(&self) -> Vec<(IpAddr, u64)> {
        let mut all = self.sources.0.clone();
        for peer in self.peers() {
            add(&mut all, peer.addr.ip().to_canonical(), peer.brought);
        }
        most_first(&mut all);
        all
    }
}

fn add(all: &mut Vec<(IpAddr, u64)>, addr: IpAddr, bytes: u64) {
    if bytes == 0 {
        return;
    }
    match all.iter_mut().find(|(known, _)| *known == addr) {
        Some((_, sum)) => *sum = sum.saturating_add(bytes),
        None => all.push((addr, bytes)),
    }
}

fn most_first(all: &mut [(IpAddr, u64)]) {
    all.sort_unstable_by_key(|(addr, bytes)| (std::cmp::Reverse(*bytes), *addr));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_more_addresses_than_are_remembered_those_that_gave_least_are_forgotten() {
        let mut sources = Sources::default();
        let addr = |last: usize| IpAddr::from([10, 0, 0, u8::try_from(last).unwrap()]);
        for last in 0..=SOURCES_MAX {
            sources.add(addr(last), 1 + last as u64);
            sources.add(addr(last), 1);
        }
        assert_eq!(sources.0.len(), SOURCES_MAX);
        assert!(sources.0.contains(&(addr(SOURCES_MAX - 1), 1 + SOURCES_MAX as u64)));
        assert!(!sources.0.iter().any(|(known, _)| *known == addr(0)));
    }
}
