//! Whom to serve next: the peer that has least.
//!
//! Nobody is choked and there are no slots. Whenever less than a few milliseconds' worth of data
//! waits in this machine, one block is handed to the socket of the requester that has the fewest
//! units, round robin among equals. In simulation this is worth nothing while all is well (any
//! order ends within 0.2 %) and nearly everything when it is not: with a quarter of the nodes dead
//! a plain round robin leaves the nodes that lost neighbours at 1.17 × the limit, this at 1.03.
//!
//! Little is committed because what is committed can no longer be overtaken, by a poorer peer or by
//! a `have`; enough is committed that the link does not run dry before we are awake again.

use std::time::Duration;

use super::Swarm;
use super::io::{Input, Output, PeerKey, Urgency, VerifiedBlock};
use super::peer::{Peer, REQUEST_QUEUE_MAX};
use crate::geometry::{BLOCK_LEN, Block};
use crate::time::Time;
use crate::wire::Message;

/// What is committed to sockets, as time at the measured upload rate, for each block that is committed
/// at least: the later the driver learns that blocks have left, the more must be on their way.
const COMMIT_HORIZON: Duration = Duration::from_millis(1);

/// What is committed before the rate is known doubles up to here each time that it did not last
/// until we were awake again: 2 ms at 2 GB/s.
const COMMIT_FLOOR_MAX: u64 = 4 << 20;

/// Blocks that one connection may hold unacknowledged, at least: a receiver that is slow or dead holds
/// up these and no more. Three quarters of what is committed at least; on a link that needs more to
/// be committed, twice that.
const IN_FLIGHT_MIN: u32 = 4;

/// Peers within this many units of one another are equal: finer steps only make one neighbour wait
/// for the difference of a single `have` that is still on its way.
const DEPRIVED_STEP: u32 = 16;

/// A socket that has not taken our block for this long does not count as busy any more: its peer is
/// dead or slow, and the link is free for others.
const STUCK: Duration = Duration::from_millis(60);

/// The longest request that we serve. BEP 3 clients ask for 16 KiB; some old ones for 32 or 128.
const REQUEST_LEN_MAX: u32 = 128 * 1024;

impl Swarm {
    pub(super) fn on_request(&mut self, key: PeerKey, block: Block) {
        let now = self.now;
        let verified = self.verify_range(block);
        let Some(peer) = self.peer_mut(key) else {
            return;
        };
        let full = peer.queue.len() >= REQUEST_QUEUE_MAX;
        match verified {
            Some(_) if !full => {
                if !peer.queue.contains(&block) {
                    if peer.queue.is_empty() && peer.in_flight == 0 {
                        // While it does not take what it asked for before, asking is not enough.
                        peer.moved_at = now;
                    }
                    peer.queue.push_back(block);
                    self.may_serve = true;
                }
            }
            _ => {
                if peer.traits.fast {
                    self.send(key, Message::Reject(block));
                }
                self.reveal_refused(key, block);
            }
        }
    }

    pub(super) fn on_cancel(&mut self, key: PeerKey, block: Block) {
        let Some(peer) = self.peer_mut(key) else {
            return;
        };
        let Some(at) = peer.queue.iter().position(|queued| *queued == block) else {
            return;
        };
        peer.queue.remove(at);
        // BEP 6: each request is answered by a piece or a reject. Our own peers have forgotten the
        // request when they cancel it and are spared the packet.
        if peer.traits.fast && !peer.traits.own {
            self.send(key, Message::Reject(block));
        }
        self.forget_reveal(key, block);
    }

    pub(super) fn on_block_sent(&mut self, now: Time, input: &Input) {
        match *input {
            Input::BlockSent { peer: key, len } => {
                self.upload_rate.add(u64::from(len));
                let len = u64::from(len);
                if let Some(peer) = self.peer_mut(key) {
                    let len = len.min(peer.unsent);
                    peer.unsent -= len;
                    peer.unsent_since = now;
                    self.unsent -= len;
                }
            }
            Input::BlockDelivered { peer: key } => {
                if let Some(peer) = self.peer_mut(key) {
                    peer.in_flight = peer.in_flight.saturating_sub(1);
                    peer.moved_at = now;
                }
            }
            _ => {}
        }
        self.may_serve = true;
    }

    /// Commits blocks to sockets until enough is committed or nobody can be served.
    pub(super) fn serve(&mut self, now: Time) {
        if self.commit_was_full && self.unsent == 0 {
            // All of it left before we were awake again: the link ran dry.
            self.commit_floor = (self.commit_floor * 2).min(COMMIT_FLOOR_MAX);
        }
        let target = self.commit_target();
        let in_flight_max = match (target / u64::from(BLOCK_LEN)) as u32 {
            blocks if target > self.commit_min => blocks * 2,
            blocks => IN_FLIGHT_MIN.max(blocks * 3 / 4),
        };
        loop {
            let busy = self.busy_unsent(now);
            self.commit_was_full = busy >= target;
            if self.commit_was_full {
                return;
            }
            let mut next = self.most_deprived(in_flight_max);
            if next.is_none() && busy == 0 && self.upload_rate.bytes_per_s() < 1.0 {
                // The link idles and its rate is not known yet. Four blocks a round trip would be
                // all that is ever measured of a fast one.
                next = self.most_deprived(u32::MAX);
            }
            let Some(key) = next else { return };
            self.commit(now, key);
        }
    }

    /// Bytes that should be committed to sockets.
    fn commit_target(&self) -> u64 {
        let blocks = (self.commit_min / u64::from(BLOCK_LEN)) as u32;
        self.commit_floor.max(self.upload_rate.over(COMMIT_HORIZON * blocks))
    }

    /// Forgets slowly that the link once ran dry; called at each tick.
    pub(super) fn lower_commit_floor(&mut self) {
        self.commit_floor = self.commit_min.max(self.commit_floor - self.commit_floor / 8);
    }

    /// Bytes committed to sockets that move.
    fn busy_unsent(&self, now: Time) -> u64 {
        if self.unsent < self.commit_min {
            return self.unsent;
        }
        self.peers().filter(|peer| now - peer.unsent_since < STUCK).map(|peer| peer.unsent).sum()
    }

    fn most_deprived(&self, in_flight_max: u32) -> Option<PeerKey> {
        self.peers()
            .filter(|peer| !peer.queue.is_empty() && peer.in_flight < in_flight_max)
            .min_by_key(|peer| {
                // A seed has chosen already when it showed the unit. Serving the poorest first, it
                // would serve nobody else while there is a latecomer, or a liar that all others
                // have banned.
                let units = if peer.revealed_to { 0 } else { peer.have.count() };
                (units / DEPRIVED_STEP, peer.served_at)
            })
            .map(|peer| peer.key)
    }

    fn commit(&mut self, now: Time, key: PeerKey) {
        self.serves += 1;
        let serves = self.serves;
        let Some(peer) = self.peer_mut(key) else {
            return;
        };
        let Some(block) = peer.queue.pop_front() else {
            return;
        };
        if peer.unsent == 0 {
            peer.unsent_since = now;
        }
        peer.served_at = serves;
        peer.unsent += u64::from(block.len);
        peer.in_flight += 1;
        self.unsent += u64::from(block.len);
        // Only what has been verified can be in a queue: `on_request` let it in, and nothing that
        // was verified is ever lost.
        if let Some(verified) = self.verify_range(block) {
            self.uploaded += u64::from(block.len);
            self.tell_news_to(key, Urgency::Lazy);
            self.out.push_back(Output::SendBlock { peer: key, block: verified });
        }
        self.reveal_sent(now, key, block);
    }

    /// The range as one that may be read for upload, if every byte of it is verified.
    fn verify_range(&self, block: Block) -> Option<VerifiedBlock> {
        let end = block.offset.checked_add(block.len)?;
        if block.len == 0 || block.len > REQUEST_LEN_MAX || end > self.geometry.piece_len() {
            return None;
        }
        let first = self.geometry.unit_at(block.piece, block.offset)?;
        let last = self.geometry.unit_at(block.piece, end - 1)?;
        (first.get()..=last.get())
            .all(|unit| self.picker.have().contains(unit))
            .then_some(VerifiedBlock(block))
    }

    /// Takes a leaving peer's share out of what is committed.
    pub(super) fn forget_unsent(&mut self, peer: &Peer) {
        self.unsent -= peer.unsent;
        self.may_serve = true;
    }
}
