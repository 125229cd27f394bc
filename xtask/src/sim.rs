//! `cargo xtask sim`: runs the simulator, built with optimisation. What it can do is the business of
//! crate `sim`; this only starts it.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use clap::Args;

use crate::root;

/// Everything goes to the simulator: `cargo xtask sim -- --help`.
#[derive(Args)]
pub(crate) struct SimArgs {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

pub(crate) fn run(args: &SimArgs) -> Result<()> {
    let status = Command::new("cargo")
        .args(["run", "--release", "--quiet", "--package", "sim", "--"])
        .args(&args.args)
        .current_dir(root())
        .stdin(Stdio::null())
        .status()
        .context("running cargo")?;
    ensure!(status.success(), "the simulator ends with {status}");
    Ok(())
}
