//! Hashing: what a range of a torrent hashes to, and a few threads that do it.
//!
//! A [`Digester`] takes bytes in any portions and yields the SHA-1 of all (BEP 3 pieces) and the
//! SHA-256 of each 16 KiB block (BEP 52 leaves); the tree above the leaves belongs to the `torrent`
//! crate. A [`Hasher`] is the pool: bounded queue in, a callback per result out. Both hashes use the
//! processor's SHA instructions where it has them, which the crates find out at run time.

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use sha1::Sha1;
use sha2::{Digest, Sha256};
use torrent::BLOCK_LEN;

use crate::storage::{Storage, StorageError};

/// Read at once from storage to hash: fits the second-level cache of any processor, so that the hash
/// reads from there, and is long enough that system calls do not show.
const READ_LEN: usize = 256 << 10;

/// Zeros to hash where padding is.
const ZEROS: [u8; 4096] = [0; 4096];

/// SHA-256 of each block of `data`, the last one as short as it is (BEP 52 leaf hashes).
#[must_use]
pub fn leaf_hashes(data: &[u8]) -> Vec<[u8; 32]> {
    let blocks = data.chunks(BLOCK_LEN as usize);
    blocks.map(|block| Sha256::digest(block).into()).collect()
}

/// SHA-1 of `data` (BEP 3 piece hash).
#[must_use]
pub fn sha1(data: &[u8]) -> [u8; 20] {
    Sha1::digest(data).into()
}

/// Which hashes are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// SHA-1: v1.
    Sha1,
    /// Leaves: v2.
    Leaves,
    /// Both: hybrid, where the two must agree on what the data is.
    Both,
}

/// The hashes of one range.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Digests {
    /// SHA-1 of all of it, padding included, if wanted.
    pub sha1: Option<[u8; 20]>,
    /// SHA-256 of each block of data, padding left out; empty if not wanted.
    pub leaves: Vec<[u8; 32]>,
}

/// Hashes bytes that come in portions.
#[derive(Clone, Debug)]
pub struct Digester {
    sha1: Option<Sha1>,
    leaf: Option<Sha256>,
    /// Bytes that are in `leaf` already.
    leaf_len: usize,
    leaves: Vec<[u8; 32]>,
}

impl Digester {
    /// Nothing hashed yet.
    #[must_use]
    pub fn new(want: Want) -> Self {
        Self {
            sha1: (want != Want::Leaves).then(Sha1::new),
            leaf: (want != Want::Sha1).then(Sha256::new),
            leaf_len: 0,
            leaves: Vec::new(),
        }
    }

    /// Hashes the next bytes.
    pub fn update(&mut self, data: &[u8]) {
        if let Some(sha1) = &mut self.sha1 {
            sha1.update(data);
        }
        let Some(leaf) = &mut self.leaf else { return };
        let mut rest = data;
        while !rest.is_empty() {
            let missing = BLOCK_LEN as usize - self.leaf_len;
            let (now, later) = rest.split_at(missing.min(rest.len()));
            leaf.update(now);
            self.leaf_len += now.len();
            if self.leaf_len == BLOCK_LEN as usize {
                self.leaves.push(leaf.finalize_reset().into());
                self.leaf_len = 0;
            }
            rest = later;
        }
    }

    /// The hashes, with `padding_len` zeros behind the data. Only SHA-1 covers padding (BEP 47); in
    /// v2 there is no such thing.
    #[must_use]
    pub fn finish(mut self, padding_len: u32) -> Digests {
        let sha1 = self.sha1.map(|mut sha1| {
            let mut rest = padding_len as usize;
            while rest > 0 {
                let now = rest.min(ZEROS.len());
                sha1.update(&ZEROS[..now]);
                rest -= now;
            }
            sha1.finalize().into()
        });
        if let Some(leaf) = self.leaf
            && self.leaf_len > 0
        {
            self.leaves.push(leaf.finalize().into());
        }
        Digests { sha1, leaves: self.leaves }
    }
}

/// Something to hash.
#[derive(Debug)]
pub struct Job<T> {
    /// Comes back with the result.
    pub tag: T,
    /// Which hashes.
    pub want: Want,
    /// The data.
    pub source: Source,
    /// Zeros behind the data that SHA-1 covers.
    pub padding_len: u32,
}

/// Where the data is.
#[derive(Debug)]
pub enum Source {
    /// In memory, in order; comes back with the result, to be used again.
    Buffers(Vec<Vec<u8>>),
    /// Stored: `len` bytes from byte `start` of the piece space.
    Stored {
        /// Where.
        storage: Arc<Storage>,
        /// First byte.
        start: u64,
        /// Length in bytes.
        len: u64,
    },
}

/// A job that is done.
#[derive(Debug)]
pub struct Hashed<T> {
    /// As in the job.
    pub tag: T,
    /// The hashes, or why the data could not be read.
    pub result: Result<Digests, StorageError>,
    /// The buffers of [`Source::Buffers`].
    pub buffers: Vec<Vec<u8>>,
}

/// Threads that hash. Dropping it finishes the jobs in the queue and waits for them.
#[derive(Debug)]
pub struct Hasher<T> {
    /// `None` only while it is dropped.
    jobs: Option<SyncSender<Job<T>>>,
    threads: Vec<JoinHandle<()>>,
}

impl<T: Send + 'static> Hasher<T> {
    /// `threads` threads, and room for `queue_len` jobs that wait. `done` is called on the thread
    /// that hashed: it should put the result somewhere and wake the driver.
    ///
    /// # Errors
    /// If a thread cannot be started.
    pub fn new(
        threads: usize,
        queue_len: usize,
        done: impl Fn(Hashed<T>) + Send + Sync + 'static,
    ) -> std::io::Result<Self> {
        let (jobs, queue) = sync_channel(queue_len);
        let queue = Arc::new(Mutex::new(queue));
        let done = Arc::new(done);
        let threads = (0..threads.max(1)).map(|_| {
            let (queue, done) = (Arc::clone(&queue), Arc::clone(&done));
            let thread = std::thread::Builder::new().name("hash".to_owned());
            thread.spawn(move || work(&queue, &*done))
        });
        Ok(Self { threads: threads.collect::<Result<_, _>>()?, jobs: Some(jobs) })
    }

    /// Queues a job.
    ///
    /// # Errors
    /// Gives the job back if the queue is full: try again after the next result.
    pub fn submit(&self, job: Job<T>) -> Result<(), Box<Job<T>>> {
        let Some(jobs) = &self.jobs else {
            return Err(Box::new(job));
        };
        jobs.try_send(job).map_err(|error| match error {
            TrySendError::Full(job) | TrySendError::Disconnected(job) => Box::new(job),
        })
    }
}

impl<T> Drop for Hasher<T> {
    fn drop(&mut self) {
        self.jobs = None;
        for thread in self.threads.drain(..) {
            // A panic was printed by its own thread; there is nobody to give it to here.
            let _ = thread.join();
        }
    }
}

fn work<T>(queue: &Mutex<Receiver<Job<T>>>, done: &dyn Fn(Hashed<T>)) {
    let mut scratch = Vec::new();
    loop {
        // Held while waiting: the others wait for the lock instead, and one job wakes one thread.
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = next else { return };
        let mut digester = Digester::new(job.want);
        let (fed, buffers) = match job.source {
            Source::Buffers(buffers) => {
                buffers.iter().for_each(|buffer| digester.update(buffer));
                (Ok(()), buffers)
            }
            Source::Stored { storage, start, len } => {
                (feed(&mut digester, &storage, start, len, &mut scratch), Vec::new())
            }
        };
        done(Hashed {
            tag: job.tag,
            result: fed.map(|()| digester.finish(job.padding_len)),
            buffers,
        });
    }
}

/// Hashes a stored range through a buffer that stays in the cache.
fn feed(
    digester: &mut Digester,
    storage: &Storage,
    start: u64,
    len: u64,
    scratch: &mut Vec<u8>,
) -> Result<(), StorageError> {
    scratch.resize(READ_LEN, 0);
    let mut at = start;
    let end = start.saturating_add(len);
    while at < end {
        let now = &mut scratch[..(end - at).min(READ_LEN as u64) as usize];
        storage.read(at, now)?;
        digester.update(now);
        at += now.len() as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{FileSpan, Layout};
    use std::sync::mpsc::channel;
    use torrent::Block;

    fn data(len: usize) -> Vec<u8> {
        (0..len).map(|at| (at * 31 / 7) as u8).collect()
    }

    #[test]
    fn hashes_are_those_of_the_standards() {
        let hex = |bytes: &[u8]| -> String { bytes.iter().map(|b| format!("{b:02x}")).collect() };
        let abc = sha1(b"abc");
        assert_eq!(hex(&abc), "a9993e364706816aba3e25717850c26c9cd0d89d");
        let abc = leaf_hashes(b"abc");
        assert_eq!(
            hex(&abc[0]),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert!(leaf_hashes(b"").is_empty());
    }

    #[test]
    fn portions_do_not_matter() {
        let data = data(100_000);
        let expect = Digests { sha1: Some(sha1(&data)), leaves: leaf_hashes(&data) };
        assert_eq!(expect.leaves.len(), 7);
        for portion in [1, 1000, 16_384, 16_385, 100_000] {
            let mut digester = Digester::new(Want::Both);
            data.chunks(portion).for_each(|part| digester.update(part));
            assert_eq!(digester.finish(0), expect, "{portion}");
        }
    }

    #[test]
    fn padding_counts_for_sha1_only() {
        let mut padded = data(20_000);
        let mut digester = Digester::new(Want::Both);
        digester.update(&padded);
        let found = digester.finish(12_768);
        assert_eq!(found.leaves, leaf_hashes(&padded));
        padded.resize(32_768, 0);
        assert_eq!(found.sha1, Some(sha1(&padded)));
    }

    #[test]
    fn only_what_is_wanted_is_hashed() {
        let of = |want| {
            let mut digester = Digester::new(want);
            digester.update(b"x");
            let found = digester.finish(0);
            (found.sha1.is_some(), found.leaves.len())
        };
        assert_eq!(of(Want::Sha1), (true, 0));
        assert_eq!(of(Want::Leaves), (false, 1));
    }

    fn storage(data: &[u8]) -> Arc<Storage> {
        let span = FileSpan { path: "a".into(), start: 0, len: data.len() as u64, padding: false };
        let storage = Storage::memory(Layout::new(1 << 20, vec![span]).unwrap()).unwrap();
        let first = Block { piece: 0, offset: 0, len: 0 };
        storage.write_run(first, &[data]).unwrap();
        Arc::new(storage)
    }

    #[test]
    fn buffers_and_stored_ranges_hash_alike() {
        let data = data(700_000);
        let (send, receive) = channel();
        let hasher = Hasher::new(2, 4, move |hashed| send.send(hashed).unwrap()).unwrap();
        let buffers = data.chunks(16_384).map(<[u8]>::to_vec).collect();
        for (tag, source) in [
            (1, Source::Buffers(buffers)),
            (2, Source::Stored { storage: storage(&data), start: 0, len: 700_000 }),
        ] {
            let job = Job { tag, want: Want::Both, source, padding_len: 5 };
            hasher.submit(job).unwrap();
        }
        drop(hasher);
        let mut results: Vec<_> = receive.iter().collect();
        results.sort_by_key(|hashed| hashed.tag);
        let [one, two] = &results[..] else { panic!() };
        assert_eq!(one.result.as_ref().unwrap(), two.result.as_ref().unwrap());
        assert_eq!(one.result.as_ref().unwrap().leaves, leaf_hashes(&data));
        assert_eq!((one.buffers.len(), two.buffers.len()), (43, 0));
    }

    #[test]
    fn a_full_queue_gives_the_job_back() {
        let (go, wait) = channel::<()>();
        let wait = Mutex::new(wait);
        let (send, receive) = channel();
        let hasher = Hasher::new(1, 1, move |hashed: Hashed<u32>| {
            wait.lock().unwrap().recv().unwrap();
            send.send(hashed.tag).unwrap();
        })
        .unwrap();
        let mut taken = 0;
        let refused = loop {
            let job = Job {
                tag: taken,
                want: Want::Sha1,
                source: Source::Buffers(vec![vec![7; 10]]),
                padding_len: 0,
            };
            match hasher.submit(job) {
                Ok(()) => taken += 1,
                Err(job) => break job,
            }
        };
        // One is held by the thread, if it was fast enough, and one waits.
        assert!((1..=2).contains(&taken), "{taken}");
        assert!(matches!(refused.source, Source::Buffers(buffers) if buffers[0] == [7; 10]));
        (0..taken).for_each(|_| go.send(()).unwrap());
        drop(hasher);
        assert_eq!(receive.iter().count(), taken as usize);
    }

    #[test]
    fn unreadable_ranges_are_errors() {
        let (send, receive) = channel();
        let hasher = Hasher::new(1, 1, move |hashed| send.send(hashed).unwrap()).unwrap();
        let source = Source::Stored { storage: storage(b"short"), start: 0, len: 6 };
        let job = Job { tag: (), want: Want::Sha1, source, padding_len: 0 };
        hasher.submit(job).unwrap();
        let found = receive.recv().unwrap().result;
        assert!(matches!(found, Err(StorageError::OutOfRange(_))));
    }
}
