//! The settings of a lab, after everything about them was checked: what a service reads can be used
//! as it is. Made from `Boottorrent.yaml` and `nodes.yaml` in either format.
//!
//! What only the running system knows is not checked here but at start: whether the interface is
//! there, whether the address is on it, whether ports are free.

use std::fmt;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use boot::manifest::Shell;
use boot::{Arch, ImageName, Mac, PasswordHash};

use super::group::Group;
use super::template::Vars;

/// The settings of one lab.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// The lab's directory, absolute.
    pub(crate) dir: PathBuf,
    /// The network interface that nodes are on.
    pub(crate) interface: String,
    /// The server's address on that interface, as nodes reach it.
    pub(crate) address: Ipv4Addr,
    /// Addresses and boot options for nodes.
    pub(crate) dhcp: DhcpSettings,
    /// The first boot programs.
    pub(crate) tftp: TftpSettings,
    /// Everything after them.
    pub(crate) http: HttpSettings,
    /// Who has which image.
    pub(crate) tracker: TrackerSettings,
    /// The server's own peer.
    pub(crate) seeding: SeedingSettings,
    /// What happens without anybody at the keyboard.
    pub(crate) menu: MenuSettings,
    /// How long a node goes on seeding before it loads its image; zero is not at all.
    pub(crate) seed_time: Duration,
    /// It is the most, and a node loads its image as soon as nobody downloads it any more.
    pub(crate) seed_auto: bool,
    /// The layout of nodes' keyboards, by name; the kernel's own if none.
    pub(crate) keyboard: Option<String>,
    /// The small system that nodes run first.
    pub(crate) phase1: Phase1Settings,
    /// How much is logged.
    pub(crate) log_level: LogLevel,
    /// How it is logged.
    pub(crate) log_format: LogFormat,
    /// The dashboard, the API and the metrics.
    pub(crate) dashboard: DashboardSettings,
    /// What becomes of a node that `nodes.yaml` does not name.
    pub(crate) unknown: Unknown,
    /// How long what nodes did is kept.
    pub(crate) history: Duration,
    /// What switches nodes on and off.
    pub(crate) power: Option<PowerSettings>,
    /// Nodes that are left alone though they ask.
    pub(crate) ignored: Vec<Mac>,
    /// The groups of `nodes.yaml`, in its order.
    pub(crate) groups: Vec<Group>,
    /// The nodes that `nodes.yaml` names, in its order; each MAC, name and address once.
    pub(crate) nodes: Vec<NodeSettings>,
}

/// Addresses and boot options for nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DhcpSettings {
    /// Whether addresses are leased.
    pub(crate) mode: DhcpMode,
    /// The addresses to lease: none overlaps another or holds the server's. Empty only if `mode` is
    /// `Proxy` or `Off`, or if it is `Auto` and this server shall never lease.
    pub(crate) ranges: Vec<Range>,
    /// How long a lease holds.
    pub(crate) lease_time: Duration,
    /// The default gateway told to nodes.
    pub(crate) router: Option<Ipv4Addr>,
    /// The name servers told to nodes.
    pub(crate) dns: Vec<Ipv4Addr>,
    /// The domain told to nodes.
    pub(crate) domain: Option<String>,
    /// Addresses that are one node's; each within the server's network or not is seen at start.
    pub(crate) reservations: Vec<Reservation>,
    /// Lease addresses though another server on the network does, too.
    pub(crate) force: bool,
}

/// Whether this server leases addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DhcpMode {
    /// Ask the network: [`Self::Proxy`] if another server answers, else [`Self::Server`].
    Auto,
    /// Lease addresses.
    Server,
    /// Add boot options to what another server leases.
    Proxy,
    /// Leave it all to another server.
    Off,
}

/// Addresses from the first to the last, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Range {
    pub(crate) first: Ipv4Addr,
    /// Not below `first`.
    pub(crate) last: Ipv4Addr,
}

/// An address that is one node's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reservation {
    pub(crate) mac: Mac,
    pub(crate) address: Ipv4Addr,
    /// The node's name, told to it.
    pub(crate) hostname: Option<String>,
}

/// The first boot programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TftpSettings {
    pub(crate) enabled: bool,
    /// UDP.
    pub(crate) port: u16,
}

/// Scripts, phase 1, manifest, images, reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HttpSettings {
    /// TCP.
    pub(crate) port: u16,
}

/// Who has which image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TrackerSettings {
    /// Whether this server runs one.
    pub(crate) enabled: bool,
    /// TCP and UDP.
    pub(crate) port: u16,
    /// URLs (http:// or udp://) of others to announce to.
    pub(crate) external: Vec<String>,
}

/// The server's own peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SeedingSettings {
    /// TCP.
    pub(crate) port: u16,
    /// The most that it sends, in bytes per second; no limit if none.
    pub(crate) upload_limit_bytes_per_s: Option<u64>,
    /// The most that a node sends while its image's system runs; no limit if none.
    pub(crate) booted_upload_limit_bytes_per_s: Option<u64>,
    /// Local service discovery (BEP 14), here and on nodes.
    pub(crate) lsd: bool,
    /// Peer exchange (BEP 11), here and on nodes.
    pub(crate) pex: bool,
    /// URLs (`http://…/`) of other web servers that have the images, with `{infohash}` for the
    /// version.
    pub(crate) web_seeds: Vec<String>,
}

/// What a node does when nobody chooses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MenuSettings {
    /// The image that is loaded: one of the lab's.
    pub(crate) default: ImageName,
    /// After how long; zero is at once, none is never.
    pub(crate) timeout: Option<Duration>,
    /// Who gets a shell.
    pub(crate) shell: Shell,
}

/// The small system that nodes run first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Phase1Settings {
    /// The version of its kernel; the newest that is installed if none.
    pub(crate) kernel: Option<String>,
    /// Added to its kernel command line.
    pub(crate) cmdline: String,
    /// Modules beside those that the usual network cards need.
    pub(crate) modules: Vec<String>,
    /// Which boot program nodes load it with.
    pub(crate) loader: BootProgram,
}

/// What loads phase 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BootProgram {
    /// iPXE: HTTP, BIOS and UEFI.
    Ipxe,
    /// PXELINUX: TFTP only, BIOS only.
    Pxelinux,
}

/// How much is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// How lines of the log are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogFormat {
    Text,
    /// An object a line.
    Json,
}

/// Who may look at the dashboard, the API and the metrics, and who may command through them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DashboardSettings {
    /// From where they can be looked at.
    pub(crate) access: Access,
    /// Names by which browsers may ask for them, beside this server's addresses; in small letters.
    pub(crate) names: Vec<String>,
    /// Encrypted, on a port of its own; not, and on that of nodes, if none.
    pub(crate) tls: Option<TlsSettings>,
    /// The hash of the password for actions; without one the token alone opens them.
    pub(crate) password: Option<PasswordHash>,
}

/// What the dashboard and the API are encrypted with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TlsSettings {
    /// TCP.
    pub(crate) port: u16,
    /// The certificate and those above it, in PEM.
    pub(crate) certificate: PathBuf,
    /// Its key, in PEM.
    pub(crate) key: PathBuf,
}

#[cfg(test)]
impl TlsSettings {
    /// Of `localhost` and 127.0.0.1. Made by `openssl req -x509 -newkey ec -pkeyopt
    /// ec_paramgen_curve:prime256v1 -nodes -days 36500 -addext basicConstraints=critical,CA:FALSE -addext
    /// subjectAltName=DNS:localhost,IP:127.0.0.1`.
    pub(crate) fn for_tests() -> Self {
        let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tls"));
        let (certificate, key) = (folder.join("certificate.pem"), folder.join("key.pem"));
        Self { port: 8443, certificate, key }
    }
}

/// From where the dashboard, the API and the metrics can be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// From everywhere.
    Network,
    /// From this machine.
    Localhost,
    /// From nowhere.
    Off,
}

/// The command that switches nodes on and off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PowerSettings {
    /// By its path, from the lab if that is not absolute, or by a name to look for.
    pub(crate) program: String,
    /// Before those that say what to do with which node.
    pub(crate) arguments: Vec<String>,
    /// How long it may take for one node.
    pub(crate) timeout: Duration,
}

/// What becomes of a node that the lab does not know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Unknown {
    /// It boots as any other without an image of its own.
    #[default]
    Boot,
    /// It waits until somebody accepts it.
    Wait,
    /// It is left to its own disk.
    Ignore,
}

/// A node that the lab knows by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NodeSettings {
    /// A host name label (RFC 1123 section 2.1).
    pub(crate) name: String,
    pub(crate) mac: Mac,
    /// Its SMBIOS UUID and architecture, as far as the lab says.
    pub(crate) uuid: Option<String>,
    pub(crate) arch: Option<Arch>,
    /// Its group, if it is in one.
    pub(crate) group: Option<String>,
    /// Its reserved address, also in [`DhcpSettings::reservations`].
    pub(crate) address: Option<Ipv4Addr>,
    /// What it boots without a menu (its own, or its group's): one of the lab's images.
    pub(crate) image: Option<ImageName>,
    /// Added to the image's command line: its group's, then its own; templates are filled in.
    pub(crate) cmdline: String,
    /// How it boots.
    pub(crate) boot: BootFrom,
    /// Its group's, and its own instead.
    pub(crate) vars: Vars,
}

/// How a node boots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum BootFrom {
    /// By phase 1, which fetches its image.
    #[default]
    Image,
    /// By its image's `boot.ipxe`: with the initramfs of the distribution, and nothing of ours.
    Classic,
    /// From its disk, whatever its image is.
    Disk,
}

impl Settings {
    /// What start makes anew each time.
    pub(crate) fn out_dir(&self) -> PathBuf {
        self.dir.join("out")
    }

    /// The folders of images.
    pub(crate) fn images_dir(&self) -> PathBuf {
        self.dir.join("oss")
    }

    /// Where nodes fetch over HTTP, without a slash at the end.
    pub(crate) fn http_base(&self) -> String {
        format!("http://{}:{}", self.address, self.http.port)
    }

    /// Where people look, without a slash at the end.
    pub(crate) fn dashboard_base(&self) -> String {
        match &self.dashboard.tls {
            Some(tls) => format!("https://{}:{}", self.address, tls.port),
            None => self.http_base(),
        }
    }

    /// The lab's directory.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }
}

impl Range {
    /// Whether `address` is one of them.
    pub(crate) fn contains(self, address: Ipv4Addr) -> bool {
        (self.first..=self.last).contains(&address)
    }

    /// Whether an address is in both.
    pub(crate) fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

#[cfg(test)]
impl NodeSettings {
    /// One for which nothing is decided.
    pub(crate) fn for_tests(name: &str, mac: Mac) -> Self {
        let (name, cmdline, boot) = (name.to_owned(), String::new(), BootFrom::Image);
        let vars = Vars::new();
        let (uuid, arch, group, address, image) = (None, None, None, None, None);
        Self { name, mac, uuid, arch, group, address, image, cmdline, boot, vars }
    }
}

#[cfg(test)]
impl DashboardSettings {
    /// Open to the network, without a password.
    pub(crate) fn for_tests() -> Self {
        Self { access: Access::Network, names: vec![], password: None, tls: None }
    }
}

#[cfg(test)]
impl Settings {
    /// Those of a lab in `dir` on loopback with one image, `debian`, and no range.
    pub(crate) fn for_tests(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            interface: "lo".to_owned(),
            address: Ipv4Addr::LOCALHOST,
            dhcp: DhcpSettings {
                mode: DhcpMode::Off,
                ranges: vec![],
                lease_time: Duration::from_secs(12 * 3600),
                router: None,
                dns: vec![],
                domain: None,
                reservations: vec![],
                force: false,
            },
            tftp: TftpSettings { enabled: true, port: 69 },
            http: HttpSettings { port: 8080 },
            tracker: TrackerSettings { enabled: true, port: 10001, external: vec![] },
            seeding: SeedingSettings {
                port: 6881,
                upload_limit_bytes_per_s: None,
                booted_upload_limit_bytes_per_s: None,
                lsd: false,
                pex: true,
                web_seeds: vec![],
            },
            menu: MenuSettings {
                default: ImageName::try_from("debian".to_owned()).unwrap(),
                timeout: Some(Duration::from_secs(30)),
                shell: Shell::Allowed,
            },
            seed_time: Duration::from_secs(30),
            seed_auto: false,
            keyboard: None,
            phase1: Phase1Settings {
                kernel: None,
                cmdline: String::new(),
                modules: vec![],
                loader: BootProgram::Ipxe,
            },
            log_level: LogLevel::Info,
            log_format: LogFormat::Text,
            dashboard: DashboardSettings::for_tests(),
            unknown: Unknown::Boot,
            history: Duration::from_secs(90 * 24 * 3600),
            power: None,
            ignored: vec![],
            groups: vec![],
            nodes: vec![],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: u8, last: u8) -> Range {
        let address = |last| Ipv4Addr::new(10, 0, 0, last);
        Range { first: address(first), last: address(last) }
    }

    #[test]
    fn ranges_overlap_where_they_share_an_address() {
        let check = |a: (u8, u8), b: (u8, u8), expect| {
            assert_eq!(range(a.0, a.1).overlaps(range(b.0, b.1)), expect, "{a:?} {b:?}");
            assert_eq!(range(b.0, b.1).overlaps(range(a.0, a.1)), expect, "{b:?} {a:?}");
        };
        check((10, 20), (20, 30), true);
        check((10, 20), (21, 30), false);
        check((10, 30), (15, 20), true);
        check((10, 10), (10, 10), true);
    }

    #[test]
    fn both_ends_belong_to_a_range() {
        assert!(range(10, 10).contains(Ipv4Addr::new(10, 0, 0, 10)));
        assert!(range(10, 20).contains(Ipv4Addr::new(10, 0, 0, 20)));
        assert!(!range(10, 20).contains(Ipv4Addr::new(10, 0, 0, 21)));
    }
}
