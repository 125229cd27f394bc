//! What can go wrong with images and kernels: each case names what it is about and what to do.

use std::io;
use std::path::{Path, PathBuf};

use crate::command::CommandError;

/// Why an image or a kernel is not as it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// No such image.
    #[error("no image `{0}` in oss/: `boottorrent image list` shows those that are there")]
    NoSuchImage(String),
    /// The name is taken.
    #[error("there is an image `{0}` already: choose another name, or remove it first")]
    Exists(String),
    /// Somebody builds it.
    #[error("`{name}` is being built by process {pid}: wait until it is done, or end that process")]
    InCreation {
        /// The image.
        name: String,
        /// Who builds it.
        pid: u32,
    },
    /// It was made by hand: there is no image_data.yml.
    #[error("`{0}` was made by hand, without image_data.yml: this works on built images only")]
    NotBuilt(String),
    /// No kind of this name.
    #[error("no kind of images is called `{0}`; there are {kinds}", kinds = crate::kind::names())]
    NoSuchKind(String),
    /// What was asked for does not go together.
    #[error("{0}")]
    Wrong(String),
    /// A file that cannot be read.
    #[error("cannot read {}", file.display())]
    Read {
        /// Which.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file that cannot be written.
    #[error("cannot write {}", file.display())]
    Write {
        /// Which.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file that says something else than it must.
    #[error("{}: {message}", file.display())]
    Data {
        /// Which.
        file: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// A program that we need has failed.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// Something about the kernel.
    #[error(transparent)]
    Phase1(#[from] crate::phase1::Phase1Error),
    /// The disk is too full.
    #[error(
        "{} has {free_mb} MB free, this needs about {needed_mb} MB: make room, nothing was changed",
        dir.display()
    )]
    NoSpace {
        /// Where.
        dir: PathBuf,
        /// What is needed.
        needed_mb: u64,
        /// What is there.
        free_mb: u64,
    },
    /// The content is larger than allowed.
    #[error(
        "`{name}` holds {content_mb} MB, which does not fit into {size_mb} MB: choose a larger \
         size, or none; what was there is unchanged"
    )]
    TooLarge {
        /// The image.
        name: String,
        /// What it holds.
        content_mb: u64,
        /// What was allowed.
        size_mb: u32,
    },
    /// Not root.
    #[error("{0} needs root: run it with sudo")]
    NoRoot(&'static str),
    /// Ctrl+C.
    #[error("interrupted: nothing was changed")]
    Interrupted,
}

impl ImageError {
    /// For `map_err`.
    pub fn read(file: &Path) -> impl FnOnce(io::Error) -> Self {
        let file = file.to_owned();
        move |source| Self::Read { file, source }
    }

    /// For `map_err`.
    pub fn write(file: &Path) -> impl FnOnce(io::Error) -> Self {
        let file = file.to_owned();
        move |source| Self::Write { file, source }
    }
}
