//! What the agent waits for: keys, answers of the server, news of the swarm. All of it comes through
//! one channel to the one thread that decides.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;

use torrent_io::session::SessionEvent;

/// Something that happened.
#[derive(Debug)]
pub(crate) enum Event {
    /// A key was pressed.
    Key(Key),
    /// The server has answered a report.
    Answer(Answered),
    /// Something happened to the download of this number.
    Session(u32, SessionEvent),
}

/// What an answer of the server means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answered {
    /// The serial of the manifest in force.
    pub(crate) serial: u64,
    /// How many other nodes download the image that this one has whole.
    pub(crate) downloading: Option<u32>,
    /// Reports had been lost before.
    pub(crate) after_silence: bool,
}

/// A key, as far as the agent has use for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    /// Enter.
    Enter,
    /// Backspace or Delete.
    Erase,
    /// Esc.
    Escape,
    /// The arrow.
    Up,
    /// The arrow.
    Down,
    /// Page up.
    PageUp,
    /// Page down.
    PageDown,
    /// Home.
    Home,
    /// End.
    End,
    /// F1 and so on.
    Function(u8),
    /// A small letter together with Ctrl.
    Control(char),
    /// Any other printable character.
    Char(char),
}

impl Key {
    /// The key that sends this byte alone.
    pub(crate) fn of(byte: u8) -> Option<Self> {
        match byte {
            b'\r' | b'\n' => Some(Self::Enter),
            0x08 | 0x7f => Some(Self::Erase),
            0x01..=0x1a => Some(Self::Control((byte - 1 + b'a').into())),
            byte if byte.is_ascii_graphic() || byte == b' ' => Some(Self::Char(byte.into())),
            _ => None,
        }
    }
}

/// The one channel.
pub(crate) struct Inbox {
    sender: Sender<Event>,
    events: Receiver<Event>,
}

impl Inbox {
    pub(crate) fn new() -> Self {
        let (sender, events) = channel();
        Self { sender, events }
    }

    /// For threads that have something to tell.
    pub(crate) fn sender(&self) -> Sender<Event> {
        self.sender.clone()
    }

    /// Has events come again, after those that wait.
    pub(crate) fn put_back(&self, events: Vec<Event>) {
        for event in events {
            // It cannot fail: the receiver is in `self`.
            let _ = self.sender.send(event);
        }
    }

    /// The next event, or none if nothing has happened until `deadline`.
    pub(crate) fn next(&self, deadline: Instant) -> Option<Event> {
        let timeout = deadline.saturating_duration_since(Instant::now());
        // It cannot be disconnected: a sender is in `self`.
        self.events.recv_timeout(timeout).ok()
    }
}
