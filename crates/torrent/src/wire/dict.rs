//! Bencoded dictionaries as peers really send them (BEP 10, 11): read without copying, with the
//! keys in any order.
//!
//! Not the strict bencode of the `bencode` module, which metainfo needs because a hash covers every
//! byte of it. Extension messages are not hashed, and some clients do not sort their keys;
//! dropping such a peer would help nobody. That tolerance is the only reason for a second reader.

/// The longest dictionary read: the messages read here are a few hundred bytes, and a peer exchange
/// of 3,000 IPv6 peers, far beyond BEP 11, still fits.
pub(super) const DICT_LEN_MAX: usize = 64 * 1024;

/// How deep lists and dictionaries may nest, the outer one included. BEP 10 needs 2; the rest is
/// room for keys that we do not know. Bounds the recursion of [`value_end`].
const DEPTH_MAX: u32 = 8;

/// The payload is no bencoded dictionary, or is larger or deeper than anything that peers send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DictError {
    /// Longer than 64 KiB.
    #[error("dictionary of {0} bytes is too long")]
    TooLong(usize),
    /// Nested more than 8 levels.
    #[error("dictionary is nested too deep")]
    TooDeep,
    /// Something else than a dictionary, a dictionary that ends early, or bytes after its end.
    #[error("not a bencoded dictionary")]
    Malformed,
}

/// A dictionary that is known to be well-formed: its entries, without the `d` and `e` around them.
#[derive(Clone, Copy)]
pub(super) struct Dict<'a>(&'a [u8]);

impl<'a> Dict<'a> {
    /// Checks the whole of `bytes`, so that lookups cannot fail later.
    pub(super) fn decode(bytes: &'a [u8]) -> Result<Self, DictError> {
        if bytes.len() > DICT_LEN_MAX {
            return Err(DictError::TooLong(bytes.len()));
        }
        if bytes.first() != Some(&b'd') || value_end(bytes, DEPTH_MAX)? != bytes.len() {
            return Err(DictError::Malformed);
        }
        Ok(Self(&bytes[1..bytes.len() - 1]))
    }

    /// The bencoded value of `key`; of its first entry, if there are several.
    fn get(&self, key: &[u8]) -> Option<&'a [u8]> {
        let mut rest = self.0;
        while !rest.is_empty() {
            let key_end = string_end(rest).ok()?;
            let value = &rest[key_end..];
            let end = value_end(value, DEPTH_MAX).ok()?;
            if content(&rest[..key_end]) == Some(key) {
                return Some(&value[..end]);
            }
            rest = &value[end..];
        }
        None
    }

    /// The string at `key`; `None` also if there is something else.
    pub(super) fn bytes(&self, key: &[u8]) -> Option<&'a [u8]> {
        content(self.get(key)?)
    }

    /// The integer at `key`; `None` also if there is something else.
    pub(super) fn int(&self, key: &[u8]) -> Option<i64> {
        int(self.get(key)?)
    }

    /// The dictionary at `key`; `None` also if there is something else.
    pub(super) fn dict(&self, key: &[u8]) -> Option<Self> {
        let value = self.get(key)?;
        (value[0] == b'd').then(|| Self(&value[1..value.len() - 1]))
    }
}

/// Where the value that `bytes` begins with ends.
fn value_end(bytes: &[u8], depth: u32) -> Result<usize, DictError> {
    let kind = *bytes.first().ok_or(DictError::Malformed)?;
    match kind {
        b'i' => {
            let end = bytes.iter().position(|&byte| byte == b'e');
            let end = end.ok_or(DictError::Malformed)? + 1;
            int(&bytes[..end]).ok_or(DictError::Malformed)?;
            Ok(end)
        }
        b'l' | b'd' => {
            let depth = depth.checked_sub(1).ok_or(DictError::TooDeep)?;
            let mut at = 1;
            while bytes.get(at) != Some(&b'e') {
                let rest = bytes.get(at..).ok_or(DictError::Malformed)?;
                let key_len = if kind == b'd' { string_end(rest)? } else { 0 };
                at += key_len + value_end(&rest[key_len..], depth)?;
            }
            Ok(at + 1)
        }
        _ => string_end(bytes),
    }
}

/// Where the string that `bytes` begins with ends.
fn string_end(bytes: &[u8]) -> Result<usize, DictError> {
    let digits = bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let len = std::str::from_utf8(&bytes[..digits]).ok();
    let len: usize = len.and_then(|len| len.parse().ok()).ok_or(DictError::Malformed)?;
    // Checked: the length is whatever a stranger wrote.
    let end = len.checked_add(digits + 1).ok_or(DictError::Malformed)?;
    (bytes.get(digits) == Some(&b':') && end <= bytes.len())
        .then_some(end)
        .ok_or(DictError::Malformed)
}

/// What a whole bencoded string holds.
fn content(value: &[u8]) -> Option<&[u8]> {
    let colon = value.iter().position(|&byte| byte == b':')?;
    value[0].is_ascii_digit().then(|| &value[colon + 1..])
}

/// What a whole bencoded integer holds, if that fits 64 bits.
fn int(value: &[u8]) -> Option<i64> {
    let digits = value.strip_prefix(b"i")?.strip_suffix(b"e")?;
    let first = *digits.first()?;
    // `parse` would take a plus sign.
    if first == b'+' {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Appends a string.
pub(super) fn push_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(bytes.len().to_string().as_bytes());
    out.push(b':');
    out.extend_from_slice(bytes);
}

/// Appends a key with an integer. Callers write keys in ascending order, as BEP 3 wants.
pub(super) fn push_int(out: &mut Vec<u8>, key: &[u8], value: u32) {
    push_bytes(out, key);
    out.extend_from_slice(format!("i{value}e").as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_may_be_in_any_order() {
        let dict = Dict::decode(b"d1:vi7e1:md1:bi2e1:ai1eee").ok().unwrap();
        assert_eq!(dict.int(b"v"), Some(7));
        let inner = dict.dict(b"m").unwrap();
        assert_eq!((inner.int(b"a"), inner.int(b"b")), (Some(1), Some(2)));
    }

    #[test]
    fn other_types_are_as_good_as_absent() {
        let dict = Dict::decode(b"d1:a3:b:c1:ii-5e1:ll1:xee").ok().unwrap();
        assert_eq!(dict.bytes(b"a"), Some(&b"b:c"[..]));
        assert_eq!(dict.bytes(b"i"), None);
        assert_eq!(dict.bytes(b"l"), None);
        assert_eq!(dict.int(b"a"), None);
        assert_eq!(dict.int(b"i"), Some(-5));
        assert!(dict.dict(b"l").is_none());
        assert!(dict.dict(b"none").is_none());
    }

    #[test]
    fn what_is_no_dictionary_is_refused() {
        for bytes in [
            &b""[..],
            b"d",
            b"i1e",
            b"de ",
            b"d1:a",
            b"d1:ae",
            b"d1:ai1e",
            b"di1ei1ee",
            b"d1:ai+1ee",
            b"d1:aiee",
            b"d1:ai--1ee",
            b"d1:ai99999999999999999999ee",
            b"d2:ae",
            b"d1:a18446744073709551615:e",
            b"d1:a99999999999999999999:e",
            b"d:i1ee",
            b"d1:al",
            b"d1:axe",
        ] {
            let shown = String::from_utf8_lossy(bytes);
            assert_eq!(Dict::decode(bytes).err(), Some(DictError::Malformed), "{shown}");
        }
    }

    #[test]
    fn size_and_depth_are_bounded() {
        let nested =
            |lists: usize| [&b"d1:a"[..], &b"l".repeat(lists), &b"e".repeat(lists + 1)].concat();
        assert!(Dict::decode(&nested(7)).is_ok());
        assert_eq!(Dict::decode(&nested(8)).err(), Some(DictError::TooDeep));
        assert_eq!(Dict::decode(&nested(30_000)).err(), Some(DictError::TooDeep));
        let long = vec![b'd'; DICT_LEN_MAX + 1];
        assert_eq!(Dict::decode(&long).err(), Some(DictError::TooLong(long.len())));
    }
}
