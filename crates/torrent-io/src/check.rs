//! Checking what is stored already against the hashes: before seeding, for `torrent verify`, and
//! when an earlier download goes on. The piece hashes are behind [`PieceCheck`]; this reads, in
//! parallel, and never writes.

mod metainfo;

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use torrent::Bitfield;

pub use self::metainfo::MetainfoCheck;

use crate::storage::{Storage, StorageError};

/// All buffers of a check together, at most (but one piece): a thread holds the piece that it
/// hashes, and a node with little memory must be able to check pieces of 128 MiB.
const BUFFERS_LEN_MAX: u64 = 32 << 20;

/// Knows the hashes.
pub trait PieceCheck: Sync {
    /// How many pieces the torrent has.
    fn piece_count(&self) -> u32;

    /// Whether `data` is piece `piece`. It is the piece's whole range of the piece space, padding
    /// included as zeros; a v2 check looks at the data only.
    fn check(&self, piece: u32, data: &[u8]) -> bool;

    /// Whether piece `piece` is `len` zeros: asked for pieces that lie in holes of sparse files.
    /// Such a piece can be right, since disk images are full of zeros. `None` says hash and see;
    /// a check that knows the hash of a piece of zeros answers without hashing.
    fn is_zeros(&self, piece: u32, len: u64) -> Option<bool> {
        let _ = (piece, len);
        None
    }
}

/// How far a check is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Pieces checked so far.
    pub checked: u32,
    /// How many of them are good.
    pub good: u32,
    /// Pieces to check.
    pub piece_count: u32,
}

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// Pieces that are good; what was not checked is not in it.
    pub good: Bitfield,
    /// It ended early, by `cancel`.
    pub cancelled: bool,
}

/// Hashes `pieces` of `storage` on `threads` threads, lowest first. `progress` is called after each
/// piece, by one thread at a time; when `cancel` becomes true, no further piece is begun.
///
/// # Errors
/// The first file that could not be read. A file that can be read and is wrong is no error.
///
/// # Panics
/// If `pieces` is of another length than the torrent.
pub fn check(
    storage: &Storage,
    pieces: &Bitfield,
    hashes: &dyn PieceCheck,
    threads: NonZeroUsize,
    cancel: &AtomicBool,
    progress: &mut (dyn FnMut(Progress) + Send),
) -> Result<Checked, StorageError> {
    assert_eq!(pieces.len(), hashes.piece_count());
    let run = Run {
        storage,
        hashes,
        order: pieces.iter().collect(),
        next: AtomicU32::new(0),
        cancel,
        stop: AtomicBool::new(false),
        state: Mutex::new(State {
            good: Bitfield::new(pieces.len()),
            checked: 0,
            error: None,
            progress,
        }),
    };
    let held = BUFFERS_LEN_MAX / u64::from(storage.layout().piece_len());
    let threads = (threads.get() as u64).min(held).min(run.order.len() as u64).max(1);
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(|| run.work());
        }
        run.work();
    });
    let piece_count = run.order.len() as u32;
    let state = run.state.into_inner().unwrap_or_else(PoisonError::into_inner);
    match state.error {
        Some(error) => Err(error),
        None => Ok(Checked { cancelled: state.checked < piece_count, good: state.good }),
    }
}

struct Run<'a> {
    storage: &'a Storage,
    hashes: &'a dyn PieceCheck,
    order: Vec<u32>,
    next: AtomicU32,
    cancel: &'a AtomicBool,
    /// Another thread found an error.
    stop: AtomicBool,
    state: Mutex<State<'a>>,
}

struct State<'a> {
    good: Bitfield,
    checked: u32,
    error: Option<StorageError>,
    progress: &'a mut (dyn FnMut(Progress) + Send),
}

impl Run<'_> {
    fn work(&self) {
        let mut buffer = Vec::new();
        while !self.cancel.load(Ordering::Relaxed) && !self.stop.load(Ordering::Relaxed) {
            let at = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(&piece) = self.order.get(at as usize) else {
                return;
            };
            let found = self.piece(piece, &mut buffer);
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            match found {
                Ok(good) => {
                    if good {
                        state.good.insert(piece);
                    }
                    state.checked += 1;
                    let progress = Progress {
                        checked: state.checked,
                        good: state.good.count(),
                        piece_count: self.order.len() as u32,
                    };
                    (state.progress)(progress);
                }
                Err(error) => {
                    state.error.get_or_insert(error);
                    self.stop.store(true, Ordering::Relaxed);
                }
            }
        }
    }

    fn piece(&self, piece: u32, buffer: &mut Vec<u8>) -> Result<bool, StorageError> {
        let (start, len) = self.storage.layout().piece_range(piece);
        if self.storage.is_hole(start, len)?
            && let Some(good) = self.hashes.is_zeros(piece, len)
        {
            return Ok(good);
        }
        // At most a piece, which the geometry bounds.
        buffer.resize(len as usize, 0);
        self.storage.read(start, buffer)?;
        Ok(self.hashes.check(piece, buffer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::sha1;
    use crate::storage::{Allocation, FileSpan, Layout};
    use std::path::Path;
    use torrent::Block;

    const PIECE_LEN: u32 = 64 << 10;

    struct Hashes {
        of: Vec<[u8; 20]>,
        hashed: AtomicU32,
        knows_zeros: bool,
    }

    impl Hashes {
        fn new(data: &[u8]) -> Self {
            Self {
                of: data.chunks(PIECE_LEN as usize).map(sha1).collect(),
                hashed: AtomicU32::new(0),
                knows_zeros: true,
            }
        }
    }

    impl PieceCheck for Hashes {
        fn piece_count(&self) -> u32 {
            self.of.len() as u32
        }

        fn check(&self, piece: u32, data: &[u8]) -> bool {
            self.hashed.fetch_add(1, Ordering::Relaxed);
            self.of[piece as usize] == sha1(data)
        }

        fn is_zeros(&self, piece: u32, len: u64) -> Option<bool> {
            let zeros = sha1(&vec![0; len as usize]);
            self.knows_zeros.then(|| self.of[piece as usize] == zeros)
        }
    }

    /// Nine pieces and a bit; the third is zeros.
    fn data() -> Vec<u8> {
        let mut data: Vec<u8> = (0..600_000u32).map(|at| (at / 3 + 1) as u8).collect();
        data[2 * PIECE_LEN as usize..3 * PIECE_LEN as usize].fill(0);
        data
    }

    fn layout() -> Layout {
        let span =
            |path: &str, start, len| FileSpan { path: path.into(), start, len, padding: false };
        let spans = vec![span("t/a", 0, 250_000), span("t/b", 250_000, 350_000)];
        Layout::new(PIECE_LEN, spans).unwrap()
    }

    fn sparse(dir: &Path) -> Storage {
        Storage::download(dir, layout(), "t", &[1; 20], Allocation::Sparse).unwrap().0
    }

    fn write(storage: &Storage, data: &[u8], pieces: &[u32]) {
        for &piece in pieces {
            let (start, len) = storage.layout().piece_range(piece);
            let first = Block { piece, offset: 0, len: 0 };
            let range = start as usize..(start + len) as usize;
            storage.write_run(first, &[&data[range]]).unwrap();
        }
    }

    fn run(storage: &Storage, pieces: &Bitfield, hashes: &Hashes) -> Checked {
        let cancel = AtomicBool::new(false);
        let threads = NonZeroUsize::new(3).unwrap();
        check(storage, pieces, hashes, threads, &cancel, &mut |_| {}).unwrap()
    }

    #[test]
    fn good_pieces_are_found_and_others_not() {
        let data = data();
        let temp = tempfile::tempdir().unwrap();
        let storage = sparse(temp.path());
        write(&storage, &data, &[0, 3, 9]);
        let mut wrong = data.clone();
        wrong[5 * PIECE_LEN as usize] ^= 1;
        write(&storage, &wrong, &[5]);
        let found = run(&storage, &Bitfield::full(10), &Hashes::new(&data));
        // Piece 2 is zeros, and a hole is zeros.
        assert_eq!(found.good.iter().collect::<Vec<_>>(), [0, 2, 3, 9]);
        assert!(!found.cancelled);
    }

    #[test]
    fn only_pieces_asked_for_are_checked() {
        let data = data();
        let temp = tempfile::tempdir().unwrap();
        let storage = sparse(temp.path());
        write(&storage, &data, &[0, 1, 3]);
        let mut pieces = Bitfield::new(10);
        pieces.insert(1);
        pieces.insert(4);
        let found = run(&storage, &pieces, &Hashes::new(&data));
        assert_eq!(found.good.iter().collect::<Vec<_>>(), [1]);
    }

    #[test]
    fn holes_are_not_hashed_if_zeros_are_known() {
        let data = data();
        // Piece 0 shares no page with another.
        let storage = Storage::memory(layout()).unwrap();
        write(&storage, &data, &[0]);
        for (knows_zeros, expect) in [(true, 1), (false, 10)] {
            let mut hashes = Hashes::new(&data);
            hashes.knows_zeros = knows_zeros;
            let found = run(&storage, &Bitfield::full(10), &hashes);
            assert_eq!(found.good.iter().collect::<Vec<_>>(), [0, 2]);
            assert_eq!(hashes.hashed.into_inner(), expect);
        }
    }

    #[test]
    fn cancel_ends_early_and_keeps_what_is_known() {
        let data = data();
        let temp = tempfile::tempdir().unwrap();
        let storage = sparse(temp.path());
        write(&storage, &data, &[0, 1, 3]);
        let cancel = AtomicBool::new(false);
        let mut last = None;
        let found = check(
            &storage,
            &Bitfield::full(10),
            &Hashes::new(&data),
            NonZeroUsize::MIN,
            &cancel,
            &mut |progress| {
                last = Some(progress);
                cancel.store(progress.checked == 2, Ordering::Relaxed);
            },
        )
        .unwrap();
        assert!(found.cancelled);
        assert_eq!(found.good.iter().collect::<Vec<_>>(), [0, 1]);
        let expect = Progress { checked: 2, good: 2, piece_count: 10 };
        assert_eq!(last, Some(expect));
    }

    #[test]
    fn a_file_that_shrinks_under_the_check_is_an_error() {
        let data = data();
        let temp = tempfile::tempdir().unwrap();
        std::fs::create_dir(temp.path().join("t")).unwrap();
        std::fs::write(temp.path().join("t/a"), &data[..250_000]).unwrap();
        std::fs::write(temp.path().join("t/b"), &data[250_000..]).unwrap();
        let storage = Storage::seed(temp.path(), layout()).unwrap();
        let hashes = Hashes::new(&data);
        assert!(run(&storage, &Bitfield::full(10), &hashes).good.is_full());
        let file = std::fs::File::options().write(true).open(temp.path().join("t/b"));
        file.unwrap().set_len(1000).unwrap();
        let found = check(
            &storage,
            &Bitfield::full(10),
            &hashes,
            NonZeroUsize::MIN,
            &AtomicBool::new(false),
            &mut |_| {},
        );
        assert!(matches!(found, Err(StorageError::Changed { .. })), "{found:?}");
    }
}
