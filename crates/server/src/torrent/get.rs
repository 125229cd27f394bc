//! `boottorrent torrent get`.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::str::FromStr;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use serde_json::json;
use torrent_io::session::{Place, Session, SessionEvent};
use torrent_io::storage::Allocation;

use super::peers::{Event, PeerArgs, Stop, interrupted, told, warn};
use super::read_metainfo;
use crate::cli::OutputFormat;
use crate::progress::{Console, Transfer};
use crate::quantity;

/// How long to wait for events if nothing else is due: for ever, as near as a clock gets.
const FOR_EVER: Duration = Duration::from_secs(365 * 24 * 3600);

#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    /// The .torrent file.
    file: PathBuf,
    /// The folder to put the torrent's file, or its folder, into. What is there of it already is
    /// checked and kept.
    #[arg(long)]
    dir: PathBuf,
    /// What to do once all is verified: exit, seed (until Ctrl+C), or seed=SECONDS. A node that
    /// exits at once takes its uplink from those that are not done yet.
    #[arg(long, value_name = "WHAT", default_value = "exit")]
    then: Then,
    /// A command for `sh -c`, run once when all is verified, with BOOTTORRENT_FILE (path of the
    /// torrent's file or folder), BOOTTORRENT_NAME and BOOTTORRENT_DIR in its environment. If it
    /// fails, so does this.
    #[arg(long, value_name = "COMMAND")]
    on_complete: Option<String>,
    /// How to make room for the files.
    #[arg(long, value_name = "HOW", default_value = "sparse")]
    allocation: AllocationArg,
    #[command(flatten)]
    peers: PeerArgs,
    /// How to print.
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    pub(super) output: OutputFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum AllocationArg {
    /// Files grow as data arrives.
    Sparse,
    /// All room is taken at the start.
    Full,
}

/// What follows a download.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    Exit,
    Seed,
    SeedFor(Duration),
}

impl FromStr for Then {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "exit" => Ok(Self::Exit),
            "seed" => Ok(Self::Seed),
            _ => text
                .strip_prefix("seed=")
                .and_then(|seconds| seconds.parse().ok())
                .map(|seconds| Self::SeedFor(Duration::from_secs(seconds)))
                .ok_or_else(|| "not one of exit, seed, seed=SECONDS".to_owned()),
        }
    }
}

pub(super) fn run(args: &GetArgs) -> anyhow::Result<ExitCode> {
    let (sender, events) = channel();
    let stop = Stop::watch(sender.clone())?;
    let mut console = Console::new(args.output);
    let metainfo = read_metainfo(&args.file)?;
    let listen = args.peers.choose_listen()?;
    let allocation = match args.allocation {
        AllocationArg::Sparse => Allocation::Sparse,
        AllocationArg::Full => Allocation::Preallocate,
    };
    let place = Place::Download(args.dir.clone(), allocation);
    let Some(prepared) = stop.prepare(metainfo, &place, &mut console)? else {
        return Ok(interrupted(&events));
    };
    if prepared.lost_count() > 0 {
        let lost = quantity::count(prepared.lost_count() as usize, "piece");
        let path = args.dir.join(prepared.metainfo().name());
        console.warn(&format!(
            "{}: {lost} that had been verified changed on the disk; they are downloaded again",
            path.display(),
        ));
    }
    let (name, total) =
        (prepared.metainfo().name().to_owned(), prepared.metainfo().geometry().data_len());
    let mut session = args.peers.start(listen, told(sender.clone()))?;
    let addr = session.addr();
    console.say(
        &format!("listening on {addr}"),
        &json!({"event": "listening", "addr": addr.to_string()}),
    );
    session.add(prepared, args.peers.peers.clone());
    let get = Get {
        args,
        name,
        total,
        console,
        sender,
        started: Instant::now(),
        complete: false,
        exit_at: None,
        command: None,
    };
    get.run(&events, session)
}

struct Get<'a> {
    args: &'a GetArgs,
    name: String,
    total: u64,
    console: Console,
    sender: Sender<Event>,
    started: Instant,
    complete: bool,
    /// Set once complete; not if it seeds until a signal.
    exit_at: Option<Instant>,
    /// How the command ended, if it has ended.
    command: Option<anyhow::Result<()>>,
}

impl Get<'_> {
    fn run(mut self, events: &Receiver<Event>, session: Session) -> anyhow::Result<ExitCode> {
        while !self.is_over() {
            let timeout = match self.exit_at {
                // What is left to wait for is the command.
                Some(at) if at <= Instant::now() => FOR_EVER,
                Some(at) => at.saturating_duration_since(Instant::now()),
                None => FOR_EVER,
            };
            match events.recv_timeout(timeout) {
                Ok(Event::Signal(signal)) => {
                    if !self.is_work_done() {
                        self.console.finish();
                        drop(session);
                        return Ok(signal.exit_code());
                    }
                    break;
                }
                Ok(Event::Session(_, event)) => self.on_session(event)?,
                Ok(Event::Command(result)) => self.on_command(result),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => bail!("the session ended by itself"),
            }
        }
        self.console.finish();
        drop(session);
        match self.command {
            Some(Err(error)) => Err(error),
            _ => Ok(ExitCode::SUCCESS),
        }
    }

    fn is_work_done(&self) -> bool {
        self.complete && (self.args.on_complete.is_none() || self.command.is_some())
    }

    fn is_over(&self) -> bool {
        self.is_work_done() && self.exit_at.is_some_and(|at| at <= Instant::now())
    }

    fn on_session(&mut self, event: SessionEvent) -> anyhow::Result<()> {
        match event {
            SessionEvent::Completed => self.on_complete(),
            SessionEvent::Failed(error) => {
                return Err(error).with_context(|| format!("cannot get {}", self.name));
            }
            SessionEvent::Progress(stats) => {
                let rate = if self.complete { stats.upload_rate } else { stats.download_rate };
                self.console.transfer(&Transfer {
                    bytes: stats.verified,
                    total: self.total,
                    rate,
                    uploaded: stats.uploaded,
                    peers: stats.peers,
                    seeds: self.complete,
                });
            }
            event => warn(&self.console, &event),
        }
        Ok(())
    }

    fn on_complete(&mut self) {
        self.complete = true;
        let time = self.started.elapsed();
        let (name, total) = (&self.name, self.total);
        self.console.say(
            &format!(
                "complete {name}: {} verified in {}",
                quantity::bytes(total),
                quantity::duration(time)
            ),
            &json!({
                "event": "complete",
                "name": name,
                "seconds": time.as_secs_f64(),
                "bytes": total,
            }),
        );
        self.exit_at = match self.args.then {
            Then::Exit => Some(Instant::now()),
            Then::Seed => None,
            Then::SeedFor(time) => Instant::now().checked_add(time),
        };
        if let Some(line) = &self.args.on_complete {
            let command = command(line, &self.args.dir, name, self.args.output);
            let sender = self.sender.clone();
            let line = line.clone();
            std::thread::spawn(move || {
                let _ = sender.send(Event::Command(carry_out(command, &line)));
            });
        }
    }

    fn on_command(&mut self, result: anyhow::Result<()>) {
        // Who seeds on should not have to wait to hear of it.
        if let (Err(error), false) = (&result, self.is_exiting()) {
            self.console.warn(&format!("{error:#}"));
        }
        self.command = Some(result);
    }

    fn is_exiting(&self) -> bool {
        self.exit_at.is_some_and(|at| at <= Instant::now())
    }
}

fn command(line: &str, dir: &Path, name: &str, output: OutputFormat) -> Command {
    // The command may change its directory.
    let dir = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    let mut command = Command::new("sh");
    command
        .arg("-c")
        .arg(line)
        .env("BOOTTORRENT_FILE", dir.join(name))
        .env("BOOTTORRENT_NAME", name)
        .env("BOOTTORRENT_DIR", &dir)
        .stdin(Stdio::null());
    if output == OutputFormat::Json {
        // Standard output is for JSON alone.
        command.stdout(std::io::stderr());
    }
    command
}

fn carry_out(mut command: Command, line: &str) -> anyhow::Result<()> {
    let status = command.status().with_context(|| format!("cannot run the command {line:?}"))?;
    if !status.success() {
        bail!("the command {line:?} failed: {status}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn then_is_one_of_three() {
        let check = |text: &str, expect: Option<Then>| {
            assert_eq!(text.parse::<Then>().ok(), expect, "{text}");
        };
        check("exit", Some(Then::Exit));
        check("seed", Some(Then::Seed));
        check("seed=0", Some(Then::SeedFor(Duration::ZERO)));
        check("seed=90", Some(Then::SeedFor(Duration::from_secs(90))));
        check("seed=", None);
        check("seed=-1", None);
        check("Exit", None);
        check("", None);
    }
}
