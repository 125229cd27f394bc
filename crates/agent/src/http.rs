//! What the agent asks of the server by HTTP: small things, whole or not at all. Images come through
//! the swarm and its web seeds.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;
use std::time::Duration;

/// A server on the same network answers in milliseconds, and one that a thousand nodes ask at once
/// in seconds.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// How long a server may send nothing.
const SILENCE_MAX: Duration = Duration::from_secs(5);

/// How long one answer may take: the longest torrent, 64 MiB, at 20 Mbit/s.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// The server as nodes reach it, such as `http://10.0.0.1:8080`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServerUrl(String);

/// A text that is no such URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not the URL of a server: write it like http://10.0.0.1:8080")]
pub(crate) struct ServerUrlError(String);

impl FromStr for ServerUrl {
    type Err = ServerUrlError;

    fn from_str(text: &str) -> Result<Self, ServerUrlError> {
        let host = text.strip_prefix("http://").map(|rest| rest.trim_end_matches('/'));
        match host {
            Some(host) if !host.is_empty() && !host.contains([' ', '?', '#']) => {
                Ok(Self(format!("http://{host}")))
            }
            _ => Err(ServerUrlError(text.chars().take(80).collect())),
        }
    }
}

impl ServerUrl {
    /// The URL of something on the server; `path` begins with a slash.
    pub(crate) fn join(&self, path: &str) -> String {
        format!("{}{path}", self.0)
    }

    /// The server's address, where the URL has it.
    pub(crate) fn address(&self) -> Option<Ipv4Addr> {
        let authority = self.0.strip_prefix("http://")?.split('/').next()?;
        authority.split(':').next()?.parse().ok()
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why something was not fetched.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HttpError {
    /// The server has it not, or does not give it.
    #[error("{url}: the server answers with status {status}")]
    Status {
        /// What was asked for.
        url: String,
        /// The HTTP status.
        status: u16,
    },
    /// It is longer than it can be.
    #[error("{url}: longer than {len_max} bytes")]
    TooLong {
        /// What was asked for.
        url: String,
        /// The limit.
        len_max: usize,
    },
    /// No connection, or it broke.
    #[error("{url}: {source}")]
    Lost {
        /// What was asked for.
        url: String,
        /// Why.
        source: ureq::Error,
    },
}

/// A client whose connections are kept for the next question.
pub(crate) fn client() -> ureq::Agent {
    ureq::Agent::config_builder()
        .timeout_connect(Some(CONNECT_TIMEOUT))
        .timeout_recv_response(Some(SILENCE_MAX))
        .timeout_per_read(Some(SILENCE_MAX))
        .timeout_global(Some(ANSWER_TIMEOUT))
        .user_agent(concat!("BootTorrent/", env!("CARGO_PKG_VERSION")))
        // The environment of PID 1 is what the kernel command line says.
        .proxy(None)
        .build()
        .new_agent()
}

/// What is at `url`, of at most `len_max` bytes.
///
/// # Errors
/// If the server does not give it whole.
pub(crate) fn fetch(client: &ureq::Agent, url: &str, len_max: usize) -> Result<Vec<u8>, HttpError> {
    let failed = |error| match error {
        ureq::Error::StatusCode(status) => HttpError::Status { url: url.to_owned(), status },
        ureq::Error::BodyExceedsLimit(_) => HttpError::TooLong { url: url.to_owned(), len_max },
        source => HttpError::Lost { url: url.to_owned(), source },
    };
    let mut response = client.get(url).call().map_err(failed)?;
    response.body_mut().with_config().limit(len_max as u64).read_to_vec().map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_named_by_a_plain_url() {
        let url: ServerUrl = "http://10.0.0.1:8080/".parse().unwrap();
        assert_eq!(url.join("/manifest.json"), "http://10.0.0.1:8080/manifest.json");
        assert_eq!(url.address(), Some([10, 0, 0, 1].into()));
        assert_eq!("http://server/x".parse::<ServerUrl>().unwrap().address(), None);
        for text in ["", "http://", "https://h", "10.0.0.1:8080", "http://a b", "http://h?x"] {
            assert!(text.parse::<ServerUrl>().is_err(), "{text}");
        }
    }
}
