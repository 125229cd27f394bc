//! The menu: a list, what is typed to shorten it, and what happens if nobody types. A state machine
//! without clock or console; `screen::menu` draws it.

use std::fmt::Write as _;
use std::time::Duration;

use boot::{Image, ImageName, Manifest};

use crate::console::mib;
use crate::events::Key;

/// The most characters that are typed to find an image: names have no more.
const FILTER_LEN_MAX: usize = boot::image::NAME_LEN_MAX;

/// Lines that page up and page down go: about half a screen of 24 lines.
const PAGE_LEN: usize = 10;

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

/// What is in front.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Page {
    /// The images.
    List,
    /// What this node is.
    Node,
    /// What has happened.
    Log,
}

/// The menu of a manifest.
#[derive(Clone, Debug)]
pub(crate) struct Menu {
    images: Vec<Image>,
    default: usize,
    page: Page,
    /// Of the images that are shown.
    selected: usize,
    filter: String,
    /// What is left; none if it waits for ever, or somebody has touched a key.
    left: Option<Duration>,
    touched: bool,
}

impl Menu {
    /// Waits `timeout_s` seconds, or for ever.
    pub(crate) fn new(manifest: &Manifest, timeout_s: Option<u64>) -> Self {
        let systems = manifest.images.iter().filter(|image| image.is_system());
        let images: Vec<Image> = systems.cloned().collect();
        let default = images.iter().position(|image| image.name == manifest.menu.default);
        let default = default.unwrap_or(0);
        // Nobody would be there to type it.
        let timeout_s = timeout_s.filter(|_| manifest.needs_nobody());
        Self {
            images,
            default,
            page: Page::List,
            selected: default,
            filter: String::new(),
            left: timeout_s.map(Duration::from_secs),
            touched: false,
        }
    }

    /// Somebody has touched a key, so it has to stay as it is.
    pub(crate) const fn is_touched(&self) -> bool {
        self.touched
    }

    /// What is in front.
    pub(crate) const fn page(&self) -> Page {
        self.page
    }

    /// What is typed.
    pub(crate) fn filter(&self) -> &str {
        &self.filter
    }

    /// The images that fit what is typed, in the order of the manifest.
    pub(crate) fn shown(&self) -> Vec<&Image> {
        let wanted = self.filter.to_lowercase();
        let fits = |image: &&Image| {
            image.name.as_str().to_lowercase().contains(&wanted)
                || image.title.to_lowercase().contains(&wanted)
        };
        self.images.iter().filter(fits).collect()
    }

    /// Which of these is selected.
    pub(crate) const fn selected(&self) -> usize {
        self.selected
    }

    /// Whether this is what is booted if nobody chooses.
    pub(crate) fn is_default(&self, image: &Image) -> bool {
        self.images.get(self.default).is_some_and(|default| default.name == image.name)
    }

    /// For what shows no screen, such as a file: all images.
    pub(crate) fn list(&self) -> String {
        let mut text = String::from("What shall this node boot?\n");
        for image in &self.images {
            let mark = if self.is_default(image) { '*' } else { ' ' };
            let (title, name, len) = (&image.title, &image.name, mib(image.len));
            // Writing to a string does not fail.
            let _ = writeln!(text, " {mark} {title}  ({name}, {len})");
        }
        text
    }

    /// What happens if nobody chooses.
    pub(crate) fn prompt(&self) -> String {
        match (self.left, self.images.get(self.default)) {
            (Some(left), Some(default)) => {
                // The second that has begun counts.
                let seconds = left.as_millis().div_ceil(1000);
                format!("In {seconds} s: {}. Any key stops the clock.", default.title)
            }
            _ => "Waiting for a choice.".to_owned(),
        }
    }

    /// A key was pressed. Any key ends the countdown: somebody is there.
    pub(crate) fn handle(&mut self, key: Key) -> Option<Outcome> {
        self.left = None;
        self.touched = true;
        let count = self.shown().len();
        let last = count.saturating_sub(1);
        match key {
            Key::Control('s') => return Some(Outcome::Shell),
            Key::Function(1) => self.turn_to(Page::Node),
            Key::Function(2) => self.turn_to(Page::Log),
            Key::Escape | Key::Enter if self.page != Page::List => self.page = Page::List,
            _ if self.page != Page::List => {}
            Key::Up => self.selected = self.selected.saturating_sub(1),
            Key::Down => self.selected = (self.selected + 1).min(last),
            Key::PageUp => self.selected = self.selected.saturating_sub(PAGE_LEN),
            Key::PageDown => self.selected = (self.selected + PAGE_LEN).min(last),
            Key::Home => self.selected = 0,
            Key::End => self.selected = last,
            Key::Escape => self.filter_by(String::new()),
            Key::Erase => {
                let mut filter = self.filter.clone();
                filter.pop();
                self.filter_by(filter);
            }
            Key::Char(c) if self.filter.len() < FILTER_LEN_MAX => {
                let filter = format!("{}{c}", self.filter);
                self.filter_by(filter);
            }
            Key::Enter => {
                let chosen = self.shown().get(self.selected).map(|image| image.name.clone());
                return chosen.map(Outcome::Chosen);
            }
            Key::Char(_) | Key::Control(_) | Key::Function(_) => {}
        }
        None
    }

    /// The same key again leads back.
    fn turn_to(&mut self, page: Page) {
        self.page = if self.page == page { Page::List } else { page };
    }

    /// Another filter. What was selected stays so if it is still shown.
    fn filter_by(&mut self, filter: String) {
        let selected = self.shown().get(self.selected).map(|image| image.name.clone());
        self.filter = filter;
        let place = self.shown().iter().position(|image| Some(&image.name) == selected.as_ref());
        self.selected = place.unwrap_or(0);
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
    use crate::keys::KeyReader;

    fn typed(keys: &str) -> Option<Outcome> {
        let mut menu = Menu::new(&manifest(Some(30)), Some(30));
        let mut outcome = None;
        let mut reader = KeyReader::default();
        for key in reader.take(keys.as_bytes()).into_iter().chain(reader.pause()) {
            outcome = menu.handle(key);
        }
        outcome
    }

    fn chosen(name: &str) -> Option<Outcome> {
        Some(Outcome::Chosen(name.parse().unwrap()))
    }

    #[test]
    fn arrows_and_enter_choose() {
        for (keys, expect) in [
            ("\r", "debian"),
            ("\x1b[A\r", "arch"),
            ("\x1b[A\x1b[A\r", "arch"),
            ("\x1b[B\x1b[B\r", "memtest"),
            ("\x1b[5~\r", "arch"),
            ("\x1b[6~\r", "memtest"),
            ("\x1b[H\r", "arch"),
            ("\x1b[F\r", "memtest"),
        ] {
            assert_eq!(typed(keys), chosen(expect), "{keys:?}");
        }
    }

    #[test]
    fn typing_leaves_what_fits_by_name_or_title() {
        assert_eq!(typed("MEM\r"), chosen("memtest"));
        assert_eq!(typed("the a\r"), chosen("arch"));
        assert_eq!(typed("memx\x7f\r"), chosen("memtest"));
        assert_eq!(typed("nothing\r"), None);
        assert_eq!(typed("nothing\x1b[B\x1b[F\r"), None);
        // What was selected stays so while it is shown.
        assert_eq!(typed("e\r"), chosen("debian"));
    }

    #[test]
    fn escape_shows_all_again() {
        let mut menu = Menu::new(&manifest(None), None);
        for key in [Key::Char('m'), Key::Char('e'), Key::Char('m'), Key::Escape] {
            menu.handle(key);
        }
        assert_eq!((menu.filter(), menu.shown().len(), menu.selected()), ("", 3, 2));
    }

    #[test]
    fn a_shell_is_a_key_away_on_every_page() {
        assert_eq!(typed("\x13"), Some(Outcome::Shell));
        assert_eq!(typed("\x1bOP\x13"), Some(Outcome::Shell));
    }

    #[test]
    fn what_is_read_about_the_node_is_left_again() {
        for keys in ["\x1bOP\x1bOP\r", "\x1bOP\r\r", "\x1bOQ\x1bOP\x1bOP\r", "\x1bOPxyz\r\r"] {
            assert_eq!(typed(keys), chosen("debian"), "{keys:?}");
        }
        assert_eq!(typed("\x1bOP\r"), None);
        assert_eq!(typed("\x1bOQ\x1b"), None);
    }

    #[test]
    fn nobody_there_boots_the_default_in_time() {
        let mut menu = Menu::new(&manifest(Some(2)), Some(2));
        assert!(menu.prompt().starts_with("In 2 s: The debian."), "{}", menu.prompt());
        assert_eq!(menu.pass(Duration::from_millis(1500)), None);
        assert!(menu.prompt().starts_with("In 1 s: The debian."), "{}", menu.prompt());
        assert_eq!(menu.pass(Duration::from_millis(500)), Some(Outcome::TimedOut));
    }

    #[test]
    fn any_key_stops_the_countdown_and_null_never_begins_one() {
        for key in [Key::Char('1'), Key::Up, Key::Escape, Key::Control('c'), Key::Function(9)] {
            let mut menu = Menu::new(&manifest(Some(2)), Some(2));
            menu.handle(key);
            assert_eq!(menu.pass(Duration::from_secs(1000)), None, "{key:?}");
        }
        let mut menu = Menu::new(&manifest(None), None);
        assert_eq!(menu.pass(Duration::from_secs(1000)), None);
    }

    #[test]
    fn the_list_has_titles_sizes_and_the_default() {
        let list = Menu::new(&manifest(None), None).list();
        assert!(list.contains(" * The debian  (debian, 5.0 MiB)"), "{list}");
    }

    proptest::proptest! {
        #[test]
        fn no_keys_select_what_is_not_shown(keys in "[a-e\r\x08\x1b\\[ABHF56~OPQ]{0,60}") {
            let mut menu = Menu::new(&manifest(None), None);
            for key in KeyReader::default().take(keys.as_bytes()) {
                menu.handle(key);
                let shown = menu.shown().len();
                proptest::prop_assert!(menu.selected() < shown.max(1));
            }
        }
    }
}
