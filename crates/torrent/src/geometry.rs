//! How a torrent is cut: into pieces that have a hash, units that are relayed, blocks that travel.
//!
//! A *unit* is what this engine announces, takes from one peer and passes on once verified. With v1
//! only the whole piece can be verified, so the unit is the piece. With v2 the Merkle tree of each
//! file verifies any aligned power of two of blocks, so the unit can be smaller than the piece:
//! with pieces of 4 MiB a node passes the first bytes on 64 times earlier.

/// The unit of request, 16 KiB (BEP 52 "block size"; every BEP 3 client uses the same).
pub const BLOCK_LEN: u32 = 16 * 1024;

/// The most pieces a torrent may have. 2^20 pieces of the largest image we know (1 TiB) are 1 MiB
/// each; the limit keeps a hostile metainfo from making us allocate more than a few MiB of state.
pub const PIECES_MAX: u32 = 1 << 20;

/// The longest piece we accept: larger ones would be held too long unverified, and no tool makes
/// them (libtorrent stops at 128 MiB as well).
pub const PIECE_LEN_MAX: u32 = 128 << 20;

/// The index of a piece that exists in the torrent it was made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PieceIndex(pub(crate) u32);

/// The index of a unit that exists in the torrent it was made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnitIndex(pub(crate) u32);

impl PieceIndex {
    /// The bare number, for the wire and for logs.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl UnitIndex {
    /// The bare number, for the wire and for logs.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

/// A block: the range of one request (BEP 3), never crossing a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Block {
    /// Index of the piece.
    pub piece: u32,
    /// First byte, relative to the piece.
    pub offset: u32,
    /// Length in bytes, at most [`BLOCK_LEN`] in our own requests.
    pub len: u32,
}

impl Block {
    /// Whether `other` begins where this one ends, in the same piece.
    #[must_use]
    pub const fn is_followed_by(self, other: Self) -> bool {
        self.piece == other.piece && self.offset.saturating_add(self.len) == other.offset
    }
}

/// The shape of one torrent: its lengths, and nothing about hashes or files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Geometry {
    piece_len: u32,
    unit_len: u32,
    piece_count: u32,
    /// Pieces whose data is shorter than `piece_len`, ascending: the last piece of the torrent, and
    /// with v2 the last piece of each file. Padding (BEP 47) is not data.
    short: Vec<(u32, u32)>,
}

/// Why a geometry cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GeometryError {
    /// Zero, or more than [`PIECE_LEN_MAX`].
    #[error("piece length {0} is not between 1 and 128 MiB")]
    PieceLen(u64),
    /// Zero, or more than [`PIECES_MAX`].
    #[error("{0} pieces: not between 1 and 1048576")]
    PieceCount(u64),
    /// The unit must be the piece, or a power of two of blocks that divides it.
    #[error("unit length {0} does not divide the piece into whole blocks")]
    UnitLen(u32),
    /// A short piece is out of range, out of order, empty or not short.
    #[error("short piece {0} does not fit")]
    ShortPiece(u32),
}

impl Geometry {
    /// A torrent of `piece_count` pieces of `piece_len` bytes, apart from the `short` ones
    /// (index, data length; ascending), relayed in units of `unit_len` bytes.
    ///
    /// # Errors
    /// If a length or count is out of bounds or the unit does not divide the piece.
    pub fn new(
        piece_len: u64,
        piece_count: u64,
        unit_len: u32,
        short: Vec<(u32, u32)>,
    ) -> Result<Self, GeometryError> {
        let piece_len_u32 = u32::try_from(piece_len)
            .ok()
            .filter(|len| (1..=PIECE_LEN_MAX).contains(len))
            .ok_or(GeometryError::PieceLen(piece_len))?;
        let piece_count = u32::try_from(piece_count)
            .ok()
            .filter(|count| (1..=PIECES_MAX).contains(count))
            .ok_or(GeometryError::PieceCount(piece_count))?;
        let divides = unit_len >= BLOCK_LEN
            && unit_len.is_power_of_two()
            && piece_len_u32.is_multiple_of(unit_len);
        if unit_len != piece_len_u32 && !divides {
            return Err(GeometryError::UnitLen(unit_len));
        }
        let mut next = 0;
        for &(piece, len) in &short {
            if piece < next || piece >= piece_count || len == 0 || len >= piece_len_u32 {
                return Err(GeometryError::ShortPiece(piece));
            }
            next = piece + 1;
        }
        Ok(Self { piece_len: piece_len_u32, unit_len, piece_count, short })
    }

    /// One run of `total_len` bytes cut into pieces: a v1 torrent, or a v2 torrent of one file.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn contiguous(
        total_len: u64,
        piece_len: u32,
        unit_len: u32,
    ) -> Result<Self, GeometryError> {
        if piece_len == 0 {
            return Err(GeometryError::PieceLen(0));
        }
        let count = total_len.div_ceil(u64::from(piece_len));
        let rest = (total_len % u64::from(piece_len)) as u32;
        let last = u32::try_from(count.saturating_sub(1)).unwrap_or(u32::MAX);
        let short = if rest == 0 { vec![] } else { vec![(last, rest)] };
        Self::new(u64::from(piece_len), count, unit_len, short)
    }

    /// The nominal piece length in bytes.
    #[must_use]
    pub const fn piece_len(&self) -> u32 {
        self.piece_len
    }

    /// The nominal unit length in bytes; equal to the piece length when only whole pieces verify.
    #[must_use]
    pub const fn unit_len(&self) -> u32 {
        self.unit_len
    }

    /// How many pieces there are, at least one.
    #[must_use]
    pub const fn piece_count(&self) -> u32 {
        self.piece_count
    }

    /// How many units there are. A short piece has as many as a whole one; those past its data are
    /// empty (see [`Self::unit_data_len`]) and count as had from the start.
    #[must_use]
    pub const fn unit_count(&self) -> u32 {
        self.piece_count * self.units_per_piece()
    }

    /// How many units a piece has.
    #[must_use]
    pub const fn units_per_piece(&self) -> u32 {
        self.piece_len / self.unit_len
    }

    /// Whether the unit is the piece, so that plain BEP 3 `have` says all there is to say.
    #[must_use]
    pub const fn unit_is_piece(&self) -> bool {
        self.unit_len == self.piece_len
    }

    /// Bytes of data in the whole torrent, padding left out.
    #[must_use]
    pub fn data_len(&self) -> u64 {
        let nominal = u64::from(self.piece_len) * u64::from(self.piece_count);
        let missing: u64 = self.short.iter().map(|&(_, len)| u64::from(self.piece_len - len)).sum();
        nominal - missing
    }

    /// The piece of that number, if there is one.
    #[must_use]
    pub fn piece(&self, index: u32) -> Option<PieceIndex> {
        (index < self.piece_count).then_some(PieceIndex(index))
    }

    /// The unit of that number, if there is one.
    #[must_use]
    pub fn unit(&self, index: u32) -> Option<UnitIndex> {
        (index < self.unit_count()).then_some(UnitIndex(index))
    }

    /// Bytes of data in piece `piece`.
    #[must_use]
    pub fn piece_data_len(&self, piece: PieceIndex) -> u32 {
        match self.short.binary_search_by_key(&piece.0, |&(index, _)| index) {
            Ok(at) => self.short[at].1,
            Err(_) => self.piece_len,
        }
    }

    /// The piece that `unit` lies in.
    #[must_use]
    pub const fn piece_of(&self, unit: UnitIndex) -> PieceIndex {
        PieceIndex(unit.0 / self.units_per_piece())
    }

    /// The first byte of `unit`, relative to its piece.
    #[must_use]
    pub const fn unit_offset(&self, unit: UnitIndex) -> u32 {
        unit.0 % self.units_per_piece() * self.unit_len
    }

    /// The units of `piece`, in order.
    pub fn units_of(&self, piece: PieceIndex) -> impl Iterator<Item = UnitIndex> + use<> {
        let per = self.units_per_piece();
        (piece.0 * per..(piece.0 + 1) * per).map(UnitIndex)
    }

    /// Bytes of data in `unit`: zero for a unit past the end of a short piece.
    #[must_use]
    pub fn unit_data_len(&self, unit: UnitIndex) -> u32 {
        let piece = self.piece_data_len(self.piece_of(unit));
        piece.saturating_sub(self.unit_offset(unit)).min(self.unit_len)
    }

    /// How many blocks `unit` has.
    #[must_use]
    pub fn block_count(&self, unit: UnitIndex) -> u32 {
        self.unit_data_len(unit).div_ceil(BLOCK_LEN)
    }

    /// Block number `index` of `unit`.
    ///
    /// # Panics
    /// If the unit has no such block.
    #[must_use]
    pub fn block(&self, unit: UnitIndex, index: u32) -> Block {
        let start = index * BLOCK_LEN;
        let len = self.unit_data_len(unit).saturating_sub(start).min(BLOCK_LEN);
        assert!(len > 0, "block {index} of unit {}", unit.0);
        Block { piece: self.piece_of(unit).0, offset: self.unit_offset(unit) + start, len }
    }

    /// The unit and the number within it of a block that we would request ourselves; `None` for any
    /// other range.
    #[must_use]
    pub fn locate(&self, block: Block) -> Option<(UnitIndex, u32)> {
        let unit = self.unit_at(block.piece, block.offset)?;
        let index = (block.offset - self.unit_offset(unit)) / BLOCK_LEN;
        (index < self.block_count(unit) && self.block(unit, index) == block)
            .then_some((unit, index))
    }

    /// The unit that holds byte `offset` of piece `piece`.
    #[must_use]
    pub fn unit_at(&self, piece: u32, offset: u32) -> Option<UnitIndex> {
        if piece >= self.piece_count || offset >= self.piece_len {
            return None;
        }
        Some(UnitIndex(piece * self.units_per_piece() + offset / self.unit_len))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_block_is_short() {
        let geometry = Geometry::contiguous(100_000, 65_536, 65_536).unwrap();
        assert_eq!(geometry.piece_count(), 2);
        let last = geometry.unit(1).unwrap();
        assert_eq!(geometry.unit_data_len(last), 34_464);
        assert_eq!(geometry.block_count(last), 3);
        let block = geometry.block(last, 2);
        assert_eq!(block, Block { piece: 1, offset: 32_768, len: 1_696 });
        assert_eq!(geometry.locate(block), Some((last, 2)));
        assert_eq!(geometry.data_len(), 100_000);
    }

    #[test]
    fn units_past_the_data_are_empty() {
        let geometry = Geometry::contiguous(200_000, 131_072, 16_384).unwrap();
        assert_eq!(geometry.unit_count(), 16);
        assert_eq!(geometry.unit_data_len(geometry.unit(12).unwrap()), 3_392);
        assert_eq!(geometry.unit_data_len(geometry.unit(13).unwrap()), 0);
        assert_eq!(geometry.block_count(geometry.unit(15).unwrap()), 0);
    }

    #[test]
    fn foreign_ranges_have_no_place() {
        let geometry = Geometry::contiguous(100_000, 65_536, 65_536).unwrap();
        for (piece, offset, len) in [(0, 1, 16_384), (0, 0, 16_383), (2, 0, 16_384), (0, 65_536, 1)]
        {
            assert_eq!(geometry.locate(Block { piece, offset, len }), None);
        }
    }

    #[test]
    fn odd_piece_lengths_are_units_of_their_own() {
        let geometry = Geometry::contiguous(50_000, 20_000, 20_000).unwrap();
        let unit = geometry.unit(0).unwrap();
        assert_eq!(geometry.block_count(unit), 2);
        assert_eq!(geometry.block(unit, 1).len, 3_616);
        assert!(Geometry::contiguous(50_000, 20_000, 16_384).is_err());
    }
}
