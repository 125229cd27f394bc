//! The network: ports with a rate each way, connections that keep order, a queue of events.
//!
//! A port sends one thing at a time. What waits on one connection keeps its order, so a `have` waits
//! behind the blocks that are already committed to its socket; between connections small messages
//! go before blocks, as they do in a kernel that shares a link fairly, and blocks take turns. A
//! message packet pays for its headers. Each block makes its receiver send acknowledgements.

use std::collections::VecDeque;
use std::time::Duration;

use torrent::swarm::PeerKey;
use torrent::wire::Message;
use torrent::{Block, PieceIndex, Time, UnitIndex};

use crate::events::Queue;

/// Ethernet, IP and TCP headers of one packet with timestamps.
const PACKET_OVERHEAD: u64 = 66;

/// What a receiver sends for each block: two acknowledgements of large receive-offloaded packets.
const ACK_LEN: u64 = 2 * PACKET_OVERHEAD;

/// Length prefix, number, piece and offset of a `piece` message.
const PIECE_HEAD_LEN: u64 = 13;

/// Something on a connection.
#[derive(Clone, Debug)]
pub(crate) enum Item {
    Messages(Vec<Note>),
    ExtendedHandshake { reveals: bool },
    HashRequest { piece: PieceIndex },
    Hashes { piece: PieceIndex, len: u32 },
    JudgementRequest { unit: UnitIndex },
    Judgement { unit: UnitIndex, len: u32 },
    Block { block: Block, corrupt: bool },
}

impl Item {
    fn wire_len(&self) -> u64 {
        match self {
            Self::Messages(notes) => notes.iter().map(Note::len).sum::<u64>() + PACKET_OVERHEAD,
            Self::ExtendedHandshake { .. } => 150 + PACKET_OVERHEAD,
            Self::HashRequest { .. } | Self::JudgementRequest { .. } => 53 + PACKET_OVERHEAD,
            Self::Hashes { len, .. } | Self::Judgement { len, .. } => {
                u64::from(*len) + 53 + PACKET_OVERHEAD
            }
            Self::Block { block, .. } => u64::from(block.len) + PIECE_HEAD_LEN,
        }
    }

    const fn is_block(&self) -> bool {
        matches!(self, Self::Block { .. })
    }
}

/// A message in little memory: a large fleet has hundreds of thousands under way.
#[derive(Clone, Debug)]
pub(crate) enum Note {
    Have(u32),
    HaveUnit(u32),
    Request(Block),
    Cancel(Block),
    Other(Box<Message>),
}

impl Note {
    /// Bytes on the wire.
    fn len(&self) -> u64 {
        match self {
            Self::Have(_) => 9,
            Self::HaveUnit(_) => 10,
            Self::Request(_) | Self::Cancel(_) => 17,
            Self::Other(message) => match &**message {
                Message::KeepAlive => 4,
                Message::Bitfield(bytes) => 5 + bytes.len() as u64,
                Message::Reject(_) => 17,
                _ => 5,
            },
        }
    }
}

impl From<Message> for Note {
    fn from(message: Message) -> Self {
        match message {
            Message::Have(piece) => Self::Have(piece),
            Message::HaveUnit(unit) => Self::HaveUnit(unit),
            Message::Request(block) => Self::Request(block),
            Message::Cancel(block) => Self::Cancel(block),
            other => Self::Other(Box::new(other)),
        }
    }
}

impl From<Note> for Message {
    fn from(note: Note) -> Self {
        match note {
            Note::Have(piece) => Self::Have(piece),
            Note::HaveUnit(unit) => Self::HaveUnit(unit),
            Note::Request(block) => Self::Request(block),
            Note::Cancel(block) => Self::Cancel(block),
            Note::Other(message) => *message,
        }
    }
}

/// One end of a connection: the ends of a connection have numbers that differ in the lowest bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct End(u32);

impl End {
    /// The other end.
    pub(crate) const fn other(self) -> Self {
        Self(self.0 ^ 1)
    }

    const fn index(self) -> usize {
        self.0 as usize
    }
}

/// What is known at one end of a connection.
#[derive(Debug)]
pub(crate) struct Socket {
    pub(crate) node: u32,
    /// The node at the other end.
    other: u32,
    /// The node's swarm has not been told, and has not said, that the connection is over.
    pub(crate) known: bool,
    /// The number of the connection in that node's swarm.
    pub(crate) key: PeerKey,
    pub(crate) open: bool,
    listed: bool,
    /// A flush of the lazy messages is due.
    pub(crate) flush_due: bool,
    pub(crate) lazy: Vec<Note>,
    /// What it has yet to send.
    queue: VecDeque<Item>,
}

/// A node's link.
#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) rate: u64,
    /// When what has been begun will have left, and whether `PortFree` tells of it.
    free_at: Time,
    busy: bool,
    down_free: Time,
    /// Ends with a message at the head of their queue, and ends with a block there.
    messages: VecDeque<End>,
    blocks: VecDeque<End>,
    /// Acknowledgements that wait to be sent: they delay what is sent next.
    ack_debt: u64,
    pub(crate) sent: u64,
    pub(crate) sent_payload: u64,
}

/// Something that will happen.
#[derive(Debug)]
pub(crate) enum Event {
    Start {
        node: u32,
    },
    Die {
        node: u32,
        silent: bool,
    },
    /// The port has sent what it had begun; if that was a block, which end's and how long.
    PortFree {
        node: u32,
        block: Option<(End, u32)>,
    },
    Arrive {
        end: End,
        item: Item,
    },
    Delivered {
        end: End,
    },
    Flush {
        end: End,
    },
    Dialled {
        from: u32,
        to: u32,
    },
    Gone {
        end: End,
    },
    Tick {
        node: u32,
    },
    Handout {
        node: u32,
    },
}

/// All ports, connections and events.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) now: Time,
    pub(crate) ports: Vec<Port>,
    sockets: Vec<Socket>,
    latency: Duration,
    jitter: Duration,
    loss_one_in: u32,
    rng: fastrand::Rng,
    events: Queue<Event>,
}

/// The least time that Linux waits before it sends a lost packet again.
const RETRANSMISSION: Duration = Duration::from_millis(200);

impl Network {
    pub(crate) fn new(
        rates: Vec<u64>,
        latency: Duration,
        jitter: Duration,
        loss_one_in: u32,
        random_seed: u64,
    ) -> Self {
        let port = |rate| Port {
            rate,
            free_at: Time::ZERO,
            busy: false,
            down_free: Time::ZERO,
            messages: VecDeque::new(),
            blocks: VecDeque::new(),
            ack_debt: 0,
            sent: 0,
            sent_payload: 0,
        };
        Self {
            now: Time::ZERO,
            ports: rates.into_iter().map(port).collect(),
            sockets: vec![],
            latency,
            jitter,
            loss_one_in,
            rng: fastrand::Rng::with_seed(random_seed),
            events: Queue::new(),
        }
    }

    pub(crate) fn at(&mut self, at: Time, event: Event) {
        self.events.push(at, event);
    }

    pub(crate) fn after(&mut self, delay: Duration, event: Event) {
        self.at(self.now + delay, event);
    }

    pub(crate) fn next(&mut self, touch: impl Fn(usize)) -> Option<Event> {
        let sockets = &self.sockets;
        let (at, event) = self.events.pop(|event| match event {
            Event::PortFree { node, .. } => touch(*node as usize),
            Event::Arrive { end, .. } | Event::Delivered { end } => {
                touch(sockets[end.index()].node as usize);
            }
            _ => {}
        })?;
        self.now = at;
        Some(event)
    }

    /// The time that a message needs to wake the other end.
    pub(crate) fn delay(&mut self) -> Duration {
        let jitter = self.jitter.as_nanos() as u64;
        self.latency + Duration::from_nanos(self.rng.u64(..=jitter))
    }

    /// Opens a connection; returns the end of the first of the nodes.
    pub(crate) fn connect(&mut self, nodes: [usize; 2], keys: [PeerKey; 2]) -> End {
        let end = End(self.sockets.len() as u32);
        for (side, key) in keys.into_iter().enumerate() {
            self.sockets.push(Socket {
                node: nodes[side] as u32,
                other: nodes[1 - side] as u32,
                known: true,
                key,
                open: true,
                listed: false,
                flush_due: false,
                lazy: vec![],
                queue: VecDeque::new(),
            });
        }
        end
    }

    pub(crate) fn socket(&mut self, end: End) -> &mut Socket {
        &mut self.sockets[end.index()]
    }

    /// The node at an end.
    pub(crate) fn node(&self, end: End) -> usize {
        self.sockets[end.index()].node as usize
    }

    /// Drops a connection and all that waits on it.
    pub(crate) fn disconnect(&mut self, end: End) {
        for end in [end, end.other()] {
            let socket = self.socket(end);
            socket.open = false;
            socket.queue = VecDeque::new();
            socket.lazy = vec![];
        }
    }

    /// Queues something on a connection; messages join a packet that has not left.
    pub(crate) fn send(&mut self, end: End, item: Item) {
        let socket = self.socket(end);
        match (socket.queue.back_mut(), item) {
            (Some(Item::Messages(waiting)), Item::Messages(more)) => waiting.extend(more),
            (_, item) => socket.queue.push_back(item),
        }
        let node = socket.node as usize;
        self.list(end);
        self.feed(node);
    }

    /// Puts an end into its port's turn.
    fn list(&mut self, end: End) {
        let socket = &mut self.sockets[end.index()];
        let Some(head) = socket.queue.front() else { return };
        if std::mem::replace(&mut socket.listed, true) {
            return;
        }
        let port = &mut self.ports[socket.node as usize];
        if head.is_block() {
            port.blocks.push_back(end);
        } else {
            port.messages.push_back(end);
        }
    }

    /// Lets an idle port send what waits: all messages, then one block.
    fn feed(&mut self, node: usize) {
        if self.ports[node].busy {
            return;
        }
        let now = self.now;
        loop {
            let port = &mut self.ports[node];
            let Some(end) = port.messages.front().or_else(|| port.blocks.front()).copied() else {
                return;
            };
            if port.free_at > now && port.messages.is_empty() {
                // A message is still leaving; a block could be overtaken by the next until then.
                port.busy = true;
                let free_at = port.free_at;
                self.at(free_at, Event::PortFree { node: node as u32, block: None });
                return;
            }
            if port.messages.pop_front().is_none() {
                port.blocks.pop_front();
            }
            let socket = self.socket(end);
            socket.listed = false;
            let Some(item) = socket.queue.pop_front() else { continue };
            let is_block = item.is_block();
            self.transmit(node, end, item);
            self.list(end);
            if is_block {
                return;
            }
        }
    }

    fn transmit(&mut self, node: usize, end: End, item: Item) {
        let delay = self.delay();
        let lost = self.loss_one_in > 0 && self.rng.u32(..self.loss_one_in) == 0;
        let other = self.sockets[end.index()].other as usize;
        let port = &mut self.ports[node];
        let len = item.wire_len();
        let on_wire = len + std::mem::take(&mut port.ack_debt);
        port.sent += on_wire;
        let starts = self.now.max(port.free_at);
        let up_done = starts + serialize(on_wire, port.rate);
        port.free_at = up_done;
        if let Item::Block { block, .. } = item {
            port.sent_payload += u64::from(block.len);
            port.busy = true;
            self.at(up_done, Event::PortFree { node: node as u32, block: Some((end, block.len)) });
        }
        let down = &mut self.ports[other];
        let first_bit = starts + delay + if lost { RETRANSMISSION } else { Duration::ZERO };
        let arrived =
            (down.down_free.max(first_bit) + serialize(len, down.rate)).max(up_done + delay);
        if !lost {
            down.down_free = arrived;
        }
        if item.is_block() {
            down.ack_debt += ACK_LEN;
        }
        self.at(arrived, Event::Arrive { end: end.other(), item });
    }

    pub(crate) fn port_free(&mut self, node: usize) {
        self.ports[node].busy = false;
        self.feed(node);
    }

    /// A dead node's port sends nothing more.
    pub(crate) fn silence(&mut self, node: usize) {
        let port = &mut self.ports[node];
        port.messages.clear();
        port.blocks.clear();
        port.busy = true;
    }
}

fn serialize(len: u64, rate: u64) -> Duration {
    Duration::from_nanos(len * 1_000_000_000 / rate)
}
