//! `/etc/resolv.conf` (resolv.conf(5)): written whole or not at all.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;

use dhcp::client::Lease;

/// Writes the name servers of a lease. Its texts are names and addresses by type: nothing in them
/// can add a line.
pub(super) fn write(path: &Path, lease: &Lease) -> io::Result<()> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    let temporary = path.with_extension("conf.new");
    fs::write(&temporary, text(lease))?;
    fs::rename(&temporary, path)
}

fn text(lease: &Lease) -> String {
    let mut text = String::from("# From the DHCP lease, by boottorrent-agent\n");
    if let Some(domain) = &lease.domain {
        // Writing to a string does not fail.
        let _ = writeln!(text, "search {domain}");
    }
    for address in &lease.dns {
        let _ = writeln!(text, "nameserver {address}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::tests::lease;
    use super::*;

    #[test]
    fn name_servers_and_domain_are_written() {
        let dir = tempfile::TempDir::new().unwrap();
        let path = dir.path().join("etc/resolv.conf");
        let mut lease = lease();
        lease.dns = vec![[10, 0, 0, 1].into(), [10, 0, 0, 2].into()];
        lease.domain = Some("lab.example".to_owned());
        write(&path, &lease).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().skip(1).collect();
        assert_eq!(lines, ["search lab.example", "nameserver 10.0.0.1", "nameserver 10.0.0.2"]);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }
}
