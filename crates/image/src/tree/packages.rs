//! Trees from packages: mmdebstrap for Debian and Ubuntu, dnf for Red Hat's kin.

use super::MIRROR;
use super::root::Tree;
use super::source::Family;
use crate::catalogue::Build;
use crate::command::{Call, CommandError, Work};
use crate::data::{ImageData, LivenetType};
use crate::error::ImageError;

/// What a Debian needs to be a machine: an init, devices, modules, a network.
const DEB_BASE: &[&str] = &["systemd-sysv", "udev", "dbus", "kmod", "iproute2", "libnss-systemd"];

/// Left out of an optimised image: nobody reads manuals in memory.
const DEB_UNREAD: &[&str] = &[
    "/usr/share/man/*",
    "/usr/share/doc/*",
    "/usr/share/locale/*",
    "/usr/share/info/*",
    "/usr/share/lintian/*",
];

/// Fills the tree.
pub(super) fn install(
    family: Family,
    tree: &Tree,
    build: &Build<'_>,
    data: &mut ImageData,
    work: &Work<'_>,
) -> Result<(), ImageError> {
    refuse_odd_names(data)?;
    let result = match family {
        Family::Debian | Family::Ubuntu => mmdebstrap(family, tree, data, work),
        Family::Rpm => dnf(tree, build, data, work),
    };
    result.map_err(|error| named(error, data))
}

/// A package's name is an argument of other programs: one that begins with `-` is none.
fn refuse_odd_names(data: &ImageData) -> Result<(), ImageError> {
    let good = |name: &str| {
        name.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '@')
            && name.chars().all(|c| c.is_ascii_alphanumeric() || "@+-._:=~^".contains(c))
    };
    match data.additional_packages.iter().chain(&data.release_version).find(|name| !good(name)) {
        Some(name) => Err(ImageError::Wrong(format!("`{name}` cannot name a package or release"))),
        None => Ok(()),
    }
}

/// Says which package is unknown, where apt or dnf say so among other things.
fn named(error: CommandError, data: &ImageData) -> ImageError {
    if let CommandError::Failed { last_lines, .. } = &error {
        let unknown =
            ["Unable to locate package ", "No match for argument: ", "No match for group "];
        let found = last_lines
            .iter()
            .find_map(|line| unknown.iter().find_map(|words| Some(line.split_once(words)?.1)));
        if let Some(name) = found {
            let release = data.release_version.as_deref().unwrap_or("this release");
            return ImageError::Wrong(format!(
                "no package `{}` in {release}: mend --packages, or name another --mirror",
                name.trim()
            ));
        }
    }
    error.into()
}

fn mmdebstrap(
    family: Family,
    tree: &Tree,
    data: &mut ImageData,
    work: &Work<'_>,
) -> Result<(), CommandError> {
    work.step("installing packages")?;
    let default = if family == Family::Debian { "bookworm" } else { "noble" };
    let suite = data.release_version.get_or_insert_with(|| default.to_owned()).clone();
    let packages = deb_packages(family, data);
    let variant = match data.livenet_type.unwrap_or_default() {
        LivenetType::Standard => "important",
        LivenetType::Small => "apt",
        LivenetType::Core => "minbase",
    };
    let mut call = Call::new("mmdebstrap", "mmdebstrap")
        .args(["--mode=root", "--format=directory", &format!("--variant={variant}")])
        .arg(format!("--include={}", packages.join(",")))
        .arg("--aptopt=APT::Install-Recommends \"false\"");
    if family == Family::Ubuntu {
        call = call.arg("--components=main,universe");
    }
    if data.optimize {
        call = call.args(DEB_UNREAD.iter().map(|path| format!("--dpkgopt=path-exclude={path}")));
    }
    call = call.arg(suite).arg(tree.whole());
    if let Some(mirror) = data.attributes.get(MIRROR) {
        call = call.arg(mirror);
    }
    // The phase-1 kernel runs it: no initramfs of the distribution's is needed.
    call.env("INITRD", "No").env("DEBIAN_FRONTEND", "noninteractive").run(work)
}

/// What is installed beside mmdebstrap's own choice.
fn deb_packages(family: Family, data: &ImageData) -> Vec<String> {
    let mut packages: Vec<&str> = DEB_BASE.to_vec();
    packages.push("openssh-server");
    let kernel = match family {
        Family::Ubuntu => "linux-image-generic",
        _ => "linux-image-amd64",
    };
    let own_kernel = data.additional_packages.iter().any(|it| it.starts_with("linux-image"));
    if data.kernel.is_none() && !own_kernel {
        packages.push(kernel);
    }
    if data.selinux {
        packages.extend(["selinux-basics", "selinux-policy-default", "policycoreutils"]);
    }
    let all = packages.into_iter().map(str::to_owned);
    all.chain(data.additional_packages.iter().cloned()).collect()
}

fn dnf(
    tree: &Tree,
    build: &Build<'_>,
    data: &mut ImageData,
    work: &Work<'_>,
) -> Result<(), CommandError> {
    work.step("installing packages")?;
    let mut call = Call::new("dnf", "dnf")
        .args(["--assumeyes", "--installroot"])
        .arg(tree.whole())
        // Its caches and the keys of repositories belong to the build, not to this machine.
        .arg(format!("--setopt=cachedir={}", build.scratch("dnf").display()))
        .args(["--setopt=keepcache=False", "--setopt=install_weak_deps=False"]);
    if let Some(mirror) = data.attributes.get(MIRROR) {
        call = call
            .args(["--disablerepo=*", "--setopt=reposdir=/dev/null"])
            .arg(format!("--repofrompath=boottorrent,{mirror}"))
            .arg("--enablerepo=boottorrent");
        if mirror.starts_with("file:") || mirror.starts_with('/') {
            // A repository on this machine is as trusted as the machine; one on the net has keys.
            call = call.arg("--nogpgcheck");
        }
    }
    if let Some(release) = &data.release_version {
        let major = release.split('.').next().unwrap_or(release);
        call = call.arg(format!("--releasever={release}"));
        call = call.arg(format!("--setopt=module_platform_id=platform:el{major}"));
    }
    if data.optimize {
        call = call.args(["--nobest", "--setopt=tsflags=nodocs"]);
    }
    call.arg("install").args(rpm_packages(data)).run(work)
}

/// The original's choice for each type, and a kernel unless the lab's is taken.
fn rpm_packages(data: &ImageData) -> Vec<String> {
    let mut packages = match data.livenet_type.unwrap_or_default() {
        LivenetType::Standard => vec!["@core"],
        LivenetType::Small => {
            vec!["dnf", "yum", "iproute", "procps-ng", "openssh-server", "NetworkManager"]
        }
        LivenetType::Core => vec!["iproute", "procps-ng", "openssh-server"],
    };
    let own_kernel = data.additional_packages.iter().any(|it| it.starts_with("kernel"));
    if data.kernel.is_none() && !own_kernel {
        packages.extend(["kernel-core", "kernel-modules"]);
    }
    if data.selinux {
        packages.extend(["selinux-policy-targeted", "selinux-policy-devel", "policycoreutils"]);
    }
    let all = packages.into_iter().map(str::to_owned);
    all.chain(data.additional_packages.iter().cloned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_is_installed_unless_one_is_there() {
        let check = |kernel: Option<&str>, extra: &[&str], expect: bool| {
            let data = ImageData {
                kernel: kernel.map(str::to_owned),
                additional_packages: extra.iter().map(|&it| it.to_owned()).collect(),
                ..ImageData::default()
            };
            let debian = deb_packages(Family::Debian, &data);
            assert_eq!(debian.contains(&"linux-image-amd64".to_owned()), expect);
        };
        check(None, &[], true);
        check(None, &["vim"], true);
        check(None, &["linux-image-cloud-amd64"], false);
        check(Some("6.1.0-40-amd64"), &[], false);
    }

    #[test]
    fn types_are_the_original_s() {
        let of = |livenet_type| {
            rpm_packages(&ImageData {
                livenet_type: Some(livenet_type),
                kernel: Some("5.14".to_owned()),
                ..ImageData::default()
            })
        };
        assert_eq!(of(LivenetType::Standard), ["@core"]);
        assert_eq!(of(LivenetType::Core), ["iproute", "procps-ng", "openssh-server"]);
        assert!(of(LivenetType::Small).contains(&"NetworkManager".to_owned()));
    }

    #[test]
    fn an_unknown_package_is_named() {
        use std::os::unix::process::ExitStatusExt as _;
        let check = |line: &str, expect: &str| {
            let error = CommandError::Failed {
                command: "apt".to_owned(),
                status: std::process::ExitStatus::from_raw(256),
                last_lines: vec!["Reading lists".to_owned(), line.to_owned()],
            };
            let text = named(error, &ImageData::default()).to_string();
            assert!(text.starts_with(&format!("no package `{expect}` in")), "{text}");
        };
        check("E: Unable to locate package vimm", "vimm");
        check("No match for argument: vimm", "vimm");
    }

    #[test]
    fn an_option_is_no_package() {
        for name in ["-y", "--installroot=/", "a b", "$(id)", ""] {
            let data =
                ImageData { additional_packages: vec![name.to_owned()], ..ImageData::default() };
            assert!(refuse_odd_names(&data).is_err(), "{name}");
        }
    }
}
