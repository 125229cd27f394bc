//! Peers that went quiet: dead without a word, unplugged, or too slow to wait for.
//!
//! TCP takes minutes to say that a peer has lost its power. Here the clock is what the peer itself
//! has shown: one that has requests outstanding and sends nothing for several of its usual
//! intervals has its requests taken back and given to others, and may hold a single one until it
//! delivers again. A slow node so becomes a leaf that holds nobody back. One that has said nothing
//! at all since then is given up.

use std::time::Duration;

use super::Swarm;
use super::io::{CloseReason, PeerKey};
use super::peer::Peer;
use crate::time::Time;

/// No stall is shorter: two scheduling hiccups of a busy machine and a lost packet (200 ms is the
/// least that Linux waits before it sends one again, but then duplicates tell it much sooner).
const STALL_MIN: Duration = Duration::from_millis(150);

/// Unit times at our own rate, and usual intervals of the peer, that are waited for.
const UNIT_TIMES: u32 = 8;
const INTERVALS: u32 = 4;

/// Silence that ends a connection which owes us something: long enough for three retransmissions of
/// a live peer, short enough that its place is taken within two seconds.
const DEAD: Duration = Duration::from_millis(1500);

/// Silence that ends any connection; BEP 3 peers send a keep-alive each two minutes.
const IDLE_MAX: Duration = Duration::from_secs(150);

impl Swarm {
    pub(super) fn check_stalls(&mut self, now: Time) {
        let unit_time = self
            .download_rate
            .time_for(u64::from(self.geometry.unit_len()))
            .unwrap_or_default()
            .min(Duration::from_secs(1));
        let patience = STALL_MIN.max(unit_time * UNIT_TIMES);
        let alone = self.slots.len() <= 1;
        let mut stalled: Vec<PeerKey> = vec![];
        let mut dead: Vec<PeerKey> = vec![];
        for peer in self.peers() {
            let silent = now - peer.heard_at;
            if silent > IDLE_MAX || (!alone && silent > DEAD && peer.owes()) {
                dead.push(peer.key);
            } else if !peer.outstanding.is_empty()
                && peer.strikes == 0
                && now - peer.progress_at > patience + peer.block_interval * INTERVALS
            {
                stalled.push(peer.key);
            }
        }
        for key in stalled {
            self.release_requests(key, true);
            if let Some(peer) = self.peer_mut(key) {
                peer.strikes = 1;
                peer.block_interval = (peer.block_interval * 2).max(now - peer.progress_at);
                peer.progress_at = now;
            }
        }
        for key in dead {
            self.close(key, CloseReason::Stalled);
        }
    }
}

impl Peer {
    /// It has something to answer, or to acknowledge.
    fn owes(&self) -> bool {
        !self.outstanding.is_empty() || self.strikes > 0 || self.in_flight > 0
    }
}
