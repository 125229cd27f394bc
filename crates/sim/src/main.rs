//! `cargo xtask sim`: simulated fleets at any size.

use std::time::Duration;

use anyhow::Result;
use clap::Parser;
use sim::{Scenario, rows, run, table};

/// Simulates transfers and prints times as multiples of the ideal F/B.
#[derive(Parser)]
struct Args {
    /// Numbers of nodes
    #[arg(long, value_delimiter = ',', default_value = "16,64")]
    nodes: Vec<u32>,
    /// Only cases whose name contains this
    #[arg(long, default_value = "")]
    case: String,
    /// Image size in MiB
    #[arg(long, default_value_t = 128)]
    size: u64,
    /// Piece length in KiB
    #[arg(long, default_value_t = 32)]
    piece: u32,
    /// Unit length in KiB, the piece length if absent
    #[arg(long)]
    unit: Option<u32>,
    /// Port rate in Mbit/s
    #[arg(long, default_value_t = 50)]
    rate: u64,
    /// Latency one way in µs; up to as much again is added at random
    #[arg(long, default_value_t = 200)]
    latency: u64,
    /// Nodes start within so many milliseconds
    #[arg(long, default_value_t = 0)]
    stagger: u64,
    /// Random seeds, from this one on
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many random seeds
    #[arg(long, default_value_t = 1)]
    runs: u64,
}

#[expect(clippy::print_stdout, reason = "the table is the product")]
fn main() -> Result<()> {
    let args = Args::parse();
    print!("{}", table::HEAD);
    for &nodes in &args.nodes {
        for random_seed in args.seed..args.seed + args.runs {
            let clean = Scenario {
                file_len: args.size << 20,
                piece_len: args.piece << 10,
                unit_len: args.unit.unwrap_or(args.piece) << 10,
                rate: args.rate * 125_000,
                latency: Duration::from_micros(args.latency),
                jitter: Duration::from_micros(args.latency),
                stagger: Duration::from_millis(args.stagger),
                random_seed,
                ..Scenario::clean(nodes)
            };
            for row in rows(&clean).iter().filter(|row| row.name.contains(&args.case)) {
                print!("{}", table::line(row.name, nodes, &run(&row.scenario)));
            }
        }
    }
    Ok(())
}
