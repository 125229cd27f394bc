//! The thread of discovery: announcers, answers of trackers, datagrams, timers.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender};
use std::time::Instant;

use mio::{Events, Poll, Token, Waker};
use torrent::Time;
use torrent::lsd;
use torrent::tracker::{
    AnnounceRequest, AnnounceResponse, Announcer, HANDOUT, Input, Output, TrackerIndex,
};

use super::local::LocalSearch;
use super::{DiscoveryConfig, DiscoveryEvent, FAREWELL, TorrentKey, Wanted};
use crate::tracker_client::{Announce, Outcome, Timeouts, TrackerClient};

const WAKER: Token = Token(usize::MAX);

pub(super) enum Message {
    Join(TorrentKey, Wanted),
    NeedPeers(TorrentKey),
    Completed(TorrentKey),
    Leave(TorrentKey),
    Stop,
    Outcome(Outcome),
}

pub(super) struct Finder {
    config: DiscoveryConfig,
    started: Instant,
    poll: Poll,
    waker: Arc<Waker>,
    queue: Receiver<Message>,
    client: TrackerClient,
    torrents: BTreeMap<TorrentKey, Torrent>,
    /// Announces under way, by token.
    asked: BTreeMap<u64, Asked>,
    next_token: u64,
    /// Trackers that failed, and have not answered since.
    failing: BTreeSet<String>,
    /// What trackers had to say, so that nobody hears it at each announce.
    warned: BTreeMap<String, String>,
    local: Option<LocalSearch>,
    report: Box<dyn FnMut(DiscoveryEvent) + Send>,
    /// When to go, farewells answered or not.
    end: Time,
}

struct Torrent {
    wanted: Wanted,
    /// One for each of its swarms.
    announcers: Vec<Announcer>,
}

#[derive(Clone, Copy)]
struct Asked {
    torrent: TorrentKey,
    swarm: usize,
    tracker: TrackerIndex,
}

impl Finder {
    pub(super) fn new(
        config: DiscoveryConfig,
        messages: Sender<Message>,
        queue: Receiver<Message>,
        mut report: Box<dyn FnMut(DiscoveryEvent) + Send>,
    ) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        let wake = waker.clone();
        let answered = move |outcome| {
            if messages.send(Message::Outcome(outcome)).is_ok() {
                let _ = wake.wake();
            }
        };
        let local = config.lsd.then(|| LocalSearch::open(&config, poll.registry()));
        let local = match local.transpose() {
            Ok(local) => local,
            Err(error) => {
                report(DiscoveryEvent::LsdFailed(error));
                None
            }
        };
        Ok(Self {
            client: TrackerClient::new(&config.user_agent, Timeouts::default(), answered),
            config,
            started: Instant::now(),
            poll,
            waker,
            queue,
            torrents: BTreeMap::new(),
            asked: BTreeMap::new(),
            next_token: 0,
            failing: BTreeSet::new(),
            warned: BTreeMap::new(),
            local,
            report,
            end: Time::NEVER,
        })
    }

    pub(super) fn waker(&self) -> Arc<Waker> {
        self.waker.clone()
    }

    fn now(&self) -> Time {
        Time::ZERO + self.started.elapsed()
    }

    pub(super) fn run(mut self) {
        let mut events = Events::with_capacity(16);
        while !self.is_over() {
            let timeout = self.next_timeout() - self.now();
            if let Err(error) = self.poll.poll(&mut events, Some(timeout))
                && error.kind() != io::ErrorKind::Interrupted
            {
                tracing::error!(%error, "discovery cannot wait for its sockets");
                return;
            }
            for message in std::iter::from_fn(|| self.queue.try_recv().ok()).collect::<Vec<_>>() {
                self.on_message(message);
            }
            self.on_datagrams();
            self.on_time();
        }
    }

    fn is_over(&self) -> bool {
        let stopping = self.end != Time::NEVER;
        stopping && (self.torrents.is_empty() || self.now() >= self.end)
    }

    fn next_timeout(&self) -> Time {
        let announcers = self.torrents.values().flat_map(|torrent| &torrent.announcers);
        let due = announcers.map(Announcer::next_timeout);
        let local = self.local.as_ref().map(LocalSearch::next_timeout);
        due.chain(local).chain([self.end]).min().unwrap_or(Time::NEVER)
    }

    fn on_message(&mut self, message: Message) {
        match message {
            Message::Join(key, wanted) => self.join(key, wanted),
            Message::NeedPeers(key) => {
                self.tell(key, &Input::NeedPeers { numwant: HANDOUT as u32 });
            }
            Message::Completed(key) => self.tell(key, &Input::Completed),
            Message::Leave(key) => self.leave(key),
            Message::Stop => {
                if self.end == Time::NEVER {
                    self.end = self.now() + FAREWELL;
                }
                for key in self.torrents.keys().copied().collect::<Vec<_>>() {
                    self.leave(key);
                }
            }
            Message::Outcome(outcome) => self.on_outcome(outcome),
        }
    }

    fn join(&mut self, key: TorrentKey, wanted: Wanted) {
        let (now, complete) = (self.now(), wanted.is_complete());
        let seed = self.config.random_seed ^ u64::from(key.0);
        let announcers = (0..wanted.infohashes.len())
            .map(|_| Announcer::new(now, &wanted.trackers, complete, seed))
            .collect();
        if let Some(local) = &mut self.local {
            for &infohash in &wanted.infohashes {
                let private = wanted.is_private;
                local.handle(now, lsd::Input::Joined { infohash, private });
            }
        }
        self.torrents.insert(key, Torrent { wanted, announcers });
        self.serve(key);
        self.serve_local();
    }

    fn leave(&mut self, key: TorrentKey) {
        let now = self.now();
        if let (Some(torrent), Some(local)) = (self.torrents.get(&key), &mut self.local) {
            for &infohash in &torrent.wanted.infohashes {
                local.handle(now, lsd::Input::Left { infohash });
            }
        }
        self.tell(key, &Input::Stop);
    }

    /// Tells all announcers of a torrent.
    fn tell(&mut self, key: TorrentKey, input: &Input) {
        let now = self.now();
        if let Some(torrent) = self.torrents.get_mut(&key) {
            torrent.announcers.iter_mut().for_each(|to| to.handle(now, input.clone()));
        }
        self.serve(key);
    }

    fn on_time(&mut self) {
        let now = self.now();
        let mut due = vec![];
        for (&key, torrent) in &mut self.torrents {
            let late = torrent.announcers.iter_mut().filter(|a| a.next_timeout() <= now);
            let mut is_due = false;
            late.for_each(|announcer| {
                announcer.handle(now, Input::Tick);
                is_due = true;
            });
            if is_due {
                due.push(key);
            }
        }
        due.into_iter().for_each(|key| self.serve(key));
        if let Some(local) = &mut self.local
            && local.next_timeout() <= now
        {
            local.handle(now, lsd::Input::Tick);
        }
        self.serve_local();
    }

    /// Does what the announcers of a torrent want done; forgets the torrent if it has left.
    fn serve(&mut self, key: TorrentKey) {
        let Some(torrent) = self.torrents.get_mut(&key) else { return };
        let mut found = vec![];
        for (swarm, announcer) in torrent.announcers.iter_mut().enumerate() {
            while let Some(output) = announcer.poll() {
                let (tracker, event, numwant, tracker_id) = match output {
                    Output::Announce { tracker, event, numwant, tracker_id } => {
                        (tracker, event, numwant, tracker_id)
                    }
                    Output::Peers(addrs) => {
                        found.extend(addrs);
                        continue;
                    }
                };
                let figures = &torrent.wanted.figures;
                let request = AnnounceRequest {
                    info_hash: torrent.wanted.infohashes[swarm],
                    peer_id: self.config.peer_id,
                    port: self.config.listen.port(),
                    uploaded: figures.uploaded.load(Ordering::Relaxed),
                    downloaded: figures.downloaded.load(Ordering::Relaxed),
                    left: Some(figures.left.load(Ordering::Relaxed)),
                    event,
                    // Peers of the other swarms could not be dialled: see the head of the module.
                    numwant: Some(if swarm == 0 { numwant } else { 0 }),
                    // The peer stays the same when its address changes, as its id does.
                    key: Some(self.config.random_seed as u32),
                };
                self.next_token += 1;
                self.asked.insert(self.next_token, Asked { torrent: key, swarm, tracker });
                self.client.announce(Announce {
                    token: self.next_token,
                    url: announcer.url(tracker).to_owned(),
                    request,
                    tracker_id,
                });
            }
        }
        if torrent.announcers.iter().all(Announcer::is_done) {
            self.torrents.remove(&key);
        }
        self.found(key, found);
    }

    fn found(&mut self, torrent: TorrentKey, addrs: Vec<SocketAddr>) {
        if !addrs.is_empty() {
            (self.report)(DiscoveryEvent::Found { torrent, addrs });
        }
    }

    fn on_outcome(&mut self, outcome: Outcome) {
        let Some(asked) = self.asked.remove(&outcome.token) else { return };
        let now = self.now();
        let Some(torrent) = self.torrents.get_mut(&asked.torrent) else { return };
        let Some(announcer) = torrent.announcers.get_mut(asked.swarm) else { return };
        let url = announcer.url(asked.tracker).to_owned();
        let response = outcome.result.as_ref().ok().cloned();
        announcer.handle(now, Input::Answer { tracker: asked.tracker, response });
        self.serve(asked.torrent);
        match outcome.result {
            Ok(response) => self.on_answer(asked.torrent, url, response),
            // Nobody can do anything about it any more.
            Err(_) if self.end != Time::NEVER => {}
            Err(error) => {
                if self.failing.insert(url) {
                    let torrent = asked.torrent;
                    (self.report)(DiscoveryEvent::TrackerFailed { torrent, error });
                }
            }
        }
    }

    fn on_answer(&mut self, torrent: TorrentKey, url: String, response: AnnounceResponse) {
        self.failing.remove(&url);
        let Some(text) = response.warning else { return };
        if self.warned.insert(url.clone(), text.clone()).as_ref() != Some(&text) {
            (self.report)(DiscoveryEvent::TrackerWarning { torrent, url, text });
        }
    }

    fn on_datagrams(&mut self) {
        let now = self.now();
        if let Some(local) = &mut self.local {
            local.receive(now);
        }
        self.serve_local();
    }

    fn serve_local(&mut self) {
        let Some(local) = &mut self.local else { return };
        for (infohash, addr) in local.found() {
            let of = |(_, torrent): &(&TorrentKey, &Torrent)| {
                torrent.wanted.infohashes.contains(&infohash)
            };
            if let Some((&key, _)) = self.torrents.iter().find(of) {
                (self.report)(DiscoveryEvent::Found { torrent: key, addrs: vec![addr] });
            }
        }
    }
}
