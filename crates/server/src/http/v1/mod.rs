//! `/v1`: the API for programs and the dashboard. It only tells; what it tells is made of the
//! same fleet and status as everything else. The OpenAPI document is made from this code, and served.
//!
//! The older `/api/v1` (`http/api.rs`) is what agents speak, and stays as it is.

mod lab;
mod nodes;
mod problem;
mod reply;
mod traffic;

use axum::Router;
use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{Response, StatusCode, Uri};
use axum::response::IntoResponse;
use axum::routing::get;
use utoipa::OpenApi;

pub(crate) use nodes::NodeView;
pub(crate) use traffic::LogView;

pub(super) use problem::Problem;

use super::Site;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "BootTorrent",
        description = "What a BootTorrent server knows of its fleet, images and swarm. See docs/api.md.",
        license(name = "MIT OR Apache-2.0"),
    ),
    paths(
        lab::server,
        nodes::nodes,
        nodes::node,
        lab::images,
        lab::manifest,
        lab::leases,
        traffic::swarm,
        traffic::throughput,
        traffic::log,
        traffic::events,
    )
)]
struct Document;

/// The OpenAPI document, as JSON.
pub(super) fn document() -> String {
    Document::openapi().to_pretty_json().unwrap_or_default() + "\n"
}

pub(super) fn routes() -> Router<Site> {
    let routes = Router::new()
        .route("/server", get(lab::server))
        .route("/nodes", get(nodes::nodes))
        .route("/nodes/{node}", get(nodes::node))
        .route("/images", get(lab::images))
        .route("/manifest", get(lab::manifest))
        .route("/leases", get(lab::leases))
        .route("/swarm", get(traffic::swarm))
        .route("/throughput", get(traffic::throughput))
        .route("/log", get(traffic::log))
        .route("/events", get(traffic::events))
        .route("/openapi.json", get(openapi))
        .fallback(nothing)
        .method_not_allowed_fallback(other_method);
    Router::new().nest("/v1", routes)
}

async fn openapi() -> Response<Body> {
    let fields = [(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-cache")];
    (fields, document()).into_response()
}

async fn nothing(uri: Uri) -> Problem {
    let path = crate::fleet::printable(uri.path(), 100);
    Problem::missing(format!("there is nothing under /v1{path}: see /v1/openapi.json"))
}

async fn other_method() -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this can only be read: use GET")
}

#[cfg(test)]
mod tests;
