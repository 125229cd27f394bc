//! The command line: what can be said, and who does it.

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::client::TargetArgs;
use crate::commands::check::{self, CheckArgs};
use crate::commands::completions::{self, CompletionsArgs};
use crate::commands::dashboard::{self, DashboardCommand};
use crate::commands::doctor::{self, DoctorArgs};
use crate::commands::init::{self, InitArgs};
use crate::commands::man::{self, ManArgs};
use crate::commands::password::{self, PasswordArgs};
use crate::commands::version::{self, VersionArgs};
use crate::dhcp::{self, DhcpArgs};
use crate::extension::{self, ExtensionCommand};
use crate::image::{self, ImageCommand};
use crate::kernel::{self, KernelCommand};
use crate::lan::{self, LanCommand};
use crate::node::{self, NodeCommand};
use crate::phase1::{self, Phase1Command};
use crate::rehearse::{self, RehearseArgs};
use crate::seed::{self, SeedArgs};
use crate::start::{self, StartArgs};
use crate::status::{self, StatusArgs};
use crate::stop::{self, ReloadArgs, StopArgs};
use crate::tftp::{self, TftpArgs};
use crate::torrent::{self, TorrentCommand};
use crate::tracker;
use crate::why::{self, WhyArgs};

/// Boots a room full of diskless computers from one small server.
#[derive(Debug, Parser)]
#[command(name = "boottorrent", version)]
pub(crate) struct Cli {
    #[command(flatten)]
    target: TargetArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a new lab: a directory with all that a server needs.
    Init(InitArgs),
    /// Tell everything that is wrong with the lab's files.
    Check(CheckArgs),
    /// Tell what is wrong with this machine and its network.
    Doctor(DoctorArgs),
    /// Serve the lab: DHCP, TFTP, HTTP, tracker and seeder, until Ctrl+C or `stop`.
    Start(StartArgs),
    /// End the server of the lab.
    Stop(StopArgs),
    /// Let the server of the lab read its configuration again.
    Reload(ReloadArgs),
    /// Show how services and nodes are doing.
    Status(StatusArgs),
    /// List nodes, and show all about one.
    #[command(subcommand)]
    Node(NodeCommand),
    /// Decide who may command through the dashboard and the API.
    #[command(subcommand)]
    Dashboard(DashboardCommand),
    /// Predict how long a fleet takes, by simulating it with the lab's images.
    Rehearse(RehearseArgs),
    /// Seed the images of a lab from one more host, and follow what its server publishes.
    Seed(SeedArgs),
    /// Make images that nodes boot, and keep, change and remove them.
    #[command(subcommand)]
    Image(ImageCommand),
    /// Make extensions: programs that images of some methods need, such as QEMU.
    #[command(subcommand)]
    Extension(ExtensionCommand),
    /// List, add and remove the kernels that images run on.
    #[command(subcommand)]
    Kernel(KernelCommand),
    /// Tell why a node waits or failed, with the timeline of its boot.
    Why(WhyArgs),
    /// Build and show the kernel and initramfs that nodes run first.
    #[command(subcommand)]
    Phase1(Phase1Command),
    /// Make, show, verify, seed and download torrents.
    #[command(subcommand)]
    Torrent(TorrentCommand),
    /// Send a file to many running hosts through a chain of them, and queue requests for files.
    #[command(subcommand)]
    Lan(LanCommand),
    /// Run a BitTorrent tracker, over HTTP and UDP, until Ctrl+C.
    Tracker(TrackerArgs),
    /// Give addresses and name boot programs by DHCP or proxyDHCP, without a lab, until Ctrl+C.
    Dhcp(DhcpArgs),
    /// Serve the files of a folder by TFTP, read-only, until Ctrl+C.
    Tftp(TftpArgs),
    /// Make the hash of a password for an image, or for the shell at nodes.
    Password(PasswordArgs),
    /// Print what a shell needs to complete commands.
    Completions(CompletionsArgs),
    /// Write the manual pages.
    Man(ManArgs),
    /// Print the version.
    Version(VersionArgs),
}

#[derive(Debug, Args)]
pub(crate) struct TrackerArgs {
    /// Where to listen, for HTTP and UDP alike; port 0 takes a free one. [::]:PORT is IPv4 and IPv6.
    #[arg(long, value_name = "ADDR:PORT", default_value = "[::]:6969")]
    pub(crate) listen: SocketAddr,
    /// How to print.
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    pub(crate) output: OutputFormat,
}

/// How a command that runs on prints what happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OutputFormat {
    /// Sentences.
    Text,
    /// A JSON object a line.
    Json,
}

impl Cli {
    /// Does what was asked for.
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let target = self.target.target()?;
        match self.command {
            Command::Init(args) => return init::run(&args, target.lab()?),
            Command::Check(args) => return check::run(&args, target.lab()?),
            Command::Doctor(args) => return doctor::run(&args, target.lab()?),
            Command::Start(args) => return start::run(&args, target.lab()?),
            Command::Rehearse(args) => return rehearse::run(&args, target.lab()?),
            Command::Seed(args) => return seed::run(&args, target.lab()?),
            Command::Image(command) => return image::run(&command, &target),
            Command::Kernel(command) => return kernel::run(&command, target.lab()?),
            Command::Phase1(command) => return phase1::run(&command, target.lab()?),
            Command::Torrent(command) => return torrent::run(&command),
            Command::Lan(command) => return lan::run(&command, target.lab()?),
            Command::Stop(args) => stop::run(&args, target.lab()?)?,
            Command::Reload(args) => stop::reload(&args, &target)?,
            Command::Status(args) => status::run(&args, &target)?,
            Command::Node(command) => node::run(&command, &target)?,
            Command::Why(args) => why::run(&args, &target)?,
            Command::Dashboard(command) => dashboard::run(&command, target.lab()?)?,
            Command::Extension(command) => extension::run(&command, target.lab()?)?,
            Command::Tracker(args) => tracker::run(&args)?,
            Command::Dhcp(args) => dhcp::run(&args)?,
            Command::Tftp(args) => tftp::run(&args)?,
            Command::Password(args) => password::run(&args)?,
            Command::Completions(args) => completions::run(&args)?,
            Command::Man(args) => man::run(&args)?,
            Command::Version(args) => version::run(&args),
        }
        Ok(ExitCode::SUCCESS)
    }
}

#[cfg(test)]
mod documentation;
