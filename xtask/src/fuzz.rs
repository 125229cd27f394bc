//! `cargo xtask fuzz`: runs the fuzz targets from their corpus in git.
//!
//! Built without cargo-fuzz: the coverage instrumentation that libFuzzer needs is plain LLVM and
//! reachable from stable Rust. Only the address sanitizer would need a nightly compiler, and the
//! fuzzed crates are safe Rust, where a bug is a panic and not a stray write.

use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use crate::{root, setup, target_dir};

/// The instrumentation is only for the target, so build scripts need another one: name it.
const TRIPLE: &str = "x86_64-unknown-linux-gnu";

/// What cargo-fuzz passes, without the sanitizer.
const RUSTFLAGS: &str = "-Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares \
    --cfg fuzzing -Cdebug-assertions -Ccodegen-units=1";

/// A target that needs more than this for one input has a bug (or no limit).
const INPUT_TIMEOUT_S: u32 = 5;
const MEMORY_MIB_MAX: u32 = 1_024;

/// Runs the named targets, or all, for `time` each.
pub(crate) fn run(only: &[String], time: Duration) -> Result<()> {
    setup::require(&[setup::CXX])?;
    let dir = root().join("fuzz");
    let targets = targets(&dir)?;
    for name in only {
        ensure!(targets.contains(name), "no fuzz target {name:?}; there are {targets:?}");
    }
    let build_dir = target_dir().join("fuzz");
    build(&dir, &build_dir)?;
    let wanted = targets.iter().filter(|name| only.is_empty() || only.contains(name));
    let next = Mutex::new(wanted);
    // A fuzzer uses one processor.
    let at_once = std::thread::available_parallelism().map_or(1, NonZero::get);
    let work = || -> Result<()> {
        loop {
            let name = next.lock().expect("nobody panics with this lock").next();
            let Some(name) = name else { return Ok(()) };
            fuzz(&dir, &build_dir, name, time)?;
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..at_once).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("no worker panics"))
    })
}

fn targets(dir: &Path) -> Result<Vec<String>> {
    let sources = dir.join("fuzz_targets");
    let listed = std::fs::read_dir(&sources)
        .with_context(|| format!("reading {}", sources.display()))?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<PathBuf>>>()?;
    let mut names: Vec<String> = listed
        .iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
        .collect();
    names.sort();
    ensure!(!names.is_empty(), "{} has no targets", sources.display());
    Ok(names)
}

fn build(dir: &Path, build_dir: &Path) -> Result<()> {
    let status = Command::new("cargo")
        .args(["build", "--release", "--bins", "--target", TRIPLE, "--manifest-path"])
        .arg(dir.join("Cargo.toml"))
        .arg("--target-dir")
        .arg(build_dir)
        .env("RUSTFLAGS", RUSTFLAGS)
        .stdin(Stdio::null())
        .status()
        .context("running cargo")?;
    ensure!(status.success(), "building the fuzz targets: {status}");
    Ok(())
}

fn fuzz(dir: &Path, build_dir: &Path, name: &str, time: Duration) -> Result<()> {
    // libFuzzer writes what it finds interesting to the first folder: not the one in git.
    let found = build_dir.join("corpus").join(name);
    let artifacts = dir.join("artifacts").join(name);
    let corpus = dir.join("corpus").join(name);
    ensure!(corpus.is_dir(), "fuzz target {name} has no corpus at {}", corpus.display());
    for folder in [&found, &artifacts] {
        std::fs::create_dir_all(folder)?;
    }
    let out = Command::new(build_dir.join(TRIPLE).join("release").join(name))
        .arg(format!("-max_total_time={}", time.as_secs()))
        .arg(format!("-timeout={INPUT_TIMEOUT_S}"))
        .arg(format!("-rss_limit_mb={MEMORY_MIB_MAX}"))
        .arg(format!("-artifact_prefix={}/", artifacts.display()))
        .args(["-print_final_stats=1", "-verbosity=1"])
        .args([&found, &corpus])
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("running fuzz target {name}"))?;
    let log = String::from_utf8_lossy(&out.stderr);
    if !out.status.success() {
        bail!("fuzz target {name}: {}\n{log}", out.status);
    }
    let count = log.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:"));
    // Without feedback libFuzzer stops at a few inputs and everything looks fine.
    ensure!(!log.contains("no interesting inputs"), "{name} is built without instrumentation");
    eprintln!("{name}: {} inputs", count.unwrap_or("?").trim());
    Ok(())
}
