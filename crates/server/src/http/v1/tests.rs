//! The API, without sockets.

use std::time::Duration;

use axum::http::{HeaderMap, Request};
use boot::{Failure, Mac, Report};
use hyper::body::Body as _;
use serde_json::Value;
use tower::ServiceExt;

use super::*;
use crate::fleet::{Event, Fleet, SharedFleet};
use crate::http::boots::Boots;
use crate::http::next_boots::NextBoots;
use crate::http::serve::Source;
use crate::http::{About, Live, Offer, Orders, ScriptSettings};
use crate::lab::settings::DashboardSettings;

fn site() -> Site {
    let script = ScriptSettings {
        base: "http://10.0.0.1:8080".to_owned(),
        cmdline: String::new(),
        arch: boot::Arch::X86_64,
        boots: Boots::default(),
    };
    let live = Live {
        offer: Offer::default(),
        script,
        dashboard: DashboardSettings::for_tests(),
        has_power: false,
    };
    let fleet = SharedFleet::new(Fleet::default());
    Site::new(live, fleet, NextBoots::default(), Orders::default(), About::for_tests())
}

fn report(last: u8, sequence: u64, stage: boot::Stage) -> Event {
    let node = Mac([0x52, 0x54, 0, 0, 0, last]);
    let report = Report {
        node,
        boot: 7,
        sequence,
        uptime_ms: 0,
        stage,
        machine: None,
        hardware: None,
        sources: vec![],
        log: vec![],
    };
    Event::reported(Some([10, 0, 0, last].into()), report)
}

fn fleet_of(count: u8) -> Site {
    let site = site();
    (0..count).for_each(|last| site.0.fleet.tell(&report(last, 1, boot::Stage::Menu)));
    site
}

async fn ask(site: &Site, path: &str, tag: Option<&str>) -> (u16, HeaderMap, Value) {
    let mut request = Request::get(path)
        .header("host", "localhost")
        .extension(Source::Peer([127, 0, 0, 1].into()));
    if let Some(tag) = tag {
        request = request.header("if-none-match", tag);
    }
    let request = request.body(Body::empty()).unwrap();
    let (head, body) = site.clone().router().oneshot(request).await.unwrap().into_parts();
    let bytes = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    (head.status.as_u16(), head.headers, serde_json::from_slice(&bytes).unwrap_or_default())
}

#[tokio::test]
async fn pages_follow_one_another_and_miss_nobody() {
    let site = fleet_of(25);
    let mut path = "/v1/nodes?limit=10&stage=menu".to_owned();
    let mut seen = vec![];
    loop {
        let (status, headers, page) = ask(&site, &path, None).await;
        assert_eq!((status, &page["matching_count"]), (200, &25.into()));
        let nodes = page["nodes"].as_array().unwrap();
        seen.extend(nodes.iter().map(|node| node["mac"].as_str().unwrap().to_owned()));
        let Some(link) = headers.get("link") else {
            assert_eq!(page["next"], Value::Null);
            break;
        };
        let link = link.to_str().unwrap();
        path = link[1..link.find('>').unwrap()].to_owned();
    }
    seen.dedup();
    assert_eq!(seen.len(), 25);
}

#[tokio::test]
async fn a_list_is_filtered() {
    let site = fleet_of(3);
    let failed = boot::Stage::Failed {
        failure: Failure::NoCarrier,
        reason: "<script>alert(1)</script>".to_owned(),
        retry_in_s: 4,
    };
    site.0.fleet.tell(&report(2, 2, failed));
    let check = async |query: &str, expect: usize| {
        let (status, _, page) = ask(&site, &format!("/v1/nodes?{query}"), None).await;
        assert_eq!((status, page["nodes"].as_array().unwrap().len()), (200, expect), "{query}");
    };
    check("", 3).await;
    check("stage=failed", 1).await;
    check("stage=none", 0).await;
    check("known=true", 0).await;
    check("q=10.0.0.2", 1).await;
    check("q=00:01", 1).await;
    check("q=%00", 0).await;
    check("image=debian", 0).await;
    check("after=52:54:00:00:00:01", 1).await;
    let (_, _, page) = ask(&site, "/v1/nodes/52:54:00:00:00:02", None).await;
    assert_eq!(page["failure"]["code"], "BT12");
    assert_eq!(page["why"]["cure"], Failure::NoCarrier.cure());
    assert_eq!(page["timeline"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn what_is_known_already_is_not_sent_again() {
    let site = fleet_of(1);
    let (_, headers, _) = ask(&site, "/v1/nodes", None).await;
    let tag = headers["etag"].to_str().unwrap().to_owned();
    assert_eq!(ask(&site, "/v1/nodes", Some(&tag)).await.0, 304);
    site.0.fleet.tell(&report(0, 2, boot::Stage::Link));
    assert_eq!(ask(&site, "/v1/nodes", Some(&tag)).await.0, 200);
}

#[tokio::test]
async fn what_is_wrong_is_a_problem_in_json() {
    let site = site();
    let check = async |path: &str, expect: u16| {
        let (status, headers, problem) = ask(&site, path, None).await;
        assert_eq!(status, expect, "{path}");
        assert_eq!(headers["content-type"], "application/problem+json", "{path}");
        assert_eq!(problem["status"], expect, "{path}");
        assert!(problem["detail"].as_str().unwrap().len() > 5, "{path}");
    };
    check("/v1/nodes?limit=0", 400).await;
    check("/v1/nodes?limit=x", 400).await;
    check("/v1/nodes?after=x", 400).await;
    check(&format!("/v1/nodes?q={}", "x".repeat(101)), 400).await;
    check("/v1/nodes/%3Cscript%3E", 404).await;
    check("/v1/throughput?seconds=9999", 400).await;
    check("/v1/log?limit=-1", 400).await;
    check("/v1/log?after=9223372036854775808", 400).await;
    check("/v1/teapot", 404).await;
    check("/v1/manifest", 404).await;
}

#[tokio::test]
async fn every_address_answers_while_there_is_nothing() {
    let site = site();
    for path in ["server", "nodes", "images", "leases", "swarm", "throughput", "log"] {
        assert_eq!(ask(&site, &format!("/v1/{path}"), None).await.0, 200, "{path}");
    }
}

#[tokio::test]
async fn who_gave_to_whom_is_told_by_those_who_took() {
    // No node has the address of the server.
    let site = site();
    [0, 2].iter().for_each(|&last| site.0.fleet.tell(&report(last, 1, boot::Stage::Menu)));
    let mut whole = report(2, 2, boot::Stage::Verified { image: "debian".parse().unwrap() });
    let source = |last, bytes| boot::report::Source { address: [10, 0, 0, last].into(), bytes };
    if let Event::Reported(said) = &mut whole {
        let report = said.what_mut();
        // The server, a node, and somebody who is neither.
        report.sources = vec![source(1, 70), source(0, 20), source(99, 10)];
    }
    site.0.fleet.tell(&whole);
    let (_, _, swarm) = ask(&site, "/v1/swarm", None).await;
    let gift = |at: usize, key: &str| swarm["gifts"][at][key].clone();
    assert_eq!(swarm["gifts"].as_array().unwrap().len(), 3);
    assert_eq!((gift(0, "is_from_server"), gift(0, "bytes")), (true.into(), 70.into()));
    assert_eq!(gift(1, "from"), "52:54:00:00:00:00");
    assert_eq!(gift(1, "to"), "52:54:00:00:00:02");
    assert_eq!((gift(2, "from"), gift(2, "from_address")), (Value::Null, "10.0.0.99".into()));
    // It was silent on what it gave itself.
    assert_eq!(swarm["nodes"][0]["uploaded_bytes"], 20);
    assert_eq!(swarm["nodes_uploaded_bytes"], 20);
}

#[tokio::test(start_paused = true)]
async fn a_change_is_told_to_who_listens() {
    let site = fleet_of(1);
    let feed = tokio::spawn(crate::http::run_feed(site.clone()));
    let request = Request::get("/v1/events")
        .header("host", "localhost")
        .extension(Source::Peer([127, 0, 0, 1].into()));
    let request = request.body(Body::empty()).unwrap();
    let answer = site.clone().router().oneshot(request).await.unwrap();
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    let mut body = Box::pin(answer.into_body());
    let mut text = String::new();
    let mut told = false;
    while !text.contains("event: log") || !text.contains("\"stage\":\"link\"") {
        let frame = std::future::poll_fn(|context| body.as_mut().poll_frame(context));
        let frame = tokio::time::timeout(Duration::from_secs(30), frame).await.unwrap();
        text += std::str::from_utf8(frame.unwrap().unwrap().data_ref().unwrap()).unwrap();
        if !told {
            assert!(text.contains("event: hello\nid: 1\n"), "{text}");
            site.0.fleet.tell(&report(0, 2, boot::Stage::Link));
            told = true;
        }
    }
    feed.abort();
}

/// The document is part of the documentation: `UPDATE=1` writes it anew.
#[test]
fn the_document_is_the_one_that_is_kept() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/openapi.json");
    let document = document();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(path, &document).unwrap();
    }
    let kept = std::fs::read_to_string(path).unwrap_or_default();
    assert!(kept == document, "docs/openapi.json is another: run this test with UPDATE=1");
}
