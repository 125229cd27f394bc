//! The password for actions: only its Argon2id hash is ever kept (RFC 9106), in the text form of the
//! PHC, which has salt and costs in it.

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use argon2::{Argon2, Params};

/// The most KiB that checking one password may take: whatever a configuration says, a login must not
/// be able to take the server's memory.
const MEMORY_KIB_MAX: u32 = 256 << 10;

/// The most passes over it.
const PASSES_MAX: u32 = 16;

/// The most bytes of a password that are looked at.
pub(crate) const LEN_MAX: usize = 1_024;

/// The hash of a password, with 19 MiB and two passes: OWASP's first choice, some 30 ms.
///
/// # Errors
/// If the machine has no random numbers.
pub(crate) fn hash(password: &str) -> Result<String, argon2::password_hash::Error> {
    Argon2::default().hash_password(password.as_bytes()).map(|hash| hash.to_string())
}

/// Whether a text is such a hash, at a cost that a login can bear.
pub(crate) fn is_hash(text: &str) -> bool {
    parse(text).is_some()
}

/// Whether `password` has that hash. Takes processor and memory for as long as the hash says.
pub(crate) fn is_right(password: &str, hash: &str) -> bool {
    parse(hash)
        .is_some_and(|hash| Argon2::default().verify_password(password.as_bytes(), &hash).is_ok())
}

fn parse(text: &str) -> Option<PasswordHash> {
    let hash = PasswordHash::new(text).ok()?;
    let costs = Params::try_from(&hash).ok()?;
    let is_cheap = costs.m_cost() <= MEMORY_KIB_MAX && costs.t_cost() <= PASSES_MAX;
    (hash.algorithm.as_str() == "argon2id" && hash.hash.is_some() && is_cheap).then_some(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_known_by_its_hash() {
        let kept = hash("open sesame").unwrap();
        assert!(is_hash(&kept) && !kept.contains("sesame"), "{kept}");
        assert!(is_right("open sesame", &kept));
        assert!(!is_right("open", &kept) && !is_right("", &kept));
        assert_ne!(hash("open sesame").unwrap(), kept);
    }

    #[test]
    fn what_is_no_hash_or_too_dear_is_none() {
        let kept = hash("x").unwrap();
        let dear = kept.replace("m=19456", "m=4194304");
        for text in ["", "x", "$6$salt$hash", &kept[..40], &kept.replace("2id", "2d"), &dear] {
            assert!(!is_hash(text) && !is_right("x", text), "{text}");
        }
    }
}
