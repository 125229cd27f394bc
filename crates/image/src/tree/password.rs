//! Root's password: only its hash is ever kept.

use sha_crypt::{PasswordHasher as _, ShaCrypt};

/// The hash of a password: SHA-512 crypt, which every distribution's login reads.
///
/// # Errors
/// If the machine has no random numbers.
pub fn hash(password: &str) -> Result<String, String> {
    let hash = ShaCrypt::default().hash_password(password.as_bytes());
    hash.map(|hash| hash.as_str().to_owned()).map_err(|error| error.to_string())
}

/// Whether a text is the hash of a password: SHA-256 or SHA-512 crypt, or yescrypt. It becomes a field
/// of `/etc/shadow`.
pub fn is_hash(text: &str) -> bool {
    let known = ["$5$", "$6$", "$y$"].iter().any(|prefix| text.starts_with(prefix));
    let parts = text.split('$').count() >= 4;
    let good = |c: char| c.is_ascii_alphanumeric() || "$./=".contains(c);
    known && parts && text.len() < 256 && text.chars().all(good)
}

/// `/etc/shadow` with another hash for root.
pub fn in_shadow(shadow: &str, hash: &str) -> String {
    let mut lines: Vec<String> = vec![];
    let mut found = false;
    for line in shadow.lines() {
        match line.strip_prefix("root:").and_then(|rest| rest.split_once(':')) {
            Some((_, after)) => {
                found = true;
                lines.push(format!("root:{hash}:{after}"));
            }
            None => lines.push(line.to_owned()),
        }
    }
    if !found {
        lines.insert(0, format!("root:{hash}::0:99999:7:::"));
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_sha_512_crypt_and_never_the_same() {
        let (one, other) = (hash("secret").unwrap(), hash("secret").unwrap());
        assert!(one.starts_with("$6$") && is_hash(&one), "{one}");
        assert_ne!(one, other);
        assert!(!one.contains("secret"));
    }

    #[test]
    fn what_is_no_hash_is_refused() {
        for text in ["", "secret", "$6$", "$6$salt", "$1$a$b", "$6$a$b:0:0", "$6$a$b\nx::"] {
            assert!(!is_hash(text), "{text}");
        }
        assert!(is_hash("$y$j9T$salt$hash"));
    }

    #[test]
    fn only_root_s_line_of_shadow_is_changed() {
        let check = |before: &str, expect: &str| assert_eq!(in_shadow(before, "H"), expect);
        check("root:*:19000:0:::::\nroots:x:1\n", "root:H:19000:0:::::\nroots:x:1\n");
        check("daemon:*:1::::::\n", "root:H::0:99999:7:::\ndaemon:*:1::::::\n");
        check("", "root:H::0:99999:7:::\n");
    }
}
