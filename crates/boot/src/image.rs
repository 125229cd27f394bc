//! An image: an immutable, verified set of files that a node can boot, and how it is loaded.

use std::fmt;
use std::net::SocketAddrV4;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::kernel::KernelVersion;
use crate::password::PasswordHash;

/// The most characters of an image's name: it is a folder's name, part of URLs, and shown in menus.
pub const NAME_LEN_MAX: usize = 64;

/// The most bytes of a path within an image (`PATH_MAX` of Linux is 4096 with the folders above).
pub const PATH_LEN_MAX: usize = 1024;

/// The most bytes of a kernel command line (`COMMAND_LINE_SIZE` of x86-64 Linux, the last is NUL).
pub const CMDLINE_LEN_MAX: usize = 2047;

/// The name of an image: that of its folder in `oss/`. Letters, digits and `-` `_` `.` `+`, the
/// first of them a letter or digit: it needs no quoting in a shell, a URL or an iPXE script.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ImageName(String);

/// A text that cannot name an image.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` cannot name an image: use letters, digits and - _ . +, begin with a letter or digit, \
     {NAME_LEN_MAX} at most"
)]
pub struct ImageNameError(String);

impl ImageName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ImageName {
    type Err = ImageNameError;

    fn from_str(text: &str) -> Result<Self, ImageNameError> {
        let good = |c: char| c.is_ascii_alphanumeric() || "-_.+".contains(c);
        if text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text.len() <= NAME_LEN_MAX
            && text.chars().all(good)
        {
            Ok(Self(text.to_owned()))
        } else {
            Err(ImageNameError(text.chars().take(NAME_LEN_MAX).collect()))
        }
    }
}

impl TryFrom<String> for ImageName {
    type Error = ImageNameError;

    fn try_from(text: String) -> Result<Self, ImageNameError> {
        text.parse()
    }
}

impl From<ImageName> for String {
    fn from(name: ImageName) -> Self {
        name.0
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The path of a file within an image: relative, with `/` between names, none of which is empty,
/// `.` or `..`, so that it can lead nowhere else.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ImagePath(String);

/// A text that is no path within an image.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a path within the image's folder: write it relative, without `.` or `..`")]
pub struct ImagePathError(String);

impl ImagePath {
    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ImagePath {
    type Err = ImagePathError;

    fn from_str(text: &str) -> Result<Self, ImagePathError> {
        let good = |name: &str| !matches!(name, "" | "." | "..");
        if text.len() <= PATH_LEN_MAX
            && text.split('/').all(good)
            && !text.contains(|c: char| c.is_control())
        {
            Ok(Self(text.to_owned()))
        } else {
            Err(ImagePathError(text.chars().take(80).collect()))
        }
    }
}

impl TryFrom<String> for ImagePath {
    type Error = ImagePathError;

    fn try_from(text: String) -> Result<Self, ImagePathError> {
        text.parse()
    }
}

impl From<ImagePath> for String {
    fn from(path: ImagePath) -> Self {
        path.0
    }
}

impl fmt::Display for ImagePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The most bytes of a label: an ext4 has room for so many (`s_volume_name`).
pub const DISK_LABEL_LEN_MAX: usize = 16;

/// What a file system on a disk of a node is called, such as `guests`: letters, digits and `-` `_` `.`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DiskLabel(String);

/// A text that cannot be a label.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` cannot be the label of a file system: use letters, digits and - _ ., \
     {DISK_LABEL_LEN_MAX} at most"
)]
pub struct DiskLabelError(String);

impl DiskLabel {
    /// The label as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for DiskLabel {
    type Err = DiskLabelError;

    fn from_str(text: &str) -> Result<Self, DiskLabelError> {
        let good = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        match (1..=DISK_LABEL_LEN_MAX).contains(&text.len()) && text.chars().all(good) {
            true => Ok(Self(text.to_owned())),
            false => Err(DiskLabelError(text.chars().take(NAME_LEN_MAX).collect())),
        }
    }
}

impl TryFrom<String> for DiskLabel {
    type Error = DiskLabelError;

    fn try_from(text: String) -> Result<Self, DiskLabelError> {
        text.parse()
    }
}

impl From<DiskLabel> for String {
    fn from(label: DiskLabel) -> Self {
        label.0
    }
}

impl fmt::Display for DiskLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The last step on the node: how an image, once it is whole and verified, is run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "method", rename_all = "kebab-case")]
pub enum Loader {
    /// Replace the running kernel by the image's, through `kexec_file_load`.
    Kexec {
        /// The kernel.
        kernel: ImagePath,
        /// Its initrds, concatenated in this order.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        initrds: Vec<ImagePath>,
        /// The kernel command line.
        #[serde(default)]
        cmdline: String,
    },
    /// A virtual machine, with the swarm alive under it. QEMU is in the extension [`QEMU_EXTENSION`].
    #[serde(rename = "bin-qemu-x86_64")]
    Qemu {
        /// The arguments of QEMU, split as a shell splits them.
        args: String,
        /// Where the guest is seen.
        #[serde(default, skip_serializing_if = "Display::is_screen")]
        display: Display,
        /// What follows when it ends.
        #[serde(default, skip_serializing_if = "After::is_menu")]
        after: After,
        /// The file system of the node where what the guest writes stays; in memory if none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        kept_on: Option<DiskLabel>,
    },
    /// No system, but programs with their libraries that loaders of other images need: a node fetches
    /// and mounts it when the first of these is booted.
    Extension {
        /// The programs: a squashfs.
        rootfs: ImagePath,
    },
    /// A program of the image, in place of the agent.
    #[serde(rename = "bin")]
    Exec {
        /// The program.
        bin: ImagePath,
        /// Its arguments, split as a shell splits them.
        #[serde(default)]
        args: String,
    },
    /// A root file system of the image, in memory under a writable layer, on the running kernel; the
    /// node goes on seeding.
    Livenet {
        /// The root: a squashfs.
        rootfs: ImagePath,
        /// The kernel that it is for; the lab's own phase 1 if none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        kernel_version: Option<KernelVersion>,
        /// What its system reads in `/proc/cmdline` beside the rest.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        cmdline: String,
    },
    /// A root file system that a server has, on the running kernel. Such an image has no bytes.
    Nfs {
        /// `SERVER:PATH`; [`NODE_PLACEHOLDER`] in it stands for the node.
        root: String,
        /// As mount(8) takes them, such as `vers=4.2,rw`.
        options: String,
        /// The kernel that it is for; the lab's own phase 1 if none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        kernel_version: Option<KernelVersion>,
        /// What its system reads in `/proc/cmdline` beside the rest.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        cmdline: String,
    },
    /// A way of loading that this program does not know.
    #[serde(other)]
    Unknown,
}

/// The name of the extension that has QEMU.
pub const QEMU_EXTENSION: &str = "qemu";

/// Where a guest is seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "on", rename_all = "snake_case")]
pub enum Display {
    /// On the node's screen.
    #[default]
    Screen,
    /// Its first serial line is the node's console.
    Serial,
    /// By VNC.
    Vnc {
        /// Where the node listens.
        listen: SocketAddrV4,
    },
    /// What a newer server says: as if nothing was said.
    #[serde(other)]
    Unknown,
}

impl Display {
    /// Whether nothing has to be said.
    pub fn is_screen(&self) -> bool {
        *self == Self::Screen
    }
}

/// What follows when a guest has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum After {
    /// The node decides anew what it boots: by the menu, or as the lab has it.
    #[default]
    Menu,
    /// The node boots anew, from its firmware on.
    Reboot,
    /// The node is switched off.
    Poweroff,
    /// What a newer server says: as if nothing was said.
    #[serde(other)]
    Unknown,
}

impl After {
    /// Whether nothing has to be said.
    pub fn is_menu(&self) -> bool {
        *self == Self::Menu
    }
}

/// What stands in a path for the node's name or, if it has none, its Ethernet address with dashes.
pub const NODE_PLACEHOLDER: &str = "{node}";

impl Loader {
    /// Whether it runs on the kernel that phase 1 runs on, and on which: none is the lab's own.
    pub fn shared_kernel(&self) -> Option<Option<&KernelVersion>> {
        match self {
            Self::Livenet { kernel_version, .. } | Self::Nfs { kernel_version, .. } => {
                Some(kernel_version.as_ref())
            }
            Self::Kexec { .. }
            | Self::Qemu { .. }
            | Self::Exec { .. }
            | Self::Extension { .. }
            | Self::Unknown => None,
        }
    }

    /// Whether there is something to download.
    pub fn has_payload(&self) -> bool {
        !matches!(self, Self::Nfs { .. })
    }

    /// What its system gets on the command line of the kernel that phase 1 runs on.
    pub fn shared_cmdline(&self) -> &str {
        match self {
            Self::Livenet { cmdline, .. } | Self::Nfs { cmdline, .. } => cmdline,
            Self::Kexec { .. }
            | Self::Qemu { .. }
            | Self::Exec { .. }
            | Self::Extension { .. }
            | Self::Unknown => "",
        }
    }
}

/// An image as the manifest names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Its name, unique in the lab.
    pub name: ImageName,
    /// What menus show.
    pub title: String,
    /// What it is, for who chooses; a sentence or two.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Who chooses it in a menu must know this password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<PasswordHash>,
    /// The bytes of all its files together; none if its loader needs no files.
    pub len: u64,
    /// The v2 infohash (BEP 52): SHA-256 of the info dictionary, which through the Merkle roots in
    /// it covers the name, length and every byte of every file. Zeros if there are no files.
    #[serde(with = "crate::hex::serde")]
    pub infohash: [u8; 32],
    /// How it is run.
    pub loader: Loader,
}

impl Image {
    /// Whether it can be booted; an extension cannot.
    pub fn is_system(&self) -> bool {
        !matches!(self.loader, Loader::Extension { .. })
    }
}

/// Where the server serves the version of an image that has this infohash, in hexadecimal, as a web
/// seed (BEP 19), below its own URL. A file of it is at `NAME/PATH` below that.
#[must_use]
pub fn version_path(infohash: &str) -> String {
    format!("/versions/{infohash}/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_need_no_quoting_are_taken() {
        for name in ["debian-12", "a", "6.1.0+rt_64k", &"x".repeat(NAME_LEN_MAX)] {
            assert!(name.parse::<ImageName>().is_ok(), "{name}");
        }
    }

    #[test]
    fn names_that_could_lead_elsewhere_are_refused() {
        for name in
            ["", ".", "..", ".hidden", "-x", "a/b", "a b", "ä", &"x".repeat(NAME_LEN_MAX + 1)]
        {
            assert!(name.parse::<ImageName>().is_err(), "{name}");
        }
    }

    #[test]
    fn paths_stay_within_the_image() {
        for path in ["vmlinuz", "boot/initrd.img", "a b/ü"] {
            assert!(path.parse::<ImagePath>().is_ok(), "{path}");
        }
        for path in ["", "/vmlinuz", "../x", "a/../b", "a//b", "a/", "./a", "a\nb"] {
            assert!(path.parse::<ImagePath>().is_err(), "{path}");
        }
    }

    #[test]
    fn a_loader_is_written_with_the_words_of_the_configuration() {
        let loader = Loader::Kexec {
            kernel: "vmlinuz".parse().unwrap(),
            initrds: vec!["initrd.img".parse().unwrap()],
            cmdline: "quiet".to_owned(),
        };
        let text = serde_json::to_string(&loader).unwrap();
        assert_eq!(
            text,
            r#"{"method":"kexec","kernel":"vmlinuz","initrds":["initrd.img"],"cmdline":"quiet"}"#
        );
        assert_eq!(serde_json::from_str::<Loader>(&text).unwrap(), loader);
    }

    #[test]
    fn a_root_in_memory_and_one_elsewhere_are_written_the_same_way() {
        let check = |text: &str, loader: Loader| {
            assert_eq!(serde_json::from_str::<Loader>(text).unwrap(), loader);
            assert_eq!(serde_json::to_string(&loader).unwrap(), text);
        };
        check(
            r#"{"method":"livenet","rootfs":"squashfs.img","kernel_version":"6.1.0-40-amd64","cmdline":"quiet"}"#,
            Loader::Livenet {
                rootfs: "squashfs.img".parse().unwrap(),
                kernel_version: Some("6.1.0-40-amd64".parse().unwrap()),
                cmdline: "quiet".to_owned(),
            },
        );
        check(
            r#"{"method":"nfs","root":"10.0.0.1:/srv/{node}","options":"vers=4.2,rw"}"#,
            Loader::Nfs {
                root: "10.0.0.1:/srv/{node}".to_owned(),
                options: "vers=4.2,rw".to_owned(),
                kernel_version: None,
                cmdline: String::new(),
            },
        );
    }

    #[test]
    fn a_guest_says_where_it_is_seen_if_not_on_the_screen() {
        let check = |text: &str, loader: Loader| {
            assert_eq!(serde_json::from_str::<Loader>(text).unwrap(), loader);
            assert_eq!(serde_json::to_string(&loader).unwrap(), text);
        };
        let guest = |display, after| {
            let (args, kept_on) = ("-fda a".to_owned(), None);
            Loader::Qemu { args, display, after, kept_on }
        };
        let qemu = r#"{"method":"bin-qemu-x86_64","args":"-fda a""#;
        check(&format!("{qemu}}}"), guest(Display::Screen, After::Menu));
        let vnc = Display::Vnc { listen: "10.0.0.5:5901".parse().unwrap() };
        check(
            &format!(
                r#"{qemu},"display":{{"on":"vnc","listen":"10.0.0.5:5901"}},"after":"reboot"}}"#
            ),
            guest(vnc, After::Reboot),
        );
        let kept_on = Some("guests".parse().unwrap());
        let (args, (display, after)) = ("-fda a".to_owned(), Default::default());
        let keeping = Loader::Qemu { args, display, after, kept_on };
        check(&format!(r#"{qemu},"kept_on":"guests"}}"#), keeping);
        let newer = format!(r#"{qemu},"display":{{"on":"goggles"}},"after":"dance"}}"#);
        let expect = guest(Display::Unknown, After::Unknown);
        assert_eq!(serde_json::from_str::<Loader>(&newer).unwrap(), expect);
        let rootfs = "extension.squashfs".parse().unwrap();
        let extension = r#"{"method":"extension","rootfs":"extension.squashfs"}"#;
        check(extension, Loader::Extension { rootfs });
    }

    #[test]
    fn a_label_is_what_an_ext4_can_have() {
        let check =
            |text: &str, fits| assert_eq!(text.parse::<DiskLabel>().is_ok(), fits, "{text}");
        check("guests", true);
        check("Lab-2_a.1", true);
        check("0123456789abcdef", true);
        check("0123456789abcdefg", false);
        check("", false);
        check("a b", false);
        check("a/b", false);
    }

    #[test]
    fn a_loader_of_a_newer_server_is_unknown() {
        let text = r#"{"method":"hologram","beams":3}"#;
        assert_eq!(serde_json::from_str::<Loader>(text).unwrap(), Loader::Unknown);
    }
}
