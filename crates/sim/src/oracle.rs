//! What must hold in every run, checked apart from the code that is to hold it.

use std::collections::{BTreeMap, BTreeSet};

use torrent::swarm::Verdict;
use torrent::{Bitfield, Block, Geometry, UnitIndex};

/// The truth about one node's bytes.
#[derive(Debug)]
pub(crate) struct Bytes {
    verified: Bitfield,
    /// Blocks stored since the unit was last begun: number within the unit, and whether corrupt.
    stored: BTreeMap<UnitIndex, BTreeSet<(u32, bool)>>,
}

impl Bytes {
    pub(crate) fn new(geometry: &Geometry, full: bool) -> Self {
        let count = geometry.unit_count();
        Self {
            verified: if full { Bitfield::full(count) } else { Bitfield::new(count) },
            stored: BTreeMap::new(),
        }
    }

    /// A block was stored.
    pub(crate) fn store(&mut self, geometry: &Geometry, block: Block, corrupt: bool) {
        let (unit, index) = geometry.locate(block).expect("only our own requests are stored");
        assert!(!self.verified.contains(unit.get()), "a verified unit was written to");
        let stored = self.stored.entry(unit).or_default();
        stored.remove(&(index, !corrupt));
        stored.insert((index, corrupt));
    }

    /// What hashing the unit would say.
    pub(crate) fn verify(&mut self, geometry: &Geometry, unit: UnitIndex) -> Verdict {
        let stored = self.stored.entry(unit).or_default();
        assert!(
            stored.len() as u32 == geometry.block_count(unit),
            "unit {} was to be hashed before it was whole",
            unit.get()
        );
        if stored.iter().any(|&(_, corrupt)| corrupt) {
            return Verdict::Corrupt;
        }
        self.stored.remove(&unit);
        self.verified.insert(unit.get());
        Verdict::Good
    }

    /// The corrupt blocks of a unit that failed.
    pub(crate) fn judge(&self, unit: UnitIndex) -> Vec<u32> {
        let stored = self.stored.get(&unit).into_iter().flatten();
        stored.filter(|(_, corrupt)| *corrupt).map(|(index, _)| *index).collect()
    }

    /// A block is about to be served.
    pub(crate) fn serve(&self, geometry: &Geometry, block: Block) {
        let unit = geometry.unit_at(block.piece, block.offset).expect("a range of the torrent");
        assert!(self.verified.contains(unit.get()), "unit {} served unverified", unit.get());
    }

    /// Whether all data is here and right.
    pub(crate) fn is_complete(&self, geometry: &Geometry) -> bool {
        (0..geometry.unit_count())
            .filter_map(|index| geometry.unit(index))
            .all(|unit| geometry.unit_data_len(unit) == 0 || self.verified.contains(unit.get()))
    }
}
