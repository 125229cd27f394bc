//! What commands of `lan` have in common: the password, old peers, addresses of endpoints.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::{Args, ValueEnum};
use lantorrent::io::{Identity, Shape};
use lantorrent::signature::{Compat, Password};

/// A host says something every tenth of a second.
const STALL_MIN: Duration = Duration::from_millis(300);

/// Longer is no healing.
const STALL_MAX: Duration = Duration::from_secs(600);

/// More is no password but the wrong file.
const PASSWORD_LEN_MAX: usize = 4096;

/// Who may take part.
#[derive(Clone, Debug, Args)]
pub(super) struct IdentityArgs {
    /// A file with the password that all endpoints of a chain share.
    #[arg(long, value_name = "FILE")]
    pub(super) password_file: PathBuf,
    /// Whether original LANTorrent peers take part: their signatures can be said again by anybody
    /// who heard them, and their MD5 costs more than SHA-256.
    #[arg(long, value_name = "RELEASES", default_value = "off")]
    pub(super) compat: CompatArg,
}

/// Releases of the original to be understood by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum CompatArg {
    /// None.
    #[default]
    Off,
    /// 2.6 to 2.8, which sign with SHA-1.
    Sha1,
    /// 2.9 and later, which sign with MD5.
    Md5,
}

impl From<CompatArg> for Compat {
    fn from(arg: CompatArg) -> Self {
        match arg {
            CompatArg::Off => Self::Off,
            CompatArg::Sha1 => Self::Sha1,
            CompatArg::Md5 => Self::Md5,
        }
    }
}

impl IdentityArgs {
    pub(super) fn read(&self) -> anyhow::Result<Arc<Identity>> {
        let password = read_password(&self.password_file)?;
        Ok(Arc::new(Identity { password, compat: self.compat.into() }))
    }
}

fn read_password(path: &Path) -> anyhow::Result<Password> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read the password in {}", path.display()))?;
    ensure!(text.len() <= PASSWORD_LEN_MAX, "{} is too long for a password", path.display());
    let password = Password::new(&text);
    ensure!(!password.is_empty(), "{} is empty: write a password into it", path.display());
    Ok(password)
}

/// How a file goes through the hosts.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct ShapeArgs {
    /// How many hosts each sends to: 1 is a chain.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=16))]
    pub(super) degree: u32,
    #[command(flatten)]
    pub(super) stall: StallArg,
}

impl From<ShapeArgs> for Shape {
    fn from(args: ShapeArgs) -> Self {
        Self { degree: args.degree, stall: args.stall.duration() }
    }
}

/// When a silent host is given up.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct StallArg {
    /// Cut a host out of the chain that is silent for so long. It says something ten times a second;
    /// hosts that are very busy, or far away, may need more.
    #[arg(long, value_name = "SECONDS", default_value = "1.5", value_parser = stall)]
    stall: Duration,
}

impl StallArg {
    pub(super) const fn duration(self) -> Duration {
        self.stall
    }
}

/// At least three of the words that are missed until then, at most what nobody waits for.
fn stall(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let range = STALL_MIN..=STALL_MAX;
    seconds.filter(|seconds| range.contains(seconds)).ok_or_else(|| {
        format!("not a time from {} to {} s", STALL_MIN.as_secs_f64(), STALL_MAX.as_secs_f64())
    })
}

/// `HOST[:PORT]`, also `[::1]:2893`; no host is whoever calls by ssh.
pub(super) fn contact(text: &str) -> anyhow::Result<(String, u16)> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port))
            if !port.ends_with(']') && (!host.contains(':') || host.ends_with(']')) =>
        {
            let port = port.parse().with_context(|| format!("{text:?}: {port:?} is no port"))?;
            (host, port)
        }
        _ => (text, lantorrent::PORT),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if !host.is_empty() {
        return Ok((host.to_owned(), port));
    }
    let caller = std::env::var("SSH_CLIENT").unwrap_or_default();
    match caller.split_whitespace().next() {
        Some(address) => Ok((address.to_owned(), port)),
        None => bail!("{text:?} names no host, and nobody calls by ssh (SSH_CLIENT is not set)"),
    }
}

/// `host:port/absolute/path`.
pub(super) fn destination(line: &str) -> Option<(String, u16, String)> {
    let (contact_text, path) = line.split_at(line.find('/')?);
    if contact_text.is_empty() || path.len() < 2 {
        return None;
    }
    let (host, port) = contact(contact_text).ok()?;
    Some((host, port, path.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stall_is_a_time_that_can_be_told_from_silence() {
        for (text, expect) in [
            ("1.5", Some(1_500)),
            ("0.3", Some(300)),
            ("600", Some(600_000)),
            ("0.2", None),
            ("601", None),
            ("-1", None),
            ("soon", None),
        ] {
            assert_eq!(stall(text).ok(), expect.map(Duration::from_millis), "{text}");
        }
    }

    #[test]
    fn l1_contacts_have_a_default_port() {
        for (text, host, port) in [
            ("node1", "node1", 2893),
            ("node1:77", "node1", 77),
            ("10.0.0.1:2893", "10.0.0.1", 2893),
            ("[::1]:5", "::1", 5),
            ("[fe80::1]", "fe80::1", 2893),
            ("fe80::1", "fe80::1", 2893),
        ] {
            assert_eq!(contact(text).unwrap(), (host.to_owned(), port), "{text}");
        }
        assert!(contact("a:b").is_err());
    }

    #[test]
    fn destinations_are_an_endpoint_and_an_absolute_path() {
        for (line, expect) in [
            ("a:1/x/y", Some(("a", 1, "/x/y"))),
            ("a/x", Some(("a", 2893, "/x"))),
            ("[::1]:2/x", Some(("::1", 2, "/x"))),
            ("a:1", None),
            ("/x", None),
            ("a:1/", None),
            ("a:x/y", None),
        ] {
            let expect = expect.map(|(host, port, path)| (host.to_owned(), port, path.to_owned()));
            assert_eq!(destination(line), expect, "{line}");
        }
    }
}
