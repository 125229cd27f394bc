//! `boottorrent node reboot`: has the running server tell nodes to start anew.

use std::path::Path;

use anyhow::Context;
use boot::Mac;
use clap::Args;
use serde_json::json;

use super::assign::find;
use crate::cli::OutputFormat;
use crate::lab::Lab;
use crate::progress::print;
use crate::services::control::{self, Request};
use crate::services::deeds::{Deed, Done};

#[derive(Debug, Args)]
pub(crate) struct RebootArgs {
    /// Nodes of nodes.yaml, such as c001 or c[001-100,105],login1; or one Ethernet address.
    nodes: String,
    /// How to print.
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: OutputFormat,
}

/// Those that nodes.yaml names, or the one of an Ethernet address.
pub(super) fn macs(nodes: &str, lab: &Path) -> anyhow::Result<Vec<Mac>> {
    if let Ok(mac) = nodes.parse() {
        return Ok(vec![mac]);
    }
    let settings = Lab::open(lab)?.settings;
    Ok(find(nodes, &settings)?.iter().map(|node| node.mac).collect())
}

/// Tells them.
pub(super) fn reboot(args: &RebootArgs, lab: &Path) -> anyhow::Result<()> {
    let nodes = macs(&args.nodes, lab)?;
    let answer = control::ask(lab, &Request::Perform { deed: Deed::Reboot { nodes } })?;
    let done: Done = serde_json::from_value(answer)
        .context("the running server is of another version: restart it after an update")?;
    match args.output {
        OutputFormat::Json => print(&json!(done).to_string()),
        OutputFormat::Text => {
            print(&done.text);
            for refused in done.refused {
                print(&format!("  {}: {}", refused.node, refused.reason));
            }
        }
    }
    Ok(())
}
