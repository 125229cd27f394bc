//! What has to be installed on this machine, its clock, its firewall.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use image::boot_program::{self, Family};
use image::phase1::kernel::Kernel;
use image::phase1::{KernelChoice, KernelVersion};

use super::{Finding, State};
use crate::lab::settings::{BootProgram, DhcpMode, Settings};
use crate::phase1;

/// What every lab needs, or this one if its settings are known.
pub(super) fn findings(settings: Option<&Settings>) -> Vec<Finding> {
    let mut findings = vec![];
    let loader = settings.map_or(BootProgram::Ipxe, |settings| settings.phase1.loader);
    let family = match loader {
        BootProgram::Ipxe => Family::Ipxe,
        BootProgram::Pxelinux => Family::Pxelinux,
    };
    findings.push(match boot_program::find(Path::new("/"), family) {
        Ok(programs) => {
            let names: Vec<&str> = programs.iter().map(|program| program.name).collect();
            Finding::good("boot programs", names.join(", "))
        }
        Err(error) => Finding::bad("boot programs", chain(error)),
    });
    findings.push(kernel(settings.and_then(|settings| settings.phase1.kernel.as_deref())));
    findings.push(program("agent", &phase1::agent(), "install the package boottorrent whole"));
    findings.push(program("busybox", &phase1::busybox(), "apt install busybox-static"));
    findings.push(clock(SystemTime::now()));
    findings
}

fn chain(error: impl Into<anyhow::Error>) -> String {
    format!("{:#}", error.into())
}

fn kernel(wanted: Option<&str>) -> Finding {
    let installed =
        |version: Option<&KernelVersion>| match Kernel::installed(Path::new("/"), version) {
            Ok(kernel) => Finding::good("kernel", kernel.version.to_string()),
            Err(error) => Finding::bad("kernel", chain(error)),
        };
    match KernelChoice::parse(wanted) {
        Ok(KernelChoice::Newest) => installed(None),
        Ok(KernelChoice::Installed(version)) => installed(Some(&version)),
        Ok(KernelChoice::Package(path) | KernelChoice::Folder(path)) => {
            Finding::good("kernel", format!("of the package {}", path.display()))
        }
        Err(error) => Finding::bad("kernel", chain(error)),
    }
}

fn program(topic: &'static str, path: &Path, cure: &str) -> Finding {
    match path.is_file() {
        true => Finding::good(topic, path.display().to_string()),
        false => Finding::bad(topic, format!("there is no {}: {cure}", path.display())),
    }
}

/// 2026-01-01: this program is younger.
const BUILT_AFTER: Duration = Duration::from_secs(1_767_225_600);

fn clock(now: SystemTime) -> Finding {
    let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    match since >= BUILT_AFTER {
        true => Finding::good("clock", "later than this program"),
        false => Finding::new(
            "clock",
            State::Warning,
            "it is before the year 2026: set it, or leases and the nodes' history have wrong times",
        ),
    }
}

/// Which firewall seems to be on, and what it has to let through.
pub(super) fn firewall(settings: &Settings) -> Option<Finding> {
    firewall_below(Path::new("/"), settings)
}

fn firewall_below(root: &Path, settings: &Settings) -> Option<Finding> {
    let at = |path: &str| -> PathBuf { root.join(path) };
    let ufw = fs::read_to_string(at("etc/ufw/ufw.conf")).unwrap_or_default();
    let is_ufw = ufw.lines().any(|line| line.trim().eq_ignore_ascii_case("ENABLED=yes"));
    let ports = ports(settings);
    let interface = &settings.interface;
    let (name, cure) = if is_ufw {
        let rule = |(protocol, port): &(&str, u16)| {
            format!("ufw allow in on {interface} to any port {port} proto {protocol}")
        };
        ("ufw", ports.iter().map(rule).collect::<Vec<_>>().join("; "))
    } else if at("run/firewalld").exists() {
        ("firewalld", format!("firewall-cmd --zone=trusted --change-interface={interface}"))
    } else {
        return None;
    };
    let text = format!("{name} is on: nodes must reach this server, as after `{cure}`");
    Some(Finding::new("firewall", State::Warning, text))
}

fn ports(settings: &Settings) -> Vec<(&'static str, u16)> {
    let mut ports = vec![];
    if settings.dhcp.mode != DhcpMode::Off {
        ports.extend([("udp", 67), ("udp", 4011)]);
    }
    if settings.tftp.enabled {
        ports.push(("udp", settings.tftp.port));
    }
    ports.push(("tcp", settings.http.port));
    if settings.tracker.enabled {
        ports.extend([("tcp", settings.tracker.port), ("udp", settings.tracker.port)]);
    }
    ports.push(("tcp", settings.seeding.port));
    ports
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_firewall_is_told_with_what_it_must_let_through() {
        let root = tempfile::tempdir().unwrap();
        let settings = Settings::for_tests(Path::new("/lab"));
        assert_eq!(firewall_below(root.path(), &settings), None);
        fs::create_dir_all(root.path().join("etc/ufw")).unwrap();
        fs::write(root.path().join("etc/ufw/ufw.conf"), "# on\nENABLED=yes\n").unwrap();
        let text = firewall_below(root.path(), &settings).unwrap().text;
        assert!(text.contains("ufw allow in on lo to any port 8080 proto tcp"), "{text}");
        assert!(!text.contains("port 67 "), "DHCP is off: {text}");
    }

    #[test]
    fn a_clock_that_was_never_set_is_told() {
        let at = |s| SystemTime::UNIX_EPOCH + Duration::from_secs(s);
        assert_eq!(clock(at(0)).state, State::Warning);
        assert_eq!(clock(at(1_800_000_000)).state, State::Good);
    }

    #[test]
    fn a_missing_program_is_told_with_its_cure() {
        let finding = program("busybox", Path::new("/nowhere/busybox"), "apt install it");
        assert_eq!(finding.state, State::Bad);
        assert_eq!(finding.text, "there is no /nowhere/busybox: apt install it");
    }
}
