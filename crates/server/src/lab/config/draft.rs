//! Settings that are read but not yet checked against each other and against the images.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use boot::ImageName;
use boot::manifest::Shell;

use super::value::{Found, nearest};
use crate::lab::problem::Problems;
use crate::lab::settings::{
    Access, BootProgram, DashboardSettings, DhcpMode, DhcpSettings, HttpSettings, LogFormat,
    LogLevel, MenuSettings, Phase1Settings, Range, SeedingSettings, Settings, TftpSettings,
    TrackerSettings, Unknown,
};

/// What `Boottorrent.yaml` says. Where it is wrong there is a stand-in, and a problem.
pub(super) struct Draft {
    pub(super) settings: Settings,
    pub(super) address: Option<Found<Ipv4Addr>>,
    pub(super) ranges: Vec<Found<Range>>,
    /// Something else was written where they should be.
    pub(super) has_wrong_ranges: bool,
    pub(super) default: Option<Found<ImageName>>,
    /// What this format calls `dhcp.ranges` and `boot.default`.
    words: [&'static str; 2],
    /// Where something that concerns several keys is best told.
    lines: BTreeMap<&'static str, usize>,
}

impl Draft {
    pub(super) fn empty(words: [&'static str; 2]) -> Self {
        let settings = Settings {
            dir: PathBuf::new(),
            interface: String::new(),
            address: Ipv4Addr::UNSPECIFIED,
            dhcp: DhcpSettings {
                mode: DhcpMode::Auto,
                ranges: vec![],
                lease_time: Duration::ZERO,
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
            menu: MenuSettings { default: stand_in(), timeout: None, shell: Shell::Allowed },
            seed_time: Duration::ZERO,
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
            dashboard: DashboardSettings {
                access: Access::Network,
                names: vec![],
                password: None,
                tls: None,
            },
            unknown: Unknown::Boot,
            history: Duration::ZERO,
            power: None,
            ignored: vec![],
            groups: vec![],
            nodes: vec![],
        };
        let (address, ranges, default, lines) = (None, vec![], None, BTreeMap::new());
        Self { settings, address, ranges, has_wrong_ranges: false, default, words, lines }
    }

    /// Where to tell what concerns `what`.
    pub(super) fn note_line(&mut self, what: &'static str, line: Option<usize>) {
        if let Some(line) = line {
            self.lines.insert(what, line);
        }
    }

    /// The settings, after they were checked against each other. `names` are the images' folders.
    pub(super) fn settle(
        mut self,
        file: &str,
        names: &[String],
        problems: &mut Problems,
    ) -> Settings {
        if let Some(address) = &self.address {
            self.settings.address = address.value;
        }
        self.check_ranges(file, problems);
        self.check_discovery(file, problems);
        self.check_ports(file, problems);
        self.check_tftp(file, problems);
        self.choose_default(file, names, problems);
        self.settings.dhcp.ranges = self.ranges.iter().map(|range| range.value).collect();
        self.settings
    }

    fn check_ranges(&self, file: &str, problems: &mut Problems) {
        let key = self.words[0];
        for (index, range) in self.ranges.iter().enumerate() {
            let own = self.address.as_ref().map(|address| address.value);
            if let Some(own) = own.filter(|own| range.value.contains(*own)) {
                let message = format!(
                    "{key}: {} holds {own}, the server's own address: begin above it or end below",
                    range.value
                );
                problems.error(file, range.line, message);
            }
            let before = self.ranges[..index].iter().map(|other| other.value);
            for other in before.filter(|other| other.overlaps(range.value)) {
                let message = format!(
                    "{key}: {} and {other} overlap: every address in one of them",
                    range.value
                );
                problems.error(file, range.line, message);
            }
        }
    }

    fn check_discovery(&self, file: &str, problems: &mut Problems) {
        let line = self.lines.get("discovery").copied();
        let tracker = self.settings.tracker.enabled || !self.settings.tracker.external.is_empty();
        match (tracker, self.settings.seeding.lsd) {
            (true, _) => {}
            (false, true) => problems.warn(
                file,
                line,
                "no tracker: nodes find each other by multicast alone, which is slow and stops at \
                 routers",
            ),
            (false, false) => problems.error(
                file,
                line,
                "nodes have no way to find each other: enable the tracker (or name another), or \
                 local peer discovery",
            ),
        }
    }

    fn check_ports(&self, file: &str, problems: &mut Problems) {
        let settings = &self.settings;
        let line = self.lines.get("ports").copied();
        let mut tcp =
            vec![("http", settings.http.port), ("the seeding peer", settings.seeding.port)];
        if let Some(tls) = &settings.dashboard.tls {
            tcp.push(("the dashboard", tls.port));
        }
        if settings.tracker.enabled {
            tcp.push(("the tracker", settings.tracker.port));
        }
        for (index, (what, port)) in tcp.iter().enumerate() {
            let same = tcp[..index].iter().find(|(_, other)| other == port && *port > 0);
            if let Some((other, _)) = same {
                let message = format!("{what} and {other} both have TCP port {port}: change one");
                problems.error(file, line, message);
            }
        }
    }

    fn check_tftp(&self, file: &str, problems: &mut Problems) {
        if self.settings.tftp.enabled {
            return;
        }
        let line = self.lines.get("tftp").copied();
        if self.settings.phase1.loader == BootProgram::Pxelinux {
            problems.error(file, line, "TFTP is off, but phase1.loader `pxelinux` needs it");
        } else {
            problems.warn(
                file,
                line,
                "TFTP is off: only nodes whose firmware boots by HTTP, or that run iPXE already, \
                 will find something here",
            );
        }
    }

    /// Whether there is anything to lease, once it is known which nodes have an address.
    pub(super) fn check_leases(settings: &Settings, line: Option<usize>, problems: &mut Problems) {
        if !settings.dhcp.ranges.is_empty() || !settings.dhcp.reservations.is_empty() {
            return;
        }
        let file = super::SERVER_FILE;
        match settings.dhcp.mode {
            DhcpMode::Server => problems.error(
                file,
                line,
                "dhcp.mode is `server` without an address to lease: write `ranges: FIRST-LAST`",
            ),
            DhcpMode::Auto => problems.warn(
                file,
                line,
                "dhcp.ranges is empty: this server only helps another DHCP server; write \
                 `mode: proxy`, or `ranges: FIRST-LAST` to lease where there is none",
            ),
            DhcpMode::Proxy | DhcpMode::Off => {}
        }
    }

    /// Where [`Self::check_leases`] tells what it finds.
    pub(super) fn lease_line(&self) -> Option<usize> {
        self.lines.get("dhcp").copied()
    }

    fn choose_default(&mut self, file: &str, names: &[String], problems: &mut Problems) {
        let key = self.words[1];
        let images = || names.join(", ");
        match (&self.default, names) {
            // Told by whoever looked for them.
            (_, []) => {}
            (Some(found), _) if names.iter().any(|name| name == found.value.as_str()) => {
                self.settings.menu.default = found.value.clone();
            }
            (Some(found), _) => {
                let near = nearest(found.value.as_str(), names.iter().map(String::as_str));
                let hint = near.map_or_else(
                    || format!("there is {}", images()),
                    |near| format!("is {near} meant?"),
                );
                let message = format!("{key}: there is no oss/{}; {hint}", found.value);
                problems.error(file, found.line, message);
            }
            (None, [only]) if key == "boot.default" => {
                if let Ok(name) = only.parse() {
                    self.settings.menu.default = name;
                }
            }
            (None, _) if key == "boot.default" => {
                let message = format!(
                    "{key} is missing: there are several images, choose one of {}",
                    images()
                );
                problems.error(file, None, message);
            }
            // Required in the other format, so that it was told already.
            (None, _) => {}
        }
    }
}

/// Never seen: a lab without a default image is refused.
fn stand_in() -> ImageName {
    match "none".parse() {
        Ok(name) => name,
        Err(_) => unreachable!("four letters are a name"),
    }
}
