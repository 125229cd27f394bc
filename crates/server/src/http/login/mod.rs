//! Who may command through the dashboard and `/v1`: who has the lab's token or its password. Looking is
//! another matter (`access`).
//!
//! A program sends the token with each request. A browser gives token or password once and gets a
//! session: a cookie that no script can read and that no other site's page can make it send
//! (`SameSite=Strict`), and beside it a word that each command must repeat in a header, which another
//! site's page could not read either. Sessions live in this process alone: a restart ends them, and so
//! does another password.
//!
//! **Guessing.** Attempts are limited for each address (`attempts`). Passwords are checked one at a time,
//! as each takes 19 MiB and some 30 ms on purpose; who would have to wait longer than
//! [`WAIT_MAX`] is sent away.

mod attempts;
mod sessions;
pub(crate) mod token;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::http::header::{AUTHORIZATION, COOKIE};
use axum::http::{HeaderMap, StatusCode};
use boot::PasswordHash;
use subtle::ConstantTimeEq as _;
use tokio::sync::Semaphore;

use self::attempts::Attempts;
use self::sessions::Sessions;
pub(super) use self::sessions::{SESSION_MS_MAX, Session};
use super::v1::Problem;
use crate::fleet::UnixMs;

/// The header in which a command repeats the word of its session.
pub(super) const CSRF_HEADER: &str = "x-csrf-token";

/// The cookie of a session.
pub(super) const COOKIE_NAME: &str = "boottorrent-session";

/// The most bytes of a password that are looked at.
pub(super) const SECRET_LEN_MAX: usize = 1_024;

/// How long a login waits for others before it.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// Who is logged in, and who tries to be.
#[derive(Debug)]
pub(super) struct Login {
    /// The lab, for its token.
    dir: PathBuf,
    sessions: Mutex<Sessions>,
    attempts: Mutex<Attempts>,
    /// One password is checked at a time.
    checking: Semaphore,
}

impl Login {
    pub(super) fn new(dir: PathBuf) -> Self {
        let (sessions, attempts) = (Mutex::default(), Mutex::default());
        Self { dir, sessions, attempts, checking: Semaphore::new(1) }
    }

    /// Ends all sessions: the password is another.
    pub(super) fn end_all(&self) {
        *lock(&self.sessions) = Sessions::default();
    }

    /// Opens a session for who gives the token, or the password that has the hash `kept`.
    ///
    /// # Errors
    /// 401 if it is neither, 429 after too many of those, 503 if too many log in at once.
    pub(super) async fn open(
        &self,
        from: IpAddr,
        secret: String,
        kept: Option<PasswordHash>,
    ) -> Result<Session, Problem> {
        self.begin_attempt(from)?;
        if !self.is_token(&secret) && !self.is_password(secret, kept).await? {
            tracing::warn!(target: "HTTP", "{from} gave a wrong password or token");
            return Err(Problem::unauthorized("this is neither the password nor the token"));
        }
        lock(&self.attempts).forgive(from);
        let session = lock(&self.sessions).open(UnixMs::now());
        session.ok_or_else(|| {
            let text = "there are no random numbers on this server";
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, text)
        })
    }

    /// The session that a request comes with.
    pub(super) fn session(&self, headers: &HeaderMap) -> Option<Session> {
        let id = cookie(headers)?;
        lock(&self.sessions).find(UnixMs::now(), id)
    }

    /// Ends the session that a request comes with, if it is one.
    pub(super) fn close(&self, headers: &HeaderMap) {
        if let Some(id) = cookie(headers) {
            lock(&self.sessions).close(id);
        }
    }

    /// Whether a request may command.
    ///
    /// # Errors
    /// 401 without token and session, or with a wrong token; 403 if it does not repeat the session's
    /// word; 429 after too many wrong tokens.
    pub(super) fn allow(&self, from: IpAddr, headers: &HeaderMap) -> Result<(), Problem> {
        if let Some(field) = headers.get(AUTHORIZATION) {
            self.begin_attempt(from)?;
            let given = field.to_str().ok().and_then(|text| {
                let (scheme, token) = text.split_once(' ')?;
                scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
            });
            if !given.is_some_and(|given| self.is_token(given)) {
                tracing::warn!(target: "HTTP", "{from} gave a wrong token");
                return Err(Problem::unauthorized("this is not the token of this lab"));
            }
            lock(&self.attempts).forgive(from);
            return Ok(());
        }
        let Some(session) = self.session(headers) else {
            return Err(Problem::unauthorized(
                "log in on the dashboard, or send the token of `boottorrent dashboard token` as \
                 `Authorization: Bearer TOKEN`",
            ));
        };
        let given = headers.get(CSRF_HEADER).map(|field| field.as_bytes()).unwrap_or_default();
        match is_same(given, session.csrf.as_bytes()) {
            true => Ok(()),
            false => {
                let text = format!("the header {CSRF_HEADER} must repeat `csrf` of /v1/session");
                Err(Problem::new(StatusCode::FORBIDDEN, text))
            }
        }
    }

    fn begin_attempt(&self, from: IpAddr) -> Result<(), Problem> {
        lock(&self.attempts).begin(UnixMs::now(), from).map_err(|wait_s| {
            let text = format!("too many wrong attempts from {from}: try again in {wait_s} s");
            Problem::new(StatusCode::TOO_MANY_REQUESTS, text).retry_after(wait_s)
        })
    }

    fn is_token(&self, given: &str) -> bool {
        match token::load(&self.dir) {
            Ok(Some(token)) => is_same(given.as_bytes(), token.as_bytes()),
            Ok(None) => false,
            Err(error) => {
                tracing::error!(target: "HTTP", "{error}");
                false
            }
        }
    }

    async fn is_password(
        &self,
        given: String,
        kept: Option<PasswordHash>,
    ) -> Result<bool, Problem> {
        let Some(kept) = kept else { return Ok(false) };
        let busy = || {
            let text = "too many log in at once: try again in a moment";
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, text).retry_after(5)
        };
        let turn = tokio::time::timeout(WAIT_MAX, self.checking.acquire()).await;
        let Ok(Ok(_turn)) = turn else { return Err(busy()) };
        let check = move || kept.is_of(&given);
        tokio::task::spawn_blocking(check).await.map_err(|_| busy())
    }
}

/// Whether two secrets are the same, in a time that does not tell where they differ.
fn is_same(given: &[u8], kept: &[u8]) -> bool {
    given.ct_eq(kept).into()
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    let fields = headers.get_all(COOKIE).iter().filter_map(|field| field.to_str().ok());
    let pairs = fields.flat_map(|field| field.split(';')).filter_map(|pair| pair.split_once('='));
    pairs.into_iter().find(|(name, _)| name.trim() == COOKIE_NAME).map(|(_, value)| value.trim())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
