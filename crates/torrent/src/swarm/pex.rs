//! Peer exchange (BEP 11) over one connection: what to tell the peer of our others, and how much of
//! what it tells is believed.
//!
//! Not for private torrents (BEP 27), and not without an extended handshake that numbers `ut_pex`:
//! both are for the driver to see to, which also knows the connections. In a lab the tracker makes
//! the mesh; this finds peers when the tracker is away or knows only some of them.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use crate::time::Time;
use crate::wire::{PEX_INTERVAL_MIN, PEX_PEERS_MAX, Pex, PexPeer};

/// How long after the extended handshake the first exchange leaves: in a crowd that starts together
/// most neighbours connect within that time, and the next exchange is a minute away.
const FIRST_DELAY: Duration = Duration::from_secs(1);

/// An exchange that comes sooner after the last is ignored. Half of what BEP 11 allows, for clocks
/// and networks that stretch and squeeze.
const HEARD_INTERVAL_MIN: Duration = PEX_INTERVAL_MIN.checked_div(2).unwrap();

/// Addresses that one connection may bring in all: a fifth of what a swarm remembers, so that one
/// stranger with invented ones leaves room for those of others.
pub const PEX_ADDRS_MAX: usize = 200;

/// The exchange with one peer.
#[derive(Clone, Debug)]
pub struct PexState {
    told: BTreeSet<SocketAddr>,
    next: Time,
    heard_at: Option<Time>,
    heard_count: usize,
}

impl PexState {
    /// The peer's extended handshake has just come.
    #[must_use]
    pub fn new(now: Time) -> Self {
        Self { told: BTreeSet::new(), next: now + FIRST_DELAY, heard_at: None, heard_count: 0 }
    }

    /// When something may next be told, if there is something.
    #[must_use]
    pub const fn next_timeout(&self) -> Time {
        self.next
    }

    /// What to tell now, given the peers that we are connected to now, the receiver left out. What
    /// does not fit is told next time.
    pub fn poll(&mut self, now: Time, peers: &[PexPeer]) -> Option<Pex> {
        if now < self.next {
            return None;
        }
        let current: BTreeSet<SocketAddr> = peers.iter().map(|peer| peer.addr).collect();
        let mut pex = Pex::default();
        for peer in peers {
            if pex.added.len() < PEX_PEERS_MAX && self.told.insert(peer.addr) {
                pex.added.push(*peer);
            }
        }
        pex.dropped = self.told.difference(&current).take(PEX_PEERS_MAX).copied().collect();
        for addr in &pex.dropped {
            self.told.remove(addr);
        }
        if pex.is_empty() {
            return None;
        }
        self.next = now + PEX_INTERVAL_MIN;
        Some(pex)
    }

    /// The peer tells us of others: those that are worth knowing.
    pub fn handle(&mut self, now: Time, pex: &Pex) -> Vec<SocketAddr> {
        if self.heard_at.is_some_and(|at| now - at < HEARD_INTERVAL_MIN) {
            return vec![];
        }
        self.heard_at = Some(now);
        let left = PEX_ADDRS_MAX - self.heard_count;
        let addrs: Vec<SocketAddr> = pex.added.iter().map(|peer| peer.addr).take(left).collect();
        self.heard_count += addrs.len();
        addrs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Time {
        Time::ZERO + Duration::from_secs(secs)
    }

    fn peer(number: u16) -> PexPeer {
        PexPeer { addr: SocketAddr::from(([10, 0, 0, 1], number)), flags: PexPeer::REACHABLE }
    }

    fn peers(numbers: impl IntoIterator<Item = u16>) -> Vec<PexPeer> {
        numbers.into_iter().map(peer).collect()
    }

    fn numbers(pex: Option<Pex>) -> Option<(Vec<u16>, Vec<u16>)> {
        let pex = pex?;
        let added = pex.added.iter().map(|peer| peer.addr.port()).collect();
        Some((added, pex.dropped.iter().map(SocketAddr::port).collect()))
    }

    #[test]
    fn the_first_exchange_leaves_soon_and_the_next_a_minute_later() {
        let mut state = PexState::new(at(100));
        assert_eq!(state.poll(at(100), &peers([1])), None);
        assert_eq!(state.next_timeout(), at(101));
        assert_eq!(numbers(state.poll(at(101), &peers([1]))), Some((vec![1], vec![])));
        assert_eq!(state.poll(at(160), &peers([1, 2])), None);
        assert_eq!(numbers(state.poll(at(161), &peers([1, 2]))), Some((vec![2], vec![])));
    }

    #[test]
    fn nothing_to_tell_is_not_told_and_costs_no_minute() {
        let mut state = PexState::new(at(0));
        assert_eq!(state.poll(at(1), &[]), None);
        assert_eq!(numbers(state.poll(at(2), &peers([1]))), Some((vec![1], vec![])));
        assert_eq!(state.poll(at(62), &peers([1])), None);
        assert_eq!(numbers(state.poll(at(63), &[])), Some((vec![], vec![1])));
    }

    #[test]
    fn a_peer_that_came_and_went_in_between_is_never_mentioned() {
        let mut state = PexState::new(at(0));
        assert!(state.poll(at(1), &peers([1])).is_some());
        assert_eq!(state.poll(at(30), &peers([1, 2])), None);
        assert_eq!(state.poll(at(61), &peers([1])), None);
    }

    #[test]
    fn a_peer_that_is_back_is_told_again() {
        let mut state = PexState::new(at(0));
        assert!(state.poll(at(1), &peers([1])).is_some());
        assert!(state.poll(at(61), &[]).is_some());
        assert_eq!(numbers(state.poll(at(121), &peers([1]))), Some((vec![1], vec![])));
    }

    #[test]
    fn what_does_not_fit_is_told_next_time() {
        let mut state = PexState::new(at(0));
        let many = peers(1..=120);
        let told = |pex: Option<Pex>| pex.map(|pex| (pex.added.len(), pex.dropped.len()));
        assert_eq!(told(state.poll(at(60), &many)), Some((50, 0)));
        assert_eq!(told(state.poll(at(120), &many)), Some((50, 0)));
        assert_eq!(told(state.poll(at(180), &many)), Some((20, 0)));
        assert_eq!(told(state.poll(at(240), &[])), Some((0, 50)));
        assert_eq!(told(state.poll(at(300), &many)), Some((50, 0)));
    }

    #[test]
    fn a_talkative_peer_is_believed_only_so_much() {
        let mut state = PexState::new(at(0));
        let heard = |from: u16| Pex { added: peers(from..from + 50), dropped: vec![] };
        assert_eq!(state.handle(at(0), &heard(1)).len(), 50);
        assert_eq!(state.handle(at(29), &heard(51)).len(), 0);
        let later: usize = (1..100).map(|time| state.handle(at(30 * time), &heard(51)).len()).sum();
        assert_eq!(later, PEX_ADDRS_MAX - 50);
    }
}
