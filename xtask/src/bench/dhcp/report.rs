//! The table that people read and the JSON that programs read.

use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::server::Server;
use super::{Exchange, Outcome};

const HEAD: &str = "\
| asked/s | server | leases/s | offers lost | acks lost | offer ms, mean | max | ack ms, mean | max | CPU µs/lease |
|---|---|---|---|---|---|---|---|---|---|
";

const LEGEND: &str = "
Asked by perfdhcp as by a relay agent, one new machine after the other. A lost answer is one that did \
not come before the end of the run.
";

pub(super) fn markdown(outcomes: &[Outcome]) -> String {
    let rows: String = outcomes.iter().map(row).collect();
    format!("\n{HEAD}{rows}{LEGEND}{}", comparison(outcomes))
}

/// One run in a line, for the terminal.
pub(super) fn line(outcome: &Outcome) -> String {
    row(outcome).trim().trim_matches('|').trim().to_owned()
}

fn row(outcome: &Outcome) -> String {
    let Outcome { server, rate, leases_per_s, offers, acks, cpu_us_per_lease, .. } = outcome;
    let delays = |exchange: &Exchange| format!("{:.3} | {:.1}", exchange.mean_ms, exchange.max_ms);
    format!(
        "| {rate} | {} | {leases_per_s:.0} | {:.1} % | {:.1} % | {} | {} | {cpu_us_per_lease:.0} |\n",
        server.name(),
        offers.lost() * 100.0,
        acks.lost() * 100.0,
        delays(offers),
        delays(acks),
    )
}

/// Ours by dnsmasq's: the most leases a second of each, and the mean time of a whole exchange at the
/// lowest rate, which both should keep up with.
fn comparison(outcomes: &[Outcome]) -> String {
    let Some((leases, latency)) = ratios(outcomes) else {
        return String::new();
    };
    format!(
        "\nAt their best, ours gives {leases:.2} times dnsmasq's leases a second; at the lowest rate \
         an exchange with ours takes {latency:.2} of the time.\n"
    )
}

fn ratios(outcomes: &[Outcome]) -> Option<(f64, f64)> {
    let of = |server| outcomes.iter().filter(move |outcome| outcome.server == server);
    let most = |server| of(server).map(|outcome| outcome.leases_per_s).reduce(f64::max);
    let lowest = outcomes.iter().map(|outcome| outcome.rate).min()?;
    let time = |server| {
        let means = of(server).filter(|outcome| outcome.rate == lowest);
        means.map(|outcome| outcome.offers.mean_ms + outcome.acks.mean_ms).reduce(f64::min)
    };
    let (ours, theirs) = (Server::Ours, Server::Dnsmasq);
    Some((most(ours)? / most(theirs)?, time(ours)? / time(theirs)?))
}

pub(super) fn json(outcomes: &[Outcome]) -> Value {
    let exchange = |exchange: &Exchange| {
        json!({
            "sent": exchange.sent,
            "received": exchange.received,
            "mean_ms": exchange.mean_ms,
            "max_ms": exchange.max_ms,
        })
    };
    outcomes
        .iter()
        .map(|outcome| {
            json!({
                "server": outcome.server.name(),
                "asked_per_s": outcome.rate,
                "run": outcome.number,
                "leases_per_s": outcome.leases_per_s,
                "offers": exchange(&outcome.offers),
                "acks": exchange(&outcome.acks),
                "cpu_us_per_lease": outcome.cpu_us_per_lease,
            })
        })
        .collect()
}

/// Writes both forms.
pub(super) fn store(dir: &Path, outcomes: &[Outcome]) -> Result<()> {
    std::fs::write(dir.join("dhcp.md"), markdown(outcomes)).context("writing dhcp.md")?;
    let json = format!("{:#}\n", json(outcomes));
    std::fs::write(dir.join("dhcp.json"), json).context("writing dhcp.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(server: Server, rate: u32, leases_per_s: f64, mean_ms: f64) -> Outcome {
        let exchange = Exchange { sent: 1.0, received: 1.0, mean_ms, max_ms: mean_ms };
        Outcome {
            server,
            rate,
            number: 1,
            leases_per_s,
            offers: exchange,
            acks: exchange,
            cpu_us_per_lease: 1.0,
        }
    }

    #[test]
    fn the_best_rate_and_the_calmest_latency_are_compared() {
        let all = [
            outcome(Server::Ours, 100, 100.0, 0.25),
            outcome(Server::Dnsmasq, 100, 90.0, 0.5),
            outcome(Server::Ours, 1_000, 800.0, 9.0),
            outcome(Server::Dnsmasq, 1_000, 200.0, 1.0),
        ];
        assert_eq!(ratios(&all), Some((4.0, 0.5)));
        assert_eq!(ratios(&all[..1]), None);
    }
}
