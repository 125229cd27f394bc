//! What can be seen of the system that runs: that it has begun, that it ends, and whether it looks
//! after the node's address.

use std::path::Path;

/// The port that DHCP clients listen at, as `/proc/net/udp` writes it.
const CLIENT_PORT: &str = ":0044";

/// What the first process of systemd is called at the very end, cut to the 15 bytes of a name.
const SHUTDOWN_NAMES: [&str; 2] = ["systemd-shutdow", "shutdown"];

/// Whether the first process is another program than this one.
pub(super) fn has_begun() -> bool {
    let program = |pid: &str| std::fs::read_link(format!("/proc/{pid}/exe")).ok();
    program("1") != program("self")
}

/// Whether it shuts down: systemd has said so to its users or has come to its last program. Other
/// systems send every process a signal, which ends this one.
pub(super) fn ends() -> bool {
    let read = |path: &str| std::fs::read_to_string(Path::new(path)).unwrap_or_default();
    is_end(&read("/run/nologin"), &read("/proc/1/comm"))
}

/// `/run/nologin` is there while the system starts, too, with other words.
fn is_end(nologin: &str, first_process: &str) -> bool {
    nologin.contains("going down") || SHUTDOWN_NAMES.contains(&first_process.trim())
}

/// How many sockets of DHCP clients there are.
pub(super) fn dhcp_client_count() -> usize {
    count_clients(&std::fs::read_to_string("/proc/net/udp").unwrap_or_default())
}

fn count_clients(table: &str) -> usize {
    let locals = table.lines().skip(1).filter_map(|line| line.split_whitespace().nth(1));
    locals.filter(|local| local.ends_with(CLIENT_PORT)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_system_is_told_from_its_start() {
        assert!(!is_end("", "systemd\n"));
        assert!(!is_end(
            "\"System is booting up. Unprivileged users are not permitted.\"",
            "systemd"
        ));
        assert!(is_end(
            "\"System is going down. Unprivileged users are not permitted.\"",
            "systemd"
        ));
        assert!(is_end("", "systemd-shutdow\n"));
    }

    #[test]
    fn clients_are_counted_by_their_port() {
        let table = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
  271: 3200000A:0044 00000000:0000 07 00000000:00000000 00:00000000 00000000   998        0 15143 2
  318: 00000000:0043 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 15144 2
";
        assert_eq!(count_clients(table), 1);
        assert_eq!(count_clients(""), 0);
    }
}
