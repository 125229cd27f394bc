//! `boottorrent stop` and `boottorrent reload`.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::cli::OutputFormat;
use crate::client::{Client, ClientError, Target};
use crate::progress::print;
use crate::services::lock::{Holder, Lock};

/// How long a server may take to end: it says goodbye to trackers for a second at most.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// How often the lock is looked at meanwhile.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// What has a server read its configuration again.
pub(crate) const RELOAD: &str = "/v1/server/reload";

#[derive(Debug, Args)]
pub(crate) struct StopArgs {
    /// How to print.
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: OutputFormat,
}

#[derive(Debug, Args)]
pub(crate) struct ReloadArgs {
    /// How to print.
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: OutputFormat,
}

/// Ends the server of the lab in `lab`, and waits until it has ended.
pub(crate) fn run(args: &StopArgs, lab: &Path) -> anyhow::Result<()> {
    let holder = Lock::holder(lab)?;
    match Client::of_lab(lab.to_owned()).post::<Value>("/v1/server/stop", None) {
        // It has nothing to say goodbye to yet. The lock is held, so the process is the server.
        Err(ClientError::Starting { pid: Some(pid) }) => {
            let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).context("no such process")?;
            kill_process(pid, Signal::TERM).context("cannot end the server that is starting")?;
        }
        // It may be gone before its answer has arrived.
        Err(ClientError::Http { .. }) => {}
        answer => drop(answer?),
    }
    let begin = Instant::now();
    while Lock::holder(lab)? != Holder::Nobody {
        if begin.elapsed() > STOP_TIMEOUT {
            let pid = match holder {
                Holder::Somebody(Some(pid)) => format!("; `kill -9 {pid}` ends it at once"),
                _ => String::new(),
            };
            bail!("the server does not end{pid}");
        }
        thread::sleep(POLL_INTERVAL);
    }
    let pid = match holder {
        Holder::Somebody(pid) => pid,
        Holder::Nobody => None,
    };
    match args.output {
        OutputFormat::Text => print("stopped"),
        OutputFormat::Json => print(&json!({"event": "stopped", "pid": pid}).to_string()),
    }
    Ok(())
}

/// Lets a server read its configuration again.
pub(crate) fn reload(args: &ReloadArgs, target: &Target) -> anyhow::Result<()> {
    let changes: Value = target.client().post(RELOAD, None)?;
    match args.output {
        OutputFormat::Text => {
            print(&format!("reloaded: {}", changes["text"].as_str().unwrap_or_default()));
        }
        OutputFormat::Json => print(&changes.to_string()),
    }
    Ok(())
}
