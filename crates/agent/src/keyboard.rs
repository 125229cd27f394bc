//! The keyboards of a node: every console that can be read from. A node without any boots as well.

use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use boot::keymap::Keymap;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{InputModes, LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use crate::console::Terminal;
use crate::events::{Event, Key};
use crate::keys::KeyReader;

/// How long keys are waited for at a time: how long a shell has to wait for the keyboard.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };

/// As long, while a shell has it.
const PAUSE: Duration = Duration::from_millis(200);

/// A shell reads the keys.
static PAUSED: AtomicBool = AtomicBool::new(false);

/// All keyboards. Process-wide as terminals are: a program that takes the agent's place needs them as
/// they were.
static KEYBOARDS: Mutex<Keyboards> = Mutex::new(Keyboards { all: vec![], last: 0 });

struct Keyboards {
    all: Vec<Keyboard>,
    /// The one where a key was pressed last, by its index.
    last: usize,
}

struct Keyboard {
    terminal: Terminal,
    /// The terminal's modes as they were before.
    before: Option<Termios>,
    /// It can be read from.
    works: bool,
    reader: KeyReader,
}

/// Reads keys of `terminals` from now on.
pub(crate) fn listen(terminals: Vec<Terminal>, events: Sender<Event>) {
    let keyboards = terminals.into_iter().map(|terminal| {
        let before = tcgetattr(&terminal.file).ok();
        by_key(&terminal);
        Keyboard { terminal, before, works: true, reader: KeyReader::default() }
    });
    lock().all.extend(keyboards);
    // Without the thread nobody can choose, and the default is booted.
    let _ = thread::Builder::new().name("keys".to_owned()).spawn(move || read(&events));
}

/// Keys are for a shell as long as this is held.
pub(crate) struct Pause(());

/// Gives the keys to a shell, and the terminals the modes that a shell expects.
pub(crate) fn pause() -> Pause {
    PAUSED.store(true, Ordering::SeqCst);
    for keyboard in &lock().all {
        if let Some(modes) = &keyboard.before {
            let _ = tcsetattr(&keyboard.terminal.file, OptionalActions::Now, modes);
        }
    }
    Pause(())
}

impl Drop for Pause {
    fn drop(&mut self) {
        for keyboard in &mut lock().all {
            keyboard.terminal.reopen();
            keyboard.works = true;
            by_key(&keyboard.terminal);
        }
        PAUSED.store(false, Ordering::SeqCst);
    }
}

/// Input, output and error output of the console where the person is.
fn last_used() -> Option<(Stdio, Stdio, Stdio)> {
    let keyboards = lock();
    let keyboard = keyboards.all.get(keyboards.last)?;
    let clone = || keyboard.terminal.file.try_clone().ok().map(Stdio::from);
    Some((clone()?, clone()?, clone()?))
}

/// Gives all keyboards of the screen another layout, by the program of phase 1 that is for that. A
/// terminal at a serial line has its own.
///
/// # Errors
/// If there is no screen, or it refuses.
pub(crate) fn set_layout(keymap: &Keymap, root: &Path) -> io::Result<()> {
    let mut command = Command::new(root.join("bin/busybox"));
    command.arg("loadkmap").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // Whoever does not read to the end says so by its status.
        let _ = stdin.write_all(keymap.as_bytes());
    }
    let status = child.wait()?;
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("loadkmap: {status}"))) }
}

/// Makes the console where the person is the terminal of a program that is to be started, in a session
/// of its own, so that Ctrl+C is for that. None of it if there is no console.
pub(crate) fn give_last_used(command: &mut Command) {
    let Some((input, output, error)) = last_used() else { return };
    command.stdin(input).stdout(output).stderr(error);
    // SAFETY: both are system calls that are allowed between fork and exec.
    unsafe {
        command.pre_exec(|| {
            libc::setsid();
            libc::ioctl(0, libc::TIOCSCTTY, 1);
            Ok(())
        });
    }
}

fn lock() -> MutexGuard<'static, Keyboards> {
    KEYBOARDS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Each key at once, and not shown by the terminal; Ctrl+S as a key, which otherwise stops output,
/// and on a console of a node also Ctrl+C, which otherwise is lost there.
fn by_key(terminal: &Terminal) {
    if let Ok(mut modes) = tcgetattr(&terminal.file) {
        modes.local_modes -= LocalModes::ICANON | LocalModes::ECHO;
        modes.input_modes -= InputModes::IXON;
        if terminal.is_device() {
            modes.local_modes -= LocalModes::ISIG;
        }
        let _ = tcsetattr(&terminal.file, OptionalActions::Now, &modes);
    }
}

fn read(events: &Sender<Event>) {
    loop {
        if PAUSED.load(Ordering::SeqCst) {
            thread::sleep(PAUSE);
            continue;
        }
        let Some(keys) = lock().wait() else { return };
        for key in keys {
            if events.send(Event::Key(key)).is_err() {
                return;
            }
        }
    }
}

impl Keyboards {
    /// The keys that were pressed, if any were within [`LOOK`]. None if no keyboard works any more.
    fn wait(&mut self) -> Option<Vec<Key>> {
        let working: Vec<usize> = (0..self.all.len()).filter(|&at| self.all[at].works).collect();
        if working.is_empty() {
            return None;
        }
        let polled = |&at: &usize| {
            PollFd::from_borrowed_fd(self.all[at].terminal.file.as_fd(), PollFlags::IN)
        };
        let mut fds: Vec<PollFd<'_>> = working.iter().map(polled).collect();
        let ready = poll(&mut fds, Some(&LOOK)).unwrap_or(0);
        let at = fds.iter().position(|fd| !fd.revents().is_empty()).map(|at| working[at]);
        let Some(at) = at.filter(|_| ready > 0 && !PAUSED.load(Ordering::SeqCst)) else {
            return Some(
                self.all.iter_mut().filter_map(|keyboard| keyboard.reader.pause()).collect(),
            );
        };
        let mut bytes = [0; 64];
        match rustix::io::read(&self.all[at].terminal.file, &mut bytes) {
            // A terminal that hangs up, or a file that has ended.
            Ok(0) | Err(_) => {
                self.all[at].works = false;
                Some(vec![])
            }
            Ok(len) => {
                self.last = at;
                Some(self.all[at].reader.take(&bytes[..len]))
            }
        }
    }
}
