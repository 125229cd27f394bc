//! `cargo xtask bench swarm`: how long until the last node has the file, beside other programs, and
//! at what cost. Not a test: it reports, it does not judge.
//!
//! Every run has a fresh lab. The unit of time is F/B: the file's length by the goodput of one TCP
//! stream, measured on the same shaped link just before.

mod api;
mod case;
pub(crate) mod contender;
mod dhcp;
mod guest;
pub(crate) mod image;
mod lan;
mod machine;
mod outcome;
mod publish;
mod report;
mod run;
mod tftp;
mod tracker;

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use clap::{Args, ValueEnum};

pub(crate) use api::{ApiArgs, run as api};
pub(crate) use case::Case;
pub(crate) use dhcp::{DhcpArgs, run as dhcp};
pub(crate) use guest::{GuestArgs, run as guest};
pub(crate) use image::{Image, hex};
pub(crate) use lan::{LanArgs, run as lan};
pub(crate) use publish::{ImageArgs, run as publish};
pub(crate) use tftp::{TftpArgs, run as tftp};
pub(crate) use tracker::{TrackerArgs, run as tracker};

use crate::lab::Rate;
use crate::setup;

/// What to measure.
#[derive(Args)]
pub(crate) struct SwarmArgs {
    /// Nodes besides the server
    #[arg(long, default_value_t = 16)]
    nodes: usize,
    /// Length of the file
    #[arg(long, default_value = "128MiB", value_parser = image::parse_len)]
    size: u64,
    /// Rate of every link, both directions
    #[arg(long, default_value = "50mbit")]
    rate: Rate,
    /// Contenders, comma-separated; the default is all that make sense in a case
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Cases, comma-separated
    #[arg(long, value_delimiter = ',', value_enum, default_value = "clean")]
    case: Vec<Case>,
    /// Runs of each case and contender
    #[arg(long, default_value_t = 1)]
    runs: usize,
    /// When the seed dies in dead-seed: bytes that left the server, in multiples of F. One copy
    /// with the headers of its packets is 1.046; the rest is protocol and pieces sent twice.
    #[arg(long, default_value_t = 1.06)]
    dead_seed_at: f64,
    /// Give up on a run after this many multiples of F/B (of the slowest link)
    #[arg(long, default_value_t = 6.0)]
    give_up: f64,
    /// What standard output gets; both forms are stored under target/bench
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Output {
    Table,
    Json,
}

/// Runs the benchmark.
pub(crate) fn swarm(args: &SwarmArgs) -> Result<()> {
    ensure!(args.nodes >= 1, "a swarm needs a node");
    for name in &args.only {
        ensure!(
            contender::all().iter().any(|contender| contender.name() == name),
            "no contender is called {name:?}; there are {}",
            contender::all().iter().map(|c| c.name()).collect::<Vec<_>>().join(", ")
        );
    }
    let dir = output_dir()?;
    let mut outcomes = Vec::new();
    for case in &args.case {
        let plan = case.plan(args);
        let image = Image::create(&dir, plan.len)?;
        for contender in contender::all() {
            let chosen = if args.only.is_empty() {
                contender.fits(*case, plan.node_count)
            } else {
                args.only.iter().any(|name| name == contender.name())
            };
            if !chosen {
                continue;
            }
            let mut tools = contender.tools();
            tools.extend([setup::IP, setup::MKTORRENT]);
            setup::require(&tools)?;
            for number in 1..=args.runs {
                eprintln!("{} · {} · run {number} of {}", case.name(), contender.name(), args.runs);
                let logs = dir.join("logs").join(format!("{}-{}", case.name(), contender.name()));
                let outcome = run::run(&plan, contender.as_ref(), &image, number, &logs)?;
                eprintln!("  {}", report::line(&outcome));
                outcomes.push(outcome);
                // Stored after each run: an hour of runs must survive the failure of the last.
                report::store(&dir, &outcomes)?;
            }
        }
    }
    ensure!(!outcomes.is_empty(), "no contender fits these cases");
    match args.output {
        Output::Table => println!("{}", report::markdown(&outcomes)),
        Output::Json => println!("{:#}", report::json(&outcomes)),
    }
    Ok(())
}

/// `target/bench`, absolute.
fn output_dir() -> Result<PathBuf> {
    let dir = crate::target_dir().join("bench");
    std::fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
    Ok(dir)
}
