//! The server and a receiver on a network that loses, doubles and delays what it carries.

mod packets;
mod pair;
mod server;
mod transfer;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use crate::{
    Config, Event, Input, OpenError, Options, Output, Port, Receiver, Server, Standing, Time,
    TransferId,
};

/// A file's content that no two blocks have in common.
pub(super) fn content(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32;
    let next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}

pub(super) fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// How bad a network is: chances out of 256.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Network {
    pub(super) loss: u8,
    pub(super) duplication: u8,
    /// Chance that a packet takes up to four times as long.
    pub(super) delay: u8,
    pub(super) seed: u64,
}

#[derive(Clone, Debug)]
enum Arrival {
    Request(Vec<u8>),
    AtServer(TransferId, Vec<u8>),
    AtReceiver(SocketAddr, Vec<u8>),
    ReceiverTimeout(u64),
}

/// One way takes this long.
const LATENCY: Duration = Duration::from_micros(200);

/// How long a receiver waits before it asks again.
const RECEIVER_TIMEOUT: Duration = Duration::from_secs(3);

/// What became of a transfer.
#[derive(Debug)]
pub(super) struct Fetched {
    pub(super) bytes: Vec<u8>,
    pub(super) events: Vec<Event>,
    /// Data packets that the server sent.
    pub(super) data_count: u64,
    pub(super) took: Duration,
}

/// A server that has one file, `file`, and one receiver of it.
pub(super) struct Pair {
    network: Network,
    file: Vec<u8>,
    server: Server<()>,
    receiver: Receiver,
    now: Time,
    /// In the order of time; of what arrives at one time, in the order of sending.
    queue: BTreeMap<(Time, u64), Arrival>,
    sequence: u64,
    heard_count: u64,
    fetched: Fetched,
}

impl Pair {
    pub(super) fn new(network: Network, file: Vec<u8>, options: Options) -> Self {
        Self {
            network: Network { seed: network.seed.wrapping_mul(2).wrapping_add(1), ..network },
            file,
            server: Server::new(Config::default()),
            receiver: Receiver::new(b"file", options),
            now: Time::ZERO,
            queue: BTreeMap::new(),
            sequence: 0,
            heard_count: 0,
            fetched: Fetched { bytes: vec![], events: vec![], data_count: 0, took: Duration::ZERO },
        }
    }

    /// Until the server has nothing under way and the receiver has ended, or for ten minutes.
    pub(super) fn run(mut self) -> Fetched {
        self.carry(Arrival::Request(self.receiver.request()));
        self.await_answer();
        let end = Time::ZERO + Duration::from_secs(600);
        while self.now < end {
            let due = self.server.next_timeout();
            let next = self.queue.first_key_value().map_or(Time::NEVER, |((at, _), _)| *at);
            if due == Time::NEVER && next == Time::NEVER {
                break;
            }
            self.now = due.min(next).max(self.now);
            if due <= next {
                self.server.handle(self.now, Input::Tick);
            } else if let Some((_, arrival)) = self.queue.pop_first() {
                self.arrive(arrival);
            }
            self.drain();
        }
        self.fetched
    }

    fn arrive(&mut self, arrival: Arrival) {
        match arrival {
            Arrival::Request(datagram) => {
                let from = addr("10.0.0.2:2000");
                self.server.handle(
                    self.now,
                    Input::Request { from, standing: Standing::Stranger, datagram: &datagram },
                );
            }
            Arrival::AtServer(to, datagram) => {
                self.server.handle(self.now, Input::Datagram { to, datagram: &datagram });
            }
            Arrival::AtReceiver(from, datagram) => {
                let heard = self.receiver.handle(from, &datagram);
                if let Some((offset, bytes)) = heard.bytes {
                    assert_eq!(offset, self.fetched.bytes.len() as u64, "bytes come in order");
                    self.fetched.bytes.extend_from_slice(bytes);
                    self.heard_count += 1;
                    self.fetched.took = self.now.since(Time::ZERO);
                }
                if heard.bytes.is_some() || heard.answer.is_some() {
                    self.await_answer();
                }
                if let Some(answer) = heard.answer {
                    self.carry(Arrival::AtServer(id(from), answer));
                }
            }
            Arrival::ReceiverTimeout(at) => {
                if at == self.heard_count && self.receiver.result().is_none() {
                    let packet = match self.receiver.again() {
                        Some((server, ack)) => Arrival::AtServer(id(server), ack),
                        None => Arrival::Request(self.receiver.request()),
                    };
                    self.carry(packet);
                    self.await_answer();
                }
            }
        }
    }

    fn await_answer(&mut self) {
        self.sequence += 1;
        let arrival = Arrival::ReceiverTimeout(self.heard_count);
        self.queue.insert((self.now + RECEIVER_TIMEOUT, self.sequence), arrival);
    }

    fn drain(&mut self) {
        while let Some(output) = self.server.poll() {
            match output {
                Output::Open { transfer, name } => {
                    let file = match name.as_str() {
                        "file" => Ok(((), self.file.len() as u64)),
                        _ => Err(OpenError::NotFound),
                    };
                    self.server.handle(self.now, Input::Opened { transfer, file });
                }
                Output::Blocks { transfer, window } => {
                    for datagram in window.encode(&self.file) {
                        self.fetched.data_count += 1;
                        self.carry(Arrival::AtReceiver(tid(transfer.port), datagram));
                    }
                }
                Output::Packet { transfer, datagram } => {
                    self.carry(Arrival::AtReceiver(tid(transfer.port), datagram));
                }
                Output::Event(event) => self.fetched.events.push(event),
            }
        }
    }

    fn carry(&mut self, arrival: Arrival) {
        let copies = 1 + u64::from(self.chance(self.network.duplication));
        for _ in 0..copies {
            if self.chance(self.network.loss) {
                continue;
            }
            let factor = if self.chance(self.network.delay) { 1 + self.random() % 4 } else { 1 };
            self.sequence += 1;
            let at = self.now + LATENCY * factor as u32;
            self.queue.insert((at, self.sequence), arrival.clone());
        }
    }

    fn chance(&mut self, of_256: u8) -> bool {
        self.random() as u8 >= 255 - of_256 && of_256 > 0
    }

    fn random(&mut self) -> u64 {
        let state = &mut self.network.seed;
        *state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        *state >> 33
    }
}

/// The server's ports for transfers are 5000 and up.
pub(super) fn tid(port: Port) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], 5_000 + u16::from(port.0)))
}

fn id(server: SocketAddr) -> TransferId {
    TransferId { peer: addr("10.0.0.2:2000"), port: Port((server.port() - 5_000) as u8) }
}
