//! Two peers: one has the data and tells hashes, the other begins with the metainfo alone.

use proptest::prelude::*;

use super::*;
use crate::geometry::{PieceIndex, UnitIndex};
use crate::wire::HashRange;

struct Fixture {
    metainfo: Metainfo,
    geometry: Geometry,
}

impl Fixture {
    /// A v2 torrent in units of `unit_len`, whatever the policy says.
    fn new(files: &[(&str, u64)], piece_len: u32, unit_len: u32) -> Self {
        let metainfo = decoded(folder(files), Format::V2, piece_len);
        let policy = metainfo.geometry();
        let short = (0..policy.piece_count())
            .map(|piece| (piece, policy.piece_data_len(policy.piece(piece).unwrap())))
            .filter(|&(_, len)| len < piece_len)
            .collect();
        let count = u64::from(policy.piece_count());
        let geometry = Geometry::new(u64::from(piece_len), count, unit_len, short).unwrap();
        Self { metainfo, geometry }
    }

    fn empty(&self) -> PieceHashes {
        PieceHashes::new(&self.metainfo, self.geometry.clone())
    }

    fn full(&self) -> PieceHashes {
        let mut hashes = self.empty();
        for piece in self.pieces() {
            assert_eq!(hashes.learn_leaves(piece, &self.leaves(piece)), Check::Good);
            assert!(hashes.knows(piece));
        }
        hashes
    }

    fn pieces(&self) -> impl Iterator<Item = PieceIndex> {
        (0..self.geometry.piece_count()).map(PieceIndex)
    }

    fn leaves(&self, piece: PieceIndex) -> Vec<Hash> {
        hash_blocks(&piece_data(self.metainfo.layout(), &self.geometry, piece.get()))
    }

    fn unit_leaves(&self, unit: UnitIndex) -> Vec<Hash> {
        let leaves = self.leaves(self.geometry.piece_of(unit));
        let first = (self.geometry.unit_offset(unit) / BLOCK_LEN) as usize;
        let count = self.geometry.block_count(unit) as usize;
        leaves.into_iter().skip(first).take(count).collect()
    }

    /// Answers as a driver does that has all data.
    fn answer(&self, hashes: &PieceHashes, range: &HashRange) -> Option<Vec<Hash>> {
        match hashes.answer(range) {
            Answer::Hashes(answer) => Some(answer),
            Answer::NeedLeaves(run) => {
                let leaves: Vec<Hash> =
                    run.iter().flat_map(|unit| self.unit_leaves(unit)).collect();
                hashes.answer_with_leaves(range, run, &leaves)
            }
            Answer::Reject => None,
        }
    }

    fn check_all_units(&self, hashes: &PieceHashes, expect: Check) {
        for unit in (0..self.geometry.unit_count()).map(UnitIndex) {
            if self.geometry.block_count(unit) > 0 {
                assert_eq!(hashes.verify_unit(unit, &self.unit_leaves(unit)), expect);
            }
        }
    }
}

const KIB: u32 = 1 << 10;

/// A file of several pieces, one shorter than a piece, one shorter than a unit, and the first again.
const FILES: &[(&str, u64)] = &[("a", 300_000), ("b", 90_000), ("c", 10), ("d", 0), ("e", 131_072)];

#[test]
fn unit_hashes_are_learned_from_a_peer() {
    for (unit_len, by) in [
        (16 * KIB, By::Units),
        (32 * KIB, By::Units),
        (64 * KIB, By::Units),
        (32 * KIB, By::Blocks),
        (64 * KIB, By::Blocks),
    ] {
        let fixture = Fixture::new(FILES, 128 * KIB, unit_len);
        // A peer that knows unit hashes and one that hashes its data for each request.
        for seed in [fixture.full(), fixture.empty()] {
            let mut hashes = fixture.empty();
            for piece in fixture.pieces() {
                let requests = hashes.hash_requests(piece, by);
                assert_eq!(requests.is_empty(), hashes.knows(piece));
                for range in requests {
                    let answer = fixture.answer(&seed, &range).unwrap();
                    assert_eq!(hashes.learn(&range, &answer), Ok(vec![piece]));
                }
                assert!(hashes.knows(piece));
                assert_eq!(hashes.hash_requests(piece, by), []);
            }
            fixture.check_all_units(&hashes, Check::Good);
        }
    }
}

#[test]
fn nothing_is_judged_before_its_hash_is_known() {
    let fixture = Fixture::new(&[("a", 300_000), ("b", 90_000)], 128 * KIB, 16 * KIB);
    fixture.check_all_units(&fixture.empty(), Check::Unknown);
    // With the piece as unit the metainfo says it all.
    let fixture = Fixture::new(FILES, 64 * KIB, 64 * KIB);
    fixture.check_all_units(&fixture.empty(), Check::Good);
    // A file shorter than a unit has its hash in the metainfo too.
    let fixture = Fixture::new(&[("a", 10), ("b", 300_000)], 128 * KIB, 32 * KIB);
    assert!(fixture.empty().knows(PieceIndex(0)));
    assert!(!fixture.empty().knows(PieceIndex(1)));
}

#[test]
fn lies_about_hashes_are_found_out() {
    let fixture = Fixture::new(FILES, 128 * KIB, 32 * KIB);
    let (seed, mut hashes) = (fixture.full(), fixture.empty());
    let range = hashes.hash_requests(PieceIndex(1), By::Units)[0];
    let answer = fixture.answer(&seed, &range).unwrap();
    for lie in 0..answer.len() {
        let mut answer = answer.clone();
        answer[lie][7] ^= 1;
        assert_eq!(hashes.learn(&range, &answer), Err(HashesError::NotProved));
    }
    assert!(!hashes.knows(PieceIndex(1)));
    let unasked = [
        HashRange { pieces_root: [0; 32], ..range },
        HashRange { base_layer: 2, ..range },
        HashRange { index: range.index + 400, ..range },
        HashRange { len: 8, index: 0, ..range },
        HashRange { proof_layers: 9, ..range },
    ];
    for range in unasked {
        assert_eq!(hashes.learn(&range, &answer), Err(HashesError::Unasked), "{range:?}");
    }
    assert_eq!(hashes.learn(&range, &answer[1..]), Err(HashesError::Unasked));
}

#[test]
fn same_file_twice_is_learned_once() {
    // The test content depends on the length of the path alone.
    let fixture = Fixture::new(&[("a", 300_000), ("b", 300_000)], 128 * KIB, 16 * KIB);
    let (seed, mut hashes) = (fixture.full(), fixture.empty());
    let range = hashes.hash_requests(PieceIndex(4), By::Units)[0];
    let answer = fixture.answer(&seed, &range).unwrap();
    assert_eq!(hashes.learn(&range, &answer), Ok(vec![PieceIndex(1), PieceIndex(4)]));
    assert!(hashes.knows(PieceIndex(1)) && hashes.knows(PieceIndex(4)));
}

#[test]
fn long_pieces_are_asked_for_in_parts() {
    // 1,024 blocks in a piece, and at most 512 hashes in a request.
    let fixture = Fixture::new(&[("a", 20 << 20), ("b", 1)], 16_384 * KIB, 16 * KIB);
    let (seed, mut hashes) = (fixture.full(), fixture.empty());
    let requests = hashes.hash_requests(PieceIndex(0), By::Units);
    assert_eq!(requests.len(), 2);
    let answers: Vec<_> =
        requests.iter().map(|range| fixture.answer(&seed, range).unwrap()).collect();
    assert_eq!(answers[0].len(), 513);
    assert_eq!(hashes.learn(&requests[1], &answers[1]), Ok(vec![]));
    assert!(!hashes.knows(PieceIndex(0)));
    assert_eq!(hashes.learn(&requests[0], &answers[0]), Ok(vec![PieceIndex(0)]));
    // By blocks it is the same here, as a unit is a block.
    assert_eq!(fixture.empty().hash_requests(PieceIndex(0), By::Blocks), requests);
    // The last piece has 4 MiB of data: its second half is padding, which needs no asking.
    assert_eq!(hashes.hash_requests(PieceIndex(1), By::Units).len(), 1);
}

#[test]
fn corrupt_blocks_are_told_from_good_ones() {
    let fixture = Fixture::new(FILES, 128 * KIB, 64 * KIB);
    let hashes = fixture.full();
    // Unit 4 is the short end of the first file: 37,856 bytes in three blocks.
    let unit = UnitIndex(4);
    let mut got = fixture.unit_leaves(unit);
    assert_eq!(got.len(), 3);
    got[1][0] ^= 1;
    assert_eq!(hashes.verify_unit(unit, &got), Check::Corrupt);
    let range = hashes.leaf_request(unit).unwrap();
    for seed in [fixture.full(), fixture.empty()] {
        let right = fixture.answer(&seed, &range).unwrap();
        assert_eq!(right.len(), 4);
        assert_eq!(hashes.judge(unit, &right, &got), Ok(vec![1]));
        let mut lie = right.clone();
        lie[0][0] ^= 1;
        assert_eq!(hashes.judge(unit, &lie, &got), Err(HashesError::NotProved));
        assert_eq!(hashes.judge(unit, &right[1..], &got), Err(HashesError::Unasked));
    }
    // A unit of one block is its own judge.
    let fixture = Fixture::new(FILES, 128 * KIB, 16 * KIB);
    assert_eq!(fixture.full().leaf_request(unit), None);
}

#[test]
fn wrong_number_of_leaves_is_corrupt() {
    let fixture = Fixture::new(FILES, 128 * KIB, 32 * KIB);
    let mut hashes = fixture.full();
    let mut leaves = fixture.unit_leaves(UnitIndex(0));
    leaves.push([0; 32]);
    assert_eq!(hashes.verify_unit(UnitIndex(0), &leaves), Check::Corrupt);
    assert_eq!(hashes.verify_unit(UnitIndex(0), &[]), Check::Corrupt);
    let mut leaves = fixture.leaves(PieceIndex(2));
    leaves.push([0; 32]);
    assert_eq!(hashes.learn_leaves(PieceIndex(2), &leaves), Check::Corrupt);
}

#[test]
fn v1_pieces_are_judged_by_sha1() {
    let metainfo = decoded(FILE(40_000), Format::V1, 16_384);
    let mut hashes = metainfo.piece_hashes();
    assert!(!hashes.has_v2());
    let sha1: PieceSha1 =
        Sha1::digest(piece_data(metainfo.layout(), metainfo.geometry(), 2)).into();
    assert_eq!(hashes.verify_piece_v1(PieceIndex(2), &sha1), Check::Good);
    assert_eq!(hashes.verify_piece_v1(PieceIndex(1), &sha1), Check::Corrupt);
    assert_eq!(hashes.verify_unit(UnitIndex(2), &[[0; 32]]), Check::Unknown);
    assert_eq!(hashes.learn_leaves(PieceIndex(2), &[[0; 32]]), Check::Unknown);
    assert_eq!(hashes.hash_requests(PieceIndex(2), By::Units), []);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Whatever a peer asks for, the answer is refused or leads to the file's own root, however
    /// much of the tree was known.
    #[test]
    fn any_answer_leads_to_the_root(
        base_layer in 0u32..6, index in 0u32..40, log_len in 0u32..7, unit_log in 0u32..4,
        file in 0usize..3, learned in any::<bool>(),
    ) {
        let fixture = Fixture::new(FILES, 128 * KIB, (16 << unit_log) * KIB);
        let hashes = if learned { fixture.full() } else { fixture.empty() };
        let tree = &fixture.metainfo.v2.as_ref().unwrap().trees[file];
        let blocks = FILES[file].1.div_ceil(u64::from(BLOCK_LEN));
        let height = crate::merkle::height(blocks);
        let range = HashRange {
            pieces_root: tree.root,
            base_layer,
            index: index << log_len,
            len: 1 << log_len,
            proof_layers: height.saturating_sub(base_layer + 1),
        };
        let possible = log_len >= 1
            && base_layer + log_len <= height
            && u64::from(range.index) < 1 << (height - base_layer);
        match fixture.answer(&hashes, &range) {
            Some(answer) => {
                prop_assert!(possible);
                let top = crate::merkle::climb(&range, &answer).unwrap();
                prop_assert_eq!((top.layer, top.index, top.hash), (height, 0, tree.root));
            }
            // Refused only if it is no range of the tree, reaches over pieces below their layer,
            // or lies past the end of the file.
            None => {
                let start = u64::from(range.index) << base_layer;
                let over = base_layer < 3 && base_layer + log_len > 3;
                prop_assert!(!possible || over || start >= blocks, "{range:?}");
            }
        }
    }
}
