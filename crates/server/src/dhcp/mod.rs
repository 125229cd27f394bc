//! DHCP, proxyDHCP and the PXE boot service at their sockets; what is answered is `dhcp`'s affair.
//!
//! ```text
//! let dhcp = Dhcp::open(Setup::of(&settings, lab)?, place)?;  // before "ready"
//! let control = dhcp.control();                              // status, new settings
//! dhcp.run(events, shutdown).await?;                         // until shutdown
//! ```
//!
//! Events are `dhcp::Event`s; [`fleet::told`] makes of them what the fleet wants to hear, and
//! [`log`] what people do. Beside another server that it must not contradict the service waits; nothing
//! that comes by the network ends `run`. If the system fails it, [`Dhcp::keep_running`] begins anew.
//!
//! One thread reads and answers (`driver`); a second one stores leases and sends the answers that
//! must wait for that (`crate::leases`). Both are apart from the threads that serve files, so that a
//! fleet that downloads does not keep its late nodes from booting.

mod command;
mod driver;
mod fleet;
mod heard;
mod log;
mod neighbours;
mod prover;
mod role;
mod setup;
mod sockets;

use std::convert::Infallible;
use std::future::Future;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use dhcp::{Conflict, Event, Mac, Pool, Role, Service, Start, Time};
use tokio::sync::{mpsc, oneshot};

pub(crate) use command::{DhcpArgs, run};
pub(crate) use fleet::{has_fetched, role, told};
pub(crate) use prover::LabProver;
pub(crate) use role::Memory;
pub(crate) use setup::{Setup, netmask};

use crate::leases::Leases;
use driver::{Driver, Shared};
use sockets::Sockets;

/// How long after a failure it is tried again: long enough that a log can be read beside it.
const AGAIN: Duration = Duration::from_secs(15);

/// What a service has besides its settings, also when it begins anew.
#[derive(Clone)]
pub(crate) struct Place {
    /// Opens the leases.
    pub(crate) leases: Arc<dyn Fn() -> anyhow::Result<Leases> + Send + Sync>,
    /// What it was before.
    pub(crate) memory: Memory,
    /// By which it knows other servers of its lab.
    pub(crate) prover: LabProver,
}

/// A DHCP service whose ports are taken.
pub(crate) struct Dhcp {
    service: Service,
    place: Place,
    sockets: Sockets,
    leases: Leases,
    clock: Clock,
    shared: Arc<Shared>,
}

/// A running service, for who asks how it is or wants it otherwise.
#[derive(Clone)]
pub(crate) struct Control(Arc<Shared>);

/// How it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Status {
    /// None while it looks for other servers, or waits.
    pub(crate) role: Option<Role>,
    /// Because of whom it waits.
    pub(crate) waits_for: Option<Conflict>,
    /// Why it does not run; it is tried again.
    pub(crate) failure: Option<String>,
    /// [`Event::Draining`], if that is so.
    pub(crate) drained: Option<Event>,
    /// How the addresses are used.
    pub(crate) pool: Pool,
    /// Leases that have not ended.
    pub(crate) lease_count: usize,
    /// Datagrams read.
    pub(crate) received_count: u64,
    /// Answers that were sent.
    pub(crate) sent_count: u64,
    /// Answers that could not be sent or stored in time.
    pub(crate) dropped_count: u64,
}

impl Dhcp {
    /// Takes the ports and reads the leases of before.
    ///
    /// # Errors
    /// If a port cannot be had (the text says why), or leases cannot be read, or the settings
    /// contradict themselves.
    pub(crate) fn open(setup: Setup, place: Place) -> anyhow::Result<Self> {
        let shared = Shared::new(setup.clone()).context("cannot start the DHCP service")?;
        Self::begin(setup, place, Arc::new(shared))
    }

    fn begin(setup: Setup, place: Place, shared: Arc<Shared>) -> anyhow::Result<Self> {
        let Setup { interface, config } = setup;
        let sockets = Sockets::open(&interface, config.address)?;
        let leases = (place.leases)()?;
        let clock = Clock::new();
        let start = Start {
            leases: leases.load()?,
            last_role: place.memory.last(config.subnet),
            prover: Box::new(place.prover.clone()),
            seed: getrandom::u64().context("no randomness from the system")?,
        };
        let service = Service::new(config, start, clock.now())
            .context("these DHCP settings cannot be followed")?;
        Ok(Self { service, place, sockets, leases, clock, shared })
    }

    /// Serves, and begins anew after a failure: what ends DHCP ends nothing else.
    pub(crate) async fn keep_running(self, events: mpsc::Sender<Event>) -> Infallible {
        let (place, shared) = (self.place.clone(), Arc::clone(&self.shared));
        let mut next = Ok(self);
        loop {
            let error = match next {
                Ok(server) => match server.run(events.clone(), std::future::pending()).await {
                    Ok(()) => anyhow::anyhow!("the DHCP service ended"),
                    Err(error) => error,
                },
                Err(error) => error,
            };
            tracing::error!("{error:#}; DHCP is tried again in {} s", AGAIN.as_secs());
            shared.failed(&error);
            tokio::time::sleep(AGAIN).await;
            next = Self::begin(shared.setup(), place.clone(), Arc::clone(&shared));
        }
    }

    /// What to ask it by while it runs.
    pub(crate) fn control(&self) -> Control {
        Control(Arc::clone(&self.shared))
    }

    /// Serves until `shutdown`. Events go to `events` as long as there is room.
    ///
    /// # Errors
    /// If the system fails us.
    pub(crate) async fn run(
        self,
        events: mpsc::Sender<Event>,
        shutdown: impl Future<Output = ()>,
    ) -> anyhow::Result<()> {
        let shared = Arc::clone(&self.shared);
        let driver = Driver::new(self, events)?;
        let (sender, ended) = oneshot::channel();
        std::thread::Builder::new()
            .name("dhcp".to_owned())
            .spawn(move || sender.send(driver.run()))
            .context("cannot start the DHCP service's thread")?;
        tokio::pin!(ended);
        tokio::select! {
            () = shutdown => {
                shared.stop();
                ended.await
            }
            result = &mut ended => result,
        }
        .context("the DHCP service's thread panicked")?
    }
}

impl Control {
    /// How the service is.
    pub(crate) fn status(&self) -> Status {
        self.0.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Lets it go on with other settings. The interface and the address cannot change.
    ///
    /// # Errors
    /// If the settings contradict themselves; then those before stay.
    pub(crate) fn configure(&self, setup: Setup) -> Result<(), dhcp::ConfigError> {
        setup.config.check()?;
        self.0.configure(setup);
        Ok(())
    }

    /// This server has seen the machine use the address that it leased to it.
    pub(crate) fn used(&self, mac: Mac) {
        self.0.used(mac);
    }

    /// An event was taken note of.
    pub(crate) fn noted(&self) {
        self.0.heard.noted();
    }

    /// [`Heard::caught_up`].
    pub(crate) async fn caught_up(self) {
        self.0.heard.caught_up().await;
    }

    /// Whether it does what it is there for, or will in a moment.
    pub(crate) fn is_well(&self) -> bool {
        let status = self.status();
        status.failure.is_none() && status.waits_for.is_none()
    }
}

/// Times for leases: the system's clock at the start, and from then on what passes, so that a clock
/// that is set meanwhile ends no lease.
#[derive(Clone, Copy, Debug)]
struct Clock {
    unix_at_start: Duration,
    start: Instant,
}

impl Clock {
    fn new() -> Self {
        let unix_at_start = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { unix_at_start, start: Instant::now() }
    }

    fn now(self) -> Time {
        Time::ZERO + self.unix_at_start + self.start.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_are_dated_by_the_systems_clock() {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let now = Clock::new().now().as_secs();
        assert!(now.abs_diff(unix.as_secs()) <= 1);
    }
}
