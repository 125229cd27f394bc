//! What is done with images that are there: copy, rename, resize, publish, go back, remove.

use std::io::{self, IsTerminal as _};

use anyhow::{bail, ensure};
use clap::Args;
use image::build;
use image::catalogue::Catalogue;
use image::edit;
use image::size::ImageSize;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::{Task, exports, in_use, with_work};
use crate::cli::OutputFormat;
use crate::client::Client;
use crate::progress;

#[derive(Debug, Args)]
pub(crate) struct CloneArgs {
    /// The image.
    name: String,
    /// The new name.
    new_name: String,
    /// Rename it although nodes run it or are assigned to it.
    #[arg(long)]
    force: bool,
    /// How to print.
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    pub(crate) output: OutputFormat,
}

#[derive(Debug, Args)]
pub(crate) struct RemoveArgs {
    /// The images.
    #[arg(required = true)]
    names: Vec<String>,
    /// Remove it although nodes run it or are assigned to it.
    #[arg(long)]
    force: bool,
    /// Ask nothing.
    #[arg(short, long)]
    yes: bool,
    /// How to print.
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    pub(crate) output: OutputFormat,
}

#[derive(Debug, Args)]
pub(crate) struct ResizeArgs {
    /// The image.
    name: String,
    /// The most that it may hold, unpacked: 700M, 5G, 1.5G, or auto.
    size: String,
    /// How to print.
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    pub(crate) output: OutputFormat,
}

#[derive(Debug, Args)]
pub(crate) struct SetKernelArgs {
    /// The image.
    name: String,
    /// The kernel, one of `boottorrent kernel list`.
    version: String,
    /// How to print.
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    pub(crate) output: OutputFormat,
}

#[derive(Debug, Args)]
pub(crate) struct CleanArgs {
    /// How to print.
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    pub(crate) output: OutputFormat,
}

#[derive(Debug, Args)]
pub(crate) struct PublishArgs {
    /// The image.
    name: String,
    /// What the menu of nodes shows.
    #[arg(long)]
    title: Option<String>,
    /// Words for its command line.
    #[arg(long)]
    cmdline: Option<String>,
    /// How to print.
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    pub(crate) output: OutputFormat,
}

#[derive(Debug, Args)]
pub(crate) struct RollbackArgs {
    /// The image.
    name: String,
    /// The version [default: the one before]
    #[arg(long, value_name = "VERSION")]
    to: Option<u32>,
    /// How to print.
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    pub(crate) output: OutputFormat,
}

pub(crate) fn clone(args: &CloneArgs, catalogue: &Catalogue) -> anyhow::Result<()> {
    let task = Task { name: &args.new_name, output: args.output };
    with_work(task, |work| build::clone(catalogue, &args.name, &args.new_name, work))?;
    exports::settle(catalogue)?;
    let text = format!("`{}` is a copy of `{}`", args.new_name, args.name);
    let event = json!({"event": "cloned", "image": args.new_name, "from": args.name});
    progress::tell(args.output, &text, &event);
    Ok(())
}

pub(crate) fn rename(args: &CloneArgs, catalogue: &Catalogue) -> anyhow::Result<()> {
    refuse_in_use(catalogue, &args.name, args.force)?;
    let task = Task { name: &args.new_name, output: args.output };
    with_work(task, |work| build::rename(catalogue, &args.name, &args.new_name, work))?;
    exports::settle(catalogue)?;
    let text = format!("`{}` is called `{}` now", args.name, args.new_name);
    let event = json!({"event": "renamed", "image": args.new_name, "from": args.name});
    progress::tell(args.output, &text, &event);
    Ok(())
}

pub(crate) fn remove(args: &RemoveArgs, catalogue: &Catalogue) -> anyhow::Result<()> {
    for name in &args.names {
        refuse_in_use(catalogue, name, args.force)?;
    }
    let names = args.names.join(", ");
    let asks = !args.yes && args.output == OutputFormat::Text;
    if asks && io::stdin().is_terminal() && io::stdout().is_terminal() {
        let prompt = format!("Remove {names} and all kept versions?");
        if !dialoguer::Confirm::new().with_prompt(prompt).default(false).interact()? {
            bail!("nothing was removed");
        }
    }
    for name in &args.names {
        edit::refuse_mounted(catalogue, name)?;
        catalogue.remove(name)?;
        let event = json!({"event": "removed", "image": name});
        progress::tell(args.output, &format!("`{name}` is removed"), &event);
    }
    exports::settle(catalogue)
}

fn refuse_in_use(catalogue: &Catalogue, name: &str, force: bool) -> anyhow::Result<()> {
    let users = in_use::nodes(catalogue.lab(), name);
    ensure!(
        force || users.is_empty(),
        "`{name}` is in use: {}; give those nodes another image, or insist with --force",
        users.join(", ")
    );
    Ok(())
}

pub(crate) fn resize(args: &ResizeArgs, catalogue: &Catalogue) -> anyhow::Result<()> {
    let size = match args.size.as_str() {
        "auto" => None,
        text => Some(text.parse::<ImageSize>()?),
    };
    let task = Task { name: &args.name, output: args.output };
    let version = with_work(task, |work| build::resize(catalogue, &args.name, size, work))?;
    told(args.output, &args.name, version, "resized");
    Ok(())
}

pub(crate) fn set_kernel(args: &SetKernelArgs, catalogue: &Catalogue) -> anyhow::Result<()> {
    let task = Task { name: &args.name, output: args.output };
    let version =
        with_work(task, |work| build::set_kernel(catalogue, &args.name, &args.version, work))?;
    told(args.output, &args.name, version, "on another kernel");
    Ok(())
}

pub(crate) fn publish(args: &PublishArgs, catalogue: &Catalogue) -> anyhow::Result<()> {
    let task = Task { name: &args.name, output: args.output };
    let (title, cmdline) = (args.title.clone(), args.cmdline.clone());
    let version =
        with_work(task, |work| build::publish(catalogue, &args.name, title, cmdline, work))?;
    told(args.output, &args.name, version, "published");
    Ok(())
}

pub(crate) fn rollback(args: &RollbackArgs, catalogue: &Catalogue) -> anyhow::Result<()> {
    let version = catalogue.rollback(&args.name, args.to)?;
    told(args.output, &args.name, version, "back");
    Ok(())
}

/// Has a server elsewhere publish.
pub(super) fn publish_by(client: &Client, args: &PublishArgs) -> anyhow::Result<()> {
    let body = json!({"title": args.title, "cmdline": args.cmdline});
    exchange(client, &args.name, "publish", &body, args.output)
}

/// Has a server elsewhere go back.
pub(super) fn rollback_by(client: &Client, args: &RollbackArgs) -> anyhow::Result<()> {
    exchange(client, &args.name, "rollback", &json!({"to": args.to}), args.output)
}

fn exchange(
    client: &Client,
    image: &str,
    what: &str,
    body: &Value,
    output: OutputFormat,
) -> anyhow::Result<()> {
    let image = utf8_percent_encode(image, NON_ALPHANUMERIC);
    let done: Value = client.post(&format!("/v1/images/{image}/{what}"), Some(body))?;
    progress::tell(output, done["text"].as_str().unwrap_or_default(), &done);
    Ok(())
}

/// A version has taken its place.
pub(super) fn told(output: OutputFormat, name: &str, version: u32, what: &str) {
    let event = json!({"event": "published", "image": name, "version": version});
    progress::tell(output, &format!("`{name}` is {what}: version {version}"), &event);
}
