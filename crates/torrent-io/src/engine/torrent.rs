//! One torrent of an engine: its swarm, its bytes, its hashes.

use std::collections::BTreeMap;
use std::sync::Arc;

use torrent::merkle::{self, Hash};
use torrent::metainfo::{Answer, By, Check, HashesError, PieceHashes};
use torrent::swarm::{Input, PeerKey, Swarm, Verdict, VerifiedBlock};
use torrent::wire::{HashRange, Limits, Message};
use torrent::{Block, Geometry, PieceIndex, UnitIndex};

use super::connection::ReadBlocks;
use super::web::Source;
use super::{TorrentEvent, TorrentId};
use crate::hash;
use crate::storage::{Storage, StorageError};

/// Hash requests that are answered by hashing data that was hashed before, at most so many a second
/// and torrent: each costs us a piece of SHA-256, and costs the peer 53 bytes.
pub(super) const ANSWERS_PER_SECOND_MAX: u32 = 200;

pub(super) struct Torrent {
    pub(super) id: TorrentId,
    pub(super) swarm: Swarm,
    pub(super) storage: Arc<Storage>,
    pub(super) hashes: PieceHashes,
    pub(super) geometry: Geometry,
    pub(super) limits: Limits,
    /// Infohashes that peers may name in a handshake, v1 first, with whether it is the v2 one.
    pub(super) infohashes: Vec<([u8; 20], bool)>,
    pub(super) is_private: bool,
    /// Token of each connection by its number in the swarm.
    pub(super) connections: Vec<Option<usize>>,
    /// Hashes of the blocks of units that are not verified.
    progress: BTreeMap<UnitIndex, Progress>,
    /// Hash requests of ours under way: what was asked of whom and for what.
    asked: Vec<(PeerKey, HashRange, Wanted)>,
    /// Hashes of the blocks of units that failed and whose senders are suspected.
    failed: BTreeMap<UnitIndex, Vec<Hash>>,
    pub(super) answers_left: u32,
    pub(super) web_seeds: Vec<Source>,
    pub(super) events: Box<dyn FnMut(TorrentEvent) + Send>,
}

#[derive(Debug, Default)]
struct Progress {
    leaves: Vec<Option<Hash>>,
    /// The swarm waits for the verdict.
    is_whole: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Units(PieceIndex),
    Judgement(UnitIndex),
}

/// Failed units whose block hashes are kept for a later comparison.
const FAILED_MAX: usize = 64;

impl Torrent {
    #[expect(clippy::too_many_arguments, reason = "a constructor called once")]
    pub(super) fn new(
        id: TorrentId,
        swarm: Swarm,
        storage: Arc<Storage>,
        hashes: PieceHashes,
        geometry: Geometry,
        infohashes: Vec<([u8; 20], bool)>,
        is_private: bool,
        events: Box<dyn FnMut(TorrentEvent) + Send>,
    ) -> Self {
        Self {
            id,
            swarm,
            storage,
            hashes,
            limits: Limits::new(&geometry),
            geometry,
            infohashes,
            is_private,
            connections: vec![],
            progress: BTreeMap::new(),
            asked: vec![],
            failed: BTreeMap::new(),
            answers_left: ANSWERS_PER_SECOND_MAX,
            web_seeds: vec![],
            events,
        }
    }

    pub(super) fn free_key(&mut self, token: usize) -> PeerKey {
        let at = self.connections.iter().position(Option::is_none);
        let at = at.unwrap_or_else(|| {
            self.connections.push(None);
            self.connections.len() - 1
        });
        self.connections[at] = Some(token);
        PeerKey(at as u32)
    }

    pub(super) fn token(&self, key: PeerKey) -> Option<usize> {
        self.connections.get(key.0 as usize).copied().flatten()
    }

    /// Notes the hash of a stored block (v2), or that it is stored (v1). Gives the verdict on its
    /// unit if that was waited for.
    pub(super) fn block_stored(&mut self, block: Block, leaf: Hash) -> Option<Input> {
        let (unit, index) = self.geometry.locate(block)?;
        let count = self.geometry.block_count(unit) as usize;
        let progress = self.progress.entry(unit).or_default();
        progress.leaves.resize(count, None);
        progress.leaves[index as usize] = Some(leaf);
        self.verdict(unit)
    }

    /// The swarm wants a verdict on a unit: gives it, if all its blocks are hashed.
    pub(super) fn unit_is_whole(&mut self, unit: UnitIndex) -> Option<Input> {
        self.progress.entry(unit).or_default().is_whole = true;
        self.verdict(unit)
    }

    fn verdict(&mut self, unit: UnitIndex) -> Option<Input> {
        let progress = self.progress.get(&unit).filter(|progress| progress.is_whole)?;
        let count = self.geometry.block_count(unit) as usize;
        let leaves: Vec<Hash> = progress.leaves.iter().copied().collect::<Option<_>>()?;
        if leaves.len() < count {
            return None;
        }
        self.progress.remove(&unit);
        let check = if self.hashes.has_v2() {
            self.hashes.verify_unit(unit, &leaves)
        } else {
            self.check_v1(unit)
        };
        let verdict = if check == Check::Good { Verdict::Good } else { Verdict::Corrupt };
        if verdict == Verdict::Corrupt && self.failed.len() < FAILED_MAX {
            self.failed.insert(unit, leaves.clone());
        }
        Some(Input::Verified { unit, verdict })
    }

    /// After a block of `unit` was stored: if nobody has told the hashes of its piece's units and all
    /// blocks of the piece are here, they follow from the blocks.
    pub(super) fn learn_from_blocks(&mut self, unit: UnitIndex) -> Option<Input> {
        let piece = self.geometry.piece_of(unit);
        if !self.hashes.has_v2() || self.hashes.knows(piece) {
            return None;
        }
        let mut leaves = vec![];
        // Blocks come in order, so the last unit is the one to be missing.
        for unit in self.geometry.units_of(piece).collect::<Vec<_>>().into_iter().rev() {
            if self.geometry.unit_data_len(unit) > 0 {
                let unit_leaves = &self.progress.get(&unit)?.leaves;
                let whole: Vec<Hash> = unit_leaves.iter().copied().collect::<Option<_>>()?;
                leaves.push(whole);
            }
        }
        let leaves: Vec<Hash> = leaves.into_iter().rev().flatten().collect();
        if self.hashes.learn_leaves(piece, &leaves) == Check::Good {
            return Some(Input::HashesKnown { piece });
        }
        for unit in self.geometry.units_of(piece) {
            if let Some(progress) = self.progress.remove(&unit)
                && self.failed.len() < FAILED_MAX
            {
                self.failed.insert(unit, progress.leaves.into_iter().flatten().collect());
            }
        }
        Some(Input::PieceFailed { piece })
    }

    /// With v1 the hash is one over the whole piece, which is read back from the page cache.
    fn check_v1(&self, unit: UnitIndex) -> Check {
        let piece = self.geometry.piece_of(unit);
        let start = u64::from(piece.get()) * u64::from(self.geometry.piece_len());
        let mut data = vec![0; self.geometry.piece_data_len(piece) as usize];
        match self.storage.read(start, &mut data) {
            Ok(()) => self.hashes.verify_piece_v1(piece, &hash::sha1(&data)),
            Err(_) => Check::Corrupt,
        }
    }

    /// After a unit verified that had failed before: the blocks that were wrong then (v1, where no
    /// leaf hashes can be asked for).
    pub(super) fn judge_by_success(&mut self, unit: UnitIndex) -> Option<Input> {
        let wrong = self.failed.remove(&unit)?;
        let right = self.leaves(unit).ok()?;
        let corrupt = (0..right.len() as u32)
            .filter(|&at| wrong.get(at as usize) != right.get(at as usize))
            .collect();
        Some(Input::Judged { unit, corrupt })
    }

    /// Hashes the blocks of a unit from storage.
    fn leaves(&self, unit: UnitIndex) -> Result<Vec<Hash>, StorageError> {
        let mut data = vec![0; self.geometry.unit_data_len(unit) as usize];
        // A unit past the end of the data may lie past the end of the torrent.
        if data.is_empty() {
            return Ok(vec![]);
        }
        let piece = self.geometry.piece_of(unit);
        let start = u64::from(piece.get()) * u64::from(self.geometry.piece_len())
            + u64::from(self.geometry.unit_offset(unit));
        self.storage.read(start, &mut data)?;
        Ok(merkle::hash_blocks(&data))
    }

    /// The messages that ask a peer for the hashes of a piece's units. BEP 52 obliges a client to
    /// tell those of blocks and pieces; only our own peers tell those in between, which are fewer.
    pub(super) fn request_hashes(
        &mut self,
        peer: PeerKey,
        is_own: bool,
        piece: PieceIndex,
    ) -> Vec<Message> {
        let by = if is_own { By::Units } else { By::Blocks };
        let ranges = self.hashes.hash_requests(piece, by);
        self.asked.extend(ranges.iter().map(|range| (peer, *range, Wanted::Units(piece))));
        ranges.into_iter().map(Message::HashRequest).collect()
    }

    /// The message that asks a peer for the hashes of a failed unit's blocks.
    pub(super) fn request_judgement(&mut self, peer: PeerKey, unit: UnitIndex) -> Option<Message> {
        let range = self.hashes.leaf_request(unit)?;
        self.asked.push((peer, range, Wanted::Judgement(unit)));
        Some(Message::HashRequest(range))
    }

    /// A peer has answered, or refused, a hash request.
    pub(super) fn on_hashes(
        &mut self,
        peer: PeerKey,
        range: &HashRange,
        hashes: Option<&[Hash]>,
    ) -> Vec<Input> {
        let asked = self.asked.iter().position(|(asked, r, _)| *asked == peer && r == range);
        let Some(asked) = asked else { return vec![] };
        let (_, _, wanted) = self.asked.swap_remove(asked);
        let piece = match wanted {
            Wanted::Units(piece) => piece,
            Wanted::Judgement(unit) => self.geometry.piece_of(unit),
        };
        let failed = |lied| vec![Input::HashesFailed { peer, piece, lied }];
        let Some(hashes) = hashes else { return failed(false) };
        match wanted {
            Wanted::Units(_) => match self.hashes.learn(range, hashes) {
                Ok(pieces) => {
                    pieces.into_iter().map(|piece| Input::HashesKnown { piece }).collect()
                }
                Err(error) => failed(error == HashesError::NotProved),
            },
            Wanted::Judgement(unit) => {
                let Some(got) = self.failed.remove(&unit) else { return failed(false) };
                match self.hashes.judge(unit, hashes, &got) {
                    Ok(corrupt) => {
                        self.keep_good_leaves(unit, &got, &corrupt);
                        vec![Input::Judged { unit, corrupt }]
                    }
                    Err(_) => failed(true),
                }
            }
        }
    }

    /// Tells who gave how much, if anybody did.
    pub(super) fn tell_sources(&mut self) {
        let sources = self.swarm.sources();
        if !sources.is_empty() {
            (self.events)(TorrentEvent::Sources(sources));
        }
    }

    /// The good blocks of a failed unit stay, and so do their hashes.
    fn keep_good_leaves(&mut self, unit: UnitIndex, got: &[Hash], corrupt: &[u32]) {
        let leaves = (0u32..).zip(got).map(|(at, leaf)| (!corrupt.contains(&at)).then_some(*leaf));
        self.progress.insert(unit, Progress { leaves: leaves.collect(), is_whole: false });
    }

    pub(super) fn forget_asked(&mut self, peer: PeerKey) {
        self.asked.retain(|(asked, ..)| *asked != peer);
    }

    /// The answer to a peer's hash request.
    pub(super) fn answer(&mut self, range: &HashRange) -> Message {
        let reject = Message::HashReject(*range);
        match self.hashes.answer(range) {
            Answer::Hashes(hashes) => Message::Hashes(*range, hashes),
            Answer::Reject => reject,
            Answer::NeedLeaves(run) => {
                let have = run.iter().all(|unit| self.swarm.have().contains(unit.get()));
                let Some(piece) = run.iter().next().map(|unit| self.geometry.piece_of(unit)) else {
                    return reject;
                };
                // A piece is hashed for its first asker and then known, which costs no more than
                // the torrent is long; doing it again is what a stranger must not make us.
                let is_first = !self.hashes.knows(piece);
                if !have || (!is_first && self.answers_left == 0) {
                    return reject;
                }
                self.answers_left -= u32::from(!is_first);
                let mut leaves = vec![];
                for unit in run.iter() {
                    match self.leaves(unit) {
                        Ok(more) => leaves.extend(more),
                        Err(_) => return reject,
                    }
                }
                if is_first {
                    self.hashes.learn_leaves(piece, &leaves);
                }
                match self.hashes.answer_with_leaves(range, run, &leaves) {
                    Some(hashes) => Message::Hashes(*range, hashes),
                    None => reject,
                }
            }
        }
    }
}

/// Reads blocks for upload.
pub(super) struct Reader<'a>(pub(super) &'a Storage);

impl ReadBlocks for Reader<'_> {
    /// A request may reach past the end of the torrent: libtorrent takes the last file of a v2 torrent
    /// for padded like the others and asks for its last block whole. It is given the padding, and
    /// anybody else who asks for it gets zeros too rather than an error, which would end the torrent.
    fn read(&self, first: VerifiedBlock, to: &mut [&mut [u8]]) -> Result<(), StorageError> {
        let layout = self.0.layout();
        let mut left = layout.total_len().saturating_sub(layout.start_of(first.block()));
        let mut stored: Vec<&mut [u8]> = Vec::with_capacity(to.len());
        for bytes in to {
            let len = left.min(bytes.len() as u64);
            let (inside, padding) = bytes.split_at_mut(len as usize);
            padding.fill(0);
            left -= len;
            if !inside.is_empty() {
                stored.push(inside);
            }
        }
        if stored.is_empty() {
            return Ok(());
        }
        self.0.read_run(first.block(), &mut stored)
    }
}
