//! DHCP, proxyDHCP and the PXE boot service at their sockets; what is answered is `dhcp`'s affair.
//!
//! ```text
//! let dhcp = Dhcp::open(Setup::of(&settings, lab)?, Leases::open(settings.dir())?)?;   // before "ready"
//! let control = dhcp.control();                              // status, new settings
//! dhcp.run(events, shutdown).await?;                         // until shutdown, or a conflict
//! ```
//!
//! Events are `dhcp::Event`s; [`fleet::told`] makes of them what the fleet wants to hear, and
//! [`log`] what people do. `run` fails with a [`dhcp::Conflict`] if this server must not run beside
//! another that it found.
//!
//! One thread reads and answers (`driver`); a second one stores leases and sends the answers that
//! must wait for that (`crate::leases`). Both are apart from the threads that serve files, so that a
//! fleet that downloads does not keep its late nodes from booting.

mod command;
mod driver;
mod fleet;
mod log;
mod setup;
mod sockets;

use std::future::Future;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use dhcp::{Role, Service, Time};
use tokio::sync::{mpsc, oneshot};

pub(crate) use command::{DhcpArgs, run};
pub(crate) use fleet::told;
pub(crate) use setup::{Setup, netmask};

use crate::leases::Leases;
use driver::{Driver, Shared};
use sockets::Sockets;

/// A DHCP service whose ports are taken.
pub(crate) struct Dhcp {
    service: Service,
    sockets: Sockets,
    leases: Leases,
    clock: Clock,
    shared: Arc<Shared>,
}

/// A running service, for who asks how it is or wants it otherwise.
#[derive(Clone)]
pub(crate) struct Control(Arc<Shared>);

/// How it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Status {
    /// None while it looks for other servers.
    pub(crate) role: Option<Role>,
    /// Addresses that nobody has or had.
    pub(crate) free_count: usize,
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
    pub(crate) fn open(setup: Setup, leases: Leases) -> anyhow::Result<Self> {
        let Setup { interface, config } = setup;
        let sockets = Sockets::open(&interface, config.address)?;
        let clock = Clock::new();
        let seed = getrandom::u64().context("no randomness from the system")?;
        let service = Service::new(config, leases.load()?, clock.now(), seed)
            .context("these DHCP settings cannot be followed")?;
        let shared = Arc::new(Shared::new().context("cannot start the DHCP service")?);
        Ok(Self { service, sockets, leases, clock, shared })
    }

    /// What to ask it by while it runs.
    pub(crate) fn control(&self) -> Control {
        Control(Arc::clone(&self.shared))
    }

    /// Serves until `shutdown`. Events go to `events` as long as there is room.
    ///
    /// # Errors
    /// If another server is found that this one must not run beside, or the system fails us.
    pub(crate) async fn run(
        self,
        events: mpsc::Sender<dhcp::Event>,
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
        *self.0.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets it go on with other settings. The interface and the address cannot change.
    ///
    /// # Errors
    /// If the settings contradict themselves; then those before stay.
    pub(crate) fn configure(&self, setup: Setup) -> Result<(), dhcp::ConfigError> {
        setup.config.check()?;
        self.0.configure(setup.config);
        Ok(())
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
