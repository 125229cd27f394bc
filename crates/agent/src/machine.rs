//! What this node is, as far as its kernel knows.

use std::path::Path;

use boot::report::Machine;
use boot::{Arch, Firmware};

/// Reads it from `/sys` and `/proc` below `root`.
pub(crate) fn look(root: &Path) -> Machine {
    let uname = rustix::system::uname();
    Machine {
        arch: arch(&uname.machine().to_string_lossy()),
        firmware: if root.join("sys/firmware/efi").is_dir() {
            Firmware::Uefi
        } else {
            Firmware::Bios
        },
        uuid: uuid(root),
        product: product(root),
        serial_number: dmi(root, "product_serial"),
        memory_bytes: memory(root, "MemTotal").unwrap_or(0),
        processors: std::thread::available_parallelism()
            .map_or(1, |count| u32::try_from(count.get()).unwrap_or(u32::MAX)),
        interface: None,
        driver: None,
        address: None,
        agent: env!("CARGO_PKG_VERSION").to_owned(),
        kernel: uname.release().to_string_lossy().into_owned(),
    }
}

/// A line of `/proc/meminfo` below `root`, in bytes.
pub(crate) fn memory(root: &Path, key: &str) -> Option<u64> {
    let text = std::fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib.saturating_mul(1024))
}

/// Milliseconds since the kernel started.
pub(crate) fn uptime_ms() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds * 1000 + u64::try_from(time.tv_nsec).unwrap_or(0) / 1_000_000
}

fn arch(machine: &str) -> Arch {
    match machine {
        "x86_64" => Arch::X86_64,
        "aarch64" => Arch::Arm64,
        _ => Arch::Unknown,
    }
}

/// What boards have in place of what their maker forgot.
const FILLERS: [&str; 6] = [
    "to be filled by o.e.m.",
    "default string",
    "not specified",
    "system serial number",
    "system product name",
    "none",
];

/// The most characters of a text of SMBIOS: it goes into reports and onto screens.
const DMI_LEN_MAX: usize = 64;

/// A text of SMBIOS, if it says something.
fn dmi(root: &Path, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(root.join("sys/class/dmi/id").join(name)).ok()?;
    let clean: String = text.trim().chars().filter(|c| !c.is_control()).take(DMI_LEN_MAX).collect();
    let says = clean.chars().any(|c| c.is_alphanumeric() && c != '0')
        && !FILLERS.contains(&clean.to_ascii_lowercase().as_str());
    says.then_some(clean)
}

/// Maker and product.
fn product(root: &Path) -> Option<String> {
    let parts = ["sys_vendor", "product_name"].into_iter().filter_map(|name| dmi(root, name));
    let text = parts.collect::<Vec<_>>().join(" ");
    (!text.is_empty()).then_some(text)
}

/// The SMBIOS UUID; boards without one say so by zeros.
fn uuid(root: &Path) -> Option<String> {
    let text = std::fs::read_to_string(root.join("sys/class/dmi/id/product_uuid")).ok()?;
    let uuid = text.trim().to_ascii_lowercase();
    let is_none = uuid.chars().all(|c| c == '0' || c == '-') || uuid.len() > 64;
    (!is_none).then_some(uuid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_described_by_its_files() {
        let temp = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = temp.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("proc/meminfo", "MemTotal:        2048 kB\nMemAvailable:    1024 kB\n");
        write("sys/class/dmi/id/product_uuid", "4C4C4544-0000-2010-8020-80C04F202020\n");
        write("sys/firmware/efi/runtime", "");
        write("sys/class/dmi/id/sys_vendor", "ACME\n");
        write("sys/class/dmi/id/product_name", "Rocket \u{7}3\n");
        write("sys/class/dmi/id/product_serial", "CZC1234\n");
        let machine = look(temp.path());
        assert_eq!(machine.memory_bytes, 2 << 20);
        assert_eq!(machine.uuid.as_deref(), Some("4c4c4544-0000-2010-8020-80c04f202020"));
        assert_eq!(machine.firmware, Firmware::Uefi);
        assert_eq!(machine.product.as_deref(), Some("ACME Rocket 3"));
        assert_eq!(machine.serial_number.as_deref(), Some("CZC1234"));
        for filler in ["", "0000", "Default string", "To Be Filled By O.E.M."] {
            write("sys/class/dmi/id/product_serial", filler);
            assert_eq!(look(temp.path()).serial_number, None, "{filler}");
        }
        assert_eq!(memory(temp.path(), "MemAvailable"), Some(1 << 20));
        assert_eq!(memory(temp.path(), "Mem"), None);
    }

    #[test]
    fn a_board_without_uuid_has_none() {
        let temp = tempfile::tempdir().unwrap();
        assert_eq!(uuid(temp.path()), None);
        std::fs::create_dir_all(temp.path().join("sys/class/dmi/id")).unwrap();
        let path = temp.path().join("sys/class/dmi/id/product_uuid");
        std::fs::write(path, "00000000-0000-0000-0000-000000000000\n").unwrap();
        assert_eq!(uuid(temp.path()), None);
    }

    #[test]
    fn kernels_name_their_machines() {
        assert_eq!(
            ["x86_64", "aarch64", "mips"].map(arch),
            [Arch::X86_64, Arch::Arm64, Arch::Unknown]
        );
    }
}
