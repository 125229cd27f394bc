//! Why metainfo is refused.

use crate::bencode::DecodeError;
use crate::geometry::GeometryError;

use super::{FILES_MAX, METAINFO_LEN_MAX, PathFault, URLS_MAX};

/// Why metainfo is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetainfoError {
    /// More than [`METAINFO_LEN_MAX`] bytes.
    #[error("metainfo of {0} bytes is longer than {METAINFO_LEN_MAX}")]
    TooLong(usize),
    /// Not strict bencode.
    #[error("metainfo is malformed")]
    Bencode(#[from] DecodeError),
    /// A key is missing.
    #[error("metainfo has no {0:?}")]
    Missing(&'static str),
    /// A key has a value of the wrong kind or out of range.
    #[error("metainfo has a malformed {0:?}")]
    Malformed(&'static str),
    /// BEP 52 `meta version` other than 2.
    #[error("metainfo is of version {0}, and only 1 and 2 are known")]
    Version(i64),
    /// `piece length` out of bounds, or with v2 not a power of two of at least 16 KiB.
    #[error("piece length {0} is out of bounds or not a power of two")]
    PieceLen(i64),
    /// More than [`FILES_MAX`] files.
    #[error("metainfo has more than {FILES_MAX} files")]
    TooManyFiles,
    /// More than [`URLS_MAX`] trackers or web seeds.
    #[error("metainfo has more than {URLS_MAX} URLs in {0:?}")]
    TooManyUrls(&'static str),
    /// A path that is not safe to write to.
    #[error("path {path:?} is refused: {fault}")]
    Path {
        /// The path, invalid UTF-8 replaced.
        path: String,
        /// What is wrong with it.
        fault: PathFault,
    },
    /// All files together are longer than the pieces can be, or are empty.
    #[error("the files are empty, or larger than a torrent can be")]
    TotalLen,
    /// The lengths do not make a geometry.
    #[error("the pieces do not fit the limits")]
    Geometry(#[from] GeometryError),
    /// `pieces` has too few or too many hashes.
    #[error("{hashes} hashes for {pieces} pieces")]
    PieceHashCount {
        /// Pieces by the lengths of the files.
        pieces: u32,
        /// Hashes in the metainfo.
        hashes: usize,
    },
    /// A file's piece layer is missing or wrong (BEP 52).
    #[error("the piece layer of {path:?} is refused: {fault}")]
    Layer {
        /// The file.
        path: String,
        /// What is wrong with it.
        fault: LayerFault,
    },
    /// The v1 and the v2 side of a hybrid torrent describe different files (BEP 52, upgrade path).
    #[error("the v1 and v2 sides differ at {path:?}")]
    Hybrid {
        /// The first file that differs.
        path: String,
    },
}

/// What is wrong with a piece layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayerFault {
    /// The file is longer than a piece and has no layer.
    #[error("it is missing")]
    Missing,
    /// It does not have one hash for each piece.
    #[error("it has the wrong length")]
    Len,
    /// It does not lead to the file's root.
    #[error("it does not lead to the root")]
    Root,
}
