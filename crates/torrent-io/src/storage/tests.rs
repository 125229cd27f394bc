//! Storage as a whole: what is written is read, whatever lies between; and what goes wrong.

use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::MetadataExt;

use proptest::prelude::*;
use torrent::BLOCK_LEN;

use super::*;

fn span(path: &str, start: u64, len: u64) -> FileSpan {
    FileSpan { path: path.into(), start, len, padding: false }
}

fn block(piece: u32, offset: u32, len: u32) -> Block {
    Block { piece, offset, len }
}

fn two_files() -> Layout {
    Layout::new(BLOCK_LEN, vec![span("t/a", 0, 20_000), span("t/d/b", 32_768, 10_000)]).unwrap()
}

fn download(dir: &Path, layout: Layout) -> Result<(Storage, Prior), StorageError> {
    Storage::download(dir, layout, "t", &[7; 20], Allocation::Sparse)
}

fn fill(storage: &Storage) {
    let len = storage.layout().total_len() as usize;
    let data: Vec<u8> = (0..len).map(|at| (at / 5 + 1) as u8).collect();
    storage.write_run(block(0, 0, 0), &[&data]).unwrap();
}

fn open_to_write(path: impl AsRef<Path>) -> fs::File {
    fs::File::options().write(true).open(path).unwrap()
}

/// Two complete files in a directory, and a seed of them.
fn seeded() -> (tempfile::TempDir, Storage) {
    let temp = tempfile::tempdir().unwrap();
    let (storage, _) = download(temp.path(), two_files()).unwrap();
    fill(&storage);
    storage.complete().unwrap();
    let storage = Storage::seed(temp.path(), two_files()).unwrap();
    (temp, storage)
}

#[test]
fn download_lies_under_its_final_names() {
    let temp = tempfile::tempdir().unwrap();
    let (storage, prior) = download(temp.path(), two_files()).unwrap();
    assert_eq!(prior, Prior::Fresh);
    storage.write_block(block(0, 0, 3), b"abc").unwrap();
    storage.write_block(block(1, 3_615, 3), b"xyz").unwrap();
    storage.write_block(block(2, 9_999, 1), b"!").unwrap();
    let a = fs::read(temp.path().join("t/a")).unwrap();
    assert_eq!((a.len(), &a[..3], a[19_999]), (20_000, &b"abc"[..], b'x'));
    let b = fs::read(temp.path().join("t/d/b")).unwrap();
    assert_eq!((b.len(), b[9_999]), (10_000, b'!'));
    // What lay in the padding is dropped.
    let mut read = [9; 3];
    storage.read_block(block(1, 3_615, 3), &mut read).unwrap();
    assert_eq!(&read, b"x\0\0");
}

#[test]
fn files_are_sparse_or_preallocated_as_asked() {
    for (allocation, blocks) in [(Allocation::Sparse, false), (Allocation::Preallocate, true)] {
        let temp = tempfile::tempdir().unwrap();
        let layout = Layout::new(BLOCK_LEN, vec![span("a", 0, 1 << 20)]).unwrap();
        let (storage, _) =
            Storage::download(temp.path(), layout, "a", &[7; 20], allocation).unwrap();
        let stat = fs::metadata(temp.path().join("a")).unwrap();
        assert_eq!(stat.len(), 1 << 20);
        assert_eq!(stat.blocks() * 512 >= 1 << 20, blocks, "{allocation:?}");
        assert!(storage.is_hole(0, 1 << 20).unwrap());
        storage.write_block(block(5, 0, 1), b"x").unwrap();
        assert!(!storage.is_hole(0, 1 << 20).unwrap());
        assert!(storage.is_hole(12 << 16, 1 << 16).unwrap());
    }
}

#[test]
fn open_files_are_bounded_and_held_ones_stay() {
    let temp = tempfile::tempdir().unwrap();
    let count = 3 * OPEN_FILES_MAX as u32;
    let spans = (0..count).map(|at| span(&format!("t/{at}"), u64::from(at), 1));
    let layout = Layout::new(1, spans.collect()).unwrap();
    let (storage, _) = download(temp.path(), layout).unwrap();
    let Store::Files(files) = &storage.store else { panic!() };
    let held = storage.file(0).unwrap();
    let used = storage.file(1).unwrap();
    for piece in 0..count {
        storage.write_block(block(piece, 0, 1), &[piece as u8]).unwrap();
        // Used each time, so it is never the one that goes: it is still the same descriptor.
        let again = storage.file(1).unwrap();
        assert_eq!(again.as_fd().as_raw_fd(), used.as_fd().as_raw_fd());
    }
    assert_eq!(files.open_count(), OPEN_FILES_MAX);
    let mut read = [9];
    held.read(&mut read, 0).unwrap();
    assert_eq!(read, [0]);
    for piece in 0..count {
        storage.read_block(block(piece, 0, 1), &mut read).unwrap();
        assert_eq!(read, [piece as u8]);
    }
}

#[test]
fn complete_is_final() {
    for memory in [false, true] {
        let temp = tempfile::tempdir().unwrap();
        let storage = if memory {
            Storage::memory(two_files()).unwrap()
        } else {
            download(temp.path(), two_files()).unwrap().0
        };
        fill(&storage);
        let file = storage.file(0).unwrap();
        storage.complete().unwrap();
        storage.complete().unwrap();
        let found = storage.write_block(block(0, 0, 1), b"x");
        assert!(matches!(found, Err(StorageError::Complete)), "{found:?}");
        let mut read = [0];
        storage.read_block(block(0, 0, 1), &mut read).unwrap();
        assert_eq!(read, [1]);
        // The kernel keeps what the type cannot: a descriptor from before cannot write either.
        assert_eq!(rustix::io::pwrite(&file, b"x", 0).is_err(), memory);
    }
}

#[test]
fn unfinished_is_marked_until_complete() {
    let temp = tempfile::tempdir().unwrap();
    let mark = temp.path().join(".t.boottorrent-resume");
    let (storage, _) = download(temp.path(), two_files()).unwrap();
    assert!(mark.is_file());
    fill(&storage);
    storage.complete().unwrap();
    assert!(!mark.exists());
    let (_, prior) = download(temp.path(), two_files()).unwrap();
    assert_eq!(prior, Prior::Existing);
    assert!(prior.to_check(3).is_full());
}

#[test]
fn a_crash_costs_hashing_and_an_orderly_end_little() {
    let temp = tempfile::tempdir().unwrap();
    let mut good = Bitfield::new(3);
    good.insert(1);
    let (storage, _) = download(temp.path(), two_files()).unwrap();
    storage.save(&good, false).unwrap();
    drop(storage);
    let (storage, prior) = download(temp.path(), two_files()).unwrap();
    assert_eq!(prior, Prior::Crashed(good.clone()));
    assert!(prior.to_check(3).is_full());
    assert_eq!(prior.lost_count(&Bitfield::new(3)), 1);
    storage.save(&good, true).unwrap();
    drop(storage);
    let (storage, prior) = download(temp.path(), two_files()).unwrap();
    assert_eq!(prior, Prior::Closed(good.clone()));
    assert_eq!(prior.to_check(3), good);
    // The orderly end is over as soon as the next run begins.
    drop(storage);
    let (_, prior) = download(temp.path(), two_files()).unwrap();
    assert_eq!(prior, Prior::Crashed(good));
}

#[test]
fn data_of_a_crashed_run_is_still_there() {
    let temp = tempfile::tempdir().unwrap();
    let (storage, _) = download(temp.path(), two_files()).unwrap();
    storage.write_block(block(0, 0, 3), b"abc").unwrap();
    drop(storage);
    // The crash was between creating a file and giving it its length.
    let file = open_to_write(temp.path().join("t/d/b"));
    file.set_len(0).unwrap();
    let (storage, _) = download(temp.path(), two_files()).unwrap();
    let mut read = [0; 3];
    storage.read_block(block(0, 0, 3), &mut read).unwrap();
    assert_eq!(&read, b"abc");
    storage.read_block(block(2, 0, 3), &mut read).unwrap();
    assert_eq!(&read, b"\0\0\0");
}

#[test]
fn foreign_files_are_not_touched() {
    for len in [3, 30_000] {
        let temp = tempfile::tempdir().unwrap();
        fs::create_dir(temp.path().join("t")).unwrap();
        fs::write(temp.path().join("t/a"), vec![b'x'; len]).unwrap();
        let found = download(temp.path(), two_files());
        assert!(
            matches!(found, Err(StorageError::WrongLen { expected: 20_000, found, .. }) if found == len as u64)
        );
        assert_eq!(fs::read(temp.path().join("t/a")).unwrap(), vec![b'x'; len]);
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 1);
    }
}

#[test]
fn a_full_disk_is_known_before_the_start() {
    let temp = tempfile::tempdir().unwrap();
    for allocation in [Allocation::Sparse, Allocation::Preallocate] {
        let layout = Layout::new(1 << 27, vec![span("a", 0, 1 << 60)]).unwrap();
        let found = Storage::download(temp.path(), layout, "a", &[7; 20], allocation);
        let Err(StorageError::NoSpace { dir, needed, .. }) = found else {
            panic!("{found:?}");
        };
        assert_eq!((&*dir, needed), (temp.path(), 1 << 60));
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 0);
    }
}

#[test]
fn a_disk_that_fills_up_names_the_file() {
    let temp = tempfile::tempdir().unwrap();
    let (storage, _) = download(temp.path(), two_files()).unwrap();
    let Store::Files(files) = &storage.store else { panic!() };
    // The kernel's own full disk: every write to it fails with ENOSPC.
    let full = open_to_write("/dev/full");
    let path = temp.path().join("t/a");
    files.replace(0, FileHandle::new(full.into(), path.clone(), None));
    let found = storage.write_block(block(0, 0, 3), b"abc");
    assert!(matches!(&found, Err(StorageError::Full(at)) if *at == path));
    let found = storage.write_run(block(0, 0, 3), &[b"abc", b"d"]);
    assert!(matches!(&found, Err(StorageError::Full(at)) if *at == path));
    storage.write_block(block(2, 0, 3), b"abc").unwrap();
}

#[test]
fn targets_that_cannot_be_written_are_refused() {
    let temp = tempfile::tempdir().unwrap();
    fs::write(temp.path().join("t"), "a file in place of the folder").unwrap();
    let found = download(temp.path(), two_files());
    assert!(matches!(found, Err(StorageError::NotADirectory(_))), "{found:?}");

    // /proc takes no file, not even from root.
    let found = download(Path::new("/proc"), two_files()).unwrap_err();
    let said = found.to_string();
    assert!(said.starts_with("/proc"), "{said}");

    let found = download(&temp.path().join("absent"), two_files());
    assert!(matches!(found, Err(StorageError::DirMissing(_))), "{found:?}");
}

#[test]
fn what_is_not_there_cannot_be_seeded() {
    let (temp, _) = seeded();
    let b = temp.path().join("t/d/b");
    fs::write(&b, "short").unwrap();
    let found = Storage::seed(temp.path(), two_files());
    assert!(matches!(&found, Err(StorageError::WrongLen { path, .. }) if *path == b));
    fs::remove_file(&b).unwrap();
    let found = Storage::seed(temp.path(), two_files());
    assert!(matches!(&found, Err(StorageError::Missing(path)) if *path == b));
    fs::create_dir(&b).unwrap();
    let found = Storage::seed(temp.path(), two_files());
    assert!(matches!(&found, Err(StorageError::NotAFile(path)) if *path == b));
}

#[test]
fn a_file_changed_under_the_seed_is_noticed() {
    let check = |change: &dyn Fn(&Path), expect: Change| {
        let (temp, storage) = seeded();
        let mut data = [0; 100];
        change(&temp.path().join("t/a"));
        let read = storage.read_block(block(0, 0, 100), &mut data).map(drop);
        let run = storage.read_run(block(0, 0, 100), &mut [&mut data]);
        for found in [read, run] {
            assert!(
                matches!(&found, Err(StorageError::Changed { what, .. }) if *what == expect),
                "{expect:?}: {found:?}"
            );
        }
        // The other file is as it was.
        storage.read_block(block(2, 0, 100), &mut data).unwrap();
    };
    let set_len = |path: &Path, len| {
        open_to_write(path).set_len(len).unwrap();
    };
    check(&|path| set_len(path, 50), Change::Shrunk);
    check(&|path| set_len(path, 30_000), Change::Len);
    let touch = |path: &Path| {
        let file = open_to_write(path);
        let hour_ago =
            file.metadata().unwrap().modified().unwrap() - std::time::Duration::from_secs(3600);
        file.set_modified(hour_ago).unwrap();
    };
    check(&touch, Change::Modified);
}

#[test]
fn a_file_that_is_replaced_or_deleted_is_still_seeded() {
    let (temp, storage) = seeded();
    let (path, mut before, mut after) = (temp.path().join("t/a"), [0; 100], [0; 100]);
    storage.read_block(block(0, 0, 100), &mut before).unwrap();
    fs::write(path.with_extension("new"), "another").unwrap();
    fs::rename(path.with_extension("new"), &path).unwrap();
    storage.read_block(block(0, 0, 100), &mut after).unwrap();
    assert_eq!(after, before);
    fs::remove_file(&path).unwrap();
    storage.read_block(block(0, 0, 100), &mut after).unwrap();
    assert_eq!(after, before);
}

/// Of more files than stay open, those that are not open are found by their name.
#[test]
fn a_replaced_file_that_was_closed_is_noticed() {
    let temp = tempfile::tempdir().unwrap();
    let count = OPEN_FILES_MAX as u64 + 1;
    for at in 0..count {
        fs::write(temp.path().join(at.to_string()), "x").unwrap();
    }
    let spans = (0..count).map(|at| span(&at.to_string(), at, 1));
    let storage = Storage::seed(temp.path(), Layout::new(1, spans.collect()).unwrap()).unwrap();
    let last = temp.path().join((count - 1).to_string());
    fs::write(temp.path().join("new"), "x").unwrap();
    fs::rename(temp.path().join("new"), &last).unwrap();
    let found = storage.read_block(block(count as u32 - 1, 0, 1), &mut [0]);
    assert!(
        matches!(found, Err(StorageError::Changed { what: Change::Replaced, .. })),
        "{found:?}"
    );
}

#[test]
fn a_seed_cannot_be_written() {
    let (_temp, storage) = seeded();
    let found = storage.write_block(block(0, 0, 1), b"x");
    assert!(matches!(found, Err(StorageError::Complete)), "{found:?}");
}

#[test]
fn memory_has_a_limit_of_files() {
    let count = MEMORY_FILES_MAX as u64 + 1;
    let spans = (0..count).map(|at| span(&format!("t/{at}"), at, 1));
    let found = Storage::memory(Layout::new(1, spans.collect()).unwrap());
    assert!(matches!(found, Err(StorageError::TooManyFiles { .. })));
    let huge = Layout::new(1 << 27, vec![span("a", 0, 1 << 60)]).unwrap();
    let found = Storage::memory(huge);
    assert!(matches!(found, Err(StorageError::NoMemory { .. })));
}

#[test]
fn storage_is_shared_between_threads() {
    const fn check<T: Send + Sync>() {}
    check::<Storage>();
}

/// Files with gaps and padding between them: (length, what follows).
fn spans() -> impl Strategy<Value = Vec<FileSpan>> {
    prop::collection::vec((0u64..50, 0u64..10, any::<bool>()), 1..12).prop_map(|parts| {
        let mut start = 0;
        let mut spans = Vec::new();
        for (at, (len, gap, padding)) in parts.into_iter().enumerate() {
            spans.push(span(&format!("t/{at}"), start, len + u64::from(at == 0)));
            start = spans[spans.len() - 1].end();
            if padding {
                let padding = true;
                let pad = span("t/.pad", start, gap);
                spans.push(FileSpan { padding, ..pad });
            }
            start += gap;
        }
        spans
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn behaves_as_a_vec(
        spans in spans(),
        memory in any::<bool>(),
        runs in prop::collection::vec(
            (any::<prop::sample::Index>(), prop::collection::vec(0usize..20, 1..6), any::<bool>()),
            1..20,
        ),
    ) {
        let layout = Layout::new(16, spans.clone()).unwrap();
        let total = layout.total_len() as usize;
        let mut model = vec![0u8; total];
        let stored: Vec<bool> = (0..total as u64)
            .map(|at| spans.iter().any(|s| !s.padding && (s.start..s.end()).contains(&at)))
            .collect();
        let temp = tempfile::tempdir().unwrap();
        let storage = if memory {
            Storage::memory(layout).unwrap()
        } else {
            download(temp.path(), layout).unwrap().0
        };
        let mut next = 0u8;
        for (start, lens, vectored) in runs {
            let start = start.index(total);
            let mut rest = total - start;
            let blocks: Vec<Vec<u8>> = lens.into_iter().map(|len| {
                let len = len.min(rest);
                rest -= len;
                (0..len).map(|_| { next = next.wrapping_add(1); next }).collect()
            }).collect();
            let flat = blocks.concat();
            let first = block(start as u32 / 16, start as u32 % 16, flat.len() as u32);
            if vectored {
                let blocks: Vec<&[u8]> = blocks.iter().map(Vec::as_slice).collect();
                storage.write_run(first, &blocks).unwrap();
            } else {
                storage.write_block(first, &flat).unwrap();
            }
            for (at, byte) in flat.iter().enumerate() {
                if stored[start + at] {
                    model[start + at] = *byte;
                }
            }
            let mut read = vec![9; flat.len()];
            storage.read_block(first, &mut read).unwrap();
            prop_assert_eq!(&read, &model[start..start + flat.len()]);
            let mut parts: Vec<Vec<u8>> = blocks.iter().map(|b| vec![9; b.len()]).collect();
            let mut slices: Vec<&mut [u8]> = parts.iter_mut().map(Vec::as_mut_slice).collect();
            storage.read_run(first, &mut slices).unwrap();
            prop_assert_eq!(parts.concat(), read);
        }
        let mut all = vec![9; total];
        storage.read(0, &mut all).unwrap();
        prop_assert_eq!(all, model);
        prop_assert!(storage.read(1, &mut vec![0; total]).is_err());
    }
}
