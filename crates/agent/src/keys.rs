//! What terminals send for keys, turned into keys: the Linux console, xterm and its many copies,
//! and what serial terminals of the VT family send (ECMA-48 sections 5.4 and 8.3). A state machine
//! without a terminal or a clock.

use crate::events::Key;

const ESC: u8 = 0x1b;

/// The most bytes of one control sequence that are kept. Keys have at most six; what is longer is a
/// terminal that answers something, or noise on the line.
const SEQUENCE_LEN_MAX: usize = 16;

/// Reads the keys of one terminal.
#[derive(Clone, Debug, Default)]
pub(crate) struct KeyReader {
    state: State,
}

#[derive(Clone, Debug, Default)]
enum State {
    #[default]
    Ground,
    /// After ESC.
    Escape,
    /// After ESC `[`, with what came since.
    Control(Vec<u8>),
    /// After ESC `O`: keys of the VT100's keypad.
    Keypad,
    /// After ESC `[[`: the function keys of the Linux console.
    Linux,
}

impl KeyReader {
    /// The keys that `bytes` end, in order.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Vec<Key> {
        bytes.iter().filter_map(|&byte| self.step(byte)).collect()
    }

    /// Nothing has come for a while: an ESC that stands alone was the key of that name, since
    /// terminals send sequences in one go.
    pub(crate) fn pause(&mut self) -> Option<Key> {
        match std::mem::take(&mut self.state) {
            State::Escape => Some(Key::Escape),
            _ => None,
        }
    }

    fn step(&mut self, byte: u8) -> Option<Key> {
        match std::mem::take(&mut self.state) {
            State::Ground if byte == ESC => {
                self.state = State::Escape;
                None
            }
            State::Ground => Key::of(byte),
            State::Escape => match byte {
                b'[' => {
                    self.state = State::Control(vec![]);
                    None
                }
                b'O' => {
                    self.state = State::Keypad;
                    None
                }
                ESC => {
                    self.state = State::Escape;
                    Some(Key::Escape)
                }
                // A key together with Alt.
                _ => None,
            },
            State::Control(mut sequence) => match byte {
                b'[' if sequence.is_empty() => {
                    self.state = State::Linux;
                    None
                }
                0x20..=0x3f => {
                    if sequence.len() < SEQUENCE_LEN_MAX {
                        sequence.push(byte);
                    }
                    self.state = State::Control(sequence);
                    None
                }
                _ => control(&sequence, byte),
            },
            State::Keypad => keypad(byte),
            State::Linux => {
                byte.checked_sub(b'A').filter(|at| *at < 5).map(|at| Key::Function(at + 1))
            }
        }
    }
}

/// The key of a control sequence with these parameters and this final byte.
fn control(parameters: &[u8], last: u8) -> Option<Key> {
    // After `;` come modifiers, such as Shift.
    let number = parameters.split(|byte| *byte == b';').next().unwrap_or_default();
    match (number, last) {
        (_, b'A') => Some(Key::Up),
        (_, b'B') => Some(Key::Down),
        (_, b'H') | (b"1" | b"7", b'~') => Some(Key::Home),
        (_, b'F') | (b"4" | b"8", b'~') => Some(Key::End),
        (b"3", b'~') => Some(Key::Erase),
        (b"5", b'~') => Some(Key::PageUp),
        (b"6", b'~') => Some(Key::PageDown),
        (b"11", b'~') => Some(Key::Function(1)),
        (b"12", b'~') => Some(Key::Function(2)),
        (b"13", b'~') => Some(Key::Function(3)),
        // With another number it is where the cursor is.
        (b"" | b"1", b'P'..=b'S') => Some(Key::Function(last - b'P' + 1)),
        _ => None,
    }
}

fn keypad(byte: u8) -> Option<Key> {
    match byte {
        b'P'..=b'S' => Some(Key::Function(byte - b'P' + 1)),
        _ => control(b"", byte),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(bytes: &[u8], expect: &[Key]) {
        assert_eq!(
            KeyReader::default().take(bytes),
            expect,
            "{:?}",
            bytes.escape_ascii().to_string()
        );
        // A serial line may hand over each byte by itself.
        let mut reader = KeyReader::default();
        let one_by_one: Vec<Key> = bytes.iter().flat_map(|byte| reader.take(&[*byte])).collect();
        assert_eq!(one_by_one, expect);
    }

    #[test]
    fn terminals_differ_in_what_they_send() {
        check(b"\x1b[A\x1b[B\x1bOA\x1bOB", &[Key::Up, Key::Down, Key::Up, Key::Down]);
        check(b"\x1b[5~\x1b[6~", &[Key::PageUp, Key::PageDown]);
        check(b"\x1b[H\x1b[1~\x1b[7~\x1bOH", &[Key::Home; 4]);
        check(b"\x1b[F\x1b[4~\x1b[8~\x1bOF", &[Key::End; 4]);
        check(b"\x1bOP\x1b[[A\x1b[11~", &[Key::Function(1); 3]);
        check(b"\x1bOQ\x1b[[B\x1b[12~", &[Key::Function(2); 3]);
        check(b"\x1b[1;5A\x1b[3~\x7f", &[Key::Up, Key::Erase, Key::Erase]);
        check(b"a\r\x13\x03", &[Key::Char('a'), Key::Enter, Key::Control('s'), Key::Control('c')]);
    }

    #[test]
    fn what_is_no_key_is_passed_over() {
        check(b"\x1b[24;80Rx", &[Key::Char('x')]);
        check(b"\x1b[[Zx", &[Key::Char('x')]);
        check(b"\x1bzx\x00\xff", &[Key::Char('x')]);
        let long = [b"\x1b[".as_slice(), &[b'1'; 1_000], b"zx"].concat();
        check(&long, &[Key::Char('x')]);
    }

    #[test]
    fn an_escape_that_stands_alone_is_a_key() {
        let mut reader = KeyReader::default();
        assert_eq!((reader.take(b"\x1b"), reader.pause()), (vec![], Some(Key::Escape)));
        assert_eq!((reader.take(b"\x1b["), reader.pause()), (vec![], None));
        assert_eq!(reader.take(b"A"), [Key::Char('A')]);
        check(b"\x1b\x1b[A", &[Key::Escape, Key::Up]);
    }

    proptest::proptest! {
        #[test]
        fn no_noise_on_the_line_is_too_strange(bytes: Vec<u8>) {
            let mut reader = KeyReader::default();
            reader.take(&bytes);
            reader.pause();
            proptest::prop_assert_eq!(reader.take(b"\r"), [Key::Enter]);
        }
    }
}
