//! Who is to blame for corrupt data, and whom to ask for the hashes that tell.
//!
//! A unit comes from one peer as a rule, so a wrong hash names the liar. When two or more have sent
//! blocks of it, the blocks are judged one by one: with v2 by leaf hashes asked from another peer
//! (BEP 52), so that the good blocks stay; with v1 the unit is taken again and what differs from the
//! verified bytes was corrupt.
//!
//! The hashes of units come from peers too, and peers may not have them (a hybrid torrent's v1 peers)
//! or not say. Then the blocks of a whole piece tell them, once all are here: see
//! [`Input::PieceFailed`](super::Input::PieceFailed) for when they do not.

use std::collections::BTreeMap;

use super::Swarm;
use super::io::{Output, PeerKey};
use super::picker::{Partial, PartialState, Slot};
use crate::bitfield::Bitfield;
use crate::geometry::{PieceIndex, UnitIndex};
use crate::time::Time;

/// Failed units of several senders that are remembered until they verify.
const SUSPECTS_MAX: usize = 64;

/// Hash requests under way at once: each is answered in a round trip and covers a piece.
const HASH_REQUESTS_MAX: usize = 64;

/// What is known of hashes, and who is suspected.
#[derive(Debug)]
pub(super) struct Trust {
    /// Pieces whose unit hashes are known; `None` if they all are from the start.
    known: Option<Bitfield>,
    asked: BTreeMap<PieceIndex, PeerKey>,
    /// Serial numbers of who sent each block of a unit that failed.
    suspects: BTreeMap<UnitIndex, Vec<u32>>,
    /// Failed units whose blocks are being judged, and by whose hashes.
    judges: BTreeMap<UnitIndex, PeerKey>,
}

impl Trust {
    pub(super) fn new(known: Option<Bitfield>) -> Self {
        Self { known, asked: BTreeMap::new(), suspects: BTreeMap::new(), judges: BTreeMap::new() }
    }
}

impl Swarm {
    pub(super) fn hashes_known(&self, piece: PieceIndex) -> bool {
        self.trust.known.as_ref().is_none_or(|known| known.contains(piece.get()))
    }

    pub(super) fn note_hashes_known(&mut self, piece: PieceIndex) {
        self.trust.asked.remove(&piece);
        if let Some(known) = &mut self.trust.known {
            known.insert(piece.get());
        }
    }

    /// Asks for the hashes of a piece when its first unit is asked for.
    pub(super) fn want_hashes(&mut self, key: PeerKey, piece: PieceIndex) {
        if self.hashes_known(piece)
            || self.trust.asked.contains_key(&piece)
            || self.trust.asked.len() >= HASH_REQUESTS_MAX
        {
            return;
        }
        let able = |peer: &&super::peer::Peer| peer.traits.v2 && peer.said_anything;
        let peer = match self.peer(key).filter(|peer| peer.traits.v2) {
            Some(_) => key,
            None => match self.peers().find(able) {
                Some(peer) => peer.key,
                None => return,
            },
        };
        self.trust.asked.insert(piece, peer);
        self.out.push_back(Output::RequestHashes { peer, piece });
    }

    pub(super) fn hash_source_lost(&mut self, key: PeerKey) {
        self.trust.asked.retain(|_, asked| *asked != key);
        let units = self.trust.judges.iter().filter(|(_, judge)| **judge == key);
        for unit in units.map(|(unit, _)| *unit).collect::<Vec<_>>() {
            self.trust.judges.remove(&unit);
            self.take_again(unit);
        }
    }

    pub(super) fn on_hashes_failed(&mut self, key: PeerKey, piece: PieceIndex, lied: bool) {
        self.trust.asked.remove(&piece);
        let judged: Vec<UnitIndex> = self
            .geometry
            .units_of(piece)
            .filter(|unit| self.trust.judges.get(unit) == Some(&key))
            .collect();
        for unit in judged {
            self.trust.judges.remove(&unit);
            self.take_again(unit);
        }
        let serial = self.peer(key).map(|peer| peer.serial);
        if lied && let Some(serial) = serial {
            self.ban(serial);
        } else if let Some(peer) = self.peer_mut(key) {
            // It cannot be asked again; its blocks are as good as any.
            peer.traits.v2 = false;
        }
        self.ask_missing_hashes();
    }

    /// Asks again for hashes that units are waiting for.
    pub(super) fn ask_missing_hashes(&mut self) {
        if self.trust.known.is_none() {
            return;
        }
        let source = self.peers().find(|peer| peer.traits.v2 && peer.said_anything);
        let Some(source) = source.map(|peer| peer.key) else { return };
        let waiting: Vec<PieceIndex> =
            self.picker.partial_units().map(|unit| self.geometry.piece_of(unit)).collect();
        for piece in waiting {
            self.want_hashes(source, piece);
        }
    }

    /// All of a piece is here, and it is not what its hash says; those of its units are not known.
    pub(super) fn on_piece_failed(&mut self, piece: PieceIndex) {
        let units: Vec<UnitIndex> = self
            .geometry
            .units_of(piece)
            .filter(|&unit| {
                self.picker
                    .partial(unit)
                    .is_some_and(|partial| partial.state == PartialState::AwaitingHashes)
            })
            .collect();
        let mut senders: Vec<u32> = vec![];
        for &unit in &units {
            senders.extend(self.picker.partial(unit).into_iter().flat_map(Partial::senders));
            self.take_again(unit);
        }
        senders.sort_unstable();
        senders.dedup();
        if let [liar] = senders[..] {
            for unit in units {
                self.trust.suspects.remove(&unit);
            }
            self.ban(liar);
        }
    }

    pub(super) fn unit_failed(&mut self, _now: Time, unit: UnitIndex) {
        let Some(partial) = self.picker.partial(unit) else {
            return;
        };
        let senders = partial.senders();
        if let Some(&liar) = senders.first()
            && senders.len() == 1
        {
            self.wasted += u64::from(self.geometry.unit_data_len(unit));
            self.reset(unit);
            self.ban(liar);
            return;
        }
        let judge = self
            .peers()
            .filter(|peer| peer.traits.v2 && peer.have.contains(unit.get()))
            .min_by_key(|peer| senders.contains(&peer.serial))
            .map(|peer| peer.key);
        match judge {
            Some(peer) if self.geometry.block_count(unit) > 1 => {
                if let Some(partial) = self.picker.partial_mut(unit) {
                    partial.state = PartialState::Judging;
                }
                self.trust.judges.insert(unit, peer);
                self.out.push_back(Output::RequestJudgement { peer, unit });
            }
            _ => self.take_again(unit),
        }
    }

    /// Remembers who sent what, and takes all of the unit again.
    fn take_again(&mut self, unit: UnitIndex) {
        self.wasted += u64::from(self.geometry.unit_data_len(unit));
        if let Some(partial) = self.picker.partial(unit)
            && self.trust.suspects.len() < SUSPECTS_MAX
        {
            let senders = partial
                .slots
                .iter()
                .map(|slot| if let Slot::Received(serial) = slot { *serial } else { 0 })
                .collect();
            self.trust.suspects.insert(unit, senders);
        }
        self.reset(unit);
    }

    /// Throws away all blocks of a unit.
    fn reset(&mut self, unit: UnitIndex) {
        if let Some(partial) = self.picker.partial_mut(unit) {
            partial.slots.fill(Slot::Free);
            partial.state = PartialState::Downloading;
        }
        if self.picker.release(unit) {
            self.unit_opened(unit);
        }
        self.may_request = true;
    }

    /// The judgement of a failed unit's blocks has come.
    pub(super) fn on_judged(&mut self, unit: UnitIndex, corrupt: &[u32]) {
        let mut liars: Vec<u32> = vec![];
        self.trust.judges.remove(&unit);
        if let Some(senders) = self.trust.suspects.remove(&unit) {
            liars.extend(corrupt.iter().filter_map(|&index| senders.get(index as usize)));
        } else if let Some(partial) = self.picker.partial_mut(unit)
            && partial.state == PartialState::Judging
        {
            partial.state = PartialState::Downloading;
            for &index in corrupt {
                if let Some(slot) = partial.slots.get_mut(index as usize) {
                    self.wasted += u64::from(self.geometry.block(unit, index).len);
                    if let Slot::Received(serial) = *slot {
                        liars.push(serial);
                    }
                    *slot = Slot::Free;
                }
            }
            if partial.is_whole() {
                // Nobody is to blame by these hashes, yet the unit was wrong: take it all again.
                self.wasted += u64::from(self.geometry.unit_data_len(unit));
                self.reset(unit);
            } else if self.picker.release(unit) {
                self.unit_opened(unit);
            }
        }
        liars.sort_unstable();
        liars.dedup();
        for liar in liars.into_iter().filter(|&liar| liar != 0) {
            self.ban(liar);
        }
        self.may_request = true;
    }
}
