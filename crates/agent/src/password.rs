//! Asking the person at the node for a password: a page with a line of asterisks.
//!
//! It keeps a door shut, as in any computer room; it is no encryption. Whoever can change the kernel's
//! command line, or boots something else, does not come through this door.

use std::time::{Duration, Instant};

use boot::PasswordHash;

use crate::events::{Event, Key};
use crate::node::Node;
use crate::screen::password as page;

/// The most characters that are typed.
const LEN_MAX: usize = 64;

/// A key wakes this; otherwise nothing on the page changes but the size of the terminal.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// After this many wrong ones the page is left, and whoever sits there begins anew: the log then says so.
const ATTEMPTS_MAX: u32 = 3;

/// What is typed. A state machine without a terminal.
#[derive(Debug, Default)]
pub(crate) struct Typed {
    text: String,
}

/// What a key came to.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// It goes on.
    More,
    /// This is the password.
    Done(String),
    /// The person does not know it.
    Left,
}

impl Typed {
    fn handle(&mut self, key: Key) -> Step {
        match key {
            Key::Enter => return Step::Done(std::mem::take(&mut self.text)),
            Key::Escape | Key::Control('c') => return Step::Left,
            Key::Control('u') => self.text.clear(),
            Key::Erase => drop(self.text.pop()),
            Key::Char(c) if self.len() < LEN_MAX => self.text.push(c),
            _ => {}
        }
        Step::More
    }

    /// How many characters there are.
    pub(crate) fn len(&self) -> usize {
        self.text.chars().count()
    }
}

/// Asks until the password is right, the person gives up, or there were too many wrong ones. `what`
/// says what it is for. What else happens meanwhile waits.
pub(crate) fn ask(node: &Node, what: &str, hash: &PasswordHash) -> bool {
    let mut later = vec![];
    let mut typed = Typed::default();
    let mut wrong_count = 0;
    let is_known = loop {
        let said = if wrong_count > 0 { "That was not it. Once more." } else { "" };
        let plain = format!("Password for {what}: {}", "*".repeat(typed.len()));
        let name = node.name();
        node.console.draw(&plain, |buffer| page::draw(&name, what, typed.len(), said, buffer));
        let step = match node.next(Instant::now() + LOOK_INTERVAL) {
            Some(Event::Key(key)) => typed.handle(key),
            Some(event) => {
                later.push(event);
                continue;
            }
            None => continue,
        };
        match step {
            Step::More => {}
            Step::Left => break false,
            Step::Done(text) if hash.is_of(&text) => break true,
            Step::Done(_) => {
                wrong_count += 1;
                node.log.add(&format!("a wrong password for {what}"));
                if wrong_count == ATTEMPTS_MAX {
                    break false;
                }
            }
        }
    };
    node.console.end_page();
    node.inbox.put_back(later);
    is_known
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(keys: &[Key], expect: Step) {
        let mut typed = Typed::default();
        let step = keys.iter().map(|key| typed.handle(*key)).last().unwrap_or(Step::More);
        assert_eq!(step, expect, "{keys:?}");
    }

    #[test]
    fn what_is_typed_can_be_mended_and_given_up() {
        use Key::{Char, Control, Enter, Erase, Escape, Up};
        check(&[Char('a'), Char(' '), Char('b'), Enter], Step::Done("a b".to_owned()));
        check(&[Erase, Char('a'), Char('x'), Erase, Up, Enter], Step::Done("a".to_owned()));
        check(&[Char('x'), Control('u'), Char('a'), Enter], Step::Done("a".to_owned()));
        check(&[Char('a'), Escape], Step::Left);
        let long = vec![Char('a'); 1000];
        let expect = Step::Done("a".repeat(LEN_MAX));
        check(&[long, vec![Enter]].concat(), expect);
        // A character is one, however many bytes it has.
        let long = vec![Char('ä'); LEN_MAX + 1];
        check(&[long, vec![Enter]].concat(), Step::Done("ä".repeat(LEN_MAX)));
    }
}
