//! A scripted peer on a plain socket: speaks the protocol as a test tells it to.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

use torrent::wire::{
    Decoded, ExtensionIds, Features, HANDSHAKE_LEN, Handshake, HandshakeProgress, Limits, Message,
    decode,
};

use super::node::{Content, LONG};

/// An id that is not one of ours.
pub(crate) const PEER_ID: [u8; 20] = *b"-XX0001-abcdefghijkl";

/// A connection of the stranger.
pub(crate) struct Stranger {
    pub(crate) stream: TcpStream,
    limits: Limits,
    buffer: Vec<u8>,
}

impl Stranger {
    /// Dials, and says nothing.
    pub(crate) fn dial(addr: SocketAddr, content: &Content) -> Self {
        Self::over(TcpStream::connect(addr).unwrap(), content)
    }

    fn over(stream: TcpStream, content: &Content) -> Self {
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream.set_write_timeout(Some(LONG)).unwrap();
        Self { stream, limits: Limits::new(content.metainfo.geometry()), buffer: vec![] }
    }

    pub(crate) fn send_handshake(&mut self, infohash: [u8; 20]) {
        self.send_handshake_as(infohash, PEER_ID, false);
    }

    pub(crate) fn send_handshake_with(&mut self, infohash: [u8; 20], extended: bool) {
        self.send_handshake_as(infohash, PEER_ID, extended);
    }

    pub(crate) fn send_handshake_as(
        &mut self,
        infohash: [u8; 20],
        peer_id: [u8; 20],
        extended: bool,
    ) {
        let features = Features { fast: true, extended, v2: false };
        let handshake = Handshake { features, infohash, peer_id };
        self.stream.write_all(&handshake.encode()).unwrap();
    }

    pub(crate) fn read_handshake(&mut self) -> Handshake {
        loop {
            if let HandshakeProgress::Done(handshake) = Handshake::decode(&self.buffer).unwrap() {
                self.buffer.drain(..HANDSHAKE_LEN);
                return handshake;
            }
            assert!(self.fill(), "closed in the handshake");
        }
    }

    /// Takes what has come; `false` if the other end has closed.
    fn fill(&mut self) -> bool {
        let mut buffer = [0; 65_536];
        match self.stream.read(&mut buffer) {
            Ok(0) => false,
            Ok(len) => {
                self.buffer.extend_from_slice(&buffer[..len]);
                true
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => false,
            Err(error) => panic!("{error}"),
        }
    }

    /// The next message, payload of blocks skipped; `None` at the end.
    pub(crate) fn next(&mut self) -> Option<Message> {
        loop {
            let (message, used) = match decode(&self.buffer, &self.limits).unwrap() {
                Decoded::Message { message, used } => (Some(message), used),
                Decoded::Piece { block, used } => {
                    let used = used + block.len as usize;
                    let whole = self.buffer.len() >= used;
                    (whole.then_some(Message::Piece(block)), used)
                }
                Decoded::Incomplete { .. } => (None, 0),
            };
            if let Some(message) = message {
                self.buffer.drain(..used);
                return Some(message);
            }
            if !self.fill() {
                return None;
            }
        }
    }

    /// Says a message; `false` if nobody listens any more.
    pub(crate) fn say(&mut self, message: &Message, payload: &[u8]) -> bool {
        let mut bytes = vec![];
        message.encode(ExtensionIds::default(), &mut bytes);
        bytes.extend_from_slice(payload);
        self.stream.write_all(&bytes).is_ok()
    }

    /// Has everything, and answers requests, handshakes done from this side, until somebody hangs up.
    /// `answer` is given the number of the request and the bytes to send; it may change them, or
    /// hang up by `false`.
    pub(crate) fn serve(
        &mut self,
        piece_len: u32,
        data: &[u8],
        answer: &dyn Fn(usize, &mut Vec<u8>) -> bool,
    ) {
        self.read_handshake();
        self.answer_requests(piece_len, data, answer);
    }

    fn answer_requests(
        &mut self,
        piece_len: u32,
        data: &[u8],
        answer: &dyn Fn(usize, &mut Vec<u8>) -> bool,
    ) {
        self.say(&Message::HaveAll, &[]);
        self.say(&Message::Unchoke, &[]);
        let mut count = 0;
        while let Some(message) = self.next() {
            let Message::Request(block) = message else { continue };
            let start = u64::from(block.piece) * u64::from(piece_len) + u64::from(block.offset);
            let mut bytes = data[start as usize..][..block.len as usize].to_vec();
            let goes_on = answer(count, &mut bytes);
            if !goes_on || !self.say(&Message::Piece(block), &bytes) {
                return;
            }
            count += 1;
        }
    }

    /// Reads until the other end hangs up.
    pub(crate) fn end(mut self) {
        while self.fill() {}
    }
}

/// A listening stranger that has everything and answers requests as [`Stranger::serve`] says.
pub(crate) fn seed(
    content: &Content,
    answer: impl Fn(usize, &mut Vec<u8>) -> bool + Send + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let (infohash, data) = (content.infohash(), content.data());
    let geometry = content.metainfo.geometry().clone();
    thread::spawn(move || {
        // Connections one after another, each to its end; the thread ends with the process.
        for stream in listener.incoming() {
            let limits = Limits::new(&geometry);
            let mut peer = Stranger { stream: stream.unwrap(), limits, buffer: vec![] };
            peer.send_handshake(infohash);
            peer.serve(geometry.piece_len(), &data, &answer);
        }
    });
    addr
}

/// A listening stranger that has everything, knows the torrent by its v2 infohash alone, and hangs up
/// on who names another.
pub(crate) fn v2_seed(content: &Content) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let infohash = content.metainfo.info_hash_v2().unwrap().truncated();
    let data = content.data();
    let piece_len = content.metainfo.geometry().piece_len();
    let limits = Limits::new(content.metainfo.geometry());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut peer = Stranger { stream: stream.unwrap(), limits, buffer: vec![] };
            if peer.read_handshake().infohash == infohash {
                peer.send_handshake(infohash);
                peer.answer_requests(piece_len, &data, &|_, _| true);
            }
        }
    });
    addr
}
