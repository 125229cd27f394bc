//! The endpoint that a branch sends to now.

use super::pace::Pace;
use super::{CONNECT_TIMEOUT, Config, HELLO_TIMEOUT, OLD_REPORT_TIMEOUT, OLD_STALL_TIMEOUT};
use crate::Time;
use crate::header::Destination;

/// How far the connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Connecting,
    /// The header is sent; where to begin is not known.
    Greeting,
    Streaming,
}

#[derive(Debug)]
pub(super) struct Child {
    pub(super) destination: Destination,
    /// It may hold a part from another predecessor.
    pub(super) was_behind: bool,
    pub(super) phase: Phase,
    /// Beginning of the phase.
    pub(super) since: Time,
    /// It has said something that only ours say.
    pub(super) is_own: bool,
    /// Of the payload, handed to the kernel.
    pub(super) sent: u64,
    pub(super) has_footer: bool,
    /// It has stored so much.
    pub(super) received: u64,
    pub(super) heard_at: Time,
    /// When it last took something, or had nothing to take.
    moved_at: Time,
    pub(super) pace: Pace,
}

impl Child {
    pub(super) fn new(destination: Destination, was_behind: bool, now: Time) -> Self {
        Self {
            destination,
            was_behind,
            phase: Phase::Connecting,
            since: now,
            is_own: false,
            sent: 0,
            has_footer: false,
            received: 0,
            heard_at: now,
            moved_at: now,
            pace: Pace::default(),
        }
    }

    pub(super) fn start(&mut self, offset: u64, is_own: bool, now: Time) {
        self.phase = Phase::Streaming;
        self.since = now;
        self.is_own = is_own;
        self.sent = offset;
        self.received = offset;
        self.heard_at = now;
        self.moved_at = now;
        self.pace = Pace::default();
    }

    pub(super) fn on_sent(&mut self, len: u64, now: Time) {
        // Nothing was on the way, so until now there was nothing that it could have taken.
        if self.is_own && self.sent == self.received {
            self.moved_at = now;
        }
        self.sent += len;
        if !self.is_own {
            self.received = self.sent;
            self.moved_at = now;
        }
    }

    pub(super) fn on_footer_sent(&mut self, now: Time) {
        self.has_footer = true;
        self.moved_at = now;
    }

    pub(super) fn on_beat(&mut self, received: u64, now: Time) {
        self.is_own = true;
        if received > self.received || received >= self.sent {
            self.moved_at = now;
        }
        self.received = self.received.max(received);
    }

    /// All that it has time for begins now.
    pub(super) fn begin_anew(&mut self, now: Time) {
        (self.since, self.heard_at, self.moved_at) = (now, now, now);
    }

    /// When it counts as lost unless something happens.
    pub(super) fn deadline(&self, config: &Config, stored: u64) -> Time {
        match self.phase {
            Phase::Connecting => self.since + CONNECT_TIMEOUT,
            Phase::Greeting => self.since + HELLO_TIMEOUT,
            Phase::Streaming if self.is_own => {
                let silent = self.heard_at + config.stall;
                let owes = self.sent > self.received;
                if owes { silent.min(self.moved_at + config.stall) } else { silent }
            }
            Phase::Streaming if self.has_footer => self.moved_at + OLD_REPORT_TIMEOUT,
            Phase::Streaming if stored > self.sent => self.moved_at + OLD_STALL_TIMEOUT,
            // Nothing to send to it: whoever sends to us is watched by another.
            Phase::Streaming => Time::MAX,
        }
    }
}
