//! The layout of a node's keyboard, as loadkeys(1) writes it with `--bkeymap` and busybox's `loadkmap`
//! reads it: a word, a flag for each of 256 tables, and for each table that is there 128 keys of two
//! bytes.

use std::fmt;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

/// How it begins.
const WORD: &[u8] = b"bkeymap";

/// `MAX_NR_KEYMAPS` of Linux, and `NR_KEYS` as all programs have it.
const TABLE_COUNT: usize = 256;
const KEY_COUNT: usize = 128;

/// The most tables that a layout can have here; usual ones have up to sixteen: all of Shift, AltGr,
/// Control and Alt.
const TABLES_MAX: usize = 32;

/// A layout.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Keymap(Vec<u8>);

/// Bytes that are none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is no binary keymap, as `loadkeys --bkeymap` writes it")]
pub struct KeymapError;

impl Keymap {
    /// The layout that these bytes are.
    ///
    /// # Errors
    /// If they are none.
    pub fn new(bytes: Vec<u8>) -> Result<Self, KeymapError> {
        let flags = bytes.strip_prefix(WORD).and_then(|rest| rest.get(..TABLE_COUNT));
        let flags = flags.ok_or(KeymapError)?;
        let table_count = flags.iter().filter(|flag| **flag == 1).count();
        let is_clean =
            flags.iter().all(|flag| *flag <= 1) && (1..=TABLES_MAX).contains(&table_count);
        let len = WORD.len() + TABLE_COUNT + table_count * KEY_COUNT * 2;
        if is_clean && bytes.len() == len { Ok(Self(bytes)) } else { Err(KeymapError) }
    }

    /// What `loadkmap` reads.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl TryFrom<String> for Keymap {
    type Error = KeymapError;

    fn try_from(text: String) -> Result<Self, KeymapError> {
        let digit =
            |at: usize| text.get(at..at + 2).and_then(|two| u8::from_str_radix(two, 16).ok());
        let bytes: Option<Vec<u8>> = (0..text.len()).step_by(2).map(digit).collect();
        Self::new(bytes.ok_or(KeymapError)?)
    }
}

impl From<Keymap> for String {
    fn from(keymap: Keymap) -> Self {
        let mut text = Self::with_capacity(keymap.0.len() * 2);
        for byte in keymap.0 {
            // Writing to a String does not fail.
            let _ = write!(text, "{byte:02x}");
        }
        text
    }
}

impl fmt::Debug for Keymap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keymap({} bytes)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(tables: &[usize]) -> Vec<u8> {
        let mut flags = [0; TABLE_COUNT];
        for table in tables {
            flags[*table] = 1;
        }
        [WORD, &flags, &vec![7; tables.len() * KEY_COUNT * 2]].concat()
    }

    #[test]
    fn a_layout_survives_as_text() {
        let keymap = Keymap::new(bytes(&[0, 1, 4])).unwrap();
        let text = serde_json::to_string(&keymap).unwrap();
        assert_eq!(serde_json::from_str::<Keymap>(&text).unwrap(), keymap);
    }

    #[test]
    fn what_is_no_layout_is_refused() {
        let good = bytes(&[0, 1]);
        for bad in [&good[1..], &good[..good.len() - 1], &good[..100], b"", &bytes(&[])] {
            assert_eq!(Keymap::new(bad.to_vec()), Err(KeymapError));
        }
        let many: Vec<usize> = (0..=TABLES_MAX).collect();
        assert_eq!(Keymap::new(bytes(&many)), Err(KeymapError));
        for text in ["xy", "626", "\u{e4}\u{e4}"] {
            assert_eq!(Keymap::try_from(text.to_owned()), Err(KeymapError), "{text}");
        }
    }
}
