//! `boottorrent rehearse`, as a person types it.

// Clippy knows the tests here, but not what they share.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

/// A lab with one image of a mebibyte.
fn lab() -> tempfile::TempDir {
    let temp = tempfile::tempdir().unwrap();
    let write = |path: &str, bytes: &[u8]| {
        let path = temp.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    };
    let lab = "version: 1\nserver: {interface: lo, address: 127.0.0.1}\ndhcp: {mode: off}\n";
    write("Boottorrent.yaml", lab.as_bytes());
    let image = "dispname: Debian\nmethod: kexec\nkernel: vmlinuz\ninitrd: initrd.img\n";
    write("oss/debian/config.yaml", image.as_bytes());
    write("oss/debian/vmlinuz", b"the kernel");
    write("oss/debian/initrd.img", &[7; 1 << 20]);
    temp
}

fn rehearse(lab: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_boottorrent"));
    command.arg("-C").arg(lab).args(["rehearse", "--nodes", "20"]).args(args).output().unwrap()
}

#[test]
fn a_rehearsal_tells_time_and_upload_of_each_run_and_draws_them() {
    let lab = lab();
    let chart = lab.path().join("chart.svg");
    let args = ["--slow", "2", "--dying", "3", "-o", "json", "--svg", chart.to_str().unwrap()];
    let output = rehearse(lab.path(), &args);
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let told: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(told["image"], "debian");
    assert_eq!(told["len_bytes"], (1 << 20) + 10);
    let runs = told["cases"].as_array().unwrap();
    let faults: Vec<_> = runs.iter().map(|run| [&run["slow"], &run["dying"]]).collect();
    assert_eq!(faults, [[0, 0], [2, 0], [0, 3]]);
    for run in runs {
        assert_eq!(run["stuck_count"], 0);
        assert!(run["last_s"].as_f64().unwrap() > told["ideal_s"].as_f64().unwrap(), "{run}");
        assert!(run["last_s"].as_f64() < told["without_swarm_s"].as_f64(), "{run}");
        assert!(run["server_upload_images"].as_f64().unwrap() >= 1.0, "{run}");
    }
    let chart = fs::read_to_string(chart).unwrap();
    assert!(chart.starts_with("<svg") && chart.contains("3 dying nodes"));
}

#[test]
fn the_same_number_gives_the_same_words() {
    let lab = lab();
    let last = |output: Output| {
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().lines().last().unwrap().to_owned()
    };
    let told = |seed| last(rehearse(lab.path(), &["--seed", seed, "-o", "json"]));
    assert_eq!(told("3"), told("3"));
    assert_ne!(told("3"), told("4"));
}

#[test]
fn what_cannot_be_rehearsed_is_refused_with_the_reason() {
    let lab = lab();
    let refused = |args: &[&str]| {
        let output = rehearse(lab.path(), args);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(refused(&["--image", "arch"]).contains("no image `arch` in the lab, but debian"));
    assert!(refused(&["--dying", "20"]).contains("fewer than all"));
    assert!(refused(&["--svg", "/nowhere/chart.svg"]).contains("/nowhere/chart.svg"));
}
