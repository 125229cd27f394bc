//! The little bencode that tracker responses need (BEP 3), apart from `crate::bencode` because it
//! must forgive: trackers in the field send keys unsorted, and a response is not hashed.
//!
//! All use of it is in `http.rs`.

/// Nothing in a response nests deeper than dictionary, list, dictionary, value.
const DEPTH_MAX: usize = 8;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Int(i64),
    Bytes(&'a [u8]),
    List(Vec<Self>),
    Dict(Vec<(&'a [u8], Self)>),
}

impl<'a> Value<'a> {
    /// Reads one value that fills `bytes`. Memory is at most a fixed multiple of the input.
    pub(super) fn decode(bytes: &'a [u8]) -> Option<Self> {
        let mut rest = bytes;
        let value = read(&mut rest, 0)?;
        // Some trackers end with a newline.
        rest.iter().all(u8::is_ascii_whitespace).then_some(value)
    }

    /// The value of `key`, if this is a dictionary that has it.
    pub(super) fn field(&self, key: &str) -> Option<&Self> {
        let Self::Dict(fields) = self else {
            return None;
        };
        fields.iter().find(|(name, _)| *name == key.as_bytes()).map(|(_, value)| value)
    }

    pub(super) const fn int(&self) -> Option<i64> {
        match self {
            Self::Int(int) => Some(*int),
            _ => None,
        }
    }

    pub(super) const fn bytes(&self) -> Option<&'a [u8]> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }
}

fn read<'a>(rest: &mut &'a [u8], depth: usize) -> Option<Value<'a>> {
    if depth > DEPTH_MAX {
        return None;
    }
    match *rest.first()? {
        b'i' => {
            *rest = &rest[1..];
            Some(Value::Int(number(rest, b'e')?))
        }
        b'l' => {
            *rest = &rest[1..];
            let mut items = Vec::new();
            while *rest.first()? != b'e' {
                items.push(read(rest, depth + 1)?);
            }
            *rest = &rest[1..];
            Some(Value::List(items))
        }
        b'd' => {
            *rest = &rest[1..];
            let mut fields = Vec::new();
            while *rest.first()? != b'e' {
                let key = string(rest)?;
                fields.push((key, read(rest, depth + 1)?));
            }
            *rest = &rest[1..];
            Some(Value::Dict(fields))
        }
        _ => Some(Value::Bytes(string(rest)?)),
    }
}

fn string<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = usize::try_from(number(rest, b':')?).ok()?;
    let (string, after) = rest.split_at_checked(len)?;
    *rest = after;
    Some(string)
}

/// The number up to `end`, which is taken too. An `i64` has at most 20 characters.
fn number(rest: &mut &[u8], end: u8) -> Option<i64> {
    let len = rest.iter().take(21).position(|&byte| byte == end)?;
    let text = str::from_utf8(&rest[..len]).ok()?;
    *rest = &rest[len + 1..];
    text.parse().ok()
}

/// Writes a dictionary; the caller gives the keys in order (BEP 3).
#[derive(Debug, Default)]
pub(super) struct Writer(Vec<u8>);

impl Writer {
    pub(super) fn finish(self) -> Vec<u8> {
        self.0
    }

    pub(super) fn open(&mut self, kind: u8) {
        self.0.push(kind);
    }

    pub(super) fn close(&mut self) {
        self.0.push(b'e');
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes.len().to_string().as_bytes());
        self.0.push(b':');
        self.0.extend_from_slice(bytes);
    }

    pub(super) fn int(&mut self, int: u64) {
        self.0.extend_from_slice(format!("i{int}e").as_bytes());
    }

    pub(super) fn int_field(&mut self, key: &str, int: u64) {
        self.bytes(key.as_bytes());
        self.int(int);
    }

    pub(super) fn bytes_field(&mut self, key: &str, bytes: &[u8]) {
        self.bytes(key.as_bytes());
        self.bytes(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(input: &[u8], expect: Option<Value<'_>>) {
        assert_eq!(Value::decode(input), expect, "{}", String::from_utf8_lossy(input));
    }

    #[test]
    fn values_are_read() {
        check(b"i-3e", Some(Value::Int(-3)));
        check(b"2:abx", None);
        check(b"le\n", Some(Value::List(vec![])));
        check(
            b"d1:b1:x1:ai1ee",
            Some(Value::Dict(vec![(b"b", Value::Bytes(b"x")), (b"a", Value::Int(1))])),
        );
    }

    #[test]
    fn broken_values_are_refused() {
        for input in [
            b"" as &[u8],
            b"i",
            b"ie",
            b"i1",
            b"l",
            b"d1:a",
            b"d1:ae",
            b"di1ei1ee",
            b"5:abc",
            b"-1:",
            b"99999999999999999999:a",
            b"i99999999999999999999e",
            b"e",
        ] {
            check(input, None);
        }
    }

    #[test]
    fn deep_nesting_is_refused() {
        let deep = |depth: usize| [vec![b'l'; depth], vec![b'e'; depth]].concat();
        assert!(Value::decode(&deep(DEPTH_MAX + 1)).is_some());
        assert!(Value::decode(&deep(DEPTH_MAX + 2)).is_none());
        assert!(Value::decode(&deep(1_000_000)).is_none());
    }
}
