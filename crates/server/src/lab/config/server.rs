//! `Boottorrent.yaml`, version 1.

use std::path::PathBuf;
use std::time::Duration;

use boot::manifest::Shell;
use boot::{ImageName, PasswordHash};

use super::draft::Draft;
use super::keys;
use super::reader::Reader;
use super::value::{
    Cmdline, Domain, Interface, Layout, LogThreshold, Rate, SeedTime, SerialLine, ShellAccess,
    Speed, Timeout, TrackerUrl, WebSeedUrl,
};
use crate::lab::problem::Problems;
use crate::lab::settings::{
    Access, BootProgram, DashboardSettings, DhcpMode, LogFormat, LogLevel, PowerSettings,
    TlsSettings, Unknown,
};
use crate::lab::yaml::Node;

/// Reads the file; what is wrong with it has a stand-in in the draft, and is a problem.
pub(super) fn read(file: &str, root: &Node, problems: &mut Problems) -> Draft {
    let mut reader = Reader::new(file, String::new(), root, keys::SERVER, problems);
    let mut draft = Draft::empty(["dhcp.ranges", "boot.default"]);
    let settings = &mut draft.settings;
    let _ = reader.bare::<String>("version");
    settings.interface = reader.bare("server.interface").map_or_else(String::new, |Interface(n)| n);
    draft.address = reader.value("server.address");

    draft.default = reader.value::<ImageName>("boot.default");
    settings.menu.timeout = reader.bare("boot.timeout").and_then(|Timeout(time)| time);
    let SeedTime(seed_time) = reader.bare("boot.seed_time").unwrap_or(SeedTime(None));
    (settings.seed_time, settings.seed_auto) =
        (seed_time.unwrap_or(SEED_TIME_MAX), seed_time.is_none());

    settings.menu.shell = shell(&mut reader);
    settings.keyboard = reader.bare("console.keyboard").map(|Layout(layout)| layout);

    let dhcp = &mut settings.dhcp;
    dhcp.mode = reader.bare("dhcp.mode").unwrap_or(DhcpMode::Auto);
    let ranges = reader.bare("dhcp.ranges");
    draft.has_wrong_ranges = ranges.is_none();
    draft.ranges = ranges.unwrap_or_default();
    dhcp.lease_time = time(&mut reader, "dhcp.lease_time");
    dhcp.router = reader.bare("dhcp.router");
    dhcp.dns = reader.bare("dhcp.dns").unwrap_or_default();
    dhcp.domain = reader.bare("dhcp.domain").map(|Domain(domain)| domain);
    dhcp.force = reader.bare("dhcp.force").unwrap_or_default();
    if dhcp.lease_time < LEASE_TIME_MIN && reader.has("dhcp.lease_time") {
        let line = reader.line("dhcp.lease_time");
        reader.error(
            line,
            "dhcp.lease_time is less than a minute: nodes would only renew; 12h is usual",
        );
    }

    settings.tftp.enabled = reader.bare("tftp.enabled").unwrap_or_default();
    settings.tftp.port = reader.bare("tftp.port").unwrap_or_default();
    settings.http.port = reader.bare("http.port").unwrap_or_default();

    settings.tracker.enabled = reader.bare("swarm.tracker").unwrap_or(true);
    settings.tracker.port = reader.bare("swarm.tracker_port").unwrap_or_default();
    let external: Vec<TrackerUrl> = reader.bare("swarm.trackers").unwrap_or_default();
    settings.tracker.external = external.into_iter().map(|TrackerUrl(url)| url).collect();
    settings.seeding.lsd = reader.bare("swarm.lsd").unwrap_or_default();
    settings.seeding.pex = reader.bare("swarm.pex").unwrap_or_default();
    let web_seeds: Vec<WebSeedUrl> = reader.bare("swarm.web_seeds").unwrap_or_default();
    settings.seeding.web_seeds = web_seeds.into_iter().map(|WebSeedUrl(url)| url).collect();
    settings.seeding.port = reader.bare("swarm.port").unwrap_or_default();
    settings.seeding.upload_limit_bytes_per_s =
        reader.bare("swarm.upload_limit").map(|Rate(rate)| rate);
    settings.seeding.booted_upload_limit_bytes_per_s =
        reader.bare("swarm.booted_upload_limit").map(|Rate(rate)| rate);

    settings.phase1.kernel = reader.bare("phase1.kernel");
    settings.phase1.cmdline = cmdline(&mut reader);
    settings.phase1.modules = reader.bare("phase1.modules").unwrap_or_default();
    settings.phase1.loader = reader.bare("phase1.loader").unwrap_or(BootProgram::Ipxe);
    settings.log_level = reader.bare("log.level").unwrap_or(LogLevel::Info);
    settings.log_format = reader.bare("log.format").unwrap_or(LogFormat::Text);
    dashboard(&mut reader, &mut settings.dashboard);
    settings.unknown = reader.bare("nodes.unknown").unwrap_or_default();
    if settings.unknown == Unknown::Wait && settings.phase1.loader == BootProgram::Pxelinux {
        let line = reader.line("nodes.unknown");
        let message = "nodes.unknown is `wait`, which PXELINUX cannot: write `loader: ipxe` in the section \
                       phase1, or `unknown: boot` or `unknown: ignore`";
        reader.error(line, message);
    }

    settings.power = power(&mut reader);
    settings.history = history(&mut reader);

    draft.note_line("ports", reader.line("http.port").or_else(|| reader.line("swarm.port")));
    draft.note_line("discovery", reader.line("swarm.tracker"));
    draft.note_line("dhcp", reader.line("dhcp.mode").or_else(|| reader.line("dhcp.ranges")));
    draft.note_line("tftp", reader.line("tftp.enabled"));
    draft
}

fn dashboard(reader: &mut Reader<'_, '_>, settings: &mut DashboardSettings) {
    settings.access = reader.bare("dashboard.access").unwrap_or(Access::Network);
    let names: Vec<Domain> = reader.bare("dashboard.names").unwrap_or_default();
    settings.names = names.into_iter().map(|Domain(name)| name.to_ascii_lowercase()).collect();
    settings.password = reader.bare("dashboard.password");
    let port = reader.bare("dashboard.tls_port").unwrap_or_default();
    let certificate = reader.bare::<String>("dashboard.certificate").map(PathBuf::from);
    let key = reader.bare::<String>("dashboard.key").map(PathBuf::from);
    settings.tls = match (certificate, key) {
        (Some(certificate), Some(key)) => Some(TlsSettings { port, certificate, key }),
        (Some(_), None) => {
            reader.missing("dashboard.key", "/etc/ssl/private/boot.key");
            None
        }
        (None, Some(_)) => {
            reader.missing("dashboard.certificate", "/etc/ssl/boot.pem");
            None
        }
        (None, None) => None,
    };
    if settings.password.is_some() && settings.tls.is_none() && settings.access == Access::Network {
        let line = reader.line("dashboard.password");
        reader.warn(
            line,
            "dashboard.password is sent over the network unencrypted: set dashboard.certificate and \
             dashboard.key, or log in through ssh -L and set `access: localhost`",
        );
    }
}

fn power(reader: &mut Reader<'_, '_>) -> Option<PowerSettings> {
    let timeout = time(reader, "power.timeout");
    let hook = reader.value::<Vec<String>>("power.hook")?;
    let mut words = hook.value.into_iter();
    match words.next().filter(|program| !program.is_empty()) {
        Some(program) => Some(PowerSettings { program, arguments: words.collect(), timeout }),
        None => {
            reader.error(
                hook.line,
                "power.hook names no program: write its path, or a list that begins with it",
            );
            None
        }
    }
}

fn shell(reader: &mut Reader<'_, '_>) -> Shell {
    let hash = reader.value::<PasswordHash>("menu.shell_password");
    match reader.bare("menu.shell").unwrap_or(ShellAccess::Forbidden) {
        ShellAccess::Password => match hash {
            Some(hash) => return Shell::Password { hash: hash.value },
            None if reader.has("menu.shell_password") => {}
            None => {
                let line = reader.line("menu.shell");
                let message = "menu.shell is `password` without one: write `shell_password: HASH`, \
                               with what `boottorrent password` prints";
                reader.error(line, message);
            }
        },
        access => {
            if access == ShellAccess::Allowed {
                return Shell::Allowed;
            }
        }
    }
    Shell::Forbidden
}

/// The kernel's words for consoles, and what is written for phase 1.
fn cmdline(reader: &mut Reader<'_, '_>) -> String {
    let mut words = vec![];
    let speed = reader.bare("console.serial_speed").unwrap_or(Speed::USUAL);
    if let Some(SerialLine(line)) = reader.bare("console.serial") {
        // The last is where the kernel's own input comes from; both are written to.
        words.push(format!("console=tty0 console={line},{}n8", speed.0));
    }
    let level = reader.bare("console.log_level");
    words.extend(level.map(|LogThreshold(level)| format!("loglevel={level}")));
    words.extend(reader.bare("phase1.cmdline").map(|Cmdline(text)| text));
    words.join(" ").trim().to_owned()
}

/// How long a node seeds at most where that is judged by who downloads: a room that is not done by then
/// has nodes that never will be.
const SEED_TIME_MAX: Duration = Duration::from_secs(600);

/// A lease that is renewed (at half its time, RFC 2131 section 4.4.5) more than twice a minute is a
/// mistake in the unit.
const LEASE_TIME_MIN: Duration = Duration::from_secs(60);

fn history(reader: &mut Reader<'_, '_>) -> Duration {
    let keep = time(reader, "history.keep");
    if keep < HISTORY_MIN && reader.has("history.keep") {
        let line = reader.line("history.keep");
        reader
            .error(line, "history.keep is less than an hour: boots would be forgotten that go on");
    }
    keep
}

/// No boot takes longer.
const HISTORY_MIN: Duration = Duration::from_secs(3600);

fn time(reader: &mut Reader<'_, '_>, path: &'static str) -> Duration {
    reader.bare(path).unwrap_or_default()
}
