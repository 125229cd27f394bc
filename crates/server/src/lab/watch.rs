//! Sees that the files of a lab were changed, and publishes them once they are at rest.
//!
//! It looks at the folders every second instead of asking the kernel to tell (inotify): a look at a
//! thousand files takes some milliseconds, works on network file systems and mounts, where the kernel
//! does not know of changes made elsewhere, and has no queue that can overflow or watch that can be
//! lost when a folder is replaced. And the question that matters, whether copying has come to its
//! end, is not one that events answer: it has when two looks are equal.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use torrent_io::create::CreateError;

use super::publisher::{Hashing, Outcome, PublishError, Publisher};
use super::scan::Scan;

/// Between two looks.
const PERIOD: Duration = Duration::from_secs(1);

/// How long everything must be as it is before it is read. Tools that write a file at a time pause
/// less than that between two.
const QUIET: Duration = Duration::from_secs(2);

/// What the watcher says.
#[derive(Debug)]
pub(crate) enum Event {
    /// Something was changed, and this came of it.
    Changed(Outcome),
    /// Something was changed, and nothing can be published of it: what was published stays.
    Refused(PublishError),
}

/// Tells when what was seen is at rest.
#[derive(Debug)]
struct Rest {
    /// What was published last, or was last refused.
    settled: Scan,
    /// Something else, and since when it has been that.
    moving: Option<(Scan, Instant)>,
}

impl Rest {
    /// Takes a look; whether it is another than what is settled, and at rest. Then it is settled.
    fn observe(&mut self, now: Instant, scan: Scan) -> bool {
        if scan == self.settled {
            self.moving = None;
            return false;
        }
        match &self.moving {
            Some((seen, since)) if *seen == scan => {
                let is_quiet = now.duration_since(*since) >= QUIET;
                if is_quiet {
                    self.settle(scan);
                }
                is_quiet
            }
            _ => {
                self.moving = Some((scan, now));
                false
            }
        }
    }

    fn settle(&mut self, scan: Scan) {
        self.settled = scan;
        self.moving = None;
    }
}

/// The thread that watches. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Watcher {
    requests: Option<Sender<Sender<()>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watcher {
    /// Watches the lab of `publisher`, which has published what lies there now.
    pub(crate) fn start(
        publisher: Publisher,
        on_event: impl FnMut(Event) + Send + 'static,
        on_hashing: impl Fn(Hashing<'_>) + Send + Sync + 'static,
    ) -> std::io::Result<Self> {
        let (requests, inbox) = mpsc::channel();
        let (settled, stop) = (publisher.seen().clone(), publisher.stopper());
        let thread = thread::Builder::new()
            .name("lab".to_owned())
            .spawn(move || watch(publisher, settled, &inbox, on_event, &on_hashing))?;
        Ok(Self { requests: Some(requests), stop, thread: Some(thread) })
    }

    /// Reads everything at once, whether it is at rest or not. Returns when its event was told.
    pub(crate) fn reload(&self) {
        let (done, wait) = mpsc::channel();
        if let Some(requests) = &self.requests
            && requests.send(done).is_ok()
        {
            // An error means that the thread has ended, and nothing is to be waited for.
            let _ = wait.recv();
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // The thread ends when nobody can ask it any more.
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            // A panic was told on standard error.
            let _ = thread.join();
        }
    }
}

fn watch(
    mut publisher: Publisher,
    settled: Scan,
    inbox: &Receiver<Sender<()>>,
    mut on_event: impl FnMut(Event),
    on_hashing: &(impl Fn(Hashing<'_>) + Sync),
) {
    let mut rest = Rest { settled, moving: None };
    let dir = publisher.dir().to_owned();
    loop {
        let done = match inbox.recv_timeout(PERIOD) {
            Ok(done) => Some(done),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let scan = Scan::new(&dir);
        match done {
            Some(_) => rest.settle(scan),
            None if rest.observe(Instant::now(), scan) => {}
            None => continue,
        }
        let event = read(&mut publisher, &dir, &mut rest, on_hashing);
        if let Event::Refused(PublishError::Create { source: CreateError::Stopped(_), .. }) = event
        {
            return;
        }
        on_event(event);
        drop(done);
    }
}

fn read(
    publisher: &mut Publisher,
    dir: &Path,
    rest: &mut Rest,
    on_hashing: &(impl Fn(Hashing<'_>) + Sync),
) -> Event {
    match publisher.refresh(on_hashing) {
        Ok(outcome) => Event::Changed(outcome),
        Err(error) => {
            // What moved on while it was read is read again once it is at rest, even if it then is
            // as it was when this began.
            if let PublishError::Create { source: CreateError::Changed(_), .. } = error {
                rest.settled = Scan::default();
                rest.moving = Some((Scan::new(dir), Instant::now()));
            }
            Event::Refused(error)
        }
    }
}

#[cfg(test)]
mod tests;
