//! Sessions with one another over loopback, in one process.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::Receiver;

use torrent::metainfo::Metainfo;
use torrent::metainfo::create::{Format, Spec};
use torrent::wire;

use super::*;
use crate::create::create;
use crate::engine::Known;
use crate::storage::{Allocation, Layout, Storage};

const DEADLINE: Duration = Duration::from_secs(60);

/// Pieces of several units, the last of them short.
const LEN: usize = 3_000_001;

fn torrent(dir: &Path, format: Format) -> (Metainfo, Vec<u8>) {
    let data: Vec<u8> = (0..LEN).map(|at| (at / 7 % 251) as u8).collect();
    std::fs::write(dir.join("image"), &data).unwrap();
    let spec = Spec { format, piece_len: Some(128 << 10), ..Spec::default() };
    let bytes = create(&dir.join("image"), spec, NonZeroUsize::MIN, &|_, _| {}).unwrap();
    (Metainfo::decode(&bytes).unwrap(), data)
}

fn start(seed: u64) -> (Session, Receiver<(TorrentKey, SessionEvent)>) {
    let (sender, events) = channel();
    let config = SessionConfig {
        engine: EngineConfig {
            listen: ([127, 0, 0, 1], 0).into(),
            peer_id: wire::peer_id(seed),
            random_seed: seed,
            upload_limit: None,
            download_limit: None,
            pex: true,
            known: Known::default(),
        },
        lsd: false,
        user_agent: "test".to_owned(),
    };
    let tell = move |key, event| {
        let _ = sender.send((key, event));
    };
    (Session::start(config, tell).unwrap(), events)
}

fn open(metainfo: &Metainfo, place: &Place) -> Result<Prepared, SessionError> {
    let cancel = AtomicBool::new(false);
    Prepared::open(metainfo.clone(), place, NonZeroUsize::MIN, &cancel, &mut |_| {})
}

fn wait(
    events: &Receiver<(TorrentKey, SessionEvent)>,
    fits: impl Fn(&SessionEvent) -> bool,
) -> TorrentKey {
    loop {
        let (key, event) = events.recv_timeout(DEADLINE).unwrap();
        if fits(&event) {
            return key;
        }
    }
}

fn read(storage: &Storage) -> Vec<u8> {
    let mut data = vec![0; LEN];
    storage.read(0, &mut data).unwrap();
    data
}

#[test]
fn an_image_arrives_in_memory() {
    for format in [Format::Hybrid, Format::V1, Format::V2] {
        let temp = tempfile::tempdir().unwrap();
        let (metainfo, data) = torrent(temp.path(), format);
        let (mut seeds, _seed_events) = start(1);
        let seed = open(&metainfo, &Place::Seed(temp.path().to_owned())).unwrap();
        assert_eq!((seed.have_len(), seed.have().is_full()), (LEN as u64, true));
        seeds.add(seed, vec![]);
        let (mut gets, events) = start(2);
        let get = open(&metainfo, &Place::Memory).unwrap();
        assert_eq!(get.have_len(), 0);
        let storage = get.storage().clone();
        let key = gets.add(get, vec![seeds.addr()]);
        assert_eq!(wait(&events, |event| matches!(event, SessionEvent::Completed)), key);
        assert!(read(&storage) == data, "{format:?}");
    }
}

#[test]
fn a_torrent_that_is_removed_can_be_resumed() {
    let temp = tempfile::tempdir().unwrap();
    let (metainfo, _) = torrent(temp.path(), Format::Hybrid);
    let dir = temp.path().join("get");
    std::fs::create_dir(&dir).unwrap();
    let place = Place::Download(dir.clone(), Allocation::Sparse);
    let (mut session, events) = start(1);
    let first = session.add(open(&metainfo, &place).unwrap(), vec![]);
    assert_eq!(wait(&events, |event| matches!(event, SessionEvent::Progress(_))), first);
    session.remove(first);
    drop(session);
    let said = std::fs::read_to_string(dir.join(".image.boottorrent-resume")).unwrap();
    assert!(said.contains("\nclosed yes\n"), "{said}");
}

#[test]
fn a_seed_with_a_wrong_byte_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let (metainfo, mut data) = torrent(temp.path(), Format::V2);
    data[1_000_000] ^= 1;
    std::fs::write(temp.path().join("image"), data).unwrap();
    let refused = open(&metainfo, &Place::Seed(temp.path().to_owned())).unwrap_err();
    let path = temp.path().join("image");
    assert_eq!(
        refused.to_string(),
        format!(
            "{}: 1 of 23 pieces of torrent \"image\" are corrupt; restore the file, or repair it with `torrent get`",
            path.display()
        )
    );
}

#[test]
fn a_torrent_that_was_just_made_is_seeded_without_hashing_it_again() {
    let temp = tempfile::tempdir().unwrap();
    let (metainfo, data) = torrent(temp.path(), Format::Hybrid);
    let layout = Layout::try_from(&metainfo).unwrap();
    let storage = Arc::new(Storage::seed(temp.path(), layout).unwrap());
    let (mut seeds, _seed_events) = start(1);
    seeds.add(Prepared::hashed(metainfo.clone(), storage), vec![]);
    let (mut gets, events) = start(2);
    let get = open(&metainfo, &Place::Memory).unwrap();
    let storage = get.storage().clone();
    gets.add(get, vec![seeds.addr()]);
    wait(&events, |event| matches!(event, SessionEvent::Completed));
    assert!(read(&storage) == data);
}

#[test]
fn a_seed_whose_file_changes_fails() {
    let temp = tempfile::tempdir().unwrap();
    let (metainfo, _) = torrent(temp.path(), Format::Hybrid);
    let (mut seeds, seed_events) = start(1);
    let key = seeds.add(open(&metainfo, &Place::Seed(temp.path().to_owned())).unwrap(), vec![]);
    let file = std::fs::File::options().write(true).open(temp.path().join("image")).unwrap();
    file.set_len(10).unwrap();
    let (mut gets, _events) = start(2);
    gets.add(open(&metainfo, &Place::Memory).unwrap(), vec![seeds.addr()]);
    let failed =
        |event: &SessionEvent| matches!(event, SessionEvent::Failed(StorageError::Changed { .. }));
    assert_eq!(wait(&seed_events, failed), key);
}
