//! `boottorrent lan request`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use clap::Args;
use lantorrent::store::{Ask, Queue, QueueError, Queued, State, unix_ms};
use serde_json::json;

use super::options::contact;
use crate::cli::OutputFormat;
use crate::progress::{Console, print};

/// How often the queue is asked: at first often, as small files are there in a moment.
const ASK_INTERVAL: Duration = Duration::from_millis(100);
const ASK_INTERVAL_MAX: Duration = Duration::from_secs(1);

/// The exit status when the directory to wait for has disappeared, as ltclient.sh has it.
const DIR_GONE: u8 = 2;

#[derive(Debug, Args)]
pub(crate) struct RequestArgs {
    #[command(flatten)]
    what: What,
    /// The queue of the daemon.
    #[arg(long, value_name = "FILE")]
    queue: PathBuf,
    /// How to print.
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: OutputFormat,
}

/// What is asked for, in the words of the original.
#[derive(Debug, Args)]
pub(super) struct What {
    /// SRC DST RID HOST[:PORT]: the file here, its absolute path there, a name for the request that
    /// nobody else uses, and the host. No host is the caller by ssh.
    #[arg(value_name = "ARGUMENT", num_args = 0..=4)]
    pub(super) arguments: Vec<String>,
    /// Do not wait.
    #[arg(short, long)]
    pub(super) nonblock: bool,
    /// Look at an earlier request.
    #[arg(short = 'a', long, value_name = "RID")]
    pub(super) reattach: Option<String>,
    /// Take it back.
    #[arg(short, long, requires = "reattach")]
    pub(super) cancel: bool,
    /// While waiting: if this directory disappears, take the request back and exit with 2.
    #[arg(long, value_name = "DIR")]
    pub(super) while_dir: Option<PathBuf>,
}

pub(super) fn run(args: &RequestArgs) -> anyhow::Result<ExitCode> {
    let queue = Queue::open(&args.queue)?;
    match handle(&args.what, &queue, args.output)? {
        Answer::State(queued) => {
            answer(&queued, args.output);
            Ok(if queued.rc() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Answer::Cancelled => Ok(ExitCode::SUCCESS),
        Answer::DirGone => Ok(ExitCode::from(DIR_GONE)),
    }
}

/// What became of it.
pub(super) enum Answer {
    State(Queued),
    Cancelled,
    DirGone,
}

impl Answer {
    /// The exit status of the original, which is 0 whenever the request was handled.
    pub(super) fn original(self) -> ExitCode {
        match self {
            Self::State(queued) => {
                answer(&queued, OutputFormat::Text);
                ExitCode::SUCCESS
            }
            Self::Cancelled => ExitCode::SUCCESS,
            Self::DirGone => ExitCode::from(DIR_GONE),
        }
    }
}

/// Asks, looks, waits or cancels.
pub(super) fn handle(what: &What, queue: &Queue, output: OutputFormat) -> anyhow::Result<Answer> {
    let rid = match &what.reattach {
        Some(rid) if what.cancel => {
            queue.cancel(rid)?;
            return Ok(Answer::Cancelled);
        }
        Some(rid) => rid.clone(),
        None => {
            let ask = ask(&what.arguments)?;
            queue.add(&ask, unix_ms())?;
            ask.rid
        }
    };
    let queued = queue.find(&rid)?;
    if what.nonblock || queued.state == State::Done {
        return Ok(Answer::State(queued));
    }
    wait(queue, &rid, what.while_dir.as_deref(), output)
}

fn ask(arguments: &[String]) -> anyhow::Result<Ask> {
    let [src, dst, rid, host] = arguments else {
        bail!(
            "You must provide 4 arguments: <src file> <dst file> <a uuid for this request> \
             <the contact string of the receiving node's server>"
        );
    };
    let found = std::fs::metadata(src).with_context(|| format!("cannot read {src}"))?;
    ensure!(found.is_file(), "{src} is no regular file");
    let src = Path::new(src).canonicalize().with_context(|| format!("cannot find {src}"))?;
    let src = src.into_os_string().into_string();
    let src = src.map_err(|path| anyhow::anyhow!("{} is no UTF-8", path.display()))?;
    ensure!(dst.starts_with('/'), "{dst:?} is no absolute path");
    ensure!(!rid.is_empty(), "the request needs a name");
    let (host, port) = contact(host)?;
    Ok(Ask { src, dst: dst.clone(), rid: rid.clone(), host, port })
}

fn wait(
    queue: &Queue,
    rid: &str,
    while_dir: Option<&Path>,
    output: OutputFormat,
) -> anyhow::Result<Answer> {
    let console = Console::new(OutputFormat::Text);
    let start = Instant::now();
    let mut interval = ASK_INTERVAL;
    loop {
        if while_dir.is_some_and(|dir| !dir.is_dir()) {
            match queue.cancel(rid) {
                Ok(()) | Err(QueueError::Unknown(_)) => return Ok(Answer::DirGone),
                Err(error) => return Err(error.into()),
            }
        }
        let queued = match queue.find(rid) {
            Ok(queued) => queued,
            Err(QueueError::Unknown(_)) => bail!("request {rid} was cancelled"),
            Err(error) => return Err(error.into()),
        };
        if queued.state == State::Done {
            console.finish();
            return Ok(Answer::State(queued));
        }
        if output == OutputFormat::Text {
            console.wait(&format!("{} for {} s", word(queued.state), start.elapsed().as_secs()));
        }
        std::thread::sleep(interval);
        interval = ASK_INTERVAL_MAX.min(interval.mul_f64(1.2));
    }
}

/// A state as people and programs read it.
pub(super) const fn word(state: State) -> &'static str {
    match state {
        State::Waiting => "waiting",
        State::Active => "sending",
        State::Done => "done",
    }
}

fn answer(queued: &Queued, output: OutputFormat) {
    match output {
        OutputFormat::Text => print(&queued.line()),
        OutputFormat::Json => print(&json(queued).to_string()),
    }
}

/// A request as a JSON object.
pub(super) fn json(queued: &Queued) -> serde_json::Value {
    json!({
        "rid": queued.rid,
        "source": queued.src,
        "destination": queued.dst,
        "host": queued.host,
        "port": queued.port,
        "state": word(queued.state),
        "rc": queued.rc(),
        "done": queued.state == State::Done,
        "code": queued.code,
        "message": queued.message,
        "attempts": queued.attempts,
        "entered_unix_ms": queued.entered,
    })
}
