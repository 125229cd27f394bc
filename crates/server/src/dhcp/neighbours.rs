//! Who uses an address of this machine's network: the kernel asks by ARP for whatever a datagram is
//! sent to, and what it was answered can be read without rights of any kind.

use std::fs;
use std::net::Ipv4Addr;
use std::time::Duration;

use dhcp::Mac;

/// When the kernel has made up its mind: it believes an entry of before for 5 s, then asks three times
/// in 3 s, and longer only if somebody changed that.
pub(super) const ANSWER_TIME: Duration = Duration::from_secs(10);

/// The port that datagrams are sent to (RFC 863): nobody takes them.
pub(super) const DISCARD_PORT: u16 = 9;

/// Of this process, which is there also where the rest of /proc is hidden.
const TABLE: &str = "/proc/self/net/arp";

/// The entry is known to be right (`ATF_COM`).
const COMPLETE: u32 = 0x2;

/// Whose Ethernet address answers at an address of an interface's network.
pub(super) fn user(interface: &str, address: Ipv4Addr) -> std::io::Result<Option<Mac>> {
    Ok(find(&fs::read_to_string(TABLE)?, interface, address))
}

/// Columns: address, hardware type, flags, Ethernet address, mask, interface.
fn find(table: &str, interface: &str, address: Ipv4Addr) -> Option<Mac> {
    table.lines().find_map(|line| {
        let [of, _, flags, mac, _, at] = line.split_whitespace().collect::<Vec<_>>()[..] else {
            return None;
        };
        let flags = u32::from_str_radix(flags.strip_prefix("0x")?, 16).ok()?;
        let is_it = at == interface && of.parse() == Ok(address) && flags & COMPLETE != 0;
        let boot::Mac(mac) = mac.parse().ok().filter(|_| is_it)?;
        Some(Mac(mac))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
IP address       HW type     Flags       HW address            Mask     Device
10.0.0.7         0x1         0x2         52:54:00:00:00:07     *        eth0
10.0.0.8         0x1         0x0         00:00:00:00:00:00     *        eth0
10.0.0.9         0x1         0x6         52:54:00:00:00:09     *        eth1
";

    #[test]
    fn only_who_answered_at_the_interface_uses_an_address() {
        let find = |last, interface| find(TABLE, interface, Ipv4Addr::new(10, 0, 0, last));
        assert_eq!(find(7, "eth0"), Some(Mac([0x52, 0x54, 0, 0, 0, 7])));
        assert_eq!(find(8, "eth0"), None, "nobody answered");
        assert_eq!(find(9, "eth0"), None, "at another interface");
        assert_eq!(find(9, "eth1"), Some(Mac([0x52, 0x54, 0, 0, 0, 9])));
        assert_eq!(find(1, "eth0"), None);
    }

    #[test]
    fn the_table_of_this_machine_can_be_read() {
        assert_eq!(user("lo", Ipv4Addr::LOCALHOST).unwrap(), None);
    }
}
