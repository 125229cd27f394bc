//! The transfers of an endpoint: those under way, and what was reported of those that just ended,
//! for a predecessor that comes because the one that was told has died.

use std::collections::{BTreeMap, VecDeque};
use std::net::TcpStream;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::children::Brought;
use super::mailbox::Post;
use crate::header::{Destination, Header};
use crate::report::{Footer, Report};

/// Ended transfers are remembered for a minute: the chain notices a death within two seconds.
const REMEMBERED_FOR: Duration = Duration::from_secs(60);

/// And at most so many.
const REMEMBERED_MAX: usize = 1_024;

/// What the thread of a transfer is told.
pub(super) enum Note {
    Brought(Brought),
    Hashed(Footer),
    /// Another predecessor.
    Attach(Box<Attach>),
    Append(Vec<Destination>),
    Abort(Vec<String>),
    /// The endpoint ends.
    Stop,
}

/// A predecessor that wants to go on with a transfer.
pub(super) struct Attach {
    pub(super) stream: TcpStream,
    pub(super) header: Header,
    /// What came with the header already.
    pub(super) pending: Vec<u8>,
}

#[derive(Default)]
struct Inner {
    live: BTreeMap<String, Post<Note>>,
    ended: VecDeque<(Instant, String, Vec<Report>)>,
}

/// See the module documentation.
#[derive(Default)]
pub(super) struct Registry(Mutex<Inner>);

/// What is known of a transfer.
pub(super) enum Known {
    /// It is new, and counts as under way from now on.
    New,
    Live(Post<Note>),
    Ended(Vec<Report>),
}

impl Registry {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Finds a transfer; a new one gets `post`.
    pub(super) fn enter(&self, id: &str, post: &Post<Note>) -> Known {
        let mut inner = self.lock();
        inner.forget();
        if let Some(live) = inner.live.get(id) {
            return Known::Live(live.clone());
        }
        if let Some((_, _, reports)) = inner.ended.iter().find(|(_, ended, _)| ended == id) {
            return Known::Ended(reports.clone());
        }
        inner.live.insert(id.to_owned(), post.clone());
        Known::New
    }

    /// The transfer, if it is under way.
    pub(super) fn live(&self, id: &str) -> Option<Post<Note>> {
        self.lock().live.get(id).cloned()
    }

    /// A transfer has ended. One that failed can begin anew.
    pub(super) fn leave(&self, id: &str, reports: Vec<Report>) {
        let mut inner = self.lock();
        inner.live.remove(id);
        if reports.iter().any(Report::is_success) {
            inner.ended.push_back((Instant::now(), id.to_owned(), reports));
        }
        inner.forget();
    }

    /// How many are under way.
    pub(super) fn count(&self) -> usize {
        self.lock().live.len()
    }

    /// Ends all.
    pub(super) fn stop(&self) {
        for post in self.lock().live.values() {
            let _ = post.send(Note::Stop);
        }
    }
}

impl Inner {
    fn forget(&mut self) {
        while self.ended.len() > REMEMBERED_MAX
            || self.ended.front().is_some_and(|(at, ..)| at.elapsed() > REMEMBERED_FOR)
        {
            self.ended.pop_front();
        }
    }
}
