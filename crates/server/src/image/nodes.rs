//! `image nodes`: trees of their own for the nodes of a golden NFS image.

use std::collections::BTreeSet;

use anyhow::bail;
use boot::nodeset;
use clap::{Args, Subcommand};
use image::catalogue::Catalogue;
use image::kind::nfs;
use serde_json::json;

use super::{Task, exports, with_work};
use crate::cli::OutputFormat;
use crate::lab;
use crate::progress;

#[derive(Debug, Subcommand)]
pub(crate) enum NodesCommand {
    /// List the nodes that have a tree.
    List(NodesListArgs),
    /// Give nodes a tree each; those that have one keep it.
    Add(NodesArgs),
    /// Remove the trees of nodes, with all that these have written.
    Remove(NodesArgs),
}

#[derive(Debug, Args)]
pub(crate) struct NodesListArgs {
    /// The image.
    name: String,
    /// How to print.
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: OutputFormat,
}

#[derive(Debug, Args)]
pub(crate) struct NodesArgs {
    /// The image.
    name: String,
    /// Nodes of nodes.yaml, such as c[001-010],login.
    #[arg(value_name = "NODESET")]
    nodes: String,
    /// How to print.
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: OutputFormat,
}

impl NodesCommand {
    pub(super) fn output(&self) -> OutputFormat {
        match self {
            Self::List(args) => args.output,
            Self::Add(args) | Self::Remove(args) => args.output,
        }
    }
}

pub(super) fn run(command: &NodesCommand, catalogue: &Catalogue) -> anyhow::Result<()> {
    match command {
        NodesCommand::List(args) => {
            let nodes = catalogue.data(&args.name)?.nodes;
            let event = json!({"image": args.name, "nodes": nodes});
            progress::tell(args.output, &nodes.join("\n"), &event);
        }
        NodesCommand::Add(args) => {
            let nodes = nodeset::expand(&args.nodes)?;
            refuse_unknown(catalogue, &nodes)?;
            let task = Task { name: &args.name, output: args.output };
            let added =
                with_work(task, |work| nfs::add_nodes(catalogue, &args.name, &nodes, work))?;
            let event = json!({"event": "nodes-added", "image": args.name, "nodes": added});
            progress::tell(args.output, &format!("trees made: {}", added.len()), &event);
        }
        NodesCommand::Remove(args) => {
            let nodes = nodeset::expand(&args.nodes)?;
            nfs::remove_nodes(catalogue, &args.name, &nodes)?;
            let event = json!({"event": "nodes-removed", "image": args.name, "nodes": nodes});
            progress::tell(args.output, &format!("trees removed: {}", nodes.len()), &event);
        }
    }
    exports::settle(catalogue)
}

fn refuse_unknown(catalogue: &Catalogue, nodes: &[String]) -> anyhow::Result<()> {
    let settings = lab::check(catalogue.lab())?.0.settings;
    let known: BTreeSet<&str> = settings.nodes.iter().map(|node| node.name.as_str()).collect();
    let unknown: Vec<&str> =
        nodes.iter().map(String::as_str).filter(|node| !known.contains(node)).collect();
    if !unknown.is_empty() {
        bail!("nodes.yaml knows no {}: write them there first", unknown.join(", "));
    }
    Ok(())
}
