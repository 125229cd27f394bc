//! What other threads tell the thread of a transfer, which sleeps in `poll`.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use rustix::event::{EventfdFlags, eventfd};

/// The receiving end.
pub(super) struct Mailbox<T> {
    receiver: Receiver<T>,
    bell: Arc<OwnedFd>,
}

/// A sending end.
pub(super) struct Post<T> {
    sender: Sender<T>,
    bell: Arc<OwnedFd>,
}

impl<T> Clone for Post<T> {
    fn clone(&self) -> Self {
        Self { sender: self.sender.clone(), bell: Arc::clone(&self.bell) }
    }
}

/// Both ends.
pub(super) fn mailbox<T>() -> rustix::io::Result<(Post<T>, Mailbox<T>)> {
    let bell = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
    let (sender, receiver) = channel();
    Ok((Post { sender, bell: Arc::clone(&bell) }, Mailbox { receiver, bell }))
}

impl<T> Post<T> {
    /// Returns what nobody is there to receive any more.
    pub(super) fn send(&self, note: T) -> Result<(), T> {
        self.sender.send(note).map_err(|error| error.0)?;
        // Full means that it rings already.
        let _ = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
        Ok(())
    }
}

impl<T> Mailbox<T> {
    /// Readable when there is something.
    pub(super) fn bell(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    /// The next note, if there is one.
    pub(super) fn take(&self) -> Option<T> {
        self.receiver.try_recv().ok()
    }

    /// To be called before the notes are taken.
    pub(super) fn quiet(&self) {
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.bell, &mut count);
    }
}
