//! Units lent to web seeds (BEP 19): when, and how they come in. What to ask for in one request is
//! the driver's plan; HTTP itself is the driver's too.
//!
//! Peers first. What peers bring costs the lab nothing, as each of them has an uplink of its own;
//! each byte over HTTP comes out of one server's. So a web seed is due only when the swarm fails:
//! nothing has come for [`QUIET`], whatever the reason; or nothing has come for [`STARVED`] and no
//! connected peer has anything that we lack, so that nothing will come. A node that is alone with a
//! web seed so loses a third of a second once, and then nothing stops it; a thousand that start
//! together do not all fetch the same first megabyte while they are still finding one another, nor
//! whenever one of them has run ahead of its neighbours for a moment. Once peers deliver, what is
//! under way is finished, as its bytes are already coming, and nothing more is begun.
//!
//! A lent unit is one that is taken: peers are not asked for it, not in the endgame either. A server
//! that stalls is left by the driver within seconds, and gives the unit back.
//!
//! A web seed is trusted as little as a peer: its blocks are marked with a serial number of its own,
//! and [`Output::WebSeedLied`] is what a ban is to a peer.

use std::ops::Range;
use std::time::Duration;

use super::Swarm;
use super::io::{Output, PeerKey};
use super::picker::{PartialState, Slot};
use crate::bitfield::Bitfield;
use crate::geometry::{Block, UnitIndex};
use crate::time::Time;

/// The most web seeds of a torrent: mirrors of one image in a lab are two or three.
pub const WEB_SEEDS_MAX: u32 = 16;

/// Silence after which the swarm counts as failed, though there are peers that have what we lack:
/// what it takes to notice a dead peer ([`super::stall`]) and to ask the next.
const QUIET: Duration = Duration::from_millis(1500);

/// Silence that is enough where nobody has anything for us. A tracker's answer, a dial and a first
/// block take some ten milliseconds on a LAN.
const STARVED: Duration = Duration::from_millis(300);

/// Web seeds count down from the top, where no connection and no serial number ever is.
const fn key(web_seed: u32) -> PeerKey {
    PeerKey(u32::MAX - web_seed)
}

/// The web seed of a serial number, if it is that of one.
pub(super) const fn web_seed_of(serial: u32) -> Option<u32> {
    let web_seed = u32::MAX - serial;
    if web_seed < WEB_SEEDS_MAX { Some(web_seed) } else { None }
}

impl Swarm {
    /// Whether web seeds are to be asked now for what is left.
    #[must_use]
    pub fn is_web_seed_due(&self, now: Time) -> bool {
        if self.is_complete() {
            return false;
        }
        let quiet = self.brought_at.map_or(Duration::ZERO, |at| now - at);
        let useful = || {
            self.peers().any(|peer| !peer.chokes_us && peer.have.has_more_than(self.picker.have()))
        };
        quiet >= QUIET || (quiet >= STARVED && !useful())
    }

    /// The units that are missing and that nobody is asked for.
    #[must_use]
    pub fn lendable(&self) -> Bitfield {
        let count = self.geometry.unit_count();
        let mut units = Bitfield::new(count);
        for unit in (0..count).filter_map(|index| self.geometry.unit(index)) {
            if self.is_lendable(unit) {
                units.insert(unit.get());
            }
        }
        units
    }

    fn is_lendable(&self, unit: UnitIndex) -> bool {
        match self.picker.partial(unit) {
            Some(partial) => {
                partial.first_free().is_some()
                    && !partial.slots.iter().any(|slot| matches!(slot, Slot::Asked(_)))
            }
            None => self.picker.is_open(unit),
        }
    }

    /// Leaves units to web seed number `web_seed`, below [`WEB_SEEDS_MAX`], until it has sent them or
    /// [`Self::give_back`] is called. Of `units` those are meant that are lendable. To be followed by
    /// [`Input::Tick`](super::Input::Tick).
    pub fn lend(&mut self, web_seed: u32, units: Range<u32>) {
        let key = key(web_seed);
        for index in units {
            let Some(unit) = self.geometry.unit(index) else { break };
            if !self.is_lendable(unit) {
                continue;
            }
            self.take(key, unit);
            if let Some(partial) = self.picker.partial_mut(unit) {
                while let Some(index) = partial.first_free() {
                    partial.ask(index, key);
                }
            }
        }
    }

    /// A web seed will send no more of these units. To be followed by
    /// [`Input::Tick`](super::Input::Tick).
    pub fn give_back(&mut self, web_seed: u32, units: Range<u32>) {
        for index in units {
            let Some(unit) = self.geometry.unit(index) else { break };
            let Some(partial) = self.picker.partial_mut(unit) else { continue };
            let mut freed = false;
            for index in 0..partial.slots.len() as u32 {
                freed |= partial.unask(index, key(web_seed));
            }
            if freed && self.picker.release(unit) {
                self.unit_opened(unit);
            }
        }
        self.may_request = true;
    }

    /// Whether a block that has just arrived from a web seed is to be stored.
    #[must_use]
    pub fn wants_lent(&self, web_seed: u32, block: Block) -> bool {
        let Some((unit, index)) = self.geometry.locate(block) else {
            return false;
        };
        self.picker.partial(unit).is_some_and(|partial| {
            partial.state == PartialState::Downloading
                && matches!(partial.slots[index as usize],
                    Slot::Asked(askers) if askers.contains(&Some(key(web_seed))))
        })
    }

    /// A block of a web seed is being stored, or was not wanted.
    pub(super) fn on_lent_block(&mut self, web_seed: u32, block: Block) {
        self.downloaded += u64::from(block.len);
        self.download_rate.add(u64::from(block.len));
        if !self.wants_lent(web_seed, block) {
            self.wasted += u64::from(block.len);
            return;
        }
        let Some((unit, index)) = self.geometry.locate(block) else { return };
        let Some(partial) = self.picker.partial_mut(unit) else { return };
        let received = Slot::Received(key(web_seed).0);
        let before = std::mem::replace(&mut partial.slots[index as usize], received);
        let whole = partial.is_whole();
        if let Slot::Asked(askers) = before {
            for other in askers.into_iter().flatten() {
                self.cancel(other, unit, index);
            }
        }
        if whole {
            self.unit_is_whole(unit);
        }
    }

    /// A web seed sent corrupt data.
    pub(super) fn web_seed_lied(&mut self, web_seed: u32) {
        self.out.push_back(Output::WebSeedLied { web_seed });
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Config, Direction, Input, PeerTraits, Role, Standing, Verdict};
    use super::*;
    use crate::geometry::Geometry;
    use crate::wire::Message;

    /// Eight units of two blocks.
    fn swarm() -> Swarm {
        let mut swarm = Swarm::new(Config {
            peer_id: [1; 20],
            geometry: Geometry::contiguous(8 * 32_768, 32_768, 32_768).unwrap(),
            role: Role::Leech,
            have: Bitfield::new(8),
            unit_hashes_known: true,
            commit_min_blocks: 2,
            random_seed: 1,
        });
        feed(&mut swarm, 0, Input::Tick);
        swarm
    }

    fn at(millis: u64) -> Time {
        Time::from_nanos(millis * 1_000_000)
    }

    fn feed(swarm: &mut Swarm, millis: u64, input: Input) -> Vec<Output> {
        swarm.handle(at(millis), input);
        std::iter::from_fn(|| swarm.poll()).collect()
    }

    /// A foreign seed, which is asked for things as soon as it unchokes.
    fn connect(swarm: &mut Swarm, millis: u64) {
        let traits = PeerTraits { peer_id: [2; 20], fast: true, own: false, v2: false };
        let (peer, addr) = (PeerKey(0), "10.0.0.1:1".parse().unwrap());
        let direction = Direction::Incoming;
        feed(
            swarm,
            millis,
            Input::Connected { peer, addr, direction, traits, standing: Standing::Stranger },
        );
        for message in [Message::HaveAll, Message::Unchoke] {
            feed(swarm, millis, Input::Message { peer, message });
        }
    }

    fn lent_block(piece: u32, offset: u32) -> Input {
        Input::LentBlock { web_seed: 3, block: Block { piece, offset, len: 16_384 } }
    }

    #[test]
    fn web_seeds_wait_for_peers_to_fail() {
        let mut swarm = swarm();
        assert!(!swarm.is_web_seed_due(at(299)));
        assert!(swarm.is_web_seed_due(at(300)), "nobody is there");
        connect(&mut swarm, 200);
        assert!(!swarm.is_web_seed_due(at(1_499)), "somebody may yet send");
        assert!(swarm.is_web_seed_due(at(1_500)), "and does not");
    }

    #[test]
    fn web_seeds_are_left_alone_once_peers_deliver() {
        let mut swarm = swarm();
        connect(&mut swarm, 2_000);
        assert!(swarm.is_web_seed_due(at(2_000)));
        let (unit, index) = (0..8)
            .flat_map(|unit| [(unit, 0), (unit, 1)])
            .find(|&(unit, index)| {
                let partial = swarm.picker.partial(swarm.geometry.unit(unit).unwrap());
                partial.is_some_and(|partial| matches!(partial.slots[index], Slot::Asked(_)))
            })
            .unwrap();
        let block = Block { piece: unit, offset: index as u32 * 16_384, len: 16_384 };
        feed(&mut swarm, 2_100, Input::Block { peer: PeerKey(0), block });
        assert!(!swarm.is_web_seed_due(at(3_599)));
        assert!(swarm.is_web_seed_due(at(3_600)));
    }

    #[test]
    fn lent_units_are_asked_of_nobody_else() {
        let mut swarm = swarm();
        swarm.lend(3, 0..7);
        assert_eq!(swarm.lendable().iter().collect::<Vec<_>>(), [7]);
        connect(&mut swarm, 10);
        assert!(swarm.lendable().is_empty());
        assert_eq!(swarm.windowed, 2);
        swarm.give_back(3, 0..2);
        feed(&mut swarm, 50, Input::Tick);
        assert_eq!(swarm.windowed, 6);
    }

    #[test]
    fn what_came_before_a_web_seed_broke_off_is_kept() {
        let mut swarm = swarm();
        swarm.lend(3, 0..8);
        assert!(feed(&mut swarm, 10, lent_block(0, 0)).is_empty());
        swarm.give_back(3, 0..8);
        assert_eq!(swarm.lendable().count(), 8);
        swarm.lend(3, 0..8);
        assert!(!swarm.wants_lent(3, Block { piece: 0, offset: 0, len: 16_384 }));
        let unit = swarm.geometry.unit(0).unwrap();
        assert_eq!(feed(&mut swarm, 20, lent_block(0, 16_384)), [Output::Verify { unit }]);
    }

    #[test]
    fn blocks_that_were_not_lent_are_waste() {
        let mut swarm = swarm();
        assert!(feed(&mut swarm, 10, lent_block(0, 0)).is_empty());
        swarm.lend(2, 0..8);
        assert!(feed(&mut swarm, 10, lent_block(0, 0)).is_empty());
        assert_eq!(swarm.stats().wasted, 32_768);
    }

    #[test]
    fn a_web_seed_is_to_blame_for_what_it_sent_alone() {
        let mut swarm = swarm();
        swarm.lend(3, 0..8);
        for offset in [0, 16_384] {
            feed(&mut swarm, 10, lent_block(0, offset));
        }
        let (unit, verdict) = (swarm.geometry.unit(0).unwrap(), Verdict::Corrupt);
        let found = feed(&mut swarm, 20, Input::Verified { unit, verdict });
        assert_eq!(found, [Output::WebSeedLied { web_seed: 3 }]);
        assert!(swarm.lendable().contains(0));
    }
}
