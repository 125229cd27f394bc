//! Signatures by which BootTorrent servers know one another.

use std::sync::Arc;

use anyhow::Context;
use boot::signature::Domain;
use boot::{LabKey, LabPublicKey, Signature};
use dhcp::{LabId, Proof, Prover};

/// Proves with a lab's key; without one it only looks at what others prove.
#[derive(Clone, Debug)]
pub(crate) struct LabProver(Option<Arc<LabKey>>);

impl LabProver {
    /// With the key of a lab.
    pub(crate) fn of(key: LabKey) -> Self {
        Self(Some(Arc::new(key)))
    }

    /// Without a key.
    pub(crate) const fn without_key() -> Self {
        Self(None)
    }

    /// With a key for this run alone, of a server without a lab.
    pub(crate) fn for_this_run() -> anyhow::Result<Self> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).context("no randomness from the system")?;
        Ok(Self::of(LabKey::from_seed(seed)))
    }

    /// The lab that it proves to be.
    pub(crate) fn lab(&self) -> LabId {
        self.0.as_ref().map_or(LabId::NONE, |key| LabId(key.public().id().to_bytes()))
    }
}

impl Prover for LabProver {
    fn sign(&self, bytes: &[u8]) -> Option<Proof> {
        let key = self.0.as_ref()?;
        let signature = key.sign(Domain::Server, bytes).to_bytes();
        Some(Proof { key: key.public().to_bytes(), signature })
    }

    fn holds(&self, lab: LabId, bytes: &[u8], proof: &Proof) -> bool {
        LabPublicKey::from_bytes(&proof.key).is_some_and(|key| {
            let signature = Signature::from_bytes(key.id(), proof.signature);
            LabId(key.id().to_bytes()) == lab
                && key.verify(Domain::Server, bytes, &signature).is_ok()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_holds_for_its_lab_and_its_bytes_alone() {
        let prover = LabProver::of(LabKey::from_seed([1; 32]));
        let other = LabProver::of(LabKey::from_seed([2; 32]));
        let proof = prover.sign(b"question").unwrap();
        let looks = LabProver::without_key();
        assert!(looks.sign(b"question").is_none());
        assert!(looks.holds(prover.lab(), b"question", &proof));
        assert!(!looks.holds(prover.lab(), b"another", &proof));
        assert!(!looks.holds(other.lab(), b"question", &proof));
        // The key of one and the signature of the other.
        let mixed = Proof { key: other.sign(b"").unwrap().key, ..proof };
        assert!(!looks.holds(other.lab(), b"question", &mixed));
    }
}
