//! `boottorrent lan list` and `lan cancel`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use lantorrent::store::{Queue, State};
use serde_json::json;

use super::request::{json as request_json, word};
use crate::cli::OutputFormat;
use crate::progress::print;

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// The queue of the daemon.
    #[arg(long, value_name = "FILE")]
    queue: PathBuf,
    /// Also those that are done.
    #[arg(long)]
    all: bool,
    /// How to print.
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: OutputFormat,
}

#[derive(Debug, Args)]
pub(crate) struct CancelArgs {
    /// Names of requests.
    #[arg(required = true)]
    rid: Vec<String>,
    /// The queue of the daemon.
    #[arg(long, value_name = "FILE")]
    queue: PathBuf,
}

pub(super) fn run(args: &ListArgs) -> anyhow::Result<ExitCode> {
    let queue = Queue::open(&args.queue)?;
    let mut all = queue.list()?;
    all.retain(|queued| args.all || queued.state != State::Done);
    if args.output == OutputFormat::Json {
        print(&json!(all.iter().map(request_json).collect::<Vec<_>>()).to_string());
        return Ok(ExitCode::SUCCESS);
    }
    for queued in &all {
        let message = queued.message.as_deref().unwrap_or_default();
        print(&format!(
            "{}\t{}\t{}\t{}:{}{}\t{}",
            queued.rid,
            word(queued.state),
            queued.src,
            queued.host,
            queued.port,
            queued.dst,
            message
        ));
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn cancel(args: &CancelArgs) -> anyhow::Result<ExitCode> {
    let queue = Queue::open(&args.queue)?;
    for rid in &args.rid {
        queue.cancel(rid)?;
    }
    Ok(ExitCode::SUCCESS)
}
