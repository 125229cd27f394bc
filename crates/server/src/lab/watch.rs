//! Sees that the files of a lab were changed, and publishes them once they are at rest.
//!
//! It looks at the folders instead of asking the kernel to tell (inotify): that works on network file
//! systems and mounts, where the kernel does not know of changes made elsewhere, and has no queue that can
//! overflow or watch that can be lost when a folder is replaced. And the question that matters, whether
//! copying has come to its end, is not one that events answer: it has when two looks are equal.
//!
//! A glance each second sees the configuration, and files that come and go. All files are looked at as often
//! as costs a fiftieth of a processor: each second in a lab of some images, and each time that something
//! was seen.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use torrent_io::create::CreateError;

use super::hasher::{self, Hashed, Hasher, Work};
use super::publisher::{Outcome, PublishError, Publisher};
use super::scan::{Glance, Scan};

/// Between two glances.
const PERIOD: Duration = Duration::from_secs(1);

/// Between two looks at all files, in times of what a look takes: a fiftieth of a processor at most.
const LOOK_SHARE: u32 = 50;

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

    /// What moved on while it was read is read again once it is at rest, even if it then is as it was when
    /// this began.
    fn look_again(&mut self, dir: &Path, error: &CreateError) {
        if let CreateError::Changed(_) = error {
            self.settled = Scan::default();
            self.moving = Some((Scan::new(dir), Instant::now()));
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
    inbox: Option<Sender<Message>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// What the thread is told.
enum Message {
    /// Read everything at once, and close this when that was told.
    Reload(Sender<()>),
    /// An image was hashed.
    Hashed(Hashed),
    End,
}

impl Watcher {
    /// Watches the lab of `publisher`, which has published what lies there now.
    pub(crate) fn start(
        publisher: Publisher,
        on_event: impl FnMut(Event) + Send + 'static,
    ) -> std::io::Result<Self> {
        Self::start_with(publisher, on_event, Arc::new(hasher::hash))
    }

    fn start_with(
        mut publisher: Publisher,
        on_event: impl FnMut(Event) + Send + 'static,
        work: Work,
    ) -> std::io::Result<Self> {
        let (sender, inbox) = mpsc::channel();
        let hashed = sender.clone();
        let tell = move |it| drop(hashed.send(Message::Hashed(it)));
        let mut hasher = Hasher::new(work, publisher.progress(), Arc::new(tell));
        let stop = publisher.stopper();
        let thread = thread::Builder::new().name("lab".to_owned()).spawn(move || {
            hasher.want(publisher.take_jobs());
            let settled = publisher.seen().clone();
            let rest = Rest { settled, moving: None };
            Watch { publisher, hasher, rest, on_event }.run(&inbox);
        })?;
        Ok(Self { inbox: Some(sender), stop, thread: Some(thread) })
    }

    /// Reads everything at once, whether it is at rest or not. Returns when its event was told.
    pub(crate) fn reload(&self) {
        let (done, wait) = mpsc::channel();
        if let Some(inbox) = &self.inbox
            && inbox.send(Message::Reload(done)).is_ok()
        {
            // An error means that the thread has ended, and nothing is to be waited for.
            let _ = wait.recv();
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(inbox) = self.inbox.take() {
            let _ = inbox.send(Message::End);
        }
        if let Some(thread) = self.thread.take() {
            // A panic was told on standard error.
            let _ = thread.join();
        }
    }
}

/// What the thread has to work with.
struct Watch<F> {
    publisher: Publisher,
    hasher: Hasher,
    rest: Rest,
    on_event: F,
}

impl<F: FnMut(Event)> Watch<F> {
    fn run(mut self, inbox: &Receiver<Message>) {
        let dir = self.publisher.dir().to_owned();
        let mut looked = Looked::new(Glance::new(&dir, &self.rest.settled));
        loop {
            let message = match inbox.recv_timeout(PERIOD) {
                Ok(message) => Some(message),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let done = match message {
                Some(Message::End) => return,
                Some(Message::Hashed(hashed)) => {
                    self.hasher.ended();
                    if !self.take(&dir, hashed) {
                        continue;
                    }
                    None
                }
                Some(Message::Reload(done)) => {
                    self.rest.settle(Scan::new(&dir));
                    Some(done)
                }
                None if self.rests(&dir, &mut looked) => None,
                None => continue,
            };
            let event = read(&mut self.publisher, &dir, &mut self.rest);
            if let Event::Refused(PublishError::Create {
                source: CreateError::Stopped(_), ..
            }) = event
            {
                return;
            }
            self.hasher.want(self.publisher.take_jobs());
            (self.on_event)(event);
            drop(done);
        }
    }

    /// Looks whether there is something new, at rest.
    fn rests(&mut self, dir: &Path, looked: &mut Looked) -> bool {
        let glance = Glance::new(dir, &self.rest.settled);
        let begin = Instant::now();
        if self.rest.moving.is_none() && !looked.is_due(begin, &glance) {
            return false;
        }
        let scan = Scan::new(dir);
        *looked = Looked { glance, at: begin, took: begin.elapsed() };
        self.rest.observe(begin, scan)
    }

    /// An image was hashed, or not: whether that is to be published.
    fn take(&mut self, dir: &Path, hashed: Hashed) -> bool {
        let Hashed { name, seen, result } = hashed;
        match result {
            Ok(torrent) => {
                tracing::info!(target: "LAB", "{name} is hashed");
                self.publisher.take_hashed(name, seen, torrent);
                true
            }
            // It has become another or is gone, which was seen.
            Err(CreateError::Stopped(_)) => false,
            Err(error) => {
                self.rest.look_again(dir, &error);
                let error = PublishError::Create { image: name, source: error };
                (self.on_event)(Event::Refused(error));
                false
            }
        }
    }
}

/// When all files were looked at last.
struct Looked {
    glance: Glance,
    at: Instant,
    took: Duration,
}

impl Looked {
    fn new(glance: Glance) -> Self {
        Self { glance, at: Instant::now(), took: Duration::ZERO }
    }

    fn is_due(&self, now: Instant, glance: &Glance) -> bool {
        self.glance != *glance || now.duration_since(self.at) >= self.took * LOOK_SHARE
    }
}

fn read(publisher: &mut Publisher, dir: &Path, rest: &mut Rest) -> Event {
    match publisher.refresh(&|_| {}) {
        Ok(outcome) => Event::Changed(outcome),
        Err(error) => {
            if let PublishError::Create { source, .. } = &error {
                rest.look_again(dir, source);
            }
            Event::Refused(error)
        }
    }
}

#[cfg(test)]
mod tests;
