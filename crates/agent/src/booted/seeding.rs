//! Seeding what is verified and in memory, under a system or a guest that comes first: with a limit on
//! what is sent, and not at all while memory is short.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use boot::manifest::Discovery;
use boot::stage;
use torrent::metainfo::Metainfo;
use torrent::swarm::Stats;
use torrent_io::session::{Prepared, Session, SessionEvent};
use torrent_io::storage::Storage;

use super::pressure::{Look, Pressure, waiting};
use crate::download;
use crate::events::Event;
use crate::failed::chain;
use crate::machine;

/// How a seed takes part in the swarm.
#[derive(Clone, Debug)]
pub(crate) struct Terms {
    pub(crate) discovery: Discovery,
    /// The most to send, of all torrents together.
    pub(crate) upload_limit_bytes_per_s: Option<u64>,
    /// Bytes that others have had from this node before.
    pub(crate) uploaded_bytes: u64,
}

/// Torrents that are seeded, or are not for now.
pub(crate) struct Seeding {
    terms: Terms,
    /// None of one that is not what it was.
    torrents: Vec<Option<(Metainfo, Arc<Storage>)>>,
    session: Option<Session>,
    /// Events of the present session's first torrent have this number, those of others the next ones.
    number: u32,
    /// Of the present session's torrents.
    stats: Vec<Stats>,
    pressure: Pressure,
    paused: bool,
    sender: Sender<Event>,
}

impl Seeding {
    /// Seeds nothing before [`Self::resume`]. Events are told with `number` and those after it.
    pub(crate) fn new(
        torrents: Vec<(Metainfo, Arc<Storage>)>,
        terms: Terms,
        number: u32,
        sender: Sender<Event>,
    ) -> Self {
        let torrents: Vec<_> = torrents.into_iter().map(Some).collect();
        let stats = vec![Stats::default(); torrents.len()];
        let (session, pressure) = (None, Pressure::default());
        Self { terms, torrents, session, number, stats, pressure, paused: false, sender }
    }

    /// Joins the swarm. The bytes were verified when they came, and the storage gives none of a file
    /// that was changed since: nothing is hashed.
    pub(crate) fn resume(&mut self) {
        if self.torrents.iter().all(Option::is_none) {
            return;
        }
        // What an earlier session has still to say is of other torrents than these.
        self.number += self.torrents.len() as u32;
        let limit = self.terms.upload_limit_bytes_per_s;
        match download::session(&self.sender, &self.terms.discovery, limit, self.number) {
            Ok(mut session) => {
                for (metainfo, storage) in self.torrents.iter().flatten() {
                    session.add(Prepared::hashed(metainfo.clone(), Arc::clone(storage)), vec![]);
                }
                self.session = Some(session);
            }
            Err(error) => tracing::warn!(error = %chain(&error), "no part in the swarm for now"),
        }
    }

    /// Leaves it.
    pub(crate) fn suspend(&mut self) {
        self.session = None;
        self.terms.uploaded_bytes += self.stats.iter().map(|stats| stats.uploaded).sum::<u64>();
        self.stats.fill(Stats::default());
    }

    /// Takes in what a session says.
    pub(crate) fn take(&mut self, number: u32, event: SessionEvent) {
        let Some(at) = number.checked_sub(self.number).map(|at| at as usize) else { return };
        // Sessions number the torrents that they were given.
        let mut given = (0..self.torrents.len()).filter(|&at| self.torrents[at].is_some());
        let Some(at) = given.nth(at) else { return };
        match event {
            SessionEvent::Progress(stats) => self.stats[at] = stats,
            SessionEvent::Failed(error) => {
                // Somebody has written to the file: it is seeded no more.
                tracing::warn!(error = %chain(&error), "the image is not what it was");
                self.suspend();
                self.torrents[at] = None;
                self.resume();
            }
            _ => {}
        }
    }

    /// Stops or goes on, as memory is short or not. `elapsed` since the last look.
    pub(crate) fn look_around(&mut self, elapsed: Duration) {
        let root = Path::new("/");
        let look = Look {
            available: machine::memory(root, "MemAvailable").unwrap_or(u64::MAX),
            total: machine::memory(root, "MemTotal").unwrap_or(0),
            waiting: std::fs::read_to_string("/proc/pressure/memory")
                .ok()
                .and_then(|text| waiting(&text)),
        };
        self.paused = self.pressure.observe(look, elapsed);
        match (self.paused, &self.session) {
            (true, Some(_)) => self.suspend(),
            (false, None) => self.resume(),
            _ => {}
        }
    }

    /// How it goes; none if there is nothing to seed.
    pub(crate) fn state(&self) -> Option<stage::Seeding> {
        self.torrents.iter().any(Option::is_some).then(|| {
            let sent: u64 = self.stats.iter().map(|stats| stats.uploaded).sum();
            let peers = self.stats.iter().map(|stats| stats.peers).sum::<usize>();
            stage::Seeding {
                uploaded_bytes: self.terms.uploaded_bytes + sent,
                peers: u32::try_from(peers).unwrap_or(u32::MAX),
                limit_bytes_per_s: self.terms.upload_limit_bytes_per_s,
                paused: self.paused,
            }
        })
    }
}
