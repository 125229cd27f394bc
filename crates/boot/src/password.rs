//! The hash of a password that a person types at a node: Argon2id (RFC 9106) as a PHC string,
//! `$argon2id$v=19$m=19456,t=2,p=1$SALT$HASH`. The manifest carries hashes; what was typed never
//! leaves the node.
//!
//! Everybody on the network can read the manifest, so a hash can be guessed at by whoever has time.
//! Argon2id makes each guess cost memory; the rest is the password's length.

use std::fmt;
use std::str::FromStr;

use argon2::password_hash::phc;
use argon2::{Algorithm, Argon2, Params, PasswordHasher as _, PasswordVerifier as _, Version};
use serde::{Deserialize, Serialize};

/// The most KiB of memory that a hash may ask for: what the agent leaves free beside an image.
pub const MEMORY_KIB_MAX: u32 = 64 << 10;

/// The most passes: with all of the memory some seconds on an old node.
pub const PASSES_MAX: u32 = 10;

/// The most bytes of the text; usual ones have 97.
const LEN_MAX: usize = 256;

/// The hash of a password.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PasswordHash(String);

/// A text that is no such hash.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "this is not the Argon2id hash of a password (with {MEMORY_KIB_MAX} KiB and {PASSES_MAX} passes \
     at most): `boottorrent password` makes one"
)]
pub struct PasswordHashError;

impl PasswordHash {
    /// The hash of `password`, with what OWASP recommends as the least: 19 MiB, two passes, one lane.
    /// A node of 2010 takes a quarter of a second for it. `salt` is random.
    ///
    /// # Errors
    /// If the password is too long for the algorithm: 4 GiB.
    pub fn of(password: &str, salt: [u8; 16]) -> Result<Self, PasswordHashError> {
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::DEFAULT);
        let hash = argon2.hash_password_with_salt(password.as_bytes(), &salt);
        hash.map(|hash: phc::PasswordHash| Self(hash.to_string())).map_err(|_| PasswordHashError)
    }

    /// Whether this is the hash of `password`. Takes as long as the hash was made to take.
    pub fn is_of(&self, password: &str) -> bool {
        phc::PasswordHash::new(&self.0)
            .is_ok_and(|hash| Argon2::default().verify_password(password.as_bytes(), &hash).is_ok())
    }
}

impl FromStr for PasswordHash {
    type Err = PasswordHashError;

    fn from_str(text: &str) -> Result<Self, PasswordHashError> {
        if text.len() > LEN_MAX {
            return Err(PasswordHashError);
        }
        let hash = phc::PasswordHash::new(text).map_err(|_| PasswordHashError)?;
        let params = Params::try_from(&hash).map_err(|_| PasswordHashError)?;
        let is_good = hash.algorithm.as_str() == "argon2id"
            && hash.salt.is_some()
            && hash.hash.is_some()
            && params.m_cost() <= MEMORY_KIB_MAX
            && params.t_cost() <= PASSES_MAX;
        if is_good { Ok(Self(text.to_owned())) } else { Err(PasswordHashError) }
    }
}

impl TryFrom<String> for PasswordHash {
    type Error = PasswordHashError;

    fn try_from(text: String) -> Result<Self, PasswordHashError> {
        text.parse()
    }
}

impl From<PasswordHash> for String {
    fn from(hash: PasswordHash) -> Self {
        hash.0
    }
}

impl fmt::Display for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From the tests of the reference implementation (P-H-C/phc-winner-argon2, src/test.c).
    const REFERENCE: &str =
        "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4";

    #[test]
    fn a_password_is_known_by_its_hash_alone() {
        let hash = PasswordHash::of("open sesame", [7; 16]).unwrap();
        assert!(hash.to_string().starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert!(hash.is_of("open sesame"));
        assert!(REFERENCE.parse::<PasswordHash>().unwrap().is_of("password"));
        for other in ["", "open sesam", "open sesame ", "Open sesame"] {
            assert!(!hash.is_of(other), "{other:?}");
        }
        assert_eq!(hash.to_string().parse(), Ok(hash.clone()));
        assert_ne!(PasswordHash::of("open sesame", [8; 16]).unwrap(), hash);
    }

    #[test]
    fn what_is_no_hash_or_would_take_a_node_down_is_refused() {
        let good = PasswordHash::of("x", [1; 16]).unwrap().to_string();
        for text in [
            "",
            "open sesame",
            "$6$salt$hash",
            "$argon2id$v=19$m=64,t=1,p=1$c29tZXNhbHQ",
            &good.replace("argon2id", "argon2i"),
            &good.replace("m=19456", "m=65537"),
            &good.replace("t=2", "t=11"),
            &format!("{good}{}", "A".repeat(256)),
        ] {
            assert_eq!(text.parse::<PasswordHash>(), Err(PasswordHashError), "{text}");
        }
    }
}
