//! Remote help: a node shows its log and its screen to who has the lab's key, and to nobody else.
//!
//! Over TCP at [`PORT`] of the node, in lines: the node sends a [`Challenge`], the asker a [`Request`]
//! signed over that, and the node what was asked for, up to the end of the connection. The challenge is
//! random and the node's own, so that nobody can send again what was signed once. What is shown is not
//! encrypted.

use std::fmt;
use std::str::FromStr;

use crate::hex;
use crate::signature::{Domain, LabKey, LabPublicKey, Signature};

/// Where nodes listen; registered with nobody, and in no range that Linux takes by itself.
pub const PORT: u16 = 10_077;

/// The most bytes of a line of either side, its end included.
pub const LINE_LEN_MAX: usize = 512;

/// The most bytes of an answer: a screen of 300 by 100 characters fits.
pub const ANSWER_LEN_MAX: usize = 128 << 10;

/// How the challenge's line begins.
const WORD: &str = "boottorrent-node";

/// What a node sends first: 32 random bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Challenge(pub [u8; 32]);

/// What can be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// The latest lines of the agent's log.
    Log,
    /// What stands on the node's screen.
    Screen,
}

impl What {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Screen => "screen",
        }
    }
}

/// A line that is not what it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HelpError {
    /// Who listens there is no agent of this version.
    #[error("what listens there is no agent of this version")]
    NoAgent,
    /// It is no request, or is not signed by the lab for this challenge.
    #[error("this is no request that the lab has signed for this connection")]
    Refused,
}

impl fmt::Display for Challenge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{WORD} 1 {}", hex::encode(&self.0))
    }
}

impl FromStr for Challenge {
    type Err = HelpError;

    fn from_str(line: &str) -> Result<Self, HelpError> {
        let rest = line.trim_end().strip_prefix(WORD).and_then(|rest| rest.strip_prefix(" 1 "));
        rest.and_then(hex::decode).map(Self).ok_or(HelpError::NoAgent)
    }
}

/// The line that asks for `what`, in answer to `challenge`.
pub fn request(what: What, challenge: &Challenge, key: &LabKey) -> String {
    format!("{} {}", what.name(), key.sign(Domain::Help, &signed(what, challenge)))
}

/// What a line asks for, if the lab has signed it for `challenge`.
///
/// # Errors
/// [`HelpError::Refused`].
pub fn open(line: &str, challenge: &Challenge, key: &LabPublicKey) -> Result<What, HelpError> {
    let (word, signature) = line.trim_end().split_once(' ').ok_or(HelpError::Refused)?;
    let what = [What::Log, What::Screen].into_iter().find(|what| what.name() == word);
    let what = what.ok_or(HelpError::Refused)?;
    let signature: Signature = signature.parse().map_err(|_| HelpError::Refused)?;
    key.verify(Domain::Help, &signed(what, challenge), &signature)
        .map_err(|_| HelpError::Refused)?;
    Ok(what)
}

/// The bytes that are signed.
fn signed(what: What, challenge: &Challenge) -> Vec<u8> {
    format!("{} {challenge}", what.name()).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_answers_who_has_the_labs_key_and_only_once() {
        let key = LabKey::from_seed([7; 32]);
        let challenge: Challenge = Challenge([1; 32]).to_string().parse().unwrap();
        let line = request(What::Log, &challenge, &key);
        assert!(line.len() < LINE_LEN_MAX, "{}", line.len());
        assert_eq!(open(&line, &challenge, &key.public()), Ok(What::Log));
        let refused = Err(HelpError::Refused);
        assert_eq!(open(&line, &Challenge([2; 32]), &key.public()), refused);
        assert_eq!(open(&line, &challenge, &LabKey::from_seed([8; 32]).public()), refused);
        let other = line.replacen("log", "screen", 1);
        assert_eq!(open(&other, &challenge, &key.public()), refused);
        for line in ["", "log", "log x", "shell x"] {
            assert_eq!(open(line, &challenge, &key.public()), refused, "{line}");
        }
    }

    #[test]
    fn what_does_not_begin_as_a_node_is_none() {
        for line in ["", "SSH-2.0-OpenSSH", "boottorrent-node 1 ab", "boottorrent-node 2 "] {
            assert_eq!(line.parse::<Challenge>(), Err(HelpError::NoAgent), "{line}");
        }
    }
}
