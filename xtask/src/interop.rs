//! `cargo xtask interop`: our program against other people's, both ways, in network namespaces.
//!
//! A case is a torrent, a tracker (or none), a seed and some nodes; it passes when every node says
//! that it is complete and every byte of every file is right. Cases of TFTP are in `tftp.rs`,
//! those of DHCP in `dhcp.rs`, chains of hosts in `lan.rs`, labs with more than one server in
//! `growing.rs`. What the programs are told is what their users tell them: encryption
//! and µTP stay as their authors set them.

mod cases;
mod content;
mod dhcp;
mod growing;
mod lan;
mod program;
mod run;
mod tftp;
mod torrent;
mod tracker;

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Error, Result, ensure};
use clap::Args;

use crate::{build_release, setup, target_dir};
use cases::Case;
use content::Contents;

pub(crate) use tracker::Tracker;

/// Cases run at the same time. Most of a case is waiting for programs that start, look around, and
/// announce; more at once than this and they wait for a processor.
const AT_ONCE: usize = 4;

const TOOLS: &[setup::Tool] = &[
    setup::IP,
    setup::ARIA2,
    setup::MKTORRENT,
    setup::NGINX,
    setup::OPENTRACKER,
    setup::PYTHON,
    setup::LIBTORRENT,
    setup::TRANSMISSION_CREATE,
    setup::TRANSMISSION_DAEMON,
    setup::TRANSMISSION_REMOTE,
];

#[derive(Args, Default)]
pub(crate) struct InteropArgs {
    /// Run only cases with one of these in their names; all by default
    filters: Vec<String>,
}

/// What became of a case.
struct Row {
    name: String,
    time: Duration,
    error: Option<Error>,
}

/// Runs the cases; fails if one does.
pub(crate) fn run(args: &InteropArgs) -> Result<()> {
    let tools = [TOOLS, dhcp::TOOLS, tftp::TOOLS].concat();
    setup::install(&tools)?;
    build_release()?;
    let dir = target_dir().join("interop");
    let contents = Contents::create(&dir.join("content"))?;
    let mut cases = cases::all();
    if !args.filters.is_empty() {
        cases.retain(|case| args.filters.iter().any(|filter| case.name().contains(filter)));
    }
    let start = Instant::now();
    let mut rows = run_all(&cases, &contents, &dir);
    rows.extend(tftp::run(&args.filters, &dir)?);
    rows.extend(dhcp::run(&args.filters, &dir));
    rows.extend(lan::run(&args.filters, &dir));
    rows.extend(growing::run(&args.filters, &dir)?);
    ensure!(!rows.is_empty(), "no case is called so");
    let failed: Vec<&Row> = rows.iter().filter(|row| row.error.is_some()).collect();
    for row in &failed {
        let Some(error) = &row.error else { continue };
        println!("\n=== {}: {error:#}", row.name);
    }
    table(&rows);
    println!("\n{} cases in {:.1} s", rows.len(), start.elapsed().as_secs_f64());
    ensure!(failed.is_empty(), "{} of {} cases failed", failed.len(), rows.len());
    Ok(())
}

/// Runs cases side by side, each in a lab of its own; the rows in the order of the cases.
fn run_all(cases: &[Case], contents: &Contents, dir: &Path) -> Vec<Row> {
    let next = AtomicUsize::new(0);
    let rows = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some((at, case)) = take(cases, &next) {
                    let row = run_one(case, contents, &logs(dir, case));
                    eprintln!("{}", line(&row));
                    rows.lock().expect("nobody panics with this lock").push((at, row));
                }
            });
        }
    });
    let mut rows = rows.into_inner().expect("nobody panics with this lock");
    rows.sort_by_key(|(at, _)| *at);
    rows.into_iter().map(|(_, row)| row).collect()
}

fn take<'a>(cases: &'a [Case], next: &AtomicUsize) -> Option<(usize, &'a Case)> {
    let at = next.fetch_add(1, Ordering::Relaxed);
    cases.get(at).map(|case| (at, case))
}

fn run_one(case: &Case, contents: &Contents, logs: &Path) -> Row {
    let start = Instant::now();
    let result = run::run(case, contents, logs);
    let (time, error) = match result {
        Ok(time) => (time, None),
        Err(error) => (start.elapsed(), Some(error)),
    };
    Row { name: case.name(), time, error }
}

fn logs(dir: &Path, case: &Case) -> PathBuf {
    let keep = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    dir.join("logs").join(case.name().replace('→', "to").chars().map(keep).collect::<String>())
}

fn line(row: &Row) -> String {
    let verdict = if row.error.is_none() { "ok" } else { "FAILED" };
    format!("{verdict:<6} {:>6.2} s  {}", row.time.as_secs_f64(), row.name)
}

fn table(rows: &[Row]) {
    let width = rows.iter().map(|row| row.name.chars().count()).max().unwrap_or_default();
    println!("\n| {:<width$} | {:>7} | verdict |", "case", "seconds");
    println!("|-{}-|--------:|---------|", "-".repeat(width));
    for row in rows {
        let verdict = if row.error.is_none() { "ok" } else { "FAILED" };
        println!("| {:<width$} | {:>7.2} | {verdict:<7} |", row.name, row.time.as_secs_f64());
    }
}

/// Writes a file; an error says which.
fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}
