//! The thread of a session that waits for the disk, so that nobody else has to: resume files, and
//! the sync at the end of a download, which takes as long as the disk is behind.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use torrent::Bitfield;

use super::TorrentKey;
use super::keeper::Message;
use crate::storage::Storage;

pub(super) struct Disk {
    jobs: Sender<Job>,
    /// Disconnected when the thread has ended.
    ended: Receiver<()>,
}

enum Job {
    Save { key: TorrentKey, storage: Arc<Storage>, good: Bitfield, closed: bool },
    Complete { key: TorrentKey, storage: Arc<Storage> },
}

impl Disk {
    /// Starts the thread; how each job went is sent to `results`.
    pub(super) fn start(results: Sender<Message>) -> io::Result<Self> {
        let (jobs, queue) = channel::<Job>();
        let (end, ended) = channel();
        thread::Builder::new().name("disk".to_owned()).spawn(move || {
            let _end: Sender<()> = end;
            for job in queue {
                let result = match job {
                    Job::Save { key, storage, good, closed } => match storage.save(&good, closed) {
                        Ok(()) => continue,
                        Err(error) => Message::NotSaved(key, error),
                    },
                    Job::Complete { key, storage } => Message::Completed(key, storage.complete()),
                };
                // A keeper that is gone does not want to know.
                let _ = results.send(result);
            }
        })?;
        Ok(Self { jobs, ended })
    }

    /// Notes which pieces are good; `closed` if nothing is written any more.
    pub(super) fn save(
        &self,
        key: TorrentKey,
        storage: Arc<Storage>,
        good: Bitfield,
        closed: bool,
    ) {
        self.send(Job::Save { key, storage, good, closed });
    }

    /// All is verified: puts it on the disk for good.
    pub(super) fn complete(&self, key: TorrentKey, storage: Arc<Storage>) {
        self.send(Job::Complete { key, storage });
    }

    /// Waits until all is done, at most `within`. Says whether it was.
    pub(super) fn finish(self, within: Duration) -> bool {
        drop(self.jobs);
        self.ended.recv_timeout(within) == Err(RecvTimeoutError::Disconnected)
    }

    fn send(&self, job: Job) {
        // The thread lives as long as this.
        let _ = self.jobs.send(job);
    }
}
