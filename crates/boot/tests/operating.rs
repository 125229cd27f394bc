//! The table of failures in `docs/operating.md` is what the program says.

// Clippy knows the tests here, but not what they share.
#![allow(clippy::unwrap_used)]

use std::fmt::Write as _;
use std::path::Path;

use boot::Failure;

const BEGIN: &str = "<!-- failures: begin; written by `UPDATE_SNAPSHOT=1 cargo test -p boot` -->\n";
const END: &str = "<!-- failures: end -->\n";

fn table() -> String {
    let mut text = "| Code | What happened | Cure |\n|---|---|---|\n".to_owned();
    for failure in Failure::ALL {
        writeln!(text, "| {} | {} | {} |", failure.code(), failure.what(), failure.cure()).unwrap();
    }
    text
}

#[test]
fn the_manual_has_every_failure_and_its_cure() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/operating.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once(BEGIN).expect("docs/operating.md has the first marker");
    let (found, after) = rest.split_once(END).expect("docs/operating.md has the second marker");
    if std::env::var_os("UPDATE_SNAPSHOT").is_some() {
        std::fs::write(&path, [before, BEGIN, &table(), END, after].concat()).unwrap();
    } else {
        assert_eq!(found, table(), "run `UPDATE_SNAPSHOT=1 cargo test -p boot`");
    }
}
