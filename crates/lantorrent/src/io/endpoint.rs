//! The endpoint: accepts connections, and lets nobody in who does not know the password.

use std::collections::VecDeque;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs as _};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use places::{Bounds, Standing, Table};
use socket2::SockRef;

use super::connect::{be_measured, prepare};
use super::mailbox::mailbox;
use super::registry::{Attach, Known, Note, Registry};
use super::session::{self, Start, linger};
use super::target::Roots;
use super::{Identity, unix_s};
use crate::chain::STALL_TIMEOUT;
use crate::code::Code;
use crate::header::{Control, Head, HeadState, Header, HeaderError};
use crate::replay::{Refused, Seen};
use crate::report::{Line, Report};
use crate::signature::Scheme;

/// How long a stranger may take to say who it is.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// Connections that the kernel keeps for this endpoint until it takes them: a crowd that comes at once keeps
/// nobody's first packet from being answered.
const BACKLOG: i32 = 1_024;

/// Bytes of a header that everybody may send before it is known who they are: some 200 destinations.
const HEAD_LEN_FREE: usize = 64 * 1024;

/// Longer headers at once that are not verified, of up to 2 MiB each with what was read ahead. One
/// address has an eighth, and the oldest gives way.
const LONG_HEADS_MAX: usize = 16;

/// How long the threads of transfers may take to clean up at the end.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// What an endpoint may spend.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at once, each with a thread of 100 KiB or so. Of those that have not said who they
    /// are one address has an eighth, and when all are taken the oldest of them gives way.
    pub connections: usize,
    /// How long an endpoint behind this one may be silent before it is cut out.
    pub stall: Duration,
}

impl Default for Limits {
    /// Several transfers, each with predecessors that change and messages beside the stream.
    fn default() -> Self {
        Self { connections: 256, stall: STALL_TIMEOUT }
    }
}

/// Hears of the files of an endpoint.
pub type Observer = Arc<dyn Fn(&Report) + Send + Sync>;

/// What an endpoint serves.
pub struct Serving {
    pub roots: Roots,
    pub identity: Identity,
    pub limits: Limits,
    /// Called with what is reported of each file of this endpoint.
    pub observer: Observer,
    /// Where headers are remembered beyond the process: by those of one connection each, and by a
    /// service across its restarts. Without it a service remembers them while it runs.
    pub replay_file: Option<PathBuf>,
    /// Further names of this host, beside its host name and what resolves to its addresses.
    pub names: Vec<String>,
}

/// Why an endpoint cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    #[error("cannot listen on {0}")]
    Listen(SocketAddr, #[source] io::Error),
    #[error("standard input is no connection: this mode is for inetd or a socket unit")]
    NoConnection(#[source] io::Error),
}

/// An endpoint that listens.
pub struct Endpoint {
    listener: TcpListener,
    shared: Arc<Shared>,
    is_stopped: AtomicBool,
}

struct Shared {
    roots: Roots,
    identity: Arc<Identity>,
    limits: Limits,
    registry: Registry,
    seen: Mutex<Seen>,
    observer: Observer,
    replay_file: Option<PathBuf>,
    names: Vec<String>,
    /// Since when [`Self::door`] counts.
    started: Instant,
    /// Connections, and what ends them.
    door: Mutex<Table<Option<TcpStream>>>,
    /// Those of them that send long headers.
    long_heads: Mutex<Table<Option<TcpStream>>>,
    threads: Mutex<Threads>,
    /// Whether connections of one transfer meet in this process.
    is_service: bool,
}

/// A connection that has a place.
struct Guest {
    stream: TcpStream,
    peer: SocketAddr,
    ticket: u64,
}

/// Twice as many as there may be connections: those of connections that were sent away end as soon as they
/// run. Whoever comes before they have waits for one of them; refused, it would be kept out by those that had
/// to go for it.
#[derive(Default)]
struct Threads {
    count: usize,
    waiting: VecDeque<Guest>,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint").field("listener", &self.listener).finish_non_exhaustive()
    }
}

impl Shared {
    fn new(serving: Serving, is_service: bool) -> Self {
        let Serving { roots, identity, limits, observer, replay_file, names } = serving;
        Self {
            roots,
            identity: Arc::new(identity),
            limits,
            registry: Registry::default(),
            seen: Mutex::default(),
            observer,
            replay_file,
            names,
            started: Instant::now(),
            door: Mutex::new(Table::new(Bounds::of(limits.connections, Duration::ZERO))),
            long_heads: Mutex::new(Table::new(Bounds::of(LONG_HEADS_MAX, Duration::ZERO))),
            threads: Mutex::default(),
            is_service,
        }
    }
}

impl Endpoint {
    /// Listens; port 0 takes a free one.
    ///
    /// # Errors
    /// [`EndpointError`].
    pub fn bind(address: SocketAddr, serving: Serving) -> Result<Self, EndpointError> {
        let listener =
            TcpListener::bind(address).map_err(|error| EndpointError::Listen(address, error))?;
        rustix::net::listen(&listener, BACKLOG)
            .map_err(|error| EndpointError::Listen(address, error.into()))?;
        let shared = Arc::new(Shared::new(serving, true));
        Ok(Self { listener, shared, is_stopped: AtomicBool::new(false) })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// Whatever the kernel has against telling.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until [`Self::stop`].
    pub fn run(&self) {
        while !self.is_stopped.load(Ordering::Acquire) {
            let Ok((stream, peer)) = self.listener.accept() else {
                // Out of descriptors, or stopped. The first passes, and must not spin.
                std::thread::sleep(Duration::from_millis(10));
                continue;
            };
            let shared = Arc::clone(&self.shared);
            let Some(ticket) = shared.enter(&shared.door, &stream, peer) else {
                tracing::warn!(%peer, "refused: too many connections");
                continue;
            };
            let Some(guest) = shared.seat(Guest { stream, peer, ticket }) else { continue };
            let served = std::thread::Builder::new().name("lan-session".to_owned()).spawn({
                let shared = Arc::clone(&shared);
                move || shared.serve_all(guest)
            });
            if let Err(error) = served {
                shared.threads.lock().unwrap_or_else(PoisonError::into_inner).count -= 1;
                lock(&shared.door).leave(ticket);
                tracing::warn!(%error, "no thread for a connection");
            }
        }
        self.shared.registry.stop();
        let deadline = Instant::now() + STOP_TIMEOUT;
        while self.shared.registry.count() > 0 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Ends [`Self::run`], from another thread. Transfers under way leave no temporary files.
    pub fn stop(&self) {
        self.is_stopped.store(true, Ordering::Release);
        let _ = SockRef::from(&self.listener).shutdown(std::net::Shutdown::Both);
    }
}

/// Serves the one connection that standard input is, as inetd gives it. Whether all went well.
///
/// # Errors
/// [`EndpointError::NoConnection`].
pub fn serve_stdin(serving: Serving) -> Result<bool, EndpointError> {
    use std::os::fd::AsFd as _;
    let refuse = EndpointError::NoConnection;
    let fd = io::stdin().as_fd().try_clone_to_owned().map_err(refuse)?;
    let stream = TcpStream::from(fd);
    SockRef::from(&stream).local_addr().map_err(refuse)?;
    Ok(Shared::new(serving, false).serve(stream, "stdin", None))
}

/// What can still be used by others after a panic: counts that are right.
fn lock(table: &Mutex<Table<Option<TcpStream>>>) -> MutexGuard<'_, Table<Option<TcpStream>>> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// Who is to be served by a thread of its own now; nobody while there are enough threads, one of which
    /// takes the guest up when it is free.
    fn seat(&self, guest: Guest) -> Option<Guest> {
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        if threads.count < 2 * self.limits.connections {
            threads.count += 1;
            return Some(guest);
        }
        threads.waiting.push_back(guest);
        // Half of them at least were sent away meanwhile: the first.
        if threads.waiting.len() > 2 * self.limits.connections
            && let Some(first) = threads.waiting.pop_front()
        {
            lock(&self.door).leave(first.ticket);
        }
        None
    }

    /// Serves a guest, and then those that wait.
    fn serve_all(&self, first: Guest) {
        let mut next = Some(first);
        while let Some(Guest { stream, peer, ticket }) = next.take() {
            self.serve(stream, &peer.to_string(), Some(ticket));
            lock(&self.door).leave(ticket);
            let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
            next = threads.waiting.pop_front();
            if next.is_none() {
                threads.count -= 1;
            }
        }
    }

    /// A place for a connection, if need be that of another one which has not said who it is.
    fn enter(
        &self,
        table: &Mutex<Table<Option<TcpStream>>>,
        stream: &TcpStream,
        peer: SocketAddr,
    ) -> Option<u64> {
        let guest = Some(stream.try_clone().ok()?);
        let now = self.started.elapsed();
        let entered = lock(table).enter(now, peer.ip(), Standing::Stranger, guest)?;
        if let Some(displaced) = entered.displaced.flatten() {
            let _ = displaced.shutdown(std::net::Shutdown::Both);
        }
        Some(entered.ticket)
    }

    /// One connection, to its end. Whether all went well.
    fn serve(&self, mut stream: TcpStream, peer: &str, ticket: Option<u64>) -> bool {
        // Not all connections of inetd's are TCP.
        let _ = prepare(&stream);
        match self.read_head(&mut stream) {
            Ok(Some((header, pending))) => {
                if let Some(ticket) = ticket {
                    // It knows the password: no stranger gets its place, and nobody else needs its socket,
                    // which closes when the transfer lets go of it.
                    lock(&self.door).raise(ticket, Standing::Leased).map(Option::take);
                }
                self.dispatch(Attach { stream, header, pending }, peer)
            }
            // It looked whether somebody is here.
            Ok(None) => true,
            Err(refusal) => {
                tracing::warn!(peer, why = refusal.why, "refused");
                refuse(&mut stream, refusal.code);
                false
            }
        }
    }

    /// Reads, verifies and understands the header; `None` if nothing came at all.
    fn read_head(&self, stream: &mut TcpStream) -> Result<Option<(Header, Vec<u8>)>, Refusal> {
        let mut long = None;
        let head = self.read_head_as(stream, &mut long);
        if let Some(ticket) = long {
            lock(&self.long_heads).leave(ticket);
        }
        head
    }

    /// `long` becomes its ticket among the long headers, if it is one.
    fn read_head_as(
        &self,
        stream: &mut TcpStream,
        long: &mut Option<u64>,
    ) -> Result<Option<(Header, Vec<u8>)>, Refusal> {
        let deadline = Instant::now() + HEADER_TIMEOUT;
        let (mut head, mut input) = (Head::default(), Vec::new());
        let mut buffer = vec![0; 64 * 1024];
        let mut is_empty = true;
        loop {
            while let Some(at) = input.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = input.drain(..=at).collect();
                if let HeadState::Signed(signature) = head.line(&line)? {
                    return Ok(Some((self.admit(head.text(), &signature, stream)?, input)));
                }
            }
            if input.len() > head.room() {
                return Err(HeaderError::TooLong.into());
            }
            if long.is_none()
                && head.text().len() + input.len() > HEAD_LEN_FREE
                && let Ok(peer) = stream.peer_addr()
            {
                let ticket = self.enter(&self.long_heads, stream, peer);
                *long =
                    Some(ticket.ok_or_else(|| {
                        Refusal::denied("too many long headers at once".to_owned())
                    })?);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Refusal::denied("no header in time".to_owned()));
            }
            let _ = stream.set_read_timeout(Some(left));
            match stream.read(&mut buffer) {
                Ok(0) if is_empty => return Ok(None),
                Ok(0) => return Err(HeaderError::Unsigned.into()),
                Ok(len) => {
                    is_empty = false;
                    input.extend_from_slice(&buffer[..len]);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) if is_empty => return Ok(None),
                Err(error) => return Err(Refusal::denied(error.to_string())),
            }
        }
    }

    fn admit(&self, text: &str, signature: &str, stream: &TcpStream) -> Result<Header, Refusal> {
        let identity = &self.identity;
        let scheme = identity
            .password
            .verify(identity.compat, text, signature)
            .ok_or_else(|| Refusal::denied("the signature is wrong".to_owned()))?;
        let header = Header::decode(text)?;
        match &header.boottorrent {
            Some(extension) => {
                if !self.is_addressed(&header.host, stream) {
                    return Err(Refusal::denied(format!(
                        "it is for {}, which is not this host: is --name missing?",
                        header.host
                    )));
                }
                self.remember(extension.time, &extension.nonce)
                    .map_err(|refused| Refusal::denied(refused.to_string()))?;
            }
            // Without it anybody could say it again.
            None if scheme == Scheme::Sha256 => {
                return Err(Refusal::denied("it has no time and no nonce".to_owned()));
            }
            None => {}
        }
        Ok(header)
    }

    /// Whether a header for `host` is for us: or one that was heard on its way to an endpoint could be
    /// said to all others.
    fn is_addressed(&self, host: &str, stream: &TcpStream) -> bool {
        let own = rustix::system::uname();
        let own = own.nodename().to_string_lossy();
        if is_name(host, &own) || self.names.iter().any(|name| is_name(host, name)) {
            return true;
        }
        let Ok(local) = stream.local_addr() else { return false };
        let addresses = (host, 0).to_socket_addrs().into_iter().flatten();
        addresses
            .into_iter()
            .any(|address| address.ip().to_canonical() == local.ip().to_canonical())
    }

    fn remember(&self, time: u64, nonce: &str) -> Result<(), Refused> {
        if let Some(path) = &self.replay_file {
            return file::admit(path, unix_s(), time, nonce);
        }
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.admit(unix_s(), time, nonce)
    }

    fn dispatch(&self, mut attach: Attach, peer: &str) -> bool {
        let Some(extension) = attach.header.boottorrent.clone() else {
            return self.run(attach, None, peer);
        };
        let id = extension.transfer;
        match extension.control {
            None => self.run(attach, Some(&id), peer),
            Some(Control::Measure) => be_measured(&mut attach.stream, &attach.pending).is_ok(),
            Some(control) => {
                self.on_control(control, &id, attach.header);
                true
            }
        }
    }

    fn on_control(&self, control: Control, id: &str, header: Header) {
        let Some(live) = self.registry.live(id) else { return };
        let note = match control {
            Control::Append => Note::Append(header.destinations),
            Control::Abort => {
                let requests = header.destinations.iter().flat_map(|entry| &entry.requests);
                Note::Abort(requests.map(|request| request.id.clone()).collect())
            }
            Control::Measure | Control::Unknown => return,
        };
        let _ = live.send(note);
    }

    fn run(&self, first: Attach, id: Option<&str>, peer: &str) -> bool {
        let (post, mailbox) = match mailbox() {
            Ok(both) => both,
            Err(error) => {
                tracing::warn!(peer, %error, "no descriptor for a transfer");
                return false;
            }
        };
        match id.map_or(Known::New, |id| self.registry.enter(id, &post)) {
            Known::New => {}
            Known::Live(live) => return live.send(Note::Attach(Box::new(first))).is_ok(),
            Known::Ended(reports) => {
                repeat(first, &reports);
                return true;
            }
        }
        tracing::info!(peer, transfer = id, length = first.header.length, "begins");
        let start = Start {
            roots: &self.roots,
            identity: Arc::clone(&self.identity),
            can_attach: self.is_service,
            stall: self.limits.stall,
            observer: Arc::clone(&self.observer),
            first,
        };
        let ended = session::run(start, &post, &mailbox);
        let (said, all_well) = match ended {
            Ok(ended) => (ended.said, ended.all_well),
            Err(error) => {
                tracing::warn!(peer, %error, "a transfer could not begin");
                (Vec::new(), false)
            }
        };
        if let Some(id) = id {
            self.registry.leave(id, said);
        }
        // Whoever came in the last moment finds nobody, and comes again.
        all_well
    }
}

/// Whether two names are of one host: as they are, or one of them without its domain.
fn is_name(asked: &str, own: &str) -> bool {
    let (asked, own) = (asked.trim_end_matches('.'), own.trim_end_matches('.'));
    if asked.eq_ignore_ascii_case(own) {
        return true;
    }
    let is_short = !asked.contains('.') || !own.contains('.');
    let first = |name: &str| name.split('.').next().unwrap_or_default().to_ascii_lowercase();
    is_short && asked.parse::<IpAddr>().is_err() && !own.is_empty() && first(asked) == first(own)
}

/// Says again what a transfer that has ended came to.
fn repeat(first: Attach, reports: &[Report]) {
    let Attach { mut stream, header, .. } = first;
    let mut text = Line::Hello { offset: header.length }.encode();
    for report in reports {
        text.push_str(&Line::Report(report.clone()).encode());
    }
    let _ = stream.set_nonblocking(false);
    if stream.write_all(text.as_bytes()).is_ok() {
        linger(&mut stream);
    }
}

/// What a peer is told that is not let in: a code and nothing else.
fn refuse(stream: &mut TcpStream, code: Code) {
    let report = Report {
        code: code.0,
        host: String::new(),
        port: 0,
        file: None,
        id: None,
        message: Some(code.sentence().to_owned()),
        md5sum: None,
        sha256: None,
    };
    if stream.write_all(Line::Report(report).encode().as_bytes()).is_ok() {
        linger(stream);
    }
}

/// Why somebody is not let in: the code is for them, the rest for the log.
struct Refusal {
    code: Code,
    why: String,
}

impl Refusal {
    const fn denied(why: String) -> Self {
        Self { code: Code::DENIED, why }
    }
}

impl From<HeaderError> for Refusal {
    fn from(error: HeaderError) -> Self {
        Self { code: error.code(), why: error.to_string() }
    }
}

/// Headers that processes of one connection each have seen.
mod file {
    use std::fs::OpenOptions;
    use std::io::{Read as _, Seek as _, Write as _};
    use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
    use std::path::Path;

    use crate::replay::{Refused, Seen, WINDOW_S};

    /// As [`Seen::admit`], remembered in a file of lines `time nonce`. A file that cannot be used
    /// refuses everybody, and so does one that somebody else made: whoever can write it can have a
    /// header forgotten.
    pub(super) fn admit(path: &Path, now: u64, time: u64, nonce: &str) -> Result<(), Refused> {
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
            .open(path)
            .map_err(|_| Refused::Memory)?;
        let metadata = file.metadata().map_err(|_| Refused::Memory)?;
        if !metadata.is_file() || metadata.uid() != rustix::process::getuid().as_raw() {
            return Err(Refused::Memory);
        }
        file.lock().map_err(|_| Refused::Memory)?;
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(|_| Refused::Memory)?;
        let mut seen = Seen::default();
        let mut kept = String::new();
        for (then, known) in text.lines().filter_map(|line| line.split_once(' ')) {
            let then: u64 = then.parse().unwrap_or(0);
            if now.abs_diff(then) <= WINDOW_S {
                let _ = seen.admit(now, then, known);
                kept.push_str(&format!("{then} {known}\n"));
            }
        }
        seen.admit(now, time, nonce)?;
        kept.push_str(&format!("{time} {}\n", nonce.replace(char::is_whitespace, "_")));
        file.set_len(0).and_then(|()| file.rewind()).map_err(|_| Refused::Memory)?;
        file.write_all(kept.as_bytes()).map_err(|_| Refused::Memory)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn processes_of_one_connection_share_what_they_have_seen() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("seen");
        assert_eq!(file::admit(&path, 1_000, 1_000, "a"), Ok(()));
        assert_eq!(file::admit(&path, 1_001, 1_000, "a"), Err(Refused::Replay));
        assert_eq!(file::admit(&path, 1_001, 1_000, "b"), Ok(()));
        // What is older than the window is forgotten, and refused by its time.
        assert_eq!(file::admit(&path, 2_000, 1_000, "a"), Err(Refused::Time));
        assert_eq!(file::admit(&path, 2_000, 2_000, "c"), Ok(()));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "2000 c\n");
    }

    #[test]
    fn names_of_one_host_differ_by_their_domain_at_most() {
        for (asked, own, expect) in [
            ("c001", "c001", true),
            ("C001.lab", "c001", true),
            ("c001", "c001.lab.", true),
            ("c001.lab", "c001.other", false),
            ("c002", "c001", false),
            ("10.0.0.1", "10", false),
            ("", "", true),
        ] {
            assert_eq!(is_name(asked, own), expect, "{asked} {own}");
        }
    }

    #[test]
    fn a_file_that_is_somebody_elses_refuses_everybody() {
        let dir = tempfile::tempdir().unwrap();
        let (theirs, path) = (dir.path().join("theirs"), dir.path().join("seen"));
        std::fs::write(&theirs, "").unwrap();
        symlink(&theirs, &path).unwrap();
        assert_eq!(file::admit(&path, 1_000, 1_000, "a"), Err(Refused::Memory));
        assert_eq!(file::admit(dir.path(), 1_000, 1_000, "a"), Err(Refused::Memory));
    }
}
