//! Keeps a lease while the agent lives: a thread that renews it, and that looks for another address
//! when it is lost.

use std::io::{self, Read as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use dhcp::client::Lease;

use super::dialogue::{Dialogue, LeaseEvent, Turn};
use super::interface::Interface;
use super::netlink::Netlink;
use super::resolver;

/// How long to let an interface alone that cannot be spoken to: it is gone, or comes back by itself.
const TROUBLE_PAUSE: Duration = Duration::from_secs(5);

/// Where a lease goes.
pub(super) struct Settings {
    pub(super) interface: Interface,
    pub(super) resolv_conf: Option<PathBuf>,
}

impl Settings {
    /// Sets address, route and name servers. Only the first two are needed for a boot.
    pub(super) fn apply(&self, netlink: &mut Netlink, lease: &Lease) -> io::Result<()> {
        let index = self.interface.index;
        if let Some(mtu) = lease.mtu
            && let Err(error) = netlink.set_mtu(index, mtu)
        {
            tracing::warn!(interface = self.interface.name, mtu, %error, "MTU not set");
        }
        netlink.add_address(index, lease)?;
        if let Some(&router) = lease.routers.first() {
            netlink.set_default_route(index, lease, router)?;
        }
        if let Some(path) = &self.resolv_conf
            && let Err(error) = resolver::write(path, lease)
        {
            tracing::warn!(path = %path.display(), %error, "name servers not written");
        }
        Ok(())
    }
}

/// The thread's handle. Dropping it ends the thread; the address stays.
pub(super) struct Keeper {
    lease: Arc<Mutex<Lease>>,
    /// Closed to end the thread. `None` while it is being dropped.
    alive: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    /// Starts it with a lease that is in force and set.
    pub(super) fn start(
        dialogue: Dialogue,
        netlink: Netlink,
        settings: Settings,
        lease: Lease,
    ) -> io::Result<Self> {
        let (alive, end) = UnixStream::pair()?;
        let lease = Arc::new(Mutex::new(lease));
        let watch = Watch { dialogue, netlink, settings, lease: Arc::clone(&lease), end };
        let thread = std::thread::Builder::new().name("lease".into()).spawn(move || watch.run())?;
        Ok(Self { lease, alive: Some(alive), thread: Some(thread) })
    }

    /// The lease in force, or the last one that was.
    pub(super) fn lease(&self) -> Lease {
        lock(&self.lease).clone()
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        drop(self.alive.take());
        if let Some(thread) = self.thread.take() {
            // A thread that has panicked has said so.
            let _ = thread.join();
        }
    }
}

/// What the thread owns.
struct Watch {
    dialogue: Dialogue,
    netlink: Netlink,
    settings: Settings,
    lease: Arc<Mutex<Lease>>,
    /// Readable when the keeper is dropped.
    end: UnixStream,
}

impl Watch {
    fn run(mut self) {
        let interface = self.settings.interface.name.clone();
        loop {
            let turn = self.dialogue.wait(None, Some(self.end.as_fd()));
            let result = match turn {
                Ok(Turn::Interrupted) => return,
                Ok(Turn::Deadline) => Ok(()),
                Ok(Turn::Event(event)) => self.take(event),
                Err(error) => Err(error),
            };
            if let Err(error) = result {
                tracing::warn!(interface, %error, "the lease cannot be kept for now");
                // Also a way to wait that ends when it should.
                if self.end.set_read_timeout(Some(TROUBLE_PAUSE)).is_err()
                    || self.end.read(&mut [0]).is_ok()
                {
                    return;
                }
            }
        }
    }

    fn take(&mut self, event: LeaseEvent) -> io::Result<()> {
        let interface = &self.settings.interface;
        match event {
            LeaseEvent::Bound(lease) => {
                tracing::info!(interface = interface.name, address = %lease.address, "leased");
                self.settings.apply(&mut self.netlink, &lease)?;
                self.dialogue.address_is_set(lease.address)?;
                *lock(&self.lease) = lease;
            }
            LeaseEvent::Renewed(lease) => {
                tracing::debug!(interface = interface.name, address = %lease.address, "renewed");
                let before = lock(&self.lease).clone();
                if (before.prefix_len, &before.routers, &before.dns, before.mtu)
                    != (lease.prefix_len, &lease.routers, &lease.dns, lease.mtu)
                {
                    self.settings.apply(&mut self.netlink, &lease)?;
                }
                *lock(&self.lease) = lease;
            }
            LeaseEvent::Lost(address, reason) => {
                tracing::warn!(interface = interface.name, %address, ?reason, "lease lost");
                let lease = lock(&self.lease).clone();
                self.netlink.remove_address(interface.index, &lease)?;
            }
            LeaseEvent::Declined(address) => {
                tracing::warn!(interface = interface.name, %address, "declined: it is in use");
            }
        }
        Ok(())
    }
}

fn lock(lease: &Mutex<Lease>) -> MutexGuard<'_, Lease> {
    // A lease is replaced whole: a panic elsewhere leaves it as it was.
    lease.lock().unwrap_or_else(PoisonError::into_inner)
}
