//! Threads that store and hash blocks when one thread cannot keep up with the network.
//!
//! Up to a gigabit the engine's own thread does it all: handing 16 KiB to another thread and being
//! woken for the answer costs more than hashing it. Above that whole read buffers are handed over,
//! with the places of the blocks in them, and nothing is copied.

use std::ops::Range;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use mio::Waker;
use torrent::Block;
use torrent::merkle::{self, Hash};

use crate::storage::{Storage, StorageError};

/// A read buffer with blocks to store.
pub(super) struct Batch {
    pub(super) torrent: usize,
    pub(super) storage: Arc<Storage>,
    pub(super) buffer: Vec<u8>,
    pub(super) blocks: Vec<(Block, Range<usize>)>,
}

/// A batch that is done.
pub(super) struct Stored {
    pub(super) torrent: usize,
    pub(super) buffer: Vec<u8>,
    pub(super) leaves: Vec<(Block, Hash)>,
    pub(super) error: Option<StorageError>,
}

/// Threads that wait for batches. They end when it is dropped.
pub(super) struct Workers {
    batches: Sender<Batch>,
    stored: Receiver<Stored>,
    pub(super) pending: usize,
    pub(super) count: usize,
}

impl Workers {
    pub(super) fn new(count: usize, waker: &Arc<Waker>) -> std::io::Result<Self> {
        let (batches, queue) = channel::<Batch>();
        let (results, stored) = channel();
        let queue = Arc::new(Mutex::new(queue));
        for number in 0..count {
            let (queue, results, waker) = (queue.clone(), results.clone(), waker.clone());
            thread::Builder::new().name(format!("hash-{number}")).spawn(move || {
                loop {
                    let batch = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok(batch) = batch else { return };
                    if results.send(batch.store()).is_err() || waker.wake().is_err() {
                        return;
                    }
                }
            })?;
        }
        Ok(Self { batches, stored, pending: 0, count })
    }

    /// Hands a batch over; gives it back if all threads are gone.
    pub(super) fn submit(&mut self, batch: Batch) -> Result<(), Batch> {
        self.batches.send(batch).map_err(|error| error.0)?;
        self.pending += 1;
        Ok(())
    }

    pub(super) fn poll(&mut self) -> Option<Stored> {
        let stored = self.stored.try_recv().ok()?;
        self.pending -= 1;
        Some(stored)
    }
}

impl Batch {
    /// Stores and hashes every block; blocks that lie together are written together.
    pub(super) fn store(self) -> Stored {
        let mut leaves = Vec::with_capacity(self.blocks.len());
        let mut error = None;
        for run in self.blocks.chunk_by(|(a, _), (b, _)| a.is_followed_by(*b)) {
            let data = |(_, range): &(Block, Range<usize>)| &self.buffer[range.clone()];
            let slices: Vec<&[u8]> = run.iter().map(data).collect();
            match self.storage.write_run(run[0].0, &slices) {
                Ok(()) => leaves.extend(
                    run.iter()
                        .zip(slices)
                        .map(|((block, _), data)| (*block, merkle::hash_block(data))),
                ),
                Err(failure) => error = Some(failure),
            }
        }
        Stored { torrent: self.torrent, buffer: self.buffer, leaves, error }
    }
}
