//! The built program's `torrent` commands, over loopback.
//!
//! Torrents of different tests have different content, so that LSD cannot bring them together. Nobody
//! sleeps: a line of output is waited for, and a program that does not print it in time is a failure.

// Clippy knows the tests here, but not what they share.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// Far more than anything here takes, also on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// Ctrl+C ends a command within this.
const END_MAX: Duration = Duration::from_secs(2);

/// A program that runs and prints JSON.
struct Running {
    child: Child,
    lines: Receiver<String>,
    what: String,
}

impl Running {
    fn start<S: AsRef<std::ffi::OsStr>>(args: &[S]) -> Self {
        let mut child =
            boottorrent(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in out.lines() {
                let _ = sender.send(line.unwrap());
            }
        });
        let what = args.iter().map(|arg| arg.as_ref().to_string_lossy().into_owned());
        Self { child, lines, what: what.collect::<Vec<_>>().join(" ") }
    }

    /// The next event that `fits`; those before it are passed over.
    fn event(&self, fits: impl Fn(&Value) -> bool) -> Value {
        let until = Instant::now() + DEADLINE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left);
            let line = line.unwrap_or_else(|error| panic!("{}: {error}", self.what));
            let event: Value = serde_json::from_str(&line).unwrap();
            if fits(&event) {
                return event;
            }
        }
    }

    fn named(&self, name: &str) -> Value {
        self.event(|event| event["event"] == name)
    }

    /// Waits for the end: exit code, events not looked at yet, standard error.
    fn end(mut self) -> (Option<i32>, Vec<Value>, String) {
        let until = Instant::now() + DEADLINE;
        let mut events = vec![];
        // The channel ends when the program closes its output.
        while let Ok(line) =
            self.lines.recv_timeout(until.saturating_duration_since(Instant::now()))
        {
            events.push(serde_json::from_str(&line).unwrap());
        }
        assert!(Instant::now() < until, "{} does not end", self.what);
        let code = self.child.wait().unwrap().code();
        let mut errors = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
        (code, events, errors)
    }

    fn signal(self, signal: Signal) -> (Option<i32>, Vec<Value>, String) {
        let begin = Instant::now();
        kill_process(Pid::from_child(&self.child), signal).unwrap();
        let ended = self.end();
        assert!(begin.elapsed() < END_MAX, "{:?}", begin.elapsed());
        ended
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn boottorrent<S: AsRef<std::ffi::OsStr>>(args: &[S]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_boottorrent"));
    // Notes of what was verified go to where the build keeps what tests leave.
    command.args(args).stdin(Stdio::null()).env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"));
    command
}

fn run<S: AsRef<std::ffi::OsStr>>(args: &[S]) -> Output {
    boottorrent(args).output().unwrap()
}

/// Runs what must fail with status 1 and nothing on standard output; gives what it says.
fn fail(args: &[&str]) -> String {
    let output = run(args);
    assert_eq!(output.status.code(), Some(1), "{args:?} {output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "");
    String::from_utf8(output.stderr).unwrap()
}

/// A folder with a torrent in it and its original.
struct Lab {
    temp: TempDir,
    /// Of this name.
    name: &'static str,
}

/// Files of the torrent: no length is that of a whole number of pieces.
const FILES: [(&str, usize); 4] = [
    ("kernel", 1_234_567),
    ("modules/a.ko", 70_000),
    ("modules/empty", 0),
    ("root.img", 2_500_001),
];
const TOTAL: u64 = 3_804_568;

impl Lab {
    /// `name` makes the content.
    fn new(name: &'static str) -> Self {
        let temp = tempfile::tempdir().unwrap();
        for folder in ["seed", "get"] {
            fs::create_dir(temp.path().join(folder)).unwrap();
        }
        let lab = Self { temp, name };
        let mut state = name.bytes().fold(1u64, |sum, byte| sum * 31 + u64::from(byte));
        for (path, len) in FILES {
            let path = lab.path("seed").join(name).join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let bytes: Vec<u8> = (0..len)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    (state >> 56) as u8
                })
                .collect();
            fs::write(path, bytes).unwrap();
        }
        lab
    }

    fn path(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn create(&self, more: &[&str]) -> Value {
        let (original, torrent) = (self.path("seed").join(self.name), self.text("t.torrent"));
        let mut args = vec!["torrent", "create", original.to_str().unwrap(), "-o", &torrent];
        args.extend(["--json"].iter().chain(more));
        let output = run(&args);
        assert!(output.status.success(), "{output:?}");
        let out = String::from_utf8(output.stdout).unwrap();
        serde_json::from_str(out.lines().last().unwrap()).unwrap()
    }

    fn args(&self, command: &str, dir: &str, more: &[&str]) -> Vec<String> {
        let (torrent, dir) = (self.text("t.torrent"), self.text(dir));
        let args = ["torrent", command, &torrent, "--dir", &dir, "--listen", "127.0.0.1:0"];
        args.iter().chain(&["-o", "json"]).chain(more).map(|&arg| arg.to_owned()).collect()
    }

    /// A peer, and its address.
    fn peer(&self, command: &str, dir: &str, more: &[&str]) -> (Running, String) {
        let running = Running::start(&self.args(command, dir, more));
        let addr = running.named("listening")["addr"].as_str().unwrap().to_owned();
        (running, addr)
    }

    fn assert_same(&self) {
        for (path, _) in FILES {
            let of = |dir| fs::read(self.path(dir).join(self.name).join(path)).unwrap();
            assert!(of("seed") == of("get"), "{path}");
        }
        let left = names(&self.path("get"));
        assert_eq!(left, [self.name], "nothing but the torrent is left");
    }
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name();
    let mut names: Vec<_> = entries.map(|e| name(e).to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn what_is_created_can_be_shown_and_verified() {
    for (format, hashes) in [("hybrid", [true, true]), ("v1", [true, false]), ("v2", [false, true])]
    {
        let lab = Lab::new("shown");
        let created = lab.create(&[
            "--format",
            format,
            "--announce",
            "http://127.0.0.1:1/announce,udp://127.0.0.1:1",
            "--announce",
            "http://127.0.0.1:2/announce",
            "--web-seed",
            "http://127.0.0.1:3/",
            "--piece-length",
            "64Ki",
            "--private",
            "--comment",
            "for a test",
        ]);
        assert_eq!(created["event"], "created");
        let torrent = lab.text("t.torrent");
        let shown = run(&["torrent", "show", &torrent, "-o", "json"]);
        let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
        for (key, value) in shown.as_object().unwrap() {
            assert_eq!(created[key], *value, "{key}");
        }
        assert_eq!(shown["format"], format);
        assert_eq!(shown["name"], "shown");
        assert_eq!(["info_hash_v1", "info_hash_v2"].map(|key| shown[key].is_string()), hashes);
        assert_eq!(shown["total"], TOTAL);
        assert_eq!(shown["piece_len"], 65_536);
        assert_eq!(shown["private"], true);
        assert_eq!(shown["trackers"][0][1], "udp://127.0.0.1:1");
        assert_eq!(shown["trackers"][1][0], "http://127.0.0.1:2/announce");
        assert_eq!(shown["web_seeds"][0], "http://127.0.0.1:3/");
        assert_eq!(shown["comment"], "for a test");
        assert_eq!(shown["files"].as_array().unwrap().len(), FILES.len());
        assert_eq!(shown["files"][0]["path"], "shown/kernel");
        let magnet = shown["magnet"].as_str().unwrap();
        assert!(magnet.starts_with("magnet:?xt=urn:bt"), "{magnet}");
        assert!(magnet.contains("&dn=shown&tr=http%3A%2F%2F127.0.0.1%3A1%2Fannounce&"), "{magnet}");
        let table = run(&["torrent", "show", &torrent]);
        let table = String::from_utf8(table.stdout).unwrap();
        assert!(table.starts_with("name          shown\nformat        "), "{table}");
        let verified = run(&["torrent", "verify", &torrent, "--dir", &lab.text("seed")]);
        assert_eq!(verified.status.code(), Some(0));
        let said = String::from_utf8(verified.stdout).unwrap();
        assert!(said.ends_with("pieces good, 4 of 4 files good\n"), "{said}");
    }
}

#[test]
fn verify_names_what_is_wrong() {
    for format in ["hybrid", "v1", "v2"] {
        let lab = Lab::new("wrong");
        lab.create(&["--format", format, "--piece-length", "64Ki"]);
        let original = lab.path("seed").join("wrong");
        let mut kernel = fs::read(original.join("kernel")).unwrap();
        kernel[600_000] ^= 1;
        fs::write(original.join("kernel"), kernel).unwrap();
        fs::remove_file(original.join("modules/a.ko")).unwrap();
        fs::write(original.join("modules/empty"), "not").unwrap();
        let (torrent, dir) = (lab.text("t.torrent"), lab.text("seed"));
        let verified = run(&["torrent", "verify", &torrent, "--dir", &dir]);
        assert_eq!(verified.status.code(), Some(1));
        let said = String::from_utf8(verified.stdout).unwrap();
        let mut expect = vec![
            "wrong/kernel: corrupt, 1 piece",
            "wrong/modules/a.ko: missing",
            "wrong/modules/empty: 3 bytes long instead of 0",
        ];
        let mut good = 1;
        if format == "v1" {
            expect.push("wrong/root.img: not verified in 1 piece shared with a missing file");
            good = 0;
        }
        let (lines, last) = said.trim_end().rsplit_once('\n').unwrap();
        assert_eq!(lines.lines().collect::<Vec<_>>(), expect, "{format}");
        assert!(last.ends_with(&format!("{good} of 4 files good")), "{last}");
        let json = run(&["torrent", "verify", &torrent, "--dir", &dir, "-o", "json"]);
        assert_eq!(json.status.code(), Some(1));
        let out = String::from_utf8(json.stdout).unwrap();
        let verified: Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
        assert_eq!(verified["good"], false);
        assert_eq!(verified["files"][1]["status"], "missing");
    }
}

#[test]
fn torrents_of_every_format_arrive_by_a_tracker() {
    for format in ["hybrid", "v1", "v2"] {
        let lab = Lab::new("by-tracker");
        let tracker = Running::start(&["tracker", "--listen", "127.0.0.1:0", "-o", "json"]);
        let url = tracker.named("listening")["http"].as_str().unwrap().to_owned();
        lab.create(&["--format", format, "--announce", &url]);
        let (seed, _) = lab.peer("seed", "seed", &["--no-lsd"]);
        let get = Running::start(&lab.args("get", "get", &["--no-lsd"]));
        let complete = get.named("complete");
        assert_eq!(complete["bytes"], TOTAL);
        assert!(complete["seconds"].as_f64().unwrap() > 0.0);
        assert_eq!(get.end().0, Some(0));
        lab.assert_same();
        let (code, _, errors) = seed.signal(Signal::INT);
        assert_eq!((code, errors.as_str()), (Some(0), ""), "{format}");
    }
}

#[test]
fn peers_on_one_network_find_one_another() {
    let lab = Lab::new("by-lsd");
    lab.create(&[]);
    let (_seed, _) = lab.peer("seed", "seed", &[]);
    let get = Running::start(&lab.args("get", "get", &[]));
    get.named("complete");
    assert_eq!(get.end().0, Some(0));
    lab.assert_same();
}

#[test]
fn an_interrupted_download_goes_on_where_it_was() {
    let lab = Lab::new("resumed");
    let pieces = lab.create(&["--piece-length", "64Ki"])["piece_count"].as_u64().unwrap();
    // A peer that has all but one file: who gets from it cannot go further than that.
    let half = lab.path("half").join("resumed");
    fs::create_dir_all(half.join("modules")).unwrap();
    for (path, len) in FILES {
        fs::copy(lab.path("seed").join("resumed").join(path), half.join(path)).unwrap();
        if path == "root.img" {
            fs::write(half.join(path), vec![0; len]).unwrap();
        }
    }
    let have = TOTAL - 2_500_001;
    let (_half, addr) = lab.peer("get", "half", &["--no-lsd"]);
    let (get, _) = lab.peer("get", "get", &["--no-lsd", "--peer", &addr]);
    get.event(|event| event["event"] == "progress" && event["bytes"] == have);
    let (code, events, errors) = get.signal(Signal::INT);
    assert_eq!(code, Some(130), "{errors}");
    assert!(events.iter().all(|event| event["event"] == "progress"), "{events:?}");
    assert_eq!(names(&lab.path("get")), [".resumed.boottorrent-resume", "resumed"]);

    let (_seed, addr) = lab.peer("seed", "seed", &["--no-lsd"]);
    let get = Running::start(&lab.args("get", "get", &["--no-lsd", "--peer", &addr]));
    // Only what was there is hashed.
    let checked =
        get.event(|event| event["event"] == "checking" && event["done"] == event["total"]);
    assert_eq!(checked["total"], pieces - 2_500_001_u64.div_ceil(65_536));
    get.named("complete");
    let (code, _, errors) = get.end();
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    lab.assert_same();
}

#[test]
fn what_changed_since_the_last_time_is_said_and_got_again() {
    let lab = Lab::new("lost");
    lab.create(&["--piece-length", "64Ki"]);
    // An orderly end with everything but one file.
    let (get, _) = lab.peer("get", "get", &["--no-lsd"]);
    assert_eq!(get.signal(Signal::TERM).0, Some(143));
    let resume = lab.path("get").join(".lost.boottorrent-resume");
    let said = fs::read_to_string(&resume).unwrap();
    assert!(said.contains("\nclosed yes\n"), "{said}");
    // As if the first eight pieces had been good.
    let good = said.lines().last().unwrap().to_owned();
    let claimed = good.replacen("good 00", "good ff", 1);
    fs::write(&resume, said.replace(&good, &claimed)).unwrap();

    let (_seed, addr) = lab.peer("seed", "seed", &["--no-lsd"]);
    let get = Running::start(&lab.args("get", "get", &["--no-lsd", "--peer", &addr]));
    let warning = get.named("warning");
    let text = warning["message"].as_str().unwrap();
    assert!(text.contains("get/lost: 8 pieces that had been verified changed"), "{text}");
    get.named("complete");
    let (code, _, errors) = get.end();
    assert_eq!(code, Some(0));
    assert!(errors.contains("8 pieces"), "{errors}");
    lab.assert_same();
}

#[test]
fn corrupt_file_is_not_seeded() {
    let lab = Lab::new("corrupt");
    lab.create(&[]);
    let path = lab.path("seed").join("corrupt/root.img");
    let mut bytes = fs::read(&path).unwrap();
    bytes[1_000_000] ^= 0x80;
    fs::write(&path, bytes).unwrap();
    let (code, events, errors) = Running::start(&lab.args("seed", "seed", &["--no-lsd"])).end();
    assert_eq!(code, Some(1));
    let expect = format!("{}: 1 of ", path.display());
    assert!(errors.contains(&expect), "{errors}");
    assert!(errors.contains("are corrupt; restore the file"), "{errors}");
    let error = events.last().unwrap();
    assert_eq!(error["event"], "error");
    assert!(error["message"].as_str().unwrap().starts_with(&expect), "{error}");
    assert!(events.iter().all(|event| event["event"] != "listening"), "{events:?}");
}

#[test]
fn a_seed_that_has_not_changed_is_not_read_again_unless_it_is_told_to() {
    let lab = Lab::new("unchanged");
    lab.create(&[]);
    let is_unchanged = |more: &[&str]| {
        let seed = Running::start(&lab.args("seed", "seed", &[&["--no-lsd"], more].concat()));
        let named = |event: &Value| ["unchanged", "listening"].map(|name| event["event"] == name);
        let first = seed.event(|event| named(event).contains(&true));
        seed.signal(Signal::TERM);
        first["event"] == "unchanged"
    };
    // What was written only just before is not noted, as another change of it might not show.
    let until = Instant::now() + DEADLINE;
    while !is_unchanged(&[]) {
        assert!(Instant::now() < until, "it is never noted");
    }
    assert!(!is_unchanged(&["--recheck"]));
    assert!(is_unchanged(&[]));
    let path = lab.path("seed").join("unchanged/root.img");
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, bytes).unwrap();
    assert!(!is_unchanged(&[]), "it was written to, if with the same bytes");
}

#[test]
fn errors_name_the_path_and_what_to_do() {
    let lab = Lab::new("errors");
    lab.create(&[]);
    let (torrent, seed, none) = (lab.text("t.torrent"), lab.text("seed"), lab.text("none"));
    assert_eq!(
        fail(&["torrent", "show", &none]),
        format!("boottorrent: cannot read {none}: No such file or directory (os error 2)\n")
    );
    let said = fail(&["torrent", "show", &format!("{seed}/errors/kernel")]);
    assert!(
        said.contains("seed/errors/kernel is not a .torrent file that can be used: "),
        "{said}"
    );
    for command in ["get", "seed", "verify"] {
        assert_eq!(
            fail(&["torrent", command, &torrent, "--dir", &none]),
            format!(
                "boottorrent: {none}: no such directory; create it, or name another with --dir\n"
            )
        );
    }
    assert_eq!(
        fail(&["torrent", "seed", &torrent, "--dir", &lab.text("get")]),
        format!(
            "boottorrent: {}/errors/kernel: the file is missing; is --dir the directory that holds it?\n",
            lab.text("get")
        )
    );
    let said = fail(&["torrent", "create", &none, "-o", &torrent]);
    assert!(said.starts_with(&format!("boottorrent: cannot read {none}: ")), "{said}");
    let inside = format!("{seed}/errors/t.torrent");
    let said = fail(&["torrent", "create", &format!("{seed}/errors"), "-o", &inside]);
    assert!(said.starts_with(&format!("boottorrent: {inside} is inside ")), "{said}");
    let said = fail(&["torrent", "create", &seed, "-o", &format!("{none}/t.torrent")]);
    assert!(said.starts_with(&format!("boottorrent: cannot write {none}/t.torrent: ")), "{said}");
}

#[test]
fn taken_port_is_known_before_anything_is_hashed() {
    let lab = Lab::new("taken");
    lab.create(&[]);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let (torrent, dir) = (lab.text("t.torrent"), lab.text("seed"));
    let said = fail(&["torrent", "seed", &torrent, "--dir", &dir, "--listen", &addr]);
    assert!(said.starts_with(&format!("boottorrent: cannot listen on {addr}; choose ")), "{said}");
}

#[test]
fn dead_tracker_is_named_and_does_no_harm() {
    let lab = Lab::new("dead-tracker");
    let port = {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        free.local_addr().unwrap().port()
    };
    let url = format!("http://127.0.0.1:{port}/announce");
    lab.create(&["--announce", &url]);
    let (seed, addr) = lab.peer("seed", "seed", &["--no-lsd"]);
    let warning = seed.named("warning");
    let text = warning["message"].as_str().unwrap();
    assert!(text.starts_with(&format!("tracker {url} cannot be reached: ")), "{text}");
    let get = Running::start(&lab.args("get", "get", &["--no-lsd", "--peer", &addr]));
    get.named("complete");
    assert_eq!(get.end().0, Some(0));
    // It was said once, however often it is tried.
    let (_, events, _) = seed.signal(Signal::INT);
    assert!(events.iter().all(|event| event["event"] != "warning"), "{events:?}");
}

#[test]
fn command_runs_once_all_is_verified() {
    let lab = Lab::new("command");
    lab.create(&[]);
    let (_seed, addr) = lab.peer("seed", "seed", &["--no-lsd"]);
    let out = lab.text("out");
    let line = format!(
        "echo noise; cmp \"$BOOTTORRENT_FILE/kernel\" {}/command/kernel && \
         echo \"$BOOTTORRENT_FILE $BOOTTORRENT_NAME $BOOTTORRENT_DIR\" >> {out}",
        lab.text("seed")
    );
    let more = ["--no-lsd", "--peer", &addr, "--on-complete", &line];
    let (code, events, errors) = Running::start(&lab.args("get", "get", &more)).end();
    // What the command prints is not among the JSON.
    assert_eq!((code, errors.as_str()), (Some(0), "noise\n"));
    assert_eq!(events.last().unwrap()["event"], "complete");
    let dir = lab.text("get");
    let said = fs::read_to_string(&out).unwrap();
    assert_eq!(said, format!("{dir}/command command {dir}\n"));

    let more = ["--no-lsd", "--on-complete", "exit 3"];
    let (code, events, errors) = Running::start(&lab.args("get", "get", &more)).end();
    assert_eq!(code, Some(1));
    assert!(errors.ends_with("the command \"exit 3\" failed: exit status: 3\n"), "{errors}");
    assert_eq!(events.last().unwrap()["event"], "error");
}

#[test]
fn a_node_seeds_on_for_as_long_as_it_was_told() {
    let lab = Lab::new("then");
    lab.create(&[]);
    let (seed, addr) = lab.peer("seed", "seed", &["--no-lsd"]);
    let get =
        Running::start(&lab.args("get", "get", &["--no-lsd", "--peer", &addr, "--then", "seed"]));
    let addr = get.named("listening")["addr"].as_str().unwrap().to_owned();
    get.named("complete");
    assert_eq!(seed.signal(Signal::INT).0, Some(0));
    // Now there is nobody else to get it from.
    fs::create_dir(lab.path("third")).unwrap();
    let more = ["--no-lsd", "--peer", &addr, "--then", "seed=1"];
    let third = Running::start(&lab.args("get", "third", &more));
    third.named("complete");
    let begin = Instant::now();
    assert_eq!(third.end().0, Some(0));
    assert!(begin.elapsed() > Duration::from_millis(900), "{:?}", begin.elapsed());
    // It has done what it was told to.
    assert_eq!(get.signal(Signal::INT).0, Some(0));
    lab.assert_same();
}

#[test]
fn several_torrents_are_seeded_by_one_process() {
    let lab = Lab::new("several");
    lab.create(&["--format", "v1"]);
    fs::rename(lab.path("t.torrent"), lab.path("first.torrent")).unwrap();
    lab.create(&["--format", "v2"]);
    let first = lab.text("first.torrent");
    let mut args = lab.args("seed", "seed", &["--no-lsd"]);
    args.insert(2, first.clone());
    let seed = Running::start(&args);
    let addr = seed.named("listening")["addr"].as_str().unwrap().to_owned();
    for _ in 0..2 {
        let get = Running::start(&lab.args("get", "get", &["--no-lsd", "--peer", &addr]));
        get.named("complete");
        assert_eq!(get.end().0, Some(0));
        lab.assert_same();
        fs::remove_dir_all(lab.path("get")).unwrap();
        fs::create_dir(lab.path("get")).unwrap();
        fs::rename(&first, lab.path("t.torrent")).unwrap_or_default();
    }
}

#[test]
fn plain_output_says_when_it_is_complete() {
    let lab = Lab::new("plain");
    lab.create(&[]);
    let (_seed, addr) = lab.peer("seed", "seed", &["--no-lsd"]);
    let args = lab.args("get", "get", &["--no-lsd", "--peer", &addr]);
    let args: Vec<_> = args.iter().filter(|arg| *arg != "-o" && *arg != "json").collect();
    let output = run(&args);
    assert_eq!(output.status.code(), Some(0));
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.starts_with("listening on 127.0.0.1:"), "{said}");
    assert!(said.contains("\ncomplete plain: 3.80 MB verified in "), "{said}");
    assert_eq!(output.stderr, b"");
}
