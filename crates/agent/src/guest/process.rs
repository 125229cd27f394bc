//! QEMU as a process in the extension's root.

use std::collections::VecDeque;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use super::{Guest, GuestFailure, command};
use crate::console::Console;
use crate::keyboard;

/// How many of its last lines, and how much of a line, are kept: an error of QEMU is one line, two
/// at most.
const LINES_MAX: usize = 4;
const LINE_LEN_MAX: u64 = 240;

/// How much it goes before the agent's threads when processors are short: a guest that stutters is felt
/// at once, a seed that gives way is not.
const NICE: i32 = -5;

/// Where the guest's writes go: memory.
const WRITES: &str = "/run/boottorrent/guest";

/// The terminal, for as long as the guest has it.
pub(super) struct Terminal {
    console: Console,
    /// Given back before the console is.
    _pause: keyboard::Pause,
}

impl Terminal {
    /// Takes it.
    pub(super) fn take(console: &Console) -> Self {
        console.end_progress();
        Self { console: console.clone(), _pause: keyboard::pause() }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.console.reopen();
    }
}

/// QEMU.
pub(super) struct Process {
    child: Child,
    said: Arc<Mutex<VecDeque<String>>>,
    _terminal: Option<Terminal>,
}

impl Process {
    /// Starts it on the image's files.
    pub(super) fn start(
        guest: &Guest,
        args: &[String],
        terminal: Option<Terminal>,
    ) -> Result<Self, GuestFailure> {
        let failed = GuestFailure::Start;
        std::fs::create_dir_all(WRITES).map_err(failed)?;
        let mut command = Command::new(command::PROGRAM);
        command
            .args(args)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", "/")
            .env("TMPDIR", WRITES)
            .env("TERM", "linux")
            .env("LC_ALL", "C.UTF-8")
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        if terminal.is_some() {
            keyboard::give_last_used(&mut command);
        }
        command.stderr(Stdio::piped());
        enter(&mut command, &guest.root, &guest.folder).map_err(failed)?;
        // SAFETY: a system call that is allowed between fork and exec.
        unsafe {
            command.pre_exec(|| {
                libc::setpriority(libc::PRIO_PROCESS, 0, NICE);
                Ok(())
            });
        }
        let mut child = command.spawn().map_err(failed)?;
        let said = Arc::<Mutex<VecDeque<String>>>::default();
        if let Some(stderr) = child.stderr.take() {
            let said = Arc::clone(&said);
            // Without the thread nobody reads it, and it waits for ever once the pipe is full.
            std::thread::Builder::new()
                .name("guest".to_owned())
                .spawn(move || listen(stderr, &said))
                .map_err(failed)?;
        }
        Ok(Self { child, said, _terminal: terminal })
    }

    /// How it ended, if it has.
    pub(super) fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// What it said last.
    pub(super) fn last_words(&self) -> String {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.iter().map(String::as_str).collect::<Vec<_>>().join(" ")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It has ended, but for an error of waiting.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Has the program run in the extension's root, in the image's folder.
///
/// # Errors
/// If these have names that no path can have.
pub(super) fn enter(command: &mut Command, root: &Path, folder: &Path) -> io::Result<()> {
    let root = std::ffi::CString::new(root.as_os_str().as_encoded_bytes())?;
    let folder = std::ffi::CString::new(folder.as_os_str().as_encoded_bytes())?;
    // SAFETY: system calls that are allowed between fork and exec, on strings that live as long as the
    // command.
    unsafe {
        command.pre_exec(move || {
            if libc::chroot(root.as_ptr()) != 0 || libc::chdir(folder.as_ptr()) != 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(())
        });
    }
    Ok(())
}

/// Keeps the last lines.
fn listen(stderr: ChildStderr, said: &Mutex<VecDeque<String>>) {
    let mut reader = BufReader::new(stderr);
    loop {
        let mut line = vec![];
        match (&mut reader).take(LINE_LEN_MAX).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        tracing::info!("QEMU: {text}");
        let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
        said.push_back(text);
        if said.len() > LINES_MAX {
            said.pop_front();
        }
    }
}
