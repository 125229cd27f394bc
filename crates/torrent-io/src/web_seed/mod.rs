//! A web seed (BEP 19): an HTTP server that has the files and knows nothing of torrents.
//!
//! A [`WebSeed`] is two threads that fetch runs of units by range requests over connections that are
//! kept, and cut what arrives into blocks for a [`WebSeedSink`]. What to ask for is decided by a
//! [`WebSeedPlan`], which does no I/O. Nothing that comes from here is trusted more than what comes
//! from a peer: it is verified by hash like everything else. Plain HTTP only, see
//! [`WebSeedError::Scheme`].

mod blocks;
mod error;
mod fetch;
mod plan;
mod url;

#[cfg(test)]
mod test_server;
#[cfg(test)]
mod tests;

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use torrent::{Block, Geometry};

pub use self::error::WebSeedError;
pub use self::plan::{FETCHES_MAX, Fetch, WebSeedPlan};

use self::blocks::Blocks;
use self::fetch::Source;
use self::url::BaseUrl;
use crate::storage::Layout;

/// How long a connection may take, and how long a server may send nothing: what a switched network
/// takes a thousand times over, and short enough that a dead server is left soon.
const PATIENCE: Duration = Duration::from_secs(5);

/// Takes what a web seed sends. Called on the web seed's threads, for one fetch by one thread.
pub trait WebSeedSink: Send + Sync + 'static {
    /// A block of a fetch has arrived; `Break` cancels the fetch.
    fn block(&self, fetch: u64, block: Block, data: &[u8]) -> ControlFlow<()>;

    /// A fetch is over; exactly once for each. Blocks that arrived before a failure are good as
    /// any.
    fn ended(&self, fetch: u64, result: Result<(), WebSeedError>);
}

/// Threads that fetch from one web seed. Dropping it cuts what is under way: nothing is given to the
/// sink any more, but for a call that has begun, and the threads end by themselves.
#[derive(Debug)]
pub struct WebSeed {
    fetches: Sender<Fetch>,
    agent: ureq::Agent,
    closed: Arc<AtomicBool>,
}

impl WebSeed {
    /// Starts the threads; nothing is asked of the server yet.
    ///
    /// # Errors
    /// If the URL is not of plain HTTP.
    ///
    /// # Panics
    /// If `layout` and `geometry` are not of one torrent, or no thread can be started.
    pub fn start(
        url: &str,
        layout: Layout,
        geometry: Geometry,
        sink: impl WebSeedSink,
    ) -> Result<Self, WebSeedError> {
        Self::with_patience(url, layout, geometry, sink, PATIENCE)
    }

    fn with_patience(
        url: &str,
        layout: Layout,
        geometry: Geometry,
        sink: impl WebSeedSink,
        patience: Duration,
    ) -> Result<Self, WebSeedError> {
        let (start, len) = Blocks::new(&geometry, &layout, 0..geometry.unit_count()).range();
        assert!(start + len <= layout.total_len(), "{geometry:?}");
        let agent = fetch::agent(patience);
        let source = Source::new(agent.clone(), BaseUrl::new(url, &layout)?, layout, patience);
        let (fetches, queue) = channel();
        let closed = Arc::new(AtomicBool::new(false));
        let worker = Arc::new(Worker {
            queue: Mutex::new(queue),
            source,
            geometry,
            sink,
            closed: Arc::clone(&closed),
        });
        for _ in 0..FETCHES_MAX {
            let worker = Arc::clone(&worker);
            std::thread::Builder::new()
                .name("web seed".to_owned())
                .spawn(move || worker.work())
                .expect("a process that cannot start a thread cannot do its work");
        }
        Ok(Self { fetches, agent, closed })
    }

    /// Queues a fetch. The plan keeps no more than [`FETCHES_MAX`] under way, so that the queue is
    /// empty but for moments.
    pub fn fetch(&self, fetch: Fetch) {
        // The threads end only after `closed`, when nobody can call this.
        let _ = self.fetches.send(fetch);
    }
}

impl Drop for WebSeed {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::Relaxed);
        self.agent.clone().shutdown();
    }
}

struct Worker<S> {
    queue: Mutex<Receiver<Fetch>>,
    source: Source,
    geometry: Geometry,
    sink: S,
    closed: Arc<AtomicBool>,
}

impl<S: WebSeedSink> Worker<S> {
    fn work(&self) {
        loop {
            let next = self.queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(fetch) = next else { return };
            let layout = self.source.layout();
            let blocks = Blocks::new(&self.geometry, layout, fetch.units.clone());
            let result = self.source.fetch(blocks, &mut |block, data| {
                if self.closed.load(Ordering::Relaxed) {
                    return ControlFlow::Break(());
                }
                self.sink.block(fetch.id, block, data)
            });
            if self.closed.load(Ordering::Relaxed) {
                return;
            }
            self.sink.ended(fetch.id, result);
        }
    }
}
