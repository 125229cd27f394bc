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
    /// Where connections of --inetd note whom they have seen, so that nobody can say a request again. It is
    /// in the runtime directory of the service or the user if there is one, else in the temporary directory.
    #[arg(long, value_name = "FILE", requires = "inetd")]
    replay_file: Option<PathBuf>,
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
        return inetd(&args.root, identity, limits, args.replay_file.clone());
    }
    let roots = Roots::open(&args.root)?;
    let output = args.output;
    let observer = Arc::new(move |report: &Report| tell(report, output));
    let serving = Serving { roots, identity, limits, observer, replay_file: None };
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
) -> anyhow::Result<ExitCode> {
    let roots = Roots::open(root)?;
    let replay_file = Some(replay_file.unwrap_or_else(default_replay_file));
    // Standard output is the connection.
    let observer = Arc::new(|_: &Report| ());
    let serving = Serving { roots, identity, limits, observer, replay_file };
    let all_well = serve_stdin(serving)?;
    Ok(if all_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Where nobody else can put one first, if there is such a place.
fn default_replay_file() -> PathBuf {
    let own = ["RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR"].into_iter().find_map(std::env::var_os);
    let uid = rustix::process::getuid().as_raw();
    own.map_or_else(std::env::temp_dir, PathBuf::from).join(format!("lantorrent-{uid}.seen"))
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
