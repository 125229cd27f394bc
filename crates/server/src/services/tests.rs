//! A server within the test: loopback, ports that are free, DHCP and TFTP off.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use boot::manifest::{self, Discovery, Menu};
use boot::{Arch, Image, LabKey, Loader, Manifest};
use dhcp::LabId;
use serde_json::Value;
use tokio::sync::mpsc;
use torrent::metainfo::Metainfo;
use torrent::metainfo::create::Spec;

use super::edition::BootFiles;
use super::lock::Lock;
use super::run::{News, Prepared, run};
use crate::client::{Client, ClientError};
use crate::lab::publication::Publication;
use crate::lab::publisher::Outcome;
use crate::lab::settings::{NodeSettings, Settings};

fn port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

pub(super) fn settings(lab: &Path) -> Settings {
    let mut settings = Settings::for_tests(lab);
    settings.tftp.enabled = false;
    settings.http.port = port();
    settings.tracker.port = port();
    settings.seeding.port = port();
    settings.phase1.cmdline = "quiet".to_owned();
    settings
}

fn published(settings: &Settings) -> Publication {
    let name: boot::ImageName = "debian".parse().unwrap();
    let spec = Spec {
        trackers: vec![vec![format!("http://127.0.0.1:{}/announce", settings.tracker.port)]],
        ..Spec::default()
    };
    let threads = std::num::NonZeroUsize::MIN;
    let folder = settings.images_dir().join("debian");
    let torrent = torrent_io::create::create(&folder, spec, threads, &|_, _| {}).unwrap();
    let metainfo = Metainfo::decode(&torrent).unwrap();
    let manifest = Manifest {
        version: manifest::VERSION,
        serial: 7,
        menu: Menu { default: name.clone(), timeout_s: None, shell: Default::default() },
        seed_time_s: 0,
        seed_auto: false,
        keymap: None,
        discovery: Discovery { lsd: false, pex: true },
        images: vec![Image {
            name: name.clone(),
            title: "Debian".to_owned(),
            description: String::new(),
            password: None,
            len: 6,
            infohash: metainfo.info_hash_v2().unwrap().as_bytes().try_into().unwrap(),
            loader: Loader::Unknown,
        }],
        phase1: vec![],
        booted_upload_limit_bytes_per_s: None,
        assignments: vec![],
    };
    let (manifest_bytes, signature) = manifest.sign(&LabKey::from_seed([1; 32])).unwrap();
    Publication {
        settings: settings.clone(),
        manifest,
        manifest_bytes,
        signature: signature.to_string(),
        archive: b"archive".to_vec(),
        torrents: vec![(name, torrent)],
        phase1: vec![],
        hashing: vec![],
    }
}

pub(super) fn prepared(settings: Settings) -> Prepared {
    let lab = settings.dir.clone();
    for (path, text) in [("oss/debian/vmlinuz", "kernel"), ("p1/k", "k"), ("p1/i", "i")] {
        let path = lab.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        if !path.exists() {
            std::fs::write(path, text).unwrap();
        }
    }
    let published = published(&settings);
    let boot_files = BootFiles {
        kernel: lab.join("p1/k"),
        initramfs: lab.join("p1/i"),
        arch: Arch::X86_64,
        programs: vec![("snponly.efi", Arc::from(*b"efi"))],
    };
    let publication = Arc::new(published);
    Prepared { publication, boot_files, lab: LabId([0; 8]), hashing: Default::default() }
}

/// Runs a server of `settings`, calls `test` on another thread, and waits until both have ended.
async fn with_server(
    settings: Settings,
    after: impl Fn() -> anyhow::Result<Outcome> + Send + Sync + 'static,
    test: impl FnOnce() + Send + 'static,
) -> anyhow::Result<()> {
    let (sender, events) = mpsc::unbounded_channel();
    let reload = move || sender.send(after()).unwrap();
    let news = News { reload: Arc::new(reload), events };
    let lock = Lock::take(&settings.dir)?;
    let tested = Arc::new(AtomicBool::new(false));
    let done = Arc::clone(&tested);
    let ready = move |_: &Settings| {
        std::thread::spawn(move || {
            test();
            done.store(true, Ordering::Release);
        });
    };
    run(prepared(settings), news, lock, ready).await?;
    assert!(tested.load(Ordering::Acquire), "the server ended before the test had");
    Ok(())
}

fn stop_server(client: &Client) {
    // It may be gone before its answer has arrived.
    let stopped = client.post::<Value>("/v1/server/stop", None);
    assert!(matches!(stopped, Ok(Value::Null) | Err(ClientError::Http { .. })), "{stopped:?}");
}

fn get(port: u16, path: &str) -> String {
    let mut answer = ureq::get(format!("http://127.0.0.1:{port}{path}")).call().unwrap();
    answer.body_mut().read_to_string().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_serves_reports_and_stops() {
    let temp = tempfile::tempdir().unwrap();
    let settings = settings(temp.path());
    let (lab, port) = (temp.path().to_owned(), settings.http.port);
    let begin = Instant::now();
    let test = move || {
        assert_eq!(get(port, "/phase1/vmlinuz"), "k");
        assert_eq!(get(port, "/images/debian/vmlinuz"), "kernel");
        assert_eq!(get(port, "/ipxe/snponly.efi"), "efi");
        assert!(get(port, "/boot.ipxe?mac=525400000001").contains("quiet"));
        let client = Client::of_lab(lab);
        let nodes: Value = client.get("/v1/nodes").unwrap();
        assert_eq!(nodes["nodes"][0]["stage"], "bootloader");
        let status: Value = client.get("/api/v1/status").unwrap();
        assert_eq!(status["manifest_serial"], 7);
        let node: Value = client.get("/api/v1/nodes/52%3A54:00:00:00:01").unwrap();
        assert_eq!(node["mac"], "52:54:00:00:00:01");
        let error = client.get::<Value>("/api/v1/nodes/c009").unwrap_err().to_string();
        assert!(error.contains("no node `c009` is known"), "{error}");
        // The owner of the lab needs no token, and who comes through the network may never do this.
        let stop = format!("http://127.0.0.1:{port}/v1/server/stop");
        let refused = ureq::post(&stop).send_empty().unwrap_err();
        assert!(matches!(refused, ureq::Error::StatusCode(403)), "{refused}");
        stop_server(&client);
    };
    with_server(settings, || anyhow::bail!("not asked for"), test).await.unwrap();
    assert!(begin.elapsed() < Duration::from_secs(10));
    let client = Client::of_lab(temp.path().to_owned());
    let asked = tokio::task::spawn_blocking(move || client.get::<Value>("/v1/nodes"));
    assert!(matches!(asked.await.unwrap(), Err(ClientError::NotRunning { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_announces_the_address_that_nodes_know() {
    let temp = tempfile::tempdir().unwrap();
    let settings = settings(temp.path());
    let (lab, port, seeding) =
        (temp.path().to_owned(), settings.tracker.port, settings.seeding.port);
    let infohash = published_infohash(&settings);
    let test = move || {
        let query = format!(
            "/announce?info_hash={infohash}&peer_id=-XX0001-abcdefghijkl&port=1&uploaded=0&downloaded=0&left=1&compact=1"
        );
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let mut answer = ureq::get(format!("http://127.0.0.1:{port}{query}")).call().unwrap();
            let answer = answer.body_mut().read_to_vec().unwrap();
            let [a, b] = seeding.to_be_bytes();
            if answer.windows(6).any(|peer| peer == [127, 0, 0, 1, a, b]) {
                break;
            }
            assert!(Instant::now() < deadline, "{}", String::from_utf8_lossy(&answer));
        }
        stop_server(&Client::of_lab(lab));
    };
    with_server(settings, || anyhow::bail!("not asked for"), test).await.unwrap();
}

fn published_infohash(settings: &Settings) -> String {
    let published = prepared(settings.clone()).publication;
    let metainfo = Metainfo::decode(&published.torrents[0].1).unwrap();
    let hash = metainfo.info_hashes().next().unwrap().truncated();
    hash.iter().map(|byte| format!("%{byte:02x}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_applies_what_it_can_and_names_the_rest() {
    let temp = tempfile::tempdir().unwrap();
    let settings = settings(temp.path());
    let (lab, port) = (temp.path().to_owned(), settings.http.port);
    let mut after = settings.clone();
    after.menu.timeout = None;
    after.nodes = vec![NodeSettings::for_tests("c001", "525400000001".parse().unwrap())];
    let test = move || {
        let client = Client::of_lab(lab.clone());
        let changes: Value = client.post("/v1/server/reload", None).unwrap();
        assert_eq!(changes["applied"], serde_json::json!(["menu", "nodes"]));
        assert_eq!(changes["needs_restart"], serde_json::json!(["http"]));
        let script = get(port, "/boot.ipxe?mac=525400000001");
        assert!(script.contains("c001 loads phase 1"), "{script}");
        stop_server(&Client::of_lab(lab));
    };
    let after = move || {
        let publication = prepared(after.clone()).publication;
        Ok(Outcome { publication, is_new: true, waits: vec!["http"] })
    };
    with_server(settings, after, test).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_that_fails_changes_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let settings = settings(temp.path());
    let (lab, port) = (temp.path().to_owned(), settings.http.port);
    let test = move || {
        let client = Client::of_lab(lab.clone());
        let error = client.post::<Value>("/v1/server/reload", None).unwrap_err().to_string();
        assert_eq!(error, "not reloaded, all stays as it was: line 3 is wrong");
        assert_eq!(get(port, "/images/debian/vmlinuz"), "kernel");
        stop_server(&Client::of_lab(lab));
    };
    with_server(settings, || anyhow::bail!("line 3 is wrong"), test).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn all_that_is_in_the_way_is_told_at_once() {
    let temp = tempfile::tempdir().unwrap();
    let settings = settings(temp.path());
    let at = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
    let _taken = [settings.http.port, settings.tracker.port, settings.seeding.port].map(at);
    let ports = [settings.http.port, settings.tracker.port, settings.seeding.port];
    let error = with_server(settings, || anyhow::bail!("not asked for"), || {}).await.unwrap_err();
    let text = error.to_string();
    for port in ports {
        let line = format!("TCP port {port} of 127.0.0.1 is taken by");
        assert!(text.contains(&line), "{text}");
    }
    let me = format!("(pid {})", std::process::id());
    assert_eq!(text.matches(&me).count(), 3, "{text}");
}
