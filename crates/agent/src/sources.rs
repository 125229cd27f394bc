//! Where manifest and torrents come from: the archive that the boot program loaded beside the
//! initramfs, and the server by HTTP. Neither is trusted.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::PathBuf;

use crate::http::{self, HttpError, ServerUrl};

/// Where something was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// In the initramfs.
    Initramfs,
    /// By HTTP, at this URL.
    Http(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Initramfs => f.write_str("the initramfs"),
            Self::Http(url) => f.write_str(url),
        }
    }
}

/// Both places.
pub(crate) struct Sources {
    /// The folder `boottorrent` of the initramfs.
    folder: PathBuf,
    server: Option<ServerUrl>,
    client: ureq::Agent,
}

/// Why something was not got.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SourceError {
    /// The initramfs has it not.
    #[error("{} is not in the initramfs", .0.display())]
    Missing(PathBuf),
    /// It cannot be read.
    #[error("{}", path.display())]
    Io {
        /// What.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is longer than it can be.
    #[error("{}: longer than {len_max} bytes", path.display())]
    TooLong {
        /// What.
        path: PathBuf,
        /// The limit.
        len_max: usize,
    },
    /// Nobody has said where the server is.
    #[error("there is no `boottorrent.server` on the kernel command line")]
    NoServer,
    /// The server does not give it.
    #[error(transparent)]
    Http(#[from] HttpError),
}

impl Sources {
    /// The initramfs at `root`, and the server if it is known.
    pub(crate) fn new(root: &std::path::Path, server: Option<ServerUrl>) -> Self {
        Self { folder: root.join("boottorrent"), server, client: http::client() }
    }

    /// The file `path`, such as `manifest.json`, of the initramfs.
    ///
    /// # Errors
    /// If it is not there or is longer than `len_max` bytes.
    pub(crate) fn local(&self, path: &str, len_max: usize) -> Result<Vec<u8>, SourceError> {
        let path = self.folder.join(path);
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound => SourceError::Missing(path.clone()),
            _ => SourceError::Io { path: path.clone(), source },
        };
        let mut bytes = vec![];
        let file = File::open(&path).map_err(failed)?;
        // One more than fits shows that it is too long.
        file.take(len_max as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() > len_max {
            return Err(SourceError::TooLong { path, len_max });
        }
        Ok(bytes)
    }

    /// The same file from the server.
    ///
    /// # Errors
    /// If there is no server, or it does not give it.
    pub(crate) fn remote(&self, path: &str, len_max: usize) -> Result<Vec<u8>, SourceError> {
        let url = self.url(path).ok_or(SourceError::NoServer)?;
        Ok(http::fetch(&self.client, &url, len_max)?)
    }

    /// Where that would be.
    pub(crate) fn url(&self, path: &str) -> Option<String> {
        self.server.as_ref().map(|server| server.join(&format!("/{path}")))
    }
}
