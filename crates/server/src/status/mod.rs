//! `boottorrent status`: services and nodes of the running server, once or as they change.

pub(crate) mod table;

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};
use std::thread;
use std::time::Duration;

use boot::{Failure, Mac, Stage};
use clap::Args;
use serde::Deserialize;

use crate::cli::OutputFormat;
use crate::client::{Client, ClientError, Target, Trust};
use crate::fleet::{Summary, UnixMs};
use crate::lab;
use crate::progress::print;
use crate::services::status::Report;

pub(crate) use table::{Table, firmware, nodes, since};

/// How often `--watch` looks: agents report each second while they download.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// Clears the screen and goes to its upper left corner (ECMA-48 ED and CUP).
const CLEAR: &str = "\x1b[H\x1b[2J";

#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Go on showing it: redrawn each second on a terminal, elsewhere a line for each change.
    #[arg(short, long)]
    watch: bool,
    /// How to print.
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: OutputFormat,
}

/// Shows the status of a server.
pub(crate) fn run(args: &StatusArgs, target: &Target) -> anyhow::Result<()> {
    if !args.watch {
        let report = ask(target)?;
        return show(&report, args.output);
    }
    match args.output {
        OutputFormat::Text if io::stdout().is_terminal() => redraw(target),
        OutputFormat::Text => follow(target),
        OutputFormat::Json => loop {
            show(&ask(target)?, OutputFormat::Json)?;
            thread::sleep(WATCH_INTERVAL);
        },
    }
}

/// The status and all nodes: through the lab's socket, and for who may not open that, through the network
/// like everybody.
pub(crate) fn ask(target: &Target) -> anyhow::Result<Report> {
    match (ask_through(&target.client()), target) {
        (Err(ClientError::NotAllowed), Target::Lab(lab)) => {
            let (configuration, _) = lab::check(lab)?;
            let base = configuration.settings.http_base().parse().map_err(anyhow::Error::msg)?;
            Ok(ask_through(&Client::remote(base, None, Trust::System))?)
        }
        (answer, _) => Ok(answer?),
    }
}

fn ask_through(client: &Client) -> Result<Report, ClientError> {
    #[derive(Deserialize)]
    struct Nodes {
        nodes: Vec<Summary>,
    }
    let status = client.get("/api/v1/status")?;
    let Nodes { nodes } = client.get("/api/v1/nodes")?;
    Ok(Report { status, nodes })
}

fn show(report: &Report, format: OutputFormat) -> anyhow::Result<()> {
    match format {
        OutputFormat::Json => print(&serde_json::to_string(report)?),
        OutputFormat::Text => {
            let text = page(report, UnixMs::now());
            let _ = write!(io::stdout().lock(), "{text}");
        }
    }
    Ok(())
}

fn redraw(target: &Target) -> anyhow::Result<()> {
    loop {
        let text = page(&ask(target)?, UnixMs::now());
        // At once, so that it does not flicker.
        let mut out = io::stdout().lock();
        let _ = write!(out, "{CLEAR}{text}").and_then(|()| out.flush());
        drop(out);
        thread::sleep(WATCH_INTERVAL);
    }
}

/// A line for each node at the beginning, then one for each change.
fn follow(target: &Target) -> anyhow::Result<()> {
    let mut known = BTreeMap::new();
    loop {
        for line in news(&ask(target)?, &mut known) {
            print(&line);
        }
        thread::sleep(WATCH_INTERVAL);
    }
}

/// What is said of the nodes that is not in `known`, which is brought up to date.
fn news(report: &Report, known: &mut BTreeMap<Mac, String>) -> Vec<String> {
    let mut lines = vec![];
    for node in &report.nodes {
        let text = node.stage_text();
        if known.insert(node.mac, text.clone()).as_ref() != Some(&text) {
            lines.push(format!("{} {text}", node.label()));
        }
    }
    lines
}

/// The whole status as text.
fn page(report: &Report, now: UnixMs) -> String {
    let status = &report.status;
    let mut page = format!(
        "BootTorrent {} serves {} on {} ({}), pid {}, up {}\n",
        status.version,
        status.lab.display(),
        status.address,
        status.interface,
        status.pid,
        since(now, status.started),
    );
    for sentence in &status.degraded {
        page.push_str(&format!("degraded: {sentence}\n"));
    }
    page.push_str(&table::services(status));
    page.push_str(&table::images(status, &report.nodes));
    for image in &status.hashing {
        page.push_str(&format!("hashing {}: {}\n", image.name, image.percent()));
    }
    page.push('\n');
    page.push_str(&nodes(&report.nodes, now));
    let mut failures: Vec<Failure> = report
        .nodes
        .iter()
        .filter_map(|node| match &node.stage {
            Some(Stage::Failed { failure, .. }) => Some(*failure),
            _ => None,
        })
        .collect();
    failures.sort_unstable();
    failures.dedup();
    for failure in failures {
        page.push_str(&format!("{failure}\n     {}\n", failure.cure()));
    }
    page
}

#[cfg(test)]
mod tests;
