//! The log of a running server: one line an event, which begins with the service that it is about:
//!
//! ```text
//! DHCP  52:54:00:12:34:56 offered 192.168.1.50
//! HTTP  192.168.1.50 GET /boot.ipxe 200
//! NODE  52:54:00:12:34:56 c001 downloading debian, 25 %
//! ```
//!
//! Services write `tracing` events; the target, or the module that one comes from, says which service
//! it is. With `-o json` a line is an object with the same as fields.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Mutex, PoisonError};

use serde_json::{Map, Value, json};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use crate::cli::OutputFormat;
use crate::fleet::UnixMs;
use crate::lab::settings::{LogFormat, LogLevel};

/// How much is logged: a reload can change it.
static LEVEL: AtomicU8 = AtomicU8::new(level_number(LogLevel::Info));

/// Whether lines are JSON though the command line did not ask for it.
static IS_JSON: AtomicBool = AtomicBool::new(false);

/// Lines a second of one service; those beyond are counted. A room of 1,000 nodes that starts within
/// a minute makes fewer, and a stranger must not be able to fill a disk: what is worth an error is
/// said rarely, and is written in any case.
const LINES_PER_S_MAX: u32 = 200;

/// Where lines go.
#[derive(Debug)]
pub(crate) enum Sink {
    /// Standard output. Somebody looks, or a supervisor adds the time.
    Stdout,
    /// A file, with the time before each line.
    File(File),
}

/// Sends the events of the whole program to `sink` from here on; only the first call has an effect.
pub(crate) fn begin(format: OutputFormat, sink: Sink) {
    let lines = Lines { format, out: Mutex::new(Out { sink, rates: BTreeMap::new() }) };
    let _ = tracing::subscriber::set_global_default(tracing_subscriber::registry().with(lines));
}

/// How much is logged from here on.
pub(crate) fn set_level(level: LogLevel) {
    LEVEL.store(level_number(level), Ordering::Relaxed);
}

/// How lines are written from here on.
pub(crate) fn set_format(format: LogFormat) {
    IS_JSON.store(format == LogFormat::Json, Ordering::Relaxed);
}

const fn level_number(level: LogLevel) -> u8 {
    match level {
        LogLevel::Error => 0,
        LogLevel::Warn => 1,
        LogLevel::Info => 2,
        LogLevel::Debug => 3,
        LogLevel::Trace => 4,
    }
}

fn is_wanted(metadata: &Metadata<'_>, level: u8) -> bool {
    let number = match *metadata.level() {
        Level::ERROR => 0,
        Level::WARN => 1,
        Level::INFO => 2,
        Level::DEBUG => 3,
        _ => 4,
    };
    // What libraries have to say is for who looks at everything.
    let most = if service(metadata.target()).is_some() { number } else { number.max(4) };
    most <= level
}

/// The service that an event is about, as its line begins; none if it is not of this program.
fn service(target: &str) -> Option<&str> {
    const MODULES: &[(&str, &str)] = &[
        ("boottorrent::dhcp", "DHCP"),
        ("boottorrent::leases", "DHCP"),
        ("boottorrent::tftp", "TFTP"),
        ("boottorrent::http", "HTTP"),
        ("boottorrent::tracker", "SWARM"),
        ("boottorrent::fleet", "NODE"),
        ("boottorrent::lab", "LAB"),
        ("boottorrent::phase1", "LAB"),
        ("boottorrent", "START"),
        ("dhcp", "DHCP"),
        ("tftp", "TFTP"),
        ("image", "LAB"),
        ("torrent_io", "SWARM"),
        ("torrent", "SWARM"),
    ];
    if !target.is_empty() && target.bytes().all(|byte| byte.is_ascii_uppercase()) {
        return Some(target);
    }
    let is_within = |module: &str| {
        target.strip_prefix(module).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    };
    MODULES.iter().find(|(module, _)| is_within(module)).map(|(_, service)| *service)
}

struct Lines {
    format: OutputFormat,
    out: Mutex<Out>,
}

struct Out {
    sink: Sink,
    /// By service.
    rates: BTreeMap<String, Rate>,
}

/// How many lines there were.
#[derive(Debug, Default)]
struct Rate {
    second: u64,
    count: u32,
    dropped_count: u64,
}

impl Rate {
    /// Whether there may be another line in this second; and how many there were too many of in the
    /// one before, if this is the first after that.
    fn take(&mut self, second: u64) -> (bool, Option<u64>) {
        let mut dropped = None;
        if self.second != second {
            dropped = Some(std::mem::take(&mut self.dropped_count)).filter(|count| *count > 0);
            (self.second, self.count) = (second, 0);
        }
        self.count = self.count.saturating_add(1);
        let has_room = self.count <= LINES_PER_S_MAX;
        self.dropped_count += u64::from(!has_room);
        (has_room, dropped)
    }
}

impl<S: Subscriber> Layer<S> for Lines {
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        is_wanted(metadata, LEVEL.load(Ordering::Relaxed))
    }

    fn register_callsite(&self, _: &'static Metadata<'static>) -> tracing::subscriber::Interest {
        // The level can change.
        tracing::subscriber::Interest::sometimes()
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let metadata = event.metadata();
        let service = service(metadata.target()).unwrap_or("LIB");
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        let second = UnixMs::now().0 / 1000;
        let (has_room, dropped) = match *metadata.level() {
            Level::ERROR => (true, None),
            _ => out.rates.entry(service.to_owned()).or_default().take(second),
        };
        if let Some(count) = dropped {
            let message = format!("{count} more lines were not written");
            let fields = Fields { message, ..Fields::default() };
            self.write(&mut out.sink, fields, service, Level::WARN);
        }
        if has_room {
            self.write(&mut out.sink, fields, service, *metadata.level());
        }
    }
}

impl Lines {
    fn write(&self, sink: &mut Sink, fields: Fields, service: &str, level: Level) {
        let format = match IS_JSON.load(Ordering::Relaxed) {
            true => OutputFormat::Json,
            false => self.format,
        };
        let line = match format {
            OutputFormat::Text => fields.text(service, level),
            OutputFormat::Json => fields.json(service, level),
        };
        // A log that nobody takes is no reason to end.
        let _ = match sink {
            Sink::Stdout => writeln!(io::stdout().lock(), "{line}"),
            Sink::File(file) if format == OutputFormat::Json => {
                file.write_all(format!("{line}\n").as_bytes())
            }
            Sink::File(file) => file.write_all(format!("{} {line}\n", now()).as_bytes()),
        };
    }
}

/// RFC 3339, UTC.
fn now() -> String {
    let mut text = String::new();
    let _ = SystemTime.format_time(&mut Writer::new(&mut text));
    text
}

/// What an event says.
#[derive(Default)]
struct Fields {
    message: String,
    /// Whom it is about: comes first in a line.
    subject: Option<String>,
    others: Vec<(&'static str, Value)>,
}

impl Fields {
    fn text(&self, service: &str, level: Level) -> String {
        let mut line = format!("{service:<5}");
        if level <= Level::WARN {
            let _ = write!(line, " {}", level.as_str().to_ascii_lowercase());
            line.push(':');
        }
        for part in self.subject.iter().chain([&self.message]).filter(|part| !part.is_empty()) {
            let _ = write!(line, " {part}");
        }
        for (name, value) in &self.others {
            let _ = match value {
                Value::String(text) => write!(line, " {name}={text}"),
                value => write!(line, " {name}={value}"),
            };
        }
        // One event is one line, whatever a stranger sent.
        line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
    }

    fn json(self, service: &str, level: Level) -> String {
        let mut object = Map::new();
        object.insert("time".to_owned(), json!(now()));
        object.insert("service".to_owned(), json!(service.to_ascii_lowercase()));
        object.insert("level".to_owned(), json!(level.as_str().to_ascii_lowercase()));
        object.insert("message".to_owned(), json!(self.message));
        if let Some(subject) = self.subject {
            object.insert("node".to_owned(), json!(subject));
        }
        object.extend(self.others.into_iter().map(|(name, value)| (name.to_owned(), value)));
        Value::Object(object).to_string()
    }

    fn take(&mut self, field: &Field, value: Value) {
        let text = |value: &Value| match value {
            Value::String(text) => text.clone(),
            value => value.to_string(),
        };
        match field.name() {
            "message" => self.message = text(&value),
            "node" => self.subject = Some(text(&value)),
            name => self.others.push((name, value)),
        }
    }
}

impl Visit for Fields {
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.take(field, json!(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.take(field, json!(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.take(field, json!(value));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.take(field, json!(value));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.take(field, json!(value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.take(field, json!(format!("{value:?}")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_begins_with_its_service() {
        let check = |target, expect| assert_eq!(service(target), expect, "{target}");
        check("boottorrent::dhcp::driver", Some("DHCP"));
        check("boottorrent::tftp", Some("TFTP"));
        check("boottorrent::tftpd", Some("START"));
        check("torrent_io::engine", Some("SWARM"));
        check("NODE", Some("NODE"));
        check("hyper::proto", None);
        check("", None);
    }

    #[test]
    fn a_flood_is_counted_and_not_written() {
        let mut rate = Rate::default();
        let written = (0..10_000).filter(|_| rate.take(7).0).count();
        assert_eq!(written, LINES_PER_S_MAX as usize);
        assert_eq!(rate.take(8), (true, Some(10_000 - u64::from(LINES_PER_S_MAX))));
        assert_eq!(rate.take(8), (true, None));
    }

    #[test]
    fn a_line_is_one_line() {
        let fields = Fields {
            message: "failed\nBT21 \x1b[2J".to_owned(),
            subject: Some("52:54:00:12:34:56".to_owned()),
            others: vec![("retry_s", json!(4)), ("why", json!("no answer"))],
        };
        assert_eq!(
            fields.text("NODE", Level::INFO),
            "NODE  52:54:00:12:34:56 failed BT21  [2J retry_s=4 why=no answer"
        );
        assert!(fields.text("NODE", Level::WARN).starts_with("NODE  warn: 52:54:"));
        let value: Value = serde_json::from_str(&fields.json("NODE", Level::INFO)).unwrap();
        assert_eq!((&value["service"], &value["retry_s"]), (&json!("node"), &json!(4)));
    }
}
