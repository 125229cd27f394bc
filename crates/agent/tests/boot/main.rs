//! The agent's own program against a small server on the loopback interface: the whole sequence but
//! mounts, network and the kexec itself.
//!
//! Everything waits for lines or reports with a deadline that only a failing test reaches.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking, in their helpers too")]

mod lab;
mod server;
mod started;

use boot::{Failure, LabKey, Loader, Stage};

use lab::{Lab, bytes};
use started::Started;

/// Kernel and initrds whose lengths are not multiples of anything.
const FILES: &[(&str, usize)] = &[("vmlinuz", 700_001), ("a.img", 50_001), ("boot/b.img", 300_002)];

fn kexec() -> Loader {
    Loader::Kexec {
        kernel: "vmlinuz".parse().unwrap(),
        initrds: vec!["a.img".parse().unwrap(), "boot/b.img".parse().unwrap()],
        cmdline: "quiet".to_owned(),
    }
}

/// A lab with one image, which the manifest on the server offers.
fn lab() -> Lab {
    let mut lab = Lab::new();
    lab.add_image("debian", FILES, kexec());
    lab.publish();
    lab
}

/// What is handed to the kernel is byte for byte what the lab has.
fn assert_loaded(lab: &Lab) {
    let read = |name: &str| std::fs::read(lab.saved().join(name)).unwrap();
    assert!(read("kernel") == bytes("vmlinuz", 700_001));
    let mut initrd = bytes("a.img", 50_001);
    initrd.extend([0; 3]);
    initrd.extend(bytes("boot/b.img", 300_002));
    assert!(read("initrd") == initrd, "the second archive begins where four divides");
    assert_eq!(read("cmdline"), b"quiet");
}

/// The node says `failure` on its console and to the server, and boots once `repair` is done.
fn check_refusal(lab: &mut Lab, failure: Failure, repair: impl FnOnce(&mut Lab)) {
    let mut agent = Started::new(lab, &[]);
    let mark = format!("BOOTTORRENT failed code={}", failure.code());
    agent.wait_for(&mark);
    lab.server.wait_for_report(
        |report| matches!(&report.stage, Stage::Failed { failure: said, .. } if *said == failure),
    );
    assert!(!lab.saved().join("kernel").exists(), "something was loaded");
    repair(lab);
    agent.wait_for("BOOTTORRENT stage=loading");
    assert!(agent.ends_well());
    assert_loaded(lab);
}

#[test]
fn a_node_without_peers_boots_by_http_and_tells_every_stage() {
    let lab = lab();
    let mut agent = Started::new(&lab, &[]);
    for stage in ["agent", "manifest", "downloading", "verified", "loading"] {
        agent.wait_for(&format!("BOOTTORRENT stage={stage}"));
    }
    assert!(agent.ends_well());
    assert_loaded(&lab);
    let reports = lab.server.reports();
    let machine = reports.iter().find_map(|report| report.machine.as_ref()).unwrap();
    assert!(machine.memory_bytes > 0 && !machine.kernel.is_empty());
    assert!(reports.iter().all(|report| report.node == lab.node()));
    assert!(reports.windows(2).all(|pair| pair[0].sequence < pair[1].sequence));
    assert_eq!(reports.last().unwrap().stage.name(), "loading");
}

#[test]
fn a_node_boots_from_peers_when_the_server_has_no_files() {
    let mut lab = Lab::new();
    lab.add_image("debian", FILES, kexec());
    lab.server.remove("/images/");
    lab.publish();
    let _seed = lab.seed("debian");
    let mut agent = Started::new(&lab, &[]);
    assert!(agent.ends_well());
    assert_loaded(&lab);
}

#[test]
fn a_node_boots_with_what_its_boot_program_brought() {
    let lab = lab();
    lab.move_to_initramfs();
    let mut agent = Started::new(&lab, &[]);
    assert!(agent.ends_well());
    assert_loaded(&lab);
}

#[test]
fn an_altered_manifest_is_refused_until_it_is_repaired() {
    let mut lab = lab();
    lab.server.flip("/manifest.json", 100);
    check_refusal(&mut lab, Failure::ManifestAltered, Lab::publish);
}

#[test]
fn a_server_heals_an_initramfs_with_an_altered_manifest() {
    let lab = lab();
    lab.copy_to_initramfs();
    lab.flip_in_initramfs("manifest.json", 100);
    lab.flip_in_initramfs("torrents/debian.torrent", 300);
    let mut agent = Started::new(&lab, &[]);
    assert!(agent.ends_well());
    assert_loaded(&lab);
}

#[test]
fn the_manifest_of_another_lab_is_refused() {
    let mut lab = lab();
    lab.publish_with(&LabKey::from_seed([9; 32]));
    check_refusal(&mut lab, Failure::OtherKey, Lab::publish);
}

#[test]
fn an_altered_torrent_is_refused_until_it_is_repaired() {
    let mut lab = lab();
    lab.server.flip_in("/torrents/debian.torrent", b"vmlinuz");
    check_refusal(&mut lab, Failure::TorrentAltered, Lab::publish);
}

#[test]
fn altered_bytes_of_an_image_are_never_loaded() {
    let mut lab = lab();
    lab.server.flip("/images/debian/vmlinuz", 650_000);
    check_refusal(&mut lab, Failure::ImageAltered, |lab| {
        lab.server.flip("/images/debian/vmlinuz", 650_000);
    });
}

#[test]
fn a_server_that_is_not_there_is_waited_for() {
    let mut lab = Lab::new();
    lab.add_image("debian", FILES, kexec());
    check_refusal(&mut lab, Failure::ManifestUnreachable, Lab::publish);
}

#[test]
fn an_image_that_does_not_fit_is_not_begun() {
    let mut lab = lab();
    // 64 MiB stay free; the image has 1 MiB, and two more while it is loaded.
    let mut agent = Started::new(&lab, &["--available-memory", "68157440"]);
    agent.wait_for("BOOTTORRENT failed code=BT43");
    agent.wait_for("MiB are missing");
    assert!(!lab.server.requests().iter().any(|path| path.starts_with("/images/")));
    lab.add_image("debian", &[("vmlinuz", 9), ("a.img", 5), ("boot/b.img", 1)], kexec());
    lab.publish();
    assert!(agent.ends_well());
}

#[test]
fn a_loader_without_its_files_is_refused_before_the_download() {
    let mut lab = Lab::new();
    let loader = Loader::Kexec {
        kernel: "bzImage".parse().unwrap(),
        initrds: vec![],
        cmdline: String::new(),
    };
    lab.add_image("debian", FILES, loader);
    lab.publish();
    let mut agent = Started::new(&lab, &[]);
    agent.wait_for("BOOTTORRENT failed code=BT52");
    agent.wait_for("has no file `bzImage`");
    assert!(!lab.server.requests().iter().any(|path| path.starts_with("/images/")));
}

#[test]
fn a_person_chooses_by_name() {
    let mut lab = lab();
    let files = &[("hello", 9), ("other", 1)];
    let loader = Loader::Exec { bin: "hello".parse().unwrap(), args: "a 'b c'".to_owned() };
    lab.add_image("tools", files, loader);
    lab.set_menu_timeout(None);
    lab.publish();
    let mut agent = Started::new(&lab, &["--keyboard"]);
    agent.wait_for("BOOTTORRENT stage=menu default=debian timeout_s=none");
    agent.type_keys("tool\n");
    agent.wait_for("BOOTTORRENT stage=downloading image=tools");
    assert!(agent.ends_well());
    let program = std::fs::read_to_string(lab.saved().join("program")).unwrap();
    assert!(program.starts_with(r#"program hello ["a", "b c"] in "#), "{program}");
}

#[test]
fn the_default_is_booted_when_nobody_chooses_and_seeds_for_its_time() {
    let mut lab = lab();
    lab.set_menu_timeout(Some(1));
    lab.set_seed_time(1);
    lab.publish();
    let mut agent = Started::new(&lab, &[]);
    agent.wait_for("BOOTTORRENT stage=menu default=debian timeout_s=1");
    agent.wait_for("seeding for 1 s more");
    assert!(agent.ends_well());
    assert_loaded(&lab);
}

#[test]
fn an_operator_who_names_an_unknown_image_is_told_which_there_are() {
    let lab = lab();
    let mut agent = Started::new(&lab, &["--image", "arch"]);
    agent.wait_for("BOOTTORRENT failed code=BT41");
    agent.wait_for("there is debian");
}
