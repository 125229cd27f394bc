//! `boottorrent why NODE`: the timeline of its last boot, and why it waits or failed, in plain words.

use clap::Args;
use serde_json::{Value, json};

use crate::cli::OutputFormat;
use crate::client::Target;
use crate::fleet::{self, Node, Step, UnixMs, Why};
use crate::node;
use crate::progress::print;
use crate::quantity;
use crate::status::since;

/// Cells of the longest bar: it fits on a terminal of 80 beside the words.
const BAR_LEN: u64 = 32;

#[derive(Debug, Args)]
pub(crate) struct WhyArgs {
    /// The node's name or Ethernet address.
    node: String,
    /// How to print.
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: OutputFormat,
}

/// Asks a server.
pub(crate) fn run(args: &WhyArgs, target: &Target) -> anyhow::Result<()> {
    let node = node::ask(&target.client(), &args.node)?;
    let now = UnixMs::now();
    match args.output {
        OutputFormat::Text => print(page(&node, now).trim_end()),
        OutputFormat::Json => print(&object(&node, now).to_string()),
    }
    Ok(())
}

fn object(node: &Node, now: UnixMs) -> Value {
    let Why { headline, waits_for, is_late, cure } = fleet::why(&node.summary, now);
    let timeline: Vec<Value> = fleet::durations(&node.steps)
        .into_iter()
        .map(|(step, took_ms)| {
            json!({
                "stage": step.stage.as_str(),
                "unix_ms": step.at.0,
                "took_ms": took_ms,
                "failure": step.failure.map(boot::Failure::code),
            })
        })
        .collect();
    json!({
        "mac": node.summary.mac,
        "name": node.summary.name,
        "headline": headline,
        "waits_for": waits_for,
        "is_late": is_late,
        "cure": cure,
        "timeline": timeline,
        "hearsay": node.heard,
    })
}

fn page(node: &Node, now: UnixMs) -> String {
    let why = fleet::why(&node.summary, now);
    let mut text = format!("{}: {}\n", node.label(), why.headline);
    if let Some(waits_for) = &why.waits_for {
        let is_failed = matches!(node.summary.stage, Some(boot::Stage::Failed { .. }));
        let late =
            if why.is_late && !is_failed { " (longer than in a boot that goes well)" } else { "" };
        text.push_str(&format!("  waits for  {waits_for}{late}\n"));
    }
    if let Some(cure) = &why.cure {
        text.push_str(&format!("  to do      {cure}\n"));
    }
    if let Some(last) = &node.summary.last_failure
        && why.cure.is_none()
    {
        let ago = since(now, last.at);
        text.push_str(&format!("  failed     {}, {ago} ago: {}\n", last.failure, last.reason));
    }
    if let Some(heard) = &node.heard {
        text.push_str(&format!(
            "  hearsay    {}, {} ago\n",
            heard.sentence(),
            since(now, heard.at)
        ));
    }
    let steps = fleet::durations(&node.steps);
    if let Some((first, _)) = steps.first() {
        let began = since(now, first.at);
        text.push_str(&format!("timeline of the last boot, which began {began} ago\n"));
        text.push_str(&timeline(&steps, now));
    }
    text
}

/// A line for each step: how long after the first, which stage, how long it lasted, and that as a bar.
fn timeline(steps: &[(Step, Option<u64>)], now: UnixMs) -> String {
    let Some((first, _)) = steps.first() else {
        return String::new();
    };
    let took = |(step, took_ms): &(Step, Option<u64>)| match took_ms {
        Some(took_ms) => *took_ms,
        None if step.stage.as_str() == "booted" => 0,
        None => now.since(step.at),
    };
    let longest = steps.iter().map(took).max().unwrap_or(0).max(1);
    let mut text = String::new();
    for step in steps {
        let ms = took(step);
        let (step, took_ms) = step;
        let after = quantity::duration(std::time::Duration::from_millis(step.at.since(first.at)));
        let lasted = match took_ms {
            None if ms == 0 => String::new(),
            None => format!("{} so far", quantity::duration(std::time::Duration::from_millis(ms))),
            Some(_) => quantity::duration(std::time::Duration::from_millis(ms)),
        };
        let bar = "#".repeat(usize::try_from(ms * BAR_LEN / longest).unwrap_or(0));
        let code = step.failure.map(|failure| format!(" {}", failure.code())).unwrap_or_default();
        let word = format!("{}{code}", step.stage.as_str());
        let line = format!("  +{after:<12} {word:<14} {lasted:<18} {bar}");
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_waits_says_for_what_and_how_it_came_there() {
        let node: Node = serde_json::from_value(json!({
            "mac": "52:54:00:00:00:01", "name": "c001", "stage": "offered",
            "since_unix_ms": 2000, "seen_unix_ms": 2000, "boot_unix_ms": 1000, "boot_count": 1,
            "last_failure": {"unix_ms": 500, "failure": "BT12", "reason": "eth0"},
            "steps": [{"unix_ms": 1000, "stage": "discovered"}, {"unix_ms": 2000, "stage": "offered"}]
        }))
        .unwrap();
        let expect = "\
c001: offered, for 4 s
  waits for  its firmware to fetch the boot program that the answer names
  failed     BT12 no interface has a carrier, 5 s ago: eth0
timeline of the last boot, which began 5 s ago
  +0.0 s        discovered     1.0 s              ########
  +1.0 s        offered        4.0 s so far       ################################
";
        assert_eq!(page(&node, UnixMs(6000)), expect);
        assert_eq!(object(&node, UnixMs(6000))["timeline"][0]["took_ms"], 1000);
    }
}
