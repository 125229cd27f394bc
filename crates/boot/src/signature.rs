//! The lab's key: ed25519 (RFC 8032). The server signs the manifest with it; nodes carry the public
//! half in their initramfs.
//!
//! Keys and signatures are one line of text each, so that they can be kept in git, read aloud and
//! told apart:
//!
//! ```text
//! boottorrent-secret-key 1f2e…                      64 digits, the seed
//! boottorrent-public-key 9a0c…                      64 digits
//! boottorrent-signature 4b1d5c0e9f3a7726 77ab…      key id, 128 digits
//! ```

use std::fmt;
use std::str::FromStr;

use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};
use sha2::{Digest as _, Sha256};

use crate::hex;

/// What is signed. Its word is signed before the bytes themselves, so that a signature over a manifest
/// can never be passed off as one over an order, nor the other way round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Domain {
    /// A manifest.
    Manifest,
    /// An order to one node.
    Order,
    /// A request for help to one node.
    Help,
    /// What a server says of itself to another one, see `dhcp::proof`.
    Server,
}

impl Domain {
    const fn word(self) -> &'static [u8] {
        match self {
            Self::Manifest => b"boottorrent manifest\0",
            Self::Order => b"boottorrent order\0",
            Self::Help => b"boottorrent help\0",
            Self::Server => b"boottorrent server\0",
        }
    }
}

const SECRET: &str = "boottorrent-secret-key";
const PUBLIC: &str = "boottorrent-public-key";
const SIGNATURE: &str = "boottorrent-signature";

/// The first 8 bytes of SHA-256 of a public key: enough to tell labs apart, on a screen too.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyId([u8; 8]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The secret half. Its `Debug` shows only the id.
pub struct LabKey(SigningKey);

/// The public half.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct LabPublicKey(VerifyingKey);

/// A signature, and whose.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Signature {
    key: KeyId,
    bytes: [u8; 64],
}

/// Why a signature does not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// It is by another lab's key: two labs on one network, or the lab's key was replaced.
    #[error("signed by another lab: its key is {signed_by}, this node trusts {trusted}")]
    OtherKey {
        /// Whose signature it says to be.
        signed_by: KeyId,
        /// The key that was asked.
        trusted: KeyId,
    },
    /// It says to be by this lab's key and is not over these bytes.
    #[error("altered: the signature of {0} does not hold")]
    Altered(KeyId),
}

/// A text that is not what it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a line that begins with `{0}`")]
pub struct FormatError(&'static str);

impl LabKey {
    /// The key that 32 random bytes make.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(SigningKey::from_bytes(&seed))
    }

    /// The line to be kept secret.
    pub fn to_secret_text(&self) -> String {
        format!("{SECRET} {}\n", hex::encode(&self.0.to_bytes()))
    }

    /// The half for nodes.
    pub fn public(&self) -> LabPublicKey {
        LabPublicKey(self.0.verifying_key())
    }

    /// A secret of its own for a `purpose`, which says nothing of this key: SHA-256 over both.
    pub fn derive(&self, purpose: &str) -> [u8; 32] {
        let mut hash = Sha256::new();
        // Parted by a zero, so that no two purposes have the same bytes.
        hash.update(purpose.as_bytes());
        hash.update([0]);
        hash.update(self.0.to_bytes());
        hash.finalize().into()
    }

    /// The signature over `bytes`, which are what `domain` says.
    pub fn sign(&self, domain: Domain, bytes: &[u8]) -> Signature {
        let signature = self.0.sign(&[domain.word(), bytes].concat());
        Signature { key: self.public().id(), bytes: signature.to_bytes() }
    }
}

impl fmt::Debug for LabKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LabKey({})", self.public().id())
    }
}

impl FromStr for LabKey {
    type Err = FormatError;

    fn from_str(text: &str) -> Result<Self, FormatError> {
        let [digits] = fields(text, SECRET)?;
        hex::decode(digits).map(Self::from_seed).ok_or(FormatError(SECRET))
    }
}

impl KeyId {
    /// Its bytes.
    pub const fn to_bytes(self) -> [u8; 8] {
        self.0
    }
}

impl Signature {
    /// The signature with these bytes (RFC 8032 section 5.1.6), of this key.
    pub const fn from_bytes(key: KeyId, bytes: [u8; 64]) -> Self {
        Self { key, bytes }
    }

    /// Its bytes.
    pub const fn to_bytes(self) -> [u8; 64] {
        self.bytes
    }
}

impl LabPublicKey {
    /// The key with these bytes (RFC 8032 section 5.1.5); none if they are no point.
    pub fn from_bytes(bytes: &[u8; 32]) -> Option<Self> {
        VerifyingKey::from_bytes(bytes).ok().map(Self)
    }

    /// Its bytes.
    pub fn to_bytes(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// Its short name.
    pub fn id(&self) -> KeyId {
        let digest: [u8; 32] = Sha256::digest(self.0.as_bytes()).into();
        let mut id = [0; 8];
        id.copy_from_slice(&digest[..8]);
        KeyId(id)
    }

    /// Whether `signature` is this key's over `bytes` of `domain` (the strict rule, which admits exactly one
    /// signature of each kind: RFC 8032 section 5.1.7 with small-order points refused).
    ///
    /// # Errors
    ///
    /// [`SignatureError`].
    pub fn verify(
        &self,
        domain: Domain,
        bytes: &[u8],
        signature: &Signature,
    ) -> Result<(), SignatureError> {
        if signature.key != self.id() {
            return Err(SignatureError::OtherKey { signed_by: signature.key, trusted: self.id() });
        }
        let message = [domain.word(), bytes].concat();
        self.0
            .verify_strict(&message, &ed25519_dalek::Signature::from_bytes(&signature.bytes))
            .map_err(|_| SignatureError::Altered(self.id()))
    }
}

impl fmt::Display for LabPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{PUBLIC} {}", hex::encode(self.0.as_bytes()))
    }
}

impl fmt::Debug for LabPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LabPublicKey({})", self.id())
    }
}

impl FromStr for LabPublicKey {
    type Err = FormatError;

    fn from_str(text: &str) -> Result<Self, FormatError> {
        let [digits] = fields(text, PUBLIC)?;
        let bytes = hex::decode(digits).ok_or(FormatError(PUBLIC))?;
        VerifyingKey::from_bytes(&bytes).map(Self).map_err(|_| FormatError(PUBLIC))
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{SIGNATURE} {} {}", self.key, hex::encode(&self.bytes))
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signature({})", self.key)
    }
}

impl FromStr for Signature {
    type Err = FormatError;

    fn from_str(text: &str) -> Result<Self, FormatError> {
        let [key, digits] = fields(text, SIGNATURE)?;
        let error = FormatError(SIGNATURE);
        let key = KeyId(hex::decode(key).ok_or(error)?);
        Ok(Self { key, bytes: hex::decode(digits).ok_or(error)? })
    }
}

/// The `N` words after `label`, and nothing besides.
fn fields<'a, const N: usize>(
    text: &'a str,
    label: &'static str,
) -> Result<[&'a str; N], FormatError> {
    let error = FormatError(label);
    let words: Vec<&str> = text.split_ascii_whitespace().take(N + 2).collect();
    let (first, rest) = words.split_first().ok_or(error)?;
    if *first != label {
        return Err(error);
    }
    rest.try_into().map_err(|_| error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> LabKey {
        LabKey::from_seed([1; 32])
    }

    #[test]
    fn keys_and_signatures_survive_as_text() {
        let signature = key().sign(Domain::Manifest, b"bytes");
        assert_eq!(signature.to_string().parse(), Ok(signature));
        assert_eq!(key().public().to_string().parse(), Ok(key().public()));
        let read: LabKey = key().to_secret_text().parse().unwrap();
        assert_eq!(read.public(), key().public());
    }

    #[test]
    fn a_secret_is_not_taken_for_a_public_key() {
        let secret = key().to_secret_text();
        assert_eq!(secret.parse::<LabPublicKey>(), Err(FormatError(PUBLIC)));
        assert!(!format!("{:?}", key()).contains(secret.split(' ').nth(1).unwrap().trim()));
    }

    #[test]
    fn altered_bytes_and_other_keys_are_told_apart() {
        let other = LabKey::from_seed([2; 32]);
        let signature = key().sign(Domain::Manifest, b"bytes");
        let verify = |key: &LabKey, domain, bytes| key.public().verify(domain, bytes, &signature);
        assert_eq!(verify(&key(), Domain::Manifest, b"bytes"), Ok(()));
        let altered = Err(SignatureError::Altered(key().public().id()));
        assert_eq!(verify(&key(), Domain::Manifest, b"bites"), altered);
        assert_eq!(verify(&key(), Domain::Order, b"bytes"), altered);
        let by_other = verify(&other, Domain::Manifest, b"bytes");
        assert!(matches!(by_other, Err(SignatureError::OtherKey { .. })));
    }

    #[test]
    fn a_signature_without_the_domain_does_not_hold() {
        let bare = SigningKey::from_bytes(&[1; 32]).sign(b"bytes").to_bytes();
        let signature = Signature { key: key().public().id(), bytes: bare };
        assert!(key().public().verify(Domain::Manifest, b"bytes", &signature).is_err());
    }
}
