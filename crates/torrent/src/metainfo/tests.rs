//! Metainfo made by [`create`], read back, and twisted in the ways of hostile ones.

mod hashes;

use proptest::prelude::*;

use super::create::{Content, CreateError, Draft, Format, NewFile, Spec};
use super::*;
use crate::bencode::Encoder;
use crate::merkle::{hash_blocks, root};

const FORMATS: [Format; 3] = [Format::Hybrid, Format::V1, Format::V2];

/// Bytes of a file's content, which depends on nothing but the length of its path.
fn bytes_of(file: &File, offset: u64, len: u32) -> impl Iterator<Item = u8> {
    let seed = file.path().to_string().len() as u64;
    (offset..offset + u64::from(len)).map(move |i| (i * 31 + i / 251 + seed) as u8)
}

/// The data of a piece, read through the layout.
fn piece_data(layout: &Layout, geometry: &Geometry, index: u32) -> Vec<u8> {
    let len = geometry.piece_data_len(geometry.piece(index).unwrap());
    let mut data = vec![];
    for segment in layout.segments(index, 0, len) {
        match segment {
            Segment::File { file, offset, len } => {
                data.extend(bytes_of(&layout.files()[file], offset, len));
            }
            Segment::Padding { len } => data.resize(data.len() + len as usize, 0),
        }
    }
    assert_eq!(data.len(), len as usize);
    data
}

fn make(content: Content, spec: Spec) -> Result<Vec<u8>, CreateError> {
    let draft = Draft::new("name", content, spec)?;
    let geometry = draft.geometry();
    let hashes: Vec<_> = (0..geometry.piece_count())
        .map(|index| {
            let data = piece_data(draft.layout(), geometry, index);
            draft.hash_piece(geometry.piece(index).unwrap(), &data)
        })
        .collect();
    draft.finish(&hashes)
}

fn spec(format: Format, piece_len: u32) -> Spec {
    Spec { format, piece_len: Some(piece_len), ..Spec::default() }
}

fn folder(files: &[(&str, u64)]) -> Content {
    let file = |&(path, len): &(&str, u64)| NewFile {
        path: path.split('/').map(str::to_owned).collect(),
        len,
        executable: path.ends_with(".sh"),
    };
    Content::Folder(files.iter().map(file).collect())
}

const FILE: fn(u64) -> Content = |len| Content::File { len, executable: false };

fn decoded(content: Content, format: Format, piece_len: u32) -> Metainfo {
    Metainfo::decode(&make(content, spec(format, piece_len)).unwrap()).unwrap()
}

/// Checks that every unit of a metainfo verifies with the right data only.
fn verify_all(metainfo: &Metainfo) {
    let geometry = metainfo.geometry();
    let mut hashes = metainfo.piece_hashes();
    for index in 0..geometry.piece_count() {
        let piece = geometry.piece(index).unwrap();
        let data = piece_data(metainfo.layout(), geometry, index);
        if hashes.has_v2() {
            let leaves = hash_blocks(&data);
            assert_eq!(hashes.learn_leaves(piece, &leaves), Check::Good);
            for unit in geometry.units_of(piece) {
                let start = geometry.unit_offset(unit) as usize;
                let end = start + geometry.unit_data_len(unit) as usize;
                let mut leaves = hash_blocks(data.get(start..end).unwrap_or_default());
                assert_eq!(hashes.verify_unit(unit, &leaves), Check::Good);
                if let Some(leaf) = leaves.last_mut() {
                    leaf[31] ^= 1;
                    assert_eq!(hashes.verify_unit(unit, &leaves), Check::Corrupt);
                }
            }
        }
        if let Some(v1) = &metainfo.v1 {
            // The padding that SHA-1 covers is not data in a hybrid.
            let mut padded = data.clone();
            if index + 1 < geometry.piece_count() {
                padded.resize(geometry.piece_len() as usize, 0);
            }
            let sha1: PieceSha1 = Sha1::digest(&padded).into();
            assert_eq!(v1.pieces[index as usize], sha1);
        }
    }
}

#[test]
fn a_web_seed_can_name_the_version() {
    let content = || folder(&[("a", 1), ("b", 2)]);
    for format in FORMATS {
        let web_seeds = vec![format!("http://w/{}/", create::INFOHASH)];
        let with = make(content(), Spec { format, web_seeds, ..Spec::default() }).unwrap();
        let with = Metainfo::decode(&with).unwrap();
        let infohash = with.info_hashes().last().unwrap();
        assert_eq!(with.web_seeds, [format!("http://w/{infohash}/")]);
        let plain = make(content(), Spec { format, ..Spec::default() }).unwrap();
        assert_eq!(Metainfo::decode(&plain).unwrap().info_hashes().last(), Some(infohash));
    }
}

#[test]
fn what_is_created_is_read_back() {
    let content = || folder(&[("b", 0), ("a/x.sh", 70_000), ("a.b", 16_384), ("a/w", 1)]);
    for format in FORMATS {
        let full = Spec {
            format,
            private: true,
            trackers: vec![
                vec!["http://a/announce".into(), "http://b".into()],
                vec!["udp://c:1".into()],
            ],
            web_seeds: vec!["http://w/".into()],
            comment: Some("c".into()),
            created_by: Some("b".into()),
            creation_date: Some(-1),
            piece_len: Some(32_768),
        };
        let metainfo = Metainfo::decode(&make(content(), full.clone()).unwrap()).unwrap();
        let names: Vec<_> = metainfo.layout.files().iter().map(|f| f.path().to_string()).collect();
        assert_eq!(names, ["name/a/w", "name/a/x.sh", "name/a.b", "name/b"]);
        assert!(metainfo.layout.files()[1].is_executable());
        assert!(!metainfo.layout.files()[0].is_executable());
        assert!(metainfo.is_private());
        assert_eq!(metainfo.trackers, full.trackers);
        assert_eq!(metainfo.web_seeds, full.web_seeds);
        assert_eq!((metainfo.comment(), metainfo.created_by()), (Some("c"), Some("b")));
        assert_eq!(metainfo.creation_date(), Some(-1));
        assert_eq!(metainfo.info_hash_v1().is_some(), format != Format::V2);
        assert_eq!(metainfo.info_hash_v2().is_some(), format != Format::V1);
        verify_all(&metainfo);
    }
}

#[test]
fn only_given_things_are_written() {
    let bytes = make(FILE(1), Spec::default()).unwrap();
    let value = bencode::decode(&bytes).unwrap();
    let keys: Vec<_> = value.as_dict().unwrap().iter().map(|(key, _)| key).collect();
    assert_eq!(keys, [&b"info"[..], b"piece layers"]);
}

#[test]
fn folder_of_one_file_is_not_that_file() {
    for format in [Format::Hybrid, Format::V1] {
        let metainfo = decoded(folder(&[("a", 1)]), format, 16_384);
        assert_eq!(metainfo.layout.files()[0].path().to_string(), "name/a");
    }
    assert_eq!(
        make(folder(&[("a", 1)]), spec(Format::V2, 16_384)),
        Err(CreateError::FolderOfOneFile("name".into()))
    );
    assert!(make(folder(&[("d/a", 1)]), spec(Format::V2, 16_384)).is_ok());
    assert_eq!(decoded(FILE(1), Format::V2, 16_384).layout.files()[0].path().to_string(), "name");
}

#[test]
fn what_would_not_be_read_is_not_created() {
    let refused = |content, spec| make(content, spec).is_err();
    assert!(refused(FILE(0), Spec::default()));
    assert!(refused(folder(&[]), Spec::default()));
    assert!(refused(folder(&[("a", 1), ("a/b", 1)]), Spec::default()));
    assert!(refused(folder(&[("a", 1), ("a", 1)]), Spec::default()));
    assert!(refused(folder(&[("../a", 1), ("b", 1)]), Spec::default()));
    assert!(refused(FILE(1), spec(Format::V1, 8_192)));
    assert!(refused(FILE(1), spec(Format::V1, 49_152)));
    let url = Spec { web_seeds: vec!["u".repeat(URL_LEN_MAX + 1)], ..Spec::default() };
    assert!(refused(FILE(1), url));
    assert!(Draft::new("..", FILE(1), Spec::default()).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn random_trees_survive_in_all_formats(
        tree in prop::collection::btree_map("[ab]{1,2}(/[a.b]{3}){0,2}", 0u64..90_000, 1..6),
        log_len in 14u32..17,
    ) {
        // A path within another is refused elsewhere.
        let mut files: Vec<(&str, u64)> = vec![];
        for (path, &len) in &tree {
            let clash = files.iter().any(|(other, _)| path.starts_with(&format!("{other}/")));
            let dots = path.split('/').any(|part| part == "..");
            if !clash && !dots {
                files.push((path, len));
            }
        }
        prop_assume!(files.iter().any(|file| file.1 > 0));
        files.push(("zz/one", 5));
        for format in FORMATS {
            let metainfo = decoded(folder(&files), format, 1 << log_len);
            let total: u64 = files.iter().map(|file| file.1).sum();
            prop_assert_eq!(metainfo.layout.data_len(), total);
            prop_assert_eq!(metainfo.geometry.data_len(), total);
            prop_assert_eq!(metainfo.layout.files().len(), files.len());
            verify_all(&metainfo);
        }
    }

    #[test]
    fn damaged_metainfo_is_refused_or_consistent(
        at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>(),
    ) {
        let content = folder(&[("a", 40_000), ("b/c", 20_000)]);
        let mut bytes = make(content, spec(Format::Hybrid, 16_384)).unwrap();
        let at = at.index(bytes.len());
        if cut { bytes.truncate(at) } else { bytes[at] = byte }
        if let Ok(metainfo) = Metainfo::decode(&bytes) {
            prop_assert!(metainfo.geometry.data_len() >= 1);
            let _ = metainfo.piece_hashes();
        }
    }
}

/// A metainfo whose info dictionary is written by hand (already encoded entries, keys sorted), and
/// what follows `info` on the top level.
fn by_hand(info: &[u8], after: &[u8]) -> Result<Metainfo, MetainfoError> {
    Metainfo::decode(&[b"d4:infod", info, b"e", after, b"e"].concat())
}

fn v1_info(middle: &str, piece_len: &str, hash_count: usize) -> Vec<u8> {
    let pieces = "h".repeat(20 * hash_count);
    format!("{middle}4:name1:n12:piece lengthi{piece_len}e6:pieces{}:{pieces}", pieces.len())
        .into_bytes()
}

#[track_caller]
fn refuse_v1(middle: &str, piece_len: &str, hash_count: usize, expect: &MetainfoError) {
    let got = by_hand(&v1_info(middle, piece_len, hash_count), b"");
    assert_eq!(got.as_ref().err(), Some(expect));
}

#[test]
fn hostile_v1_numbers_are_refused() {
    assert!(by_hand(&v1_info("6:lengthi40000e", "16384", 3), b"").is_ok());
    let count = |pieces, hashes| MetainfoError::PieceHashCount { pieces, hashes };
    refuse_v1("6:lengthi40000e", "16384", 2, &count(3, 2));
    refuse_v1("6:lengthi40000e", "16384", 4, &count(3, 4));
    refuse_v1("6:lengthi0e", "16384", 0, &MetainfoError::TotalLen);
    refuse_v1("6:lengthi-1e", "16384", 1, &MetainfoError::Malformed("length"));
    refuse_v1("", "16384", 1, &MetainfoError::Missing("length"));
    let max = i64::MAX.to_string();
    refuse_v1(&format!("6:lengthi{max}e"), "16384", 1, &MetainfoError::TotalLen);
    refuse_v1("6:lengthi1e", "0", 1, &MetainfoError::PieceLen(0));
    refuse_v1("6:lengthi1e", "-16384", 1, &MetainfoError::PieceLen(-16_384));
    refuse_v1("6:lengthi1e", &max, 1, &MetainfoError::PieceLen(i64::MAX));
    let too_many = crate::geometry::GeometryError::PieceCount(1 << 30);
    refuse_v1("6:lengthi1073741824e", "1", 1, &too_many.into());
    refuse_v1("5:filesle6:lengthi1e", "16384", 1, &MetainfoError::Malformed("length"));
    // Two lengths that only together are too much.
    let half = (1u64 << 45) + 1;
    let file = |name| format!("d6:lengthi{half}e4:pathl1:{name}ee");
    let files = format!("5:filesl{}{}e", file("a"), file("b"));
    refuse_v1(&files, "134217728", 1, &MetainfoError::TotalLen);
}

#[test]
fn hostile_v1_paths_are_refused() {
    #[track_caller]
    fn check(file: &str, path: &str, fault: PathFault) {
        let info = v1_info(&format!("5:filesl{file}e"), "16384", 1);
        let path = path.to_owned();
        assert_eq!(by_hand(&info, b""), Err(MetainfoError::Path { path, fault }));
    }
    check("d6:lengthi1e4:pathl2:..6:passwdee", "n/../passwd", PathFault::Dots);
    check("d6:lengthi1e4:pathl11:/etc/passwdee", "n//etc/passwd", PathFault::Separator);
    check("d6:lengthi1e4:pathl0:1:aee", "n//a", PathFault::Empty);
    check("d6:lengthi1e4:pathl3:a\0bee", "n/a\0b", PathFault::Nul);
    check("d4:attr1:l6:lengthi0e4:pathl1:ae12:symlink pathl1:bee", "n/a", PathFault::Symlink);
    check("d4:attr2:pl6:lengthi0e4:pathl1:aee", "n/a", PathFault::Symlink);
    let file = "d6:lengthi1e4:pathl1:aee";
    check(&[file, file].concat(), "n/a", PathFault::Taken);
    let within = "d6:lengthi1e4:pathl1:a1:bee";
    check(&[within, file].concat(), "n/a/b", PathFault::Taken);
    let deep = format!("d6:lengthi1e4:pathl{}ee", "1:a".repeat(32));
    check(&deep, &["n/", &["a"; 32].join("/")].concat(), PathFault::TooDeep);

    let name = |name: &str| {
        let info = String::from_utf8(v1_info("6:lengthi1e", "16384", 1)).unwrap();
        by_hand(info.replace("1:n", name).as_bytes(), b"")
    };
    assert!(name("1:m").is_ok());
    assert!(matches!(name("2:.."), Err(MetainfoError::Path { .. })));
    assert!(matches!(name("4:/etc"), Err(MetainfoError::Path { .. })));
}

#[test]
fn padding_needs_no_path_and_is_no_file() {
    let files = "5:filesld6:lengthi10e4:pathl1:aeed4:attr1:p6:lengthi90eed6:lengthi5e4:pathl1:beee";
    let metainfo = by_hand(&v1_info(files, "100", 2), b"").unwrap();
    assert_eq!(metainfo.layout.files().len(), 2);
    assert_eq!(metainfo.layout.files()[1].start(), 100);
    assert_eq!(metainfo.geometry.data_len(), 105);
    assert_eq!(metainfo.layout.data_len(), 15);
}

fn v2_info(tree: &[u8], version: &str) -> Vec<u8> {
    let rest = format!("12:meta versioni{version}e4:name1:n12:piece lengthi16384e");
    [b"9:file tree", tree, rest.as_bytes()].concat()
}

fn leaf(len: &str, root: &[u8; 32]) -> Vec<u8> {
    [b"d0:d6:length", len.as_bytes(), b"11:pieces root32:", root, b"ee"].concat()
}

#[test]
fn hostile_v2_trees_are_refused() {
    #[track_caller]
    fn check(tree: &[u8], expect: &MetainfoError) {
        assert_eq!(by_hand(&v2_info(tree, "2"), b"").as_ref().err(), Some(expect));
    }
    let leaf = leaf("i5e", &[7; 32]);
    let tree = |name: &str, entry: &[u8]| {
        [b"d", name.len().to_string().as_bytes(), b":", name.as_bytes(), entry, b"e"].concat()
    };
    let good = v2_info(&tree("n", &leaf), "2");
    assert!(by_hand(&good, b"").is_ok());
    assert_eq!(by_hand(&v2_info(&tree("n", &leaf), "3"), b""), Err(MetainfoError::Version(3)));
    let path = |path: &str, fault| MetainfoError::Path { path: path.into(), fault };
    let malformed = MetainfoError::Malformed("file tree");
    check(&tree("..", &leaf), &path("..", PathFault::Dots));
    check(&tree("a", &tree("..", &leaf)), &path("n/a/..", PathFault::Dots));
    check(&tree("a/b", &leaf), &path("a/b", PathFault::Separator));
    check(&leaf, &malformed);
    check(b"de", &MetainfoError::TotalLen);
    // A file that is a folder as well.
    check(b"d1:ad0:d6:lengthi0ee1:bd0:d6:lengthi0eeeee", &malformed);
    check(b"d1:ad0:d6:lengthi5eeee", &MetainfoError::Missing("pieces root"));
    check(b"d1:ad0:d4:attr1:l6:lengthi0eeee", &path("a", PathFault::Symlink));
    check(b"d1:ad0:d6:lengthi5e11:pieces root2:abeee", &MetainfoError::Malformed("pieces root"));
    let deep = (0..40).fold(leaf.clone(), |below, _| tree("a", &below));
    assert!(matches!(
        by_hand(&v2_info(&deep, "2"), b""),
        Err(MetainfoError::Path { fault: PathFault::TooDeep, .. })
    ));
    let odd = String::from_utf8(v2_info(b"de", "2")).unwrap().replace("16384", "49152");
    assert_eq!(by_hand(odd.as_bytes(), b""), Err(MetainfoError::PieceLen(49_152)));
}

#[test]
fn piece_layers_must_lead_to_the_root() {
    let hashes = [[1; 32], [2; 32], [3; 32]];
    let root = root(&hashes, 0, 2);
    let tree = [b"d1:n", leaf("i40000e", &root).as_slice(), b"e"].concat();
    let check = |layer: Option<&[u8]>| {
        let mut to = Encoder::new();
        to.dict(|dict| {
            if let Some(layer) = layer {
                dict.key(root).bytes(layer);
            }
        });
        let after = [&b"12:piece layers"[..], &to.finish()].concat();
        by_hand(&v2_info(&tree, "2"), &after).err()
    };
    let fault = |fault| Some(MetainfoError::Layer { path: "n".into(), fault });
    let right = hashes.as_flattened();
    assert_eq!(check(Some(right)), None);
    assert_eq!(check(None), fault(LayerFault::Missing));
    assert_eq!(check(Some(&right[..64])), fault(LayerFault::Len));
    assert_eq!(check(Some(&right[..95])), fault(LayerFault::Len));
    assert_eq!(check(Some(&[right, &[0; 32]].concat())), fault(LayerFault::Len));
    let mut wrong = right.to_vec();
    wrong[40] ^= 1;
    assert_eq!(check(Some(&wrong)), fault(LayerFault::Root));
    assert_eq!(by_hand(&v2_info(&tree, "2"), b"").err(), fault(LayerFault::Missing));
}

#[test]
fn hybrid_sides_must_agree() {
    let content = || folder(&[("a", 20_000), ("b", 20_000), ("c", 3)]);
    let good = make(content(), spec(Format::Hybrid, 16_384)).unwrap();
    let check = |from: &str, to: &str, expect: Option<&str>| {
        let at = good.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
        let twisted = [&good[..at], to.as_bytes(), &good[at + from.len()..]].concat();
        let expect = expect.map(|path| MetainfoError::Hybrid { path: path.into() });
        assert_eq!(Metainfo::decode(&twisted).err(), expect, "{from}");
    };
    let v1_a = "d6:lengthi20000e4:pathl1:aee";
    let v1_c = "d6:lengthi3e4:pathl1:cee";
    let pad = "d4:attr1:p6:lengthi12768e4:pathl4:.pad5:12768ee";
    check(v1_a, v1_a, None);
    check(v1_a, "d6:lengthi20000e4:pathl1:Aee", Some("name/A"));
    check(v1_a, "d6:lengthi19999e4:pathl1:aee", Some("name/a"));
    check(v1_a, "", Some("name/b"));
    check(v1_c, "", Some("name/c"));
    check(v1_c, &[v1_c, "d6:lengthi3e4:pathl1:dee"].concat(), Some("name/d"));
    check(pad, "", Some("name/b"));
    // Padding behind the last file is optional, up to the end of the piece.
    let tail = |len: u32| format!("{v1_c}d4:attr1:p6:lengthi{len}e4:pathl1:pee");
    check(v1_c, &tail(16_381), None);
    check(v1_c, &tail(16_382), Some("padding"));
}

#[test]
fn top_level_oddities_are_read_or_refused() {
    let info = v1_info("6:lengthi1e", "16384", 1);
    let with = |before: &str, after: &str| {
        let all = [b"d", before.as_bytes(), b"4:infod", &info, b"e", after.as_bytes(), b"e"];
        Metainfo::decode(&all.concat())
    };
    assert_eq!(with("", "8:url-list0:").unwrap().web_seeds(), [""; 0]);
    assert_eq!(with("", "8:url-list1:u").unwrap().web_seeds(), ["u"]);
    assert_eq!(with("", "8:url-listl1:u1:ve").unwrap().web_seeds(), ["u", "v"]);
    assert_eq!(with("", "8:url-listi1e"), Err(MetainfoError::Malformed("url-list")));
    // BEP 12: the list replaces `announce`, unless it is empty.
    let list = "8:announce1:a13:announce-list";
    assert_eq!(with(&format!("{list}ll1:bee"), "").unwrap().trackers(), [["b"]]);
    assert_eq!(with(&format!("{list}le"), "").unwrap().trackers(), [["a"]]);
    let many = format!("13:announce-listl{}e", "l1:be".repeat(URLS_MAX + 1));
    assert_eq!(with(&many, ""), Err(MetainfoError::TooManyUrls("announce-list")));
    assert_eq!(Metainfo::decode(b"de"), Err(MetainfoError::Missing("info")));
    assert_eq!(Metainfo::decode(b"le"), Err(MetainfoError::Malformed("metainfo")));
    assert!(matches!(Metainfo::decode(b"d4:info"), Err(MetainfoError::Bencode(_))));
    let long = vec![b'd'; METAINFO_LEN_MAX + 1];
    assert_eq!(Metainfo::decode(&long), Err(MetainfoError::TooLong(METAINFO_LEN_MAX + 1)));
}
