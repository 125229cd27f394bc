//! How commands ask a running server: over HTTP, through the socket in its lab, or through the network with
//! the lab's token. What they ask for are the paths of docs/api.md, `/v1` and, for what `-o json` prints as
//! it always was, `/api/v1`.

mod connection;
mod target;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use axum::http::{Method, Request, StatusCode, Uri};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use self::connection::Connection;
pub(crate) use self::connection::Trust;
pub(crate) use self::target::{Target, TargetArgs};
use crate::services::control;
use crate::services::lock::{Holder, Lock};

/// The longest answer that is read: 10,000 nodes of 1 KiB are 10 MiB.
const ANSWER_LEN_MAX: usize = 256 << 20;

/// How long an answer may take: a reload hashes what is new in the catalogue, which is said to last.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(600);

/// Whom to ask.
#[derive(Clone, Debug)]
pub(crate) struct Client(Whom);

#[derive(Clone, Debug)]
enum Whom {
    /// The server of the lab in this folder, as its owner.
    Lab(PathBuf),
    /// The server at this address, as whoever has its token.
    Remote { base: Base, token: Option<String>, trust: Trust },
}

/// Where a server is: `http://` or `https://`, its name or address, and the port if it is another than
/// the scheme's.
#[derive(Clone, Debug)]
pub(crate) struct Base {
    uri: Uri,
    is_encrypted: bool,
    host: String,
    port: u16,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    #[error("no server of this lab runs in {}: `boottorrent start` begins one", lab.display())]
    NotRunning { lab: PathBuf },
    #[error(
        "the server of this lab is starting{}: it hashes images or builds phase 1",
        pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default()
    )]
    Starting { pid: Option<u32> },
    #[error(
        "the server of this lab is another user's: run this as the user that started it, or as root"
    )]
    NotAllowed,
    #[error("cannot talk to {whom}")]
    Io { whom: String, source: io::Error },
    #[error("cannot talk to {whom}")]
    Http { whom: String, source: hyper::Error },
    #[error("{whom} gave no answer within {} s", ANSWER_TIMEOUT.as_secs())]
    Late { whom: String },
    #[error(
        "{whom} gave an answer that this program does not understand: it is of another version, or no \
         BootTorrent"
    )]
    Answer { whom: String },
    #[error(
        "this needs the lab's token: `boottorrent dashboard token` prints it on the server, and \
         `--token-file` names a file with it"
    )]
    NoToken,
    /// What the server says about it.
    #[error("{0}")]
    Refused(String),
}

impl Client {
    /// Of the server of the lab in `lab`.
    pub(crate) const fn of_lab(lab: PathBuf) -> Self {
        Self(Whom::Lab(lab))
    }

    /// Of the server at `base`.
    pub(crate) const fn remote(base: Base, token: Option<String>, trust: Trust) -> Self {
        Self(Whom::Remote { base, token, trust })
    }

    /// What the server answers to a question.
    ///
    /// # Errors
    /// [`ClientError`]; what the server refuses is one, too.
    pub(crate) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.read(&self.exchange(Method::GET, path, None)?)
    }

    /// What the server answers when it has done something.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub(crate) fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: Option<&Value>,
    ) -> Result<T, ClientError> {
        let bytes = self.exchange(Method::POST, path, body)?;
        // Where there is nothing to tell there is no body.
        self.read(if bytes.is_empty() { b"null" } else { &bytes })
    }

    fn read<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<T, ClientError> {
        serde_json::from_slice(bytes).map_err(|_| ClientError::Answer { whom: self.whom() })
    }

    fn whom(&self) -> String {
        match &self.0 {
            Whom::Lab(lab) => {
                format!("the server of this lab through {}", control::path(lab).display())
            }
            Whom::Remote { base, .. } => base.uri.to_string(),
        }
    }

    fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Vec<u8>, ClientError> {
        let failed = |source| ClientError::Io { whom: self.whom(), source };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let asked = async {
            let exchange = self.exchange_within(method, path, body);
            let late = |_| ClientError::Late { whom: self.whom() };
            tokio::time::timeout(ANSWER_TIMEOUT, exchange).await.map_err(late)?
        };
        runtime.map_err(failed)?.block_on(asked)
    }

    async fn exchange_within(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Vec<u8>, ClientError> {
        let failed = |source| ClientError::Io { whom: self.whom(), source };
        let lost = |source| ClientError::Http { whom: self.whom(), source };
        let (mut connection, host) = match &self.0 {
            Whom::Lab(lab) => {
                let stream = control::connect(lab).map_err(|error| self.no_socket(error))?;
                (Connection::through(stream).await.map_err(failed)?, "localhost")
            }
            Whom::Remote { base, trust, .. } => {
                (Connection::to(base, trust).await.map_err(failed)?, base.authority())
            }
        };
        let mut request = Request::builder().method(method).uri(path).header(HOST, host);
        if let Whom::Remote { token: Some(token), .. } = &self.0 {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        let request = request.body(body).map_err(io::Error::other).map_err(failed)?;
        let answer = connection.exchange(request).await.map_err(lost)?;
        let (head, body) = answer.into_parts();
        let bytes = axum::body::to_bytes(Body::new(body), ANSWER_LEN_MAX).await;
        let bytes = bytes.map_err(io::Error::other).map_err(failed)?;
        match head.status.is_success() {
            true => Ok(bytes.to_vec()),
            false => Err(self.refused(head.status, &bytes)),
        }
    }

    /// Why the socket cannot be opened.
    fn no_socket(&self, source: io::Error) -> ClientError {
        let Whom::Lab(lab) = &self.0 else {
            return ClientError::Io { whom: self.whom(), source };
        };
        match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => match Lock::holder(lab) {
                Ok(Holder::Somebody(pid)) => ClientError::Starting { pid },
                _ => ClientError::NotRunning { lab: lab.clone() },
            },
            io::ErrorKind::PermissionDenied => ClientError::NotAllowed,
            _ => ClientError::Io { whom: self.whom(), source },
        }
    }

    /// What a server says that does not do it: a problem (RFC 9457), or a sentence.
    fn refused(&self, status: StatusCode, bytes: &[u8]) -> ClientError {
        #[derive(Deserialize)]
        struct Problem {
            detail: String,
        }
        let text = match serde_json::from_slice::<Problem>(bytes) {
            Ok(problem) => problem.detail,
            Err(_) => String::from_utf8_lossy(bytes).trim().to_owned(),
        };
        // Who answers may be anybody: nothing of it steers the terminal that it is shown on.
        let text: String = text.chars().filter(|c| !c.is_control()).collect();
        match (&self.0, status) {
            (Whom::Remote { token: None, .. }, StatusCode::UNAUTHORIZED) => ClientError::NoToken,
            _ if text.is_empty() => ClientError::Refused(format!("{}: {status}", self.whom())),
            _ => ClientError::Refused(text),
        }
    }
}

#[cfg(test)]
mod tests;
