//! The API: JSON about server and nodes, and the reports of agents (docs/api.md).

use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{Extension, Path, Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{Response, StatusCode};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use boot::{Mac, Report, Stage, report};
use serde::Serialize;
use std::sync::atomic::Ordering;

use super::serve::Source;
use super::{Site, pieces, refuse};
use crate::fleet::{self, Event, Summary, UnixMs};

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
        Some(node) => json(&node),
        None => {
            let shown = fleet::printable(&which, NAME_LEN_MAX);
            let text = format!("no node `{shown}` is known: `boottorrent node list` shows all");
            refuse(StatusCode::NOT_FOUND, &text)
        }
    }
}

async fn booted(State(site): State<Site>, Path(mac): Path<String>) -> Response<Body> {
    match mac.parse::<Mac>() {
        Ok(mac) => {
            site.0.fleet.tell(&Event::Up { mac });
            StatusCode::NO_CONTENT.into_response()
        }
        Err(error) => refuse(StatusCode::BAD_REQUEST, &format!("{error}")),
    }
}

async fn reports(
    State(site): State<Site>,
    Extension(source): Extension<Source>,
    request: Request,
) -> Response<Body> {
    let body = axum::body::to_bytes(request.into_body(), report::LEN_MAX);
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
    site.0.next.reported(report.node);
    let order = site.0.orders.answer(&report, Instant::now());
    let whole = match &report.stage {
        Stage::Verified { image } => Some(image.clone()),
        _ => None,
    };
    site.0.fleet.tell(&Event::Reported { address: source.v4(), report: Box::new(report) });
    let downloading = whole.map(|image| site.0.fleet.lock().downloading(&image, UnixMs::now()));
    json(&report::Answer { manifest_serial: site.live().offer.serial, order, downloading })
}
