//! The receiving half of an endpoint as a state machine: how much has come, from whom it may come,
//! and how long to wait for a new predecessor when the old one is gone.

use std::time::Duration;

use crate::Time;
use crate::report::{FOOTER_LEN_MAX, Footer};

/// How long an endpoint without a predecessor waits for another: 1.5 s until the loss is noticed,
/// and one more dead endpoint on the way to this one.
pub const ORPHAN_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a predecessor may say nothing at all. It has nothing to say while an endpoint before it
/// is being replaced; one that was switched off is found by TCP's keep-alive long before. One that was
/// moved to the end waits without a limit: it may have much more than the slow one before it.
pub const SILENT_TIMEOUT: Duration = Duration::from_secs(60);

/// What is to be read next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// At most so many bytes of the payload.
    Payload(u64),
    /// The footer, until the end of the stream.
    Footer,
    /// Nothing: all is there, or nobody is there to read from.
    Nothing,
}

/// What the end of a stream means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// All is there, and this is what the sender says of it.
    Complete(Footer),
    /// Another predecessor may come.
    Orphan,
    /// Nobody will.
    Lost(String),
    /// Nothing new.
    Known,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Fed { heard_at: Time },
    Orphan { since: Time },
    Complete,
}

/// See the module documentation.
#[derive(Debug)]
pub struct Intake {
    length: u64,
    received: u64,
    footer: Vec<u8>,
    state: State,
    /// Only our own predecessors are replaced.
    can_heal: bool,
    depth: u32,
    is_moved: bool,
}

impl Intake {
    /// A transfer that begins. `depth` is that of the predecessor's header, if it is one of ours.
    pub fn new(length: u64, depth: Option<u32>, now: Time) -> Self {
        Self {
            length,
            received: 0,
            footer: Vec::new(),
            state: State::Fed { heard_at: now },
            can_heal: depth.is_some(),
            depth: depth.unwrap_or(0),
            is_moved: false,
        }
    }

    /// Bytes of the payload that are stored.
    pub const fn received(&self) -> u64 {
        self.received
    }

    /// Whether the whole payload and its footer are there.
    pub const fn is_complete(&self) -> bool {
        matches!(self.state, State::Complete)
    }

    /// What to read.
    pub const fn wants(&self) -> Want {
        match self.state {
            State::Fed { .. } if self.received < self.length => {
                Want::Payload(self.length - self.received)
            }
            State::Fed { .. } => Want::Footer,
            State::Orphan { .. } | State::Complete => Want::Nothing,
        }
    }

    /// Payload came, never more than was wanted.
    pub fn on_payload(&mut self, now: Time, len: u64) {
        assert!(len <= self.length - self.received, "no more is read than is wanted");
        self.received += len;
        self.heard(now);
    }

    /// A piece of the footer came. `false` if it is longer than any footer.
    #[must_use]
    pub fn on_footer(&mut self, now: Time, bytes: &[u8]) -> bool {
        self.footer.extend_from_slice(bytes);
        self.heard(now);
        self.footer.len() <= FOOTER_LEN_MAX
    }

    fn heard(&mut self, now: Time) {
        if let State::Fed { heard_at } = &mut self.state {
            *heard_at = now;
        }
    }

    /// The predecessor has ended its stream, or its connection broke.
    pub fn on_end(&mut self, now: Time) -> End {
        let State::Fed { .. } = self.state else { return End::Known };
        if self.received == self.length
            && let Some(footer) = Footer::decode(&self.footer)
        {
            self.state = State::Complete;
            return End::Complete(footer);
        }
        if self.can_heal {
            self.state = State::Orphan { since: now };
            return End::Orphan;
        }
        End::Lost(self.shortfall())
    }

    fn shortfall(&self) -> String {
        match self.length - self.received {
            0 => "the stream ended without a footer".to_owned(),
            _ => format!("the stream ended after {} of {} bytes", self.received, self.length),
        }
    }

    /// Whether somebody of this depth may feed from now on. While there is a predecessor, one
    /// farther from the origin was cut out and does not know it; unless it says that this endpoint
    /// was moved to the end because it is slow.
    /// A complete one is still heard by its predecessor, until that one's connection breaks: then
    /// `has_predecessor` is false.
    pub const fn admits(&self, depth: u32, is_moved: bool, has_predecessor: bool) -> bool {
        match self.state {
            State::Orphan { .. } => true,
            State::Complete if !has_predecessor => true,
            State::Fed { .. } | State::Complete => {
                depth <= self.depth || (is_moved && !self.is_moved)
            }
        }
    }

    /// Another predecessor feeds from now on.
    pub fn attach(&mut self, now: Time, depth: u32, is_moved: bool) {
        self.depth = depth;
        self.is_moved |= is_moved;
        self.footer.clear();
        if self.state != State::Complete {
            self.state = State::Fed { heard_at: now };
        }
    }

    /// When [`Self::tick`] must be called.
    pub fn next_timeout(&self) -> Option<Time> {
        match self.state {
            State::Fed { .. } if self.is_moved => None,
            State::Fed { heard_at } => Some(heard_at + SILENT_TIMEOUT),
            State::Orphan { since } => Some(since + ORPHAN_TIMEOUT),
            State::Complete => None,
        }
    }

    /// Why it is over, if it is.
    pub fn tick(&self, now: Time) -> Option<String> {
        if self.next_timeout().is_none_or(|at| now < at) {
            return None;
        }
        Some(match self.state {
            State::Fed { .. } => format!("the sender said nothing for {SILENT_TIMEOUT:?}"),
            State::Orphan { .. } | State::Complete => {
                format!("{}, and nobody went on with it", self.shortfall())
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOOTER: &[u8] = br#"{"md5sum": "x"}"#;

    fn at(ms: u64) -> Time {
        Time::from_millis(ms)
    }

    #[test]
    fn a_stream_is_payload_then_footer_then_end() {
        let mut intake = Intake::new(10, None, at(0));
        assert_eq!(intake.wants(), Want::Payload(10));
        intake.on_payload(at(1), 10);
        assert_eq!(intake.wants(), Want::Footer);
        assert!(intake.on_footer(at(2), FOOTER));
        assert!(matches!(intake.on_end(at(3)), End::Complete(_)));
        assert_eq!(intake.wants(), Want::Nothing);
        assert_eq!(intake.next_timeout(), None);
        assert!(!Intake::new(0, None, at(0)).on_footer(at(0), &[b'x'; FOOTER_LEN_MAX + 1]));
    }

    #[test]
    fn a_stream_cut_short_is_lost_or_waits_for_another_predecessor() {
        for (depth, received, expect) in [
            (None, 4, End::Lost("the stream ended after 4 of 10 bytes".to_owned())),
            (None, 10, End::Lost("the stream ended without a footer".to_owned())),
            (Some(3), 4, End::Orphan),
            (Some(3), 10, End::Orphan),
        ] {
            let mut intake = Intake::new(10, depth, at(0));
            intake.on_payload(at(0), received);
            assert_eq!(intake.on_end(at(5)), expect, "{depth:?} {received}");
        }
    }

    #[test]
    fn an_orphan_goes_on_where_it_was_or_gives_up() {
        let mut intake = Intake::new(10, Some(3), at(0));
        intake.on_payload(at(0), 4);
        intake.on_end(at(100));
        assert_eq!(intake.tick(at(5_099)), None);
        assert!(intake.tick(at(5_100)).is_some());
        intake.attach(at(5_099), 2, false);
        assert_eq!(intake.wants(), Want::Payload(6));
        assert_eq!(intake.tick(at(5_100)), None);
    }

    #[test]
    fn who_has_all_is_taken_from_its_predecessor_by_nobody_farther_away() {
        let mut intake = Intake::new(10, Some(4), at(0));
        intake.on_payload(at(0), 10);
        assert!(intake.on_footer(at(0), FOOTER));
        intake.on_end(at(0));
        assert!(intake.is_complete());
        assert!(!intake.admits(5, false, true));
        assert!(intake.admits(3, false, true));
        assert!(intake.admits(5, false, false), "nobody else would hear what it has to report");
    }

    #[test]
    fn who_was_cut_out_may_not_feed_again() {
        let mut intake = Intake::new(10, Some(4), at(0));
        for (depth, slow, expect) in
            [(3, false, true), (4, false, true), (5, false, false), (9, true, true)]
        {
            assert_eq!(intake.admits(depth, slow, true), expect, "{depth} {slow}");
        }
        intake.attach(at(0), 9, true);
        assert!(!intake.admits(10, true, true), "it is moved once");
        assert_eq!(
            intake.tick(at(3_600_000)),
            None,
            "the one before it may have less, and be slow"
        );
        intake.on_end(at(0));
        assert!(intake.admits(10, false, false), "an orphan takes whoever comes");
    }
}
