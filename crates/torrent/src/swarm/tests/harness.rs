//! One swarm, a clock that the test turns, and peers that say what the test makes them say.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::swarm::{
    Config, Direction, Input, Output, PeerKey, PeerTraits, Role, Standing, Swarm, Urgency, Verdict,
};
use crate::wire::Message;
use crate::{BLOCK_LEN, Bitfield, Block, Geometry, Time, UnitIndex};

pub(super) const A: PeerKey = PeerKey(0);
pub(super) const B: PeerKey = PeerKey(1);
pub(super) const C: PeerKey = PeerKey(2);

/// A peer of our own make.
pub(super) const OWN: PeerTraits = PeerTraits { peer_id: [0; 20], fast: true, own: true, v2: true };

/// A peer that speaks BEP 3 and nothing else.
pub(super) const PLAIN: PeerTraits =
    PeerTraits { peer_id: [0; 20], fast: false, own: false, v2: false };

pub(super) struct Harness {
    pub(super) swarm: Swarm,
    pub(super) now: Time,
    /// What came out and was not looked at.
    pub(super) out: Vec<Output>,
}

impl Harness {
    /// A node that has the units of `have`, of as many units of `blocks` blocks as it is long:
    /// `#` is had, `.` is missing.
    pub(super) fn leech(have: &str, blocks: u32) -> Self {
        Self::new(have, blocks, Role::Leech)
    }

    pub(super) fn seed(units: usize, blocks: u32) -> Self {
        Self::new(&"#".repeat(units), blocks, Role::Seed)
    }

    fn new(have: &str, blocks: u32, role: Role) -> Self {
        let unit_len = blocks * BLOCK_LEN;
        let len = have.len() as u64 * u64::from(unit_len);
        let geometry = Geometry::contiguous(len, unit_len, unit_len).unwrap();
        let mut units = Bitfield::new(geometry.unit_count());
        for (index, _) in have.chars().enumerate().filter(|(_, unit)| *unit == '#') {
            units.insert(index as u32);
        }
        let swarm = Swarm::new(Config {
            peer_id: [7; 20],
            geometry,
            role,
            have: units,
            unit_hashes_known: true,
            commit_min_blocks: 2,
            random_seed: 1,
        });
        let mut harness = Self { swarm, now: Time::ZERO, out: vec![] };
        harness.give(Input::Tick);
        harness
    }

    pub(super) fn give(&mut self, input: Input) {
        self.swarm.handle(self.now, input);
        self.out.extend(std::iter::from_fn(|| self.swarm.poll()));
    }

    /// Lets time pass, with the ticks that the swarm asks for.
    pub(super) fn pass(&mut self, millis: u64) {
        let end = self.now + Duration::from_millis(millis);
        while self.swarm.next_timeout() <= end {
            self.now = self.now.max(self.swarm.next_timeout());
            self.give(Input::Tick);
        }
        self.now = end;
    }

    pub(super) fn connect(&mut self, peer: PeerKey, traits: PeerTraits) {
        let traits = PeerTraits { peer_id: [100 + peer.0 as u8; 20], ..traits };
        let (addr, direction) = (addr(peer), Direction::Incoming);
        self.give(Input::Connected { peer, addr, direction, traits, standing: Standing::Stranger });
    }

    /// Connects a peer that has these units (pieces) and serves us.
    pub(super) fn connect_holder(&mut self, peer: PeerKey, have: &str) {
        self.connect(peer, OWN);
        let mut units = Bitfield::new(have.len() as u32);
        for (index, _) in have.chars().enumerate().filter(|(_, unit)| *unit == '#') {
            units.insert(index as u32);
        }
        self.say(peer, Message::Bitfield(units.encode()));
        self.say(peer, Message::Unchoke);
    }

    /// Connects one of ours that has nothing and wants everything.
    pub(super) fn connect_own_leech(&mut self, peer: PeerKey) {
        self.connect(peer, OWN);
        self.say(peer, Message::HaveNone);
        self.say(peer, Message::Interested);
        let unit_len = Some(self.swarm.geometry.unit_len());
        let upload_only = false;
        self.give(Input::ExtendedHandshake {
            peer,
            unit_len,
            request_queue_len: None,
            upload_only,
        });
    }

    pub(super) fn say(&mut self, peer: PeerKey, message: Message) {
        self.give(Input::Message { peer, message });
    }

    pub(super) fn unit(&self, unit: u32) -> UnitIndex {
        self.swarm.geometry.unit(unit).unwrap()
    }

    pub(super) fn block(&self, unit: u32, index: u32) -> Block {
        self.swarm.geometry.block(self.unit(unit), index)
    }

    pub(super) fn send_block(&mut self, peer: PeerKey, unit: u32, index: u32) {
        let block = self.block(unit, index);
        self.give(Input::Block { peer, block });
    }

    pub(super) fn verified(&mut self, unit: u32, verdict: Verdict) {
        let unit = self.unit(unit);
        self.give(Input::Verified { unit, verdict });
    }

    /// Everything that came out since the last look.
    pub(super) fn look(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.out)
    }

    /// The blocks that were asked of a peer since the last look, as (unit, number in it).
    pub(super) fn requests(&mut self, to: PeerKey) -> Vec<(u32, u32)> {
        let asked = self.look().into_iter().filter_map(|output| match output {
            Output::Send { peer, message: Message::Request(block), .. } if peer == to => {
                Some(block)
            }
            _ => None,
        });
        asked
            .filter_map(|block| self.swarm.geometry.locate(block))
            .map(|(unit, index)| (unit.get(), index))
            .collect()
    }

    /// The messages to a peer since the last look.
    pub(super) fn messages(&mut self, to: PeerKey) -> Vec<Message> {
        self.look()
            .into_iter()
            .filter_map(|output| match output {
                Output::Send { peer, message, .. } if peer == to => Some(message),
                _ => None,
            })
            .collect()
    }

    /// `have`s since the last look: to whom, of which piece, how urgent.
    pub(super) fn haves(&mut self) -> Vec<(PeerKey, u32, Urgency)> {
        self.look()
            .into_iter()
            .filter_map(|output| match output {
                Output::Send { peer, message: Message::Have(piece), urgency } => {
                    Some((peer, piece, urgency))
                }
                _ => None,
            })
            .collect()
    }

    /// The figures that the swarm keeps, counted anew, and the limits of what strangers can fill.
    pub(super) fn check(&self) {
        let swarm = &self.swarm;
        let windowed: u32 = swarm.peers().map(super::super::peer::Peer::windowed).sum();
        assert_eq!(swarm.windowed, windowed, "requests in the window");
        let unsent: u64 = swarm.peers().map(|peer| peer.unsent).sum();
        assert_eq!(swarm.unsent, unsent, "bytes committed");
        for peer in swarm.peers() {
            let wanted = peer.have.iter().filter_map(|index| swarm.geometry.unit(index));
            let wanted = wanted.filter(|&unit| swarm.picker.is_open(unit)).count();
            assert_eq!(peer.wanted as usize, wanted, "what {:?} could send", peer.key);
            let by_reveal = peer.outstanding.iter().filter(|request| request.by_reveal).count();
            assert_eq!(peer.outstanding_reveals as usize, by_reveal);
            assert!(peer.queue.len() <= super::super::REQUEST_QUEUE_MAX);
            assert!(peer.outstanding.len() <= super::super::REQUEST_QUEUE_MAX);
        }
        for unit in (0..swarm.geometry.unit_count()).filter_map(|index| swarm.geometry.unit(index))
        {
            let holders = swarm.peers().filter(|peer| peer.have.contains(unit.get())).count();
            assert_eq!(usize::from(swarm.picker.availability(unit)), holders, "holders of a unit");
        }
        for unit in swarm.picker.partial_units() {
            swarm.check_partial(unit);
        }
        assert!(swarm.slots.len() <= super::super::PEERS_MAX);
        assert!(swarm.addrs.len() <= super::super::ADDRS_MAX);
        assert!(swarm.former.len() <= super::super::ADDRS_MAX);
    }
}

impl Swarm {
    /// A unit that is begun goes on: each missing block is asked of somebody, or can be.
    fn check_partial(&self, unit: UnitIndex) {
        use crate::swarm::picker::{PartialState, Slot};
        let Some(partial) = self.picker.partial(unit) else { return };
        if partial.state != PartialState::Downloading {
            return;
        }
        let worked_on = self.peers().any(|peer| peer.current == Some(unit));
        assert!(
            !partial.slots.contains(&Slot::Free) || worked_on || self.picker.is_released(unit),
            "unit {} is begun and nobody goes on with it",
            unit.get()
        );
        for (index, slot) in partial.slots.iter().enumerate() {
            let Slot::Asked(askers) = slot else { continue };
            for key in askers.iter().flatten() {
                let asked = self.peer(*key).is_some_and(|peer| {
                    peer.outstanding.iter().any(|o| o.unit == unit && o.index == index as u32)
                });
                assert!(asked, "{key:?} is to send a block that it was not asked for");
            }
        }
    }
}

pub(super) fn addr(peer: PeerKey) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::from_bits(0x0a00_0001 + peer.0).into(), 6881)
}
