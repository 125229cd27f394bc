//! How a node gets on the network: finds the interface, waits for its carrier, leases an address,
//! sets it, and keeps the lease for as long as the agent lives.
//!
//! In the order of what happens: [`interface`] lists what sysfs shows, [`choice`] says on which to
//! ask, [`dialogue`] asks (with the packets of [`frame`] through the sockets of [`socket`]),
//! [`netlink`] sets what was leased, [`resolver`] writes the name servers, [`keeper`] renews.
//!
//! The carrier is looked for in sysfs every [`POLL_INTERVAL`]: a subscription to the kernel's
//! messages would save half of that on average, of a boot that takes seconds, and need a second way
//! to see the same thing.

mod alone;
mod choice;
mod dialogue;
mod frame;
mod interface;
mod keeper;
mod netlink;
mod resolver;
mod socket;

use std::fmt;
use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use boot::{Failure, Mac};
use dhcp::client::ClientConfig;
pub(crate) use dhcp::client::Lease;

pub(crate) use self::alone::run_alone;
use self::dialogue::{Dialogue, LeaseEvent, Turn};
pub(crate) use self::interface::{Interface, list as interfaces};
use self::keeper::Keeper;
use self::netlink::Netlink;

/// How often interfaces and carriers are looked at while one is awaited.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// How often the carrier is looked at while a lease is awaited.
const CARRIER_INTERVAL: Duration = Duration::from_millis(500);

/// What is known before there is a network.
#[derive(Clone, Debug)]
pub(crate) struct NetworkConfig {
    /// The address of the interface that the node was started from (`boottorrent.mac=`).
    pub(crate) preferred: Option<Mac>,
    /// The only interfaces to be used, hardware or not. A node names none, and uses what is hardware.
    pub(crate) only: Vec<String>,
    /// The server that the node boots from: of several offers its own is taken.
    pub(crate) boot_server: Option<Ipv4Addr>,
    /// The node's name, if it has one already.
    pub(crate) hostname: Option<String>,
    /// Where name servers are written.
    pub(crate) resolv_conf: Option<PathBuf>,
    /// Where sysfs is mounted.
    pub(crate) sys: PathBuf,
    /// How long an Ethernet interface is waited for: drivers load firmware, USB takes its time.
    pub(crate) interface_wait: Duration,
    /// How long a carrier is waited for, from when there is an interface.
    pub(crate) carrier_wait: Duration,
    /// How long a lease is waited for, from when there is a carrier. Ports with spanning tree pass
    /// nothing on for 30 s.
    pub(crate) lease_wait: Duration,
}

impl Default for NetworkConfig {
    fn default() -> Self {
        Self {
            preferred: None,
            only: vec![],
            boot_server: None,
            hostname: None,
            resolv_conf: Some("/etc/resolv.conf".into()),
            sys: "/sys".into(),
            interface_wait: Duration::from_secs(15),
            carrier_wait: Duration::from_secs(30),
            lease_wait: Duration::from_secs(45),
        }
    }
}

/// How far it is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum NetworkEvent<'a> {
    /// These interfaces are there, and none that may be used has a carrier yet; said again when
    /// there are others.
    LookingForLink {
        /// All that may be used; none if there is none.
        interfaces: &'a [Interface],
    },
    /// This one has a link and is asked on.
    Carrier {
        /// Which.
        interface: &'a Interface,
    },
    /// A DHCP server is asked.
    AskingForLease {
        /// On which interface.
        interface: &'a Interface,
        /// For which time there, from 1.
        attempt: u32,
    },
    /// The interface has an address and the node a network.
    Bound {
        /// Which.
        interface: &'a Interface,
        /// The address, and what came with it.
        lease: &'a Lease,
    },
}

/// Why there is no network (yet): the agent tries again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NetworkError {
    #[error("no Ethernet interface has appeared within {} s", waited.as_secs())]
    NoInterface { waited: Duration },
    #[error("none of {} has had a carrier for {} s", Names(interfaces), waited.as_secs())]
    NoCarrier { interfaces: Vec<String>, waited: Duration },
    #[error("no DHCP server has answered on {} within {} s", Names(interfaces), waited.as_secs())]
    NoLease { interfaces: Vec<String>, waited: Duration },
    #[error("another machine uses {address}, which was leased to {interface}")]
    AddressTaken { interface: String, address: Ipv4Addr },
    #[error("{what}")]
    System { what: String, source: io::Error },
}

impl NetworkError {
    /// Its code for the screen and the server.
    pub(crate) fn failure(&self) -> Failure {
        match self {
            Self::NoInterface { .. } => Failure::NoInterface,
            Self::NoCarrier { .. } => Failure::NoCarrier,
            Self::NoLease { .. } => Failure::NoLease,
            Self::AddressTaken { .. } => Failure::AddressTaken,
            Self::System { .. } => Failure::Internal,
        }
    }

    fn system(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::System { what, source }
    }
}

/// Names with commas between them.
struct Names<'a>(&'a [String]);

impl fmt::Display for Names<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(", "))
    }
}

/// A node's network. While it lives, a thread keeps the lease.
pub(crate) struct Network {
    interface: Interface,
    keeper: Keeper,
}

impl Network {
    /// Brings it up, and says how far it is. Blocks until there is an address, or one of the waits of
    /// `config` is over; may be called again then.
    pub(crate) fn bring_up(
        config: &NetworkConfig,
        progress: &mut dyn FnMut(NetworkEvent<'_>),
    ) -> Result<Self, NetworkError> {
        let netlink =
            Netlink::open().map_err(NetworkError::system("a netlink socket cannot be opened"))?;
        BringUp { config, progress, netlink, up: vec![], asked: vec![], declined: None }.run()
    }

    /// The lease in force, or the last one that was.
    pub(crate) fn lease(&self) -> Lease {
        self.keeper.lease()
    }

    /// The interface that has it.
    pub(crate) fn interface(&self) -> &Interface {
        &self.interface
    }
}

/// How a turn on one interface ended.
enum Asked {
    Bound(Box<Dialogue>, Lease),
    CarrierLost,
    NobodyAnswered,
}

struct BringUp<'a> {
    config: &'a NetworkConfig,
    progress: &'a mut dyn FnMut(NetworkEvent<'_>),
    netlink: Netlink,
    /// Indices of the interfaces that were switched on.
    up: Vec<u32>,
    /// Names of those that were asked on without success, each time anew.
    asked: Vec<String>,
    /// An address that was leased and is another machine's.
    declined: Option<(String, Ipv4Addr)>,
}

impl BringUp<'_> {
    fn run(mut self) -> Result<Network, NetworkError> {
        // Without it programs of the image may wait for a local connection for ever; booting can go
        // on.
        if let Err(error) = self.netlink.set_up(netlink::LOOPBACK) {
            tracing::warn!(%error, "the loopback interface cannot be switched on");
        }
        let start = Instant::now();
        let mut lease_deadline = None;
        loop {
            let interface = self.find_link(start, lease_deadline)?;
            let deadline =
                *lease_deadline.get_or_insert_with(|| Instant::now() + self.config.lease_wait);
            (self.progress)(NetworkEvent::Carrier { interface: &interface });
            match self.ask(&interface, deadline)? {
                Asked::Bound(dialogue, lease) => return self.finish(*dialogue, lease),
                Asked::CarrierLost => {
                    tracing::warn!(interface = interface.name, "the carrier is gone");
                }
                Asked::NobodyAnswered => self.asked.push(interface.name),
            }
            if Instant::now() >= deadline {
                return Err(self.no_lease());
            }
        }
    }

    /// Waits for an interface with a carrier. With `deadline`, which is later than any other wait,
    /// something has had a carrier before.
    fn find_link(
        &mut self,
        start: Instant,
        deadline: Option<Instant>,
    ) -> Result<Interface, NetworkError> {
        let mut known = None;
        let mut first_seen = None;
        loop {
            let mut interfaces = self.list()?;
            if self.switch_on(&interfaces) {
                // Virtual cards have their carrier at once.
                interfaces = self.list()?;
            }
            let waited = start.elapsed();
            let found =
                choice::choose(&interfaces, self.config.preferred, &self.asked, waited).cloned();
            if let Some(interface) = found {
                return Ok(interface);
            }
            let names = names(&interfaces);
            if known.as_ref() != Some(&names) {
                (self.progress)(NetworkEvent::LookingForLink { interfaces: &interfaces });
            }
            let seen: Instant = match interfaces.first() {
                Some(_) => *first_seen.get_or_insert_with(Instant::now),
                None if waited < self.config.interface_wait => Instant::now(),
                None => return Err(NetworkError::NoInterface { waited }),
            };
            let waited = seen.elapsed();
            if deadline.map_or(waited >= self.config.carrier_wait, |at| Instant::now() >= at) {
                return Err(NetworkError::NoCarrier { interfaces: names, waited });
            }
            known = Some(names);
            std::thread::sleep(POLL_INTERVAL);
        }
    }

    /// The interfaces that may be used.
    fn list(&self) -> Result<Vec<Interface>, NetworkError> {
        let sys = &self.config.sys;
        let mut interfaces = interface::list(sys).map_err(NetworkError::system(format!(
            "{} cannot be read: is sysfs mounted?",
            sys.join("class/net").display()
        )))?;
        interfaces.retain(|interface| match &self.config.only[..] {
            [] => interface.is_hardware,
            only => only.contains(&interface.name),
        });
        Ok(interfaces)
    }

    /// Only an interface that is up looks for a carrier. One that cannot be switched on is tried
    /// again: its firmware may come later. Whether any was switched on.
    fn switch_on(&mut self, interfaces: &[Interface]) -> bool {
        let before = self.up.len();
        for interface in interfaces {
            if self.up.contains(&interface.index) {
                continue;
            }
            match self.netlink.set_up(interface.index) {
                Ok(()) => self.up.push(interface.index),
                Err(error) => {
                    tracing::debug!(interface = interface.name, %error, "it cannot be switched on");
                }
            }
        }
        self.up.len() > before
    }

    /// Asks for a lease on one interface, until `deadline` or, if others could be asked on, for its
    /// share of the time.
    fn ask(&mut self, interface: &Interface, deadline: Instant) -> Result<Asked, NetworkError> {
        let failed = || NetworkError::system(format!("no DHCP on {}", interface.name));
        let mut dialogue =
            Dialogue::new(interface.clone(), self.client_config(interface)).map_err(failed())?;
        let share_end = Instant::now() + choice::SHARE;
        let mut attempt = 0;
        loop {
            let look_at = deadline.min(Instant::now() + CARRIER_INTERVAL);
            // The first turn sends the first DISCOVER and comes back at once, to say so.
            let look_at = if attempt == 0 { Instant::now() } else { look_at };
            let turn = dialogue.wait(Some(look_at), None).map_err(failed())?;
            if dialogue.attempt() > attempt {
                attempt = dialogue.attempt();
                (self.progress)(NetworkEvent::AskingForLease { interface, attempt });
            }
            match turn {
                Turn::Event(LeaseEvent::Bound(lease)) => {
                    return Ok(Asked::Bound(Box::new(dialogue), lease));
                }
                Turn::Event(LeaseEvent::Declined(address)) => {
                    self.declined = Some((interface.name.clone(), address));
                }
                // Only a lease that was bound can be renewed or lost.
                Turn::Event(LeaseEvent::Renewed(_) | LeaseEvent::Lost(..)) => {}
                Turn::Deadline | Turn::Interrupted => {}
            }
            if !interface::has_carrier(&self.config.sys, &interface.name) {
                return Ok(Asked::CarrierLost);
            }
            let now = Instant::now();
            if now >= deadline
                || now >= share_end && choice::has_rival(&self.list()?, &interface.name)
            {
                return Ok(Asked::NobodyAnswered);
            }
        }
    }

    fn client_config(&self, interface: &Interface) -> ClientConfig {
        ClientConfig {
            mac: interface.mac.0,
            uuid: machine_uuid(&self.config.sys),
            hostname: self.config.hostname.clone(),
            boot_server: self.config.boot_server,
            random_seed: random_seed(interface.mac),
        }
    }

    /// Sets what was leased, and leaves the lease to its keeper.
    fn finish(mut self, mut dialogue: Dialogue, lease: Lease) -> Result<Network, NetworkError> {
        let interface = dialogue.interface().clone();
        let settings = keeper::Settings {
            interface: interface.clone(),
            resolv_conf: self.config.resolv_conf.clone(),
        };
        let failed = || {
            NetworkError::system(format!(
                "{} cannot be given the address {}",
                interface.name, lease.address
            ))
        };
        settings.apply(&mut self.netlink, &lease).map_err(failed())?;
        dialogue.address_is_set(lease.address).map_err(failed())?;
        (self.progress)(NetworkEvent::Bound { interface: &interface, lease: &lease });
        let keeper = Keeper::start(dialogue, self.netlink, settings, lease)
            .map_err(NetworkError::system("no thread can be started to keep the lease"))?;
        Ok(Network { interface, keeper })
    }

    fn no_lease(&mut self) -> NetworkError {
        if let Some((interface, address)) = self.declined.take() {
            return NetworkError::AddressTaken { interface, address };
        }
        let mut interfaces = std::mem::take(&mut self.asked);
        interfaces.sort();
        interfaces.dedup();
        NetworkError::NoLease { interfaces, waited: self.config.lease_wait }
    }
}

fn names(interfaces: &[Interface]) -> Vec<String> {
    interfaces.iter().map(|interface| interface.name.clone()).collect()
}

/// The SMBIOS UUID as firmware puts it on the wire: Linux shows its first three fields as numbers,
/// and SMBIOS keeps those with the low byte first (SMBIOS 2.6, section 7.2.1).
fn machine_uuid(sys: &std::path::Path) -> Option<[u8; 16]> {
    let text = std::fs::read_to_string(sys.join("class/dmi/id/product_uuid")).ok()?;
    let mut uuid: [u8; 16] = boot::hex::decode(&text.trim().replace('-', ""))?;
    uuid[..4].reverse();
    uuid[4..6].reverse();
    uuid[6..8].reverse();
    Some(uuid)
}

/// Differs between nodes by their address, and between attempts by the random state of the process.
fn random_seed(mac: Mac) -> u64 {
    let [a, b, c, d, e, f] = mac.0;
    fastrand::u64(..) ^ u64::from_be_bytes([0, 0, a, b, c, d, e, f])
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn lease() -> Lease {
        Lease {
            address: Ipv4Addr::new(10, 0, 0, 50),
            prefix_len: 24,
            routers: vec![Ipv4Addr::new(10, 0, 0, 254)],
            dns: vec![],
            domain: None,
            hostname: None,
            mtu: None,
            server: Ipv4Addr::new(10, 0, 0, 1),
            lease_time: Some(Duration::from_secs(3_600)),
            next_server: None,
            boot_file: None,
        }
    }

    #[test]
    fn failures_have_their_codes() {
        let waited = Duration::from_secs(30);
        let error =
            NetworkError::NoCarrier { interfaces: vec!["eth0".into(), "eth1".into()], waited };
        assert_eq!(error.failure(), Failure::NoCarrier);
        assert_eq!(error.to_string(), "none of eth0, eth1 has had a carrier for 30 s");
    }

    #[test]
    fn the_uuid_goes_out_as_firmware_sends_it() {
        let sys = tempfile::TempDir::new().unwrap();
        assert_eq!(machine_uuid(sys.path()), None);
        let dir = sys.path().join("class/dmi/id");
        std::fs::create_dir_all(&dir).unwrap();
        let write = |text: &str| std::fs::write(dir.join("product_uuid"), text).unwrap();
        write("00112233-4455-6677-8899-aabbccddeeff\n");
        let expect = "33221100554477668899aabbccddeeff";
        assert_eq!(
            machine_uuid(sys.path()).map(|uuid| boot::hex::encode(&uuid)).as_deref(),
            Some(expect)
        );
        write("Not Settable\n");
        assert_eq!(machine_uuid(sys.path()), None);
    }
}
