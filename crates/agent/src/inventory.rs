//! What this node is made of, as far as its kernel shows it: for whoever keeps the list of machines.
//! Disks and cards are those that have a driver by now.

use std::fs;
use std::path::Path;

use boot::report::{Card, Disk, HARDWARE_MAX, Hardware};

/// What is in `/sys/block` and is no disk.
const NO_DISKS: [&str; 7] = ["loop", "ram", "zram", "dm-", "md", "sr", "fd"];

/// A sector of `/sys/block/NAME/size`, whatever the disk's own are.
const SECTOR_LEN: u64 = 512;

/// Reads it from `/sys` and `/proc` below `root`.
pub(crate) fn look(root: &Path) -> Hardware {
    let dmi = |name: &str| text(&root.join("sys/class/dmi/id").join(name));
    Hardware {
        vendor: dmi("sys_vendor"),
        product: dmi("product_name"),
        serial: dmi("product_serial"),
        processor: processor(root),
        disks: entries(&root.join("sys/block"), disk),
        cards: entries(&root.join("sys/class/net"), card),
    }
}

/// What `read` makes of the entries of a folder, in the order of their names.
fn entries<T>(folder: &Path, read: fn(&str, &Path) -> Option<T>) -> Vec<T> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    names.sort();
    names.iter().filter_map(|name| read(name, &folder.join(name))).take(HARDWARE_MAX).collect()
}

fn disk(name: &str, path: &Path) -> Option<Disk> {
    let sectors: u64 = text(&path.join("size"))?.parse().ok()?;
    let is_disk = sectors > 0 && !NO_DISKS.iter().any(|begin| name.starts_with(begin));
    is_disk.then(|| Disk {
        name: name.to_owned(),
        len_bytes: sectors.saturating_mul(SECTOR_LEN),
        model: text(&path.join("device/model")),
    })
}

/// Only what is a device; a bridge is none.
fn card(name: &str, path: &Path) -> Option<Card> {
    let driver = fs::read_link(path.join("device/driver")).ok();
    let driver = driver.and_then(|path| Some(path.file_name()?.to_str()?.to_owned()));
    path.join("device").exists().then_some(())?;
    Some(Card {
        name: name.to_owned(),
        mac: text(&path.join("address"))?.parse().ok()?,
        driver,
        // Without a carrier it cannot be read, or is -1.
        speed_mbit: text(&path.join("speed")).and_then(|speed| speed.parse().ok()),
    })
}

fn processor(root: &Path) -> Option<String> {
    let info = fs::read_to_string(root.join("proc/cpuinfo")).ok()?;
    let line = info.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// A file of one line; boards whose maker wrote nothing say so in many ways, and those stay.
fn text(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let text = text.trim();
    (!text.is_empty()).then(|| text.chars().take(64).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_listed_by_its_files() {
        let temp = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = temp.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        assert_eq!(look(temp.path()), Hardware::default());
        write("sys/class/dmi/id/sys_vendor", "ACME\n");
        write("sys/class/dmi/id/product_serial", "\n");
        write("proc/cpuinfo", "processor : 0\nmodel name\t: Abacus 3000\nmodel name\t: Abacus\n");
        write("sys/block/sda/size", "2048\n");
        write("sys/block/sda/device/model", "Drum  \n");
        write("sys/block/loop0/size", "2048\n");
        write("sys/block/sdb/size", "0\n");
        write("sys/class/net/eth0/address", "52:54:00:00:00:01\n");
        write("sys/class/net/eth0/device/vendor", "0x8086\n");
        write("sys/class/net/eth0/speed", "-1\n");
        write("sys/class/net/br0/address", "52:54:00:00:00:01\n");
        let hardware = look(temp.path());
        assert_eq!((hardware.vendor.as_deref(), hardware.serial), (Some("ACME"), None));
        assert_eq!(hardware.processor.as_deref(), Some("Abacus 3000"));
        let disk = Disk { name: "sda".into(), len_bytes: 1 << 20, model: Some("Drum".into()) };
        assert_eq!(hardware.disks, [disk]);
        let [card] = &hardware.cards[..] else { panic!("{:?}", hardware.cards) };
        assert_eq!((card.name.as_str(), card.speed_mbit), ("eth0", None));
    }
}
