//! A node's secret for one boot: who gives it back is the node that it was given to.
//!
//! It is the time at which it was issued and a keyed hash over that and the node's Ethernet address
//! (HMAC-SHA256, RFC 2104), so this server keeps no table of them, knows them again after a restart, and
//! believes those of other servers of the same lab. A later one supersedes those before it once it was used.

use std::fmt;

use boot::report::PROOF_LEN_MAX;
use boot::{LabKey, Mac};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use super::node::UnixMs;

/// Bytes of the hash that are kept: 128 bits cannot be guessed, and a kernel's command line is short.
const TAG_LEN: usize = 16;

/// 16 digits, a hyphen and the hash.
const _: () = assert!(16 + 1 + 2 * TAG_LEN <= PROOF_LEN_MAX);

/// What proofs of one lab are made with.
#[derive(Clone)]
pub(crate) struct ProofKey([u8; 32]);

/// A proof that holds. Nothing but [`ProofKey::check`] makes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Proof {
    node: Mac,
    issued: UnixMs,
}

impl Proof {
    pub(super) fn is_for(self, node: Mac) -> bool {
        self.node == node
    }

    pub(super) const fn issued(self) -> UnixMs {
        self.issued
    }

    #[cfg(test)]
    pub(super) const fn for_tests(node: Mac, issued: UnixMs) -> Self {
        Self { node, issued }
    }
}

impl fmt::Debug for ProofKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProofKey")
    }
}

impl ProofKey {
    pub(crate) fn of(key: &LabKey) -> Self {
        Self(key.derive("boottorrent proof of a boot"))
    }

    /// The proof for `node`, which tells who has it apart from who has one of before.
    pub(crate) fn issue(&self, node: Mac, issued: UnixMs) -> String {
        let tag = self.hash(node, issued).finalize().into_bytes();
        format!("{:x}-{}", issued.0, boot::hex::encode(&tag[..TAG_LEN]))
    }

    /// What `text` proves of `node`, if anything.
    pub(crate) fn check(&self, node: Mac, text: &str) -> Option<Proof> {
        if text.len() > PROOF_LEN_MAX {
            return None;
        }
        let (issued, tag) = text.split_once('-')?;
        let issued = UnixMs(u64::from_str_radix(issued, 16).ok()?);
        let tag: [u8; TAG_LEN] = boot::hex::decode(tag)?;
        self.hash(node, issued).verify_truncated_left(&tag).ok()?;
        Some(Proof { node, issued })
    }

    fn hash(&self, node: Mac, issued: UnixMs) -> Hmac<Sha256> {
        // Filled up to a block of SHA-256, as RFC 2104 has it.
        let mut block = [0; 64];
        block[..self.0.len()].copy_from_slice(&self.0);
        let mut hash = Hmac::<Sha256>::new(&block.into());
        hash.update(&node.0);
        hash.update(&issued.0.to_be_bytes());
        hash
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: Mac = Mac([2, 0, 0, 0, 0, 1]);

    #[test]
    fn a_proof_holds_for_one_node_and_one_lab() {
        let key = ProofKey::of(&LabKey::from_seed([1; 32]));
        let text = key.issue(NODE, UnixMs(1_700_000_000_000));
        assert!(text.len() <= PROOF_LEN_MAX, "{text}");
        let issued = |key: &ProofKey, node, text: &str| key.check(node, text).map(Proof::issued);
        assert_eq!(issued(&key, NODE, &text), Some(UnixMs(1_700_000_000_000)));
        assert_eq!(issued(&key, Mac([2, 0, 0, 0, 0, 2]), &text), None);
        let other = ProofKey::of(&LabKey::from_seed([2; 32]));
        assert_eq!(issued(&other, NODE, &text), None);
        let later = text.replacen("18b", "18c", 1);
        for wrong in
            ["", "-", "0-", "18bcfe56800", "+1-00", later.as_str(), &text[..text.len() - 2]]
        {
            assert_eq!(issued(&key, NODE, wrong), None, "{wrong}");
        }
    }
}
