//! The table that people read and the JSON that programs read.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::case::Role;
use super::outcome::{Outcome, Spread};

/// A machine that is busier than this before a run starts has other work than the benchmark.
const IDLE_BEFORE_MIN: f64 = 0.8;

const HEAD: &str = "\
| case | contender | done | first | median | last | others | server sent, F | CPU s/GiB | machine CPU s/GiB | idle | node anon MiB | server anon MiB | notes |
|---|---|---|---|---|---|---|---|---|---|---|---|---|---|
";

const LEGEND: &str = "
Times are multiples of F/B, B being the goodput of one TCP stream on the same link in the same run \
(without a shaper: MB/s). \"others\" is the case's special group: the slow nodes' last in multiples \
of their own limit, the late nodes' last since their own start. One copy with the headers of its \
packets is 1.046 F. CPU is what the run's processes used; machine CPU adds the kernel's soft \
interrupts and whatever else ran.
";

/// All runs as a Markdown document.
pub(super) fn markdown(outcomes: &[Outcome]) -> String {
    let mut text = String::new();
    let mut heading = String::new();
    for outcome in outcomes {
        let now = title(outcome);
        if heading != now {
            let _ = write!(text, "\n### {now}\n\n{HEAD}");
            heading = now;
        }
        text.push_str(&row(outcome));
    }
    text.push_str(LEGEND);
    text
}

/// One run in a line, for the terminal.
pub(super) fn line(outcome: &Outcome) -> String {
    row(outcome).trim().trim_matches('|').trim().to_owned()
}

fn title(outcome: &Outcome) -> String {
    let plan = &outcome.plan;
    let rate = plan.rate.map_or("no limit".into(), |rate| rate.to_string());
    format!("{} nodes, {} MiB, {rate}", plan.node_count, plan.len >> 20)
}

fn row(outcome: &Outcome) -> String {
    let (done, expected) = outcome.done_count();
    let (first, median, last) = columns(outcome, outcome.spread(Role::Usual));
    let others = [Role::Slow, Role::Late].into_iter().find_map(|role| outcome.spread(role));
    let others = others.map_or(String::new(), |spread| format!("{:.3}", spread.last));
    let number = |value: Option<f64>| value.map_or("–".into(), |value| format!("{value:.1}"));
    let mib = |len: u64| format!("{:.1}", len as f64 / f64::from(1 << 20));
    let problem = outcome.problems.first().and_then(|text| text.lines().next()).unwrap_or("");
    let mut bound = String::new();
    if outcome.load.is_cpu_bound() {
        bound.push_str("HOST CPU-BOUND ");
    }
    if let Some(before) = outcome.load_before.filter(|load| load.idle < IDLE_BEFORE_MIN) {
        let _ = write!(bound, "(host busy before: {:.0} % idle) ", before.idle * 100.0);
    }
    format!(
        "| {} | {} | {done}/{expected} | {first} | {median} | {last} | {others} | {:.3} | {} | {} | \
         {:.0} % | {} | {} | {bound}{problem} |\n",
        outcome.plan.case.name(),
        outcome.contender,
        outcome.server_upload_f(),
        number(outcome.cpu_s_per_gib()),
        number(outcome.machine_cpu_s_per_gib()),
        outcome.load.idle * 100.0,
        mib(outcome.anonymous_len_max()),
        mib(outcome.server_anonymous_len_max),
    )
}

fn columns(outcome: &Outcome, spread: Option<Spread>) -> (String, String, String) {
    let Some(Spread { first, median, last }) = spread else {
        return ("–".into(), "–".into(), "–".into());
    };
    let text = |value: f64| match outcome.goodput {
        Some(_) => format!("{value:.3}"),
        None => format!("{:.0} MB/s", outcome.plan.len as f64 / 1e6 / value),
    };
    (text(first), text(median), text(last))
}

/// All runs with every number that was measured.
pub(super) fn json(outcomes: &[Outcome]) -> Value {
    outcomes.iter().map(outcome_json).collect()
}

fn outcome_json(outcome: &Outcome) -> Value {
    let limit_s = outcome.limit_s();
    let nodes: Vec<Value> = outcome
        .nodes
        .iter()
        .map(|node| {
            json!({
                "node": node.name,
                "role": node.role.name(),
                "seconds": node.seconds,
                "multiple": node.seconds.zip(limit_s)
                    .map(|(seconds, limit)| seconds / limit / outcome.plan.slowness(node.role)),
                "verified": node.verified,
                "anonymous_bytes_max": node.anonymous_len_max,
            })
        })
        .collect();
    json!({
        "case": outcome.plan.case.name(),
        "contender": outcome.contender,
        "run": outcome.number,
        "nodes": outcome.plan.node_count,
        "file_bytes": outcome.plan.len,
        "rate_bits_per_s": outcome.plan.rate.map(crate::lab::Rate::bits_per_s),
        "goodput_bytes_per_s": outcome.goodput,
        "limit_s": limit_s,
        "server_sent_bytes": outcome.server_sent_len,
        "server_upload_f": outcome.server_upload_f(),
        "server_dropped_packets": outcome.server_dropped_count,
        "server_anonymous_bytes_max": outcome.server_anonymous_len_max,
        "cpu_s": outcome.cpu_s,
        "cpu_s_per_gib": outcome.cpu_s_per_gib(),
        "machine_cpu_s": outcome.load.busy_s,
        "machine_idle": outcome.load.idle,
        "machine_idle_before": outcome.load_before.map(|load| load.idle),
        "host_cpu_bound": outcome.load.is_cpu_bound(),
        "problems": outcome.problems,
        "results": nodes,
    })
}

/// Writes both forms; the latest always has the same name, so that a chart can find it.
pub(super) fn store(dir: &Path, outcomes: &[Outcome]) -> Result<()> {
    std::fs::write(dir.join("swarm.md"), markdown(outcomes)).context("writing swarm.md")?;
    let json = format!("{:#}\n", json(outcomes));
    std::fs::write(dir.join("swarm.json"), json).context("writing swarm.json")
}
