//! What is worth a line of the log: firmware that probes for lengths or tries ten names is not.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tftp::{Event, FileName, Outcome, Refusal};

use crate::line_limit::LineLimit;

/// Writes lines, up to a limit.
#[derive(Debug, Default)]
pub(super) struct Log {
    limit: LineLimit,
}

impl Log {
    /// Writes a line about an event. `now` is the time since the start.
    pub(super) fn event(&self, now: Duration, event: &Event) {
        if !self.has_room(now) {
            return;
        }
        match event {
            Event::Started { peer, name, len, options } => {
                let blksize = options.blksize.unwrap_or(tftp::BLKSIZE_DEFAULT);
                let windowsize = options.windowsize.unwrap_or(1);
                tracing::debug!(node = %ip(peer), file = %name, len, blksize, windowsize, "sending");
            }
            Event::Ended { peer, name, acked_len, resent_count, took, outcome } => {
                ended(ip(peer), name, *acked_len, *resent_count, *took, outcome);
            }
            Event::Refused { peer, name, refusal } => {
                let (node, file, reason) = (ip(peer), name.escape_ascii(), refusal.answer().1);
                // PXELINUX asks for its configuration under a dozen names.
                if *refusal == Refusal::NotFound {
                    tracing::info!(%node, %file, "{reason}");
                } else {
                    tracing::warn!(%node, %file, "refused: {reason}");
                }
            }
            Event::Busy { peer } => {
                tracing::warn!(node = %ip(peer), "too many transfers, the node is refused");
            }
        }
    }

    /// Writes that a packet could not be sent.
    pub(super) fn not_sent(&self, now: Duration, peer: SocketAddr, error: &std::io::Error) {
        if self.has_room(now) {
            tracing::warn!(node = %ip(&peer), %error, "cannot send");
        }
    }

    fn has_room(&self, now: Duration) -> bool {
        self.limit.has_room(now, |count| tracing::warn!(count, "more happened than is logged"))
    }
}

fn ended(node: IpAddr, file: &FileName, len: u64, resent: u64, took: Duration, outcome: &Outcome) {
    let seconds = (took.as_secs_f64() * 1_000.0).round() / 1_000.0;
    match outcome {
        Outcome::Complete => tracing::info!(%node, %file, len, seconds, resent, "sent"),
        Outcome::Unconfirmed => {
            tracing::info!(%node, %file, len, resent, "sent, but the last block is not confirmed");
        }
        Outcome::Probed => tracing::debug!(%node, %file, "told its length"),
        Outcome::Aborted { code, message } => {
            let code = code.number();
            tracing::warn!(%node, %file, len, code, message, "the node breaks off");
        }
        Outcome::Silent => tracing::warn!(%node, %file, len, resent, "the node is silent"),
        Outcome::Displaced => {
            tracing::warn!(%node, %file, len, "another transfer got the place of this one");
        }
        Outcome::Unreadable => tracing::warn!(%node, %file, len, "the file cannot be read"),
    }
}

fn ip(peer: &SocketAddr) -> IpAddr {
    peer.ip().to_canonical()
}
