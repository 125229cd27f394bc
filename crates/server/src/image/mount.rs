//! `image mount` and `image unmount`.

use std::process::{Command, ExitCode};

use anyhow::Context as _;
use clap::Args;
use image::catalogue::Catalogue;
use image::edit;
use serde_json::json;

use super::{Task, change, with_work};
use crate::cli::OutputFormat;
use crate::progress;

#[derive(Debug, Args)]
pub(crate) struct MountArgs {
    /// The image.
    name: String,
    /// Run a shell in it.
    #[arg(long)]
    shell: bool,
    /// A command to run in it, and its arguments: its exit status becomes ours.
    #[arg(last = true, conflicts_with = "shell")]
    command: Vec<String>,
    /// How to print.
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    pub(crate) output: OutputFormat,
}

#[derive(Debug, Args)]
pub(crate) struct UnmountArgs {
    /// The image.
    name: String,
    /// Throw away what was changed.
    #[arg(long)]
    discard: bool,
    /// How to print.
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    pub(crate) output: OutputFormat,
}

pub(crate) fn mount(args: &MountArgs, catalogue: &Catalogue) -> anyhow::Result<ExitCode> {
    let task = Task { name: &args.name, output: args.output };
    let mounted = with_work(task, |work| edit::mount(catalogue, &args.name, work))?;
    let (root, inventory) = (mounted.root.display(), mounted.inventory.display());
    let text = format!(
        "`{name}` is at {root}\n  Ansible: ansible-playbook -i {inventory} PLAYBOOK\n  \
         when done: boottorrent image unmount {name}",
        name = args.name
    );
    let event = json!({
        "event": "mounted", "image": args.name, "root": mounted.root,
        "inventory": mounted.inventory,
    });
    progress::tell(args.output, &text, &event);
    let command: Vec<&str> = match args.shell {
        true => vec!["/bin/sh"],
        false => args.command.iter().map(String::as_str).collect(),
    };
    if command.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    let mut chroot = Command::new("chroot");
    // What is in the image must not depend on who edits it.
    chroot.arg(&mounted.root).args(&command).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    chroot.env("HOME", "/root").env("LC_ALL", "C.UTF-8");
    let status = chroot.status().with_context(|| format!("cannot run chroot {root}"))?;
    let code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX);
    Ok(ExitCode::from(code))
}

pub(crate) fn unmount(args: &UnmountArgs, catalogue: &Catalogue) -> anyhow::Result<()> {
    let task = Task { name: &args.name, output: args.output };
    let version = with_work(task, |work| edit::unmount(catalogue, &args.name, args.discard, work))?;
    match version {
        Some(version) => change::told(args.output, &args.name, version, "published"),
        None => {
            let event = json!({"event": "unmounted", "image": args.name});
            progress::tell(args.output, &format!("`{}` is unmounted", args.name), &event);
        }
    }
    Ok(())
}
