//! Answers in JSON, with a tag where it is known cheaply whether anything has changed; and what comes
//! with a request as JSON.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use axum::http::{HeaderMap, Response, StatusCode};
use axum::response::IntoResponse;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::problem::Problem;

/// The most bytes that come with a request: a command line of 2 KiB, with room.
const BODY_LEN_MAX: usize = 16 << 10;

/// How long they may take to arrive: they fit into a dozen packets.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// The tag of a state of the server (RFC 9110 section 8.8.3): weak, since times like "seen" are not
/// part of what it stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tag(String);

impl Tag {
    /// `started` tells the runs of the server apart, whose revisions begin anew.
    pub(super) fn new(started: u64, revision: u64) -> Self {
        Self(format!("W/\"{started:x}-{revision:x}\""))
    }

    /// Whether the client has this already.
    pub(super) fn is_known(&self, headers: &HeaderMap) -> bool {
        let field = headers.get(IF_NONE_MATCH).and_then(|value| value.to_str().ok());
        let opaque = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
        field.is_some_and(|field| {
            field.split(',').any(|tag| tag.trim() == "*" || opaque(tag) == opaque(&self.0))
        })
    }
}

/// What comes with a request, as JSON. That it must say so keeps a form of another site's page out.
///
/// # Errors
/// If it is something else.
pub(super) async fn body<T: DeserializeOwned>(request: Request) -> Result<T, Problem> {
    body_or_none(request).await?.ok_or_else(|| Problem::bad("there is no body: send an object"))
}

/// As [`body`]; nothing if there is none.
///
/// # Errors
/// If it is something else.
pub(super) async fn body_or_none<T: DeserializeOwned>(
    request: Request,
) -> Result<Option<T>, Problem> {
    let kind = request.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let kind = kind.and_then(|kind| kind.split(';').next()).unwrap_or_default().trim();
    let is_json = kind.eq_ignore_ascii_case("application/json");
    let bytes = read(request.into_body()).await?;
    if bytes.is_empty() {
        return Ok(None);
    }
    if !is_json {
        let text = "send the body as JSON, with `Content-Type: application/json`";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, text));
    }
    let wrong = |error| Problem::bad(format!("the body is not what it should be: {error}"));
    // An object, that is: serde would take a list of its values as well.
    let object = serde_json::from_slice::<Map<String, Value>>(&bytes).map_err(wrong)?;
    serde_json::from_value(Value::Object(object)).map(Some).map_err(wrong)
}

async fn read(body: Body) -> Result<Bytes, Problem> {
    match tokio::time::timeout(BODY_TIMEOUT, axum::body::to_bytes(body, BODY_LEN_MAX)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(_)) => {
            let text = format!("a body has {BODY_LEN_MAX} bytes at most");
            Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, text))
        }
        Err(_) => Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "the body did not arrive")),
    }
}

/// `value` as JSON.
pub(super) fn json(value: &impl Serialize) -> Response<Body> {
    match serde_json::to_vec(value) {
        Ok(mut bytes) => {
            bytes.push(b'\n');
            let fields = [(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store")];
            (fields, bytes).into_response()
        }
        Err(error) => {
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response()
        }
    }
}

/// What `value` makes as JSON under `tag`, or 304 if the client has it.
pub(super) fn tagged<T: Serialize>(
    headers: &HeaderMap,
    tag: &Tag,
    value: impl FnOnce() -> T,
) -> Response<Body> {
    if tag.is_known(headers) {
        return with_tag(StatusCode::NOT_MODIFIED.into_response(), tag);
    }
    with_tag(json(&value()), tag)
}

/// `answer` under `tag`.
pub(super) fn with_tag(mut answer: Response<Body>, tag: &Tag) -> Response<Body> {
    let fields = [(ETAG, tag.0.clone()), (CACHE_CONTROL, "no-cache".to_owned())];
    for (name, text) in fields {
        if let Ok(text) = text.parse() {
            answer.headers_mut().insert(name, text);
        }
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_compared_weakly() {
        let tag = Tag::new(16, 10);
        let check = |field: &str, expect| {
            let headers = [(IF_NONE_MATCH, field.parse().unwrap())].into_iter().collect();
            assert_eq!(tag.is_known(&headers), expect, "{field}");
        };
        check("W/\"10-a\"", true);
        check("\"10-a\"", true);
        check("\"x\", W/\"10-a\"", true);
        check("*", true);
        check("\"10-b\"", false);
        check("", false);
        assert!(!tag.is_known(&HeaderMap::new()));
    }
}
