//! Metainfo: what a .torrent file says (BEP 3, 12, 19, 27, 47, 52).
//!
//! [`Metainfo::decode`] takes v1, v2 and hybrid torrents and refuses whatever is not consistent:
//! a [`Metainfo`] that exists has safe paths, as many hashes as pieces, piece layers that lead to
//! the roots in the info dictionary, and, if hybrid, two sides that describe the same files. It is
//! not concerned with storage (see [`Layout`] for where files lie) nor with what was downloaded
//! (see [`PieceHashes`] for what bytes must hash to). [`create`] writes what this module reads.

mod error;
mod info_hash;
mod path;

mod v1;
mod v2;

mod layout;
mod unit;

mod hashes;

pub mod create;

pub use error::{LayerFault, MetainfoError};
pub use hashes::{Answer, By, Check, HashesError, PieceHashes, UnitRun};
pub use info_hash::InfoHash;
pub use layout::{File, Layout, Segment};
pub use path::{FilePath, NAME_LEN_MAX, PATH_DEPTH_MAX, PATH_LEN_MAX, PathFault};
pub use unit::{UNIT_COUNT_AIM, UNIT_LEN_MAX, UNITS_MAX, unit_len};

use sha1::{Digest, Sha1};
use sha2::Sha256;

use crate::bencode::{self, Dict, Value};
use crate::geometry::{BLOCK_LEN, Geometry, PIECE_LEN_MAX};
use crate::merkle::Hash;

/// The longest metainfo that is read, in bytes. A hybrid torrent of
/// [`PIECES_MAX`](crate::geometry::PIECES_MAX) pieces has 52 MiB of hashes; 12 MiB are left for the names of files.
pub const METAINFO_LEN_MAX: usize = 64 << 20;

/// The most files a torrent may have. The root file system of a desktop distribution has some
/// 200,000 files, but travels as one squashfs; a folder beyond this limit should too.
pub const FILES_MAX: usize = 1 << 16;

/// The most trackers, and the most web seeds, that a torrent may name. Public torrents name up to
/// about a hundred trackers.
pub const URLS_MAX: usize = 256;

/// The longest URL of a tracker or web seed, in bytes: what HTTP servers and proxies take at least.
pub const URL_LEN_MAX: usize = 2048;

/// The SHA-1 of a piece (BEP 3).
pub type PieceSha1 = [u8; 20];

/// A torrent's metainfo, consistent in itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metainfo {
    name: String,
    private: bool,
    trackers: Vec<Vec<String>>,
    web_seeds: Vec<String>,
    comment: Option<String>,
    created_by: Option<String>,
    creation_date: Option<i64>,
    info: Vec<u8>,
    v1: Option<V1>,
    v2: Option<V2>,
    layout: Layout,
    geometry: Geometry,
}

/// What only v1 has.
#[derive(Clone, Debug, PartialEq, Eq)]
struct V1 {
    info_hash: [u8; 20],
    pieces: Vec<PieceSha1>,
}

/// What only v2 has: one tree for each file of the layout, in its order.
#[derive(Clone, Debug, PartialEq, Eq)]
struct V2 {
    info_hash: [u8; 32],
    trees: Vec<FileTree>,
}

/// What the metainfo tells of one file's Merkle tree.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct FileTree {
    /// The root; zeros for an empty file, which has none.
    root: Hash,
    /// One hash for each piece, proved to lead to the root. A file of at most one piece has no
    /// piece layer, so this is the root itself then.
    pieces: Vec<Hash>,
}

impl Metainfo {
    /// Reads a .torrent file.
    ///
    /// # Errors
    /// If it is not strict bencode, lacks something, contradicts itself, names a path that could
    /// leave the download folder, or exceeds a limit of this module.
    pub fn decode(bytes: &[u8]) -> Result<Self, MetainfoError> {
        if bytes.len() > METAINFO_LEN_MAX {
            return Err(MetainfoError::TooLong(bytes.len()));
        }
        let value = bencode::decode(bytes)?;
        let top = value.as_dict().ok_or(MetainfoError::Malformed("metainfo"))?;
        let info = require_dict(top, "info")?;
        // BEP 52: to be checked before anything else, as a later version may change anything.
        let version = optional(info, "meta version", Value::as_int)?;
        if let Some(version) = version
            && version != 2
        {
            return Err(MetainfoError::Version(version));
        }
        let name = require(info, "name", Value::as_bytes)?;
        let name = path::component(name)
            .map_err(|fault| MetainfoError::Path { path: path::lossy(&[name]), fault })?;
        let piece_len = piece_len(info, version.is_some())?;
        let sides = Sides::decode(top, info, &name, version.is_some(), piece_len)?;
        let created_by = optional(top, "created by", Value::as_bytes)?;
        let comment = optional(top, "comment", Value::as_bytes)?;
        Ok(Self {
            name,
            private: optional(info, "private", Value::as_int)? == Some(1),
            trackers: trackers(top)?,
            web_seeds: web_seeds(top)?,
            comment: comment.map(|text| String::from_utf8_lossy(text).into_owned()),
            created_by: created_by.map(|text| String::from_utf8_lossy(text).into_owned()),
            creation_date: optional(top, "creation date", Value::as_int)?,
            info: info.raw().to_vec(),
            v1: sides.v1.map(|pieces| V1 { info_hash: Sha1::digest(info.raw()).into(), pieces }),
            v2: sides.v2.map(|trees| V2 { info_hash: Sha256::digest(info.raw()).into(), trees }),
            layout: sides.layout,
            geometry: sides.geometry,
        })
    }

    /// The name of the file, or of the folder that holds the files.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// BEP 27: peers come from the trackers alone, not from LSD or PEX.
    #[must_use]
    pub const fn is_private(&self) -> bool {
        self.private
    }

    /// Announce URLs by tier (BEP 12); one tier of one if there is only `announce` (BEP 3).
    #[must_use]
    pub fn trackers(&self) -> &[Vec<String>] {
        &self.trackers
    }

    /// `url-list` (BEP 19).
    #[must_use]
    pub fn web_seeds(&self) -> &[String] {
        &self.web_seeds
    }

    /// `comment`, invalid UTF-8 replaced.
    #[must_use]
    pub fn comment(&self) -> Option<&str> {
        self.comment.as_deref()
    }

    /// `created by`, invalid UTF-8 replaced.
    #[must_use]
    pub fn created_by(&self) -> Option<&str> {
        self.created_by.as_deref()
    }

    /// `creation date`, in seconds since 1970, as the file says.
    #[must_use]
    pub const fn creation_date(&self) -> Option<i64> {
        self.creation_date
    }

    /// The info dictionary, byte for byte.
    #[must_use]
    pub fn info(&self) -> &[u8] {
        &self.info
    }

    /// The v1 infohash; `None` for a v2-only torrent.
    #[must_use]
    pub fn info_hash_v1(&self) -> Option<InfoHash> {
        self.v1.as_ref().map(|v1| InfoHash::V1(v1.info_hash))
    }

    /// The v2 infohash; `None` for a v1-only torrent.
    #[must_use]
    pub fn info_hash_v2(&self) -> Option<InfoHash> {
        self.v2.as_ref().map(|v2| InfoHash::V2(v2.info_hash))
    }

    /// All infohashes, v1 before v2: the swarms that this torrent has. At least one.
    pub fn info_hashes(&self) -> impl Iterator<Item = InfoHash> {
        self.info_hash_v1().into_iter().chain(self.info_hash_v2())
    }

    /// Where the files lie in the pieces.
    #[must_use]
    pub const fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The lengths of pieces and units.
    ///
    /// With v2, padding at the tail of a piece is not data, so the last piece of a file is short.
    /// In a v1-only torrent padding (BEP 47) is data like any other: it has to be there for the
    /// SHA-1, and peers that know nothing of it ask for it. The unit is that of [`unit_len`].
    #[must_use]
    pub const fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// What pieces and units must hash to.
    #[must_use]
    pub fn piece_hashes(&self) -> PieceHashes {
        PieceHashes::new(self, self.geometry.clone())
    }
}

/// What the v1 and v2 keys of an info dictionary say, brought together.
struct Sides {
    v1: Option<Vec<PieceSha1>>,
    v2: Option<Vec<FileTree>>,
    layout: Layout,
    geometry: Geometry,
}

impl Sides {
    fn decode(
        top: &Dict<'_>,
        info: &Dict<'_>,
        name: &str,
        has_v2: bool,
        piece_len: u32,
    ) -> Result<Self, MetainfoError> {
        // BEP 52 leaves it to the keys whether there is a v1 side as well.
        let v1 = if !has_v2 || info.get(b"pieces").is_some() {
            Some(v1::decode(info, name, piece_len)?)
        } else {
            None
        };
        let v2 = if has_v2 {
            let single = v1.as_ref().map(|v1| v1.is_single_file);
            Some(v2::decode(info, name, single)?)
        } else {
            None
        };
        let (layout, geometry, trees) = match (&v1, v2) {
            (_, Some(files)) => {
                let layout = Layout::aligned(piece_len, files.iter().map(v2::Entry::file))?;
                if let Some(v1) = &v1 {
                    v1.check_against(&layout)?;
                }
                let geometry = layout.aligned_geometry()?;
                let trees = v2::trees(top, &files, piece_len)?;
                (layout, geometry, Some(trees))
            }
            (Some(v1), None) => {
                let layout = Layout::packed(piece_len, &v1.entries)?;
                let geometry = layout.packed_geometry()?;
                (layout, geometry, None)
            }
            (None, None) => return Err(MetainfoError::Missing("pieces")),
        };
        let v1 = v1.map(|v1| v1.pieces);
        if let Some(pieces) = &v1
            && pieces.len() != geometry.piece_count() as usize
        {
            return Err(MetainfoError::PieceHashCount {
                pieces: geometry.piece_count(),
                hashes: pieces.len(),
            });
        }
        Ok(Self { v1, v2: trees, layout, geometry })
    }
}

/// Reads `piece length`. BEP 52 wants a power of two of at least 16 KiB; BEP 3 takes any.
fn piece_len(info: &Dict<'_>, has_v2: bool) -> Result<u32, MetainfoError> {
    let len = require(info, "piece length", Value::as_int)?;
    u32::try_from(len)
        .ok()
        .filter(|&len| (1..=PIECE_LEN_MAX).contains(&len))
        .filter(|&len| !has_v2 || (len.is_power_of_two() && len >= BLOCK_LEN))
        .ok_or(MetainfoError::PieceLen(len))
}

/// Reads `announce-list` (BEP 12), which replaces `announce` if it is there and not empty.
fn trackers(top: &Dict<'_>) -> Result<Vec<Vec<String>>, MetainfoError> {
    const LIST: &str = "announce-list";
    let mut tiers = vec![];
    for tier in optional(top, LIST, Value::as_list)?.unwrap_or_default() {
        let tier = tier.as_list().ok_or(MetainfoError::Malformed(LIST))?;
        let urls = tier.iter().map(|value| url(value, LIST)).collect::<Result<Vec<_>, _>>()?;
        if !urls.is_empty() {
            tiers.push(urls);
        }
    }
    if tiers.is_empty()
        && let Some(announce) = top.get(b"announce")
    {
        tiers.push(vec![url(announce, "announce")?]);
    }
    if tiers.iter().map(Vec::len).sum::<usize>() > URLS_MAX {
        return Err(MetainfoError::TooManyUrls(LIST));
    }
    Ok(tiers)
}

/// Reads `url-list` (BEP 19): one URL or a list of them. Some tools write an empty string for none.
fn web_seeds(top: &Dict<'_>) -> Result<Vec<String>, MetainfoError> {
    const LIST: &str = "url-list";
    let urls = match top.get(LIST.as_bytes()) {
        None | Some(Value::Bytes(b"")) => return Ok(vec![]),
        Some(Value::List(list)) => list.as_slice(),
        Some(one) => std::slice::from_ref(one),
    };
    if urls.len() > URLS_MAX {
        return Err(MetainfoError::TooManyUrls(LIST));
    }
    urls.iter().map(|value| url(value, LIST)).collect()
}

fn url(value: &Value<'_>, key: &'static str) -> Result<String, MetainfoError> {
    value
        .as_str()
        .filter(|url| !url.is_empty() && url.len() <= URL_LEN_MAX)
        .map(str::to_owned)
        .ok_or(MetainfoError::Malformed(key))
}

/// The value of a key that may be missing but not be of another kind.
fn optional<'v, 'a, T>(
    dict: &'v Dict<'a>,
    key: &'static str,
    read: impl FnOnce(&'v Value<'a>) -> Option<T>,
) -> Result<Option<T>, MetainfoError> {
    dict.get(key.as_bytes())
        .map(|value| read(value).ok_or(MetainfoError::Malformed(key)))
        .transpose()
}

/// The value of a key that has to be there.
fn require<'v, 'a, T>(
    dict: &'v Dict<'a>,
    key: &'static str,
    read: impl FnOnce(&'v Value<'a>) -> Option<T>,
) -> Result<T, MetainfoError> {
    optional(dict, key, read)?.ok_or(MetainfoError::Missing(key))
}

fn require_dict<'v, 'a>(
    dict: &'v Dict<'a>,
    key: &'static str,
) -> Result<&'v Dict<'a>, MetainfoError> {
    dict.get(key.as_bytes())
        .ok_or(MetainfoError::Missing(key))?
        .as_dict()
        .ok_or(MetainfoError::Malformed(key))
}

/// BEP 47 `attr`, as far as it matters here.
#[derive(Clone, Copy, Debug, Default)]
struct Attributes {
    executable: bool,
    padding: bool,
    symlink: bool,
}

impl Attributes {
    fn decode(file: &Dict<'_>) -> Result<Self, MetainfoError> {
        let attr = optional(file, "attr", Value::as_bytes)?.unwrap_or_default();
        Ok(Self {
            executable: attr.contains(&b'x'),
            padding: attr.contains(&b'p'),
            symlink: attr.contains(&b'l') || file.get(b"symlink path").is_some(),
        })
    }
}

/// The length of one file, from a key that has to be there.
fn file_len(file: &Dict<'_>) -> Result<u64, MetainfoError> {
    require(file, "length", Value::as_u64)
}

/// The most bytes of one torrent, padding included: 64 TiB. BEP 52 counts the blocks of a file in 32
/// bits.
const TOTAL_LEN_MAX: u64 = BLOCK_LEN as u64 * (1 << 32);

#[cfg(test)]
mod tests;
