use boot::ImageName;

use super::*;
use crate::lab::Lab;
use crate::lab::test_lab::TestLab;

#[test]
fn what_moves_is_left_alone_until_it_rests() {
    let lab = TestLab::new();
    let start = Instant::now();
    let at = |ms| start + Duration::from_millis(ms);
    let scan = || Scan::new(lab.dir());
    let mut rest = Rest { settled: scan(), moving: None };
    assert!(!rest.observe(at(0), scan()));
    lab.put("oss/debian/vmlinuz", "half");
    assert!(!rest.observe(at(1000), scan()));
    lab.put("oss/debian/vmlinuz", "whole now");
    assert!(!rest.observe(at(2000), scan()), "it moves");
    assert!(!rest.observe(at(3000), scan()), "it rests, not for long");
    assert!(rest.observe(at(4000), scan()));
    assert!(!rest.observe(at(5000), scan()), "told once");
}

#[test]
fn what_becomes_as_it_was_is_no_change() {
    let lab = TestLab::new();
    let now = Instant::now();
    let before = Scan::new(lab.dir());
    let mut rest = Rest { settled: before.clone(), moving: None };
    lab.put("oss/debian/more", "x");
    assert!(!rest.observe(now, Scan::new(lab.dir())));
    assert!(!rest.observe(now + QUIET * 2, before));
    assert!(rest.moving.is_none());
}

/// A watcher of a lab that was published, and what it says.
fn watcher(lab: &TestLab) -> (Watcher, Receiver<Event>) {
    let mut publisher = Publisher::new(lab.dir()).unwrap();
    publisher.publish(Lab::open(lab.dir()).unwrap(), &|_| {}).unwrap();
    let (sender, events) = mpsc::channel();
    let on_event = move |event| {
        let _ = sender.send(event);
    };
    (Watcher::start(publisher, on_event).unwrap(), events)
}

const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn a_new_image_is_published_while_it_runs() {
    let lab = TestLab::new();
    let (_watcher, events) = watcher(&lab);
    lab.put("oss/debian/extra", "more");
    let Event::Changed(outcome) = events.recv_timeout(PATIENCE).unwrap() else { panic!() };
    assert!(outcome.is_new);
    assert_eq!(outcome.publication.manifest.images[0].len, 170_004);
}

#[test]
fn a_broken_change_is_told_and_then_its_repair() {
    let lab = TestLab::new();
    let (watcher, events) = watcher(&lab);
    std::fs::remove_file(lab.path("oss/debian/vmlinuz")).unwrap();
    let Event::Refused(error) = events.recv_timeout(PATIENCE).unwrap() else { panic!() };
    assert!(error.to_string().contains("there is no file `vmlinuz`"), "{error}");
    lab.put("oss/debian/vmlinuz", "another kernel");
    watcher.reload();
    let Event::Changed(outcome) = events.recv_timeout(PATIENCE).unwrap() else { panic!() };
    assert!(outcome.is_new);
}

#[test]
fn a_reload_reads_at_once_and_a_dropped_watcher_ends() {
    let lab = TestLab::new();
    let (watcher, events) = watcher(&lab);
    watcher.reload();
    let Event::Changed(outcome) = events.try_recv().unwrap() else { panic!() };
    assert!(!outcome.is_new);
    drop(watcher);
    assert!(events.recv().is_err(), "the thread has ended");
}

/// A watcher of a lab that was published, which reads nothing at once, and whose hasher does `work`.
fn watcher_with(lab: &TestLab, work: Work) -> (Watcher, Receiver<Event>) {
    let mut publisher = Publisher::new(lab.dir()).unwrap().reads_at_most(0);
    publisher.publish(Lab::open(lab.dir()).unwrap(), &|_| {}).unwrap();
    let (sender, events) = mpsc::channel();
    let on_event = move |event| {
        let _ = sender.send(event);
    };
    (Watcher::start_with(publisher, on_event, work).unwrap(), events)
}

/// Hashes images once that is allowed, by dropping what is returned.
fn hasher_that_waits() -> (Work, Sender<()>) {
    let (allow, allowed) = mpsc::channel::<()>();
    let allowed = std::sync::Mutex::new(allowed);
    let work: Work = Arc::new(move |job, progress, stop| {
        progress(41, 100);
        let wait = || allowed.lock().unwrap().recv_timeout(Duration::from_millis(1));
        while wait() == Err(RecvTimeoutError::Timeout) && !stop.load(Ordering::Relaxed) {}
        match stop.load(Ordering::Relaxed) {
            true => Err(CreateError::Stopped(job.folder.clone())),
            false => hasher::hash(job, progress, stop),
        }
    });
    (work, allow)
}

fn changed(events: &Receiver<Event>) -> Outcome {
    match events.recv_timeout(PATIENCE).unwrap() {
        Event::Changed(outcome) => outcome,
        Event::Refused(error) => panic!("{error}"),
    }
}

const DEFAULT: &str = "version: 1\nserver: {interface: lo, address: 127.0.0.1}\n\
                       dhcp: {mode: off}\nboot: {default: debian}\n";

#[test]
fn while_one_image_is_hashed_an_assignment_of_another_comes_into_force() {
    let lab = TestLab::new();
    let (work, allow) = hasher_that_waits();
    let (watcher, events) = watcher_with(&lab, work);
    lab.put_image("huge");
    lab.put("Boottorrent.yaml", DEFAULT);
    watcher.reload();
    let outcome = changed(&events);
    let huge: ImageName = "huge".parse().unwrap();
    assert_eq!(outcome.publication.hashing, std::slice::from_ref(&huge));
    lab.put(
        "nodes.yaml",
        "nodes: {c1: {mac: 525400000001, image: debian}, c2: {mac: 525400000002, image: huge}}\n",
    );
    watcher.reload();
    let manifest = changed(&events).publication.manifest.clone();
    let assigned: Vec<&str> = manifest.assignments.iter().map(|one| one.image.as_str()).collect();
    assert_eq!(assigned, ["debian"], "huge is not there yet");
    drop(allow);
    let publication = changed(&events).publication;
    assert!(publication.hashing.is_empty());
    assert_eq!(publication.manifest.assignments.len(), 2);
    assert_eq!(publication.manifest.images.len(), 2);
}

#[test]
fn of_an_image_that_is_hashed_the_version_before_stays_on_offer() {
    let lab = TestLab::new();
    let (work, allow) = hasher_that_waits();
    let (watcher, events) = watcher_with(&lab, work);
    watcher.reload();
    let before = changed(&events).publication.manifest.images[0].clone();
    lab.put("oss/debian/vmlinuz", "another kernel");
    lab.put(
        "oss/debian/config.yaml",
        "dispname: New\nmethod: kexec\nkernel: vmlinuz\ninitrd: initrd.img\n",
    );
    watcher.reload();
    let outcome = changed(&events);
    assert_eq!(outcome.publication.manifest.images, std::slice::from_ref(&before));
    assert_eq!(outcome.publication.hashing, std::slice::from_ref(&before.name));
    drop(allow);
    let after = changed(&events).publication.manifest.images[0].clone();
    assert_eq!(after.title, "New");
    assert_ne!(after.infohash, before.infohash);
}

#[test]
fn an_image_that_changes_while_it_is_hashed_is_hashed_as_it_is_then() {
    let lab = TestLab::new();
    let (work, allow) = hasher_that_waits();
    let (watcher, events) = watcher_with(&lab, work);
    for text in ["half", "whole"] {
        lab.put("oss/debian/vmlinuz", text);
        watcher.reload();
        assert_eq!(changed(&events).publication.hashing.len(), 1, "{text}");
    }
    drop(allow);
    let publication = changed(&events).publication;
    assert_eq!(publication.manifest.images[0].len, 70_000 + 5);
    assert!(publication.hashing.is_empty());
}

#[test]
fn hashing_is_told_and_does_not_hold_up_the_end() {
    let lab = TestLab::new();
    let mut publisher = Publisher::new(lab.dir()).unwrap();
    publisher.publish(Lab::open(lab.dir()).unwrap(), &|_| {}).unwrap();
    let progress = publisher.progress();
    // Some 100 MB without taking room.
    let file = std::fs::File::create(lab.path("oss/debian/large")).unwrap();
    file.set_len(100 << 20).unwrap();
    let (sender, begun) = mpsc::channel();
    let work: Work = Arc::new(move |job, note, stop| {
        let told = |done, total| {
            note(done, total);
            let _ = sender.send(total - done);
        };
        hasher::hash(job, &told, stop)
    });
    let watcher = Watcher::start_with(publisher, |_| {}, work).unwrap();
    begun.recv_timeout(PATIENCE).unwrap();
    let said = progress.all();
    assert!(said[0].0.as_str() == "debian" && said[0].1.total >= 100 << 20, "{said:?}");
    drop(watcher);
    let left = begun.iter().min().unwrap_or(1);
    assert!(left > 0, "all of it was read");
}

#[test]
fn a_large_lab_is_looked_at_less_often() {
    let lab = TestLab::new();
    let glance = |lab: &TestLab| Glance::new(lab.dir(), &Scan::new(lab.dir()));
    let before = glance(&lab);
    let mut looked = Looked::new(before.clone());
    looked.took = Duration::from_millis(200);
    let at = |ms| looked.at + Duration::from_millis(ms);
    assert!(!looked.is_due(at(9_999), &before));
    assert!(looked.is_due(at(10_000), &before));
    for (path, text) in [
        ("nodes.yaml", "nodes: {}\n"),
        ("oss/debian/config.yaml", "other"),
        ("oss/debian/new", "file"),
        ("oss/new/vmlinuz", "image"),
    ] {
        let before = Glance::new(lab.dir(), &Scan::new(lab.dir()));
        lab.put(path, text);
        assert_ne!(glance(&lab), before, "{path}");
    }
}

#[test]
fn what_is_hashed_of_a_huge_file_outlives_an_end() {
    let lab = TestLab::new();
    let file = std::fs::File::create(lab.path("oss/debian/large")).unwrap();
    file.set_len(200 << 20).unwrap();
    file.set_modified(std::time::UNIX_EPOCH + Duration::from_secs(1_000_000_000)).unwrap();
    let scan = Scan::new(lab.dir());
    let job = hasher::Job {
        name: "debian".parse().unwrap(),
        lab: lab.dir().to_owned(),
        folder: lab.path("oss/debian"),
        spec: torrent::metainfo::create::Spec::default(),
        seen: scan.folder("debian").unwrap().clone(),
    };
    let stop = AtomicBool::new(false);
    let at_three_quarters = |done, total| stop.store(done > total / 4 * 3, Ordering::Relaxed);
    assert!(matches!(hasher::hash(&job, &at_three_quarters, &stop), Err(CreateError::Stopped(_))));
    let left = std::sync::atomic::AtomicU64::new(0);
    let note = |_, total| {
        left.fetch_max(total, Ordering::Relaxed);
    };
    hasher::hash(&job, &note, &AtomicBool::new(false)).unwrap();
    let left = left.into_inner();
    assert!(left < 120 << 20, "{left} of {} bytes were read again", 200 << 20);
}
