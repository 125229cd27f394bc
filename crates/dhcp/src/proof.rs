//! How a BootTorrent server proves to another one that it is of the lab that it names: by a signature
//! with the lab's key over the other's question. This crate has no cryptography; the driver has.

use std::fmt;

use crate::config::LabId;

/// The name of what is signed, before the rest.
const WORD: &[u8] = b"marker\0";

/// A signature, and the key that made it. Both fit in one option: 96 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proof {
    /// The public key, ed25519.
    pub key: [u8; 32],
    /// The signature.
    pub signature: [u8; 64],
}

impl Proof {
    pub(crate) const LEN: usize = 32 + 64;

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (key, signature) = bytes.split_first_chunk::<32>()?;
        Some(Self { key: *key, signature: signature.try_into().ok()? })
    }

    pub(crate) fn encode(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..32].copy_from_slice(&self.key);
        bytes[32..].copy_from_slice(&self.signature);
        bytes
    }
}

/// Signs for this server's lab, and looks at what others signed.
pub trait Prover: fmt::Debug + Send + Sync {
    /// Signs; none without a key.
    fn sign(&self, bytes: &[u8]) -> Option<Proof>;

    /// Whether the proof's key is that of `lab`, and its signature over `bytes`.
    fn holds(&self, lab: LabId, bytes: &[u8], proof: &Proof) -> bool;
}

/// Has no key, and believes nobody.
#[derive(Clone, Copy, Debug)]
pub struct Unproved;

impl Prover for Unproved {
    fn sign(&self, _: &[u8]) -> Option<Proof> {
        None
    }

    fn holds(&self, _: LabId, _: &[u8], _: &Proof) -> bool {
        false
    }
}

/// What is signed: who answers, and which question. The question's number is drawn anew for each
/// look and its sender's for each run, so that an answer that was recorded proves nothing later.
pub(crate) fn signed(marker: &[u8], address: [u8; 4], xid: u32, asker: [u8; 8]) -> Vec<u8> {
    [WORD, marker, &address, &xid.to_be_bytes(), &asker].concat()
}
