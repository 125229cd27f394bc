//! The SHA-256 trees of BEP 52: one per file, over 16 KiB blocks.
//!
//! Layer 0 is the layer of blocks, each layer above has half as many hashes, and the root stands
//! alone. A tree is as wide as the file's blocks rounded up to a power of two; a leaf past the end
//! of the file is 32 zero bytes, so a node that covers only such leaves has a value known to all
//! ([`pad`]). Trees, proofs and their check are here; which file or piece they belong to is not.

use sha2::{Digest, Sha256};

use crate::wire::HashRange;

/// A node of a tree, or a leaf: SHA-256.
pub type Hash = [u8; 32];

/// More layers than any tree of ours has above its leaves: 2^40 blocks are 16 PiB.
pub const LAYERS_MAX: u32 = 40;

/// The leaf of one block of data, at most [`BLOCK_LEN`](crate::BLOCK_LEN) bytes.
#[must_use]
pub fn hash_block(data: &[u8]) -> Hash {
    Sha256::digest(data).into()
}

/// The leaves of a run of data that starts at a block: a hash for every 16 KiB, the last may be
/// shorter.
#[must_use]
pub fn hash_blocks(data: &[u8]) -> Vec<Hash> {
    data.chunks(crate::BLOCK_LEN as usize).map(hash_block).collect()
}

/// The node above two.
#[must_use]
pub fn hash_pair(left: &Hash, right: &Hash) -> Hash {
    let mut both = [0; 64];
    both[..32].copy_from_slice(left);
    both[32..].copy_from_slice(right);
    Sha256::digest(both).into()
}

/// The node of layer `layer` under which all leaves lie past the end of the file.
#[must_use]
pub fn pad(layer: u32) -> Hash {
    (0..layer).fold([0; 32], |below, _| hash_pair(&below, &below))
}

/// How many layers a tree of `leaf_count` leaves has above them.
#[must_use]
pub const fn height(leaf_count: u64) -> u32 {
    leaf_count.next_power_of_two().trailing_zeros()
}

/// The root of the subtree over 2^`layers` neighbours of layer `base_layer`, of which the first are
/// `hashes` and the rest pads. With no `hashes` it is the pad itself.
///
/// # Panics
/// If there are more hashes than that.
#[must_use]
pub fn root(hashes: &[Hash], base_layer: u32, layers: u32) -> Hash {
    assert!(hashes.len() as u64 <= 1 << layers);
    let mut row = hashes.to_vec();
    let mut filler = pad(base_layer);
    for _ in 0..layers {
        row = row_above(&row, &filler);
        filler = hash_pair(&filler, &filler);
    }
    row.first().copied().unwrap_or(filler)
}

fn row_above(row: &[Hash], filler: &Hash) -> Vec<Hash> {
    row.chunks(2).map(|pair| hash_pair(&pair[0], pair.get(1).unwrap_or(filler))).collect()
}

/// The known upper part of a tree: all layers from a base layer to the root. Pads are not stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    base_layer: u32,
    rows: Vec<Vec<Hash>>,
}

impl Tree {
    /// The tree above `hashes`, which are all of layer `base_layer` that are not pads.
    ///
    /// # Panics
    /// If there are no hashes.
    #[must_use]
    pub fn new(hashes: Vec<Hash>, base_layer: u32) -> Self {
        assert!(!hashes.is_empty());
        let mut filler = pad(base_layer);
        let mut rows = vec![];
        let mut row = hashes;
        while row.len() > 1 {
            let above = row_above(&row, &filler);
            filler = hash_pair(&filler, &filler);
            rows.push(std::mem::replace(&mut row, above));
        }
        rows.push(row);
        Self { base_layer, rows }
    }

    /// The root.
    #[must_use]
    pub fn root(&self) -> Hash {
        self.rows[self.rows.len() - 1][0]
    }

    /// The number of the root's layer.
    #[must_use]
    pub const fn top_layer(&self) -> u32 {
        self.base_layer + self.rows.len() as u32 - 1
    }

    /// The hashes of a layer that are not pads; nothing for a layer that is not known or not there.
    #[must_use]
    pub fn layer(&self, layer: u32) -> &[Hash] {
        layer
            .checked_sub(self.base_layer)
            .and_then(|at| self.rows.get(at as usize))
            .map_or(&[], Vec::as_slice)
    }

    /// Node `index` of layer `layer`, pads included; `None` outside the tree or below its base.
    #[must_use]
    pub fn node(&self, layer: u32, index: u64) -> Option<Hash> {
        let row = self.layer(layer);
        if row.is_empty() || index >= 1 << (self.top_layer() - layer) {
            return None;
        }
        let at = usize::try_from(index).ok()?;
        Some(row.get(at).copied().unwrap_or_else(|| pad(layer)))
    }

    /// What a `hashes` message for `range` carries (BEP 52): the hashes of the range, then the
    /// uncle hashes upwards. `None` if the tree does not know them or the range is malformed.
    #[must_use]
    pub fn prove(&self, range: &HashRange) -> Option<Vec<Hash>> {
        prove(range, self.top_layer(), |layer, index| self.node(layer, index))
    }
}

/// As [`Tree::prove`], for a tree with its root in layer `top_layer` whose nodes (layer, index) are
/// known in some other way.
#[must_use]
pub fn prove(
    range: &HashRange,
    top_layer: u32,
    node: impl Fn(u32, u64) -> Option<Hash>,
) -> Option<Vec<Hash>> {
    let shape = RangeShape::new(range)?;
    let subtree_layer = range.base_layer + shape.layers;
    let subtree_index = u64::from(range.index) >> shape.layers;
    if subtree_layer + shape.uncle_count > top_layer {
        return None;
    }
    let base =
        (0..u64::from(range.len)).map(|at| node(range.base_layer, u64::from(range.index) + at));
    let uncles =
        (0..shape.uncle_count).map(|up| node(subtree_layer + up, (subtree_index >> up) ^ 1));
    base.chain(uncles).collect()
}

/// A node that a `hashes` message leads to: right if the receiver knows it to be so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proved {
    /// Its layer.
    pub layer: u32,
    /// Its place in the layer.
    pub index: u64,
    /// Its hash, as the message has it.
    pub hash: Hash,
}

/// Computes the node that the hashes of a message lead to (BEP 52: the range, then uncles). The
/// range is proved if that node is known and equal. `None` if their number is not what the range
/// asks for or the range is malformed.
#[must_use]
pub fn climb(range: &HashRange, hashes: &[Hash]) -> Option<Proved> {
    let shape = RangeShape::new(range)?;
    let (base, uncles) = hashes.split_at_checked(range.len as usize)?;
    if uncles.len() != shape.uncle_count as usize {
        return None;
    }
    let mut layer = range.base_layer + shape.layers;
    let mut index = u64::from(range.index) >> shape.layers;
    let mut hash = root(base, range.base_layer, shape.layers);
    for uncle in uncles {
        hash =
            if index.is_multiple_of(2) { hash_pair(&hash, uncle) } else { hash_pair(uncle, &hash) };
        layer += 1;
        index /= 2;
    }
    Some(Proved { layer, index, hash })
}

/// How many hashes a `hashes` message for `range` carries; `None` if the range is malformed.
#[must_use]
pub fn hash_count(range: &HashRange) -> Option<usize> {
    let shape = RangeShape::new(range)?;
    Some(range.len as usize + shape.uncle_count as usize)
}

/// The most hashes of one request (BEP 52: "length SHOULD NOT be greater than 512").
pub const REQUEST_HASHES_MAX: u32 = 512;

/// The most hashes of one request that we answer: a piece of
/// [`PIECE_LEN_MAX`](crate::geometry::PIECE_LEN_MAX) has this many blocks.
pub const ANSWER_HASHES_MAX: u32 = 8192;

/// What follows from a range's numbers.
struct RangeShape {
    /// Layers between the range and the root of the subtree over it.
    layers: u32,
    /// Uncle hashes: the proof layers count from the range, and those within the subtree are
    /// omitted, as they can be computed.
    uncle_count: u32,
}

impl RangeShape {
    fn new(range: &HashRange) -> Option<Self> {
        let sound = range.len.is_power_of_two()
            && (2..=ANSWER_HASHES_MAX).contains(&range.len)
            && range.index.is_multiple_of(range.len)
            && range.base_layer <= LAYERS_MAX
            && range.proof_layers <= LAYERS_MAX;
        let layers = range.len.trailing_zeros();
        sound.then(|| Self { layers, uncle_count: range.proof_layers.saturating_sub(layers - 1) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hex(hash: &[u8]) -> String {
        hash.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn leaves(count: u32) -> Vec<Hash> {
        (0..count).map(|at| hash_block(&at.to_be_bytes())).collect()
    }

    fn range(base_layer: u32, index: u32, len: u32, proof_layers: u32) -> HashRange {
        HashRange { pieces_root: [0; 32], base_layer, index, len, proof_layers }
    }

    #[test]
    fn pads_are_hashes_of_zero_leaves() {
        assert_eq!(pad(0), [0; 32]);
        assert_eq!(
            hex(&pad(1)),
            "f5a5fd42d16a20302798ef6ed309979b43003d2320d9f0e8ea9831a92759fb4b"
        );
        assert_eq!(
            hex(&pad(2)),
            "db56114e00fdd4c1f85c892bf35ac9a89289aaecb1ebd0a96cde606a748b5d71"
        );
        assert_eq!(root(&[], 0, 5), pad(5));
    }

    #[test]
    fn odd_leaves_are_padded_with_zeros() {
        let l = leaves(3);
        let by_hand = hash_pair(&hash_pair(&l[0], &l[1]), &hash_pair(&l[2], &[0; 32]));
        assert_eq!(root(&l, 0, 2), by_hand);
        let tree = Tree::new(l, 0);
        assert_eq!(tree.root(), by_hand);
        assert_eq!(tree.top_layer(), 2);
        assert_eq!(tree.node(0, 3), Some([0; 32]));
        assert_eq!(tree.node(0, 4), None);
        assert_eq!(tree.node(3, 0), None);
    }

    #[test]
    fn one_block_is_its_own_root() {
        let leaf = hash_block(b"x");
        assert_eq!(Tree::new(vec![leaf], 0).root(), leaf);
        assert_eq!(height(1), 0);
        assert_eq!(height(5), 3);
    }

    #[test]
    fn omitted_proof_layers_still_count() {
        // BEP 52: of the proof layers the first log2(length) - 1 are omitted.
        let tree = Tree::new(leaves(16), 0);
        assert_eq!(tree.prove(&range(0, 4, 4, 0)).unwrap().len(), 4);
        assert_eq!(tree.prove(&range(0, 4, 4, 1)).unwrap().len(), 4);
        assert_eq!(tree.prove(&range(0, 4, 4, 2)).unwrap().len(), 5);
        assert_eq!(tree.prove(&range(0, 4, 4, 3)).unwrap().len(), 6);
        assert_eq!(tree.prove(&range(0, 4, 4, 4)), None);
    }

    #[test]
    fn malformed_ranges_are_refused() {
        let tree = Tree::new(leaves(16), 0);
        for bad in [
            range(0, 0, 3, 0),
            range(0, 0, 1, 0),
            range(0, 0, 0, 0),
            range(0, 2, 4, 0),
            range(0, 16, 4, 0),
            range(0, 0, 32, 0),
            range(5, 0, 2, 0),
            range(0, 0, 16384, 0),
            range(u32::MAX, 0, 2, 0),
            range(0, 0, 2, u32::MAX),
        ] {
            assert_eq!(tree.prove(&bad), None, "{bad:?}");
        }
        assert_eq!(climb(&range(0, 0, 3, 0), &leaves(3)), None);
        assert_eq!(climb(&range(0, 0, 4, 0), &leaves(3)), None);
        assert_eq!(climb(&range(0, 0, 4, 0), &leaves(5)), None);
    }

    proptest! {
        #[test]
        fn proofs_lead_to_the_root(
            count in 2u32..70, base in 0u32..4, log_len in 1u32..4, at in any::<u32>(),
        ) {
            let tree = Tree::new(leaves(count), 0);
            let upper = Tree::new(tree.layer(base.min(tree.top_layer())).to_vec(), base);
            prop_assume!(base + log_len <= tree.top_layer());
            let slots = 1 << (tree.top_layer() - base - log_len);
            let range = range(base, (at % slots) << log_len, 1 << log_len,
                tree.top_layer() - base - 1);
            let hashes = tree.prove(&range).unwrap();
            prop_assert_eq!(upper.prove(&range), Some(hashes.clone()));
            prop_assert_eq!(hash_count(&range), Some(hashes.len()));
            let top = Proved { layer: tree.top_layer(), index: 0, hash: tree.root() };
            prop_assert_eq!(climb(&range, &hashes), Some(top));
            for lie in 0..hashes.len() {
                let mut hashes = hashes.clone();
                hashes[lie][0] ^= 1;
                prop_assert_ne!(climb(&range, &hashes), Some(top));
            }
        }
    }
}
