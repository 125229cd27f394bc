//! Hashes large images aside, one after another, while everything else is published and served.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::SystemTime;

use boot::ImageName;
use torrent::metainfo::create::{PieceHash, Spec};
use torrent_io::create::{CreateError, FileState, Options, create_with};

use super::hashes::{Hashes, Pieces};
use super::scan::{Folder, is_part_of_image};

/// An image that is to be hashed.
#[derive(Clone, Debug)]
pub(super) struct Job {
    pub(super) name: ImageName,
    pub(super) lab: PathBuf,
    pub(super) folder: PathBuf,
    pub(super) spec: Spec,
    /// What lay in the folder when that was decided.
    pub(super) seen: Folder,
}

/// What came of a job.
#[derive(Debug)]
pub(super) struct Hashed {
    pub(super) name: ImageName,
    pub(super) seen: Folder,
    /// The .torrent file.
    pub(super) result: Result<Vec<u8>, CreateError>,
}

/// How far an image is, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct HashingNow {
    pub(crate) done: u64,
    /// Not known before it has begun.
    pub(crate) total: u64,
}

impl HashingNow {
    /// Of 100.
    pub(crate) fn percent(self) -> u64 {
        let share = (u128::from(self.done) * 100).checked_div(u128::from(self.total));
        u64::try_from(share.unwrap_or(0).min(100)).unwrap_or(100)
    }
}

/// What is being hashed, for whoever asks; a copy is another reference.
#[derive(Clone, Debug, Default)]
pub(crate) struct Progress(Arc<Mutex<BTreeMap<ImageName, HashingNow>>>);

impl Progress {
    /// All images that are being hashed or wait for it.
    pub(crate) fn all(&self) -> Vec<(ImageName, HashingNow)> {
        self.lock().iter().map(|(name, now)| (name.clone(), *now)).collect()
    }

    /// These wait or are under way, and no others.
    fn expect(&self, names: &[ImageName]) {
        let mut all = self.lock();
        all.retain(|name, _| names.contains(name));
        for name in names {
            all.entry(name.clone()).or_default();
        }
    }

    fn note(&self, name: &ImageName, now: HashingNow) {
        let mut all = self.lock();
        let Some(before) = all.get_mut(name) else { return };
        // Threads tell in any order.
        let now = HashingNow { done: now.done.max(before.done), ..now };
        let is_worth_a_line = before.total == 0 || before.percent() / 10 != now.percent() / 10;
        *before = now;
        drop(all);
        if is_worth_a_line {
            tracing::info!(target: "LAB", "hashing {name}: {} %", now.percent());
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ImageName, HashingNow>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Does a job: told how far it is, and ended within milliseconds by the flag.
pub(super) type Work =
    Arc<dyn Fn(&Job, &(dyn Fn(u64, u64) + Sync), &AtomicBool) -> HashResult + Send + Sync>;

pub(super) type HashResult = Result<Vec<u8>, CreateError>;

/// Who is told what came of a job.
type Tell = Arc<dyn Fn(Hashed) + Send + Sync>;

/// Does one job at a time.
pub(super) struct Hasher {
    work: Work,
    tell: Tell,
    progress: Progress,
    waiting: Vec<Job>,
    running: Option<Running>,
}

struct Running {
    name: ImageName,
    seen: Folder,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Hasher {
    pub(super) fn new(work: Work, progress: Progress, tell: Tell) -> Self {
        Self { work, tell, progress, waiting: vec![], running: None }
    }

    /// These are to be hashed, and nothing else any more; the shortest first.
    pub(super) fn want(&mut self, mut jobs: Vec<Job>) {
        let names: Vec<ImageName> = jobs.iter().map(|job| job.name.clone()).collect();
        self.progress.expect(&names);
        let is_running = |job: &Job, it: &Running| (&it.name, &it.seen) == (&job.name, &job.seen);
        match &self.running {
            Some(it) if jobs.iter().any(|job| is_running(job, it)) => {
                jobs.retain(|job| !is_running(job, it));
            }
            // Of an image that is gone, or another by now; it says when it has stopped.
            Some(it) => it.stop.store(true, Ordering::Relaxed),
            None => {}
        }
        jobs.sort_by_key(|job| std::cmp::Reverse(job.seen.len()));
        self.waiting = jobs;
        self.begin();
    }

    /// What it ran was told.
    pub(super) fn ended(&mut self) {
        self.running = None;
        self.begin();
    }

    fn begin(&mut self) {
        if self.running.is_some() {
            return;
        }
        let Some(job) = self.waiting.pop() else { return };
        let stop = Arc::new(AtomicBool::new(false));
        let (work, tell) = (Arc::clone(&self.work), Arc::clone(&self.tell));
        let (progress, stopper) = (self.progress.clone(), Arc::clone(&stop));
        let (name, seen) = (job.name.clone(), job.seen.clone());
        let thread = thread::Builder::new().name("hash".to_owned()).spawn(move || {
            let note = |done, total| progress.note(&job.name, HashingNow { done, total });
            let result = work(&job, &note, &stopper);
            tell(Hashed { name: job.name, seen: job.seen, result });
        });
        match thread {
            Ok(thread) => {
                self.running = Some(Running { name, seen, stop, thread: Some(thread) });
            }
            Err(error) => tracing::error!(target: "LAB", "{name} cannot be hashed: {error}"),
        }
    }
}

impl Drop for Hasher {
    fn drop(&mut self) {
        if let Some(running) = &mut self.running {
            running.stop.store(true, Ordering::Relaxed);
            if let Some(thread) = running.thread.take() {
                // A panic was told on standard error.
                let _ = thread.join();
            }
        }
    }
}

/// Pieces of a file that are kept together while it is hashed: of 16 MiB each, as those of large images are,
/// a gigabyte; what is beyond is read again after an end.
const KEPT_TOGETHER: usize = 64;

/// Reads and hashes what is not known of an image, and keeps that; what is done of it outlives an end.
pub(super) fn hash(
    job: &Job,
    progress: &(dyn Fn(u64, u64) + Sync),
    stop: &AtomicBool,
) -> HashResult {
    // Without them all of it is read, and read again after an end.
    let hashes = Mutex::new(Hashes::open(&job.lab).ok());
    let lock = || hashes.lock().unwrap_or_else(PoisonError::into_inner);
    let began = SystemTime::now();
    let fresh: Mutex<BTreeMap<PathBuf, Vec<Pieces>>> = Mutex::default();
    let hashed = |state: &FileState<'_>, first: u32, pieces: &[PieceHash]| {
        let mut fresh = fresh.lock().unwrap_or_else(PoisonError::into_inner);
        let of_file = fresh.entry(state.path.to_owned()).or_default();
        of_file.push((first, pieces.to_vec()));
        let count: usize = of_file.iter().map(|(_, pieces)| pieces.len()).sum();
        let is_whole = u64::from(state.piece_len) * count as u64 >= state.len;
        if count >= KEPT_TOGETHER || is_whole || stop.load(Ordering::Relaxed) {
            let of_file = std::mem::take(of_file);
            drop(fresh);
            if let Some(hashes) = &*lock() {
                hashes.keep_begun(state, &of_file, began);
            }
        }
    };
    let options = Options {
        threads: thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
        progress,
        takes: &is_part_of_image,
        known: &|state| lock().as_ref()?.find(state),
        begun: &|state| lock().as_ref().map(|hashes| hashes.begun(state)).unwrap_or_default(),
        hashed: &hashed,
        stop,
    };
    let created = create_with(&job.folder, job.spec.clone(), &options)?;
    if let Some(hashes) = &mut *lock() {
        hashes.keep(&job.folder, &created, began);
    }
    Ok(created.bytes)
}
