//! `/v1`: the API for programs and the dashboard. What it tells is made of the same fleet and status as
//! everything else; what it has done (`actions`) is for who has the lab's token or is logged in. The
//! OpenAPI document is made from this code, and served.
//!
//! The older `/api/v1` (`http/api.rs`) is what agents speak, and stays as it is.

mod actions;
mod images;
mod lab;
mod nodes;
mod problem;
mod reply;
mod session;
mod traffic;

use axum::Router;
use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{Response, StatusCode, Uri};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

pub(crate) use actions::DoneView;
pub(crate) use nodes::NodeView;
pub(crate) use traffic::LogView;

pub(super) use problem::Problem;

use super::Site;
use super::login::{COOKIE_NAME, CSRF_HEADER};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "BootTorrent",
        description = "What a BootTorrent server knows of its fleet, images and swarm. See docs/api.md.",
        license(name = "MIT OR Apache-2.0"),
    ),
    paths(
        lab::server,
        lab::reload,
        lab::stop,
        nodes::nodes,
        nodes::node,
        images::images,
        lab::manifest,
        lab::leases,
        traffic::swarm,
        traffic::throughput,
        traffic::log,
        traffic::events,
        session::look,
        session::open,
        session::close,
        actions::assign,
        actions::unassign,
        actions::wake,
        actions::reboot,
        actions::accept,
        actions::ignore,
        actions::power,
        images::rollback,
        images::publish,
    ),
    modifiers(&Secrets)
)]
struct Document;

/// What actions ask for: the token, or a session's cookie together with its word.
struct Secrets;

impl Modify for Secrets {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let components = document.components.get_or_insert_default();
        let token = HttpBuilder::new().scheme(HttpAuthScheme::Bearer);
        let token = token.description(Some("That of `boottorrent dashboard token`")).build();
        components.add_security_scheme("token", SecurityScheme::Http(token));
        let cookie = ApiKeyValue::with_description(COOKIE_NAME, "Set by `POST /v1/session`");
        components.add_security_scheme("session", SecurityScheme::ApiKey(ApiKey::Cookie(cookie)));
        let word = ApiKeyValue::with_description(CSRF_HEADER, "`csrf` of `/v1/session`");
        components.add_security_scheme("csrf", SecurityScheme::ApiKey(ApiKey::Header(word)));
    }
}

/// The OpenAPI document, as JSON.
pub(super) fn document() -> String {
    Document::openapi().to_pretty_json().unwrap_or_default() + "\n"
}

pub(super) fn routes() -> Router<Site> {
    let routes = Router::new()
        .route("/server", get(lab::server))
        .route("/server/reload", post(lab::reload))
        .route("/server/stop", post(lab::stop))
        .route("/nodes", get(nodes::nodes))
        .route("/nodes/{node}", get(nodes::node))
        .route("/nodes/{node}/assign", post(actions::assign))
        .route("/nodes/{node}/unassign", post(actions::unassign))
        .route("/nodes/{node}/wake", post(actions::wake))
        .route("/nodes/{node}/reboot", post(actions::reboot))
        .route("/nodes/{node}/accept", post(actions::accept))
        .route("/nodes/{node}/ignore", post(actions::ignore))
        .route("/nodes/{node}/power", post(actions::power))
        .route("/session", get(session::look).post(session::open).delete(session::close))
        .route("/images", get(images::images))
        .route("/images/{image}/rollback", post(images::rollback))
        .route("/images/{image}/publish", post(images::publish))
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
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "not with this method: see /v1/openapi.json")
}

#[cfg(test)]
mod tests;
