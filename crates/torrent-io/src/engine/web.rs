//! Web seeds of the torrents of an engine: between the threads that fetch and the swarm that lends.
//!
//! When a web seed is used is for [`Swarm::is_web_seed_due`](torrent::swarm::Swarm::is_web_seed_due)
//! to say, what is asked for in one request for [`WebSeedPlan`]. The threads send what arrives here
//! in runs of blocks, and only this thread stores it, or has it stored: only here it is known whether
//! a block is still wanted, and nothing that was verified may ever be overwritten.

use std::collections::BTreeMap;
use std::ops::{ControlFlow, Range};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mio::Waker;
use torrent::swarm::{Input, WEB_SEEDS_MAX};
use torrent::{BLOCK_LEN, Block, Time};

use super::reactor::Reactor;
use super::torrent::Torrent;
use super::{TorrentEvent, TorrentId, WebSeedTrouble};
use crate::web_seed::{FETCHES_MAX, Fetch, WebSeed, WebSeedError, WebSeedPlan, WebSeedSink};

/// How often it is looked whether web seeds are to be asked, where there are some.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// Bytes of blocks that travel to the engine's thread together. A wake-up for each 256 KiB is one in
/// two milliseconds at a gigabit.
const RUN_LEN: usize = 16 * BLOCK_LEN as usize;

/// Runs that may wait for the engine's thread: 4 MiB. Beyond that the fetching threads wait, and TCP
/// slows the servers down.
const RUNS_MAX: usize = 16;

/// Runs that are taken in one turn of the engine's loop: 1 MiB, 10 ms at a gigabit. A processor that
/// hashes more slowly than the server sends would find news in the channel for as long as the fetch
/// lasts, and peers and timers would wait for its end.
const RUNS_PER_TURN: usize = 4;

/// What a fetching thread has to say.
pub(super) struct News {
    torrent: TorrentId,
    web_seed: u32,
    fetch: u64,
    what: What,
}

enum What {
    Blocks(Vec<u8>, Vec<(Block, Range<usize>)>),
    Ended(Result<(), WebSeedError>),
}

/// The way from the fetching threads to the engine's.
pub(super) struct WebNews {
    send: SyncSender<News>,
    heard: Receiver<News>,
}

impl WebNews {
    pub(super) fn new() -> Self {
        let (send, heard) = sync_channel(RUNS_MAX);
        Self { send, heard }
    }
}

/// One web seed of a torrent.
pub(super) struct Source {
    url: String,
    plan: WebSeedPlan,
    /// Its threads, once it is first asked; `None` again when it is given up.
    threads: Option<WebSeed>,
    flights: BTreeMap<u64, Range<u32>>,
    is_over: bool,
}

/// Collects blocks into runs.
struct Sink {
    torrent: TorrentId,
    web_seed: u32,
    send: SyncSender<News>,
    waker: Arc<Waker>,
    runs: Mutex<BTreeMap<u64, Run>>,
}

#[derive(Default)]
struct Run {
    bytes: Vec<u8>,
    blocks: Vec<(Block, Range<usize>)>,
}

impl Sink {
    fn send(&self, fetch: u64, what: What) -> ControlFlow<()> {
        let news = News { torrent: self.torrent, web_seed: self.web_seed, fetch, what };
        if self.send.send(news).is_err() || self.waker.wake().is_err() {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }
}

impl WebSeedSink for Sink {
    fn block(&self, fetch: u64, block: Block, data: &[u8]) -> ControlFlow<()> {
        let mut runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        let run = runs.entry(fetch).or_default();
        let start = run.bytes.len();
        run.bytes.extend_from_slice(data);
        run.blocks.push((block, start..run.bytes.len()));
        if run.bytes.len() < RUN_LEN {
            return ControlFlow::Continue(());
        }
        let Run { bytes, blocks } = std::mem::take(run);
        drop(runs);
        self.send(fetch, What::Blocks(bytes, blocks))
    }

    fn ended(&self, fetch: u64, result: Result<(), WebSeedError>) {
        let run = self.runs.lock().unwrap_or_else(PoisonError::into_inner).remove(&fetch);
        if let Some(Run { bytes, blocks }) = run
            && !blocks.is_empty()
            && self.send(fetch, What::Blocks(bytes, blocks)).is_break()
        {
            return;
        }
        let _ = self.send(fetch, What::Ended(result));
    }
}

impl Torrent {
    /// Takes up the web seeds that the torrent names and those that the user does. `random` is where
    /// they begin: nodes that share one must not all fetch the same.
    pub(super) fn add_web_seeds(&mut self, urls: impl Iterator<Item = String>, random: u64) {
        let start = (random % u64::from(self.geometry.unit_count())) as u32;
        for url in urls {
            let is_known = self.web_seeds.iter().any(|source| source.url == url);
            if !is_known && self.web_seeds.len() < WEB_SEEDS_MAX as usize {
                let plan = WebSeedPlan::new(&self.geometry, start);
                let flights = BTreeMap::new();
                self.web_seeds.push(Source { url, plan, threads: None, flights, is_over: false });
            }
        }
    }

    fn web_seed(&mut self, web_seed: u32) -> Option<&mut Source> {
        self.web_seeds.get_mut(web_seed as usize).filter(|source| !source.is_over)
    }

    /// Whether a web seed may be asked some time.
    fn has_web_seeds(&self) -> bool {
        !self.swarm.is_complete() && self.web_seeds.iter().any(|source| !source.is_over)
    }

    /// The next fetch of any of its web seeds, if one is to be begun now.
    fn next_fetch(&mut self, now: Time) -> Option<(u32, Fetch)> {
        if !self.swarm.is_web_seed_due(now) {
            return None;
        }
        let (swarm, sources) = (&self.swarm, &mut self.web_seeds);
        let mut wanted = None;
        (0..).zip(sources).find_map(|(web_seed, source)| {
            if source.is_over || source.flights.len() >= FETCHES_MAX {
                return None;
            }
            let wanted = wanted.get_or_insert_with(|| swarm.lendable());
            source.plan.poll(now, wanted).map(|fetch| (web_seed, fetch))
        })
    }
}

impl Reactor {
    /// Begins fetches where they are due.
    pub(super) fn ask_web_seeds(&mut self) {
        self.web_at = Time::NEVER;
        for at in 0..self.torrents.len() {
            while let Some((web_seed, fetch)) =
                self.torrents[at].as_mut().and_then(|torrent| torrent.next_fetch(self.now))
            {
                self.begin_fetch(at, web_seed, fetch);
            }
            let Some(torrent) = &mut self.torrents[at] else { continue };
            if torrent.has_web_seeds() {
                self.web_at = self.now + LOOK_INTERVAL;
            } else {
                torrent.web_seeds.iter_mut().for_each(|source| source.threads = None);
            }
        }
    }

    fn begin_fetch(&mut self, at: usize, web_seed: u32, fetch: Fetch) {
        let (waker, send) = (self.waker(), self.web_news.send.clone());
        let Some(torrent) = &mut self.torrents[at] else { return };
        let id = torrent.id;
        let source = &mut torrent.web_seeds[web_seed as usize];
        if source.threads.is_none() {
            let runs = Mutex::default();
            let sink = Sink { torrent: id, web_seed, send, waker, runs };
            let layout = torrent.storage.layout().clone();
            match WebSeed::start(&source.url, layout, torrent.geometry.clone(), sink) {
                Ok(threads) => source.threads = Some(threads),
                Err(error) => {
                    self.end_web_seed(at, web_seed, WebSeedTrouble::Unusable(error));
                    return;
                }
            }
        }
        source.flights.insert(fetch.id, fetch.units.clone());
        torrent.swarm.lend(web_seed, fetch.units.clone());
        if let Some(threads) = &source.threads {
            threads.fetch(fetch);
        }
        self.feed(at, Input::Tick);
    }

    /// Takes in what the fetching threads have sent, as fast as the download limit allows.
    pub(super) fn on_web_news(&mut self) {
        let mut taken = 0;
        while self.download.bucket.is_open() {
            if taken == RUNS_PER_TURN {
                // There may be more, which has told of itself already.
                let _ = self.waker().wake();
                return;
            }
            let Ok(news) = self.web_news.heard.try_recv() else { return };
            taken += 1;
            let Some(at) = self.find(news.torrent) else { continue };
            let torrent = self.torrents[at].as_mut();
            if torrent.and_then(|torrent| torrent.web_seed(news.web_seed)).is_none() {
                continue;
            }
            match news.what {
                What::Blocks(bytes, blocks) => self.on_run(at, news.web_seed, bytes, blocks),
                What::Ended(result) => self.on_fetched(at, news.web_seed, news.fetch, result),
            }
        }
        // What waits in the channel does not tell of itself again.
        self.web_at = self.web_at.min(self.download.bucket.opens_at());
    }

    fn on_run(
        &mut self,
        at: usize,
        web_seed: u32,
        bytes: Vec<u8>,
        blocks: Vec<(Block, Range<usize>)>,
    ) {
        self.download.bucket.take(bytes.len());
        let mut wanted = vec![];
        for (block, range) in blocks {
            let Some(torrent) = &self.torrents[at] else { return };
            if torrent.swarm.wants_lent(web_seed, block) {
                wanted.push((block, range));
            }
            self.feed(at, Input::LentBlock { web_seed, block });
        }
        self.store(at, bytes, wanted);
    }

    fn on_fetched(
        &mut self,
        at: usize,
        web_seed: u32,
        fetch: u64,
        result: Result<(), WebSeedError>,
    ) {
        let now = self.now;
        let Some(torrent) = &mut self.torrents[at] else { return };
        let Some(source) = torrent.web_seed(web_seed) else { return };
        let Some(units) = source.flights.remove(&fetch) else { return };
        let failed = match result {
            Ok(()) => {
                source.plan.handle_done(now, fetch);
                None
            }
            Err(error) => {
                source.plan.handle_failed(now, fetch, error.retry_after());
                Some(error)
            }
        };
        let (is_dead, url) = (source.plan.is_dead(), source.url.clone());
        torrent.swarm.give_back(web_seed, units);
        self.feed(at, Input::Tick);
        match failed {
            Some(error) if is_dead => {
                self.end_web_seed(at, web_seed, WebSeedTrouble::Unusable(error));
            }
            Some(error) => {
                tracing::info!(%url, %error, "a web seed failed and is tried again later");
                self.tell(
                    at,
                    TorrentEvent::WebSeed { url, trouble: WebSeedTrouble::Failed(error) },
                );
            }
            None => {}
        }
        self.ask_web_seeds();
    }

    /// A web seed is of no use any more.
    pub(super) fn end_web_seed(&mut self, at: usize, web_seed: u32, trouble: WebSeedTrouble) {
        let Some(torrent) = &mut self.torrents[at] else { return };
        let Some(source) = torrent.web_seed(web_seed) else { return };
        source.is_over = true;
        source.threads = None;
        let url = source.url.clone();
        for units in std::mem::take(&mut source.flights).into_values() {
            torrent.swarm.give_back(web_seed, units);
        }
        tracing::warn!(%url, ?trouble, "a web seed is not used any more");
        self.tell(at, TorrentEvent::WebSeed { url, trouble });
        self.feed(at, Input::Tick);
    }
}
