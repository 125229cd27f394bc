//! What the person at the node sees: on every console that the kernel has, screens and serial lines
//! alike, in plain text.
//!
//! Each change of stage is also said in one line that programs can read and that stays as it is:
//! `BOOTTORRENT stage=NAME key=value…`. What changes all the time, as the progress of a download,
//! is one line that is written over.
//!
//! Where somebody is to choose, a page takes the whole screen of every terminal ([`Console::draw`]).
//! What is said meanwhile is written when the page is left.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IsTerminal as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use boot::Failure;
use ratatui_core::buffer::Buffer;

use crate::log::Log;
use crate::screen::ansi::Screen;

/// Where lines cannot be written over, as in a file, progress is said this often.
const PLAIN_INTERVAL: Duration = Duration::from_secs(5);

/// What a terminal has that does not say: a serial line.
const SIZE_USUAL: (u16, u16) = (80, 24);

/// The most lines that are kept for when a page is left; of more the newest.
const HELD_MAX: usize = 200;

/// Back to the first column, and what was there is gone (ECMA-48 EL).
const OVERWRITE: &str = "\r\x1b[K";

/// All consoles, shared by the threads that have something to say.
#[derive(Clone)]
pub(crate) struct Console {
    outputs: Arc<Mutex<Outputs>>,
    log: Log,
}

struct Outputs {
    outputs: Vec<Output>,
    /// The line that is written over, if one is shown.
    progress: String,
    plain_at: Option<Instant>,
    /// Terminals show a page.
    is_drawn: bool,
    /// What was said since.
    held: VecDeque<String>,
}

struct Output {
    terminal: Terminal,
    is_terminal: bool,
    screen: Screen,
}

impl Output {
    /// Columns and lines; asked each time, since a window can be resized.
    fn size(&self) -> (u16, u16) {
        match rustix::termios::tcgetwinsize(&self.terminal.file) {
            Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col, size.ws_row),
            _ => SIZE_USUAL,
        }
    }
}

/// Something to write to, and mostly also to read keys from.
#[derive(Debug)]
pub(crate) struct Terminal {
    /// By which it can be opened again.
    path: Option<PathBuf>,
    /// Open.
    pub(crate) file: File,
}

impl Terminal {
    /// Opens the device `path`; it does not become the terminal that signals us.
    fn open(path: PathBuf) -> io::Result<Self> {
        let file = open(&path)?;
        Ok(Self { path: Some(path), file })
    }

    /// It is a console of the node, not what somebody has started this program on.
    pub(crate) const fn is_device(&self) -> bool {
        self.path.is_some()
    }

    /// Opens it again. When the shell on a terminal ends, the kernel hangs up: what was open of it
    /// before is dead.
    pub(crate) fn reopen(&mut self) {
        if let Some(file) = self.path.as_ref().and_then(|path| open(path).ok()) {
            self.file = file;
        }
    }

    /// Another one of the same device.
    ///
    /// # Errors
    /// If there are too many open files.
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { path: self.path.clone(), file: self.file.try_clone()? })
    }
}

fn open(path: &Path) -> io::Result<File> {
    File::options().read(true).write(true).custom_flags(libc::O_NOCTTY).open(path)
}

impl Console {
    /// Writes to all of `terminals`, and to `log`.
    pub(crate) fn new(terminals: Vec<Terminal>, log: Log) -> Self {
        let outputs = terminals
            .into_iter()
            .map(|terminal| Output {
                is_terminal: terminal.file.is_terminal(),
                terminal,
                screen: Screen::default(),
            })
            .collect();
        let outputs = Outputs {
            outputs,
            progress: String::new(),
            plain_at: None,
            is_drawn: false,
            held: VecDeque::new(),
        };
        Self { outputs: Arc::new(Mutex::new(outputs)), log }
    }

    /// Something that a person should know.
    pub(crate) fn say(&self, line: &str) {
        self.log.add(line);
        self.show(line);
    }

    /// As [`Self::say`], of what need not be remembered.
    pub(crate) fn show(&self, text: &str) {
        let mut outputs = self.outputs();
        let progress = std::mem::take(&mut outputs.progress);
        for line in text.lines() {
            outputs.line(line, !progress.is_empty());
        }
        if !progress.is_empty() {
            outputs.overwrite(progress);
        }
    }

    /// A line for programs.
    pub(crate) fn mark(&self, mark: &Mark) {
        self.say(&mark.0);
    }

    /// How something is going, in one line that the next takes the place of.
    pub(crate) fn progress(&self, text: &str) {
        self.outputs().progress(text);
    }

    /// What was in progress is over: the line stays as it is.
    pub(crate) fn end_progress(&self) {
        let mut outputs = self.outputs();
        outputs.plain_at = None;
        if !std::mem::take(&mut outputs.progress).is_empty() {
            outputs.write(|output| if output.is_terminal { "\r\n" } else { "" });
        }
    }

    /// Shows a page on every terminal, whose size `draw` finds in the buffer. What is no terminal
    /// gets `plain` as [`Self::progress`] would write it.
    pub(crate) fn draw(&self, plain: &str, draw: impl Fn(&mut Buffer)) {
        let mut outputs = self.outputs();
        outputs.is_drawn = true;
        outputs.progress.clear();
        for output in outputs.outputs.iter_mut().filter(|output| output.is_terminal) {
            let (width, height) = output.size();
            let text = output.screen.show(width, height, &draw);
            let _ = output.terminal.file.write_all(text.as_bytes());
        }
        outputs.plain(plain);
    }

    /// The page is left: from here on lines are written as ever, first those that were said
    /// meanwhile.
    pub(crate) fn end_page(&self) {
        let mut outputs = self.outputs();
        outputs.plain_at = None;
        if !std::mem::take(&mut outputs.is_drawn) {
            return;
        }
        let held: String = outputs.held.drain(..).map(|line| line + "\r\n").collect();
        for output in outputs.outputs.iter_mut().filter(|output| output.is_terminal) {
            let text = output.screen.leave() + &held;
            let _ = output.terminal.file.write_all(text.as_bytes());
        }
    }

    /// What stands on the first terminal that shows a page, or else what was said last.
    pub(crate) fn text(&self) -> String {
        let outputs = self.outputs();
        let page = outputs.outputs.iter().find_map(|output| output.screen.text());
        page.filter(|_| outputs.is_drawn).unwrap_or_else(|| {
            let lines = self.log.lines();
            let first = lines.len().saturating_sub(usize::from(SIZE_USUAL.1));
            let progress = Some(outputs.progress.clone()).filter(|text| !text.is_empty());
            let shown: Vec<String> = lines.into_iter().skip(first).chain(progress).collect();
            shown.join("\n")
        })
    }

    /// A shell has ended.
    pub(crate) fn reopen(&self) {
        for output in &mut self.outputs().outputs {
            output.terminal.reopen();
            output.screen.forget();
        }
    }

    fn outputs(&self) -> MutexGuard<'_, Outputs> {
        self.outputs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Outputs {
    /// A console that takes nothing is no reason to stop.
    fn write<'a>(&mut self, text: impl Fn(&Output) -> &'a str) {
        for output in &mut self.outputs {
            let text = text(output);
            let _ = output.terminal.file.write_all(text.as_bytes());
        }
    }

    fn line(&mut self, line: &str, over_progress: bool) {
        if self.is_drawn {
            if self.held.len() == HELD_MAX {
                self.held.pop_front();
            }
            self.held.push_back(line.to_owned());
            let plain = format!("{line}\n");
            return self.write(|output| if output.is_terminal { "" } else { &plain });
        }
        let begin = if over_progress { OVERWRITE } else { "" };
        let terminal = format!("{begin}{line}\r\n");
        let plain = format!("{line}\n");
        self.write(|output| if output.is_terminal { &terminal } else { &plain });
    }

    fn overwrite(&mut self, text: String) {
        let terminal = format!("{OVERWRITE}{text}");
        self.write(|output| if output.is_terminal { &terminal } else { "" });
        self.progress = text;
    }

    fn progress(&mut self, text: &str) {
        if self.progress == text || self.is_drawn {
            return;
        }
        self.overwrite(text.to_owned());
        self.plain(text);
    }

    /// Progress where lines cannot be written over.
    fn plain(&mut self, text: &str) {
        let is_due = self.plain_at.is_none_or(|at| at.elapsed() >= PLAIN_INTERVAL);
        if is_due {
            self.plain_at = Some(Instant::now());
            let plain = format!("{text}\n");
            self.write(|output| if output.is_terminal { "" } else { &plain });
        }
    }
}

/// The consoles of the kernel, as `/sys/class/tty/console/active` names them; the last of them is
/// `/dev/console`, which is taken alone where nothing else can be opened.
pub(crate) fn open_kernel_consoles() -> Vec<Terminal> {
    let active = std::fs::read_to_string("/sys/class/tty/console/active").unwrap_or_default();
    let found: Vec<Terminal> = active
        .split_ascii_whitespace()
        // tty0 is the screen that is in front.
        .filter_map(|name| Terminal::open(Path::new("/dev").join(name)).ok())
        .filter(|terminal| terminal.file.is_terminal())
        .collect();
    if found.is_empty() {
        return Terminal::open("/dev/console".into()).into_iter().collect();
    }
    found
}

/// Standard output alone, for runs outside PID 1.
///
/// # Errors
/// If there is none.
pub(crate) fn standard_output() -> io::Result<Terminal> {
    Ok(Terminal { path: None, file: io::stdout().as_fd().try_clone_to_owned()?.into() })
}

/// Standard input, for runs outside PID 1 that read keys.
///
/// # Errors
/// If there is none.
pub(crate) fn standard_input() -> io::Result<Terminal> {
    Ok(Terminal { path: None, file: io::stdin().as_fd().try_clone_to_owned()?.into() })
}

/// A line for programs: words, and values in quotes where they need them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mark(String);

impl Mark {
    /// The stage that was entered.
    pub(crate) fn stage(name: &str) -> Self {
        Self("BOOTTORRENT".to_owned()).with("stage", name)
    }

    /// What went wrong.
    pub(crate) fn failed(failure: Failure, reason: &str, retry_in_s: u64) -> Self {
        Self("BOOTTORRENT failed".to_owned())
            .with("code", failure.code())
            .with("retry_in_s", &retry_in_s.to_string())
            .quoted("reason", reason)
    }

    /// One more fact.
    pub(crate) fn with(self, key: &str, value: &str) -> Self {
        let plain = |c: char| c.is_ascii_graphic() && c != '"' && c != '\\';
        if !value.is_empty() && value.chars().all(plain) {
            Self(format!("{} {key}={value}", self.0))
        } else {
            self.quoted(key, value)
        }
    }

    fn quoted(mut self, key: &str, value: &str) -> Self {
        self.0.push_str(&format!(" {key}=\""));
        for c in value.chars() {
            match c {
                '"' | '\\' => self.0.extend(['\\', c]),
                c if c.is_control() => self.0.push(' '),
                c => self.0.push(c),
            }
        }
        self.0.push('"');
        self
    }
}

/// What stands on the screen of a node that has failed and will try again.
pub(crate) fn failure_screen(failure: Failure, reason: &str) -> String {
    let rule = "-".repeat(72);
    format!(
        "{rule}\n{code}  {what}\n\n  {reason}\n\n  What to do: {cure}.\n{rule}",
        code = failure.code(),
        what = failure.what(),
        cure = failure.cure(),
    )
}

/// Bytes as people read them.
pub(crate) fn mib(bytes: u64) -> String {
    let mib = bytes as f64 / f64::from(1 << 20);
    match mib {
        mib if mib < 10.0 => format!("{mib:.1} MiB"),
        mib if mib < 10_240.0 => format!("{mib:.0} MiB"),
        mib => format!("{:.1} GiB", mib / 1024.0),
    }
}

/// How long something takes, as people say it.
pub(crate) fn duration(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_can_be_split_by_programs() {
        let mark = Mark::stage("lease").with("interface", "eth0").with("title", "Debian 12");
        assert_eq!(mark.0, r#"BOOTTORRENT stage=lease interface=eth0 title="Debian 12""#);
        let mark = Mark::failed(Failure::ManifestUnreachable, "a \"b\"\nc\\", 4);
        assert_eq!(mark.0, r#"BOOTTORRENT failed code=BT31 retry_in_s=4 reason="a \"b\" c\\""#);
        assert_eq!(
            Mark::stage("menu").with("default", "").0,
            "BOOTTORRENT stage=menu default=\"\""
        );
    }

    #[test]
    fn a_failure_says_code_case_and_cure() {
        let screen = failure_screen(Failure::NotEnoughMemory, "100 MiB are missing");
        for part in ["BT43", "does not fit", "100 MiB are missing", "What to do: use a smaller"] {
            assert!(screen.contains(part), "{screen}");
        }
    }

    #[test]
    fn figures_are_short() {
        let sizes = [0, 1 << 20, 300 << 20, 20 << 30].map(mib);
        assert_eq!(sizes, ["0.0 MiB", "1.0 MiB", "300 MiB", "20.0 GiB"]);
        assert_eq!([5, 119, 125, 7265].map(duration), ["5 s", "119 s", "2 min 5 s", "2 h 1 min"]);
    }

    #[test]
    fn a_file_gets_whole_lines_and_progress_now_and_then() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("console");
        let terminal = Terminal { path: None, file: File::create(&path).unwrap() };
        let console = Console::new(vec![terminal], Log::default());
        console.progress("1 %");
        console.progress("2 %");
        console.say("hello");
        console.end_progress();
        console.progress("3 %");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "1 %\nhello\n3 %\n");
    }
}
