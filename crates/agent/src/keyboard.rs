//! The keyboards of a node: every console that can be read from. A node without any boots as well.

use std::fs::File;
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use crate::events::{Event, Key};

/// How soon keys are read again after a shell was left.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };

/// A shell reads the keys.
static PAUSED: AtomicBool = AtomicBool::new(false);

/// The console where a key was pressed last, by its index in `CONSOLES`.
static LAST: AtomicUsize = AtomicUsize::new(0);

/// The consoles that are read, and what their modes were before. Process-wide as terminals are: the
/// panic hook and the shell need them, wherever they are called.
static CONSOLES: Mutex<Vec<(OwnedFd, Option<Termios>)>> = Mutex::new(vec![]);

/// Reads keys of `files` from now on.
pub(crate) fn listen(files: &[File], events: Sender<Event>) {
    let Ok(fds) = files.iter().map(|file| file.as_fd().try_clone_to_owned()).collect() else {
        return;
    };
    let fds: Vec<OwnedFd> = fds;
    let copies = fds.iter().filter_map(|fd| Some((fd.try_clone().ok()?, modes(fd))));
    CONSOLES.lock().unwrap_or_else(PoisonError::into_inner).extend(copies);
    fds.iter().for_each(by_key);
    // Without the thread nobody can choose, and the default is booted.
    let _ = thread::Builder::new().name("keys".to_owned()).spawn(move || read(fds, &events));
}

/// Keys are for a shell as long as this is held.
pub(crate) struct Pause(());

/// Gives the keys to a shell, and the terminals the modes that a shell expects.
pub(crate) fn pause() -> Pause {
    PAUSED.store(true, Ordering::SeqCst);
    let consoles = CONSOLES.lock().unwrap_or_else(PoisonError::into_inner);
    for (fd, modes) in consoles.iter() {
        if let Some(modes) = modes {
            let _ = tcsetattr(fd, OptionalActions::Now, modes);
        }
    }
    Pause(())
}

impl Drop for Pause {
    fn drop(&mut self) {
        let consoles = CONSOLES.lock().unwrap_or_else(PoisonError::into_inner);
        consoles.iter().for_each(|(fd, _)| by_key(fd));
        PAUSED.store(false, Ordering::SeqCst);
    }
}

/// Input, output and error output of the console where the person is.
pub(crate) fn last_used() -> Option<(Stdio, Stdio, Stdio)> {
    let consoles = CONSOLES.lock().unwrap_or_else(PoisonError::into_inner);
    let (fd, _) = consoles.get(LAST.load(Ordering::SeqCst)).or(consoles.last())?;
    let clone = || fd.try_clone().ok().map(Stdio::from);
    Some((clone()?, clone()?, clone()?))
}

fn modes(fd: &OwnedFd) -> Option<Termios> {
    tcgetattr(fd).ok()
}

/// Each key at once, and not shown by the terminal.
fn by_key(fd: &OwnedFd) {
    if let Some(mut modes) = modes(fd) {
        modes.local_modes -= LocalModes::ICANON | LocalModes::ECHO;
        let _ = tcsetattr(fd, OptionalActions::Now, &modes);
    }
}

fn read(mut fds: Vec<OwnedFd>, events: &Sender<Event>) {
    let mut indices: Vec<usize> = (0..fds.len()).collect();
    while !fds.is_empty() {
        if PAUSED.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(200));
            continue;
        }
        let mut polled: Vec<PollFd<'_>> =
            fds.iter().map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
        let ready = poll(&mut polled, Some(&LOOK)).unwrap_or(0);
        if ready == 0 || PAUSED.load(Ordering::SeqCst) {
            continue;
        }
        let at = polled.iter().position(|fd| !fd.revents().is_empty());
        let Some(at) = at else { continue };
        let mut buffer = [0; 64];
        match rustix::io::read(&fds[at], &mut buffer) {
            // A terminal that is gone, or a file that has ended.
            Ok(0) | Err(_) => {
                fds.remove(at);
                indices.remove(at);
            }
            Ok(len) => {
                LAST.store(indices[at], Ordering::SeqCst);
                for key in buffer[..len].iter().filter_map(|&byte| Key::of(byte)) {
                    if events.send(Event::Key(key)).is_err() {
                        return;
                    }
                }
            }
        }
    }
}
