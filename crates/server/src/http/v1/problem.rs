//! How the API says no: `application/problem+json` (RFC 9457).

use std::collections::BTreeMap;

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, Response, StatusCode};
use axum::response::IntoResponse;
use serde::Serialize;
use utoipa::openapi::{self, ContentBuilder, Ref, RefOr, ResponseBuilder};
use utoipa::{IntoResponses, ToSchema};

/// Why a request was not done.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Problem {
    /// `about:blank`: the status says which kind of problem it is.
    #[serde(rename = "type")]
    kind: &'static str,
    /// The status in words.
    title: String,
    /// The HTTP status.
    status: u16,
    /// What is wrong, in a sentence, and what would be right.
    detail: String,
    /// When to try again.
    #[serde(skip)]
    retry_after_s: Option<u64>,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            kind: "about:blank",
            title: status.canonical_reason().unwrap_or("problem").to_owned(),
            status: status.as_u16(),
            detail: detail.into(),
            retry_after_s: None,
        }
    }

    /// Who asks has not said, or not proved, who it is.
    pub(crate) fn unauthorized(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, detail)
    }

    /// It may go well in so many seconds.
    pub(crate) fn retry_after(self, seconds: u64) -> Self {
        Self { retry_after_s: Some(seconds), ..self }
    }

    pub(crate) fn bad(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    pub(crate) fn missing(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }
}

/// The media type of a problem (RFC 9457 section 6.1).
const MEDIA_TYPE: &str = "application/problem+json";

/// In the API's document: in which ways an action can be refused.
pub(super) enum NotDone {}

impl IntoResponses for NotDone {
    fn responses() -> BTreeMap<String, RefOr<openapi::Response>> {
        documented(&[400, 401, 403, 404, 429, 503])
    }
}

/// In the API's document: in which ways a body can be refused.
pub(super) enum BadBody {}

impl IntoResponses for BadBody {
    fn responses() -> BTreeMap<String, RefOr<openapi::Response>> {
        documented(&[413, 415])
    }
}

fn documented(statuses: &[u16]) -> BTreeMap<String, RefOr<openapi::Response>> {
    let problem = || Ref::from_schema_name(Problem::name());
    let one = |status: &u16| {
        let content = ContentBuilder::new().schema(Some(problem())).build();
        let answer = ResponseBuilder::new().content(MEDIA_TYPE, content).build();
        (status.to_string(), answer.into())
    };
    statuses.iter().map(one).collect()
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response<Body> {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let text = serde_json::to_string(&self).unwrap_or_default();
        let fields = [(CONTENT_TYPE, MEDIA_TYPE), (CACHE_CONTROL, "no-store")];
        let mut answer = (status, fields, text + "\n").into_response();
        if let Some(seconds) = self.retry_after_s {
            answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if status == StatusCode::UNAUTHORIZED {
            // RFC 9110 section 11.6.1 wants one; a browser shows no dialog of its own for it.
            let scheme = HeaderValue::from_static("Bearer realm=\"boottorrent\"");
            answer.headers_mut().insert(WWW_AUTHENTICATE, scheme);
        }
        answer
    }
}
