//! What stands on a machine's screen, as text: its serial console as a terminal shows it. Kept beside
//! the evidence, and with `UPDATE_SNAPSHOT=1` written into `docs/usecases.md`.

use std::num::NonZeroU16;

use anyhow::{Context as _, Result};

use super::Stage;
use super::machine::Machine;
use crate::root;

/// What a serial line is taken to have.
const COLUMNS: NonZeroU16 = NonZeroU16::new(80).unwrap();
const LINES: NonZeroU16 = NonZeroU16::new(24).unwrap();

const DOCUMENT: &str = "docs/usecases.md";

/// Keeps the screen of `machine` as that of a use case, such as `usecase-2`.
pub(super) fn keep(stage: &Stage<'_>, machine: &Machine<'_>, usecase: &str) -> Result<()> {
    let path = machine.console()?.path();
    let bytes = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    let text = screen(&bytes);
    let path = stage.dir.join(format!("{usecase}.txt"));
    std::fs::write(&path, &text).with_context(|| format!("writing {}", path.display()))?;
    if std::env::var_os("UPDATE_SNAPSHOT").is_some() {
        let path = root().join(DOCUMENT);
        let document =
            std::fs::read_to_string(&path).with_context(|| format!("reading {DOCUMENT}"))?;
        let document = placed(&document, usecase, &text)
            .with_context(|| format!("{DOCUMENT} has no place for {usecase}"))?;
        std::fs::write(&path, document).with_context(|| format!("writing {DOCUMENT}"))?;
    }
    Ok(())
}

/// The screen of a terminal that got these bytes, without spaces at the ends of lines or empty lines at
/// its own end.
fn screen(bytes: &[u8]) -> String {
    let mut parser = vt100::Parser::new(LINES, COLUMNS, 0);
    parser.process(bytes);
    let rows = parser.screen().rows(0, COLUMNS.get());
    let text: String = rows.map(|row| format!("{}\n", row.trim_end())).collect();
    format!("{}\n", text.trim_end())
}

/// The document with this screen between the marks of the use case.
fn placed(document: &str, usecase: &str, text: &str) -> Option<String> {
    let begin = format!("<!-- screen of {usecase}: written by `cargo xtask e2e {usecase}` -->\n");
    let (before, rest) = document.split_once(&begin)?;
    let (_, after) = rest.split_once("<!-- end -->\n")?;
    Some(format!("{before}{begin}```text\n{text}```\n<!-- end -->\n{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_screen_is_what_a_terminal_shows() {
        let text = screen(b"gone\r\n\x1b[2J\x1b[Hhead   \r\n\r\n\x1b[3;3Hbody\x1b[3;5Hom");
        assert_eq!(text, "head\n\n  boom\n");
    }

    #[test]
    fn a_screen_has_its_place_in_the_document() {
        let mark = "<!-- screen of usecase-1: written by `cargo xtask e2e usecase-1` -->\n";
        let document = format!("a\n{mark}old\n<!-- end -->\nb\n");
        let expect = format!("a\n{mark}```text\nnew\n```\n<!-- end -->\nb\n");
        assert_eq!(placed(&document, "usecase-1", "new\n").as_deref(), Some(expect.as_str()));
        assert_eq!(placed(&expect, "usecase-1", "new\n").as_deref(), Some(expect.as_str()));
        assert_eq!(placed(&document, "usecase-2", "new\n"), None);
    }
}
