//! `boottorrent man`: the manual pages, one for each command.

use std::fs;
use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, CommandFactory};

use crate::cli::Cli;
use crate::{progress, quantity};

#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// The folder to write them to, such as /usr/local/share/man/man1.
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

/// Writes `boottorrent.1`, `boottorrent-start.1` and so on.
pub(crate) fn run(args: &ManArgs) -> anyhow::Result<()> {
    let shown = args.directory.display();
    let cannot = || format!("cannot write manual pages to {shown}");
    fs::create_dir_all(&args.directory).with_context(cannot)?;
    clap_mangen::generate_to(Cli::command(), &args.directory).with_context(cannot)?;
    let count = fs::read_dir(&args.directory).with_context(cannot)?.count();
    progress::print(&format!("{shown} has {}", quantity::count(count, "page")));
    Ok(())
}
