//! What the swarm does to fleets of 1 to 1,000 nodes, compared with the table in git.
//!
//! A change of policy shows as a change of `table.md`; `UPDATE_SNAPSHOT=1 cargo test -p sim`
//! rewrites it. The figures that must hold whatever the policy are asserted apart from it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use sim::{Outcome, Row, Scenario, rows, run, table};

const MIB: u64 = 1 << 20;

/// One line of the table: which block of it, in which order, and what is run.
struct Line {
    title: &'static str,
    row: Row,
}

/// A clean transfer at 10 Gbit/s, which shows whether windows and budgets follow the link.
fn ten_gigabit(nodes: u32) -> Scenario {
    Scenario {
        file_len: 1024 * MIB,
        piece_len: 64 << 10,
        unit_len: 64 << 10,
        rate: 1_250_000_000,
        latency: Duration::from_micros(50),
        jitter: Duration::from_micros(50),
        ..Scenario::clean(nodes)
    }
}

/// All lines, those that take longest first.
fn lines() -> Vec<Line> {
    let mut lines = vec![];
    let sized = |nodes, mib| Scenario { file_len: mib * MIB, ..Scenario::clean(nodes) };
    let mut add = |title, scenario: &Scenario, wanted: fn(&str) -> bool| {
        let rows = rows(scenario).into_iter().filter(|row| wanted(row.name));
        lines.extend(rows.map(|row| Line { title, row }));
    };
    let is_main = |name: &str| matches!(name, "clean" | "silent deaths");
    add("64 MiB in pieces of 32 KiB at 50 Mbit/s", &sized(1000, 64), is_main);
    add("16 MiB, as the full size would take minutes here", &sized(1000, 16), |name| {
        !matches!(name, "clean" | "silent deaths")
    });
    for nodes in [100, 10, 1] {
        add("128 MiB in pieces of 32 KiB at 50 Mbit/s", &sized(nodes, 128), |_| true);
    }
    let relayed = Scenario { piece_len: 4 << 20, unit_len: 64 << 10, ..sized(16, 128) };
    add("128 MiB in pieces of 4 MiB, relayed in units of 64 KiB", &relayed, is_main);
    let staggered = Scenario { stagger: Duration::from_millis(500), ..sized(16, 128) };
    add("the same nodes, started within half a second", &staggered, is_main);
    for nodes in [1, 2] {
        add("1 GiB in pieces of 64 KiB at 10 Gbit/s", &ten_gigabit(nodes), |_| true);
    }
    lines
}

/// Runs all lines on all processors; outcomes in the order of the lines.
fn run_all(lines: &[Line]) -> Vec<Outcome> {
    let next = Mutex::new(0..lines.len());
    let outcomes = Mutex::new(BTreeMap::new());
    let take = || next.lock().ok()?.next();
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                while let Some(at) = take() {
                    let outcome = run(&lines[at].row.scenario);
                    outcomes.lock().expect("no run panicked").insert(at, outcome);
                }
            });
        }
    });
    outcomes.into_inner().expect("no run panicked").into_values().collect()
}

fn rendered(lines: &[Line], outcomes: &[Outcome]) -> String {
    let mut text = "\
# Simulated fleets

Times are multiples of the image's size divided by the port rate (net of all headers); `slow` and
`late` are the last node of that kind by its own rate and start. One random seed each. Written by
`UPDATE_SNAPSHOT=1 cargo test -p sim`.
"
    .to_owned();
    let mut title = "";
    for (line, outcome) in lines.iter().zip(outcomes) {
        if line.title != title {
            title = line.title;
            let _ = write!(text, "\n## {title}\n\n{}", table::HEAD);
        }
        text += &table::line(line.row.name, line.row.scenario.nodes, outcome);
    }
    text
}

/// What must hold, whatever the policy.
fn check_bars(line: &Line, outcome: &Outcome) {
    let Row { name, scenario } = &line.row;
    let nodes = scenario.nodes;
    let what = format!("{nodes} nodes, {name}, {}: {outcome:?}", line.title);
    assert_eq!(outcome.stuck, 0, "{what}");
    assert_eq!(outcome.banned_honest, 0, "{what}");
    let last = match (nodes, *name, scenario.file_len / MIB) {
        (1 | 2, ..) => 1.02,
        (_, "liars", 128) => 1.10,
        (_, _, 128) => 1.06,
        // To notice a hoarder takes a second, which is a third of this transfer.
        (_, "liars", 16) => 2.0,
        // A fifth of the end at 16 MiB is the way of the last unit from node to node, and 5 % of it
        // the requests outstanding: both the same at any size.
        (_, _, 16) => 1.30,
        _ => 1.08,
    };
    assert!(outcome.last() <= last, "last > {last}: {what}");
    assert!(outcome.slow.iter().all(|&time| time <= 1.05), "slow: {what}");
    assert!(outcome.late.iter().all(|&time| time <= 1.05), "late: {what}");
    if matches!(*name, "clean" | "silent deaths") {
        assert!(outcome.seed_upload <= 1.2, "seed: {what}");
    }
}

#[test]
fn fleets_end_as_the_table_says() {
    let lines = lines();
    let outcomes = run_all(&lines);
    let text = rendered(&lines, &outcomes);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/table.md");
    if std::env::var_os("UPDATE_SNAPSHOT").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    for (line, outcome) in lines.iter().zip(&outcomes) {
        check_bars(line, outcome);
    }
    let expect = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(text == expect, "not as {}: run with UPDATE_SNAPSHOT=1\n{text}", path.display());
}

#[test]
fn same_random_seed_gives_the_same_run_and_another_another() {
    let scenario = |random_seed| Scenario { file_len: 8 * MIB, random_seed, ..Scenario::clean(12) };
    let last = rows(&scenario(1)).len();
    for at in 0..last {
        let outcome = |seed| run(&rows(&scenario(seed))[at].scenario);
        assert_eq!(outcome(1), outcome(1));
        assert_ne!(outcome(1), outcome(2));
    }
}
