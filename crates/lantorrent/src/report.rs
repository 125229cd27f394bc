//! What follows the payload, and what comes back: the footer, and lines of JSON.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::code::Code;
use crate::header::{Destination, Request};

/// Longest footer: two hashes and a signature.
pub const FOOTER_LEN_MAX: usize = 4 * 1024;

/// Longest line of the back channel: a report with two paths.
pub const LINE_LEN_MAX: usize = 64 * 1024;

/// What follows the payload: its hashes in hexadecimal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Footer {
    /// All that the original knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub md5sum: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Of the hashes, by the signer of the header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
}

impl Footer {
    /// What is sent.
    pub fn encode(&self) -> String {
        serde_json::to_string(self).expect("strings are JSON")
    }

    /// `None` if it is none.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }

    /// Whether what was computed is what was sent: every hash that both name must agree, and one
    /// must be named by both.
    pub fn agrees(&self, computed: &Self) -> bool {
        let differs = |a: &Option<String>, b: &Option<String>| match (a, b) {
            (Some(a), Some(b)) => Some(!a.eq_ignore_ascii_case(b)),
            _ => None,
        };
        let verdicts =
            [differs(&self.sha256, &computed.sha256), differs(&self.md5sum, &computed.md5sum)];
        verdicts.iter().any(Option::is_some) && !verdicts.contains(&Some(true))
    }
}

/// How it went with one file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    pub code: u16,
    /// The endpoint, as the header names it.
    pub host: String,
    pub port: u16,
    /// `None` from an original that failed before it knew.
    pub file: Option<String>,
    pub id: Option<String>,
    pub message: Option<String>,
    /// What the endpoint computed.
    #[serde(default)]
    pub md5sum: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

impl Report {
    /// A report about `request` of the endpoint at `host`.
    pub fn new(host: &str, port: u16, request: &Request, code: Code, message: String) -> Self {
        Self {
            code: code.0,
            host: host.to_owned(),
            port,
            file: Some(request.filename.clone()),
            id: Some(request.id.clone()),
            message: Some(message),
            md5sum: None,
            sha256: None,
        }
    }

    /// A report about a file of an endpoint that cannot speak for itself.
    pub fn about(destination: &Destination, request: &Request, code: Code, why: &str) -> Self {
        let sentence = code.sentence();
        let message =
            if why.is_empty() { sentence.to_owned() } else { format!("{sentence}: {why}") };
        Self::new(&destination.host, destination.port, request, code, message)
    }

    /// Whether the file is there.
    pub const fn is_success(&self) -> bool {
        self.code == Code::SUCCESS.0
    }
}

/// A line of the back channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    Report(Report),
    /// First line of our own: how many bytes it has already.
    Hello {
        offset: u64,
    },
    /// It has this many bytes now. Ours say so several times a second, and are silent only if
    /// something is wrong.
    Beat {
        received: u64,
    },
    /// It has another predecessor now: forget it and all behind it.
    Moved,
    /// An endpoint somewhere behind was put to the end of the chain, with this pace in bytes a second.
    Back {
        host: String,
        port: u16,
        pace: u64,
    },
    /// Something from a later version.
    Unknown,
}

/// A line that is no JSON object, or no report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a line of the back channel is no JSON")]
pub struct NotJson;

impl Line {
    /// With its end.
    pub fn encode(&self) -> String {
        let mut text = match self {
            Self::Report(report) => serde_json::to_string(report).expect("strings are JSON"),
            Self::Hello { offset } => format!(r#"{{"hello":1,"offset":{offset}}}"#),
            Self::Beat { received } => format!(r#"{{"beat":{received}}}"#),
            Self::Moved => r#"{"moved":true}"#.to_owned(),
            Self::Back { host, port, pace } => {
                json!({"back": {"host": host, "port": port, "pace": pace}}).to_string()
            }
            Self::Unknown => "{}".to_owned(),
        };
        text.push('\n');
        text
    }

    /// Reads a line, with or without its end.
    ///
    /// # Errors
    /// [`NotJson`].
    pub fn decode(bytes: &[u8]) -> Result<Self, NotJson> {
        let value: Value = serde_json::from_slice(bytes).map_err(|_| NotJson)?;
        let object = value.as_object().ok_or(NotJson)?;
        let number = |name: &str| object.get(name).and_then(Value::as_u64);
        if object.contains_key("code") {
            return serde_json::from_value(value).map(Self::Report).map_err(|_| NotJson);
        }
        if object.contains_key("hello") {
            return Ok(Self::Hello { offset: number("offset").unwrap_or(0) });
        }
        if let Some(received) = number("beat") {
            return Ok(Self::Beat { received });
        }
        if let Some(back) = object.get("back").and_then(Value::as_object) {
            let number = |name: &str| back.get(name).and_then(Value::as_u64);
            let host = back.get("host").and_then(Value::as_str).map(str::to_owned);
            let port = number("port").and_then(|port| u16::try_from(port).ok());
            return Ok(match (host, port, number("pace")) {
                (Some(host), Some(port), Some(pace)) => Self::Back { host, port, pace },
                _ => Self::Unknown,
            });
        }
        Ok(if object.contains_key("moved") { Self::Moved } else { Self::Unknown })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_they_are_written() {
        let request = Request { filename: "/a".into(), id: "r".into(), rename: true };
        let report = Report::new("h", 1, &request, Code::SUCCESS, "Success /a".into());
        for line in [
            Line::Report(report),
            Line::Hello { offset: 7 },
            Line::Beat { received: 9 },
            Line::Moved,
            Line::Back { host: "h".into(), port: 2, pace: 3 },
            Line::Unknown,
        ] {
            assert_eq!(Line::decode(line.encode().as_bytes()), Ok(line));
        }
    }

    #[test]
    fn who_was_put_back_is_named_whole_or_not_at_all() {
        for text in [r#"{"back": {}}"#, r#"{"back": {"host": "h", "port": 70000, "pace": 1}}"#] {
            assert_eq!(Line::decode(text.as_bytes()), Ok(Line::Unknown), "{text}");
        }
    }

    #[test]
    fn the_originals_report_is_a_report_and_rubbish_is_none() {
        let old = br#"{"code": 503, "host": "h", "port": 2893, "file": null, "id": null, "message": "x", "md5sum": null}"#;
        assert!(matches!(Line::decode(old), Ok(Line::Report(Report { code: 503, id: None, .. }))));
        for rubbish in ["", "HTTP/1.1 400", "[1]", r#"{"code": "x"}"#] {
            assert_eq!(Line::decode(rubbish.as_bytes()), Err(NotJson), "{rubbish}");
        }
    }

    #[test]
    fn footers_agree_only_if_some_hash_says_so() {
        let footer = |md5: Option<&str>, sha: Option<&str>| Footer {
            md5sum: md5.map(str::to_owned),
            sha256: sha.map(str::to_owned),
            signature: None,
        };
        for (theirs, ours, expect) in [
            (footer(Some("A"), None), footer(Some("a"), Some("b")), true),
            (footer(Some("a"), None), footer(None, Some("b")), false),
            (footer(Some("a"), Some("b")), footer(Some("a"), Some("c")), false),
            (footer(None, Some("b")), footer(None, Some("b")), true),
            (footer(None, None), footer(Some("a"), Some("b")), false),
        ] {
            assert_eq!(theirs.agrees(&ours), expect, "{theirs:?} {ours:?}");
        }
    }
}
