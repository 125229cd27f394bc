//! `boottorrent node reboot`: has the running server tell nodes to start anew.

use std::path::Path;

use boot::Mac;
use clap::Args;

use super::assign::find;
use super::{perform, tell};
use crate::cli::OutputFormat;
use crate::client::Target;
use crate::lab::Lab;

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
pub(super) fn reboot(args: &RebootArgs, target: &Target) -> anyhow::Result<()> {
    tell(&perform(&target.client(), &args.nodes, "reboot", None)?, args.output);
    Ok(())
}
