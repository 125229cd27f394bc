//! One server a lab: `state/lock`, held as long as the process lives and whatever ends it. The file
//! has the process's id in it, for people and for `boottorrent stop`.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::state::{self, FOLDER};

/// The lock, as long as this lives.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

/// Why there is no lock.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LockError {
    /// Another process has it.
    #[error(
        "a server of this lab runs already{}: `boottorrent status` shows it, `boottorrent stop` \
         ends it",
        pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default()
    )]
    Running { pid: Option<u32> },
    /// The file cannot be made.
    #[error("cannot write {}", path.display())]
    Io { path: PathBuf, source: io::Error },
}

/// How long who looks has the lock, at most, on a busy machine.
const LOOK_TIME: Duration = Duration::from_millis(5);

/// How often in a row somebody may be looking: programs that watch a server ask once a second or so.
const LOOKERS_MAX: u32 = 40;

fn path(lab: &Path) -> PathBuf {
    lab.join(FOLDER).join("lock")
}

impl Lock {
    /// Takes the lock of the lab in `lab`.
    ///
    /// # Errors
    /// If a server of this lab runs, or the folder cannot be written.
    pub(crate) fn take(lab: &Path) -> Result<Self, LockError> {
        let path = path(lab);
        let refuse = |source| LockError::Io { path: path.clone(), source };
        state::make_folder(lab).map_err(refuse)?;
        // Not emptied: if another holds it, its process id is in there.
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(refuse)?;
        for tries_left in (0..LOOKERS_MAX).rev() {
            match attempt(&file).map_err(|errno| refuse(errno.into()))? {
                Attempt::Taken => break,
                Attempt::Looked if tries_left > 0 => std::thread::sleep(LOOK_TIME),
                Attempt::Looked | Attempt::Held => {
                    return Err(LockError::Running { pid: pid(&mut file) });
                }
            }
        }
        let write = |file: &mut File| {
            file.set_len(0)?;
            file.rewind()?;
            writeln!(file, "{}", std::process::id())
        };
        write(&mut file).map_err(refuse)?;
        Ok(Self { _file: file })
    }

    /// Whether somebody holds the lock, and who.
    ///
    /// # Errors
    /// If the file is there and cannot be read.
    pub(crate) fn holder(lab: &Path) -> Result<Holder, LockError> {
        let path = path(lab);
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Holder::Nobody),
            Err(source) => return Err(LockError::Io { path, source }),
        };
        match flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(Holder::Nobody),
            Err(Errno::WOULDBLOCK) => Ok(Holder::Somebody(pid(&mut file))),
            Err(errno) => Err(LockError::Io { path, source: errno.into() }),
        }
    }
}

/// What came of trying to take a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attempt {
    Taken,
    /// Nobody has it, but somebody looks just now whether it is held.
    Looked,
    Held,
}

/// A server holds the lock alone; who only looks ([`Lock::holder`]) shares it.
fn attempt(file: &File) -> Result<Attempt, Errno> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => return Ok(Attempt::Taken),
        Err(Errno::WOULDBLOCK) => {}
        Err(errno) => return Err(errno),
    }
    match flock(file, FlockOperation::NonBlockingLockShared) {
        // Not kept, or two that start at once would each keep the other out.
        Ok(()) => flock(file, FlockOperation::Unlock).map(|()| Attempt::Looked),
        Err(Errno::WOULDBLOCK) => Ok(Attempt::Held),
        Err(errno) => Err(errno),
    }
}

/// Who holds a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holder {
    Nobody,
    /// This process, if it has written its id yet.
    Somebody(Option<u32>),
}

fn pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(16).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_second_server_is_told_of_the_first() {
        let lab = tempfile::tempdir().unwrap();
        assert_eq!(Lock::holder(lab.path()).unwrap(), Holder::Nobody);
        let first = Lock::take(lab.path()).unwrap();
        let me = std::process::id();
        let error = Lock::take(lab.path()).unwrap_err();
        assert!(matches!(error, LockError::Running { pid: Some(pid) } if pid == me), "{error}");
        assert_eq!(Lock::holder(lab.path()).unwrap(), Holder::Somebody(Some(me)));
        drop(first);
        assert_eq!(Lock::holder(lab.path()).unwrap(), Holder::Nobody);
        Lock::take(lab.path()).unwrap();
    }

    #[test]
    fn who_only_looks_is_not_taken_for_a_server() {
        let lab = tempfile::tempdir().unwrap();
        drop(Lock::take(lab.path()).unwrap());
        let open = || File::open(path(lab.path())).unwrap();
        let (looks, starts) = (open(), open());
        flock(&looks, FlockOperation::NonBlockingLockShared).unwrap();
        assert_eq!(attempt(&starts).unwrap(), Attempt::Looked);
        drop(looks);
        assert_eq!(attempt(&starts).unwrap(), Attempt::Taken);
        assert_eq!(attempt(&open()).unwrap(), Attempt::Held);
    }

    #[test]
    fn what_a_killed_server_left_is_no_obstacle() {
        let lab = tempfile::tempdir().unwrap();
        fs::create_dir(lab.path().join(FOLDER)).unwrap();
        fs::write(path(lab.path()), "999999999\nrubbish").unwrap();
        Lock::take(lab.path()).unwrap();
        let text = fs::read_to_string(path(lab.path())).unwrap();
        assert_eq!(text, format!("{}\n", std::process::id()));
    }
}
