//! `boottorrent dashboard`: who may command through the dashboard and the API.

use std::io::{self, IsTerminal as _, Read as _};
use std::path::Path;

use anyhow::{Context, anyhow, ensure};
use clap::{Args, Subcommand};
use serde_json::json;

use crate::cli::OutputFormat;
use crate::http::login::token;
use crate::lab::config::SERVER_FILE;
use crate::lab::{OpenError, password};
use crate::progress::print;

#[derive(Debug, Subcommand)]
pub(crate) enum DashboardCommand {
    /// Print the token that opens actions; it is made if there is none. No server has to run.
    Token(TokenArgs),
    /// Ask for a password and print its hash, for `dashboard.password` in Boottorrent.yaml.
    Password(PasswordArgs),
}

#[derive(Debug, Args)]
pub(crate) struct TokenArgs {
    /// Make a new one; the one before holds no more.
    #[arg(long)]
    renew: bool,
    /// How to print.
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: OutputFormat,
}

#[derive(Debug, Args)]
pub(crate) struct PasswordArgs {
    /// How to print.
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: OutputFormat,
}

/// The fewest characters of a password: with five attempts a minute from an address that many chosen
/// at random hold for centuries.
const PASSWORD_LEN_MIN: usize = 10;

/// Does what was asked for, with the lab in `lab`.
pub(crate) fn run(command: &DashboardCommand, lab: &Path) -> anyhow::Result<()> {
    match command {
        DashboardCommand::Token(args) => print_token(args, lab),
        DashboardCommand::Password(args) => print_hash(args),
    }
}

fn print_token(args: &TokenArgs, lab: &Path) -> anyhow::Result<()> {
    if !lab.join(SERVER_FILE).is_file() {
        return Err(OpenError::NoLab(lab.to_owned()).into());
    }
    let kept = if args.renew { None } else { token::load(lab)? };
    let token = match kept {
        Some(token) => token,
        None => token::renew(lab)?,
    };
    match args.output {
        OutputFormat::Text => print(&token),
        OutputFormat::Json => print(&json!({ "token": token }).to_string()),
    }
    Ok(())
}

fn print_hash(args: &PasswordArgs) -> anyhow::Result<()> {
    let password = ask()?;
    ensure!(
        password.chars().count() >= PASSWORD_LEN_MIN && password.len() <= password::LEN_MAX,
        "a password has {PASSWORD_LEN_MIN} characters at least, and {} bytes at most",
        password::LEN_MAX
    );
    let hash =
        password::hash(&password).map_err(|error| anyhow!("it cannot be hashed: {error}"))?;
    match args.output {
        OutputFormat::Text => print(&format!("dashboard:\n  password: '{hash}'")),
        OutputFormat::Json => print(&json!({ "password": hash }).to_string()),
    }
    Ok(())
}

/// Twice at a terminal; else the first line of the standard input.
fn ask() -> anyhow::Result<String> {
    if io::stdin().is_terminal() {
        return dialoguer::Password::new()
            .with_prompt("Password for actions")
            .with_confirmation("Once more", "these are two different ones")
            .interact()
            .context("no password");
    }
    let mut text = String::new();
    // One more than is allowed is seen as too long.
    io::stdin().take(password::LEN_MAX as u64 + 2).read_to_string(&mut text)?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::test_lab::TestLab;

    #[test]
    fn the_token_of_a_lab_stays_until_it_is_renewed() {
        let lab = TestLab::new();
        let token = |renew| {
            let args = TokenArgs { renew, output: OutputFormat::Json };
            print_token(&args, lab.dir()).unwrap();
            token::load(lab.dir()).unwrap().unwrap()
        };
        let first = token(false);
        assert_eq!(token(false), first);
        assert_ne!(token(true), first);
        let elsewhere = tempfile::tempdir().unwrap();
        let args = TokenArgs { renew: false, output: OutputFormat::Text };
        assert!(print_token(&args, elsewhere.path()).is_err());
    }
}
