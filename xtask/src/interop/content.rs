//! What is transferred: one file, and a folder of files whose lengths fit nothing.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

/// Length of the one file: its last piece and its last block are short at any piece length.
const SINGLE_LEN: usize = 5 * 1024 * 1024 + 12_345;

/// Files of the folder: longer and shorter than a piece, a block exactly, one byte, none.
const FOLDER: &[(&str, usize)] = &[
    ("a.bin", 1_500_001),
    ("b.bin", 16_384),
    ("empty", 0),
    ("sub/c.bin", 700_003),
    ("sub/d.bin", 2 * 1024 * 1024),
    ("sub/deep/e.bin", 100_000),
    ("z.bin", 1),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Single,
    Folder,
}

impl Shape {
    /// What the torrent is named after.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Single => "single.img",
            Self::Folder => "folder",
        }
    }
}

/// Both, ready to be copied into labs.
pub(super) struct Contents {
    dir: PathBuf,
}

impl Contents {
    pub(super) fn create(dir: &Path) -> Result<Self> {
        let this = Self { dir: dir.to_owned() };
        for (number, (path, len)) in files(Shape::Single).chain(files(Shape::Folder)).enumerate() {
            let path = dir.join(path);
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)
                    .with_context(|| format!("creating {}", parent.display()))?;
            }
            fs::write(&path, bytes(number as u64 + 1, len))
                .with_context(|| format!("writing {}", path.display()))?;
        }
        Ok(this)
    }

    /// Puts a copy into a slot's directory.
    pub(super) fn copy(&self, shape: Shape, to: &Path) -> Result<()> {
        for (path, _) in files(shape) {
            let to = to.join(&path);
            fs::create_dir_all(to.parent().context("a path without a parent")?)?;
            fs::copy(self.dir.join(&path), &to)
                .with_context(|| format!("copying to {}", to.display()))?;
        }
        Ok(())
    }

    /// Fails with the name of the first file that differs. Transmission 3.00 makes no empty files,
    /// and no torrents with them: `with_empty` says whether they must be there.
    pub(super) fn compare(&self, shape: Shape, copy: &Path, with_empty: bool) -> Result<()> {
        for (path, _) in files(shape).filter(|(_, len)| with_empty || *len > 0) {
            let expect = fs::read(self.dir.join(&path))?;
            let got = copy.join(&path);
            let got = fs::read(&got).with_context(|| format!("reading {}", got.display()))?;
            ensure!(got.len() == expect.len(), "{path} has {} bytes", got.len());
            let differs = got.iter().zip(&expect).position(|(got, expect)| got != expect);
            ensure!(differs.is_none(), "{path} differs at byte {}", differs.unwrap_or_default());
        }
        Ok(())
    }
}

/// Paths below a slot's directory, and lengths.
fn files(shape: Shape) -> impl Iterator<Item = (String, usize)> {
    let single = (shape == Shape::Single).then(|| (shape.name().to_owned(), SINGLE_LEN));
    let folder = if shape == Shape::Folder { FOLDER } else { &[] };
    let path = move |path: &str| format!("{}/{path}", shape.name());
    single.into_iter().chain(folder.iter().map(move |&(at, len)| (path(at), len)))
}

/// xorshift64: no two blocks are the same, and every run has the same.
pub(super) fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}
