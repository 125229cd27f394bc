//! The state of a tracker: which peers of which torrents are alive (BEP 3, 48).
//!
//! Not whom to tell of whom; that is `handout.rs`. The driver calls [`Registry::sweep`] every
//! [`SWEEP_INTERVAL`].
//!
//! **Intervals.** While nodes are joining, peers come and go by the second, so those present are
//! asked to confirm themselves every 15 s; a dead one is handed out for 45 s at the most. A minute after the
//! last join nothing is urgent, and a minute is enough. In any case all torrents together get at
//! most [`ANNOUNCES_PER_S`] regular announces: 20 s at 10,000 peers. The shortest interval is 1 s
//! always: a node that lost its neighbours in the middle of a 20 s transfer must be told of others now.
//!
//! **Fresh, stale, gone.** A peer that is silent for twice its interval and some slack is *stale*: it
//! is handed out only when nothing else is left. It is not forgotten at once, since strangers keep
//! to intervals of their own (libtorrent announces every 5 minutes whatever it is told), and a lab's
//! only seed must not vanish between two announces. After [`GONE`] it is.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use places::Standing;

use super::handout::{HANDOUT, Has, Peer, Roster};
use super::rng::Rng;
use super::{AnnounceRequest, AnnounceResponse, Event, ResponsePeer, ScrapeStats};
use crate::Time;

/// How often [`Registry::sweep`] is due. Expiry is 45 s or more, so a second more is no harm, and a
/// sweep of [`PEERS_MAX`] takes a millisecond or two.
pub const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// All peers of all torrents: six fleets of 10,000 nodes, at most 500 bytes each.
pub const PEERS_MAX: usize = 65_536;

/// Peers of one torrent: 10,000 nodes with two address families, and some resets.
pub const TORRENT_PEERS_MAX: usize = 32_768;

/// Torrents. A lab has tens; an entry without peers does not outlive the next sweep.
pub const TORRENTS_MAX: usize = 4_096;

/// Peers of one address, in all torrents, so that one machine cannot fill the table: it holds one
/// 64th at most. Loopback is exempt: whole test fleets live there, and no stranger.
pub const ADDR_PEERS_MAX: usize = 1_024;

/// Peers of one stranger's address that stay when the table, or a torrent, is full: a node has one in
/// each image that it has loaded, and with this many each of 64 addresses holds 1,024 in all.
const ADDR_PEERS_FAIR: usize = 16;

/// Regular announces a second at which intervals grow: a few per cent of what one core serves, so
/// that a fleet that starts meanwhile finds it idle.
const ANNOUNCES_PER_S: usize = 500;

const INTERVAL_JOINING: Duration = Duration::from_secs(15);
const INTERVAL_CALM: Duration = Duration::from_secs(60);
const INTERVAL_MIN: Duration = Duration::from_secs(1);

/// How long after the last join a torrent is calm. The kernels of a room load within less.
const CALM_AFTER: Duration = Duration::from_secs(60);

/// Added to two intervals: one announce that took all of its 15 s of retries.
const FRESH_SLACK: Duration = Duration::from_secs(15);

/// When a silent peer is forgotten: after two announces missed by a client that insists on 5 minutes.
const GONE: Duration = Duration::from_secs(11 * 60);

/// A peer that comes when this part of its interval has not passed is ahead of its schedule.
/// Clients shift their announces by some 10 % on purpose.
const EARLY: f64 = 0.75;

/// Why an announce is refused. `Display` is sent to the peer as the failure reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// [`TORRENTS_MAX`].
    #[error("this tracker has too many torrents")]
    TorrentsMax,
    /// [`TORRENT_PEERS_MAX`].
    #[error("this torrent has too many peers")]
    TorrentPeersMax,
    /// [`PEERS_MAX`].
    #[error("this tracker has too many peers")]
    PeersMax,
    /// [`ADDR_PEERS_MAX`].
    #[error("too many peers at this address")]
    AddrPeersMax,
}

/// The figures of one torrent, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TorrentStats {
    /// Which.
    pub info_hash: [u8; 20],
    /// As a scrape tells them.
    pub scrape: ScrapeStats,
    /// What its peers are told.
    pub interval: Duration,
}

#[derive(Debug, Default)]
struct Torrent {
    roster: Roster,
    downloaded: u32,
    last_join: Time,
}

/// A tracker's state.
#[derive(Debug)]
pub struct Registry {
    torrents: BTreeMap<[u8; 20], Torrent>,
    addr_peers: BTreeMap<IpAddr, usize>,
    peer_count: usize,
    /// When stale peers may be thrown out for new ones again.
    make_room_at: Time,
    rng: Rng,
}

impl Registry {
    /// An empty tracker whose handouts are drawn with `seed`.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self {
            torrents: BTreeMap::new(),
            addr_peers: BTreeMap::new(),
            peer_count: 0,
            make_room_at: Time::ZERO,
            rng: Rng::new(seed),
        }
    }

    /// As [`Self::announce_as`], of somebody whom nobody knows.
    ///
    /// # Errors
    /// If a limit is reached.
    pub fn announce(
        &mut self,
        now: Time,
        addr: SocketAddr,
        request: &AnnounceRequest,
    ) -> Result<AnnounceResponse, Refusal> {
        self.announce_as(now, addr, Standing::Stranger, request)
    }

    /// Takes an announce of the peer that listens at `addr` and answers it. The port in `request`
    /// is not looked at. Peers whose address is worth more than a stranger's make no room for others.
    ///
    /// # Errors
    /// If a limit is reached; a peer that is in already is not refused.
    pub fn announce_as(
        &mut self,
        now: Time,
        addr: SocketAddr,
        standing: Standing,
        request: &AnnounceRequest,
    ) -> Result<AnnounceResponse, Refusal> {
        let addr = SocketAddr::new(addr.ip().to_canonical(), addr.port());
        if request.event == Event::Stopped {
            return Ok(self.stop(now, addr, request));
        }
        self.forget_reborn(addr, request);
        let known =
            self.torrents.get(&request.info_hash).and_then(|torrent| torrent.roster.find(addr));
        let (at, lost) = match known {
            Some(at) => (at, self.refresh(now, at, request)),
            None => (self.join(now, addr, request)?, false),
        };
        let interval = self.interval(now, &request.info_hash);
        let torrent = self.torrents.entry(request.info_hash).or_default();
        let peer = torrent.roster.peer_mut(at);
        peer.stale = false;
        peer.is_kept = standing > Standing::Stranger;
        peer.expected = now + interval.mul_f64(EARLY);
        peer.fresh_until = now + 2 * interval + FRESH_SLACK;
        peer.gone_at = peer.fresh_until.max(now + GONE);
        let wanted =
            request.numwant.map_or(HANDOUT, |want| usize::try_from(want).unwrap_or(usize::MAX));
        let handout = torrent.roster.hand_out(at, wanted, lost, &mut self.rng);
        let peers = handout
            .into_iter()
            .map(|at| {
                let peer = torrent.roster.peer(at);
                ResponsePeer { addr: peer.addr, peer_id: Some(peer.peer_id) }
            })
            .collect();
        Ok(self.response(now, &request.info_hash, peers))
    }

    /// Makes silent peers stale and forgets those that are gone, with their empty torrents.
    pub fn sweep(&mut self, now: Time) {
        for torrent in self.torrents.values_mut() {
            let mut at = 0;
            while (at as usize) < torrent.roster.len() {
                let peer = torrent.roster.peer(at);
                if peer.gone_at <= now {
                    let peer = torrent.roster.remove(at);
                    uncount(&mut self.addr_peers, &mut self.peer_count, peer.addr);
                    continue;
                }
                if peer.fresh_until <= now && !peer.stale {
                    torrent.roster.make_stale(at);
                }
                at += 1;
            }
        }
        self.torrents.retain(|_, torrent| torrent.roster.len() > 0);
    }

    /// The figures of a torrent; zeros for one that is not known.
    #[must_use]
    pub fn scrape(&self, info_hash: &[u8; 20]) -> ScrapeStats {
        self.torrents.get(info_hash).map(Torrent::stats).unwrap_or_default()
    }

    /// All torrents, ordered by info hash.
    pub fn stats(&self, now: Time) -> impl Iterator<Item = TorrentStats> + '_ {
        self.torrents.iter().map(move |(info_hash, torrent)| TorrentStats {
            info_hash: *info_hash,
            scrape: torrent.stats(),
            interval: self.interval(now, info_hash),
        })
    }

    /// Peers in all torrents.
    #[must_use]
    pub const fn peer_count(&self) -> usize {
        self.peer_count
    }

    fn stop(&mut self, now: Time, addr: SocketAddr, request: &AnnounceRequest) -> AnnounceResponse {
        if let Some(torrent) = self.torrents.get_mut(&request.info_hash)
            && let Some(at) = torrent.roster.find(addr)
            // A late `stopped` of a program that was restarted since must not remove its successor.
            && torrent.roster.peer(at).peer_id == request.peer_id
        {
            torrent.roster.remove(at);
            uncount(&mut self.addr_peers, &mut self.peer_count, addr);
        }
        self.response(now, &request.info_hash, Vec::new())
    }

    /// Another peer id at the same address and port is another peer: the one before is dead.
    fn forget_reborn(&mut self, addr: SocketAddr, request: &AnnounceRequest) {
        if let Some(torrent) = self.torrents.get_mut(&request.info_hash)
            && let Some(at) = torrent.roster.find(addr)
            && torrent.roster.peer(at).peer_id != request.peer_id
        {
            torrent.roster.remove(at);
            uncount(&mut self.addr_peers, &mut self.peer_count, addr);
        }
    }

    fn join(
        &mut self,
        now: Time,
        addr: SocketAddr,
        request: &AnnounceRequest,
    ) -> Result<u32, Refusal> {
        self.check_limits(now, addr, &request.info_hash)?;
        let torrent = self.torrents.entry(request.info_hash).or_default();
        torrent.last_join = now;
        // After a restart of the tracker all are new; what they downloaded tells the seed from those
        // that completed.
        let downloaded = request.downloaded > 0 || request.event == Event::Completed;
        let has = match request.left {
            Some(0) if downloaded => Has::Completed,
            Some(0) => Has::Origin,
            _ => Has::Part,
        };
        *self.addr_peers.entry(addr.ip()).or_default() += 1;
        self.peer_count += 1;
        Ok(torrent.roster.insert(Peer::new(addr, request.peer_id, has)))
    }

    fn check_limits(
        &mut self,
        now: Time,
        addr: SocketAddr,
        info_hash: &[u8; 20],
    ) -> Result<(), Refusal> {
        let at_addr = self.addr_peers.get(&addr.ip()).copied().unwrap_or(0);
        if at_addr >= ADDR_PEERS_MAX && !addr.ip().is_loopback() {
            return Err(Refusal::AddrPeersMax);
        }
        if self.is_full(info_hash) && now >= self.make_room_at {
            // Only peers that seem alive may keep others out. Not for each refusal: it looks at all.
            self.make_room_at = now + SWEEP_INTERVAL;
            self.remove_where(|peer, _| peer.stale);
            if self.is_full(info_hash) {
                self.remove_where(|peer, before| {
                    let is_exempt = peer.is_kept || peer.addr.ip().is_loopback();
                    before >= ADDR_PEERS_FAIR && !is_exempt
                });
            }
            self.torrents.retain(|_, torrent| torrent.roster.len() > 0);
        }
        if !self.torrents.contains_key(info_hash) && self.torrents.len() >= TORRENTS_MAX {
            return Err(Refusal::TorrentsMax);
        }
        if self.peer_count >= PEERS_MAX {
            return Err(Refusal::PeersMax);
        }
        if self.torrent_len(info_hash) >= TORRENT_PEERS_MAX {
            return Err(Refusal::TorrentPeersMax);
        }
        Ok(())
    }

    fn torrent_len(&self, info_hash: &[u8; 20]) -> usize {
        self.torrents.get(info_hash).map_or(0, |torrent| torrent.roster.len())
    }

    fn is_full(&self, info_hash: &[u8; 20]) -> bool {
        let is_new = !self.torrents.contains_key(info_hash);
        self.peer_count >= PEERS_MAX
            || self.torrent_len(info_hash) >= TORRENT_PEERS_MAX
            || (is_new && self.torrents.len() >= TORRENTS_MAX)
    }

    /// Removes the peers that `is_in_the_way` says, who is told how many of the peer's address stay.
    fn remove_where(&mut self, is_in_the_way: impl Fn(&Peer, usize) -> bool) {
        let mut staying: BTreeMap<IpAddr, usize> = BTreeMap::new();
        for torrent in self.torrents.values_mut() {
            for at in (0..torrent.roster.len() as u32).rev() {
                let peer = torrent.roster.peer(at);
                let before = staying.entry(peer.addr.ip()).or_default();
                if is_in_the_way(peer, *before) {
                    let peer = torrent.roster.remove(at);
                    uncount(&mut self.addr_peers, &mut self.peer_count, peer.addr);
                } else {
                    *before += 1;
                }
            }
        }
    }

    /// Notes what a known peer says now; returns whether it came ahead of its schedule.
    fn refresh(&mut self, now: Time, at: u32, request: &AnnounceRequest) -> bool {
        let torrent = self.torrents.entry(request.info_hash).or_default();
        let has = torrent.roster.peer(at).has;
        let complete = request.left == Some(0);
        if complete && has == Has::Part {
            torrent.roster.set_has(at, Has::Completed);
            torrent.downloaded = torrent.downloaded.saturating_add(1);
        } else if !complete && has != Has::Part {
            torrent.roster.set_has(at, Has::Part);
        }
        !complete && now < torrent.roster.peer(at).expected
    }

    fn response(
        &self,
        now: Time,
        info_hash: &[u8; 20],
        peers: Vec<ResponsePeer>,
    ) -> AnnounceResponse {
        let stats = self.scrape(info_hash);
        AnnounceResponse {
            interval: self.interval(now, info_hash),
            interval_min: Some(INTERVAL_MIN),
            complete: Some(stats.complete),
            incomplete: Some(stats.incomplete),
            peers,
            ..AnnounceResponse::default()
        }
    }

    fn interval(&self, now: Time, info_hash: &[u8; 20]) -> Duration {
        let joining = self
            .torrents
            .get(info_hash)
            .is_some_and(|torrent| now.since(torrent.last_join) < CALM_AFTER);
        let base = if joining { INTERVAL_JOINING } else { INTERVAL_CALM };
        base.max(Duration::from_secs(self.peer_count.div_ceil(ANNOUNCES_PER_S) as u64))
    }
}

impl Torrent {
    fn stats(&self) -> ScrapeStats {
        let complete = self.roster.complete_count();
        ScrapeStats {
            complete: complete as u32,
            downloaded: self.downloaded,
            incomplete: (self.roster.len() - complete) as u32,
        }
    }
}

fn uncount(addr_peers: &mut BTreeMap<IpAddr, usize>, peer_count: &mut usize, addr: SocketAddr) {
    *peer_count -= 1;
    if let Some(count) = addr_peers.get_mut(&addr.ip()) {
        *count -= 1;
        if *count == 0 {
            addr_peers.remove(&addr.ip());
        }
    }
}

#[cfg(test)]
#[path = "registry_tests.rs"]
mod tests;
