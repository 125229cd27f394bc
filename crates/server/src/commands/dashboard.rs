//! `boottorrent dashboard`: who may command through the dashboard and the API.

use std::path::Path;

use clap::{Args, Subcommand};
use serde_json::json;

use crate::cli::OutputFormat;
use crate::http::login::token;
use crate::lab::OpenError;
use crate::lab::config::SERVER_FILE;
use crate::progress::print;

#[derive(Debug, Subcommand)]
pub(crate) enum DashboardCommand {
    /// Print the token that opens actions; it is made if there is none. No server has to run.
    Token(TokenArgs),
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

/// Does what was asked for, with the lab in `lab`.
pub(crate) fn run(command: &DashboardCommand, lab: &Path) -> anyhow::Result<()> {
    match command {
        DashboardCommand::Token(args) => print_token(args, lab),
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
