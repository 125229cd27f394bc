//! The smallest operating system that proves a boot: Debian's kernel, busybox, one card's driver. It
//! takes a lease, so that the server sees it, says on the serial port that it is ready, and stays.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

use crate::bench::image::Image;

/// What it says when it is up; the name of its image follows.
pub(crate) const READY: &str = "BOOTTORRENT-TEST-OS ready";

/// What it says when it has a lease, before it is ready; the address follows.
pub(crate) const ADDRESS: &str = "BOOTTORRENT-TEST-OS address";

/// Cards of the machines of this harness with their bus, and packet sockets for the DHCP client.
const MODULES: &[&str] = &["virtio_pci", "virtio_net", "e1000", "af_packet"];

const BUSYBOX: &str = "/bin/busybox";

/// A kernel of this machine, as its package installed it.
#[derive(Debug, Clone)]
pub(crate) struct Kernel {
    pub(crate) release: String,
}

impl Kernel {
    /// The newest for virtual and real machines.
    pub(crate) fn find() -> Result<Self> {
        let names = std::fs::read_dir("/boot").context("reading /boot")?;
        let mut releases = vec![];
        for entry in names {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if let Some(release) = name.strip_prefix("vmlinuz-")
                && Path::new("/lib/modules").join(release).join("modules.dep").exists()
            {
                releases.push(release.to_owned());
            }
        }
        releases.sort_by_key(|release| numbers(release));
        let release = releases.pop().context("no kernel in /boot: run `cargo xtask setup`")?;
        Ok(Self { release })
    }

    pub(crate) fn release(&self) -> &str {
        &self.release
    }

    pub(crate) fn path(&self) -> PathBuf {
        Path::new("/boot").join(format!("vmlinuz-{}", self.release))
    }

    fn modules_dir(&self) -> PathBuf {
        Path::new("/lib/modules").join(&self.release)
    }

    /// Files of these modules and of all that they need, in the order in which they can be loaded.
    /// One that is built in, or that this kernel has not got, is passed over.
    fn modules(&self, names: &[&str]) -> Result<Vec<PathBuf>> {
        let path = self.modules_dir().join("modules.dep");
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("reading {}", path.display()))?;
        Ok(in_order(&text, names).into_iter().map(|path| self.modules_dir().join(path)).collect())
    }
}

/// 6.1.0-9 before 6.1.0-10.
fn numbers(release: &str) -> Vec<u64> {
    release.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
}

/// Paths of `modules.dep` in the order of loading: it lists what a module needs nearest first.
fn in_order(modules_dep: &str, names: &[&str]) -> Vec<String> {
    let mut paths = vec![];
    let mut seen = BTreeSet::new();
    for name in names {
        let suffix = format!("/{name}.ko");
        let line = modules_dep.lines().find_map(|line| {
            let (module, needs) = line.split_once(':')?;
            module.ends_with(&suffix).then_some((module, needs))
        });
        let Some((module, needs)) = line else { continue };
        for path in needs.split_whitespace().rev().chain([module]) {
            if seen.insert(path.to_owned()) {
                paths.push(path.to_owned());
            }
        }
    }
    paths
}

/// The files of a test system.
pub(crate) struct TestOs {
    kernel: Kernel,
    initrd: PathBuf,
}

impl TestOs {
    /// Packs its initrd into a folder.
    pub(crate) fn build(dir: &Path) -> Result<Self> {
        let kernel = Kernel::find()?;
        let tree = dir.join("testos");
        if tree.exists() {
            std::fs::remove_dir_all(&tree)
                .with_context(|| format!("removing {}", tree.display()))?;
        }
        for name in ["bin", "dev", "etc", "modules", "proc", "sys", "tmp"] {
            std::fs::create_dir_all(tree.join(name))?;
        }
        copy(Path::new(BUSYBOX), &tree.join("bin/busybox"))?;
        let mut order = String::new();
        for path in kernel.modules(MODULES)? {
            let name = path.file_name().context("a module without a name")?.to_string_lossy();
            copy(&path, &tree.join("modules").join(&*name))?;
            order.push_str(&format!("{name}\n"));
        }
        write(&tree.join("modules/order"), &order)?;
        write_program(&tree.join("init"), INIT)?;
        write_program(&tree.join("bin/lease"), LEASE)?;
        let initrd = dir.join("testos.cpio");
        pack(&tree, &initrd)?;
        Ok(Self { kernel, initrd })
    }

    pub(crate) fn kernel(&self) -> &Kernel {
        &self.kernel
    }

    pub(crate) fn initrd(&self) -> &Path {
        &self.initrd
    }

    /// Makes the folder of an image of it whose root is a squashfs that phase 1's kernel runs, `name`
    /// under `oss`, with ballast as in [`Self::install`].
    pub(crate) fn install_live(
        &self,
        oss: &Path,
        name: &str,
        ballast_len: u64,
        keys: &str,
    ) -> Result<()> {
        let dir = oss.join(name);
        std::fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
        let tree = self.live_tree()?;
        let mut command = Command::new("mksquashfs");
        command.arg(&tree).arg(dir.join("squashfs.img"));
        command.args(["-noappend", "-quiet", "-no-progress", "-all-root", "-comp", "zstd"]);
        let out = command.stdin(Stdio::null()).output().context("running mksquashfs")?;
        ensure!(
            out.status.success(),
            "mksquashfs: {}",
            String::from_utf8_lossy(&out.stderr).trim()
        );
        if ballast_len > 0 {
            Image::create(&dir, ballast_len)?;
        }
        let config = format!(
            "dispname: Live system {name}\nmethod: livenet\nrootfs: squashfs.img\n\
             cmdline: testos={name}\n{keys}"
        );
        write(&dir.join("config.yaml"), &config)
    }

    /// The root of the test system that runs on phase 1's kernel, as a folder.
    pub(crate) fn live_tree(&self) -> Result<PathBuf> {
        let tree = self.initrd.with_file_name("live-testos");
        if tree.exists() {
            std::fs::remove_dir_all(&tree)
                .with_context(|| format!("removing {}", tree.display()))?;
        }
        for name in ["bin", "dev", "etc", "proc", "run", "sbin", "sys", "tmp"] {
            std::fs::create_dir_all(tree.join(name))?;
        }
        copy(Path::new(BUSYBOX), &tree.join("bin/busybox"))?;
        write_program(&tree.join("sbin/init"), LIVE_INIT)?;
        write_program(&tree.join("bin/lease"), LEASE)?;
        Ok(tree)
    }

    /// Makes the folder of an image of it, `name` under `oss`; `ballast_len` bytes that nothing can
    /// compress make its download longer.
    pub(crate) fn install(&self, oss: &Path, name: &str, ballast_len: u64) -> Result<()> {
        let dir = oss.join(name);
        std::fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
        copy(&self.kernel.path(), &dir.join("vmlinuz"))?;
        copy(&self.initrd, &dir.join("initrd.img"))?;
        if ballast_len > 0 {
            Image::create(&dir, ballast_len)?;
        }
        let config = format!(
            "dispname: Test system {name}\nmethod: kexec\nkernel: vmlinuz\ninitrd: initrd.img\n\
             cmdline: {}\n",
            cmdline(name)
        );
        write(&dir.join("config.yaml"), &config)
    }
}

/// What the kernel of a test system is told.
pub(crate) fn cmdline(name: &str) -> String {
    format!("console=ttyS0,115200 quiet testos={name}")
}

/// The text that an image of this name prints when it is up.
pub(crate) fn ready(name: &str) -> String {
    format!("{READY} {name}")
}

/// A folder as an initramfs (newc), everything owned by root, in the order of names.
pub(super) fn pack(tree: &Path, to: &Path) -> Result<()> {
    let script =
        "find . -mindepth 1 | LC_ALL=C sort | cpio --quiet -o -H newc -R 0:0 --reproducible";
    let file = std::fs::File::create(to).with_context(|| format!("creating {}", to.display()))?;
    let mut command = Command::new("sh");
    command.args(["-c", script]).current_dir(tree).stdin(Stdio::null()).stdout(file);
    let out = command.stderr(Stdio::piped()).output().context("running cpio")?;
    ensure!(out.status.success(), "cpio: {}", String::from_utf8_lossy(&out.stderr).trim());
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    if !from.exists() {
        bail!("{} is missing: run `cargo xtask setup`", from.display());
    }
    std::fs::copy(from, to).with_context(|| format!("copying {}", from.display()))?;
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}

pub(super) fn write_program(path: &Path, text: &str) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    write(path, text)?;
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(path, mode).with_context(|| format!("chmod {}", path.display()))
}

/// PID 1. A card is what has a device behind it, which the loopback interface has not.
const INIT: &str = r#"#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
while read -r module; do insmod "/modules/$module"; done </modules/order
ip link set lo up
for path in /sys/class/net/*; do
    [ -e "$path/device" ] || continue
    card=${path##*/}
    ip link set "$card" up
    udhcpc -i "$card" -n -q -t 20 -T 2 -s /bin/lease
done
name=$(sed 's/.*testos=\([^ ]*\).*/\1/' /proc/cmdline)
echo "BOOTTORRENT-TEST-OS place=$(sed -n 's/.*place=\([^ ]*\).*/\1/p' /proc/cmdline) words"
echo "BOOTTORRENT-TEST-OS ready $name"
while :; do sleep 3600; done
"#;

/// PID 1 of a root on phase 1's kernel. It says what it was started with, takes the interface over as
/// a system does, and writes into its root. Open files are looked for without any other program, as
/// a pipe to it would be one of them; the tenth is the shell's own, for this script.
const LIVE_INIT: &str = r#"#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
echo "LIVE pid $$ root $(sed -n 's/^[^ ]* \/ \([^ ]*\) .*/\1/p' /proc/mounts | tail -1)"
echo "LIVE signals $(sed -n 's/^Sig\(Blk\|Ign\):.*[^0]$/\1 not empty/p' /proc/self/status)"
open= fd=3
while [ $fd -lt 100 ]; do
    [ $fd = 10 ] || [ ! -e /proc/1/fd/$fd ] || open="$open $fd"
    fd=$((fd + 1))
done
echo "LIVE files:$open."
echo "LIVE name $(hostname)"
echo "LIVE seed $(grep -l '^@boottorrent-agent' /proc/[0-9]*/cmdline | wc -l)"
echo "LIVE initramfs $(sed -n 's/^rootfs.*//p' /proc/mounts | wc -l)"
echo written >/written && echo "LIVE $(cat /written)"
for path in /sys/class/net/*; do
    [ -e "$path/device" ] || continue
    udhcpc -i "${path##*/}" -n -q -t 20 -T 2 -s /bin/lease
done
name=$(sed 's/.*testos=\([^ ]*\).*/\1/' /proc/cmdline)
echo "LIVE uptime $(cut -d ' ' -f 1 /proc/uptime)"
echo "BOOTTORRENT-TEST-OS ready $name"
while :; do sleep 3600; done
"#;

/// What udhcpc calls.
const LEASE: &str = r#"#!/bin/sh
[ "$1" = bound ] || exit 0
ip address add "$ip/$mask" dev "$interface"
echo "BOOTTORRENT-TEST-OS address $ip"
"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_comes_after_all_that_it_needs() {
        let dep = "kernel/net/core/failover.ko:\n\
            kernel/drivers/net/net_failover.ko: kernel/net/core/failover.ko\n\
            kernel/drivers/net/virtio_net.ko: kernel/drivers/net/net_failover.ko \
            kernel/net/core/failover.ko\n";
        assert_eq!(
            in_order(dep, &["virtio_net", "absent", "failover"]),
            [
                "kernel/net/core/failover.ko",
                "kernel/drivers/net/net_failover.ko",
                "kernel/drivers/net/virtio_net.ko"
            ]
        );
    }

    #[test]
    fn releases_are_compared_by_their_numbers() {
        assert!(numbers("6.1.0-9-amd64") < numbers("6.1.0-10-amd64"));
    }
}
