//! `boottorrent node pending, accept, ignore`: what becomes of nodes that were seen and that nodes.yaml
//! does not name.

use std::path::Path;

use anyhow::ensure;
use boot::{ImageName, Mac};
use clap::Args;
use serde_json::json;

use super::assign::reload;
use super::{perform, tell};
use crate::cli::OutputFormat;
use crate::client::{Client, Target};
use crate::fleet::{Standing, UnixMs};
use crate::lab::Lab;
use crate::lab::config::is_label;
use crate::lab::edit;
use crate::lab::nodes_file::NodesFile;
use crate::progress::print;
use crate::quantity;
use crate::services::deeds::{Seen, default_name};
use crate::status::{self, Table};

#[derive(Debug, Args)]
pub(crate) struct AcceptArgs {
    /// Its Ethernet address.
    mac: Mac,
    /// What it is to be called; made of its Ethernet address if not given.
    name: Option<String>,
    /// What it boots from now on; without one it boots the default image, or gets the menu.
    #[arg(long)]
    image: Option<ImageName>,
    /// How to print.
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: OutputFormat,
    #[command(flatten)]
    _unasked: super::Unasked,
}

#[derive(Debug, Args)]
pub(crate) struct PendingArgs {
    /// Those that are ignored, too.
    #[arg(long)]
    all: bool,
    /// How to print.
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: OutputFormat,
    #[command(flatten)]
    _unasked: super::Unasked,
}

#[derive(Debug, Args)]
pub(crate) struct IgnoreArgs {
    /// Their Ethernet addresses.
    #[arg(required = true)]
    macs: Vec<Mac>,
    /// How to print.
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: OutputFormat,
    #[command(flatten)]
    _unasked: super::Unasked,
}

/// Those that the running server has seen, those that wait first.
pub(super) fn pending(args: &PendingArgs, target: &Target) -> anyhow::Result<()> {
    let mut nodes = status::ask(target)?.nodes;
    nodes.retain(|node| match node.standing {
        Standing::Pending | Standing::Waiting => true,
        Standing::Ignored => args.all,
        Standing::Known => false,
    });
    nodes.sort_by_key(|node| (node.standing.urgency(), node.mac));
    match args.output {
        OutputFormat::Json => print(&json!({ "nodes": nodes }).to_string()),
        OutputFormat::Text if nodes.is_empty() => print("no unknown node has been seen"),
        OutputFormat::Text => {
            let now = UnixMs::now();
            let heads = ["MAC", "STANDING", "SEEN", "ADDRESS", "STAGE", "UUID"];
            let mut table = Table::new(heads);
            for node in nodes {
                let address = node.address.map(|address| address.to_string());
                table.push([
                    node.mac.to_string(),
                    node.standing.name().to_owned(),
                    format!("{} ago", status::since(now, node.seen)),
                    address.unwrap_or_default(),
                    node.stage_text(),
                    node.uuid.unwrap_or_default(),
                ]);
            }
            print(table.text().trim_end());
        }
    }
    Ok(())
}

/// Ignores; no server has to run, and one that does reads it at once.
pub(super) fn ignore(args: &IgnoreArgs, target: &Target) -> anyhow::Result<()> {
    let dir = match target {
        Target::Lab(dir) => dir.as_path(),
        Target::Server(client) => {
            let macs: Vec<String> = args.macs.iter().map(Mac::to_string).collect();
            tell(&perform(client, &macs.join(","), "ignore", None)?, args.output);
            return Ok(());
        }
    };
    let settings = Lab::open(dir)?.settings;
    if let Some(node) = settings.nodes.iter().find(|node| args.macs.contains(&node.mac)) {
        let (mac, name) = (node.mac, &node.name);
        anyhow::bail!(
            "{mac} is {name} in nodes.yaml: `boottorrent node assign {name} --disk` leaves it to its disk"
        );
    }
    let file = NodesFile::open(dir)?;
    let ignored = |text: String, mac: &Mac| edit::ignore(&text, &mac.to_string());
    let after = args.macs.iter().try_fold(file.text().to_owned(), ignored)?;
    file.replace(&after)?;
    let in_force_s = reload(dir)?;
    match args.output {
        OutputFormat::Json => {
            print(&json!({"ignored": args.macs, "in_force_s": in_force_s}).to_string());
        }
        OutputFormat::Text => {
            print(&format!("{} ignored", quantity::count(args.macs.len(), "node")));
        }
    }
    Ok(())
}

/// Accepts; no server has to run, and one that does reads it at once.
pub(super) fn accept(args: &AcceptArgs, target: &Target) -> anyhow::Result<()> {
    let dir = match target {
        Target::Lab(dir) => dir.as_path(),
        Target::Server(client) => {
            let body = json!({"name": args.name, "image": args.image});
            let mac = args.mac.to_string();
            tell(&perform(client, &mac, "accept", Some(&body))?, args.output);
            return Ok(());
        }
    };
    let name = args.name.clone().unwrap_or_else(|| default_name(args.mac));
    ensure!(is_label(&name), "`{name}` cannot name a node: use letters, digits and -, 63 at most");
    let settings = Lab::open(dir)?.settings;
    if let Some(known) = settings.nodes.iter().find(|node| node.mac == args.mac) {
        anyhow::bail!("{} is in nodes.yaml already: it is {}", args.mac, known.name);
    }
    let file = NodesFile::open(dir)?;
    let image = args.image.as_ref().map(ImageName::as_str);
    let Seen { uuid, arch } = seen(args.mac, dir);
    let keys = [("image", image), ("uuid", uuid.as_deref()), ("arch", arch)];
    let after = edit::accept(file.text(), &name, &args.mac.to_string(), &keys)?;
    file.replace(&after)?;
    let in_force_s = reload(dir)?;
    match args.output {
        OutputFormat::Json => {
            let value = json!({
                "mac": args.mac, "name": name, "image": args.image, "in_force_s": in_force_s
            });
            print(&value.to_string());
        }
        OutputFormat::Text => print(&format!("{} is {name} now", args.mac)),
    }
    Ok(())
}

/// What a running server has seen of it; without one nothing is known.
fn seen(mac: Mac, dir: &Path) -> Seen {
    let node = super::ask(&Client::of_lab(dir.to_owned()), &mac.to_string()).ok();
    node.map(|node| Seen::of(&node.summary)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::test_lab::TestLab;

    #[test]
    fn who_is_ignored_is_so_once_and_is_no_node_of_the_lab() {
        let lab = TestLab::new();
        lab.put("nodes.yaml", "nodes:\n  c001: {mac: 52:54:00:00:00:01}\n");
        let ignore = |macs: &[&str]| {
            let macs = macs.iter().map(|mac| mac.parse().unwrap()).collect();
            ignore(
                &IgnoreArgs { macs, output: OutputFormat::Json, _unasked: Default::default() },
                &lab.target(),
            )
        };
        ignore(&["525400000007", "525400000008"]).unwrap();
        ignore(&["525400000007"]).unwrap();
        let ignored = Lab::open(lab.dir()).unwrap().settings.ignored;
        assert_eq!(ignored.len(), 2);
        let error = ignore(&["525400000001"]).unwrap_err().to_string();
        assert!(error.contains("assign c001 --disk"), "{error}");
    }

    #[test]
    fn a_node_is_in_the_lab_once_it_is_accepted() {
        let lab = TestLab::new();
        let accept = |mac: &str, name: Option<&str>| {
            let (mac, name, image) = (mac.parse().unwrap(), name.map(str::to_owned), None);
            accept(
                &AcceptArgs {
                    mac,
                    name,
                    image,
                    output: OutputFormat::Json,
                    _unasked: Default::default(),
                },
                &lab.target(),
            )
        };
        accept("525400000001", Some("c001")).unwrap();
        accept("525400000002", None).unwrap();
        let nodes = Lab::open(lab.dir()).unwrap().settings.nodes;
        let names: Vec<&str> = nodes.iter().map(|node| node.name.as_str()).collect();
        assert_eq!(names, ["n-525400000002", "c001"]);
        for (mac, name) in [("525400000001", "x"), ("525400000003", "c001"), ("525400000003", "-")]
        {
            assert!(accept(mac, Some(name)).is_err(), "{mac} {name}");
        }
    }
}
