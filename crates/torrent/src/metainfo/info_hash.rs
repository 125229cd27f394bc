//! Infohashes, the names of torrents (BEP 3, 52).

use std::fmt;

/// The hash of an info dictionary. Shown in hexadecimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum InfoHash {
    /// SHA-1 (BEP 3).
    V1([u8; 20]),
    /// SHA-256 (BEP 52).
    V2([u8; 32]),
}

impl InfoHash {
    /// The 20 bytes that handshakes and trackers use: a v2 hash is truncated (BEP 52).
    #[must_use]
    pub fn truncated(&self) -> [u8; 20] {
        match self {
            Self::V1(hash) => *hash,
            Self::V2(hash) => {
                let mut short = [0; 20];
                short.copy_from_slice(&hash[..20]);
                short
            }
        }
    }

    /// All bytes of it, 20 or 32.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8] {
        match self {
            Self::V1(hash) => hash,
            Self::V2(hash) => hash,
        }
    }
}

impl fmt::Display for InfoHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_bytes().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn v2_is_truncated_for_the_wire() {
        let mut hash = [0xab; 32];
        hash[19] = 0x01;
        let hash = InfoHash::V2(hash);
        assert_eq!(hash.truncated()[18..], [0xab, 0x01]);
        assert_eq!(hash.to_string().len(), 64);
        assert_eq!(hash.to_string()[36..40], *"ab01");
    }
}
