//! What other people's tools write is read, and agrees with the content (tests/fixtures/make.sh).
#![allow(clippy::unwrap_used)] // clippy does not see that these helpers belong to tests

use sha1::{Digest, Sha1};
use torrent::merkle;
use torrent::metainfo::{Check, Metainfo, Segment};

/// The content of a file of that length, as make.sh computes it.
fn content(len: u64) -> Vec<u8> {
    let byte = |i: u64| (i * 7 + i / 256 + len) as u8;
    (0..len).map(byte).collect()
}

/// Reads a range of a piece as storage would, padding included.
fn read(metainfo: &Metainfo, piece: u32, len: u32) -> Vec<u8> {
    let files = metainfo.layout().files();
    let read = |segment| match segment {
        Segment::File { file, offset, len } => {
            let from = offset as usize;
            content(files[file].len())[from..from + len as usize].to_vec()
        }
        Segment::Padding { len } => vec![0; len as usize],
    };
    metainfo.layout().segments(piece, 0, len).flat_map(read).collect()
}

fn verify_all(metainfo: &Metainfo) {
    let geometry = metainfo.geometry();
    let mut hashes = metainfo.piece_hashes();
    for index in 0..geometry.piece_count() {
        let piece = geometry.piece(index).unwrap();
        let data = read(metainfo, index, geometry.piece_data_len(piece));
        let mut corrupt = data.clone();
        corrupt[0] ^= 1;
        if !hashes.has_v2() {
            let check = |data: &[u8]| hashes.verify_piece_v1(piece, &Sha1::digest(data).into());
            assert_eq!(check(&data), Check::Good);
            assert_eq!(check(&corrupt), Check::Corrupt);
            continue;
        }
        // SHA-1 never counts where there is better.
        let sha1 = Sha1::digest(&data).into();
        assert_eq!(hashes.verify_piece_v1(piece, &sha1), Check::Unknown);
        let bad = merkle::hash_blocks(&corrupt);
        assert_eq!(hashes.learn_leaves(piece, &bad), Check::Corrupt);
        let leaves = merkle::hash_blocks(&data);
        assert_eq!(hashes.learn_leaves(piece, &leaves), Check::Good);
        for unit in geometry.units_of(piece) {
            let start = geometry.unit_offset(unit) as usize;
            let end = start + geometry.unit_data_len(unit) as usize;
            let leaves = merkle::hash_blocks(data.get(start..end).unwrap_or_default());
            assert_eq!(hashes.verify_unit(unit, &leaves), Check::Good);
        }
    }
}

/// Reads a fixture and checks files, infohashes and hashes; `hashes` are what libtorrent says.
#[track_caller]
fn check(fixture: &str, v1: &str, v2: &str) -> Metainfo {
    let path = format!("{}/tests/fixtures/{fixture}", env!("CARGO_MANIFEST_DIR"));
    let metainfo = Metainfo::decode(&std::fs::read(path).unwrap()).unwrap();
    let hash = |hash: Option<_>| {
        hash.map_or(String::new(), |hash: torrent::metainfo::InfoHash| hash.to_string())
    };
    assert_eq!(hash(metainfo.info_hash_v1()), v1);
    assert_eq!(hash(metainfo.info_hash_v2()), v2);
    let mut files: Vec<(String, u64)> = metainfo
        .layout()
        .files()
        .iter()
        .map(|file| (file.path().to_string(), file.len()))
        .collect();
    files.sort();
    let expect: &[(&str, u64)] = if fixture.contains("single") {
        &[("single.bin", 100_001)]
    } else {
        &[
            ("multi/a.bin", 40_000),
            ("multi/b.bin", 16_384),
            ("multi/empty", 0),
            ("multi/sub.d", 1),
            ("multi/sub/c.bin", 70_001),
        ]
    };
    // Transmission leaves empty files out.
    let left_out = |len: u64| len == 0 && fixture.starts_with("transmission");
    let expect = expect.iter().copied().filter(|&(_, len)| !left_out(len));
    assert!(files.iter().map(|(path, len)| (path.as_str(), *len)).eq(expect));
    assert_eq!(metainfo.geometry().piece_len(), 32_768);
    assert_eq!(metainfo.trackers()[0][0], "http://tracker.example/announce");
    verify_all(&metainfo);
    metainfo
}

#[test]
fn mktorrent_is_read() {
    check("mktorrent-single.torrent", "666254d21062030c18db070474c7b8c6612f424d", "");
    let metainfo = check("mktorrent-multi.torrent", "1e4f45e3e69cd388908bc26e2fe225e0dc12290f", "");
    assert!(metainfo.is_private());
    assert_eq!(metainfo.web_seeds(), ["http://seed.example/"]);
    assert_eq!(metainfo.trackers()[0].len(), 2);
    assert_eq!(metainfo.trackers()[1], ["udp://third.example:6969"]);
    assert_eq!(metainfo.created_by(), Some("mktorrent 1.1"));
    assert_eq!(metainfo.creation_date(), None);
}

#[test]
fn transmission_is_read() {
    check("transmission-single.torrent", "94ba98855e4e6ca7de5fbefaf7652d1609d4a475", "");
    let metainfo =
        check("transmission-multi.torrent", "999de56399c610fbe3217ffa16d419d87f9c569b", "");
    assert!(!metainfo.is_private());
    assert_eq!(metainfo.comment(), Some("made by Transmission"));
    assert!(metainfo.creation_date().is_some());
}

#[test]
fn libtorrent_v1_is_read() {
    check("libtorrent-v1-single.torrent", "9a39679bf4d34dbee23ca8d4caa1223784333af3", "");
    check("libtorrent-v1-multi.torrent", "4aa0e20f7b6408dfd5adf73519e830c3bb4fc4f5", "");
}

#[test]
fn libtorrent_v2_is_read() {
    check(
        "libtorrent-v2-single.torrent",
        "",
        "a7465c00840b751aec8e48aaad810524e828246bf2803c5c516ce2b4968878cb",
    );
    let metainfo = check(
        "libtorrent-v2-multi.torrent",
        "",
        "e0864da09ea39a01eacbb2e38b38e518925b79a694e300ae276eda71cf744336",
    );
    assert_eq!(metainfo.geometry().piece_count(), 7);
}

#[test]
fn libtorrent_hybrid_is_read() {
    check(
        "libtorrent-hybrid-single.torrent",
        "c058e165557f585aeddf8b533a0a316916d225fa",
        "bd110aadd03563b197d22f1482727f89b9f49ceaf1a46b8beffe86c85b8ae097",
    );
    let metainfo = check(
        "libtorrent-hybrid-multi.torrent",
        "0be195f6a5e7fea3da500a7e446195e9e130ad91",
        "6b24443eab50f1aaa8a10577e7e97664a969f084f0d5a9ea86043e4fa08c997c",
    );
    // libtorrent pads the last file too; that padding is not data.
    assert_eq!(metainfo.geometry().data_len(), 126_386);
}
