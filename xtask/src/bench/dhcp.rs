//! `cargo xtask bench dhcp`: how many leases a second a DHCP server gives and how long each takes,
//! ours and dnsmasq in one run. Not a test: it reports, it does not judge.
//!
//! Kea's `perfdhcp` asks as a relay agent would, for one new machine after the other, at a rate that
//! it is told. Servers take turns, each with a fresh process and no leases; both keep leases on
//! tmpfs, so that no disk is measured. From some rate on a server does not keep up: the largest number
//! of leases a second at any rate is what it can do.

mod report;
mod server;

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::Args;

use super::{Output, output_dir};
use crate::lab::{Lab, Slot};
use crate::setup;
use server::Server;

/// The range that servers give: more addresses than any run asks for.
const RANGE: [&str; 2] = ["10.77.64.1", "10.77.191.254"];

/// Machines that perfdhcp pretends to be: none comes twice.
const MACHINES: u32 = 32_000;

/// What to measure.
#[derive(Args)]
pub(crate) struct DhcpArgs {
    /// Machines that ask for a lease, a second; comma-separated
    #[arg(long, value_delimiter = ',', default_value = "100,500,1000,2000,4000,8000")]
    rates: Vec<u32>,
    /// How long, for each
    #[arg(long, default_value_t = 4)]
    seconds: u32,
    /// Servers, comma-separated; the default is all
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Runs of each rate and server
    #[arg(long, default_value_t = 1)]
    runs: usize,
    /// What standard output gets; both forms are stored under target/bench
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

/// What one run of perfdhcp measured.
#[derive(Debug, Clone, PartialEq)]
struct Outcome {
    server: Server,
    /// New machines a second.
    rate: u32,
    number: usize,
    /// Leases a second.
    leases_per_s: f64,
    offers: Exchange,
    acks: Exchange,
    /// The server's CPU time for each lease.
    cpu_us_per_lease: f64,
}

/// Questions of one kind and their answers.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Exchange {
    sent: f64,
    received: f64,
    mean_ms: f64,
    max_ms: f64,
}

impl Exchange {
    /// The part without an answer.
    fn lost(&self) -> f64 {
        1.0 - self.received / self.sent.max(1.0)
    }
}

/// Runs the benchmark.
pub(crate) fn run(args: &DhcpArgs) -> Result<()> {
    let is_wanted = |server: &Server| {
        args.only.is_empty() || args.only.iter().any(|name| name == server.name())
    };
    let servers: Vec<Server> = Server::ALL.into_iter().filter(is_wanted).collect();
    ensure!(!servers.is_empty(), "there are {}", Server::ALL.map(Server::name).join(", "));
    for rate in &args.rates {
        ensure!(
            rate.saturating_mul(args.seconds) <= MACHINES,
            "{rate} a second for {} s are more than {MACHINES} machines",
            args.seconds
        );
    }
    setup::require(&[setup::IP, setup::DNSMASQ, setup::PERFDHCP])?;
    crate::build_release()?;
    let dir = output_dir()?;
    let mut outcomes = vec![];
    for rate in &args.rates {
        for number in 1..=args.runs {
            for server in &servers {
                let logs = dir.join("dhcp/logs");
                let outcome = run_once(*server, *rate, args.seconds, number, &logs)
                    .with_context(|| format!("{} at {rate} a second", server.name()))?;
                eprintln!("{}", report::line(&outcome));
                outcomes.push(outcome);
                // Stored after each run: minutes of runs must survive the failure of the last.
                report::store(&dir, &outcomes)?;
            }
        }
    }
    match args.output {
        Output::Table => println!("{}", report::markdown(&outcomes)),
        Output::Json => println!("{:#}", report::json(&outcomes)),
    }
    Ok(())
}

fn run_once(
    server: Server,
    rate: u32,
    seconds: u32,
    number: usize,
    logs: &std::path::Path,
) -> Result<Outcome> {
    let lab = Lab::new(1, None, logs)?;
    let node = lab.nodes().next().context("a lab without a node")?;
    let process = server.start(&lab)?;
    let perfdhcp = setup::find(setup::PERFDHCP.file).context("perfdhcp is gone")?;
    let command = format!(
        "{} -4 -l eth0 -r {rate} -R {MACHINES} -p {seconds} {}",
        perfdhcp.display(),
        Slot::SERVER.address()
    );
    // It fails if a single answer is missing, which is a result like any other.
    let text = lab.run(node, &["sh", "-c", &format!("{command} 2>&1 || true")])?;
    let exit = process.stop(Duration::from_secs(5)).context("the server does not end")?;
    let log = logs.join(format!("perfdhcp-{}-{rate}-{number}.txt", server.name()));
    std::fs::write(&log, &text).with_context(|| format!("writing {}", log.display()))?;
    let (leases_per_s, offers, acks) = decode(&text)
        .with_context(|| format!("perfdhcp says something else: {}", log.display()))?;
    let cpu_us_per_lease = exit.cpu.as_secs_f64() * 1e6 / acks.received.max(1.0);
    Ok(Outcome { server, rate, number, leases_per_s, offers, acks, cpu_us_per_lease })
}

/// The rate of whole exchanges and the statistics of both halves, from what perfdhcp prints.
fn decode(text: &str) -> Option<(f64, Exchange, Exchange)> {
    let number = |section: &str, label: &str| -> Option<f64> {
        let line = section.lines().find_map(|line| line.trim().strip_prefix(label))?;
        line.split_whitespace().next()?.parse().ok()
    };
    let exchange = |title: &str| {
        let section = text.split_once(&format!("Statistics for: {title}"))?.1;
        let section = section.split("***Statistics").next()?;
        let received = number(section, "received packets:")?;
        Some(Exchange {
            sent: number(section, "sent packets:")?,
            received,
            // Without answers it has no delays to print.
            mean_ms: number(section, "avg delay:").unwrap_or(f64::NAN),
            max_ms: number(section, "max delay:").unwrap_or(f64::NAN),
        })
    };
    Some((number(text, "Rate:")?, exchange("DISCOVER-OFFER")?, exchange("REQUEST-ACK")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRINTED: &str = "Running: perfdhcp -4\n***Rate statistics***\n\
        Rate: 3820.59 4-way exchanges/second, expected rate: 5000\n\n***Malformed Packets***\n\
        Malformed packets: 0\n***Statistics for: DISCOVER-OFFER***\nsent packets: 24655\n\
        received packets: 20626\ndrops: 4029\ndrops ratio: 16.3415 %\norphans: 0\n\n\
        min delay: 0.019 ms\navg delay: 6.608 ms\nmax delay: 68.430 ms\nstd deviation: 9 ms\n\
        collected packets: 0\n\n***Statistics for: REQUEST-ACK***\nsent packets: 20626\n\
        received packets: 19161\ndrops: 1465\nmin delay: 0.049 ms\navg delay: 10.357 ms\n\
        max delay: 95.901 ms\n";

    #[test]
    fn what_perfdhcp_prints_is_read() {
        let (rate, offers, acks) = decode(PRINTED).unwrap();
        assert_eq!(rate, 3820.59);
        let expect = Exchange { sent: 24655.0, received: 20626.0, mean_ms: 6.608, max_ms: 68.43 };
        assert_eq!(offers, expect);
        assert_eq!((acks.received, acks.mean_ms), (19161.0, 10.357));
        assert!((offers.lost() - 0.1634).abs() < 1e-4);
    }

    #[test]
    fn other_texts_are_not_read() {
        assert_eq!(decode("perfdhcp: no such interface"), None);
    }
}
