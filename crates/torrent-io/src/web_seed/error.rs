//! What a web seed can do wrong, by URL, and whether it is worth another try.

use std::time::Duration;

/// How long to leave a server alone that says it is busy and not for how long.
const BUSY_WAIT: Duration = Duration::from_secs(5);

/// How long to leave a server alone that could not be reached, or broke off: long enough for a
/// restart of it, short against an image's download.
const LOST_WAIT: Duration = Duration::from_secs(1);

/// Why a fetch failed.
#[derive(Debug, thiserror::Error)]
pub enum WebSeedError {
    /// Not `http://`. Nodes verify what they get by hash, so TLS would add weight and no safety.
    #[error("{0}: not an http:// URL; web seeds are fetched by plain HTTP")]
    Scheme(String),
    /// The URL cannot be parsed.
    #[error("{url}: not a URL")]
    Url {
        /// As given, with the path of the file.
        url: String,
        /// What is wrong with it.
        source: ureq::Error,
    },
    /// The server cannot be reached, or broke off in the head of the answer.
    #[error("{url}: no answer from the server")]
    Lost {
        /// What was asked for.
        url: String,
        /// Why.
        source: ureq::Error,
    },
    /// No byte for some seconds, or fewer in all than a usable server sends.
    #[error("{url}: the server stalls")]
    Stalled {
        /// What was asked for.
        url: String,
    },
    /// More redirects than allowed.
    #[error("{url}: too many redirects")]
    Redirects {
        /// What was asked for.
        url: String,
    },
    /// 429 or 503.
    #[error("{url}: the server is busy")]
    Busy {
        /// What was asked for.
        url: String,
        /// What the server says in `Retry-After`.
        retry_after: Option<Duration>,
    },
    /// An answer that is no data.
    #[error("{url}: the server answers with status {status}")]
    Status {
        /// What was asked for.
        url: String,
        /// The HTTP status.
        status: u16,
    },
    /// 200 in place of 206, for a file too long to skip through.
    #[error("{url}: the server does not support ranges")]
    NoRanges {
        /// What was asked for.
        url: String,
    },
    /// 206, but of another range, or encoded.
    #[error("{url}: the server sends {found:?} where bytes {start} to {end} were asked for")]
    WrongRange {
        /// What was asked for.
        url: String,
        /// First byte asked for.
        start: u64,
        /// Last byte asked for.
        end: u64,
        /// What came.
        found: String,
    },
    /// The file on the server is not of this torrent.
    #[error("{url}: the file has {found} bytes on the server, {expected} in the torrent")]
    WrongLen {
        /// What was asked for.
        url: String,
        /// Bytes by the metainfo.
        expected: u64,
        /// Bytes by the server.
        found: u64,
    },
    /// The server broke off again and again.
    #[error("{url}: the server breaks off before the end")]
    Short {
        /// What was asked for.
        url: String,
    },
    /// The sink wanted no more.
    #[error("cancelled")]
    Cancelled,
}

impl WebSeedError {
    /// When to try again; `None` if that is pointless.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Busy { retry_after, .. } => Some(retry_after.unwrap_or(BUSY_WAIT)),
            Self::Status { status, .. } if *status >= 500 || *status == 408 => Some(BUSY_WAIT),
            Self::Lost { .. } | Self::Stalled { .. } | Self::Short { .. } => Some(LOST_WAIT),
            Self::Cancelled => Some(Duration::ZERO),
            Self::Scheme(_)
            | Self::Url { .. }
            | Self::Redirects { .. }
            | Self::Status { .. }
            | Self::NoRanges { .. }
            | Self::WrongRange { .. }
            | Self::WrongLen { .. } => None,
        }
    }
}
