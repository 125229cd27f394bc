//! `cargo xtask setup`: installs the programs that the other commands run, and the one list of them.
//!
//! Packages are Debian 12's. Nothing is skipped when missing: whoever needs a tool calls
//! [`require`], and the error names the package.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

/// A program and the Debian package that brings it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tool {
    /// A name looked up in PATH, or the absolute path of a file.
    pub(crate) file: &'static str,
    pub(crate) package: &'static str,
}

const fn tool(file: &'static str, package: &'static str) -> Tool {
    Tool { file, package }
}

pub(crate) const IP: Tool = tool("ip", "iproute2");
pub(crate) const ATFTP: Tool = tool("atftp", "atftp");
pub(crate) const ARIA2: Tool = tool("aria2c", "aria2");
/// Phase 1 needs the static one; another package has the same path without being static.
pub(crate) const BUSYBOX: Tool = tool("/var/lib/dpkg/info/busybox-static.list", "busybox-static");
/// A browser, and what drives it.
pub(crate) const CHROMIUM: Tool = tool("chromium", "chromium");
pub(crate) const CPIO: Tool = tool("cpio", "cpio");
/// libFuzzer is C++.
pub(crate) const CXX: Tool = tool("c++", "g++");
pub(crate) const CURL: Tool = tool("curl", "curl");
pub(crate) const DNSMASQ: Tool = tool("dnsmasq", "dnsmasq-base");
pub(crate) const DPKG_DEB: Tool = tool("dpkg-deb", "dpkg");
/// The disk of a node on which a guest's writes stay.
pub(crate) const EXT4: Tool = tool("mkfs.ext4", "e2fsprogs");
pub(crate) const GIT: Tool = tool("git", "git");
pub(crate) const GZIP: Tool = tool("gzip", "gzip");
pub(crate) const IPXE: Tool = tool("/usr/lib/ipxe/undionly.kpxe", "ipxe");
/// The ROMs of QEMU's network cards.
pub(crate) const IPXE_QEMU: Tool = tool("/usr/lib/ipxe/qemu/pxe-virtio.rom", "ipxe-qemu");
pub(crate) const CREATEREPO: Tool = tool("createrepo_c", "createrepo-c");
pub(crate) const DNF: Tool = tool("dnf", "dnf");
/// The kernel of phase 1 and of test systems; a machine in a container has none.
pub(crate) const KERNEL: Tool =
    tool("/var/lib/dpkg/info/linux-image-amd64.list", "linux-image-amd64");
/// Layouts of keyboards, and what reads them.
pub(crate) const LOADKEYS: Tool = tool("loadkeys", "kbd");
pub(crate) const KEYMAPS: Tool = tool("/var/lib/dpkg/info/console-data.list", "console-data");
pub(crate) const MKTORRENT: Tool = tool("mktorrent", "mktorrent");
pub(crate) const MMDEBSTRAP: Tool = tool("mmdebstrap", "mmdebstrap");
pub(crate) const NGINX: Tool = tool("nginx", "nginx-light");
/// Runs what drives the browser; Debian's npm brings what that needs.
pub(crate) const NODE: Tool = tool("node", "nodejs");
pub(crate) const NPM: Tool = tool("npm", "npm");
pub(crate) const NSENTER: Tool = tool("nsenter", "util-linux");
pub(crate) const NSPAWN: Tool = tool("systemd-nspawn", "systemd-container");
pub(crate) const OPENTRACKER: Tool = tool("opentracker", "opentracker");
/// UEFI for virtual machines.
pub(crate) const OVMF: Tool = tool("/usr/share/OVMF/OVMF_CODE_4M.fd", "ovmf");
/// An NFS server that needs nothing of the kernel, and what it needs to serve a folder.
pub(crate) const GANESHA: Tool = tool("ganesha.nfsd", "nfs-ganesha");
pub(crate) const GANESHA_VFS: Tool =
    tool("/usr/lib/x86_64-linux-gnu/ganesha/libfsalvfs.so", "nfs-ganesha-vfs");
pub(crate) const PXELINUX: Tool = tool("/usr/lib/PXELINUX/pxelinux.0", "pxelinux");
pub(crate) const QEMU: Tool = tool("qemu-system-x86_64", "qemu-system-x86");
/// Makes guests' disks, and belongs into the extension that runs them.
pub(crate) const QEMU_IMG: Tool = tool("qemu-img", "qemu-utils");
pub(crate) const RSYNC: Tool = tool("rsync", "rsync");
pub(crate) const RPMBUILD: Tool = tool("rpmbuild", "rpm");
pub(crate) const SKOPEO: Tool = tool("skopeo", "skopeo");
pub(crate) const SQUASHFS: Tool = tool("mksquashfs", "squashfs-tools");
/// For the agent's tests with real keys.
pub(crate) const TMUX: Tool = tool("tmux", "tmux");
pub(crate) const SYSLINUX: Tool =
    tool("/usr/lib/syslinux/modules/bios/ldlinux.c32", "syslinux-common");
/// Kea's load generator for DHCP.
pub(crate) const PERFDHCP: Tool = tool("perfdhcp", "kea-admin");
/// Debian's interpreter, as its libtorrent module is not seen by another one in PATH.
pub(crate) const PYTHON: Tool = tool("/usr/bin/python3", "python3");
/// The module's own file name has the interpreter's version and the architecture in it.
pub(crate) const LIBTORRENT: Tool =
    tool("/var/lib/dpkg/info/python3-libtorrent.list", "python3-libtorrent");
/// Debian's interpreter has no environments of its own without it.
pub(crate) const VENV: Tool = tool("/var/lib/dpkg/info/python3-venv.list", "python3-venv");
pub(crate) const TFTP: Tool = tool("tftp", "tftp-hpa");
pub(crate) const TFTPD: Tool = tool("in.tftpd", "tftpd-hpa");
pub(crate) const TRANSMISSION_CREATE: Tool = tool("transmission-create", "transmission-cli");
pub(crate) const TRANSMISSION_DAEMON: Tool = tool("transmission-daemon", "transmission-daemon");
pub(crate) const TRANSMISSION_REMOTE: Tool = tool("transmission-remote", "transmission-cli");
pub(crate) const TRANSMISSION_SHOW: Tool = tool("transmission-show", "transmission-cli");
pub(crate) const UDP_SENDER: Tool = tool("udp-sender", "udpcast");
pub(crate) const ZSTD: Tool = tool("zstd", "zstd");

const ALL: &[Tool] = &[
    IP,
    ATFTP,
    ARIA2,
    CXX,
    CURL,
    GIT,
    MKTORRENT,
    NGINX,
    OPENTRACKER,
    PERFDHCP,
    PYTHON,
    LIBTORRENT,
    VENV,
    CHROMIUM,
    NODE,
    NPM,
    TFTP,
    TFTPD,
    TRANSMISSION_CREATE,
    TRANSMISSION_DAEMON,
    TRANSMISSION_REMOTE,
    TRANSMISSION_SHOW,
    RSYNC,
    UDP_SENDER,
    BUSYBOX,
    CPIO,
    DNSMASQ,
    DPKG_DEB,
    EXT4,
    GZIP,
    IPXE,
    IPXE_QEMU,
    KERNEL,
    LOADKEYS,
    KEYMAPS,
    MMDEBSTRAP,
    NSENTER,
    NSPAWN,
    SQUASHFS,
    DNF,
    RPMBUILD,
    CREATEREPO,
    SKOPEO,
    OVMF,
    PXELINUX,
    QEMU,
    QEMU_IMG,
    SYSLINUX,
    TMUX,
    ZSTD,
];

/// Fails with the packages to install if a tool is missing.
pub(crate) fn require(tools: &[Tool]) -> Result<()> {
    let packages = missing(tools);
    ensure!(
        packages.is_empty(),
        "missing packages: {}; run `cargo xtask setup`",
        packages.join(" ")
    );
    Ok(())
}

/// Installs every missing tool.
pub(crate) fn install_all() -> Result<()> {
    install(ALL)
}

/// Installs the missing ones of these tools.
pub(crate) fn install(tools: &[Tool]) -> Result<()> {
    let packages = missing(tools);
    if packages.is_empty() {
        return Ok(());
    }
    eprintln!("installing {}", packages.join(" "));
    let mut update = apt();
    update.args(["update", "-qq"]);
    // A failed update is no reason to stop if the lists at hand are good enough.
    let _ = update.status();
    let mut install = apt();
    install.args(["install", "-y", "-qq", "--no-install-recommends"]).args(&packages);
    let status = install.status().context("apt-get: this command needs Debian or Ubuntu")?;
    ensure!(status.success(), "apt-get install {}: {status}", packages.join(" "));
    let still = missing(tools);
    if !still.is_empty() {
        bail!("installed, but not found: {}", still.join(" "));
    }
    Ok(())
}

fn apt() -> Command {
    let mut command = Command::new("apt-get");
    // In the runlevel of a single user no service is started: in.tftpd and others would take ports.
    command
        .env("DEBIAN_FRONTEND", "noninteractive")
        .env("RUNLEVEL", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    command
}

fn missing(tools: &[Tool]) -> Vec<&'static str> {
    let mut packages: Vec<_> =
        tools.iter().filter(|tool| find(tool.file).is_none()).map(|tool| tool.package).collect();
    packages.dedup();
    packages
}

/// Where a program is: PATH, and the system directories that a plain user's PATH lacks.
pub(crate) fn find(file: &str) -> Option<PathBuf> {
    if file.starts_with('/') {
        return Path::new(file).exists().then(|| file.into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|dir| dir.join(file))
        .find(|candidate| candidate.is_file())
}
