//! One fetch: the requests for a run of units, what the answers must look like, and what to do when
//! they break off.

use std::io::{ErrorKind, Read};
use std::ops::ControlFlow;
use std::time::Duration;

use torrent::Block;
use ureq::http::{HeaderMap, Response, header};
use ureq::{Agent, Body};

use super::blocks::Blocks;
use super::error::WebSeedError;
use super::url::BaseUrl;
use crate::storage::{Layout, Place};

/// Redirects followed: a mirror network needs one or two.
const REDIRECTS_MAX: u32 = 5;

/// The longest file that is fetched from its start, and skipped through, because the server knows
/// no ranges: a second at 35 Mbit/s. A longer one would be fetched again for each request.
const NO_RANGES_LEN_MAX: u64 = 4 << 20;

/// How often a request is taken up again where the server broke off, if it had sent less than
/// [`RESUME_LEN`] until then. More progress than that is a server that limits its answers.
const RESUMES_MAX: u32 = 3;

/// See [`RESUMES_MAX`].
const RESUME_LEN: u64 = 64 << 10;

/// A server that sends less, on the whole of a request, is of no use: below what one node in a
/// hundred gets of a shared 10 Mbit/s line. It bounds a server that drips a byte a second.
const RATE_MIN: u64 = 10 << 10;

/// Bytes taken from the connection at once: eight blocks.
const READ_LEN: usize = 128 << 10;

/// The longest wait that a server can ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

/// The longest part of a strange header that is shown.
const SHOWN_LEN: usize = 80;

type Sink<'a> = dyn FnMut(Block, &[u8]) -> ControlFlow<()> + 'a;

/// The settings of all requests to one web seed.
pub(super) fn agent(patience: Duration) -> Agent {
    let config = Agent::config_builder()
        .user_agent(concat!("BootTorrent/", env!("CARGO_PKG_VERSION")))
        // A status is an answer, and we say ourselves what it means.
        .http_status_as_error(false)
        .max_redirects(REDIRECTS_MAX)
        // Web seeds are in the lab: a proxy of the environment is not meant for them.
        .proxy(None)
        .timeout_resolve(Some(patience))
        .timeout_connect(Some(patience))
        .timeout_per_write(Some(patience))
        .timeout_per_read(Some(patience))
        .timeout_recv_response(Some(patience))
        .max_idle_connections_per_host(super::FETCHES_MAX)
        .input_buffer_size(READ_LEN);
    config.build().new_agent()
}

/// The files on the server.
pub(super) struct Source {
    agent: Agent,
    base: BaseUrl,
    layout: Layout,
    patience: Duration,
}

/// How the body of an answer ended.
enum End {
    /// With the last byte asked for.
    Whole,
    /// Before.
    Short,
}

/// What an answer holds: skip so many bytes, then so many are asked for.
struct Content {
    skip: u64,
    len: u64,
}

/// A range of one file.
struct Part<'a> {
    url: &'a str,
    file_len: u64,
    start: u64,
    end: u64,
}

impl Source {
    pub(super) const fn new(
        agent: Agent,
        base: BaseUrl,
        layout: Layout,
        patience: Duration,
    ) -> Self {
        Self { agent, base, layout, patience }
    }

    pub(super) const fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Fetches all of `blocks`, file by file.
    pub(super) fn fetch(
        &self,
        mut blocks: Blocks<'_>,
        sink: &mut Sink<'_>,
    ) -> Result<(), WebSeedError> {
        let (start, len) = blocks.range();
        let segments = self.layout.segments(start, len);
        let segments = segments.expect("geometry and layout were compared at the start");
        for segment in segments {
            match segment.place {
                Place::Padding => zeros(segment.len, &mut blocks, sink)?,
                Place::File { index, offset } => {
                    let file = &self.layout.files()[index];
                    let part = Part {
                        url: &self.base.file(&file.path),
                        file_len: file.len,
                        start: offset,
                        end: offset + segment.len,
                    };
                    self.part(part, &mut blocks, sink)?;
                }
            }
        }
        Ok(())
    }

    /// Fetches a range of a file, taking it up again where the server breaks off.
    fn part(
        &self,
        mut part: Part<'_>,
        blocks: &mut Blocks<'_>,
        sink: &mut Sink<'_>,
    ) -> Result<(), WebSeedError> {
        let mut resumes = 0;
        while part.start < part.end {
            let before = part.start;
            match self.request(&part) {
                Ok(response) => {
                    let content = content(&part, &response)?;
                    let end = stream(&mut part, response, &content, blocks, sink)?;
                    if matches!(end, End::Whole) {
                        continue;
                    }
                }
                // A connection that was kept may be closed by the server just as it is used again.
                Err(ureq::Error::Io(error)) if broke_off(error.kind()) && resumes < RESUMES_MAX => {
                }
                Err(error) => return Err(request_error(part.url, error)),
            }
            if part.start - before < RESUME_LEN {
                resumes += 1;
                if resumes > RESUMES_MAX {
                    let url = part.url.to_owned();
                    return Err(WebSeedError::Short { url });
                }
            }
        }
        Ok(())
    }

    fn request(&self, part: &Part<'_>) -> Result<Response<Body>, ureq::Error> {
        let at_most = self.patience + Duration::from_secs((part.end - part.start) / RATE_MIN);
        self.agent
            .get(part.url)
            .header(header::RANGE, format!("bytes={}-{}", part.start, part.end - 1))
            .header(header::ACCEPT_ENCODING, "identity")
            .config()
            .timeout_recv_body(Some(at_most))
            .build()
            .call()
    }
}

/// What the answer holds, if it is one to `part`.
fn content(part: &Part<'_>, response: &Response<Body>) -> Result<Content, WebSeedError> {
    let url = || part.url.to_owned();
    let headers = response.headers();
    let wrong_range = |found: &str| WebSeedError::WrongRange {
        url: url(),
        start: part.start,
        end: part.end - 1,
        found: found.chars().take(SHOWN_LEN).collect(),
    };
    let check_len = |found: u64| match found == part.file_len {
        true => Ok(()),
        false => Err(WebSeedError::WrongLen { url: url(), expected: part.file_len, found }),
    };
    if let Some(encoding) = text(headers, header::CONTENT_ENCODING)
        && encoding != "identity"
    {
        return Err(wrong_range(encoding));
    }
    match response.status().as_u16() {
        206 => {
            let found = text(headers, header::CONTENT_RANGE).unwrap_or("no range");
            let Some((start, end, total)) = content_range(found) else {
                return Err(wrong_range(found));
            };
            total.map_or(Ok(()), check_len)?;
            // A server may send less than was asked for (RFC 9110 §14.2), but nothing else.
            if start != part.start || end < start || end >= part.end {
                return Err(wrong_range(found));
            }
            let len = end - start + 1;
            Ok(Content { skip: 0, len })
        }
        200 => {
            response.body().content_length().map_or(Ok(()), check_len)?;
            if part.start > 0 && part.file_len > NO_RANGES_LEN_MAX {
                return Err(WebSeedError::NoRanges { url: url() });
            }
            Ok(Content { skip: part.start, len: part.end - part.start })
        }
        429 | 503 => Err(WebSeedError::Busy {
            url: url(),
            retry_after: text(headers, header::RETRY_AFTER)
                .and_then(|value| value.trim().parse().ok())
                .map(|seconds| Duration::from_secs(seconds).min(RETRY_AFTER_MAX)),
        }),
        // The range lies past the end of what the server has.
        416 => {
            let total = text(headers, header::CONTENT_RANGE)
                .and_then(|value| value.strip_prefix("bytes */")?.parse().ok());
            check_len(total.unwrap_or(0))?;
            Err(WebSeedError::Status { url: url(), status: 416 })
        }
        status => Err(WebSeedError::Status { url: url(), status }),
    }
}

/// Feeds the body into the blocks; moves the start of `part` along.
fn stream(
    part: &mut Part<'_>,
    mut response: Response<Body>,
    content: &Content,
    blocks: &mut Blocks<'_>,
    sink: &mut Sink<'_>,
) -> Result<End, WebSeedError> {
    let mut reader = response.body_mut().as_reader();
    let mut buffer = vec![0; READ_LEN];
    let mut skip = content.skip;
    let end = part.start + content.len;
    while part.start < end {
        let most = (skip + end - part.start).min(READ_LEN as u64) as usize;
        let len = match reader.read(&mut buffer[..most]) {
            Ok(0) => return Ok(End::Short),
            Ok(len) => len,
            Err(error) => match ureq::Error::from(error) {
                ureq::Error::Timeout(_) => {
                    let url = part.url.to_owned();
                    return Err(WebSeedError::Stalled { url });
                }
                _ => return Ok(End::Short),
            },
        };
        let skipped = skip.min(len as u64) as usize;
        skip -= skipped as u64;
        let data = &buffer[skipped..len];
        part.start += data.len() as u64;
        if blocks.feed(data, sink).is_break() {
            return Err(WebSeedError::Cancelled);
        }
    }
    // The end of the body must be read for the connection to be kept. Where there is more (an
    // answer without ranges), or an error, the connection closes, and nothing is lost.
    let _ = reader.read(&mut [0]);
    Ok(End::Whole)
}

fn zeros(len: u64, blocks: &mut Blocks<'_>, sink: &mut Sink<'_>) -> Result<(), WebSeedError> {
    const ZEROS: [u8; 16 << 10] = [0; 16 << 10];
    let mut rest = len;
    while rest > 0 {
        let now = rest.min(ZEROS.len() as u64);
        if blocks.feed(&ZEROS[..now as usize], sink).is_break() {
            return Err(WebSeedError::Cancelled);
        }
        rest -= now;
    }
    Ok(())
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

/// `bytes 0-99/1000` or `bytes 0-99/*`: first, last, length of the file if told.
fn content_range(value: &str) -> Option<(u64, u64, Option<u64>)> {
    let (range, total) = value.strip_prefix("bytes ")?.split_once('/')?;
    let (start, end) = range.split_once('-')?;
    let total = match total {
        "*" => None,
        total => Some(total.parse().ok()?),
    };
    Some((start.parse().ok()?, end.parse().ok()?, total))
}

const fn broke_off(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::ConnectionReset
            | ErrorKind::ConnectionAborted
            | ErrorKind::BrokenPipe
            | ErrorKind::UnexpectedEof
    )
}

fn request_error(url: &str, error: ureq::Error) -> WebSeedError {
    let url = url.to_owned();
    match error {
        ureq::Error::Timeout(ureq::Timeout::Connect | ureq::Timeout::Resolve) => {
            WebSeedError::Lost { url, source: error }
        }
        ureq::Error::Timeout(_) => WebSeedError::Stalled { url },
        ureq::Error::TooManyRedirects => WebSeedError::Redirects { url },
        ureq::Error::BadUri(_) | ureq::Error::Http(_) => WebSeedError::Url { url, source: error },
        // A redirect to https.
        ureq::Error::TlsRequired => WebSeedError::Scheme(url),
        source => WebSeedError::Lost { url, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges_are_read() {
        let check = |value, expect| assert_eq!(content_range(value), expect, "{value}");
        check("bytes 0-99/1000", Some((0, 99, Some(1000))));
        check("bytes 5-5/*", Some((5, 5, None)));
        for value in ["", "bytes", "bytes 0-99", "0-99/1000", "bytes */5", "bytes a-b/c"] {
            check(value, None);
        }
    }
}
