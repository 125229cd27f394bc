//! LANTorrent's own commands, for whoever has scripts that call them: links by the names
//! `lt-request`, `lt-daemon`, `ltserver` and `ltclient` to this program, configured by `lt.ini`.
//!
//! Different from the original: `ltserver` writes only beneath `[server] root` (one or more
//! directories, separated by colons), old signatures count only with `[security] compat`, and the
//! ini file in `~/.lantorrent` is read, which the original's installer wrote and its code ignored.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::Parser;
use lantorrent::io::{Identity, Limits, Shape};
use lantorrent::queue::Policy;
use lantorrent::report::Report;
use lantorrent::signature::{Compat, Password};
use lantorrent::store::Queue;

use super::{daemon, request, send, serve};
use crate::cli::OutputFormat;
use crate::progress::{Console, print};

const NAMES: [&str; 4] = ["lt-request", "lt-daemon", "ltserver", "ltclient"];

/// Whether the program is called by a name of the original.
pub(crate) fn is_name(program: &str) -> bool {
    NAMES.contains(&program)
}

#[derive(Debug, Parser)]
#[command(name = "lt-request", version = "0.1", disable_version_flag = true)]
struct LtRequest {
    #[command(flatten)]
    what: request::What,
    /// Accepted and unused, as in the original.
    #[arg(short, long)]
    batch: bool,
    /// Accepted and unused, as in the original.
    #[arg(short, long)]
    quiet: bool,
    /// Accepted and unused, as in the original.
    #[arg(short = 'V', long, action = clap::ArgAction::Count)]
    verbose: u8,
    /// Print the version, which is the original's.
    #[arg(long, action = clap::ArgAction::Version)]
    version: (),
}

#[derive(Debug, Parser)]
#[command(name = "ltclient", version = "0.1")]
struct LtClient {
    /// The file; destinations on standard input, host:port/absolute/path a line.
    file: PathBuf,
}

/// Does what the original does by this name.
pub(crate) fn run(program: &str, arguments: Vec<OsString>) -> anyhow::Result<ExitCode> {
    let ini = Ini::read(program)?;
    ini.log()?;
    match program {
        "lt-request" => {
            let args = LtRequest::parse_from(arguments);
            let queue = Queue::open(&ini.queue)?;
            Ok(request::handle(&args.what, &queue, OutputFormat::Json)?.original())
        }
        "lt-daemon" => daemon::serve(&daemon::Setup {
            queue: ini.queue.clone(),
            identity: ini.identity()?,
            policy: ini.policy,
            sessions: 4,
            shape: Shape::default(),
            output: OutputFormat::Text,
        }),
        "ltserver" => {
            ensure!(
                !ini.roots.is_empty(),
                "{}: [server] root is not set: which directories may be written to?",
                ini.path.display()
            );
            serve::inetd(
                &ini.roots,
                Identity::clone(&*ini.identity()?),
                Limits::default(),
                None,
                vec![],
            )
        }
        _ => client(&LtClient::parse_from(arguments).file, &ini.identity()?),
    }
}

/// Lines as the original prints them; its spelling is what scripts look for.
fn client(file: &Path, identity: &Arc<Identity>) -> anyhow::Result<ExitCode> {
    let to = send::read_destinations()?;
    for (host, port, path) in &to {
        print(&format!("{host}:{port} {path}"));
    }
    let mut console = Console::silent();
    let outcome = send::transfer(file, &to, Shape::default(), identity, &mut console)?;
    for report in outcome.reports.iter().filter(|report| !report.is_success()) {
        let message = report.message.as_deref().unwrap_or_default();
        print(&format!("ERROR: {} {message}", send::name(report)));
    }
    let count = outcome.reports.iter().filter(|report| report.is_success()).count();
    print(&format!("Succesfully sent to {count}"));
    if outcome.reports.iter().any(|report: &Report| report.code == 510) {
        bail!("There was data corruption in the chain");
    }
    Ok(ExitCode::SUCCESS)
}

/// What `lt.ini` says.
#[derive(Debug)]
struct Ini {
    path: PathBuf,
    password: Option<String>,
    compat: Compat,
    log_file: Option<PathBuf>,
    level: String,
    queue: PathBuf,
    roots: Vec<PathBuf>,
    policy: Policy,
}

impl Ini {
    /// From `$LANTORRENT_HOME/etc/lt.ini`, or `~/.lantorrent/etc/lt.ini` or `~/.lantorrent/lt.ini`.
    fn read(program: &str) -> anyhow::Result<Self> {
        let home = match std::env::var_os("LANTORRENT_HOME") {
            Some(home) => PathBuf::from(home),
            None => {
                let home = std::env::var_os("HOME").context("neither LANTORRENT_HOME nor HOME")?;
                PathBuf::from(home).join(".lantorrent")
            }
        };
        let mut path = home.join("etc/lt.ini");
        if !path.exists() && home.join("lt.ini").exists() {
            path = home.join("lt.ini");
        }
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text, path, &home, program)
    }

    fn parse(text: &str, path: PathBuf, home: &Path, program: &str) -> anyhow::Result<Self> {
        let mut ini = Self {
            path,
            password: None,
            compat: Compat::Off,
            log_file: None,
            level: "info".to_owned(),
            queue: home.join("reqs.db"),
            roots: Vec::new(),
            policy: Policy::default(),
        };
        let mut section = String::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with(['#', ';']) {
                continue;
            }
            if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
                section = name.trim().to_owned();
                continue;
            }
            let place = || format!("{}:{}", ini.path.display(), index + 1);
            let Some(at) = line.find(['=', ':']) else { bail!("{}: not a key = value", place()) };
            let (key, value) = (line[..at].trim(), line[at + 1..].trim());
            let value = value
                .replace("@LANTORRENT_HOME@", &home.display().to_string())
                .replace("@PGM@", program);
            let place = place();
            ini.set(&section, key, value).with_context(|| place)?;
        }
        Ok(ini)
    }

    fn set(&mut self, section: &str, key: &str, value: String) -> anyhow::Result<()> {
        match (section, key) {
            ("security", "password") => self.password = Some(value),
            ("security", "compat") => {
                self.compat = match value.as_str() {
                    "off" => Compat::Off,
                    "sha1" => Compat::Sha1,
                    "md5" => Compat::Md5,
                    _ => bail!("compat is off, sha1 or md5"),
                };
            }
            ("log", "file") => self.log_file = Some(value.into()),
            ("log", "level") => self.level = value.to_ascii_lowercase(),
            ("db", "file") => self.queue = value.into(),
            ("server", "root") => self.roots = std::env::split_paths(&value).collect(),
            ("daemon", "requests") => self.policy.requests = value.parse()?,
            ("daemon", "delay") => self.policy.delay = Duration::from_secs(value.parse()?),
            _ => {}
        }
        Ok(())
    }

    fn identity(&self) -> anyhow::Result<Arc<Identity>> {
        let path = self.path.display();
        let password = self.password.as_deref();
        let password = password.with_context(|| format!("{path} has no [security] password"))?;
        let password = Password::new(password);
        ensure!(!password.is_empty(), "{path}: the password is empty");
        Ok(Arc::new(Identity { password, compat: self.compat }))
    }

    /// `time LEVEL message` to the log file, if one is named.
    fn log(&self) -> anyhow::Result<()> {
        let Some(path) = &self.log_file else { return Ok(()) };
        let level = match self.level.as_str() {
            "debug" => "debug",
            "warning" | "warn" => "warn",
            "error" | "critical" => "error",
            _ => "info",
        };
        let file = std::fs::File::options().append(true).create(true).open(path);
        let file = file.with_context(|| format!("cannot write the log {}", path.display()))?;
        let _ = tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::new(format!("lantorrent={level}")))
            .with_writer(file)
            .with_ansi(false)
            .with_target(false)
            .try_init();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn l22_the_ini_file_of_the_original_is_read() {
        let text = "[security]\npassword: secret\n\n[log]\nfile = @LANTORRENT_HOME@/x.@PGM@.log\n\
                    level=WARNING\n[db]\nfile=@LANTORRENT_HOME@/req.db\n[server]\nroot=/a:/b\n";
        let home = Path::new("/opt/lt");
        let ini = Ini::parse(text, home.join("etc/lt.ini"), home, "ltserver").unwrap();
        assert_eq!(ini.password.as_deref(), Some("secret"));
        assert_eq!(ini.log_file.as_deref(), Some(Path::new("/opt/lt/x.ltserver.log")));
        assert_eq!(ini.level, "warning");
        assert_eq!(ini.queue, Path::new("/opt/lt/req.db"));
        assert_eq!(ini.roots, [PathBuf::from("/a"), PathBuf::from("/b")]);
        assert_eq!(ini.compat, Compat::Off);
        let bad = Ini::parse("[db]\nnonsense\n", "lt.ini".into(), home, "x").unwrap_err();
        assert!(bad.to_string().contains("lt.ini:2"), "{bad}");
    }
}
