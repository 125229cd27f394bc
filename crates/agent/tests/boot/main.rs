//! The agent's own program against a small server on the loopback interface: the whole sequence but
//! mounts, network and the kexec itself.
//!
//! Everything waits for lines or reports with a deadline that only a failing test reaches.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking, in their helpers too")]

mod lab;
mod server;
mod started;
mod terminal;

use boot::{Failure, LabKey, Loader, Stage};

use lab::{Lab, bytes};
use server::SECRET;
use started::Started;
use terminal::Terminal;

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
    // The agent does not wait for its answer.
    lab.server.wait_for_report(|report| report.stage.name() == "loading");
    let reports = lab.server.reports();
    let machine = reports.iter().find_map(|report| report.machine.as_ref()).unwrap();
    assert!(machine.memory_bytes > 0 && !machine.kernel.is_empty());
    assert!(reports.iter().all(|report| report.node == lab.node()));
    assert!(reports.windows(2).all(|pair| pair[0].sequence < pair[1].sequence));
    assert_eq!(reports.last().unwrap().stage.name(), "loading");
    // The first answer gave the secret of this boot, and all later reports have it.
    let proofs = lab.server.proofs();
    let with_it = proofs.iter().filter(|proof| proof.as_deref() == Some(SECRET)).count();
    assert!(proofs[0].is_none() && with_it > 0, "{proofs:?}");
    assert!(proofs.is_sorted_by_key(Option::is_some), "{proofs:?}");
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
fn a_method_that_nobody_knows_yet_is_refused_before_the_download() {
    let mut lab = Lab::new();
    lab.add_image("debian", FILES, Loader::Unknown);
    lab.publish();
    let mut agent = Started::new(&lab, &[]);
    agent.wait_for("BOOTTORRENT failed code=BT51");
    agent.wait_for("`debian` is to be loaded in a way that this agent does not know");
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
    let node = format!("BOOTTORRENT_NODE={}", lab.node());
    for line in ["BOOTTORRENT_IMAGE=tools", &node, "BOOTTORRENT_SERVER=http://127.0.0.1:"] {
        assert!(program.contains(&format!("\n{line}")), "{program}");
    }
}

#[test]
fn keys_of_a_terminal_find_and_choose_an_image() {
    let mut lab = lab();
    lab.add_image("tools", &[("hello", 9)], exec());
    lab.set_menu_timeout(None);
    lab.publish();
    let terminal = Terminal::new(&lab, 80, 24);
    let screen = terminal.wait_for("What shall this node boot?");
    assert!(screen.contains(" >*DEBIAN"), "{screen}");
    terminal.press(&["Down"]);
    terminal.wait_for(" > TOOLS");
    terminal.press(&["Home"]);
    terminal.wait_for(" >*DEBIAN");
    terminal.press(&["F1"]);
    let screen = terminal.wait_for("Ethernet address");
    assert!(screen.contains(&lab.node().to_string()), "{screen}");
    terminal.press(&["Escape"]);
    terminal.wait_for(" >*DEBIAN");
    terminal.press(&["t", "o", "o"]);
    let screen = terminal.wait_for(" > TOOLS");
    assert!(!screen.contains("DEBIAN"), "{screen}");
    terminal.press(&["Enter"]);
    terminal.wait_until("the program of `tools` is started", || {
        let program = std::fs::read_to_string(lab.saved().join("program")).unwrap_or_default();
        program.contains("\nBOOTTORRENT_IMAGE=tools")
    });
}

#[test]
fn a_menu_follows_its_terminal_down_to_one_column_and_back() {
    let mut lab = lab();
    lab.set_menu_timeout(None);
    lab.publish();
    let terminal = Terminal::new(&lab, 80, 24);
    terminal.wait_for("What shall this node boot?");
    terminal.resize(1, 24);
    // The first letter of each line, and the mark of what is selected.
    terminal.wait_for("\n>\n");
    terminal.resize(100, 30);
    let screen = terminal.wait_for("Waiting for a choice.");
    let head = screen.lines().next().unwrap_or_default();
    assert_eq!(head.len(), 99, "{screen}");
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
fn a_node_that_nobody_needs_loads_its_image() {
    let mut lab = lab();
    // Longer than any test.
    lab.set_seed_time(10_000);
    lab.set_seed_auto();
    lab.publish();
    let mut agent = Started::new(&lab, &[]);
    agent.wait_for("BOOTTORRENT stage=verified");
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

#[test]
fn an_image_that_is_withdrawn_while_the_menu_is_open_is_named() {
    let mut lab = lab();
    lab.add_image("tools", &[("hello", 9)], exec());
    lab.set_menu_timeout(None);
    lab.publish();
    let mut agent = Started::new(&lab, &["--keyboard"]);
    agent.wait_for("BOOTTORRENT stage=menu");
    // A key, so that the menu stays as it is; what it filters by is shown to the end.
    agent.type_keys("tool");
    lab.remove_image("tools");
    lab.publish();
    // When the second report comes the answer to the first has been heard.
    let before = lab.server.reports().last().map_or(0, |report| report.sequence);
    lab.server.wait_for_report(|report| report.sequence >= before + 2);
    agent.type_keys("\n");
    agent.wait_for("BOOTTORRENT failed code=BT41");
    agent.wait_for("`tools` was withdrawn while the menu was open");
}

#[test]
fn a_password_is_asked_for_where_the_image_has_one() {
    let mut lab = lab();
    lab.add_image("exam", &[("hello", 9)], exec());
    lab.set_password("exam", "open sesame");
    lab.set_menu_timeout(None);
    lab.publish();
    let mut agent = Started::new(&lab, &["--keyboard"]);
    agent.wait_for("BOOTTORRENT stage=menu");
    agent.type_keys("exam\n");
    agent.wait_for("Password for EXAM:");
    agent.type_keys("sesame\n");
    agent.type_keys("open sesame\n");
    agent.wait_for("BOOTTORRENT stage=downloading image=exam");
    assert!(agent.ends_well());
    assert!(lab.saved().join("program").exists());
}

#[test]
fn nobody_gets_a_shell_where_the_lab_says_so() {
    let mut lab = lab();
    lab.set_menu_timeout(None);
    lab.set_shell(boot::manifest::Shell::Forbidden);
    lab.publish();
    let mut agent = Started::new(&lab, &["--keyboard"]);
    agent.wait_for("BOOTTORRENT stage=menu");
    agent.type_keys("\u{13}");
    agent.wait_for("This lab gives nobody a shell.");
}

#[test]
fn a_guest_comes_with_the_extension_that_runs_it() {
    let mut lab = Lab::new();
    lab.add_image("debian", &[("disk.img", 300_001)], guest("-hda 'disk.img' -m 32"));
    lab.publish();
    let mut agent = Started::new(&lab, &["--available-memory", "314572800"]);
    agent.wait_for("BOOTTORRENT failed code=BT58");
    agent.wait_for("the lab offers no extension `qemu`");
    let rootfs = "extension.squashfs".parse().unwrap();
    let files = &[("extension.squashfs", 200_001)];
    lab.add_image("qemu", files, Loader::Extension { rootfs });
    lab.publish();
    agent.wait_for("BOOTTORRENT stage=verified image=qemu");
    agent.wait_for("BOOTTORRENT stage=verified image=debian");
    assert!(agent.ends_well());
    let said = std::fs::read_to_string(lab.saved().join("guest")).unwrap();
    assert!(said.starts_with("QEMU: -snapshot -accel tcg -smp "), "{said}");
    assert!(said.ends_with("-display curses -hda disk.img -m 32"), "{said}");
}

#[test]
fn a_guest_that_keeps_what_it_writes_writes_beside_its_image() {
    let mut lab = Lab::new();
    let Loader::Qemu { args, display, after, .. } = guest("-hda disk.img -m 32") else { return };
    let kept_on = Some("guests".parse().unwrap());
    let loader = Loader::Qemu { args, display, after, kept_on };
    lab.add_image("debian", &[("disk.img", 300_001)], loader);
    let rootfs = "extension.squashfs".parse().unwrap();
    let files = &[("extension.squashfs", 200_001)];
    lab.add_image("qemu", files, Loader::Extension { rootfs });
    lab.publish();
    let mut agent = Started::new(&lab, &["--available-memory", "314572800"]);
    assert!(agent.ends_well());
    let said = std::fs::read_to_string(lab.saved().join("guest")).unwrap();
    assert!(said.starts_with("QEMU: -accel tcg -smp "), "{said}");
    let drive = "-drive file=/run/boottorrent/kept/boottorrent/debian/";
    assert!(said.contains(drive) && said.contains("/disk.img.qcow2,format=qcow2,if=ide"), "{said}");
}

#[test]
fn a_guest_that_does_not_fit_is_not_fetched() {
    let mut lab = Lab::new();
    lab.add_image("debian", &[("disk.img", 300_001)], guest("-hda disk.img -m 512"));
    let rootfs = "extension.squashfs".parse().unwrap();
    lab.add_image("qemu", &[("extension.squashfs", 9)], Loader::Extension { rootfs });
    lab.publish();
    let mut agent = Started::new(&lab, &["--available-memory", "268435456"]);
    agent.wait_for("BOOTTORRENT failed code=BT43");
    agent.wait_for("MiB are missing");
}

fn exec() -> Loader {
    Loader::Exec { bin: "hello".parse().unwrap(), args: String::new() }
}

fn guest(args: &str) -> Loader {
    let (display, after, kept_on) = Default::default();
    Loader::Qemu { args: args.to_owned(), display, after, kept_on }
}
