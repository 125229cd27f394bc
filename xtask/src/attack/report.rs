//! The table of what was measured.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::Row;
use super::victim::{Step, Summary};

/// What the table has of the steps; the rest is in the JSON.
const COLUMNS: [Step; 3] = [Step::DhcpNamed, Step::Script, Step::Phase1];

/// Markdown; times are p50, p99 and the longest, in milliseconds.
pub(super) fn table(rows: &[Row]) -> String {
    let mut text = format!("\n| {:<18} | verdict | {:>5} |", "case", "s");
    for step in COLUMNS {
        let _ = write!(text, " {:>22} |", format!("{}, ms", step.name()));
    }
    text.push_str(" RSS, MiB |\n|--------------------|---------|------:|");
    text.push_str(&"-----------------------:|".repeat(COLUMNS.len()));
    text.push_str("---------:|\n");
    for row in rows {
        let verdict = if row.error.is_none() { "ok" } else { "FAILED" };
        let _ =
            write!(text, "| {:<18} | {verdict:<7} | {:>5.1} |", row.name, row.time.as_secs_f64());
        for step in COLUMNS {
            let found = row.summaries.iter().find(|summary| summary.step == step);
            let _ = write!(text, " {:>22} |", found.map_or_else(|| "–".to_owned(), times));
        }
        let rss =
            if row.rss_peak == 0 { "–".to_owned() } else { (row.rss_peak >> 20).to_string() };
        let _ = writeln!(text, " {rss:>8} |");
    }
    text
}

fn times(summary: &Summary) -> String {
    let Summary { count, p50_ms, p99_ms, max_ms, .. } = summary;
    format!("{p50_ms:.1} {p99_ms:.1} {max_ms:.1} ({count})")
}

/// All of it. What failed took for ever, which JSON calls null.
pub(super) fn json(rows: &[Row]) -> Value {
    let row = |row: &Row| {
        let steps: serde_json::Map<_, _> = row.summaries.iter().map(step).collect();
        json!({
            "case": row.name,
            "ok": row.error.is_none(),
            "error": row.error.as_ref().map(|error| format!("{error:#}")),
            "seconds": row.time.as_secs_f64(),
            "rss_peak_bytes": row.rss_peak,
            "steps": steps,
        })
    };
    rows.iter().map(row).collect()
}

fn step(summary: &Summary) -> (String, Value) {
    let Summary { step, count, p50_ms, p99_ms, max_ms, failed_count } = summary;
    let value = json!({
        "count": count, "failed_count": failed_count,
        "p50_ms": p50_ms, "p99_ms": p99_ms, "max_ms": max_ms,
    });
    (step.name().to_owned(), value)
}
