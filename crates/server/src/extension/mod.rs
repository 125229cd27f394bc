//! `boottorrent extension`: programs with their libraries, which images of some methods need and which
//! would make phase 1 too large for all others. An extension is an image of method `extension`: it is
//! signed, hashed and sent as any other, but never booted.

mod closure;
mod preset;

use std::fs;
use std::path::{Path, PathBuf};

use ::image::command::Work;
use ::image::tree::squash;
use anyhow::{Context as _, ensure};
use boot::ImageName;
use clap::{Args, Subcommand};
use serde_json::json;

use self::closure::Closure;
use crate::cli::OutputFormat;
use crate::image::{Task, lab_dir, with_work};
use crate::progress;
use crate::quantity;

/// The squashfs in its folder.
const FILE: &str = "extension.squashfs";

/// Folders that are there for others to be mounted on.
const MOUNT_POINTS: [&str; 7] = ["dev", "etc", "proc", "run", "sys", "tmp", "var/tmp"];

#[derive(Debug, Subcommand)]
pub(crate) enum ExtensionCommand {
    /// Make an extension of programs that are installed on this machine: `qemu` for virtual machines, or
    /// any other with --program. One of that name is replaced.
    Build(BuildArgs),
}

#[derive(Debug, Args)]
pub(crate) struct BuildArgs {
    /// What it is called: `qemu` is known; others need --program.
    name: ImageName,
    /// A program that belongs into it, with the libraries that it is linked to.
    #[arg(long, value_name = "PATH")]
    program: Vec<PathBuf>,
    /// A file or folder that its programs read at run time.
    #[arg(long, value_name = "PATH")]
    data: Vec<PathBuf>,
    /// How to print.
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: OutputFormat,
}

/// Does what was asked for, in the lab in `dir`.
pub(crate) fn run(command: &ExtensionCommand, dir: &Path) -> anyhow::Result<()> {
    let ExtensionCommand::Build(args) = command;
    let lab = lab_dir(dir)?;
    let name = args.name.as_str();
    let mut parts = preset::find(name)?.unwrap_or_default();
    parts.programs.extend(args.program.iter().cloned());
    parts.data.extend(args.data.iter().cloned());
    ensure!(
        !parts.programs.is_empty(),
        "`{name}` is not known: `qemu` is; for another name the programs with --program"
    );
    let folder = lab.join("oss").join(name);
    ensure!(
        !folder.exists() || is_extension(&folder),
        "oss/{name} is an image and no extension: choose another name, or remove it"
    );
    let task = Task { name, output: args.output };
    let (files, len) = with_work(task, |work| build(&lab, name, &parts, work))?;
    let event = json!({"event": "built", "extension": name, "files": files, "bytes": len});
    let text = format!("oss/{name}: an extension of {} with {files} files", quantity::bytes(len));
    progress::tell(args.output, &text, &event);
    Ok(())
}

fn is_extension(folder: &Path) -> bool {
    let config = fs::read_to_string(folder.join("config.yaml")).unwrap_or_default();
    config.lines().any(|line| line.trim() == "method: extension")
}

/// Makes it beside its place, and puts it there when it is whole. How many files it has, and its bytes.
fn build(
    lab: &Path,
    name: &str,
    parts: &preset::Parts,
    work: &Work<'_>,
) -> anyhow::Result<(usize, u64)> {
    let oss = lab.join("oss");
    // Hidden, so that a server does not take it for an image.
    let temp = tempfile::Builder::new().prefix(".extension-").tempdir_in(&oss);
    let temp = temp.with_context(|| format!("cannot write to {}", oss.display()))?;
    work.step("gathering")?;
    let tree = temp.path().join("tree");
    fs::create_dir_all(&tree)?;
    for point in MOUNT_POINTS {
        fs::create_dir_all(tree.join(point))?;
    }
    let mut closure = Closure::new(&tree)?;
    for program in &parts.programs {
        closure.add_program(program)?;
    }
    for data in &parts.data {
        closure.add_data(data, &|name| parts.leaves_out(name))?;
    }
    let new = temp.path().join("new");
    fs::create_dir(&new)?;
    squash::pack(&image::tree::root::Tree::new(&tree), &new.join(FILE), work)?;
    let len = fs::metadata(new.join(FILE))?.len();
    let config = format!("dispname: Extension {name}\nmethod: extension\nrootfs: {FILE}\n");
    fs::write(new.join("config.yaml"), config)?;
    fs::set_permissions(&new, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let folder = oss.join(name);
    if folder.exists() {
        fs::rename(&folder, temp.path().join("old"))?;
    }
    fs::rename(&new, &folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok((closure.file_count(), len))
}
