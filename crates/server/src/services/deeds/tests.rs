//! What is done, without HTTP: in a lab on the disk, with a server that only seems to read it again.

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};

use boot::{Report, Stage};

use super::*;
use crate::fleet::{Event, Fleet};
use crate::lab::config::NODES_FILE;
use crate::lab::test_lab::TestLab;

const KNOWN: Mac = Mac([0x52, 0x54, 0, 0, 0, 1]);
const STRANGER: Mac = Mac([0x52, 0x54, 0, 0, 0, 9]);

struct Test {
    lab: TestLab,
    fleet: SharedFleet,
    next: NextBoots,
    deeds: Deeds,
    reload_count: Arc<AtomicUsize>,
}

impl Test {
    /// `c001` is named, and a stranger was seen.
    fn new() -> Self {
        let lab = TestLab::new();
        lab.put(NODES_FILE, "nodes:\n  c001: {mac: 52:54:00:00:00:01}\n");
        let fleet = SharedFleet::new(Fleet::default());
        let known = [(KNOWN, Some("c001".to_owned()))].into();
        fleet.lock().configure(UnixMs::now(), &known);
        fleet.tell(&report(STRANGER, 7, Stage::Menu));
        let reload_count = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&reload_count);
        let reload: Tell<Changes> = Arc::new(move || {
            count.fetch_add(1, Ordering::Relaxed);
            Box::pin(async { Ok(Changes::default()) })
        });
        let next = NextBoots::default();
        let settings = Settings::for_tests(lab.dir());
        let deeds = Deeds::new(settings, fleet.clone(), next.clone(), Orders::default(), reload);
        Self { lab, fleet, next, deeds, reload_count }
    }

    async fn perform(&self, deed: Deed) -> Result<Done, Refusal> {
        self.deeds.perform(deed).await
    }

    fn nodes_file(&self) -> String {
        fs::read_to_string(self.lab.path(NODES_FILE)).unwrap()
    }
}

fn report(node: Mac, boot: u64, stage: Stage) -> Event {
    let report = Report {
        node,
        boot,
        sequence: 1,
        uptime_ms: 1,
        stage,
        machine: None,
        hardware: None,
        sources: vec![],
        log: vec![],
    };
    Event::reported(None, report)
}

fn debian() -> NextBoot {
    NextBoot::Image("debian".parse().unwrap())
}

#[tokio::test]
async fn an_assignment_is_written_and_read_and_can_be_taken_back() {
    let test = Test::new();
    let before = test.nodes_file();
    let cmdline = Some("quiet".to_owned());
    let deed = Deed::Assign { nodes: vec![KNOWN], boot: debian(), cmdline };
    assert_eq!(test.perform(deed).await.unwrap().text, "c001 boot debian");
    let expect = "mac: 52:54:00:00:00:01, image: debian, cmdline: quiet}";
    assert!(test.nodes_file().contains(expect), "{}", test.nodes_file());
    let deed = Deed::Unassign { nodes: vec![KNOWN] };
    test.perform(deed).await.unwrap();
    assert_eq!(test.nodes_file(), before);
    assert_eq!(test.reload_count.load(Ordering::Relaxed), 2);
    let fleet = test.fleet.lock();
    let events = &fleet.node(KNOWN).unwrap().events;
    assert_eq!(events[0].text, "is to boot debian from now on");
}

#[tokio::test]
async fn what_cannot_be_assigned_leaves_everything_as_it_was() {
    let test = Test::new();
    let before = test.nodes_file();
    let check = async |nodes: Vec<Mac>, image: &str, expect: &str| {
        let boot = NextBoot::Image(image.parse().unwrap());
        let refusal = test.perform(Deed::Assign { nodes, boot, cmdline: None }).await.unwrap_err();
        assert!(matches!(&refusal, Refusal::Conflict(text) if text.contains(expect)), "{refusal}");
        assert_eq!(test.nodes_file(), before);
    };
    check(vec![KNOWN], "other", "there is no oss/other").await;
    check(vec![KNOWN, STRANGER], "debian", "accept it first").await;
    assert_eq!(test.reload_count.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn the_next_boot_alone_changes_no_file() {
    let test = Test::new();
    let before = test.nodes_file();
    let deed = Deed::AssignOnce { nodes: vec![STRANGER], boot: NextBoot::Disk };
    test.perform(deed).await.unwrap();
    assert_eq!(test.nodes_file(), before);
    // Known to who hands out scripts.
    assert_eq!(test.next.decide(&[], &NextBoot::Disk).unwrap(), 0);
}

#[tokio::test]
async fn a_stranger_is_accepted_once_and_under_a_name_of_its_own() {
    let test = Test::new();
    let accept = async |node, name: Option<&str>| {
        test.perform(Deed::Accept { node, name: name.map(str::to_owned), image: None }).await
    };
    test.perform(Deed::Ignore { nodes: vec![STRANGER] }).await.unwrap();
    assert!(test.nodes_file().contains("ignored:\n  - '52:54:00:00:00:09'\n"));
    let named = test.perform(Deed::Ignore { nodes: vec![KNOWN] }).await.unwrap_err();
    assert!(matches!(named, Refusal::Conflict(_)), "{named}");
    let taken = accept(STRANGER, Some("c001")).await.unwrap_err();
    assert!(taken.to_string().contains("`c001` already"), "{taken}");
    accept(STRANGER, None).await.unwrap();
    let expect = "  n-525400000009: {mac: '52:54:00:00:00:09'}\n";
    assert!(test.nodes_file().contains(expect), "{}", test.nodes_file());
    assert!(!test.nodes_file().contains("- '52"), "it is not ignored any more");
    let again = accept(KNOWN, Some("c002")).await.unwrap_err();
    assert!(again.to_string().contains("it is c001"), "{again}");
}

#[tokio::test]
async fn power_is_the_hooks_that_the_lab_names_at_that_moment() {
    let test = Test::new();
    let power = async |nodes: &[Mac], action| {
        test.perform(Deed::Power { nodes: nodes.to_vec(), action }).await
    };
    let none = power(&[KNOWN], Action::On).await.unwrap_err();
    assert!(matches!(&none, Refusal::Conflict(text) if text.contains("power.md")), "{none}");
    let settings = fs::read_to_string(test.lab.path("Boottorrent.yaml")).unwrap();
    test.lab.put("Boottorrent.yaml", &format!("{settings}power: {{hook: [echo, it is on]}}\n"));
    let done = power(&[KNOWN, STRANGER], Action::Status).await.unwrap();
    assert_eq!(done.told[0].text, "it is on c001 52:54:00:00:00:01 status");
    assert_eq!((done.nodes, done.refused[0].node), (vec![KNOWN], STRANGER));
    test.lab.put("Boottorrent.yaml", &format!("{settings}power: {{hook: 'false'}}\n"));
    let failed = power(&[KNOWN], Action::Off).await.unwrap_err();
    assert!(failed.to_string().contains("exit status: 1"), "{failed}");
}

#[tokio::test]
async fn only_a_node_whose_agent_is_heard_can_be_told_to_start_anew() {
    let test = Test::new();
    let reboot = async |nodes| test.perform(Deed::Reboot { nodes }).await;
    assert!(matches!(reboot(vec![KNOWN]).await, Err(Refusal::Conflict(_))));
    let done = reboot(vec![KNOWN, STRANGER]).await.unwrap();
    assert_eq!((done.nodes, done.refused.len()), (vec![STRANGER], 1));
    // A kernel of the image's own has taken its place.
    test.fleet.tell(&report(STRANGER, 8, Stage::Loading { image: "debian".parse().unwrap() }));
    assert!(matches!(reboot(vec![STRANGER]).await, Err(Refusal::Conflict(_))));
}

impl Test {
    /// `debian` was built twice: nodes boot the second version.
    fn with_versions() -> Self {
        let test = Self::new();
        let second = "state/images/debian/versions";
        let data = |version: u32| {
            format!(
                "image_data:\n  name: debian\n  image_class: LivenetImage\n  version: {version}\n"
            )
        };
        let config = "dispname: Debian one\nmethod: livenet\nrootfs: squashfs.img\n";
        test.lab.put(&format!("{second}/1/config.yaml"), config);
        test.lab.put(&format!("{second}/1/squashfs.img"), "a root");
        test.lab.put(&format!("{second}/1/image_data.yml"), &data(1));
        test.lab.put("oss/debian/squashfs.img", "another root");
        test.lab.put("oss/debian/image_data.yml", &data(2));
        test
    }

    fn versions(&self) -> (Option<u32>, Vec<u32>) {
        let debian: ImageName = "debian".parse().unwrap();
        let all = self.deeds.versions().of(|| vec![debian.clone()]);
        let of = &all[&debian];
        let kept = of.kept.iter().map(|version| version.number);
        (of.current.as_ref().map(|version| version.number), kept.collect())
    }
}

fn rollback(to: Option<u32>) -> Deed {
    Deed::Rollback { image: "debian".parse().unwrap(), to }
}

#[tokio::test]
async fn an_image_goes_back_to_a_kept_version_and_forth() {
    let test = Test::with_versions();
    assert_eq!(test.versions(), (Some(2), vec![1]));
    let done = test.perform(rollback(None)).await.unwrap();
    assert_eq!((done.version, done.text.as_str()), (Some(1), "debian is back: version 1"));
    assert_eq!(test.versions(), (Some(1), vec![2]));
    let none = test.perform(rollback(Some(7))).await.unwrap_err();
    assert!(matches!(&none, Refusal::Conflict(text) if text.contains("kept: 2")), "{none}");
    assert_eq!(test.perform(rollback(Some(2))).await.unwrap().version, Some(2));
    assert_eq!(test.reload_count.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn an_image_is_published_anew_with_another_title() {
    let test = Test::with_versions();
    let title = Some("Debian for all".to_owned());
    let deed = Deed::Publish { image: "debian".parse().unwrap(), title, cmdline: None };
    let done = test.perform(deed).await.unwrap();
    assert_eq!((done.version, test.versions()), (Some(3), (Some(3), vec![1, 2])));
    let config = fs::read_to_string(test.lab.path("oss/debian/config.yaml")).unwrap();
    assert!(config.contains("dispname: \"Debian for all\""), "{config}");
}

#[tokio::test]
async fn what_is_no_built_image_is_refused_in_words() {
    let test = Test::new();
    let by_hand = test.perform(rollback(None)).await.unwrap_err();
    assert!(matches!(&by_hand, Refusal::Conflict(text) if text.contains("by hand")), "{by_hand}");
    let deed = Deed::Rollback { image: "other".parse().unwrap(), to: None };
    assert!(matches!(test.perform(deed).await.unwrap_err(), Refusal::Missing(_)));
    assert_eq!(test.versions(), (None, vec![]));
}

#[tokio::test]
async fn a_version_with_which_the_lab_would_be_wrong_is_taken_back() {
    let mut test = Test::with_versions();
    let wrong: Tell<Changes> = Arc::new(|| Box::pin(async { Err("two titles".to_owned()) }));
    let settings = Settings::for_tests(test.lab.dir());
    let (next, orders) = (test.next.clone(), Orders::default());
    test.deeds = Deeds::new(settings, test.fleet.clone(), next, orders, wrong);
    let refusal = test.perform(rollback(None)).await.unwrap_err();
    let expect = "it stays at version 2: two titles";
    assert!(matches!(&refusal, Refusal::Conflict(text) if text == expect), "{refusal}");
    assert_eq!(test.versions(), (Some(2), vec![1]));
}
