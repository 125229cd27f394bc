//! What opens a connection: who is addressed, what to write, and who comes behind.
//!
//! A JSON object on a line (the original accepts up to 255 lines), then `EOH : ` and the signature.
//! Text is signed, not meaning, so [`Header::decode`] is given the very bytes that were verified.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::code::Code;

/// Longest header: some 3,500 destinations of 300 bytes, more than any chain has.
pub const HEADER_LEN_MAX: usize = 1 << 20;

/// Lines that the original accepts.
pub const HEADER_LINES_MAX: usize = 256;

/// What comes between the header and its signature.
pub const EOH: &str = "EOH : ";

/// What the original's senders name; receivers of both kinds read as they like.
pub const BLOCK_SIZE: u64 = 128 * 1024;

/// A file to write.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Request {
    /// Absolute path on the endpoint.
    pub filename: String,
    /// Names the request in reports.
    pub id: String,
    /// Written under a temporary name first.
    pub rename: bool,
}

/// An endpoint of the chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Destination {
    pub requests: Vec<Request>,
    pub host: String,
    pub port: u16,
    #[serde(default = "default_block_size")]
    pub block_size: u64,
    #[serde(default = "default_degree")]
    pub degree: u32,
    /// Payload, in bytes; the header's own counts.
    #[serde(default)]
    pub length: u64,
    /// It was much slower than the rest and has been moved to the end once: what it took then, in
    /// bytes a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pace: Option<u64>,
}

/// What opens a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    pub requests: Vec<Request>,
    /// The endpoint that is addressed, as its reports are to name it.
    pub host: String,
    pub port: u16,
    pub block_size: u64,
    /// How many endpoints this one sends to.
    pub degree: u32,
    /// Payload, in bytes.
    pub length: u64,
    pub destinations: Vec<Destination>,
    /// What our own say to one another; the original ignores it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boottorrent: Option<Extension>,
}

/// The additional field of our own headers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extension {
    /// Names the transfer: a header with the name of one under way goes on with it.
    pub transfer: String,
    /// When it was signed, in seconds since 1970.
    pub time: u64,
    /// Never used twice.
    pub nonce: String,
    /// Endpoints between the origin and this one. Of two that want to feed an endpoint the one
    /// nearer to the origin is right: the other was cut out and does not know it yet.
    #[serde(default)]
    pub depth: u32,
    /// It was moved to the end of the chain because it is slow, and may be fed from farther away.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_moved: bool,
    /// Set on messages that bring no payload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control: Option<Control>,
}

/// Bytes of a measurement: 40 ms at 50 Mbit/s, more than a socket sends before it has heard anything.
pub const MEASURE_LEN: u64 = 256 * 1024;

/// Messages beside the stream, handed down the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Control {
    /// `destinations` come behind the last of the chain.
    Append,
    /// The requests of `destinations` are not wanted any more.
    Abort,
    /// What follows, [`MEASURE_LEN`] bytes, is to be answered when it is all there: how fast does it come?
    Measure,
    /// From a later version.
    #[serde(other)]
    Unknown,
}

const fn default_block_size() -> u64 {
    BLOCK_SIZE
}

const fn default_degree() -> u32 {
    1
}

/// A header that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    #[error("the header is longer than {HEADER_LEN_MAX} bytes or {HEADER_LINES_MAX} lines")]
    TooLong,
    #[error("the header is no JSON object: {0}")]
    NotJson(String),
    #[error("the header has no usable `{0}`")]
    Lacks(&'static str),
    #[error("destination {0} of the header makes no sense: {1}")]
    Destination(usize, String),
    #[error("the header is followed by no `EOH : ` line")]
    Unsigned,
}

impl HeaderError {
    /// What the sender is told.
    pub const fn code(&self) -> Code {
        match self {
            Self::TooLong => Code::HEADER_TOO_LONG,
            Self::NotJson(_) | Self::Lacks(_) => Code::HEADER_INCOMPLETE,
            Self::Destination(..) => Code::DESTINATION,
            Self::Unsigned => Code::DENIED,
        }
    }
}

impl Destination {
    /// `host:port`, for people.
    pub fn name(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

impl Header {
    /// The header for the next endpoint, `destination`, with all that come behind it.
    pub fn for_next(
        destination: &Destination,
        behind: Vec<Destination>,
        length: u64,
        extension: Option<Extension>,
    ) -> Self {
        Self {
            requests: destination.requests.clone(),
            host: destination.host.clone(),
            port: destination.port,
            block_size: destination.block_size,
            degree: destination.degree,
            length,
            destinations: behind,
            boottorrent: extension,
        }
    }

    /// One line of JSON, without its end.
    pub fn encode(&self) -> String {
        serde_json::to_string(self).expect("strings and numbers are JSON")
    }

    /// Reads a header that has been verified.
    ///
    /// # Errors
    /// [`HeaderError`], of which [`HeaderError::code`] is for the sender.
    pub fn decode(text: &str) -> Result<Self, HeaderError> {
        let not_json = |error: serde_json::Error| HeaderError::NotJson(error.to_string());
        let mut value: Value = serde_json::from_str(text).map_err(not_json)?;
        let object = value.as_object_mut().ok_or_else(|| {
            HeaderError::NotJson("a header begins with { and ends with }".to_owned())
        })?;
        let Some(Value::Array(listed)) = object.remove("destinations") else {
            return Err(HeaderError::Lacks("destinations"));
        };
        let mut destinations = Vec::with_capacity(listed.len());
        for (index, entry) in listed.into_iter().enumerate() {
            let destination = serde_json::from_value(entry)
                .map_err(|error| HeaderError::Destination(index, error.to_string()))?;
            destinations.push(destination);
        }
        Ok(Self {
            requests: take(object, "requests")?,
            host: take(object, "host")?,
            port: take(object, "port")?,
            block_size: take(object, "block_size").unwrap_or(BLOCK_SIZE),
            degree: take(object, "degree")?,
            length: take(object, "length")?,
            destinations,
            // A later version's, with fields that this one cannot read, is no reason to refuse.
            boottorrent: take(object, "boottorrent").ok(),
        })
    }
}

fn take<T: serde::de::DeserializeOwned>(
    object: &mut serde_json::Map<String, Value>,
    name: &'static str,
) -> Result<T, HeaderError> {
    let value = object.remove(name).ok_or(HeaderError::Lacks(name))?;
    serde_json::from_value(value).map_err(|_| HeaderError::Lacks(name))
}

/// The head of a connection, as lines arrive: everything before `EOH : `, and the signature.
#[derive(Debug, Default)]
pub struct Head {
    text: String,
    lines: usize,
}

/// What a line did to a [`Head`].
#[derive(Debug, PartialEq, Eq)]
pub enum HeadState {
    /// There is more to come.
    Open,
    /// This was the signature of [`Head::text`].
    Signed(String),
}

impl Head {
    /// Bytes that still may come.
    pub fn room(&self) -> usize {
        HEADER_LEN_MAX - self.text.len()
    }

    /// Takes a line, with its end.
    ///
    /// # Errors
    /// [`HeaderError::TooLong`], and [`HeaderError::NotJson`] if it is no UTF-8.
    pub fn line(&mut self, line: &[u8]) -> Result<HeadState, HeaderError> {
        self.lines += 1;
        if line.len() > self.room() || self.lines > HEADER_LINES_MAX {
            return Err(HeaderError::TooLong);
        }
        let line = std::str::from_utf8(line)
            .map_err(|_| HeaderError::NotJson("it is no UTF-8".to_owned()))?;
        if let Some(at) = line.find(EOH) {
            // What precedes it on its line is the header's last piece: senders differ in line ends.
            self.text.push_str(&line[..at]);
            return Ok(HeadState::Signed(line[at + EOH.len()..].trim().to_owned()));
        }
        self.text.push_str(line);
        Ok(HeadState::Open)
    }

    /// The header's text so far.
    pub fn text(&self) -> &str {
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = include_str!("../tests/fixtures/header-original.json");
    const OURS: &str = include_str!("../tests/fixtures/header-ours.json");

    #[test]
    fn l9_a_header_of_the_original_is_read_and_written_byte_for_byte_in_meaning() {
        let header = Header::decode(OLD).unwrap();
        assert_eq!(header.destinations.len(), 2);
        assert_eq!(header.destinations[1].requests[0].filename, "/vms/c.img");
        assert_eq!(header.boottorrent, None);
        let again: Value = serde_json::from_str(&header.encode()).unwrap();
        assert_eq!(again, serde_json::from_str::<Value>(OLD).unwrap());
    }

    #[test]
    fn our_own_header_is_the_golden_file() {
        assert_eq!(Header::decode(OURS).unwrap().encode(), OURS.trim_end());
    }

    #[test]
    fn what_a_header_lacks_has_a_code() {
        let without = |name: &str| {
            let mut value: Value = serde_json::from_str(OLD).unwrap();
            value.as_object_mut().unwrap().remove(name);
            value.to_string()
        };
        for (text, code) in [
            (without("length"), Code::HEADER_INCOMPLETE),
            (without("degree"), Code::HEADER_INCOMPLETE),
            (without("requests"), Code::HEADER_INCOMPLETE),
            (without("destinations"), Code::HEADER_INCOMPLETE),
            ("[]".to_owned(), Code::HEADER_INCOMPLETE),
            ("no".to_owned(), Code::HEADER_INCOMPLETE),
            (OLD.replace("\"port\": 2894", "\"port\": \"x\""), Code::DESTINATION),
        ] {
            assert_eq!(Header::decode(&text).unwrap_err().code(), code, "{text}");
        }
    }

    #[test]
    fn a_head_ends_with_its_signature_and_has_limits() {
        let mut head = Head::default();
        assert_eq!(head.line(b"{\"a\": 1,\r\n"), Ok(HeadState::Open));
        assert_eq!(head.line(b" \"b\": 2}\r\n"), Ok(HeadState::Open));
        assert_eq!(head.line(b"EOH : abc= \r\n"), Ok(HeadState::Signed("abc=".to_owned())));
        assert_eq!(head.text(), "{\"a\": 1,\r\n \"b\": 2}\r\n");
        let mut long = Head::default();
        let errors = (0..=HEADER_LINES_MAX).filter(|_| long.line(b"\n").is_err()).count();
        assert_eq!(errors, 1);
        assert_eq!(
            Head::default().line(&vec![b' '; HEADER_LEN_MAX + 1]),
            Err(HeaderError::TooLong)
        );
    }
}
