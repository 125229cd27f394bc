//! Who keeps the table of connections (`places`), for all doors of the web server together: gives places,
//! lets go of who has to go, counts, and says once a minute what is happening.

use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::body::Bytes;
use serde::Serialize;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::places::{BOUNDS, Id, Places, Rank};
use super::purse::{Grant, Purse};
use crate::fleet::Standings;

/// How often it is said that connections are let go of: who attacks must not fill the log.
const SAY_INTERVAL: Duration = Duration::from_secs(60);

/// Bytes for the kernel's buffers of connections that are quick; the slow ones have `moving::BUFFER_LEN`
/// each. It is the kernel's memory, and counts for a service's limit all the same. Sixteen connections can
/// have a buffer that grows to what the kernel allows, 4 MiB: 64 MiB, if their peers never acknowledge anything.
const BUFFERS_LEN_MAX: usize = 32 << 20;

/// Answers up to this length are not counted together: as many as there are connections fit into 64 MiB.
const SMALL_LEN: usize = 16 << 10;

/// The table and who looks after it; a copy is another reference.
#[derive(Clone)]
pub(crate) struct Keeper(Arc<Inner>);

struct Inner {
    places: Mutex<Places<oneshot::Sender<()>>>,
    rank: Box<dyn Fn(IpAddr) -> Rank + Send + Sync>,
    begun: Instant,
    buffers: Purse,
    displaced: AtomicU64,
    refused: AtomicU64,
    slow: AtomicU64,
    /// Bytes of answers that are in this program for their readers.
    held_len: AtomicUsize,
    said: Mutex<Said>,
}

/// What was said of connections that were let go of.
#[derive(Debug, Default)]
struct Said {
    at: Option<Duration>,
    /// How many had been let go of then.
    count: u64,
}

/// How connections come and go.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct DoorCounts {
    /// Connections now.
    pub(crate) connection_count: usize,
    /// Connections that were cut off to make room for others.
    pub(crate) displaced_count: u64,
    /// Connections that found no place.
    pub(crate) refused_connection_count: u64,
    /// Connections that were cut off because their peers took too few bytes.
    pub(crate) slow_count: u64,
    /// Bytes of answers in memory whose readers have not taken them.
    pub(crate) held_bytes: usize,
}

/// The place of a connection, which ends with it.
pub(super) struct Seat {
    keeper: Keeper,
    id: Id,
}

/// Resolves when a connection has to go.
pub(super) type Cut = oneshot::Receiver<()>;

impl fmt::Debug for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.id.fmt(f)
    }
}

impl Keeper {
    /// Of a server with the address `own`; `standings` says whom to prefer.
    pub(crate) fn new(own: IpAddr, standings: Standings) -> Self {
        let rank = move |source: IpAddr| match source.is_loopback() || source == own {
            true => Rank::Own,
            false => Rank::Of(standings(source)),
        };
        Self(Arc::new(Inner {
            places: Mutex::new(Places::new(BOUNDS)),
            rank: Box::new(rank),
            begun: Instant::now(),
            buffers: Purse::new(BUFFERS_LEN_MAX),
            displaced: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            slow: AtomicU64::new(0),
            held_len: AtomicUsize::new(0),
            said: Mutex::default(),
        }))
    }

    /// A place for a connection from `source`, if it is worth one.
    pub(super) fn enter(&self, source: IpAddr) -> Option<(Arc<Seat>, Cut)> {
        let rank = (self.0.rank)(source);
        let (cut, is_cut) = oneshot::channel();
        let entry = self.places().enter(self.now_s(), source, rank, cut);
        self.0.displaced.fetch_add(entry.displaced.len() as u64, Ordering::Relaxed);
        if entry.id.is_none() {
            self.0.refused.fetch_add(1, Ordering::Relaxed);
        }
        if entry.id.is_none() || !entry.displaced.is_empty() {
            self.say();
        }
        Some((Arc::new(Seat { keeper: self.clone(), id: entry.id? }), is_cut))
    }

    pub(crate) fn counts(&self) -> DoorCounts {
        DoorCounts {
            connection_count: self.places().count(),
            displaced_count: self.0.displaced.load(Ordering::Relaxed),
            refused_connection_count: self.0.refused.load(Ordering::Relaxed),
            slow_count: self.0.slow.load(Ordering::Relaxed),
            held_bytes: self.0.held_len.load(Ordering::Relaxed),
        }
    }

    fn say(&self) {
        let inner = &self.0;
        let count = inner.displaced.load(Ordering::Relaxed) + inner.refused.load(Ordering::Relaxed);
        let news = {
            let mut said = inner.said.lock().unwrap_or_else(PoisonError::into_inner);
            said.news(inner.begun.elapsed(), count)
        };
        let Some(news) = news else { return };
        let fullest = self.places().fullest();
        let from = fullest.map_or_else(String::new, |(network, open)| {
            format!("; most of those that are open come from {network} ({open})")
        });
        tracing::warn!(
            target: "HTTP",
            "too many connections: {news} of those that did least were closed, or not taken{from}",
        );
    }

    fn places(&self) -> MutexGuard<'_, Places<oneshot::Sender<()>>> {
        self.0.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_s(&self) -> f64 {
        self.0.begun.elapsed().as_secs_f64()
    }
}

impl Said {
    /// How many were let go of since it was said last, if it is time to say it.
    fn news(&mut self, now: Duration, count: u64) -> Option<u64> {
        if self.at.is_some_and(|at| now.saturating_sub(at) < SAY_INTERVAL) {
            return None;
        }
        let news = count.saturating_sub(self.count);
        *self = Self { at: Some(now), count };
        (news > 0).then_some(news)
    }
}

impl Seat {
    /// The peer has taken so many bytes.
    pub(super) fn moved(&self, len: usize) {
        self.keeper.places().moved(self.keeper.now_s(), self.id, len);
    }

    /// The peer is somebody who may command.
    pub(super) fn trust(&self) {
        self.keeper.places().raise(self.id, Rank::Trusted);
    }

    /// The peer took too few bytes.
    pub(super) fn is_slow(&self) {
        self.keeper.0.slow.fetch_add(1, Ordering::Relaxed);
    }

    /// For the kernel's buffer.
    pub(super) fn buffer(&self) -> Grant {
        self.keeper.0.buffers.grant()
    }

    /// Bytes on their way to the peer, counted until it has taken them. Those that have a bound elsewhere, as
    /// files have, leave nobody without room.
    pub(super) fn hold(self: &Arc<Self>, bytes: Bytes, are_bounded: bool) -> Bytes {
        let len = bytes.len();
        let is_counted = !are_bounded && len > SMALL_LEN;
        self.keeper.0.held_len.fetch_add(len, Ordering::Relaxed);
        if is_counted {
            let displaced = self.keeper.places().hold(self.id, len);
            if !displaced.is_empty() {
                self.keeper.0.displaced.fetch_add(displaced.len() as u64, Ordering::Relaxed);
                self.keeper.say();
            }
        }
        Bytes::from_owner(Held { bytes, seat: Arc::clone(self), is_counted })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let left = self.keeper.places().leave(self.id);
        drop(left);
    }
}

/// Bytes that are counted.
struct Held {
    bytes: Bytes,
    seat: Arc<Seat>,
    is_counted: bool,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.seat.keeper.0.held_len.fetch_sub(self.bytes.len(), Ordering::Relaxed);
        if self.is_counted {
            self.seat.keeper.places().release(self.seat.id, self.bytes.len());
        }
    }
}

#[cfg(test)]
impl Keeper {
    /// For whom everybody but this machine is a stranger.
    pub(crate) fn for_tests() -> Self {
        Self::new(IpAddr::from([10, 0, 0, 1]), crate::fleet::strangers())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happens_is_said_once_a_minute_with_all_that_came_in_between() {
        let mut said = Said::default();
        let at = Duration::from_secs;
        assert_eq!(said.news(at(10), 1), Some(1));
        assert_eq!(said.news(at(11), 500), None);
        assert_eq!(said.news(at(69), 900), None);
        assert_eq!(said.news(at(70), 1_001), Some(1_000));
    }

    #[tokio::test]
    async fn who_has_to_go_is_told_and_its_place_is_free() {
        let keeper = Keeper::for_tests();
        let peer = IpAddr::from([10, 0, 0, 2]);
        let mut seats: Vec<_> = (0..BOUNDS.of_address).filter_map(|_| keeper.enter(peer)).collect();
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(1)).await;
        let newcomer = keeper.enter(peer).unwrap();
        let (first, is_cut) = seats.remove(0);
        assert!(is_cut.await.is_err());
        assert_eq!(keeper.counts().displaced_count, 1);
        drop((first, newcomer, seats));
        assert_eq!(keeper.counts().connection_count, 0);
    }

    #[test]
    fn bytes_count_until_they_are_gone() {
        let keeper = Keeper::for_tests();
        let (seat, _cut) = keeper.enter([10, 0, 0, 2].into()).unwrap();
        let bytes = seat.hold(Bytes::from(vec![0; 1 << 20]), false);
        let part = bytes.slice(10..20);
        drop(bytes);
        assert_eq!(keeper.counts().held_bytes, 1 << 20);
        drop(part);
        assert_eq!(keeper.counts().held_bytes, 0);
    }
}
