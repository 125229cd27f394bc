//! A command at a terminal of its own, at which somebody types.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use super::console::Console;
use crate::interrupt;

/// Questions come at once; what is made between them takes seconds.
const TIMEOUT: Duration = Duration::from_secs(120);

/// How often it is looked at.
const PAUSE: Duration = Duration::from_millis(50);

pub(crate) struct Terminal {
    child: Child,
    keyboard: File,
    /// The other end, which tells how the terminal is set also when the command has ended.
    screen: File,
    console: Console,
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
        let child = inside.stdin(end()?).stdout(end()?).stderr(end()?).spawn();
        let keyboard = File::from(keyboard);
        let mut output = keyboard.try_clone()?;
        let mut kept =
            File::create(shown).with_context(|| format!("creating {}", shown.display()))?;
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // Ends with an error when nobody has the other end open any more.
            while let Ok(count) = output.read(&mut buffer)
                && count > 0
                && kept.write_all(&buffer[..count]).is_ok()
            {}
        });
        let console = Console::new(shown.to_owned());
        Ok(Self { child: child.context("running setsid")?, keyboard, screen, console })
    }

    /// Waits until it shows a text, and types.
    pub(crate) fn answer(&mut self, question: &str, keys: &str) -> Result<()> {
        let start = Instant::now();
        while !self.console.has(question) {
            interrupt::check()?;
            ensure!(start.elapsed() < TIMEOUT, "no `{question}`: {}", self.console.text());
            std::thread::sleep(PAUSE);
        }
        self.keyboard.write_all(keys.as_bytes()).context("typing")
    }

    /// Waits for its end: the exit status, and all that it has shown.
    pub(crate) fn finish(&mut self) -> Result<(Option<i32>, String)> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok((status.code(), self.console.text()));
            }
            interrupt::check()?;
            ensure!(start.elapsed() < TIMEOUT, "it does not end: {}", self.console.text());
            std::thread::sleep(PAUSE);
        }
    }

    /// Whether it shows what is typed.
    pub(crate) fn has_echo(&self) -> Result<bool> {
        Ok(tcgetattr(&self.screen)?.local_modes.contains(LocalModes::ECHO))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It has ended by itself when all went well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
