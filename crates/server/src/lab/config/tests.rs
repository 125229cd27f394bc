use std::net::Ipv4Addr;
use std::time::Duration;

use boot::Loader;
use boot::image::{After, DiskLabel, Display};
use boot::manifest::Shell;

use super::keys::{Key, Presence};
use super::*;
use crate::lab::problem::{Problem, Severity};
use crate::lab::settings::{Access, BootFrom, DhcpMode, LogFormat, LogLevel, Unknown};

mod room;

const SERVER: &str = "version: 1
server:
  interface: eth0
  address: 10.0.0.1
dhcp:
  ranges: 10.0.0.10-10.0.0.99
";

const ORIGINAL: &str = "boottorrent:
  version: 0
  timeout: 30
  default_os: debian
  seed_time: 30
  host_ip: 192.168.1.1
dnsmasq:
  enable_dhcp: True
  interface: eth0
  dhcp_range: \"192.168.1.50,192.168.1.150,12h\"
  enable_tftp: True
opentracker:
  enable: True
  port: 10001
aria2:
  bt_enable_lpd: False
  enable_peer_exchange: True
  console_log_level: error
";

const IMAGE: &str = "dispname: Debian 12
method: kexec
kernel: vmlinuz
initrd: initrd.img
cmdline: quiet root=\"/dev/ram0\"
";

fn texts(server: &str) -> Texts {
    let images = vec![("debian".to_owned(), Some(IMAGE.to_owned()))];
    Texts { server: server.to_owned(), nodes: None, images }
}

fn found(texts: &Texts) -> (Configuration, Vec<Problem>) {
    let mut problems = Problems::default();
    let configuration = check(Path::new("/lab"), texts, &mut problems);
    (configuration, problems.sorted().iter().cloned().collect())
}

/// Expects these problems: where, and a part of the message.
#[track_caller]
fn expect(texts: &Texts, expect: &[(&str, &str)]) -> Configuration {
    let (configuration, problems) = found(texts);
    let list = problems.iter().map(|problem| format!("{problem}\n")).collect::<String>();
    assert_eq!(problems.len(), expect.len(), "{list}");
    for (problem, (place, part)) in problems.iter().zip(expect) {
        let found = problem.to_string();
        assert!(found.starts_with(&format!("{place}: ")), "{found:?} is not at {place:?}");
        assert!(found.contains(part), "{found:?} without {part:?}");
    }
    configuration
}

#[track_caller]
fn server(text: &str, problems: &[(&str, &str)]) -> Configuration {
    expect(&texts(text), problems)
}

/// The file with another line in place of the first that begins so.
fn with(text: &str, line: &str, other: &str) -> String {
    assert!(text.contains(line), "{line}");
    text.replacen(line, other, 1)
}

#[test]
fn a_short_file_is_enough() {
    let configuration = server(SERVER, &[]);
    let settings = &configuration.settings;
    assert_eq!(settings.dir, Path::new("/lab"));
    assert_eq!(settings.interface, "eth0");
    assert_eq!(settings.address, Ipv4Addr::new(10, 0, 0, 1));
    assert_eq!(settings.dhcp.mode, DhcpMode::Auto);
    assert_eq!(settings.dhcp.ranges[0].to_string(), "10.0.0.10-10.0.0.99");
    assert_eq!(settings.dhcp.lease_time, Duration::from_secs(43_200));
    assert_eq!(settings.menu.default.as_str(), "debian");
    assert_eq!(settings.menu.timeout, Some(Duration::from_secs(30)));
    assert_eq!((settings.http.port, settings.tracker.port, settings.tftp.port), (8080, 10001, 69));
    assert!(settings.tracker.enabled && settings.seeding.pex && !settings.seeding.lsd);
    assert_eq!(settings.log_level, LogLevel::Info);
}

#[test]
fn every_default_is_a_value_of_its_key() {
    // A default that does not parse is seen as a problem or as a stand-in; each has to be looked at.
    for key in [keys::SERVER, keys::ORIGINAL, keys::IMAGE, keys::NODE, keys::GROUP].concat() {
        let Key { path, presence: Presence::Default(text), .. } = key else { continue };
        let good = match key.kind {
            "bool" => reader::default::<bool>(text).is_some(),
            "port" => reader::default::<u16>(text).is_some(),
            "time" => reader::default::<Duration>(text).is_some(),
            "time or `never`" => reader::default::<value::Timeout>(text).is_some(),
            kind if kind.ends_with("list of them") => text == "[]",
            "text" | "template" if path != "options" => text.is_empty(),
            _ => match path {
                "boot" => reader::default::<BootFrom>(text).is_some(),
                "options" => reader::default::<value::NfsOptions>(text).is_some(),
                "dhcp.mode" => reader::default::<DhcpMode>(text).is_some(),
                "log.level" => reader::default::<LogLevel>(text).is_some(),
                "log.format" => reader::default::<LogFormat>(text).is_some(),
                "boot.seed_time" => reader::default::<value::SeedTime>(text).is_some(),
                "menu.shell" => reader::default::<value::ShellAccess>(text).is_some(),
                "console.serial_speed" => reader::default::<value::Speed>(text).is_some(),
                "nodes.unknown" => reader::default::<Unknown>(text).is_some(),
                "dashboard.access" => reader::default::<Access>(text).is_some(),
                "phase1.loader" => {
                    reader::default::<crate::lab::settings::BootProgram>(text).is_some()
                }
                _ => false,
            },
        };
        assert!(good, "{path}: {text}");
    }
}

#[test]
fn every_problem_of_every_file_is_told_at_once() {
    let texts = Texts {
        server: "version: 1
server:
  interface: eth0
  address: 10.0.0.256
boot:
  default: debain
  timout: 10s
dhcp:
  mode: sever
http:
  port: 0
"
        .to_owned(),
        nodes: Some("nodes:\n  c1: {mac: 12, image: arch}\n  c_2: {}\n".to_owned()),
        images: vec![
            ("debian".to_owned(), Some("dispname: A\nmethod: kexek\n".to_owned())),
            ("with space".to_owned(), None),
        ],
    };
    expect(
        &texts,
        &[
            ("Boottorrent.yaml:4", "`10.0.0.256` is no IPv4 address"),
            ("Boottorrent.yaml:6", "there is no oss/debain; is debian meant?"),
            ("Boottorrent.yaml:7", "there is no key `boot.timout`; is `boot.timeout` meant?"),
            ("Boottorrent.yaml:9", "`sever` is none of auto, server, proxy, off; is server meant?"),
            ("Boottorrent.yaml:9", "warning: dhcp.ranges is empty"),
            ("Boottorrent.yaml:11", "`0` is no port"),
            ("nodes.yaml:2", "image: there is no oss/arch"),
            ("nodes.yaml:2", "`12` is not an Ethernet address"),
            ("nodes.yaml:3", "`c_2` cannot name a node"),
            ("oss/debian/config.yaml:2", "is kexec meant?"),
            ("oss/with space", "cannot name an image"),
        ],
    );
}

#[test]
fn a_key_in_the_wrong_section_is_told_the_right_one() {
    let text = format!("{SERVER}tftp:\n  lease_time: 1h\n");
    server(&text, &[("Boottorrent.yaml:8", "is `dhcp.lease_time` meant?")]);
    let text = format!("{SERVER}hologram:\n  beams: 3\n");
    server(
        &text,
        &[("Boottorrent.yaml:7", "known here: version, server, boot, menu, console, dhcp")],
    );
    let text = format!("{SERVER}  hologram: 3\n");
    server(&text, &[("Boottorrent.yaml:7", "known here: mode, ranges, lease_time")]);
}

#[test]
fn what_is_missing_is_told_with_an_example() {
    server(
        "version: 1\nserver:\n",
        &[
            ("Boottorrent.yaml", "warning: dhcp.ranges is empty"),
            ("Boottorrent.yaml:2", "write `address: 192.168.1.1` in the section server"),
            ("Boottorrent.yaml:2", "write `interface: eth0` in the section server"),
        ],
    );
}

#[test]
fn the_format_is_said_in_the_file() {
    let without = with(SERVER, "version: 1\n", "");
    server(&without, &[("Boottorrent.yaml:1", "write `version: 1` at the top")]);
    server(&with(SERVER, "version: 1", "version: 2"), &[("Boottorrent.yaml:1", "update this")]);
    let other = with(ORIGINAL, "version: 0", "version: 3");
    server(&other, &[("Boottorrent.yaml:2", "there is no format 3")]);
}

#[test]
fn a_section_that_is_no_map_is_told() {
    server(
        "version: 1\nserver: eth0\ndhcp: [a]\n",
        &[
            ("Boottorrent.yaml", "warning"),
            ("Boottorrent.yaml:2", "expected `key: value` lines here, not a value"),
            ("Boottorrent.yaml:2", "server.address is missing"),
            ("Boottorrent.yaml:2", "server.interface is missing"),
            ("Boottorrent.yaml:3", "not a list"),
        ],
    );
}

#[test]
fn ranges_leave_out_the_server_and_each_other() {
    let ranges = |list: &str| with(SERVER, "10.0.0.10-10.0.0.99", list);
    server(&ranges("10.0.0.1-10.0.0.9"), &[("Boottorrent.yaml:6", "the server's own address")]);
    server(&ranges("10.0.0.9-10.0.0.5"), &[("Boottorrent.yaml:6", "ends before it begins")]);
    let list = "\n  - 10.0.0.5-10.0.0.9\n  - 10.0.0.9-10.0.0.20";
    server(&ranges(list), &[("Boottorrent.yaml:8", "overlap")]);
}

#[test]
fn a_server_without_addresses_is_refused_and_a_proxy_is_not() {
    let mode = |mode| with(SERVER, "ranges: 10.0.0.10-10.0.0.99", &format!("mode: {mode}"));
    server(&mode("server"), &[("Boottorrent.yaml:6", "write `ranges: FIRST-LAST`")]);
    server(&mode("auto"), &[("Boottorrent.yaml:6", "warning: dhcp.ranges is empty")]);
    server(&mode("proxy"), &[]);
    server(&mode("off"), &[]);
    let mut texts = texts(&mode("server"));
    texts.nodes = Some("nodes: {c1: {mac: 525400123456, address: 10.0.0.7}}".to_owned());
    let configuration = expect(&texts, &[]);
    assert_eq!(configuration.settings.dhcp.reservations.len(), 1);
}

#[test]
fn peers_have_a_way_to_find_each_other() {
    let swarm = |swarm: &str| format!("{SERVER}swarm:\n  tracker: false\n{swarm}");
    server(&swarm(""), &[("Boottorrent.yaml:8", "no way to find each other")]);
    server(&swarm("  lsd: true"), &[("Boottorrent.yaml:8", "warning: no tracker")]);
    let configuration = server(&swarm("  trackers: http://10.0.0.2:6969/announce"), &[]);
    assert_eq!(configuration.settings.tracker.external, ["http://10.0.0.2:6969/announce"]);
}

#[test]
fn ports_are_different() {
    let text = format!("{SERVER}http:\n  port: 10001\n");
    server(&text, &[("Boottorrent.yaml:8", "both have TCP port 10001")]);
}

#[test]
fn a_timeout_of_zero_is_at_once_and_one_below_is_never() {
    let check = |timeout: &str, expect: Option<u64>| {
        let text = format!("{SERVER}boot:\n  timeout: {timeout}\n");
        let found = server(&text, &[]).settings.menu.timeout;
        assert_eq!(found.map(|time| time.as_secs()), expect, "{timeout}");
        let text = with(ORIGINAL, "timeout: 30", &format!("timeout: {timeout}"));
        let found = server(&text, &[]).settings.menu.timeout;
        assert_eq!(found.map(|time| time.as_secs()), expect, "{timeout} in version 0");
    };
    check("0", Some(0));
    check("45", Some(45));
    check("-1", None);
}

#[test]
fn several_images_need_a_default() {
    let mut texts = texts(SERVER);
    texts.images.push(("arch".to_owned(), Some(with(IMAGE, "Debian 12", "Arch"))));
    expect(&texts, &[("Boottorrent.yaml", "choose one of debian, arch")]);
    texts.server.push_str("boot:\n  default: arch\n");
    let configuration = expect(&texts, &[]);
    assert_eq!(configuration.settings.menu.default.as_str(), "arch");
    let titles: Vec<&str> = configuration.images.iter().map(|i| i.title.as_str()).collect();
    assert_eq!(titles, ["Arch", "Debian 12"]);
}

#[test]
fn a_lab_without_images_is_refused() {
    let texts = Texts { images: vec![], ..texts(SERVER) };
    expect(&texts, &[("oss", "there is no image")]);
}

#[test]
fn titles_are_unique() {
    let mut texts = texts(&format!("{SERVER}boot: {{default: debian}}"));
    texts.images.push(("other".to_owned(), Some(IMAGE.to_owned())));
    expect(&texts, &[("oss/other/config.yaml:1", "is also what oss/debian is called")]);
}

#[test]
fn the_original_is_translated() {
    let settings = server(ORIGINAL, &[]).settings;
    assert_eq!(settings.interface, "eth0");
    assert_eq!(settings.address, Ipv4Addr::new(192, 168, 1, 1));
    assert_eq!(settings.dhcp.mode, DhcpMode::Server);
    assert_eq!(settings.dhcp.ranges[0].to_string(), "192.168.1.50-192.168.1.150");
    assert_eq!(settings.dhcp.lease_time, Duration::from_secs(43_200));
    assert_eq!(settings.seed_time, Duration::from_secs(30));
    assert_eq!(settings.log_level, LogLevel::Error);
    assert_eq!(settings.tracker.port, 10001);
    assert!(settings.tftp.enabled && settings.seeding.pex && !settings.seeding.lsd);
}

#[test]
fn every_key_of_the_original_has_its_effect() {
    let changed = |line: &str, other: &str| server(&with(ORIGINAL, line, other), &[]).settings;
    assert_eq!(changed("seed_time: 30", "seed_time: -5").seed_time, Duration::ZERO);
    assert_eq!(changed("seed_time: 30", "seed_time: 90").seed_time, Duration::from_secs(90));
    assert!(!changed("exchange: True", "exchange: False").seeding.pex);
    assert!(changed("lpd: False", "lpd: True").seeding.lsd);
    assert_eq!(changed("port: 10001", "port: 6969").tracker.port, 6969);
    assert_eq!(changed("level: error", "level: notice").log_level, LogLevel::Info);
    assert_eq!(
        changed("host_ip: 192.168.1.1", "host_ip: 10.9.8.7").address.octets(),
        [10, 9, 8, 7]
    );
    let off = with(ORIGINAL, "enable_dhcp: True", "enable_dhcp: False");
    let off = server(&off, &[("Boottorrent.yaml:8", "warning: dnsmasq.enable_dhcp is false")]);
    assert_eq!(off.settings.dhcp.mode, DhcpMode::Off);
    let off = with(ORIGINAL, "enable_tftp: True", "enable_tftp: False");
    let off = server(&off, &[("Boottorrent.yaml:11", "warning: TFTP is off")]);
    assert!(!off.settings.tftp.enabled);
}

#[test]
fn what_the_original_demands_is_demanded() {
    server(
        &with(ORIGINAL, "  default_os: debian\n", ""),
        &[("Boottorrent.yaml:1", "boottorrent.default_os is missing")],
    );
    server(
        &with(ORIGINAL, "  port: 10001\n", ""),
        &[("Boottorrent.yaml:12", "opentracker.port is missing")],
    );
    let text = with(ORIGINAL, "  enable: True\n  port: 10001\n", "  enable: False\n");
    server(&text, &[("Boottorrent.yaml:13", "no way to find each other")]);
    let text = text.replace("lpd: False", "lpd: True");
    server(&text, &[("Boottorrent.yaml:13", "warning: no tracker")]);
}

#[test]
fn what_no_longer_means_anything_is_a_warning() {
    let text =
        with(ORIGINAL, "  interface:", "  user: nobody\n  bind_interfaces: True\n  interface:");
    let text = format!("{text}  enable_dht: False\nhefur:\n  port: 6969\n");
    server(
        &text,
        &[
            ("Boottorrent.yaml:9", "warning: dnsmasq.user no longer means anything"),
            ("Boottorrent.yaml:10", "warning: dnsmasq.bind_interfaces"),
            ("Boottorrent.yaml:21", "warning: aria2.enable_dht"),
            ("Boottorrent.yaml:23", "warning: hefur.port"),
        ],
    );
}

#[track_caller]
fn image(text: &str, problems: &[(usize, &str)]) -> Option<Loader> {
    let images = vec![("debian".to_owned(), Some(text.to_owned()))];
    let texts = Texts { images, ..texts(SERVER) };
    let places: Vec<String> = problems
        .iter()
        .map(|(line, _)| match line {
            0 => "oss/debian/config.yaml".to_owned(),
            line => format!("oss/debian/config.yaml:{line}"),
        })
        .collect();
    let problems: Vec<(&str, &str)> =
        places.iter().map(String::as_str).zip(problems.iter().map(|(_, part)| *part)).collect();
    let mut images = expect(&texts, &problems).images;
    images.pop().map(|image| image.loader)
}

#[test]
fn a_kernel_is_run_with_its_initrds_and_its_unquoted_command_line() {
    let path = |text: &str| text.parse().unwrap();
    let expect = |initrds| Loader::Kexec {
        kernel: path("vmlinuz"),
        initrds,
        cmdline: "quiet root=\"/dev/ram0\"".to_owned(),
    };
    assert_eq!(image(IMAGE, &[]), Some(expect(vec![path("initrd.img")])));
    let two = with(IMAGE, "initrd.img", "[a.img, b/c.img]");
    assert_eq!(image(&two, &[]), Some(expect(vec![path("a.img"), path("b/c.img")])));
    assert_eq!(image(&with(IMAGE, "initrd.img", "[]"), &[]), Some(expect(vec![])));
}

#[test]
fn a_kernel_needs_a_name_and_an_initrd() {
    let problems = [(0, "write `initrd: initrd.img`"), (0, "write `kernel: vmlinuz`")];
    image("dispname: A\nmethod: kexec\n", &problems);
    image("method: kexec\nkernel: a\ninitrd: b\n", &[(0, "dispname is missing")]);
    image(&with(IMAGE, "vmlinuz", "../vmlinuz"), &[(3, "without `.` or `..`")]);
}

#[test]
fn an_image_is_described_and_kept_from_who_does_not_know_its_password() {
    let hash = boot::PasswordHash::of("secret", [1; 16]).unwrap();
    let text = format!("{IMAGE}description: For exams.\npassword: {hash}\n");
    let images = vec![("debian".to_owned(), Some(text))];
    let found = expect(&Texts { images, ..texts(SERVER) }, &[]).images;
    assert_eq!(found[0].description, "For exams.");
    assert_eq!(found[0].password, Some(hash));
    let long = format!("{IMAGE}description: {}\n", "x".repeat(401));
    image(&long, &[(6, "401 characters")]);
    let clear = image(&format!("{IMAGE}password: secret\n"), &[(6, "`boottorrent password`")]);
    assert_eq!(clear, None);
}

#[test]
fn who_gets_a_shell_and_what_consoles_say_is_the_labs() {
    let shell = |menu: &str| {
        let text = format!("{SERVER}menu:\n{menu}");
        expect(&texts(&text), &[]).settings.menu.shell
    };
    assert_eq!(shell("  shell: allowed\n"), Shell::Allowed);
    assert_eq!(shell("  shell: forbidden\n"), Shell::Forbidden);
    let hash = boot::PasswordHash::of("secret", [1; 16]).unwrap();
    let text = format!("  shell: password\n  shell_password: {hash}\n");
    assert_eq!(shell(&text), Shell::Password { hash });
    let at = SERVER.lines().count();
    let line = |line: usize| format!("Boottorrent.yaml:{}", at + line);
    server(&format!("{SERVER}menu:\n  shell: password\n"), &[(&line(2), "shell_password: HASH")]);
    let text = format!("{SERVER}menu:\n  shell: password\n  shell_password: secret\n");
    server(&text, &[(&line(3), "`boottorrent password`")]);
}

#[test]
fn a_node_seeds_for_a_time_or_as_long_as_somebody_downloads() {
    let seed = |text: &str| {
        let text = format!("{SERVER}boot:\n  seed_time: {text}\n");
        let settings = expect(&texts(&text), &[]).settings;
        (settings.seed_time.as_secs(), settings.seed_auto)
    };
    assert_eq!(seed("1min"), (60, false));
    assert_eq!(seed("0"), (0, false));
    assert_eq!(seed("auto"), (600, true));
    let text = format!("{SERVER}boot:\n  seed_time: for ever\n");
    server(&text, &[("Boottorrent.yaml:8", "or auto")]);
}

#[test]
fn consoles_become_words_of_the_kernel() {
    let cmdline = |console: &str| {
        let text = format!("{SERVER}console:\n{console}");
        expect(&texts(&text), &[]).settings.phase1.cmdline
    };
    assert_eq!(cmdline("  log_level: 4\n"), "loglevel=4");
    let expect = "console=tty0 console=ttyS1,9600n8";
    assert_eq!(cmdline("  serial: ttyS1\n  serial_speed: 9600\n"), expect);
    let at = SERVER.lines().count();
    let text = format!("{SERVER}console:\n  keyboard: de-latin1\n");
    let keyboard = server(&text, &[]).settings.keyboard;
    assert_eq!(keyboard.as_deref(), Some("de-latin1"));
    for (console, part) in [
        ("  keyboard: -x\n", "names no keyboard layout"),
        ("  serial: eth0\n", "is no serial line"),
        ("  serial_speed: 9601\n", "is no speed"),
        ("  log_level: 8\n", "from 0 to 7"),
    ] {
        let place = format!("Boottorrent.yaml:{}", at + 2);
        server(&format!("{SERVER}console:\n{console}"), &[(&place, part)]);
    }
}

#[test]
fn programs_and_machines_have_their_arguments() {
    let loader = image("dispname: T\nmethod: bin\nbin: run\nbinargs: -a 'b c'\n", &[]);
    assert_eq!(
        loader,
        Some(Loader::Exec { bin: "run".parse().unwrap(), args: "-a 'b c'".to_owned() })
    );
    image("dispname: D\nmethod: bin-qemu-x86_64\n", &[(0, "write `args: -cdrom disc.iso`")]);
    image("dispname: D\nmethod: bin\n", &[(0, "write `bin: program`")]);
    image("dispname: D\nmethod: bin\nbin: a\nbinargs: \"'x\"\n", &[(4, "is not closed")]);
    image("dispname: D\nmethod: qemu-iso\n", &[(2, "is bin-qemu-x86_64 meant?")]);
}

/// Images `debian` with this text and `qemu`, the extension.
#[track_caller]
fn guest(text: &str, problems: &[(&str, &str)]) -> Option<Loader> {
    let qemu = "dispname: QEMU\nmethod: extension\nrootfs: extension.squashfs\n";
    let images = [("debian", text), ("qemu", qemu)];
    let images = images.map(|(name, text)| (name.to_owned(), Some(text.to_owned()))).to_vec();
    let found = expect(&Texts { images, ..texts(SERVER) }, problems);
    if problems.is_empty() {
        assert_eq!(found.settings.menu.default.as_str(), "debian");
    }
    found.images.into_iter().find(|image| image.name.as_str() == "debian").map(|image| image.loader)
}

#[test]
fn a_guest_needs_the_extension_and_is_seen_where_the_lab_says() {
    let text = "dispname: D\nmethod: bin-qemu-x86_64\nargs: -fda odin.img\n";
    let loader = |display, after| {
        Some(Loader::Qemu { args: "-fda odin.img".to_owned(), display, after, kept_on: None })
    };
    let found = image(text, &[(0, "warning: method bin-qemu-x86_64 needs the extension `qemu`")]);
    assert_eq!(found, loader(Display::Screen, After::Menu));
    let check = |keys: &str, display, after| {
        assert_eq!(guest(&format!("{text}{keys}"), &[]), loader(display, after), "{keys}");
    };
    let vnc = |listen: &str| Display::Vnc { listen: listen.parse().unwrap() };
    check("", Display::Screen, After::Menu);
    check("display: serial\nafter: poweroff\n", Display::Serial, After::Poweroff);
    check("display: vnc 0.0.0.0\nafter: reboot\n", vnc("0.0.0.0:5900"), After::Reboot);
    check("display: vnc:127.0.0.1:5901\n", vnc("127.0.0.1:5901"), After::Menu);
    for (keys, part) in [
        ("display: vnc\n", "is no display"),
        ("display: vnc host\n", "is no address of nodes"),
        ("display: vnc 0.0.0.0:80\n", "from 5900 on"),
        ("after: dance\n", "none of menu, reboot, poweroff"),
    ] {
        guest(&format!("{text}{keys}"), &[("oss/debian/config.yaml:4", part)]);
    }
}

#[test]
fn what_a_guest_writes_stays_where_the_lab_says() {
    let text = "dispname: D\nmethod: bin-qemu-x86_64\nargs: -hda a.img\n";
    let check = |writes: &str, expect: Option<&str>| {
        let lacks_driver = match expect {
            Some(_) => {
                vec![("oss/debian/config.yaml", "warning: writes: a node needs the driver ext4")]
            }
            None => vec![],
        };
        match guest(&format!("{text}{writes}"), &lacks_driver) {
            Some(Loader::Qemu { kept_on, .. }) => {
                assert_eq!(kept_on.as_ref().map(DiskLabel::as_str), expect, "{writes}");
            }
            found => panic!("{writes}: {found:?}"),
        }
    };
    check("", None);
    check("writes: memory\n", None);
    check("writes: disk guests\n", Some("guests"));
    for (writes, part) in [
        ("writes: disk\n", "write memory, or disk and a label"),
        ("writes: disk a/b\n", "cannot be the label of a file system"),
        ("writes: disk abcdefghijklmnopq\n", "16 at most"),
    ] {
        guest(&format!("{text}{writes}"), &[("oss/debian/config.yaml:4", part)]);
    }
    let both =
        "dispname: D\nmethod: bin-qemu-x86_64\nargs: -hda a -snapshot\nwrites: disk guests\n";
    guest(both, &[("oss/debian/config.yaml:4", "remove one of the two")]);
}

#[test]
fn an_extension_is_nothing_to_boot() {
    let server = format!("{SERVER}boot:\n  default: qemu\n");
    let images = [
        ("debian", IMAGE),
        ("qemu", "dispname: QEMU\nmethod: extension\nrootfs: extension.squashfs\n"),
    ];
    let images = images.map(|(name, text)| (name.to_owned(), Some(text.to_owned()))).to_vec();
    expect(
        &Texts { images, ..texts(&server) },
        &[("Boottorrent.yaml:8", "there is no oss/qemu; there is debian")],
    );
}

#[test]
fn roots_in_memory_and_elsewhere_name_their_kernel() {
    let text = "dispname: D\nmethod: livenet\nrootfs: squashfs.img\n";
    let livenet = |kernel_version: Option<&str>, cmdline: &str| Loader::Livenet {
        rootfs: "squashfs.img".parse().unwrap(),
        kernel_version: kernel_version.map(|version| version.parse().unwrap()),
        cmdline: cmdline.to_owned(),
    };
    assert_eq!(image(text, &[]), Some(livenet(None, "")));
    let whole = format!("{text}kernel_version: 6.1.0-40-amd64\ncmdline: quiet ro\n");
    assert_eq!(image(&whole, &[]), Some(livenet(Some("6.1.0-40-amd64"), "quiet ro")));
    image("dispname: D\nmethod: livenet\n", &[(0, "write `rootfs: squashfs.img`")]);
    image(&format!("{text}kernel_version: newest\n"), &[(4, "no kernel's version")]);
    image(&format!("{text}kernel: vmlinuz\n"), &[(4, "warning: kernel means nothing")]);
    let text = "dispname: D\nmethod: nfs\nroot: 10.0.0.1:/srv/{node}\n";
    let nfs = Loader::Nfs {
        root: "10.0.0.1:/srv/{node}".to_owned(),
        options: "vers=4.2,rw".to_owned(),
        kernel_version: None,
        cmdline: String::new(),
    };
    assert_eq!(image(text, &[]), Some(nfs));
    image("dispname: D\nmethod: nfs\n", &[(0, "write `root: 10.0.0.1:/srv/nfs/root`")]);
    image(&format!("{text}options: vers=3\n"), &[(4, "NFS 4 over TCP alone")]);
}

#[test]
fn keys_of_other_methods_are_warned_of() {
    image(
        &format!("{IMAGE}args: -m 1G\n"),
        &[(6, "warning: args means nothing with method kexec")],
    );
}

#[test]
fn files_that_are_not_there_are_told_with_the_nearest() {
    let configuration = server(SERVER, &[]);
    let paths = ["vmlinuz-6.1", "initrd.img"];
    let mut problems = Problems::default();
    let image = &configuration.images[0];
    image.check_files(|path| paths.contains(&path), paths.into_iter(), &mut problems);
    let list: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(list, ["oss/debian/config.yaml:3: there is no file `vmlinuz` in oss/debian"]);
    let paths = ["vmlinux", "initrd.img"];
    let mut problems = Problems::default();
    image.check_files(|path| paths.contains(&path), paths.into_iter(), &mut problems);
    assert!(problems.to_string().ends_with("is vmlinux meant?"), "{problems}");
}

#[track_caller]
fn nodes(text: &str, problems: &[(&str, &str)]) -> Settings {
    let texts = Texts { nodes: Some(text.to_owned()), ..texts(SERVER) };
    expect(&texts, problems).settings
}

#[test]
fn nodes_have_what_their_group_has() {
    let settings = nodes(
        "groups:
  row-a: {image: debian, cmdline: console=ttyS0}
nodes:
  c001:
    mac: 52:54:00:12:34:01
    address: 10.0.0.7
    group: row-a
    cmdline: debug
  c002: {mac: 52-54-00-12-34-02}
",
        &[],
    );
    let [first, second] = settings.nodes.as_slice() else { panic!("{:?}", settings.nodes) };
    assert_eq!((first.name.as_str(), first.cmdline.as_str()), ("c001", "console=ttyS0 debug"));
    assert_eq!(first.image.as_ref().unwrap().as_str(), "debian");
    assert_eq!((second.image.as_ref(), second.cmdline.as_str()), (None, ""));
    let reservation = &settings.dhcp.reservations[0];
    assert_eq!(reservation.address, Ipv4Addr::new(10, 0, 0, 7));
    assert_eq!(reservation.hostname.as_deref(), Some("c001"));
}

#[test]
fn nodes_have_different_addresses() {
    nodes(
        "nodes:
  a: {mac: 525400123401, address: 10.0.0.7}
  b: {mac: 52:54:00:12:34:01, address: 10.0.0.7}
  c: {mac: 525400123403, address: 10.0.0.1}
  d: {}
",
        &[
            ("nodes.yaml:3", "nodes.b.address: 10.0.0.7 is also a's"),
            ("nodes.yaml:3", "nodes.b.mac: 52:54:00:12:34:01 is also a's"),
            ("nodes.yaml:4", "the server's own address"),
            ("nodes.yaml:5", "nodes.d.mac is missing"),
        ],
    );
}

#[test]
fn groups_and_keys_of_nodes_must_be_known() {
    nodes(
        "groups: {rack: {}}\nnodes:\n  a: {mac: 525400123401, group: rakc, imge: debian}\n",
        &[
            ("nodes.yaml:3", "there is no group `rakc`; is rack meant?"),
            ("nodes.yaml:3", "there is no key `imge`; is `image` meant?"),
        ],
    );
    nodes("nodes: [a, b]\n", &[("nodes.yaml:1", "write a line `NAME:` for each")]);
    nodes("", &[]);
}

#[test]
fn warnings_stop_nothing() {
    let (_, problems) = found(&texts(&with(SERVER, "ranges: 10.0.0.10-10.0.0.99", "mode: auto")));
    assert_eq!(problems[0].severity, Severity::Warning);
}

mod any_text {
    use proptest::prelude::*;

    use super::*;

    /// Files made of the words of real ones, so that most of them are YAML.
    fn text() -> impl Strategy<Value = String> {
        let keys =
            [keys::SERVER, keys::ORIGINAL, keys::IMAGE, keys::NODES, keys::NODE, keys::GROUP];
        let mut words: Vec<String> = keys
            .iter()
            .flat_map(|keys| keys.iter())
            .flat_map(|key| key.path.split('.').map(|word| format!("{word}:")))
            .collect();
        let other = ["\n", "\n  ", "\n    - ", " ", "{", "}", "[", "]", ",", "&a ", "*a", "|", "'"];
        let values = ["0", "-1", "debian", "10.0.0.1-10.0.0.9", "1h", "version: 1\n", "ä", "\u{0}"];
        words.extend(other.iter().chain(&values).map(|word| (*word).to_owned()));
        prop::collection::vec(prop::sample::select(words), 0..60).prop_map(|words| words.concat())
    }

    proptest! {
        #[test]
        fn no_text_is_too_strange(server in text(), nodes in text(), image in text()) {
            let images = vec![("debian".to_owned(), Some(image))];
            let texts = Texts { server, nodes: Some(nodes), images };
            let (configuration, problems) = found(&texts);
            let has_errors = problems.iter().any(|problem| problem.severity == Severity::Error);
            // What has no error can be published: there is an image, and it is the default.
            if !has_errors {
                prop_assert_eq!(configuration.settings.menu.default.as_str(), "debian");
                prop_assert_eq!(configuration.images.len(), 1);
            }
        }

        #[test]
        fn no_characters_are_too_strange(server in "\\PC{0,200}") {
            let _ = found(&texts(&server));
        }
    }
}

#[test]
fn a_certificate_has_a_key_and_a_password_is_better_encrypted() {
    let with = |lines: &str| format!("{SERVER}dashboard:\n{lines}");
    let missing = ("Boottorrent.yaml:7", "dashboard.key is missing");
    server(&with("  certificate: tls/boot.pem\n"), &[missing]);
    let both =
        with("  certificate: tls/boot.pem\n  key: /etc/boot.key\n  names: Boot.Example.ORG\n");
    let dashboard = server(&both, &[]).settings.dashboard;
    let tls = dashboard.tls.unwrap();
    assert_eq!((tls.port, tls.certificate), (8443, "/lab/tls/boot.pem".into()));
    assert_eq!(
        (tls.key, dashboard.names),
        ("/etc/boot.key".into(), vec!["boot.example.org".into()])
    );
    let hash = boot::PasswordHash::of("open sesame", [7; 16]).unwrap();
    let password = format!("  password: '{hash}'\n");
    server(&with(&password), &[("Boottorrent.yaml:8", "unencrypted")]);
    server(&format!("{both}{password}"), &[]);
    server(
        &with("  password: open sesame\n"),
        &[("Boottorrent.yaml:8", "is not the Argon2id hash")],
    );
    server(
        &with("  tls_port: 8080\n  certificate: c\n  key: k\n"),
        &[("Boottorrent.yaml", "both have TCP port 8080")],
    );
}

#[test]
fn what_becomes_of_unknown_nodes_is_said_in_both_files() {
    let unknown = format!("{SERVER}nodes: {{unknown: wait}}\n");
    let nodes = "ignored: [52:54:00:00:00:01, '525400000002']\n".to_owned();
    let settings = expect(&Texts { nodes: Some(nodes), ..texts(&unknown) }, &[]).settings;
    assert_eq!((settings.unknown, settings.ignored.len()), (Unknown::Wait, 2));
    assert_eq!(server(SERVER, &[]).settings.unknown, Unknown::Boot);
    let place = format!("Boottorrent.yaml:{}", unknown.lines().count());
    let with_pxelinux = format!("{unknown}phase1: {{loader: pxelinux}}\n");
    server(&with_pxelinux, &[(&place, "which PXELINUX cannot")]);
    server(&unknown.replace("wait", "wiat"), &[(&place, "wait")]);
    let history = unknown.replace("nodes: {unknown: wait}", "history: {keep: 30min}");
    server(&history, &[(&place, "less than an hour")]);
}
