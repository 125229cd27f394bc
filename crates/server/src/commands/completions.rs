//! `boottorrent completions`: what a shell reads to complete commands.

use std::io::{self, Write};

use anyhow::Context;
use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::cli::Cli;

#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// For which shell.
    shell: Shell,
}

/// Prints the completions.
pub(crate) fn run(args: &CompletionsArgs) -> anyhow::Result<()> {
    let mut text = vec![];
    clap_complete::generate(args.shell, &mut Cli::command(), "boottorrent", &mut text);
    io::stdout().write_all(&text).context("cannot print")
}
