//! A set of small indices, packed as BEP 3 sends it.

/// A set of indices below a fixed length: which pieces, or units, somebody has.
///
/// Kept as 64-bit words with the lowest index in the *highest* bit, which is BEP 3's byte order, so
/// that encoding is a byte swap and set operations go 64 at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bitfield {
    words: Vec<u64>,
    len: u32,
    ones: u32,
}

/// A bitfield on the wire that does not fit the torrent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BitfieldError {
    /// BEP 3: "clients should drop the connection" when the length is not exact.
    #[error("bitfield has the wrong length")]
    WrongLen,
    /// BEP 3: "spare bits at the end are set to zero".
    #[error("bitfield has spare bits set")]
    SpareBits,
}

impl Bitfield {
    /// An empty set of indices below `len`.
    #[must_use]
    pub fn new(len: u32) -> Self {
        Self { words: vec![0; len.div_ceil(64) as usize], len, ones: 0 }
    }

    /// The set of all indices below `len`.
    #[must_use]
    pub fn full(len: u32) -> Self {
        let mut words = vec![u64::MAX; len.div_ceil(64) as usize];
        if let Some(last) = words.last_mut()
            && !len.is_multiple_of(64)
        {
            *last = u64::MAX << (64 - len % 64);
        }
        Self { words, len, ones: len }
    }

    /// Reads the payload of a BEP 3 `bitfield` message.
    ///
    /// # Errors
    /// If the length is not exactly `len` bits in whole bytes, or spare bits are set.
    pub fn decode(bytes: &[u8], len: u32) -> Result<Self, BitfieldError> {
        if bytes.len() != len.div_ceil(8) as usize {
            return Err(BitfieldError::WrongLen);
        }
        let mut field = Self::new(len);
        for (word, chunk) in field.words.iter_mut().zip(bytes.chunks(8)) {
            let mut be = [0; 8];
            be[..chunk.len()].copy_from_slice(chunk);
            *word = u64::from_be_bytes(be);
        }
        if let Some(&last) = field.words.last()
            && !len.is_multiple_of(64)
            && last & (u64::MAX >> (len % 64)) != 0
        {
            return Err(BitfieldError::SpareBits);
        }
        field.ones = field.words.iter().map(|word| word.count_ones()).sum();
        Ok(field)
    }

    /// The payload of a BEP 3 `bitfield` message.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes: Vec<u8> = self.words.iter().flat_map(|word| word.to_be_bytes()).collect();
        bytes.truncate(self.len.div_ceil(8) as usize);
        bytes
    }

    /// How many indices there are, in the set or not.
    #[must_use]
    pub const fn len(&self) -> u32 {
        self.len
    }

    /// Whether nothing is in the set.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.ones == 0
    }

    /// Whether everything is in the set.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.ones == self.len
    }

    /// How many indices are in the set.
    #[must_use]
    pub const fn count(&self) -> u32 {
        self.ones
    }

    /// Whether `index` is in the set; an index past the end is not.
    #[must_use]
    pub fn contains(&self, index: u32) -> bool {
        index < self.len && self.words[(index / 64) as usize] & mask(index) != 0
    }

    /// Adds `index`; says whether it was new.
    ///
    /// # Panics
    /// If `index` is not below the length.
    pub fn insert(&mut self, index: u32) -> bool {
        assert!(index < self.len, "index {index} of a bitfield of {}", self.len);
        let word = &mut self.words[(index / 64) as usize];
        let new = *word & mask(index) == 0;
        *word |= mask(index);
        self.ones += u32::from(new);
        new
    }

    /// Removes `index`; says whether it was there.
    pub fn remove(&mut self, index: u32) -> bool {
        if !self.contains(index) {
            return false;
        }
        self.words[(index / 64) as usize] &= !mask(index);
        self.ones -= 1;
        true
    }

    /// The indices in the set, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.words.iter().enumerate().flat_map(|(at, &word)| ones(at, word))
    }

    /// The indices that are in `self` and in neither `a` nor `b`; all of one length.
    ///
    /// Ascending from the word that holds `start`, then around, so that a caller that takes only
    /// the first few does not always see the same ones.
    pub fn iter_without<'a>(
        &'a self,
        a: &'a Self,
        b: &'a Self,
        start: u32,
    ) -> impl Iterator<Item = u32> + 'a {
        debug_assert!(self.len == a.len && self.len == b.len);
        let count = self.words.len();
        let first = if start < self.len { (start / 64) as usize } else { 0 };
        (first..count)
            .chain(0..first)
            .flat_map(|at| ones(at, self.words[at] & !a.words[at] & !b.words[at]))
    }

    /// Whether some index is in `self` and not in `other`; both of one length.
    #[must_use]
    pub fn has_more_than(&self, other: &Self) -> bool {
        debug_assert!(self.len == other.len);
        self.words.iter().zip(&other.words).any(|(&word, &other)| word & !other != 0)
    }
}

const fn mask(index: u32) -> u64 {
    1 << (63 - index % 64)
}

/// The indices of the set bits of the word at position `at`.
fn ones(at: usize, mut word: u64) -> impl Iterator<Item = u32> {
    let base = at as u32 * 64;
    std::iter::from_fn(move || {
        if word == 0 {
            return None;
        }
        let bit = word.leading_zeros();
        word &= !(1 << (63 - bit));
        Some(base + bit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lowest_index_is_highest_bit_of_first_byte() {
        let mut field = Bitfield::new(10);
        field.insert(0);
        field.insert(9);
        assert_eq!(field.encode(), [0b1000_0000, 0b0100_0000]);
    }

    #[test]
    fn wire_form_must_be_exact() {
        assert_eq!(Bitfield::decode(&[0], 10), Err(BitfieldError::WrongLen));
        assert_eq!(Bitfield::decode(&[0, 0b0010_0000], 10), Err(BitfieldError::SpareBits));
        assert!(Bitfield::decode(&[0xff, 0b1100_0000], 10).is_ok_and(|field| field.is_full()));
    }

    #[test]
    fn full_set_has_no_spare_bits() {
        for len in [1, 8, 63, 64, 65, 128, 130] {
            let full = Bitfield::full(len);
            assert_eq!(Bitfield::decode(&full.encode(), len), Ok(full.clone()));
            assert_eq!(full.iter().count() as u32, len);
        }
    }

    proptest! {
        #[test]
        fn behaves_as_a_set(len in 1u32..300, indices in prop::collection::vec(0u32..300, 0..200)) {
            let mut field = Bitfield::new(len);
            let mut model = std::collections::BTreeSet::new();
            for index in indices.into_iter().map(|index| index % len) {
                if index % 3 == 0 {
                    prop_assert_eq!(field.remove(index), model.remove(&index));
                } else {
                    prop_assert_eq!(field.insert(index), model.insert(index));
                }
            }
            prop_assert_eq!(field.count() as usize, model.len());
            prop_assert!(field.iter().eq(model.iter().copied()));
            prop_assert_eq!(Bitfield::decode(&field.encode(), len), Ok(field));
        }
    }
}
