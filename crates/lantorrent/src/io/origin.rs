//! The origin of a transfer: a file, and those that are to have it.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::children::{Brought, Children, SHORTER, Transfer, Whose};
use super::hash::hash_file;
use super::mailbox::{Post, mailbox};
use super::{Clock, Identity, nonce};
use crate::chain::{Config, STALL_TIMEOUT};
use crate::code::Code;
use crate::header::{Control, Destination};
use crate::report::{Footer, Report};

/// How often progress is told.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

/// A file to send, opened.
#[derive(Clone, Debug)]
pub struct Source {
    file: Arc<File>,
    path: PathBuf,
    length: u64,
}

/// Why a transfer could not even begin, or ended for everybody.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    #[error("cannot read {}", path.display())]
    Source { path: PathBuf, source: io::Error },
    #[error("{} is no regular file", path.display())]
    NotAFile { path: PathBuf },
    #[error("this machine has no more threads, sockets or random numbers")]
    System(#[source] io::Error),
}

/// How far a transfer is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes that the nearest endpoints have.
    pub received: u64,
    pub length: u64,
    /// Of the payload, all copies.
    pub sent: u64,
    /// Files that are known to be there, and known not to be.
    pub succeeded: usize,
    pub failed: usize,
}

/// What came of a transfer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// One for each file that was asked for.
    pub reports: Vec<Report>,
    pub sent: u64,
    /// The file's hashes as it was sent.
    pub footer: Footer,
}

/// How a file goes to its destinations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// How many hosts each sends to: 1 is a chain.
    pub degree: u32,
    /// How long the nearest endpoints may be silent before they are cut out; of those behind them, their
    /// predecessors decide ([`super::Limits::stall`]).
    pub stall: Duration,
}

impl Default for Shape {
    fn default() -> Self {
        Self { degree: 1, stall: STALL_TIMEOUT }
    }
}

/// Takes requests back while they are being fulfilled.
#[derive(Clone)]
pub struct Cancel(Post<Note>);

impl std::fmt::Debug for Cancel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Cancel")
    }
}

impl Cancel {
    /// The files of these requests are not wanted any more.
    pub fn cancel(&self, ids: Vec<String>) {
        let _ = self.0.send(Note::Cancel(ids));
    }
}

enum Note {
    Brought(Brought),
    Hashed(io::Result<Footer>),
    Cancel(Vec<String>),
}

impl Source {
    /// Opens a file.
    ///
    /// # Errors
    /// [`SendError`] names it.
    pub fn open(path: &Path) -> Result<Self, SendError> {
        let refuse = |source| SendError::Source { path: path.to_owned(), source };
        let file = File::open(path).map_err(refuse)?;
        let metadata = file.metadata().map_err(refuse)?;
        if !metadata.is_file() {
            return Err(SendError::NotAFile { path: path.to_owned() });
        }
        Ok(Self { file: Arc::new(file), path: path.to_owned(), length: metadata.len() })
    }

    /// In bytes.
    pub const fn length(&self) -> u64 {
        self.length
    }
}

/// Sends a file to all destinations, through a chain, or a tree of some degree, for which
/// `destinations` were planned. Returns when of each file it is known how it went.
///
/// # Errors
/// [`SendError`] if nothing could be sent at all; what went wrong on the way is in the reports.
pub fn send(
    source: &Source,
    destinations: Vec<Destination>,
    shape: Shape,
    identity: &Arc<Identity>,
    started: impl FnOnce(Cancel),
    on_progress: impl FnMut(&Progress, Option<&Report>),
) -> Result<Outcome, SendError> {
    let (post, mailbox) = mailbox().map_err(|errno| SendError::System(errno.into()))?;
    started(Cancel(post.clone()));
    let hashed = post.clone();
    hash_file(Arc::clone(&source.file), source.length, identity.compat.is_on(), move |result| {
        let _ = hashed.send(Note::Hashed(result));
    })
    .map_err(SendError::System)?;
    let clock = Clock::start();
    let id = nonce().map_err(|error| SendError::System(io::Error::other(error)))?;
    let config = Config {
        length: source.length,
        degree: shape.degree,
        compat: identity.compat.is_on(),
        is_origin: true,
        stall: shape.stall,
    };
    let transfer = Transfer { id, depth: 0, length: source.length };
    let mut children = Children::new(
        config,
        destinations.clone(),
        (Arc::clone(identity), transfer),
        (post, Note::Brought),
        clock.now(),
    );
    children.set_store(Some(Arc::clone(&source.file)));
    let mut origin = Origin {
        source,
        destinations,
        children,
        outcome: Outcome::default(),
        progress: Progress { length: source.length, ..Progress::default() },
        on_progress,
    };
    let result = origin.run(&mailbox, clock);
    origin.finish(result)
}

struct Origin<'a, F> {
    source: &'a Source,
    destinations: Vec<Destination>,
    children: Children<Note>,
    outcome: Outcome,
    progress: Progress,
    on_progress: F,
}

impl<F: FnMut(&Progress, Option<&Report>)> Origin<'_, F> {
    fn run(&mut self, mailbox: &super::mailbox::Mailbox<Note>, clock: Clock) -> io::Result<()> {
        let mut tell_at = clock.now();
        while !self.children.is_done() {
            let now = clock.now();
            self.children.drive(now)?;
            // Nobody is before the origin who would have to know.
            drop(self.children.take_put_back());
            let reports: Vec<Report> = self.children.take_reports().collect();
            for report in reports {
                self.on_report(report);
            }
            if now >= tell_at {
                self.tell(None);
                tell_at = now + PROGRESS_INTERVAL;
            }
            let due = self.children.next_timeout().map_or(tell_at, |at| at.min(tell_at));
            let ready = wait(mailbox.bell(), &self.children, due.saturating_sub(now))?;
            let now = clock.now();
            self.children.on_ready(&ready, now)?;
            mailbox.quiet();
            while let Some(note) = mailbox.take() {
                match note {
                    Note::Brought(brought) => self.children.on_brought(brought, now),
                    Note::Hashed(footer) => {
                        let footer = footer.map_err(|error| match error.kind() {
                            io::ErrorKind::UnexpectedEof => io::Error::other(SHORTER),
                            _ => error,
                        })?;
                        self.outcome.footer = footer.clone();
                        self.children.set_footer(footer);
                    }
                    Note::Cancel(ids) => self.cancel(&ids, now)?,
                }
            }
        }
        Ok(())
    }

    /// Endpoints that have begun are told; of the others nothing is asked any more.
    fn cancel(&mut self, ids: &[String], now: crate::Time) -> io::Result<()> {
        let is_wanted = |id: &String| !ids.contains(id);
        for destination in self.destinations.clone() {
            let mut cancelled = destination.clone();
            cancelled.requests.retain(|request| !is_wanted(&request.id));
            if cancelled.requests.is_empty() {
                continue;
            }
            for request in &cancelled.requests {
                let report = Report::about(&destination, request, Code::UNKNOWN, "cancelled");
                self.on_report(report);
            }
            self.children.control(destination, vec![cancelled], Control::Abort)?;
        }
        self.children.handle(now, crate::chain::Event::Forget(ids.to_vec()));
        Ok(())
    }

    fn on_report(&mut self, mut report: Report) {
        let is_known = |known: &Report| {
            (&known.host, known.port, &known.file, &known.id)
                == (&report.host, report.port, &report.file, &report.id)
        };
        if self.outcome.reports.iter().any(is_known) {
            return;
        }
        let theirs = Footer {
            md5sum: report.md5sum.clone(),
            sha256: report.sha256.clone(),
            signature: None,
        };
        let named = theirs.md5sum.is_some() || theirs.sha256.is_some();
        if report.is_success() && named && !self.outcome.footer.agrees(&theirs) {
            report.code = Code::CHECKSUM.0;
            report.message = Some("There was data corruption in the chain".to_owned());
        }
        if report.is_success() {
            self.progress.succeeded += 1;
        } else {
            self.progress.failed += 1;
        }
        self.tell(Some(&report));
        self.outcome.reports.push(report);
    }

    fn tell(&mut self, report: Option<&Report>) {
        self.progress.received = self.children.received();
        self.progress.sent = self.children.sent_len;
        (self.on_progress)(&self.progress, report);
    }

    /// Whatever was never reported is reported now.
    fn finish(mut self, result: io::Result<()>) -> Result<Outcome, SendError> {
        let last: Vec<Report> = self.children.take_reports().collect();
        for report in last {
            self.on_report(report);
        }
        let (code, why) = match &result {
            Ok(()) => (Code::NEVER_REPORTED, String::new()),
            Err(error) => (Code::UNKNOWN, format!("{}: {error}", self.source.path.display())),
        };
        for destination in std::mem::take(&mut self.destinations) {
            for request in &destination.requests {
                self.on_report(Report::about(&destination, request, code, &why));
            }
        }
        self.tell(None);
        self.outcome.sent = self.children.sent_len;
        Ok(self.outcome)
    }
}

/// Sleeps until something is ready or the time is up.
fn wait(
    bell: std::os::fd::BorrowedFd<'_>,
    children: &Children<Note>,
    timeout: Duration,
) -> io::Result<Vec<(Whose, PollFlags)>> {
    let interests = children.interests();
    let mut fds = vec![PollFd::from_borrowed_fd(bell, PollFlags::IN)];
    fds.extend(interests.iter().map(|(fd, flags, _)| PollFd::from_borrowed_fd(*fd, *flags)));
    poll_for(&mut fds, timeout)?;
    let ready = fds[1..].iter().zip(&interests);
    Ok(ready
        .filter(|(fd, _)| !fd.revents().is_empty())
        .map(|(fd, (_, _, whose))| (*whose, fd.revents()))
        .collect())
}

/// `poll` with a timeout, in whole milliseconds from above, so that nothing is done too early again
/// and again.
pub(super) fn poll_for(fds: &mut [PollFd<'_>], timeout: Duration) -> io::Result<()> {
    let timeout = timeout.min(Duration::from_secs(3600)) + Duration::from_micros(500);
    let timeout = Timespec {
        tv_sec: timeout.as_secs().cast_signed(),
        tv_nsec: i64::from(timeout.subsec_nanos()),
    };
    match poll(fds, Some(&timeout)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}
