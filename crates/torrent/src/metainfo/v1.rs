//! The v1 side of an info dictionary: `files` or `length`, and `pieces` (BEP 3, 47).

use crate::bencode::{Dict, Value};
use crate::geometry::PIECES_MAX;

use super::layout::{File, Layout};
use super::{
    Attributes, FILES_MAX, FilePath, MetainfoError, PathFault, PieceSha1, TOTAL_LEN_MAX, file_len,
    optional, require,
};

/// What BEP 3 says of a torrent.
pub(super) struct Side {
    pub(super) is_single_file: bool,
    pub(super) entries: Vec<Entry>,
    pub(super) pieces: Vec<PieceSha1>,
    piece_len: u32,
}

/// One entry of `files`.
pub(super) enum Entry {
    File(File),
    /// BEP 47: zeros that are not to be stored.
    Padding(u64),
}

pub(super) fn decode(info: &Dict<'_>, name: &str, piece_len: u32) -> Result<Side, MetainfoError> {
    let pieces = require(info, "pieces", Value::as_bytes)?;
    let (hashes, rest) = pieces.as_chunks::<20>();
    if !rest.is_empty() || hashes.len() > PIECES_MAX as usize {
        return Err(MetainfoError::Malformed("pieces"));
    }
    let files = optional(info, "files", Value::as_list)?;
    let entries = match files {
        // BEP 3: "either a key `length` or a key `files`, but not both or neither".
        Some(_) if info.get(b"length").is_some() => {
            return Err(MetainfoError::Malformed("length"));
        }
        Some(files) => decode_files(files, name)?,
        None => {
            let attributes = Attributes::decode(info)?;
            let path = FilePath::new([name])?;
            if attributes.symlink {
                return Err(path.refuse(PathFault::Symlink));
            }
            vec![Entry::File(File::new(path, file_len(info)?, attributes.executable))]
        }
    };
    Ok(Side { is_single_file: files.is_none(), entries, pieces: hashes.to_vec(), piece_len })
}

fn decode_files(files: &[Value<'_>], name: &str) -> Result<Vec<Entry>, MetainfoError> {
    // Padding can come between any two files, so twice as many entries.
    if files.len() > 2 * FILES_MAX {
        return Err(MetainfoError::TooManyFiles);
    }
    let entries: Vec<Entry> =
        files.iter().map(|file| decode_file(file, name)).collect::<Result<_, _>>()?;
    if entries.iter().filter(|entry| entry.file().is_some()).count() > FILES_MAX {
        return Err(MetainfoError::TooManyFiles);
    }
    super::path::check_distinct(entries.iter().filter_map(|e| e.file().map(File::path)))?;
    Ok(entries)
}

fn decode_file(file: &Value<'_>, name: &str) -> Result<Entry, MetainfoError> {
    let file = file.as_dict().ok_or(MetainfoError::Malformed("files"))?;
    let attributes = Attributes::decode(file)?;
    // BEP 47: the path of padding need not be there, and nothing is ever written to it.
    if attributes.padding && !attributes.symlink {
        return Ok(Entry::Padding(file_len(file)?));
    }
    let mut parts = vec![name.as_bytes()];
    for part in require(file, "path", Value::as_list)? {
        parts.push(part.as_bytes().ok_or(MetainfoError::Malformed("path"))?);
    }
    if parts.len() == 1 {
        return Err(MetainfoError::Malformed("path"));
    }
    let path = FilePath::new(parts)?;
    if attributes.symlink {
        return Err(path.refuse(PathFault::Symlink));
    }
    Ok(Entry::File(File::new(path, file_len(file)?, attributes.executable)))
}

impl Entry {
    pub(super) const fn file(&self) -> Option<&File> {
        match self {
            Self::File(file) => Some(file),
            Self::Padding(_) => None,
        }
    }

    pub(super) const fn len(&self) -> u64 {
        match self {
            Self::File(file) => file.len(),
            Self::Padding(len) => *len,
        }
    }
}

impl Side {
    /// BEP 52, upgrade path: both sides must have the same files in the same order, and padding
    /// must put each where v2 has it. Padding behind the last file is optional: libtorrent writes
    /// it, others do not.
    pub(super) fn check_against(&self, v2: &Layout) -> Result<(), MetainfoError> {
        let mut expect = v2.files().iter();
        let mut start = 0;
        for entry in &self.entries {
            if let Some(ours) = entry.file() {
                let same = expect.next().is_some_and(|theirs| {
                    let placed = ours.is_empty() || theirs.start() == start;
                    ours.path() == theirs.path() && ours.len() == theirs.len() && placed
                });
                if !same {
                    return Err(differ(ours));
                }
            }
            start = super::layout::add_len(start, entry.len())?;
        }
        if let Some(more) = expect.next() {
            return Err(differ(more));
        }
        let padded_len = v2.end().next_multiple_of(u64::from(self.piece_len));
        if start > padded_len.min(TOTAL_LEN_MAX) {
            return Err(MetainfoError::Hybrid { path: "padding".to_owned() });
        }
        Ok(())
    }
}

fn differ(file: &File) -> MetainfoError {
    MetainfoError::Hybrid { path: file.path().to_string() }
}
