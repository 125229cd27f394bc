//! `boottorrent lan` and the original's commands, as processes on loopback.

#![allow(clippy::unwrap_used, reason = "a test says where it fails")]

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const BINARY: &str = env!("CARGO_BIN_EXE_boottorrent");

/// Far longer than anything takes on a busy machine.
const LONG: Duration = Duration::from_secs(90);

/// A place with a password, a file to send, and a queue.
struct Place {
    dir: tempfile::TempDir,
    children: Vec<Child>,
}

impl Drop for Place {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("password"), "secret\n").unwrap();
        fs::write(dir.path().join("src"), "a file that many want\n").unwrap();
        fs::create_dir(dir.path().join("node")).unwrap();
        Self { dir, children: vec![] }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    fn lan(&self, words: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        command.arg("lan").args(words).stdin(Stdio::null());
        command
    }

    /// Starts what runs on, and waits for its first line.
    fn start(&mut self, mut command: Command) -> String {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        lines.read_line(&mut line).unwrap();
        std::thread::spawn(move || lines.lines().for_each(drop));
        self.children.push(child);
        line
    }

    /// An endpoint; its port.
    fn endpoint(&mut self) -> u16 {
        let (root, password) = (self.text("node"), self.text("password"));
        let listen = ["serve", "--listen", "127.0.0.1:0"];
        let mut command = self.lan(&listen);
        command.args(["--root", &root, "--password-file", &password]);
        let line = self.start(command);
        line.trim().rsplit(':').next().unwrap().parse().unwrap()
    }

    fn daemon(&mut self, options: &[&str]) {
        let (queue, password) = (self.text("queue"), self.text("password"));
        let mut command = self.lan(&["daemon", "--queue", &queue, "--password-file", &password]);
        command.args(options);
        let line = self.start(command);
        assert!(line.contains("serving"), "{line}");
    }

    fn request(&self, words: &[&str]) -> Output {
        let queue = self.text("queue");
        self.lan(&["request", "--queue", &queue]).args(words).output().unwrap()
    }

    /// Asks for the file by this name at the endpoint with this port.
    fn ask(&self, port: u16, rid: &str, options: &[&str]) -> Output {
        let (src, dst) = (self.text("src"), self.text(&format!("node/{rid}")));
        let host = format!("127.0.0.1:{port}");
        self.request(&[options, &[&src, &dst, rid, &host]].concat())
    }

    fn until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let deadline = Instant::now() + LONG;
        while !holds() {
            assert!(Instant::now() < deadline, "{what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn link(&self, name: &str) -> Command {
        let path = self.path(name);
        if !path.exists() {
            symlink(BINARY, &path).unwrap();
        }
        let mut command = Command::new(path);
        command.env("LANTORRENT_HOME", self.path("home")).env_remove("SSH_CLIENT");
        command.stdin(Stdio::null());
        command
    }

    fn ini(&self) {
        fs::create_dir_all(self.path("home/etc")).unwrap();
        let (home, node) = (self.text("home"), self.text("node"));
        let queue = self.text("queue");
        let text = format!(
            "[security]\npassword: secret\n[log]\nfile: {home}/lt.@PGM@.log\nlevel: info\n\
             [db]\nfile: {queue}\n[server]\nroot: {node}\n"
        );
        fs::write(self.path("home/etc/lt.ini"), text).unwrap();
    }
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn nobody() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn l4_a_request_waits_until_its_file_is_there() {
    let mut place = Place::new();
    let port = place.endpoint();
    place.daemon(&["--requests", "1"]);
    let output = place.ask(port, "r1", &[]);
    assert_eq!(stdout(&output), "0,True,Success\n", "{output:?}");
    assert!(output.status.success());
    assert_eq!(fs::read(place.path("node/r1")).unwrap(), fs::read(place.path("src")).unwrap());
    // A lost answer is not a lost status.
    for _ in 0..2 {
        let again = place.request(&["-a", "r1"]);
        assert_eq!(stdout(&again), "0,True,Success\n");
    }
}

#[test]
fn l2_requests_are_left_looked_at_and_taken_back() {
    let place = Place::new();
    let left = place.ask(1, "r1", &["-n"]);
    assert_eq!(stdout(&left), "0,False,None\n");
    assert_eq!(stdout(&place.request(&["-n", "-a", "r1"])), "0,False,None\n");
    let json = place.request(&["-n", "-a", "r1", "-o", "json"]);
    assert!(stdout(&json).contains(r#""state":"waiting""#));
    let cancelled = place.request(&["-c", "-a", "r1"]);
    assert!(cancelled.status.success() && cancelled.stdout.is_empty());
    assert!(!place.request(&["-n", "-a", "r1"]).status.success());
}

#[test]
fn l1_what_cannot_be_sent_is_not_queued() {
    let place = Place::new();
    let missing = place.request(&["-n", "/does/not/exist", "/x", "r", "h"]);
    assert!(!missing.status.success());
    let few = place.request(&["-n", "/does/not/exist", "/x"]);
    assert!(String::from_utf8_lossy(&few.stderr).contains("You must provide 4 arguments"));
    let src = place.text("src");
    let mut caller = place.lan(&["request", "-n", "--queue", &place.text("queue")]);
    caller.args([&src, "/x", "r", ""]).env("SSH_CLIENT", "10.1.2.3 4444 22");
    assert!(caller.output().unwrap().status.success());
    let queue = place.text("queue");
    let list = place.lan(&["list", "--queue", &queue]).output().unwrap();
    assert!(stdout(&list).contains("10.1.2.3:2893/x"), "{}", stdout(&list));
}

#[test]
fn l6_enough_requests_are_sent_at_once() {
    let mut place = Place::new();
    let port = place.endpoint();
    place.daemon(&["--requests", "3", "--delay", "3600"]);
    for rid in ["a", "b"] {
        assert_eq!(stdout(&place.ask(port, rid, &["-n"])), "0,False,None\n");
    }
    assert_eq!(stdout(&place.ask(port, "c", &[])), "0,True,Success\n");
    for rid in ["a", "b"] {
        assert_eq!(stdout(&place.request(&["-a", rid])), "0,True,Success\n");
    }
}

#[test]
fn l16_attempts_are_exhausted_and_then_rc_is_1() {
    let mut place = Place::new();
    let port = place.endpoint();
    place.daemon(&["--requests", "2", "--delay", "0.1", "--retry-delay", "0.1"]);
    assert_eq!(stdout(&place.ask(nobody(), "bad", &["-n"])), "0,False,None\n");
    let good = place.ask(port, "good", &[]);
    assert_eq!(stdout(&good), "0,True,Success\n");
    let bad = place.request(&["-a", "bad"]);
    assert!(stdout(&bad).starts_with("1,True,Failed to connect"), "{}", stdout(&bad));
    assert!(!bad.status.success());
    let json = stdout(&place.request(&["-a", "bad", "-o", "json"]));
    assert!(json.contains(r#""attempts":3"#), "{json}");
}

#[test]
fn l19_a_source_that_vanished_stalls_nobody() {
    let mut place = Place::new();
    let port = place.endpoint();
    fs::write(place.path("other"), "x").unwrap();
    let (other, dst) = (place.text("other"), place.text("node/other"));
    let host = format!("127.0.0.1:{port}");
    place.request(&["-n", &other, &dst, "gone", &host]);
    fs::remove_file(place.path("other")).unwrap();
    place.daemon(&["--requests", "1", "--retry-delay", "0.1"]);
    assert_eq!(stdout(&place.ask(port, "good", &[])), "0,True,Success\n");
    let gone = stdout(&place.request(&["-a", "gone"]));
    assert!(gone.starts_with("1,True,cannot read"), "{gone}");
}

#[test]
fn l5_requests_survive_a_daemon_that_is_killed() {
    let mut place = Place::new();
    let port = place.endpoint();
    place.daemon(&["--requests", "100", "--delay", "3600"]);
    place.ask(port, "r1", &["-n"]);
    let mut daemon = place.children.pop().unwrap();
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    place.daemon(&["--requests", "1"]);
    assert_eq!(stdout(&place.request(&["-a", "r1"])), "0,True,Success\n");
    // One daemon for a queue.
    let (queue, password) = (place.text("queue"), place.text("password"));
    let second = ["daemon", "--queue", &queue, "--password-file", &password];
    let second = place.lan(&second).output().unwrap();
    assert!(String::from_utf8_lossy(&second.stderr).contains("another daemon"));
}

#[test]
fn l23_who_waits_for_a_directory_that_disappears_takes_the_request_back() {
    let place = Place::new();
    fs::create_dir(place.path("vm")).unwrap();
    let queue = place.text("queue");
    let mut waiting = place.lan(&["request", "--queue", &queue]);
    waiting.args(["--while-dir", &place.text("vm"), &place.text("src"), "/x", "r1", "h"]);
    let mut waiting = waiting.stdout(Stdio::null()).spawn().unwrap();
    place.until("it is queued", || place.request(&["-n", "-a", "r1"]).status.success());
    fs::remove_dir(place.path("vm")).unwrap();
    assert_eq!(waiting.wait().unwrap().code(), Some(2));
    assert!(!place.request(&["-n", "-a", "r1"]).status.success());
}

#[test]
fn l3_the_originals_request_exits_with_0_whenever_it_was_handled() {
    let mut place = Place::new();
    place.ini();
    let daemon = place.link("lt-daemon");
    place.start(daemon);
    place.children.pop().map(|mut child| (child.kill(), child.wait()));
    place.daemon(&["--requests", "1", "--attempts", "1"]);
    let (src, host) = (place.text("src"), format!("127.0.0.1:{}", nobody()));
    let output = place.link("lt-request").args([&src, "/x", "r1", &host]).output().unwrap();
    assert!(stdout(&output).starts_with("1,True,"), "{output:?}");
    assert_eq!(stdout(&output).lines().count(), 1);
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn l21_the_originals_client_sends_to_the_originals_server() {
    let mut place = Place::new();
    place.ini();
    // As xinetd does: a process for each connection, which is its standard input.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut server = place.link("ltserver");
    std::thread::spawn(move || {
        for stream in listener.incoming().take(2) {
            let stream: TcpStream = stream.unwrap();
            let input: std::os::fd::OwnedFd = stream.try_clone().unwrap().into();
            let output: std::os::fd::OwnedFd = stream.into();
            server.stdin(input).stdout(output).status().unwrap();
        }
    });
    let mut client = place.link("ltclient");
    client.arg(place.path("src")).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut client = client.spawn().unwrap();
    let bad = nobody();
    let lines = format!("127.0.0.1:{port}{0}/a\n127.0.0.1:{bad}/b\n", place.text("node"));
    client.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    let output = client.wait_with_output().unwrap();
    let text = stdout(&output);
    assert!(text.contains(&format!("ERROR: 127.0.0.1:{bad}/b Failed to connect")), "{text}");
    assert!(text.ends_with("Succesfully sent to 1\n"), "{text}");
    assert!(output.status.success());
    assert_eq!(fs::read(place.path("node/a")).unwrap(), fs::read(place.path("src")).unwrap());
    let log = fs::read_to_string(place.path("home/lt.ltserver.log")).unwrap();
    assert!(log.contains("INFO"), "{log}");
    place.until("no temporary file stays", || !exists(&place.path("node/a.lantorrent")));
    place.children.clear();
}

fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

#[test]
fn an_image_of_the_lab_is_sent_to_running_hosts() {
    let mut place = Place::new();
    let port = place.endpoint();
    fs::create_dir_all(place.path("lab/oss/debian")).unwrap();
    for name in ["config.yaml", "vmlinuz", "initrd"] {
        fs::write(place.path("lab/oss/debian").join(name), name).unwrap();
    }
    let mut send = Command::new(BINARY);
    send.args(["-C", &place.text("lab"), "lan", "send", "--image", "debian"]);
    send.args(["--password-file", &place.text("password"), "-o", "json"]);
    let mut send = send.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let line = format!("127.0.0.1:{port}{}\n", place.text("node"));
    send.stdin.take().unwrap().write_all(line.as_bytes()).unwrap();
    let output = send.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    for name in ["vmlinuz", "initrd"] {
        assert_eq!(fs::read_to_string(place.path("node").join(name)).unwrap(), name);
    }
    assert!(!place.path("node/config.yaml").exists(), "it is the lab's, and no part of the image");
}
