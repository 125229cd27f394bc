//! `/metrics`: counters and gauges in the text format of OpenMetrics, for Prometheus; `/healthz` and
//! `/readyz`, for whoever watches over services.
//!
//! The registry is made anew for each scrape, from the same facts as the status. Labels are only what
//! the lab names itself (images, stages, failures, services): a stranger cannot make series.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{Response, StatusCode};
use axum::response::IntoResponse;
use boot::Stage;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use serde_json::Value;

use super::{Site, refuse};

const KIND: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

type Labels = Vec<(&'static str, String)>;

/// Counts of services that are metrics: service, count, metric, whether it only ever grows, help.
const COUNTS: &[(&str, &str, &str, bool, &str)] = &[
    ("dhcp", "lease_count", "dhcp_leases", false, "Leases that have not ended"),
    ("dhcp", "free_address_count", "dhcp_free_addresses", false, "Addresses that nobody has"),
    ("dhcp", "datagram_count", "dhcp_datagrams", true, "Datagrams read"),
    ("dhcp", "answer_count", "dhcp_answers", true, "Answers sent"),
    ("dhcp", "dropped_answer_count", "dhcp_dropped_answers", true, "Answers not sent in time"),
    ("tftp", "transfer_count", "tftp_transfers", true, "Transfers begun"),
    ("tftp", "sent_bytes", "tftp_sent_bytes", true, "Bytes sent by TFTP"),
    ("http", "request_count", "http_requests", true, "Requests answered"),
    ("http", "refusal_count", "http_refusals", true, "Requests answered with 4xx or 5xx"),
    ("http", "sent_bytes", "http_sent_bytes", true, "Bytes of files sent by HTTP"),
    ("http", "connection_count", "http_connections", false, "Connections that are open"),
    ("http", "displaced_count", "http_displaced_connections", true, "Connections cut for others"),
    ("http", "refused_connection_count", "http_refused_connections", true, "Without a place"),
    ("http", "slow_count", "http_slow_connections", true, "Connections cut for being slow"),
    ("http", "held_bytes", "http_held_bytes", false, "Bytes that wait for slow readers"),
    ("http", "report_count", "node_reports", true, "Reports of agents taken"),
    ("tracker", "peer_count", "tracker_peers", false, "Peers that announced themselves"),
    ("seeder", "peer_count", "swarm_server_peers", false, "Peers of the server's own peer"),
];

pub(super) async fn metrics(State(site): State<Site>) -> Response<Body> {
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &registry(&site)) {
        Ok(()) => ([(CONTENT_TYPE, KIND), (CACHE_CONTROL, "no-store")], text).into_response(),
        Err(_) => refuse(StatusCode::INTERNAL_SERVER_ERROR, "the metrics cannot be written"),
    }
}

/// The process answers.
pub(super) async fn health() -> &'static str {
    "ok\n"
}

/// Nodes can boot: everything is published and every service runs; a line more for each thing that does not
/// work as it should.
pub(super) async fn readiness(State(site): State<Site>) -> Response<Body> {
    let is = |flag: &AtomicBool| flag.load(Ordering::Relaxed);
    match (is(&site.0.is_ready), is(&site.0.is_dhcp_well)) {
        (true, true) => {
            // Nodes can boot with what is missing.
            let degraded = crate::state::degraded(&site.0.about.lab);
            let lines = degraded.iter().map(|sentence| format!("degraded: {sentence}\n"));
            format!("ready\n{}", lines.collect::<String>()).into_response()
        }
        (true, false) => {
            refuse(StatusCode::SERVICE_UNAVAILABLE, "not ready: DHCP waits or fails, see `status`")
        }
        (false, _) => refuse(StatusCode::SERVICE_UNAVAILABLE, "not ready: starting, or stopping"),
    }
}

fn registry(site: &Site) -> Registry {
    let mut registry = Registry::with_prefix("boottorrent");
    let status = (site.0.about.status)();
    let version = [("version", status.version.clone())].to_vec();
    let build = Family::<Labels, Gauge>::default();
    build.get_or_create(&version).set(1);
    registry.register("build_info", "This program", build);
    gauge(&mut registry, "manifest_serial", "Of the manifest in force", status.manifest_serial);
    let started = Gauge::<i64>::default();
    started.set(signed(status.started.0 / 1000));
    registry.register_with_unit("start_time", "When the server began", Unit::Seconds, started);
    let up = Family::<Labels, Gauge>::default();
    for service in &status.services {
        let labels = [("service", service.name.clone())].to_vec();
        up.get_or_create(&labels).set(i64::from(service.state != "off"));
        for (of, count, name, is_counter, help) in COUNTS {
            if service.name != *of {
                continue;
            }
            let Some(value) = service.counts.get(count).and_then(Value::as_u64) else {
                continue;
            };
            match is_counter {
                true => counter(&mut registry, name, help, value),
                false => gauge(&mut registry, name, help, value),
            }
        }
    }
    registry.register("service_up", "Whether a service runs", up);
    counter(
        &mut registry,
        "nodes_refused",
        "Newcomers without a place",
        status.nodes.refused_count,
    );
    swarm(&mut registry, site);
    nodes(&mut registry, site);
    let listeners = site.0.feed.listener_count() as u64;
    gauge(&mut registry, "event_listeners", "Who listens to /v1/events", listeners);
    registry
}

fn swarm(registry: &mut Registry, site: &Site) {
    let sent = Family::<Labels, Counter>::default();
    for seed in (site.0.about.seeding)() {
        let labels = [("image", seed.image.to_string())].to_vec();
        sent.get_or_create(&labels).inc_by(seed.uploaded_bytes);
    }
    let help = "What the server's own peer has sent";
    registry.register_with_unit("swarm_server_uploaded", help, Unit::Bytes, sent);
}

fn nodes(registry: &mut Registry, site: &Site) {
    let (stages, failures) =
        (Family::<Labels, Gauge>::default(), Family::<Labels, Gauge>::default());
    let (mut received_per_s, mut given) = (0_u64, 0_u64);
    for node in site.0.fleet.lock().nodes().map(|node| &node.summary) {
        let stage = node.stage.as_ref().map_or("none", Stage::name);
        stages.get_or_create(&[("stage", stage.to_owned())].to_vec()).inc();
        given = given.saturating_add(node.uploads);
        match &node.stage {
            Some(Stage::Downloading(progress)) => {
                received_per_s = received_per_s.saturating_add(progress.rate_bytes_per_s);
            }
            Some(Stage::Failed { failure, .. }) => {
                let labels = [("code", failure.code().to_owned())].to_vec();
                failures.get_or_create(&labels).inc();
            }
            _ => {}
        }
    }
    registry.register("nodes", "Nodes by their stage", stages);
    registry.register("nodes_failed", "Nodes by the failure that they are at", failures);
    gauge(registry, "nodes_received_bytes_per_second", "What nodes receive", received_per_s);
    gauge(registry, "swarm_nodes_uploaded_bytes", "What nodes gave one another", given);
}

fn gauge(registry: &mut Registry, name: &str, help: &str, value: u64) {
    let gauge = Gauge::<i64>::default();
    gauge.set(signed(value));
    registry.register(name, help, gauge);
}

fn counter(registry: &mut Registry, name: &str, help: &str, value: u64) {
    let counter = Counter::<u64, AtomicU64>::default();
    counter.inc_by(value);
    registry.register(name, help, counter);
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
