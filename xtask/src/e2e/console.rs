//! The serial console of a machine, as a file that grows: what firmware, boot program, kernels, agent
//! and the image's system have said, in the order in which they said it.

use std::path::{Path, PathBuf};

/// What a machine has said so far.
#[derive(Debug, Clone)]
pub(crate) struct Console {
    path: PathBuf,
}

impl Console {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Everything, without what only a terminal understands.
    pub(crate) fn text(&self) -> String {
        let bytes = std::fs::read(&self.path).unwrap_or_default();
        plain(&String::from_utf8_lossy(&bytes))
    }

    /// Whether a text has been printed.
    pub(crate) fn has(&self, text: &str) -> bool {
        self.text().contains(text)
    }
}

/// Terminal text without escape sequences, carriage returns and empty lines, each of which firmware
/// prints by the screenful.
fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' => skip_escape(&mut chars),
            '\r' | '\0' => {}
            '\u{8}' => {
                out.pop();
            }
            '\n' if out.is_empty() || out.ends_with('\n') => {}
            c => out.push(c),
        }
    }
    out
}

/// After ESC: a control sequence (ECMA-48 section 5.4) up to its final byte, or one more character.
fn skip_escape(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    if chars.next_if_eq(&'[').is_some() {
        while chars.next().is_some_and(|c| !('\u{40}'..='\u{7e}').contains(&c)) {}
    } else {
        chars.next();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_text_is_left_of_what_a_terminal_gets() {
        for (given, expect) in [
            ("a\r\nb\r\n", "a\nb\n"),
            ("\u{1b}[2J\u{1b}[01;01Hboot\u{1b}[0m", "boot"),
            ("\u{1b}cx", "x"),
            ("1/3\u{8}\u{8}\u{8}2/3", "2/3"),
            ("\n\n\na\n\n\nb", "a\nb"),
            ("cut\u{1b}[3", "cut"),
        ] {
            assert_eq!(plain(given), expect, "{given:?}");
        }
    }
}
