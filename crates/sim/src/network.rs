//! The network: ports with a rate each way, connections that keep order, a queue of events.
//!
//! A port sends one thing at a time. What waits on one connection keeps its order, so a `have` waits
//! behind the blocks that are already committed to its socket; between connections small messages
//! go before blocks, as they do in a kernel that shares a link fairly, and blocks take turns. A
//! message packet pays for its headers. Each block makes its receiver send acknowledgements.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use torrent::swarm::PeerKey;
use torrent::wire::Message;
use torrent::{Block, PieceIndex, Time, UnitIndex};

/// Ethernet, IP and TCP headers of one packet with timestamps.
const PACKET_OVERHEAD: u64 = 66;

/// What a receiver sends for each block: two acknowledgements of large receive-offloaded packets.
const ACK_LEN: u64 = 2 * PACKET_OVERHEAD;

/// Length prefix, number, piece and offset of a `piece` message.
const PIECE_HEAD_LEN: u64 = 13;

/// Something on a connection.
#[derive(Clone, Debug)]
pub(crate) enum Item {
    Messages(Vec<Message>, u64),
    ExtendedHandshake { reveals: bool },
    HashRequest { piece: PieceIndex },
    Hashes { piece: PieceIndex, len: u64 },
    JudgementRequest { unit: UnitIndex },
    Judgement { unit: UnitIndex, len: u64 },
    Block { block: Block, corrupt: bool },
}

impl Item {
    fn wire_len(&self) -> u64 {
        match self {
            Self::Messages(_, len) => len + PACKET_OVERHEAD,
            Self::ExtendedHandshake { .. } => 150 + PACKET_OVERHEAD,
            Self::HashRequest { .. } | Self::JudgementRequest { .. } => 53 + PACKET_OVERHEAD,
            Self::Hashes { len, .. } | Self::Judgement { len, .. } => len + 53 + PACKET_OVERHEAD,
            Self::Block { block, .. } => u64::from(block.len) + PIECE_HEAD_LEN,
        }
    }

    const fn is_block(&self) -> bool {
        matches!(self, Self::Block { .. })
    }
}

/// Bytes of a message on the wire.
pub(crate) fn message_len(message: &Message) -> u64 {
    match message {
        Message::KeepAlive => 4,
        Message::Have(_) => 9,
        Message::HaveUnit(_) => 10,
        Message::Bitfield(bytes) => 5 + bytes.len() as u64,
        Message::Request(_) | Message::Cancel(_) | Message::Reject(_) => 17,
        _ => 5,
    }
}

/// One end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) conn: usize,
    pub(crate) side: usize,
}

/// A connection between two nodes.
#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) nodes: [usize; 2],
    pub(crate) keys: [PeerKey; 2],
    pub(crate) open: bool,
    /// What each side has yet to send.
    queues: [VecDeque<Item>; 2],
    /// Lazy messages of each side, and whether a flush is due.
    pub(crate) lazy: [Vec<Message>; 2],
    pub(crate) flush_due: [bool; 2],
    listed: [bool; 2],
}

/// A node's link.
#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) rate: u64,
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
    Start { node: usize },
    Die { node: usize, silent: bool },
    PortFree { node: usize },
    Sent { end: End, len: u32 },
    Arrive { end: End, item: Item },
    Delivered { end: End },
    Flush { end: End },
    Dialled { from: usize, to: usize },
    Gone { end: End },
    Tick { node: usize },
    Handout { node: usize },
}

#[derive(Debug)]
struct Scheduled {
    at: Time,
    order: u64,
    event: Event,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}
impl Eq for Scheduled {}
impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

/// All ports, connections and events.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) now: Time,
    pub(crate) ports: Vec<Port>,
    pub(crate) conns: Vec<Conn>,
    latency: Duration,
    jitter: Duration,
    loss_one_in: u32,
    rng: fastrand::Rng,
    events: BinaryHeap<Reverse<Scheduled>>,
    order: u64,
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
            conns: vec![],
            latency,
            jitter,
            loss_one_in,
            rng: fastrand::Rng::with_seed(random_seed),
            events: BinaryHeap::new(),
            order: 0,
        }
    }

    pub(crate) fn at(&mut self, at: Time, event: Event) {
        self.order += 1;
        self.events.push(Reverse(Scheduled { at, order: self.order, event }));
    }

    pub(crate) fn after(&mut self, delay: Duration, event: Event) {
        self.at(self.now + delay, event);
    }

    pub(crate) fn next(&mut self) -> Option<Event> {
        let Reverse(next) = self.events.pop()?;
        self.now = next.at;
        Some(next.event)
    }

    /// The time that a message needs to wake the other end.
    pub(crate) fn delay(&mut self) -> Duration {
        let jitter = self.jitter.as_nanos() as u64;
        self.latency + Duration::from_nanos(self.rng.u64(..=jitter))
    }

    pub(crate) fn connect(&mut self, nodes: [usize; 2], keys: [PeerKey; 2]) -> usize {
        self.conns.push(Conn {
            nodes,
            keys,
            open: true,
            queues: [VecDeque::new(), VecDeque::new()],
            lazy: [vec![], vec![]],
            flush_due: [false; 2],
            listed: [false; 2],
        });
        self.conns.len() - 1
    }

    /// Drops a connection and all that waits on it; returns bytes of blocks that will not be sent.
    pub(crate) fn disconnect(&mut self, conn: usize) {
        let conn = &mut self.conns[conn];
        conn.open = false;
        conn.queues = [VecDeque::new(), VecDeque::new()];
        conn.lazy = [vec![], vec![]];
    }

    /// Queues something on a connection; messages join a packet that has not left.
    pub(crate) fn send(&mut self, end: End, item: Item) {
        let conn = &mut self.conns[end.conn];
        let queue = &mut conn.queues[end.side];
        match (queue.back_mut(), item) {
            (Some(Item::Messages(waiting, len)), Item::Messages(more, more_len)) => {
                waiting.extend(more);
                *len += more_len;
            }
            (_, item) => queue.push_back(item),
        }
        self.list(end);
        let node = self.conns[end.conn].nodes[end.side];
        self.feed(node);
    }

    /// Puts an end into its port's turn.
    fn list(&mut self, end: End) {
        let conn = &mut self.conns[end.conn];
        let Some(head) = conn.queues[end.side].front() else { return };
        if std::mem::replace(&mut conn.listed[end.side], true) {
            return;
        }
        let port = &mut self.ports[conn.nodes[end.side]];
        if head.is_block() {
            port.blocks.push_back(end);
        } else {
            port.messages.push_back(end);
        }
    }

    /// Lets an idle port send the next thing.
    fn feed(&mut self, node: usize) {
        if self.ports[node].busy {
            return;
        }
        loop {
            let port = &mut self.ports[node];
            let Some(end) = port.messages.pop_front().or_else(|| port.blocks.pop_front()) else {
                return;
            };
            self.conns[end.conn].listed[end.side] = false;
            let Some(item) = self.conns[end.conn].queues[end.side].pop_front() else { continue };
            self.transmit(node, end, item);
            self.list(end);
            return;
        }
    }

    fn transmit(&mut self, node: usize, end: End, item: Item) {
        let delay = self.delay();
        let lost = self.loss_one_in > 0 && self.rng.u32(..self.loss_one_in) == 0;
        let other = self.conns[end.conn].nodes[1 - end.side];
        let port = &mut self.ports[node];
        let len = item.wire_len();
        let on_wire = len + std::mem::take(&mut port.ack_debt);
        port.busy = true;
        port.sent += on_wire;
        if let Item::Block { block, .. } = item {
            port.sent_payload += u64::from(block.len);
        }
        let up_done = self.now + serialize(on_wire, port.rate);
        let down = &mut self.ports[other];
        let first_bit = self.now + delay + if lost { RETRANSMISSION } else { Duration::ZERO };
        let arrived =
            (down.down_free.max(first_bit) + serialize(len, down.rate)).max(up_done + delay);
        if !lost {
            down.down_free = arrived;
        }
        if item.is_block() {
            down.ack_debt += ACK_LEN;
        }
        if let Item::Block { block, .. } = item {
            self.at(up_done, Event::Sent { end, len: block.len });
        }
        self.at(up_done, Event::PortFree { node });
        let there = End { conn: end.conn, side: 1 - end.side };
        self.at(arrived, Event::Arrive { end: there, item });
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
