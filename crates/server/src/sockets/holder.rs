//! Who holds a port: the kernel's tables of sockets name an inode, and the process that has it open
//! has a link to it among its file descriptors (proc(5)).

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::Transport;

/// State of a TCP socket that listens (`TCP_LISTEN` of the kernel); of a UDP socket that is bound
/// and not connected (`TCP_CLOSE`).
const LISTENING: [&str; 2] = ["0A", "07"];

/// How often a table is read at most. The kernel goes on where it was by counting: when a socket goes away
/// between two parts of a table, one that is there is passed over.
const READS_MAX: u32 = 5;

/// A process that holds a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Holder {
    pub(crate) pid: u32,
    /// As `ps` names it, 15 characters at most.
    pub(crate) name: String,
}

/// Who keeps others from `addr`, as far as this user may see. Processes of other users are hidden
/// from all but root.
pub(crate) fn holder(transport: Transport, addr: SocketAddr) -> Option<Holder> {
    let tables = match transport {
        Transport::Udp => ["/proc/net/udp", "/proc/net/udp6"],
        Transport::Tcp => ["/proc/net/tcp", "/proc/net/tcp6"],
    };
    let read = || -> Vec<String> {
        let texts = tables.iter().filter_map(|table| fs::read_to_string(table).ok());
        texts.flat_map(|table| inodes(&table, addr)).collect()
    };
    let inodes = (0..READS_MAX).map(|_| read()).find(|found| !found.is_empty())?;
    processes().find(|pid| has_open(*pid, &inodes)).map(|pid| Holder { pid, name: name(pid) })
}

/// The inodes of the sockets of a table that are in the way of `addr`.
fn inodes(table: &str, addr: SocketAddr) -> Vec<String> {
    let row = |line: &str| {
        // Slot, local address, remote address, state, queues, timer, retransmits, user, timeout, inode.
        let columns: Vec<&str> = line.split_whitespace().collect();
        let local = decode_addr(columns.get(1)?)?;
        let is_bound = LISTENING.contains(columns.get(3)?);
        (is_bound && conflicts(local, addr)).then(|| columns.get(9).map(|inode| (*inode).into()))?
    };
    table.lines().skip(1).filter_map(row).collect()
}

fn conflicts(held: SocketAddr, wanted: SocketAddr) -> bool {
    let (held_ip, wanted_ip) = (held.ip().to_canonical(), wanted.ip().to_canonical());
    held.port() == wanted.port()
        && (held_ip == wanted_ip || held_ip.is_unspecified() || wanted_ip.is_unspecified())
}

/// `0100007F:0045`: words of the address as this machine keeps them in memory, port as a number.
fn decode_addr(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| {
        let digits = ip.get(8 * at..8 * at + 8)?;
        Some(u32::from_str_radix(digits, 16).ok()?.to_ne_bytes())
    };
    let ip = match ip.len() {
        8 => IpAddr::from(Ipv4Addr::from(word(0)?)),
        32 => {
            let mut bytes = [0; 16];
            for (at, to) in bytes.as_chunks_mut::<4>().0.iter_mut().enumerate() {
                *to = word(at)?;
            }
            IpAddr::from(Ipv6Addr::from(bytes))
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn has_open(pid: u32, inodes: &[String]) -> bool {
    let files = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    files.filter_map(|file| fs::read_link(file.path()).ok()).any(|target| {
        let target = target.to_string_lossy();
        let inode = target.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']'));
        inode.is_some_and(|inode| inodes.iter().any(|wanted| wanted == inode))
    })
}

fn name(pid: u32) -> String {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    name.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const UDP: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when \
        retrnsmt   uid  timeout inode ref pointer drops\n\
        100: 0100007F:0045 00000000:0000 07 00000000:00000000 00:00000000 00000000 0 0 4711 2 0 0\n\
        101: 00000000:0043 00000000:0000 07 00000000:00000000 00:00000000 00000000 0 0 4712 2 0 0\n\
        102: 0100007F:0045 0100007F:D431 01 00000000:00000000 00:00000000 00000000 0 0 4713 2 0 0\n";

    #[cfg(target_endian = "little")]
    #[test]
    fn tables_of_the_kernel_are_read() {
        let check = |addr: &str, expect: &[&str]| {
            assert_eq!(inodes(UDP, addr.parse().unwrap()), expect, "{addr}");
        };
        check("127.0.0.1:69", &["4711"]);
        check("0.0.0.0:69", &["4711"]);
        check("10.0.0.1:69", &[]);
        check("10.0.0.1:67", &["4712"]);
        check("[::]:67", &["4712"]);
        check("127.0.0.1:70", &[]);
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn addresses_of_ipv6_are_four_words() {
        assert_eq!(
            decode_addr("00000000000000000000000001000000:1F90"),
            Some("[::1]:8080".parse().unwrap())
        );
        assert_eq!(
            decode_addr("0000000000000000FFFF00000100007F:0045").map(|a| a.ip().to_canonical()),
            Some("127.0.0.1".parse().unwrap())
        );
        assert_eq!(decode_addr("7F:0045"), None);
    }
}
