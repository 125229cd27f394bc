//! The built program as a further seed of a lab whose server is the built program too, on loopback.

// Clippy knows the tests here, but not what they share.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use boot::LabKey;
use serde_json::Value;

use loopback::Lab;

mod loopback;

/// Far more than anything here takes, also on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// A program that prints JSON, and ends with the test.
struct Running {
    child: Child,
    lines: Receiver<String>,
}

impl Running {
    fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            out.lines().map_while(Result::ok).for_each(|line| drop(sender.send(line)));
        });
        Self { child, lines }
    }

    /// The next event of this name; those before it are passed over.
    fn event(&self, name: &str) -> Value {
        let until = Instant::now() + DEADLINE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left);
            let line = line.unwrap_or_else(|error| panic!("no {name}: {error}"));
            let event: Value = serde_json::from_str(&line).unwrap();
            if event["event"] == name {
                return event;
            }
        }
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Its exit status and what it said, once it ends by itself.
    fn end(mut self) -> (Option<i32>, String) {
        let mut errors = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
        (self.child.wait().unwrap().code(), errors)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Lab {
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_boottorrent"));
        command.arg("-C").arg(self.temp.path()).args(args).args(["-o", "json"]);
        command.env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"));
        command
    }

    fn serve(&self) -> Running {
        let mut command = self.command(&["start"]);
        let server = Running::start(command.arg("--phase1").arg(self.path("phase1")));
        server.event("ready");
        server
    }

    fn seed(&self, args: &[&str]) -> Running {
        let url = format!("http://127.0.0.1:{}", self.http);
        let mut command = self.command(&["seed", "--lab", &url, "--every", "1"]);
        Running::start(command.args(["--listen", "127.0.0.1:0"]).args(args))
    }

    /// What the seed has of a file of the image, in the version of this infohash.
    fn seeded(&self, infohash: &Value, file: &str) -> Vec<u8> {
        let version = self.path("seed/versions").join(infohash.as_str().unwrap());
        fs::read(version.join("debian").join(file)).unwrap()
    }

    fn image(&self, file: &str) -> Vec<u8> {
        fs::read(self.path("oss/debian").join(file)).unwrap()
    }
}

/// Gets the image by the torrent that the lab published, from this peer alone.
fn download_from(lab: &Lab, peer: &Value, to: &Path) -> Running {
    let torrent = lab.path("out/torrents/debian.torrent");
    let mut command = lab.command(&["torrent", "get", "--no-lsd", "--listen", "127.0.0.1:0"]);
    command.args(["--peer", peer["addr"].as_str().unwrap()]);
    Running::start(command.arg("--dir").arg(to).arg(torrent))
}

#[test]
fn a_further_seed_has_the_images_when_the_server_is_gone_also_after_a_restart() {
    let lab = Lab::new();
    let server = lab.serve();
    let seed = lab.seed(&[]);
    assert_eq!(seed.event("manifest")["images"], serde_json::json!(["debian"]));
    let complete = seed.event("complete");
    assert_eq!(lab.seeded(&complete["infohash"], "vmlinuz"), lab.image("vmlinuz"));
    assert_eq!(lab.seeded(&complete["infohash"], "initrd.img"), lab.image("initrd.img"));
    server.kill();
    seed.kill();

    let seed = lab.seed(&[]);
    assert_eq!(seed.event("manifest")["is_kept"], true);
    let addr = seed.event("listening");
    assert_eq!(seed.event("seeding")["image"], "debian");
    let to = tempfile::tempdir().unwrap();
    download_from(&lab, &addr, to.path()).event("complete");
    assert_eq!(fs::read(to.path().join("debian/initrd.img")).unwrap(), lab.image("initrd.img"));
}

#[test]
fn a_changed_image_is_followed_and_only_what_changed_is_got() {
    let lab = Lab::new();
    let _server = lab.serve();
    let seed = lab.seed(&[]);
    let before = seed.event("complete");
    lab.write("oss/debian/new", "another kernel");
    fs::rename(lab.path("oss/debian/new"), lab.path("oss/debian/vmlinuz")).unwrap();
    let getting = seed.event("getting");
    assert!(getting["bytes"].as_u64().unwrap() > 0, "all of it is got anew: {getting}");
    let complete = seed.event("complete");
    assert_ne!(before["infohash"], complete["infohash"]);
    assert_eq!(lab.seeded(&complete["infohash"], "vmlinuz"), b"another kernel");
    assert_eq!(lab.seeded(&complete["infohash"], "initrd.img"), lab.image("initrd.img"));
}

#[test]
fn a_server_that_comes_later_is_waited_for() {
    let lab = Lab::new();
    let seed = lab.seed(&[]);
    let trouble = seed.event("warning")["message"].as_str().unwrap().to_owned();
    assert!(trouble.contains("tried again"), "{trouble}");
    let _server = lab.serve();
    seed.event("complete");
}

#[test]
fn the_manifest_of_another_lab_is_refused() {
    let lab = Lab::new();
    let _server = lab.serve();
    lab.write("other.pub", &LabKey::from_seed([8; 32]).public().to_string());
    let seed = lab.seed(&["--key", lab.path("other.pub").to_str().unwrap()]);
    let (code, errors) = seed.end();
    assert_eq!(code, Some(1), "{errors}");
    assert!(errors.contains("signed by another lab"), "{errors}");
    let versions = fs::read_dir(lab.path("seed/versions")).unwrap();
    assert_eq!(versions.count(), 0);
}

#[test]
fn a_seed_without_the_lab_s_key_is_told_to_copy_it() {
    let lab = Lab::new();
    let (code, errors) = lab.seed(&["--key", "/nowhere/lab.pub"]).end();
    assert_eq!(code, Some(1));
    assert!(errors.contains("copy keys/lab.pub of the lab here"), "{errors}");
}
