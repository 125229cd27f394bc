//! How far whoever listens is behind what DHCP tells. An answer leaves without waiting for them; a node that
//! has its address asks for its script at once, and what it says counts as its own only if its lease is known.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;

/// How long a request waits at most: a hundred times what taking note takes, and less than anybody notices.
const CAUGHT_UP_TIMEOUT: Duration = Duration::from_millis(250);

/// Counts of events.
#[derive(Debug, Default)]
pub(super) struct Heard {
    told_count: AtomicU64,
    noted_count: watch::Sender<u64>,
}

impl Heard {
    /// One was handed to whoever listens.
    pub(super) fn told(&self) {
        self.told_count.fetch_add(1, Ordering::AcqRel);
    }

    /// One was taken note of.
    pub(super) fn noted(&self) {
        self.noted_count.send_modify(|count| *count += 1);
    }

    /// Returns when all is taken note of that was told by now, or after [`CAUGHT_UP_TIMEOUT`].
    pub(super) async fn caught_up(&self) {
        let told_count = self.told_count.load(Ordering::Acquire);
        let mut noted = self.noted_count.subscribe();
        let all = noted.wait_for(|count| *count >= told_count);
        let _ = tokio::time::timeout(CAUGHT_UP_TIMEOUT, all).await;
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_was_told_is_waited_for_and_not_for_ever() {
        let heard = Heard::default();
        heard.caught_up().await;
        heard.told();
        heard.told();
        let mut waiting = pin!(heard.caught_up());
        heard.noted();
        let at_once = tokio::time::timeout(Duration::ZERO, &mut waiting).await;
        assert!(at_once.is_err(), "one is not noted");
        heard.noted();
        waiting.await;
        heard.told();
        let start = tokio::time::Instant::now();
        heard.caught_up().await;
        assert_eq!(start.elapsed(), CAUGHT_UP_TIMEOUT);
    }
}
