//! Packets, as they are on the wire (RFC 1350 §5, RFC 2347).
//!
//! ```text
//! 1 read     name 0 mode 0 (option 0 value 0)*
//! 2 write    the same
//! 3 data     block(16) bytes
//! 4 ack      block(16)
//! 5 error    code(16) message 0
//! 6 options  (option 0 value 0)*
//! ```

use crate::name::NAME_LEN_MAX;
use crate::options::Options;

/// The most bytes of an error message that are kept of what a node sends: a line of a log.
pub const MESSAGE_LEN_MAX: usize = 128;

/// The most bytes of a mode: `netascii` has 8.
const MODE_LEN_MAX: usize = 16;

/// A packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    /// A node asks for a file.
    Read(Request<'a>),
    /// A node wants to write one, which nobody may.
    Write,
    /// A block of a file; one that is shorter than the others is the last.
    Data {
        /// Its number, from 1, modulo 65,536.
        block: u16,
        /// Its content.
        bytes: &'a [u8],
    },
    /// All blocks up to this one have arrived; 0 answers [`Packet::Agree`].
    Ack {
        /// Modulo 65,536.
        block: u16,
    },
    /// The end of a transfer, or a refusal of one.
    Error {
        /// What kind.
        code: ErrorCode,
        /// For people, in ASCII; at most [`MESSAGE_LEN_MAX`] bytes are read.
        message: &'a [u8],
    },
    /// OACK (RFC 2347): those of the options asked for that hold in this transfer.
    Agree(Options),
}

/// What a node asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// As it was sent: at most [`NAME_LEN_MAX`] bytes, without the NUL.
    pub name: &'a [u8],
    /// How.
    pub mode: Mode,
    /// What it would like.
    pub options: Options,
}

/// How bytes are to be sent. Names of modes have no case: ROMs send `octet`, `OCTET` and `Octet`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// As they are.
    Octet,
    /// `netascii` (lines end with CR LF), `mail`, or a word that means nothing.
    Other,
}

/// Kinds of errors (RFC 1350 appendix, RFC 2347).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ErrorCode {
    /// 0: the message says what.
    Undefined,
    /// 1.
    NotFound,
    /// 2.
    AccessViolation,
    /// 4.
    IllegalOperation,
    /// 5: the packet belongs to no transfer that its receiver has.
    UnknownTransfer,
    /// 8: the options that hold are not to the taste of who asked (RFC 2347).
    OptionsDeclined,
    /// 3, 6 and 7 are about writing; the others are not defined.
    Other(u16),
}

/// A datagram that is no packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// It is too short for what it says it is.
    #[error("packet of {0} bytes is too short")]
    Short(usize),
    /// There are six kinds of packets.
    #[error("{0} is no kind of packet")]
    Opcode(u16),
    /// A request without a name, or with one of more than [`NAME_LEN_MAX`] bytes.
    #[error("request has no name, or a longer one than {NAME_LEN_MAX} bytes")]
    Name,
    /// A request without a mode.
    #[error("request has no mode")]
    Mode,
}

impl ErrorCode {
    /// The number on the wire.
    #[must_use]
    pub const fn number(self) -> u16 {
        match self {
            Self::Undefined => 0,
            Self::NotFound => 1,
            Self::AccessViolation => 2,
            Self::IllegalOperation => 4,
            Self::UnknownTransfer => 5,
            Self::OptionsDeclined => 8,
            Self::Other(number) => number,
        }
    }
}

impl From<u16> for ErrorCode {
    fn from(number: u16) -> Self {
        match number {
            0 => Self::Undefined,
            1 => Self::NotFound,
            2 => Self::AccessViolation,
            4 => Self::IllegalOperation,
            5 => Self::UnknownTransfer,
            8 => Self::OptionsDeclined,
            other => Self::Other(other),
        }
    }
}

impl<'a> Packet<'a> {
    /// Reads a datagram. What follows the known part of a packet is passed over, as ROMs pad
    /// packets with zeros; so is a missing NUL at the very end.
    ///
    /// # Errors
    /// If it is no packet.
    pub fn decode(datagram: &'a [u8]) -> Result<Self, DecodeError> {
        let short = DecodeError::Short(datagram.len());
        let (opcode, rest) = datagram.split_first_chunk::<2>().ok_or(short)?;
        let number = |rest: &'a [u8]| {
            rest.split_first_chunk::<2>()
                .map(|(number, rest)| (u16::from_be_bytes(*number), rest))
                .ok_or(short)
        };
        match u16::from_be_bytes(*opcode) {
            1 => Request::decode(rest).map(Self::Read),
            2 => Ok(Self::Write),
            3 => number(rest).map(|(block, bytes)| Self::Data { block, bytes }),
            4 => number(rest).map(|(block, _)| Self::Ack { block }),
            5 => number(rest).map(|(code, rest)| {
                let message = take_text(rest).0;
                let message = &message[..message.len().min(MESSAGE_LEN_MAX)];
                Self::Error { code: code.into(), message }
            }),
            6 => Ok(Self::Agree(Options::decode(rest))),
            opcode => Err(DecodeError::Opcode(opcode)),
        }
    }

    /// Appends the packet.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Read(request) => {
                out.extend_from_slice(&[0, 1]);
                put_text(request.name, out);
                put_text(if request.mode == Mode::Octet { b"octet" } else { b"netascii" }, out);
                request.options.encode(out);
            }
            Self::Write => out.extend_from_slice(b"\x00\x02-\0octet\0"),
            Self::Data { block, bytes } => {
                out.extend_from_slice(&data_header(*block));
                out.extend_from_slice(bytes);
            }
            Self::Ack { block } => {
                out.extend_from_slice(&[0, 4]);
                out.extend_from_slice(&block.to_be_bytes());
            }
            Self::Error { code, message } => {
                out.extend_from_slice(&[0, 5]);
                out.extend_from_slice(&code.number().to_be_bytes());
                put_text(message, out);
            }
            Self::Agree(options) => {
                out.extend_from_slice(&[0, 6]);
                options.encode(out);
            }
        }
    }

    /// The packet alone.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = vec![];
        self.encode(&mut out);
        out
    }
}

/// What stands before the bytes of a block.
pub(crate) const fn data_header(block: u16) -> [u8; 4] {
    let [high, low] = block.to_be_bytes();
    [0, 3, high, low]
}

impl<'a> Request<'a> {
    fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let (name, rest) = take_text(bytes);
        if name.is_empty() || name.len() > NAME_LEN_MAX {
            return Err(DecodeError::Name);
        }
        let (mode, rest) = take_text(rest);
        if mode.is_empty() || mode.len() > MODE_LEN_MAX {
            return Err(DecodeError::Mode);
        }
        let mode = if mode.eq_ignore_ascii_case(b"octet") { Mode::Octet } else { Mode::Other };
        Ok(Self { name, mode, options: Options::decode(rest) })
    }
}

/// The bytes before the first NUL, and those after it.
pub(crate) fn take_text(bytes: &[u8]) -> (&[u8], &[u8]) {
    match bytes.iter().position(|&byte| byte == 0) {
        Some(at) => (&bytes[..at], &bytes[at + 1..]),
        None => (bytes, &[]),
    }
}

/// Appends a text and its NUL.
pub(crate) fn put_text(text: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(text);
    out.push(0);
}
