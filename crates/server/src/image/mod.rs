//! `boottorrent image`: images from nothing to what nodes boot, and back.

mod create;
mod questions;

mod list;

mod change;
mod mount;
mod nodes;

mod exports;
mod in_use;
mod owner;
mod work;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use ::image::catalogue::Catalogue;
use anyhow::{Context as _, ensure};
use clap::Subcommand;
use serde_json::json;

use crate::cli::OutputFormat;
use crate::client::Target;
use crate::progress;

pub(crate) use work::{Task, with_work};

#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// List all images: CREATED, IN_CREATION with the process that builds, or CORRUPTED.
    List(list::ListArgs),
    /// Show all that is known of an image.
    Show(list::ShowArgs),
    /// Make an image: from packages, a folder, an archive, a squashfs or a container image. On a
    /// terminal it asks for what was not said.
    Create(Box<create::CreateArgs>),
    /// Make a copy of an image under another name.
    Clone(change::CloneArgs),
    /// Remove an image and its kept versions.
    Remove(change::RemoveArgs),
    /// Give an image another name.
    Rename(change::CloneArgs),
    /// Give a live image another size.
    Resize(change::ResizeArgs),
    /// Lay an image's tree open, and run a shell or a command in it.
    Mount(mount::MountArgs),
    /// Close an image that was laid open: what was changed becomes its new version.
    Unmount(mount::UnmountArgs),
    /// Have an image run on another kernel.
    SetKernel(change::SetKernelArgs),
    /// Remove what killed builds have left behind; every command does so first.
    Clean(change::CleanArgs),
    /// Publish an image anew, with another title or command line.
    Publish(change::PublishArgs),
    /// Go back to a version that was kept, at once.
    Rollback(change::RollbackArgs),
    /// The nodes of a golden NFS image, each of which has a tree of its own.
    #[command(subcommand)]
    Nodes(nodes::NodesCommand),
}

/// Does what was asked for, with the images of a lab.
pub(crate) fn run(command: &ImageCommand, target: &Target) -> anyhow::Result<ExitCode> {
    let dir = match (target, command) {
        (Target::Server(client), ImageCommand::List(args)) => {
            return list::list_by(client, args).map(|()| ExitCode::SUCCESS);
        }
        (Target::Server(client), ImageCommand::Rollback(args)) => {
            return change::rollback_by(client, args).map(|()| ExitCode::SUCCESS);
        }
        (Target::Server(client), ImageCommand::Publish(args)) => {
            return change::publish_by(client, args).map(|()| ExitCode::SUCCESS);
        }
        (target, _) => target.lab()?,
    };
    let output = command.output();
    let result = catalogue(dir).and_then(|catalogue| {
        crate::state::make_folder(catalogue.lab())?;
        for name in clean(&catalogue)? {
            let text = format!("removed what a killed build of `{name}` had left behind");
            progress::tell(output, &text, &json!({"event": "cleaned", "image": name}));
        }
        match command {
            ImageCommand::List(args) => list::list(args, &catalogue),
            ImageCommand::Show(args) => list::show(args, &catalogue),
            ImageCommand::Create(args) => create::run(args, &catalogue),
            ImageCommand::Clone(args) => change::clone(args, &catalogue),
            ImageCommand::Remove(args) => change::remove(args, &catalogue),
            ImageCommand::Rename(args) => change::rename(args, &catalogue),
            ImageCommand::Resize(args) => change::resize(args, &catalogue),
            ImageCommand::Mount(args) => return mount::mount(args, &catalogue),
            ImageCommand::Unmount(args) => mount::unmount(args, &catalogue),
            ImageCommand::SetKernel(args) => change::set_kernel(args, &catalogue),
            ImageCommand::Clean(_) => Ok(()),
            ImageCommand::Publish(args) => change::publish(args, &catalogue),
            ImageCommand::Rollback(args) => change::rollback(args, &catalogue),
            ImageCommand::Nodes(command) => nodes::run(command, &catalogue),
        }
        .map(|()| ExitCode::SUCCESS)
    });
    // Also if it failed: what it had done by then is whole.
    let settled = lab_dir(dir).and_then(|lab| {
        owner::settle(&lab).with_context(|| format!("giving {} to its owner", lab.display()))
    });
    let result = result.and_then(|code| settled.map(|()| code));
    if let (Err(error), OutputFormat::Json) = (&result, output) {
        progress::print(&json!({"event": "error", "message": format!("{error:#}")}).to_string());
    }
    result
}

/// Cleans what may be cleaned. Who may only read still gets a list.
fn clean(catalogue: &Catalogue) -> anyhow::Result<Vec<String>> {
    match catalogue.state().join("installations.yml").exists() {
        true => Ok(catalogue.clean()?),
        false => Ok(vec![]),
    }
}

/// The images of the lab in `dir`.
///
/// # Errors
/// If there is no lab.
pub(crate) fn catalogue(dir: &Path) -> anyhow::Result<Catalogue> {
    Ok(Catalogue::new(&lab_dir(dir)?))
}

/// The absolute path of the lab.
pub(crate) fn lab_dir(dir: &Path) -> anyhow::Result<PathBuf> {
    let absolute = std::path::absolute(dir).context("cannot find the current folder")?;
    ensure!(
        absolute.join("Boottorrent.yaml").is_file(),
        "no Boottorrent.yaml in {}: run this in a lab, name one with -C DIR, or make one with \
         `boottorrent init DIR`",
        absolute.display()
    );
    Ok(absolute)
}

impl ImageCommand {
    fn output(&self) -> OutputFormat {
        match self {
            Self::List(args) => args.output,
            Self::Show(args) => args.output,
            Self::Create(args) => args.output,
            Self::Clone(args) | Self::Rename(args) => args.output,
            Self::Remove(args) => args.output,
            Self::Resize(args) => args.output,
            Self::Mount(args) => args.output,
            Self::Unmount(args) => args.output,
            Self::SetKernel(args) => args.output,
            Self::Clean(args) => args.output,
            Self::Publish(args) => args.output,
            Self::Rollback(args) => args.output,
            Self::Nodes(command) => command.output(),
        }
    }
}
