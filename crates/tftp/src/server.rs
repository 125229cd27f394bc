//! All transfers of a server.
//!
//! **Ports.** A request comes to the well-known port; what follows goes between a port of the node's
//! choice and one of ours (RFC 1350 §4). Ours need not be a port per transfer, which would be a
//! socket and a file descriptor per node: the node's own port tells its transfers apart. There are a
//! few, taken in turn, so that late packets of a node's last transfer do not reach its next one even
//! if its firmware uses one port for all.
//!
//! **Who asks twice.** The same request from the same address and port is the same transfer as long
//! as nothing was heard of it. Later it is another one: the node was switched off and on. The one
//! before is left to end by itself, since a copy of an old packet must not end a transfer; if a copy
//! it was, the node refuses the second transfer.
//!
//! **A request proves nothing.** Its address may be anybody's, so a transfer of which nothing was
//! acknowledged is *half-open*: it has a place in a purse of its own ([`HALF_OPEN_MAX`]), from which the
//! oldest goes, and takes none from a transfer whose node has answered. With the first
//! acknowledgement, which only who sits at the address can send, it gets a place among those.
//! Whom a full table keeps is decided by [`places`].
//!
//! **Windows are granted out of one purse** ([`WINDOWS_LEN_MAX`]). TFTP has no congestion control: if
//! every node of a fleet had a large window, all of them together would be far more than queues on
//! the way hold, most windows would lose a block, and be sent again, for ever. Many nodes need no
//! large windows to fill a link together.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use places::{Admission, Bounds, Seat, Standing};

use crate::event::{Counts, Event, Outcome, Refusal};
use crate::name::FileName;
use crate::options::{BLKSIZE_DEFAULT, Options};
use crate::packet::{ErrorCode, Mode, Packet, Request};
use crate::time::Time;
use crate::transfer::{Step, Transfer};
use crate::window::Window;

/// Transfers at once that their nodes have acknowledged: a fleet of 4,000 nodes that is switched on in
/// one second, half of which are asked for a second file before the first one's end is known. 1 kB each.
pub const TRANSFERS_MAX: usize = 8_192;

/// Transfers of one address at once: one machine holds a 64th at most. A node has one or two, and
/// some more for half a minute when it is restarted.
pub const NODE_TRANSFERS_MAX: usize = 128;

/// Transfers at once of which nothing is acknowledged: an eighth of [`TRANSFERS_MAX`]. A node answers
/// within milliseconds, so this is 100,000 requests a second of nodes that answer within 10 ms.
pub const HALF_OPEN_MAX: usize = TRANSFERS_MAX / 8;

/// How long a transfer must have brought nothing new before another one gets its place: twice the
/// longest time after which the server itself sends again, so that who is repaired is not cut off.
pub const IDLE_MAX: Duration = Duration::from_secs(10);

/// Bytes that all windows together may have under way: 33 ms of a gigabit, which is below what
/// Linux queues for a network card, and above what a single far node can use. Each transfer gets an
/// eighth of what is left at most, and in any case [`WINDOWSIZE_FEW`] blocks.
pub const WINDOWS_LEN_MAX: u64 = 4 << 20;

/// Blocks of a window that are granted always: what EDK2 asks for.
pub const WINDOWSIZE_FEW: u16 = 4;

/// What a node is told for which there is no room: with its frame 9 bytes, fewer than any request has.
const BUSY: &str = "full";

/// Limits and what the driver has.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// How many ports the driver has for transfers, at least 1.
    pub port_count: u8,
    /// The most bytes of a block: what fits a packet of the network, as firmware may be unable to
    /// put fragments together. 1,468 for Ethernet.
    pub blksize_max: u16,
    /// [`TRANSFERS_MAX`].
    pub transfers_max: usize,
    /// [`NODE_TRANSFERS_MAX`].
    pub node_transfers_max: usize,
    /// [`HALF_OPEN_MAX`].
    pub half_open_max: usize,
    /// [`WINDOWS_LEN_MAX`], or this server's share of it if others use the same link.
    pub windows_len_max: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            port_count: 4,
            blksize_max: 1_468,
            transfers_max: TRANSFERS_MAX,
            node_transfers_max: NODE_TRANSFERS_MAX,
            half_open_max: HALF_OPEN_MAX,
            windows_len_max: WINDOWS_LEN_MAX,
        }
    }
}

/// One of the driver's ports for transfers, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port(pub u8);

/// Names a transfer while it lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TransferId {
    /// The node's address and port.
    pub peer: SocketAddr,
    /// Ours.
    pub port: Port,
}

/// Why a file is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// There is none of this name.
    NotFound,
    /// There is, and it cannot be opened.
    Unreadable,
}

/// Something that happened.
#[derive(Debug)]
pub enum Input<'a, F> {
    /// A datagram came to the well-known port.
    Request {
        /// Its sender.
        from: SocketAddr,
        /// How much its address is worth a place.
        standing: Standing,
        /// All of it.
        datagram: &'a [u8],
    },
    /// A datagram came to a port for transfers.
    Datagram {
        /// Which of them, and its sender.
        to: TransferId,
        /// All of it.
        datagram: &'a [u8],
    },
    /// The answer to [`Output::Open`].
    Opened {
        /// For whom.
        transfer: TransferId,
        /// The file and its length in bytes.
        file: Result<(F, u64), OpenError>,
    },
    /// The answer to an [`Output::Blocks`] whose bytes cannot be read.
    ReadFailed {
        /// Whose.
        transfer: TransferId,
    },
    /// A time that [`Server::next_timeout`] named has come.
    Tick,
}

/// Something to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Output {
    /// Look for a file and answer with [`Input::Opened`].
    Open {
        /// For whom.
        transfer: TransferId,
        /// Which.
        name: FileName,
    },
    /// Send blocks of a file, which [`Server::file`] has.
    Blocks {
        /// From which port and to whom.
        transfer: TransferId,
        /// Which.
        window: Window,
    },
    /// Send a packet.
    Packet {
        /// From which port and to whom.
        transfer: TransferId,
        /// The datagram.
        datagram: Vec<u8>,
    },
    /// Nothing, but good to know.
    Event(Event),
}

#[derive(Debug)]
struct Entry<F> {
    name: FileName,
    asked: Options,
    standing: Standing,
    /// Nothing is acknowledged.
    is_half_open: bool,
    state: State<F>,
    started_at: Time,
    /// Where the entry stands among the timers: not after the transfer's own.
    timer: Time,
}

#[derive(Debug)]
enum State<F> {
    Opening,
    Open { file: F, transfer: Transfer },
}

/// A server. `F` is a file, as the driver knows it. The driver drains [`Self::poll`] after every
/// [`Self::handle`].
#[derive(Debug)]
pub struct Server<F> {
    config: Config,
    entries: BTreeMap<TransferId, Entry<F>>,
    /// Those of which nothing is acknowledged.
    half_open: BTreeSet<TransferId>,
    /// One for each open transfer. A transfer's time moves on with each packet, its place here only
    /// when that comes up: most never do.
    timers: BTreeSet<(Time, TransferId)>,
    next_port: u8,
    /// Sum of the windows of all transfers that have one, in bytes.
    windows_len: u64,
    counts: Counts,
    /// One input makes a handful, a tick some for each transfer at most.
    outputs: VecDeque<Output>,
}

impl<F> Server<F> {
    /// No transfers yet.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            config: Config { port_count: config.port_count.max(1), ..config },
            entries: BTreeMap::new(),
            half_open: BTreeSet::new(),
            timers: BTreeSet::new(),
            next_port: 0,
            windows_len: 0,
            counts: Counts::default(),
            outputs: VecDeque::new(),
        }
    }

    /// Takes note of something that happened.
    pub fn handle(&mut self, now: Time, input: Input<'_, F>) {
        match input {
            Input::Request { from, standing, datagram } => {
                self.requested(now, from, standing, datagram);
            }
            Input::Datagram { to, datagram } => self.heard(now, to, datagram),
            Input::Opened { transfer, file } => self.opened(now, transfer, file),
            Input::ReadFailed { transfer } => {
                self.answer(transfer, ErrorCode::Undefined, "file cannot be read");
                self.end(now, transfer, Outcome::Unreadable);
            }
            Input::Tick => self.tick(now),
        }
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to give [`Input::Tick`]; [`Time::NEVER`] if nothing is under way.
    #[must_use]
    pub fn next_timeout(&self) -> Time {
        self.timers.first().map_or(Time::NEVER, |(due, _)| *due)
    }

    /// The file of a transfer, if it is open.
    #[must_use]
    pub fn file(&self, transfer: TransferId) -> Option<&F> {
        match &self.entries.get(&transfer)?.state {
            State::Open { file, .. } => Some(file),
            State::Opening => None,
        }
    }

    /// How many transfers there are.
    #[must_use]
    pub fn transfer_count(&self) -> usize {
        self.entries.len()
    }

    /// What has happened that no event tells of.
    #[must_use]
    pub const fn counts(&self) -> Counts {
        self.counts
    }

    fn requested(&mut self, now: Time, from: SocketAddr, standing: Standing, datagram: &[u8]) {
        let request = match Packet::decode(datagram) {
            Ok(Packet::Read(request)) => request,
            Ok(Packet::Write) => return self.refuse(from, &[], Refusal::Write),
            // Whoever sends these to the well-known port would not understand an answer.
            Ok(_) => {
                self.counts.stray += 1;
                return;
            }
            Err(_) => {
                self.counts.malformed += 1;
                return;
            }
        };
        let name = match FileName::parse(request.name) {
            Ok(_) if request.mode != Mode::Octet => {
                return self.refuse(from, request.name, Refusal::Mode);
            }
            Ok(name) => name,
            Err(error) => return self.refuse(from, request.name, Refusal::Name(error)),
        };
        if !self.is_repetition(now, from, &name, &request) {
            self.admit(now, from, standing, name, request.options);
        }
    }

    /// Whether this request is one that is being answered; if so, answers it once more.
    fn is_repetition(
        &mut self,
        now: Time,
        from: SocketAddr,
        name: &FileName,
        request: &Request<'_>,
    ) -> bool {
        let all = TransferId { peer: from, port: Port(0) }..=TransferId {
            peer: from,
            port: Port(u8::MAX),
        };
        let same = self.entries.range_mut(all).find(|(_, entry)| {
            entry.name == *name
                && entry.asked == request.options
                && match &entry.state {
                    State::Opening => true,
                    State::Open { transfer, .. } => !transfer.is_answered(),
                }
        });
        let Some((&id, entry)) = same else { return false };
        if let State::Open { transfer, .. } = &mut entry.state {
            let step = transfer.asked_again(now);
            self.apply(now, id, step);
        }
        true
    }

    fn admit(
        &mut self,
        now: Time,
        from: SocketAddr,
        standing: Standing,
        name: FileName,
        asked: Options,
    ) {
        let Some(port) = self.free_port(from) else {
            // It has one on each of ours: whichever it is, the node gets the answer to it.
            self.counts.busy += 1;
            self.outputs.push_back(Output::Event(Event::Busy { peer: from }));
            return;
        };
        let bounds = Bounds::of(self.config.half_open_max, Duration::ZERO);
        let purse = self.half_open.iter().filter_map(|id| {
            self.entries.get(id).map(|entry| Seat {
                key: *id,
                address: id.peer.ip(),
                standing: entry.standing,
                idle_since: entry.started_at.since(Time::ZERO),
            })
        });
        let place = places::admit(&bounds, purse, from.ip(), standing, now.since(Time::ZERO));
        let transfer = TransferId { peer: from, port };
        if !self.make_room(now, transfer, place) {
            return;
        }
        self.half_open.insert(transfer);
        self.outputs.push_back(Output::Open { transfer, name: name.clone() });
        let entry = Entry {
            name,
            asked,
            standing,
            is_half_open: true,
            state: State::Opening,
            started_at: now,
            timer: Time::NEVER,
        };
        self.entries.insert(transfer, entry);
    }

    /// Gives a transfer whose node has answered a place among those of its kind; says whether there
    /// was one.
    fn settle(&mut self, now: Time, id: TransferId) -> bool {
        let Some(Entry { is_half_open: true, standing, .. }) = self.entries.get(&id) else {
            return true;
        };
        let standing = *standing;
        let is_full = self.entries.len() - self.half_open.len() >= self.config.transfers_max;
        let of_node = TransferId { peer: SocketAddr::new(id.peer.ip(), 0), port: Port(0) }
            ..=TransferId { peer: SocketAddr::new(id.peer.ip(), u16::MAX), port: Port(u8::MAX) };
        let is_greedy = self.entries.range(of_node).count() > self.config.node_transfers_max;
        if is_full || is_greedy {
            let bounds = Bounds {
                of_address: self.config.node_transfers_max,
                ..Bounds::of(self.config.transfers_max, IDLE_MAX)
            };
            let settled = self.entries.iter().filter_map(|(id, entry)| match &entry.state {
                State::Open { transfer, .. } if !entry.is_half_open => Some(Seat {
                    key: *id,
                    address: id.peer.ip(),
                    standing: entry.standing,
                    idle_since: transfer.progress_at().since(Time::ZERO),
                }),
                _ => None,
            });
            let since = now.since(Time::ZERO);
            let place = places::admit(&bounds, settled, id.peer.ip(), standing, since);
            if !self.make_room(now, id, place) {
                self.end(now, id, Outcome::Displaced);
                return false;
            }
        }
        self.half_open.remove(&id);
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.is_half_open = false;
        }
        true
    }

    /// Ends who has to go; says whether there is room. Whoever finds none is told once, in fewer bytes
    /// than it has sent: firmware then tries what it would try next, rather than wait.
    fn make_room(&mut self, now: Time, id: TransferId, place: Admission<TransferId>) -> bool {
        match place {
            Admission::Free => true,
            Admission::InPlaceOf(other) => {
                match self.entries.get(&other) {
                    Some(Entry { state: State::Open { .. }, .. }) => {
                        self.end(now, other, Outcome::Displaced);
                    }
                    _ => drop(self.remove(other)),
                }
                true
            }
            Admission::Refused => {
                self.counts.busy += 1;
                self.answer(id, ErrorCode::Undefined, BUSY);
                self.outputs.push_back(Output::Event(Event::Busy { peer: id.peer }));
                false
            }
        }
    }

    /// The next port in turn that this address and port of a node has no transfer on.
    fn free_port(&mut self, peer: SocketAddr) -> Option<Port> {
        for _ in 0..self.config.port_count {
            let port = self.turn();
            if !self.entries.contains_key(&TransferId { peer, port }) {
                return Some(port);
            }
        }
        None
    }

    fn turn(&mut self) -> Port {
        let port = Port(self.next_port);
        self.next_port = (self.next_port + 1) % self.config.port_count;
        port
    }

    fn refuse(&mut self, peer: SocketAddr, name: &[u8], refusal: Refusal) {
        let port = self.turn();
        let (code, message) = refusal.answer();
        self.answer(TransferId { peer, port }, code, message);
        let event = Event::Refused { peer, name: name.to_vec(), refusal };
        self.outputs.push_back(Output::Event(event));
    }

    fn answer(&mut self, transfer: TransferId, code: ErrorCode, message: &'static str) {
        let datagram = Packet::Error { code, message: message.as_bytes() }.to_bytes();
        self.outputs.push_back(Output::Packet { transfer, datagram });
    }

    fn opened(&mut self, now: Time, id: TransferId, file: Result<(F, u64), OpenError>) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let (file, len) = match file {
            Ok(file) => file,
            Err(error) => {
                let refusal = match error {
                    OpenError::NotFound => Refusal::NotFound,
                    OpenError::Unreadable => Refusal::Unreadable,
                };
                if let Some(entry) = self.remove(id) {
                    self.refuse(id.peer, entry.name.as_str().as_bytes(), refusal);
                }
                return;
            }
        };
        let mut options = entry.asked.agree(len, self.config.blksize_max);
        let left = self.config.windows_len_max.saturating_sub(self.windows_len);
        options.windowsize = options.windowsize.map(|wish| {
            let share = left / 8 / u64::from(options.blksize.unwrap_or(BLKSIZE_DEFAULT));
            wish.min(u16::try_from(share).unwrap_or(u16::MAX).max(WINDOWSIZE_FEW))
        });
        self.windows_len += window_len(&options);
        let (transfer, step) = Transfer::start(now, len, options);
        entry.timer = transfer.due();
        entry.state = State::Open { file, transfer };
        self.timers.insert((entry.timer, id));
        let name = entry.name.clone();
        let event = Event::Started { peer: id.peer, name, len, options };
        self.outputs.push_back(Output::Event(event));
        self.apply(now, id, step);
    }

    fn heard(&mut self, now: Time, id: TransferId, datagram: &[u8]) {
        let packet = Packet::decode(datagram);
        let entry = self.entries.get_mut(&id);
        let Some(Entry { state: State::Open { transfer, .. }, .. }) = entry else {
            // Answering would end the node's next transfer, if it uses one port for all.
            self.counts.stray += 1;
            return;
        };
        match packet {
            Ok(Packet::Ack { block }) => {
                let step = transfer.acknowledged(now, block);
                let needs_place = transfer.is_answered() && step != Step::Complete;
                if !needs_place || self.settle(now, id) {
                    self.apply(now, id, step);
                }
            }
            Ok(Packet::Error { code, message }) => {
                let outcome = aborted(transfer, code, message);
                self.end(now, id, outcome);
            }
            Ok(_) => self.counts.stray += 1,
            Err(_) => self.counts.malformed += 1,
        }
    }

    fn tick(&mut self, now: Time) {
        while let Some(&(due, id)) = self.timers.first()
            && due <= now
        {
            self.timers.pop_first();
            let Some(Entry { state: State::Open { transfer, .. }, timer, .. }) =
                self.entries.get_mut(&id)
            else {
                continue;
            };
            let step = transfer.timed_out(now);
            *timer = transfer.due();
            self.timers.insert((*timer, id));
            self.apply(now, id, step);
        }
    }

    fn apply(&mut self, now: Time, id: TransferId, step: Step) {
        match step {
            Step::Nothing => {}
            Step::Agree(options) => {
                let datagram = Packet::Agree(options).to_bytes();
                self.outputs.push_back(Output::Packet { transfer: id, datagram });
            }
            Step::Send(window) => {
                self.outputs.push_back(Output::Blocks { transfer: id, window });
            }
            Step::Complete => return self.end(now, id, Outcome::Complete),
            Step::GiveUp => {
                let is_all_sent = self.entries.get(&id).is_some_and(|entry| match &entry.state {
                    State::Open { transfer, .. } => {
                        transfer.is_all_sent() && transfer.is_answered()
                    }
                    State::Opening => false,
                });
                let outcome = if is_all_sent { Outcome::Unconfirmed } else { Outcome::Silent };
                return self.end(now, id, outcome);
            }
        }
        self.hasten(id);
    }

    /// Sees to it that a transfer's place among the timers is not after its time.
    fn hasten(&mut self, id: TransferId) {
        if let Some(Entry { state: State::Open { transfer, .. }, timer, .. }) =
            self.entries.get_mut(&id)
            && transfer.due() < *timer
        {
            self.timers.remove(&(*timer, id));
            *timer = transfer.due();
            self.timers.insert((*timer, id));
        }
    }

    fn end(&mut self, now: Time, id: TransferId, outcome: Outcome) {
        let Some(Entry { name, started_at, state: State::Open { transfer, .. }, .. }) =
            self.remove(id)
        else {
            return;
        };
        self.outputs.push_back(Output::Event(Event::Ended {
            peer: id.peer,
            name,
            acked_len: transfer.acked_len(),
            resent_count: transfer.resent_count(),
            took: now.since(started_at),
            outcome,
        }));
    }

    fn remove(&mut self, id: TransferId) -> Option<Entry<F>> {
        let entry = self.entries.remove(&id)?;
        self.timers.remove(&(entry.timer, id));
        if let State::Open { transfer, .. } = &entry.state {
            self.windows_len -= window_len(transfer.options());
        }
        self.half_open.remove(&id);
        Some(entry)
    }
}

/// Bytes of a window; those of lock-step do not count.
fn window_len(options: &Options) -> u64 {
    let blksize = options.blksize.unwrap_or(BLKSIZE_DEFAULT);
    options.windowsize.map_or(0, |windowsize| u64::from(windowsize) * u64::from(blksize))
}

/// What a node means by an error. Firmware that has asked for the length of a file says that it does
/// not like the options (8), or anything (0), once it knows it.
fn aborted(transfer: &Transfer, code: ErrorCode, message: &[u8]) -> Outcome {
    let knows_len = transfer.options().tsize.is_some();
    let is_probe = matches!(code, ErrorCode::Undefined | ErrorCode::OptionsDeclined);
    if knows_len && is_probe && transfer.acked_len() == 0 {
        return Outcome::Probed;
    }
    Outcome::Aborted { code, message: message.escape_ascii().to_string() }
}
