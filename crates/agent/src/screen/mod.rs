//! Full screens for a person at the node: the menu, a download, what this node is. Pages are drawn
//! into ratatui's buffers, by functions without a terminal; [`ansi`] turns what has changed into
//! what a terminal understands.
//!
//! **Plain on purpose.** Of a node's terminals one may be a framebuffer and another a serial line to
//! somebody's laptop, so pages are ASCII but for what the lab itself calls things, use bold and
//! reverse but no colour, and fit 80 columns and 24 lines. On less they show less, down to one column.

pub(crate) mod ansi;
pub(crate) mod download;
pub(crate) mod menu;
pub(crate) mod password;

use ratatui_core::buffer::Buffer;
use ratatui_core::layout::Rect;
use ratatui_core::style::{Modifier, Style};

/// Of the line at the top, and of what is selected.
const REVERSED: Style = Style::new().add_modifier(Modifier::REVERSED);

const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);

/// Columns of a terminal that somebody has drawn so small by mistake.
const NARROW: u16 = 4;

const PLAIN: Style = Style::new();

/// Draws one line of a page, in columns of `area`, cut off where that ends. `row` counts from the
/// top of `area`; what is below its end is not drawn.
fn line(buffer: &mut Buffer, area: Rect, row: u16, text: &str, style: Style) {
    // Where there is no room for margins something is to be seen all the same.
    let text = if area.width < NARROW { text.trim_start() } else { text };
    if row < area.height {
        buffer.set_stringn(area.x, area.y + row, text, usize::from(area.width), style);
    }
}

/// The line at the top: what this is, and at the right which node.
fn head(buffer: &mut Buffer, area: Rect, title: &str, node: &str) {
    let bar = Rect { height: area.height.min(1), ..area };
    buffer.set_style(bar, REVERSED);
    line(buffer, bar, 0, &format!(" BootTorrent  {title}"), REVERSED);
    let used = " BootTorrent  ".len() + title.len() + 2;
    let place = usize::from(area.width).checked_sub(node.len() + 1);
    if let Some(place) = place.filter(|place| *place >= used) {
        let right = Rect { x: area.x + place as u16, width: node.len() as u16, ..bar };
        line(buffer, right, 0, node, REVERSED);
    }
}

/// Breaks a text into lines of at most `width` characters, at spaces where there are any.
fn wrap(text: &str, width: u16) -> Vec<String> {
    let width = usize::from(width.max(1));
    let mut lines = vec![];
    for paragraph in text.lines() {
        let mut current = String::new();
        for word in paragraph.split(' ') {
            let mut word: Vec<char> = word.chars().collect();
            if !current.is_empty() && current.chars().count() + 1 + word.len() > width {
                lines.push(std::mem::take(&mut current));
            } else if !current.is_empty() {
                current.push(' ');
            }
            while word.len() > width {
                lines.push(word.drain(..width).collect());
            }
            current.extend(word);
        }
        lines.push(current);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a page looks like on a screen of this size, line by line, without spaces at the end.
    pub(super) fn shot(width: u16, height: u16, draw: impl Fn(&mut Buffer)) -> String {
        let mut buffer = Buffer::empty(Rect::new(0, 0, width, height));
        draw(&mut buffer);
        let row = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>();
        (0..height).map(|y| format!("{}\n", row(y).trim_end())).collect()
    }

    /// That a page looks as it did; `UPDATE_SNAPSHOT=1` keeps how it looks now.
    #[track_caller]
    pub(super) fn check_snapshot(name: &str, found: &str) {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/screen/snapshots");
        let path = format!("{folder}/{name}.txt");
        if std::env::var_os("UPDATE_SNAPSHOT").is_some() {
            std::fs::write(&path, found).unwrap();
        }
        let expect = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(found, expect, "{path}:\n{found}");
    }

    /// That no size of a screen is too small.
    pub(super) fn check_sizes(draw: impl Fn(&mut Buffer)) {
        for width in [0, 1, 2, 3, 7, 20, 40, 79, 80, 200] {
            for height in [0, 1, 2, 3, 4, 5, 8, 24, 60] {
                shot(width, height, &draw);
            }
        }
    }

    #[test]
    fn words_are_wrapped_and_long_ones_broken() {
        let check = |text, width, expect: &[&str]| assert_eq!(wrap(text, width), expect);
        check("a few words", 5, &["a few", "words"]);
        check("one\ntwo", 9, &["one", "two"]);
        check("abcdefgh i", 3, &["abc", "def", "gh", "i"]);
        check("x y", 1, &["x", "y"]);
        check("", 4, &[]);
    }
}
