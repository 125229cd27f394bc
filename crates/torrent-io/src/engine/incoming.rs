//! From bytes on a socket to inputs of a swarm.

use std::ops::Range;

use torrent::Block;
use torrent::swarm::{Direction, Input, PeerKey, Verdict};
use torrent::wire::{
    Decoded, ExtendedHandshake, ExtensionIds, Features, HANDSHAKE_LEN, Handshake,
    HandshakeProgress, Message, decode,
};

use super::TorrentEvent;
use super::connection::Phase;
use super::reactor::{READ_LEN, Reactor};
use super::worker::{Batch, Stored};
use crate::storage::StorageError;

/// Reads of one connection before the others have a turn.
const READS_MAX: usize = 8;

/// Bytes a second from which on blocks are handed to other threads: half of what one core can take
/// from a socket, store and hash with SHA extensions, and a sixth more than a gigabit. Below it one
/// thread has time to spare, and to wake another costs more than hashing.
const HAND_OVER_RATE: f64 = 150e6;

/// Batches that may wait for a thread; beyond that this thread does the work itself, which is also
/// what slows the senders down. 4 MiB of buffers: with three of them, which are gone before the other
/// thread is awake, this one did nine tenths of the work, and 1 GiB without limit came at 566 MB/s on
/// average of three runs; with sixteen at 682, beside curl with 648.
const BATCHES_PER_WORKER: usize = 16;

/// Read buffers kept for reuse.
const BUFFERS_MAX: usize = 8;

impl Reactor {
    /// Reads what has come on a connection and gives it to its swarm.
    pub(super) fn read(&mut self, token: usize) {
        for _ in 0..READS_MAX {
            if !self.download.bucket.is_open() {
                // No event will tell again of what is there already.
                self.download.wait(token);
                return;
            }
            let mut buffer = self.buffers.pop().unwrap_or_else(|| vec![0; READ_LEN]);
            let Some(connection) = self.connections[token].as_mut() else {
                self.buffers.push(buffer);
                return;
            };
            if matches!(connection.phase, Phase::Connecting { .. }) {
                self.buffers.push(buffer);
                return;
            }
            let left_over = connection.pending.len();
            if buffer.len() < left_over + READ_LEN / 2 {
                buffer.resize(left_over + READ_LEN / 2, 0);
            }
            buffer[..left_over].copy_from_slice(&connection.pending);
            let is_ending = connection.is_ending;
            let room = (buffer.len() - left_over).min(self.download.bucket.room());
            let read = connection.read(&mut buffer[left_over..left_over + room]);
            match read {
                Ok(Some(len)) if len > 0 => {
                    self.download.bucket.take(len);
                    connection.pending.clear();
                    let through = left_over + len;
                    let buffer = self.take_in(token, buffer, through);
                    self.recycle(buffer);
                    if len < room && !is_ending {
                        return;
                    }
                }
                Ok(None) => {
                    self.recycle(Some(buffer));
                    return;
                }
                Ok(Some(_)) | Err(_) => {
                    self.recycle(Some(buffer));
                    self.lose(token);
                    return;
                }
            }
        }
        self.unread.push(token);
    }

    fn recycle(&mut self, buffer: Option<Vec<u8>>) {
        if let Some(buffer) = buffer
            && buffer.len() <= 2 * READ_LEN
            && self.buffers.len() < BUFFERS_MAX
        {
            self.buffers.push(buffer);
        }
    }

    /// Takes in `buffer[..through]`; what is left of it, if it was not handed to another thread.
    fn take_in(&mut self, token: usize, buffer: Vec<u8>, through: usize) -> Option<Vec<u8>> {
        let connection = self.connections[token].as_mut()?;
        match connection.phase {
            Phase::Open { torrent, key } => {
                self.take_messages(token, torrent, key, buffer, through)
            }
            Phase::Handshaking { torrent } => {
                let used = self.take_handshake(token, torrent, &buffer[..through]);
                let connection = self.connections[token].as_mut()?;
                connection.pending.extend_from_slice(&buffer[used..through]);
                // What follows the handshake in the same packet are messages already.
                if used > 0 && used < through {
                    let rest = std::mem::take(&mut connection.pending);
                    let len = rest.len();
                    return self.take_in(token, rest, len);
                }
                Some(buffer)
            }
            Phase::Connecting { .. } => Some(buffer),
        }
    }

    /// Reads a handshake; returns how many bytes of it were used, none while it is incomplete.
    fn take_handshake(&mut self, token: usize, dialled: Option<usize>, bytes: &[u8]) -> usize {
        let progress = match Handshake::decode(bytes) {
            Ok(progress) => progress,
            Err(error) => {
                tracing::debug!(%error, "a connection that is no BitTorrent");
                self.lose(token);
                return 0;
            }
        };
        match progress {
            HandshakeProgress::Incomplete { infohash } => {
                if let (None, Some(infohash)) = (dialled, infohash) {
                    self.answer_handshake(token, infohash);
                }
                0
            }
            HandshakeProgress::Done(handshake) => {
                let torrent = dialled.or_else(|| self.answer_handshake(token, handshake.infohash));
                if let Some(torrent) = torrent {
                    self.open(token, torrent, handshake);
                }
                HANDSHAKE_LEN
            }
        }
    }

    /// Answers a peer that dialled us, or hangs up if we have no such torrent.
    fn answer_handshake(&mut self, token: usize, infohash: [u8; 20]) -> Option<usize> {
        let found = self.torrents.iter().position(|torrent| {
            torrent.as_ref().is_some_and(|t| t.infohashes.iter().any(|(hash, _)| *hash == infohash))
        });
        match found {
            Some(torrent) => {
                if let Some(connection) = &mut self.connections[token] {
                    connection.phase = Phase::Handshaking { torrent: Some(torrent) };
                }
                self.send_handshake_as(token, torrent, infohash);
            }
            None => self.lose(token),
        }
        found
    }

    pub(super) fn send_handshake(&mut self, token: usize, torrent: usize) {
        let Some(connection) = &self.connections[token] else { return };
        let infohashes = self.torrents[torrent].as_ref().map(|torrent| &torrent.infohashes);
        let infohash = infohashes.and_then(|all| all.get(connection.infohash_index));
        if let Some(&(infohash, _)) = infohash {
            self.send_handshake_as(token, torrent, infohash);
        }
    }

    fn send_handshake_as(&mut self, token: usize, torrent: usize, infohash: [u8; 20]) {
        let features = self.features(torrent);
        let handshake = Handshake { features, infohash, peer_id: self.config.peer_id };
        if let Some(connection) = &mut self.connections[token] {
            connection.send_bytes(&handshake.encode());
            self.mark_dirty(token);
        }
    }

    fn features(&self, torrent: usize) -> Features {
        let v2 = self.torrents[torrent].as_ref().is_some_and(|torrent| torrent.hashes.has_v2());
        Features { fast: true, extended: true, v2 }
    }

    /// Handshakes are exchanged: the swarm has a new peer.
    fn open(&mut self, token: usize, at: usize, handshake: Handshake) {
        let ours = self.features(at);
        let Some(torrent) = &mut self.torrents[at] else { return };
        let named = torrent.infohashes.iter().find(|(hash, _)| *hash == handshake.infohash);
        let Some(&(_, is_v2)) = named else {
            self.lose(token);
            return;
        };
        let key = torrent.free_key(token);
        let (reveals, unit_len) = (torrent.swarm.reveals(), torrent.geometry.unit_len());
        let Some(connection) = &mut self.connections[token] else { return };
        connection.phase = Phase::Open { torrent: at, key };
        let (addr, direction) = (connection.addr, connection.direction);
        let traits = handshake.traits(ours, is_v2);
        connection.is_own = traits.own;
        let standing = self.config.known.standing(addr.ip());
        self.feed(at, Input::Connected { peer: key, addr, direction, traits, standing });
        if !handshake.features.extended {
            return;
        }
        let extended = ExtendedHandshake {
            pex_id: self
                .exchanges_peers(at)
                .then_some(ExtensionIds::OURS.pex)
                .flatten()
                .map(u8::from),
            unit_id: ExtensionIds::OURS.unit.map(u8::from),
            unit_len: Some(unit_len),
            client: Some(concat!("BootTorrent ", env!("CARGO_PKG_VERSION")).to_owned()),
            port: Some(self.addr().port()),
            your_ip: Some(addr.ip()),
            request_queue_len: Some(torrent::swarm::REQUEST_QUEUE_MAX as u32),
            upload_only: reveals,
        };
        let mut payload = vec![];
        extended.encode(&mut payload);
        if let Some(connection) = &mut self.connections[token] {
            connection.send(&Message::Extended { id: 0, payload });
            self.mark_dirty(token);
        }
    }

    fn take_messages(
        &mut self,
        token: usize,
        at: usize,
        key: PeerKey,
        buffer: Vec<u8>,
        through: usize,
    ) -> Option<Vec<u8>> {
        let mut used = 0;
        let mut blocks: Vec<(Block, Range<usize>)> = vec![];
        // A message may end the connection, or the torrent.
        while self.is_open(token, key) {
            let Some(torrent) = &self.torrents[at] else { break };
            let missing = match decode(&buffer[used..through], &torrent.limits) {
                Ok(Decoded::Incomplete { need }) => need.saturating_sub(through - used),
                Ok(Decoded::Message { message, used: len }) => {
                    used += len;
                    self.on_message(token, at, key, message);
                    continue;
                }
                Ok(Decoded::Piece { block, used: head }) => {
                    let payload = used + head..used + head + block.len as usize;
                    if payload.end <= through {
                        used = payload.end;
                        self.on_piece(at, key, block, payload, &mut blocks);
                        continue;
                    }
                    payload.end - through
                }
                Err(error) => {
                    tracing::debug!(%error, "a peer broke the protocol");
                    self.lose(token);
                    break;
                }
            };
            if let Some(connection) = &mut self.connections[token] {
                connection.pending.extend_from_slice(&buffer[used..through]);
                connection.await_bytes(missing);
            }
            if used == 0 {
                self.feed(at, Input::Alive { peer: key });
            }
            break;
        }
        // Even if the connection is gone: the swarm counts on these blocks.
        self.store(at, buffer, blocks)
    }

    fn is_open(&self, token: usize, key: PeerKey) -> bool {
        self.connections[token]
            .as_ref()
            .is_some_and(|c| matches!(c.phase, Phase::Open { key: open, .. } if open == key))
    }

    /// A whole block is in the buffer: notes it, if it is wanted.
    fn on_piece(
        &mut self,
        at: usize,
        key: PeerKey,
        block: Block,
        payload: Range<usize>,
        blocks: &mut Vec<(Block, Range<usize>)>,
    ) {
        let Some(torrent) = &self.torrents[at] else { return };
        if let Some(token) = torrent.token(key)
            && let Some(connection) = &mut self.connections[token]
        {
            connection.moved_at = self.now;
        }
        if torrent.swarm.wants(key, block) {
            blocks.push((block, payload));
        }
        self.feed(at, Input::Block { peer: key, block });
    }

    /// Stores and hashes the blocks of one read, here or on another thread.
    pub(super) fn store(
        &mut self,
        at: usize,
        buffer: Vec<u8>,
        blocks: Vec<(Block, Range<usize>)>,
    ) -> Option<Vec<u8>> {
        if blocks.is_empty() {
            return Some(buffer);
        }
        let storage = self.torrents[at].as_ref()?.storage.clone();
        let many =
            self.torrents[at].as_ref()?.swarm.download_rate() > HAND_OVER_RATE && blocks.len() > 1;
        let batch = Batch { torrent: at, storage, buffer, blocks };
        if many {
            self.start_workers();
        }
        let batch = match &mut self.workers {
            Some(workers) if many && workers.pending < workers.count * BATCHES_PER_WORKER => {
                match workers.submit(batch) {
                    Ok(()) => return None,
                    Err(batch) => batch,
                }
            }
            _ => batch,
        };
        let stored = batch.store();
        self.on_batch(stored)
    }

    /// Takes in what other threads have stored.
    pub(super) fn on_stored(&mut self) {
        while let Some(stored) = self.workers.as_mut().and_then(|workers| workers.poll()) {
            let buffer = self.on_batch(stored);
            self.recycle(buffer);
        }
    }

    fn on_batch(&mut self, stored: Stored) -> Option<Vec<u8>> {
        let Stored { torrent: at, buffer, leaves, error } = stored;
        for (block, leaf) in leaves {
            let Some(torrent) = &mut self.torrents[at] else { break };
            if let Some(verdict) = torrent.block_stored(block, leaf) {
                self.feed(at, verdict);
            } else if let Some((unit, _)) = torrent.geometry.locate(block)
                && let Some(learned) = torrent.learn_from_blocks(unit)
            {
                self.feed(at, learned);
            }
        }
        if let Some(error) = error {
            self.fail(at, error);
        }
        Some(buffer)
    }

    /// Storage does not take the bytes: the torrent ends, with its reason.
    pub(super) fn fail(&mut self, at: usize, error: StorageError) {
        self.tell(at, TorrentEvent::Failed(error));
        self.drop_torrent(at);
    }

    fn on_message(&mut self, token: usize, at: usize, key: PeerKey, message: Message) {
        match message {
            Message::Extended { id: 0, payload } => {
                self.on_extended_handshake(token, at, key, &payload);
            }
            Message::HashRequest(range) => {
                let Some(torrent) = &mut self.torrents[at] else { return };
                let answer = torrent.answer(&range);
                if let Some(connection) = &mut self.connections[token] {
                    connection.send(&answer);
                    self.mark_dirty(token);
                }
            }
            Message::Hashes(range, hashes) => self.on_hashes(at, key, &range, Some(&hashes)),
            Message::HashReject(range) => self.on_hashes(at, key, &range, None),
            Message::Extended { id, payload } => self.on_extended(token, id, &payload),
            message => self.feed(at, Input::Message { peer: key, message }),
        }
    }

    fn on_hashes(
        &mut self,
        at: usize,
        key: PeerKey,
        range: &torrent::wire::HashRange,
        hashes: Option<&[[u8; 32]]>,
    ) {
        let Some(torrent) = &mut self.torrents[at] else { return };
        for input in torrent.on_hashes(key, range, hashes) {
            self.feed(at, input);
        }
    }

    fn on_extended_handshake(&mut self, token: usize, at: usize, key: PeerKey, payload: &[u8]) {
        let handshake = match ExtendedHandshake::decode(payload) {
            Ok(handshake) => handshake,
            Err(error) => {
                tracing::debug!(%error, "an extended handshake that is no bencode");
                self.lose(token);
                return;
            }
        };
        let Some(connection) = &mut self.connections[token] else { return };
        connection.ids.update(&handshake);
        let again = std::mem::replace(&mut connection.extended, true);
        // Where it listens, so that it can be told to others and not be dialled twice.
        if connection.direction == Direction::Incoming
            && let Some(port) = handshake.port
        {
            connection.listens_on = Some(std::net::SocketAddr::new(connection.addr.ip(), port));
        }
        if !again {
            self.start_pex(token, at);
            self.feed(
                at,
                Input::ExtendedHandshake {
                    peer: key,
                    unit_len: handshake.unit_len,
                    request_queue_len: handshake.request_queue_len,
                    upload_only: handshake.upload_only,
                },
            );
        }
    }

    /// A verdict that had been bad once can be judged now.
    pub(super) fn after_verdict(&mut self, at: usize, input: &Input) {
        if let Input::Verified { unit, verdict: Verdict::Good } = *input
            && let Some(torrent) = &mut self.torrents[at]
            && let Some(judged) = torrent.judge_by_success(unit)
        {
            torrent.swarm.handle(self.now, judged);
        }
    }
}
