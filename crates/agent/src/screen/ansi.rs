//! What a terminal is sent so that it shows a buffer (ECMA-48; the Linux console and every VT100
//! after it understand this much).

use ratatui_core::buffer::{Buffer, Cell, CellWidth};
use ratatui_core::layout::Rect;
use ratatui_core::style::Modifier;

/// Nothing is on the screen, and the cursor is not seen.
const CLEAR: &str = "\x1b[0m\x1b[2J\x1b[H\x1b[?25l";

/// As text is written.
const NORMAL: &str = "\x1b[0m\x1b[?25h";

/// A terminal's screen, as far as we know.
#[derive(Debug, Default)]
pub(crate) struct Screen {
    /// What it shows; none if it is not ours.
    shown: Option<Buffer>,
}

impl Screen {
    /// What has to be sent so that a screen of `width` and `height` shows what `draw` draws.
    pub(crate) fn show(&mut self, width: u16, height: u16, draw: &dyn Fn(&mut Buffer)) -> String {
        let area = Rect::new(0, 0, width, height);
        let mut next = Buffer::empty(area);
        draw(&mut next);
        let mut out = String::new();
        let before = match self.shown.take() {
            Some(shown) if shown.area == area => shown,
            _ => {
                out.push_str(CLEAR);
                Buffer::empty(area)
            }
        };
        for y in 0..height {
            row(&mut out, &before, &next, y);
        }
        self.shown = Some(next);
        out
    }

    /// What it shows, line by line; none if it is not ours.
    pub(crate) fn text(&self) -> Option<String> {
        let shown = self.shown.as_ref()?;
        let row = |y| {
            let mut line = String::new();
            let mut x = 0;
            while x < shown.area.width {
                let cell = &shown[(x, y)];
                line.push_str(cell.symbol());
                x += width(cell);
            }
            line.trim_end().to_owned() + "\n"
        };
        Some((0..shown.area.height).map(row).collect())
    }

    /// It was cleared or written on by others: all is sent the next time.
    pub(crate) fn forget(&mut self) {
        self.shown = None;
    }

    /// What has to be sent before lines are written as ever: they begin on an empty screen.
    pub(crate) fn leave(&mut self) -> String {
        match self.shown.take() {
            Some(_) => format!("\x1b[0m\x1b[2J\x1b[H{NORMAL}"),
            None => String::new(),
        }
    }
}

/// Sends what has changed of a row, from the first change to the last in one piece: so that words
/// stay whole for whoever records a serial line.
fn row(out: &mut String, before: &Buffer, next: &Buffer, y: u16) {
    let is_changed = |x: &u16| before[(*x, y)] != next[(*x, y)];
    let Some(first) = (0..next.area.width).find(is_changed) else { return };
    let last = (first..next.area.width).rfind(is_changed).unwrap_or(first);
    // Counted from 1.
    out.push_str(&format!("\x1b[{};{}H", y + 1, first + 1));
    let mut style = Modifier::empty();
    let mut x = first;
    while x <= last {
        let cell = &next[(x, y)];
        if cell.modifier != style {
            style = cell.modifier;
            out.push_str(rendition(style));
        }
        out.push_str(cell.symbol());
        x += width(cell);
    }
    if !style.is_empty() {
        out.push_str("\x1b[0m");
    }
}

/// Columns of a cell; those that a wide character covers are not sent.
fn width(cell: &Cell) -> u16 {
    cell.symbol().cell_width().max(1)
}

fn rendition(style: Modifier) -> &'static str {
    match (style.contains(Modifier::BOLD), style.contains(Modifier::REVERSED)) {
        (false, false) => "\x1b[0m",
        (true, false) => "\x1b[0;1m",
        (false, true) => "\x1b[0;7m",
        (true, true) => "\x1b[0;1;7m",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::screen::{BOLD, PLAIN, REVERSED, line};

    fn text(text: &'static str) -> impl Fn(&mut Buffer) {
        move |buffer: &mut Buffer| {
            let area = buffer.area;
            line(buffer, area, 1, text, PLAIN);
        }
    }

    #[test]
    fn a_screen_is_cleared_once_and_then_only_changes_are_sent() {
        let mut screen = Screen::default();
        let first = screen.show(20, 3, &text("boot in 10 s"));
        assert_eq!(first, format!("{CLEAR}\x1b[2;1Hboot in 10 s"));
        assert_eq!(screen.text().as_deref(), Some("\nboot in 10 s\n\n"));
        assert_eq!(screen.show(20, 3, &text("boot in 10 s")), "");
        assert_eq!(screen.show(20, 3, &text("boot in  9 s")), "\x1b[2;9H 9");
        assert_eq!(screen.show(20, 3, &text("")), "\x1b[2;1H            ");
    }

    #[test]
    fn another_size_or_another_writer_begins_anew() {
        let mut screen = Screen::default();
        screen.show(20, 3, &text("a"));
        assert!(screen.show(21, 3, &text("a")).starts_with(CLEAR));
        screen.forget();
        assert!(screen.show(21, 3, &text("a")).starts_with(CLEAR));
        assert!(screen.leave().ends_with(NORMAL));
        assert_eq!(screen.leave(), "");
    }

    #[test]
    fn styles_end_with_what_they_are_for() {
        let draw = |buffer: &mut Buffer| {
            let area = buffer.area;
            line(buffer, area, 0, "ab", REVERSED);
            line(buffer, Rect::new(2, 0, 5, 1), 0, "c", BOLD);
        };
        let sent = Screen::default().show(9, 1, &draw);
        assert_eq!(sent, format!("{CLEAR}\x1b[1;1H\x1b[0;7mab\x1b[0;1mc\x1b[0m"));
    }

    #[test]
    fn wide_characters_take_two_columns() {
        let sent = Screen::default().show(9, 2, &text("日x"));
        assert_eq!(sent, format!("{CLEAR}\x1b[2;1H日x"));
    }
}
