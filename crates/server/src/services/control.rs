//! How commands talk to the running server: a socket in the lab, `state/control.sock`, one JSON
//! object a line each way.
//!
//! Why a socket, and neither signals nor the HTTP API: a signal has no answer, so `reload` could not
//! say what is wrong with the configuration, and a process id can be that of another by now. The API
//! is open to the whole network, where stopping a server must not be; the socket is the owner's, by
//! its mode (0600), without a password to keep. What it answers to `status` and `nodes` is what
//! the API answers.

use std::fs;
use std::future::Future;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use boot::Mac;
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;

use super::deeds::Deed;
use super::lock::{Holder, Lock};
use crate::http::NextBoot;
use crate::state::FOLDER;

const FILE: &str = "control.sock";

/// The longest request: the Ethernet addresses of 50,000 nodes.
const REQUEST_LEN_MAX: u64 = 2 << 20;

/// The longest answer that a command reads: 10,000 nodes of 1 KiB are 10 MiB.
const ANSWER_LEN_MAX: u64 = 256 << 20;

/// Commands at once.
const COMMANDS_MAX: usize = 16;

/// How long a command may take to say what it wants.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// How long an answer may take: a reload hashes what is new in the catalogue, which is said to last.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(600);

/// The longest path of a socket (`sun_path` of unix(7) has 108 bytes).
const PATH_LEN_MAX: usize = 100;

/// What a command wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub(crate) enum Request {
    /// End.
    Stop,
    /// Read the configuration again.
    Reload,
    /// How services and nodes are doing.
    Status,
    /// All about one node, by its name or Ethernet address.
    Node { which: String },
    /// What these nodes boot the next time, and then no more.
    NextBoot { nodes: Vec<Mac>, boot: NextBoot },
    /// Something to be done with nodes.
    Perform { deed: Deed },
}

/// What it is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    Ok(Value),
    Error(String),
}

/// Why a command could not reach the server.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ControlError {
    #[error(
        "no server of this lab runs in {}: `boottorrent start` begins one", lab.display()
    )]
    NotRunning { lab: PathBuf },
    #[error(
        "the server of this lab is starting{}: it hashes images or builds phase 1",
        pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default()
    )]
    Starting { pid: Option<u32> },
    #[error(
        "the server of this lab is another user's: run this as the user that started it, or as root"
    )]
    NotAllowed,
    #[error("cannot talk to the server of this lab through {}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("the server of this lab gave no answer that this program understands")]
    Answer,
    #[error("{0}")]
    Refused(String),
}

/// Asks the server of the lab in `lab`.
///
/// # Errors
/// [`ControlError`]; what the server refuses is one, too.
pub(crate) fn ask(lab: &Path, request: &Request) -> Result<Value, ControlError> {
    let path = lab.join(FOLDER).join(FILE);
    let refuse = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => match Lock::holder(lab) {
            Ok(Holder::Somebody(pid)) => ControlError::Starting { pid },
            _ => ControlError::NotRunning { lab: lab.to_owned() },
        },
        io::ErrorKind::PermissionDenied => ControlError::NotAllowed,
        _ => ControlError::Io { path: path.clone(), source },
    };
    let short = Short::new(&lab.join(FOLDER), FILE).map_err(refuse)?;
    let mut stream = UnixStream::connect(&short.path).map_err(refuse)?;
    let exchange = |stream: &mut UnixStream| -> io::Result<String> {
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        let mut line = serde_json::to_string(request).map_err(io::Error::other)?;
        line.push('\n');
        stream.write_all(line.as_bytes())?;
        let mut answer = String::new();
        BufReader::new(stream.take(ANSWER_LEN_MAX)).read_line(&mut answer)?;
        Ok(answer)
    };
    let answer = exchange(&mut stream).map_err(refuse)?;
    match serde_json::from_str(&answer) {
        Ok(Answer::Ok(value)) => Ok(value),
        Ok(Answer::Error(text)) => Err(ControlError::Refused(text)),
        Err(_) => Err(ControlError::Answer),
    }
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
    pub(crate) async fn serve<F: Future<Output = Answer> + Send>(
        &self,
        answer: impl Fn(Request) -> F + Send + Sync + 'static,
    ) {
        let room = Arc::new(Semaphore::new(COMMANDS_MAX));
        let answer = Arc::new(answer);
        loop {
            let Ok(place) = Arc::clone(&room).acquire_owned().await else {
                return;
            };
            let Ok((stream, _)) = self.listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let answer = Arc::clone(&answer);
            tokio::spawn(async move {
                // A command that went away needs no answer.
                let _ = converse(stream, &*answer).await;
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

async fn converse<F: Future<Output = Answer>>(
    mut stream: tokio::net::UnixStream,
    answer: impl Fn(Request) -> F,
) -> io::Result<()> {
    let (reader, mut writer) = stream.split();
    let mut line = String::new();
    let mut reader = tokio::io::BufReader::new(reader.take(REQUEST_LEN_MAX));
    tokio::time::timeout(REQUEST_TIMEOUT, reader.read_line(&mut line)).await??;
    let answer = match serde_json::from_str(&line) {
        Ok(request) => answer(request).await,
        Err(error) => Answer::Error(format!(
            "the running server does not know this command; restart it after an update ({error})"
        )),
    };
    let mut line = serde_json::to_vec(&answer).map_err(io::Error::other)?;
    line.push(b'\n');
    writer.write_all(&line).await?;
    writer.shutdown().await
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

    async fn serve(lab: &Path) -> tokio::task::JoinHandle<()> {
        fs::create_dir_all(lab.join(FOLDER)).unwrap();
        let control = Control::open(lab).unwrap();
        tokio::spawn(async move {
            control
                .serve(|request| async move {
                    match request {
                        Request::Node { which } => Answer::Ok(which.into()),
                        _ => Answer::Error("no".to_owned()),
                    }
                })
                .await;
        })
    }

    async fn ask_from(lab: &Path, request: Request) -> Result<Value, ControlError> {
        let lab = lab.to_owned();
        tokio::task::spawn_blocking(move || ask(&lab, &request)).await.unwrap()
    }

    #[tokio::test]
    async fn a_command_gets_its_answer_however_deep_the_lab_is() {
        let temp = tempfile::tempdir().unwrap();
        for lab in [temp.path().to_owned(), temp.path().join("x".repeat(120))] {
            let serving = serve(&lab).await;
            let which = "c001".to_owned();
            let answer = ask_from(&lab, Request::Node { which }).await.unwrap();
            assert_eq!(answer, Value::from("c001"));
            let error = ask_from(&lab, Request::Stop).await.unwrap_err();
            assert!(matches!(error, ControlError::Refused(text) if text == "no"));
            serving.abort();
        }
    }

    #[tokio::test]
    async fn only_the_owner_can_open_it() {
        let temp = tempfile::tempdir().unwrap();
        let _serving = serve(temp.path()).await;
        let path = temp.path().join(FOLDER).join(FILE);
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[tokio::test]
    async fn where_no_server_runs_that_is_said() {
        let temp = tempfile::tempdir().unwrap();
        let error = ask_from(temp.path(), Request::Stop).await.unwrap_err();
        assert!(matches!(error, ControlError::NotRunning { .. }));
        // As one that has not come that far.
        let lock = Lock::take(temp.path()).unwrap();
        let error = ask_from(temp.path(), Request::Stop).await.unwrap_err();
        assert!(matches!(error, ControlError::Starting { pid: Some(_) }));
        drop(lock);
        // As a server that was killed leaves it.
        drop(UnixListener::bind(temp.path().join(FOLDER).join(FILE)).unwrap());
        let error = ask_from(temp.path(), Request::Stop).await.unwrap_err();
        assert!(matches!(error, ControlError::NotRunning { .. }));
        serve(temp.path()).await.abort();
    }

    #[tokio::test]
    async fn a_command_of_a_newer_program_is_refused_in_words() {
        let temp = tempfile::tempdir().unwrap();
        let _serving = serve(temp.path()).await;
        let path = temp.path().join(FOLDER).join(FILE);
        let answer = tokio::task::spawn_blocking(move || {
            let mut stream = UnixStream::connect(path).unwrap();
            stream.write_all(b"{\"do\":\"dance\"}\n").unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer
        });
        assert!(answer.await.unwrap().contains("does not know this command"));
    }
}
