//! What the server is and offers: `/v1/server`, `/v1/manifest`, `/v1/leases`.

use axum::body::Body;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, Method, Response, StatusCode};
use axum::response::IntoResponse;
use serde::Serialize;
use utoipa::ToSchema;

use super::problem::{NotDone, Problem};
use super::reply::{self, Tag};
use super::session::Allowed;
use crate::fleet::UnixMs;
use crate::http::Site;
use crate::http::serve::Source;

/// The server.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ServerView {
    /// This program's version.
    version: String,
    started_unix_ms: u64,
    interface: String,
    address: String,
    /// The serial of the manifest in force.
    manifest_serial: u64,
    services: Vec<ServiceView>,
    /// Whether nodes can be switched on and off: the lab has a `power.hook`.
    has_power: bool,
    node_count: usize,
    /// Nodes for whom there was no room.
    refused_node_count: u64,
    stages: Vec<StageView>,
}

#[derive(Debug, Serialize, ToSchema)]
struct ServiceView {
    /// `dhcp`, `tftp`, `http`, `tracker`, `seeder`.
    name: String,
    /// `off`, or how it runs in a word or two.
    state: String,
    /// What it has done; names end in `_count`, `_bytes`, `_bytes_per_s`.
    #[schema(value_type = Object)]
    counts: serde_json::Value,
}

/// How many nodes are at a stage.
#[derive(Debug, Serialize, ToSchema)]
struct StageView {
    stage: String,
    count: usize,
}

/// What came of reading the configuration again.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ChangesView {
    /// What is another now, such as `images` and `nodes`.
    applied: Vec<String>,
    /// What is another in the files, and will be when the server starts anew.
    needs_restart: Vec<String>,
    /// In a sentence.
    text: String,
}

/// Addresses in use.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct LeasesView {
    leases: Vec<LeaseView>,
}

#[derive(Debug, Serialize, ToSchema)]
struct LeaseView {
    address: String,
    mac: String,
    /// The node's name, if the configuration names it.
    name: Option<String>,
    until_unix_ms: u64,
}

/// How the server is doing.
#[utoipa::path(
    get, path = "/v1/server", tag = "server",
    responses(
        (status = 200, body = ServerView),
        (status = 403, body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn server(State(site): State<Site>) -> Response<Body> {
    let status = (site.0.about.status)();
    let services = status.services.into_iter();
    let stages = status.nodes.stages.into_iter();
    reply::json(&ServerView {
        version: status.version,
        started_unix_ms: status.started.0,
        interface: status.interface,
        address: status.address,
        manifest_serial: status.manifest_serial,
        services: services
            .map(|service| ServiceView {
                name: service.name,
                state: service.state,
                counts: service.counts,
            })
            .collect(),
        has_power: site.live().has_power,
        node_count: status.nodes.count,
        refused_node_count: status.nodes.refused_count,
        stages: stages.map(|s| StageView { stage: s.stage, count: s.count }).collect(),
    })
}

/// Has the configuration read again, as `boottorrent reload` does. It is anyway when a file changes; this
/// answers when it is in force.
#[utoipa::path(
    post, path = "/v1/server/reload", tag = "server",
    security(("token" = []), ("session" = [], "csrf" = [])),
    responses(
        (status = 200, body = ChangesView),
        NotDone,
        (status = 409, body = Problem, content_type = "application/problem+json",
         description = "The lab's files are wrong; all stays as it was"),
    )
)]
pub(super) async fn reload(
    State(site): State<Site>,
    _allowed: Allowed,
) -> Result<Response<Body>, Problem> {
    let changes = (site.0.about.reload)().await;
    let changes = changes.map_err(|text| Problem::new(StatusCode::CONFLICT, text))?;
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    Ok(reply::json(&ChangesView {
        applied: owned(&changes.applied),
        needs_restart: owned(&changes.needs_restart),
        text: changes.text(),
    }))
}

/// Ends the server. Only through the socket in the lab, `state/control.sock`.
#[utoipa::path(
    post, path = "/v1/server/stop", tag = "server",
    responses(
        (status = 204, description = "It ends"),
        (status = 403, body = Problem, content_type = "application/problem+json",
         description = "Asked through the network"),
    )
)]
pub(super) async fn stop(
    State(site): State<Site>,
    Extension(source): Extension<Source>,
) -> Result<StatusCode, Problem> {
    if source != Source::Owner {
        let text = "a server is ended on its own machine: `boottorrent stop` in the lab";
        return Err(Problem::new(StatusCode::FORBIDDEN, text));
    }
    let stopped = (site.0.about.stop)().await;
    stopped.map_err(|text| Problem::new(StatusCode::SERVICE_UNAVAILABLE, text))?;
    Ok(StatusCode::NO_CONTENT)
}

/// The manifest in force, exactly the bytes that are signed.
#[utoipa::path(
    get, path = "/v1/manifest", tag = "images",
    responses(
        (status = 200, content_type = "application/json", description = "As docs/lab.md has it"),
        (status = 304, description = "It is the one of the given `If-None-Match`"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn manifest(State(site): State<Site>, mut headers: HeaderMap) -> Response<Body> {
    // It is whole or not at all.
    headers.remove(axum::http::header::RANGE);
    match site.live().offer.fixed.get("/manifest.json") {
        Some(file) => file.clone().answer(&Method::GET, &headers, &site.0.counters.sent),
        None => Problem::missing("nothing is published").into_response(),
    }
}

/// The addresses that this server has leased and that have not ended.
#[utoipa::path(
    get, path = "/v1/leases", tag = "nodes",
    responses(
        (status = 200, body = LeasesView),
        (status = 304, description = "Nothing has changed since the given `If-None-Match`"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 503, body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn leases(State(site): State<Site>, headers: HeaderMap) -> Response<Body> {
    let about = site.clone();
    let read = tokio::task::spawn_blocking(move || (about.0.about.leases)()).await;
    let Ok(Ok(mut leases)) = read else {
        let text = "the leases in state/leases.db cannot be read: see the log";
        return Problem::new(StatusCode::SERVICE_UNAVAILABLE, text).into_response();
    };
    let now = UnixMs::now().0 / 1000;
    leases.retain(|lease| lease.until.as_secs() > now);
    leases.sort_by_key(|lease| lease.address);
    let fleet = site.0.fleet.lock();
    let view = |lease: &dhcp::Lease| {
        let mac = boot::Mac(lease.mac.0);
        LeaseView {
            address: lease.address.to_string(),
            mac: mac.to_string(),
            name: fleet.node(mac).and_then(|node| node.summary.name.clone()),
            until_unix_ms: lease.until.as_secs().saturating_mul(1000),
        }
    };
    let leases: Vec<LeaseView> = leases.iter().map(view).collect();
    drop(fleet);
    let mut hasher = std::hash::DefaultHasher::new();
    for lease in &leases {
        std::hash::Hash::hash(
            &(&lease.address, &lease.mac, &lease.name, lease.until_unix_ms),
            &mut hasher,
        );
    }
    let tag = Tag::new(site.0.about.started.0, std::hash::Hasher::finish(&hasher));
    reply::tagged(&headers, &tag, || LeasesView { leases })
}
