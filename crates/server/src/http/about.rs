//! What the web server asks of the rest of the running server.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::fleet::{ProofKey, UnixMs};
use crate::services::changes::Changes;
use crate::services::deeds::{Deed, Done, Refusal};
use crate::services::seeding::SeedCounts;
#[cfg(test)]
use crate::services::status::NodeCounts;
use crate::services::status::Status;
use crate::services::versions::OfImages;

/// A question that is answered at once.
pub(crate) type Ask<T> = Box<dyn Fn() -> T + Send + Sync>;

/// What has something done.
pub(crate) type Perform =
    Box<dyn Fn(Deed) -> BoxFuture<'static, Result<Done, Refusal>> + Send + Sync>;

/// What is waited for.
pub(crate) type Wait = Box<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>;

/// What has the main loop of the server do something.
pub(crate) type Tell<T> = Arc<dyn Fn() -> BoxFuture<'static, Result<T, String>> + Send + Sync>;

/// Whom to ask.
pub(crate) struct About {
    /// When this run of the server began.
    pub(crate) started: UnixMs,
    /// This server's address: who comes from it is on this machine.
    pub(crate) address: IpAddr,
    /// The whole status.
    pub(crate) status: Ask<Status>,
    /// How the seeding of each image is doing.
    pub(crate) seeding: Ask<Vec<SeedCounts>>,
    /// The leases on the disk, those that have ended among them. May wait for the disk.
    pub(crate) leases: Ask<anyhow::Result<Vec<dhcp::Lease>>>,
    /// The versions of the images on offer. May wait for the disk.
    pub(crate) versions: Ask<Arc<OfImages>>,
    /// Until the fleet knows of all leases that were given by now.
    pub(crate) leases_known: Wait,
    /// What nodes' secrets are made with.
    pub(crate) proofs: ProofKey,
    /// The lab, which has the token.
    pub(crate) lab: PathBuf,
    /// Has something done with nodes or images, for who is allowed to.
    pub(crate) perform: Perform,
    /// Has the configuration read again.
    pub(crate) reload: Tell<Changes>,
    /// Ends the server.
    pub(crate) stop: Tell<()>,
}

impl fmt::Debug for About {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("About").field("started", &self.started).finish_non_exhaustive()
    }
}

#[cfg(test)]
impl About {
    /// Of a server that has done nothing yet.
    pub(crate) fn for_tests() -> Self {
        let status = || Status {
            version: "0.0.0".to_owned(),
            lab: "/lab".into(),
            pid: 1,
            started: UnixMs(1),
            interface: "lo".to_owned(),
            address: "127.0.0.1".to_owned(),
            manifest_serial: 7,
            hashing: vec![],
            degraded: vec![],
            images: vec![],
            services: vec![],
            nodes: NodeCounts { count: 0, refused_count: 0, stages: vec![] },
        };
        Self {
            started: UnixMs(1),
            address: IpAddr::from([10, 0, 0, 1]),
            status: Box::new(status),
            seeding: Box::new(Vec::new),
            leases: Box::new(|| Ok(vec![])),
            versions: Box::new(Arc::default),
            leases_known: Box::new(|| Box::pin(std::future::ready(()))),
            proofs: ProofKey::of(&boot::LabKey::from_seed([1; 32])),
            lab: PathBuf::from("/nonexistent"),
            perform: Box::new(|deed| {
                Box::pin(async move { Ok(Done { text: format!("{deed:?}"), ..Done::default() }) })
            }),
            reload: Arc::new(|| Box::pin(async { Ok(Changes::default()) })),
            stop: Arc::new(|| Box::pin(async { Ok(()) })),
        }
    }
}
