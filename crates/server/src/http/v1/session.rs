//! `/v1/session`: logging in and out, for browsers. Programs send the token with each request instead.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Extension, FromRequestParts, Request, State};
use axum::http::header::SET_COOKIE;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode};
use axum::response::IntoResponse;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::problem::Problem;
use super::reply;
use crate::http::Site;
use crate::http::keeper::Seat;
use crate::http::login::{COOKIE_NAME, SECRET_LEN_MAX, SESSION_MS_MAX, Session};
use crate::http::serve::{Encrypted, Source};

/// Whether this browser is logged in, and how it can.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SessionView {
    is_open: bool,
    /// What each command must repeat as `X-CSRF-Token`; null without a session.
    csrf: Option<String>,
    /// When the session ends at the latest.
    ends_unix_ms: Option<u64>,
    /// Whether the lab has a password; the token always works.
    has_password: bool,
}

/// To log in with.
#[derive(Deserialize, ToSchema)]
pub(super) struct LoginBody {
    /// The password, or the token.
    #[schema(min_length = 1, max_length = 1024, format = Password)]
    secret: String,
}

/// Whoever sent this may command.
pub(super) struct Allowed(pub(super) Source);

impl FromRequestParts<Site> for Allowed {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, site: &Site) -> Result<Self, Problem> {
        // Without it nothing is known of who asks, and so nothing is allowed.
        let Some(&source) = parts.extensions.get::<Source>() else {
            return Err(Problem::unauthorized("it is not known who asks"));
        };
        if let Source::Peer(from) = source {
            site.0.login.allow(from, &parts.headers)?;
            // Its connection is not one of a stranger's.
            if let Some(seat) = parts.extensions.get::<Arc<Seat>>() {
                seat.trust();
            }
        }
        Ok(Self(source))
    }
}

/// Whether this browser is logged in.
#[utoipa::path(
    get, path = "/v1/session", tag = "session",
    responses(
        (status = 200, body = SessionView),
        (status = 403, body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn look(State(site): State<Site>, headers: HeaderMap) -> Response<Body> {
    reply::json(&view(&site, site.0.login.session(&headers).as_ref()))
}

/// Logs in: the answer sets the session's cookie.
#[utoipa::path(
    post, path = "/v1/session", tag = "session", request_body = LoginBody,
    responses(
        (status = 200, body = SessionView),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 413, body = Problem, content_type = "application/problem+json"),
        (status = 415, body = Problem, content_type = "application/problem+json"),
        (status = 429, body = Problem, content_type = "application/problem+json",
         description = "Too many wrong attempts; `Retry-After` says when to come again"),
        (status = 503, body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn open(
    State(site): State<Site>,
    Extension(source): Extension<Source>,
    encrypted: Option<Extension<Encrypted>>,
    request: Request,
) -> Result<Response<Body>, Problem> {
    let Source::Peer(from) = source else {
        return Err(Problem::bad("the lab's owner commands without logging in"));
    };
    let LoginBody { secret } = reply::body(request).await?;
    if secret.is_empty() || secret.chars().count() > SECRET_LEN_MAX {
        return Err(Problem::bad(format!("secret has 1 to {} characters", SECRET_LEN_MAX)));
    }
    let kept = site.live().dashboard.password.clone();
    let session = site.0.login.open(from, secret, kept).await?;
    tracing::info!(target: "HTTP", "{from} has logged in");
    let mut answer = reply::json(&view(&site, Some(&session)));
    set_cookie(&mut answer, &session.id, SESSION_MS_MAX / 1000, encrypted.is_some());
    Ok(answer)
}

/// Logs out.
#[utoipa::path(
    delete, path = "/v1/session", tag = "session",
    responses(
        (status = 204, description = "There is no session any more"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn close(
    State(site): State<Site>,
    encrypted: Option<Extension<Encrypted>>,
    headers: HeaderMap,
) -> Response<Body> {
    site.0.login.close(&headers);
    let mut answer = StatusCode::NO_CONTENT.into_response();
    set_cookie(&mut answer, "", 0, encrypted.is_some());
    answer
}

fn view(site: &Site, session: Option<&Session>) -> SessionView {
    SessionView {
        is_open: session.is_some(),
        csrf: session.map(|session| session.csrf.clone()),
        ends_unix_ms: session.map(|session| session.ends().0),
        has_password: site.live().dashboard.password.is_some(),
    }
}

/// No script reads it, and no other site's page makes a browser send it.
fn set_cookie(answer: &mut Response<Body>, id: &str, max_age_s: u64, is_encrypted: bool) {
    let secure = if is_encrypted { "; Secure" } else { "" };
    let text = format!(
        "{COOKIE_NAME}={id}; Path=/; Max-Age={max_age_s}; HttpOnly; SameSite=Strict{secure}"
    );
    if let Ok(field) = HeaderValue::from_str(&text) {
        answer.headers_mut().insert(SET_COOKIE, field);
    }
}
