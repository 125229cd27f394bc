//! The commands that care for a lab, as a person types them.

// Clippy knows the tests here, but not what they share.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

fn boottorrent(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_boottorrent")).args(args).output().unwrap()
}

/// What it printed; it has to succeed.
#[track_caller]
fn ok(args: &[&str]) -> String {
    let output = boottorrent(args);
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{args:?}: {out}{err}");
    out
}

/// What it printed on both; it has to fail with status 1.
#[track_caller]
fn fails(args: &[&str]) -> String {
    let output = boottorrent(args);
    let out = text(&output.stdout) + &text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{args:?}: {out}");
    out
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A new lab, and its path as an argument.
fn new_lab() -> (TempDir, PathBuf, String) {
    let folder = TempDir::new().unwrap();
    let dir = folder.path().join("lab");
    let name = dir.to_str().unwrap().to_owned();
    ok(&["init", &name]);
    (folder, dir, name)
}

fn put(dir: &Path, path: &str, text: &str) {
    let path = dir.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn put_image(dir: &Path) {
    let config = "dispname: Debian\nmethod: kexec\nkernel: vmlinuz\ninitrd: initrd.img\n";
    put(dir, "oss/debian/config.yaml", config);
    put(dir, "oss/debian/vmlinuz", "kernel");
    put(dir, "oss/debian/initrd.img", "initrd");
}

#[test]
fn a_new_lab_needs_only_an_image() {
    let (_folder, dir, name) = new_lab();
    for file in ["Boottorrent.yaml", "README.md", "oss/README.md", ".gitignore", "keys/lab.pub"] {
        assert!(dir.join(file).is_file(), "{file}");
    }
    let mode = fs::metadata(dir.join("keys/lab.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(fs::read_to_string(dir.join(".gitignore")).unwrap().contains("/keys/lab.key\n"));
    let out = fails(&["-C", &name, "check"]);
    assert!(out.contains("oss: there is no image"), "{out}");
    put_image(&dir);
    let out = ok(&["-C", &name, "check"]);
    assert!(out.contains("1 image, 1 warning"), "{out}");
}

#[test]
fn init_overwrites_nothing() {
    let (_folder, dir, name) = new_lab();
    put(&dir, "Boottorrent.yaml", "mine");
    let key = fs::read(dir.join("keys/lab.key")).unwrap();
    let out = fails(&["init", &name]);
    assert!(out.contains("is a lab already"), "{out}");
    assert_eq!(fs::read_to_string(dir.join("Boottorrent.yaml")).unwrap(), "mine");
    // Without that file the rest is kept.
    fs::remove_file(dir.join("Boottorrent.yaml")).unwrap();
    put(&dir, "README.md", "mine");
    let out = ok(&["init", &name]);
    assert!(out.contains("left README.md as it was"), "{out}");
    assert_eq!(fs::read_to_string(dir.join("README.md")).unwrap(), "mine");
    assert_eq!(fs::read(dir.join("keys/lab.key")).unwrap(), key);
}

#[test]
fn check_tells_every_problem_with_file_and_line() {
    let (_folder, dir, name) = new_lab();
    put_image(&dir);
    put(&dir, "Boottorrent.yaml", "version: 1\nserver:\n  interfase: eth0\n  address: 1.2.3\n");
    put(&dir, "oss/debian/config.yaml", "dispname: A\nmethod: kexec\nkernel: no\ninitrd: [a, b]\n");
    put(&dir, "nodes.yaml", "nodes:\n  c1: {mac: x}\n");
    let out = fails(&["-C", &name, "check"]);
    for part in [
        "Boottorrent.yaml:2: server.interface is missing",
        "Boottorrent.yaml:3: there is no key `server.interfase`; is `server.interface` meant?",
        "Boottorrent.yaml:4: server.address: `1.2.3` is no IPv4 address",
        "nodes.yaml:2: nodes.c1.mac: `x` is not an Ethernet address",
        "oss/debian/config.yaml:3: there is no file `no` in oss/debian",
        "oss/debian/config.yaml:4: there is no file `a` in oss/debian",
        "oss/debian/config.yaml:4: there is no file `b` in oss/debian",
        "1 image, 7 errors and 1 warning",
    ] {
        assert!(out.contains(part), "{part:?} is not in\n{out}");
    }
}

#[test]
fn check_speaks_json() {
    let (_folder, dir, name) = new_lab();
    put_image(&dir);
    let out = ok(&["-C", &name, "check", "-o", "json"]);
    let value: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&value["errors"], &value["images"][0]), (&0.into(), &"debian".into()));
    assert_eq!(value["problems"][0]["severity"], "warning");
    put(&dir, "oss/debian/config.yaml", "dispname: A\n");
    let out = fails(&["-C", &name, "check", "-o", "json"]);
    let value: serde_json::Value = serde_json::from_str(&out).unwrap();
    let problems = value["problems"].as_array().unwrap();
    let image = problems.iter().find(|p| p["file"] == "oss/debian/config.yaml").unwrap();
    assert_eq!((&image["severity"], &image["line"]), (&"error".into(), &serde_json::Value::Null));
}

#[test]
fn where_there_is_no_lab_it_is_said() {
    let folder = TempDir::new().unwrap();
    let out = fails(&["-C", folder.path().to_str().unwrap(), "check"]);
    assert!(out.contains("are you in the right directory?"), "{out}");
}

#[test]
fn an_environment_of_the_original_is_read_as_it_is() {
    let folder = TempDir::new().unwrap();
    put_image(folder.path());
    put(
        folder.path(),
        "Boottorrent.yaml",
        "boottorrent: {version: 0, timeout: 30, default_os: debian, seed_time: 30, host_ip: 10.0.0.1}
dnsmasq:
  enable_dhcp: True
  user: nobody
  interface: eth0
  bind_interfaces: True
  dhcp_range: \"10.0.0.50,10.0.0.150,12h\"
  enable_tftp: True
opentracker: {enable: True, port: 10001}
aria2: {bt_enable_lpd: False, enable_peer_exchange: True, console_log_level: error}
",
    );
    let out = ok(&["-C", folder.path().to_str().unwrap(), "check"]);
    assert!(out.contains("Boottorrent.yaml:4: warning: dnsmasq.user no longer"), "{out}");
    assert!(out.contains("1 image, 2 warnings"), "{out}");
}

#[test]
fn doctor_tells_what_is_in_the_way() {
    let (_folder, dir, name) = new_lab();
    let out = fails(&["-C", &name, "doctor"]);
    assert!(out.contains("BAD      lab: oss: there is no image"), "{out}");
    put_image(&dir);
    // An address for documentation (RFC 5737), which no machine has.
    let server = "version: 1\nserver: {interface: lo, address: 203.0.113.9}\ndhcp: {mode: off}\n";
    put(&dir, "Boottorrent.yaml", server);
    let out = fails(&["-C", &name, "doctor", "-o", "json"]);
    let value: serde_json::Value = serde_json::from_str(&out).unwrap();
    let findings = value["findings"].as_array().unwrap();
    let has = |topic: &str, part: &str| {
        findings.iter().any(|f| f["topic"] == topic && f["text"].as_str().unwrap().contains(part))
    };
    assert!(has("lab", "1 image in"), "{out}");
    assert!(has("ports", "203.0.113.9 is the address of no interface"), "{out}");
    assert!(has("network", "until the ports can be had"), "{out}");
}

#[test]
fn the_version_is_printed() {
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(ok(&["version"]), format!("BootTorrent {version}\n"));
    let value: serde_json::Value = serde_json::from_str(&ok(&["version", "-o", "json"])).unwrap();
    assert_eq!(value["version"], version);
}

#[test]
fn shells_get_completions_and_people_get_manual_pages() {
    for shell in ["bash", "zsh", "fish"] {
        assert!(ok(&["completions", shell]).contains("doctor"), "{shell}");
    }
    let folder = TempDir::new().unwrap();
    ok(&["man", folder.path().to_str().unwrap()]);
    for page in ["boottorrent.1", "boottorrent-init.1", "boottorrent-torrent-create.1"] {
        assert!(folder.path().join(page).is_file(), "{page}");
    }
}

#[test]
fn an_unknown_command_is_refused() {
    let output = boottorrent(&["hologram"]);
    assert_eq!(output.status.code(), Some(2));
}
