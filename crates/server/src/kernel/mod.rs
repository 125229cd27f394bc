//! `boottorrent kernel`: the kernels that images run on.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use image::catalogue::Catalogue;
use image::kernels::{self, Origin};
use image::kind::{livenet, nfs};
use image::phase1::{self, KernelVersion};
use serde_json::{Value, json};

use crate::cli::OutputFormat;
use crate::image::{Task, catalogue, with_work};
use crate::progress;
use crate::status::Table;

#[derive(Debug, Subcommand)]
pub(crate) enum KernelCommand {
    /// List the lab's kernels and those that are installed, and whether there is a phase 1 of each.
    List(KernelListArgs),
    /// Take a kernel into the lab: an installed one, that of a package, or that of an image.
    Add(AddArgs),
    /// Remove a kernel of the lab that no image runs on.
    Remove(RemoveArgs),
}

#[derive(Debug, Args)]
pub(crate) struct KernelListArgs {
    /// How to print.
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: OutputFormat,
}

#[derive(Debug, Args)]
pub(crate) struct AddArgs {
    /// An installed version, or a .deb or .rpm; with --image a version of that image. By default the
    /// newest.
    #[arg(value_name = "VERSION|PACKAGE")]
    kernel: Option<String>,
    /// Take it from the tree of this image: one on NFS, or one that is mounted.
    #[arg(long, value_name = "IMAGE")]
    image: Option<String>,
    /// How to print.
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: OutputFormat,
}

#[derive(Debug, Args)]
pub(crate) struct RemoveArgs {
    /// The kernel.
    version: KernelVersion,
    /// How to print.
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: OutputFormat,
}

/// Does what was asked for, with the kernels of the lab in `dir`.
pub(crate) fn run(command: &KernelCommand, dir: &Path) -> anyhow::Result<ExitCode> {
    let catalogue = catalogue(dir)?;
    let (result, output) = match command {
        KernelCommand::List(args) => (list(args, catalogue.lab()), args.output),
        KernelCommand::Add(args) => (add(args, &catalogue), args.output),
        KernelCommand::Remove(args) => (remove(args, catalogue.lab()), args.output),
    };
    if let (Err(error), OutputFormat::Json) = (&result, output) {
        progress::print(&json!({"event": "error", "message": format!("{error:#}")}).to_string());
    }
    result.map(|()| ExitCode::SUCCESS)
}

fn list(args: &KernelListArgs, lab: &Path) -> anyhow::Result<()> {
    let entries = kernels::list(lab, Path::new("/"))?;
    let built = phase1::list(&crate::phase1::cache(lab));
    let has_phase1 = |version: &KernelVersion| built.iter().any(|it| it.version == *version);
    if let OutputFormat::Json = args.output {
        let kernels: Vec<Value> = entries
            .iter()
            .map(|entry| {
                json!({
                    "version": entry.version, "folder": entry.folder, "lab": entry.is_labs,
                    "phase1": has_phase1(&entry.version), "initramfs": entry.has_initramfs,
                    "images": entry.images,
                })
            })
            .collect();
        progress::print(&json!({"kernels": kernels}).to_string());
        return Ok(());
    }
    if entries.is_empty() {
        progress::print("no kernels: install linux-image-amd64, or run `boottorrent kernel add`");
        return Ok(());
    }
    let mut table = Table::new(["KERNEL", "WHERE", "PHASE 1", "INITRAMFS", "IMAGES"]);
    let word = |is: bool| if is { "present" } else { "missing" }.to_owned();
    for entry in entries {
        table.push([
            entry.version.to_string(),
            if entry.is_labs { "lab" } else { "installed" }.to_owned(),
            word(has_phase1(&entry.version)),
            word(entry.has_initramfs),
            entry.images.join(", "),
        ]);
    }
    progress::print(table.text().trim_end());
    Ok(())
}

fn add(args: &AddArgs, catalogue: &Catalogue) -> anyhow::Result<()> {
    let origin = origin(args, catalogue)?;
    let task = Task { name: "kernel", output: args.output };
    let version = with_work(task, |work| kernels::add(catalogue.lab(), &origin, work))?;
    let event = json!({"event": "added", "kernel": version});
    progress::tell(args.output, &format!("kernel {version} is in the lab"), &event);
    Ok(())
}

fn origin(args: &AddArgs, catalogue: &Catalogue) -> anyhow::Result<Origin> {
    let text = args.kernel.as_deref();
    if let Some(package) = text.filter(|it| it.ends_with(".deb") || it.ends_with(".rpm")) {
        return Ok(Origin::Package(PathBuf::from(package)));
    }
    let version = text.map(str::parse::<KernelVersion>).transpose()?;
    let root = match &args.image {
        None => PathBuf::from("/"),
        Some(name) => {
            let class = catalogue.data(name)?.image_class;
            let lab = catalogue.lab();
            match class.as_str() {
                "NfsStagingImage" => nfs::staging_tree(lab, name),
                "NfsGoldenImage" => nfs::golden_tree(lab, name),
                _ => {
                    let mounted = image::edit::mounted(catalogue, name);
                    mounted
                        .with_context(|| {
                            format!(
                                "mount `{name}` first: its {} has no kernel in it",
                                livenet::ROOT_FILE
                            )
                        })?
                        .root
                }
            }
        }
    };
    Ok(Origin::Root(root, version))
}

fn remove(args: &RemoveArgs, lab: &Path) -> anyhow::Result<()> {
    kernels::remove(lab, &args.version)?;
    let event = json!({"event": "removed", "kernel": args.version});
    progress::tell(args.output, &format!("kernel {} is removed", args.version), &event);
    Ok(())
}
