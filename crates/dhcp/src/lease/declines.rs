//! Addresses that somebody else was found to use.
//!
//! A DECLINE proves nothing: anybody can send one in another's name. It is believed of who was just
//! given the address, under the same client identifier, and only if this server, where it shares a
//! network with the machine, then hears somebody else answer at that address. What is believed
//! without that (behind a relay agent) is little: a few for one machine, an eighth of all addresses.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use super::{Holder, Leases, Rank, Who};
use crate::mac::Mac;
use crate::time::Time;

/// How long an address that somebody else was found to use is left alone.
pub const DECLINE_TIME: Duration = Duration::from_secs(10 * 60);

/// How long after an acknowledgement an address can be declined. RFC 5227 has a machine look for at
/// most 9 s; later ones are not of who was just given it.
pub const DECLINE_WITHIN: Duration = Duration::from_secs(15);

/// How long it is waited for what this server finds; the neighbour table has its answer after 9 s.
pub const DOUBT_TIME: Duration = Duration::from_secs(15);

/// Addresses that are looked at at once; a look costs a datagram and a line of a table. A wrong range
/// makes a room decline about as many as its nodes in the first seconds; who is not heard asks again.
pub const DOUBTS_MAX: usize = 256;

/// DECLINEs of one machine in [`DECLINE_TIME`] that are believed without a look. Even in a range half
/// of which is used by others, more than four in a row are rare.
pub const DECLINES_MAX: u32 = 4;

/// Machines whose DECLINEs are counted; beyond that none more is believed without a look.
pub const DECLINERS_MAX: usize = 1_024;

/// One of so many addresses is left alone at most because somebody says so, and
const SAID_ONE_OF: usize = 8;

/// one of so many because this server saw so. When it is too many the first one is given again, and
/// declined again if need be.
const SEEN_ONE_OF: usize = 2;

/// What is made of a DECLINE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decline {
    /// Nothing: it is not the sender's to decline, or not any more.
    NotBelieved,
    /// The address is looked at.
    Look,
    /// It is left alone.
    LeftAlone,
}

/// What a look found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Looked {
    /// Nobody asked for it any more.
    NotNeeded,
    /// Nobody uses it but who has it: it goes on having it.
    Kept,
    /// Nobody uses it: it can be given.
    Unused,
    /// Somebody else than `mac` does.
    Conflict { mac: Mac },
}

/// How often machines declined lately.
#[derive(Clone, Debug, Default)]
pub(super) struct Decliners(BTreeMap<Mac, (u32, Time)>);

impl Decliners {
    fn may(&mut self, now: Time, mac: Mac) -> bool {
        if self.0.len() >= DECLINERS_MAX {
            self.0.retain(|_, (_, since)| now.since(*since) < DECLINE_TIME);
        }
        if self.0.len() >= DECLINERS_MAX && !self.0.contains_key(&mac) {
            return false;
        }
        let (count, since) = self.0.entry(mac).or_insert((0, now));
        if now.since(*since) >= DECLINE_TIME {
            (*count, *since) = (0, now);
        }
        *count = count.saturating_add(1);
        *count <= DECLINES_MAX
    }
}

impl Leases {
    /// The machine says that another uses its address. `can_look` if this server can see that itself.
    pub(crate) fn decline(
        &mut self,
        now: Time,
        who: Who,
        address: Ipv4Addr,
        can_look: bool,
    ) -> Decline {
        let held = self.held_by(who, address).filter(|held| {
            held.is_given && held.acked > Time::ZERO && now.since(held.acked) <= DECLINE_WITHIN
        });
        let Some(was) = held else {
            return Decline::NotBelieved;
        };
        let doubts = self.holders.values().filter(|one| matches!(one, Holder::Doubted { .. }));
        if can_look && doubts.count() < DOUBTS_MAX {
            self.leave_alone(
                address,
                Holder::Doubted { mac: who.mac, was, until: now + DOUBT_TIME },
            );
            return Decline::Look;
        }
        if !self.decliners.may(now, who.mac) {
            return Decline::NotBelieved;
        }
        self.make_room(SAID_ONE_OF);
        self.leave_alone(address, Holder::Declined { until: now + DECLINE_TIME });
        Decline::LeftAlone
    }

    /// What this server found: whose Ethernet address answers at an address, if any does.
    pub(crate) fn looked(&mut self, now: Time, address: Ipv4Addr, user: Option<Mac>) -> Looked {
        let Some(Holder::Doubted { mac, was, .. }) = self.holders.get(&address).copied() else {
            return Looked::NotNeeded;
        };
        match user {
            None => {
                self.empty(address);
                Looked::Unused
            }
            Some(user) if user == mac => {
                match self.holdings.contains_key(&mac) {
                    true => self.empty(address),
                    false => self.hold(mac, was),
                }
                Looked::Kept
            }
            Some(_) => {
                self.empty(address);
                self.make_room(SEEN_ONE_OF);
                self.leave_alone(address, Holder::Declined { until: now + DECLINE_TIME });
                Looked::Conflict { mac }
            }
        }
    }

    /// So that with one more no more than its share of the addresses is left alone.
    fn make_room(&mut self, one_of: usize) {
        let share = (self.address_count / one_of).max(1);
        while self.order[&Rank::Declined].len() >= share {
            let Some((_, address)) = self.order[&Rank::Declined].first().copied() else {
                return;
            };
            self.empty(address);
        }
    }
}
