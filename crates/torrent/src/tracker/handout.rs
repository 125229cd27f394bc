//! The handout policy: of which peers a tracker tells a peer.
//!
//! The special case is the normal case: one seed, and hundreds of nodes that all start within
//! seconds. The answer to a node's first announce is all it needs; nobody waits for an interval.
//! That works because a connection has two ends: a node dials those who came before it, and those
//! who come after dial it. So the tracker lays out a graph, and remembers it: a *link* joins two
//! peers one of which was told of the other.
//!
//! **What graph.** The policy study (flash crowds of 16 to 1,000 nodes) found any degree from 8 to
//! 16 good (within 0.2 % of the best) and 32 still fair, if the graph is nearly *regular*: the ones
//! with few links straggle. And it must not be long, for what the seed sends has to cross it. We hand
//! out [`HANDOUT`] peers, so that the last to come, whom nobody dials, are within that range; the mean
//! is twice that.
//!
//! **Why not simply those who were handed out least often?** That is the obvious rule, and a trap:
//! these are always the ones who came last, so each newcomer gets its ten predecessors, and the graph
//! of 1,000 is a ribbon, 100 links long. Drawing blindly is the opposite trap: short (4), but the
//! first have 65 links. So we draw [`CHOICE`] peers blindly and of these tell the ones with the fewest
//! links (the power of choices, Azar et al. 1994). With 1,000: degrees 10 to 23, 5 links from the seed
//! to the farthest; with 10,000: 10 to 24, and 6. (Measured over `CHOICE` at 1,000: 12 gives degrees
//! up to 35, 20 up to 25, 32 up to 23, 64 up to 22; the length is 4 to 5 in all of them.)
//!
//! **Seeds.** An *origin* seed, one that had everything when it came, is scarce: its uplink carries
//! every piece once, and known to 32 peers or to all makes no difference (1.017 against 1.017; known
//! to 4: 1.025). So the first [`SEED_KNOWN`] leeches are told of it, and later ones only as those
//! leave. (A chance of 32/N for later ones, the other natural rule, adds up to 32·ln N: 142 of 1,000.)
//! A leech that comes back ahead of its schedule has lost its neighbours; if it has no origin seed it
//! is given one, up to [`SEED_RESCUE`], so that no part of the graph can be cut off for long.
//!
//! **Peers that completed** are good sources for late joiners but want nothing themselves; at most
//! half of a handout is complete, unless there are not enough others, and no more than their share in
//! the swarm. Complete peers are told of
//! leeches only, and an origin seed of as many as may know it: its link is the last that may idle.
//!
//! **Coming back.** A peer gets others than before; those it has again only if it lost them all, or if
//! it is an origin seed and there are no others (for it to dial those that were told of it). A
//! peer that leaves or goes silent takes its links with it, so its neighbours have few and are the
//! next ones to be handed out.
//!
//! **Stale peers** (silent past their time, or their address has come back as a new peer) rank behind
//! all others; see `registry.rs` for why they are kept at all.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use super::rng::Rng;
use crate::Time;

/// Peers in an answer; see the head of the file. A peer may want fewer, and gets no more if it
/// wants more: some clients ask for 200, which would make hubs of them.
pub const HANDOUT: usize = 10;

/// Fresh peers of one kind that are compared by their links; see the head of the file.
const CHOICE: usize = 32;

/// How many peers know an origin seed in normal times.
pub(super) const SEED_KNOWN: usize = 32;

/// How many may know it when peers that lost their neighbours are counted as well.
pub(super) const SEED_RESCUE: usize = 64;

/// Links remembered for a peer: more than any policy here makes, so it only bounds the memory that a
/// peer can take by asking again and again (256 bytes). The oldest is forgotten.
const LINKS_KEPT: usize = 64;

/// Peers drawn for one handout, so that [`CHOICE`] are left when most are stale, complete or of the
/// other address family; all of a smaller swarm.
const SAMPLE: usize = 128;

/// Origin seeds looked at for one handout: after a re-run of a room there may be thousands.
const ORIGINS_SAMPLE: usize = 16;

/// What a peer has, as far as the policy cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Has {
    /// Not everything.
    Part,
    /// Everything, got from the swarm.
    Completed,
    /// Everything from the start.
    Origin,
}

#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) addr: SocketAddr,
    pub(super) peer_id: [u8; 20],
    pub(super) has: Has,
    /// Ranks behind all that are not.
    pub(super) stale: bool,
    /// Its address is known: it makes no room for others while it lives.
    pub(super) is_kept: bool,
    /// When it is expected again, at the earliest.
    pub(super) expected: Time,
    /// When it becomes stale.
    pub(super) fresh_until: Time,
    /// When it is forgotten.
    pub(super) gone_at: Time,
    /// Numbers of its neighbours in the graph, oldest first; each has this one in its list too.
    links: Vec<u32>,
}

impl Peer {
    pub(super) const fn new(addr: SocketAddr, peer_id: [u8; 20], has: Has) -> Self {
        Self {
            addr,
            peer_id,
            has,
            stale: false,
            is_kept: false,
            expected: Time::ZERO,
            fresh_until: Time::NEVER,
            gone_at: Time::NEVER,
            links: Vec::new(),
        }
    }
}

/// The peers of one torrent and the graph that was laid out among them. Peers are numbered densely;
/// a number holds until the next `remove`.
#[derive(Debug, Default)]
pub(super) struct Roster {
    peers: Vec<Peer>,
    by_addr: BTreeMap<SocketAddr, u32>,
    origins: BTreeSet<u32>,
    complete_count: usize,
}

impl Roster {
    pub(super) const fn len(&self) -> usize {
        self.peers.len()
    }

    pub(super) const fn complete_count(&self) -> usize {
        self.complete_count
    }

    pub(super) fn find(&self, addr: SocketAddr) -> Option<u32> {
        self.by_addr.get(&addr).copied()
    }

    pub(super) fn peer(&self, at: u32) -> &Peer {
        &self.peers[at as usize]
    }

    /// For everything but `has` and `addr`, which the roster keeps count of.
    pub(super) fn peer_mut(&mut self, at: u32) -> &mut Peer {
        &mut self.peers[at as usize]
    }

    /// Adds a peer whose address is not yet in. Others at its IP address become stale: a node that
    /// was reset comes back under another port, and its dead self would be handed out for a while.
    /// Not so on loopback, where one machine is many peers.
    pub(super) fn insert(&mut self, peer: Peer) -> u32 {
        let at = self.peers.len() as u32;
        let ip = peer.addr.ip();
        if !ip.is_loopback() {
            let range = SocketAddr::new(ip, 0)..=SocketAddr::new(ip, u16::MAX);
            let others: Vec<u32> = self.by_addr.range(range).map(|(_, &at)| at).collect();
            for other in others {
                self.make_stale(other);
            }
        }
        let before = self.by_addr.insert(peer.addr, at);
        assert!(before.is_none(), "a peer is added once");
        let has = peer.has;
        self.peers.push(Peer { has: Has::Part, ..peer });
        self.set_has(at, has);
        at
    }

    pub(super) fn set_has(&mut self, at: u32, has: Has) {
        let peer = &mut self.peers[at as usize];
        self.complete_count -= usize::from(peer.has != Has::Part);
        peer.has = has;
        self.complete_count += usize::from(has != Has::Part);
        if has == Has::Origin {
            self.origins.insert(at);
        } else {
            self.origins.remove(&at);
        }
    }

    /// Ranks the peer behind all others and gives its links back; until it announces again.
    pub(super) fn make_stale(&mut self, at: u32) {
        self.peers[at as usize].stale = true;
        self.unlink_all(at);
    }

    /// Removes a peer; the last one takes over its number.
    pub(super) fn remove(&mut self, at: u32) -> Peer {
        self.unlink_all(at);
        self.set_has(at, Has::Part);
        let last = self.peers.len() as u32 - 1;
        if at != last {
            let neighbours = self.peers[last as usize].links.clone();
            for neighbour in neighbours {
                for link in &mut self.peers[neighbour as usize].links {
                    if *link == last {
                        *link = at;
                    }
                }
            }
            self.by_addr.insert(self.peers[last as usize].addr, at);
            if self.origins.remove(&last) {
                self.origins.insert(at);
            }
        }
        let peer = self.peers.swap_remove(at as usize);
        self.by_addr.remove(&peer.addr);
        peer
    }

    /// Draws at most `wanted` peers for the peer `who` and links them to it. `lost` says that it
    /// came ahead of its schedule.
    pub(super) fn hand_out(
        &mut self,
        who: u32,
        wanted: usize,
        lost: bool,
        rng: &mut Rng,
    ) -> Vec<u32> {
        let me = &self.peers[who as usize];
        let wanted = match me.has {
            Has::Origin => wanted.min(SEED_KNOWN.saturating_sub(me.links.len())),
            Has::Part | Has::Completed => wanted.min(HANDOUT),
        };
        if wanted == 0 {
            return Vec::new();
        }
        let mut chosen = Vec::with_capacity(wanted);
        let me_is_origin = me.has == Has::Origin;
        if me.has == Has::Part {
            self.choose_origins(who, wanted, lost, rng, &mut chosen);
        }
        self.choose_others(who, wanted, rng, &mut chosen);
        if chosen.is_empty() && (lost || me_is_origin) {
            // It knows all there are and still wants some: perhaps its cable was out. An origin seed
            // also gets again who was only told of *it*, in case they cannot dial: Transmission
            // 3.00 tries µTP first, and does not get beyond that with those who do not speak it.
            let wants = |at: &u32| !me_is_origin || self.peers[*at as usize].has == Has::Part;
            let links = self.peers[who as usize].links.iter().rev();
            chosen.extend(links.copied().filter(wants).take(wanted));
        }
        for &other in &chosen {
            self.link(who, other);
        }
        chosen
    }

    fn choose_origins(
        &self,
        who: u32,
        wanted: usize,
        lost: bool,
        rng: &mut Rng,
        chosen: &mut Vec<u32>,
    ) {
        let links = &self.peers[who as usize].links;
        let cut_off = lost && !links.iter().any(|at| self.origins.contains(at));
        let known_max = if cut_off { SEED_RESCUE } else { SEED_KNOWN };
        let start = rng.below(self.peers.len()) as u32;
        let mut origins: Vec<u32> = self
            .origins
            .range(start..)
            .chain(self.origins.range(..start))
            .take(ORIGINS_SAMPLE)
            .copied()
            .filter(|&at| self.is_new_to(who, at))
            .filter(|&at| self.peers[at as usize].links.len() < known_max)
            .collect();
        origins.sort_by_key(|&at| self.peers[at as usize].stale);
        chosen.extend(origins.into_iter().take(wanted.div_ceil(2)));
    }

    /// Fills up with peers that are no origin seeds.
    fn choose_others(&self, who: u32, wanted: usize, rng: &mut Rng, chosen: &mut Vec<u32>) {
        let (mut part, mut completed, mut stale) = (Vec::new(), Vec::new(), Vec::new());
        for at in self.sample(rng) {
            let peer = &self.peers[at as usize];
            if peer.has == Has::Origin || !self.is_new_to(who, at) {
                continue;
            }
            match peer.has {
                Has::Completed if self.peers[who as usize].has != Has::Part => {}
                _ if peer.stale => stale.push(at),
                Has::Completed => completed.push(at),
                _ => part.push(at),
            }
        }
        let drawn = part.len() + completed.len();
        let share = (wanted * completed.len()).div_ceil(drawn.max(1));
        for kind in [&mut part, &mut completed] {
            kind.truncate(CHOICE);
            // Stable, and the sample is in random order: so are ties.
            kind.sort_by_key(|&at| self.peers[at as usize].links.len());
        }
        let room = (wanted / 2).saturating_sub(chosen.len());
        let spare = completed.split_off(share.min(room).min(completed.len()));
        for kind in [completed, part, spare, stale] {
            let room = wanted - chosen.len();
            chosen.extend(kind.into_iter().take(room));
        }
    }

    /// All peers, or [`SAMPLE`] of many (a few less if some are drawn twice), in random order.
    fn sample(&self, rng: &mut Rng) -> Vec<u32> {
        let len = self.peers.len();
        let mut sample: Vec<u32> = if len <= SAMPLE {
            (0..len as u32).collect()
        } else {
            (0..SAMPLE).map(|_| rng.below(len) as u32).collect()
        };
        sample.sort_unstable();
        sample.dedup();
        rng.shuffle(&mut sample);
        sample
    }

    /// Whether `who` can dial `other` and was not told of it before.
    fn is_new_to(&self, who: u32, other: u32) -> bool {
        let me = &self.peers[who as usize];
        who != other
            && can_dial(me.addr.ip(), self.peers[other as usize].addr.ip())
            && !me.links.contains(&other)
    }

    fn link(&mut self, a: u32, b: u32) {
        if self.peers[a as usize].links.contains(&b) {
            return;
        }
        for (one, other) in [(a, b), (b, a)] {
            if self.peers[one as usize].links.len() >= LINKS_KEPT {
                let oldest = self.peers[one as usize].links.remove(0);
                self.peers[oldest as usize].links.retain(|&at| at != one);
            }
            self.peers[one as usize].links.push(other);
        }
    }

    fn unlink_all(&mut self, at: u32) {
        for neighbour in std::mem::take(&mut self.peers[at as usize].links) {
            self.peers[neighbour as usize].links.retain(|&link| link != at);
        }
    }
}

/// A node with both families announces with each (BEP 7), so each family is a graph of its own. An
/// address on the tracker's loopback means something there only.
fn can_dial(from: IpAddr, to: IpAddr) -> bool {
    from.is_ipv4() == to.is_ipv4() && (from.is_loopback() || !to.is_loopback())
}

#[cfg(test)]
#[path = "handout_tests.rs"]
mod tests;
