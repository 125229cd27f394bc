//! The receiving end: fetches a file. For tests, benchmarks, and a server that looks whether it can
//! be reached; nodes bring their own.

use std::net::SocketAddr;

use crate::options::{BLKSIZE_DEFAULT, Options};
use crate::packet::{ErrorCode, Mode, Packet, Request};

/// Why a file was not received.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// The server refuses.
    #[error("the server says: {message} (error {})", code.number())]
    Refused {
        /// What kind.
        code: ErrorCode,
        /// What it says, escaped.
        message: String,
    },
    /// The server agrees to what nobody asked for.
    #[error("the server answers with options that were not asked for")]
    Options,
    /// The server sends a block that is longer than agreed.
    #[error("the server sends a block of {0} bytes, which is more than agreed")]
    Block(usize),
}

/// What a datagram means to a receiver.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Heard<'a> {
    /// New bytes, and where in the file they belong.
    pub bytes: Option<(u64, &'a [u8])>,
    /// A packet to send to where the datagram came from.
    pub answer: Option<Vec<u8>>,
}

/// A file on its way to us. The driver keeps the time: whenever the server is silent it sends
/// [`Self::again`].
#[derive(Clone, Debug)]
pub struct Receiver {
    name: Vec<u8>,
    asked: Options,
    agreed: Option<Options>,
    /// The server's port for this transfer, once it has answered.
    server: Option<SocketAddr>,
    /// Blocks 1 to this have come, as if numbers had no end.
    received: u64,
    /// Blocks since the last acknowledgement.
    unacked: u16,
    /// Whether the gap behind `received` was reported.
    complained: bool,
    /// Length of the file once its last block has come.
    len: Option<u64>,
    error: Option<FetchError>,
}

impl Receiver {
    /// Wants a file.
    #[must_use]
    pub fn new(name: &[u8], options: Options) -> Self {
        Self {
            name: name.to_vec(),
            asked: options,
            agreed: None,
            server: None,
            received: 0,
            unacked: 0,
            complained: false,
            len: None,
            error: None,
        }
    }

    /// What to send to the server's well-known port at first.
    #[must_use]
    pub fn request(&self) -> Vec<u8> {
        let request = Request { name: &self.name, mode: Mode::Octet, options: self.asked };
        Packet::Read(request).to_bytes()
    }

    /// Takes a datagram.
    pub fn handle<'a>(&mut self, from: SocketAddr, datagram: &'a [u8]) -> Heard<'a> {
        let Ok(packet) = Packet::decode(datagram) else {
            return Heard::default();
        };
        if self.server.is_some_and(|server| server != from) {
            let code = ErrorCode::UnknownTransfer;
            let answer = Packet::Error { code, message: b"another transfer" }.to_bytes();
            return Heard { bytes: None, answer: Some(answer) };
        }
        match packet {
            Packet::Agree(options) => self.agree(from, options),
            Packet::Data { block, bytes } => self.take(from, block, bytes),
            Packet::Error { code, message } => {
                let message = message.escape_ascii().to_string();
                self.error.get_or_insert(FetchError::Refused { code, message });
                Heard::default()
            }
            Packet::Read(_) | Packet::Write | Packet::Ack { .. } => Heard::default(),
        }
    }

    /// What to send when the server is silent: to where it last came from, or [`Self::request`].
    #[must_use]
    pub fn again(&mut self) -> Option<(SocketAddr, Vec<u8>)> {
        let server = self.server?;
        Some((server, self.acknowledge()))
    }

    /// How it ended, if it has: the length of the file in bytes, or why not.
    #[must_use]
    pub fn result(&self) -> Option<Result<u64, FetchError>> {
        self.error.clone().map(Err).or_else(|| self.len.map(Ok))
    }

    /// What holds, once the server has answered.
    #[must_use]
    pub fn agreed(&self) -> Option<&Options> {
        self.agreed.as_ref()
    }

    fn agree(&mut self, from: SocketAddr, options: Options) -> Heard<'static> {
        let within =
            |got: Option<u16>, asked: Option<u16>| got.is_none_or(|got| Some(got) <= asked);
        let is_good = within(options.blksize, self.asked.blksize)
            && within(options.windowsize, self.asked.windowsize)
            && options.tsize.is_none_or(|_| self.asked.tsize.is_some())
            && options.timeout.is_none_or(|_| options.timeout == self.asked.timeout);
        if !is_good {
            self.error.get_or_insert(FetchError::Options);
            let code = ErrorCode::OptionsDeclined;
            let answer = Packet::Error { code, message: b"not asked for" }.to_bytes();
            return Heard { bytes: None, answer: Some(answer) };
        }
        self.server = Some(from);
        let agreed = *self.agreed.get_or_insert(options);
        // A copy that comes after the first block says nothing.
        let is_first = self.received == 0 && agreed == options;
        Heard { bytes: None, answer: is_first.then(|| self.acknowledge()) }
    }

    fn take<'a>(&mut self, from: SocketAddr, block: u16, bytes: &'a [u8]) -> Heard<'a> {
        // No options hold if the server begins without a word about them.
        let agreed = *self.agreed.get_or_insert_default();
        self.server = Some(from);
        let blksize = agreed.blksize.unwrap_or(BLKSIZE_DEFAULT).into();
        if bytes.len() > blksize {
            self.error.get_or_insert(FetchError::Block(bytes.len()));
            return Heard::default();
        }
        let ahead = block.wrapping_sub(self.received as u16);
        if ahead != 1 || self.len.is_some() {
            return self.unexpected(ahead, agreed.windowsize.unwrap_or(1));
        }
        let offset = self.received * blksize as u64;
        self.received += 1;
        self.unacked += 1;
        self.complained = false;
        let is_last = bytes.len() < blksize;
        if is_last {
            self.len = Some(offset + bytes.len() as u64);
        }
        let is_due = is_last || self.unacked >= agreed.windowsize.unwrap_or(1);
        Heard { bytes: Some((offset, bytes)), answer: is_due.then(|| self.acknowledge()) }
    }

    /// A block that is not next: a copy, or one behind a gap, which is reported once (RFC 7440 §4).
    fn unexpected(&mut self, ahead: u16, windowsize: u16) -> Heard<'static> {
        let is_gap = windowsize > 1 && ahead > 1 && ahead <= windowsize && self.len.is_none();
        // What we have acknowledged already comes again if that acknowledgement was lost.
        let is_copy = ahead == 0 && self.unacked == 0;
        let answer = is_copy || is_gap && !self.complained;
        self.complained |= is_gap;
        Heard { bytes: None, answer: answer.then(|| self.acknowledge()) }
    }

    fn acknowledge(&mut self) -> Vec<u8> {
        self.unacked = 0;
        Packet::Ack { block: self.received as u16 }.to_bytes()
    }
}
