use super::super::ResponsePeer;
use super::*;

fn at(millis: u64) -> Time {
    Time::ZERO + Duration::from_millis(millis)
}

fn tiers(tiers: &[&[&str]]) -> Vec<Vec<String>> {
    let owned = |tier: &&[&str]| tier.iter().map(|&url| url.to_owned()).collect();
    tiers.iter().map(owned).collect()
}

fn answer(interval: u64, interval_min: Option<u64>) -> Option<AnnounceResponse> {
    Some(AnnounceResponse {
        interval: Duration::from_secs(interval),
        interval_min: interval_min.map(Duration::from_secs),
        ..AnnounceResponse::default()
    })
}

/// All announces that are to be made, as (url, event, numwant).
fn announces(announcer: &mut Announcer) -> Vec<(String, Event, u32)> {
    let mut announces = Vec::new();
    while let Some(output) = announcer.poll() {
        if let Output::Announce { tracker, event, numwant, .. } = output {
            announces.push((announcer.url(tracker).to_owned(), event, numwant));
        }
    }
    announces
}

fn events(announcer: &mut Announcer) -> Vec<Event> {
    let all = announces(announcer);
    all.into_iter().map(|(_, event, _)| event).collect()
}

fn reply(announcer: &mut Announcer, now: Time, tracker: usize, response: Option<AnnounceResponse>) {
    let tracker = TrackerIndex(tracker);
    announcer.handle(now, Input::Answer { tracker, response });
}

/// One tracker that has answered `Started` at time 0.
fn started(interval: u64, interval_min: Option<u64>) -> Announcer {
    let mut announcer = Announcer::new(at(0), &tiers(&[&["a"]]), false, 1);
    assert_eq!(announces(&mut announcer), [("a".to_owned(), Event::Started, HANDOUT as u32)]);
    reply(&mut announcer, at(0), 0, answer(interval, interval_min));
    announcer
}

fn tick(announcer: &mut Announcer, now: Time) -> Vec<Event> {
    announcer.handle(now, Input::Tick);
    events(announcer)
}

#[test]
fn regular_announce_comes_after_the_interval_and_asks_for_nobody() {
    let mut announcer = started(15, Some(1));
    let due = announcer.next_timeout();
    assert!(due >= at(15_000) && due <= at(16_500), "{due:?}");
    assert_eq!(tick(&mut announcer, at(14_999)), []);
    announcer.handle(due, Input::Tick);
    assert_eq!(announces(&mut announcer), [("a".to_owned(), Event::Regular, 0)]);
    assert_eq!(announcer.next_timeout(), Time::NEVER, "one at a time");
}

#[test]
fn origin_seed_asks_for_peers_with_every_regular_announce() {
    let mut seed = Announcer::new(at(0), &tiers(&[&["a"]]), true, 1);
    assert_eq!(announces(&mut seed), [("a".to_owned(), Event::Started, HANDOUT as u32)]);
    reply(&mut seed, at(0), 0, answer(15, Some(1)));
    seed.handle(seed.next_timeout(), Input::Tick);
    assert_eq!(announces(&mut seed), [("a".to_owned(), Event::Regular, HANDOUT as u32)]);
}

#[test]
fn peers_are_asked_for_as_soon_as_the_tracker_allows() {
    for (interval, min, allowed) in
        [(15, Some(1), 1_000), (1800, Some(900), 900_000), (1800, None, 30_000), (20, None, 20_000)]
    {
        let mut announcer = started(interval, min);
        announcer.handle(at(10), Input::NeedPeers { numwant: 4 });
        assert_eq!(events(&mut announcer), []);
        assert_eq!(announcer.next_timeout(), at(allowed));
        announcer.handle(at(allowed), Input::Tick);
        assert_eq!(announces(&mut announcer), [("a".to_owned(), Event::Regular, 4)]);
        reply(&mut announcer, at(allowed), 0, answer(interval, min));
        assert!(announcer.next_timeout() >= at(allowed + interval * 1000), "asked once");
    }
}

#[test]
fn need_that_arises_during_an_announce_without_it_is_not_lost() {
    let mut announcer = started(15, Some(1));
    let due = announcer.next_timeout();
    assert_eq!(tick(&mut announcer, due), [Event::Regular]);
    announcer.handle(due, Input::NeedPeers { numwant: 4 });
    reply(&mut announcer, due, 0, answer(15, Some(1)));
    assert_eq!(announcer.next_timeout(), due + Duration::from_secs(1));
}

#[test]
fn retries_back_off_to_thirty_seconds_and_no_further() {
    let mut announcer = Announcer::new(at(0), &tiers(&[&["a"]]), false, 1);
    let mut now = at(0);
    for wait_max in [1, 2, 4, 8, 16, 30, 30, 30] {
        assert_eq!(events(&mut announcer), [Event::Started]);
        // Wanting peers does not make a dead tracker answer.
        announcer.handle(now, Input::NeedPeers { numwant: 9 });
        reply(&mut announcer, now, 0, None);
        let wait = announcer.next_timeout().since(now);
        assert!(wait <= Duration::from_secs(wait_max), "{wait:?}");
        assert!(wait >= Duration::from_secs(wait_max) / 2, "{wait:?}");
        now = announcer.next_timeout();
        announcer.handle(now, Input::Tick);
    }
    events(&mut announcer);
    reply(&mut announcer, now, 0, answer(15, Some(1)));
    assert_eq!(
        announcer.next_timeout().max(now + Duration::from_secs(15)),
        announcer.next_timeout()
    );
}

#[test]
fn peers_with_different_seeds_do_not_retry_in_step() {
    let wait = |seed| {
        let mut announcer = Announcer::new(at(0), &tiers(&[&["a"]]), false, seed);
        reply(&mut announcer, at(0), 0, None);
        announcer.next_timeout()
    };
    assert_ne!(wait(1), wait(2));
}

#[test]
fn tracker_that_answers_becomes_first_of_its_tier() {
    let mut announcer = Announcer::new(at(0), &tiers(&[&["a", "b", "c"]]), false, 3);
    let mut asked = Vec::new();
    for _ in 0..2 {
        let url = announces(&mut announcer).remove(0).0;
        let index = ["a", "b", "c"].iter().position(|&name| name == url).unwrap();
        asked.push(url);
        reply(&mut announcer, at(0), index, None);
    }
    let (last, event, _) = announces(&mut announcer).remove(0);
    assert!(!asked.contains(&last));
    assert_eq!(event, Event::Started);
    let index = ["a", "b", "c"].iter().position(|&name| name == last).unwrap();
    reply(&mut announcer, at(0), index, answer(15, None));
    let due = announcer.next_timeout();
    announcer.handle(due, Input::Tick);
    assert_eq!(announces(&mut announcer)[0].0, last);
}

#[test]
fn tiers_are_served_at_once() {
    let mut announcer = Announcer::new(at(0), &tiers(&[&["a"], &["b"], &["a"], &[]]), false, 1);
    let urls: Vec<String> = announces(&mut announcer).into_iter().map(|(url, ..)| url).collect();
    assert_eq!(urls, ["a", "b"]);
    reply(&mut announcer, at(0), 0, None);
    reply(&mut announcer, at(0), 1, answer(1800, None));
    assert!(announcer.next_timeout() <= at(1_000));
}

#[test]
fn completion_is_told_once_and_at_once() {
    let mut announcer = started(1800, Some(900));
    announcer.handle(at(5), Input::Completed);
    assert_eq!(events(&mut announcer), [Event::Completed]);
    reply(&mut announcer, at(5), 0, answer(15, None));
    assert_eq!(tick(&mut announcer, at(60_000)), [Event::Regular]);
}

#[test]
fn completion_while_starting_is_told_after_it() {
    let mut announcer = Announcer::new(at(0), &tiers(&[&["a"]]), false, 1);
    assert_eq!(events(&mut announcer), [Event::Started]);
    announcer.handle(at(1), Input::Completed);
    assert_eq!(events(&mut announcer), []);
    reply(&mut announcer, at(2), 0, answer(15, None));
    assert_eq!(events(&mut announcer), [Event::Completed]);
}

#[test]
fn who_comes_complete_does_not_complete() {
    let mut announcer = Announcer::new(at(0), &tiers(&[&["a"]]), true, 1);
    assert_eq!(events(&mut announcer), [Event::Started]);
    reply(&mut announcer, at(0), 0, answer(15, None));
    announcer.handle(at(1), Input::Completed);
    assert_eq!(events(&mut announcer), []);
}

#[test]
fn failed_completion_is_told_again() {
    let mut announcer = started(1800, None);
    announcer.handle(at(5), Input::Completed);
    assert_eq!(events(&mut announcer), [Event::Completed]);
    reply(&mut announcer, at(5), 0, None);
    assert_eq!(events(&mut announcer), []);
    assert_eq!(tick(&mut announcer, at(1_100)), [Event::Completed]);
}

#[test]
fn stop_is_told_to_those_who_know_us_and_then_all_is_quiet() {
    let mut announcer = Announcer::new(at(0), &tiers(&[&["a"], &["b"]]), false, 1);
    events(&mut announcer);
    reply(&mut announcer, at(0), 0, answer(15, None));
    reply(&mut announcer, at(0), 1, None);
    announcer.handle(at(10), Input::Stop);
    assert_eq!(announces(&mut announcer), [("a".to_owned(), Event::Stopped, 0)]);
    assert!(!announcer.is_done());
    reply(&mut announcer, at(11), 0, None);
    assert!(announcer.is_done());
    assert_eq!(announcer.next_timeout(), Time::NEVER);
    assert_eq!(tick(&mut announcer, at(1_000_000)), []);
}

#[test]
fn stop_while_starting_is_told_after_it() {
    let mut announcer = Announcer::new(at(0), &tiers(&[&["a"]]), false, 1);
    events(&mut announcer);
    announcer.handle(at(1), Input::Stop);
    assert!(!announcer.is_done());
    reply(&mut announcer, at(2), 0, answer(15, None));
    assert_eq!(events(&mut announcer), [Event::Stopped]);
}

#[test]
fn absurd_intervals_are_bounded() {
    for (interval, least, most) in [(0, 1_000, 1_100), (u32::MAX.into(), 7_200_000, 7_920_000)] {
        let announcer = started(interval, Some(0));
        let due = announcer.next_timeout();
        assert!(due >= at(least) && due <= at(most), "{due:?}");
    }
}

#[test]
fn tracker_id_is_repeated_and_peers_are_passed_on() {
    let mut announcer = Announcer::new(at(0), &tiers(&[&["a"]]), false, 1);
    events(&mut announcer);
    let addr: SocketAddr = "10.0.0.1:1".parse().unwrap();
    let response = AnnounceResponse {
        interval: Duration::from_secs(15),
        tracker_id: Some(b"id".to_vec()),
        peers: vec![ResponsePeer { addr, peer_id: None }],
        ..AnnounceResponse::default()
    };
    reply(&mut announcer, at(0), 0, Some(response));
    assert_eq!(announcer.poll(), Some(Output::Peers(vec![addr])));
    announcer.handle(at(17_000), Input::Tick);
    let Some(Output::Announce { tracker_id, .. }) = announcer.poll() else { panic!("no announce") };
    assert_eq!(tracker_id.as_deref(), Some(&b"id"[..]));
}

#[test]
fn foreign_answers_and_surplus_trackers_change_nothing() {
    let mut announcer = started(15, None);
    let due = announcer.next_timeout();
    reply(&mut announcer, at(1), 0, None);
    reply(&mut announcer, at(1), 99, answer(1, None));
    assert_eq!(announcer.next_timeout(), due);
    let many: Vec<Vec<String>> = (0..100).map(|number| vec![format!("{number}")]).collect();
    let mut announcer = Announcer::new(at(0), &many, false, 1);
    assert_eq!(events(&mut announcer).len(), TRACKERS_MAX);
    assert_eq!(Announcer::new(at(0), &[], false, 1).next_timeout(), Time::NEVER);
}
