//! `cargo xtask ci`: everything that must hold before a change is merged, in the order in which it
//! fails fastest. What it needs it installs. At the end it says what ran and how long it took.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::{
    agent_network, attack, book, browser, dist, e2e, fuzz, host, interop, root, setup, tidy,
};

/// Long enough for a broken decoder to show, short enough for every change.
const FUZZ_TIME: Duration = Duration::from_secs(10);

/// Where all steps were run. On Debian 13 every tool is there, but some others in interop have
/// versions that were not tried with ours.
const DEBIANS: &[u32] = &[12];

type Step = (&'static str, fn() -> Result<()>);

const STEPS: &[Step] = &[
    ("setup", setup::install_all),
    ("fmt", || cargo(&["fmt", "--all", "--check"])),
    ("tidy", tidy::tidy),
    ("book", book::run),
    ("clippy", || cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])),
    ("test", test),
    // nextest does not run them.
    ("doc tests", || cargo(&["test", "--workspace", "--doc"])),
    ("fuzz", || fuzz::run(&[], FUZZ_TIME)),
    ("interop", || interop::run(&interop::InteropArgs::default())),
    ("network", || agent_network::run(&agent_network::AgentNetworkArgs::default())),
    ("attack", || attack::run(&attack::AttackArgs::default())),
    ("dist", || dist::run(&dist::DistArgs { no_build: false, install: true })),
    ("browser", || browser::run(&browser::BrowserArgs { no_build: true })),
    ("e2e", || e2e::run(&e2e::E2eArgs::default())),
];

/// Runs all steps until one fails.
pub(crate) fn run() -> Result<()> {
    host::greet("cargo xtask ci", DEBIANS)?;
    let mut ran = Vec::new();
    let mut failed = None;
    for (name, step) in STEPS {
        eprintln!("\n=== {name}");
        let start = Instant::now();
        let result = step();
        let verdict = if result.is_ok() { "ok" } else { "FAILED" };
        ran.push(format!("{name:<10} {verdict:<6} {:>6.1} s", start.elapsed().as_secs_f64()));
        if let Err(error) = result {
            failed = Some(error.context(format!("step {name}")));
            break;
        }
    }
    println!("\n{}\n{} of {} steps ran", ran.join("\n"), ran.len(), STEPS.len());
    failed.map_or(Ok(()), Err)
}

/// With nextest where it is installed (it runs test binaries side by side); building it takes
/// longer than it saves on a clean machine, and cargo's own runner runs the same tests.
fn test() -> Result<()> {
    if setup::find("cargo-nextest").is_some() {
        cargo(&["nextest", "run", "--workspace", "--no-fail-fast", "--no-tests=pass"])
    } else {
        cargo(&["test", "--workspace", "--all-targets", "--no-fail-fast"])
    }
}

fn cargo(args: &[&str]) -> Result<()> {
    let mut command = Command::new("cargo");
    command.args(args).current_dir(root()).stdin(Stdio::null());
    let status = command.status().context("running cargo")?;
    ensure!(status.success(), "cargo {}: {status}", args.join(" "));
    Ok(())
}
