//! The agent's log: the latest lines, kept for reports, and with `boottorrent.debug` on the console.

use std::collections::VecDeque;
use std::fmt::{self, Write as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use boot::report::LOG_LEN_MAX;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// The most bytes of one line: a line that fills the whole log says less than several.
const LINE_LEN_MAX: usize = 512;

/// The latest lines, which many threads write.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log(Arc<Mutex<Ring>>);

#[derive(Debug, Default)]
struct Ring {
    lines: VecDeque<String>,
    len: usize,
}

impl Log {
    /// Adds a line; the oldest go when there are more than [`LOG_LEN_MAX`] bytes.
    pub(crate) fn add(&self, line: &str) {
        let line = &line[..line.floor_char_boundary(LINE_LEN_MAX)];
        let mut ring = self.ring();
        ring.len += line.len();
        ring.lines.push_back(line.to_owned());
        while ring.len > LOG_LEN_MAX {
            let Some(oldest) = ring.lines.pop_front() else { break };
            ring.len -= oldest.len();
        }
    }

    /// The lines that are kept, oldest first.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.ring().lines.iter().cloned().collect()
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a line is shown.
pub(crate) type Show = Box<dyn Fn(&str) + Send + Sync>;

/// Takes what the swarm engine and others trace: warnings and information into the log, and with
/// `debug` everything of this project's crates through `show`.
pub(crate) struct Tracer {
    log: Log,
    show: Option<Show>,
}

impl Tracer {
    /// What is traced from here on goes to `log`, and to `show` if it is given.
    pub(crate) fn install(log: Log, show: Option<Show>) {
        // Fails only if there is one already, which then takes it.
        let _ = tracing::subscriber::set_global_default(Self { log, show });
    }
}

impl Subscriber for Tracer {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let most = if self.show.is_some() { Level::DEBUG } else { Level::INFO };
        // Of the HTTP library only what is wrong.
        let of_library = metadata.target().starts_with("ureq");
        *metadata.level() <= if of_library { Level::WARN } else { most }
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(String::new());
        event.record(&mut line);
        match &self.show {
            Some(show) => show(&line.0),
            None => self.log.add(&line.0),
        }
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// The message first, then the fields.
struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a string does not fail.
        let _ = match field.name() {
            "message" => {
                let message = format!("{value:?}");
                self.0.insert_str(0, &message);
                Ok(())
            }
            name => write!(self.0, " {name}={value:?}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_lines_go_first_and_a_line_has_a_limit() {
        let log = Log::default();
        log.add("first");
        for number in 0..100 {
            log.add(&format!("{number} {}", "ä".repeat(300)));
        }
        let lines = log.lines();
        assert!(lines.iter().map(String::len).sum::<usize>() <= LOG_LEN_MAX);
        assert!(lines.iter().all(|line| line.len() <= LINE_LEN_MAX));
        assert!(lines.last().unwrap().starts_with("99 "));
        assert!(!lines.contains(&"first".to_owned()));
    }
}
