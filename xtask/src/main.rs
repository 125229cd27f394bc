//! `cargo xtask`: the commands of development. `cargo xtask --help` lists them.

mod agent_network;
mod artifact;
mod attack;
mod bench;
mod book;
mod browser;
mod ci;
mod crowd;
mod demo;
mod dist;
mod e2e;
mod fuzz;
mod guard;
mod host;
mod interop;
mod interrupt;
mod lab;
mod peer;
mod setup;
mod sim;
mod tidy;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "BootTorrent's development commands")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Everything that must hold before a change is merged (Debian 12, root)
    Ci,
    /// Lease addresses to the agent, in network namespaces, and take them away again
    AgentNetwork(agent_network::AgentNetworkArgs),
    /// Attack a server as a stranger on its network does, and boot nodes meanwhile
    Attack(attack::AttackArgs),
    /// Measure; see the subcommands
    #[command(subcommand)]
    Bench(Bench),
    /// Make the book of docs/, and follow its links
    Book,
    /// Look at the dashboard in a browser while 1,000 nodes report, command it, and fuzz the API
    Browser(browser::BrowserArgs),
    /// Three machines with nothing but a network card boot a Debian, before your eyes (Debian 12 or 13,
    /// root)
    Demo(demo::DemoArgs),
    /// Build the packages for Debian and for Red Hat's kin
    Dist(dist::DistArgs),
    /// Boot virtual machines from our server, and break things meanwhile
    E2e(e2e::E2eArgs),
    /// Exchange files with other programs, both ways
    Interop(interop::InteropArgs),
    /// Simulate fleets that no machine can hold
    Sim(sim::SimArgs),
    /// Run the fuzz targets
    Fuzz {
        /// Targets; all by default
        targets: Vec<String>,
        /// Seconds for each
        #[arg(long, default_value_t = 60)]
        seconds: u64,
    },
    /// Check the rules of the house
    Tidy,
    /// Install what the other commands need (Debian 12 or 13, root)
    Setup,
    /// Roles that a lab starts inside its namespaces
    #[command(subcommand, hide = true)]
    Peer(peer::Peer),
}

#[derive(Subcommand)]
enum Bench {
    /// Distribute a file to many nodes on shaped links, beside other programs
    Swarm(bench::SwarmArgs),
    /// Ask the API while a fleet reports
    Api(bench::ApiArgs),
    /// Send a file through a chain of hosts, beside other ways, and fill its queue
    Lan(bench::LanArgs),
    /// Change an image, pack one, assign one: what it costs
    Image(bench::ImageArgs),
    /// Lease addresses by DHCP, beside dnsmasq
    Dhcp(bench::DhcpArgs),
    /// Fetch files by TFTP, beside dnsmasq and tftpd-hpa
    Tftp(bench::TftpArgs),
    /// Count how far a virtual machine on a node comes while another node downloads from that
    Guest(bench::GuestArgs),
    /// Announce to our tracker as fast as it answers, beside opentracker
    Tracker(bench::TrackerArgs),
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    match Cli::parse().command {
        Command::Ci => ci::run(),
        Command::AgentNetwork(args) => agent_network::run(&args),
        Command::Attack(args) => attack::run(&args),
        Command::Book => book::run(),
        Command::Browser(args) => browser::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Dist(args) => dist::run(&args),
        Command::E2e(args) => e2e::run(&args),
        Command::Interop(args) => interop::run(&args),
        Command::Sim(args) => sim::run(&args),
        Command::Fuzz { targets, seconds } => fuzz::run(&targets, Duration::from_secs(seconds)),
        Command::Tidy => tidy::tidy(),
        Command::Bench(Bench::Swarm(args)) => bench::swarm(&args),
        Command::Bench(Bench::Api(args)) => bench::api(&args),
        Command::Bench(Bench::Lan(args)) => bench::lan(args),
        Command::Bench(Bench::Image(args)) => bench::publish(&args),
        Command::Bench(Bench::Dhcp(args)) => bench::dhcp(&args),
        Command::Bench(Bench::Tftp(args)) => bench::tftp(&args),
        Command::Bench(Bench::Guest(args)) => bench::guest(&args),
        Command::Bench(Bench::Tracker(args)) => bench::tracker(&args),
        Command::Setup => setup::install_all(),
        Command::Peer(peer) => peer.run(),
    }
}

/// The repository.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask is a folder of the repository")
}

/// Where cargo puts what it builds.
fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// Makes what [`release_binary`] names.
fn build_release() -> Result<()> {
    let status = std::process::Command::new("cargo")
        .args(["build", "--release", "--bin", "boottorrent"])
        .current_dir(root())
        .stdin(std::process::Stdio::null())
        .status()
        .context("running cargo")?;
    ensure!(status.success(), "building boottorrent: {status}");
    Ok(())
}

/// Our program as a release build has it.
fn release_binary() -> Result<PathBuf> {
    let path = target_dir().join("release/boottorrent");
    std::path::absolute(&path).with_context(|| format!("finding {}", path.display()))
}
