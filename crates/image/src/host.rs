//! Files of this machine: of the lab, of its packages, of the person who runs a command. All else in this
//! crate opens nothing by path (`clippy.toml` disallows it), and of a [`Tree`](crate::tree::root::Tree) no
//! path can be made to give to these. What is in a folder that others can write to, as that of an image, is
//! reached by [`Root`](crate::tree::root::Root).
#![allow(clippy::disallowed_methods)]

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

/// What only the owner of the lab may look into: there are programs in trees that are root's for whoever
/// runs them, and devices.
const CLOSED: u32 = 0o700;

/// Whether there is something.
pub(crate) fn exists(path: &Path) -> bool {
    path.exists()
}

/// Whether it is a folder.
pub(crate) fn is_dir(path: &Path) -> bool {
    path.is_dir()
}

/// Whether it is a file.
pub(crate) fn is_file(path: &Path) -> bool {
    path.is_file()
}

/// What is known of it.
pub(crate) fn metadata(path: &Path) -> io::Result<Metadata> {
    fs::metadata(path)
}

/// Opens a file for reading.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    File::open(path)
}

/// Makes a file, or empties it.
pub(crate) fn create(path: &Path) -> io::Result<File> {
    File::create(path)
}

/// The bytes of a file.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    fs::read(path)
}

/// The text of a file.
pub(crate) fn read_to_string(path: &Path) -> io::Result<String> {
    fs::read_to_string(path)
}

/// Writes a file.
pub(crate) fn write(path: &Path, bytes: impl AsRef<[u8]>) -> io::Result<()> {
    fs::write(path, bytes)
}

/// Gives a file another name, or its place.
pub(crate) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)
}

/// Gives a file one more name.
pub(crate) fn hard_link(from: &Path, to: &Path) -> io::Result<()> {
    fs::hard_link(from, to)
}

/// Makes a folder and those above it.
pub(crate) fn create_dir_all(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)
}

/// Makes a folder and those above it, new ones for their owner's eyes alone.
pub(crate) fn create_closed_dir(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(CLOSED).create(path)
}

/// Removes a file.
pub(crate) fn remove_file(path: &Path) -> io::Result<()> {
    fs::remove_file(path)
}

/// Removes a folder with all that is in it; links in it are removed, not followed.
pub(crate) fn remove_dir_all(path: &Path) -> io::Result<()> {
    fs::remove_dir_all(path)
}

/// What is in a folder, each with its metadata; links are not followed.
pub(crate) fn entries(path: &Path) -> io::Result<Vec<(PathBuf, Metadata)>> {
    let mut entries = vec![];
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        entries.push((entry.path(), entry.metadata()?));
    }
    Ok(entries)
}

/// Copies a file.
pub(crate) fn copy(from: &Path, to: &Path) -> io::Result<u64> {
    fs::copy(from, to)
}
