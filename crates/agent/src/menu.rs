//! The menu: a list with numbers, and a line that says what is typed and what happens if nobody
//! types. A state machine without clock or console.

use std::fmt::Write as _;
use std::time::Duration;

use boot::{ImageName, Manifest};

use crate::console::mib;
use crate::events::Key;

/// The most digits that are taken: there are no ten thousand images in a menu.
const TYPED_LEN_MAX: usize = 4;

/// What the menu has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The person wants this image.
    Chosen(ImageName),
    /// Nobody came: the default.
    TimedOut,
    /// The person wants a shell.
    Shell,
}

/// The menu of a manifest.
#[derive(Clone, Debug)]
pub(crate) struct Menu {
    titles: Vec<(ImageName, String)>,
    default: usize,
    typed: String,
    /// What is left; none if it waits for ever, or somebody has touched a key.
    left: Option<Duration>,
    touched: bool,
}

impl Menu {
    /// Waits `timeout_s` seconds, or for ever.
    pub(crate) fn new(manifest: &Manifest, timeout_s: Option<u64>) -> Self {
        let titles: Vec<_> = manifest
            .images
            .iter()
            .map(|image| {
                (
                    image.name.clone(),
                    format!("{}  ({}, {})", image.title, image.name, mib(image.len)),
                )
            })
            .collect();
        let default = manifest.images.iter().position(|image| image.name == manifest.menu.default);
        Self {
            titles,
            default: default.unwrap_or(0),
            typed: String::new(),
            left: timeout_s.map(Duration::from_secs),
            touched: false,
        }
    }

    /// Somebody has touched a key, so it has to stay as it is.
    pub(crate) const fn is_touched(&self) -> bool {
        self.touched
    }

    /// The list, to be shown once.
    pub(crate) fn list(&self) -> String {
        let mut text = String::from("\nWhat shall this node boot?\n\n");
        for (index, (_, title)) in self.titles.iter().enumerate() {
            let mark = if index == self.default { '*' } else { ' ' };
            // Writing to a string does not fail.
            let _ = writeln!(text, " {mark}{:>3}  {title}", index + 1);
        }
        text.push_str("\n  number and Enter: boot it    Enter: the one marked *    s: shell\n");
        text
    }

    /// The line below it.
    pub(crate) fn prompt(&self) -> String {
        let default = &self.titles[self.default].0;
        match self.left {
            Some(left) => {
                // The second that has begun counts.
                let seconds = left.as_millis().div_ceil(1000);
                format!("{default} in {seconds} s, if nobody chooses > {}", self.typed)
            }
            None => format!("1 to {} > {}", self.titles.len(), self.typed),
        }
    }

    /// A key was pressed. Any key ends the countdown: somebody is there.
    pub(crate) fn handle(&mut self, key: Key) -> Option<Outcome> {
        self.left = None;
        self.touched = true;
        match key {
            Key::Char(c) if c.is_ascii_digit() => {
                if self.typed.len() < TYPED_LEN_MAX {
                    self.typed.push(c);
                }
                None
            }
            Key::Erase => {
                self.typed.pop();
                None
            }
            Key::Char('s' | 'S') => Some(Outcome::Shell),
            Key::Char(_) => None,
            Key::Enter => {
                let typed = std::mem::take(&mut self.typed);
                let index = if typed.is_empty() {
                    Some(self.default)
                } else {
                    typed.parse().ok().and_then(|number: usize| number.checked_sub(1))
                };
                let chosen = index.and_then(|index| self.titles.get(index));
                chosen.map(|(name, _)| Outcome::Chosen(name.clone()))
            }
        }
    }

    /// Time has passed.
    pub(crate) fn pass(&mut self, time: Duration) -> Option<Outcome> {
        let left = self.left.as_mut()?;
        *left = left.saturating_sub(time);
        left.is_zero().then_some(Outcome::TimedOut)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::choose::tests::manifest;

    fn typed(keys: &str) -> Option<Outcome> {
        let mut menu = Menu::new(&manifest(Some(30)), Some(30));
        let mut outcome = None;
        for key in keys.bytes().filter_map(Key::of) {
            outcome = menu.handle(key);
        }
        outcome
    }

    fn chosen(name: &str) -> Option<Outcome> {
        Some(Outcome::Chosen(name.parse().unwrap()))
    }

    #[test]
    fn a_number_and_enter_choose() {
        assert_eq!(typed("3\r"), chosen("memtest"));
        assert_eq!(typed("\r"), chosen("debian"));
        assert_eq!(typed("33\x7f\n"), chosen("memtest"));
        assert_eq!(typed("s"), Some(Outcome::Shell));
        for keys in ["3", "0\r", "4\r", "99999\r", "x\x1b"] {
            assert_eq!(typed(keys), None, "{keys:?}");
        }
    }

    #[test]
    fn nobody_there_boots_the_default_in_time() {
        let mut menu = Menu::new(&manifest(Some(2)), Some(2));
        assert!(menu.prompt().starts_with("debian in 2 s"), "{}", menu.prompt());
        assert_eq!(menu.pass(Duration::from_millis(1500)), None);
        assert!(menu.prompt().starts_with("debian in 1 s"), "{}", menu.prompt());
        assert_eq!(menu.pass(Duration::from_millis(500)), Some(Outcome::TimedOut));
    }

    #[test]
    fn a_key_stops_the_countdown_and_null_never_begins_one() {
        let mut menu = Menu::new(&manifest(Some(2)), Some(2));
        menu.handle(Key::Char('1'));
        assert_eq!(menu.pass(Duration::from_secs(1000)), None);
        let mut menu = Menu::new(&manifest(None), None);
        assert_eq!(menu.pass(Duration::from_secs(1000)), None);
    }

    #[test]
    fn the_list_has_titles_sizes_and_the_default() {
        let list = Menu::new(&manifest(None), None).list();
        assert!(list.contains(" *  2  The debian  (debian, 5.0 MiB)"), "{list}");
    }
}
