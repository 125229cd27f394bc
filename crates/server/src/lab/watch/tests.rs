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
    (Watcher::start(publisher, on_event, |_| {}).unwrap(), events)
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

#[test]
fn hashing_does_not_hold_up_the_end() {
    let lab = TestLab::new();
    let mut publisher = Publisher::new(lab.dir()).unwrap();
    publisher.publish(Lab::open(lab.dir()).unwrap(), &|_| {}).unwrap();
    // Some 100 MB without taking room, of which the first read says that it has begun.
    let file = std::fs::File::create(lab.path("oss/debian/large")).unwrap();
    file.set_len(100 << 20).unwrap();
    let (sender, hashing) = mpsc::channel();
    let on_hashing = move |progress: Hashing<'_>| {
        let _ = sender.send(progress.total - progress.done);
    };
    let watcher = Watcher::start(publisher, |event| panic!("{event:?}"), on_hashing).unwrap();
    hashing.recv_timeout(PATIENCE).unwrap();
    drop(watcher);
    let left = hashing.iter().min().unwrap_or(1);
    assert!(left > 0, "all of it was read");
}
