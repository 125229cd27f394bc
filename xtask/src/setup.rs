//! `cargo xtask setup`: installs the programs that the other commands run, and the one list of them.
//!
//! Packages are named as Debian 12 and 13 name them. Nothing is skipped when missing: whoever needs a
//! tool calls [`install`] with all that its command runs, before it does anything else, since what is
//! installed later may take away what was found before.

mod apt;
mod asking;

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail, ensure};

use apt::Apt;
use asking::{Answer, Asking, Next};

/// A program and the Debian package that brings it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tool {
    /// A name looked up in PATH, or the absolute path of a file.
    pub(crate) file: &'static str,
    pub(crate) package: &'static str,
}

/// Defines the tools, and [`ALL`] of them, so that none can be forgotten there.
macro_rules! tools {
    ($($(#[$doc:meta])* $name:ident = $file:literal of $package:literal;)*) => {
        $($(#[$doc])*
        pub(crate) const $name: Tool = Tool { file: $file, package: $package };)*

        /// What any command runs.
        pub(crate) const ALL: &[Tool] = &[$($name),*];
    };
}

tools! {
    IP = "ip" of "iproute2";
    ATFTP = "atftp" of "atftp";
    ARIA2 = "aria2c" of "aria2";
    /// Phase 1 needs the static one; another package has the same path without being static.
    BUSYBOX = "/var/lib/dpkg/info/busybox-static.list" of "busybox-static";
    /// A browser, and what drives it.
    CHROMIUM = "chromium" of "chromium";
    CPIO = "cpio" of "cpio";
    /// libFuzzer is C++.
    CXX = "c++" of "g++";
    CURL = "curl" of "curl";
    DNSMASQ = "dnsmasq" of "dnsmasq-base";
    DPKG_DEB = "dpkg-deb" of "dpkg";
    /// The disk of a node on which a guest's writes stay.
    EXT4 = "mkfs.ext4" of "e2fsprogs";
    GIT = "git" of "git";
    GZIP = "gzip" of "gzip";
    IPXE = "/usr/lib/ipxe/undionly.kpxe" of "ipxe";
    /// The ROMs of QEMU's network cards.
    IPXE_QEMU = "/var/lib/dpkg/info/ipxe-qemu.list" of "ipxe-qemu";
    CREATEREPO = "createrepo_c" of "createrepo-c";
    DNF = "dnf" of "dnf";
    /// The kernel of phase 1 and of test systems; a machine in a container has none.
    KERNEL = "/var/lib/dpkg/info/linux-image-amd64.list" of "linux-image-amd64";
    /// Layouts of keyboards, and what reads them.
    LOADKEYS = "loadkeys" of "kbd";
    KEYMAPS = "/var/lib/dpkg/info/console-data.list" of "console-data";
    MKTORRENT = "mktorrent" of "mktorrent";
    MMDEBSTRAP = "mmdebstrap" of "mmdebstrap";
    NGINX = "nginx" of "nginx-light";
    /// Runs what drives the browser; Debian's npm brings what that needs.
    NODE = "node" of "nodejs";
    NPM = "npm" of "npm";
    NSENTER = "nsenter" of "util-linux";
    NSPAWN = "systemd-nspawn" of "systemd-container";
    OPENTRACKER = "opentracker" of "opentracker";
    /// UEFI for virtual machines.
    OVMF = "/usr/share/OVMF/OVMF_CODE_4M.fd" of "ovmf";
    /// An NFS server that needs nothing of the kernel, and what it needs to serve a folder.
    GANESHA = "ganesha.nfsd" of "nfs-ganesha";
    GANESHA_VFS = "/usr/lib/x86_64-linux-gnu/ganesha/libfsalvfs.so" of "nfs-ganesha-vfs";
    PXELINUX = "/usr/lib/PXELINUX/pxelinux.0" of "pxelinux";
    QEMU = "qemu-system-x86_64" of "qemu-system-x86";
    /// Makes guests' disks, and belongs into the extension that runs them.
    QEMU_IMG = "qemu-img" of "qemu-utils";
    RSYNC = "rsync" of "rsync";
    RPMBUILD = "rpmbuild" of "rpm";
    SKOPEO = "skopeo" of "skopeo";
    SQUASHFS = "mksquashfs" of "squashfs-tools";
    /// For the agent's tests with real keys.
    TMUX = "tmux" of "tmux";
    SYSLINUX = "/usr/lib/syslinux/modules/bios/ldlinux.c32" of "syslinux-common";
    /// Kea's load generator for DHCP.
    PERFDHCP = "perfdhcp" of "kea-admin";
    /// Debian's interpreter, as its libtorrent module is not seen by another one in PATH.
    PYTHON = "/usr/bin/python3" of "python3";
    /// The module's own file name has the interpreter's version and the architecture in it.
    LIBTORRENT = "/var/lib/dpkg/info/python3-libtorrent.list" of "python3-libtorrent";
    /// Debian's interpreter has no environments of its own without it.
    VENV = "/var/lib/dpkg/info/python3-venv.list" of "python3-venv";
    TFTP = "tftp" of "tftp-hpa";
    TFTPD = "in.tftpd" of "tftpd-hpa";
    TRANSMISSION_CREATE = "transmission-create" of "transmission-cli";
    TRANSMISSION_DAEMON = "transmission-daemon" of "transmission-daemon";
    TRANSMISSION_REMOTE = "transmission-remote" of "transmission-cli";
    TRANSMISSION_SHOW = "transmission-show" of "transmission-cli";
    UDP_SENDER = "udp-sender" of "udpcast";
    ZSTD = "zstd" of "zstd";
}

/// Fails with the packages to install if a tool is missing.
pub(crate) fn require(tools: &[Tool]) -> Result<()> {
    let packages = asking::packages(&Place::this().missing(tools));
    ensure!(
        packages.is_empty(),
        "missing packages: {}; run `cargo xtask setup` as root",
        asking::join(&packages)
    );
    Ok(())
}

/// Installs every missing tool.
pub(crate) fn install_all() -> Result<()> {
    install(ALL)
}

/// Installs the missing ones of the tools of a command.
pub(crate) fn install(tools: &[Tool]) -> Result<()> {
    let place = Place::this();
    if place.missing(tools).is_empty() {
        return Ok(());
    }
    ensure!(
        is_root()?,
        "missing packages, which only root can install: {}; as root: `apt-get install {0}`",
        asking::join(&asking::packages(&place.missing(tools)))
    );
    install_at(&place, &Apt::this(), tools)
}

/// Asks apt until all is there, or until [`Asking`] has nothing more to ask.
fn install_at(place: &Place, apt: &Apt, tools: &[Tool]) -> Result<()> {
    let update = apt.update();
    let mut asking = Asking::new(tools, |package| place.has_package(package));
    loop {
        match asking.next(&place.missing(tools)) {
            Next::Done => return Ok(()),
            Next::Ask(packages) => {
                eprintln!("installing {}", packages.join(" "));
                let answer = apt.install(&packages)?;
                if let Answer::Refused(said) = &answer {
                    eprintln!("apt refuses:\n{said}");
                }
                asking.answered(answer);
            }
            Next::GiveUp(reason) => match update {
                Ok(()) => bail!("{reason}"),
                Err(update) => bail!("{reason}\nbefore that, {update:#}"),
            },
        }
    }
}

/// Where tools are looked for: this machine, or a folder of a test.
struct Place {
    /// Before absolute paths.
    root: PathBuf,
    path: Vec<PathBuf>,
}

impl Place {
    /// PATH, and the system directories that a plain user's PATH lacks.
    fn this() -> Self {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let system = ["/usr/sbin".into(), "/sbin".into()];
        Self { root: "/".into(), path: std::env::split_paths(&path).chain(system).collect() }
    }

    fn missing(&self, tools: &[Tool]) -> Vec<Tool> {
        tools.iter().copied().filter(|tool| self.find(tool.file).is_none()).collect()
    }

    fn find(&self, file: &str) -> Option<PathBuf> {
        if let Some(below) = file.strip_prefix('/') {
            return Some(self.root.join(below)).filter(|file| file.exists());
        }
        self.path.iter().map(|dir| dir.join(file)).find(|candidate| candidate.is_file())
    }

    /// Whether dpkg has it: a tool may as well have come without its package.
    fn has_package(&self, package: &str) -> bool {
        let info = self.root.join("var/lib/dpkg/info");
        [format!("{package}.list"), format!("{package}:amd64.list")]
            .iter()
            .any(|list| info.join(list).exists())
    }
}

/// Where a program is.
pub(crate) fn find(file: &str) -> Option<PathBuf> {
    Place::this().find(file)
}

/// Whether this process may do what root may.
pub(crate) fn is_root() -> Result<bool> {
    use std::os::unix::fs::MetadataExt as _;
    // Its folder there belongs to the effective user.
    let own = std::fs::metadata("/proc/self").context("asking /proc for the own user")?;
    Ok(own.uid() == 0)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::time::Duration;

    use super::*;

    const QEMU: Tool = Tool { file: "/bin/qemu", package: "qemu-system" };
    const IMG: Tool = Tool { file: "qemu-img", package: "qemu-utils" };
    const TOOLS: &[Tool] = &[QEMU, IMG];

    /// apt as a folder knows it. `qemu-utils` in the version that is there does not go with
    /// `qemu-system`: named together they are refused, and `qemu-system` alone takes it away. What is
    /// asked stands in `asked`. Under `locked` another program has the lock, for that many attempts.
    const APT: &str = r#"#!/bin/sh
cd "${0%/*}" || exit 9
info=var/lib/dpkg/info
if [ -s locked ]; then
    sed -i 1d locked
    echo "E: Could not get lock /var/lib/apt/lists/lock. It is held by process 1" >&2
    exit 100
fi
names=
for word in "$@"; do
    case $word in update | install | -*) ;; *) names="$names $word" ;; esac
done
echo "$1$names" >>asked
[ "$1" = update ] && exit "$(cat update-fails 2>/dev/null || echo 0)"
if [ -e newer ] && [ "$names" = " qemu-system qemu-utils" ]; then
    echo " qemu-utils : Breaks: qemu-system-common (< 8.0)"
    echo "E: Unable to correct problems, you have held broken packages." >&2
    exit 100
fi
for name in $names; do
    case $name in
        qemu-system) touch bin/qemu; [ -e newer ] && rm newer bin/qemu-img $info/qemu-utils.list ;;
        qemu-utils) [ -e never ] || touch bin/qemu-img ;;
    esac
    touch $info/$name.list
done
exit 0
"#;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let name = format!("boottorrent-setup-{name}.{}", std::process::id());
            let dir = std::env::temp_dir().join(name);
            for below in ["bin", "var/lib/dpkg/info"] {
                std::fs::create_dir_all(dir.join(below)).unwrap();
            }
            std::fs::write(dir.join("apt-get"), APT).unwrap();
            Self(dir)
        }

        /// With the newer `qemu-utils`.
        fn with_newer(name: &str) -> Self {
            let folder = Self::new(name);
            for file in ["newer", "bin/qemu-img", "var/lib/dpkg/info/qemu-utils.list"] {
                folder.write(file, "");
            }
            folder
        }

        fn write(&self, file: &str, text: &str) {
            std::fs::write(self.0.join(file), text).unwrap();
        }

        fn install(&self) -> Result<()> {
            self.install_by(vec!["sh".into(), self.0.join("apt-get").into()])
        }

        fn install_by(&self, program: Vec<OsString>) -> Result<()> {
            let place = Place { root: self.0.clone(), path: vec![self.0.join("bin")] };
            install_at(&place, &Apt { program, lock_interval: Duration::ZERO }, TOOLS)
        }

        fn asked(&self) -> Vec<String> {
            let asked = std::fs::read_to_string(self.0.join("asked")).unwrap();
            asked.lines().map(str::to_owned).collect()
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_bare_machine_takes_one_transaction() {
        let folder = Folder::new("bare");
        folder.install().unwrap();
        assert_eq!(folder.asked(), ["update", "install qemu-system qemu-utils"]);
    }

    #[test]
    fn a_package_that_apt_took_away_comes_back_in_the_same_try() {
        let folder = Folder::with_newer("taken");
        folder.install().unwrap();
        assert_eq!(
            folder.asked(),
            [
                "update",
                "install qemu-system qemu-utils",
                "install qemu-system",
                "install qemu-utils"
            ]
        );
        assert!(folder.0.join("bin/qemu").exists() && folder.0.join("bin/qemu-img").exists());
    }

    #[test]
    fn a_file_that_no_package_brings_is_an_error_that_names_it() {
        let folder = Folder::new("never");
        folder.write("never", "");
        let error = format!("{:#}", folder.install().unwrap_err());
        assert!(error.contains("qemu-img (of qemu-utils)"), "{error}");
        assert!(error.contains("apt-get install qemu-utils"), "{error}");
    }

    #[test]
    fn lists_that_cannot_be_fetched_are_told_of_only_when_they_were_needed() {
        let folder = Folder::new("lists");
        folder.write("update-fails", "100");
        folder.install().unwrap();
        std::fs::remove_file(folder.0.join("bin/qemu-img")).unwrap();
        folder.write("never", "");
        let error = format!("{:#}", folder.install().unwrap_err());
        assert!(error.contains("apt-get update"), "{error}");
    }

    #[test]
    fn a_lock_that_another_program_holds_is_waited_for() {
        let folder = Folder::new("locked");
        folder.write("locked", "once\ntwice\n");
        folder.install().unwrap();
        assert_eq!(folder.asked().len(), 2);
    }

    #[test]
    fn a_machine_without_apt_is_told_what_is_needed() {
        let folder = Folder::new("without");
        let error = folder.install_by(vec![folder.0.join("none").into()]).unwrap_err();
        assert!(format!("{error:#}").contains("of Debian or Ubuntu"), "{error:#}");
    }
}
