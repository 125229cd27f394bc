//! Who has to go when all connections are taken.
//!
//! A newcomer gets the place of the peer that has neither asked for a block, nor given nor taken one
//! for longest; keep-alives are not enough. Who waits for us is not idle: a peer that wants what we
//! have and was shown nothing yet, whose requests are queued, or which has something that we want. So
//! the peers of a seed with more of them than places go on as they are as long as blocks move, and
//! whoever found no place gets the blocks from those that did.

use std::net::IpAddr;
use std::time::Duration;

use places::{ADDRESS_SHARE, Admission, Bounds, NETWORK_SHARE, Seat, Standing};

use super::Swarm;
use super::connections::{PEERS_MAX, SEED_PEERS_MAX};
use super::io::{CloseReason, Role};
use super::peer::Peer;
use crate::time::Time;

/// How long a peer may do nothing and keep its place when others want it: three rounds of a client
/// that chokes by BEP 3 (10 s), so that one between two rounds is no idler.
const IDLE_PLACE: Duration = Duration::from_secs(30);

impl Swarm {
    /// Sees to it that there is room for one more; says whether there is.
    pub(super) fn make_room(&mut self, now: Time, address: IpAddr, standing: Standing) -> bool {
        let seats = if self.role == Role::Seed { SEED_PEERS_MAX } else { PEERS_MAX };
        let bounds = Bounds {
            seats,
            of_address: seats / ADDRESS_SHARE,
            of_network: seats / NETWORK_SHARE,
            patience: IDLE_PLACE,
        };
        let taken = self.peers().map(|peer| Seat {
            key: peer.key,
            address: peer.addr.ip(),
            standing: peer.standing,
            idle_since: peer.idle_since(now) - Time::ZERO,
        });
        match places::admit(&bounds, taken, address, standing, now - Time::ZERO) {
            Admission::Free => true,
            Admission::InPlaceOf(key) => {
                self.close(key, CloseReason::Idle);
                true
            }
            Admission::Refused => false,
        }
    }
}

impl Peer {
    /// Since when it has done nothing, though it could: `now` if it waits for us.
    fn idle_since(&self, now: Time) -> Time {
        let has_been_shown = self.reveals_pending.front().map(|pending| pending.at);
        let waits_to_be_shown = self.can_be_shown() && has_been_shown.is_none();
        let waits_to_be_served = !self.queue.is_empty() && self.in_flight == 0;
        let is_asked = self.has_work() && self.strikes == 0 && !self.chokes_us;
        if waits_to_be_shown || waits_to_be_served || is_asked {
            return now;
        }
        self.moved_at.max(has_been_shown.unwrap_or(Time::ZERO))
    }
}
