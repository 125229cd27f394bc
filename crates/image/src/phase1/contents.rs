//! What is in the initramfs, and where.

use boot::LabPublicKey;

use super::closure::Closure;
use super::error::Phase1Error;
use super::firmware::Firmware;
use crate::cpio::{Archive, CpioError, Entry};
use boot::kernel::KernelVersion;

/// Names by which busybox is called: what somebody at the rescue shell of a machine without a disk
/// needs to find out why it does not boot. A name that a busybox does not know does no harm.
const APPLETS: &[&str] = &[
    // Shell and scripts.
    "[",
    "ash",
    "awk",
    "basename",
    "cat",
    "chmod",
    "chown",
    "clear",
    "cmp",
    "cp",
    "cut",
    "date",
    "dd",
    "diff",
    "dirname",
    "du",
    "echo",
    "env",
    "expr",
    "false",
    "find",
    "grep",
    "head",
    "id",
    "less",
    "ln",
    "ls",
    "md5sum",
    "mkdir",
    "mkfifo",
    "mknod",
    "mktemp",
    "more",
    "mv",
    "nproc",
    "od",
    "printf",
    "pwd",
    "readlink",
    "realpath",
    "reset",
    "rm",
    "rmdir",
    "sed",
    "seq",
    "sh",
    "sha256sum",
    "sleep",
    "sort",
    "stat",
    "strings",
    "stty",
    "sync",
    "tail",
    "tee",
    "test",
    "time",
    "timeout",
    "touch",
    "tr",
    "true",
    "tty",
    "uniq",
    "usleep",
    "vi",
    "watch",
    "wc",
    "which",
    "xargs",
    "yes",
    "hexdump",
    "xxd",
    // Archives.
    "cpio",
    "gunzip",
    "gzip",
    "tar",
    "unxz",
    "xzcat",
    "zcat",
    // Processes and the kernel.
    "cttyhack",
    "dmesg",
    "free",
    "hostname",
    "insmod",
    "kill",
    "killall",
    "lsmod",
    "lspci",
    "lsusb",
    "modinfo",
    "modprobe",
    "openvt",
    "chvt",
    "pgrep",
    "pidof",
    "ps",
    "rmmod",
    "setsid",
    "sysctl",
    "top",
    "uname",
    "uptime",
    "halt",
    "poweroff",
    "reboot",
    // Disks and file systems.
    "blkid",
    "blockdev",
    "chroot",
    "df",
    "fdisk",
    "losetup",
    "mount",
    "mountpoint",
    "pivot_root",
    "swapoff",
    "swapon",
    "switch_root",
    "umount",
    // Network.
    "arp",
    "arping",
    "brctl",
    "ifconfig",
    "ip",
    "nc",
    "netstat",
    "nslookup",
    "ping",
    "ping6",
    "route",
    "telnet",
    "tftp",
    "traceroute",
    "udhcpc",
    "vconfig",
    "wget",
];

/// Folders that the agent mounts on or puts things in.
const FOLDERS: &[&str] =
    &["boottorrent", "dev", "etc", "mnt", "proc", "root", "run", "sys", "tmp", "usr", "var"];

/// The names by which busybox can be called.
pub(super) fn applets() -> impl Iterator<Item = &'static str> {
    APPLETS.iter().copied()
}

/// What an initramfs is made of.
#[derive(Debug)]
pub(super) struct Contents<'a> {
    pub(super) version: &'a KernelVersion,
    pub(super) agent: Vec<u8>,
    pub(super) busybox: Vec<u8>,
    pub(super) key: &'a LabPublicKey,
    pub(super) builtin: &'a str,
    pub(super) closure: Closure,
    pub(super) firmware: Firmware,
}

/// The two archives that the kernel unpacks over one another.
#[derive(Debug)]
pub(super) struct Archives {
    /// What only a new kernel changes, and what is long: drivers, firmware, busybox.
    pub(super) base: Archive,
    /// The agent and the lab's key.
    pub(super) lab: Archive,
}

impl Contents<'_> {
    /// Puts everything in its place.
    pub(super) fn pack(self) -> Result<Archives, Phase1Error> {
        let mut lab = Archive::new();
        lab.add("init", Entry::File { bytes: self.agent, executable: true })?;
        lab.add_file("etc/boottorrent/lab.pub", self.key.to_string())?;

        let mut archive = Archive::new();
        for folder in FOLDERS {
            archive.add(folder, Entry::Directory)?;
        }
        // The kernel opens it for init before anything is mounted.
        archive.add("dev/console", Entry::CharDevice { major: 5, minor: 1, permissions: 0o600 })?;
        archive.add("dev/null", Entry::CharDevice { major: 1, minor: 3, permissions: 0o666 })?;
        add_busybox(&mut archive, self.busybox)?;

        let dir = format!("lib/modules/{}", self.version);
        archive.add_file(&format!("{dir}/modules.dep"), self.closure.dep_text())?;
        archive.add_file(&format!("{dir}/modules.alias"), self.closure.alias_text())?;
        archive.add_file(&format!("{dir}/modules.softdep"), self.closure.softdep_text())?;
        archive.add_file(&format!("{dir}/modules.builtin"), self.builtin)?;
        for module in self.closure.modules.into_values() {
            archive.add_file(&format!("{dir}/{}", module.path), module.bytes)?;
        }
        for (name, bytes) in self.firmware.files {
            archive.add_file(&format!("lib/firmware/{name}"), bytes)?;
        }
        Ok(Archives { base: archive, lab })
    }
}

fn add_busybox(archive: &mut Archive, busybox: Vec<u8>) -> Result<(), CpioError> {
    archive.add("bin/busybox", Entry::File { bytes: busybox, executable: true })?;
    for applet in APPLETS {
        archive.add(&format!("bin/{applet}"), Entry::Symlink("busybox".to_owned()))?;
    }
    // The kernel calls /sbin/modprobe for what it misses, and scripts have such paths.
    archive.add("sbin", Entry::Symlink("bin".to_owned()))?;
    archive.add("usr/bin", Entry::Symlink("../bin".to_owned()))?;
    archive.add("usr/sbin", Entry::Symlink("../bin".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::phase1::library::Module;

    fn archives() -> Archives {
        let module = |path: &str| Module {
            path: path.to_owned(),
            bytes: path.as_bytes().to_vec(),
            info: Default::default(),
        };
        let modules = [("e1000".parse().unwrap(), module("kernel/net/e1000.ko"))].into();
        let firmware = Firmware {
            files: [("bnx2/a.fw".to_owned(), b"fw".to_vec())].into(),
            ..Firmware::default()
        };
        let contents = Contents {
            version: &"6.1.0-40-amd64".parse().unwrap(),
            agent: b"agent".to_vec(),
            busybox: b"busybox".to_vec(),
            key: &boot::LabKey::from_seed([1; 32]).public(),
            builtin: "kernel/fs/ext4.ko\n",
            closure: Closure { modules, absent: vec![] },
            firmware,
        };
        contents.pack().unwrap()
    }

    fn find<'a>(archive: &'a Archive, path: &str) -> &'a Entry {
        archive.entries().find(|(name, _)| *name == path).unwrap_or_else(|| panic!("{path}")).1
    }

    fn text(archive: &Archive, path: &str) -> String {
        match find(archive, path) {
            Entry::File { bytes, .. } => String::from_utf8(bytes.clone()).unwrap(),
            other => panic!("{path}: {other:?}"),
        }
    }

    #[test]
    fn everything_is_where_agent_and_kernel_look_for_it() {
        let Archives { base: archive, lab } = archives();
        let agent = Entry::File { bytes: b"agent".to_vec(), executable: true };
        assert_eq!(*find(&lab, "init"), agent);
        assert_eq!(
            *find(&archive, "dev/console"),
            Entry::CharDevice { major: 5, minor: 1, permissions: 0o600 }
        );
        assert_eq!(*find(&archive, "bin/sh"), Entry::Symlink("busybox".to_owned()));
        assert_eq!(*find(&archive, "sbin"), Entry::Symlink("bin".to_owned()));
        let modules = "lib/modules/6.1.0-40-amd64";
        assert_eq!(text(&archive, &format!("{modules}/modules.dep")), "kernel/net/e1000.ko:\n");
        assert_eq!(text(&archive, &format!("{modules}/modules.builtin")), "kernel/fs/ext4.ko\n");
        assert_eq!(
            text(&archive, &format!("{modules}/kernel/net/e1000.ko")),
            "kernel/net/e1000.ko"
        );
        assert_eq!(text(&archive, "lib/firmware/bnx2/a.fw"), "fw");
        assert!(text(&lab, "etc/boottorrent/lab.pub").starts_with("boottorrent-public-key "),);
        for folder in ["proc", "sys", "run", "tmp", "boottorrent"] {
            assert_eq!(*find(&archive, folder), Entry::Directory, "{folder}");
        }
    }
}
