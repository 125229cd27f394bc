//! What this node is made of, as far as its kernel shows it: for whoever keeps the list of machines.
//! Disks and cards are those that have a driver by now.

use std::fs;
use std::path::Path;

use boot::report::{Card, Disk, Hardware, PARTS_MAX};

use crate::network;

/// What is in `/sys/block` and is no disk.
const NO_DISKS: [&str; 7] = ["loop", "ram", "zram", "dm-", "md", "sr", "fd"];

/// The unit of `/sys/block/NAME/size`, whatever the disk's own sectors are.
const SECTOR_LEN: u64 = 512;

/// The most characters of a name that a part has: SCSI has 16 for a model, NVMe 40.
const NAME_LEN_MAX: usize = 48;

/// Reads it from `/sys` and `/proc` below `root`.
pub(crate) fn look(root: &Path) -> Hardware {
    let sys = root.join("sys");
    let mut names: Vec<String> = fs::read_dir(sys.join("block"))
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    names.sort();
    let disks = names.into_iter().filter_map(|name| disk(&sys, name)).take(PARTS_MAX);
    let interfaces = network::interfaces(&sys).unwrap_or_default();
    let hardware = interfaces.into_iter().filter(|interface| interface.is_hardware);
    let cards = hardware.take(PARTS_MAX).map(|interface| Card {
        // Without a carrier it cannot be read, or is -1.
        mbit_per_s: line(&sys.join("class/net").join(&interface.name).join("speed"))
            .and_then(|speed| speed.parse().ok()),
        name: interface.name,
        mac: interface.mac,
        driver: interface.driver,
    });
    Hardware { processor: processor(root), disks: disks.collect(), cards: cards.collect() }
}

fn disk(sys: &Path, name: String) -> Option<Disk> {
    let path = sys.join("block").join(&name);
    let sectors: u64 = line(&path.join("size"))?.parse().ok()?;
    let is_disk = sectors > 0 && !NO_DISKS.iter().any(|begin| name.starts_with(begin));
    is_disk.then(|| Disk {
        name,
        len_bytes: sectors.saturating_mul(SECTOR_LEN),
        model: line(&path.join("device/model")),
    })
}

fn processor(root: &Path) -> Option<String> {
    let info = fs::read_to_string(root.join("proc/cpuinfo")).ok()?;
    let name = info.lines().find_map(|line| line.strip_prefix("model name"))?;
    clean(name.trim_start_matches([':', ' ', '\t']))
}

/// A file of one line.
fn line(path: &Path) -> Option<String> {
    clean(&fs::read_to_string(path).ok()?)
}

fn clean(text: &str) -> Option<String> {
    let text = text.trim();
    (!text.is_empty()).then(|| text.chars().take(NAME_LEN_MAX).collect())
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
        write("proc/cpuinfo", "processor : 0\nmodel name\t: Abacus 3000\nmodel name\t: Abacus\n");
        for (name, size) in [("sdb", "0\n"), ("sda", "2048\n"), ("loop0", "2048\n")] {
            write(&format!("sys/block/{name}/size"), size);
        }
        write("sys/block/sda/device/model", "Drum  \n");
        for (name, index) in [("eth0", "2"), ("br0", "3")] {
            let file =
                |file: &str, text: &str| write(&format!("sys/class/net/{name}/{file}"), text);
            file("type", "1\n");
            file("address", "52:54:00:00:00:01\n");
            file("ifindex", index);
            file("speed", "-1\n");
        }
        write("sys/class/net/eth0/device/vendor", "0x8086\n");
        let hardware = look(temp.path());
        assert_eq!(hardware.processor.as_deref(), Some("Abacus 3000"));
        let disk = Disk { name: "sda".into(), len_bytes: 1 << 20, model: Some("Drum".into()) };
        assert_eq!(hardware.disks, [disk]);
        let mac = "525400000001".parse().unwrap();
        let card = Card { name: "eth0".into(), mac, driver: None, mbit_per_s: None };
        assert_eq!(hardware.cards, std::slice::from_ref(&card));
        write("sys/class/net/eth0/speed", "2500\n");
        let cards = look(temp.path()).cards;
        assert_eq!(cards, [Card { mbit_per_s: Some(2500), ..card }]);
    }

    #[test]
    fn a_storage_server_is_told_of_in_part() {
        let temp = tempfile::tempdir().unwrap();
        for number in 0..100 {
            let dir = temp.path().join(format!("sys/block/sd{number:02}"));
            fs::create_dir_all(dir.join("device")).unwrap();
            fs::write(dir.join("size"), "1\n").unwrap();
            fs::write(dir.join("device/model"), "x".repeat(4096)).unwrap();
        }
        let disks = look(temp.path()).disks;
        assert_eq!((disks.len(), disks[0].name.as_str()), (PARTS_MAX, "sd00"));
        assert_eq!(disks[0].model.as_ref().unwrap().len(), NAME_LEN_MAX);
    }
}
