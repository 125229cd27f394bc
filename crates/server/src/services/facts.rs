//! What can be said of the running server, gathered from whoever knows it.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};

use super::edition::Edition;
use super::seeding::SeedCounts;
use super::status::{HashingStatus, ImageStatus, NodeCounts, ServiceStatus, StageCount, Status};
use crate::fleet::{SharedFleet, UnixMs};
use crate::http::Site;
use crate::lab::HashingProgress;
use crate::state;
use crate::tracker;

/// A service that can say how it is doing: its name, its state in a word, its counts.
pub(crate) type Teller = Box<dyn Fn() -> ServiceStatus + Send + Sync>;

/// Answers questions about the server; a copy is another reference.
#[derive(Clone)]
pub(crate) struct Facts(Arc<Inner>);

struct Inner {
    lab: PathBuf,
    started: UnixMs,
    interface: String,
    address: String,
    fleet: SharedFleet,
    hashing: HashingProgress,
    tellers: Mutex<Vec<Teller>>,
    published: Mutex<(u64, Vec<ImageStatus>)>,
}

impl Facts {
    pub(crate) fn new(
        lab: PathBuf,
        interface: String,
        address: String,
        fleet: SharedFleet,
        hashing: HashingProgress,
    ) -> Self {
        Self(Arc::new(Inner {
            lab,
            started: UnixMs::now(),
            interface,
            address,
            fleet,
            hashing,
            tellers: Mutex::default(),
            published: Mutex::default(),
        }))
    }

    /// Another service runs.
    pub(crate) fn add(&self, teller: Teller) {
        lock(&self.0.tellers).push(teller);
    }

    /// Another edition is served.
    pub(crate) fn publish(&self, edition: &Edition) {
        *lock(&self.0.published) = (edition.live.offer.serial, edition.statuses.clone());
    }

    /// When the server began.
    pub(crate) fn started(&self) -> UnixMs {
        self.0.started
    }

    pub(crate) fn status(&self) -> Status {
        let (manifest_serial, images) = lock(&self.0.published).clone();
        let mut services: Vec<ServiceStatus> =
            lock(&self.0.tellers).iter().map(|teller| teller()).collect();
        // In the order in which a node meets them.
        let order = ["dhcp", "tftp", "http", "tracker", "seeder"];
        services.sort_by_key(|service| order.iter().position(|name| *name == service.name));
        let fleet = self.0.fleet.lock();
        let stages = fleet.stages().into_iter();
        let nodes = NodeCounts {
            count: fleet.nodes().count(),
            refused_count: fleet.refused_count(),
            stages: stages
                .map(|(stage, count)| StageCount { stage: stage.to_owned(), count })
                .collect(),
        };
        drop(fleet);
        let hashing = self.0.hashing.all().into_iter().map(|(name, now)| HashingStatus {
            name,
            done_bytes: now.done,
            total_bytes: now.total,
        });
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            lab: self.0.lab.clone(),
            pid: std::process::id(),
            started: self.0.started,
            interface: self.0.interface.clone(),
            address: self.0.address.clone(),
            manifest_serial,
            images,
            hashing: hashing.collect(),
            degraded: state::degraded(&self.0.lab),
            services,
            nodes,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How the web server is doing.
pub(crate) fn http(site: Site) -> Teller {
    Box::new(move || running("http", json!(site.counts())))
}

/// How the tracker is doing, if there is one.
pub(crate) fn tracker(tracker: Option<tracker::Shared>) -> Teller {
    Box::new(move || match &tracker {
        Some(tracker) => running("tracker", json!(tracker.counts())),
        None => off("tracker"),
    })
}

/// How the seeder is doing.
pub(crate) fn seeding(counts: impl Fn() -> Vec<SeedCounts> + Send + Sync + 'static) -> Teller {
    Box::new(move || {
        let images = counts();
        let sum = |of: fn(&SeedCounts) -> u64| images.iter().map(of).sum::<u64>();
        running(
            "seeder",
            json!({
                "uploaded_bytes": sum(|image| image.uploaded_bytes),
                "upload_rate_bytes_per_s": sum(|image| image.upload_rate_bytes_per_s),
                "peer_count": sum(|image| image.peer_count as u64),
                "images": images,
            }),
        )
    })
}

/// A service that runs.
pub(crate) fn running(name: &str, counts: Value) -> ServiceStatus {
    ServiceStatus { name: name.to_owned(), state: "running".to_owned(), counts }
}

/// A service that the configuration turned off.
pub(crate) fn off(name: &str) -> ServiceStatus {
    ServiceStatus { name: name.to_owned(), state: "off".to_owned(), counts: json!({}) }
}
