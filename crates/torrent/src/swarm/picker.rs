//! Which unit to ask a peer for: rarest first, one unit from one peer.
//!
//! All the nodes start within seconds and the seed gives each unit to a single node first, so what
//! the neighbours have is different from the start and any choice but "in order" works (in order
//! costs twice the loss). Rarest first with random ties is kept because it repairs what deaths and
//! slow nodes leave behind: a unit with one holder is copied before that holder is gone.
//!
//! A unit is asked of one peer as a whole: its blocks then arrive in order, are verified soonest,
//! and one liar is to blame if the hash is wrong. Units that a peer left unfinished go first, since
//! nothing of them can be passed on until they are whole.

use std::collections::{BTreeMap, BTreeSet};

use super::io::PeerKey;
use crate::bitfield::Bitfield;
use crate::geometry::{Geometry, UnitIndex};

/// How many candidates a choice looks at. The best of 256 random ones is within half a percent of
/// the rarest, and a torrent of a million pieces costs no more to pick from than a small one.
const CANDIDATES_MAX: usize = 256;

/// How many peers may be asked for the same block at once. A third copy on the way has never helped
/// in simulation: each copy delays somebody else's first.
pub(super) const ASKERS_MAX: usize = 2;

/// What this peer has, what it is getting, and how common everything is.
#[derive(Debug)]
pub(super) struct Picker {
    have: Bitfield,
    /// Units that are being downloaded or verified.
    taken: Bitfield,
    /// How many connected peers have each unit.
    availability: Vec<u16>,
    partials: BTreeMap<UnitIndex, Partial>,
    /// Partials that nobody works on.
    released: BTreeSet<UnitIndex>,
}

/// A unit that is neither missing nor had.
#[derive(Debug)]
pub(super) struct Partial {
    pub(super) slots: Vec<Slot>,
    pub(super) state: PartialState,
}

/// Where a partial is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PartialState {
    /// Blocks are missing.
    Downloading,
    /// All blocks are here; the hashes to judge them are not.
    AwaitingHashes,
    /// The driver is hashing it.
    Verifying,
    /// It failed, and its blocks are being judged one by one.
    Judging,
}

/// One block of a partial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slot {
    /// To be asked for.
    Free,
    /// Asked of these peers.
    Asked([Option<PeerKey>; ASKERS_MAX]),
    /// Here, sent by the peer with this serial number.
    Received(u32),
}

impl Picker {
    pub(super) fn new(geometry: &Geometry, mut have: Bitfield) -> Self {
        let count = geometry.unit_count();
        assert!(have.len() == count, "a bitfield of {} for {count} units", have.len());
        for unit in (0..count).filter_map(|index| geometry.unit(index)) {
            if geometry.unit_data_len(unit) == 0 {
                have.insert(unit.0);
            }
        }
        Self {
            have,
            taken: Bitfield::new(count),
            availability: vec![0; count as usize],
            partials: BTreeMap::new(),
            released: BTreeSet::new(),
        }
    }

    pub(super) const fn have(&self) -> &Bitfield {
        &self.have
    }

    pub(super) fn has(&self, unit: UnitIndex) -> bool {
        self.have.contains(unit.0)
    }

    pub(super) const fn is_complete(&self) -> bool {
        self.have.is_full()
    }

    /// Whether the unit is missing and nobody works on it.
    pub(super) fn is_open(&self, unit: UnitIndex) -> bool {
        !self.have.contains(unit.0) && !self.taken.contains(unit.0)
    }

    /// Whether every missing unit is being worked on.
    pub(super) fn is_endgame(&self) -> bool {
        self.have.count() + self.taken.count() >= self.have.len()
    }

    pub(super) fn availability(&self, unit: UnitIndex) -> u16 {
        self.availability[unit.0 as usize]
    }

    pub(super) fn peer_gained(&mut self, unit: UnitIndex) {
        self.availability[unit.0 as usize] += 1;
    }

    pub(super) fn peer_lost(&mut self, unit: UnitIndex) {
        self.availability[unit.0 as usize] -= 1;
    }

    pub(super) fn partial(&self, unit: UnitIndex) -> Option<&Partial> {
        self.partials.get(&unit)
    }

    pub(super) fn partial_mut(&mut self, unit: UnitIndex) -> Option<&mut Partial> {
        self.partials.get_mut(&unit)
    }

    pub(super) fn partial_units(&self) -> impl Iterator<Item = UnitIndex> + '_ {
        self.partials.keys().copied()
    }

    /// Whether some unit was left unfinished by whoever was asked for it.
    pub(super) fn any_released(&self) -> bool {
        !self.released.is_empty()
    }

    /// Whether the unit was left unfinished.
    pub(super) fn is_released(&self, unit: UnitIndex) -> bool {
        self.released.contains(&unit)
    }

    /// Nothing is left to ask for of a unit that was left unfinished.
    pub(super) fn not_released(&mut self, unit: UnitIndex) {
        self.released.remove(&unit);
    }

    /// A unit left unfinished that `theirs` holds.
    pub(super) fn pick_released(&self, theirs: &Bitfield) -> Option<UnitIndex> {
        self.released.iter().copied().find(|unit| theirs.contains(unit.0))
    }

    /// The rarest open unit that `theirs` holds, ties at random.
    pub(super) fn pick(&self, theirs: &Bitfield, rng: &mut fastrand::Rng) -> Option<UnitIndex> {
        let start = rng.u32(..self.have.len());
        let mut best = None;
        let mut ties = 0;
        for index in theirs.iter_without(&self.have, &self.taken, start).take(CANDIDATES_MAX) {
            let availability = self.availability[index as usize];
            match best {
                Some((rarest, _)) if availability > rarest => {}
                Some((rarest, _)) if availability == rarest => {
                    ties += 1;
                    if rng.u32(..ties) == 0 {
                        best = Some((availability, index));
                    }
                }
                _ => {
                    ties = 1;
                    best = Some((availability, index));
                }
            }
        }
        best.map(|(_, index)| UnitIndex(index))
    }

    /// Begins, or takes up again, the download of a unit.
    pub(super) fn take(&mut self, unit: UnitIndex, blocks: u32) -> &mut Partial {
        self.taken.insert(unit.0);
        self.released.remove(&unit);
        self.partials.entry(unit).or_insert_with(|| Partial {
            slots: vec![Slot::Free; blocks as usize],
            state: PartialState::Downloading,
        })
    }

    /// Tidies up after slots of a unit became free: a unit of which nothing is here is open again
    /// (returns true); one of which something is here and that nobody works on is left for anybody.
    pub(super) fn release(&mut self, unit: UnitIndex) -> bool {
        let Some(partial) = self.partials.get(&unit) else {
            return false;
        };
        if partial.slots.iter().all(|slot| *slot == Slot::Free) {
            self.partials.remove(&unit);
            self.released.remove(&unit);
            self.taken.remove(unit.0);
            return true;
        }
        if partial.state == PartialState::Downloading && partial.slots.contains(&Slot::Free) {
            self.released.insert(unit);
        }
        false
    }

    /// The unit is verified.
    pub(super) fn finish(&mut self, unit: UnitIndex) {
        self.partials.remove(&unit);
        self.released.remove(&unit);
        self.taken.remove(unit.0);
        self.have.insert(unit.0);
    }
}

impl Partial {
    pub(super) fn first_free(&self) -> Option<u32> {
        if self.state != PartialState::Downloading {
            return None;
        }
        self.slots.iter().position(|slot| *slot == Slot::Free).map(|at| at as u32)
    }

    pub(super) fn is_whole(&self) -> bool {
        self.slots.iter().all(|slot| matches!(slot, Slot::Received(_)))
    }

    /// Notes that `peer` was asked for a block; at most [`ASKERS_MAX`] may be.
    pub(super) fn ask(&mut self, index: u32, peer: PeerKey) {
        let slot = &mut self.slots[index as usize];
        match slot {
            Slot::Free => *slot = Slot::Asked([Some(peer), None]),
            Slot::Asked(askers) => {
                if let Some(place) = askers.iter_mut().find(|asker| asker.is_none()) {
                    *place = Some(peer);
                }
            }
            Slot::Received(_) => {}
        }
    }

    /// Notes that `peer` will not send a block; says whether nobody else will.
    pub(super) fn unask(&mut self, index: u32, peer: PeerKey) -> bool {
        let slot = &mut self.slots[index as usize];
        let Slot::Asked(askers) = slot else {
            return false;
        };
        for asker in askers.iter_mut().filter(|asker| **asker == Some(peer)) {
            *asker = None;
        }
        if askers.iter().all(Option::is_none) {
            *slot = Slot::Free;
            return true;
        }
        false
    }

    /// Serial numbers of the peers that sent its blocks, each once.
    pub(super) fn senders(&self) -> BTreeSet<u32> {
        self.slots
            .iter()
            .filter_map(|slot| match slot {
                Slot::Received(serial) => Some(*serial),
                _ => None,
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::BLOCK_LEN;

    fn units(picture: &str) -> Bitfield {
        let mut units = Bitfield::new(picture.len() as u32);
        for (index, _) in picture.chars().enumerate().filter(|(_, unit)| *unit != '.') {
            units.insert(index as u32);
        }
        units
    }

    /// A picker that has the units `#`, is getting those marked `x` (nothing of them is here) and
    /// `r` (released), and whose peers have each unit so many times.
    fn picker(ours: &str, holders: &str) -> Picker {
        let count = ours.len() as u64;
        let geometry =
            Geometry::contiguous(count * u64::from(2 * BLOCK_LEN), 2 * BLOCK_LEN, 2 * BLOCK_LEN)
                .unwrap();
        let mut picker = Picker::new(&geometry, units(&ours.replace(['x', 'r'], ".")));
        for (index, holders) in holders.chars().enumerate() {
            for _ in 0..holders.to_digit(10).unwrap() {
                picker.peer_gained(UnitIndex(index as u32));
            }
        }
        for (index, state) in ours.chars().enumerate() {
            let unit = UnitIndex(index as u32);
            if state == 'x' {
                picker.take(unit, 2);
            } else if state == 'r' {
                picker.take(unit, 2).slots[0] = Slot::Received(1);
                picker.release(unit);
            }
        }
        picker
    }

    /// All units that may be picked over many random seeds.
    fn check(ours: &str, holders: &str, theirs: &str, expect: &[u32]) {
        let picker = picker(ours, holders);
        let picked: BTreeSet<u32> = (0..200)
            .filter_map(|seed| {
                picker.pick(&units(theirs), &mut fastrand::Rng::with_seed(seed)).map(UnitIndex::get)
            })
            .collect();
        assert!(picked.iter().eq(expect), "{picked:?} instead of {expect:?}");
    }

    #[test]
    fn rarest_is_picked_and_ties_are_random() {
        check("....", "3121", "####", &[1, 3]);
        check("....", "2222", "####", &[0, 1, 2, 3]);
    }

    #[test]
    fn only_what_they_have_and_nobody_is_getting_is_picked() {
        check("....", "3121", "#.#.", &[2]);
        check(".x.#", "3121", "####", &[2]);
        check(".x.#", "3121", ".#.#", &[]);
        check("r...", "1222", "##..", &[1]);
    }

    #[test]
    fn released_unit_is_found_apart() {
        let picker = picker("xr.r", "1111");
        assert_eq!(picker.pick_released(&units("####")), Some(UnitIndex(1)));
        assert_eq!(picker.pick_released(&units("#.##")), Some(UnitIndex(3)));
        assert_eq!(picker.pick_released(&units("#.#.")), None);
    }

    #[test]
    fn unit_of_which_nothing_is_here_opens_when_released() {
        let mut picker = picker("x", "1");
        assert!(!picker.is_open(UnitIndex(0)));
        assert!(picker.release(UnitIndex(0)));
        assert!(picker.is_open(UnitIndex(0)));
    }

    #[test]
    fn block_has_two_askers_at_most() {
        let mut picker = picker("x", "3");
        let partial = picker.partial_mut(UnitIndex(0)).unwrap();
        for key in 0..3 {
            partial.ask(1, PeerKey(key));
        }
        assert_eq!(partial.slots[1], Slot::Asked([Some(PeerKey(0)), Some(PeerKey(1))]));
        assert!(!partial.unask(1, PeerKey(0)));
        assert!(partial.unask(1, PeerKey(1)));
        assert_eq!(partial.slots[1], Slot::Free);
    }
}
