//! The table of figures: number of nodes by what goes wrong.

use std::fmt::Write as _;

use crate::scenario::{Faults, Outcome, Scenario};

/// One line of the table.
#[derive(Clone, Debug)]
pub struct Row {
    /// What goes wrong.
    pub name: &'static str,
    /// What is run.
    pub scenario: Scenario,
}

/// The standard rows for a fleet of that size, derived from a clean scenario.
#[must_use]
pub fn rows(clean: &Scenario) -> Vec<Row> {
    let nodes = clean.nodes;
    let quarter = nodes / 4;
    let some = if nodes < 10 { 0 } else { (nodes / 20).max(2) };
    let with = |name, faults| Row { name, scenario: Scenario { faults, ..clean.clone() } };
    let mut rows = vec![with("clean", Faults::default())];
    if nodes < 10 {
        return rows;
    }
    rows.push(with("silent deaths", Faults { silent_deaths: quarter, ..Faults::default() }));
    rows.push(with("kills", Faults { kills: quarter, ..Faults::default() }));
    rows.push(with("slow nodes", Faults { slow: some, ..Faults::default() }));
    rows.push(with("late nodes", Faults { late: some, ..Faults::default() }));
    rows.push(with("seed dies", Faults { seed_dies: true, ..Faults::default() }));
    rows.push(with("liars", Faults { liars: some / 2, ..Faults::default() }));
    rows.push(with("lossy", Faults { loss_one_in: 1000, ..Faults::default() }));
    rows
}

/// The head of the table.
pub const HEAD: &str = "\
| nodes | case | last | p99 | median | slow | late | seed sent | wasted | control |
|---|---|---|---|---|---|---|---|---|---|
";

/// One line of figures.
#[must_use]
pub fn line(name: &str, nodes: u32, outcome: &Outcome) -> String {
    let last = |times: &[f64]| match times.last() {
        Some(last) => format!("{last:.3}"),
        None => "–".to_owned(),
    };
    let mut line = String::new();
    let _ = writeln!(
        line,
        "| {nodes} | {name}{} | {:.3} | {:.3} | {:.3} | {} | {} | {:.3} F | {:.2} % | {:.2} % |",
        if outcome.stuck > 0 { format!(" ({} stuck)", outcome.stuck) } else { String::new() },
        outcome.last(),
        outcome.p99(),
        outcome.median(),
        last(&outcome.slow),
        last(&outcome.late),
        outcome.seed_upload,
        outcome.waste * 100.0,
        outcome.control * 100.0,
    );
    line
}
