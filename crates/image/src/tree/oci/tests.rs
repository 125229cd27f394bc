use std::collections::BTreeMap;
use std::io::Write as _;

use super::*;
use crate::command::tests::with_work;
use crate::tree::root::Tree;

/// A layer: each path with its text, a folder if that is `/`, a link if it begins with `->`.
fn layer(entries: &[(&str, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(vec![]);
    for (path, text) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o755);
        header.set_uid(rustix::process::getuid().as_raw().into());
        header.set_gid(rustix::process::getgid().as_raw().into());
        header.set_size(0);
        let name = &mut header.as_old_mut().name;
        // As it is: the builder itself would refuse a path that leads out.
        name[..path.len()].copy_from_slice(path.as_bytes());
        if *text == "/" {
            header.set_entry_type(tar::EntryType::Directory);
        } else if let Some(to) = text.strip_prefix("->") {
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_link_name(to).unwrap();
        } else {
            header.set_size(text.len() as u64);
        }
        header.set_cksum();
        let text = if header.size().unwrap() == 0 { "" } else { text };
        builder.append(&header, text.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Writes a blob; its descriptor.
fn blob(layout: &Path, bytes: &[u8]) -> serde_json::Value {
    let digest = boot::hex::encode(&Sha256::digest(bytes));
    fs::create_dir_all(layout.join("blobs/sha256")).unwrap();
    fs::write(layout.join("blobs/sha256").join(&digest), bytes).unwrap();
    serde_json::json!({"digest": format!("sha256:{digest}"), "size": bytes.len()})
}

/// An OCI layout of these layers.
fn layout(dir: &Path, layers: &[Vec<u8>]) {
    let layers: Vec<_> = layers.iter().map(|layer| blob(dir, layer)).collect();
    let manifest = serde_json::json!({"schemaVersion": 2, "layers": layers});
    let manifest = blob(dir, manifest.to_string().as_bytes());
    let mut foreign = manifest.clone();
    foreign["platform"] = serde_json::json!({"os": "plan9", "architecture": "mips"});
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [foreign, manifest]});
    fs::write(dir.join("index.json"), index.to_string()).unwrap();
}

/// All files of a tree with their texts.
fn files(tree: &Path) -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    let mut left = vec![tree.to_owned()];
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(tree).unwrap().to_str().unwrap().to_owned();
            match fs::symlink_metadata(&path).unwrap().file_type() {
                it if it.is_dir() => left.push(path),
                it if it.is_symlink() => drop(files.insert(name, "->".to_owned())),
                _ => drop(files.insert(name, fs::read_to_string(path).unwrap())),
            }
        }
    }
    files
}

/// What becomes of these layers.
fn unpacked(layers: &[Vec<u8>]) -> Result<BTreeMap<String, String>, ImageError> {
    let dir = tempfile::tempdir().unwrap();
    let (source, tree) = (dir.path().join("source"), dir.path().join("tree"));
    layout(&source, layers);
    with_work(|work| unpack(&source, &Tree::new(&tree), work))?;
    Ok(files(&tree))
}

fn expect(files: &[(&str, &str)]) -> BTreeMap<String, String> {
    files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect()
}

#[test]
fn upper_layers_cover_lower_ones() {
    let lower = layer(&[("./", "/"), ("etc/", "/"), ("etc/a", "1"), ("etc/b", "1")]);
    let upper = gzip(&layer(&[("./etc/b", "2"), ("c", "2")]));
    let files = unpacked(&[lower, upper]).unwrap();
    assert_eq!(files, expect(&[("etc/a", "1"), ("etc/b", "2"), ("c", "2")]));
}

#[test]
fn whiteouts_take_away_what_lower_layers_have() {
    let lower = layer(&[("d/", "/"), ("d/a", "1"), ("d/b", "1"), ("e/", "/"), ("e/a", "1")]);
    // The opaque mark stands behind what its own layer adds, and must not take that away.
    let upper = layer(&[("d/.wh.a", "x"), ("e/new", "2"), ("e/.wh..wh..opq", "x")]);
    let files = unpacked(&[lower, upper]).unwrap();
    assert_eq!(files, expect(&[("d/b", "1"), ("e/new", "2")]));
}

#[test]
fn a_file_may_become_a_folder_and_a_folder_a_file() {
    let lower = layer(&[("a", "1"), ("b/", "/"), ("b/x", "1")]);
    let upper = layer(&[("a/", "/"), ("a/y", "2"), ("b", "2")]);
    let files = unpacked(&[lower, upper]).unwrap();
    assert_eq!(files, expect(&[("a/y", "2"), ("b", "2")]));
}

#[test]
fn no_path_or_link_leads_out_of_the_tree() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("kept"), "mine").unwrap();
    let link = format!("->{}", outside.path().display());
    let check = |layers: &[Vec<u8>]| {
        // Refused, or kept within: both are good. What is outside must be as it was.
        let _ = unpacked(layers);
        assert_eq!(files(outside.path()), expect(&[("kept", "mine")]));
    };
    check(&[layer(&[("../../evil", "x")])]);
    check(&[layer(&[("out", &link)]), layer(&[("out/evil", "x")])]);
    check(&[layer(&[("out", &link)]), layer(&[("out/.wh.kept", "x")])]);
    check(&[layer(&[("out", &link)]), layer(&[("out/.wh..wh..opq", "x")])]);
    check(&[layer(&[("x/.wh...", "x")])]);
}

#[test]
fn a_damaged_layer_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    layout(dir.path(), &[layer(&[("a", "1")])]);
    let digest = boot::hex::encode(&Sha256::digest(layer(&[("a", "1")])));
    fs::write(dir.path().join("blobs/sha256").join(digest), layer(&[("a", "2")])).unwrap();
    let tree = dir.path().join("tree");
    let error =
        with_work(|work| unpack(dir.path(), &Tree::new(&tree), work)).unwrap_err().to_string();
    assert!(error.contains("is damaged"), "{error}");
}

#[test]
fn what_docker_save_writes_is_read_from_its_archive() {
    let dir = tempfile::tempdir().unwrap();
    let inner = layer(&[("a", "1")]);
    let manifest = r#"[{"Config":"c.json","RepoTags":["x:1"],"Layers":["abc/layer.tar"]}]"#;
    let mut builder = tar::Builder::new(vec![]);
    for (path, bytes) in [("manifest.json", manifest.as_bytes()), ("abc/layer.tar", &inner)] {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, path, bytes).unwrap();
    }
    let file = dir.path().join("saved.tar.gz");
    fs::write(&file, gzip(&builder.into_inner().unwrap())).unwrap();
    let tree = dir.path().join("tree");
    with_work(|work| unpack(&file, &Tree::new(&tree), work)).unwrap();
    assert_eq!(files(&tree), expect(&[("a", "1")]));
}

#[test]
fn what_is_no_container_image_is_said_so() {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    let error =
        with_work(|work| unpack(dir.path(), &Tree::new(&tree), work)).unwrap_err().to_string();
    assert!(error.contains("neither index.json nor manifest.json"), "{error}");
}
