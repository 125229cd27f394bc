//! Which drivers are in a phase 1: the cards that machines boot from, keyboards for the menu, and the
//! file systems that images are. A driver that a kernel does not have is passed over, since names
//! come and go with versions.
//!
//! They are kept in memory and loaded over the network by every node, so each has to earn its place:
//! network cards of the last twenty years that are soldered to boards or built into servers.

use super::library::Library;
use super::name::ModuleName;

/// Drivers in every phase 1, and why.
const DRIVERS: &[(&str, &[&str])] = &[
    (
        "virtual machines: QEMU, VMware, Hyper-V, Xen, clouds",
        &[
            "virtio_pci",
            "virtio_mmio",
            "virtio_net",
            "virtio_blk",
            "virtio_scsi",
            "virtio_rng",
            "vmxnet3",
            "hv_netvsc",
            "hyperv_keyboard",
            "xen_netfront",
            "ena",
            "gve",
            "pcnet32",
            "8139cp",
            "8139too",
            "ne2k_pci",
        ],
    ),
    (
        "Intel",
        &[
            "e100", "e1000", "e1000e", "igb", "igbvf", "igc", "ixgbe", "ixgbevf", "i40e", "iavf",
            "ice",
        ],
    ),
    ("Realtek, and the PHY that r8169 needs and does not name", &["r8169", "realtek"]),
    ("Broadcom, and PHYs", &["tg3", "b44", "bnx2", "bnx2x", "bnxt_en", "broadcom", "bcm_phy_lib"]),
    ("NVIDIA (Mellanox)", &["mlx4_en", "mlx5_core"]),
    ("servers: Chelsio, Cisco, Emulex, QLogic", &["cxgb4", "enic", "be2net", "qede"]),
    (
        "boards: Marvell, Atheros, Aquantia, NVIDIA, VIA, SiS, JMicron, Synopsys, DEC",
        &[
            "atl1",
            "atl1c",
            "atl1e",
            "atl2",
            "alx",
            "atlantic",
            "sky2",
            "skge",
            "forcedeth",
            "via_rhine",
            "via_velocity",
            "sis190",
            "sis900",
            "jme",
            "dwmac_intel",
            "tulip",
            "marvell",
            "smsc",
        ],
    ),
    (
        "USB network, for notebooks and docks",
        &[
            "usbnet",
            "r8152",
            "r8153_ecm",
            "cdc_ether",
            "cdc_ncm",
            "ax88179_178a",
            "asix",
            "aqc111",
            "smsc75xx",
            "smsc95xx",
            "lan78xx",
            "mcs7830",
            "dm9601",
            "pegasus",
            "rtl8150",
        ],
    ),
    ("USB itself", &["xhci_pci", "ehci_pci", "ohci_pci", "uhci_hcd"]),
    ("keyboards", &["usbhid", "hid_generic", "atkbd", "i8042"]),
    (
        "disks: for the list of what a machine has, and for who gets a shell; 0.4 MB",
        &["ahci", "nvme", "sd_mod"],
    ),
    ("images: squashfs under an overlay", &["squashfs", "overlay", "loop"]),
    ("images whose root a server has", &["nfs", "nfsv4"]),
    ("what the agent opens", &["af_packet", "unix", "ipv6", "efivarfs"]),
    ("networks with VLANs, bonded ports", &["8021q", "bonding"]),
];

/// What stands for all wired network drivers in a list of modules. No module can have the name, as
/// they are written with `_`.
pub const ALL_NET: &str = "all-net";

/// The folders that [`ALL_NET`] takes whole: every wired card, USB card and PHY.
const NET_FOLDERS: &[&str] = &[
    "kernel/drivers/net/ethernet/",
    "kernel/drivers/net/usb/",
    "kernel/drivers/net/phy/",
    "kernel/drivers/net/mdio/",
    "kernel/drivers/net/pcs/",
    "kernel/drivers/net/hyperv/",
];

/// The names of the drivers in every phase 1.
pub fn always() -> impl Iterator<Item = &'static str> {
    DRIVERS.iter().flat_map(|(_, names)| names.iter().copied())
}

/// All wired network drivers of a kernel.
pub(super) fn all_net(library: &Library) -> Vec<ModuleName> {
    let in_folder = |path: &str| NET_FOLDERS.iter().any(|folder| path.starts_with(folder));
    library.paths().filter(|(_, path)| in_folder(path)).map(|(name, _)| name.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn drivers_are_named_once_and_as_lsmod_does() {
        let names: BTreeSet<&str> = always().collect();
        assert_eq!(names.len(), always().count());
        for name in names {
            assert_eq!(name.parse::<ModuleName>().unwrap().as_str(), name);
        }
    }

    #[test]
    fn cards_that_are_promised_are_there() {
        let names: BTreeSet<&str> = always().collect();
        for name in [
            "virtio_net",
            "e1000",
            "e1000e",
            "igb",
            "ixgbe",
            "r8169",
            "tg3",
            "bnx2",
            "mlx4_en",
            "mlx5_core",
            "usbnet",
            "r8152",
            "cdc_ether",
            "ax88179_178a",
            "asix",
        ] {
            assert!(names.contains(name), "{name}");
        }
    }
}
