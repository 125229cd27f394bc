//! Who knows the password: signatures of headers and, between our own, of footers.
//!
//! The original signs the header with HMAC-SHA-1 (2.6 to 2.8) or HMAC-MD5 (from 2.9 on), over its
//! text without any line ends. Ours is HMAC-SHA-256 over the same. The old two are accepted only
//! where an operator says that old peers are to be served.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::Hmac;
use md5::Md5;
use sha1::Sha1;
use sha2::Sha256;

use crate::report::Footer;

/// A shared password. It is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(Vec<u8>);

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Password(…)")
    }
}

/// How a header is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Between our own.
    Sha256,
    /// Releases 2.6 to 2.8 of the original.
    Sha1,
    /// Releases from 2.9 on.
    Md5,
}

/// Which schemes an endpoint accepts, and which a sender uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compat {
    /// None but our own.
    #[default]
    Off,
    /// Old peers too; those sent to are of 2.6 to 2.8.
    Sha1,
    /// Old peers too; those sent to are of 2.9 or later.
    Md5,
}

impl Compat {
    /// What a sender signs with.
    pub const fn scheme(self) -> Scheme {
        match self {
            Self::Off => Scheme::Sha256,
            Self::Sha1 => Scheme::Sha1,
            Self::Md5 => Scheme::Md5,
        }
    }

    /// Whether old peers are served.
    pub const fn is_on(self) -> bool {
        !matches!(self, Self::Off)
    }
}

impl Password {
    /// Line ends and spaces around it are an editor's, not the password's.
    pub fn new(text: &str) -> Self {
        Self(text.trim().as_bytes().to_vec())
    }

    /// Nothing is no password.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The signature of a header's text, in base64.
    pub fn sign(&self, scheme: Scheme, text: &str) -> String {
        let text = without_line_ends(text);
        match scheme {
            Scheme::Sha256 => STANDARD.encode(tag::<Hmac<Sha256>>(&self.0, &text)),
            Scheme::Sha1 => STANDARD.encode(tag::<Hmac<Sha1>>(&self.0, &text)),
            Scheme::Md5 => STANDARD.encode(tag::<Hmac<Md5>>(&self.0, &text)),
        }
    }

    /// The scheme under which `signature` is right, if one of those accepted. Every comparison takes
    /// the same time whatever is wrong.
    pub fn verify(&self, compat: Compat, text: &str, signature: &str) -> Option<Scheme> {
        let text = without_line_ends(text);
        let given = STANDARD.decode(signature).unwrap_or_default();
        let mut found = None;
        if is_right::<Hmac<Sha256>>(&self.0, &text, &given) {
            found = Some(Scheme::Sha256);
        }
        if compat.is_on() {
            if is_right::<Hmac<Sha1>>(&self.0, &text, &given) {
                found = Some(Scheme::Sha1);
            }
            if is_right::<Hmac<Md5>>(&self.0, &text, &given) {
                found = Some(Scheme::Md5);
            }
        }
        found
    }

    /// Signs what a footer says for the header with `nonce`, so that the payload is the sender's too.
    pub fn sign_footer(&self, footer: &Footer, nonce: &str) -> String {
        STANDARD.encode(tag::<Hmac<Sha256>>(&self.0, &footer_bytes(footer, nonce)))
    }

    /// Whether it is the footer of the one who signed the header.
    pub fn verify_footer(&self, footer: &Footer, nonce: &str) -> bool {
        let given = footer.signature.as_deref().unwrap_or_default();
        let given = STANDARD.decode(given).unwrap_or_default();
        is_right::<Hmac<Sha256>>(&self.0, &footer_bytes(footer, nonce), &given)
    }
}

fn tag<M: hmac::Mac + hmac::KeyInit>(key: &[u8], bytes: &[u8]) -> Vec<u8> {
    let mut mac = <M as hmac::KeyInit>::new_from_slice(key).expect("a key may have any length");
    mac.update(bytes);
    mac.finalize().into_bytes().to_vec()
}

fn is_right<M: hmac::Mac + hmac::KeyInit>(key: &[u8], bytes: &[u8], given: &[u8]) -> bool {
    let mut mac = <M as hmac::KeyInit>::new_from_slice(key).expect("a key may have any length");
    mac.update(bytes);
    // In constant time; another length is another scheme.
    mac.verify_slice(given).is_ok()
}

fn without_line_ends(text: &str) -> Vec<u8> {
    text.bytes().filter(|byte| !matches!(byte, b'\r' | b'\n')).collect()
}

fn footer_bytes(footer: &Footer, nonce: &str) -> Vec<u8> {
    let sha256 = footer.sha256.as_deref().unwrap_or_default();
    let md5sum = footer.md5sum.as_deref().unwrap_or_default();
    format!("footer {nonce} {sha256} {md5sum}").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the original's code gives for this header and its shipped password.
    const HEADER: &str = r#"{"requests": [{"filename": "/dev/null", "id": "x", "rename": false}], "host": "localhost", "port": 2893, "block_size": 131072, "degree": 1, "length": 0, "destinations": []}"#;

    #[test]
    fn signatures_are_those_of_the_golden_file() {
        let golden = include_str!("../tests/fixtures/signatures.txt");
        let password = Password::new("nimbus\n");
        let found = [Scheme::Md5, Scheme::Sha1, Scheme::Sha256]
            .map(|scheme| format!("{scheme:?} {}\n", password.sign(scheme, HEADER)))
            .concat();
        assert_eq!(found, golden);
        assert!(golden.contains("60Y4BXIIxeXcMRn3hl1hqA=="), "the original's own");
    }

    #[test]
    fn old_signatures_are_right_only_where_old_peers_are_served() {
        let password = Password::new("nimbus");
        for (scheme, off, on) in
            [(Scheme::Sha256, true, true), (Scheme::Sha1, false, true), (Scheme::Md5, false, true)]
        {
            let signature = password.sign(scheme, HEADER);
            assert_eq!(password.verify(Compat::Off, HEADER, &signature).is_some(), off);
            let found = password.verify(Compat::Md5, HEADER, &signature);
            assert_eq!(found, on.then_some(scheme));
        }
    }

    #[test]
    fn anything_changed_makes_a_signature_wrong() {
        let password = Password::new("nimbus");
        let signature = password.sign(Scheme::Sha256, HEADER);
        let changed = HEADER.replace("/dev/null", "/dev/nul1");
        assert_eq!(password.verify(Compat::Md5, &changed, &signature), None);
        assert_eq!(Password::new("other").verify(Compat::Md5, HEADER, &signature), None);
        for signature in ["", "x", "AAAA", &signature[..8]] {
            assert_eq!(password.verify(Compat::Md5, HEADER, signature), None, "{signature}");
        }
        // Line ends are nobody's.
        let broken = HEADER.replace("], ", "], \r\n");
        assert_eq!(password.verify(Compat::Off, &broken, &signature), Some(Scheme::Sha256));
    }

    #[test]
    fn a_footer_belongs_to_its_header() {
        let password = Password::new("p");
        let mut footer = Footer { sha256: Some("ab".to_owned()), ..Footer::default() };
        footer.signature = Some(password.sign_footer(&footer, "n1"));
        assert!(password.verify_footer(&footer, "n1"));
        assert!(!password.verify_footer(&footer, "n2"));
        footer.sha256 = Some("ac".to_owned());
        assert!(!password.verify_footer(&footer, "n1"));
    }
}
