//! `boottorrent node`: nodes one by one, and what they boot.

mod accept;
mod assign;
mod help;
pub(crate) mod power;
mod reboot;
pub(crate) mod wake;

use std::collections::BTreeMap;
use std::path::Path;

use boot::help::What;
use boot::{Mac, Stage, nodeset};
use clap::{Args, Subcommand};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use crate::cli::OutputFormat;
use crate::client::{Client, ClientError, Target};
use crate::fleet::{Node, UnixMs};
use crate::http::DoneView;
use crate::lab::Lab;
use crate::lab::settings::BootFrom;
use crate::progress::print;
use crate::quantity;
use crate::status::{self, since};

#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// List the nodes that the configuration names or that have been seen.
    List(ListArgs),
    /// Decide what nodes boot: written into nodes.yaml, and in force at once if the server runs.
    Assign(assign::AssignArgs),
    /// Take that back: they boot their group's image, or get the menu.
    Unassign(assign::UnassignArgs),
    /// Switch nodes on through their network cards (wake-on-LAN).
    Wake(wake::WakeArgs),
    /// Switch nodes on or off, or ask whether they are on, by the command that the lab names for it.
    Power(power::PowerArgs),
    /// Have nodes start anew, if something of BootTorrent runs on them.
    Reboot(reboot::RebootArgs),
    /// List nodes that have been seen and are not in nodes.yaml.
    Pending(accept::PendingArgs),
    /// Take a node that is not in nodes.yaml into it.
    Accept(accept::AcceptArgs),
    /// Leave nodes that are not in nodes.yaml alone from now on.
    Ignore(accept::IgnoreArgs),
    /// Show the log of a node that is in phase 1, as the node itself has it.
    Log(help::HelpArgs),
    /// Show what stands on the screen of a node that is in phase 1.
    Screen(help::HelpArgs),
    /// Show all that is known of a node: its stage, machine, events, log and past boots.
    Show(ShowArgs),
}

/// What scripts say to every command of `node`, since some of them ask.
#[derive(Debug, Default, Args)]
struct Unasked {
    /// Do not ask; nothing is asked here.
    #[arg(id = "yes", short = 'y', long = "yes", hide = true)]
    _yes: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// What nodes.yaml has them boot, a line for each image; no server has to run.
    #[arg(long)]
    by_image: bool,
    /// How to print.
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: OutputFormat,
    #[command(flatten)]
    _unasked: Unasked,
}

#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// Its name, or its Ethernet address.
    #[arg(value_name = "NAME|MAC")]
    node: String,
    /// How to print.
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: OutputFormat,
    #[command(flatten)]
    _unasked: Unasked,
}

/// Does what was asked for.
pub(crate) fn run(command: &NodeCommand, target: &Target) -> anyhow::Result<()> {
    match command {
        NodeCommand::List(args) => list(args, target),
        NodeCommand::Show(args) => show(args, target),
        NodeCommand::Assign(args) => assign::assign(args, target),
        NodeCommand::Unassign(args) => assign::unassign(args, target),
        NodeCommand::Wake(args) => wake::wake(args, target),
        NodeCommand::Power(args) => power::power(args, target),
        NodeCommand::Reboot(args) => reboot::reboot(args, target),
        NodeCommand::Pending(args) => accept::pending(args, target),
        NodeCommand::Accept(args) => accept::accept(args, target),
        NodeCommand::Ignore(args) => accept::ignore(args, target),
        NodeCommand::Log(args) => help::run(args, target.lab()?, What::Log),
        NodeCommand::Screen(args) => help::run(args, target.lab()?, What::Screen),
    }
}

/// All that a server knows of a node, by its name or Ethernet address.
pub(crate) fn ask(client: &Client, which: &str) -> Result<Node, ClientError> {
    client.get(&path("/api/v1/nodes", which, ""))
}

/// Has a server do something with nodes: `what` is the last part of the path.
fn perform(
    client: &Client,
    nodes: &str,
    what: &str,
    body: Option<&Value>,
) -> Result<DoneView, ClientError> {
    client.post(&path("/v1/nodes", nodes, &format!("/{what}")), body)
}

/// The path of a node or a set of them.
fn path(begin: &str, nodes: &str, end: &str) -> String {
    let nodes = utf8_percent_encode(nodes, NON_ALPHANUMERIC);
    format!("{begin}/{nodes}{end}")
}

/// Those that nodes.yaml names, or the one of an Ethernet address.
fn macs(nodes: &str, lab: &Path) -> anyhow::Result<Vec<Mac>> {
    if let Ok(mac) = nodes.parse() {
        return Ok(vec![mac]);
    }
    let settings = Lab::open(lab)?.settings;
    Ok(assign::find(nodes, &settings)?.iter().map(|node| node.mac).collect())
}

/// Says what came of it.
fn tell(done: &DoneView, output: OutputFormat) {
    match output {
        OutputFormat::Json => print(&json!(done).to_string()),
        OutputFormat::Text => {
            print(&done.text);
            for refused in &done.refused {
                print(&format!("  {}: {}", refused.label(), refused.reason));
            }
        }
    }
}

fn list(args: &ListArgs, target: &Target) -> anyhow::Result<()> {
    if args.by_image {
        return by_image(args, target.lab()?);
    }
    let report = status::ask(target)?;
    match args.output {
        OutputFormat::Json => print(&json!({"nodes": report.nodes}).to_string()),
        OutputFormat::Text => {
            print(status::nodes(&report.nodes, UnixMs::now()).trim_end());
        }
    }
    Ok(())
}

/// The nodes of nodes.yaml by what they boot.
fn by_image(args: &ListArgs, lab: &Path) -> anyhow::Result<()> {
    let settings = Lab::open(lab)?.settings;
    let mut groups: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for node in &settings.nodes {
        let what = match (&node.image, node.boot) {
            (_, BootFrom::Disk) => "(disk)".to_owned(),
            (Some(image), BootFrom::Image) => image.to_string(),
            (Some(image), BootFrom::Classic) => format!("{image} (classic)"),
            (None, BootFrom::Classic) => "(default, classic)".to_owned(),
            (None, BootFrom::Image) => "(menu)".to_owned(),
        };
        groups.entry(what).or_default().push(&node.name);
    }
    match args.output {
        OutputFormat::Json => print(&json!({"images": groups}).to_string()),
        OutputFormat::Text => {
            let mut table = status::Table::new(["IMAGE", "NODES"]);
            for (what, names) in groups {
                table.push([what, nodeset::fold(names)]);
            }
            print(table.text().trim_end());
        }
    }
    Ok(())
}

fn show(args: &ShowArgs, target: &Target) -> anyhow::Result<()> {
    let client = target.client();
    match args.output {
        OutputFormat::Json => {
            // Also what this program does not know of it.
            let node: Value = client.get(&path("/api/v1/nodes", &args.node, ""))?;
            print(&node.to_string());
        }
        OutputFormat::Text => {
            print(page(&ask(&client, &args.node)?, UnixMs::now()).trim_end());
        }
    }
    Ok(())
}

/// A node as text.
fn page(node: &Node, now: UnixMs) -> String {
    let summary = &node.summary;
    let mut lines = vec![match &summary.name {
        Some(name) => format!("{name} ({})", summary.mac),
        None => summary.mac.to_string(),
    }];
    let mut field = |name: &str, value: String| lines.push(format!("  {name:<10} {value}"));
    let age = since(now, summary.since);
    match &summary.stage {
        None => field("stage", "never seen".to_owned()),
        Some(Stage::Failed { failure, reason, retry_in_s }) => {
            field("stage", format!("failed, for {age}; it tries again in {retry_in_s} s"));
            field("failure", failure.to_string());
            field("reason", reason.clone());
            field("cure", failure.cure().to_owned());
        }
        Some(stage) => {
            let text = summary.stage_text();
            field("stage", format!("{text}, for {age}"));
            if let Stage::Downloading(progress) = stage {
                let (done, total) = (progress.verified_bytes, progress.total_bytes);
                let rate = quantity::rate(progress.rate_bytes_per_s as f64);
                let peers = quantity::count(progress.peers as usize, "peer");
                let (done, total) = (quantity::bytes(done), quantity::bytes(total));
                field("download", format!("{done} of {total}, {rate}, {peers}"));
            }
        }
    }
    if let (false, standing) = (summary.known, summary.standing) {
        field("standing", format!("{}: nodes.yaml does not name it", standing.name()));
    }
    if let Some(address) = summary.address {
        field("address", address.to_string());
    }
    if let Some(firmware) = summary.firmware {
        field("firmware", status::firmware(firmware).to_owned());
    }
    if let Some(uuid) = &summary.uuid {
        field("uuid", uuid.clone());
    }
    if summary.boot_count > 0 {
        let seen = since(now, summary.seen);
        let began = since(now, summary.boot_began);
        field("seen", format!("{seen} ago; boot {} began {began} ago", summary.boot_count));
        field("uploads", quantity::bytes(summary.uploads));
    }
    if let Some(heard) = &node.heard {
        field("hearsay", format!("{}, {} ago", heard.sentence(), since(now, heard.at)));
    }
    machine(node, &mut field);
    sections(node, now, &mut lines);
    lines.join("\n") + "\n"
}

fn machine(node: &Node, field: &mut impl FnMut(&str, String)) {
    let Some(machine) = &node.summary.machine else {
        return;
    };
    let memory = quantity::bytes(machine.memory_bytes);
    let processors = quantity::count(machine.processors as usize, "processor");
    let processor = node.hardware.processor.as_ref().map(|name| format!(" ({name})"));
    field("machine", format!("{processors}{}, {memory} of memory", processor.unwrap_or_default()));
    for (name, value) in [("product", &machine.product), ("serial", &machine.serial_number)] {
        if let Some(value) = value {
            field(name, value.clone());
        }
    }
    for disk in &node.hardware.disks {
        let model = disk.model.as_ref().map(|model| format!(", {model}")).unwrap_or_default();
        field("disk", format!("{}, {}{model}", disk.name, quantity::bytes(disk.len_bytes)));
    }
    for card in &node.hardware.cards {
        let driver = card.driver.as_ref().map(|driver| format!(" ({driver})"));
        let speed = card.mbit_per_s.map(|speed| format!(", {speed} Mbit/s"));
        let (driver, speed) = (driver.unwrap_or_default(), speed.unwrap_or_default());
        field("card", format!("{}{driver}, {}{speed}", card.name, card.mac));
    }
    field("kernel", machine.kernel.clone());
    field("agent", machine.agent.clone());
    if let Some(interface) = &machine.interface {
        let driver = machine.driver.as_deref().unwrap_or("unknown driver");
        field("interface", format!("{interface} ({driver})"));
    }
}

fn sections(node: &Node, now: UnixMs, lines: &mut Vec<String>) {
    if !node.events.is_empty() {
        lines.push("events".to_owned());
    }
    for entry in &node.events {
        let times =
            if entry.count > 1 { format!(" ({} times)", entry.count) } else { String::new() };
        lines.push(format!("  {:>12} ago  {}{times}", since(now, entry.at), entry.text));
    }
    if !node.past.is_empty() {
        lines.push("boots before".to_owned());
    }
    for boot in &node.past {
        let image = boot.image.as_ref().map(|image| format!(" {image}")).unwrap_or_default();
        let failure = boot.failure.map(|failure| format!(" {failure}")).unwrap_or_default();
        let took = boot.took_ms as f64 / 1000.0;
        let ago = since(now, boot.began);
        lines.push(format!("  {ago:>12} ago  {}{image}{failure} after {took:.1} s", boot.stage));
    }
    if !node.log.is_empty() {
        lines.push("log of the agent".to_owned());
    }
    lines.extend(node.log.iter().map(|line| format!("  {line}")));
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(subcommand)]
        _command: NodeCommand,
    }

    #[test]
    fn every_command_takes_the_yes_of_a_script() {
        for line in [
            "list",
            "assign c1 debian",
            "unassign c1",
            "wake c1",
            "power on c1",
            "reboot c1",
            "pending",
            "accept 525400000001",
            "ignore 525400000001",
            "log c1",
            "screen c1",
            "show c1",
        ] {
            for yes in ["-y", "--yes"] {
                let words = ["node"].into_iter().chain(line.split(' ')).chain([yes]);
                assert!(Cli::try_parse_from(words).is_ok(), "{line} {yes}");
            }
        }
    }

    #[test]
    fn a_node_that_failed_is_shown_with_the_cure() {
        let node: Node = serde_json::from_value(json!({
            "mac": "52:54:00:00:00:01", "name": "c001", "known": true, "address": "10.0.0.50", "firmware": "uefi",
            "stage": "failed", "failure": "BT21", "reason": "nobody answered on eth0",
            "retry_in_s": 4, "since_unix_ms": 1000, "seen_unix_ms": 5000, "boot_unix_ms": 0,
            "boot_count": 2, "uploads_bytes": 0,
            "machine": {
                "arch": "x86_64", "firmware": "uefi", "memory_bytes": 1_000_000_000_u64,
                "processors": 2, "interface": "eth0", "driver": "e1000e", "agent": "0.1.0",
                "kernel": "6.1.0-40-amd64", "product": "ACME Rocket", "serial_number": "CZC1234"
            },
            "hardware": {
                "processor": "Abacus 3000",
                "disks": [{"name": "sda", "len_bytes": 512_000_000_000_u64, "model": "Drum"}],
                "cards": [{"name": "eth0", "mac": "52:54:00:00:00:01", "driver": "e1000e",
                           "mbit_per_s": 1000}]
            },
            "events": [{"unix_ms": 1000, "text": "BT21: nobody answered on eth0", "count": 3}],
            "past": [{"unix_ms": 0, "took_ms": 1500, "stage": "booted", "image": "debian",
                      "failure": null}],
            "log": ["a line"]
        }))
        .unwrap();
        let expect = "\
c001 (52:54:00:00:00:01)
  stage      failed, for 5 s; it tries again in 4 s
  failure    BT21 no DHCP server answered
  reason     nobody answered on eth0
  cure       check that `boottorrent start` or the network's DHCP server runs, and that its range is not exhausted (`boottorrent status`)
  address    10.0.0.50
  firmware   uefi
  seen       1 s ago; boot 2 began 6 s ago
  uploads    0 B
  machine    2 processors (Abacus 3000), 1.00 GB of memory
  product    ACME Rocket
  serial     CZC1234
  disk       sda, 512 GB, Drum
  card       eth0 (e1000e), 52:54:00:00:00:01, 1000 Mbit/s
  kernel     6.1.0-40-amd64
  agent      0.1.0
  interface  eth0 (e1000e)
events
           5 s ago  BT21: nobody answered on eth0 (3 times)
boots before
           6 s ago  booted debian after 1.5 s
log of the agent
  a line
";
        assert_eq!(page(&node, UnixMs(6000)), expect);
    }
}
