//! What a boot looks like from outside.

use boot::report::{Card, Disk, Hardware, PARTS_MAX, Source};
use boot::stage::Progress;
use boot::{Failure, Firmware, Report};

use super::node::{BOOTS_MAX, EVENTS_MAX};
use super::proof::Proof;
use super::*;

const MAC: Mac = Mac([0x52, 0x54, 0, 0, 0, 1]);
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 50);

fn asked(asker: Asker) -> Event {
    Event::Asked { mac: MAC, asker }
}

fn firmware() -> Event {
    asked(Asker::Firmware(Firmware::Bios))
}

fn ipxe() -> Event {
    asked(Asker::Firmware(Firmware::Ipxe))
}

fn fetched(what: Fetched) -> Event {
    Event::Fetched { address: ADDRESS, service: Service::Tftp, what }
}

fn script() -> Event {
    let asked = ScriptAsked {
        mac: MAC,
        uuid: None,
        arch: None,
        firmware: Some(Firmware::Bios),
        address: None,
    };
    Event::script(ADDRESS, asked)
}

fn report(boot: u64, sequence: u64, stage: Stage) -> Event {
    let report = Report {
        node: MAC,
        boot,
        sequence,
        uptime_ms: 0,
        stage,
        machine: None,
        hardware: None,
        sources: vec![],
        log: vec![],
    };
    Event::reported(Some(ADDRESS), report)
}

fn downloading(verified_bytes: u64) -> Stage {
    Stage::Downloading(Progress {
        image: "debian".parse().unwrap(),
        verified_bytes,
        total_bytes: 100,
        rate_bytes_per_s: 0,
        peers: 1,
        uploaded_bytes: verified_bytes / 2,
        http: false,
    })
}

fn loading() -> Stage {
    Stage::Loading { image: "debian".parse().unwrap() }
}

/// The stages that the events lead to, one after the other, a second apart.
fn check(events: &[Event], expect: &[&str]) -> Fleet {
    let events: Vec<_> = (0..).zip(events.iter().cloned()).collect();
    check_at(&events, expect)
}

/// The stages that the events lead to, each with its second.
fn check_at(events: &[(u64, Event)], expect: &[&str]) -> Fleet {
    let mut fleet = Fleet::default();
    let mut stages = vec![];
    for (second, event) in events {
        fleet.handle(UnixMs(second * 1000), event);
        let stage = fleet.node(MAC).and_then(|node| node.summary.stage.as_ref());
        stages.push(stage.map_or("-", Stage::name));
    }
    assert_eq!(stages, expect);
    fleet
}

#[test]
fn a_boot_is_followed_from_power_on_to_its_system() {
    let fleet = check(
        &[
            firmware(),
            Event::Offered { mac: MAC, address: Some(ADDRESS) },
            Event::Leased { mac: MAC, address: ADDRESS },
            fetched(Fetched::BootProgram("undionly.kpxe".to_owned())),
            ipxe(),
            script(),
            fetched(Fetched::Phase1("vmlinuz")),
            asked(Asker::Agent),
            report(7, 1, Stage::Manifest),
            report(7, 2, downloading(50)),
            report(7, 3, Stage::Verified { image: "debian".parse().unwrap() }),
            report(7, 4, loading()),
            asked(Asker::System),
        ],
        &[
            "discovered",
            "offered",
            "offered",
            "bootloader",
            "bootloader",
            "bootloader",
            "bootloader",
            "lease",
            "manifest",
            "downloading",
            "verified",
            "loading",
            "booted",
        ],
    );
    let node = fleet.node(MAC).unwrap();
    assert_eq!(node.summary.image().unwrap().as_str(), "debian");
    assert_eq!((node.summary.boot_count, node.summary.uploads), (1, 25));
    assert_eq!(node.summary.address, Some(ADDRESS));
    assert_eq!(node.summary.firmware, Some(Firmware::Bios));
    assert_eq!(node.summary.since, UnixMs(12_000));
}

#[test]
fn a_node_that_seeds_under_its_system_says_so() {
    let seeding = |uploaded_bytes, paused| Stage::Booted {
        image: Some("debian".parse().unwrap()),
        seeding: Some(boot::stage::Seeding {
            uploaded_bytes,
            peers: 2,
            limit_bytes_per_s: None,
            paused,
        }),
    };
    let events = [report(7, 4, loading()), asked(Asker::System), report(7, 5, seeding(70, false))];
    let mut fleet = check(&events, &["loading", "booted", "booted"]);
    let text = |fleet: &Fleet| fleet.node(MAC).unwrap().summary.stage_text();
    assert_eq!(text(&fleet), "booted debian, seeding");
    assert_eq!(fleet.node(MAC).unwrap().summary.uploads, 70);
    fleet.handle(UnixMs(9_000), &report(7, 6, seeding(80, true)));
    assert_eq!(text(&fleet), "booted debian");
    assert_eq!(fleet.node(MAC).unwrap().summary.boot_count, 1);
}

#[test]
fn what_one_node_has_from_another_is_noted_with_that_one() {
    const GIVER: Mac = Mac([0x52, 0x54, 0, 0, 0, 9]);
    let giver_address = Ipv4Addr::new(10, 0, 0, 59);
    let mut fleet = Fleet::default();
    let asked = ScriptAsked { mac: GIVER, uuid: None, arch: None, firmware: None, address: None };
    fleet.handle(UnixMs(0), &Event::script(giver_address, asked));
    let takes = |sequence, bytes: Option<u64>| {
        let Event::Reported(mut said) = report(7, sequence, downloading(50)) else {
            panic!("not a report")
        };
        let report = said.what_mut();
        let source = |address: Ipv4Addr, bytes| Source { address: address.into(), bytes };
        // A server is no node, and nobody gives to itself.
        let server = Ipv4Addr::new(10, 0, 0, 1);
        report.sources = vec![source(server, 5), source(ADDRESS, 5)];
        report.sources.extend(bytes.map(|bytes| source(giver_address, bytes)));
        Event::Reported(said)
    };
    let mut check = |event: &Event, expect: u64| {
        fleet.handle(UnixMs(1_000), event);
        assert_eq!(fleet.node(GIVER).unwrap().summary.uploads, expect);
        assert_eq!(fleet.node(MAC).unwrap().summary.uploads, 25);
    };
    check(&takes(1, Some(30)), 30);
    check(&takes(2, Some(45)), 45);
    // It comes late.
    check(&takes(1, Some(30)), 45);
    // It leaves the list of the largest, and is in it again.
    check(&takes(3, None), 45);
    check(&takes(4, Some(50)), 50);
}

#[test]
fn firmware_that_asks_again_waits_for_its_answer() {
    let fleet = check(&[firmware(), firmware(), firmware()], &["discovered"; 3]);
    assert_eq!(fleet.node(MAC).unwrap().summary.boot_count, 1);
}

#[test]
fn firmware_that_asks_later_begins_a_new_boot() {
    let fleet = check_at(
        &[
            (0, firmware()),
            (1, report(7, 1, Stage::Agent)),
            (20, report(7, 2, downloading(10))),
            (40, firmware()),
        ],
        &["discovered", "agent", "downloading", "discovered"],
    );
    let node = fleet.node(MAC).unwrap();
    assert_eq!((node.summary.boot_count, node.summary.uploads), (2, 0));
    assert_eq!(node.past[0].stage, "downloading");
    assert_eq!(node.past[0].took_ms, 20_000);
}

#[test]
fn ipxe_in_the_rom_begins_a_boot_though_the_last_one_ended_in_its_script() {
    let fleet = check(&[ipxe(), script(), ipxe()], &["discovered", "bootloader", "discovered"]);
    assert_eq!(fleet.node(MAC).unwrap().summary.boot_count, 2);
}

#[test]
fn late_reports_change_nothing() {
    check_at(
        &[
            (0, report(7, 1, Stage::Agent)),
            (1, report(7, 3, loading())),
            (2, report(7, 2, downloading(1))),
            (3, report(7, 3, downloading(2))),
            (20, firmware()),
            (21, report(7, 9, downloading(3))),
            (22, report(8, 1, Stage::Agent)),
        ],
        &["agent", "loading", "loading", "loading", "discovered", "discovered", "agent"],
    );
}

#[test]
fn a_boot_that_dhcp_did_not_show_begins_with_its_first_report() {
    let fleet =
        check(&[report(7, 4, loading()), report(8, 1, Stage::Agent)], &["loading", "agent"]);
    let node = fleet.node(MAC).unwrap();
    assert_eq!((node.summary.boot_count, node.past.len()), (2, 1));
}

#[test]
fn a_system_is_the_images_only_after_the_agents_last_word() {
    let system = asked(Asker::System);
    check(
        &[report(7, 1, downloading(1)), system.clone(), report(7, 2, loading()), system],
        &["downloading", "downloading", "loading", "booted"],
    );
}

#[test]
fn a_system_after_a_failed_loading_is_the_images() {
    let failed = Stage::Failed { failure: Failure::Internal, reason: String::new(), retry_in_s: 4 };
    let events = [report(7, 1, loading()), report(7, 2, failed), asked(Asker::System)];
    let fleet = check(&events, &["loading", "failed", "booted"]);
    assert_eq!(fleet.node(MAC).unwrap().summary.image().unwrap().as_str(), "debian");
}

#[test]
fn a_system_can_say_itself_that_it_is_up() {
    check(
        &[report(7, 1, loading()), Event::Up(Proven::for_tests(UpSaid(MAC), Some(ADDRESS)))],
        &["loading", "booted"],
    );
}

#[test]
fn machines_that_do_not_boot_from_here_are_not_kept() {
    let fleet = check(
        &[
            asked(Asker::System),
            Event::Up(Proven::for_tests(UpSaid(MAC), Some(ADDRESS))),
            fetched(Fetched::Manifest),
        ],
        &["-"; 3],
    );
    assert_eq!(fleet.nodes().count(), 0);
}

#[test]
fn a_script_without_dhcp_of_ours_begins_a_boot() {
    let fleet = check(
        &[script(), report(7, 1, loading()), script()],
        &["bootloader", "loading", "bootloader"],
    );
    assert_eq!(fleet.node(MAC).unwrap().summary.boot_count, 2);
}

#[test]
fn changes_are_stages_and_quarters() {
    let mut fleet = Fleet::default();
    let mut lines = vec![];
    let stages = [0, 10, 24, 25, 99, 100].map(downloading);
    for (sequence, stage) in (1..).zip(stages) {
        let change = fleet.handle(UnixMs(0), &report(7, sequence, stage));
        lines.extend(change.map(|change| change.text));
    }
    let expect = [0, 25, 99, 100].map(|share| format!("downloading debian, {share} %"));
    assert_eq!(lines, expect);
}

#[test]
fn a_failure_says_what_and_when_again() {
    let mut fleet = Fleet::default();
    let stage = Stage::Failed {
        failure: Failure::NoLease,
        reason: "nobody\x1b[2J answered".to_owned(),
        retry_in_s: 4,
    };
    let change = fleet.handle(UnixMs(0), &report(7, 1, stage)).unwrap();
    assert_eq!(
        change.text,
        "failed BT21 no DHCP server answered: nobody [2J answered; tries again in 4 s"
    );
}

#[test]
fn an_address_is_that_of_one_node() {
    let other = Mac([0x52, 0x54, 0, 0, 0, 2]);
    let mut fleet = check(&[script()], &["bootloader"]);
    let asked = ScriptAsked { mac: other, uuid: None, arch: None, firmware: None, address: None };
    fleet.handle(UnixMs(1), &Event::script(ADDRESS, asked));
    assert_eq!(fleet.node(MAC).unwrap().summary.address, None);
    fleet.handle(UnixMs(2), &fetched(Fetched::Manifest));
    assert_eq!(fleet.node(other).unwrap().summary.seen, UnixMs(2));
}

#[test]
fn what_is_kept_of_a_node_is_limited() {
    let mut fleet = Fleet::default();
    for boot in 0..100 {
        let mut event = report(boot, 1, downloading(boot));
        if let Event::Reported(said) = &mut event {
            let report = said.what_mut();
            report.log = vec!["x".repeat(9999); 99];
            report.hardware = Some(storage_server());
        }
        fleet.handle(UnixMs(boot), &event);
        fleet.handle(UnixMs(boot), &report(boot, 2, loading()));
    }
    let node = fleet.node(MAC).unwrap();
    assert_eq!((node.events.len(), node.past.len()), (EVENTS_MAX, BOOTS_MAX));
    let hardware = &node.hardware;
    assert_eq!((hardware.disks.len(), hardware.cards.len()), (PARTS_MAX, PARTS_MAX));
    assert_eq!(hardware.disks[0].model.as_deref(), Some("Drum [2J"));
    let text = serde_json::to_string(node).unwrap();
    assert!(text.len() < 20 << 10, "{}", text.len());
}

/// More than is kept of it.
fn storage_server() -> Hardware {
    let disk = Disk { name: "x".repeat(999), len_bytes: 1, model: Some("Drum\x1b[2J".to_owned()) };
    let card = Card { name: "y".repeat(999), mac: MAC, driver: None, mbit_per_s: None };
    Hardware { processor: None, disks: vec![disk; 99], cards: vec![card; 99] }
}

fn stranger(number: usize) -> Event {
    let [.., a, b, c] = number.to_be_bytes();
    let asker = Asker::Firmware(Firmware::Bios);
    Event::Asked { mac: Mac([2, 0, 0, a, b, c]), asker }
}

#[test]
fn a_flood_of_strangers_pushes_out_nobody_who_boots_or_is_known() {
    let known = Mac([0x52, 0x54, 0, 0, 0, 9]);
    let mut fleet = check(&[firmware(), script()], &["discovered", "bootloader"]);
    fleet.configure(UnixMs(0), &BTreeMap::from([(known, Some("c001".to_owned()))]));
    for number in 0..STRANGERS_MAX + 1000 {
        fleet.handle(UnixMs(number as u64), &stranger(number));
    }
    assert_eq!(fleet.nodes().count(), STRANGERS_MAX + 1);
    // Who only asks gives way to who asks later, so that a late node is seen.
    assert_eq!(fleet.refused_count(), 0);
    assert!(fleet.node(MAC).is_some());
    assert_eq!(fleet.node(known).unwrap().label(), "c001");
}

#[test]
fn what_is_long_ago_is_forgotten_with_strangers_that_were_silent_since() {
    let named = Mac([2, 0, 0, 0, 0, 1]);
    let mut fleet = Fleet::default();
    let boot = |fleet: &mut Fleet, at, boot| {
        fleet.handle(UnixMs(at), &report(boot, 1, loading()));
    };
    fleet.handle(UnixMs(10), &stranger(1));
    fleet.handle(UnixMs(10), &stranger(2));
    for at in [20, 30, 40] {
        boot(&mut fleet, at, at);
    }
    fleet.configure(UnixMs(40), &BTreeMap::from([(named, None)]));
    fleet.take_changed();
    fleet.forget_until(UnixMs(30));
    let macs: Vec<Mac> = fleet.nodes().map(|node| node.summary.mac).collect();
    assert_eq!(macs, [named, MAC], "who has a name stays");
    let node = fleet.node(MAC).unwrap();
    assert_eq!(node.past.iter().map(|boot| boot.began.0).collect::<Vec<_>>(), [30]);
    assert!(node.events.iter().all(|event| event.at >= UnixMs(30)), "{:?}", node.events);
    let dirty: Vec<bool> =
        fleet.take_changed().iter().map(|(mac, _)| fleet.node(*mac).is_some()).collect();
    assert_eq!(dirty, [true, false, true], "all three are written, the stranger as gone");
    fleet.forget_until(UnixMs(30));
    assert!(fleet.take_changed().is_empty());
}

#[test]
fn a_nodes_standing_is_what_the_lab_says_of_it() {
    let [named, ignored, other] = [1, 2, 3].map(|last| Mac([2, 0, 0, 0, 0, last]));
    let mut fleet = Fleet::default();
    for number in [1, 2] {
        fleet.handle(UnixMs(0), &stranger(number));
    }
    let mut check = |boot, are_listed, expect: [Standing; 3]| {
        let ignored = BTreeSet::from([ignored]);
        fleet.receive(Strangers { boot, are_listed, ignored: ignored.clone() });
        fleet.configure(UnixMs(1), &BTreeMap::from([(named, Some("c001".to_owned()))]));
        // Who comes later is received in the same way.
        fleet.handle(UnixMs(2), &stranger(3));
        let standing = [named, Mac([2, 0, 0, 0, 0, 2]), other]
            .map(|mac| fleet.node(mac).unwrap().summary.standing);
        assert_eq!(standing, expect);
    };
    check(true, true, [Standing::Known, Standing::Ignored, Standing::Pending]);
    check(false, true, [Standing::Known, Standing::Ignored, Standing::Waiting]);
    check(false, false, [Standing::Known, Standing::Ignored, Standing::Ignored]);
}

#[test]
fn when_all_boot_a_newcomer_waits_until_one_is_silent_for_an_hour() {
    let mut fleet = Fleet::default();
    let boots = |number: usize| {
        let [.., a, b, c] = number.to_be_bytes();
        let mac = Mac([2, 0, 0, a, b, c]);
        let asked = ScriptAsked { mac, uuid: None, arch: None, firmware: None, address: None };
        Event::script(Ipv4Addr::from_bits(number as u32), asked)
    };
    for number in 0..STRANGERS_MAX {
        fleet.handle(UnixMs(0), &boots(number));
    }
    fleet.handle(UnixMs(STRANGER_KEPT_MS), &boots(STRANGERS_MAX));
    assert_eq!((fleet.nodes().count(), fleet.refused_count()), (STRANGERS_MAX, 1));
    assert!(fleet.handle(UnixMs(STRANGER_KEPT_MS + 1), &boots(STRANGERS_MAX)).is_some());
    assert_eq!((fleet.nodes().count(), fleet.refused_count()), (STRANGERS_MAX, 1));
}

#[test]
fn a_node_survives_as_text() {
    let fleet = check(&[firmware(), report(7, 1, loading())], &["discovered", "loading"]);
    let mut node = fleet.node(MAC).unwrap().clone();
    // Each run of the server counts its own.
    assert_eq!(std::mem::take(&mut node.summary.revision), fleet.revision());
    let text = serde_json::to_string(&node).unwrap();
    assert_eq!(serde_json::from_str::<Node>(&text).unwrap(), node);
    let restored = Fleet::restore([node.clone()], &BTreeMap::new());
    assert_eq!(restored.node(MAC), Some(&node));
    let never = Node::new(MAC, UnixMs(1));
    let text = serde_json::to_string(&never).unwrap();
    assert_eq!(serde_json::from_str::<Node>(&text).unwrap(), never);
}

#[test]
fn the_timeline_of_a_boot_stays_when_the_next_one_begins() {
    let failed = Stage::Failed {
        failure: Failure::NoCarrier,
        reason: "eth0 \x1b[2J".to_owned(),
        retry_in_s: 4,
    };
    let events = [report(7, 1, Stage::Link), report(7, 2, failed), report(7, 3, loading())];
    let mut fleet = check(&events, &["link", "failed", "loading"]);
    fleet.handle(UnixMs(60_000), &report(8, 1, Stage::Agent));
    let node = fleet.node(MAC).unwrap();
    let words = |steps: &VecDeque<Step>| -> Vec<_> {
        steps.iter().map(|step| (step.stage.as_str(), step.at.0)).collect()
    };
    assert_eq!(words(&node.steps), [("agent", 60_000)]);
    assert_eq!(words(&node.past[0].steps), [("link", 0), ("failed", 1000), ("loading", 2000)]);
    let last = node.summary.last_failure.as_ref().unwrap();
    assert_eq!((last.failure, last.reason.as_str()), (Failure::NoCarrier, "eth0  [2J"));
}

#[test]
fn who_asks_for_what_changed_hears_of_who_is_gone() {
    let mut fleet = check(&[firmware()], &["discovered"]);
    let before = fleet.revision();
    assert_eq!(fleet.gone_after(before), Some(vec![]));
    fleet.forget(MAC);
    assert_eq!(fleet.gone_after(before), Some(vec![MAC]));
    for last in 0..=u8::MAX {
        fleet.forget(Mac([2, 0, 0, 0, 0, last]));
    }
    assert_eq!(fleet.gone_after(before), None);
    assert_eq!(fleet.gone_after(fleet.revision()), Some(vec![]));
}

#[test]
fn nodes_that_download_are_counted_as_long_as_they_say_so() {
    let fleet = check(&[report(7, 1, downloading(10))], &["downloading"]);
    let count = |name: &str, ms| fleet.downloading(&name.parse().unwrap(), UnixMs(ms));
    assert_eq!(count("debian", 14_999), 1);
    assert_eq!(count("arch", 0), 0);
    // It was switched off.
    assert_eq!(count("debian", 15_000), 0);
}

#[test]
fn an_address_is_worth_what_is_known_of_its_node() {
    let mut fleet = Fleet::default();
    assert_eq!(fleet.priority(ADDRESS), Priority::Stranger);
    fleet.handle(UnixMs(1), &firmware());
    fleet.handle(UnixMs(2), &Event::Leased { mac: MAC, address: ADDRESS });
    assert_eq!(fleet.priority(ADDRESS), Priority::Leased);
    fleet.configure(UnixMs(3), &BTreeMap::from([(MAC, None)]));
    assert_eq!(fleet.priority(ADDRESS), Priority::Named);
}

#[test]
fn a_node_whose_agent_speaks_was_not_switched_off_whatever_dhcp_says_in_its_name() {
    let fleet = check_at(
        &[
            (0, report(7, 1, Stage::Agent)),
            (1, firmware()),
            (2, report(7, 2, downloading(1))),
            // Not even if its agent was silent for a while.
            (20, firmware()),
            (30, report(7, 3, downloading(2))),
        ],
        &["agent", "agent", "downloading", "discovered", "downloading"],
    );
    assert_eq!(fleet.node(MAC).unwrap().boot_in_reach(UnixMs(30_000), 5_000).unwrap().boot, 7);
}

#[test]
fn nodes_of_the_lab_are_restored_before_strangers() {
    let stranger = |number: u32| {
        let [.., a, b] = number.to_be_bytes();
        Node::new(Mac([2, 0, 0, 0, a, b]), UnixMs(9_000))
    };
    let nodes = (0..STRANGERS_MAX as u32 + 10).map(stranger);
    let named = Node::new(MAC, UnixMs(1));
    let known = BTreeMap::from([(MAC, Some("c001".to_owned()))]);
    let fleet = Fleet::restore(nodes.chain([named]), &known);
    assert!(fleet.node(MAC).is_some());
    assert_eq!(fleet.nodes().count(), STRANGERS_MAX + 1);
}

/// Who is believed that says something for [`MAC`] from `last`.
fn believed(fleet: &Fleet, last: u8, proof: Option<Proof>, segment: Segment) -> Option<Ground> {
    let address = Some(Ipv4Addr::new(10, 0, 0, last));
    let caller = Caller { address, is_own: false, proof };
    let proven = fleet.prove(UnixMs(20_000), &caller, UpSaid(MAC), Some(segment));
    proven.ok().map(|proven| proven.ground())
}

#[test]
fn who_has_the_lease_is_the_node_and_nobody_else() {
    let mut fleet = Fleet::default();
    fleet.set_dhcp(DhcpRole::Leases);
    fleet.handle(UnixMs(1), &firmware());
    // Before it has one, the Ethernet address on the wire is all there is.
    let here = Ground::Seen(Sight::Neighbour);
    assert_eq!(believed(&fleet, 50, None, Segment::At(MAC)), Some(here));
    assert_eq!(believed(&fleet, 50, None, Segment::Unknown), None);
    fleet.handle(UnixMs(2), &Event::Leased { mac: MAC, address: ADDRESS });
    let lease = Ground::Seen(Sight::Lease);
    assert_eq!(believed(&fleet, 50, None, Segment::Unknown), Some(lease));
    for segment in [Segment::At(MAC), Segment::Beyond, Segment::Unknown] {
        assert_eq!(believed(&fleet, 66, None, segment), None, "{segment:?}");
    }
    // Somebody else leases the address.
    let other = Mac([2, 0, 0, 0, 0, 9]);
    let asker = Asker::Firmware(Firmware::Bios);
    fleet.handle(UnixMs(3), &Event::Asked { mac: other, asker });
    fleet.handle(UnixMs(4), &Event::Leased { mac: other, address: ADDRESS });
    assert_eq!(believed(&fleet, 50, None, Segment::Unknown), None);
    assert_eq!(believed(&fleet, 50, None, Segment::At(MAC)), None);
    // Once somebody else leases, old leases say nothing.
    fleet.set_dhcp(DhcpRole::Beside);
    assert_eq!(believed(&fleet, 50, None, Segment::At(MAC)), Some(here));
}

#[test]
fn beside_another_dhcp_server_the_wire_says_who_it_is_or_who_came_first() {
    let mut fleet = Fleet::default();
    fleet.set_dhcp(DhcpRole::Beside);
    assert_eq!(believed(&fleet, 50, None, Segment::Beyond), None, "nobody asked for a boot");
    fleet.handle(UnixMs(1), &firmware());
    fleet.handle(UnixMs(2), &Event::Offered { mac: MAC, address: None });
    assert_eq!(believed(&fleet, 50, None, Segment::At(Mac([2; 6]))), None);
    let first = Ground::Seen(Sight::Said);
    assert_eq!(believed(&fleet, 50, None, Segment::Beyond), Some(first));
    let caller = Caller { address: Some(ADDRESS), ..Caller::default() };
    let asked = ScriptAsked { mac: MAC, uuid: None, arch: None, firmware: None, address: None };
    let proven = fleet.prove(UnixMs(3), &caller, asked, Some(Segment::Beyond)).unwrap();
    fleet.handle(UnixMs(15_000), &Event::Script(proven));
    assert_eq!(believed(&fleet, 50, None, Segment::Beyond), Some(first));
    assert_eq!(believed(&fleet, 66, None, Segment::Beyond), None, "another came first");
}

#[test]
fn a_secret_counts_from_anywhere_until_a_later_one_was_used() {
    let mut fleet = Fleet::default();
    fleet.set_dhcp(DhcpRole::Leases);
    let proof = |issued| Some(Proof::for_tests(MAC, UnixMs(issued)));
    let ground = Ground::Proof(UnixMs(7));
    assert_eq!(believed(&fleet, 66, proof(7), Segment::Unknown), Some(ground));
    let caller = Caller { proof: proof(8), ..Caller::default() };
    let proven = fleet.prove(UnixMs(9), &caller, UpSaid(MAC), None).unwrap();
    fleet.handle(UnixMs(1), &firmware());
    fleet.handle(UnixMs(9), &Event::Up(proven));
    assert_eq!(believed(&fleet, 66, proof(7), Segment::Unknown), None);
    let of_another = Some(Proof::for_tests(Mac([2; 6]), UnixMs(10)));
    assert_eq!(believed(&fleet, 66, of_another, Segment::Unknown), None);
}
