//! The v2 side of an info dictionary: `file tree`, and `piece layers` beside it (BEP 52).

use crate::bencode::{Dict, Value};
use crate::geometry::BLOCK_LEN;
use crate::merkle::{self, Hash};

use super::layout::File;
use super::{
    Attributes, FILES_MAX, FilePath, FileTree, LayerFault, MetainfoError, PathFault, file_len,
    require, require_dict,
};

/// A file of the tree.
pub(super) struct Entry {
    file: File,
    /// Zeros for an empty file.
    root: Hash,
}

impl Entry {
    pub(super) fn file(&self) -> File {
        self.file.clone()
    }
}

/// Reads the file tree, in its order. Whether the torrent is a single file without a folder is
/// known from the v1 side of a hybrid; BEP 52 alone tells it by the tree being one file.
pub(super) fn decode(
    info: &Dict<'_>,
    name: &str,
    single: Option<bool>,
) -> Result<Vec<Entry>, MetainfoError> {
    let tree = require_dict(info, "file tree")?;
    let single = single.unwrap_or_else(|| is_one_file(tree));
    let mut walk =
        Walk { parts: if single { vec![] } else { vec![name.as_bytes()] }, files: vec![] };
    walk.folder(tree)?;
    Ok(walk.files)
}

fn is_one_file(tree: &Dict<'_>) -> bool {
    let mut entries = tree.iter();
    match (entries.next(), entries.next()) {
        (Some((_, entry)), None) => entry.as_dict().is_some_and(|dict| dict.get(b"").is_some()),
        _ => false,
    }
}

struct Walk<'a> {
    parts: Vec<&'a [u8]>,
    files: Vec<Entry>,
}

impl<'a> Walk<'a> {
    /// Recursion is bounded by the depth that bencode allows.
    fn folder(&mut self, folder: &Dict<'a>) -> Result<(), MetainfoError> {
        for (name, entry) in folder.iter() {
            let entry = entry.as_dict().ok_or(MALFORMED)?;
            self.parts.push(name);
            match entry.get(b"") {
                // BEP 52: a file "must not have any sibling entries".
                Some(file) if entry.len() == 1 => self.file(file.as_dict().ok_or(MALFORMED)?)?,
                Some(_) => return Err(MALFORMED),
                None => self.folder(entry)?,
            }
            self.parts.pop();
        }
        Ok(())
    }

    fn file(&mut self, dict: &Dict<'a>) -> Result<(), MetainfoError> {
        if self.files.len() == FILES_MAX {
            return Err(MetainfoError::TooManyFiles);
        }
        let path = FilePath::new(&self.parts)?;
        let attributes = Attributes::decode(dict)?;
        if attributes.symlink {
            return Err(path.refuse(PathFault::Symlink));
        }
        let len = file_len(dict)?;
        let root = match len {
            0 => [0; 32],
            _ => require(dict, "pieces root", |value| {
                value.as_bytes().and_then(|root| root.try_into().ok())
            })?,
        };
        self.files.push(Entry { file: File::new(path, len, attributes.executable), root });
        Ok(())
    }
}

/// Reads the piece layer of each file and proves it by the file's root: the layers lie outside the
/// info dictionary, so the infohash does not cover them.
pub(super) fn trees(
    top: &Dict<'_>,
    files: &[Entry],
    piece_len: u32,
) -> Result<Vec<FileTree>, MetainfoError> {
    const LAYERS: &str = "piece layers";
    // Needless if no file is longer than a piece, and some tools leave it out then.
    let layers = match top.get(LAYERS.as_bytes()) {
        Some(layers) => Some(layers.as_dict().ok_or(MetainfoError::Malformed(LAYERS))?),
        None => None,
    };
    let tree = |entry: &Entry| {
        let pieces = if entry.file.len() > u64::from(piece_len) {
            let layer = layers.and_then(|layers| layers.get(&entry.root));
            piece_layer(entry, layer, piece_len).map_err(|fault| MetainfoError::Layer {
                path: entry.file.path().to_string(),
                fault,
            })?
        } else if entry.file.is_empty() {
            vec![]
        } else {
            vec![entry.root]
        };
        Ok(FileTree { root: entry.root, pieces })
    };
    files.iter().map(tree).collect()
}

fn piece_layer(
    entry: &Entry,
    layer: Option<&Value<'_>>,
    piece_len: u32,
) -> Result<Vec<Hash>, LayerFault> {
    let layer = layer.and_then(Value::as_bytes).ok_or(LayerFault::Missing)?;
    let (hashes, rest) = layer.as_chunks::<32>();
    let piece_count = entry.file.len().div_ceil(u64::from(piece_len));
    if !rest.is_empty() || hashes.len() as u64 != piece_count {
        return Err(LayerFault::Len);
    }
    let base_layer = (piece_len / BLOCK_LEN).trailing_zeros();
    if merkle::root(hashes, base_layer, merkle::height(piece_count)) != entry.root {
        return Err(LayerFault::Root);
    }
    Ok(hashes.to_vec())
}

const MALFORMED: MetainfoError = MetainfoError::Malformed("file tree");
