//! One transfer at an endpoint: from the predecessor to the files, and from the file to those behind.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};

use super::children::{Children, Transfer, Whose};
use super::endpoint::Observer;
use super::hash::{BUFFER_LEN, HashThread};
use super::mailbox::{Mailbox, Post};
use super::origin::poll_for;
use super::registry::{Attach, Note};
use super::target::{Failed, Outputs, Roots};
use super::{Clock, Identity};
use crate::Time;
use crate::chain::{BEAT_INTERVAL, Config, Event};
use crate::code::Code;
use crate::header::{Destination, Header};
use crate::intake::{End, Intake, Want};
use crate::report::{Footer, Line, Report};

/// Read before others get their turn: the successor's socket must not run dry.
const TURN_LEN_MAX: usize = 1 << 20;

/// How often it is looked whether the files still have their names.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// How long the last words may take to a predecessor that does not read them.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);

/// How long to wait for the predecessor's end after the last words, so that they are not lost in a
/// reset because of bytes that nobody read.
const LINGER_TIMEOUT: Duration = Duration::from_millis(500);

/// Lines that wait for a predecessor that does not read: more than all reports of a thousand
/// endpoints.
const OUT_LEN_MAX: usize = 4 << 20;

/// What a session needs from its endpoint.
pub(super) struct Start<'a> {
    pub(super) roots: &'a Roots,
    pub(super) identity: Arc<Identity>,
    /// Whether another predecessor can find this session.
    pub(super) can_attach: bool,
    /// See [`super::Limits::stall`].
    pub(super) stall: Duration,
    pub(super) observer: Observer,
    pub(super) first: Attach,
}

/// What ended with the session.
pub(super) struct Ended {
    /// All that was reported, the own files' and those behind.
    pub(super) said: Vec<Report>,
    pub(super) all_well: bool,
}

pub(super) struct Session<'a> {
    roots: &'a Roots,
    identity: Arc<Identity>,
    observer: Observer,
    clock: Clock,
    header: Header,
    intake: Intake,
    upstream: Option<Upstream>,
    outputs: Outputs,
    hash: HashThread,
    buffer: Vec<u8>,
    filled: usize,
    /// What the sender says of the payload, and whether it is the sender who says it.
    footer: Option<(Footer, bool)>,
    children: Children<Note>,
    said: Vec<Report>,
    beat_at: Time,
    check_at: Time,
    is_own_done: bool,
    is_over: bool,
}

struct Upstream {
    stream: TcpStream,
    pending: Vec<u8>,
    out: Vec<u8>,
    /// It understands our lines.
    is_own: bool,
    /// It says nothing more, but may still listen.
    has_ended: bool,
}

/// Runs a transfer to its end.
pub(super) fn run(
    start: Start<'_>,
    post: &Post<Note>,
    mailbox: &Mailbox<Note>,
) -> io::Result<Ended> {
    let mut session = Session::new(start, post)?;
    let result = session.run(mailbox);
    if let Err(error) = &result {
        session.fail(Code::UNKNOWN, &error.to_string());
    }
    session.take_reports();
    let all_well = session.said.iter().all(Report::is_success);
    let ended = Ended { said: std::mem::take(&mut session.said), all_well };
    session.say_goodbye();
    Ok(ended)
}

impl<'a> Session<'a> {
    fn new(start: Start<'a>, post: &Post<Note>) -> io::Result<Self> {
        let Start { roots, identity, can_attach, stall, observer, first } = start;
        let clock = Clock::start();
        let now = clock.now();
        let Attach { stream, header, pending } = first;
        stream.set_nonblocking(true)?;
        let depth = header.boottorrent.as_ref().map(|extension| extension.depth);
        let id = match &header.boottorrent {
            Some(extension) => extension.transfer.clone(),
            None => super::nonce().map_err(io::Error::other)?,
        };
        let config = Config {
            length: header.length,
            degree: header.degree,
            compat: identity.compat.is_on(),
            is_origin: false,
            stall,
        };
        let transfer = Transfer { id, depth: depth.unwrap_or(0) + 1, length: header.length };
        let children = Children::new(
            config,
            header.destinations.clone(),
            (Arc::clone(&identity), transfer),
            (post.clone(), Note::Brought),
            now,
        );
        let hashed = post.clone();
        let hash = HashThread::start(identity.compat.is_on(), move |footer| {
            let _ = hashed.send(Note::Hashed(footer));
        })?;
        let (outputs, failed) = Outputs::open(roots, &header.requests);
        let is_own = depth.is_some();
        let upstream = Upstream { stream, pending, out: Vec::new(), is_own, has_ended: false };
        let mut session = Self {
            roots,
            identity,
            observer,
            clock,
            intake: Intake::new(header.length, depth.filter(|_| can_attach), now),
            header,
            upstream: Some(upstream),
            outputs,
            hash,
            buffer: Vec::new(),
            filled: 0,
            footer: None,
            children,
            said: Vec::new(),
            beat_at: now,
            check_at: now + CHECK_INTERVAL,
            is_own_done: false,
            is_over: false,
        };
        session.buffer = session.hash.buffer();
        session.greet();
        session.on_failed(failed);
        session.choose_store()?;
        Ok(session)
    }

    fn run(&mut self, mailbox: &Mailbox<Note>) -> io::Result<()> {
        while !self.is_over {
            let now = self.clock.now();
            self.look_around(now)?;
            self.children.drive(now)?;
            self.take_reports();
            if self.is_own_done && self.children.is_done() {
                break;
            }
            self.flush();
            let ready = self.wait(mailbox)?;
            let now = self.clock.now();
            self.children.on_ready(&ready.children, now)?;
            if ready.upstream {
                self.read(now)?;
            }
            mailbox.quiet();
            while let Some(note) = mailbox.take() {
                self.on_note(note, now);
            }
        }
        Ok(())
    }

    /// All that time brings.
    fn look_around(&mut self, now: Time) -> io::Result<()> {
        if let Some(why) = self.intake.tick(now) {
            self.fail(Code::BROKEN, &why);
        }
        if now >= self.check_at {
            self.check_at = now + CHECK_INTERVAL;
            let failed = self.outputs.check();
            self.on_failed(failed);
            self.choose_store()?;
        }
        if now >= self.beat_at {
            self.beat_at = now + BEAT_INTERVAL;
            let received = self.intake.received();
            self.say(&Line::Beat { received });
        }
        Ok(())
    }

    /// Those behind are sent what one of the files holds. With no such file, as all goes to
    /// /dev/null, one without a name holds it.
    fn choose_store(&mut self) -> io::Result<()> {
        let store = self.outputs.store();
        if store.is_none() && self.children.has_store() {
            // The file was taken away, but as long as it is open it holds what was written.
            return Ok(());
        }
        let needs_spool = store.is_none() && !self.header.destinations.is_empty();
        let spool = (needs_spool && !self.is_over).then(|| self.roots.spool().map(Arc::new));
        self.children.set_store(store.or(spool.transpose()?));
        Ok(())
    }

    fn wait(&self, mailbox: &Mailbox<Note>) -> io::Result<Ready> {
        let now = self.clock.now();
        let mut due = self.beat_at.min(self.check_at);
        for at in [self.intake.next_timeout(), self.children.next_timeout()].into_iter().flatten() {
            due = due.min(at);
        }
        let interests = self.children.interests();
        let mut fds = vec![PollFd::from_borrowed_fd(mailbox.bell(), PollFlags::IN)];
        fds.extend(interests.iter().map(|(fd, flags, _)| PollFd::from_borrowed_fd(*fd, *flags)));
        let mut has_pending = false;
        if let Some(upstream) = &self.upstream {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::IN, !upstream.has_ended);
            flags.set(PollFlags::OUT, !upstream.out.is_empty());
            has_pending = !upstream.pending.is_empty();
            fds.push(PollFd::from_borrowed_fd(upstream.stream.as_fd(), flags));
        }
        let timeout = if has_pending { Duration::ZERO } else { due.saturating_sub(now) };
        poll_for(&mut fds, timeout)?;
        let children = fds[1..].iter().zip(&interests);
        let children = children
            .filter(|(fd, _)| !fd.revents().is_empty())
            .map(|(fd, (_, _, whose))| (*whose, fd.revents()))
            .collect();
        let upstream = fds.get(1 + interests.len()).is_some_and(|fd| {
            fd.revents().intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR)
        });
        Ok(Ready { children, upstream: upstream || has_pending })
    }

    fn read(&mut self, now: Time) -> io::Result<()> {
        let mut turn = 0;
        while turn < TURN_LEN_MAX {
            let want = self.intake.wants();
            let limit = match want {
                Want::Payload(len) => {
                    let room = BUFFER_LEN - self.filled;
                    usize::try_from(len).unwrap_or(room).min(room)
                }
                Want::Footer | Want::Nothing => BUFFER_LEN - self.filled,
            };
            let Some(upstream) = &mut self.upstream else { return Ok(()) };
            let into = &mut self.buffer[self.filled..self.filled + limit];
            match upstream.read(into) {
                Ok(0) if upstream.has_ended => {
                    // Ready again after its end: it does not listen any more either.
                    self.upstream = None;
                    return Ok(());
                }
                Ok(0) => {
                    upstream.has_ended = true;
                    self.on_end(now);
                    return Ok(());
                }
                Ok(len) => {
                    turn += len;
                    match want {
                        Want::Payload(_) => self.on_payload(now, len)?,
                        Want::Footer => {
                            let bytes = &self.buffer[self.filled..self.filled + len];
                            if !self.intake.on_footer(now, bytes) {
                                self.fail(Code::CHECKSUM, "the footer is too long");
                                return Ok(());
                            }
                        }
                        // A predecessor that does not know yet that all is there.
                        Want::Nothing => {}
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    self.on_end(now);
                    self.upstream = None;
                    return Ok(());
                }
            }
            if self.is_over {
                return Ok(());
            }
        }
        Ok(())
    }

    /// `len` bytes of payload have been read behind those that fill the buffer.
    fn on_payload(&mut self, now: Time, len: usize) -> io::Result<()> {
        let bytes = &self.buffer[self.filled..self.filled + len];
        let at = self.intake.received();
        let failed = self.outputs.write(bytes, at);
        if !failed.is_empty() {
            self.on_failed(failed);
            if self.is_over {
                return Ok(());
            }
            self.choose_store()?;
        } else if self.outputs.store().is_none()
            && let Some(spool) = self.children.store()
        {
            std::os::unix::fs::FileExt::write_all_at(&*spool, bytes, at)?;
        }
        self.filled += len;
        self.intake.on_payload(now, len as u64);
        if self.filled == BUFFER_LEN {
            self.feed();
        }
        self.children.handle(now, Event::Stored(self.intake.received()));
        // The successor gets it now and not after the next turn.
        self.children.drive(now)
    }

    fn feed(&mut self) {
        let next = self.hash.buffer();
        let full = std::mem::replace(&mut self.buffer, next);
        self.hash.feed(full, self.filled);
        self.filled = 0;
    }

    fn on_end(&mut self, now: Time) {
        match self.intake.on_end(now) {
            End::Complete(footer) => {
                self.feed();
                self.hash.finish();
                // Now, as another predecessor's header has another nonce.
                let is_signed = self.header.boottorrent.as_ref().is_none_or(|extension| {
                    self.identity.password.verify_footer(&footer, &extension.nonce)
                });
                self.footer = Some((footer, is_signed));
                // The predecessor is still there to be told.
                return;
            }
            End::Orphan => tracing::info!(
                transfer = self.id(),
                received = self.intake.received(),
                "the predecessor is gone, waiting for another"
            ),
            End::Lost(why) => self.fail(Code::BROKEN, &why),
            End::Known => return,
        }
        if !self.is_over {
            self.upstream = None;
        }
    }

    fn on_note(&mut self, note: Note, now: Time) {
        match note {
            Note::Brought(brought) => self.children.on_brought(brought, now),
            Note::Hashed(computed) => self.on_hashed(computed),
            Note::Attach(attach) => self.attach(*attach, now),
            Note::Append(destinations) => {
                if self.children.has_store() {
                    self.children.handle(now, Event::Append(destinations));
                }
            }
            Note::Abort(ids) => {
                let failed = self.outputs.cancel(&ids);
                self.on_failed(failed);
            }
            Note::Stop => self.fail(Code::BROKEN, "the endpoint was stopped"),
        }
    }

    fn on_hashed(&mut self, computed: Footer) {
        let Some((footer, is_signed)) = self.footer.take() else { return };
        // Those behind compare with what the sender said, as this one does.
        self.children.set_footer(Footer {
            md5sum: footer.md5sum.clone().or_else(|| computed.md5sum.clone()),
            sha256: footer.sha256.clone().or_else(|| computed.sha256.clone()),
            signature: None,
        });
        self.is_own_done = true;
        if !is_signed || !footer.agrees(&computed) {
            let why = if is_signed { "" } else { "the footer is not the sender's" };
            let requests = self.outputs.discard();
            for request in requests {
                self.report_failed(&request, Code::CHECKSUM, why, Some(&computed));
            }
            return;
        }
        let (done, failed) = self.outputs.commit();
        for request in done {
            let message = format!("Success {}", request.filename);
            let (host, port) = (self.header.host.clone(), self.header.port);
            let mut report = Report::new(&host, port, &request, Code::SUCCESS, message);
            (report.md5sum, report.sha256) = (computed.md5sum.clone(), computed.sha256.clone());
            (self.observer)(&report);
            self.report(report);
        }
        for Failed { request, code, why } in failed {
            self.report_failed(&request, code, &why, Some(&computed));
        }
    }

    /// Reports files that cannot be written. Without any file left this endpoint is none any more;
    /// its predecessor goes on with the one behind it.
    fn on_failed(&mut self, failed: Vec<Failed>) {
        let was_cancelled = failed.iter().any(|failed| failed.why == "cancelled");
        let any = !failed.is_empty();
        for Failed { request, code, why } in failed {
            self.report_failed(&request, code, &why, None);
        }
        if any && self.outputs.is_empty() && !self.is_own_done {
            // Nobody is to blame for a file that is not wanted: the chain stays as it is.
            self.is_over = !was_cancelled || self.children.is_done();
        }
    }

    /// It is over, for all files.
    fn fail(&mut self, code: Code, why: &str) {
        for request in self.outputs.discard() {
            self.report_failed(&request, code, why, None);
        }
        self.is_over = true;
    }

    fn report_failed(
        &mut self,
        request: &crate::header::Request,
        code: Code,
        why: &str,
        computed: Option<&Footer>,
    ) {
        let sentence = code.sentence();
        let message =
            if why.is_empty() { sentence.to_owned() } else { format!("{sentence}: {why}") };
        let (host, port) = (self.header.host.clone(), self.header.port);
        let mut report = Report::new(&host, port, request, code, message);
        if let Some(computed) = computed {
            (report.md5sum, report.sha256) = (computed.md5sum.clone(), computed.sha256.clone());
        }
        (self.observer)(&report);
        self.report(report);
    }

    fn report(&mut self, report: Report) {
        let (file, message) = (report.file.as_deref(), report.message.as_deref());
        tracing::info!(
            transfer = self.id(),
            endpoint = format!("{}:{}", report.host, report.port),
            file,
            code = report.code,
            message,
            "reported"
        );
        self.say(&Line::Report(report.clone()));
        self.said.push(report);
    }

    fn take_reports(&mut self) {
        let reports: Vec<Report> = self.children.take_reports().collect();
        reports.into_iter().for_each(|report| self.report(report));
        for Destination { host, port, pace, .. } in self.children.take_put_back() {
            self.say(&Line::Back { host, port, pace: pace.unwrap_or(0) });
        }
    }

    fn id(&self) -> &str {
        self.header.boottorrent.as_ref().map_or("of an old peer", |e| e.transfer.as_str())
    }

    /// Tells one of ours how much is here, and again all that was reported: who was told may be dead.
    fn greet(&mut self) {
        let offset = self.intake.received();
        self.say(&Line::Hello { offset });
        let again: Vec<Line> = self.said.iter().cloned().map(Line::Report).collect();
        again.iter().for_each(|line| self.say(line));
    }

    fn say(&mut self, line: &Line) {
        let Some(upstream) = &mut self.upstream else { return };
        if upstream.is_own || matches!(line, Line::Report(_)) {
            upstream.out.extend_from_slice(line.encode().as_bytes());
        }
        if upstream.out.len() > OUT_LEN_MAX {
            self.upstream = None;
        }
    }

    fn flush(&mut self) {
        let Some(upstream) = &mut self.upstream else { return };
        while !upstream.out.is_empty() {
            match upstream.stream.write(&upstream.out) {
                Ok(len) => {
                    upstream.out.drain(..len);
                }
                // A broken one is heard of by reading.
                Err(_) => return,
            }
        }
    }

    fn attach(&mut self, attach: Attach, now: Time) {
        let Attach { mut stream, header, pending } = attach;
        let Some(extension) = &header.boottorrent else { return };
        let is_moved = extension.is_moved;
        let moved = Line::Moved.encode();
        if !self.intake.admits(extension.depth, is_moved, self.upstream.is_some()) {
            let _ = stream.write_all(moved.as_bytes());
            return;
        }
        let depth = extension.depth;
        self.intake.attach(now, depth, is_moved);
        self.children.set_depth(depth + 1);
        if let Some(mut old) = self.upstream.take() {
            let _ = old.stream.write_all(moved.as_bytes());
        }
        tracing::info!(transfer = self.id(), depth, offset = self.intake.received(), "goes on");
        if stream.set_nonblocking(true).is_err() {
            return;
        }
        let behind = header.destinations.clone();
        self.header.boottorrent = header.boottorrent;
        let (out, is_own, has_ended) = (Vec::new(), true, false);
        self.upstream = Some(Upstream { stream, pending, out, is_own, has_ended });
        self.greet();
        if self.children.has_store() {
            self.children.handle(now, Event::Append(behind));
        }
    }

    /// The last words, and then the end of the connection.
    fn say_goodbye(mut self) {
        let Some(upstream) = self.upstream.take() else { return };
        let Upstream { mut stream, out, .. } = upstream;
        let _ = stream.set_nonblocking(false);
        let _ = stream.set_write_timeout(Some(FLUSH_TIMEOUT));
        if stream.write_all(&out).is_ok() {
            linger(&mut stream);
        }
    }
}

/// Ends a connection so that what was said is heard.
pub(super) fn linger(stream: &mut TcpStream) {
    let _ = stream.shutdown(Shutdown::Write);
    let deadline = Instant::now() + LINGER_TIMEOUT;
    let mut buffer = [0; 16 * 1024];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || stream.set_read_timeout(Some(left)).is_err() {
            return;
        }
        match stream.read(&mut buffer) {
            Ok(1..) => {}
            Ok(0) | Err(_) => return,
        }
    }
}

struct Ready {
    children: Vec<(Whose, PollFlags)>,
    upstream: bool,
}

impl Upstream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.pending.is_empty() {
            return self.stream.read(into);
        }
        let len = into.len().min(self.pending.len());
        into[..len].copy_from_slice(&self.pending[..len]);
        self.pending.drain(..len);
        Ok(len)
    }
}
