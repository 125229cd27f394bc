//! Kernels by their versions, and the phase 1 that a lab offers of each.

use std::cmp::{Ordering, Reverse};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// The most bytes of a kernel's version: `struct utsname` has 64 with the NUL.
pub const VERSION_LEN_MAX: usize = 64;

/// The version of a kernel, as `uname -r` prints it: `6.1.0-40-amd64`. Ordered by age, the newest
/// last; of one age, a kernel for particular machines (`-cloud-`, `-rt-`) comes before the one for
/// all, whose name is shorter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KernelVersion(String);

/// A text that cannot be a kernel's version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no kernel's version: write it as `uname -r` does, such as 6.1.0-40-amd64")]
pub struct KernelVersionError(String);

impl KernelVersion {
    /// The version as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The numbers before the first letter.
    fn numbers(&self) -> Vec<u64> {
        let end = self.0.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(self.0.len());
        self.0[..end].split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok()).collect()
    }
}

impl Ord for KernelVersion {
    fn cmp(&self, other: &Self) -> Ordering {
        let key = |version: &Self| (version.numbers(), Reverse(version.0.len()));
        key(self).cmp(&key(other)).then_with(|| self.0.cmp(&other.0))
    }
}

impl PartialOrd for KernelVersion {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl FromStr for KernelVersion {
    type Err = KernelVersionError;

    fn from_str(text: &str) -> Result<Self, KernelVersionError> {
        let good = |c: char| c.is_ascii_alphanumeric() || "-_.+~".contains(c);
        // It becomes the name of a folder.
        if text.starts_with(|c: char| c.is_ascii_digit())
            && text.len() < VERSION_LEN_MAX
            && text.chars().all(good)
        {
            Ok(Self(text.to_owned()))
        } else {
            Err(KernelVersionError(text.chars().take(VERSION_LEN_MAX).collect()))
        }
    }
}

impl TryFrom<String> for KernelVersion {
    type Error = KernelVersionError;

    fn try_from(text: String) -> Result<Self, KernelVersionError> {
        text.parse()
    }
}

impl From<KernelVersion> for String {
    fn from(version: KernelVersion) -> Self {
        version.0
    }
}

impl fmt::Display for KernelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A phase 1 that the server has over HTTP: what a node that runs another kernel than its image needs
/// goes on with, through kexec.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Phase1 {
    /// Its kernel.
    pub version: KernelVersion,
    /// `/phase1/VERSION/vmlinuz`.
    pub vmlinuz: Content,
    /// `/phase1/VERSION/initramfs.img`.
    pub initramfs: Content,
}

/// A file by what is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// Its bytes.
    pub len: u64,
    /// SHA-256 of them.
    #[serde(with = "crate::hex::serde")]
    pub sha256: [u8; 32],
}

impl Content {
    /// That of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self { len: bytes.len() as u64, sha256: Sha256::digest(bytes).into() }
    }

    /// Whether it is that of `bytes`.
    pub fn is(&self, bytes: &[u8]) -> bool {
        *self == Self::of(bytes)
    }
}

impl Phase1 {
    /// Where the server has its kernel, from the root of its web server.
    pub fn vmlinuz_path(&self) -> String {
        format!("/phase1/{}/vmlinuz", self.version)
    }

    /// Where the server has its initramfs.
    pub fn initramfs_path(&self) -> String {
        format!("/phase1/{}/initramfs.img", self.version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_known_by_what_is_in_it() {
        let content = Content::of(b"abc");
        assert!(content.is(b"abc"));
        assert!(!content.is(b"abd") && !content.is(b"abcd"));
        let text = serde_json::to_string(&content).unwrap();
        assert!(text.starts_with(r#"{"len":3,"sha256":"ba7816bf"#), "{text}");
    }

    #[test]
    fn versions_are_ordered_by_age() {
        let order = [
            "5.10.0-33-amd64",
            "6.1.0-9-amd64",
            "6.1.0-10-cloud-amd64",
            "6.1.0-10-amd64",
            "6.12.9+bpo-amd64",
        ];
        let versions: Vec<KernelVersion> = order.iter().map(|text| text.parse().unwrap()).collect();
        assert!(versions.is_sorted(), "{versions:?}");
    }

    #[test]
    fn versions_that_lead_elsewhere_are_refused() {
        for text in ["", "../x", "6.1/x", "amd64", &"6".repeat(VERSION_LEN_MAX)] {
            assert!(text.parse::<KernelVersion>().is_err(), "{text}");
        }
    }
}
