use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::lab::test_lab::TestLab;

fn publish(publisher: &mut Publisher) -> (Outcome, u64) {
    let read = AtomicU64::new(0);
    let outcome = publisher.refresh(&|hashing| {
        read.fetch_max(hashing.total, Ordering::Relaxed);
    });
    (outcome.unwrap(), read.into_inner())
}

fn publisher(lab: &TestLab) -> Publisher {
    Publisher::new(lab.dir()).unwrap()
}

#[test]
fn nodes_can_open_what_is_published() {
    let lab = TestLab::new();
    let mut publisher = publisher(&lab);
    let (Outcome { publication, is_new, .. }, _) = publish(&mut publisher);
    assert!(is_new);
    let signature = publication.signature.parse().unwrap();
    let key = publisher.key().public();
    let manifest = boot::Manifest::open(&publication.manifest_bytes, &signature, &key).unwrap();
    assert_eq!(manifest, publication.manifest);
    let image = &manifest.images[0];
    assert_eq!((image.title.as_str(), image.len), ("The debian", 170_000));
    let metainfo = Metainfo::decode(&publication.torrents[0].1).unwrap();
    assert_eq!(metainfo.info_hash_v2().unwrap().as_bytes(), image.infohash);
    let paths: Vec<String> =
        metainfo.layout().files().iter().map(|f| f.path().components().join("/")).collect();
    assert_eq!(paths, ["debian/initrd.img", "debian/vmlinuz"]);
    let text = String::from_utf8_lossy(&publication.torrents[0].1).into_owned();
    for url in
        ["http://127.0.0.1:10001/announce", "udp://127.0.0.1:10001/announce", ":8080/versions/"]
    {
        assert!(text.contains(url), "{url}");
    }
}

#[test]
fn other_web_servers_are_named_with_the_version() {
    let lab = TestLab::new();
    lab.put(
        "Boottorrent.yaml",
        "version: 1\nserver: {interface: lo, address: 127.0.0.1}\ndhcp: {mode: off}\nswarm:\n  \
         web_seeds: [http://10.0.0.9/oss/, 'http://10.0.0.8/versions/{infohash}/']\n",
    );
    let (outcome, _) = publish(&mut publisher(&lab));
    let (bytes, image) =
        (&outcome.publication.torrents[0].1, &outcome.publication.manifest.images[0]);
    let metainfo = Metainfo::decode(bytes).unwrap();
    let version = boot::hex::encode(&image.infohash);
    let expect =
        ["http://10.0.0.9/oss/".to_owned(), format!("http://10.0.0.8/versions/{version}/")];
    assert_eq!(metainfo.web_seeds()[1..], expect);
}

#[test]
fn the_archive_and_the_out_folder_have_all_of_it() {
    let lab = TestLab::new();
    let (outcome, _) = publish(&mut publisher(&lab));
    let publication = outcome.publication;
    let has = |bytes: &[u8]| publication.archive.windows(bytes.len()).any(|part| part == bytes);
    for path in ["manifest.json", "manifest.sig", "torrents/debian.torrent"] {
        assert!(has(format!("boottorrent/{path}\0").as_bytes()), "{path}");
    }
    assert!(has(&publication.manifest_bytes) && has(&publication.torrents[0].1));
    assert!(has(publication.signature.as_bytes()));
    let out = |path: &str| fs::read(lab.path("out").join(path)).unwrap();
    assert_eq!(out("lab.cpio"), publication.archive);
    assert_eq!(out("manifest.json"), publication.manifest_bytes);
    assert_eq!(out("torrents/debian.torrent"), publication.torrents[0].1);
}

#[test]
fn a_restart_reads_no_file_again() {
    let lab = TestLab::new();
    let (first, read) = publish(&mut publisher(&lab));
    assert_eq!(read, 170_000);
    let (second, read) = publish(&mut publisher(&lab));
    assert_eq!(read, 0);
    assert_eq!(second.publication.torrents, first.publication.torrents);
    assert_eq!(second.publication, first.publication, "nodes need not hear of a restart");
}

#[test]
fn only_what_was_changed_is_read_again() {
    let lab = TestLab::new();
    let mut publisher = publisher(&lab);
    let (first, _) = publish(&mut publisher);
    lab.put("oss/debian/initrd.img", &"j".repeat(70_000));
    let (second, read) = publish(&mut publisher);
    assert_eq!(read, 70_000);
    assert!(second.is_new);
    let infohash = |outcome: &Outcome| outcome.publication.manifest.images[0].infohash;
    assert_ne!(infohash(&first), infohash(&second));
    // A file that was changed only just now could change again without showing it.
    fs::write(lab.path("oss/debian/initrd.img"), "k".repeat(70_000)).unwrap();
    publish(&mut publisher);
    let (again, read) = publish(&mut publisher);
    assert_eq!((again.is_new, read), (false, 70_000));
}

#[test]
fn another_title_is_no_other_image() {
    let lab = TestLab::new();
    let mut publisher = publisher(&lab);
    let (first, _) = publish(&mut publisher);
    let config = fs::read_to_string(lab.path("oss/debian/config.yaml")).unwrap();
    lab.put("oss/debian/config.yaml", &config.replace("The debian", "Debian 12"));
    lab.put("oss/debian/.config.yaml.swp", "an editor's");
    lab.put("oss/debian/config.yaml~", "an editor's");
    let (second, read) = publish(&mut publisher);
    assert_eq!((second.is_new, read), (true, 0));
    let [first, second] = [first, second].map(|outcome| outcome.publication);
    assert_eq!(second.manifest.images[0].title, "Debian 12");
    assert_eq!(second.torrents, first.torrents);
    assert!(second.manifest.serial > first.manifest.serial);
}

#[test]
fn without_a_change_nothing_is_published() {
    let lab = TestLab::new();
    let mut publisher = publisher(&lab);
    let (first, _) = publish(&mut publisher);
    let (second, _) = publish(&mut publisher);
    assert!(!second.is_new);
    assert!(Arc::ptr_eq(&first.publication, &second.publication));
}

#[test]
fn files_that_were_touched_are_opened_anew() {
    let lab = TestLab::new();
    let mut publisher = publisher(&lab);
    let (first, _) = publish(&mut publisher);
    lab.put("oss/debian/vmlinuz", &"k".repeat(100_000));
    let (second, _) = publish(&mut publisher);
    assert!(second.is_new);
    assert_eq!(second.publication, first.publication);
    assert!(!publish(&mut publisher).0.is_new);
}

#[test]
fn a_lab_can_be_moved_and_forgets_images_that_are_gone() {
    let lab = TestLab::new();
    lab.put_image("arch");
    let server = fs::read_to_string(lab.path("Boottorrent.yaml")).unwrap();
    lab.put("Boottorrent.yaml", &format!("{server}boot: {{default: debian}}\n"));
    publish(&mut publisher(&lab));
    let home = tempfile::tempdir().unwrap();
    let moved = home.path().join("moved");
    fs::rename(lab.dir(), &moved).unwrap();
    let (_, read) = publish(&mut Publisher::new(&moved).unwrap());
    assert_eq!(read, 0);
    let kept = |hashes: &Hashes| hashes.paths();
    assert_eq!(kept(&Hashes::open(&moved).unwrap()).len(), 4);
    fs::remove_dir_all(moved.join("oss/arch")).unwrap();
    publish(&mut Publisher::new(&moved).unwrap());
    let paths = kept(&Hashes::open(&moved).unwrap());
    assert_eq!(paths, ["oss/debian/initrd.img", "oss/debian/vmlinuz"]);
}

#[test]
fn images_come_and_go() {
    let lab = TestLab::new();
    let mut publisher = publisher(&lab);
    publish(&mut publisher);
    lab.put_image("arch");
    let error = publisher.refresh(&|_| {}).unwrap_err().to_string();
    assert!(error.contains("choose one of arch, debian"), "{error}");
    let server = fs::read_to_string(lab.path("Boottorrent.yaml")).unwrap();
    lab.put("Boottorrent.yaml", &format!("{server}boot: {{default: arch}}\n"));
    let (outcome, _) = publish(&mut publisher);
    assert_eq!(outcome.publication.manifest.images.len(), 2);
    assert!(lab.path("out/torrents/arch.torrent").exists());
    fs::remove_dir_all(lab.path("oss/debian")).unwrap();
    let (outcome, _) = publish(&mut publisher);
    assert_eq!(outcome.publication.manifest.images.len(), 1);
    assert!(!lab.path("out/torrents/debian.torrent").exists());
}

#[test]
fn what_sockets_are_made_of_waits_for_a_restart() {
    let lab = TestLab::new();
    let mut publisher = publisher(&lab);
    publish(&mut publisher);
    let text = "version: 1\nserver: {interface: lo, address: 127.0.0.2}\ndhcp: {mode: off}\n\
                http: {port: 8081}\nboot: {timeout: 5s}\n";
    lab.put("Boottorrent.yaml", text);
    let (outcome, _) = publish(&mut publisher);
    assert_eq!(outcome.waits, ["server", "http"]);
    let publication = outcome.publication;
    assert_eq!(publication.settings.http.port, 8080);
    assert_eq!(publication.manifest.menu.timeout_s, Some(5));
    let text = String::from_utf8_lossy(&publication.torrents[0].1).into_owned();
    assert!(text.contains("http://127.0.0.1:8080/versions/"));
}

#[test]
fn nodes_get_what_is_decided_for_them() {
    let lab = TestLab::new();
    lab.put(
        "nodes.yaml",
        "groups: {a: {image: debian}}
nodes:
  one: {mac: 525400000001, group: a, cmdline: debug}
  two: {mac: 525400000002, cmdline: quiet}
  three: {mac: 525400000003}
",
    );
    let (outcome, _) = publish(&mut publisher(&lab));
    let manifest = &outcome.publication.manifest;
    let shown: Vec<String> = manifest
        .assignments
        .iter()
        .map(|a| format!("{} {} {}", a.mac, a.image, a.cmdline))
        .collect();
    assert_eq!(shown, ["52:54:00:00:00:01 debian debug", "52:54:00:00:00:02 debian quiet"]);
}

#[test]
fn what_cannot_be_in_a_torrent_is_named() {
    let lab = TestLab::new();
    std::os::unix::fs::symlink("/etc/passwd", lab.path("oss/debian/link")).unwrap();
    fs::create_dir(lab.path("oss/debian/empty")).unwrap();
    let path = lab.path("oss/debian/pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o644.into(), 0)
        .unwrap();
    std::os::unix::fs::symlink(lab.path("oss/debian"), lab.path("oss/other")).unwrap();
    fs::create_dir(lab.path("oss/none")).unwrap();
    let error = publisher(&lab).refresh(&|_| {}).unwrap_err().to_string();
    for part in [
        "oss/debian/link: is a symbolic link",
        "oss/debian/empty: is an empty folder",
        "oss/debian/pipe: is a named pipe",
        "oss/other: is a symbolic link",
        "oss/none: there is nothing to boot in it",
        "oss/none/config.yaml: is missing",
    ] {
        assert!(error.contains(part), "{part:?} is not in {error}");
    }
}

#[test]
fn an_image_that_is_elsewhere_has_no_torrent() {
    let lab = TestLab::new();
    lab.put("oss/nfs/config.yaml", "dispname: N\nmethod: nfs\nroot: 10.0.0.1:/srv\n");
    lab.put(
        "Boottorrent.yaml",
        "version: 1\nserver: {interface: lo, address: 127.0.0.1}\ndhcp: {mode: off}\n\
         boot: {default: debian}\n",
    );
    let published = publisher(&lab).refresh(&|_| {}).unwrap().publication;
    let image = published.manifest.image(&"nfs".parse().unwrap()).unwrap();
    assert_eq!((image.len, image.infohash), (0, [0; 32]));
    let torrents: Vec<&str> = published.torrents.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(torrents, ["debian"]);
}

#[test]
fn each_kernel_that_an_image_is_for_has_a_phase_1() {
    use crate::lab::phase1s::{Phase1Files, Shelf};
    let lab = TestLab::new();
    lab.put(
        "oss/debian/config.yaml",
        "dispname: D\nmethod: livenet\nrootfs: vmlinuz\nkernel_version: 6.12\n",
    );
    let build =
        |_: &Settings, version: &boot::KernelVersion| Ok(Phase1Files::for_tests(version.as_str()));
    let own = Some(Phase1Files::for_tests("6.1"));
    let mut publisher = publisher(&lab).with_phase1(Shelf::new(own, Box::new(build)));
    let published = publisher.refresh(&|_| {}).unwrap().publication;
    let versions: Vec<&str> =
        published.manifest.phase1.iter().map(|phase1| phase1.version.as_str()).collect();
    assert_eq!(versions, ["6.1", "6.12"]);
    assert!(!publisher.refresh(&|_| {}).unwrap().is_new);
    let mut without = self::publisher(&lab);
    let error = without.refresh(&|_| {}).unwrap_err().to_string();
    assert!(error.contains("no phase 1 for the kernel 6.12"), "{error}");
}

#[test]
fn what_an_image_was_made_of_is_not_part_of_it() {
    let lab = TestLab::new();
    let len =
        |lab: &TestLab| publisher(lab).refresh(&|_| {}).unwrap().publication.manifest.images[0].len;
    let before = len(&lab);
    lab.put("oss/debian/image_data.yml", "debian: {}\n");
    lab.put("oss/debian/boot.ipxe", "#!ipxe\n");
    assert_eq!(len(&lab), before);
}

#[test]
fn a_lab_is_where_its_file_is() {
    let lab = TestLab::new();
    let error = Lab::open(&lab.path("oss")).unwrap_err().to_string();
    assert!(error.contains("are you in the right directory?"), "{error}");
    let error = Lab::open(&lab.path("nowhere")).unwrap_err().to_string();
    assert!(error.contains("are you in the right directory?"), "{error}");
}

#[test]
fn out_has_what_is_published_and_nothing_else() {
    let lab = TestLab::new();
    lab.put("out/old/file", "old");
    lab.put("out/phase1/vmlinuz", "k");
    publish(&mut publisher(&lab));
    assert!(!lab.path("out/old").exists());
    assert!(lab.path("out/phase1/vmlinuz").exists() && lab.path("oss/debian/vmlinuz").exists());
}

#[test]
fn a_start_that_comes_to_nothing_leaves_out_as_it_was() {
    let lab = TestLab::new();
    publish(&mut publisher(&lab));
    let before = fs::read(lab.path("out/manifest.json")).unwrap();
    fs::remove_file(lab.path("oss/debian/vmlinuz")).unwrap();
    publisher(&lab).refresh(&|_| {}).unwrap_err();
    assert_eq!(fs::read(lab.path("out/manifest.json")).unwrap(), before);
}

#[test]
fn an_unchanged_lab_needs_no_disk_to_be_published() {
    let lab = TestLab::new();
    let (first, _) = publish(&mut publisher(&lab));
    // Neither a number can be drawn nor anything written.
    let out = lab.path("out");
    let mut broken = publisher(&lab);
    broken.serials = Serials::unusable_for_tests(lab.dir());
    let again = broken.refresh(&|_| {}).unwrap();
    assert_eq!(again.publication, first.publication);
    assert!(out.join("manifest.json").exists());
    // A folder that takes no file, whoever writes.
    fs::remove_dir_all(out.join("torrents")).unwrap();
    fs::write(out.join("torrents"), "in the way").unwrap();
    let mut broken = publisher(&lab);
    assert_eq!(broken.refresh(&|_| {}).unwrap().publication, first.publication);
    broken.serials = Serials::unusable_for_tests(lab.dir());
    lab.put("nodes.yaml", "nodes: {c001: {mac: 525400000001, image: debian}}\n");
    let error = broken.refresh(&|_| {}).unwrap_err();
    assert!(matches!(error, PublishError::Serial(_)), "{error}");
}

#[test]
fn the_serial_goes_on_from_out_if_the_state_was_damaged() {
    let lab = TestLab::new();
    let (first, _) = publish(&mut publisher(&lab));
    let mut serials = Serials::open(lab.dir()).unwrap();
    // A clock that was ahead: so far no clock of today gets.
    serials.was_given(first.publication.manifest.serial + 1_000_000);
    serials.next(SystemTime::UNIX_EPOCH).unwrap();
    drop(serials);
    lab.put("nodes.yaml", "nodes: {c001: {mac: 525400000001, image: debian}}\n");
    let (second, _) = publish(&mut publisher(&lab));
    fs::write(lab.path("state/state.db"), "no database at all, and long enough to tell").unwrap();
    let _ = fs::remove_file(lab.path("state/state.db-wal"));
    lab.put("nodes.yaml", "nodes: {c001: {mac: 525400000002, image: debian}}\n");
    let (third, _) = publish(&mut publisher(&lab));
    let serial = |outcome: &Outcome| outcome.publication.manifest.serial;
    assert!(serial(&third) > serial(&second), "{} {}", serial(&third), serial(&second));
}

#[test]
fn settings_of_this_server_alone_draw_no_number() {
    let lab = TestLab::new();
    let mut publisher = publisher(&lab);
    let (first, _) = publish(&mut publisher);
    let server = fs::read_to_string(lab.path("Boottorrent.yaml")).unwrap();
    lab.put(
        "Boottorrent.yaml",
        &format!("{server}dashboard: {{access: localhost}}\nhistory: {{keep: 1d}}\n"),
    );
    let (second, _) = publish(&mut publisher);
    assert!(second.is_new, "they are in force");
    assert_ne!(second.publication.settings.history, first.publication.settings.history);
    assert_eq!(second.publication.manifest, first.publication.manifest);
}

#[test]
fn hashes_of_one_folder_leave_those_of_its_neighbours() {
    // `debian` is the beginning of `debian-12`, and '-' comes before '/'.
    let lab = TestLab::new();
    lab.put_image("debian-12");
    let server = fs::read_to_string(lab.path("Boottorrent.yaml")).unwrap();
    lab.put("Boottorrent.yaml", &format!("{server}boot: {{default: debian}}\n"));
    publish(&mut publisher(&lab));
    lab.put("oss/debian/vmlinuz", &"x".repeat(100_000));
    let seen = std::sync::Mutex::new(vec![]);
    publisher(&lab)
        .refresh(&|hashing| {
            if hashing.done == hashing.total {
                seen.lock().unwrap().push((hashing.image.to_string(), hashing.total));
            }
        })
        .unwrap();
    assert_eq!(seen.into_inner().unwrap(), [("debian".to_owned(), 100_000)]);
    let (_, bytes) = publish(&mut publisher(&lab));
    assert_eq!(bytes, 0);
}
