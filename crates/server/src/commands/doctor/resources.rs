//! What this machine has to offer at the moment: a carrier, space, memory, and a kernel that can do what
//! phase 1 asks of it.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::{Finding, State};
use crate::lab::settings::Settings;
use crate::quantity;
use crate::state;

/// Below so much free space a start may fail in the middle: phase 1 is built anew beside the old one,
/// and the log and the database grow.
const SPACE_MIN: u64 = 512 << 20;

/// Below so much memory the kernel begins to drop the images that nodes are fetching from its cache:
/// the server itself takes a fifth of it.
const MEMORY_MIN: u64 = 512 << 20;

/// What every lab needs of this machine.
pub(super) fn findings(settings: &Settings) -> Vec<Finding> {
    let mut findings = vec![carrier(Path::new("/sys/class/net"), &settings.interface)];
    findings.extend(space(&settings.dir, "the lab"));
    let state = settings.dir.join(state::FOLDER);
    if is_elsewhere(&state, &settings.dir) {
        findings.extend(space(&state, "the lab's state/"));
    }
    findings.extend(damaged(&settings.dir));
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

fn space(folder: &Path, name: &str) -> Option<Finding> {
    let stat = rustix::fs::statvfs(folder).ok()?;
    let free = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
    Some(judge_space(free(stat.f_bavail), stat.f_files == 0 || stat.f_favail > 0, name))
}

/// Some file systems run out of files before they run out of bytes.
fn judge_space(free: u64, has_files: bool, name: &str) -> Finding {
    let text = format!("{} free in {name}", quantity::bytes(free));
    match (free >= SPACE_MIN, has_files) {
        (true, true) => Finding::good("disk", text),
        (true, false) => {
            let text = format!("{text}, but no file can be made there: remove some (`df -i`)");
            Finding::new("disk", State::Warning, text)
        }
        (false, _) => {
            let text = format!(
                "{text}: make room, or building phase 1 fails, leases are forgotten with a restart, and \
                 what changes in the lab is not published"
            );
            Finding::new("disk", State::Warning, text)
        }
    }
}

/// Whether a folder is there and on a file system of its own.
fn is_elsewhere(folder: &Path, lab: &Path) -> bool {
    let device = |path| fs::metadata(path).map(|metadata| metadata.dev()).ok();
    device(folder).is_some_and(|of_folder| device(lab) != Some(of_folder))
}

/// Files of the state that were damaged, and what begins with others in their place.
fn damaged(lab: &Path) -> Option<Finding> {
    let files = state::put_aside_files(lab);
    (!files.is_empty()).then(|| {
        let text = format!(
            "state/ has files that were damaged and put aside: {}: check the disk (`dmesg`), and remove \
             them once nobody needs them",
            files.join(", ")
        );
        Finding::new("state", State::Warning, text)
    })
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
        assert_eq!(judge_space(SPACE_MIN, true, "the lab").state, State::Good);
        assert_eq!(judge_space(SPACE_MIN - 1, true, "the lab").state, State::Warning);
        assert_eq!(judge_space(SPACE_MIN, false, "the lab").state, State::Warning);
        let check = |text: &str, expect| {
            assert_eq!(memory(text).map(|finding| finding.state), expect, "{text}");
        };
        check("MemTotal: 9 kB\nMemAvailable:  8000000 kB\n", Some(State::Good));
        check("MemAvailable:  80000 kB\n", Some(State::Warning));
        check("", None);
    }

    #[test]
    fn state_that_was_damaged_is_told() {
        let lab = tempfile::tempdir().unwrap();
        assert_eq!(damaged(lab.path()), None);
        fs::create_dir(lab.path().join("state")).unwrap();
        fs::write(lab.path().join("state/leases.db.damaged-20261201T000000Z"), "").unwrap();
        let finding = damaged(lab.path()).unwrap();
        assert_eq!(finding.state, State::Warning);
        assert!(finding.text.contains("leases.db.damaged-2026"), "{}", finding.text);
    }

    #[test]
    fn a_file_system_of_its_own_is_looked_at_by_itself() {
        let lab = tempfile::tempdir().unwrap();
        assert!(is_elsewhere(Path::new("/proc"), lab.path()));
        assert!(!is_elsewhere(lab.path(), lab.path()));
        assert!(!is_elsewhere(&lab.path().join("state"), lab.path()), "it is made by a start");
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
