//! The whole site, without sockets.

use axum::http::{HeaderMap, Method};
use boot::{Arch, Firmware, Mac};
use serde_json::Value;
use torrent::metainfo::Metainfo;
use torrent::metainfo::create::Spec;
use tower::ServiceExt;

use super::*;
use crate::fleet::{Asker, DhcpRole, Fleet, Hearsay};
use crate::lab::settings::Unknown;

const MAC: Mac = Mac([0x52, 0x54, 0, 0, 0, 1]);

/// The node's address, 10.0.0.50, and a stranger's.
const NODE: u8 = 50;
const STRANGER: u8 = 66;

struct Test {
    lab: tempfile::TempDir,
    site: Site,
}

impl Test {
    fn new() -> Self {
        Self::with(|_| About::for_tests())
    }

    fn with(about: impl FnOnce(&SharedFleet) -> About) -> Self {
        let lab = tempfile::tempdir().unwrap();
        let oss = lab.path().join("oss");
        std::fs::create_dir_all(oss.join("debian/boot")).unwrap();
        std::fs::write(oss.join("debian/boot/vmlinuz"), b"kernel").unwrap();
        std::fs::write(oss.join("debian/empty"), b"").unwrap();
        std::fs::write(lab.path().join("secret"), b"secret").unwrap();
        let threads = std::num::NonZeroUsize::MIN;
        let bytes =
            torrent_io::create::create(&oss.join("debian"), Spec::default(), threads, &|_, _| {})
                .unwrap();
        std::fs::write(oss.join("debian/later"), b"secret").unwrap();
        let metainfo = Metainfo::decode(&bytes).unwrap();
        let name: ImageName = "debian".parse().unwrap();
        let manifest = Served::memory("{}", "7", "application/json");
        let offer = Offer {
            serial: 7,
            fixed: [("/manifest.json".to_owned(), manifest)].into(),
            torrents: [(name.clone(), Served::memory(bytes, "1", "application/x-bittorrent"))]
                .into(),
            images: [(name, ImageFiles::open(&oss, &metainfo).unwrap())].into(),
        };
        let script = ScriptSettings {
            base: "http://10.0.0.1:8080".to_owned(),
            cmdline: String::new(),
            arch: Arch::X86_64,
            boots: Boots::default(),
        };
        let fleet = SharedFleet::new(Fleet::default());
        let about = about(&fleet);
        let live =
            Live { offer, script, dashboard: DashboardSettings::for_tests(), has_power: false };
        Self { lab, site: Site::new(live, fleet, NextBoots::default(), Orders::default(), about) }
    }

    /// Asks from the address of the node, or of whoever is at [`NODE`].
    async fn ask(&self, method: Method, path: &str, body: &str) -> (u16, HeaderMap, String) {
        self.ask_as(NODE, method, path, &[], body).await
    }

    /// Asks from 10.0.0.`last`, with more header fields.
    async fn ask_as(
        &self,
        last: u8,
        method: Method,
        path: &str,
        fields: &[(&str, &str)],
        body: &str,
    ) -> (u16, HeaderMap, String) {
        let source = Source::Peer([10, 0, 0, last].into());
        let has = |name: &str| fields.iter().any(|(field, _)| *field == name);
        let mut request = Request::builder().method(&method).uri(path).extension(source);
        if !has("host") {
            request = request.header("host", "localhost");
        }
        if method == Method::POST && !has("content-type") {
            request = request.header("content-type", "application/json");
        }
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from(body.to_owned())).unwrap();
        let (head, body) = self.site.clone().router().oneshot(request).await.unwrap().into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        (head.status.as_u16(), head.headers, String::from_utf8_lossy(&body).into_owned())
    }

    /// The node begins a boot, and this server leases [`NODE`] to it.
    fn leases(&self) {
        lease(&self.site.0.fleet);
    }

    /// A report from 10.0.0.`last`; what the server answers.
    async fn reports(&self, last: u8, fields: &[(&str, &str)], report: &str) -> Value {
        let (status, _, body) =
            self.ask_as(last, Method::POST, "/api/v1/reports", fields, report).await;
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }

    /// What was said of the node and not believed.
    fn hearsay(&self) -> Option<String> {
        self.site.0.fleet.lock().node(MAC)?.heard.as_ref().map(Hearsay::sentence)
    }

    async fn get(&self, path: &str) -> (u16, String) {
        let (status, _, body) = self.ask(Method::GET, path, "").await;
        (status, body)
    }

    fn stage(&self) -> Option<String> {
        let fleet = self.site.0.fleet.lock();
        let stage = fleet.node(MAC)?.summary.stage.as_ref()?.name();
        Some(stage.to_owned())
    }
}

fn report(sequence: u64, rest: &str) -> String {
    format!(r#"{{"node":"{MAC}","boot":7,"sequence":{sequence},"uptime_ms":1,{rest}}}"#)
}

fn lease(fleet: &SharedFleet) {
    let mut fleet = fleet.lock();
    fleet.set_dhcp(DhcpRole::Leases);
    let now = UnixMs::now();
    let asker = Asker::Firmware(Firmware::Bios);
    fleet.handle(now, &Event::Asked { mac: MAC, asker });
    let address = [10, 0, 0, NODE].into();
    fleet.handle(now, &Event::Offered { mac: MAC, address: Some(address) });
    fleet.handle(now, &Event::Leased { mac: MAC, address });
}

#[tokio::test]
async fn what_is_on_offer_is_served() {
    let test = Test::new();
    assert_eq!(test.get("/manifest.json").await, (200, "{}".to_owned()));
    assert_eq!(test.get("/images/debian/boot/vmlinuz").await, (200, "kernel".to_owned()));
    assert_eq!(test.get("/images/debian/empty").await, (200, String::new()));
    let (status, torrent) = test.get("/torrents/debian.torrent").await;
    assert!(status == 200 && torrent.starts_with('d'));
}

#[tokio::test]
async fn who_is_left_alone_finds_no_script_unless_it_waits_for_one() {
    let test = Test::new();
    let live = |unknown| {
        let boots = Boots::for_strangers(unknown, &[]);
        let script = ScriptSettings { boots, ..test.site.live().script.clone() };
        Live {
            offer: Offer::default(),
            script,
            dashboard: DashboardSettings::for_tests(),
            has_power: false,
        }
    };
    let path = format!("/boot.ipxe?mac={MAC}");
    test.site.publish(live(Unknown::Wait));
    let (status, script) = test.get(&path).await;
    assert!(status == 200 && script.contains("waits until it is accepted"), "{script}");
    test.site.publish(live(Unknown::Ignore));
    assert_eq!(test.get(&path).await.0, 404);
    let (status, script) = test.get(&format!("{path}&waits=1")).await;
    assert!(status == 200 && script.ends_with("exit\n"), "{script}");
    // What somebody has decided for its next boot holds all the same.
    test.site.0.next.decide(&[MAC], &NextBoot::Disk).unwrap();
    let (status, script) = test.get(&path).await;
    assert!(status == 200 && script.contains("sanboot"), "{script}");
}

#[tokio::test]
async fn nothing_else_is_served() {
    let test = Test::new();
    std::os::unix::fs::symlink(
        test.lab.path().join("secret"),
        test.lab.path().join("oss/debian/link"),
    )
    .unwrap();
    for path in [
        "/index.html",
        "/secret",
        "/images/debian/later",
        "/images/debian/link",
        "/images/debian/../../secret",
        "/images/debian/%2e%2e/%2e%2e/secret",
        "/images/debian/..%2f..%2fsecret",
        "/images/debian/boot",
        "/images/debian/boot/",
        "/images/debian//boot/vmlinuz",
        "/images/debian/%00",
        "/images/debian/%ff",
        "/images/other/boot/vmlinuz",
        "/images/../secret",
        "/torrents/other.torrent",
        "/torrents/debian",
        "/boot.ipxe/x",
    ] {
        let (status, body) = test.get(path).await;
        assert!(matches!(status, 400 | 404), "{path}: {status}");
        assert!(!body.contains("secret"), "{path}: {body}");
    }
}

#[tokio::test]
async fn a_file_that_was_changed_is_not_served_as_what_was_published() {
    let test = Test::new();
    let path = test.lab.path().join("oss/debian/boot/vmlinuz");
    std::fs::write(&path, b"kerneL").unwrap();
    let later = std::time::SystemTime::now() + std::time::Duration::from_secs(5);
    std::fs::File::options().write(true).open(&path).unwrap().set_modified(later).unwrap();
    assert_eq!(test.get("/images/debian/boot/vmlinuz").await.0, 503);
}

#[tokio::test]
async fn a_report_is_answered_with_the_serial_and_moves_the_node() {
    let test = Test::new();
    test.leases();
    let answer = test.reports(NODE, &[], &report(1, r#""stage":"agent""#)).await;
    assert_eq!(answer["manifest_serial"], 7);
    assert_eq!(test.stage().as_deref(), Some("agent"));
    let (_, body) = test.get("/api/v1/nodes").await;
    let nodes: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(nodes["nodes"][0]["stage"], "agent");
    assert_eq!(nodes["nodes"][0]["address"], "10.0.0.50");
    let (_, body) = test.get("/api/v1/nodes/52-54-00-00-00-01").await;
    let node: Value = serde_json::from_str(&body).unwrap();
    assert!(node["events"].as_array().unwrap().iter().any(|event| event["text"] == "agent"));
}

#[tokio::test]
async fn a_system_says_that_it_is_up() {
    let test = Test::new();
    test.leases();
    test.ask(Method::POST, "/api/v1/reports", &report(1, r#""stage":"loading","image":"debian""#))
        .await;
    let (status, _, _) = test.ask(Method::POST, &format!("/api/v1/nodes/{MAC}/booted"), "").await;
    assert_eq!((status, test.stage().as_deref()), (204, Some("booted")));
}

#[tokio::test]
async fn what_is_no_report_is_refused() {
    let test = Test::new();
    let long = report(1, &format!(r#""stage":"agent","log":["{}"]"#, "x".repeat(20_000)));
    for (body, expect) in [("", 400), ("{}", 400), ("[1]", 400), (long.as_str(), 413)] {
        let (status, _, _) = test.ask(Method::POST, "/api/v1/reports", body).await;
        assert_eq!(status, expect, "{body:.20}");
    }
    assert_eq!(test.ask(Method::GET, "/api/v1/reports", "").await.0, 405);
    assert_eq!(test.stage(), None);
}

#[tokio::test]
async fn a_script_tells_the_fleet_who_boots() {
    let test = Test::new();
    test.leases();
    let (status, body) = test.get(&format!("/boot.ipxe?mac={MAC}&platform=efi")).await;
    assert!(status == 200 && body.starts_with("#!ipxe\n"), "{status} {body}");
    assert_eq!(test.stage().as_deref(), Some("bootloader"));
    assert_eq!(test.get("/boot.ipxe?mac=x").await.0, 400);
}

#[tokio::test]
async fn requests_are_counted() {
    let test = Test::new();
    test.get("/images/debian/boot/vmlinuz").await;
    test.get("/nothing").await;
    let counts = test.site.counts();
    assert_eq!((counts.request_count, counts.refusal_count, counts.sent_bytes), (2, 1, 6));
}

#[tokio::test]
async fn the_dashboard_comes_with_a_policy_that_lets_nothing_else_run() {
    let test = Test::new();
    let (status, headers, body) = test.ask(Method::GET, "/", "").await;
    assert_eq!((status, body.contains("<main")), (200, true));
    let policy = headers["content-security-policy"].to_str().unwrap();
    assert!(policy.starts_with("default-src 'none'; script-src 'self';"), "{policy}");
    assert!(!policy.contains("unsafe"), "{policy}");
    let (status, headers, _) = test.ask(Method::GET, "/dashboard/app.js", "").await;
    assert_eq!(
        (status, &headers["content-type"]),
        (200, &"text/javascript; charset=utf-8".parse().unwrap())
    );
}

#[tokio::test]
async fn metrics_count_nodes_by_their_stage() {
    let test = Test::new();
    test.leases();
    test.ask(Method::POST, "/api/v1/reports", &report(1, r#""stage":"agent""#)).await;
    let (status, body) = test.get("/metrics").await;
    assert_eq!(status, 200);
    for line in ["boottorrent_nodes{stage=\"agent\"} 1\n", "boottorrent_start_time_seconds 0\n"] {
        assert!(body.contains(line), "{body}");
    }
    assert!(body.ends_with("# EOF\n"), "{body}");
}

#[tokio::test]
async fn a_server_is_ready_when_it_says_so() {
    let test = Test::new();
    assert_eq!((test.get("/healthz").await.0, test.get("/readyz").await.0), (200, 503));
    test.site.set_ready(true);
    assert_eq!(test.get("/readyz").await.0, 200);
}

const SCRIPT: &str = "/boot.ipxe?mac=52:54:00:00:00:01&arch=i386&platform=pcbios";

/// As agents of another architecture report.
fn of_arm64() -> String {
    let machine = r#"{"arch":"arm64","firmware":"bios","memory_bytes":1,"processors":1,"agent":"x","kernel":"y"}"#;
    report(1, &format!(r#""stage":"menu","machine":{machine}"#))
}

#[tokio::test]
async fn what_was_said_of_a_node_does_not_decide_what_it_boots() {
    let test = Test::new();
    test.leases();
    test.reports(STRANGER, &[], &of_arm64()).await;
    let (status, script) = test.get(SCRIPT).await;
    assert!(status == 200 && script.contains("/phase1/vmlinuz"), "{script}");
    // Not even what it has said itself, in another boot.
    test.reports(NODE, &[], &of_arm64()).await;
    assert!(test.get(SCRIPT).await.1.contains("/phase1/vmlinuz"));
}

#[tokio::test]
async fn a_stranger_takes_no_ordered_boot_away() {
    let test = Test::new();
    test.leases();
    test.site.0.next.decide(&[MAC], &NextBoot::Disk).unwrap();
    for _ in 0..2 {
        let (_, _, script) = test.ask_as(STRANGER, Method::GET, SCRIPT, &[], "").await;
        assert!(script.contains("sanboot") && !script.contains("boottorrent.proof"), "{script}");
        test.reports(STRANGER, &[], &report(9, r#""stage":"agent""#)).await;
    }
    // The node itself, and once more, as scripts are lost.
    for _ in 0..2 {
        assert!(test.get(SCRIPT).await.1.contains("sanboot"));
    }
    // It is switched on again.
    test.leases();
    assert!(test.get(SCRIPT).await.1.contains("/phase1/vmlinuz"));
}

/// The answer to a DHCP request is on the wire before the fleet knows of it.
#[tokio::test]
async fn who_asks_before_its_lease_is_known_is_believed_once_it_is() {
    let test = Test::with(|fleet| {
        fleet.lock().set_dhcp(DhcpRole::Leases);
        let fleet = fleet.clone();
        let leases_known: Wait = Box::new(move || {
            lease(&fleet);
            Box::pin(std::future::ready(()))
        });
        About { leases_known, ..About::for_tests() }
    });
    let (_, script) = test.get(SCRIPT).await;
    assert!(script.contains("boottorrent.proof="), "{script}");
    assert_eq!(test.hearsay(), None);
}

#[tokio::test]
async fn what_a_stranger_reports_is_hearsay() {
    let test = Test::new();
    test.leases();
    let lie = report(u64::MAX, r#""stage":"booted","image":"debian""#).replace(":7,", ":8,");
    assert_eq!(test.reports(STRANGER, &[], &lie).await, serde_json::json!({"manifest_serial": 7}));
    assert_eq!(test.stage().as_deref(), Some("offered"));
    let heard = test.hearsay().unwrap();
    assert!(heard.contains("from 10.0.0.66 reports the stage booted"), "{heard}");
    let failed = r#""stage":"failed","failure":"BT44","reason":"x","retry_in_s":4"#;
    test.reports(NODE, &[], &report(1, failed)).await;
    assert_eq!(test.stage().as_deref(), Some("failed"));
    // What would help to lie better is told nobody.
    let (_, body) = test.get("/api/v1/nodes/52:54:00:00:00:01").await;
    let node: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((node.get("boot"), node.get("sequence")), (None, None));
    assert_eq!(node["heard"]["address"], "10.0.0.66");
}

#[tokio::test]
async fn a_stranger_is_no_download_that_somebody_waits_for() {
    let test = Test::new();
    test.leases();
    let progress = r#""stage":"downloading","image":"debian","verified_bytes":1,"total_bytes":9,
        "rate_bytes_per_s":1,"peers":1,"uploaded_bytes":0,"http":false"#;
    for last in 1..4 {
        let other = format!("52:54:00:00:99:0{last}");
        test.reports(STRANGER, &[], &report(1, progress).replace(&MAC.to_string(), &other)).await;
    }
    let answer =
        test.reports(NODE, &[], &report(1, r#""stage":"verified","image":"debian""#)).await;
    assert_eq!(answer["downloading"], 0);
}

#[tokio::test]
async fn a_node_is_known_by_the_secret_of_its_boot_wherever_it_reports_from() {
    let test = Test::new();
    test.leases();
    let secret = |script: &str| {
        let word =
            script.split_whitespace().find_map(|word| word.strip_prefix("boottorrent.proof="));
        word.unwrap().to_owned()
    };
    let first = secret(&test.get(SCRIPT).await.1);
    let answer =
        test.reports(77, &[(report::PROOF_FIELD, &first)], &report(1, r#""stage":"agent""#)).await;
    assert_eq!((test.stage().as_deref(), answer.get("proof")), (Some("agent"), None));
    // Another node cannot use it, and of two the later one counts.
    let other = report(1, r#""stage":"menu""#).replace(&MAC.to_string(), "52:54:00:00:00:02");
    test.reports(77, &[(report::PROOF_FIELD, &first)], &other).await;
    let second = secret(&test.get(SCRIPT).await.1);
    assert_ne!(first, second);
    let next = report(1, r#""stage":"menu""#).replace(":7,", ":8,");
    test.reports(77, &[(report::PROOF_FIELD, &second)], &next).await;
    let late = report(2, r#""stage":"manifest""#).replace(":7,", ":9,");
    test.reports(77, &[(report::PROOF_FIELD, &first)], &late).await;
    assert_eq!(test.stage().as_deref(), Some("menu"));
    let fleet = test.site.0.fleet.lock();
    assert_eq!(fleet.find("52:54:00:00:00:02").and_then(|node| node.summary.stage.clone()), None);
}

#[tokio::test]
async fn a_node_without_a_secret_that_reports_from_its_address_is_given_one() {
    let test = Test::new();
    test.leases();
    let answer = test.reports(NODE, &[], &report(1, r#""stage":"agent""#)).await;
    let secret = answer["proof"].as_str().unwrap().to_owned();
    assert!(secret.len() <= report::PROOF_LEN_MAX, "{secret}");
    test.reports(77, &[(report::PROOF_FIELD, &secret)], &report(2, r#""stage":"menu""#)).await;
    assert_eq!(test.stage().as_deref(), Some("menu"));
}

#[tokio::test]
async fn only_a_node_says_that_its_system_is_up() {
    let test = Test::new();
    test.leases();
    test.reports(NODE, &[], &report(1, r#""stage":"loading","image":"debian""#)).await;
    let path = format!("/api/v1/nodes/{MAC}/booted");
    assert_eq!(test.ask_as(STRANGER, Method::POST, &path, &[], "").await.0, 403);
    assert_eq!(test.stage().as_deref(), Some("loading"));
    assert_eq!(test.ask(Method::POST, &path, "").await.0, 204);
    assert_eq!(test.stage().as_deref(), Some("booted"));
}

#[tokio::test]
async fn pages_of_other_sites_reach_nothing() {
    let test = Test::new();
    let report = report(1, r#""stage":"agent""#);
    let foreign = [("host", "evil.example.org")];
    for path in [
        "/api/v1/nodes",
        "/api/v1/status",
        SCRIPT,
        "/torrents/debian.torrent",
        "/images/debian/empty",
        "/manifest.json",
        "/v1/nodes",
        "/metrics",
        "/",
    ] {
        assert_eq!(test.ask_as(NODE, Method::GET, path, &foreign, "").await.0, 421, "{path}");
    }
    assert_eq!(test.ask_as(NODE, Method::GET, "/healthz", &foreign, "").await.0, 200);
    for (fields, expect) in [
        (&[("origin", "http://evil.example.org")][..], 403),
        (&[("sec-fetch-site", "cross-site")], 403),
        (&[("content-type", "text/plain")], 415),
        (&[("content-type", "application/json; charset=utf-8")], 200),
    ] {
        let (status, ..) =
            test.ask_as(NODE, Method::POST, "/api/v1/reports", fields, &report).await;
        assert_eq!(status, expect, "{fields:?}");
        if expect == 403 {
            assert_eq!(test.ask_as(NODE, Method::GET, SCRIPT, fields, "").await.0, 403);
        }
    }
}

#[tokio::test]
async fn a_flood_hides_no_node_that_boots() {
    let test = Test::new();
    test.leases();
    for number in 0..crate::fleet::STRANGERS_MAX + 100 {
        let [.., b, c] = (number as u32).to_be_bytes();
        let mac = Mac([2, 0, 0, 0, b, c]);
        let said = report(1, r#""stage":"agent""#).replace(&MAC.to_string(), &mac.to_string());
        test.reports(STRANGER, &[], &said).await;
    }
    let new = Mac([0x52, 0x54, 0, 0x99, 0x99, 1]);
    let mut fleet = test.site.0.fleet.lock();
    fleet.handle(UnixMs::now(), &Event::Asked { mac: new, asker: Asker::Firmware(Firmware::Bios) });
    assert!(fleet.node(new).is_some() && fleet.node(MAC).is_some());
    assert!(fleet.nodes().count() < 2_000, "{} nodes", fleet.nodes().count());
    assert_eq!(
        fleet.log().after(0, 10).filter(|line| line.mac != MAC && line.mac != new).count(),
        0
    );
}
