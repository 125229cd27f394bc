//! `cargo xtask bench tftp`: how fast files come by TFTP, from our server and from others, in one
//! run. Not a test: it reports, it does not judge.
//!
//! The receiving end is always the same (`peer/tftp.rs`). Servers take turns, so that what else the
//! machine does falls on all of them; the best run of each counts, as nothing makes a transfer
//! faster than it is. Servers that do not know windows (all others of Debian 12 but atftpd) answer a
//! request for them with lock-step, so they are measured there alone, and windows are compared with
//! that.
//!
//! On one machine a round trip takes tens of microseconds, which hides what windows are for. The
//! kernel cannot delay packets everywhere (netem may be missing), so in the cases that say so the
//! receiving end waits before it acknowledges.

mod report;
mod server;

use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;

use super::image::{self, Image};
use super::{Output, output_dir};
use crate::lab::{Lab, Process, Rate, Slot, Spawn};
use crate::setup;
use server::Server;

/// The slowest case, lock-step with the smallest blocks, does 2 MB/s on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(180);

/// Nodes of the cases with many transfers, which they share.
const NODE_COUNT: usize = 10;

/// What to measure.
#[derive(Args)]
pub(crate) struct TftpArgs {
    /// Length of the file when one node fetches it
    #[arg(long, default_value = "64MiB", value_parser = image::parse_len)]
    size: u64,
    /// Length of the file when many transfers take place at once, and over a long way
    #[arg(long, default_value = "4MiB", value_parser = image::parse_len)]
    many_size: u64,
    /// Transfers at once
    #[arg(long, default_value_t = 200)]
    many: usize,
    /// Rate of shaped links
    #[arg(long, default_value = "1gbit")]
    rate: Rate,
    /// Time between a packet and its acknowledgement over a long way
    #[arg(long, default_value_t = 200)]
    delay_us: u64,
    /// Servers, comma-separated; the default is all
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Run only cases with this in their names
    #[arg(long, default_value = "")]
    case: String,
    /// Runs of each case and server
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// What standard output gets; both forms are stored under target/bench
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

/// What the nodes do.
#[derive(Debug, Clone)]
struct Case {
    /// Cases of one group are compared.
    group: String,
    rate: Option<Rate>,
    len: u64,
    count: usize,
    delay_us: u64,
    blksize: u16,
    windowsize: u16,
}

impl Case {
    fn name(&self) -> String {
        format!("{}, blksize {}, windowsize {}", self.group, self.blksize, self.windowsize)
    }
}

/// What came of a case with a server.
#[derive(Debug, Clone)]
struct Outcome {
    case: Case,
    server: Server,
    /// Of each run that went well.
    seconds: Vec<f64>,
    /// The server's CPU time, of the same runs.
    cpu_s: Vec<f64>,
    problem: Option<String>,
}

/// Runs the benchmark.
pub(crate) fn run(args: &TftpArgs) -> Result<()> {
    let servers: Vec<Server> = Server::ALL
        .into_iter()
        .filter(|server| args.only.is_empty() || args.only.iter().any(|o| o == server.name()))
        .collect();
    ensure!(!servers.is_empty(), "there are {}", Server::ALL.map(Server::name).join(", "));
    setup::require(&[setup::IP, setup::DNSMASQ, setup::TFTPD])?;
    crate::build_release()?;
    let dir = output_dir()?.join("tftp");
    let mut outcomes: Vec<Outcome> = Vec::new();
    for case in cases(args).into_iter().filter(|case| case.name().contains(&args.case)) {
        let folder = dir.join(case.len.to_string());
        std::fs::create_dir_all(&folder).context("creating a folder for the file")?;
        let image = Image::create(&folder, case.len)?;
        let first = outcomes.len();
        for server in servers.iter().filter(|server| server.fits(case.windowsize)) {
            let (case, server) = (case.clone(), *server);
            outcomes.push(Outcome { case, server, seconds: vec![], cpu_s: vec![], problem: None });
        }
        for _ in 0..args.runs {
            for outcome in &mut outcomes[first..] {
                match run_once(&case, outcome.server, &image, &dir.join("logs")) {
                    Ok((seconds, cpu_s)) => {
                        outcome.seconds.push(seconds);
                        outcome.cpu_s.push(cpu_s);
                    }
                    Err(error) => outcome.problem = Some(format!("{error:#}")),
                }
            }
        }
        for outcome in &outcomes[first..] {
            eprintln!("{}", report::line(outcome));
        }
        // Stored after each case: minutes of runs must survive the failure of the last.
        report::store(&output_dir()?, &outcomes)?;
    }
    match args.output {
        Output::Table => println!("{}", report::markdown(&outcomes)),
        Output::Json => println!("{:#}", report::json(&outcomes)),
    }
    Ok(())
}

fn cases(args: &TftpArgs) -> Vec<Case> {
    let case = |group: &str, rate, len, count, delay_us, blksize, windowsize| Case {
        group: group.to_owned(),
        rate,
        len,
        count,
        delay_us,
        blksize,
        windowsize,
    };
    let mut cases = vec![];
    for (blksize, windowsize) in [(512, 1), (512, 16), (1_468, 1), (1_468, 16), (1_468, 64)] {
        let shaped = format!("one, {}", args.rate);
        cases.push(case("one, no limit", None, args.size, 1, 0, blksize, windowsize));
        cases.push(case(&shaped, Some(args.rate), args.size, 1, 0, blksize, windowsize));
    }
    let far = format!("one, {}, {} µs away", args.rate, args.delay_us);
    for windowsize in [1, 4, 16, 64] {
        let (rate, delay_us) = (Some(args.rate), args.delay_us);
        cases.push(case(&far, rate, args.many_size, 1, delay_us, 1_468, windowsize));
    }
    let (free, shaped) = (
        format!("{} at once, no limit", args.many),
        format!("{} at once, {}", args.many, args.rate),
    );
    for windowsize in [1, 16, 64] {
        cases.push(case(&free, None, args.many_size, args.many, 0, 1_468, windowsize));
        cases.push(case(&shaped, Some(args.rate), args.many_size, args.many, 0, 1_468, windowsize));
    }
    cases
}

/// Seconds until the last transfer was done, and the server's CPU seconds.
fn run_once(case: &Case, server: Server, image: &Image, logs: &Path) -> Result<(f64, f64)> {
    let node_count = NODE_COUNT.min(case.count);
    let lab = Lab::new(node_count, case.rate, logs)?;
    let root = lab.slot_dir(Slot::SERVER).join("root");
    std::fs::create_dir(&root)?;
    std::fs::copy(&image.path, root.join(image::NAME)).context("copying the file")?;
    let process = server.start(&lab, &root)?;
    let (sender, lines) = channel();
    let mut nodes = vec![];
    for (number, slot) in lab.nodes().enumerate() {
        // As even as it goes.
        let count = case.count / node_count + usize::from(number < case.count % node_count);
        nodes.push(lab.spawn(slot, fetch(case, slot, count, image, &sender)?)?);
    }
    await_lines(&nodes, &lines, |line| (line == "ready").then_some(0.0))?;
    for node in &mut nodes {
        node.release()?;
    }
    let seconds = await_lines(&nodes, &lines, |line| line.strip_prefix("seconds ")?.parse().ok())?;
    let exit = process.stop(Duration::from_secs(5)).context("the server does not end")?;
    Ok((seconds, exit.cpu.as_secs_f64()))
}

fn fetch(
    case: &Case,
    slot: Slot,
    count: usize,
    image: &Image,
    sender: &Sender<String>,
) -> Result<Spawn> {
    let (on_line, on_exit) = (sender.clone(), sender.clone());
    let spawn = Spawn::new(format!("{}-fetch", slot.name()), std::env::current_exe()?)
        .args(["peer", "tftp-fetch", &format!("{}:69", Slot::SERVER.address()), image::NAME])
        .arg(&image.path)
        .args(["--blksize", &case.blksize.to_string()])
        .args(["--windowsize", &case.windowsize.to_string()])
        .args(["--count", &count.to_string(), "--delay-us", &case.delay_us.to_string()])
        .held()
        .on_line(move |line| {
            let _ = on_line.send(line.to_owned());
        })
        .on_exit(move |exit| {
            if exit.code != 0 {
                let _ = on_exit.send("failed".to_owned());
            }
        });
    Ok(spawn)
}

/// Waits for a line from each node; the largest of what `read` makes of them.
fn await_lines(
    nodes: &[Process],
    lines: &Receiver<String>,
    read: impl Fn(&str) -> Option<f64>,
) -> Result<f64> {
    let mut largest: f64 = 0.0;
    let mut missing = nodes.len();
    while missing > 0 {
        let line = lines.recv_timeout(TIMEOUT).context("a transfer takes too long")?;
        if let Some(value) = read(&line) {
            largest = largest.max(value);
            missing -= 1;
        } else if line == "failed" {
            let failed = nodes.iter().find(|node| node.exit().is_some_and(|exit| exit.code != 0));
            bail!("{}", failed.map(Process::log_tail).unwrap_or_default());
        }
    }
    Ok(largest)
}
