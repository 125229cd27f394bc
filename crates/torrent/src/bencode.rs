//! Strict bencode (BEP 3), as metainfo, tracker answers and BEP 10 messages use it.
//!
//! Every value has exactly one encoding here: keys ascend and are unique, numbers have no leading
//! zeros and no `-0`, nothing follows the value. So a decoded value encodes to the very bytes it
//! came from, and two readers of one .torrent file cannot see two different torrents. Decoding
//! borrows: strings are slices of the input, and a dictionary knows the bytes it was read from,
//! which is what an infohash is taken of. What the values mean is not known here.

/// How deeply lists and dictionaries may nest. A v2 file tree is as deep as its deepest path and a
/// few levels more ([`PATH_DEPTH_MAX`](crate::metainfo::PATH_DEPTH_MAX) is 32); the limit keeps
/// `lllll…` from exhausting the stack.
pub const DEPTH_MAX: usize = 64;

/// How many values one input may hold. A hybrid torrent of
/// [`FILES_MAX`](crate::metainfo::FILES_MAX) files needs about 20 for each, 1.3 million in all; the
/// limit keeps a small hostile input (`li0ei0e…`) from becoming a tree many times its size.
pub const VALUES_MAX: usize = 1 << 21;

/// A decoded value, borrowing from its input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// `i…e`. BEP 3 sets no bounds; nothing that we read needs more than 63 bits.
    Int(i64),
    /// `length:…`, any bytes.
    Bytes(&'a [u8]),
    /// `l…e`.
    List(Vec<Self>),
    /// `d…e`.
    Dict(Dict<'a>),
}

/// A decoded dictionary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dict<'a> {
    raw: &'a [u8],
    entries: Vec<(&'a [u8], Value<'a>)>,
}

/// Input that is not strict bencode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not bencode at byte {offset}: {fault}")]
pub struct DecodeError {
    /// Where in the input.
    pub offset: usize,
    /// What is wrong there.
    pub fault: Fault,
}

/// What is wrong with an encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The input ends within a value.
    #[error("the input ends early")]
    Truncated,
    /// Something follows the value.
    #[error("bytes follow the value")]
    Trailing,
    /// No value begins with this byte.
    #[error("no value begins with this byte")]
    NotAValue,
    /// Not digits, a leading zero, `-0`, or more than 63 bits.
    #[error("the number is malformed or too large")]
    Number,
    /// A dictionary key that is not greater than the one before it.
    #[error("dictionary keys are not sorted and unique")]
    KeyOrder,
    /// More than [`DEPTH_MAX`].
    #[error("nested too deeply")]
    Depth,
    /// More than [`VALUES_MAX`].
    #[error("too many values")]
    Count,
}

/// Decodes one value that fills the whole input.
///
/// # Errors
/// If the input is not strict bencode or exceeds a limit.
pub fn decode(input: &[u8]) -> Result<Value<'_>, DecodeError> {
    let (value, rest) = decode_prefix(input)?;
    if rest.is_empty() {
        Ok(value)
    } else {
        Err(DecodeError { offset: input.len() - rest.len(), fault: Fault::Trailing })
    }
}

/// Decodes the value at the start of the input; also returns what follows it. For formats that
/// append raw bytes to a bencoded head.
///
/// # Errors
/// If the input does not begin with strict bencode or exceeds a limit.
pub fn decode_prefix(input: &[u8]) -> Result<(Value<'_>, &[u8]), DecodeError> {
    let mut decoder = Decoder { input, at: 0, values: 0 };
    match decoder.value(0) {
        Ok(value) => Ok((value, &input[decoder.at..])),
        Err(fault) => Err(DecodeError { offset: decoder.at, fault }),
    }
}

impl<'a> Value<'a> {
    /// The number, if it is one.
    #[must_use]
    pub const fn as_int(&self) -> Option<i64> {
        match self {
            Self::Int(int) => Some(*int),
            _ => None,
        }
    }

    /// The number, if it is one and not negative.
    #[must_use]
    pub fn as_u64(&self) -> Option<u64> {
        self.as_int().and_then(|int| u64::try_from(int).ok())
    }

    /// The string, if it is one.
    #[must_use]
    pub const fn as_bytes(&self) -> Option<&'a [u8]> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// The string, if it is one and is UTF-8.
    #[must_use]
    pub fn as_str(&self) -> Option<&'a str> {
        self.as_bytes().and_then(|bytes| str::from_utf8(bytes).ok())
    }

    /// The list, if it is one.
    #[must_use]
    pub fn as_list(&self) -> Option<&[Self]> {
        match self {
            Self::List(list) => Some(list),
            _ => None,
        }
    }

    /// The dictionary, if it is one.
    #[must_use]
    pub const fn as_dict(&self) -> Option<&Dict<'a>> {
        match self {
            Self::Dict(dict) => Some(dict),
            _ => None,
        }
    }

    /// Appends the encoding: the bytes that it was decoded from.
    pub fn encode(&self, to: &mut Encoder) {
        match self {
            Self::Int(int) => to.int(*int),
            Self::Bytes(bytes) => to.bytes(bytes),
            Self::List(list) => to.list(|to| list.iter().for_each(|value| value.encode(to))),
            Self::Dict(dict) => to.dict(|to| {
                for (key, value) in dict.iter() {
                    value.encode(to.key(key));
                }
            }),
        }
    }
}

impl<'a> Dict<'a> {
    /// The value of `key`.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<&Value<'a>> {
        let at = self.entries.binary_search_by_key(&key, |entry| entry.0);
        at.ok().map(|at| &self.entries[at].1)
    }

    /// The bytes that the dictionary was decoded from, `d` and `e` included.
    #[must_use]
    pub const fn raw(&self) -> &'a [u8] {
        self.raw
    }

    /// All entries, keys ascending.
    pub fn iter(&self) -> impl Iterator<Item = (&'a [u8], &Value<'a>)> {
        self.entries.iter().map(|(key, value)| (*key, value))
    }

    /// How many entries there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are no entries.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

struct Decoder<'a> {
    input: &'a [u8],
    at: usize,
    values: usize,
}

impl<'a> Decoder<'a> {
    fn value(&mut self, depth: usize) -> Result<Value<'a>, Fault> {
        self.values += 1;
        if self.values > VALUES_MAX {
            return Err(Fault::Count);
        }
        if depth >= DEPTH_MAX {
            return Err(Fault::Depth);
        }
        match self.peek()? {
            b'i' => {
                self.at += 1;
                let negative = self.peek()? == b'-';
                self.at += usize::from(negative);
                let number = self.number(b'e')?;
                match (negative, number) {
                    (true, 0) => Err(Fault::Number),
                    (true, number) => Ok(Value::Int(-number)),
                    (false, number) => Ok(Value::Int(number)),
                }
            }
            b'0'..=b'9' => self.bytes().map(Value::Bytes),
            b'l' => {
                self.at += 1;
                let mut list = Vec::new();
                while self.peek()? != b'e' {
                    list.push(self.value(depth + 1)?);
                }
                self.at += 1;
                Ok(Value::List(list))
            }
            b'd' => self.dict(depth).map(Value::Dict),
            _ => Err(Fault::NotAValue),
        }
    }

    fn dict(&mut self, depth: usize) -> Result<Dict<'a>, Fault> {
        let start = self.at;
        self.at += 1;
        let mut entries: Vec<(&[u8], Value<'_>)> = Vec::new();
        while self.peek()? != b'e' {
            let before = self.at;
            let key = self.bytes()?;
            if entries.last().is_some_and(|(last, _)| *last >= key) {
                self.at = before;
                return Err(Fault::KeyOrder);
            }
            let value = self.value(depth + 1)?;
            entries.push((key, value));
        }
        self.at += 1;
        Ok(Dict { raw: &self.input[start..self.at], entries })
    }

    fn bytes(&mut self) -> Result<&'a [u8], Fault> {
        let len = usize::try_from(self.number(b':')?).map_err(|_| Fault::Number)?;
        let rest = &self.input[self.at..];
        let bytes = rest.get(..len).ok_or(Fault::Truncated)?;
        self.at += len;
        Ok(bytes)
    }

    /// Reads digits up to and including `end`.
    fn number(&mut self, end: u8) -> Result<i64, Fault> {
        let start = self.at;
        let mut number = 0i64;
        loop {
            let byte = self.peek()?;
            if byte == end && self.at > start {
                self.at += 1;
                return Ok(number);
            }
            // A zero that something follows: `00`, `01`.
            if !byte.is_ascii_digit() || (self.at > start && number == 0) {
                return Err(Fault::Number);
            }
            number = number
                .checked_mul(10)
                .and_then(|number| number.checked_add(i64::from(byte - b'0')))
                .ok_or(Fault::Number)?;
            self.at += 1;
        }
    }

    fn peek(&self) -> Result<u8, Fault> {
        self.input.get(self.at).copied().ok_or(Fault::Truncated)
    }
}

/// Writes bencode.
#[derive(Clone, Debug, Default)]
pub struct Encoder {
    out: Vec<u8>,
}

/// Writes the entries of one dictionary.
#[derive(Debug)]
pub struct DictEncoder<'a> {
    to: &'a mut Encoder,
    last: Option<Vec<u8>>,
}

impl Encoder {
    /// Nothing written yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { out: Vec::new() }
    }

    /// What was written.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        self.out
    }

    /// Writes a number.
    pub fn int(&mut self, int: i64) {
        self.out.extend_from_slice(format!("i{int}e").as_bytes());
    }

    /// Writes a string.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(format!("{}:", bytes.len()).as_bytes());
        self.out.extend_from_slice(bytes);
    }

    /// Writes a list of what `items` writes.
    pub fn list(&mut self, items: impl FnOnce(&mut Self)) {
        self.out.push(b'l');
        items(self);
        self.out.push(b'e');
    }

    /// Writes a dictionary of what `entries` writes.
    pub fn dict(&mut self, entries: impl FnOnce(&mut DictEncoder<'_>)) {
        self.out.push(b'd');
        entries(&mut DictEncoder { to: self, last: None });
        self.out.push(b'e');
    }

    /// Writes a value that is encoded already.
    pub fn raw(&mut self, encoded: &[u8]) {
        self.out.extend_from_slice(encoded);
    }
}

impl DictEncoder<'_> {
    /// Writes a key; exactly one value is to be written to what is returned.
    ///
    /// # Panics
    /// If the key is not greater than the one before it: a mistake in our own code.
    pub fn key(&mut self, key: impl AsRef<[u8]>) -> &mut Encoder {
        let key = key.as_ref();
        assert!(
            self.last.as_deref().is_none_or(|last| last < key),
            "bencode keys must ascend: {:?}",
            String::from_utf8_lossy(key)
        );
        self.last = Some(key.to_vec());
        self.to.bytes(key);
        self.to
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proptest::strategy::Union;
    use std::collections::BTreeMap;

    #[track_caller]
    fn refuse(input: &[u8], offset: usize, fault: Fault) {
        assert_eq!(decode(input), Err(DecodeError { offset, fault }));
    }

    #[test]
    fn values_of_each_kind_decode() {
        assert_eq!(decode(b"i0e"), Ok(Value::Int(0)));
        assert_eq!(decode(b"i-42e"), Ok(Value::Int(-42)));
        assert_eq!(decode(b"i9223372036854775807e"), Ok(Value::Int(i64::MAX)));
        assert_eq!(decode(b"0:"), Ok(Value::Bytes(b"")));
        assert_eq!(decode(b"4:spam").unwrap().as_str(), Some("spam"));
        let list = decode(b"l4:spami7ee").unwrap();
        assert_eq!(list.as_list().unwrap(), [Value::Bytes(b"spam"), Value::Int(7)]);
        let dict = decode(b"d3:cow3:moo4:spam4:eggse").unwrap();
        assert_eq!(dict.as_dict().unwrap().get(b"cow").unwrap().as_bytes(), Some(&b"moo"[..]));
        assert_eq!(dict.as_dict().unwrap().get(b"pig"), None);
    }

    #[test]
    fn dictionary_knows_its_raw_bytes() {
        let value = decode(b"d1:ai1e4:infod1:xlee1:zi2ee").unwrap();
        let info = value.as_dict().unwrap().get(b"info").unwrap();
        assert_eq!(info.as_dict().unwrap().raw(), b"d1:xlee");
    }

    #[test]
    fn numbers_have_one_spelling() {
        refuse(b"i-0e", 4, Fault::Number);
        refuse(b"i03e", 2, Fault::Number);
        refuse(b"i00e", 2, Fault::Number);
        refuse(b"ie", 1, Fault::Number);
        refuse(b"i-e", 2, Fault::Number);
        refuse(b"i+1e", 1, Fault::Number);
        refuse(b"i1 e", 2, Fault::Number);
        refuse(b"i9223372036854775808e", 19, Fault::Number);
        refuse(b"01:a", 1, Fault::Number);
        refuse(b"99999999999999999999:a", 18, Fault::Number);
    }

    #[test]
    fn keys_ascend_and_are_unique_strings() {
        refuse(b"d1:bi1e1:ai1ee", 7, Fault::KeyOrder);
        refuse(b"d1:ai1e1:ai1ee", 7, Fault::KeyOrder);
        refuse(b"di1ei1ee", 1, Fault::Number);
        // Raw byte order, and a prefix comes first.
        assert!(decode(b"d1:Ai1e1:ai1e2:aai1e1:\xffi1ee").is_ok());
    }

    #[test]
    fn input_ends_with_the_value() {
        refuse(b"", 0, Fault::Truncated);
        refuse(b"i1", 2, Fault::Truncated);
        refuse(b"5:spam", 2, Fault::Truncated);
        refuse(b"l", 1, Fault::Truncated);
        refuse(b"d1:a", 4, Fault::Truncated);
        refuse(b"i1ei2e", 3, Fault::Trailing);
        refuse(b"x", 0, Fault::NotAValue);
        refuse(b"l-e", 1, Fault::NotAValue);
        assert_eq!(decode_prefix(b"i1epayload"), Ok((Value::Int(1), &b"payload"[..])));
    }

    #[test]
    fn nesting_and_count_are_limited() {
        let nested = |depth: usize| [vec![b'l'; depth], vec![b'e'; depth]].concat();
        assert!(decode(&nested(DEPTH_MAX)).is_ok());
        refuse(&nested(DEPTH_MAX + 1), DEPTH_MAX, Fault::Depth);
        refuse(&vec![b'l'; 1 << 20], DEPTH_MAX, Fault::Depth);
        let many = [b"l".to_vec(), b"le".repeat(VALUES_MAX), b"e".to_vec()].concat();
        refuse(&many, VALUES_MAX * 2 - 1, Fault::Count);
    }

    #[test]
    #[should_panic(expected = "bencode keys must ascend")]
    fn encoder_refuses_unsorted_keys() {
        Encoder::new().dict(|dict| {
            dict.key("b").int(1);
            dict.key("a").int(1);
        });
    }

    #[derive(Clone, Debug)]
    enum Tree {
        Int(i64),
        Bytes(Vec<u8>),
        List(Vec<Self>),
        Dict(BTreeMap<Vec<u8>, Self>),
    }

    fn encode(tree: &Tree, to: &mut Encoder) {
        match tree {
            Tree::Int(int) => to.int(*int),
            Tree::Bytes(bytes) => to.bytes(bytes),
            Tree::List(list) => to.list(|to| list.iter().for_each(|tree| encode(tree, to))),
            Tree::Dict(dict) => {
                to.dict(|to| dict.iter().for_each(|(key, tree)| encode(tree, to.key(key))));
            }
        }
    }

    fn same(tree: &Tree, value: &Value<'_>) -> bool {
        match (tree, value) {
            (Tree::Int(a), Value::Int(b)) => a == b,
            (Tree::Bytes(a), Value::Bytes(b)) => a == b,
            (Tree::List(a), Value::List(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
            }
            (Tree::Dict(a), Value::Dict(b)) => {
                a.len() == b.len()
                    && a.iter().zip(b.iter()).all(|((ka, a), (kb, b))| ka == kb && same(a, b))
            }
            _ => false,
        }
    }

    fn trees() -> impl Strategy<Value = Tree> {
        let bytes = || prop::collection::vec(any::<u8>(), 0..12);
        // i64::MIN has no positive counterpart and is refused; nothing we read needs it.
        let leaf = Union::new([
            (-i64::MAX..=i64::MAX).prop_map(Tree::Int).boxed(),
            bytes().prop_map(Tree::Bytes).boxed(),
        ]);
        leaf.prop_recursive(5, 60, 6, move |inner| {
            let list = prop::collection::vec(inner.clone(), 0..6);
            let dict = prop::collection::btree_map(bytes(), inner, 0..6);
            Union::new([list.prop_map(Tree::List).boxed(), dict.prop_map(Tree::Dict).boxed()])
        })
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes_to_itself(tree in trees()) {
            let mut encoder = Encoder::new();
            encode(&tree, &mut encoder);
            let bytes = encoder.finish();
            let value = decode(&bytes).unwrap();
            prop_assert!(same(&tree, &value));
            let mut again = Encoder::new();
            value.encode(&mut again);
            prop_assert_eq!(again.finish(), bytes);
        }

        #[test]
        fn whatever_decodes_has_one_encoding(input in "[dlie0-9:a-c-]{0,24}") {
            if let Ok(value) = decode(input.as_bytes()) {
                let mut again = Encoder::new();
                value.encode(&mut again);
                prop_assert_eq!(again.finish(), input.as_bytes());
            }
        }
    }
}
