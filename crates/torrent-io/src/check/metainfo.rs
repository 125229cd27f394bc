//! What the hashes of a metainfo say of a piece: SHA-256 over its blocks where there are v2 hashes,
//! SHA-1 over all of it where there are not.

use std::sync::OnceLock;

use torrent::merkle::{self, Hash};
use torrent::metainfo::{Check, Metainfo, PieceHashes, PieceSha1};
use torrent::{BLOCK_LEN, Geometry};

use super::PieceCheck;
use crate::hash;

/// Checks pieces against a metainfo.
#[derive(Debug)]
pub struct MetainfoCheck {
    hashes: PieceHashes,
    geometry: Geometry,
    /// The hash of a whole piece of zeros, from when one is first asked for.
    zeros: OnceLock<Zeros>,
}

#[derive(Debug)]
enum Zeros {
    V1(PieceSha1),
    V2(Hash),
}

impl MetainfoCheck {
    /// Checks against the hashes of `metainfo`.
    #[must_use]
    pub fn new(metainfo: &Metainfo) -> Self {
        Self {
            hashes: metainfo.piece_hashes(),
            geometry: metainfo.geometry().clone(),
            zeros: OnceLock::new(),
        }
    }

    fn zeros(&self) -> Zeros {
        let piece_len = self.geometry.piece_len();
        if self.hashes.has_v2() {
            let leaf = merkle::hash_block(&[0; BLOCK_LEN as usize]);
            // A piece of a v2 torrent is a power of two of blocks.
            let count = piece_len / BLOCK_LEN;
            let leaves = vec![leaf; count as usize];
            Zeros::V2(merkle::root(&leaves, 0, count.trailing_zeros()))
        } else {
            Zeros::V1(hash::sha1(&vec![0; piece_len as usize]))
        }
    }
}

impl PieceCheck for MetainfoCheck {
    fn piece_count(&self) -> u32 {
        self.geometry.piece_count()
    }

    fn check(&self, piece: u32, data: &[u8]) -> bool {
        let Some(piece) = self.geometry.piece(piece) else { return false };
        let len = self.geometry.piece_data_len(piece) as usize;
        let Some(data) = data.get(..len) else { return false };
        let found = if self.hashes.has_v2() {
            self.hashes.verify_piece(piece, &merkle::hash_blocks(data))
        } else {
            self.hashes.verify_piece_v1(piece, &hash::sha1(data))
        };
        found == Check::Good
    }

    fn is_zeros(&self, piece: u32, _: u64) -> Option<bool> {
        let piece = self.geometry.piece(piece)?;
        if self.geometry.piece_data_len(piece) != self.geometry.piece_len() {
            return None;
        }
        Some(match self.zeros.get_or_init(|| self.zeros()) {
            Zeros::V1(sha1) => self.hashes.verify_piece_v1(piece, sha1) == Check::Good,
            Zeros::V2(root) => self.hashes.piece_hash(piece) == Some(*root),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::create::create;
    use std::num::NonZeroUsize;
    use torrent::metainfo::create::{Format, Spec};

    const PIECE_LEN: usize = 64 << 10;

    /// A folder of two files: a whole piece of zeros, one of data and a short one; then a short one.
    fn data() -> (Vec<u8>, Vec<u8>) {
        let mut first = vec![0; 2 * PIECE_LEN + 20_000];
        first[PIECE_LEN..].fill(7);
        (first, vec![0; 10_000])
    }

    fn metainfo(format: Format) -> Metainfo {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("t");
        std::fs::create_dir(&dir).unwrap();
        let (first, second) = data();
        std::fs::write(dir.join("a"), first).unwrap();
        std::fs::write(dir.join("b"), second).unwrap();
        let spec = Spec { format, piece_len: Some(PIECE_LEN as u32), ..Spec::default() };
        let bytes = create(&dir, spec, NonZeroUsize::MIN, &|_, _| {}).unwrap();
        Metainfo::decode(&bytes).unwrap()
    }

    /// Pieces as the piece space has them, with padding.
    fn pieces(format: Format) -> Vec<Vec<u8>> {
        let (mut first, second) = data();
        if format != Format::V1 {
            first.resize(3 * PIECE_LEN, 0);
        }
        first.extend(second);
        first.chunks(PIECE_LEN).map(<[u8]>::to_vec).collect()
    }

    #[test]
    fn padding_is_cut_where_it_is_no_data() {
        for format in [Format::Hybrid, Format::V1, Format::V2] {
            let check = MetainfoCheck::new(&metainfo(format));
            let pieces = pieces(format);
            assert_eq!(check.piece_count() as usize, pieces.len());
            for (index, mut data) in (0..).zip(pieces) {
                assert!(check.check(index, &data), "{format:?} {index}");
                data[100] ^= 1;
                assert!(!check.check(index, &data), "{format:?} {index}");
            }
            assert!(!check.check(0, &[]));
            assert!(!check.check(99, &[]));
        }
    }

    #[test]
    fn pieces_of_zeros_are_known_without_hashing() {
        for format in [Format::Hybrid, Format::V1, Format::V2] {
            let check = MetainfoCheck::new(&metainfo(format));
            assert_eq!(check.is_zeros(0, 0), Some(true), "{format:?}");
            assert_eq!(check.is_zeros(1, 0), Some(false), "{format:?}");
            // Shorter than a piece: hash and see.
            assert_eq!(check.is_zeros(check.piece_count() - 1, 0), None, "{format:?}");
        }
    }
}
