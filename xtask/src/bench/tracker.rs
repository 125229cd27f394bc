//! `cargo xtask bench tracker`: how many announces our tracker answers in a second, beside
//! opentracker. Not a test: it reports, it does not judge.
//!
//! The peers announce as fast as they are answered, on the same processors, so what the tracker's own
//! process takes for an announce says more than how many came about: a tracker of one thread answers
//! at most as many as fit into a second of its processor.

use std::fmt::Write as _;
use std::sync::mpsc::channel;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use serde_json::{Value, json};

use super::image::Image;
use super::{Output, output_dir};
use crate::interop::Tracker;
use crate::lab::{Lab, Slot, Spawn};
use crate::setup;

/// What is torn down and waited for, besides the announces themselves.
const SLACK: Duration = Duration::from_secs(30);

/// What to measure.
#[derive(Args)]
pub(crate) struct TrackerArgs {
    /// Machines that announce
    #[arg(long, default_value_t = 4)]
    nodes: usize,
    /// Peers on each of them, all of one swarm
    #[arg(long, default_value_t = 250)]
    peers: u16,
    /// Announces under way at once, on each machine
    #[arg(long, default_value_t = 8)]
    at_once: u16,
    /// Seconds of announcing, for each tracker and protocol
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// What standard output gets; both forms are stored under target/bench
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

struct Outcome {
    tracker: String,
    announces: u64,
    failures: u64,
    seconds: f64,
    cpu_s: f64,
}

impl Outcome {
    fn per_second(&self) -> f64 {
        self.announces as f64 / self.seconds
    }

    /// Microseconds of the tracker's processor.
    fn cpu_us(&self) -> f64 {
        self.cpu_s * 1e6 / self.announces.max(1) as f64
    }
}

/// Runs the benchmark.
pub(crate) fn run(args: &TrackerArgs) -> Result<()> {
    setup::require(&[setup::IP, setup::OPENTRACKER])?;
    crate::build_release()?;
    let mut outcomes = vec![];
    for tracker in [Tracker::OURS_HTTP, Tracker::OPEN_HTTP, Tracker::OURS_UDP, Tracker::OPEN_UDP] {
        let outcome = run_once(args, tracker)?;
        eprint!("{}", row(&outcome));
        outcomes.push(outcome);
    }
    let (table, numbers) = (markdown(&outcomes), outcomes.iter().map(number).collect::<Value>());
    let dir = output_dir()?;
    std::fs::write(dir.join("tracker.md"), &table).context("writing tracker.md")?;
    std::fs::write(dir.join("tracker.json"), format!("{numbers:#}\n"))
        .context("writing tracker.json")?;
    match args.output {
        Output::Table => println!("{table}"),
        Output::Json => println!("{numbers:#}"),
    }
    Ok(())
}

fn run_once(args: &TrackerArgs, tracker: Tracker) -> Result<Outcome> {
    let logs = output_dir()?.join("tracker");
    let lab = Lab::new(args.nodes, None, &logs)?;
    let dir = lab.slot_dir(Slot::SERVER);
    let image = Image::create(&dir, 1 << 20)?;
    let metainfo = dir.join("image.torrent");
    let create = Spawn::new("create", crate::release_binary()?)
        .args(["torrent", "create"])
        .arg(&image.path)
        .arg("-o")
        .arg(&metainfo);
    lab.spawn(Slot::SERVER, create)?.succeed(SLACK)?;
    let infohash = Tracker::infohash(&lab, &metainfo)?;
    let process = tracker.start(&lab, &metainfo)?;
    let (sender, lines) = channel();
    let mut nodes = vec![];
    for slot in lab.nodes() {
        let sender = sender.clone();
        let spawn = Spawn::new(format!("{}-announce", slot.name()), std::env::current_exe()?)
            .args(["peer", "announce", &tracker.address().to_string(), &infohash])
            .args(["--seconds", &args.seconds.to_string()])
            .args(["--peers", &args.peers.to_string(), "--at-once", &args.at_once.to_string()])
            .args(tracker.is_udp().then_some("--udp"))
            .on_line(move |line| {
                let _ = sender.send(line.to_owned());
            });
        nodes.push(lab.spawn(slot, spawn)?);
    }
    for node in &nodes {
        node.succeed(Duration::from_secs_f64(args.seconds) + SLACK)?;
    }
    let exit = process.stop(Duration::from_secs(5)).context("the tracker does not end")?;
    let mut outcome = Outcome {
        tracker: tracker.name(),
        announces: 0,
        failures: 0,
        seconds: args.seconds,
        cpu_s: exit.cpu.as_secs_f64(),
    };
    for _ in &nodes {
        let line = lines.recv_timeout(SLACK).context("a node says nothing")?;
        let words: Vec<&str> = line.split(' ').collect();
        ensure!(words.len() == 4, "a node says {line:?}");
        outcome.announces += words[1].parse::<u64>()?;
        outcome.failures += words[3].parse::<u64>()?;
    }
    ensure!(outcome.announces > 0, "{} answered nobody:\n{}", tracker.name(), process.log_tail());
    Ok(outcome)
}

fn markdown(outcomes: &[Outcome]) -> String {
    let rows: String = outcomes.iter().map(row).collect();
    format!(
        "\n| tracker | announces/s | failed | CPU µs an announce | at most, on one processor |\n\
         |---|---|---|---|---|\n{rows}"
    )
}

fn row(outcome: &Outcome) -> String {
    let mut row = String::new();
    let _ = writeln!(
        row,
        "| {} | {:.0} | {} | {:.1} | {:.0}/s |",
        outcome.tracker,
        outcome.per_second(),
        outcome.failures,
        outcome.cpu_us(),
        1e6 / outcome.cpu_us(),
    );
    row
}

fn number(outcome: &Outcome) -> Value {
    json!({
        "tracker": outcome.tracker,
        "announces": outcome.announces,
        "failures": outcome.failures,
        "seconds": outcome.seconds,
        "tracker_cpu_s": outcome.cpu_s,
    })
}
