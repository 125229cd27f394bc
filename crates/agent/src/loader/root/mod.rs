//! A root file system on the running kernel: mounted while the node still is a peer and can say what
//! is wrong with it, then entered for good, as switch_root(8) does.
//!
//! What comes with it into the new root: `/dev`, `/proc`, `/sys` and `/run`, and with `/run` the image,
//! which lies there in memory. Everything else of phase 1 is deleted, which gives its memory back; what
//! runs of it (a process of this program that seeds, [`crate::booted`]) stays for as long as it runs.

mod loop_device;
mod mounts;
mod switch;

use std::net::Ipv4Addr;
use std::path::Path;

use boot::ImagePath;
use boot::image::CMDLINE_LEN_MAX;

use super::LoadFailure;
use crate::booted::Handover;
use crate::download::VerifiedImage;

/// Where the new root is until it is entered.
const NEW_ROOT: &str = "/sysroot";

/// What a system of the image runs as its first process, in the order in which kernels look for it
/// (`kernel_init` in Linux' init/main.c), but for a shell: nobody is at the keyboard.
const INITS: [&str; 3] = ["/sbin/init", "/etc/init", "/bin/init"];

/// What is to be mounted.
#[derive(Debug)]
enum Source {
    /// A squashfs of the image, under a writable layer in memory.
    Memory(torrent_io::storage::FileHandle, u64),
    /// `SERVER:PATH` and options.
    Nfs(String, String),
}

/// A root and how it is entered.
#[derive(Debug)]
pub(crate) struct Plan {
    source: Source,
    /// Added to what `/proc/cmdline` says.
    words: String,
    /// What the lab calls the node.
    hostname: Option<String>,
}

/// What of an image's start depends on the node.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ForNode<'a> {
    /// Its name, if it has one.
    pub(crate) name: Option<&'a str>,
    /// Its interface's address.
    pub(crate) mac: Option<boot::Mac>,
    /// Added to the image's command line.
    pub(crate) cmdline: &'a str,
    /// The interface that has the lease, and its address.
    pub(crate) interface: Option<&'a str>,
    pub(crate) address: Option<&'a str>,
    /// The server's URL.
    pub(crate) server: Option<&'a str>,
}

/// The words that an image and a node add.
///
/// # Errors
/// If they are more than a kernel takes.
pub(super) fn words(of_image: &str, of_node: &str) -> Result<String, LoadFailure> {
    let line = [of_image.trim(), of_node.trim()].join(" ").trim().to_owned();
    match line.len() {
        len if len > CMDLINE_LEN_MAX => Err(LoadFailure::CmdlineTooLong { len }),
        _ if line.contains('\0') => Err(LoadFailure::CmdlineNul),
        _ => Ok(line),
    }
}

/// Mounts a squashfs of an image at `target`.
///
/// # Errors
/// If the kernel refuses.
pub(crate) fn squashfs(
    file: &torrent_io::storage::FileHandle,
    target: &Path,
) -> Result<(), LoadFailure> {
    mounts::squashfs(file, target)
}

impl Plan {
    /// A root of the image in memory.
    pub(super) fn in_memory(
        image: &VerifiedImage,
        rootfs: &ImagePath,
        cmdline: &str,
        node: ForNode<'_>,
    ) -> Result<Self, LoadFailure> {
        let (file, len) = super::file(image, rootfs)?;
        let words = words(cmdline, node.cmdline)?;
        Ok(Self {
            source: Source::Memory(file, len),
            words,
            hostname: node.name.map(str::to_owned),
        })
    }

    /// A root that a server has.
    pub(super) fn elsewhere(
        root: &str,
        options: &str,
        cmdline: &str,
        node: ForNode<'_>,
    ) -> Result<Self, LoadFailure> {
        let source = Source::Nfs(place(root, node), options.to_owned());
        let words = words(cmdline, node.cmdline)?;
        Ok(Self { source, words, hostname: node.name.map(str::to_owned) })
    }

    pub(super) fn describe(&self) -> String {
        match &self.source {
            Source::Memory(_, len) => {
                let len = crate::console::mib(*len);
                format!("livenet: root of {len} in memory, on the running kernel")
            }
            Source::Nfs(root, options) => format!("nfs: root {root} ({options})"),
        }
    }

    /// Mounts it, and sees that it can be entered. What was mounted is taken back if it cannot.
    pub(super) fn load(&self) -> Result<(), LoadFailure> {
        let mounted = match &self.source {
            Source::Memory(file, _) => {
                file.check_unchanged()?;
                mounts::squashfs_under_overlay(file)
            }
            Source::Nfs(root, options) => mounts::nfs(root, options, own_address(root)),
        };
        let result = mounted.and_then(|()| switch::find_init(Path::new(NEW_ROOT)).map(drop));
        if result.is_err() {
            mounts::take_back();
        }
        result
    }

    /// Enters it and runs its init, in place of this program. Comes back only while nothing is lost.
    pub(super) fn start(&self, handover: &Handover) -> LoadFailure {
        match switch::find_init(Path::new(NEW_ROOT)) {
            Ok(init) => switch::enter(&init, &self.words, self.hostname.as_deref(), handover),
            Err(error) => error,
        }
    }
}

/// The root of this node.
fn place(root: &str, node: ForNode<'_>) -> String {
    let name = || match (node.name, node.mac) {
        (Some(name), _) => name.to_owned(),
        (None, Some(mac)) => mac.to_string().replace(':', "-"),
        (None, None) => "unknown".to_owned(),
    };
    match root.contains(boot::image::NODE_PLACEHOLDER) {
        true => root.replace(boot::image::NODE_PLACEHOLDER, &name()),
        false => root.to_owned(),
    }
}

/// The address by which this node reaches the server of `root`: where it calls back (RFC 8881
/// section 2.10.3.1 lets it say none).
fn own_address(root: &str) -> Option<Ipv4Addr> {
    let server: Ipv4Addr = root.split(':').next()?.parse().ok()?;
    let socket = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    // Sends nothing: the kernel only looks for the way.
    socket.connect((server, 2049)).ok()?;
    match socket.local_addr().ok()?.ip() {
        std::net::IpAddr::V4(address) => Some(address),
        std::net::IpAddr::V6(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_elsewhere_is_the_nodes_own() {
        let mac = "52:54:00:12:34:AB".parse().unwrap();
        let check = |root, name, mac, expect| {
            assert_eq!(place(root, ForNode { name, mac, ..ForNode::default() }), expect);
        };
        let root = "10.0.0.1:/srv/{node}/root";
        check(root, Some("c001"), Some(mac), "10.0.0.1:/srv/c001/root");
        check(root, None, Some(mac), "10.0.0.1:/srv/52-54-00-12-34-ab/root");
        check("10.0.0.1:/srv", Some("c001"), Some(mac), "10.0.0.1:/srv");
    }

    #[test]
    fn the_nodes_words_follow_the_images() {
        assert_eq!(words("quiet ", " ip=dhcp").unwrap(), "quiet ip=dhcp");
        assert_eq!(words("", "").unwrap(), "");
        assert!(matches!(words("a\0", ""), Err(LoadFailure::CmdlineNul)));
        let long = "x".repeat(CMDLINE_LEN_MAX + 1);
        assert!(matches!(words(&long, ""), Err(LoadFailure::CmdlineTooLong { .. })));
    }
}
