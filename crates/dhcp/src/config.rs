//! What a DHCP service is told to do, checked once.

use std::collections::BTreeSet;
use std::fmt;
use std::net::Ipv4Addr;
use std::time::Duration;

use crate::boot_files::BootFiles;
use crate::mac::Mac;

/// Addresses of all ranges together: four times what 16 bits name. Each free one takes some ten
/// bytes of memory.
pub const ADDRESSES_MAX: usize = 4 * 65_536;

/// Reservations: as many as a fleet of 10,000 nodes needs, and some.
pub const RESERVATIONS_MAX: usize = 16_384;

/// Name servers in an answer.
pub const DNS_MAX: usize = 8;

/// The shortest lease. Kernels of diskless systems take an address once and never renew it, so short
/// ones are a trap; this is for tests.
pub const LEASE_TIME_MIN: Duration = Duration::from_secs(10);

/// How to live with other DHCP servers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Listen first: give addresses if nobody else does, else only boot programs.
    #[default]
    Auto,
    /// Give addresses. Refused if somebody else does, unless forced.
    Server,
    /// Give boot programs beside the network's own server (PXE 2.1 section 2.2.3).
    Proxy,
}

/// What a service does in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Gives addresses and boot programs.
    Server,
    /// Gives boot programs.
    Proxy,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Server => "DHCP server",
            Self::Proxy => "proxyDHCP",
        })
    }
}

/// A lab, as its servers tell it to one another: the id of its key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LabId(pub [u8; 8]);

impl LabId {
    /// Of a server without a lab, which is nobody's twin.
    pub const NONE: Self = Self([0; 8]);
}

impl fmt::Display for LabId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for LabId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The addresses that share a network with one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subnet {
    network: Ipv4Addr,
    prefix_len: u8,
}

impl Subnet {
    /// The network of `address`, whose first `prefix_len` (at most 32) bits are the network's.
    #[must_use]
    pub fn of(address: Ipv4Addr, prefix_len: u8) -> Self {
        let prefix_len = prefix_len.min(32);
        let network = u32::from(address) & mask(prefix_len);
        Self { network: network.into(), prefix_len }
    }

    /// The network of another address, of the same size.
    #[must_use]
    pub fn same_size(self, address: Ipv4Addr) -> Self {
        Self::of(address, self.prefix_len)
    }

    /// Whether an address is in it.
    #[must_use]
    pub fn contains(self, address: Ipv4Addr) -> bool {
        Self::of(address, self.prefix_len) == self
    }

    /// The mask in the form of option 1.
    #[must_use]
    pub fn mask(self) -> Ipv4Addr {
        mask(self.prefix_len).into()
    }

    /// Whether an address can be a machine's: neither the network's own nor the broadcast address.
    fn has_host(self, address: Ipv4Addr) -> bool {
        let host = u32::from(address) & !mask(self.prefix_len);
        self.contains(address)
            && (self.prefix_len >= 31 || (host != 0 && host != !mask(self.prefix_len)))
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix_len)
    }
}

const fn mask(prefix_len: u8) -> u32 {
    match 32 - prefix_len {
        32 => 0,
        zeros => u32::MAX << zeros,
    }
}

/// Addresses to give, all of one network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The first.
    pub first: Ipv4Addr,
    /// The last.
    pub last: Ipv4Addr,
    /// Their network.
    pub subnet: Subnet,
    /// The way out of it.
    pub router: Option<Ipv4Addr>,
}

/// An address or a name that belongs to one machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reservation {
    /// Whose.
    pub mac: Mac,
    /// Given to it alone, from a range or beside it.
    pub address: Option<Ipv4Addr>,
    /// Option 12.
    pub hostname: Option<String>,
}

/// Who is answered. To all others the service is not there: they get neither an address nor a boot
/// program from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Audience {
    /// All but these.
    AllBut(BTreeSet<Mac>),
    /// These alone.
    Only(BTreeSet<Mac>),
}

impl Audience {
    /// Everybody.
    pub const ALL: Self = Self::AllBut(BTreeSet::new());

    /// Whether a machine is answered.
    #[must_use]
    pub fn has(&self, mac: Mac) -> bool {
        match self {
            Self::AllBut(macs) => !macs.contains(&mac),
            Self::Only(macs) => macs.contains(&mac),
        }
    }
}

/// What a service is told to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// How to live with other servers.
    pub mode: Mode,
    /// Whether to go on beside other servers in spite of it.
    pub force: bool,
    /// Which lab this is.
    pub lab: LabId,
    /// Our own address on the interface, and the server's identifier.
    pub address: Ipv4Addr,
    /// The interface's network.
    pub subnet: Subnet,
    /// The interface's Ethernet address.
    pub mac: Mac,
    /// What to give. Those of other networks than the interface's are for relay agents.
    pub ranges: Vec<Range>,
    /// Fixed addresses.
    pub reservations: Vec<Reservation>,
    /// How long an address is given for.
    pub lease_time: Duration,
    /// Option 6.
    pub dns: Vec<Ipv4Addr>,
    /// Option 15.
    pub domain: Option<String>,
    /// What to boot.
    pub boot: BootFiles,
    /// Whom to answer.
    pub audience: Audience,
}

/// A configuration that cannot be followed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The mode needs something to give.
    #[error("a DHCP server needs a range of addresses to give")]
    NoRange,
    /// The end is before the beginning.
    #[error("the range {first} to {last} ends before it begins")]
    Backwards {
        /// Its first address.
        first: Ipv4Addr,
        /// Its last address.
        last: Ipv4Addr,
    },
    /// An address of a range is not one of its network's.
    #[error("{address} is no address for a machine in {subnet}")]
    OutsideSubnet {
        /// The address.
        address: Ipv4Addr,
        /// The network.
        subnet: Subnet,
    },
    /// Two ranges have an address in common.
    #[error("the ranges that begin with {0} and {1} overlap")]
    Overlap(Ipv4Addr, Ipv4Addr),
    /// More than [`ADDRESSES_MAX`].
    #[error("the ranges hold {0} addresses; {ADDRESSES_MAX} are the limit")]
    TooManyAddresses(usize),
    /// More than [`RESERVATIONS_MAX`].
    #[error("{0} reservations; {RESERVATIONS_MAX} are the limit")]
    TooManyReservations(usize),
    /// Two reservations for one machine.
    #[error("{0} is reserved for twice")]
    MacTwice(Mac),
    /// Two reservations of one address.
    #[error("{0} is reserved twice")]
    AddressTwice(Ipv4Addr),
    /// A reservation of the server's own address.
    #[error("{0} is the server's own address and cannot be reserved for {1}")]
    OwnAddress(Ipv4Addr, Mac),
    /// A name that does not fit in an option, or that is none.
    #[error("`{0}` is no name: letters, digits, hyphens and dots, at most 255")]
    Name(String),
    /// Less than [`LEASE_TIME_MIN`].
    #[error("leases of {0:?} are too short; {LEASE_TIME_MIN:?} is the least")]
    LeaseTime(Duration),
    /// More than [`DNS_MAX`].
    #[error("{0} name servers; {DNS_MAX} are the limit")]
    TooManyDns(usize),
}

impl Config {
    /// Looks for contradictions.
    ///
    /// # Errors
    /// The first that is found.
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.mode == Mode::Server && !self.gives_addresses() {
            return Err(ConfigError::NoRange);
        }
        if self.lease_time < LEASE_TIME_MIN {
            return Err(ConfigError::LeaseTime(self.lease_time));
        }
        if self.dns.len() > DNS_MAX {
            return Err(ConfigError::TooManyDns(self.dns.len()));
        }
        self.domain.as_deref().map_or(Ok(()), check_name)?;
        self.check_ranges()?;
        self.check_reservations()
    }

    fn check_ranges(&self) -> Result<(), ConfigError> {
        let mut count = 0;
        for range in &self.ranges {
            let Range { first, last, subnet, .. } = *range;
            if last < first {
                return Err(ConfigError::Backwards { first, last });
            }
            for address in [first, last] {
                if !subnet.has_host(address) {
                    return Err(ConfigError::OutsideSubnet { address, subnet });
                }
            }
            count += (u32::from(last) - u32::from(first)) as usize + 1;
            if count > ADDRESSES_MAX {
                return Err(ConfigError::TooManyAddresses(count));
            }
        }
        let mut sorted = self.ranges.clone();
        sorted.sort_by_key(|range| range.first);
        match sorted.windows(2).find(|pair| pair[1].first <= pair[0].last) {
            Some(pair) => Err(ConfigError::Overlap(pair[0].first, pair[1].first)),
            None => Ok(()),
        }
    }

    fn check_reservations(&self) -> Result<(), ConfigError> {
        if self.reservations.len() > RESERVATIONS_MAX {
            return Err(ConfigError::TooManyReservations(self.reservations.len()));
        }
        let mut macs: Vec<Mac> = self.reservations.iter().map(|one| one.mac).collect();
        macs.sort_unstable();
        if let Some(pair) = macs.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(ConfigError::MacTwice(pair[0]));
        }
        let mut addresses: Vec<_> =
            self.reservations.iter().filter_map(|one| one.address).collect();
        addresses.sort_unstable();
        if let Some(pair) = addresses.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(ConfigError::AddressTwice(pair[0]));
        }
        for one in &self.reservations {
            one.hostname.as_deref().map_or(Ok(()), check_name)?;
            let Some(address) = one.address else {
                continue;
            };
            if address == self.address {
                return Err(ConfigError::OwnAddress(address, one.mac));
            }
            if !self.subnets().any(|subnet| subnet.has_host(address)) {
                return Err(ConfigError::OutsideSubnet { address, subnet: self.subnet });
            }
        }
        Ok(())
    }

    /// Whether there is anything to give.
    pub(crate) fn gives_addresses(&self) -> bool {
        !self.ranges.is_empty() || self.reservations.iter().any(|one| one.address.is_some())
    }

    fn subnets(&self) -> impl Iterator<Item = Subnet> + '_ {
        std::iter::once(self.subnet).chain(self.ranges.iter().map(|range| range.subnet))
    }

    /// The network that an asker is in: that of its relay agent, or else ours.
    pub(crate) fn subnet_of(&self, giaddr: Ipv4Addr) -> Option<Subnet> {
        if giaddr.is_unspecified() {
            return Some(self.subnet);
        }
        self.subnets().find(|subnet| subnet.contains(giaddr))
    }

    /// The router for an address of a network.
    pub(crate) fn router(&self, subnet: Subnet, address: Ipv4Addr) -> Option<Ipv4Addr> {
        let of_subnet = || self.ranges.iter().filter(|range| range.subnet == subnet);
        let holds = |range: &&Range| (range.first..=range.last).contains(&address);
        of_subnet().find(holds).or_else(|| of_subnet().next()).and_then(|range| range.router)
    }
}

fn check_name(name: &str) -> Result<(), ConfigError> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    if (1..=255).contains(&name.len()) && name.chars().all(is_name) {
        Ok(())
    } else {
        Err(ConfigError::Name(name.chars().take(64).collect()))
    }
}
