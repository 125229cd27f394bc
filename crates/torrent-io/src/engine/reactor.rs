//! The loop: waits for sockets, timers and commands, and gives each to whom it concerns.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token, Waker};
use places::{Admission, Bounds, Seat};
use torrent::swarm::{Config, Direction, Input, Role, Standing, Swarm};
use torrent::{Bitfield, Time};

use super::connection::{Connection, Phase, Scratch};
use super::limits::Limit;
use super::torrent::{ANSWERS_PER_SECOND_MAX, Torrent};
use super::web::WebNews;
use super::worker::Workers;
use super::{Command, EngineConfig, EngineError, Progress, TorrentConfig, TorrentEvent, TorrentId};
use super::{pace, sockopt};

/// Connections of all torrents together: a server seeds hundreds of images to a fleet of thousands.
pub const CONNECTIONS_MAX: usize = 4096;

/// Connections that have not said which torrent they are about, or have not been answered: a flood
/// of them must not take the places of those that have. An eighth for one address; the oldest goes.
pub const HALF_OPEN_MAX: usize = 256;

/// Incoming connections from one address, so that one stranger cannot take all places. A NAT router
/// or a machine with many containers has this many nodes behind it.
pub const PER_ADDRESS_MAX: usize = 64;

/// How long a connection must have moved no block before a newcomer of the same standing gets its
/// place, when all are taken; as long as in a swarm.
const IDLE_MAX: Duration = Duration::from_secs(30);

/// Addresses that are refused because they lied.
const BANNED_MAX: usize = 4096;

/// A dial or a handshake that takes longer comes to nothing: a live peer on a LAN answers within
/// milliseconds, and a slow loris holds a place no longer than this.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(4);

/// Blocks committed to sockets at least; a block counts until it is acknowledged, which is noticed up
/// to a turn of 4 ms late.
const COMMIT_MIN_BLOCKS: u32 = 8;

/// How often figures are given out.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(500);

/// Bytes of a read: large reads are cheap, and this much still fits a core's cache.
pub(super) const READ_LEN: usize = 256 * 1024;

const LISTENER: Token = Token(usize::MAX);
const WAKER: Token = Token(usize::MAX - 1);

pub(super) struct Reactor {
    pub(super) config: EngineConfig,
    started: Instant,
    pub(super) now: Time,
    poll: Poll,
    waker: Arc<Waker>,
    listener: TcpListener,
    addr: SocketAddr,
    commands: Receiver<Command>,
    pub(super) torrents: Vec<Option<Torrent>>,
    pub(super) connections: Vec<Option<Connection>>,
    free: Vec<usize>,
    /// Places that became free in this turn. They are given out in the next: events and lists of
    /// this one may still name them, and mean the connection that is gone.
    freed: Vec<usize>,
    /// Connections with something to write.
    pub(super) dirty: Vec<usize>,
    /// Connections that may have more to read than their turn allowed.
    pub(super) unread: Vec<usize>,
    pub(super) upload: Limit,
    pub(super) download: Limit,
    pub(super) web_news: WebNews,
    /// When web seeds are to be looked after.
    pub(super) web_at: Time,
    pub(super) workers: Option<Workers>,
    pub(super) buffers: Vec<Vec<u8>>,
    pub(super) scratch: Scratch,
    banned: BTreeSet<IpAddr>,
    acknowledged_at: Time,
    /// Bytes a second in the busier direction, all torrents together.
    rate: f64,
    progress_at: Time,
    housekeeping_at: Time,
}

impl Reactor {
    pub(super) fn new(
        config: EngineConfig,
        commands: Receiver<Command>,
    ) -> Result<Self, EngineError> {
        let poll = Poll::new().map_err(EngineError::System)?;
        let waker = Waker::new(poll.registry(), WAKER).map_err(EngineError::System)?;
        let failed = |source| EngineError::Listen { addr: config.listen, source };
        let mut listener = sockopt::listen(config.listen).map_err(failed)?;
        let addr = listener.local_addr().map_err(failed)?;
        poll.registry()
            .register(&mut listener, LISTENER, Interest::READABLE)
            .map_err(EngineError::System)?;
        Ok(Self {
            upload: Limit::new(config.upload_limit),
            download: Limit::new(config.download_limit),
            config,
            started: Instant::now(),
            now: Time::ZERO,
            poll,
            waker: Arc::new(waker),
            listener,
            addr,
            commands,
            torrents: vec![],
            connections: vec![],
            free: vec![],
            freed: vec![],
            dirty: vec![],
            unread: vec![],
            web_news: WebNews::new(),
            web_at: Time::NEVER,
            workers: None,
            buffers: vec![],
            scratch: Scratch::new(),
            banned: BTreeSet::new(),
            acknowledged_at: Time::NEVER,
            rate: 0.0,
            progress_at: Time::ZERO,
            housekeeping_at: Time::ZERO,
        })
    }

    pub(super) fn waker(&self) -> Arc<Waker> {
        self.waker.clone()
    }

    pub(super) const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Runs until it is told to stop.
    pub(super) fn run(mut self) {
        let mut events = Events::with_capacity(1024);
        loop {
            self.rest();
            let timeout = self.timeout();
            if let Err(error) = self.poll.poll(&mut events, Some(timeout))
                && error.kind() != io::ErrorKind::Interrupted
            {
                tracing::error!(%error, "the engine cannot wait for its sockets");
                return;
            }
            self.now = Time::ZERO + self.started.elapsed();
            self.upload.bucket.fill(self.now);
            self.download.bucket.fill(self.now);
            for event in &events {
                match event.token() {
                    LISTENER => self.accept(),
                    WAKER => {}
                    Token(token) => self.on_event(token, event),
                }
            }
            if !self.on_commands() {
                return;
            }
            for token in std::mem::take(&mut self.unread) {
                self.read(token);
            }
            while let Some(token) = self.download.next() {
                self.read(token);
            }
            self.on_stored();
            self.on_web_news();
            self.on_time();
            while let Some(token) = self.upload.next() {
                self.flush(token);
            }
            self.flush_all();
            self.free.append(&mut self.freed);
        }
    }

    /// Lets a little work gather.
    fn rest(&self) {
        if self.unread.is_empty() && self.dirty.is_empty() {
            let turn_took = (Time::ZERO + self.started.elapsed()) - self.now;
            let rest = pace::rest(self.rate).saturating_sub(turn_took);
            if !rest.is_zero() {
                std::thread::sleep(rest);
            }
        }
    }

    fn timeout(&self) -> Duration {
        if !self.unread.is_empty() || !self.dirty.is_empty() {
            return Duration::ZERO;
        }
        let ticks = self.torrents.iter().flatten().map(|torrent| torrent.swarm.next_timeout());
        let lazy = self.connections.iter().flatten().filter_map(|c| c.lazy_due);
        let next = ticks
            .chain(lazy)
            .chain([self.acknowledged_at, self.progress_at, self.housekeeping_at])
            .chain([self.web_at])
            .chain([self.upload.next_timeout(), self.download.next_timeout()])
            .min()
            .unwrap_or(Time::NEVER);
        // The clock has moved since `now` was read.
        next - (Time::ZERO + self.started.elapsed())
    }

    fn on_commands(&mut self) -> bool {
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Command::Add { id, config } => self.add(id, *config),
                Command::Remove { id } => {
                    if let Some(at) = self.find(id) {
                        self.drop_torrent(at);
                    }
                }
                Command::Peers { id, addrs } => {
                    if let Some(at) = self.find(id) {
                        self.feed(at, Input::PeersFound { addrs });
                    }
                }
                Command::Stop => {
                    // The last word on what is verified, for the resume file.
                    self.give_progress();
                    return false;
                }
            }
        }
        true
    }

    pub(super) fn find(&self, id: TorrentId) -> Option<usize> {
        self.torrents.iter().position(|torrent| torrent.as_ref().is_some_and(|t| t.id == id))
    }

    fn add(&mut self, id: TorrentId, config: TorrentConfig) {
        let TorrentConfig { metainfo, storage, have, role, web_seeds, events } = config;
        let geometry = metainfo.geometry().clone();
        let hashes = metainfo.piece_hashes();
        let mut units = Bitfield::new(geometry.unit_count());
        for piece in have.iter().filter_map(|index| geometry.piece(index)) {
            geometry.units_of(piece).for_each(|unit| {
                units.insert(unit.get());
            });
        }
        let pieces = (0..geometry.piece_count()).filter_map(|index| geometry.piece(index));
        let known: Vec<_> = pieces.filter(|&piece| hashes.knows(piece)).collect();
        let unit_hashes_known = known.len() == geometry.piece_count() as usize;
        let swarm = Swarm::new(Config {
            peer_id: self.config.peer_id,
            geometry: geometry.clone(),
            role,
            have: units,
            unit_hashes_known,
            commit_min_blocks: COMMIT_MIN_BLOCKS,
            random_seed: self.config.random_seed ^ id.0,
        });
        let infohashes = metainfo
            .info_hash_v1()
            .map(|hash| (hash.truncated(), false))
            .into_iter()
            .chain(metainfo.info_hash_v2().map(|hash| (hash.truncated(), true)))
            .collect();
        let mut torrent = Torrent::new(
            id,
            swarm,
            storage,
            hashes,
            geometry,
            infohashes,
            metainfo.is_private(),
            events,
        );
        let urls = web_seeds.into_iter().chain(metainfo.web_seeds().iter().cloned());
        torrent.add_web_seeds(urls, self.config.random_seed ^ id.0);
        let complete = torrent.swarm.is_complete();
        self.web_at = self.now;
        self.torrents.push(Some(torrent));
        let at = self.torrents.len() - 1;
        if !unit_hashes_known {
            for piece in known {
                self.feed(at, Input::HashesKnown { piece });
            }
        }
        self.feed(at, Input::Tick);
        if complete && role == Role::Leech {
            self.tell(at, TorrentEvent::Completed);
        }
    }

    /// Drops a torrent; its connections close.
    pub(super) fn drop_torrent(&mut self, at: usize) {
        let Some(torrent) = self.torrents[at].take() else { return };
        for token in torrent.connections.into_iter().flatten() {
            self.drop_connection(token);
        }
        for token in 0..self.connections.len() {
            let about = self.connections[token].as_ref().map(|connection| connection.phase);
            if let Some(
                Phase::Connecting { torrent } | Phase::Handshaking { torrent: Some(torrent) },
            ) = about
                && torrent == at
            {
                self.drop_connection(token);
            }
        }
    }

    pub(super) fn tell(&mut self, at: usize, event: TorrentEvent) {
        if let Some(torrent) = &mut self.torrents[at] {
            (torrent.events)(event);
        }
    }

    fn on_time(&mut self) {
        for at in 0..self.torrents.len() {
            let due = self.torrents[at].as_ref().map(|torrent| torrent.swarm.next_timeout());
            if due.is_some_and(|due| due <= self.now) {
                self.feed(at, Input::Tick);
                self.measure();
            }
        }
        for token in 0..self.connections.len() {
            let Some(connection) = &mut self.connections[token] else { continue };
            if connection.lazy_due.is_some_and(|due| due <= self.now) {
                connection.send_lazy_now();
                self.mark_dirty(token);
            }
        }
        if self.acknowledged_at <= self.now {
            self.acknowledged_at = Time::NEVER;
            for token in 0..self.connections.len() {
                self.look_for_acknowledgements(token);
            }
        }
        if self.web_at <= self.now {
            self.ask_web_seeds();
        }
        if self.progress_at <= self.now {
            self.progress_at = self.now + PROGRESS_INTERVAL;
            self.give_progress();
        }
        if self.housekeeping_at <= self.now {
            self.housekeeping_at = self.now + Duration::from_secs(1);
            self.keep_house();
        }
    }

    fn measure(&mut self) {
        let swarms = || self.torrents.iter().flatten().map(|torrent| &torrent.swarm);
        let down: f64 = swarms().map(Swarm::download_rate).sum();
        let up: f64 = swarms().map(Swarm::upload_rate).sum();
        self.rate = down.max(up);
    }

    fn give_progress(&mut self) {
        for torrent in self.torrents.iter_mut().flatten() {
            let mut have = Bitfield::new(torrent.geometry.piece_count());
            let units = torrent.swarm.have();
            for piece in (0..have.len()).filter_map(|index| torrent.geometry.piece(index)) {
                if torrent.geometry.units_of(piece).all(|unit| units.contains(unit.get())) {
                    have.insert(piece.get());
                }
            }
            let progress = Progress { stats: torrent.swarm.stats(), have };
            (torrent.events)(TorrentEvent::Progress(progress));
            torrent.tell_sources();
        }
    }

    /// Once a second: handshakes that never came, budgets that are renewed.
    fn keep_house(&mut self) {
        // Where accepting failed for want of descriptors no event will say that there are some.
        self.accept();
        self.tell_of_peers();
        for torrent in self.torrents.iter_mut().flatten() {
            torrent.answers_left = ANSWERS_PER_SECOND_MAX;
        }
        for token in 0..self.connections.len() {
            let late = self.connections[token].as_ref().is_some_and(|connection| {
                !matches!(connection.phase, Phase::Open { .. })
                    && self.now - connection.opened_at > HANDSHAKE_TIMEOUT
            });
            if late {
                self.lose(token);
            }
        }
    }

    /// Gives the swarm credit for blocks that have arrived at the other end.
    pub(super) fn look_for_acknowledgements(&mut self, token: usize) {
        let Some(connection) = &mut self.connections[token] else { return };
        let Phase::Open { torrent, key } = connection.phase else { return };
        if !connection.awaits_acknowledgement() {
            return;
        }
        let mut lens = vec![];
        connection.acknowledged(&mut lens);
        if connection.awaits_acknowledgement() {
            self.acknowledged_at =
                self.acknowledged_at.min(self.now + pace::acknowledged_interval(self.rate));
        }
        for len in lens {
            self.feed(torrent, Input::BlockSent { peer: key, len });
            self.feed(torrent, Input::BlockDelivered { peer: key });
        }
    }

    pub(super) fn await_acknowledgements(&mut self) {
        self.acknowledged_at =
            self.acknowledged_at.min(self.now + pace::acknowledged_interval(self.rate));
    }

    fn accept(&mut self) {
        loop {
            let (stream, addr) = match self.listener.accept() {
                Ok(accepted) => accepted,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // Out of descriptors, or a connection that was gone before we took it.
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    return;
                }
            };
            let addr = sockopt::canonical(addr);
            let standing = self.config.known.standing(addr.ip());
            if !self.lets_in(addr.ip(), standing) {
                continue;
            }
            let phase = Phase::Handshaking { torrent: None };
            let token = self.insert(stream, addr, Direction::Incoming, phase);
            if let Some(connection) = token.and_then(|token| self.connections[token].as_mut()) {
                connection.standing = standing;
            }
        }
    }

    /// Whether there is a place for a newcomer, if need be that of another one.
    fn lets_in(&mut self, ip: IpAddr, standing: Standing) -> bool {
        let half_open = Bounds::of(HALF_OPEN_MAX, Duration::ZERO);
        let all = Bounds {
            of_address: PER_ADDRESS_MAX,
            ..Bounds::of(CONNECTIONS_MAX.saturating_sub(self.dialled_count()), IDLE_MAX)
        };
        !self.banned.contains(&ip)
            && self.makes_room(&half_open, ip, standing, |phase| !phase.is_open())
            && self.makes_room(&all, ip, standing, |_| true)
    }

    fn dialled_count(&self) -> usize {
        let all = self.connections.iter().flatten();
        all.filter(|connection| connection.direction == Direction::Outgoing).count()
    }

    /// Looks for a place among the incoming connections in some phase.
    fn makes_room(
        &mut self,
        bounds: &Bounds,
        ip: IpAddr,
        standing: Standing,
        is_meant: impl Fn(Phase) -> bool,
    ) -> bool {
        let seats = self.connections.iter().enumerate().filter_map(|(token, connection)| {
            let connection = connection.as_ref()?;
            let is_incoming = connection.direction == Direction::Incoming;
            (is_incoming && is_meant(connection.phase)).then(|| Seat {
                key: token,
                address: connection.addr.ip(),
                standing: connection.standing,
                idle_since: connection.moved_at - Time::ZERO,
            })
        });
        match places::admit(bounds, seats, ip, standing, self.now - Time::ZERO) {
            Admission::Free => true,
            Admission::InPlaceOf(token) => {
                self.lose(token);
                true
            }
            Admission::Refused => false,
        }
    }

    pub(super) fn ban(&mut self, addr: SocketAddr) {
        if self.banned.len() < BANNED_MAX && !addr.ip().is_loopback() {
            self.banned.insert(addr.ip());
        }
    }

    pub(super) fn dial(&mut self, torrent: usize, addr: SocketAddr) {
        self.dial_as(torrent, addr, 0);
    }

    /// Dials with one of the torrent's infohashes: the first, or that of v2 for a peer which did not
    /// know the first.
    fn dial_as(&mut self, torrent: usize, addr: SocketAddr, infohash_index: usize) {
        let dialled = TcpStream::connect(addr).ok().and_then(|stream| {
            self.insert(stream, addr, Direction::Outgoing, Phase::Connecting { torrent })
        });
        match dialled.and_then(|token| self.connections[token].as_mut()) {
            Some(connection) => connection.infohash_index = infohash_index,
            None => self.feed(torrent, Input::DialFailed { addr }),
        }
    }

    /// The infohash to dial with again, if a peer hung up on our handshake without a word: it may
    /// have the hybrid torrent as a v2 torrent and know no other infohash.
    fn other_infohash(&self, connection: &Connection) -> Option<usize> {
        let Phase::Handshaking { torrent: Some(torrent) } = connection.phase else { return None };
        let next = connection.infohash_index + 1;
        let count = self.torrents[torrent].as_ref()?.infohashes.len();
        let hung_up =
            connection.pending.is_empty() && self.now - connection.opened_at <= HANDSHAKE_TIMEOUT;
        (connection.direction == Direction::Outgoing && hung_up && next < count).then_some(next)
    }

    fn insert(
        &mut self,
        mut stream: TcpStream,
        addr: SocketAddr,
        direction: Direction,
        phase: Phase,
    ) -> Option<usize> {
        sockopt::prepare(&stream).ok()?;
        let token = self.free.pop().unwrap_or_else(|| {
            self.connections.push(None);
            self.connections.len() - 1
        });
        let interest = Interest::READABLE | Interest::WRITABLE;
        if self.poll.registry().register(&mut stream, Token(token), interest).is_err() {
            self.free.push(token);
            return None;
        }
        self.connections[token] = Some(Connection::new(stream, addr, direction, phase, self.now));
        Some(token)
    }

    fn on_event(&mut self, token: usize, event: &Event) {
        let Some(connection) = self.connections.get_mut(token).and_then(Option::as_mut) else {
            return;
        };
        if let Phase::Connecting { torrent } = connection.phase {
            if event.is_writable() || event.is_error() {
                self.on_dialled(token, torrent);
            }
            return;
        }
        connection.is_ending |= event.is_read_closed();
        if event.is_writable() {
            connection.blocked = false;
            if connection.has_output() {
                self.mark_dirty(token);
            }
        }
        if event.is_readable() || event.is_read_closed() {
            self.read(token);
        }
    }

    fn on_dialled(&mut self, token: usize, torrent: usize) {
        let Some(connection) = &mut self.connections[token] else { return };
        let failed = !matches!(connection.stream.take_error(), Ok(None));
        if failed || connection.stream.peer_addr().is_err() {
            self.lose(token);
            return;
        }
        connection.phase = Phase::Handshaking { torrent: Some(torrent) };
        self.send_handshake(token, torrent);
    }

    /// The connection is gone: the swarm is told, if it knew of it.
    pub(super) fn lose(&mut self, token: usize) {
        let Some(connection) = &self.connections[token] else { return };
        let (phase, addr, direction) = (connection.phase, connection.addr, connection.direction);
        let other_infohash = self.other_infohash(connection);
        self.drop_connection(token);
        match phase {
            Phase::Open { torrent, key } => {
                self.forget_key(torrent, key);
                self.feed(torrent, Input::Disconnected { peer: key });
            }
            Phase::Connecting { torrent } | Phase::Handshaking { torrent: Some(torrent) } => {
                if let Some(infohash_index) = other_infohash {
                    self.dial_as(torrent, addr, infohash_index);
                } else if direction == Direction::Outgoing {
                    self.feed(torrent, Input::DialFailed { addr });
                }
            }
            Phase::Handshaking { torrent: None } => {}
        }
    }

    pub(super) fn drop_connection(&mut self, token: usize) {
        if let Some(mut connection) = self.connections[token].take() {
            let _ = self.poll.registry().deregister(&mut connection.stream);
            self.freed.push(token);
        }
    }

    pub(super) fn mark_dirty(&mut self, token: usize) {
        if let Some(connection) = &mut self.connections[token]
            && !std::mem::replace(&mut connection.dirty, true)
        {
            self.dirty.push(token);
        }
    }

    /// Threads for hashing, started when the network first outruns this one.
    pub(super) fn start_workers(&mut self) {
        if self.workers.is_some() {
            return;
        }
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        match Workers::new(cores.saturating_sub(1).clamp(1, 4), &self.waker) {
            Ok(workers) => self.workers = Some(workers),
            Err(error) => tracing::warn!(%error, "no threads for hashing"),
        }
    }
}
