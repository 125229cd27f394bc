//! `boottorrent dhcp`: gives addresses and names boot programs, without a lab.

use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, ValueEnum};
use dhcp::{Audience, BootFiles, Config, LabId, Mode};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::setup::{LEASE_TIME_USUAL, attachment, range_of};
use super::{Dhcp, LabProver, Memory, Place, Setup};
use crate::cli::OutputFormat;
use crate::leases::Leases;

#[derive(Debug, Args)]
pub(crate) struct DhcpArgs {
    /// The interface that machines are on.
    #[arg(long)]
    interface: String,
    /// The server's address on that interface.
    #[arg(long)]
    address: Ipv4Addr,
    /// Addresses to give; may be repeated.
    #[arg(long, value_name = "FIRST-LAST", value_parser = parse_range)]
    range: Vec<(Ipv4Addr, Ipv4Addr)>,
    /// How to live with other DHCP servers.
    #[arg(long, value_enum, default_value = "auto")]
    mode: ModeArg,
    /// Go on beside other servers in spite of it.
    #[arg(long)]
    force: bool,
    /// How long addresses are given for, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = LEASE_TIME_USUAL.as_secs())]
    lease_time: u64,
    /// The port of the HTTP server that boot programs are named at.
    #[arg(long, default_value_t = 8080)]
    http_port: u16,
    /// A folder in which leases survive the end of the command, in `state/leases.db`.
    #[arg(long, value_name = "FOLDER")]
    keep: Option<PathBuf>,
    /// How to print.
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: OutputFormat,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ModeArg {
    /// Give addresses if nobody else does.
    Auto,
    /// Give addresses.
    Server,
    /// Give boot programs beside another server.
    Proxy,
}

fn parse_range(text: &str) -> Result<(Ipv4Addr, Ipv4Addr), String> {
    let (first, last) = text.split_once('-').ok_or("write it like 10.0.0.50-10.0.0.99")?;
    let address = |text: &str| text.trim().parse().map_err(|_| format!("`{text}` is no address"));
    Ok((address(first)?, address(last)?))
}

/// Serves until Ctrl+C or SIGTERM.
pub(crate) fn run(args: &DhcpArgs) -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_writer(io::stderr).init();
    let prover = LabProver::for_this_run()?;
    let setup = setup(args, prover.lab())?;
    let keep = args.keep.clone();
    let memory = keep.as_deref().map_or(Memory::none(), Memory::of);
    let leases = move || match &keep {
        Some(folder) => Leases::open(folder),
        None => Leases::in_memory(),
    };
    let place = Place { leases: Arc::new(leases), memory, prover };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the DHCP service")?;
    runtime.block_on(async {
        let dhcp = Dhcp::open(setup, place)?;
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for signals")?;
        let mut terminate = signal(SignalKind::terminate()).context("cannot wait for signals")?;
        print_ready(args).context("cannot write to standard output")?;
        // Nobody listens: the log says it all.
        let (events, _) = mpsc::channel(1);
        let shutdown = async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        };
        dhcp.run(events, shutdown).await
    })
}

fn setup(args: &DhcpArgs, lab: LabId) -> anyhow::Result<Setup> {
    let attachment = attachment(&args.interface, args.address)?;
    let ranges = args.range.iter();
    let config = Config {
        audience: Audience::ALL,
        mode: match args.mode {
            ModeArg::Auto => Mode::Auto,
            ModeArg::Server => Mode::Server,
            ModeArg::Proxy => Mode::Proxy,
        },
        force: args.force,
        lab,
        address: args.address,
        subnet: attachment.subnet,
        mac: attachment.mac,
        ranges: ranges
            .map(|(first, last)| range_of(*first, *last, attachment.subnet, None))
            .collect(),
        reservations: vec![],
        lease_time: Duration::from_secs(args.lease_time),
        dns: vec![],
        domain: None,
        boot: BootFiles::usual(args.address, args.http_port),
    };
    Ok(Setup { interface: args.interface.clone(), config })
}

fn print_ready(args: &DhcpArgs) -> io::Result<()> {
    let DhcpArgs { interface, address, .. } = args;
    let line = match args.output {
        OutputFormat::Text => format!("DHCP on {interface} as {address}"),
        OutputFormat::Json => {
            json!({"event": "listening", "interface": interface, "address": address}).to_string()
        }
    };
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}
