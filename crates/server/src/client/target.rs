//! Which server a command is for, as its flags say.

use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context as _, bail};
use axum::http::Uri;
use clap::Args;

use super::{Base, Client, Trust};

/// The server of who names neither one nor a lab.
const SERVER_VARIABLE: &str = "BOOTTORRENT_SERVER";

/// What the flags for it stand under.
const ELSEWHERE: &str = "A server elsewhere";

/// Whom a command is for.
#[derive(Debug, Args)]
pub(crate) struct TargetArgs {
    /// The lab: the directory with Boottorrent.yaml; by default the one you are in.
    #[arg(short = 'C', global = true, value_name = "DIR")]
    lab: Option<PathBuf>,
    /// Ask the server at this URL instead, for what is done with nodes, `status`, `why`, `reload`, and `image
    /// list`, `rollback` and `publish` [env: BOOTTORRENT_SERVER, if there is no -C]
    #[arg(long, global = true, value_name = "URL", conflicts_with = "lab", help_heading = ELSEWHERE)]
    server: Option<Base>,
    /// A file with the token that `boottorrent dashboard token` printed there
    #[arg(long, global = true, value_name = "FILE", env = "BOOTTORRENT_TOKEN_FILE")]
    #[arg(hide_env_values = true, help_heading = ELSEWHERE)]
    token_file: Option<PathBuf>,
    /// Certificates in PEM that are believed of it, in place of those that this system believes
    #[arg(long, global = true, value_name = "FILE", env = "BOOTTORRENT_CA_FILE")]
    #[arg(hide_env_values = true, help_heading = ELSEWHERE)]
    ca_file: Option<PathBuf>,
}

/// A lab on this machine, or a server anywhere.
#[derive(Debug)]
pub(crate) enum Target {
    Lab(PathBuf),
    Server(Client),
}

impl TargetArgs {
    /// Where that is.
    ///
    /// # Errors
    /// If the environment names no server that can be, or the token cannot be read.
    pub(crate) fn target(self) -> anyhow::Result<Target> {
        let named = std::env::var(SERVER_VARIABLE).ok().filter(|text| !text.is_empty());
        let base = match (self.server, self.lab, named) {
            (Some(base), _, _) => base,
            (None, Some(lab), _) => return Ok(Target::Lab(lab)),
            (None, None, Some(named)) => {
                named.parse().map_err(anyhow::Error::msg).context(SERVER_VARIABLE)?
            }
            (None, None, None) => return Ok(Target::Lab(PathBuf::from("."))),
        };
        let read = |path: &PathBuf| {
            let text = fs::read_to_string(path);
            text.with_context(|| format!("cannot read the token in {}", path.display()))
        };
        let token = self.token_file.as_ref().map(read).transpose()?;
        let token = token.map(|token| token.trim().to_owned());
        let trust = self.ca_file.map_or(Trust::System, Trust::File);
        Ok(Target::Server(Client::remote(base, token, trust)))
    }
}

impl Target {
    /// The lab's folder.
    ///
    /// # Errors
    /// If it is on another machine.
    pub(crate) fn lab(&self) -> anyhow::Result<&Path> {
        match self {
            Self::Lab(lab) => Ok(lab),
            Self::Server(_) => bail!(
                "this works in the folder of a lab: run it on that machine, and name the lab with -C \
                 DIR if {SERVER_VARIABLE} is set"
            ),
        }
    }

    /// The server.
    pub(crate) fn client(&self) -> Client {
        match self {
            Self::Lab(lab) => Client::of_lab(lab.clone()),
            Self::Server(client) => client.clone(),
        }
    }
}

impl Base {
    /// Its name or address, with the port if it was said.
    pub(super) fn authority(&self) -> &str {
        self.uri.authority().map_or("", |authority| authority.as_str())
    }
}

impl FromStr for Base {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "`{text}` is no address of a server: write http://192.168.1.1:8080 or https://NAME"
            )
        };
        let uri: Uri = text.parse().map_err(|_| wrong())?;
        let (is_encrypted, usual) = match uri.scheme_str() {
            Some("https") => (true, 443),
            Some("http") => (false, 80),
            _ => return Err(wrong()),
        };
        let authority = uri.authority().ok_or_else(wrong)?;
        let is_bare = uri.path() == "/" && uri.query().is_none();
        if !is_bare || authority.as_str().contains('@') {
            return Err(wrong());
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = authority.port_u16().unwrap_or(usual);
        Ok(Self { is_encrypted, host, port, uri })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_named_by_scheme_host_and_port_alone() {
        let check = |text: &str, expect: Option<(bool, &str, u16)>| {
            let base = text.parse::<Base>().ok();
            let found = base.as_ref().map(|it| (it.is_encrypted, it.host.as_str(), it.port));
            assert_eq!(found, expect, "{text}");
        };
        check("http://192.168.1.1:8080", Some((false, "192.168.1.1", 8080)));
        check("http://192.168.1.1:8080/", Some((false, "192.168.1.1", 8080)));
        check("https://boot.example.org", Some((true, "boot.example.org", 443)));
        check("http://[fd00::1]:8080", Some((false, "fd00::1", 8080)));
        check("http://boot", Some((false, "boot", 80)));
        check("192.168.1.1:8080", None);
        check("boot", None);
        check("ftp://boot", None);
        check("http://boot/v1", None);
        check("http://boot/?x", None);
        check("http://me:secret@boot", None);
        check("", None);
    }

    #[test]
    fn what_needs_the_labs_folder_says_so_of_a_server_elsewhere() {
        let base = "http://192.168.1.1:8080".parse().unwrap();
        let target = Target::Server(Client::remote(base, None, Trust::System));
        assert!(target.lab().unwrap_err().to_string().contains("with -C DIR"));
    }
}
