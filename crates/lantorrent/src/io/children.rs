//! Drives a [`Chain`]: the connections to the endpoints that this one sends to.
//!
//! Bytes go from the file to the socket by `sendfile`, so they are never copied to this process.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use rustix::event::PollFlags;

use super::connect::{connect, measure, round_trip, way};
use super::mailbox::Post;
use super::{Identity, nonce, unix_s};
use crate::Time;
use crate::chain::{Action, BranchIndex, Chain, Config, Event};
use crate::header::{Control, Destination, EOH, Extension, Header};
use crate::report::{Footer, LINE_LEN_MAX, Line, Report};

/// Handed to the kernel at once. A socket takes what it has room for.
const SEND_LEN_MAX: usize = 1 << 20;

/// What a connection's thread brings.
pub(super) enum Brought {
    Connected { branch: BranchIndex, serial: u64, result: io::Result<TcpStream> },
    Probed { branch: BranchIndex, serial: u64, way: Option<std::time::Duration> },
    Measured { branch: BranchIndex, serial: u64, rate: Option<u64> },
}

/// What all messages of a transfer have in common.
#[derive(Clone)]
pub(super) struct Transfer {
    pub(super) id: String,
    /// Of the headers that are sent.
    pub(super) depth: u32,
    pub(super) length: u64,
}

/// The endpoints that are sent to.
pub(super) struct Children<N> {
    chain: Chain,
    identity: Arc<Identity>,
    transfer: Transfer,
    store: Option<Arc<File>>,
    links: Vec<Option<Link>>,
    /// Endpoints that wait for another predecessor.
    parked: Vec<TcpStream>,
    post: Post<N>,
    wrap: fn(Brought) -> N,
    serial: u64,
    footer: Option<Footer>,
    reports: VecDeque<Report>,
    /// Endpoints that are at the end now.
    put_back: Vec<Destination>,
    /// Of the payload.
    pub(super) sent_len: u64,
}

/// A connection, or one that is being made.
struct Link {
    serial: u64,
    stream: Option<TcpStream>,
    /// Header, then the footer: all that is not payload.
    out: Vec<u8>,
    input: Vec<u8>,
    nonce: String,
    footer_queued: bool,
}

/// What a socket of [`Children`] waits for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Whose {
    Branch(BranchIndex),
    Parked(usize),
}

impl<N: Send + 'static> Children<N> {
    pub(super) fn new(
        config: Config,
        destinations: Vec<Destination>,
        (identity, transfer): (Arc<Identity>, Transfer),
        (post, wrap): (Post<N>, fn(Brought) -> N),
        now: Time,
    ) -> Self {
        Self {
            chain: Chain::new(config, destinations, now),
            identity,
            transfer,
            store: None,
            links: Vec::new(),
            parked: Vec::new(),
            post,
            wrap,
            serial: 0,
            footer: None,
            reports: VecDeque::new(),
            put_back: Vec::new(),
            sent_len: 0,
        }
    }

    pub(super) fn set_store(&mut self, store: Option<Arc<File>>) {
        self.store = store;
    }

    pub(super) fn store(&self) -> Option<Arc<File>> {
        self.store.clone()
    }

    pub(super) const fn has_store(&self) -> bool {
        self.store.is_some()
    }

    pub(super) fn set_depth(&mut self, depth: u32) {
        self.transfer.depth = depth;
    }

    /// All has come and been hashed: the children may hear what it must be.
    pub(super) fn set_footer(&mut self, footer: Footer) {
        self.footer = Some(footer);
    }

    pub(super) fn handle(&mut self, now: Time, event: Event) {
        self.chain.handle(now, event);
    }

    pub(super) fn is_done(&self) -> bool {
        self.chain.is_done() && self.reports.is_empty()
    }

    pub(super) fn next_timeout(&self) -> Option<Time> {
        self.chain.next_timeout()
    }

    pub(super) fn received(&self) -> u64 {
        self.chain.received()
    }

    /// What came from below, or is to be said of those that cannot speak.
    pub(super) fn take_reports(&mut self) -> impl Iterator<Item = Report> {
        self.reports.drain(..)
    }

    /// Endpoints that were put to the end since the last call; whoever is before this one is to know.
    pub(super) fn take_put_back(&mut self) -> Vec<Destination> {
        std::mem::take(&mut self.put_back)
    }

    /// Sockets to wait for.
    pub(super) fn interests(&self) -> Vec<(BorrowedFd<'_>, PollFlags, Whose)> {
        let mut interests = Vec::new();
        for (branch, link) in self.links.iter().enumerate() {
            let Some(Link { stream: Some(stream), out, .. }) = link else { continue };
            let mut flags = PollFlags::IN;
            if !out.is_empty() || self.chain.sendable(branch).is_some() {
                flags |= PollFlags::OUT;
            }
            interests.push((stream.as_fd(), flags, Whose::Branch(branch)));
        }
        for (index, stream) in self.parked.iter().enumerate() {
            interests.push((stream.as_fd(), PollFlags::IN, Whose::Parked(index)));
        }
        interests
    }

    /// Reads what has come and sends what there is room for.
    pub(super) fn on_ready(&mut self, ready: &[(Whose, PollFlags)], now: Time) -> io::Result<()> {
        for (whose, flags) in ready {
            let readable = flags.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR);
            match *whose {
                Whose::Branch(branch) if readable => self.read(branch, now)?,
                Whose::Branch(_) | Whose::Parked(_) => {}
            }
        }
        let mut gone: Vec<usize> = ready
            .iter()
            .filter_map(|(whose, flags)| match whose {
                Whose::Parked(index) if !flags.is_empty() => Some(*index),
                _ => None,
            })
            .filter(|index| !is_open(&self.parked[*index]))
            .collect();
        gone.sort_unstable();
        for index in gone.into_iter().rev() {
            self.parked.remove(index);
        }
        Ok(())
    }

    /// Lets time pass, does what the chain says, and fills the sockets.
    pub(super) fn drive(&mut self, now: Time) -> io::Result<()> {
        self.chain.tick(now);
        self.act(now)?;
        for branch in 0..self.chain.branch_count() {
            self.send(branch, now)?;
        }
        self.act(now)
    }

    pub(super) fn on_brought(&mut self, brought: Brought, now: Time) {
        match brought {
            Brought::Connected { branch, serial, result } => {
                let Some(Some(link)) = self.links.get_mut(branch) else { return };
                if link.serial != serial {
                    return;
                }
                let connected = result.and_then(|stream| {
                    stream.set_nonblocking(true)?;
                    Ok(stream)
                });
                match connected {
                    Ok(stream) => {
                        link.stream = Some(stream);
                        self.chain.handle(now, Event::Connected(branch));
                    }
                    Err(error) => {
                        self.chain.handle(now, Event::NotConnected(branch, error.to_string()));
                    }
                }
            }
            Brought::Probed { branch, serial, way } => {
                let Some(Some(link)) = self.links.get(branch) else { return };
                if let Some(stream) = link.stream.as_ref().filter(|_| link.serial == serial) {
                    let childs = round_trip(stream);
                    self.chain.handle(now, Event::Probed(branch, way, childs));
                }
            }
            Brought::Measured { branch, serial, rate } => {
                if self.serial_of(branch) == Some(serial) {
                    self.chain.handle(now, Event::Measured(branch, rate));
                }
            }
        }
    }

    fn act(&mut self, now: Time) -> io::Result<()> {
        while let Some(action) = self.chain.poll() {
            match action {
                Action::Connect { branch, destination, behind } => {
                    self.connect(branch, destination, behind)?;
                }
                Action::Drop { branch } => self.set_link(branch, None),
                Action::Park { branch } => {
                    let link = self.links.get_mut(branch).and_then(Option::take);
                    self.parked.extend(link.and_then(|link| link.stream));
                }
                Action::Append { to, destinations } => {
                    self.control(to, destinations, Control::Append)?;
                }
                Action::Probe { branch, destination } => self.probe(branch, destination)?,
                Action::Measure { branch, destination } => self.measure(branch, destination)?,
                Action::Back(destination) => self.put_back.push(destination),
                Action::Report(report) => self.reports.push_back(report),
            }
        }
        // A report may be what the chain waited for.
        self.chain.tick(now);
        Ok(())
    }

    fn set_link(&mut self, branch: BranchIndex, link: Option<Link>) {
        if self.links.len() <= branch {
            self.links.resize_with(branch + 1, || None);
        }
        self.links[branch] = link;
    }

    fn extension(&self, to: &Destination, control: Option<Control>) -> io::Result<Extension> {
        Ok(Extension {
            transfer: self.transfer.id.clone(),
            time: unix_s(),
            nonce: nonce().map_err(io::Error::other)?,
            depth: self.transfer.depth,
            is_moved: to.pace.is_some(),
            control,
        })
    }

    fn connect(
        &mut self,
        branch: BranchIndex,
        destination: Destination,
        behind: Vec<Destination>,
    ) -> io::Result<()> {
        let extension = self.extension(&destination, None)?;
        let nonce = extension.nonce.clone();
        let header = Header::for_next(&destination, behind, self.transfer.length, Some(extension));
        self.serial += 1;
        let serial = self.serial;
        let link = Link {
            serial,
            stream: None,
            out: signed(&self.identity, &header),
            input: Vec::new(),
            nonce,
            footer_queued: false,
        };
        self.set_link(branch, Some(link));
        let (post, wrap) = (self.post.clone(), self.wrap);
        std::thread::Builder::new().name("lan-connect".to_owned()).spawn(move || {
            let result = connect(&destination.host, destination.port);
            let _ = post.send(wrap(Brought::Connected { branch, serial, result }));
        })?;
        Ok(())
    }

    fn probe(&self, branch: BranchIndex, destination: Destination) -> io::Result<()> {
        let serial = self.links.get(branch).and_then(Option::as_ref).map_or(0, |l| l.serial);
        let (post, wrap) = (self.post.clone(), self.wrap);
        std::thread::Builder::new().name("lan-probe".to_owned()).spawn(move || {
            let way = way(&destination.host, destination.port);
            let _ = post.send(wrap(Brought::Probed { branch, serial, way }));
        })?;
        Ok(())
    }

    fn measure(&self, branch: BranchIndex, destination: Destination) -> io::Result<()> {
        let Some(serial) = self.serial_of(branch) else { return Ok(()) };
        let extension = self.extension(&destination, Some(Control::Measure))?;
        let header = Header::for_next(&destination, vec![], self.transfer.length, Some(extension));
        let text = signed(&self.identity, &header);
        let (post, wrap) = (self.post.clone(), self.wrap);
        std::thread::Builder::new().name("lan-measure".to_owned()).spawn(move || {
            let rate = measure(&destination.host, destination.port, &text);
            if let Err(error) = &rate {
                tracing::debug!(endpoint = destination.name(), %error, "could not be measured");
            }
            let _ = post.send(wrap(Brought::Measured { branch, serial, rate: rate.ok() }));
        })?;
        Ok(())
    }

    /// Sends a message beside the stream; if it is lost, the stream's reports will show.
    pub(super) fn control(
        &self,
        to: Destination,
        destinations: Vec<Destination>,
        control: Control,
    ) -> io::Result<()> {
        let extension = self.extension(&to, Some(control))?;
        let header = Header::for_next(&to, destinations, self.transfer.length, Some(extension));
        let text = signed(&self.identity, &header);
        std::thread::Builder::new().name("lan-control".to_owned()).spawn(move || {
            let told = connect(&to.host, to.port).and_then(|mut stream| {
                stream.write_all(&text)?;
                stream.shutdown(Shutdown::Write)
            });
            if let Err(error) = told {
                tracing::debug!(endpoint = to.name(), %error, "could not be told");
            }
        })?;
        Ok(())
    }

    /// Reads until there is nothing more, or until what was said ends the connection.
    fn read(&mut self, branch: BranchIndex, now: Time) -> io::Result<()> {
        let mut buffer = [0; 16 * 1024];
        let serial = self.serial_of(branch);
        while self.serial_of(branch) == serial {
            let Some(Some(link)) = self.links.get_mut(branch) else { break };
            let Some(stream) = &mut link.stream else { break };
            let why = match stream.read(&mut buffer) {
                Ok(0) => "it closed the connection".to_owned(),
                Ok(len) => {
                    link.input.extend_from_slice(&buffer[..len]);
                    self.lines(branch, now, false)?;
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => error.to_string(),
            };
            self.lines(branch, now, true)?;
            if self.serial_of(branch) == serial {
                self.tell(now, Event::Closed(branch, why))?;
            }
        }
        Ok(())
    }

    /// What the chain does about an event must be done before the next event of the same branch:
    /// that may be another endpoint's by then.
    fn tell(&mut self, now: Time, event: Event) -> io::Result<()> {
        self.chain.handle(now, event);
        self.act(now)
    }

    fn serial_of(&self, branch: BranchIndex) -> Option<u64> {
        self.links.get(branch)?.as_ref().map(|link| link.serial)
    }

    /// Takes the whole lines of what was read; at the end also one without its end.
    fn lines(&mut self, branch: BranchIndex, now: Time, at_end: bool) -> io::Result<()> {
        let serial = self.serial_of(branch);
        while self.serial_of(branch) == serial {
            let Some(Some(link)) = self.links.get_mut(branch) else { break };
            let len = match link.input.iter().position(|byte| *byte == b'\n') {
                Some(at) => at + 1,
                None if at_end && !link.input.is_empty() => link.input.len(),
                None if link.input.len() > LINE_LEN_MAX => {
                    return self.tell(now, Event::NotJson(branch));
                }
                None => break,
            };
            let line: Vec<u8> = link.input.drain(..len).collect();
            if line.trim_ascii().is_empty() {
                continue;
            }
            let event = match Line::decode(&line) {
                Ok(line) => Event::Line(branch, line),
                Err(_) => Event::NotJson(branch),
            };
            self.tell(now, event)?;
        }
        Ok(())
    }

    fn send(&mut self, branch: BranchIndex, now: Time) -> io::Result<()> {
        loop {
            if self.chain.wants_footer(branch) {
                self.queue_footer(branch);
            }
            let Some(Some(link)) = self.links.get_mut(branch) else { return Ok(()) };
            let Some(stream) = &mut link.stream else { return Ok(()) };
            if !link.out.is_empty() {
                match stream.write(&link.out) {
                    Ok(len) => {
                        link.out.drain(..len);
                    }
                    // A broken connection is heard of by reading: its last words may be there.
                    Err(_) => return Ok(()),
                }
                if link.out.is_empty() && link.footer_queued {
                    let _ = stream.shutdown(Shutdown::Write);
                    self.chain.handle(now, Event::FooterSent(branch));
                    return Ok(());
                }
                continue;
            }
            let Some((offset, len)) = self.chain.sendable(branch) else { return Ok(()) };
            let Some(store) = &self.store else { return Ok(()) };
            let mut at = offset;
            let len = usize::try_from(len).unwrap_or(SEND_LEN_MAX).min(SEND_LEN_MAX);
            match rustix::fs::sendfile(&*stream, store, Some(&mut at), len) {
                Ok(0) => return Err(io::Error::other(SHORTER)),
                Ok(len) => {
                    self.sent_len += len as u64;
                    self.chain.handle(now, Event::Sent(branch, len as u64));
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return Ok(()),
            }
        }
    }

    fn queue_footer(&mut self, branch: BranchIndex) {
        let (Some(footer), Some(Some(link))) = (&self.footer, self.links.get_mut(branch)) else {
            return;
        };
        if !link.footer_queued {
            link.footer_queued = true;
            let mut footer = footer.clone();
            footer.signature = Some(self.identity.password.sign_footer(&footer, &link.nonce));
            link.out.extend_from_slice(footer.encode().as_bytes());
        }
    }
}

/// Why a file that is sent cannot be sent any more.
pub(super) const SHORTER: &str = "the file became shorter while it was sent";

/// The header with its signature, as it is sent.
fn signed(identity: &Identity, header: &Header) -> Vec<u8> {
    let text = header.encode();
    let signature = identity.password.sign(identity.compat.scheme(), &text);
    format!("{text}\r\n{EOH}{signature}\r\n").into_bytes()
}

/// Reads and forgets; `false` at the end.
fn is_open(mut stream: &TcpStream) -> bool {
    let mut buffer = [0; 4 * 1024];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return false,
            Ok(len) if buffer[..len].windows(7).any(|part| part == b"\"moved\"") => return false,
            Ok(_) => {}
            Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
        }
    }
}
