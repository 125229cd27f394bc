//! `boottorrent lan serve`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::Args;
use lantorrent::io::{Endpoint, Identity, Limits, Roots, Serving, serve_stdin};
use lantorrent::report::Report;
use serde_json::json;

use super::options::{IdentityArgs, StallArg};
use crate::cli::OutputFormat;
use crate::progress::print;
use crate::signals;

#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// Where to listen; port 0 takes a free one. [::]:PORT is IPv4 and IPv6.
    #[arg(long, value_name = "ADDR:PORT", default_value = "[::]:2893")]
    listen: SocketAddr,
    /// A directory that files may be written beneath; may be given several times.
    #[arg(long, value_name = "DIR", required = true)]
    root: Vec<PathBuf>,
    #[command(flatten)]
    identity: IdentityArgs,
    /// Serve the one connection that is standard input, as inetd and socket units give it. Chains
    /// heal around such an endpoint, but it cannot go on with another predecessor.
    #[arg(long, conflicts_with = "listen")]
    inetd: bool,
    /// Where requests that were seen are noted, so that nobody can say one again, also after a restart. It is
    /// in the state or runtime directory of the service or the user if there is one, else in /run or the
    /// temporary directory.
    #[arg(long, value_name = "FILE")]
    replay_file: Option<PathBuf>,
    /// A further name of this host that senders may use: requests for other hosts are refused. Its host name
    /// and what resolves to its addresses need not be said; may be given several times.
    #[arg(long, value_name = "NAME")]
    name: Vec<String>,
    #[command(flatten)]
    stall: StallArg,
    /// How to print.
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: OutputFormat,
}

pub(super) fn run(args: &ServeArgs) -> anyhow::Result<ExitCode> {
    log(args.output);
    let identity = Identity::clone(&*args.identity.read()?);
    let limits = Limits { stall: args.stall.duration(), ..Limits::default() };
    if args.inetd {
        let names = args.name.clone();
        return inetd(&args.root, identity, limits, args.replay_file.clone(), names);
    }
    let roots = Roots::open(&args.root)?;
    let output = args.output;
    let observer = Arc::new(move |report: &Report| tell(report, output));
    let replay_file = Some(args.replay_file.clone().unwrap_or_else(default_replay_file));
    let names = args.name.clone();
    let serving = Serving { roots, identity, limits, observer, replay_file, names };
    let endpoint = Arc::new(Endpoint::bind(args.listen, serving)?);
    let address = endpoint.local_addr().context("cannot tell where this listens")?;
    let stopped = Arc::clone(&endpoint);
    signals::watch(move |_| stopped.stop())?;
    match args.output {
        OutputFormat::Text => print(&format!("listening on {address}")),
        OutputFormat::Json => {
            print(&json!({"event": "listening", "addr": address.to_string()}).to_string());
        }
    }
    endpoint.run();
    Ok(ExitCode::SUCCESS)
}

/// One connection on standard input; the exit status tells whether all went well, as ltserver's.
pub(super) fn inetd(
    root: &[PathBuf],
    identity: Identity,
    limits: Limits,
    replay_file: Option<PathBuf>,
    names: Vec<String>,
) -> anyhow::Result<ExitCode> {
    let roots = Roots::open(root)?;
    let replay_file = Some(replay_file.unwrap_or_else(default_replay_file));
    // Standard output is the connection.
    let observer = Arc::new(|_: &Report| ());
    let serving = Serving { roots, identity, limits, observer, replay_file, names };
    let all_well = serve_stdin(serving)?;
    Ok(if all_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Where nobody else can put one first, if there is such a place.
fn default_replay_file() -> PathBuf {
    // systemd removes a runtime directory when the service stops, a state directory it keeps.
    let own = ["STATE_DIRECTORY", "RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR"];
    let own = own.into_iter().find_map(std::env::var_os).map(PathBuf::from);
    let user = rustix::process::getuid();
    let of_root = || Some(PathBuf::from("/run")).filter(|run| user.is_root() && run.is_dir());
    let folder = own.or_else(of_root).unwrap_or_else(std::env::temp_dir);
    folder.join(format!("lantorrent-{}.seen", user.as_raw()))
}

/// A file that has come, or has not.
fn tell(report: &Report, output: OutputFormat) {
    let (file, message) = (report.file.as_deref(), report.message.as_deref());
    let event = if report.is_success() { "received" } else { "failed" };
    match output {
        OutputFormat::Text => {
            let (file, message) = (file.unwrap_or_default(), message.unwrap_or_default());
            print(&format!("{event} {file}: {message}"));
        }
        OutputFormat::Json => print(
            &json!({
                "event": event,
                "file": file,
                "id": report.id,
                "code": report.code,
                "message": message,
                "sha256": report.sha256,
            })
            .to_string(),
        ),
    }
}

/// What happens, to standard error: standard output may be the connection.
pub(super) fn log(output: OutputFormat) {
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_from_env("BOOTTORRENT_LOG")
        .unwrap_or_else(|_| EnvFilter::new("lantorrent=info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false);
    match output {
        OutputFormat::Text | OutputFormat::Json => drop(builder.with_ansi(false).try_init()),
    }
}
