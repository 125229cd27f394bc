//! `boottorrent init`: a new lab.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;
use serde_json::json;

use super::network::{self, Interface};
use crate::cli::OutputFormat;
use crate::lab::config::{IMAGES_DIR, SERVER_FILE, skeleton};
use crate::lab::key::{self, SECRET_FILE};
use crate::progress;

#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// The directory to make; one that is there is kept, with all that is in it.
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// How to print.
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: OutputFormat,
}

const README: &str = include_str!("init/README.md");
const IMAGES_README: &str = include_str!("init/oss-README.md");

/// What does not belong in git: what this program makes, and the secret.
const GITIGNORE: &str = "/state/\n/out/\n/keys/lab.key\n";

/// Makes the lab; `base` is where the directory's path begins.
pub(crate) fn run(args: &InitArgs, base: &Path) -> anyhow::Result<ExitCode> {
    let dir = base.join(&args.directory);
    let shown = dir.display();
    if dir.join(SERVER_FILE).exists() {
        bail!("{shown} is a lab already: it has a {SERVER_FILE}, which is left as it is");
    }
    fs::create_dir_all(dir.join(IMAGES_DIR)).with_context(|| format!("cannot make {shown}"))?;
    let guess = network::guess();
    let mut kept = vec![];
    let mut put = |name: &str, text: &str| -> anyhow::Result<()> {
        let path = dir.join(name);
        let is_new =
            write_new(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        if !is_new {
            kept.push(name.to_owned());
        }
        Ok(())
    };
    put("README.md", README)?;
    put(&format!("{IMAGES_DIR}/README.md"), IMAGES_README)?;
    put(".gitignore", GITIGNORE)?;
    if !dir.join(SECRET_FILE).exists() {
        key::create(&dir)?;
    }
    // Last, since it is what makes the directory a lab: whatever failed before can be tried again.
    put(SERVER_FILE, &server_file(guess.as_ref()))?;
    say(args.output, &dir, guess.as_ref(), &kept);
    Ok(ExitCode::SUCCESS)
}

fn server_file(guess: Option<&Interface>) -> String {
    let range = guess.and_then(network::suggest_range).map(|range| range.to_string());
    let values =
        skeleton::Values { network: guess.map(|guess| (guess.name.clone(), guess.address)), range };
    skeleton::text(&values)
}

/// Writes a file that is not there yet, whole or not at all; whether it did.
fn write_new(path: &Path, text: &str) -> io::Result<bool> {
    let mut file = match OpenOptions::new().write(true).create_new(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
        Err(error) => return Err(error),
    };
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    if written.is_err() {
        // Nothing can be done about what may be left of it.
        let _ = fs::remove_file(path);
    }
    written.map(|()| true)
}

fn say(format: OutputFormat, dir: &Path, guess: Option<&Interface>, kept: &[String]) {
    let network = guess.map(|guess| json!({"interface": guess.name, "address": guess.address}));
    if format == OutputFormat::Json {
        let event = json!({"event": "created", "directory": dir, "network": network, "kept": kept});
        progress::print(&event.to_string());
        return;
    }
    let shown = dir.display();
    progress::print(&format!("made a lab in {shown}"));
    for name in kept {
        progress::print(&format!("left {name} as it was"));
    }
    let next = match guess {
        Some(Interface { name, address, .. }) => {
            format!("{SERVER_FILE} has {address} on {name}, which is a guess: look at it first")
        }
        None => format!("write the interface and address of your nodes' network in {SERVER_FILE}"),
    };
    progress::print(&next);
    progress::print(&format!(
        "then put a folder with a kernel and an initrd in {shown}/{IMAGES_DIR} (its README.md has an \
         example), and run `boottorrent -C {shown} check`"
    ));
}
