//! The fleet as the services share it: a clock, a lock, and a line in the log for each change.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use boot::Mac;

use super::trust::{Caller, Claim, Proven, Segment};
use super::{Change, Event, Fleet, Standings, UnixMs};

/// The fleet, for whoever has something to tell it or to ask of it. What is done under its lock
/// takes microseconds.
#[derive(Clone, Debug, Default)]
pub(crate) struct SharedFleet(Arc<Mutex<Fleet>>);

impl UnixMs {
    /// The system's clock.
    pub(crate) fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

impl SharedFleet {
    pub(crate) fn new(fleet: Fleet) -> Self {
        Self(Arc::new(Mutex::new(fleet)))
    }

    /// A node did something.
    pub(crate) fn tell(&self, event: &Event) {
        let change = self.lock().handle(UnixMs::now(), event);
        change.iter().for_each(log);
    }

    /// Believes what `caller` says in a node's name, or keeps it as hearsay and gives it back. `look` asks the
    /// kernel who is at an address, and is called only if that decides.
    pub(crate) fn prove<T: Claim>(
        &self,
        caller: &Caller,
        claim: T,
        look: impl FnOnce(Ipv4Addr) -> Segment,
    ) -> Result<Proven<T>, T> {
        let now = UnixMs::now();
        let first = self.lock().prove(now, caller, claim, None);
        let (claim, asks_kernel) = match first {
            Ok(proven) => return Ok(proven),
            Err(unproven) => unproven,
        };
        let second = match (asks_kernel, caller.address) {
            (true, Some(address)) => {
                let segment = Some(look(address));
                self.lock().prove(now, caller, claim, segment).map_err(|(claim, _)| claim)
            }
            _ => Err(claim),
        };
        second.inspect_err(|claim| {
            self.lock().hear(now, claim.node(), caller.address, &claim.text());
        })
    }

    /// Somebody has decided something about a node.
    pub(crate) fn note(&self, mac: Mac, text: &str) {
        let change = self.lock().note(UnixMs::now(), mac, text);
        change.iter().for_each(log);
    }

    /// How much a peer is worth a place, where there is not room for all. Nodes are known by their IPv4 addresses.
    pub(crate) fn priority(&self, peer: IpAddr) -> places::Standing {
        match peer.to_canonical() {
            IpAddr::V4(address) => self.lock().priority(address),
            IpAddr::V6(_) => places::Standing::Stranger,
        }
    }

    /// [`Self::priority`], for services at their doors.
    pub(crate) fn standings(&self) -> Standings {
        let fleet = self.clone();
        Arc::new(move |peer| fleet.priority(peer))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Fleet> {
        // Nothing in there is left half done by a panic that would matter for booting.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn log(change: &Change) {
    let node = change.mac.to_string();
    if change.label == node {
        tracing::info!(target: "NODE", %node, "{}", change.text);
    } else {
        tracing::info!(target: "NODE", %node, "{} {}", change.label, change.text);
    }
}
