//! What this machine has to offer at the moment: a carrier, space, memory, and a kernel that can do what
//! phase 1 asks of it.

use std::fs;
use std::path::Path;

use super::{Finding, State};
use crate::lab::settings::Settings;
use crate::quantity;

/// Below so much free space a start may fail in the middle: phase 1 is built anew beside the old one,
/// and the log and the database grow.
const SPACE_MIN: u64 = 512 << 20;

/// Below so much memory the kernel begins to drop the images that nodes are fetching from its cache:
/// the server itself takes a fifth of it.
const MEMORY_MIN: u64 = 512 << 20;

/// What every lab needs of this machine.
pub(super) fn findings(settings: &Settings) -> Vec<Finding> {
    let mut findings = vec![carrier(Path::new("/sys/class/net"), &settings.interface)];
    findings.extend(space(&settings.dir));
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    findings.extend(memory(&meminfo));
    findings.extend(kexec(Path::new("/boot")));
    findings
}

/// `/sys/class/net/NAME/carrier` is 1 with a link; it cannot be read while the interface is down.
fn carrier(devices: &Path, interface: &str) -> Finding {
    match fs::read_to_string(devices.join(interface).join("carrier")) {
        Ok(text) if text.trim() == "1" => Finding::good("carrier", format!("{interface} has one")),
        Ok(_) => Finding::new(
            "carrier",
            State::Warning,
            format!(
                "{interface} has none: check its cable and switch port; no node can be reached"
            ),
        ),
        Err(_) => Finding::new(
            "carrier",
            State::Warning,
            format!("{interface} is down or not there: `ip link set {interface} up`"),
        ),
    }
}

fn space(lab: &Path) -> Option<Finding> {
    let stat = rustix::fs::statvfs(lab).ok()?;
    Some(judge_space(stat.f_bavail.saturating_mul(stat.f_frsize)))
}

fn judge_space(free: u64) -> Finding {
    let text = format!("{} free in the lab", quantity::bytes(free));
    match free >= SPACE_MIN {
        true => Finding::good("disk", text),
        false => {
            let text = format!("{text}: make room, or building phase 1 and storing leases fail");
            Finding::new("disk", State::Warning, text)
        }
    }
}

fn memory(meminfo: &str) -> Option<Finding> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    let free = kib << 10;
    let text = format!("{} available", quantity::bytes(free));
    Some(match free >= MEMORY_MIN {
        true => Finding::good("memory", text),
        false => {
            let text = format!("{text}: images are read from the disk again and again; free some");
            Finding::new("memory", State::Warning, text)
        }
    })
}

/// Kernels in `boot` that cannot load another one: nodes whose phase 1 is made of them end with BT53.
/// A kernel without a configuration beside it says nothing.
fn kexec(boot: &Path) -> Vec<Finding> {
    let names = fs::read_dir(boot).into_iter().flatten().flatten();
    let mut findings = vec![];
    for entry in names {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(version) = name.strip_prefix("config-") else {
            continue;
        };
        let config = fs::read_to_string(entry.path()).unwrap_or_default();
        let has = |option: &str| config.lines().any(|line| line == format!("{option}=y"));
        if !has("CONFIG_KEXEC") && !has("CONFIG_KEXEC_FILE") {
            let text = format!(
                "the kernel {version} has no kexec: name another one as phase1.kernel, such as \
                 Debian's linux-image-amd64"
            );
            findings.push(Finding::new("kexec", State::Warning, text));
        } else if !has("CONFIG_KEXEC_FILE") {
            let text = format!(
                "the kernel {version} has no kexec_file_load: nodes with Secure Boot cannot boot with it"
            );
            findings.push(Finding::new("kexec", State::Warning, text));
        }
    }
    findings.sort_by(|a, b| a.text.cmp(&b.text));
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_without_a_carrier_is_told() {
        let devices = tempfile::tempdir().unwrap();
        let check = |text: Option<&str>, expect| {
            let folder = devices.path().join("eth0");
            let _ = fs::remove_dir_all(&folder);
            if let Some(text) = text {
                fs::create_dir(&folder).unwrap();
                fs::write(folder.join("carrier"), text).unwrap();
            }
            assert_eq!(carrier(devices.path(), "eth0").state, expect, "{text:?}");
        };
        check(Some("1\n"), State::Good);
        check(Some("0\n"), State::Warning);
        check(None, State::Warning);
    }

    #[test]
    fn what_runs_out_is_told() {
        assert_eq!(judge_space(SPACE_MIN).state, State::Good);
        assert_eq!(judge_space(SPACE_MIN - 1).state, State::Warning);
        let check = |text: &str, expect| {
            assert_eq!(memory(text).map(|finding| finding.state), expect, "{text}");
        };
        check("MemTotal: 9 kB\nMemAvailable:  8000000 kB\n", Some(State::Good));
        check("MemAvailable:  80000 kB\n", Some(State::Warning));
        check("", None);
    }

    #[test]
    fn a_kernel_without_kexec_is_told_by_its_version() {
        let boot = tempfile::tempdir().unwrap();
        let check = |config: &str, expect: &str| {
            fs::write(boot.path().join("config-6.1.0"), config).unwrap();
            let texts: Vec<String> = kexec(boot.path()).into_iter().map(|one| one.text).collect();
            assert!(texts.join("\n").contains(expect), "{config}: {texts:?}");
            assert_eq!(texts.is_empty(), expect.is_empty(), "{config}: {texts:?}");
        };
        check("CONFIG_KEXEC=y\nCONFIG_KEXEC_FILE=y\n", "");
        check("CONFIG_KEXEC=y\n# CONFIG_KEXEC_FILE is not set\n", "Secure Boot");
        check("# CONFIG_KEXEC is not set\n", "the kernel 6.1.0 has no kexec");
    }
}
