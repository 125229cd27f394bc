//! The API: JSON about server and nodes, and the reports of agents (docs/api.md).

use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{Extension, Path, Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, Response, StatusCode};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use boot::{Mac, Report, Stage, report};
use serde::Serialize;
use std::sync::atomic::Ordering;

use super::serve::Source;
use super::{Site, pieces, refuse};
use crate::fleet::{self, Event, Ground, Proven, Summary, UnixMs, UpSaid};

/// How long a report may take to arrive: it fits into a dozen packets.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// Characters that are repeated of a name that is not known.
const NAME_LEN_MAX: usize = 100;

pub(super) fn routes() -> Router<Site> {
    Router::new()
        .route("/api/v1/status", get(status))
        .route("/api/v1/nodes", get(nodes))
        .route("/api/v1/nodes/{node}", get(node))
        .route("/api/v1/nodes/{node}/booted", post(booted))
        .route("/api/v1/reports", post(reports))
}

fn json(value: &impl Serialize) -> Response<Body> {
    match serde_json::to_vec(value) {
        Ok(mut bytes) => {
            bytes.push(b'\n');
            let fields = [(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store")];
            (fields, bytes).into_response()
        }
        Err(error) => refuse(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

async fn status(State(site): State<Site>) -> Response<Body> {
    json(&(site.0.about.status)())
}

/// The nodes of a fleet, as the API gives them.
#[derive(Serialize)]
struct Nodes {
    nodes: Vec<Summary>,
}

async fn nodes(State(site): State<Site>) -> Response<Body> {
    let mut last = None;
    // One by one, so that nothing is turned into text under the lock, and nobody who reads slowly has a fleet in memory.
    let next = move || {
        let node = site.0.fleet.lock().node_after(last).map(|node| node.summary.clone())?;
        last = Some(node.mac);
        Some(node)
    };
    pieces::listing("nodes", &Nodes { nodes: vec![] }, next)
}

async fn node(State(site): State<Site>, Path(which): Path<String>) -> Response<Body> {
    let node = site.0.fleet.lock().find(&which).cloned();
    match node {
        Some(node) => json(&node.shown()),
        None => {
            let shown = fleet::printable(&which, NAME_LEN_MAX);
            let text = format!("no node `{shown}` is known: `boottorrent node list` shows all");
            refuse(StatusCode::NOT_FOUND, &text)
        }
    }
}

async fn booted(
    State(site): State<Site>,
    Extension(source): Extension<Source>,
    Path(mac): Path<String>,
    headers: HeaderMap,
) -> Response<Body> {
    let mac = match mac.parse::<Mac>() {
        Ok(mac) => mac,
        Err(error) => return refuse(StatusCode::BAD_REQUEST, &format!("{error}")),
    };
    match site.prove(source, &headers, UpSaid(mac)).await {
        Ok(proven) => {
            site.0.fleet.tell(&Event::Up(proven));
            StatusCode::NO_CONTENT.into_response()
        }
        Err(_) => refuse(StatusCode::FORBIDDEN, "this is not known to come from that node"),
    }
}

async fn reports(
    State(site): State<Site>,
    Extension(source): Extension<Source>,
    request: Request,
) -> Response<Body> {
    let (head, body) = request.into_parts();
    if !is_json(&head.headers) {
        return refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, "a report is application/json");
    }
    let body = axum::body::to_bytes(body, report::LEN_MAX);
    let bytes = match tokio::time::timeout(BODY_TIMEOUT, body).await {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(_)) => {
            let text = format!("a report has {} bytes at most", report::LEN_MAX);
            return refuse(StatusCode::PAYLOAD_TOO_LARGE, &text);
        }
        Err(_) => return refuse(StatusCode::REQUEST_TIMEOUT, "the report did not arrive"),
    };
    let report: Report = match serde_json::from_slice(&bytes) {
        Ok(report) => report,
        Err(error) => return refuse(StatusCode::BAD_REQUEST, &format!("not a report: {error}")),
    };
    site.0.counters.reports.fetch_add(1, Ordering::Relaxed);
    let answer = match site.prove(source, &head.headers, report).await {
        Ok(proven) => site.reported(proven),
        // Hearsay: a node that boots all the same reads here whether there is a newer manifest.
        Err(_) => report::Answer::default(),
    };
    json(&report::Answer { manifest_serial: site.live().offer.serial, ..answer })
}

/// Whether a body says that it is JSON. A page of another site cannot say so without asking first.
fn is_json(headers: &HeaderMap) -> bool {
    let said = headers.get(CONTENT_TYPE).and_then(|said| said.to_str().ok()).unwrap_or_default();
    let kind = said.split(';').next().unwrap_or_default().trim();
    kind.eq_ignore_ascii_case("application/json")
}

impl Site {
    /// Takes a report, and says what its node is to know.
    fn reported(&self, proven: Proven<Report>) -> report::Answer {
        let node = proven.what().node;
        self.0.next.reported(node);
        let order = self.0.orders.answer(&proven, Instant::now());
        let whole = match &proven.what().stage {
            Stage::Verified { image } => Some(image.clone()),
            _ => None,
        };
        // It was believed for its address; from now on it has something better.
        let proof = match proven.ground() {
            Ground::Proof(_) => None,
            Ground::Own | Ground::Seen(_) => Some(self.issue(node)),
        };
        self.0.fleet.tell(&Event::Reported(Box::new(proven)));
        let downloading = whole.map(|image| self.0.fleet.lock().downloading(&image, UnixMs::now()));
        report::Answer { order, downloading, proof, ..report::Answer::default() }
    }
}
