//! The built program as a server of a lab, on loopback with high ports, DHCP and TFTP off.

// Clippy knows the tests here, but not what they share.
#![allow(clippy::unwrap_used)]

use std::cell::RefCell;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use boot::{LabKey, Manifest};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use loopback::Lab;

mod loopback;

const DEADLINE: Duration = Duration::from_secs(60);

const NODE: &str = "52:54:00:00:00:01";

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_boottorrent"))
}

impl Lab {
    fn command(&self, args: &[&str]) -> Output {
        program().arg("-C").arg(self.temp.path()).args(args).output().unwrap()
    }

    /// What a command prints, which must succeed.
    fn run(&self, args: &[&str]) -> String {
        let output = self.command(args);
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{args:?}: {error}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.run(args)).unwrap()
    }

    /// Why a command fails.
    fn refused(&self, args: &[&str]) -> String {
        let output = self.command(args);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    fn start(&self) -> Server {
        let mut child = program()
            .arg("-C")
            .arg(self.temp.path())
            .args(["start", "-o", "json", "--phase1"])
            .arg(self.path("phase1"))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let mut lines = out.lines();
        let ready = lines
            .by_ref()
            .map(Result::unwrap)
            .find(|line| serde_json::from_str::<Value>(line).unwrap()["event"] == "ready");
        assert!(ready.is_some(), "it ended");
        // Nobody may be kept from writing.
        std::thread::spawn(move || lines.for_each(drop));
        Server { child }
    }

    fn get(&self, path: &str) -> String {
        let url = format!("http://127.0.0.1:{}{path}", self.http);
        ureq::get(url).call().unwrap().body_mut().read_to_string().unwrap()
    }

    fn report(&self, sequence: u64, stage: Value) {
        let mut report = json!({"node": NODE, "boot": 7, "sequence": sequence, "uptime_ms": 1});
        report.as_object_mut().unwrap().extend(stage.as_object().unwrap().clone());
        let url = format!("http://127.0.0.1:{}/api/v1/reports", self.http);
        let post = ureq::post(url).content_type("application/json");
        let mut answer = post.send(report.to_string()).unwrap();
        let answer: Value =
            serde_json::from_str(&answer.body_mut().read_to_string().unwrap()).unwrap();
        assert!(answer["manifest_serial"].as_u64().unwrap() > 0);
    }
}

/// A process that ends with the test.
struct Server {
    child: Child,
}

impl Server {
    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    fn wait(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < DEADLINE, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_lab_is_served_and_its_nodes_are_shown() {
    let lab = Lab::new();
    let mut server = lab.start();
    assert_eq!(lab.get("/phase1/vmlinuz"), "phase 1's kernel");
    assert_eq!(lab.get("/images/debian/vmlinuz"), "the kernel");
    let key = LabKey::from_seed([7; 32]).public();
    let signature = lab.get("/manifest.sig").parse().unwrap();
    let manifest = Manifest::open(lab.get("/manifest.json").as_bytes(), &signature, &key).unwrap();
    assert_eq!(manifest.images[0].name.as_str(), "debian");
    let script = lab.get(&format!("/boot.ipxe?mac={NODE}&platform=efi"));
    assert!(script.contains(&format!("kernel http://127.0.0.1:{}/phase1/vmlinuz", lab.http)));

    lab.report(1, json!({"stage": "agent"}));
    let failed =
        json!({"stage": "failed", "failure": "BT21", "reason": "nobody answered", "retry_in_s": 4});
    lab.report(2, failed);
    let status = lab.json(&["status", "-o", "json"]);
    assert_eq!(status["status"]["images"][0]["name"], "debian");
    assert_eq!(status["nodes"][0]["failure"], "BT21");
    let text = lab.run(&["status"]);
    assert!(text.contains("failed BT21  nobody answered; again in 4 s"), "{text}");
    let text = lab.run(&["node", "show", NODE]);
    assert!(text.contains("failure    BT21 no DHCP server answered"), "{text}");
    assert_eq!(lab.json(&["node", "list", "-o", "json"])["nodes"][0]["mac"], NODE);
    assert!(lab.refused(&["node", "show", "c999"]).contains("no node `c999` is known"));

    assert_eq!(lab.run(&["stop"]), "stopped\n");
    assert_eq!(server.wait(), Some(0));
    assert!(lab.refused(&["status"]).contains("no server of this lab runs"));
}

#[test]
fn an_unknown_node_waits_until_it_is_accepted_also_over_a_restart() {
    let lab = Lab::new();
    let settings = fs::read_to_string(lab.path("Boottorrent.yaml")).unwrap();
    lab.write("Boottorrent.yaml", &format!("{settings}nodes:\n  unknown: wait\n"));
    let mut server = lab.start();
    let [node, other] = [NODE, "52:54:00:00:00:02"];
    let script = |node| lab.get(&format!("/boot.ipxe?mac={node}&waits=1"));
    for node in [node, other] {
        assert!(script(node).contains("waits until it is accepted"), "{}", script(node));
    }
    let pending = || {
        let pending = lab.json(&["node", "pending", "-o", "json"])["nodes"].clone();
        let macs = pending.as_array().unwrap().iter().map(|node| node["mac"].clone());
        macs.collect::<Vec<_>>()
    };
    assert_eq!(pending(), [node, other]);
    let why = lab.run(&["why", node]);
    assert!(why.contains(&format!("boottorrent node accept {node}")), "{why}");

    lab.run(&["node", "ignore", other]);
    assert!(script(other).ends_with("exit\n"));
    lab.run(&["stop"]);
    server.wait();
    let _server = lab.start();
    assert_eq!(pending(), [node]);
    assert!(lab.refused(&["node", "accept", node, "--image", "nosuch"]).contains("oss/nosuch"));
    lab.run(&["node", "accept", node, "c001", "--image", "debian"]);
    assert!(script(node).contains("/phase1/vmlinuz"), "{}", script(node));
    assert_eq!(lab.json(&["node", "show", "c001", "-o", "json"])["standing"], "known");
    lab.run(&["node", "accept", other, "c002"]);
    assert!(script(other).contains("/phase1/vmlinuz"), "{}", script(other));
    assert!(pending().is_empty());
}

#[test]
fn an_image_that_nodes_are_assigned_or_run_goes_only_by_force() {
    let lab = Lab::new();
    for name in ["spare", "other"] {
        let image = format!("dispname: {name}\nmethod: kexec\nkernel: vmlinuz\ninitrd: vmlinuz\n");
        lab.write(&format!("oss/{name}/config.yaml"), &image);
        lab.write(&format!("oss/{name}/vmlinuz"), "another kernel");
    }
    lab.write("nodes.yaml", &format!("nodes:\n  n01: {{mac: {NODE}, image: spare}}\n"));
    let assigned = "`spare` is in use: n01 is assigned to it";
    assert!(lab.refused(&["image", "remove", "spare"]).contains(assigned));
    assert!(lab.refused(&["image", "rename", "spare", "kept"]).contains(assigned));

    let _server = lab.start();
    lab.report(1, json!({"stage": "booted", "image": "other"}));
    let runs = "`other` is in use: n01 runs it";
    assert!(lab.refused(&["image", "remove", "other"]).contains(runs));
    assert!(lab.refused(&["image", "remove", "other", "spare"]).contains("in use"));
    assert!(lab.path("oss/other").exists() && lab.path("oss/spare").exists());
    lab.run(&["image", "remove", "other", "spare", "--force", "--yes"]);
    assert!(!lab.path("oss/other").exists() && !lab.path("oss/spare").exists());
}

#[test]
fn a_file_is_served_in_ranges() {
    let lab = Lab::new();
    let _server = lab.start();
    let url = format!("http://127.0.0.1:{}/images/debian/initrd.img", lab.http);
    let mut answer = ureq::get(&url).header("Range", "bytes=7-13").call().unwrap();
    assert_eq!(answer.status(), 206);
    assert_eq!(answer.headers()["content-range"], "bytes 7-13/700000");
    assert_eq!(answer.body_mut().read_to_string().unwrap(), "initrd ");
    let error = ureq::get(&url).header("Range", "bytes=700000-").call().unwrap_err();
    assert!(matches!(error, ureq::Error::StatusCode(416)), "{error}");
}

#[test]
fn signals_end_it_within_two_seconds() {
    for signal in [Signal::INT, Signal::TERM] {
        let lab = Lab::new();
        let mut server = lab.start();
        let begin = Instant::now();
        kill_process(server.pid(), signal).unwrap();
        assert_eq!(server.wait(), Some(0));
        assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
    }
}

#[test]
fn a_second_start_is_told_of_the_first() {
    let lab = Lab::new();
    let server = lab.start();
    let error = lab.refused(&["start"]);
    let pid = server.child.id();
    let expect = format!("boottorrent: a server of this lab runs already (pid {pid})");
    assert!(error.starts_with(&expect), "{error}");
    assert_eq!(lab.get("/phase1/vmlinuz"), "phase 1's kernel");
}

#[test]
fn what_was_known_of_nodes_survives_a_kill() {
    let lab = Lab::new();
    let mut server = lab.start();
    lab.report(1, json!({"stage": "agent"}));
    lab.report(2, json!({"stage": "loading", "image": "debian"}));
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
    let state = lab.path("state/history.db");
    let state = rusqlite::Connection::open_with_flags(state, flags).unwrap();
    wait_until("the node is written", || {
        let row = "SELECT count(*) FROM history_now WHERE fields LIKE '%\"stage\":\"loading\"%'";
        state.query_row(row, [], |row| row.get::<_, u32>(0)).unwrap() == 1
    });
    drop(state);
    kill_process(server.pid(), Signal::KILL).unwrap();
    assert_eq!(server.wait(), None);
    let _server = lab.start();
    let node = lab.json(&["node", "show", NODE, "-o", "json"]);
    assert_eq!((&node["stage"], &node["image"]), (&json!("loading"), &json!("debian")));
    let events: Vec<_> =
        node["events"].as_array().unwrap().iter().map(|event| &event["text"]).collect();
    assert_eq!(events, ["agent", "loading debian"]);
}

#[test]
fn a_reload_publishes_what_is_new_or_says_what_is_wrong() {
    let lab = Lab::new();
    let _server = lab.start();
    let serial = || lab.json(&["status", "-o", "json"])["status"]["manifest_serial"].clone();
    let before = serial();
    lab.write("oss/arch/config.yaml", "dispname: Arch\nmethod: kexec\nkernel: k\ninitrd: i\n");
    lab.write("oss/arch/k", "another kernel");
    lab.write("oss/arch/i", "another initrd");
    let text = lab.run(&["reload"]);
    assert!(text.contains("changed images"), "{text}");
    assert_ne!(serial(), before);
    assert_eq!(lab.get("/images/arch/k"), "another kernel");
    lab.write("oss/arch/config.yaml", "dispname: Arch\nmethod: hologram\n");
    let error = lab.refused(&["reload"]);
    assert!(
        error.contains("all stays as it was") && error.contains("oss/arch/config.yaml"),
        "{error}"
    );
    assert_eq!(lab.get("/images/arch/k"), "another kernel");
}

impl Lab {
    /// The server's torrent without its web seed, so that only peers can give the image: trackers
    /// and web seeds are not part of what the infohash is of.
    fn torrent(&self) -> PathBuf {
        let copy = self.path("copy/debian");
        fs::create_dir_all(&copy).unwrap();
        for file in ["vmlinuz", "initrd.img"] {
            fs::copy(self.path("oss/debian").join(file), copy.join(file)).unwrap();
        }
        let settings = fs::read_to_string(self.path("Boottorrent.yaml")).unwrap();
        let tracker = settings.split("tracker_port: ").nth(1).unwrap().lines().next().unwrap();
        let announce = format!("http://127.0.0.1:{tracker}/announce");
        let torrent = self.path("copy/debian.torrent");
        let paths = [copy.to_str().unwrap(), torrent.to_str().unwrap()];
        self.run(&["torrent", "create", paths[0], "-o", paths[1], "--announce", &announce]);
        torrent
    }

    /// Downloads what the torrent says from the server's peer, and returns its kernel.
    fn download(&self, torrent: &Path) -> String {
        let dir = tempfile::tempdir_in(self.temp.path()).unwrap();
        let mut get = program();
        get.args(["torrent", "get", "--dir"]).arg(dir.path()).arg(torrent).stdout(Stdio::null());
        let get = RefCell::new(Server { child: get.spawn().unwrap() });
        wait_until("downloaded", || get.borrow_mut().child.try_wait().unwrap().is_some());
        assert_eq!(get.into_inner().wait(), Some(0));
        fs::read_to_string(dir.path().join("debian/vmlinuz")).unwrap()
    }
}

#[test]
fn an_image_that_was_touched_is_still_served_and_seeded() {
    let lab = Lab::new();
    let _server = lab.start();
    assert_eq!(lab.get("/images/debian/vmlinuz"), "the kernel");
    let file = fs::File::options().write(true).open(lab.path("oss/debian/vmlinuz")).unwrap();
    file.set_modified(std::time::SystemTime::now() - Duration::from_secs(3600)).unwrap();
    lab.run(&["reload"]);
    assert_eq!(lab.get("/images/debian/vmlinuz"), "the kernel");
    assert_eq!(lab.download(&lab.torrent()), "the kernel");
}

#[test]
fn a_node_finishes_the_version_that_it_began() {
    let lab = Lab::new();
    let _server = lab.start();
    let before = lab.torrent();
    let published = lab.json(&["status", "-o", "json"])["status"]["images"][0]["infohash"].clone();
    let version = format!("/versions/{}/debian/vmlinuz", published.as_str().unwrap());
    assert_eq!(lab.get(&version), "the kernel");
    lab.write("oss/debian/.new", "a newer kernel");
    let folder = lab.path("oss/debian");
    fs::rename(folder.join(".new"), folder.join("vmlinuz")).unwrap();
    lab.run(&["reload"]);
    assert_eq!(lab.get("/images/debian/vmlinuz"), "a newer kernel");
    assert_eq!(lab.get(&version), "the kernel");
    assert_eq!(lab.download(&before), "the kernel");
    assert_eq!(lab.download(&lab.torrent()), "a newer kernel");
}

#[test]
fn in_the_background_it_tells_whether_it_has_started() {
    let lab = Lab::new();
    let phase1 = lab.path("phase1");
    let phase1 = phase1.to_str().unwrap();
    let text = lab.run(&["start", "--detach", "--phase1", phase1]);
    assert!(text.contains("started (pid "), "{text}");
    assert_eq!(lab.get("/images/debian/vmlinuz"), "the kernel");
    lab.run(&["stop"]);
    let log = fs::read_to_string(lab.path("state/boottorrent.log")).unwrap();
    assert!(log.contains("Z START"), "{log}");

    let _taken = TcpListener::bind(("127.0.0.1", lab.http)).unwrap();
    let error = lab.refused(&["start", "--detach", "--phase1", phase1]);
    assert!(error.contains(&format!("TCP port {} of 127.0.0.1 is taken", lab.http)), "{error}");
}

#[test]
fn where_there_is_no_lab_that_is_said() {
    let temp = tempfile::tempdir().unwrap();
    let output = program().arg("-C").arg(temp.path()).arg("start").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let mut error = String::new();
    output.stderr.as_slice().read_to_string(&mut error).unwrap();
    assert!(error.contains("no Boottorrent.yaml in"), "{error}");
}
