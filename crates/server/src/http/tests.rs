//! The whole site, without sockets.

use axum::http::{HeaderMap, Method};
use boot::{Arch, Mac};
use serde_json::Value;
use torrent::metainfo::Metainfo;
use torrent::metainfo::create::Spec;
use tower::ServiceExt;

use super::*;
use crate::fleet::Fleet;
use crate::lab::settings::Unknown;

const MAC: Mac = Mac([0x52, 0x54, 0, 0, 0, 1]);

struct Test {
    lab: tempfile::TempDir,
    site: Site,
}

impl Test {
    fn new() -> Self {
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
        let live =
            Live { offer, script, dashboard: DashboardSettings::for_tests(), has_power: false };
        Self {
            lab,
            site: Site::new(
                live,
                fleet,
                NextBoots::default(),
                Orders::default(),
                About::for_tests(),
            ),
        }
    }

    async fn ask(&self, method: Method, path: &str, body: &str) -> (u16, HeaderMap, String) {
        let source = Source::Peer([10, 0, 0, 50].into());
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "localhost")
            .extension(source)
            .body(Body::from(body.to_owned()))
            .unwrap();
        let (head, body) = self.site.clone().router().oneshot(request).await.unwrap().into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        (head.status.as_u16(), head.headers, String::from_utf8_lossy(&body).into_owned())
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
    let (status, _, body) =
        test.ask(Method::POST, "/api/v1/reports", &report(1, r#""stage":"agent""#)).await;
    assert_eq!((status, body.as_str()), (200, "{\"manifest_serial\":7}\n"));
    assert_eq!(test.stage().as_deref(), Some("agent"));
    let (_, body) = test.get("/api/v1/nodes").await;
    let nodes: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(nodes["nodes"][0]["stage"], "agent");
    assert_eq!(nodes["nodes"][0]["address"], "10.0.0.50");
    let (_, body) = test.get("/api/v1/nodes/52-54-00-00-00-01").await;
    let node: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(node["events"][1]["text"], "agent");
}

#[tokio::test]
async fn a_system_says_that_it_is_up() {
    let test = Test::new();
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
