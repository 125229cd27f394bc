//! A command at a terminal of its own, at which somebody types.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use super::console::Console;
use crate::guard::Guard;
use crate::interrupt;

/// Questions come at once; what is made between them takes seconds.
const TIMEOUT: Duration = Duration::from_secs(120);

/// How often it is looked at.
const PAUSE: Duration = Duration::from_millis(50);

pub(crate) struct Terminal {
    process: Guard,
    keyboard: File,
    /// The other end, which tells how the terminal is set also when the command has ended.
    screen: File,
    console: Console,
    /// Keeps what is shown; ends when nobody has the other end open any more.
    reader: JoinHandle<()>,
}

/// How a command ended, and how it left its terminal.
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    /// All that it has shown.
    pub(crate) text: String,
    /// Whether the terminal shows what is typed.
    pub(crate) has_echo: bool,
}

impl Terminal {
    /// Starts a command; what it shows is kept in the file `shown`.
    pub(crate) fn start(command: &Command, shown: &Path) -> Result<Self> {
        let keyboard = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&keyboard)?;
        unlockpt(&keyboard)?;
        let name = ptsname(&keyboard, vec![])?;
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let screen = File::from(rustix::fs::open(name, flags, Mode::empty())?);
        tcsetwinsize(&screen, Winsize { ws_row: 25, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 })?;
        // In a session of its own, so that the terminal's Ctrl+C is for it alone.
        let mut inside = Command::new("setsid");
        inside.args(["--ctty", "--wait"]).arg(command.get_program()).args(command.get_args());
        let end = || screen.try_clone().map(Stdio::from);
        let process =
            inside.stdin(end()?).stdout(end()?).stderr(end()?).spawn().context("running setsid")?;
        let keyboard = File::from(keyboard);
        let mut output = keyboard.try_clone()?;
        let mut kept =
            File::create(shown).with_context(|| format!("creating {}", shown.display()))?;
        let reader = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count) = output.read(&mut buffer)
                && count > 0
                && kept.write_all(&buffer[..count]).is_ok()
            {}
        });
        let console = Console::new(shown.to_owned());
        Ok(Self { process: Guard(process), keyboard, screen, console, reader })
    }

    /// Waits until it shows a text, and types.
    pub(crate) fn answer(&mut self, question: &str, keys: &str) -> Result<()> {
        self.wait(question, |terminal| Ok(terminal.console.has(question)))?;
        self.keyboard.write_all(keys.as_bytes()).context("typing")
    }

    /// Waits also until what is typed is hidden: what was typed before is thrown away then.
    pub(crate) fn answer_hidden(&mut self, question: &str, keys: &str) -> Result<()> {
        self.wait(question, |terminal| {
            Ok(terminal.console.has(question) && !has_echo(&terminal.screen)?)
        })?;
        self.keyboard.write_all(keys.as_bytes()).context("typing")
    }

    /// Waits for its end.
    pub(crate) fn finish(mut self) -> Result<Ended> {
        self.wait("end", |terminal| Ok(terminal.process.0.try_wait()?.is_some()))?;
        let code = self.process.0.wait()?.code();
        let has_echo = has_echo(&self.screen)?;
        // Nobody has the other end then, and the last of what was shown can be waited for.
        drop(self.screen);
        ensure!(self.reader.join().is_ok(), "the thread that keeps what is shown panicked");
        Ok(Ended { code, text: self.console.text(), has_echo })
    }

    fn wait(&mut self, what: &str, mut is_so: impl FnMut(&mut Self) -> Result<bool>) -> Result<()> {
        let start = Instant::now();
        while !is_so(self)? {
            interrupt::check()?;
            ensure!(start.elapsed() < TIMEOUT, "no `{what}`: {}", self.console.text());
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }
}

/// Whether a terminal shows what is typed.
fn has_echo(screen: &File) -> Result<bool> {
    Ok(tcgetattr(screen)?.local_modes.contains(LocalModes::ECHO))
}
