//! `boottorrent node reboot`: has the running server tell nodes to start anew.

use clap::Args;

use super::{perform, tell};
use crate::cli::OutputFormat;
use crate::client::Target;

#[derive(Debug, Args)]
pub(crate) struct RebootArgs {
    /// Nodes of nodes.yaml, such as c001 or c[001-100,105],login1; or one Ethernet address.
    nodes: String,
    /// How to print.
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: OutputFormat,
    #[command(flatten)]
    _unasked: super::Unasked,
}

/// Tells them.
pub(super) fn reboot(args: &RebootArgs, target: &Target) -> anyhow::Result<()> {
    tell(&perform(&target.client(), &args.nodes, "reboot", None)?, args.output);
    Ok(())
}
