//! The table that people read and the JSON that programs read.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::server::Server;
use super::{Case, Outcome};

const HEAD: &str = "\
| case | server | MB/s | CPU s/GiB | ours is faster by | notes |
|---|---|---|---|---|---|
";

const LEGEND: &str = "
MB/s of all transfers together, until the last is done: the best run. \"Ours is faster by\" is our \
rate in the same case by the server's; with windows, which the others do not know, our rate by the \
best of theirs in lock-step with the same blocks. CPU is what the server's process used; tftpd-hpa \
forks a process for each transfer, whose time is not in it.
";

pub(super) fn markdown(outcomes: &[Outcome]) -> String {
    let rows: String = outcomes.iter().map(|outcome| row(outcome, outcomes)).collect();
    format!("\n{HEAD}{rows}{LEGEND}")
}

/// One outcome in a line, for the terminal.
pub(super) fn line(outcome: &Outcome) -> String {
    let rate = outcome.rate().map_or("–".into(), |rate| format!("{rate:.1} MB/s"));
    let problem = outcome.problem.as_deref().unwrap_or_default();
    format!("{} · {} · {rate} {problem}", outcome.case.name(), outcome.server.name())
}

pub(super) fn json(outcomes: &[Outcome]) -> Value {
    let one = |outcome: &Outcome| {
        let Case { group, rate, len, count, delay_us, blksize, windowsize } = &outcome.case;
        json!({
            "group": group,
            "rate_bits_per_s": rate.map(crate::lab::Rate::bits_per_s),
            "file_bytes": len,
            "transfers": count,
            "delay_us": delay_us,
            "blksize": blksize,
            "windowsize": windowsize,
            "server": outcome.server.name(),
            "seconds": outcome.seconds,
            "cpu_s": outcome.cpu_s,
            "bytes_per_s": outcome.rate().map(|rate| rate * 1e6),
            "ours_is_faster_by": faster_by(outcome, outcomes),
            "problem": outcome.problem,
        })
    };
    outcomes.iter().map(one).collect()
}

/// Writes both forms.
pub(super) fn store(dir: &Path, outcomes: &[Outcome]) -> Result<()> {
    std::fs::write(dir.join("tftp.md"), markdown(outcomes)).context("writing tftp.md")?;
    let json = format!("{:#}\n", json(outcomes));
    std::fs::write(dir.join("tftp.json"), json).context("writing tftp.json")
}

fn row(outcome: &Outcome, all: &[Outcome]) -> String {
    let number = |value: Option<f64>, places: usize| {
        value.map_or("–".to_owned(), |value| format!("{value:.places$}"))
    };
    let gib = (outcome.case.len * outcome.case.count as u64) as f64 / f64::from(1 << 30);
    let cpu = outcome.cpu_s.iter().copied().reduce(f64::min).map(|cpu_s| cpu_s / gib);
    let notes = outcome.problem.as_deref().and_then(|text| text.lines().next()).unwrap_or("");
    let mut row = String::new();
    let _ = writeln!(
        row,
        "| {} | {} | {} | {} | {} | {notes} |",
        outcome.case.name(),
        outcome.server.name(),
        number(outcome.rate(), 1),
        number(cpu, 1),
        number(faster_by(outcome, all), 2),
    );
    row
}

fn faster_by(outcome: &Outcome, all: &[Outcome]) -> Option<f64> {
    let same = |other: &&Outcome, windowsize: u16| {
        other.case.group == outcome.case.group
            && other.case.blksize == outcome.case.blksize
            && other.case.windowsize == windowsize
    };
    let ours = Server::Ours;
    if outcome.server != ours {
        let mine = all.iter().find(|o| o.server == ours && same(o, outcome.case.windowsize))?;
        return Some(mine.rate()? / outcome.rate()?);
    }
    if outcome.case.windowsize == 1 {
        return None;
    }
    let theirs = all.iter().filter(|o| o.server != ours && same(o, 1)).filter_map(Outcome::rate);
    Some(outcome.rate()? / theirs.reduce(f64::max)?)
}

impl Outcome {
    /// MB/s of the best run.
    fn rate(&self) -> Option<f64> {
        let seconds = self.seconds.iter().copied().reduce(f64::min)?;
        Some((self.case.len * self.case.count as u64) as f64 / 1e6 / seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(server: Server, windowsize: u16, seconds: &[f64]) -> Outcome {
        Outcome {
            case: Case {
                group: "one".into(),
                rate: None,
                len: 1_000_000,
                count: 1,
                delay_us: 0,
                blksize: 512,
                windowsize,
            },
            server,
            seconds: seconds.to_vec(),
            cpu_s: vec![],
            problem: None,
        }
    }

    #[test]
    fn windows_are_compared_with_the_best_lock_step_of_others() {
        let all = [
            outcome(Server::Ours, 1, &[3.0, 2.0]),
            outcome(Server::Dnsmasq, 1, &[4.0]),
            outcome(Server::TftpdHpa, 1, &[2.5, 5.0]),
            outcome(Server::Ours, 16, &[0.5]),
        ];
        let got: Vec<_> = all.iter().map(|outcome| faster_by(outcome, &all)).collect();
        assert_eq!(got, [None, Some(2.0), Some(1.25), Some(5.0)]);
    }
}
