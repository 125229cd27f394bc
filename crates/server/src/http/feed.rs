//! What happens, as it happens: each second one look at the fleet and the counters, kept for the
//! chart ([`Sample`]) and told to everybody who listens.
//!
//! **Slow listeners.** A message is made once, whoever listens, and only if somebody does. Who is
//! [`BEHIND_MAX`] messages behind is dropped and never waited for; it may come again and begin with
//! the whole fleet. Listeners are limited in number (`listeners`).

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use boot::{Mac, Stage};
use serde::Serialize;
use tokio::sync::{broadcast, oneshot};
use tokio::time::MissedTickBehavior;
use utoipa::ToSchema;

use super::Site;
use super::listeners::Listeners;
use super::serve::Source;
use super::v1::{LogView, NodeView};
use crate::fleet::UnixMs;

/// How often: agents report each second while they download.
const INTERVAL: Duration = Duration::from_secs(1);

/// Samples kept: an hour of seconds, 64 bytes each.
pub(super) const SAMPLES_MAX: usize = 3_600;

/// Messages that a listener may be behind: three a second, so ten seconds. With 1,000 nodes that all
/// change each second, 15 MB that all listeners share.
const BEHIND_MAX: usize = 32;

/// Lines of the log in one message: what a listener misses it finds under `/v1/log`.
const LINES_MAX: usize = 100;

/// How fast bytes flowed in one second, and how many nodes were where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct Sample {
    unix_ms: u64,
    /// What the server's own peer sent to nodes.
    server_swarm_bytes_per_s: u64,
    /// What the server sent over HTTP: phase 1, and images to nodes that no peer answers.
    server_http_bytes_per_s: u64,
    /// What nodes received in all, as they say.
    nodes_bytes_per_s: u64,
    downloading_count: usize,
    booted_count: usize,
    failed_count: usize,
}

/// What is told, and what is kept.
#[derive(Debug)]
pub(super) struct Feed {
    samples: Mutex<VecDeque<Sample>>,
    sender: broadcast::Sender<Arc<str>>,
    listeners: SharedListeners,
}

type SharedListeners = Arc<Mutex<Listeners<oneshot::Sender<()>>>>;

/// Somebody who listens.
pub(super) struct Listener {
    receiver: broadcast::Receiver<Arc<str>>,
    listeners: SharedListeners,
    number: u64,
    is_cut: oneshot::Receiver<()>,
}

impl Default for Feed {
    fn default() -> Self {
        let sender = broadcast::Sender::new(BEHIND_MAX);
        Self { samples: Mutex::default(), sender, listeners: Arc::default() }
    }
}

impl Feed {
    /// The latest samples, oldest first.
    pub(super) fn samples(&self, count: usize) -> Vec<Sample> {
        let samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        samples.iter().skip(samples.len().saturating_sub(count)).copied().collect()
    }

    /// Another listener, if there is or can be made room for it.
    pub(super) fn listen(&self, source: Source, may_command: bool) -> Option<Listener> {
        let (cut, is_cut) = oneshot::channel();
        let (number, displaced) = lock(&self.listeners).enter(source, may_command, cut)?;
        drop(displaced);
        let (receiver, listeners) = (self.sender.subscribe(), Arc::clone(&self.listeners));
        Some(Listener { receiver, listeners, number, is_cut })
    }

    pub(super) fn listener_count(&self) -> usize {
        lock(&self.listeners).count()
    }

    fn keep(&self, sample: Sample) {
        let mut samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        if samples.len() >= SAMPLES_MAX {
            samples.pop_front();
        }
        samples.push_back(sample);
    }

    fn tell(&self, event: &str, id: u64, value: &impl Serialize) {
        if let Ok(data) = serde_json::to_string(value) {
            // That nobody listens any more is no reason to fail.
            let _ = self.sender.send(message(event, id, &data));
        }
    }
}

impl Listener {
    /// The next message; none if it is too far behind, has to go for another, or the server ends.
    pub(super) async fn next(&mut self) -> Option<Arc<str>> {
        tokio::select! {
            biased;
            _ = &mut self.is_cut => None,
            message = self.receiver.recv() => message.ok(),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let left = lock(&self.listeners).leave(self.number);
        drop(left);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A message of an event stream (HTML standard section 9.2): JSON has no line breaks of its own.
pub(super) fn message(event: &str, id: u64, data: &str) -> Arc<str> {
    Arc::from(format!("event: {event}\nid: {id}\ndata: {data}\n\n"))
}

/// Nodes that changed, and nodes that are gone.
#[derive(Serialize)]
struct Changed {
    revision: u64,
    nodes: Vec<NodeView>,
    /// Ethernet addresses; null if so many are gone that the list has to be asked for anew.
    gone: Option<Vec<Mac>>,
}

/// What was told already.
#[derive(Default)]
struct Told {
    revision: u64,
    line: u64,
    server_http_bytes: u64,
    at: UnixMs,
}

/// Looks each second, for ever.
pub(crate) async fn run(site: Site) {
    let mut told = Told { at: UnixMs::now(), ..Told::default() };
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        look(&site, UnixMs::now(), &mut told);
    }
}

fn look(site: &Site, now: UnixMs, told: &mut Told) {
    let feed = &site.0.feed;
    let sample = sample(site, now, told);
    feed.keep(sample);
    let fleet = site.0.fleet.lock();
    let (revision, line) = (fleet.revision(), fleet.log().last());
    let mut changed = vec![];
    let mut lines = vec![];
    let mut gone = None;
    // Nothing is copied for nobody.
    if feed.listener_count() > 0 {
        let is_new = |node: &&crate::fleet::Node| node.summary.revision > told.revision;
        changed.extend(fleet.nodes().filter(is_new).map(|node| node.summary.clone()));
        gone = fleet.gone_after(told.revision);
        lines.extend(fleet.log().after(told.line, LINES_MAX).map(LogView::from));
    }
    drop(fleet);
    let is_any_gone = gone.as_ref().is_none_or(|gone| !gone.is_empty());
    if feed.listener_count() > 0 {
        if revision > told.revision && (!changed.is_empty() || is_any_gone) {
            let nodes = changed.iter().map(NodeView::from).collect();
            feed.tell("nodes", revision, &Changed { revision, nodes, gone });
        }
        if !lines.is_empty() {
            feed.tell("log", revision, &lines);
        }
        feed.tell("sample", revision, &sample);
    }
    (told.revision, told.line) = (revision, line);
}

fn sample(site: &Site, now: UnixMs, told: &mut Told) -> Sample {
    let server_http_bytes = site.counts().sent_bytes;
    let past_ms = now.since(told.at).max(1);
    let sent = server_http_bytes.saturating_sub(told.server_http_bytes);
    (told.server_http_bytes, told.at) = (server_http_bytes, now);
    let mut sample = Sample {
        unix_ms: now.0,
        server_swarm_bytes_per_s: (site.0.about.seeding)()
            .iter()
            .map(|s| s.upload_rate_bytes_per_s)
            .sum(),
        server_http_bytes_per_s: sent.saturating_mul(1000) / past_ms,
        ..Sample::default()
    };
    for node in site.0.fleet.lock().nodes() {
        match &node.summary.stage {
            Some(Stage::Downloading(progress)) => {
                sample.downloading_count += 1;
                sample.nodes_bytes_per_s =
                    sample.nodes_bytes_per_s.saturating_add(progress.rate_bytes_per_s);
            }
            Some(Stage::Booted { .. }) => sample.booted_count += 1,
            Some(Stage::Failed { .. }) => sample.failed_count += 1,
            _ => {}
        }
    }
    sample
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::listeners::OF_ADDRESS_MAX;

    const PEER: Source = Source::Peer(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));

    #[tokio::test]
    async fn who_is_behind_is_dropped_and_nobody_waits() {
        let feed = Feed::default();
        let (mut quick, mut slow) =
            (feed.listen(PEER, false).unwrap(), feed.listen(PEER, false).unwrap());
        for id in 0..=BEHIND_MAX as u64 {
            feed.tell("sample", id, &id);
            assert_eq!(quick.next().await.unwrap(), message("sample", id, &id.to_string()));
        }
        assert_eq!(slow.next().await, None);
    }

    #[tokio::test]
    async fn who_has_to_go_for_another_hears_nothing_more() {
        let feed = Feed::default();
        let mut listeners: Vec<_> =
            (0..OF_ADDRESS_MAX).map(|_| feed.listen(PEER, false).unwrap()).collect();
        let mut newcomer = feed.listen(PEER, false).unwrap();
        assert_eq!(listeners[0].next().await, None);
        feed.tell("sample", 1, &1);
        assert!(newcomer.next().await.is_some() && listeners[1].next().await.is_some());
        drop((listeners, newcomer));
        assert_eq!(feed.listener_count(), 0);
    }

    #[test]
    fn an_hour_of_samples_is_kept() {
        let feed = Feed::default();
        for unix_ms in 0..SAMPLES_MAX as u64 + 5 {
            feed.keep(Sample { unix_ms, ..Sample::default() });
        }
        let samples = feed.samples(usize::MAX);
        assert_eq!((samples.len(), samples[0].unix_ms), (SAMPLES_MAX, 5));
        assert_eq!(feed.samples(2)[0].unix_ms, SAMPLES_MAX as u64 + 3);
    }
}
