//! The page that asks for a password.

use ratatui_core::buffer::Buffer;
use ratatui_core::layout::Rect;

use super::{BOLD, PLAIN, head, line, wrap};

/// Draws it on the whole of `buffer`: what the password is for, an asterisk for each of `len`
/// characters, and what there is to say.
pub(crate) fn draw(node: &str, what: &str, len: usize, said: &str, buffer: &mut Buffer) {
    let area = buffer.area;
    head(buffer, area, "Password", node);
    let spare = u16::from(area.height >= 8);
    let top = (1 + spare).min(area.height);
    let body = Rect {
        x: area.x + 1.min(area.width),
        y: area.y + top,
        width: area.width.saturating_sub(2),
        height: area.height.saturating_sub(top),
    };
    let shown = len.min(usize::from(body.width).saturating_sub(3));
    let mut lines = vec![(format!("> {}_", "*".repeat(shown)), BOLD)];
    for text in [&format!("The password for {what}:"), said, "Enter   Esc back"] {
        lines.extend(wrap(text, body.width).into_iter().map(|text| (text, PLAIN)));
    }
    // What is typed stays longest on a small screen, but is read second.
    if body.height > 1 {
        lines.swap(0, 1);
    }
    for (row, (text, style)) in (0..).zip(lines) {
        line(buffer, body, row * (1 + spare), &text, style);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::screen::tests::{check_sizes, check_snapshot, shot};

    #[test]
    fn a_password_is_not_seen() {
        let page = |buffer: &mut Buffer| draw("n", "The exam", 6, "That was not it.", buffer);
        check_snapshot("password-40x10", &shot(40, 10, page));
    }

    #[test]
    fn no_screen_is_too_small() {
        check_sizes(|buffer| draw("n", "The exam", 60, "That was not it.", buffer));
    }
}
