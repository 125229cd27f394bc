//! What a command that runs for a while shows: a bar on a terminal, plain lines elsewhere, or a
//! JSON object a line. Nobody's reading it is no reason to end, so errors of writing are passed over.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};

use crate::cli::OutputFormat;
use crate::quantity;

/// Between two plain lines: enough to see that it moves, and a log of an hour stays readable.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// Between two JSON lines of one kind; the engine gives figures each half second.
const JSON_INTERVAL: Duration = Duration::from_millis(400);

/// Between two updates of the bar, which the eye takes for smooth.
const BAR_INTERVAL: Duration = Duration::from_millis(100);

/// Where a command says how it is doing.
pub(crate) struct Console {
    mode: Mode,
    started: Instant,
    /// When the last figures were shown.
    shown_at: Option<Instant>,
    /// What they were, as nothing is said twice.
    shown: String,
}

enum Mode {
    /// For commands whose output is another's.
    Silent,
    Json,
    Plain,
    Bar(ProgressBar),
}

/// The figures of a transfer.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Transfer {
    /// Verified, in bytes.
    pub(crate) bytes: u64,
    /// Of these.
    pub(crate) total: u64,
    /// Bytes a second that come in, or go out if this seeds.
    pub(crate) rate: f64,
    /// Bytes sent to peers.
    pub(crate) uploaded: u64,
    /// Connections.
    pub(crate) peers: usize,
    /// All is there: this only sends.
    pub(crate) seeds: bool,
}

impl Console {
    pub(crate) fn new(format: OutputFormat) -> Self {
        let terminal = io::stdout().is_terminal() && io::stderr().is_terminal();
        let mode = match format {
            OutputFormat::Json => Mode::Json,
            OutputFormat::Text if terminal => Mode::Bar(bar()),
            OutputFormat::Text => Mode::Plain,
        };
        Self { mode, started: Instant::now(), shown_at: None, shown: String::new() }
    }

    /// One that shows nothing but warnings.
    pub(crate) fn silent() -> Self {
        let mode = Mode::Silent;
        Self { mode, started: Instant::now(), shown_at: None, shown: String::new() }
    }

    /// What is waited for, on a terminal only.
    pub(crate) fn wait(&self, text: &str) {
        if let Mode::Bar(bar) = &self.mode {
            bar.set_message(text.to_owned());
            bar.tick();
        }
    }

    /// Something that happened once, in words and as fields of a JSON object.
    pub(crate) fn say(&self, text: &str, event: &Value) {
        match &self.mode {
            Mode::Silent => {}
            Mode::Json => print(&event.to_string()),
            Mode::Plain => print(text),
            Mode::Bar(bar) => bar.suspend(|| print(text)),
        }
    }

    /// Something that a human should know, though it goes on.
    pub(crate) fn warn(&self, text: &str) {
        let warn = || {
            let _ = writeln!(io::stderr(), "boottorrent: {text}");
        };
        match &self.mode {
            Mode::Json => {
                print(&json!({"event": "warning", "message": text}).to_string());
                warn();
            }
            Mode::Silent | Mode::Plain => warn(),
            Mode::Bar(bar) => bar.suspend(warn),
        }
    }

    /// How far hashing is, in bytes or pieces; the last figures are always shown.
    pub(crate) fn hashing(&mut self, what: &str, name: &str, done: u64, total: u64) {
        let share = percent(done, total);
        let text = format!("{what} {name}: {share} %");
        let event = json!({"event": what, "name": name, "done": done, "total": total});
        self.show(done, total, &text, &event, done == total);
    }

    /// How a transfer is doing.
    pub(crate) fn transfer(&mut self, transfer: &Transfer) {
        let Transfer { bytes, total, rate, uploaded, peers, seeds } = *transfer;
        let peers_text = quantity::count(peers, "peer");
        let text = if seeds {
            let sent = quantity::bytes(uploaded);
            format!("seeding: {sent} sent, {}, {peers_text}", quantity::rate(rate))
        } else {
            let left = (total - bytes.min(total)) as f64 / rate.max(1.0);
            let eta = match rate >= 1.0 {
                true => format!("{} left, ", quantity::duration(Duration::from_secs_f64(left))),
                false => String::new(),
            };
            let share = percent(bytes, total);
            let (bytes, total) = (quantity::bytes(bytes), quantity::bytes(total));
            let rate = quantity::rate(rate);
            // What matters most comes first: a narrow terminal cuts the end off.
            format!("{share} %, {rate}, {eta}{peers_text}, {bytes} of {total}")
        };
        let event = json!({
            "event": "progress",
            "bytes": bytes,
            "total": total,
            "rate": rate.round() as u64,
            "peers": peers,
            "uploaded": uploaded,
        });
        self.show(bytes, total, &text, &event, false);
    }

    /// Takes the bar away.
    pub(crate) fn finish(&self) {
        if let Mode::Bar(bar) = &self.mode {
            bar.finish_and_clear();
        }
    }

    fn show(&mut self, done: u64, total: u64, text: &str, event: &Value, always: bool) {
        let interval = match &self.mode {
            Mode::Silent => return,
            Mode::Json => JSON_INTERVAL,
            Mode::Plain => LINE_INTERVAL,
            Mode::Bar(_) => BAR_INTERVAL,
        };
        // What is over before a line is due needs none.
        let since = match self.mode {
            Mode::Plain => Some(self.shown_at.unwrap_or(self.started)),
            Mode::Silent | Mode::Json | Mode::Bar(_) => self.shown_at,
        };
        let always = always && (self.shown_at.is_some() || !matches!(self.mode, Mode::Plain));
        if !always && since.is_some_and(|at| at.elapsed() < interval) {
            return;
        }
        self.shown_at = Some(Instant::now());
        match &self.mode {
            Mode::Silent => {}
            Mode::Json => print(&event.to_string()),
            Mode::Plain => {
                if self.shown != text {
                    print(text);
                    text.clone_into(&mut self.shown);
                }
            }
            Mode::Bar(bar) => {
                bar.set_length(total);
                bar.set_position(done);
                bar.set_message(text.to_owned());
            }
        }
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        self.finish();
    }
}

fn bar() -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    match ProgressStyle::with_template("[{bar:20}] {wide_msg}") {
        Ok(style) => bar.with_style(style.progress_chars("=> ")),
        Err(_) => bar,
    }
}

/// All of nothing is done.
fn percent(done: u64, total: u64) -> u64 {
    (done * 100).checked_div(total).unwrap_or(100)
}

/// One line on standard output, at once: a pipe would hold it back.
pub(crate) fn print(line: &str) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// What a command that shows nothing on its way has done, as a sentence or as an object.
pub(crate) fn tell(format: OutputFormat, text: &str, event: &Value) {
    match format {
        OutputFormat::Text => print(text),
        OutputFormat::Json => print(&event.to_string()),
    }
}
