//! Our TFTP server and other people's receiving ends: files of lengths that make trouble, options,
//! and refusals that must be understood.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::{Row, line};
use crate::lab::{Lab, Slot, Spawn};
use crate::setup;

pub(super) const TOOLS: &[setup::Tool] = &[setup::ATFTP, setup::BUSYBOX, setup::CURL, setup::TFTP];

/// Files: none, less than a block, a block exactly, many with a short last one, and more than
/// 65,535 blocks of 512 bytes, after which numbers begin again.
const FILES: &[(&str, usize)] = &[
    ("empty", 0),
    ("one", 1),
    ("block", 512),
    ("sub/kernel", 5 * 1024 * 1024 + 12_345),
    ("long", 34 * 1024 * 1024),
];

const SERVER: &str = "10.77.0.1";

const TIMEOUT: Duration = Duration::from_secs(60);

/// A receiving end with some options: what it is called, and its command for a file.
struct Program {
    name: &'static str,
    command: fn(&str) -> Vec<String>,
}

const PROGRAMS: &[Program] = &[
    Program { name: "curl", command: |name| curl(name, &[]) },
    Program { name: "curl blksize 1468", command: |name| curl(name, &["--tftp-blksize", "1468"]) },
    Program { name: "curl without options", command: |name| curl(name, &["--tftp-no-options"]) },
    Program { name: "tftp-hpa", command: |name| tftp_hpa(name, "binary") },
    Program { name: "atftp", command: |name| atftp(name, &[]) },
    Program {
        name: "atftp blksize 1428 windowsize 16",
        command: |name| atftp(name, &["--option", "blksize 1428", "--option", "windowsize 16"]),
    },
    Program { name: "busybox", command: |name| busybox(name, &[]) },
    Program { name: "busybox blksize 1468", command: |name| busybox(name, &["-b", "1468"]) },
];

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn curl(name: &str, options: &[&str]) -> Vec<String> {
    let url = format!("tftp://{SERVER}/{name}");
    words(&[&["curl", "--silent", "--show-error", "-o", "got"], options, &[&url]].concat())
}

fn tftp_hpa(name: &str, mode: &str) -> Vec<String> {
    words(&["tftp", "-m", mode, SERVER, "-c", "get", name, "got"])
}

fn atftp(name: &str, options: &[&str]) -> Vec<String> {
    let get = ["--get", "--remote-file", name, "--local-file", "got", SERVER];
    words(&[&["atftp"], options, &get].concat())
}

fn busybox(name: &str, options: &[&str]) -> Vec<String> {
    words(&[&["busybox", "tftp", "-g", "-r", name, "-l", "got"], options, &[SERVER]].concat())
}

/// Runs the cases whose names have one of the filters in them.
pub(super) fn run(filters: &[String], dir: &Path) -> Result<Vec<Row>> {
    let is_wanted = |name: &str| {
        filters.is_empty() || filters.iter().any(|filter| name.contains(filter.as_str()))
    };
    let fetches =
        PROGRAMS.iter().map(|program| (format!("tftp → {}", program.name), Some(program)));
    let cases: Vec<_> = fetches
        .chain([("tftp → refusals".to_owned(), None)])
        .filter(|(name, _)| is_wanted(name))
        .collect();
    let mut rows = vec![];
    for (name, program) in cases {
        let start = Instant::now();
        let logs = dir.join("logs").join(name.replace('→', "to").replace(' ', "-"));
        let result = match program {
            Some(program) => fetch_all(program, &logs),
            None => refusals(&logs),
        };
        let row = Row { name, time: start.elapsed(), error: result.err() };
        eprintln!("{}", line(&row));
        rows.push(row);
    }
    Ok(rows)
}

/// A lab with a server of [`FILES`].
fn lab(logs: &Path) -> Result<(Lab, crate::lab::Process)> {
    let lab = Lab::new(1, None, logs)?;
    let root = lab.slot_dir(Slot::SERVER).join("root");
    for (number, (name, len)) in FILES.iter().enumerate() {
        let path = root.join(name);
        std::fs::create_dir_all(path.parent().context("a file has a folder")?)?;
        std::fs::write(&path, super::content::bytes(number as u64 + 100, *len))
            .with_context(|| format!("writing {}", path.display()))?;
    }
    let spawn = Spawn::new("boottorrent", crate::release_binary()?).arg("tftp").arg(&root).args([
        "--listen",
        &format!("{SERVER}:69"),
        "--interface",
        "eth0",
    ]);
    let server = lab.spawn(Slot::SERVER, spawn)?;
    let listens = || {
        // As the kernel prints port 69.
        let table = lab.run(Slot::SERVER, &["cat", "/proc/net/udp"]).unwrap_or_default();
        server.exit().is_some() || table.contains(":0045 ")
    };
    let found = crate::lab::wait_until(Duration::from_secs(10), listens);
    ensure!(found && server.exit().is_none(), "our server does not listen:\n{}", server.log_tail());
    Ok((lab, server))
}

fn fetch_all(program: &Program, logs: &Path) -> Result<()> {
    let (lab, server) = lab(logs)?;
    for (name, _) in FILES {
        let output = run_program(&lab, &(program.command)(name), &format!("get {name}"))?;
        output.with_context(|| format!("{name}; the server: {}", server.log_tail()))?;
        let expect = std::fs::read(lab.slot_dir(Slot::SERVER).join("root").join(name))?;
        let got = std::fs::read(lab.slot_dir(Slot::node(1)).join("got"))
            .with_context(|| format!("{name} did not come"))?;
        ensure!(got == expect, "{name} came with {} of {} bytes", got.len(), expect.len());
        std::fs::remove_file(lab.slot_dir(Slot::node(1)).join("got"))?;
    }
    Ok(())
}

/// Runs a program on the node: what came of it, or an error if it does not end.
fn run_program(lab: &Lab, command: &[String], name: &str) -> Result<Result<()>> {
    let (program, args) = command.split_first().context("a command has a program")?;
    let path = setup::find(program).unwrap_or_else(|| program.into());
    let name = name.replace(['/', ' '], "-");
    let process = lab.spawn(Slot::node(1), Spawn::new(name, path).args(args))?;
    process.wait(TIMEOUT).with_context(|| format!("{program} does not end"))?;
    Ok(process.succeed(Duration::ZERO).map(drop))
}

/// What there is not, what leads out, and `netascii`: at once, and in words that arrive.
fn refusals(logs: &Path) -> Result<()> {
    let (lab, _server) = lab(logs)?;
    // curl 7.88 has no words for it, but a number: 68 is "file not found".
    for (name, command, expect) in [
        ("nothing", tftp_hpa("nothing", "binary"), "Error code 1: file not found"),
        ("outside", tftp_hpa("../x", "binary"), "Error code 2: name leads out"),
        ("netascii", tftp_hpa("one", "netascii"), "Error code 4: ask for octet"),
        ("curl-nothing", curl("nothing", &[]), "curl: (68)"),
        ("busybox-nothing", busybox("nothing", &[]), "server error: (1) file not found"),
    ] {
        let start = Instant::now();
        // Not all programs say with their status that they have failed.
        let _ = run_program(&lab, &command, name)?;
        ensure!(start.elapsed() < Duration::from_secs(3), "{name}: told only after a while");
        let log = std::fs::read_to_string(logs.join(format!("{name}.log")))?;
        ensure!(log.contains(expect), "{name}: {log:?} does not say {expect:?}");
    }
    Ok(())
}
