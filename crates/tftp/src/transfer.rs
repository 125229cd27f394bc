//! One transfer: what to send when an acknowledgement comes, and when none does.
//!
//! **Lock-step.** A block is sent once its forerunner is acknowledged. An acknowledgement that comes
//! twice sends nothing: if it did, every packet from then on would travel twice (the "Sorcerer's
//! Apprentice", RFC 1123 §4.2.3.1). Only our own timer sends a block again.
//!
//! **Windows** (RFC 7440). The node acknowledges the last block of a window, or, where it notices a
//! gap, the last block before it; then we begin again behind that one. That is an acknowledgement
//! which sends blocks again, so the Apprentice needs another answer here:
//! - One that comes sooner than the shortest round trip so far after those blocks were last sent
//!   cannot speak of them. It moves the window on, it does not turn it back.
//! - Once turned back, acknowledgements that bring nothing new are passed over until one comes for a
//!   block that was never sent before: they may answer copies.
//!
//! Whatever is lost beyond that, the timer repairs.

use std::time::Duration;

use crate::options::{BLKSIZE_DEFAULT, Options};
use crate::time::Time;
use crate::window::Window;

/// How long a node may bring nothing new before it is given up: longer than any firmware waits
/// before it asks anew.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// How often the first answer is sent again unasked: once, for the packet that a network loses now and
/// then. Firmware that has not heard it asks again and is answered again, and whoever forges requests
/// has two packets for each sent to a third party, not one every few seconds for as long as we wait.
const FIRST_REPEATS_MAX: u32 = 1;

/// Before a round trip is known (RFC 6298 §2.1).
const INTERVAL_FIRST: Duration = Duration::from_secs(1);

/// The shortest interval, that of Linux's TCP: firmware may be busy for tens of milliseconds, and
/// on a network that never loses a packet every repetition is waste.
const INTERVAL_MIN: Duration = Duration::from_millis(200);

/// The longest interval, so that a node whose cable was out for ten seconds goes on soon after.
const INTERVAL_MAX: Duration = Duration::from_secs(5);

/// What a transfer wants done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Step {
    /// Nothing, until something happens.
    Nothing,
    /// Tell the node which options hold (OACK).
    Agree(Options),
    /// Send blocks.
    Send(Window),
    /// Nothing any more: the node has it all.
    Complete,
    /// Nothing any more: the node is silent.
    GiveUp,
}

/// A file on its way to a node.
#[derive(Clone, Debug)]
pub struct Transfer {
    file_len: u64,
    blksize: u16,
    windowsize: u16,
    options: Options,
    has_options: bool,
    /// Whether the node has yet to acknowledge its options.
    offered: bool,
    /// Blocks 1 to this are acknowledged; as if numbers had no end, as all numbers here.
    acked: u64,
    /// Blocks 1 to this were sent; at most a window more.
    sent: u64,
    /// Turned back when this block was the last one sent.
    recover: Option<u64>,
    /// When the blocks behind `acked` were last sent.
    sent_at: Time,
    /// When something new was last heard.
    progress_at: Time,
    due: Time,
    /// Timeouts in a row.
    backoff: u32,
    clock: RoundTrips,
    /// Whose acknowledgement is timed, and since when: never that of something sent twice (Karn).
    timed: Option<(u64, Time)>,
    resent: u64,
}

/// What round trips have taken (RFC 6298).
#[derive(Clone, Copy, Debug)]
struct RoundTrips {
    shortest: Duration,
    smooth: Option<Duration>,
    variation: Duration,
}

impl Transfer {
    /// Begins to send a file of `file_len` bytes, with the options that hold (see
    /// [`Options::agree`]); with none of them the first block is sent at once (RFC 2347).
    pub fn start(now: Time, file_len: u64, options: Options) -> (Self, Step) {
        let mut transfer = Self {
            file_len,
            blksize: options.blksize.unwrap_or(BLKSIZE_DEFAULT),
            windowsize: options.windowsize.unwrap_or(1).max(1),
            options,
            has_options: !options.is_empty(),
            offered: !options.is_empty(),
            acked: 0,
            sent: 0,
            recover: None,
            sent_at: now,
            progress_at: now,
            due: now,
            backoff: 0,
            clock: RoundTrips { shortest: Duration::MAX, smooth: None, variation: Duration::ZERO },
            timed: None,
            resent: 0,
        };
        let step = if transfer.offered {
            transfer.timed = Some((0, now));
            Step::Agree(options)
        } else {
            transfer.advance(now)
        };
        transfer.rearm(now);
        (transfer, step)
    }

    /// The node acknowledges a block.
    pub fn acknowledged(&mut self, now: Time, block: u16) -> Step {
        if self.offered {
            if block != 0 {
                return Step::Nothing;
            }
            self.offered = false;
            self.progressed(now);
            return self.advance(now);
        }
        // The low bits of `acked` are what the number on the wire counts from.
        let new = u64::from(block.wrapping_sub(self.acked as u16));
        if new > self.sent - self.acked {
            return Step::Nothing;
        }
        if new == 0 {
            let is_loss = self.windowsize > 1 && self.recover.is_none() && self.may_speak(now);
            return if is_loss { self.turn_back(now) } else { Step::Nothing };
        }
        self.acked += new;
        self.progressed(now);
        if self.acked == self.block_count() {
            return Step::Complete;
        }
        if self.recover.is_some_and(|recover| self.acked > recover) {
            self.recover = None;
        }
        if self.acked < self.sent && self.may_speak(now) {
            return self.turn_back(now);
        }
        self.advance(now)
    }

    /// The time that [`Self::due`] named has come.
    pub fn timed_out(&mut self, now: Time) -> Step {
        if now < self.due {
            return Step::Nothing;
        }
        if now.since(self.progress_at) >= self.patience() {
            return Step::GiveUp;
        }
        self.backoff += 1;
        let step = self.again(now);
        self.rearm(now);
        step
    }

    /// The node asks for the same once more, as its first answer was lost.
    pub fn asked_again(&mut self, now: Time) -> Step {
        if self.is_answered() { Step::Nothing } else { self.again(now) }
    }

    /// When [`Self::timed_out`] is to be called.
    #[must_use]
    pub const fn due(&self) -> Time {
        self.due
    }

    /// Whether the node has acknowledged anything.
    #[must_use]
    pub const fn is_answered(&self) -> bool {
        !self.offered && (self.acked > 0 || self.has_options)
    }

    /// When the node last acknowledged something new, or the start.
    #[must_use]
    pub const fn progress_at(&self) -> Time {
        self.progress_at
    }

    /// Bytes that the node has acknowledged.
    #[must_use]
    pub fn acked_len(&self) -> u64 {
        (self.acked * u64::from(self.blksize)).min(self.file_len)
    }

    /// Length of the file in bytes.
    #[must_use]
    pub const fn file_len(&self) -> u64 {
        self.file_len
    }

    /// Whether every block is acknowledged but those of the last window: some firmware turns away
    /// with the last block in its hands.
    #[must_use]
    pub fn is_all_sent(&self) -> bool {
        self.sent == self.block_count()
    }

    /// Blocks that were sent more than once.
    #[must_use]
    pub const fn resent_count(&self) -> u64 {
        self.resent
    }

    /// What holds.
    #[must_use]
    pub const fn options(&self) -> &Options {
        &self.options
    }

    /// The last block is always shorter than the others, if need be empty.
    fn block_count(&self) -> u64 {
        self.file_len / u64::from(self.blksize) + 1
    }

    /// Notes that something new was heard; `acked` is as it says.
    fn progressed(&mut self, now: Time) {
        if let Some((block, at)) = self.timed
            && self.acked >= block
        {
            self.clock.add(now.since(at));
            self.timed = None;
        }
        self.progress_at = now;
        self.backoff = 0;
        self.rearm(now);
    }

    /// Whether an acknowledgement that comes now can be about the blocks that are under way.
    fn may_speak(&self, now: Time) -> bool {
        now.since(self.sent_at) >= self.clock.shortest
    }

    /// Sends on, up to a window beyond what is acknowledged.
    fn advance(&mut self, now: Time) -> Step {
        let end = (self.acked + u64::from(self.windowsize)).min(self.block_count());
        if end <= self.sent {
            return Step::Nothing;
        }
        let first = self.sent + 1;
        if self.sent == self.acked {
            self.sent_at = now;
        }
        if self.timed.is_none() && self.recover.is_none() {
            self.timed = Some((end, now));
        }
        self.sent = end;
        // A window has at most as many blocks as a u16 counts.
        let count = (end - first + 1) as u16;
        Step::Send(Window { first, count, blksize: self.blksize, file_len: self.file_len })
    }

    /// Sends once more what is not acknowledged.
    fn turn_back(&mut self, now: Time) -> Step {
        self.recover = Some(self.sent);
        self.timed = None;
        self.resent += self.sent - self.acked;
        self.sent = self.acked;
        self.advance(now)
    }

    fn again(&mut self, now: Time) -> Step {
        self.timed = None;
        if self.offered { Step::Agree(self.options) } else { self.turn_back(now) }
    }

    fn rearm(&mut self, now: Time) {
        let interval = self.options.interval().unwrap_or_else(|| self.clock.interval());
        let longest = INTERVAL_MAX.max(interval);
        self.due = now + interval.saturating_mul(1 << self.backoff.min(8)).min(longest);
        if !self.is_answered() && self.backoff >= FIRST_REPEATS_MAX {
            // Whoever asked may not be who gets the answer.
            self.due = self.progress_at + self.patience();
        }
    }

    fn patience(&self) -> Duration {
        self.options.interval().map_or(PATIENCE, |interval| PATIENCE.max(4 * interval))
    }
}

impl RoundTrips {
    fn add(&mut self, took: Duration) {
        self.shortest = self.shortest.min(took);
        match &mut self.smooth {
            None => {
                self.variation = took / 2;
                self.smooth = Some(took);
            }
            Some(smooth) => {
                self.variation = (3 * self.variation + smooth.abs_diff(took)) / 4;
                *smooth = (7 * *smooth + took) / 8;
            }
        }
    }

    fn interval(&self) -> Duration {
        self.smooth.map_or(INTERVAL_FIRST, |smooth| {
            (smooth + 4 * self.variation).clamp(INTERVAL_MIN, INTERVAL_MAX)
        })
    }
}
