//! What the bytes of a torrent must hash to, and the BEP 52 messages that tell more of it.
//!
//! The trust rule: where there are v2 hashes, only they count. SHA-1 is asked only for a v1-only
//! torrent, which has nothing else. Hashing itself is the caller's; here hashes are compared.
//!
//! With v2 the metainfo has a hash for each piece. A unit that is smaller than a piece gets its
//! hash from a peer (`hashes` messages, each proved by the hash of the piece) or, on a peer that has
//! the data, from the data itself.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::bitfield::Bitfield;
use crate::geometry::{BLOCK_LEN, Geometry, PieceIndex, UnitIndex};
use crate::merkle::{self, Hash, Tree};
use crate::wire::HashRange;

use super::{FileTree, Metainfo, PieceSha1};

/// What hashes say of data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// It is right.
    Good,
    /// It is wrong.
    Corrupt,
    /// Nobody can tell yet: the hash of this unit was not learned, or a SHA-1 was offered for a
    /// torrent that has better.
    Unknown,
}

/// Why the hashes of a `hashes` message are not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HashesError {
    /// The range is none that [`PieceHashes::hash_requests`] or [`PieceHashes::leaf_request`] asks
    /// for.
    #[error("these hashes were not asked for")]
    Unasked,
    /// They do not lead to the hash that is known: whoever sent them lied.
    #[error("the hashes do not prove")]
    NotProved,
}

/// Which hashes to ask a peer for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// Those of units: the least that is needed. For peers of our own make.
    Units,
    /// Those of blocks, of which those of units are computed. For others: BEP 52 requires clients
    /// to tell no layers but those of blocks and pieces.
    Blocks,
}

/// What to do about a `hash request` from a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Send `hashes` with these.
    Hashes(Vec<Hash>),
    /// If all these units are verified: hash their blocks and call
    /// [`PieceHashes::answer_with_leaves`]. If not, reject.
    NeedLeaves(UnitRun),
    /// Send `hash reject`.
    Reject,
}

/// Units that follow one another within one piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnitRun {
    first: UnitIndex,
    count: u32,
}

impl UnitRun {
    /// The units, ascending; those past the end of the data have none.
    pub fn iter(self) -> impl Iterator<Item = UnitIndex> {
        (self.first.0..self.first.0 + self.count).map(UnitIndex)
    }
}

/// The hashes of one torrent, as far as they are known.
#[derive(Clone, Debug)]
pub struct PieceHashes {
    geometry: Geometry,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    V1(Vec<PieceSha1>),
    V2(V2Hashes),
}

#[derive(Clone, Debug)]
struct V2Hashes {
    /// The files with data, in the order of their pieces.
    files: Vec<FileHashes>,
    /// Number of the layer with one hash for each whole piece.
    piece_layer: u32,
    /// Number of the layer with one hash for each whole unit.
    unit_layer: u32,
    /// For pieces of more than one unit: the hashes of their units with data.
    learned: BTreeMap<u32, Vec<Option<Hash>>>,
    /// Pieces of which all unit hashes are known.
    known: Bitfield,
}

#[derive(Clone, Debug)]
struct FileHashes {
    first_piece: u32,
    root: Hash,
    /// From the root down to `base_layer`.
    tree: Tree,
    /// The layer of the hashes that the metainfo has: that of pieces, or that of the root if the
    /// file is shorter than a piece.
    base_layer: u32,
}

/// Where a piece lies in its file's tree.
struct Place<'a> {
    file: &'a FileHashes,
    /// Number of the piece within the file.
    index: u32,
    /// The layer of unit hashes in this file: lower than elsewhere if the file is shorter than a
    /// unit, as its tree ends earlier.
    unit_layer: u32,
}

impl PieceHashes {
    /// The hashes that the metainfo has, for relaying in the units of `geometry`.
    pub(super) fn new(metainfo: &Metainfo, geometry: Geometry) -> Self {
        let kind = match (&metainfo.v2, &metainfo.v1) {
            (Some(v2), _) => Kind::V2(V2Hashes::new(metainfo, &v2.trees, &geometry)),
            (None, Some(v1)) => Kind::V1(v1.pieces.clone()),
            (None, None) => unreachable!("decoding refuses metainfo without a side"),
        };
        Self { geometry, kind }
    }

    /// Whether SHA-256 decides ([`Self::verify_unit`]), and not SHA-1
    /// ([`Self::verify_piece_v1`]).
    #[must_use]
    pub const fn has_v2(&self) -> bool {
        matches!(self.kind, Kind::V2(_))
    }

    /// Whether every unit of `piece` can be verified.
    #[must_use]
    pub fn knows(&self, piece: PieceIndex) -> bool {
        match &self.kind {
            Kind::V1(_) => true,
            Kind::V2(v2) => v2.known.contains(piece.0),
        }
    }

    /// The root of the subtree over a unit, if known; `None` in a v1-only torrent.
    #[must_use]
    pub fn unit_hash(&self, unit: UnitIndex) -> Option<Hash> {
        let Kind::V2(v2) = &self.kind else {
            return None;
        };
        let piece = self.geometry.piece_of(unit);
        let place = v2.place(piece);
        let at = unit.0 % self.geometry.units_per_piece();
        if place.unit_layer == place.file.base_layer {
            return (at == 0).then(|| place.hash())?;
        }
        let units = v2.learned.get(&piece.0)?;
        *units.get(at as usize)?
    }

    /// Judges a unit by the hashes of its blocks, one for each ([`merkle::hash_blocks`] of its
    /// data). A unit without data is good.
    #[must_use]
    pub fn verify_unit(&self, unit: UnitIndex, leaves: &[Hash]) -> Check {
        let Kind::V2(v2) = &self.kind else {
            return Check::Unknown;
        };
        if leaves.len() != self.geometry.block_count(unit) as usize {
            return Check::Corrupt;
        }
        if leaves.is_empty() {
            return Check::Good;
        }
        let Some(expect) = self.unit_hash(unit) else {
            return Check::Unknown;
        };
        let layers = v2.place(self.geometry.piece_of(unit)).unit_layer;
        match merkle::root(leaves, 0, layers) == expect {
            true => Check::Good,
            false => Check::Corrupt,
        }
    }

    /// Judges a piece of a v1-only torrent by the SHA-1 of its data. If there are v2 hashes this
    /// says [`Check::Unknown`], whatever the SHA-1.
    #[must_use]
    pub fn verify_piece_v1(&self, piece: PieceIndex, sha1: &PieceSha1) -> Check {
        match &self.kind {
            Kind::V1(pieces) if pieces[piece.0 as usize] == *sha1 => Check::Good,
            Kind::V1(_) => Check::Corrupt,
            Kind::V2(_) => Check::Unknown,
        }
    }

    /// What the hashes of a whole piece's blocks must lead to: what the metainfo has of it; `None`
    /// in a v1-only torrent.
    #[must_use]
    pub fn piece_hash(&self, piece: PieceIndex) -> Option<Hash> {
        match &self.kind {
            Kind::V1(_) => None,
            Kind::V2(v2) => v2.place(piece).hash(),
        }
    }

    /// Judges a whole piece by the hashes of all its blocks ([`merkle::hash_blocks`] of its data),
    /// whether or not those of its units are known. [`Check::Unknown`] in a v1-only torrent.
    #[must_use]
    pub fn verify_piece(&self, piece: PieceIndex, leaves: &[Hash]) -> Check {
        let Kind::V2(v2) = &self.kind else {
            return Check::Unknown;
        };
        let place = v2.place(piece);
        let blocks = self.geometry.piece_data_len(piece).div_ceil(BLOCK_LEN);
        if leaves.len() == blocks as usize
            && Some(merkle::root(leaves, 0, place.file.base_layer)) == place.hash()
        {
            Check::Good
        } else {
            Check::Corrupt
        }
    }

    /// Judges a whole piece by the hashes of all its blocks, and if it is good learns the hashes of
    /// its units: how a peer that begins with data comes to know them.
    pub fn learn_leaves(&mut self, piece: PieceIndex, leaves: &[Hash]) -> Check {
        let check = self.verify_piece(piece, leaves);
        let Kind::V2(v2) = &mut self.kind else {
            return check;
        };
        if check != Check::Good {
            return check;
        }
        let place = v2.place(piece);
        if place.unit_layer < place.file.base_layer {
            let unit_layer = place.unit_layer;
            let units = leaves
                .chunks(1 << unit_layer)
                .map(|unit| Some(merkle::root(unit, 0, unit_layer)))
                .collect();
            v2.learned.insert(piece.0, units);
            v2.known.insert(piece.0);
        }
        Check::Good
    }

    /// What to ask a peer for, so that all units of `piece` can be verified: nothing if they can.
    #[must_use]
    pub fn hash_requests(&self, piece: PieceIndex, by: By) -> Vec<HashRange> {
        let Kind::V2(v2) = &self.kind else {
            return vec![];
        };
        if v2.known.contains(piece.0) {
            return vec![];
        }
        let place = v2.place(piece);
        let (root, index) = (place.file.root, place.index);
        let base_layer = match by {
            By::Units => place.unit_layer,
            By::Blocks => 0,
        };
        let layers = place.file.base_layer - base_layer;
        // A range holds at least one unit, or no unit could be told from it.
        let len =
            (1 << layers).min(merkle::REQUEST_HASHES_MAX).max(1 << (place.unit_layer - base_layer));
        let range_layers = len.trailing_zeros();
        // To the hash of the piece; without uncles there is nothing to ask for.
        let proof_layers = if range_layers == layers { 0 } else { layers - 1 };
        let range_bytes = len * (BLOCK_LEN << base_layer);
        (0..1u32 << (layers - range_layers))
            // Past the end of the data there are only pads.
            .filter(|at| at * range_bytes < self.geometry.piece_data_len(piece))
            .map(|at| HashRange {
                pieces_root: root,
                base_layer,
                index: (index << layers) + at * len,
                len,
                proof_layers,
            })
            .collect()
    }

    /// Takes the hashes of a `hashes` message that answers one of [`Self::hash_requests`]. Returns
    /// the pieces whose units all became known by it: two or more if files are the same.
    ///
    /// # Errors
    /// If it is no such answer, or the hashes are not proved by the hash of the piece.
    pub fn learn(
        &mut self,
        range: &HashRange,
        hashes: &[Hash],
    ) -> Result<Vec<PieceIndex>, HashesError> {
        let Kind::V2(v2) = &mut self.kind else {
            return Err(HashesError::Unasked);
        };
        let proved = merkle::climb(range, hashes).ok_or(HashesError::Unasked)?;
        // From blocks to units, if it was blocks that were asked for.
        let layers = match range.base_layer {
            layer if layer == v2.unit_layer => 0,
            0 if range.len >= 1 << v2.unit_layer => v2.unit_layer,
            _ => return Err(HashesError::Unasked),
        };
        let mut pieces = vec![];
        for file in v2.files.iter().filter(|file| file.root == range.pieces_root) {
            // Files that end below have their hashes in the metainfo.
            if proved.layer != file.base_layer || file.base_layer <= v2.unit_layer {
                return Err(HashesError::Unasked);
            }
            let index = u32::try_from(proved.index).map_err(|_| HashesError::Unasked)?;
            match file.tree.layer(file.base_layer).get(index as usize) {
                None => return Err(HashesError::Unasked),
                Some(hash) if *hash != proved.hash => return Err(HashesError::NotProved),
                Some(_) => pieces.push(PieceIndex(file.first_piece + index)),
            }
        }
        if pieces.is_empty() {
            return Err(HashesError::Unasked);
        }
        let units: Vec<Hash> = hashes[..range.len as usize]
            .chunks(1 << layers)
            .map(|unit| merkle::root(unit, range.base_layer, layers))
            .collect();
        let first = (range.index >> layers) % self.geometry.units_per_piece();
        pieces.retain(|&piece| v2.store(&self.geometry, piece, first, &units));
        Ok(pieces)
    }

    /// What to ask a peer for, so that the blocks of a corrupt unit can be judged one by one.
    /// `None` if the unit is one block and so its own judge, or in a v1-only torrent.
    #[must_use]
    pub fn leaf_request(&self, unit: UnitIndex) -> Option<HashRange> {
        let Kind::V2(v2) = &self.kind else {
            return None;
        };
        let piece = self.geometry.piece_of(unit);
        let place = v2.place(piece);
        (place.unit_layer > 0).then(|| HashRange {
            pieces_root: place.file.root,
            base_layer: 0,
            index: (place.index << v2.piece_layer) + self.geometry.unit_offset(unit) / BLOCK_LEN,
            len: 1 << place.unit_layer,
            proof_layers: 0,
        })
    }

    /// Numbers within the unit of the blocks whose hashes in `got` differ from the right ones, which
    /// a peer sent in answer to [`Self::leaf_request`].
    ///
    /// # Errors
    /// If the peer's hashes do not lead to the hash of the unit.
    pub fn judge(
        &self,
        unit: UnitIndex,
        right: &[Hash],
        got: &[Hash],
    ) -> Result<Vec<u32>, HashesError> {
        let request = self.leaf_request(unit).ok_or(HashesError::Unasked)?;
        let proved = merkle::climb(&request, right).ok_or(HashesError::Unasked)?;
        if Some(proved.hash) != self.unit_hash(unit) {
            return Err(HashesError::NotProved);
        }
        let blocks = 0..self.geometry.block_count(unit);
        Ok(blocks.filter(|&at| got.get(at as usize) != Some(&right[at as usize])).collect())
    }

    /// What to do about a peer's `hash request`.
    #[must_use]
    pub fn answer(&self, range: &HashRange) -> Answer {
        let Kind::V2(v2) = &self.kind else {
            return Answer::Reject;
        };
        let Some(file) = v2.file_of(range) else {
            return Answer::Reject;
        };
        if let Some(hashes) = v2.prove(file, range, None) {
            return Answer::Hashes(hashes);
        }
        // With leaves, all of one piece can be told, or of one unit if its hash is known.
        let piece_layer = file.base_layer;
        let top = range.base_layer + range.len.trailing_zeros();
        if merkle::hash_count(range).is_none() || top > piece_layer {
            return Answer::Reject;
        }
        let index = (u64::from(range.index) << range.base_layer) >> piece_layer;
        let piece = u64::from(file.first_piece) + index;
        if index >= file.tree.layer(piece_layer).len() as u64 {
            return Answer::Reject;
        }
        let piece = PieceIndex(piece as u32);
        let first = piece.0 * self.geometry.units_per_piece();
        let run = if top <= v2.unit_layer && v2.known.contains(piece.0) {
            let at = (range.index << range.base_layer) % (1 << v2.piece_layer);
            UnitRun { first: UnitIndex(first + (at >> v2.unit_layer)), count: 1 }
        } else {
            UnitRun { first: UnitIndex(first), count: self.geometry.units_per_piece() }
        };
        Answer::NeedLeaves(run)
    }

    /// The hashes for a peer's `hash request`, with the leaves that [`Answer::NeedLeaves`] asked
    /// for. `None` if they do not suffice: reject.
    #[must_use]
    pub fn answer_with_leaves(
        &self,
        range: &HashRange,
        run: UnitRun,
        leaves: &[Hash],
    ) -> Option<Vec<Hash>> {
        let Kind::V2(v2) = &self.kind else {
            return None;
        };
        let file = v2.file_of(range)?;
        let blocks: u32 = run.iter().map(|unit| self.geometry.block_count(unit)).sum();
        if leaves.len() != blocks as usize {
            return None;
        }
        let piece = self.geometry.piece_of(run.first);
        let index = u64::from(piece.0.checked_sub(file.first_piece)?);
        let offset = u64::from(self.geometry.unit_offset(run.first) / BLOCK_LEN);
        let start = (index << v2.piece_layer) + offset;
        let given =
            Leaves { span: start..start + (u64::from(run.count) << v2.unit_layer), hashes: leaves };
        v2.prove(file, range, Some(given))
    }
}

/// The leaves of some blocks of a file.
struct Leaves<'a> {
    /// Numbers of the blocks within the file, those past its end included.
    span: Range<u64>,
    /// One for each block with data.
    hashes: &'a [Hash],
}

impl V2Hashes {
    fn new(metainfo: &Metainfo, trees: &[FileTree], geometry: &Geometry) -> Self {
        let piece_layer = (geometry.piece_len() / BLOCK_LEN).trailing_zeros();
        let unit_layer = (geometry.unit_len() / BLOCK_LEN).trailing_zeros();
        let files: Vec<FileHashes> = metainfo
            .layout()
            .files()
            .iter()
            .zip(trees)
            .filter(|(file, _)| !file.is_empty())
            .map(|(file, tree)| {
                let height = merkle::height(file.len().div_ceil(u64::from(BLOCK_LEN)));
                let base_layer = height.min(piece_layer);
                FileHashes {
                    // Within the count of pieces, which is a u32.
                    first_piece: (file.start() / u64::from(geometry.piece_len())) as u32,
                    root: tree.root,
                    tree: Tree::new(tree.pieces.clone(), base_layer),
                    base_layer,
                }
            })
            .collect();
        let mut known = Bitfield::new(geometry.piece_count());
        for file in files.iter().filter(|file| file.base_layer <= unit_layer) {
            let count = file.tree.layer(file.base_layer).len() as u32;
            (file.first_piece..file.first_piece + count).for_each(|piece| {
                known.insert(piece);
            });
        }
        Self { files, piece_layer, unit_layer, learned: BTreeMap::new(), known }
    }

    fn place(&self, piece: PieceIndex) -> Place<'_> {
        let after = self.files.partition_point(|file| file.first_piece <= piece.0);
        // Piece 0 begins the first file with data, and there is one.
        let file = &self.files[after - 1];
        Place {
            file,
            index: piece.0 - file.first_piece,
            unit_layer: self.unit_layer.min(file.base_layer),
        }
    }

    fn file_of(&self, range: &HashRange) -> Option<&FileHashes> {
        self.files.iter().find(|file| file.root == range.pieces_root)
    }

    /// Keeps proved hashes of the units of `piece` from number `first` on; says whether all became
    /// known by it.
    fn store(
        &mut self,
        geometry: &Geometry,
        piece: PieceIndex,
        first: u32,
        hashes: &[Hash],
    ) -> bool {
        let count = geometry.piece_data_len(piece).div_ceil(geometry.unit_len()) as usize;
        let units = self.learned.entry(piece.0).or_insert_with(|| vec![None; count]);
        for (unit, hash) in units.iter_mut().skip(first as usize).zip(hashes) {
            *unit = Some(*hash);
        }
        units.iter().all(Option::is_some) && self.known.insert(piece.0)
    }

    fn prove(
        &self,
        file: &FileHashes,
        range: &HashRange,
        leaves: Option<Leaves<'_>>,
    ) -> Option<Vec<Hash>> {
        merkle::prove(range, file.tree.top_layer(), |layer, index| {
            self.node(file, layer, index, leaves.as_ref())
        })
    }

    /// A node of a file's tree, from whatever is known: the metainfo, hashes of units, or leaves.
    fn node(
        &self,
        file: &FileHashes,
        layer: u32,
        index: u64,
        leaves: Option<&Leaves<'_>>,
    ) -> Option<Hash> {
        if layer >= file.base_layer {
            return file.tree.node(layer, index);
        }
        let below_piece = file.base_layer - layer;
        let piece = index >> below_piece;
        if piece >= file.tree.layer(file.base_layer).len() as u64 {
            // Only pads: whole pieces past the end of the file.
            let in_tree = piece < 1 << (file.tree.top_layer() - file.base_layer);
            return in_tree.then(|| merkle::pad(layer));
        }
        if layer >= self.unit_layer
            && self.known.contains(file.first_piece + piece as u32)
            && let Some(units) = self.learned.get(&(file.first_piece + piece as u32))
        {
            let layers = layer - self.unit_layer;
            let first = (index % (1 << below_piece)) << layers;
            let hashes: Option<Vec<Hash>> = part(units, first, layers).iter().copied().collect();
            return Some(merkle::root(&hashes?, self.unit_layer, layers));
        }
        let leaves = leaves?;
        let first = index << layer;
        leaves.span.contains(&first).then(|| {
            let hashes = part(leaves.hashes, first - leaves.span.start, layer);
            merkle::root(hashes, 0, layer)
        })
    }
}

impl Place<'_> {
    fn hash(&self) -> Option<Hash> {
        let pieces = self.file.tree.layer(self.file.base_layer);
        pieces.get(self.index as usize).copied()
    }
}

/// The 2^`layers` items from `first` on, as far as they are there.
fn part<T>(items: &[T], first: u64, layers: u32) -> &[T] {
    let len = items.len() as u64;
    let from = first.min(len);
    let to = (first + (1 << layers)).min(len);
    &items[from as usize..to as usize]
}
