//! The door of a guest that is seen by VNC. Whoever gets in sees and steers it, so each run has a password
//! of its own, that is known where the lab already trusts people: on the node's screen, and with the lab's
//! key from elsewhere ([`crate::help`]). One in the image would be no secret, as everybody reads those.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::SocketAddrV4;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Where QEMU reads it, as programs of the extension see it, too; on its command line others would.
pub(super) const PASSWORD_FILE: &str = "/run/boottorrent/vnc";

/// More do not count (RFC 6143 section 7.2.2).
const PASSWORD_LEN: usize = 8;

/// None that people take for another, and as many as five bits can tell apart: each password has 40.
const LETTERS: &[u8; 32] = b"abcdefghjkmnpqrstuvwxyz023456789";

/// A new password, where QEMU reads it.
///
/// # Errors
/// If it cannot be written.
pub(super) fn password() -> io::Result<String> {
    let mut random = [0; PASSWORD_LEN];
    File::open("/dev/urandom")?.read_exact(&mut random)?;
    let password = spelled(random);
    keep(Path::new(PASSWORD_FILE), &password)?;
    Ok(password)
}

fn spelled(random: [u8; PASSWORD_LEN]) -> String {
    random.iter().map(|byte| char::from(LETTERS[usize::from(byte % 32)])).collect()
}

/// For the first process alone, and what it starts.
fn keep(path: &Path, password: &str) -> io::Result<()> {
    let mut file =
        File::options().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(password.as_bytes())
}

/// For the person at the node, whose own address stands for all of them.
pub(super) fn invitation(listen: SocketAddrV4, own: Option<&str>, password: &str) -> String {
    let own = own.filter(|_| listen.ip().is_unspecified());
    let ip = own.map_or_else(|| listen.ip().to_string(), str::to_owned);
    let port = listen.port();
    format!("The guest's screen is at {ip}:{port}, by VNC. The password of this run is {password}.")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_password_is_spelled_in_letters_that_nobody_confuses() {
        assert_eq!(spelled([0, 31, 32, 255, 1, 10, 19, 22]), "a9a9bmwz");
        let mut letters = LETTERS.to_vec();
        letters.sort_unstable();
        letters.dedup();
        assert_eq!(letters.len(), LETTERS.len());
    }

    #[test]
    fn nobody_else_reads_the_password() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vnc");
        for password in ["an older one", "abcdefgh"] {
            keep(&path, password).unwrap();
        }
        assert_eq!(std::fs::read(&path).unwrap(), b"abcdefgh");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o077, 0);
    }

    #[test]
    fn the_node_s_address_is_named_where_it_listens_at_all_of_them() {
        let check = |listen: &str, own, expect: &str| {
            let said = invitation(listen.parse().unwrap(), own, "abcdefgh");
            assert!(said.contains(expect), "{said}");
        };
        check("0.0.0.0:5901", Some("10.0.0.5"), "at 10.0.0.5:5901, by VNC");
        check("0.0.0.0:5900", None, "at 0.0.0.0:5900,");
        check("127.0.0.1:5900", Some("10.0.0.5"), "at 127.0.0.1:5900,");
        check("10.0.0.7:5900", Some("10.0.0.5"), "run is abcdefgh.");
    }
}
