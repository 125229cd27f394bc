//! `boottorrent start`: in the foreground until Ctrl+C, SIGTERM or `boottorrent stop`, or in the
//! background with `--detach`.
//!
//! **In the background** this program starts itself again, in a session of its own, with the log in
//! `state/boottorrent.log`, and waits until nodes can boot or the start has failed: what is wrong is
//! told on the terminal, and the exit status is right.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, bail};
use boot::{Arch, KernelVersion};
use clap::Args;
use dhcp::LabId;
use image::boot_program::{self, Family};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;
use tokio::sync::mpsc;

use crate::cli::OutputFormat;
use crate::lab::config::SERVER_FILE;
use crate::lab::phase1s::{Phase1Files, Shelf};
use crate::lab::publisher::{Hashing, Publisher};
use crate::lab::settings::{Access, BootProgram, Settings};
use crate::lab::watch::{self, Watcher};
use crate::lab::{self, Lab, OpenError};
use crate::phase1;
use crate::progress::{Console, print};
use crate::services::edition::{BootFiles, NamedProgram};
use crate::services::lock::Lock;
use crate::services::log::{self, Sink};
use crate::services::run::{self, News, Prepared};
use crate::state;

/// The log of a server in the background.
const LOG_FILE: &str = "boottorrent.log";

/// A log that is longer at a start is put aside as `boottorrent.log.1`, in place of the one before:
/// a week of a busy room.
const LOG_LEN_MAX: u64 = 64 << 20;

/// What the process in the background says on its standard output when nodes can boot.
const READY: &str = "ready";

/// What it says there before the reason why it did not come so far.
const FAILED: &str = "failed: ";

#[derive(Debug, Args)]
pub(crate) struct StartArgs {
    /// Go on in the background, with the log in state/boottorrent.log, once nodes can boot.
    #[arg(long)]
    detach: bool,
    /// A folder with vmlinuz and initramfs.img to be served as phase 1, such as `phase1 build
    /// --output` makes; by default it is built if it has to be, and kept in state/.
    #[arg(long, value_name = "DIR")]
    phase1: Option<PathBuf>,
    /// This is the process in the background.
    #[arg(long, hide = true, conflicts_with = "detach")]
    detached: bool,
    /// How to print.
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: OutputFormat,
}

/// Serves the lab in `lab`.
pub(crate) fn run(args: &StartArgs, lab: &Path) -> anyhow::Result<ExitCode> {
    let lab =
        fs::canonicalize(lab).with_context(|| format!("there is no folder {}", lab.display()))?;
    if !lab.join(SERVER_FILE).is_file() {
        return Err(OpenError::NoLab(lab).into());
    }
    if args.detach {
        return detach(args, &lab);
    }
    let result = serve(args, &lab);
    if let Err(error) = &result
        && args.detached
    {
        // To whoever waits at the terminal, and into the log.
        print(&format!("{FAILED}{error:#}"));
    }
    result.map(|()| ExitCode::SUCCESS)
}

fn serve(args: &StartArgs, lab: &Path) -> anyhow::Result<()> {
    // Before all that takes time: a second server is told so at once.
    let lock = Lock::take(lab)?;
    if args.detached {
        // The terminal's end is not ours.
        let _ = rustix::process::setsid();
        log::begin(args.output, Sink::File(open_log(lab)?));
    } else {
        log::begin(args.output, Sink::Stdout);
    }
    let (prepared, publisher) = prepare(lab, args)?;
    log::set_level(prepared.publication.settings.log_level);
    log::set_format(prepared.publication.settings.log_format);
    raise_file_limit();
    let (_watcher, news) = watch(publisher)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the server")?;
    let format = args.output;
    let detached = args.detached;
    let result = runtime.block_on(run::run(prepared, news, lock, |settings| {
        say_ready(settings, format, detached);
    }));
    // A read that waits for a dead disk must not hold up the end.
    runtime.shutdown_background();
    result
}

/// All that is needed before anything can be served.
fn prepare(lab: &Path, args: &StartArgs) -> anyhow::Result<(Prepared, Publisher)> {
    let lab = Lab::open(lab)?;
    for warning in lab.warnings.to_string().lines() {
        // The level says that it is one.
        tracing::warn!(target: "LAB", "{}", warning.replacen(": warning: ", ": ", 1));
    }
    let mut console = Console::new(args.output);
    let (boot_files, own) = boot_files(&lab.settings, args.phase1.as_deref(), &mut console)?;
    let publisher = Publisher::new(lab.settings.dir())?;
    let key = publisher.key().public();
    let build = move |settings: &Settings, version: &KernelVersion| {
        tracing::info!(target: "START", "phase 1 for the kernel {version}");
        let phase1 = phase1::ensure_version(settings, key, version, &mut |_| {})?;
        Phase1Files::of(&phase1)
    };
    let mut publisher = publisher.with_phase1(Shelf::new(own, Box::new(build)));
    let id = boot::hex::decode(&publisher.key().public().id().to_string()).unwrap_or_default();
    let console = Mutex::new(console);
    let outcome = publisher.publish(lab, &|hashing: Hashing<'_>| {
        let mut console = console.lock().unwrap_or_else(PoisonError::into_inner);
        console.hashing("hashing", hashing.image.as_str(), hashing.done, hashing.total);
    })?;
    console.into_inner().unwrap_or_else(PoisonError::into_inner).finish();
    let publication = outcome.publication;
    let hashing = publisher.progress();
    Ok((Prepared { publication, boot_files, lab: LabId(id), hashing }, publisher))
}

/// What nodes boot from, before there is an image, and the lab's own phase 1 as far as its kernel is
/// known; it is built if it is not there.
fn boot_files(
    settings: &Settings,
    phase1: Option<&Path>,
    console: &mut Console,
) -> anyhow::Result<(BootFiles, Option<Phase1Files>)> {
    let (kernel, initramfs, own) = match phase1 {
        Some(folder) => {
            let own = image::phase1::open(folder);
            let own = own.and_then(|phase1| Phase1Files::of(&phase1).ok());
            (folder.join("vmlinuz"), folder.join("initramfs.img"), own)
        }
        None => {
            let key = lab::key::load(settings.dir())?.public();
            let phase1 = phase1::ensure(settings, key, &mut |progress| {
                let step = progress.step.as_str();
                console.hashing(step, "phase 1", progress.done, progress.total);
            })?;
            let own = Phase1Files::of(&phase1).map_err(anyhow::Error::from_boxed)?;
            (phase1.kernel, phase1.initramfs, Some(own))
        }
    };
    let programs = programs(settings)?;
    Ok((BootFiles { kernel, initramfs, arch: Arch::X86_64, programs }, own))
}

/// The boot programs that firmware asks for. Without TFTP they are for firmware that boots by HTTP,
/// of which there may be none.
fn programs(settings: &Settings) -> anyhow::Result<Vec<NamedProgram>> {
    let mut families = vec![Family::Ipxe];
    if settings.phase1.loader == BootProgram::Pxelinux {
        families.push(Family::Pxelinux);
    }
    let mut programs = vec![];
    for family in families {
        match boot_program::find(Path::new("/"), family) {
            Ok(found) => programs
                .extend(found.into_iter().map(|program| (program.name, Arc::from(program.bytes)))),
            Err(error) if settings.tftp.enabled => return Err(error.into()),
            Err(error) => tracing::warn!(target: "START", "{error}"),
        }
    }
    Ok(programs)
}

/// Sees to it that changes to the lab are noticed.
fn watch(publisher: Publisher) -> anyhow::Result<(Arc<Watcher>, News)> {
    let (sender, events) = mpsc::unbounded_channel();
    let tell = move |event| {
        let told = match event {
            watch::Event::Changed(outcome) => Ok(outcome),
            watch::Event::Refused(error) => Err(error.into()),
        };
        // Nobody listens any more when the server ends.
        let _ = sender.send(told);
    };
    let watcher = Watcher::start(publisher, tell).context("cannot watch the lab")?;
    let watcher = Arc::new(watcher);
    let reloading = Arc::downgrade(&watcher);
    let reload = Arc::new(move || {
        if let Some(watcher) = reloading.upgrade() {
            watcher.reload();
        }
    });
    Ok((watcher, News { reload, events }))
}

fn say_ready(settings: &Settings, format: OutputFormat, detached: bool) {
    let address = settings.address;
    tracing::info!(
        target: "START",
        "nodes on {} can boot from {address}; {} shows how they are doing",
        settings.interface,
        match settings.dashboard.access {
            Access::Off => "`boottorrent status`".to_owned(),
            Access::Network | Access::Localhost => settings.dashboard_base() + "/",
        },
    );
    if detached {
        print(READY);
    } else if format == OutputFormat::Json {
        print(&json!({"event": "ready", "http": settings.http_base()}).to_string());
    }
}

/// As many files as the system lets this process have: each connection is one.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

fn open_log(lab: &Path) -> anyhow::Result<File> {
    let folder = lab.join(state::FOLDER);
    state::make_folder(lab).with_context(|| format!("cannot make {}", folder.display()))?;
    let path = folder.join(LOG_FILE);
    if fs::metadata(&path).is_ok_and(|metadata| metadata.len() > LOG_LEN_MAX) {
        let _ = fs::rename(&path, path.with_extension("log.1"));
    }
    File::options()
        .create(true)
        .append(true)
        .open(&path)
        .with_context(|| format!("cannot write {}", path.display()))
}

fn detach(args: &StartArgs, lab: &Path) -> anyhow::Result<ExitCode> {
    let program = std::env::current_exe().context("cannot find this program")?;
    let mut command = Command::new(program);
    command.arg("-C").arg(lab).args(["start", "--detached"]);
    if args.output == OutputFormat::Json {
        command.args(["-o", "json"]);
    }
    if let Some(phase1) = &args.phase1 {
        command.arg("--phase1").arg(phase1);
    }
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        // Not ours: whoever waits for the end of what we print would wait for the server's.
        .stderr(open_log(lab)?)
        .spawn()
        .context("cannot start the server in the background")?;
    let Some(out) = child.stdout.take() else {
        bail!("cannot hear the server in the background");
    };
    let mut reason = String::new();
    for line in BufReader::new(out).lines() {
        let line = line.context("cannot hear the server in the background")?;
        if line == READY {
            let pid = child.id();
            match args.output {
                OutputFormat::Text => print(&format!(
                    "started (pid {pid}); the log is {}",
                    lab.join(state::FOLDER).join(LOG_FILE).display()
                )),
                OutputFormat::Json => print(&json!({"event": "started", "pid": pid}).to_string()),
            }
            return Ok(ExitCode::SUCCESS);
        }
        match line.strip_prefix(FAILED) {
            Some(first) => first.clone_into(&mut reason),
            // The rest of a reason that has several lines.
            None if !reason.is_empty() => reason = format!("{reason}\n{line}"),
            None => print(&line),
        }
    }
    let status = child.wait().context("cannot hear the server in the background")?;
    if reason.is_empty() {
        bail!("the server in the background ended ({status}); its log may say why");
    }
    bail!(reason)
}
