//! `boottorrent tftp`: serves a folder, without a lab.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use clap::Args;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

use super::{Config, Root, Tftp};
use crate::cli::OutputFormat;
use crate::fleet::strangers;

#[derive(Debug, Args)]
pub(crate) struct TftpArgs {
    /// The folder whose files are served, as they are called when the command starts.
    folder: PathBuf,
    /// Where to listen. Name the address if the machine has several: firmware ignores answers that
    /// come from another one.
    #[arg(long, value_name = "ADDR:PORT", default_value = "0.0.0.0:69")]
    listen: SocketAddr,
    /// The interface of that address, whose MTU limits the length of blocks.
    #[arg(long)]
    interface: Option<String>,
    /// How to print.
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: OutputFormat,
}

/// Serves until Ctrl+C or SIGTERM.
pub(crate) fn run(args: &TftpArgs) -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_writer(io::stderr).init();
    let root = Root::of_folder(&args.folder)?;
    let count = root.len();
    let (_sender, root) = watch::channel(Arc::new(root));
    let config = Config { listen: args.listen, interface: args.interface.clone(), root };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the TFTP server")?;
    runtime.block_on(async {
        let tftp = Tftp::bind(config)?;
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for signals")?;
        let mut terminate = signal(SignalKind::terminate()).context("cannot wait for signals")?;
        print_ready(args.output, tftp.addr(), count).context("cannot write to standard output")?;
        // Nobody listens: the log says it all.
        let (events, _) = mpsc::channel(1);
        let shutdown = async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        };
        tftp.run(strangers(), events, shutdown).await
    })
}

fn print_ready(format: OutputFormat, addr: SocketAddr, count: usize) -> io::Result<()> {
    let url = format!("tftp://{addr}");
    let line = match format {
        OutputFormat::Text => format!("serving {count} files on {url}"),
        OutputFormat::Json => {
            json!({"event": "listening", "tftp": url, "files": count}).to_string()
        }
    };
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}
