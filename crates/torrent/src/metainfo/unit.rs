//! How long the units of a torrent are: the policy, and nothing else.

use crate::geometry::BLOCK_LEN;

/// How many units a torrent should at least have. A mesh of N nodes loses about 5·log2(N) units of
/// transfer time before everybody has something to pass on; with 2,048 units that is 2.4 % for
/// 1,000 nodes.
pub const UNIT_COUNT_AIM: u64 = 2048;

/// The longest unit that is made by choice. A unit of 256 KiB holds 40 ms of a 50 Mbit/s link until
/// it can be passed on, and announcing it costs 9 bytes to each neighbour, which is nothing already.
pub const UNIT_LEN_MAX: u32 = 256 * 1024;

/// The most units that are made by choice: 1 TiB in units of 256 KiB. A set of them takes 512 KiB,
/// and one is kept for each peer; small files in long pieces could make it any number.
pub const UNITS_MAX: u32 = 1 << 22;

/// The length of units, in bytes, for a torrent with v2 hashes of `data_len` bytes in `piece_count`
/// pieces of `piece_len` bytes.
///
/// The largest power of two of blocks that still makes [`UNIT_COUNT_AIM`] units, as every unit
/// costs each neighbour a message; at most [`UNIT_LEN_MAX`], at least one block, and never more than
/// a piece. With v1 alone nothing smaller than a piece can be verified, so the unit is the piece and
/// this is not asked.
#[must_use]
pub fn unit_len(data_len: u64, piece_len: u32, piece_count: u32) -> u32 {
    let mut len = UNIT_LEN_MAX.min(piece_len);
    while len > BLOCK_LEN && data_len / u64::from(len) < UNIT_COUNT_AIM {
        len /= 2;
    }
    while len < piece_len
        && u64::from(piece_count) * u64::from(piece_len / len) > u64::from(UNITS_MAX)
    {
        len *= 2;
    }
    len
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: u32 = 1 << 10;
    const MIB: u64 = 1 << 20;

    #[track_caller]
    fn check(data_len: u64, piece_len: u32, expect: u32) {
        let piece_count = data_len.div_ceil(u64::from(piece_len)) as u32;
        assert_eq!(unit_len(data_len, piece_len, piece_count), expect);
    }

    #[test]
    fn v2_units_aim_at_2048_of_them() {
        check(1, 16 * KIB, 16 * KIB);
        check(1, 4096 * KIB, 16 * KIB);
        check(64 * MIB - 1, 4096 * KIB, 16 * KIB);
        check(64 * MIB, 4096 * KIB, 32 * KIB);
        check(128 * MIB, 32 * KIB, 32 * KIB);
        check(128 * MIB, 4096 * KIB, 64 * KIB);
        check(1024 * MIB, 4096 * KIB, 256 * KIB);
        check(1 << 40, 16384 * KIB, 256 * KIB);
    }

    #[test]
    fn small_files_in_long_pieces_do_not_multiply_units() {
        assert_eq!(unit_len(65_536, 128 * 1024 * KIB, 65_536), 2048 * KIB);
        assert_eq!(unit_len(1 << 20, 128 * 1024 * KIB, 1 << 20), 32 * 1024 * KIB);
    }
}
