//! The ways in which a boot ends badly: a closed set, each with a short code that a photograph of
//! the screen shows, and what to do about it. The table in `docs/operating.md` is written from here.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Declares the set once: variant, code, sentence, cure.
macro_rules! failures {
    ($($(#[$doc:meta])* $variant:ident = $code:literal, $what:literal, $cure:literal;)*) => {
        /// Why a node could not boot. On the wire and on screens it is its code, such as `BT31`;
        /// the tens are the stage: 1 link, 2 lease, 3 manifest, 4 image, 5 and 6 loader.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum Failure {
            $(#[doc = $what] #[serde(rename = $code)] $variant,)*
            /// A failure that a newer agent knows.
            #[serde(other, rename = "BT00")]
            Unknown,
        }

        impl Failure {
            /// All that this program knows, in the order of their codes.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// Four characters, for ever the same.
            pub fn code(self) -> &'static str {
                match self { $(Self::$variant => $code,)* Self::Unknown => "BT00" }
            }

            /// What happened, in a few words.
            pub fn what(self) -> &'static str {
                match self {
                    $(Self::$variant => $what,)*
                    Self::Unknown => "a failure that this program does not know",
                }
            }

            /// What a person can do about it.
            pub fn cure(self) -> &'static str {
                match self {
                    $(Self::$variant => $cure,)*
                    Self::Unknown => "update this program to the agent's version",
                }
            }
        }
    };
}

failures! {
    NoInterface = "BT11", "no network interface was found",
        "the card's driver is not in the initramfs: rebuild it with `boottorrent phase1 build --module NAME`, or add the kernel's modules for it";
    NoCarrier = "BT12", "no interface has a carrier",
        "check cable and switch port; ports with spanning tree can take 30 s and more";
    NoLease = "BT21", "no DHCP server answered",
        "check that `boottorrent start` or the network's DHCP server runs, and that its range is not exhausted (`boottorrent status`)";
    AddressTaken = "BT22", "the offered address is in use by another machine",
        "free the address or take it out of the range; the node has declined it";
    ManifestUnreachable = "BT31", "no manifest in the initramfs, and none by HTTP",
        "check that the server runs and that its HTTP port can be reached from the node";
    ManifestAltered = "BT32", "the manifest's signature does not hold",
        "somebody or something altered it on the way; if it stays so, run `boottorrent check` on the server";
    OtherKey = "BT33", "the manifest is signed by another lab",
        "two labs answer on this network, or the lab's key was replaced: rebuild the initramfs (`boottorrent phase1 build`)";
    ManifestFormat = "BT34", "the manifest has a format that this agent does not read",
        "agent and server are of different versions: rebuild the initramfs (`boottorrent phase1 build`)";
    ManifestStale = "BT35", "the manifest is older than one that this node has seen",
        "check the clock and the `state` folder of the server";
    NoSuchImage = "BT41", "the image that this node is to boot is not offered",
        "name an existing folder of oss/ in Boottorrent.yaml or nodes.yaml";
    TorrentAltered = "BT42", "the torrent does not match the manifest",
        "it was altered on the way, or is of another version; restart the server if it stays so";
    NotEnoughMemory = "BT43", "the image does not fit in memory",
        "use a smaller image or a node with more memory: the screen says how much is missing";
    DownloadStalled = "BT44", "nobody sends the image",
        "check that the server's torrent and HTTP ports can be reached from the node";
    ImageAltered = "BT45", "the image's bytes do not match its torrent",
        "repair the image on the server (`boottorrent check` names the file)";
    LoaderUnknown = "BT51", "the image's loader is not known to this agent",
        "rebuild the initramfs (`boottorrent phase1 build`)";
    LoaderFileMissing = "BT52", "a file that the loader needs is not in the image",
        "check `kernel`, `initrd`, `rootfs` and `bin` in the image's config.yaml";
    KernelRefused = "BT53", "the running kernel refused to load the image's kernel",
        "it is not for this machine, not signed although Secure Boot is on, or too large; the screen has the kernel's reason";
    LoaderFailed = "BT54", "the image's program ended with an error",
        "see the screen for its last lines";
    NoKernel = "BT55", "the image is for a kernel that the lab does not offer",
        "give the lab that kernel (`boottorrent kernel add`), or change `kernel_version` in the image's config.yaml";
    RootRefused = "BT56", "the image's root file system cannot be mounted",
        "the screen has the kernel's reason: of `livenet` check that `rootfs` is a squashfs, of `nfs` server, export and `options`";
    NoInit = "BT57", "the image's root file system has no init that can be run",
        "the image needs /sbin/init: install systemd or another init in it";
    NoExtension = "BT58", "the image needs an extension that the lab does not offer",
        "make it on the server: `boottorrent extension build NAME`, for a virtual machine `qemu`";
    GuestMemory = "BT59", "there is not enough memory for the virtual machine",
        "ask for less with `-m` in the image's `args`, or use a node with more memory";
    GuestDisk = "BT60", "what the virtual machine writes cannot be kept on this node",
        "the screen has the reason: `writes` in the image's config.yaml names the label of an ext4 file system on a disk of the node (`mkfs.ext4 -L LABEL`)";
    Internal = "BT99", "the agent itself failed",
        "report it with a photograph of the screen";
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.code(), self.what())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_in_order() {
        let codes: Vec<&str> = Failure::ALL.iter().map(|failure| failure.code()).collect();
        assert!(codes.windows(2).all(|pair| pair[0] < pair[1]), "{codes:?}");
        assert!(codes.iter().all(|code| code.len() == 4 && code.starts_with("BT")));
    }

    #[test]
    fn the_wire_has_the_code() {
        assert_eq!(serde_json::to_string(&Failure::NoLease).unwrap(), "\"BT21\"");
        assert_eq!(serde_json::from_str::<Failure>("\"BT21\"").unwrap(), Failure::NoLease);
        assert_eq!(serde_json::from_str::<Failure>("\"BT77\"").unwrap(), Failure::Unknown);
    }
}
