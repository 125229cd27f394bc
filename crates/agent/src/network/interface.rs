//! The Ethernet interfaces of the machine, as sysfs shows them. Read anew each time: there are few,
//! and drivers bring them and take them away.

use std::fs;
use std::io;
use std::path::Path;

use boot::Mac;

/// Interfaces that are looked at. A machine with more has virtual ones, and those are not for
/// booting from.
const INTERFACES_MAX: usize = 64;

/// `ARPHRD_ETHER` of the kernel.
const TYPE_ETHERNET: &str = "1";

/// An Ethernet interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Interface {
    /// The kernel's name for it, such as `eth0`.
    pub(crate) name: String,
    /// Its address.
    pub(crate) mac: Mac,
    /// Its driver's name, such as `e1000e`.
    pub(crate) driver: Option<String>,
    /// The kernel's number for it.
    pub(crate) index: u32,
    /// Whether it is the machine's own hardware (or a virtual machine's), not a bridge, VLAN or veth.
    pub(crate) is_hardware: bool,
    /// Whether it has a link to another end. Unknown, and so false, while it is down.
    pub(crate) has_carrier: bool,
}

/// All Ethernet interfaces in the order of their indices; `sys` is where sysfs is mounted.
pub(crate) fn list(sys: &Path) -> io::Result<Vec<Interface>> {
    let mut interfaces: Vec<Interface> = fs::read_dir(sys.join("class/net"))?
        .filter_map(|entry| read(&entry.ok()?.path()))
        .take(INTERFACES_MAX)
        .collect();
    interfaces.sort_by_key(|interface| interface.index);
    Ok(interfaces)
}

/// Whether the interface has a link now.
pub(super) fn has_carrier(sys: &Path, name: &str) -> bool {
    value(&sys.join("class/net").join(name), "carrier").as_deref() == Some("1")
}

fn read(dir: &Path) -> Option<Interface> {
    // Wireless interfaces say that they are Ethernet, and have nothing to say before they are told
    // a network and a password.
    if value(dir, "type")? != TYPE_ETHERNET || dir.join("phy80211").exists() {
        return None;
    }
    let driver = fs::read_link(dir.join("device/driver")).ok();
    Some(Interface {
        name: dir.file_name()?.to_str()?.to_owned(),
        mac: value(dir, "address")?.parse().ok()?,
        driver: driver.and_then(|link| Some(link.file_name()?.to_str()?.to_owned())),
        index: value(dir, "ifindex")?.parse().ok()?,
        is_hardware: dir.join("device").exists(),
        // Reading it fails while the interface is down.
        has_carrier: value(dir, "carrier").as_deref() == Some("1"),
    })
}

fn value(dir: &Path, name: &str) -> Option<String> {
    Some(fs::read_to_string(dir.join(name)).ok()?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    use tempfile::TempDir;

    use super::*;

    fn add(sys: &Path, name: &str, files: &[(&str, &str)]) -> PathBuf {
        let dir = sys.join("class/net").join(name);
        fs::create_dir_all(&dir).unwrap();
        for (file, text) in files {
            fs::write(dir.join(file), format!("{text}\n")).unwrap();
        }
        dir
    }

    #[test]
    fn ethernet_interfaces_are_found_in_the_kernels_order() {
        let sys = TempDir::new().unwrap();
        let eth1 = add(
            sys.path(),
            "eth1",
            &[("type", "1"), ("address", "52:54:00:00:00:02"), ("ifindex", "3"), ("carrier", "1")],
        );
        fs::create_dir_all(eth1.join("device")).unwrap();
        symlink("../../../bus/pci/drivers/e1000e", eth1.join("device/driver")).unwrap();
        add(
            sys.path(),
            "br0",
            &[("type", "1"), ("address", "52:54:00:00:00:01"), ("ifindex", "2")],
        );
        let found = list(sys.path()).unwrap();
        let names: Vec<&str> = found.iter().map(|interface| interface.name.as_str()).collect();
        assert_eq!(names, ["br0", "eth1"]);
        assert!(!found[0].is_hardware && !found[0].has_carrier);
        assert!(found[1].is_hardware && found[1].has_carrier);
        assert_eq!(found[1].driver.as_deref(), Some("e1000e"));
        assert_eq!(found[1].mac, "52:54:00:00:00:02".parse().unwrap());
        assert!(has_carrier(sys.path(), "eth1") && !has_carrier(sys.path(), "br0"));
    }

    #[test]
    fn loopback_wireless_and_broken_ones_are_left_out() {
        let sys = TempDir::new().unwrap();
        let address = ("address", "00:00:00:00:00:00");
        add(sys.path(), "lo", &[("type", "772"), address, ("ifindex", "1")]);
        let wlan = add(sys.path(), "wlan0", &[("type", "1"), address, ("ifindex", "2")]);
        fs::create_dir(wlan.join("phy80211")).unwrap();
        add(sys.path(), "eth0", &[("type", "1"), ("address", "no address"), ("ifindex", "3")]);
        add(sys.path(), "eth1", &[]);
        assert_eq!(list(sys.path()).unwrap(), []);
    }
}
