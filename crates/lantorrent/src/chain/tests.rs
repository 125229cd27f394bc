//! The machine by hand: what it does when endpoints are unreachable, die, stall or crawl.

use std::collections::BTreeMap;
use std::time::Duration;

use super::*;
use crate::header::Request;

const LENGTH: u64 = 100_000_000;

fn at(ms: u64) -> Time {
    Duration::from_millis(ms)
}

fn destination(name: &str) -> Destination {
    let request = Request { filename: format!("/{name}"), id: name.to_owned(), rename: true };
    let wanted = plan::Wanted { host: name.to_owned(), port: 1, request };
    plan::destinations(vec![wanted], 1, LENGTH).remove(0)
}

fn names(names: &str) -> Vec<Destination> {
    names.split_whitespace().map(destination).collect()
}

/// A machine, what it did, and a clock.
struct Bench {
    chain: Chain,
    now: u64,
    log: Vec<String>,
}

impl Bench {
    fn new(list: &str, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config {
            length: LENGTH,
            degree: 1,
            compat: false,
            is_origin: true,
            stall: STALL_TIMEOUT,
        };
        change(&mut config);
        let chain = Chain::new(config, names(list), at(0));
        let mut bench = Self { chain, now: 0, log: vec![] };
        bench.note();
        bench
    }

    fn note(&mut self) {
        while let Some(action) = self.chain.poll() {
            self.log.push(match action {
                Action::Connect { destination, behind, .. } => {
                    let behind: Vec<_> = behind.iter().map(|d| d.host.as_str()).collect();
                    format!("connect {} [{}]", destination.host, behind.join(" "))
                }
                Action::Drop { branch } => format!("drop {branch}"),
                Action::Park { branch } => format!("park {branch}"),
                Action::Append { to, destinations } => {
                    format!("append {} to {}", destinations[0].host, to.host)
                }
                Action::Probe { destination, .. } => format!("probe {}", destination.host),
                Action::Measure { destination, .. } => format!("measure {}", destination.host),
                Action::Back(destination) => format!("back {}", destination.host),
                Action::Report(report) => format!("{} {}", report.host, report.code),
            });
        }
    }

    fn tell(&mut self, event: Event) -> &mut Self {
        self.chain.handle(at(self.now), event);
        self.note();
        self
    }

    fn wait(&mut self, ms: u64) -> &mut Self {
        let end = self.now + ms;
        while self.now < end {
            self.now = end.min(self.now + BEAT_INTERVAL.as_millis() as u64);
            self.chain.tick(at(self.now));
            self.note();
        }
        self
    }

    fn start(&mut self, branch: BranchIndex, offset: u64) -> &mut Self {
        self.tell(Event::Connected(branch)).tell(Event::Line(branch, Line::Hello { offset }))
    }

    fn beat(&mut self, received: u64) -> &mut Self {
        self.tell(Event::Line(0, Line::Beat { received }))
    }

    fn report(&mut self, name: &str) -> &mut Self {
        let request = Request { filename: format!("/{name}"), id: name.into(), rename: true };
        let report = Report::new(name, 1, &request, Code::SUCCESS, String::new());
        self.tell(Event::Line(0, Line::Report(report)))
    }

    fn check(&mut self, expect: &[&str]) -> &mut Self {
        assert_eq!(self.log, expect);
        self.log.clear();
        self
    }
}

#[test]
fn the_first_gets_the_rest_and_all_reports_end_it() {
    let mut bench = Bench::new("a b", |_| ());
    bench.check(&["connect a [b]"]).start(0, 0);
    assert_eq!(bench.chain.sendable(0), Some((0, LENGTH)));
    bench.tell(Event::Sent(0, LENGTH));
    assert!(bench.chain.wants_footer(0));
    bench.tell(Event::FooterSent(0)).beat(LENGTH).report("b").report("a").report("a");
    bench.check(&["b 0", "a 0"]);
    assert!(!bench.chain.is_done(), "the connection is still there");
    bench.tell(Event::Closed(0, String::new())).check(&["drop 0"]);
    assert!(bench.chain.is_done());
}

#[test]
fn who_cannot_be_reached_is_skipped_and_reported() {
    let mut bench = Bench::new("a b c", |_| ());
    bench.tell(Event::NotConnected(0, "refused".into()));
    bench.check(&["connect a [b c]", "drop 0", "a 505", "connect b [c]"]);
    // Nor can who never answers, whether it accepts or not.
    bench.wait(1_299).check(&[]).wait(1).check(&["drop 0", "b 505", "connect c []"]);
    bench.tell(Event::Connected(0)).wait(1_500).check(&["drop 0", "c 505"]);
    assert!(bench.chain.is_done());
}

#[test]
fn who_dies_is_cut_out_and_the_next_goes_on_at_its_own_byte() {
    let mut bench = Bench::new("a b c", |_| ());
    bench.start(0, 0).tell(Event::Sent(0, 5_000_000)).check(&["connect a [b c]"]);
    bench.tell(Event::Closed(0, "reset".into()));
    bench.check(&["drop 0", "a 506", "connect b [c]"]).start(0, 4_000_000);
    assert_eq!(bench.chain.sendable(0), Some((4_000_000, LENGTH - 4_000_000)));
}

#[test]
fn who_is_silent_or_takes_nothing_is_cut_out_within_two_seconds() {
    let mut silent = Bench::new("a b", |_| ());
    silent.start(0, 0).check(&["connect a [b]"]);
    silent.wait(1_499).check(&[]).wait(1).check(&["drop 0", "a 506", "connect b []"]);
    let mut stuck = Bench::new("a b", |config| config.is_origin = false);
    stuck.start(0, 0).tell(Event::Sent(0, 1_000)).check(&["connect a [b]"]);
    for _ in 0..14 {
        stuck.wait(100).beat(0).check(&[]);
    }
    stuck.wait(100).check(&["drop 0", "a 506", "connect b []"]);
}

#[test]
fn who_has_nothing_to_take_is_not_stuck() {
    let mut bench = Bench::new("a b", |config| config.is_origin = false);
    bench.start(0, 0).check(&["connect a [b]"]);
    for _ in 0..100 {
        bench.wait(100).beat(0).check(&[]);
    }
    // The stall is counted from when it had something to take.
    bench.tell(Event::Stored(1_000)).tell(Event::Sent(0, 1_000)).wait(1_400).beat(0).check(&[]);
}

#[test]
fn a_slow_one_moves_to_the_end_of_the_chain() {
    let mut bench = Bench::new("a b c", |config| config.is_origin = false);
    bench.start(0, 0).check(&["connect a [b c]"]);
    for tick in 1..=13_u64 {
        bench.wait(100).tell(Event::Stored(tick * 600_000));
        bench.tell(Event::Sent(0, 120_000)).beat(tick * 120_000);
        if bench.log == ["probe b"] {
            assert!(bench.now <= 1_200, "within {} ms", bench.now);
            break;
        }
    }
    bench.check(&["probe b"]);
    bench.tell(Event::Probed(0, Some(at(1)), at(300)));
    bench.check(&["park 0", "back a", "connect b [c a]"]);
    // Somebody else feeds it from then on, and its reports come from there.
    bench.start(0, 100).report("a").check(&["a 0"]);
}

#[test]
fn who_was_moved_goes_before_one_that_is_slower_and_behind_no_other() {
    // The child takes 1.2 MB/s of the 6 that come in.
    for (pace, expect) in [(2_300_000, vec![]), (2_500_000, vec!["probe b"])] {
        let mut bench = Bench::new("a", |config| config.is_origin = false);
        let mut moved = destination("b");
        moved.pace = Some(pace);
        bench.start(0, 0).tell(Event::Append(vec![moved]));
        bench.check(&["connect a []", "append b to a"]);
        for tick in 1..=13_u64 {
            bench.wait(100).tell(Event::Stored(tick * 600_000));
            bench.tell(Event::Sent(0, 120_000)).beat(tick * 120_000);
        }
        bench.check(&expect);
    }
}

#[test]
fn a_slow_uplink_of_ones_own_moves_nobody() {
    let mut bench = Bench::new("a b c", |config| config.is_origin = false);
    bench.start(0, 0).check(&["connect a [b c]"]);
    for tick in 1..=13_u64 {
        bench.wait(100).tell(Event::Stored(tick * 600_000));
        bench.tell(Event::Sent(0, 120_000)).beat(tick * 120_000);
    }
    bench.check(&["probe b"]);
    bench.tell(Event::Probed(0, Some(at(290)), at(300))).check(&[]);
}

/// An origin whose child takes 6 MB/s until `bench.now` is later by 1.3 s.
fn origin_at_6_mb_s(bench: &mut Bench, ticks: std::ops::Range<u64>, per_tick: u64) {
    for tick in ticks {
        bench.wait(100).tell(Event::Sent(0, per_tick)).beat(tick * per_tick);
    }
}

#[test]
fn an_origin_moves_its_first_only_if_more_reaches_another_beside_it() {
    let check = |next: Option<u64>, middle: Option<u64>, expect: &[&str]| {
        let mut bench = Bench::new("a b c d", |_| ());
        bench.start(0, 0).check(&["connect a [b c d]"]);
        origin_at_6_mb_s(&mut bench, 1..14, 600_000);
        bench.check(&["measure b"]).tell(Event::Measured(0, next));
        if bench.log == ["measure d"] {
            bench.log.clear();
            bench.tell(Event::Measured(0, middle));
        }
        bench.check(expect);
    };
    check(Some(10_000_000), None, &["park 0", "back a", "connect b [c d a]"]);
    for next in [Some(3_000_000), Some(6_000_000), None] {
        check(next, Some(6_000_000), &[]);
        check(next, None, &[]);
    }
    // The one behind it is slow as well.
    let both = ["back b", "park 0", "back a", "connect c [d b a]"];
    check(Some(3_000_000), Some(10_000_000), &both);
}

#[test]
fn an_origin_does_not_ask_again_unless_its_first_becomes_slower() {
    let mut bench = Bench::new("a b c", |_| ());
    bench.start(0, 0).check(&["connect a [b c]"]);
    origin_at_6_mb_s(&mut bench, 1..14, 600_000);
    bench.check(&["measure b"]).tell(Event::Measured(0, Some(5_000_000)));
    bench.check(&["measure c"]).tell(Event::Measured(0, Some(5_000_000)));
    origin_at_6_mb_s(&mut bench, 14..40, 600_000);
    bench.check(&[]);
    // A third of what it took.
    for tick in 0..13_u64 {
        bench.wait(100).tell(Event::Sent(0, 200_000)).beat(39 * 600_000 + tick * 200_000);
    }
    bench.check(&["measure b"]);
}

#[test]
fn who_was_put_back_behind_is_at_the_end_of_ones_own_list_too() {
    let mut bench = Bench::new("a b c d", |config| config.is_origin = false);
    bench.start(0, 0).check(&["connect a [b c d]"]);
    let back = |host: &str| Line::Back { host: host.into(), port: 1, pace: 7 };
    bench.tell(Event::Line(0, back("b"))).check(&["back b"]);
    bench.tell(Event::Line(0, back("nobody"))).check(&[]);
    bench.tell(Event::Closed(0, String::new()));
    bench.check(&["drop 0", "a 506", "connect c [d b]"]);
}

#[test]
fn who_was_moved_is_told_of_by_the_chain_and_taken_over_by_the_last() {
    let mut middle = Bench::new("b", |config| config.is_origin = false);
    middle.start(0, 0).check(&["connect b []"]);
    let mut slow = destination("a");
    slow.pace = Some(1_000_000);
    middle.tell(Event::Append(vec![slow.clone()])).check(&["append a to b"]);
    middle.tell(Event::Append(vec![slow.clone()])).check(&[]);
    let mut last = Bench::new("", |config| config.is_origin = false);
    last.tell(Event::Append(vec![slow])).check(&["connect a []"]);
}

#[test]
fn who_has_another_predecessor_is_forgotten_with_all_behind_it() {
    let mut bench = Bench::new("a b", |config| config.is_origin = false);
    bench.start(0, 0).tell(Event::Line(0, Line::Moved)).check(&["connect a [b]", "drop 0"]);
    assert!(bench.chain.is_done());
}

#[test]
fn l16_a_failure_in_mid_stream_marks_only_the_ids_that_it_concerns() {
    let mut bench = Bench::new("a b c", |_| ());
    bench.start(0, 0).report("b").check(&["connect a [b c]", "b 0"]);
    bench.tell(Event::Closed(0, String::new())).check(&["drop 0", "a 506", "connect c []"]);
}

#[test]
fn an_old_peer_begins_at_once_and_a_later_one_anew() {
    let mut bench = Bench::new("a b", |config| config.compat = true);
    bench.tell(Event::Connected(0)).tell(Event::Sent(0, 1_000));
    // It says nothing for a long time, and that is its way.
    bench.wait(29_999).check(&["connect a [b]"]);
    bench.tell(Event::Closed(0, String::new())).check(&["drop 0", "a 506", "connect b []"]);
    bench.tell(Event::Connected(0));
    assert_eq!(bench.chain.sendable(0), None);
    bench.wait(1_500);
    assert_eq!(bench.chain.sendable(0), Some((0, LENGTH)));
}

#[test]
fn what_is_no_json_and_what_is_never_said_have_codes() {
    let mut bench = Bench::new("a", |_| ());
    bench.start(0, 0).tell(Event::NotJson(0)).check(&["connect a []", "drop 0", "a 507"]);
    let mut bench = Bench::new("a", |_| ());
    bench.start(0, 0).tell(Event::Sent(0, LENGTH)).tell(Event::FooterSent(0));
    bench.tell(Event::Closed(0, String::new())).check(&["connect a []", "drop 0", "a 509"]);
    // A report without an id is about all that is not known of its endpoint.
    let mut bench = Bench::new("a b", |_| ());
    let denied = Report { code: 508, id: None, file: None, ..report_of("", "") };
    bench.start(0, 0).tell(Event::Line(0, Line::Report(denied)));
    bench.check(&["connect a [b]", "a 508"]);
}

fn report_of(host: &str, file: &str) -> Report {
    let request = Request { filename: file.into(), id: String::new(), rename: true };
    Report::new(host, 1, &request, Code::SUCCESS, String::new())
}

#[test]
fn l24_branches_share_no_endpoint_and_each_heals_by_itself() {
    let mut bench = Bench::new("a b c d e", |config| config.degree = 2);
    bench.check(&["connect a [c e]", "connect b [d]"]);
    bench.tell(Event::NotConnected(1, String::new())).check(&["drop 1", "b 505", "connect d []"]);
}

mod random {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Endpoints die at random places, in any order: all others are reported once, and the
        /// machine comes to its end.
        #[test]
        fn whatever_dies_everybody_is_reported_once(
            count in 1_usize..12,
            degree in 1_u32..4,
            fates in proptest::collection::vec(0_u8..5, 0..40),
        ) {
            let list: Vec<String> = (0..count).map(|n| format!("n{n:02}")).collect();
            let mut bench = Bench::new(&list.join(" "), |config| config.degree = degree);
            let mut fates = fates.into_iter();
            for _ in 0..200 {
                if bench.chain.is_done() {
                    break;
                }
                let branch = (0..bench.chain.branch_count())
                    .find(|b| bench.chain.branches[*b].child.is_some())
                    .expect("somebody is there as it is not done");
                match fates.next().unwrap_or(4) {
                    0 => drop(bench.tell(Event::NotConnected(branch, String::new()))),
                    1 => drop(bench.start(branch, 0).tell(Event::Closed(branch, String::new()))),
                    2 => drop(bench.wait(5_000)),
                    3 => drop(bench.start(branch, 0).tell(Event::NotJson(branch))),
                    _ => {
                        let all = bench.chain.branches[branch].child.as_ref().map(|child| {
                            let behind = bench.chain.branches[branch].rest.iter();
                            let behind = behind.map(|d| d.host.clone());
                            behind.chain([child.destination.host.clone()]).collect::<Vec<_>>()
                        });
                        bench.start(branch, 0);
                        for name in all.unwrap_or_default() {
                            let request =
                                Request { filename: format!("/{name}"), id: name.clone(), rename: true };
                            let report = Report::new(&name, 1, &request, Code::SUCCESS, String::new());
                            bench.tell(Event::Line(branch, Line::Report(report)));
                        }
                        bench.tell(Event::Closed(branch, String::new()));
                    }
                }
            }
            prop_assert!(bench.chain.is_done());
            let mut reported: BTreeMap<String, u32> = BTreeMap::new();
            for line in &bench.log {
                if let Some((name, code)) = line.split_once(' ')
                    && code.parse::<u16>().is_ok() && name.starts_with('n')
                {
                    *reported.entry(name.to_owned()).or_default() += 1;
                }
            }
            prop_assert_eq!(reported.len(), count);
            prop_assert!(reported.values().all(|times| *times == 1));
        }
    }
}
