//! How commands reach the running server: a socket in the lab, `state/control.sock`, on which the server
//! answers as it does on the network (`http`).
//!
//! Why a socket beside the network's: it is the owner's, by its mode (0600), without a password to keep,
//! and it is there whatever address the server has. Who comes through it may do everything, also what the
//! network never may, such as ending the server. Why not signals: they have no answer, so `reload` could
//! not say what is wrong with the configuration, and a process id can be that of another by now.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use rustix::fs::{Mode, OFlags};
use tokio::sync::Semaphore;

use crate::http::serve_owner;
use crate::state::FOLDER;

const FILE: &str = "control.sock";

/// Commands at once.
const COMMANDS_MAX: usize = 16;

/// How long to leave the listener alone when it fails (no free file descriptor).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The longest path of a socket (`sun_path` of unix(7) has 108 bytes).
const PATH_LEN_MAX: usize = 100;

/// A connection to the server of the lab in `lab`.
///
/// # Errors
/// If there is no socket, nobody listens on it, or it is another user's.
pub(crate) fn connect(lab: &Path) -> io::Result<UnixStream> {
    UnixStream::connect(Short::new(&lab.join(FOLDER), FILE)?.path)
}

/// Where that socket is.
pub(crate) fn path(lab: &Path) -> PathBuf {
    lab.join(FOLDER).join(FILE)
}

/// The socket of a running server, which is gone when this is dropped.
#[derive(Debug)]
pub(crate) struct Control {
    listener: tokio::net::UnixListener,
    path: PathBuf,
}

impl Control {
    /// Opens the socket of the lab in `lab`, of which the lock is held: what is there under its name
    /// was left by a server that was killed.
    ///
    /// # Errors
    /// If it cannot be made.
    pub(crate) fn open(lab: &Path) -> io::Result<Self> {
        let folder = lab.join(FOLDER);
        // Made under another name, so that it never is there with another mode.
        let new = format!("{FILE}.new");
        match fs::remove_file(folder.join(&new)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&Short::new(&folder, &new)?.path)?;
        fs::set_permissions(folder.join(&new), fs::Permissions::from_mode(0o600))?;
        let path = folder.join(FILE);
        fs::rename(folder.join(&new), &path)?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener: tokio::net::UnixListener::from_std(listener)?, path })
    }

    /// Answers commands for ever.
    pub(crate) async fn serve(&self, router: Router) {
        let room = Arc::new(Semaphore::new(COMMANDS_MAX));
        loop {
            let Ok(place) = Arc::clone(&room).acquire_owned().await else {
                return;
            };
            let Ok((stream, _)) = self.listener.accept().await else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let router = router.clone();
            tokio::spawn(async move {
                serve_owner(stream, router).await;
                drop(place);
            });
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// A path that fits into the address of a socket, however deep the lab is.
struct Short {
    path: PathBuf,
    /// What the path goes through.
    _folder: Option<OwnedFd>,
}

impl Short {
    fn new(folder: &Path, name: &str) -> io::Result<Self> {
        let path = folder.join(name);
        if path.as_os_str().len() <= PATH_LEN_MAX {
            return Ok(Self { path, _folder: None });
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::open(folder, flags, Mode::empty())?;
        let path = PathBuf::from(format!("/proc/self/fd/{}/{name}", folder.as_raw_fd()));
        Ok(Self { path, _folder: Some(folder) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_owner_can_open_it_and_it_is_gone_with_the_server() {
        let temp = tempfile::tempdir().unwrap();
        fs::create_dir(temp.path().join(FOLDER)).unwrap();
        let control = Control::open(temp.path()).unwrap();
        assert_eq!(fs::metadata(path(temp.path())).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(connect(temp.path()).is_ok());
        drop(control);
        assert!(!path(temp.path()).exists());
    }
}
