//! Making metainfo, without touching a file: [`Draft`] says what is to be hashed and writes the
//! .torrent file of the hashes.
//!
//! The result is a function of names, lengths, contents and [`Spec`]: files are sorted and no time
//! is written unless given, so that the same content has the same infohash on every machine.

use sha1::{Digest, Sha1};
use sha2::Sha256;

use crate::bencode::{DictEncoder, Encoder};
use crate::geometry::{BLOCK_LEN, Geometry, PIECE_LEN_MAX, PieceIndex};
use crate::merkle::{self, Hash};

use super::v1::Entry;
use super::{
    FILES_MAX, File, FilePath, FileTree, InfoHash, Layout, METAINFO_LEN_MAX, MetainfoError,
    PieceSha1, URL_LEN_MAX, URLS_MAX,
};

/// Which protocol versions a torrent is made for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// BEP 3 and 52 in one: every client can take part, and ours verify by SHA-256.
    #[default]
    Hybrid,
    /// BEP 3 alone.
    V1,
    /// BEP 52 alone.
    V2,
}

impl Format {
    const fn has_v1(self) -> bool {
        matches!(self, Self::Hybrid | Self::V1)
    }

    const fn has_v2(self) -> bool {
        matches!(self, Self::Hybrid | Self::V2)
    }
}

/// Stands for the infohash in the URL of a web seed: of v2 if there is one, in hexadecimal.
pub const INFOHASH: &str = "{infohash}";

/// Characters of the longest infohash.
const INFOHASH_LEN_MAX: usize = 64;

/// What the creator of a torrent decides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spec {
    /// Protocol versions.
    pub format: Format,
    /// Bytes of a piece; chosen by [`piece_len`] if not given.
    pub piece_len: Option<u32>,
    /// BEP 27.
    pub private: bool,
    /// Announce URLs by tier (BEP 12).
    pub trackers: Vec<Vec<String>>,
    /// `url-list` (BEP 19). [`INFOHASH`] in them becomes the infohash, which nobody knows before.
    pub web_seeds: Vec<String>,
    /// `comment`.
    pub comment: Option<String>,
    /// `created by`.
    pub created_by: Option<String>,
    /// `creation date`, in seconds since 1970.
    pub creation_date: Option<i64>,
}

/// A file that goes into a torrent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewFile {
    /// Names of folders and file, below the torrent's own folder.
    pub path: Vec<String>,
    /// Length in bytes.
    pub len: u64,
    /// Whether it is to be executable (BEP 47 `x`).
    pub executable: bool,
}

/// What a torrent is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// One file, which the torrent is named after.
    File {
        /// Length in bytes.
        len: u64,
        /// Whether it is to be executable.
        executable: bool,
    },
    /// A folder.
    Folder(Vec<NewFile>),
}

/// Why a torrent cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CreateError {
    /// Names, lengths or counts that we would not read back.
    #[error("no torrent can be made of {name:?}")]
    Refused {
        /// The torrent's name.
        name: String,
        /// What we would say on reading it.
        source: MetainfoError,
    },
    /// BEP 52: a folder with nothing but one file reads as that file alone.
    #[error("{0:?} holds only one file: v2 alone cannot tell that from the file itself")]
    FolderOfOneFile(String),
    /// Not a power of two between 16 KiB and 128 MiB.
    #[error("piece length {0} is not a power of two between 16 KiB and 128 MiB")]
    PieceLen(u32),
    /// Empty, too long, or too many.
    #[error("URL {0:?} is empty or too long, or one too many")]
    Url(String),
    /// Longer than would be read back.
    #[error("metainfo of {0} bytes is longer than {METAINFO_LEN_MAX}: take longer pieces")]
    TooLong(usize),
}

/// The most pieces that are made by choice, for content of up to 64 GiB.
pub const PIECE_COUNT_AIM: u64 = 4096;

/// The longest piece that is made by choice: a client that takes whole pieces holds several of them
/// unverified.
pub const PIECE_LEN_CHOICE_MAX: u32 = 16 << 20;

/// The piece length, in bytes, for content of `data_len` bytes: the smallest power of two that makes
/// at most [`PIECE_COUNT_AIM`] pieces, so that there are more than 2,048 from 32 MiB on.
///
/// Many pieces are good for the swarm: a mesh of N nodes loses about 5·log2(N)/pieces of the
/// transfer time, 1.2 to 2.4 % for 1,000 nodes here. Few pieces are good for the metainfo, which
/// every node fetches from the server before it can take part: a piece costs 52 bytes of hashes, so
/// 4,096 cost 208 KiB. 16 KiB (BEP 52's least) up to 64 MiB of content, 32 KiB up to 128 MiB, and so
/// on to 16 MiB from 32 GiB on.
#[must_use]
pub fn piece_len(data_len: u64) -> u32 {
    let mut len = BLOCK_LEN;
    while len < PIECE_LEN_CHOICE_MAX && data_len > PIECE_COUNT_AIM * u64::from(len) {
        len *= 2;
    }
    len
}

/// The hashes of one piece, as far as the format needs them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PieceHash {
    v1: Option<PieceSha1>,
    v2: Option<Hash>,
}

impl PieceHash {
    /// Hashes that were computed before: SHA-1 of the piece with its padding, and the root of its
    /// tree. Which of them a torrent needs is for [`Draft::takes`] to say.
    #[must_use]
    pub const fn new(v1: Option<PieceSha1>, v2: Option<Hash>) -> Self {
        Self { v1, v2 }
    }

    /// SHA-1 of the piece, padding included (BEP 3, 47).
    #[must_use]
    pub const fn v1(&self) -> Option<&PieceSha1> {
        self.v1.as_ref()
    }

    /// The root of the piece's tree (BEP 52).
    #[must_use]
    pub const fn v2(&self) -> Option<&Hash> {
        self.v2.as_ref()
    }
}

/// A torrent whose hashes are still to be computed.
#[derive(Clone, Debug)]
pub struct Draft {
    name: String,
    spec: Spec,
    single: bool,
    layout: Layout,
    geometry: Geometry,
}

impl Draft {
    /// Plans the torrent `name` of `content`.
    ///
    /// # Errors
    /// If [`Metainfo::decode`](super::Metainfo::decode) would refuse it, or the format cannot
    /// express it.
    pub fn new(name: &str, content: Content, spec: Spec) -> Result<Self, CreateError> {
        let refuse = |source| CreateError::Refused { name: name.to_owned(), source };
        check_urls(&spec)?;
        let single = matches!(content, Content::File { .. });
        let files = files(name, content).map_err(refuse)?;
        if let [file] = files.as_slice()
            && spec.format == Format::V2
            && !single
            && file.path().components().len() == 2
        {
            return Err(CreateError::FolderOfOneFile(name.to_owned()));
        }
        let data_len = files.iter().map(File::len).fold(0, u64::saturating_add);
        let piece_len = spec.piece_len.unwrap_or_else(|| piece_len(data_len));
        if !piece_len.is_power_of_two() || !(BLOCK_LEN..=PIECE_LEN_MAX).contains(&piece_len) {
            return Err(CreateError::PieceLen(piece_len));
        }
        let plan = || {
            if spec.format.has_v2() {
                let layout = Layout::aligned(piece_len, files.into_iter())?;
                let geometry = layout.aligned_geometry()?;
                Ok((layout, geometry))
            } else {
                let entries: Vec<Entry> = files.into_iter().map(Entry::File).collect();
                let layout = Layout::packed(piece_len, &entries)?;
                let geometry = layout.packed_geometry()?;
                Ok((layout, geometry))
            }
        };
        let (layout, geometry) = plan().map_err(refuse)?;
        Ok(Self { name: name.to_owned(), spec, single, layout, geometry })
    }

    /// Where to read the data of each piece.
    #[must_use]
    pub const fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Which pieces there are to hash.
    #[must_use]
    pub const fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// Whether each file begins with a piece of its own, as v2 has it.
    #[must_use]
    pub const fn is_aligned(&self) -> bool {
        self.spec.format.has_v2()
    }

    /// Whether a hash has what the format needs, no more and no less.
    #[must_use]
    pub const fn takes(&self, hash: &PieceHash) -> bool {
        let format = self.spec.format;
        hash.v1.is_some() == format.has_v1() && hash.v2.is_some() == format.has_v2()
    }

    /// Hashes the data of a piece, without the padding behind it.
    ///
    /// # Panics
    /// If `data` is not as long as the piece's data.
    #[must_use]
    pub fn hash_piece(&self, piece: PieceIndex, data: &[u8]) -> PieceHash {
        assert_eq!(data.len(), self.geometry.piece_data_len(piece) as usize);
        let v1 = self.spec.format.has_v1().then(|| {
            let mut sha1 = Sha1::new_with_prefix(data);
            // BEP 47: padding counts for SHA-1. None is written behind the last file.
            let padding = if piece.get() + 1 < self.geometry.piece_count() {
                self.geometry.piece_len() as usize - data.len()
            } else {
                0
            };
            const ZEROS: [u8; 4096] = [0; 4096];
            for start in (0..padding).step_by(ZEROS.len()) {
                sha1.update(&ZEROS[..ZEROS.len().min(padding - start)]);
            }
            sha1.finalize().into()
        });
        let v2 = self.spec.format.has_v2().then(|| {
            let leaves = merkle::hash_blocks(data);
            merkle::root(&leaves, 0, self.tree_layers(piece))
        });
        PieceHash { v1, v2 }
    }

    /// Layers of the tree over a piece: fewer in a file shorter than a piece (BEP 52).
    fn tree_layers(&self, piece: PieceIndex) -> u32 {
        let piece_layers = (self.geometry.piece_len() / BLOCK_LEN).trailing_zeros();
        let start = u64::from(piece.get()) * u64::from(self.geometry.piece_len());
        let files = self.layout.files();
        // Of several that start here all but the last are empty.
        let after = files.partition_point(|file| file.start() <= start);
        let blocks = files[after - 1].len().div_ceil(u64::from(BLOCK_LEN));
        merkle::height(blocks).min(piece_layers)
    }

    /// The .torrent file, from the hashes of all pieces in order.
    ///
    /// # Errors
    /// If it would be longer than [`METAINFO_LEN_MAX`].
    ///
    /// # Panics
    /// If there is not one hash for each piece, made by [`Self::hash_piece`].
    pub fn finish(&self, hashes: &[PieceHash]) -> Result<Vec<u8>, CreateError> {
        assert_eq!(hashes.len(), self.geometry.piece_count() as usize);
        let trees = self.trees(hashes);
        let mut info = Encoder::new();
        info.dict(|info| self.encode_info(info, hashes, &trees));
        let info = info.finish();
        let mut to = Encoder::new();
        to.dict(|top| {
            self.encode_head(top);
            top.key("info").raw(&info);
            if self.spec.format.has_v2() {
                encode_layers(top.key("piece layers"), &trees);
            }
            if !self.spec.web_seeds.is_empty() {
                top.key("url-list").list(|list| {
                    let infohash = self.infohash(&info).to_string();
                    let urls = self.spec.web_seeds.iter();
                    urls.for_each(|url| list.bytes(url.replace(INFOHASH, &infohash).as_bytes()));
                });
            }
        });
        let bytes = to.finish();
        if bytes.len() > METAINFO_LEN_MAX {
            return Err(CreateError::TooLong(bytes.len()));
        }
        Ok(bytes)
    }

    fn infohash(&self, info: &[u8]) -> InfoHash {
        if self.spec.format.has_v2() {
            InfoHash::V2(Sha256::digest(info).into())
        } else {
            InfoHash::V1(Sha1::digest(info).into())
        }
    }

    /// Root and piece hashes of each file, in the order of the layout; none of an empty file.
    fn trees(&self, hashes: &[PieceHash]) -> Vec<Option<FileTree>> {
        let piece_len = u64::from(self.geometry.piece_len());
        let base_layer = (self.geometry.piece_len() / BLOCK_LEN).trailing_zeros();
        let tree = |file: &File| {
            if file.is_empty() || !self.spec.format.has_v2() {
                return None;
            }
            let first = (file.start() / piece_len) as usize;
            let count = file.len().div_ceil(piece_len);
            let pieces: Vec<Hash> =
                hashes[first..first + count as usize].iter().filter_map(|hash| hash.v2).collect();
            let root = match pieces.as_slice() {
                [only] => *only,
                _ => merkle::root(&pieces, base_layer, merkle::height(count)),
            };
            Some(FileTree { root, pieces })
        };
        self.layout.files().iter().map(tree).collect()
    }

    fn encode_head(&self, top: &mut DictEncoder<'_>) {
        let spec = &self.spec;
        if let Some(url) = spec.trackers.iter().flatten().next() {
            top.key("announce").bytes(url.as_bytes());
        }
        // BEP 12 is only needed if there is more than BEP 3 can say.
        if spec.trackers.iter().flatten().count() > 1 {
            top.key("announce-list").list(|tiers| {
                for tier in spec.trackers.iter().filter(|tier| !tier.is_empty()) {
                    tiers.list(|urls| tier.iter().for_each(|url| urls.bytes(url.as_bytes())));
                }
            });
        }
        if let Some(comment) = &spec.comment {
            top.key("comment").bytes(comment.as_bytes());
        }
        if let Some(created_by) = &spec.created_by {
            top.key("created by").bytes(created_by.as_bytes());
        }
        if let Some(date) = spec.creation_date {
            top.key("creation date").int(date);
        }
    }

    fn encode_info(
        &self,
        info: &mut DictEncoder<'_>,
        hashes: &[PieceHash],
        trees: &[Option<FileTree>],
    ) {
        let format = self.spec.format;
        let only = self.layout.files().first().filter(|_| self.single);
        if let Some(file) = only.filter(|file| format.has_v1() && file.is_executable()) {
            encode_executable(info, file);
        }
        if format.has_v2() {
            let skip = usize::from(!self.single);
            let entries: Vec<_> = self.layout.files().iter().zip(trees).collect();
            encode_tree(info.key("file tree"), &entries, skip);
        }
        if format.has_v1() {
            match only {
                Some(file) => info.key("length").int(file.len() as i64),
                None => self.encode_files(info.key("files")),
            }
        }
        if format.has_v2() {
            info.key("meta version").int(2);
        }
        info.key("name").bytes(self.name.as_bytes());
        info.key("piece length").int(i64::from(self.geometry.piece_len()));
        if format.has_v1() {
            let sha1s: Vec<PieceSha1> = hashes.iter().filter_map(|hash| hash.v1).collect();
            info.key("pieces").bytes(sha1s.as_flattened());
        }
        if self.spec.private {
            info.key("private").int(1);
        }
    }

    /// BEP 3 `files`; in a hybrid with padding (BEP 47), so that files start where v2 has them.
    fn encode_files(&self, to: &mut Encoder) {
        to.list(|list| {
            let mut end = 0;
            for file in self.layout.files() {
                if !file.is_empty() && file.start() > end {
                    let padding = file.start() - end;
                    list.dict(|dict| {
                        dict.key("attr").bytes(b"p");
                        dict.key("length").int(padding as i64);
                        dict.key("path").list(|path| {
                            path.bytes(b".pad");
                            path.bytes(padding.to_string().as_bytes());
                        });
                    });
                }
                list.dict(|dict| {
                    encode_executable(dict, file);
                    dict.key("length").int(file.len() as i64);
                    dict.key("path").list(|path| {
                        let parts = &file.path().components()[1..];
                        parts.iter().for_each(|part| path.bytes(part.as_bytes()));
                    });
                });
                end = file.start() + file.len();
            }
        });
    }
}

/// Writes BEP 52 `file tree` of `entries`, sorted, of whose paths the first `depth` components are
/// the same and written already.
fn encode_tree(to: &mut Encoder, entries: &[(&File, &Option<FileTree>)], depth: usize) {
    to.dict(|folder| {
        let name = |entry: &(&File, _)| entry.0.path().components()[depth].clone();
        for group in entries.chunk_by(|a, b| name(a) == name(b)) {
            let to = folder.key(name(&group[0]));
            match group {
                [(file, tree)] if file.path().components().len() == depth + 1 => to.dict(|entry| {
                    entry.key("").dict(|dict| {
                        encode_executable(dict, file);
                        dict.key("length").int(file.len() as i64);
                        if let Some(tree) = tree {
                            dict.key("pieces root").bytes(&tree.root);
                        }
                    });
                }),
                _ => encode_tree(to, group, depth + 1),
            }
        }
    });
}

/// Writes BEP 52 `piece layers`: of each file that is longer than a piece, by root. The same file
/// twice has one layer.
fn encode_layers(to: &mut Encoder, trees: &[Option<FileTree>]) {
    let mut layers: Vec<_> = trees.iter().flatten().filter(|tree| tree.pieces.len() > 1).collect();
    layers.sort_unstable();
    layers.dedup();
    to.dict(|dict| {
        for tree in layers {
            dict.key(tree.root).bytes(tree.pieces.as_flattened());
        }
    });
}

fn encode_executable(dict: &mut DictEncoder<'_>, file: &File) {
    if file.is_executable() {
        dict.key("attr").bytes(b"x");
    }
}

/// The files with their checked paths, sorted as BEP 52 sorts them.
fn files(name: &str, content: Content) -> Result<Vec<File>, MetainfoError> {
    let new_files = match content {
        Content::File { len, executable } => {
            return Ok(vec![File::new(FilePath::new([name])?, len, executable)]);
        }
        Content::Folder(new_files) => new_files,
    };
    if new_files.len() > FILES_MAX {
        return Err(MetainfoError::TooManyFiles);
    }
    let mut files = new_files
        .into_iter()
        .map(|new| {
            let below = FilePath::new(&new.path)?;
            let parts = below.components().iter().map(String::as_str);
            let path = FilePath::new([name].into_iter().chain(parts))?;
            Ok(File::new(path, new.len, new.executable))
        })
        .collect::<Result<Vec<_>, MetainfoError>>()?;
    files.sort_unstable_by(|a, b| a.path().cmp(b.path()));
    super::path::check_distinct(files.iter().map(File::path))?;
    Ok(files)
}

fn check_urls(spec: &Spec) -> Result<(), CreateError> {
    let trackers: Vec<&String> = spec.trackers.iter().flatten().collect();
    let web_seeds: Vec<&String> = spec.web_seeds.iter().collect();
    for urls in [trackers, web_seeds] {
        let bad = |(at, url): &(usize, &&String)| {
            let len =
                url.len() + url.matches(INFOHASH).count() * (INFOHASH_LEN_MAX - INFOHASH.len());
            url.is_empty() || len > URL_LEN_MAX || *at >= URLS_MAX
        };
        if let Some((_, url)) = urls.iter().enumerate().find(bad) {
            return Err(CreateError::Url(url.to_string()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(data_len: u64, expect: u32) {
        assert_eq!(piece_len(data_len), expect);
    }

    #[test]
    fn pieces_number_2048_to_4096() {
        const MIB: u64 = 1 << 20;
        check(0, 16 << 10);
        check(32 * MIB, 16 << 10);
        check(64 * MIB, 16 << 10);
        check(64 * MIB + 1, 32 << 10);
        check(128 * MIB, 32 << 10);
        check(1024 * MIB, 256 << 10);
        check(64 * 1024 * MIB, 16 << 20);
        check(u64::MAX, 16 << 20);
    }
}
