//! Stands in until the network is merged.
use boot::{Failure, Mac};
use std::net::Ipv4Addr;
use std::path::PathBuf;
#[derive(Clone, Debug, Default)]
pub(crate) struct NetworkConfig {
    pub(crate) preferred: Option<Mac>,
    pub(crate) boot_server: Option<Ipv4Addr>,
    pub(crate) sys: PathBuf,
}
pub(crate) struct Interface {
    pub(crate) name: String,
    pub(crate) mac: Mac,
    pub(crate) driver: Option<String>,
}
pub(crate) struct Lease {
    pub(crate) address: Ipv4Addr,
    pub(crate) prefix_len: u8,
    pub(crate) server: Ipv4Addr,
}
#[allow(dead_code)]
pub(crate) enum NetworkEvent<'a> {
    LookingForLink { interfaces: &'a [Interface] },
    Carrier { interface: &'a Interface },
    AskingForLease { interface: &'a Interface, attempt: u32 },
    Bound { interface: &'a Interface, lease: &'a Lease },
}
#[derive(Debug, thiserror::Error)]
#[error("no network in this build")]
pub(crate) struct NetworkError;
impl NetworkError {
    pub(crate) fn failure(&self) -> Failure {
        Failure::NoInterface
    }
}
pub(crate) struct Network {
    interface: Interface,
}
impl Network {
    pub(crate) fn bring_up(
        _: &NetworkConfig,
        _: &mut dyn FnMut(NetworkEvent<'_>),
    ) -> Result<Self, NetworkError> {
        Err(NetworkError)
    }
    pub(crate) fn lease(&self) -> Lease {
        Lease { address: Ipv4Addr::UNSPECIFIED, prefix_len: 0, server: Ipv4Addr::UNSPECIFIED }
    }
    pub(crate) fn interface(&self) -> &Interface {
        &self.interface
    }
}
