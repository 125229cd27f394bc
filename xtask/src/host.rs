//! Which system this is, and whether `demo` and `ci` are known to run on it: said before anything is
//! installed or built.

use anyhow::{Context as _, Result, bail, ensure};

use crate::setup;

/// What a system says of itself, os-release(5).
#[derive(Debug, Default, PartialEq, Eq)]
struct OsRelease {
    id: String,
    /// Those that it is made from.
    id_like: Vec<String>,
    /// Year and month in Ubuntu's; none in what Debian has not released yet.
    version: Option<(u32, u32)>,
    pretty_name: String,
}

/// Whether a command runs on a system.
#[derive(Debug, PartialEq, Eq)]
enum Support {
    Runs,
    /// It has apt and what is newer than the oldest that is known to do, but nobody has tried.
    NeverRun,
    /// No apt, or packages that are known to be too old: it would fail after minutes.
    Not,
}

/// Says on which systems a command runs, which are these releases of Debian; an error where it does
/// not.
pub(crate) fn greet(command: &str, debians: &[u32]) -> Result<()> {
    let text = ["/etc/os-release", "/usr/lib/os-release"]
        .iter()
        .find_map(|path| std::fs::read_to_string(path).ok())
        .context("neither /etc/os-release nor /usr/lib/os-release says which system this is")?;
    let system = OsRelease::parse(&text);
    let name = &system.pretty_name;
    let numbers: Vec<_> = debians.iter().map(u32::to_string).collect();
    let systems = format!("Debian {} (x86-64, as root)", numbers.join(" and "));
    match system.support(debians) {
        Support::Runs => eprintln!("{command} runs on {systems}; this is {name}"),
        Support::NeverRun => eprintln!(
            "{command} runs on {systems}; this is {name}, where it was never run to its end: packages \
             may have other names there, and other versions may behave in another way"
        ),
        Support::Not => bail!("{command} runs on {systems}, and this is {name}"),
    }
    let arch = std::env::consts::ARCH;
    ensure!(arch == "x86_64", "{command} runs on {systems}, and this is {arch}");
    ensure!(
        setup::is_root()?,
        "{command} installs packages and makes network namespaces: run it as root"
    );
    Ok(())
}

impl OsRelease {
    fn parse(text: &str) -> Self {
        let mut release = Self::default();
        for (key, value) in text.lines().filter_map(|line| line.trim().split_once('=')) {
            let value = value.trim_matches(['"', '\'']);
            match key {
                "ID" => release.id = value.to_owned(),
                "ID_LIKE" => {
                    release.id_like = value.split_whitespace().map(str::to_owned).collect();
                }
                "VERSION_ID" => release.version = version(value),
                "PRETTY_NAME" => release.pretty_name = value.to_owned(),
                _ => {}
            }
        }
        if release.pretty_name.is_empty() {
            release.pretty_name = format!("a system called {:?}", release.id);
        }
        release
    }

    /// Whether what runs on these releases of Debian does so here.
    fn support(&self, debians: &[u32]) -> Support {
        let is_older = |version| debians.iter().all(|debian| version < *debian);
        match (self.id.as_str(), self.version) {
            ("debian", Some((version, _))) if debians.contains(&version) => Support::Runs,
            ("debian", Some((version, _))) if is_older(version) => Support::Not,
            ("debian", _) => Support::NeverRun,
            ("ubuntu", Some(version)) if version < (24, 4) => Support::Not,
            ("ubuntu", _) => Support::NeverRun,
            _ if self.id_like.iter().any(|id| id == "debian" || id == "ubuntu") => {
                Support::NeverRun
            }
            _ => Support::Not,
        }
    }
}

/// `12` or `24.04`.
fn version(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once('.').unwrap_or((text, "0"));
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOKWORM: &str = "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n\
        NAME=\"Debian GNU/Linux\"\nVERSION_ID=\"12\"\nVERSION=\"12 (bookworm)\"\n\
        VERSION_CODENAME=bookworm\nID=debian\nHOME_URL=\"https://www.debian.org/\"\n";

    fn support(id: &str, version: &str, like: &str) -> Support {
        let text = format!("ID={id}\nVERSION_ID=\"{version}\"\nID_LIKE=\"{like}\"\n");
        OsRelease::parse(&text).support(&[12, 13])
    }

    #[test]
    fn what_debian_says_of_itself_is_understood() {
        assert_eq!(
            OsRelease::parse(BOOKWORM),
            OsRelease {
                id: "debian".into(),
                id_like: vec![],
                version: Some((12, 0)),
                pretty_name: "Debian GNU/Linux 12 (bookworm)".into(),
            }
        );
    }

    #[test]
    fn both_debians_run_and_older_ones_are_refused() {
        assert_eq!(OsRelease::parse(BOOKWORM).support(&[12, 13]), Support::Runs);
        assert_eq!(support("debian", "13", ""), Support::Runs);
        assert_eq!(support("debian", "11", ""), Support::Not);
    }

    #[test]
    fn a_debian_that_is_newer_or_not_released_was_never_run() {
        assert_eq!(OsRelease::parse("ID=debian\n").support(&[12]), Support::NeverRun);
        assert_eq!(OsRelease::parse("ID=debian\nVERSION_ID=13").support(&[12]), Support::NeverRun);
        assert_eq!(support("debian", "14", ""), Support::NeverRun);
    }

    #[test]
    fn ubuntu_from_24_04_was_never_run_and_older_ones_are_refused() {
        assert_eq!(support("ubuntu", "24.04", "debian"), Support::NeverRun);
        assert_eq!(support("ubuntu", "26.04", "debian"), Support::NeverRun);
        assert_eq!(support("ubuntu", "23.10", "debian"), Support::Not);
    }

    #[test]
    fn what_is_made_from_them_is_tried_and_what_has_no_apt_is_not() {
        assert_eq!(support("linuxmint", "22", "ubuntu debian"), Support::NeverRun);
        assert_eq!(support("fedora", "44", ""), Support::Not);
        assert_eq!(OsRelease::parse("").support(&[12]), Support::Not);
    }

    #[test]
    fn a_system_without_a_name_is_called_by_its_id() {
        assert_eq!(OsRelease::parse("ID=guix\n").pretty_name, "a system called \"guix\"");
    }
}
