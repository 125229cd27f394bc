//! `boottorrent password`: the hash of a password, for a file of the lab.

use std::io::{self, BufRead as _, IsTerminal as _};

use anyhow::{Context as _, bail, ensure};
use boot::PasswordHash;
use clap::Args;
use dialoguer::Password;
use serde_json::json;

use crate::cli::OutputFormat;
use crate::progress;

/// The most bytes of a password that is read from standard input.
const LEN_MAX: u64 = 1024;

#[derive(Debug, Args)]
#[command(
    after_help = "On a terminal the password is asked for; else it is the first line of standard \
                  input. Only ASCII can be typed at every node."
)]
pub(crate) struct PasswordArgs {
    /// How to print.
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: OutputFormat,
}

/// Prints the hash of the password that is typed.
pub(crate) fn run(args: &PasswordArgs) -> anyhow::Result<()> {
    let password = match io::stdin().is_terminal() {
        true => Password::new()
            .with_prompt("Password")
            .with_confirmation("Again", "not the same")
            .interact()
            .context("no password was typed")?,
        false => from(io::stdin().lock())?,
    };
    check(&password)?;
    let mut salt = [0; 16];
    getrandom::fill(&mut salt).context("no randomness from the system")?;
    let hash = PasswordHash::of(&password, salt)?;
    progress::tell(args.output, &hash.to_string(), &json!({"hash": hash}));
    Ok(())
}

fn from(input: impl io::BufRead) -> anyhow::Result<String> {
    let mut line = String::new();
    input.take(LEN_MAX).read_line(&mut line).context("reading the password")?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// What the agent's keyboards can type.
fn check(password: &str) -> anyhow::Result<()> {
    ensure!(!password.is_empty(), "the password is empty: nothing would be asked for");
    match password.chars().find(|c| !c.is_ascii_graphic() && *c != ' ') {
        Some(c) => {
            bail!("the password has {c:?} in it, which cannot be typed at a node: use ASCII")
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_is_the_password() {
        let read = |bytes: &[u8]| from(bytes).unwrap();
        assert_eq!(read(b"open sesame\r\nmore\n"), "open sesame");
        assert_eq!(read(b" with spaces "), " with spaces ");
        assert_eq!(read(b""), "");
    }

    #[test]
    fn what_cannot_be_typed_at_a_node_is_refused() {
        assert!(check("open sesame 1!").is_ok());
        for bad in ["", "\u{f6}ffne dich", "a\tb"] {
            assert!(check(bad).is_err(), "{bad:?}");
        }
    }
}
