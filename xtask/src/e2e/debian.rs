//! A real Debian as an image: a minimal installation, packed as an initramfs, so that a node runs it
//! from memory alone. Made by mmdebstrap from Debian's mirror, kept by the hash of its recipe.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use sha2::{Digest as _, Sha256};

use super::testos;
use crate::bench::hex;
use crate::target_dir;

/// Raised when the recipe stays but what it makes must be made again.
const EDITION: &str = "2";

const SUITE: &str = "bookworm";

/// What a minimal installation lacks to be a machine that somebody can log in to over the network.
const PACKAGES: &str = "systemd-sysv,udev,dbus,iproute2,iputils-ping,kmod,linux-image-cloud-amd64";

/// Left out while packages are unpacked: nobody reads manuals in memory.
const EXCLUDED: &[&str] =
    &["/usr/share/man/*", "/usr/share/doc/*", "/usr/share/locale/*", "/usr/share/info/*"];

/// Run on the finished tree, its root is `$1`. An initramfs starts `/init`; the kernel leaves the tree
/// since it travels beside it. An empty machine-id makes systemd draw one at each boot.
const FINISH: &str = r#"#!/bin/sh
set -e
cp "$1"/boot/vmlinuz-* "$OUT/vmlinuz"
rm -rf "$1"/boot/* "$1"/var/cache/apt/* "$1"/var/lib/apt/lists/* "$1"/var/log/* "$1"/vmlinuz* "$1"/initrd*
ln -s usr/lib/systemd/systemd "$1/init"
: >"$1/etc/machine-id"
echo node >"$1/etc/hostname"
printf '[Match]\nType=ether\n\n[Network]\nDHCP=ipv4\n\n[DHCPv4]\nClientIdentifier=mac\n' \
    >"$1/etc/systemd/network/50-dhcp.network"
chroot "$1" systemctl enable systemd-networkd.service
chroot "$1" systemctl mask systemd-networkd-wait-online.service apt-daily.timer \
    apt-daily-upgrade.timer dpkg-db-backup.timer fstrim.timer e2scrub_all.timer
"#;

/// Level 10 packs as well as gzip's best at ten times its speed; unpacking is as fast at any level.
const ZSTD_LEVEL: &str = "-10";

/// The login prompt on the serial port, which ends a boot.
pub(crate) const LOGIN: &str = "node login:";

/// What the kernel is told. Its root file system is memory, and not only half of it.
const CMDLINE: &str = "console=ttyS0,115200 quiet rootfstype=ramfs";

/// The files of the image.
pub(crate) struct Debian {
    dir: PathBuf,
}

impl Debian {
    /// The image, made if it is not kept from an earlier run: a few minutes and 100 MB from the
    /// mirror.
    pub(crate) fn build() -> Result<Self> {
        let excluded = EXCLUDED.join(" ");
        let recipe = [EDITION, SUITE, PACKAGES, &excluded, FINISH, ZSTD_LEVEL].join("\n");
        let digest = hex(&Sha256::digest(recipe.as_bytes()));
        let dir = target_dir().join("debian").join(&digest[..16]);
        if !dir.join("initrd.img").exists() {
            let start = Instant::now();
            eprintln!("making a Debian 12 from packages (once; a few minutes)");
            make(&dir).context("making the Debian image")?;
            eprintln!("made in {:.0} s", start.elapsed().as_secs_f64());
        }
        Ok(Self { dir })
    }

    /// Bytes of its files.
    pub(crate) fn size(&self) -> Result<u64> {
        let mut size = 0;
        for name in ["vmlinuz", "initrd.img"] {
            size += std::fs::metadata(self.dir.join(name))?.len();
        }
        Ok(size)
    }

    /// Makes the image's folder, `name` under `oss`.
    pub(crate) fn install(&self, oss: &Path, name: &str) -> Result<()> {
        let dir = oss.join(name);
        std::fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
        for file in ["vmlinuz", "initrd.img"] {
            std::fs::copy(self.dir.join(file), dir.join(file))
                .with_context(|| format!("copying {file} of the Debian image"))?;
        }
        let config = format!(
            "dispname: Debian 12\nmethod: kexec\nkernel: vmlinuz\ninitrd: initrd.img\n\
             cmdline: {CMDLINE}\n"
        );
        std::fs::write(dir.join("config.yaml"), config).context("writing config.yaml")
    }
}

fn make(dir: &Path) -> Result<()> {
    super::fresh(dir)?;
    let tree = dir.join("tree");
    let mut command = Command::new("mmdebstrap");
    command.args(["--variant=minbase", "--format=directory", "--quiet"]);
    command.arg(format!("--include={PACKAGES}"));
    command.args(EXCLUDED.iter().map(|path| format!("--dpkgopt=path-exclude={path}")));
    command.arg("--aptopt=APT::Install-Recommends \"false\"");
    let finish = dir.join("finish");
    testos::write_program(&finish, FINISH)?;
    command.arg(format!("--customize-hook={}", finish.display()));
    command.arg(SUITE).arg(&tree);
    // The image is its own initramfs, so none is made for its kernel.
    command.env("INITRD", "No").env("OUT", dir).stdin(Stdio::null());
    let status = command.status().context("running mmdebstrap")?;
    ensure!(status.success(), "mmdebstrap: {status}");
    let cpio = dir.join("initrd.cpio");
    testos::pack(&tree, &cpio)?;
    std::fs::remove_dir_all(&tree).with_context(|| format!("removing {}", tree.display()))?;
    let mut zstd = Command::new("zstd");
    zstd.args(["-q", "-f", "-T0", "--rm", ZSTD_LEVEL]).arg(&cpio).arg("-o");
    // Only whole images have the final name.
    let packed = dir.join("initrd.part");
    let status = zstd.arg(&packed).status().context("running zstd")?;
    ensure!(status.success(), "zstd: {status}");
    std::fs::rename(&packed, dir.join("initrd.img")).context("naming the image")
}
