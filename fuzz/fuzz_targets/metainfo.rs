//! Whatever is accepted is consistent: paths stay in the folder, and layout and geometry agree.
#![no_main]

use libfuzzer_sys::fuzz_target;
use torrent::metainfo::{By, Metainfo, Segment};

fuzz_target!(|input: &[u8]| {
    let Ok(metainfo) = Metainfo::decode(input) else {
        return;
    };
    let files = metainfo.layout().files();
    for part in files.iter().flat_map(|file| file.path().components()) {
        assert!(!matches!(part.as_str(), "" | "." | ".."));
        assert!(!part.contains(['/', '\0']));
    }
    let geometry = metainfo.geometry();
    let hashes = metainfo.piece_hashes();
    // A hostile torrent can claim a million pieces: the first and the last tell enough.
    let last = geometry.piece_count() - 1;
    for index in (0..=last.min(64)).chain([last]) {
        let Some(piece) = geometry.piece(index) else {
            panic!("piece {index} is missing");
        };
        let len = geometry.piece_data_len(piece);
        let mut covered = 0;
        for segment in metainfo.layout().segments(index, 0, len) {
            covered += match segment {
                Segment::File { file, offset, len } => {
                    assert!(offset + u64::from(len) <= files[file].len());
                    len
                }
                Segment::Padding { len } => len,
            };
        }
        assert_eq!(covered, len);
        for range in hashes.hash_requests(piece, By::Units) {
            let _ = hashes.answer(&range);
        }
    }
});
