//! Who may command, and what is refused, without sockets.

use axum::http::{HeaderMap, Method};
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::fleet::{Event, Fleet, ScriptAsked, SharedFleet};
use crate::http::boots::Boots;
use crate::http::login::token;
use crate::http::next_boots::NextBoots;
use crate::http::serve::Source;
use crate::http::{About, Live, Offer, Orders, ScriptSettings};
use crate::lab::settings::{DashboardSettings, TlsSettings};

use super::*;

const MAC: Mac = Mac([0x52, 0x54, 0, 0, 0, 1]);
const WAKE: &str = "/v1/nodes/52:54:00:00:00:01/wake";

struct Test {
    lab: tempfile::TempDir,
    site: Site,
    /// The last octet of who asks.
    from: u8,
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Value,
}

fn live(password: Option<&str>) -> Live {
    let script = ScriptSettings {
        base: "http://10.0.0.1:8080".to_owned(),
        cmdline: String::new(),
        arch: boot::Arch::X86_64,
        boots: Boots::default(),
    };
    let password = password.map(|password| boot::PasswordHash::of(password, [7; 16]).unwrap());
    let dashboard = DashboardSettings { password, ..DashboardSettings::for_tests() };
    Live { offer: Offer::default(), script, dashboard, has_power: false }
}

impl Test {
    /// One node was seen; the password is `open sesame`.
    fn new() -> Self {
        let lab = tempfile::tempdir().unwrap();
        let fleet = SharedFleet::new(Fleet::default());
        let asked = ScriptAsked { mac: MAC, uuid: None, arch: None, firmware: None, address: None };
        fleet.tell(&Event::script([10, 0, 0, 50].into(), asked));
        let about = About { lab: lab.path().to_owned(), ..About::for_tests() };
        let (next, orders) = (NextBoots::default(), Orders::default());
        let site = Site::new(live(Some("open sesame")), fleet, next, orders, about);
        Self { lab, site, from: 1 }
    }

    async fn ask(&self, method: &str, path: &str, fields: &[(&str, &str)], body: &str) -> Answer {
        let mut request = Request::builder()
            .method(method.parse::<Method>().unwrap())
            .uri(path)
            .header("host", "localhost")
            .extension(Source::Peer([10, 0, 0, self.from].into()));
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from(body.to_owned())).unwrap();
        let answer = self.site.clone().router().oneshot(request).await.unwrap();
        let (head, body) = answer.into_parts();
        let bytes = axum::body::to_bytes(body, 1 << 20).await.unwrap();
        let body = serde_json::from_slice(&bytes).unwrap_or_default();
        Answer { status: head.status.as_u16(), headers: head.headers, body }
    }

    async fn log_in(&self, secret: &str) -> Answer {
        let body = json!({ "secret": secret }).to_string();
        self.ask("POST", "/v1/session", &[JSON], &body).await
    }
}

const JSON: (&str, &str) = ("content-type", "application/json");

/// What a browser sends after a login, and the word of the session.
fn session_of(answer: &Answer) -> (String, String) {
    let cookie = answer.headers["set-cookie"].to_str().unwrap();
    for attribute in ["HttpOnly", "SameSite=Strict", "Path=/"] {
        assert!(cookie.contains(attribute), "{cookie}");
    }
    let cookie = cookie.split(';').next().unwrap().to_owned();
    (cookie, answer.body["csrf"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn nobody_commands_without_token_or_session() {
    let test = Test::new();
    for action in ["assign", "unassign", "wake", "reboot", "accept", "ignore", "power"] {
        let path = format!("/v1/nodes/52:54:00:00:00:01/{action}");
        let answer = test.ask("POST", &path, &[JSON], "{}").await;
        assert_eq!(answer.status, 401, "{action}");
        assert_eq!(answer.headers["content-type"], "application/problem+json");
        assert!(answer.headers["www-authenticate"].to_str().unwrap().starts_with("Bearer"));
        assert_eq!(test.ask("GET", &path, &[], "").await.status, 405, "{action}");
    }
    for action in ["rollback", "publish"] {
        let path = format!("/v1/images/debian/{action}");
        assert_eq!(test.ask("POST", &path, &[JSON], "{}").await.status, 401, "{action}");
        assert_eq!(test.ask("GET", &path, &[], "").await.status, 405, "{action}");
    }
    let made_up = ("cookie", "boottorrent-session=0123456789abcdef");
    assert_eq!(test.ask("POST", WAKE, &[made_up], "").await.status, 401);
}

#[tokio::test]
async fn the_token_opens_actions_as_long_as_it_holds() {
    let test = Test::new();
    let wake = async |token: &str| {
        let field = format!("Bearer {token}");
        test.ask("POST", WAKE, &[("authorization", &field)], "").await.status
    };
    assert_eq!(wake("").await, 401);
    let token = token::renew(test.lab.path()).unwrap();
    assert_eq!(wake(&token).await, 200);
    assert_eq!(wake(&token[1..]).await, 401);
    let next = token::renew(test.lab.path()).unwrap();
    assert_eq!((wake(&token).await, wake(&next).await), (401, 200));
}

#[tokio::test]
async fn a_browser_logs_in_commands_with_its_word_and_logs_out() {
    let test = Test::new();
    let (cookie, csrf) = session_of(&test.log_in("open sesame").await);
    let [with, word] = [("cookie", cookie.as_str()), ("x-csrf-token", csrf.as_str())];
    let check = async |fields: &[(&str, &str)], expect: u16| {
        assert_eq!(test.ask("POST", WAKE, fields, "").await.status, expect, "{fields:?}");
    };
    check(&[with, word], 200).await;
    check(&[with], 403).await;
    check(&[with, ("x-csrf-token", "x")], 403).await;
    check(&[word], 401).await;
    let look = test.ask("GET", "/v1/session", &[with], "").await;
    assert_eq!(
        (look.body["is_open"].as_bool(), &look.body["csrf"]),
        (Some(true), &csrf.as_str().into())
    );
    assert_eq!(test.ask("DELETE", "/v1/session", &[with], "").await.status, 204);
    check(&[with, word], 401).await;
}

#[tokio::test]
async fn the_token_logs_in_too_and_another_password_ends_all_sessions() {
    let test = Test::new();
    let token = token::renew(test.lab.path()).unwrap();
    let (cookie, csrf) = session_of(&test.log_in(&token).await);
    let fields = [("cookie", cookie.as_str()), ("x-csrf-token", csrf.as_str())];
    assert_eq!(test.ask("POST", WAKE, &fields, "").await.status, 200);
    test.site.publish(live(None));
    assert_eq!(test.ask("POST", WAKE, &fields, "").await.status, 401);
    assert_eq!(test.log_in("open sesame").await.status, 401);
}

#[tokio::test]
async fn who_guesses_is_stopped_and_others_are_not() {
    let mut test = Test::new();
    let mut statuses = vec![];
    for _ in 0..7 {
        statuses.push(test.log_in("guess").await.status);
    }
    assert_eq!(statuses, [401, 401, 401, 401, 401, 429, 429]);
    let right = test.log_in("open sesame").await;
    assert_eq!(right.status, 429);
    assert!(right.headers["retry-after"].to_str().unwrap().parse::<u64>().unwrap() > 0);
    let bearer = [("authorization", "Bearer x")];
    assert_eq!(test.ask("POST", WAKE, &bearer, "").await.status, 429);
    test.from = 2;
    assert_eq!(test.log_in("open sesame").await.status, 200);
}

#[tokio::test]
async fn what_is_wrong_with_an_action_is_a_problem() {
    let test = Test::new();
    let token = format!("Bearer {}", token::renew(test.lab.path()).unwrap());
    let check = async |path: &str, kind: &str, body: &str, expect: u16| {
        let fields = [("authorization", token.as_str()), ("content-type", kind)];
        let answer = test.ask("POST", path, &fields, body).await;
        assert_eq!(answer.status, expect, "{path} {body}: {}", answer.body);
        if expect != 200 {
            assert_eq!(answer.headers["content-type"], "application/problem+json", "{path}");
        }
    };
    let node = |action: &str| format!("/v1/nodes/52:54:00:00:00:01/{action}");
    let json = JSON.1;
    check(&node("assign"), json, r#"{"image": "debian"}"#, 200).await;
    check(&node("assign"), json, r#"{"disk": true, "next_boot_only": true}"#, 200).await;
    check(&node("assign"), json, r#"{"image": "debian", "next_boot_only": true}"#, 409).await;
    check(&node("assign"), json, r#"{"image": "../etc"}"#, 400).await;
    check(&node("assign"), json, r#"{"image": "debian", "disk": true}"#, 400).await;
    check(&node("assign"), json, r#"{"image": "debian", "cmdline": "a\nb"}"#, 400).await;
    check(&node("assign"), json, r#"{"image": "debian", "colour": 1}"#, 400).await;
    check(&node("assign"), json, "", 400).await;
    check(&node("assign"), json, "[", 400).await;
    check(&node("assign"), "text/plain", r#"{"image": "debian"}"#, 415).await;
    check(&node("assign"), json, &"x".repeat(20_000), 413).await;
    check(&node("accept"), json, "", 200).await;
    check(&node("accept"), json, r#"{"name": "c1"}"#, 200).await;
    check(&node("accept"), json, r#"{"name": "c1: {mac: x}\n  evil"}"#, 400).await;
    check(&node("accept"), json, r#"{"name": " c1"}"#, 400).await;
    check(&node("accept"), json, r#"{"image": "debian"}"#, 200).await;
    check(&node("accept"), json, r#"{"image": "../debian"}"#, 400).await;
    check(&node("ignore"), json, "", 200).await;
    check(&node("power"), json, r#"{"action": "cycle"}"#, 200).await;
    check(&node("power"), json, r#"{"action": "explode"}"#, 400).await;
    check(&node("power"), json, "", 400).await;
    let image = |action: &str| format!("/v1/images/debian/{action}");
    check(&image("rollback"), "", "", 200).await;
    check(&image("rollback"), json, r#"{"to": 3}"#, 200).await;
    check(&image("rollback"), json, r#"{"to": null}"#, 200).await;
    check(&image("rollback"), json, r#"{"to": -1}"#, 400).await;
    check(&image("rollback"), json, r#"{"colour": 1}"#, 400).await;
    check("/v1/images/..%2Fetc/rollback", "", "", 400).await;
    check(&image("publish"), "", "", 200).await;
    check(&image("publish"), json, "[null, null]", 400).await;
    check(&image("publish"), json, r#"{"title": "<b>", "cmdline": "quiet"}"#, 200).await;
    check(&image("publish"), json, r#"{"title": ""}"#, 400).await;
    check(&image("publish"), json, r#"{"title": "a\nb: c"}"#, 400).await;
    check(&image("publish"), json, r#"{"cmdline": "a\u0000"}"#, 400).await;
    check(&image("publish"), json, r#"{"cmdline": "quiet ; reboot"}"#, 400).await;
    check("/v1/nodes/c001/wake", "", "", 404).await;
    check("/v1/nodes/c%5B1-/wake", "", "", 400).await;
    check("/v1/nodes/52:54:00:00:00:02/wake", "", "", 404).await;
    check("/v1/nodes/52:54:00:00:00:01,525400000001/wake", "", "", 200).await;
    check("/v1/nodes/%00/reboot", "", "", 404).await;
}

#[tokio::test]
async fn all_nodes_that_are_unknown_are_named() {
    let test = Test::new();
    let token = format!("Bearer {}", token::renew(test.lab.path()).unwrap());
    let path = "/v1/nodes/52:54:00:00:00:01,c%5B007-009%5D,login/wake";
    let answer = test.ask("POST", path, &[("authorization", &token)], "").await;
    assert_eq!(
        (answer.status, &answer.body["detail"]),
        (404, &"no node `c[007-009],login` is known".into())
    );
}

#[tokio::test]
async fn with_a_certificate_nothing_is_looked_at_that_came_without_it() {
    let test = Test::new();
    let tls = TlsSettings { port: 8443, certificate: "c".into(), key: "k".into() };
    let mut live = live(Some("open sesame"));
    live.dashboard.tls = Some(tls);
    test.site.publish(live);
    let look = test.ask("GET", "/v1/nodes?limit=1", &[], "").await;
    assert_eq!(look.status, 307);
    assert_eq!(look.headers["location"], "https://localhost:8443/v1/nodes?limit=1");
    assert_eq!(test.log_in("open sesame").await.status, 403);
    assert_eq!(test.ask("GET", "/healthz", &[], "").await.status, 200);
}
