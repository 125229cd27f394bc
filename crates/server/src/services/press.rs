//! Publishes: whatever takes its time between a lab that was read and nodes that see it happens here, and in
//! a task of its own, so that the main loop stays free for signals, commands and the watchdog.

use std::sync::Arc;
use std::time::Duration;

use ::dhcp::LabId;
use anyhow::Context as _;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::block_in_place;
use tokio::time::MissedTickBehavior;

use super::changes::Changes;
use super::edition::{self, BootFiles, ImageSource};
use super::facts::Facts;
use super::run::configure;
use super::seeding::Seeding;
use crate::dhcp::{Control as DhcpControl, Setup};
use crate::fleet::{SharedFleet, UnixMs};
use crate::http::{Site, Tls};
use crate::lab::publication::Publication;
use crate::lab::publisher::Outcome;
use crate::tftp::Root;

/// How often it is looked for what may be forgotten.
const FORGET_INTERVAL: Duration = Duration::from_secs(3600);

/// How often old versions of images are looked at.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);

/// What came of a reload, or why nothing did.
pub(super) type Reloaded = Result<Changes, String>;

/// Asks what came of all that was read until now.
pub(super) type Ask = oneshot::Sender<Reloaded>;

/// What is published, and where.
pub(super) struct Press {
    pub(super) publication: Arc<Publication>,
    pub(super) boot_files: BootFiles,
    pub(super) images: Vec<ImageSource>,
    pub(super) facts: Facts,
    pub(super) fleet: SharedFleet,
    pub(super) site: Site,
    pub(super) tls: Option<Tls>,
    pub(super) root: watch::Sender<Arc<Root>>,
    pub(super) dhcp: Option<DhcpControl>,
    pub(super) lab: LabId,
    pub(super) seeding: Seeding,
    /// What came of the last change, until somebody has asked.
    pub(super) answer: Option<Reloaded>,
}

impl Press {
    /// Publishes what `events` brings, until nobody can ask any more. Returns what still seeds.
    pub(super) async fn run(
        mut self,
        mut events: mpsc::UnboundedReceiver<anyhow::Result<Outcome>>,
        mut asks: mpsc::Receiver<Ask>,
    ) -> Seeding {
        let mut sweep = tokio::time::interval(SWEEP_INTERVAL);
        let mut forget = tokio::time::interval(FORGET_INTERVAL);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                Some(told) = events.recv() => block_in_place(|| self.changed(told)),
                ask = asks.recv() => {
                    let Some(ask) = ask else { return self.seeding };
                    while let Ok(told) = events.try_recv() {
                        block_in_place(|| self.changed(told));
                    }
                    let nothing = || Err("the lab was not read: see the log".to_owned());
                    let _ = ask.send(self.answer.take().unwrap_or_else(nothing));
                }
                _ = sweep.tick() => block_in_place(|| {
                    self.seeding.sweep();
                    self.site.sweep();
                    let is_well = self.dhcp.as_ref().is_none_or(DhcpControl::is_well);
                    self.site.set_dhcp_well(is_well);
                }),
                _ = forget.tick() => block_in_place(|| self.forget()),
            }
        }
    }

    fn forget(&self) {
        let keep = self.publication.settings.history.as_millis();
        let until = UnixMs::now().0.saturating_sub(u64::try_from(keep).unwrap_or(u64::MAX));
        self.fleet.lock().forget_until(UnixMs(until));
    }

    /// The lab was read again: publishes what is new, and says what came of it.
    fn changed(&mut self, told: anyhow::Result<Outcome>) {
        self.answer = Some(match told.and_then(|outcome| self.publish(&outcome)) {
            Ok(changes) => {
                tracing::info!(target: "LAB", "read again: {}", changes.text());
                Ok(changes)
            }
            Err(error) => {
                let text = format!("not reloaded, all stays as it was: {error:#}");
                tracing::error!(target: "LAB", "{text}");
                Err(text)
            }
        });
    }

    fn publish(&mut self, outcome: &Outcome) -> anyhow::Result<Changes> {
        let changes = Changes::between(&self.publication, outcome);
        // Also if nothing else is new: a certificate is renewed under the same name.
        let files = &outcome.publication.settings.dashboard.tls;
        if let (Some(tls), Some(files)) = (&self.tls, files) {
            tls.reload(files)?;
        }
        if outcome.is_new {
            let edition = edition::make(&outcome.publication, &self.boot_files, &self.images)?;
            self.facts.publish(&edition);
            self.root.send_replace(edition.tftp);
            self.site.publish(edition.live);
            self.seeding.publish(&edition.images);
            self.images = edition.images;
            let settings = &outcome.publication.settings;
            configure(&self.fleet, settings);
            if let Some(dhcp) = &self.dhcp
                && let Some(setup) = Setup::of(settings, self.lab)?
            {
                dhcp.configure(setup).context("these DHCP settings cannot be followed")?;
            }
            self.publication = Arc::clone(&outcome.publication);
        }
        Ok(changes)
    }
}
