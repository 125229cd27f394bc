//! One TCP connection: bytes in, bytes out, and how far the bytes out have come.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::fd::AsFd;

use mio::net::TcpStream;
use socket2::SockRef;
use torrent::Time;
use torrent::swarm::{Direction, LAZY_DELAY, PeerKey, PexState, Standing, VerifiedBlock};
use torrent::wire::{ExtensionIds, Message};

use super::limits::Bucket;
use super::sockopt;
use crate::storage::StorageError;

/// Bytes made ready for the kernel at a time: large writes are cheap, and what waits as a name of a
/// block rather than as its bytes costs no memory.
const OUT_LEN: usize = 256 * 1024;

/// What an idle connection keeps of its buffer.
const OUT_KEPT_LEN: usize = 4 * 1024;

/// Bytes before the payload of a `piece` message (BEP 3).
const PIECE_HEAD_LEN: usize = 13;

/// Below this, waking up for every packet costs less than the system call that prevents it.
const LOW_WATER_MIN: usize = 2 * 1024;

/// Bytes of a TCP segment on Ethernet with timestamps.
const SEGMENT_LEN: u32 = 1448;

/// Where a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Dialled; the kernel is connecting.
    Connecting { torrent: usize },
    /// Their handshake is awaited. `torrent` is known if we dialled.
    Handshaking { torrent: Option<usize> },
    /// Messages.
    Open { torrent: usize, key: PeerKey },
}

impl Phase {
    pub(super) const fn is_open(self) -> bool {
        matches!(self, Self::Open { .. })
    }
}

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) stream: TcpStream,
    pub(super) addr: SocketAddr,
    pub(super) direction: Direction,
    pub(super) phase: Phase,
    pub(super) opened_at: Time,
    /// When a block last went or came; at first, when it was opened.
    pub(super) moved_at: Time,
    /// How much its address is worth a place.
    pub(super) standing: Standing,
    /// Which of the torrent's infohashes we dial with.
    pub(super) infohash_index: usize,
    /// How the peer numbers extensions.
    pub(super) ids: ExtensionIds,
    pub(super) extended: bool,
    /// The peer is a BootTorrent.
    pub(super) is_own: bool,
    /// Where an incoming peer says that it listens.
    pub(super) listens_on: Option<SocketAddr>,
    /// Set if peers are exchanged with it.
    pub(super) pex: Option<PexState>,

    /// The beginning of a message whose rest has not come.
    pub(super) pending: Vec<u8>,
    low_water: u32,
    /// The other end has closed: its end must be read, as no event will tell of it again.
    pub(super) is_ending: bool,

    /// Bytes that are ready and that the kernel has not taken.
    out: Vec<u8>,
    /// Where the head of a `piece` message is made.
    head: Vec<u8>,
    blocks: VecDeque<VerifiedBlock>,
    /// Bytes ever put into `out`, and bytes ever taken by the kernel.
    queued: u64,
    written: u64,
    /// Where blocks end in the stream of bytes, until they are acknowledged.
    marks: VecDeque<(u64, u32)>,
    /// Bytes of a TCP segment, asked of the kernel when first needed.
    segment_len: Option<u64>,
    lazy: Vec<Message>,
    pub(super) lazy_due: Option<Time>,
    /// It is in the list of connections to flush.
    pub(super) dirty: bool,
    /// The kernel's buffer was full at the last write.
    pub(super) blocked: bool,
}

/// What a flush needs to turn the names of blocks into their bytes.
pub(super) trait ReadBlocks {
    /// Fills `to` with the bytes of a run of blocks: the first begins where `first` does, each other
    /// where the one before it ends.
    fn read(&self, first: VerifiedBlock, to: &mut [&mut [u8]]) -> Result<(), StorageError>;
}

/// Room to make bytes ready in, shared by all connections of a thread: what the kernel takes at once
/// never needs memory of its own.
#[derive(Debug)]
pub(super) struct Scratch(Vec<u8>);

impl Scratch {
    pub(super) fn new() -> Self {
        Self(vec![0; OUT_LEN])
    }
}

/// Why a flush failed.
#[derive(Debug)]
pub(super) enum FlushError {
    Socket,
    Storage(StorageError),
}

impl Connection {
    pub(super) fn new(
        stream: TcpStream,
        addr: SocketAddr,
        direction: Direction,
        phase: Phase,
        now: Time,
    ) -> Self {
        Self {
            stream,
            addr,
            direction,
            phase,
            opened_at: now,
            moved_at: now,
            standing: Standing::Stranger,
            infohash_index: 0,
            ids: ExtensionIds::default(),
            extended: false,
            is_own: false,
            listens_on: None,
            pex: None,
            pending: vec![],
            low_water: 1,
            is_ending: false,
            out: vec![],
            head: vec![],
            blocks: VecDeque::new(),
            queued: 0,
            written: 0,
            marks: VecDeque::new(),
            segment_len: None,
            lazy: vec![],
            lazy_due: None,
            dirty: false,
            blocked: false,
        }
    }

    /// Queues raw bytes: a handshake.
    pub(super) fn send_bytes(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
        self.queued += bytes.len() as u64;
    }

    /// Queues a message, and the lazy ones that waited for it.
    pub(super) fn send(&mut self, message: &Message) {
        self.send_lazy_now();
        self.encode(message);
    }

    fn encode(&mut self, message: &Message) {
        let before = self.out.len();
        message.encode(self.ids, &mut self.out);
        self.queued += (self.out.len() - before) as u64;
    }

    /// Keeps a message until another leaves, or [`LAZY_DELAY`] is over.
    pub(super) fn send_lazily(&mut self, now: Time, message: Message) {
        self.lazy.push(message);
        self.lazy_due.get_or_insert(now + LAZY_DELAY);
    }

    pub(super) fn send_lazy_now(&mut self) {
        self.lazy_due = None;
        for message in std::mem::take(&mut self.lazy) {
            self.encode(&message);
        }
    }

    pub(super) fn send_block(&mut self, block: VerifiedBlock) {
        self.send_lazy_now();
        self.blocks.push_back(block);
    }

    pub(super) fn has_output(&self) -> bool {
        !self.out.is_empty() || !self.blocks.is_empty()
    }

    pub(super) fn holds_blocks(&self) -> bool {
        !self.blocks.is_empty()
    }

    pub(super) fn awaits_acknowledgement(&self) -> bool {
        !self.marks.is_empty()
    }

    /// Writes what the kernel takes; `blocked` says afterwards whether it took all.
    /// Blocks stay where they are while `bucket` is closed.
    pub(super) fn flush(
        &mut self,
        storage: &impl ReadBlocks,
        scratch: &mut Scratch,
        bucket: &mut Bucket,
    ) -> Result<(), FlushError> {
        loop {
            if !self.write_out()? || self.blocks.is_empty() || !bucket.is_open() {
                return Ok(());
            }
            let filled = self.fill(storage, &mut scratch.0, bucket).map_err(FlushError::Storage)?;
            let taken = self.write(&scratch.0[..filled])?;
            if taken < filled {
                self.out.extend_from_slice(&scratch.0[taken..filled]);
                return Ok(());
            }
        }
    }

    /// Writes the bytes that are ready; says whether the kernel took all.
    fn write_out(&mut self) -> Result<bool, FlushError> {
        let out = std::mem::take(&mut self.out);
        let taken = self.write(&out)?;
        self.out = out;
        self.out.drain(..taken);
        if self.out.is_empty() {
            self.out.shrink_to(OUT_KEPT_LEN);
        }
        Ok(self.out.is_empty())
    }

    /// Puts waiting blocks into `to`, heads and bytes, as many as fit; returns the bytes used.
    fn fill(
        &mut self,
        storage: &impl ReadBlocks,
        to: &mut Vec<u8>,
        bucket: &mut Bucket,
    ) -> Result<usize, StorageError> {
        let mut used = 0;
        let mut count = 0;
        while bucket.is_open()
            && let Some(block) = self.blocks.get(count)
        {
            let (block, len) = (block.block(), block.block().len as usize);
            if used > 0 && used + PIECE_HEAD_LEN + len > to.len() {
                break;
            }
            to.resize(to.len().max(PIECE_HEAD_LEN + len), 0);
            self.head.clear();
            Message::Piece(block).encode(self.ids, &mut self.head);
            to[used..used + PIECE_HEAD_LEN].copy_from_slice(&self.head);
            used += PIECE_HEAD_LEN + len;
            count += 1;
            bucket.take(len);
            self.queued += (PIECE_HEAD_LEN + len) as u64;
            self.marks.push_back((self.queued, len as u32));
        }
        let mut rest = &mut to[..used];
        let blocks: Vec<VerifiedBlock> = self.blocks.drain(..count).collect();
        for run in blocks.chunk_by(|a, b| a.block().is_followed_by(b.block())) {
            let mut slices = Vec::with_capacity(run.len());
            for block in run {
                let (bytes, later) =
                    rest[PIECE_HEAD_LEN..].split_at_mut(block.block().len as usize);
                slices.push(bytes);
                rest = later;
            }
            storage.read(run[0], &mut slices)?;
        }
        Ok(used)
    }

    /// Writes until the kernel takes no more; returns how much it took.
    fn write(&mut self, bytes: &[u8]) -> Result<usize, FlushError> {
        let mut taken = 0;
        self.blocked = false;
        while taken < bytes.len() {
            match self.stream.write(&bytes[taken..]) {
                Ok(0) => return Err(FlushError::Socket),
                Ok(len) => taken += len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.blocked = true;
                    break;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Err(FlushError::Socket),
            }
        }
        self.written += taken as u64;
        Ok(taken)
    }

    /// Lengths of the blocks that the other end has acknowledged since this was last asked.
    pub(super) fn acknowledged(&mut self, lens: &mut Vec<u32>) {
        if self.marks.is_empty() {
            return;
        }
        let Ok(waiting) = sockopt::unacknowledged(self.stream.as_fd()) else { return };
        // The receiver's TCP delays the acknowledgement of a last packet or two by 40 ms, in the
        // hope of more: they are as good as there.
        let segment_len = *self.segment_len.get_or_insert_with(|| {
            u64::from(SockRef::from(&self.stream).tcp_mss().unwrap_or(SEGMENT_LEN))
        });
        let through = self.written.saturating_sub(waiting.saturating_sub(2 * segment_len));
        while let Some(&(end, len)) = self.marks.front()
            && end <= through
        {
            self.marks.pop_front();
            lens.push(len);
        }
    }

    /// Reads once into `buffer`, behind what was left over of the last message. `None`: nothing is
    /// there now. `Some(0)`: the other end has closed.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        loop {
            match self.stream.read(buffer) {
                Ok(len) => return Ok(Some(len)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Wakes us only when the rest of a block is there: until then nothing could be done with it.
    pub(super) fn await_bytes(&mut self, missing: usize) {
        let wanted = if missing < LOW_WATER_MIN { 1 } else { missing as u32 };
        if wanted != self.low_water
            && sockopt::set_receive_low_water(self.stream.as_fd(), wanted).is_ok()
        {
            self.low_water = wanted;
        }
    }
}
