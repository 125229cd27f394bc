//! `boottorrent lan daemon`: the central agent.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use lantorrent::code::Code;
use lantorrent::io::{Cancel, Identity, Shape, Source};
use lantorrent::plan;
use lantorrent::queue::Policy;
use lantorrent::store::{Batch, Queue, unix_ms};
use serde_json::json;

use super::options::{IdentityArgs, ShapeArgs};
use crate::cli::OutputFormat;
use crate::progress::Console;
use crate::signals;

/// How often the queue is looked at: nobody notices a quarter of a second beside a delay of
/// seconds, and it costs a query.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// How often it is looked whether requests that are being fulfilled were cancelled.
const CANCEL_INTERVAL: Duration = Duration::from_millis(500);

#[derive(Debug, Args)]
pub(crate) struct DaemonArgs {
    /// The queue: a file of SQLite, made if it is not there.
    #[arg(long, value_name = "FILE")]
    queue: PathBuf,
    #[command(flatten)]
    identity: IdentityArgs,
    /// Send a file as soon as so many requests for it wait.
    #[arg(long, value_name = "N", default_value_t = Policy::default().requests)]
    requests: u32,
    /// Or when none has come for so long.
    #[arg(long, value_name = "SECONDS", default_value_t = Policy::default().delay.as_secs_f64())]
    delay: f64,
    /// Give a request up after so many attempts.
    #[arg(long, value_name = "N", default_value_t = Policy::default().attempts)]
    attempts: u32,
    /// Pause before another attempt, times the attempts that failed.
    #[arg(long, value_name = "SECONDS", default_value_t = Policy::default().retry_delay.as_secs_f64())]
    retry_delay: f64,
    /// Give a request up when it has waited so long.
    #[arg(long, value_name = "SECONDS", default_value_t = Policy::default().expiry.as_secs_f64())]
    expire: f64,
    /// Different files that are sent at the same time.
    #[arg(long, value_name = "N", default_value_t = 4)]
    sessions: usize,
    #[command(flatten)]
    shape: ShapeArgs,
    /// How to print.
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: OutputFormat,
}

/// What the daemon needs, however it is called.
pub(super) struct Setup {
    pub(super) queue: PathBuf,
    pub(super) identity: Arc<Identity>,
    pub(super) policy: Policy,
    pub(super) sessions: usize,
    pub(super) shape: Shape,
    pub(super) output: OutputFormat,
}

pub(super) fn run(args: &DaemonArgs) -> anyhow::Result<ExitCode> {
    super::serve::log(args.output);
    let seconds = |value: f64, what: &str| {
        Duration::try_from_secs_f64(value).with_context(|| format!("{what}: {value} is no time"))
    };
    serve(&Setup {
        queue: args.queue.clone(),
        identity: args.identity.read()?,
        policy: Policy {
            requests: args.requests,
            delay: seconds(args.delay, "--delay")?,
            attempts: args.attempts.max(1),
            retry_delay: seconds(args.retry_delay, "--retry-delay")?,
            expiry: seconds(args.expire, "--expire")?,
        },
        sessions: args.sessions.max(1),
        shape: args.shape.into(),
        output: args.output,
    })
}

/// Serves the queue until a signal.
pub(super) fn serve(setup: &Setup) -> anyhow::Result<ExitCode> {
    let _lock = lock(&setup.queue)?;
    let queue = Queue::open(&setup.queue)?;
    queue.recover()?;
    let is_stopped = Arc::new(AtomicBool::new(false));
    let (sender, ended) = channel();
    let (stopped, wake) = (Arc::clone(&is_stopped), sender.clone());
    signals::watch(move |_| {
        stopped.store(true, Ordering::Release);
        let _ = wake.send(String::new());
    })?;
    let console = Console::new(setup.output);
    let name = setup.queue.display();
    console
        .say(&format!("serving {name}"), &json!({"event": "serving", "queue": name.to_string()}));
    let mut daemon =
        Daemon { setup, queue, console, running: BTreeMap::new(), sender, ended, is_stopped };
    daemon.run()?;
    Ok(ExitCode::SUCCESS)
}

/// One daemon for a queue. The lock ends with the process, however that ends.
fn lock(queue: &Path) -> anyhow::Result<File> {
    let path = queue.with_added_extension("lock");
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .with_context(|| format!("cannot make {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => {
            bail!("another daemon serves {}", queue.display())
        }
        Err(std::fs::TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("cannot lock {}", path.display()))
        }
    }
}

struct Daemon<'a> {
    setup: &'a Setup,
    queue: Queue,
    console: Console,
    /// By file.
    running: BTreeMap<String, Running>,
    sender: Sender<String>,
    ended: Receiver<String>,
    is_stopped: Arc<AtomicBool>,
}

struct Running {
    rids: Vec<String>,
    cancel: Arc<std::sync::Mutex<Option<Cancel>>>,
    thread: std::thread::JoinHandle<anyhow::Result<usize>>,
}

impl Daemon<'_> {
    fn run(&mut self) -> anyhow::Result<()> {
        let mut cancel_at = Instant::now();
        while !self.is_stopped.load(Ordering::Acquire) {
            if let Err(error) = self.look() {
                // A full disk passes; the requests are safe, and so are those that come.
                self.console.warn(&format!("{error:#}"));
            }
            if Instant::now() >= cancel_at {
                cancel_at = Instant::now() + CANCEL_INTERVAL;
                self.cancel();
            }
            match self.ended.recv_timeout(LOOK_INTERVAL) {
                Ok(src) => self.on_ended(&src),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
        }
        // What is under way waits again, for the next daemon.
        self.queue.recover()?;
        Ok(())
    }

    /// Starts all sessions that are due.
    fn look(&mut self) -> anyhow::Result<()> {
        let now = unix_ms();
        self.queue.expire(&self.setup.policy, now)?;
        while self.running.len() < self.setup.sessions {
            let busy: Vec<String> = self.running.keys().cloned().collect();
            let Some(batch) = self.queue.take(&self.setup.policy, &busy, now)? else { break };
            self.start(batch)?;
        }
        Ok(())
    }

    fn start(&mut self, batch: Batch) -> anyhow::Result<()> {
        let src = batch.src.clone();
        let count = batch.requests.len();
        self.console.say(
            &format!("sending {src} for {count} requests"),
            &json!({"event": "sending", "file": src, "requests": count}),
        );
        let rids = batch.requests.iter().map(|request| request.rid.clone()).collect();
        let cancel = Arc::new(std::sync::Mutex::new(None));
        let session = Session {
            queue: self.setup.queue.clone(),
            identity: Arc::clone(&self.setup.identity),
            policy: self.setup.policy,
            shape: self.setup.shape,
            cancel: Arc::clone(&cancel),
            batch,
        };
        let (sender, name) = (self.sender.clone(), src.clone());
        let thread = std::thread::Builder::new()
            .name("lan-send".to_owned())
            .spawn(move || {
                let result = session.run();
                let _ = sender.send(name);
                result
            })
            .context("no thread for a session")?;
        self.running.insert(src, Running { rids, cancel, thread });
        Ok(())
    }

    fn on_ended(&mut self, src: &str) {
        let Some(running) = self.running.remove(src) else { return };
        let count = running.rids.len();
        match running.thread.join() {
            Ok(Ok(done)) => self.console.say(
                &format!("sent {src} for {done} of {count} requests"),
                &json!({"event": "sent", "file": src, "succeeded": done, "requests": count}),
            ),
            Ok(Err(error)) => self.console.warn(&format!("{src}: {error:#}")),
            Err(_) => self.console.warn(&format!("{src}: the session ended by a bug")),
        }
    }

    /// Requests that are gone from the queue are not wanted any more.
    fn cancel(&self) {
        for running in self.running.values() {
            let Ok(gone) = self.queue.gone(&running.rids) else { continue };
            let cancel = running.cancel.lock().map(|cancel| cancel.clone()).ok().flatten();
            if let Some(cancel) = cancel.filter(|_| !gone.is_empty()) {
                cancel.cancel(gone);
            }
        }
    }
}

/// One file, sent once.
struct Session {
    queue: PathBuf,
    identity: Arc<Identity>,
    policy: Policy,
    shape: Shape,
    cancel: Arc<std::sync::Mutex<Option<Cancel>>>,
    batch: Batch,
}

impl Session {
    /// How many requests are fulfilled.
    fn run(self) -> anyhow::Result<usize> {
        let results = match self.send() {
            Ok(reports) => self.batch.results(&reports),
            // A file that vanished costs an attempt like anything else, or it would come again
            // and again.
            Err(error) => {
                let rids = self.batch.requests.iter().map(|request| request.rid.clone());
                rids.map(|rid| (rid, Code::UNKNOWN.0, format!("{error:#}"))).collect()
            }
        };
        let done = results.iter().filter(|(_, code, _)| *code == 0).count();
        Queue::open(&self.queue)?.settle(&self.policy, &results, unix_ms())?;
        Ok(done)
    }

    fn send(&self) -> anyhow::Result<Vec<lantorrent::report::Report>> {
        let source = Source::open(Path::new(&self.batch.src))?;
        let wanted = self.batch.wanted();
        let destinations = plan::destinations(wanted, self.shape.degree, source.length());
        let started = |cancel| {
            if let Ok(mut place) = self.cancel.lock() {
                *place = Some(cancel);
            }
        };
        let outcome = lantorrent::io::send(
            &source,
            destinations,
            self.shape,
            &self.identity,
            started,
            |_, _| (),
        )?;
        Ok(outcome.reports)
    }
}
