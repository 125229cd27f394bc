use std::cell::Cell;
use std::collections::BTreeMap;
use std::panic::{self, AssertUnwindSafe};

use proptest::prelude::*;

use std::fs;

use super::*;

thread_local! {
    /// How many more changes of the disk this thread survives.
    static LEFT: Cell<Option<usize>> = const { Cell::new(None) };
}

pub(super) fn die_at_the_chosen_moment() {
    LEFT.with(|left| match left.get() {
        Some(0) => panic::resume_unwind(Box::new("died")),
        Some(count) => left.set(Some(count - 1)),
        None => {}
    });
}

/// A machine whose processes have all ended: every build of before was killed.
struct Afterwards;

impl Processes for Afterwards {
    fn boot_id(&self) -> String {
        "a".to_owned()
    }

    fn start_time(&self, _: u32) -> Option<u64> {
        None
    }
}

fn catalogue(lab: &Path) -> Catalogue {
    Catalogue::new(lab)
}

/// Publishes a version of which `content` is all that there is.
fn publish(lab: &Path, name: &str, purpose: Purpose, content: &str) -> Result<u32, ImageError> {
    let catalogue = catalogue(lab);
    let build = catalogue.begin(name, "DemoImage", purpose)?;
    fs::write(build.output().join("content"), content).unwrap();
    moment();
    build.publish(ImageData::default())
}

fn content(lab: &Path, name: &str) -> Option<String> {
    fs::read_to_string(catalogue(lab).folder(name).join("content")).ok()
}

/// The contents of all versions that are kept, by number.
fn kept(lab: &Path, name: &str) -> BTreeMap<u32, String> {
    let versions = catalogue(lab).versions(name).unwrap();
    let read = |folder: PathBuf| fs::read_to_string(folder.join("content")).unwrap();
    versions.into_iter().map(|(number, folder)| (number, read(folder))).collect()
}

/// Does something that dies after `moments` changes of the disk; whether it died.
fn dies_after(moments: usize, work: impl FnOnce()) -> bool {
    LEFT.set(Some(moments));
    let died = panic::catch_unwind(AssertUnwindSafe(work)).is_err();
    LEFT.set(None);
    died
}

#[test]
fn a_version_takes_the_place_of_the_one_before_which_is_kept() {
    let lab = tempfile::tempdir().unwrap();
    assert_eq!(publish(lab.path(), "a", Purpose::Create, "one").unwrap(), 1);
    assert_eq!(publish(lab.path(), "a", Purpose::Change, "two").unwrap(), 2);
    assert_eq!(content(lab.path(), "a").as_deref(), Some("two"));
    assert_eq!(kept(lab.path(), "a"), [(1, "one".to_owned())].into());
}

#[test]
fn rollback_goes_back_and_forth_and_loses_nothing() {
    let lab = tempfile::tempdir().unwrap();
    publish(lab.path(), "a", Purpose::Create, "one").unwrap();
    publish(lab.path(), "a", Purpose::Change, "two").unwrap();
    let catalogue = catalogue(lab.path());
    assert_eq!(catalogue.rollback("a", None).unwrap(), 1);
    assert_eq!(content(lab.path(), "a").as_deref(), Some("one"));
    let error = catalogue.rollback("a", None).unwrap_err().to_string();
    assert!(error.contains("no version before 1") && error.contains("kept: 2"), "{error}");
    assert_eq!(catalogue.rollback("a", Some(2)).unwrap(), 2);
    assert_eq!(content(lab.path(), "a").as_deref(), Some("two"));
    // A change after a rollback gets a number that no other has had.
    catalogue.rollback("a", None).unwrap();
    assert_eq!(publish(lab.path(), "a", Purpose::Change, "three").unwrap(), 3);
    assert_eq!(kept(lab.path(), "a").len(), 2);
}

#[test]
fn only_the_last_versions_are_kept() {
    let lab = tempfile::tempdir().unwrap();
    publish(lab.path(), "a", Purpose::Create, "0").unwrap();
    for number in 1..=VERSIONS_KEPT + 2 {
        publish(lab.path(), "a", Purpose::Change, &number.to_string()).unwrap();
    }
    let numbers: Vec<u32> = kept(lab.path(), "a").into_keys().collect();
    assert_eq!(numbers.len(), VERSIONS_KEPT);
    assert_eq!(numbers.last().copied(), u32::try_from(VERSIONS_KEPT + 2).ok());
}

#[test]
fn two_builds_of_one_name_are_refused_and_of_two_names_are_not() {
    let lab = tempfile::tempdir().unwrap();
    let catalogue = catalogue(lab.path());
    let _first = catalogue.begin("a", "DemoImage", Purpose::Create).unwrap();
    let error = catalogue.begin("a", "DemoImage", Purpose::Create).err().unwrap().to_string();
    assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
    assert!(catalogue.begin("b", "DemoImage", Purpose::Create).is_ok());
}

#[test]
fn a_build_that_fails_leaves_nothing() {
    let lab = tempfile::tempdir().unwrap();
    let catalogue = catalogue(lab.path());
    drop(catalogue.begin("a", "DemoImage", Purpose::Create).unwrap());
    assert_eq!(catalogue.list().unwrap(), []);
    assert_eq!(names_in(&catalogue.state().join("builds")).unwrap(), Vec::<String>::new());
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    let lab = tempfile::tempdir().unwrap();
    for name in ["", "..", "a/b", "a b", ".a", "ä"] {
        let error = catalogue(lab.path()).begin(name, "DemoImage", Purpose::Create).err().unwrap();
        assert!(error.to_string().contains("use letters, digits and - _ . +"), "{error}");
    }
}

#[test]
fn states_are_told_apart() {
    let lab = tempfile::tempdir().unwrap();
    publish(lab.path(), "made", Purpose::Create, "x").unwrap();
    fs::create_dir_all(lab.path().join("oss/by-hand")).unwrap();
    let catalogue = catalogue(lab.path());
    let _build = catalogue.begin("under-way", "DemoImage", Purpose::Create).unwrap();
    let killed = Installation {
        image_class: "DemoImage".to_owned(),
        pid: std::process::id(),
        start_time: 1,
        boot_id: String::new(),
    };
    let installations = catalogue.installations();
    installations.change(|table| Ok(table.insert("killed".to_owned(), killed))).unwrap();
    let listed = catalogue.list().unwrap();
    let states: Vec<_> = listed.iter().map(|it| (it.name.as_str(), it.status)).collect();
    let pid = std::process::id();
    assert_eq!(
        states,
        [
            ("by-hand", Status::Created),
            ("killed", Status::Corrupted),
            ("made", Status::Created),
            ("under-way", Status::InCreation { pid }),
        ]
    );
    assert_eq!(catalogue.clean().unwrap(), ["killed"]);
    assert_eq!(catalogue.list().unwrap().len(), 3);
}

#[test]
fn a_removed_image_is_gone_with_all_its_versions() {
    let lab = tempfile::tempdir().unwrap();
    publish(lab.path(), "a", Purpose::Create, "one").unwrap();
    publish(lab.path(), "a", Purpose::Change, "two").unwrap();
    catalogue(lab.path()).remove("a").unwrap();
    assert_eq!(catalogue(lab.path()).list().unwrap(), []);
    assert!(!catalogue(lab.path()).belongings("a").exists());
    let error = catalogue(lab.path()).remove("a").unwrap_err();
    assert!(matches!(error, ImageError::NoSuchImage(_)), "{error}");
}

/// What the model knows: the content that nodes boot, and what came before it.
#[derive(Clone, Debug)]
enum Action {
    Create,
    Change,
    Rollback,
    Remove,
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        1 => Just(Action::Create),
        4 => Just(Action::Change),
        2 => Just(Action::Rollback),
        1 => Just(Action::Remove),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is done, and wherever it dies: after the next command's cleaning nodes boot either
    /// what they did before or what was to come, whole; every version that is kept is what it says;
    /// and nothing of the build is left.
    #[test]
    fn a_crash_at_any_step_loses_nothing(
        actions in prop::collection::vec((action(), 0_usize..14), 1..10)
    ) {
        let lab = tempfile::tempdir().unwrap();
        let lab = lab.path();
        let mut ever = BTreeMap::new();
        for (step, (action, moments)) in actions.into_iter().enumerate() {
            let (before, text) = (content(lab, "a"), format!("content {step}"));
            let mut expect = vec![before.clone()];
            match action {
                Action::Create | Action::Change => expect.push(Some(text.clone())),
                Action::Rollback => {
                    expect.extend(kept(lab, "a").into_values().map(Some));
                }
                Action::Remove => expect.push(None),
            }
            let died = dies_after(moments, || {
                let _ = match action {
                    Action::Create => publish(lab, "a", Purpose::Create, &text).map(drop),
                    Action::Change => publish(lab, "a", Purpose::Change, &text).map(drop),
                    Action::Rollback => catalogue(lab).rollback("a", None).map(drop),
                    Action::Remove => catalogue(lab).remove("a"),
                };
            });
            let killed = !catalogue(lab).installations().read().unwrap().is_empty();
            prop_assert!(died || !killed, "a build that ended is no longer entered");
            Catalogue::with_processes(lab, Box::new(Afterwards)).clean().unwrap();
            let after = content(lab, "a");
            prop_assert!(expect.contains(&after), "{action:?}: {before:?} became {after:?}");
            let builds = names_in(&lab.join("state/builds")).unwrap();
            prop_assert!(builds.is_empty(), "left behind: {builds:?}");
            prop_assert!(catalogue(lab).installations().read().unwrap().is_empty());
            if after.is_none() {
                prop_assert!(!catalogue(lab).belongings("a").exists());
                ever.clear();
                continue;
            }
            let data = catalogue(lab).data("a").unwrap();
            let mut all = kept(lab, "a");
            prop_assert!(all.insert(data.version, after.unwrap()).is_none(), "a number twice");
            for (number, content) in all {
                let known = ever.entry(number).or_insert_with(|| content.clone());
                prop_assert_eq!(known, &content, "version {} is another", number);
            }
        }
    }
}
