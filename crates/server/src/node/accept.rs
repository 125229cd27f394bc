//! `boottorrent node accept`: a node that was seen gets a name in nodes.yaml.

use std::path::Path;

use anyhow::ensure;
use boot::Mac;
use clap::Args;
use serde_json::json;

use super::assign::reload;
use crate::cli::OutputFormat;
use crate::lab::Lab;
use crate::lab::config::is_label;
use crate::lab::edit;
use crate::lab::nodes_file::NodesFile;
use crate::progress::print;
use crate::services::deeds::default_name;

#[derive(Debug, Args)]
pub(crate) struct AcceptArgs {
    /// Its Ethernet address.
    mac: Mac,
    /// What it is to be called; made of its Ethernet address if not given.
    #[arg(long)]
    name: Option<String>,
    /// How to print.
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: OutputFormat,
}

/// Accepts; no server has to run, and one that does reads it at once.
pub(super) fn accept(args: &AcceptArgs, dir: &Path) -> anyhow::Result<()> {
    let name = args.name.clone().unwrap_or_else(|| default_name(args.mac));
    ensure!(is_label(&name), "`{name}` cannot name a node: use letters, digits and -, 63 at most");
    let settings = Lab::open(dir)?.settings;
    if let Some(known) = settings.nodes.iter().find(|node| node.mac == args.mac) {
        anyhow::bail!("{} is in nodes.yaml already: it is {}", args.mac, known.name);
    }
    let file = NodesFile::open(dir)?;
    let after = edit::add(file.text(), &name, &args.mac.to_string())?;
    file.replace(&after)?;
    let in_force_s = reload(dir)?;
    match args.output {
        OutputFormat::Json => {
            let value = json!({"mac": args.mac, "name": name, "in_force_s": in_force_s});
            print(&value.to_string());
        }
        OutputFormat::Text => print(&format!("{} is {name} now", args.mac)),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::test_lab::TestLab;

    #[test]
    fn a_node_is_in_the_lab_once_it_is_accepted() {
        let lab = TestLab::new();
        let accept = |mac: &str, name: Option<&str>| {
            let (mac, name) = (mac.parse().unwrap(), name.map(str::to_owned));
            accept(&AcceptArgs { mac, name, output: OutputFormat::Json }, lab.dir())
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
