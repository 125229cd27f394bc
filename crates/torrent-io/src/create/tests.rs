//! Folders that are made for the test, in a temporary folder.

use std::collections::BTreeSet;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::sync::Mutex;

use tempfile::TempDir;
use torrent::metainfo::Metainfo;
use torrent::metainfo::create::Format;

use super::*;

fn put(folder: &TempDir, path: &str, len: usize) -> PathBuf {
    let path = folder.path().join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let content: Vec<u8> = (0..len).map(|i| (i * 7 + i / 256 + len) as u8).collect();
    fs::write(&path, content).unwrap();
    path
}

fn spec(format: Format, piece_len: u32) -> Spec {
    Spec { format, piece_len: Some(piece_len), ..Spec::default() }
}

fn make(path: &Path, spec: Spec, threads: usize) -> Result<Vec<u8>, CreateError> {
    create(path, spec, NonZeroUsize::new(threads).unwrap(), &|_, _| {})
}

#[track_caller]
fn refuse(path: &Path, message: &str) {
    let error = make(path, Spec::default(), 2).unwrap_err();
    assert_eq!(error.to_string(), message);
}

#[test]
fn result_does_not_depend_on_threads() {
    let folder = TempDir::new().unwrap();
    let lens = [0, 1, 16_384, 20_000, 700_001, 3_000_000];
    for (at, &len) in lens.iter().enumerate() {
        put(&folder, &format!("top/{}/{at}", ["z", "a.b", "a"][at % 3]), len);
        put(&folder, &format!("top/{at}"), len / 2);
    }
    for format in [Format::Hybrid, Format::V1, Format::V2] {
        for piece_len in [1 << 14, 1 << 18, 1 << 22] {
            let path = folder.path().join("top");
            let one = make(&path, spec(format, piece_len), 1).unwrap();
            let four = make(&path, spec(format, piece_len), 4).unwrap();
            assert!(one == four);
            let metainfo = Metainfo::decode(&one).unwrap();
            assert_eq!(metainfo.name(), "top");
            assert_eq!(metainfo.layout().files().len(), 12);
        }
    }
}

/// What libtorrent made of the same content (crates/torrent/tests/fixtures).
#[test]
fn infohashes_are_those_of_libtorrent() {
    let folder = TempDir::new().unwrap();
    let single = put(&folder, "single.bin", 100_001);
    let hash = |format| {
        let bytes = make(&single, spec(format, 32_768), 2).unwrap();
        let metainfo = Metainfo::decode(&bytes).unwrap();
        metainfo.info_hashes().map(|hash| hash.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(hash(Format::V1), ["9a39679bf4d34dbee23ca8d4caa1223784333af3"]);
    let v2 = "a7465c00840b751aec8e48aaad810524e828246bf2803c5c516ce2b4968878cb";
    assert_eq!(hash(Format::V2), [v2]);
    assert_eq!(
        hash(Format::Hybrid),
        [
            "c058e165557f585aeddf8b533a0a316916d225fa",
            "bd110aadd03563b197d22f1482727f89b9f49ceaf1a46b8beffe86c85b8ae097"
        ]
    );
}

#[test]
fn what_is_no_file_is_refused_by_path() {
    let folder = TempDir::new().unwrap();
    let top = folder.path().join("top");
    put(&folder, "top/sub/file", 10);
    let odd = top.join("sub/odd");
    let refused = |kind: &str| {
        let only = "only files and folders can be in a torrent";
        refuse(&top, &format!("{} is a {kind}: {only}", odd.display()));
        fs::remove_file(&odd).unwrap();
    };
    symlink("file", &odd).unwrap();
    refused("symbolic link");
    symlink("..", &odd).unwrap();
    refused("symbolic link");
    let socket = UnixListener::bind(&odd).unwrap();
    refused("socket");
    drop(socket);
    assert!(make(&top, Spec::default(), 1).is_ok());

    refuse(
        Path::new("/dev/null"),
        "/dev/null is a device: only files and folders can be in a torrent",
    );
    let missing = top.join("missing");
    refuse(&missing, &format!("cannot read {}", missing.display()));
    fs::create_dir(&odd).unwrap();
    let message = "is an empty folder, which a torrent cannot hold";
    refuse(&top, &format!("{} {message}", odd.display()));
}

#[test]
fn single_file_through_a_link_is_refused() {
    let folder = TempDir::new().unwrap();
    put(&folder, "file", 10);
    let link = folder.path().join("link");
    symlink("file", &link).unwrap();
    let error = make(&link, Spec::default(), 1).unwrap_err();
    assert!(matches!(error, CreateError::Kind { kind: "symbolic link", .. }));
}

/// Does something to the file in the middle of hashing.
#[track_caller]
fn change(act: impl Fn(&Path) + Sync) {
    let folder = TempDir::new().unwrap();
    let path = put(&folder, "top/file", 5 << 20);
    put(&folder, "top/other", 3);
    let acted = Mutex::new(false);
    let progress = |_, _| {
        let mut acted = acted.lock().unwrap();
        if !*acted {
            act(&path);
            *acted = true;
        }
    };
    let one = NonZeroUsize::MIN;
    let error = create(&folder.path().join("top"), Spec::default(), one, &progress).unwrap_err();
    let message = format!("{} changed while it was read", path.display());
    assert_eq!(error.to_string(), message);
}

#[test]
fn file_that_changes_while_it_is_read_is_an_error() {
    let set_len = |path: &Path, len| File::options().write(true).open(path).unwrap().set_len(len);
    change(|path| set_len(path, 10).unwrap());
    change(|path| set_len(path, 6 << 20).unwrap());
    change(|path| {
        let copy = path.with_extension("copy");
        fs::copy(path, &copy).unwrap();
        fs::rename(&copy, path).unwrap();
    });
}

#[test]
fn executables_are_marked() {
    let folder = TempDir::new().unwrap();
    let path = put(&folder, "top/run", 5);
    put(&folder, "top/text", 5);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let bytes = make(&folder.path().join("top"), Spec::default(), 1).unwrap();
    let metainfo = Metainfo::decode(&bytes).unwrap();
    let marked: Vec<bool> = metainfo.layout().files().iter().map(|f| f.is_executable()).collect();
    assert_eq!(marked, [true, false]);
}

#[test]
fn progress_ends_with_all() {
    let folder = TempDir::new().unwrap();
    let path = put(&folder, "file", 3_000_000);
    let seen = Mutex::new(BTreeSet::new());
    let progress = |done, total| {
        assert_eq!(total, 3_000_000);
        seen.lock().unwrap().insert(done);
    };
    create(&path, Spec::default(), NonZeroUsize::new(3).unwrap(), &progress).unwrap();
    let seen = seen.into_inner().unwrap();
    assert_eq!(seen.len(), 3, "1 MiB at a time");
    assert_eq!(seen.last(), Some(&3_000_000));
}

/// Hashes by file name, as somebody keeps them between two runs.
type Kept = std::collections::BTreeMap<(String, bool), Vec<PieceHash>>;

fn make_again(path: &Path, format: Format, kept: &Kept) -> (Created, Kept) {
    let name = |state: &FileState<'_>| {
        (state.path.file_name().unwrap().to_str().unwrap().to_owned(), state.is_last)
    };
    let known = |state: &FileState<'_>| kept.get(&name(state)).cloned();
    let options = Options {
        threads: NonZeroUsize::new(2).unwrap(),
        progress: &|_, _| {},
        takes: &|name| name != "left-out",
        known: &known,
        begun: &|_| vec![],
        hashed: &|_, _, _| {},
        stop: &AtomicBool::new(false),
    };
    let created = create_with(path, spec(format, 1 << 14), &options).unwrap();
    let kept = created.files().map(|(state, hashes)| (name(&state), hashes.to_vec())).collect();
    (created, kept)
}

#[test]
fn files_whose_hashes_are_known_are_not_read() {
    let folder = TempDir::new().unwrap();
    let top = folder.path().join("top");
    for (name, len) in [("a", 100_000), ("b", 0), ("c", 16_384), ("d", 50_000), ("left-out", 9)] {
        put(&folder, &format!("top/{name}"), len);
    }
    for format in [Format::Hybrid, Format::V2] {
        let (first, kept) = make_again(&top, format, &Kept::new());
        assert_eq!(first.read_len, 166_384);
        let (second, again) = make_again(&top, format, &kept);
        assert!(second.bytes == first.bytes && again == kept);
        assert_eq!(second.read_len, 0);
        // One that is forgotten is read alone.
        let mut kept = kept;
        kept.retain(|(name, _), _| name != "a");
        let (third, _) = make_again(&top, format, &kept);
        assert!(third.bytes == first.bytes);
        assert_eq!(third.read_len, 100_000);
    }
}

#[test]
fn hashes_that_cannot_be_are_not_taken() {
    let folder = TempDir::new().unwrap();
    let top = folder.path().join("top");
    put(&folder, "top/a", 100_000);
    put(&folder, "top/b", 50_000);
    let (hybrid, kept) = make_again(&top, Format::Hybrid, &Kept::new());
    let (v2, _) = make_again(&top, Format::V2, &kept);
    assert_eq!(v2.read_len, 150_000, "made for another format");
    let mut short = kept;
    short.values_mut().for_each(|hashes| hashes.truncate(hashes.len() - 1));
    let (again, _) = make_again(&top, Format::Hybrid, &short);
    assert_eq!(again.read_len, 150_000, "of another length");
    assert!(again.bytes == hybrid.bytes);
    // Pieces of v1 alone cross the ends of files: nothing is known of them.
    let (v1, kept) = make_again(&top, Format::V1, &Kept::new());
    assert!(kept.is_empty());
    assert_eq!(v1.read_len, 150_000);
}

#[test]
fn whoever_is_told_to_stop_makes_nothing() {
    let folder = TempDir::new().unwrap();
    let path = put(&folder, "file", 3_000_000);
    let stop = AtomicBool::new(false);
    let options = Options {
        threads: NonZeroUsize::MIN,
        progress: &|_, _| stop.store(true, Ordering::Relaxed),
        takes: &|_| true,
        known: &|_| None,
        begun: &|_| vec![],
        hashed: &|_, _, _| {},
        stop: &stop,
    };
    let error = create_with(&path, Spec::default(), &options).err().unwrap();
    assert!(matches!(error, CreateError::Stopped(_)), "{error}");
}

#[test]
fn what_was_hashed_of_a_file_before_an_end_is_not_read_again() {
    let folder = TempDir::new().unwrap();
    let top = folder.path().join("top");
    for (name, len) in [("a", 30_000), ("b", 900_000), ("c", 5)] {
        put(&folder, &format!("top/{name}"), len);
    }
    let make = |begun: &dyn Fn(&FileState<'_>) -> Vec<(u32, PieceHash)>| {
        let told = Mutex::new(std::collections::BTreeMap::new());
        let options = Options {
            threads: NonZeroUsize::new(2).unwrap(),
            progress: &|_, _| {},
            takes: &|_| true,
            known: &|_| None,
            begun,
            hashed: &|state, first, hashes| {
                let name = state.path.file_name().unwrap().to_owned();
                for (index, hash) in (first..).zip(hashes) {
                    told.lock().unwrap().insert((name.clone(), index), *hash);
                }
            },
            stop: &AtomicBool::new(false),
        };
        let created = create_with(&top, spec(Format::Hybrid, 1 << 14), &options).unwrap();
        (created, told.into_inner().unwrap())
    };
    let (first, told) = make(&|_| vec![]);
    let begun = |state: &FileState<'_>| {
        let name = state.path.file_name().unwrap();
        let own = told.iter().filter(|((of, index), _)| of == name && index % 3 != 0);
        own.map(|((_, index), hash)| (*index, *hash)).collect()
    };
    let (second, rest) = make(&begun);
    assert!(second.bytes == first.bytes);
    assert!(rest.keys().all(|(_, index)| index % 3 == 0), "only the others are read");
    assert!(second.read_len < first.read_len / 2, "{}", second.read_len);
}
