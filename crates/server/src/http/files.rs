//! Files over HTTP: whole, or one range of them (RFC 9110 sections 13 and 14).
//!
//! What is served is what was published: an image's files are those of the same storage that the
//! seeder reads, which notices at each read that a file was changed; the connection is cut then,
//! rather than bytes of two versions sent as one file. Nothing is looked up on the disk by a name that
//! came over the network.
//!
//! **Speed.** Files are read in blocks on threads that may wait for a disk: small ones, each when the one before is gone, until
//! the reader has shown that it is quick; then ever larger ones, one ahead of what the
//! socket takes, as far as the purse of all downloads has the bytes ([`PURSE_LEN`]). The bytes are copied
//! twice in this machine, by the kernel (`sendfile`, which nginx uses, saves one of them).

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{
    ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_NONE_MATCH, IF_RANGE,
    RANGE,
};
use axum::http::{HeaderMap, HeaderName, Method, Response, StatusCode};
use futures_util::task::AtomicWaker;
use hyper::body::{Bytes, Frame, SizeHint};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use torrent_io::storage::FileHandle;

use super::purse::{Grant, Purse};
use super::range::{self, Wanted};
use super::serve::Bounded;

/// Bytes read at once for who is quick. A system call and a change of threads cost some 10 µs, reading this
/// much 50.
const BLOCK_LEN_MAX: usize = 512 << 10;

/// Bytes read at once for others: what a download costs whose reader does not read. 4,096 of them have 64 MiB.
const BLOCK_LEN: usize = 16 << 10;

/// What quick readers have beyond that, all together.
const PURSE_LEN: usize = 64 << 20;

/// Who takes a block in this time is quick, and gets one of twice its length: 64 kB/s for the first.
const QUICK: Duration = Duration::from_millis(250);

/// Who needs so long for one is not any more.
const SLOW: Duration = Duration::from_secs(2);

/// A file as it was published.
#[derive(Clone, Debug)]
pub(crate) struct Served {
    source: Source,
    len: u64,
    /// Two versions of a file differ in it (RFC 9110 section 8.8.3), quotes included.
    tag: String,
    media_type: &'static str,
}

#[derive(Clone, Debug)]
enum Source {
    Memory(Bytes),
    /// Of ours: replaced, never written to.
    File(Arc<File>),
    /// Of an image.
    Image(FileHandle),
}

/// Bytes of bodies that were handed to sockets, and those that may wait for them; a copy is another reference.
#[derive(Clone, Debug)]
pub(crate) struct SentCount {
    count: Arc<AtomicU64>,
    purse: Purse,
}

impl Default for SentCount {
    fn default() -> Self {
        Self { count: Arc::default(), purse: Purse::new(PURSE_LEN) }
    }
}

impl SentCount {
    pub(crate) fn bytes(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    fn add(&self, len: u64) {
        self.count.fetch_add(len, Ordering::Relaxed);
    }
}

impl Served {
    /// Bytes that are made, not read; `version` tells them from others under the same name.
    pub(crate) fn memory(bytes: impl Into<Bytes>, version: &str, media_type: &'static str) -> Self {
        let bytes: Bytes = bytes.into();
        let (len, tag) = (bytes.len() as u64, format!("\"{version}\""));
        Self { source: Source::Memory(bytes), len, tag, media_type }
    }

    /// A file that this program made or that a package installed: it is open from here on, so that
    /// what replaces it under its name is not mixed with it.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub(crate) fn file(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        let (len, mtime, nsec) = (metadata.len(), metadata.mtime(), metadata.mtime_nsec());
        let tag = format!("\"{len:x}-{mtime:x}.{nsec:x}\"");
        Ok(Self { source: Source::File(Arc::new(file)), len, tag, media_type: BINARY })
    }

    /// A file of an image; `version` is of the image's infohash.
    pub(crate) fn image(handle: FileHandle, len: u64, version: &str) -> Self {
        let tag = format!("\"{version}\"");
        Self { source: Source::Image(handle), len, tag, media_type: BINARY }
    }

    /// The answer to a request for it. Bytes of the body are counted in `sent` as they leave.
    pub(crate) fn answer(
        self,
        method: &Method,
        headers: &HeaderMap,
        sent: &SentCount,
    ) -> Response<Body> {
        let field = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
        if field(IF_NONE_MATCH).is_some_and(|tags| matches_any(tags, &self.tag)) {
            return self.head(StatusCode::NOT_MODIFIED, &[], Body::empty());
        }
        // A range of another version is of no use; a date, which is the other form, is no promise
        // within one second (section 13.1.5).
        let is_same = field(IF_RANGE).is_none_or(|tag| tag.trim() == self.tag);
        let wanted = match *method {
            Method::GET if is_same => range::parse(field(RANGE), self.len),
            _ => Wanted::Whole,
        };
        let len = self.len;
        let (status, start, part_len) = match wanted {
            Wanted::Whole => (StatusCode::OK, 0, len),
            Wanted::Part { start, len } => (StatusCode::PARTIAL_CONTENT, start, len),
            Wanted::Unsatisfiable => {
                let range = (CONTENT_RANGE, format!("bytes */{len}"));
                return self.head(StatusCode::RANGE_NOT_SATISFIABLE, &[range], Body::empty());
            }
        };
        let mut fields = vec![(CONTENT_LENGTH, part_len.to_string())];
        if status == StatusCode::PARTIAL_CONTENT {
            let last = start + part_len - 1;
            fields.push((CONTENT_RANGE, format!("bytes {start}-{last}/{len}")));
        }
        let body = match *method {
            Method::HEAD => Body::empty(),
            _ => self.body(start, part_len, sent),
        };
        self.head(status, &fields, body)
    }

    fn head(
        &self,
        status: StatusCode,
        fields: &[(HeaderName, String)],
        body: Body,
    ) -> Response<Body> {
        let mut answer = Response::builder()
            .status(status)
            .header(CONTENT_TYPE, self.media_type)
            .header(ACCEPT_RANGES, "bytes")
            .header(ETAG, &self.tag)
            .extension(Bounded);
        for (name, value) in fields {
            answer = answer.header(name, value);
        }
        answer.body(body).unwrap_or_else(|_| Response::new(Body::empty()))
    }

    fn body(&self, start: u64, len: u64, sent: &SentCount) -> Body {
        match &self.source {
            Source::Memory(bytes) => {
                sent.add(len);
                // Within the bytes: `range::parse` was told their length.
                let (start, len) = (start as usize, len as usize);
                Body::from(bytes.slice(start..start + len))
            }
            source => Body::new(FileBody::new(source.clone(), start, len, sent.clone())),
        }
    }
}

/// What a file is if nothing better is known.
const BINARY: &str = "application/octet-stream";

/// The weak comparison of `If-None-Match` (section 13.1.2).
fn matches_any(tags: &str, tag: &str) -> bool {
    tags.split(',')
        .map(str::trim)
        .any(|candidate| candidate == "*" || candidate.trim_start_matches("W/") == tag)
}

impl Source {
    /// Up to `len` bytes from `offset`, at least one.
    fn read(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let fd = match self {
            Self::Memory(_) => return Err(io::ErrorKind::Unsupported.into()),
            Self::File(file) => file.as_fd(),
            Self::Image(handle) => {
                handle.check_unchanged().map_err(io::Error::other)?;
                handle.as_fd()
            }
        };
        let mut bytes = Vec::with_capacity(len);
        loop {
            match rustix::io::pread(fd, rustix::buffer::spare_capacity(&mut bytes), offset) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => return Ok(bytes),
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

/// Bytes of one body that its reader has not taken.
#[derive(Debug, Default)]
struct Way {
    len: AtomicUsize,
    gone: AtomicWaker,
}

/// Some of them.
struct Block {
    bytes: Vec<u8>,
    way: Arc<Way>,
}

impl Block {
    fn send(bytes: Vec<u8>, way: &Arc<Way>) -> Bytes {
        way.len.fetch_add(bytes.len(), Ordering::Relaxed);
        Bytes::from_owner(Self { bytes, way: Arc::clone(way) })
    }
}

impl AsRef<[u8]> for Block {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.way.len.fetch_sub(self.bytes.len(), Ordering::Relaxed);
        self.way.gone.wake();
    }
}

/// A part of a file on its way. Who takes it has to let go of a block before the next one comes.
struct FileBody {
    source: Source,
    /// Of the next read.
    offset: u64,
    /// Bytes not yet handed on, those being read included.
    left: u64,
    reading: Option<JoinHandle<io::Result<Vec<u8>>>>,
    way: Arc<Way>,
    /// Of the next block.
    block_len: usize,
    /// For two such blocks, if they are longer than the first.
    grant: Grant,
    /// When the latest block was handed on.
    handed: Option<Instant>,
    sent: SentCount,
}

impl FileBody {
    fn new(source: Source, start: u64, len: u64, sent: SentCount) -> Self {
        Self {
            source,
            offset: start,
            left: len,
            reading: None,
            way: Arc::default(),
            block_len: BLOCK_LEN,
            grant: sent.purse.grant(),
            handed: None,
            sent,
        }
    }

    /// Begins to read what comes next, if there is more.
    fn read_on(&mut self) {
        let len =
            usize::try_from(self.left).map_or(self.block_len, |left| left.min(self.block_len));
        if len == 0 {
            return;
        }
        let (source, offset) = (self.source.clone(), self.offset);
        self.reading = Some(tokio::task::spawn_blocking(move || source.read(offset, len)));
    }

    fn is_quick(&self) -> bool {
        self.block_len > BLOCK_LEN
    }

    /// Says of the reader, who asks for more, how long the next blocks are.
    fn look(&mut self) {
        let Some(took) = self.handed.map(|handed| handed.elapsed()) else {
            return;
        };
        let longer = (self.block_len * 2).min(BLOCK_LEN_MAX);
        if took > SLOW {
            self.block_len = BLOCK_LEN;
        } else if took < QUICK && longer > self.block_len && self.grant.resize(longer * 2) {
            self.block_len = longer;
        }
    }
}

impl hyper::body::Body for FileBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        if self.reading.is_none() && !self.is_quick() {
            // Noted first: the last of it may go meanwhile.
            self.way.gone.register(context.waker());
            if self.way.len.load(Ordering::Relaxed) > 0 {
                return Poll::Pending;
            }
            self.grant.resize(0);
        }
        if self.reading.is_none() {
            self.look();
            self.read_on();
        }
        let Some(reading) = self.reading.as_mut() else {
            return Poll::Ready(None);
        };
        let read = ready!(Pin::new(reading).poll(context)).unwrap_or_else(|error| {
            // The runtime ends, and this with it.
            Err(io::Error::other(error))
        });
        self.reading = None;
        let bytes = match read {
            Ok(bytes) => bytes,
            Err(error) => {
                self.left = 0;
                return Poll::Ready(Some(Err(error)));
            }
        };
        self.offset += bytes.len() as u64;
        self.left -= bytes.len() as u64;
        self.sent.add(bytes.len() as u64);
        if self.is_quick() {
            self.look();
        }
        self.handed = Some(Instant::now());
        if self.is_quick() {
            self.read_on();
        }
        Poll::Ready(Some(Ok(Frame::data(Block::send(bytes, &self.way)))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn served() -> (tempfile::TempDir, Served, Vec<u8>) {
        let dir = tempfile::tempdir().unwrap();
        let bytes: Vec<u8> = (0..BLOCK_LEN_MAX * 2 + 100).map(|at| (at / 7) as u8).collect();
        std::fs::write(dir.path().join("f"), &bytes).unwrap();
        let served = Served::file(&dir.path().join("f")).unwrap();
        (dir, served, bytes)
    }

    fn headers(fields: &[(HeaderName, &str)]) -> HeaderMap {
        let pair = |(name, value): &(HeaderName, &str)| {
            (name.clone(), HeaderValue::from_str(value).unwrap())
        };
        fields.iter().map(pair).collect()
    }

    async fn next(body: &mut Body) -> Option<Result<Bytes, axum::Error>> {
        let frame = std::future::poll_fn(|context| {
            hyper::body::Body::poll_frame(Pin::new(&mut *body), context)
        });
        Some(frame.await?.map(|frame| frame.into_data().unwrap()))
    }

    async fn read(mut body: Body) -> Result<Vec<u8>, axum::Error> {
        let mut all = vec![];
        while let Some(bytes) = next(&mut body).await {
            all.extend_from_slice(&bytes?);
        }
        Ok(all)
    }

    #[tokio::test]
    async fn who_does_not_read_costs_a_block_and_who_is_quick_gets_ever_longer_ones() {
        let (_dir, served, bytes) = served();
        let sent = SentCount::default();
        let answer = served.answer(&Method::GET, &HeaderMap::new(), &sent);
        let mut body = answer.into_body();
        let first = next(&mut body).await.unwrap().unwrap();
        assert_eq!(first.len(), BLOCK_LEN);
        {
            let mut more = std::pin::pin!(next(&mut body));
            let more = std::future::poll_fn(|context| Poll::Ready(more.as_mut().poll(context)));
            assert!(more.await.is_pending() && sent.bytes() == BLOCK_LEN as u64);
        }
        drop(first);
        let mut lens = vec![];
        while let Some(block) = next(&mut body).await {
            lens.push(block.unwrap().len());
        }
        assert!(lens.contains(&(BLOCK_LEN_MAX / 2)), "{lens:?}");
        assert_eq!(BLOCK_LEN + lens.iter().sum::<usize>(), bytes.len());
    }

    #[tokio::test]
    async fn nothing_is_read_ahead_for_who_has_not_taken_the_first_block() {
        let (_dir, served, bytes) = served();
        let len = bytes.len() as u64;
        let mut body = FileBody::new(served.source, 0, len, SentCount::default());
        let first = std::future::poll_fn(|context| {
            hyper::body::Body::poll_frame(Pin::new(&mut body), context)
        })
        .await;
        let more = std::future::poll_fn(|context| {
            Poll::Ready(hyper::body::Body::poll_frame(Pin::new(&mut body), context))
        });
        assert!(more.await.is_pending() && body.reading.is_none());
        drop(first);
    }

    async fn ask(
        served: &Served,
        method: Method,
        fields: &[(HeaderName, &str)],
    ) -> (StatusCode, HeaderMap, Vec<u8>, u64) {
        let sent = SentCount::default();
        let answer = served.clone().answer(&method, &headers(fields), &sent);
        let (head, body) = answer.into_parts();
        (head.status, head.headers, read(body).await.unwrap(), sent.bytes())
    }

    #[tokio::test]
    async fn a_file_is_sent_whole() {
        let (_dir, served, bytes) = served();
        let (status, head, body, sent) = ask(&served, Method::GET, &[]).await;
        assert_eq!((status, sent), (StatusCode::OK, bytes.len() as u64));
        assert_eq!(head[CONTENT_LENGTH], bytes.len().to_string());
        assert_eq!(head[ACCEPT_RANGES], "bytes");
        assert!(body == bytes);
    }

    #[tokio::test]
    async fn a_range_is_sent_as_such() {
        let (_dir, served, bytes) = served();
        let first = BLOCK_LEN_MAX - 3;
        let range = format!("bytes={first}-{}", first + 9);
        let (status, head, body, _) = ask(&served, Method::GET, &[(RANGE, &range)]).await;
        assert_eq!(status, StatusCode::PARTIAL_CONTENT);
        assert_eq!(head[CONTENT_LENGTH], "10");
        let expect = format!("bytes {first}-{}/{}", first + 9, bytes.len());
        assert_eq!(head[CONTENT_RANGE], expect);
        assert_eq!(body, bytes[first..first + 10]);
    }

    #[tokio::test]
    async fn beyond_the_end_is_416_with_the_length() {
        let (_dir, served, bytes) = served();
        let (status, head, body, _) =
            ask(&served, Method::GET, &[(RANGE, "bytes=99999999-")]).await;
        assert_eq!(status, StatusCode::RANGE_NOT_SATISFIABLE);
        assert_eq!(head[CONTENT_RANGE], format!("bytes */{}", bytes.len()));
        assert!(body.is_empty());
    }

    #[tokio::test]
    async fn a_range_of_another_version_is_answered_with_the_whole() {
        let (_dir, served, bytes) = served();
        let tag = served.tag.clone();
        let range = (RANGE, "bytes=0-0");
        for (condition, expect) in [
            (tag.as_str(), StatusCode::PARTIAL_CONTENT),
            ("\"other\"", StatusCode::OK),
            ("Sat, 21 Nov 2026 00:00:00 GMT", StatusCode::OK),
        ] {
            let fields = [range.clone(), (IF_RANGE, condition)];
            let (status, _, body, _) = ask(&served, Method::GET, &fields).await;
            assert_eq!(status, expect, "{condition}");
            assert_eq!(body.len(), if expect == StatusCode::OK { bytes.len() } else { 1 });
        }
    }

    #[tokio::test]
    async fn what_the_other_side_has_is_not_sent_again() {
        let (_dir, served, _) = served();
        let tags = format!("\"a\", W/{}", served.tag);
        let (status, _, body, _) = ask(&served, Method::GET, &[(IF_NONE_MATCH, &tags)]).await;
        assert_eq!((status, body.len()), (StatusCode::NOT_MODIFIED, 0));
    }

    #[tokio::test]
    async fn head_says_how_long_and_sends_nothing() {
        let (_dir, served, bytes) = served();
        let (status, head, body, sent) = ask(&served, Method::HEAD, &[(RANGE, "bytes=0-0")]).await;
        assert_eq!((status, body.len(), sent), (StatusCode::OK, 0, 0));
        assert_eq!(head[CONTENT_LENGTH], bytes.len().to_string());
    }

    #[tokio::test]
    async fn a_file_that_became_short_ends_in_an_error() {
        let (dir, served, _) = served();
        File::options().write(true).open(dir.path().join("f")).unwrap().set_len(10).unwrap();
        let answer = served.answer(&Method::GET, &HeaderMap::new(), &SentCount::default());
        assert!(read(answer.into_body()).await.is_err());
    }
}
