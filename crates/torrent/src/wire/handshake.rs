//! The BEP 3 handshake: 68 bytes that open a connection and say which torrent it is about.
//!
//! Also what hides in it: the reserved bits of BEP 6, 10 and 52, and who made the client (BEP 20).
//! Which torrents we have, and whether to answer, is for the driver.
//!
//! ```text
//!  0  1                  20        28           48         68
//! +--+------------------+---------+------------+----------+
//! |19|BitTorrent protocol|reserved|  infohash  | peer id  |
//! +--+------------------+---------+------------+----------+
//! ```

use crate::swarm::PeerTraits;

/// Bytes of a handshake (BEP 3).
pub const HANDSHAKE_LEN: usize = 68;

/// Length and name of the protocol (BEP 3).
const PROTOCOL: &[u8; 20] = b"\x13BitTorrent protocol";

/// Where the reserved bytes, the infohash and the peer id begin.
const RESERVED_AT: usize = PROTOCOL.len();
const INFOHASH_AT: usize = RESERVED_AT + 8;
const PEER_ID_AT: usize = INFOHASH_AT + 20;

/// Reserved byte and bit of each feature.
const EXTENDED_BIT: (usize, u8) = (5, 0x10);
const FAST_BIT: (usize, u8) = (7, 0x04);
const V2_BIT: (usize, u8) = (7, 0x10);

/// Client code and version at the head of our peer ids (BEP 20, Azureus style): protocol 01,
/// revision 00. The first two digits change when peers of ours would no longer understand each
/// other, the last two whenever it helps to tell builds apart.
const CLIENT: &[u8; 8] = b"-BN0100-";

/// How much of [`CLIENT`] peers of one protocol have in common.
const CLIENT_PROTOCOL_LEN: usize = 5;

/// 64 characters for the random part of a peer id: those that RFC 3986 §2.3 leaves unescaped, so
/// that ids are short in announces and readable in logs.
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// What a peer says in the reserved bits that it can do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// BEP 6: have all, have none, reject, allowed fast.
    pub fast: bool,
    /// BEP 10: extended messages.
    pub extended: bool,
    /// BEP 52: the torrent is also a v2 torrent, and the peer speaks v2.
    pub v2: bool,
}

/// A whole handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handshake {
    /// The reserved bits that we know; others are ignored, as BEP 3 wants.
    pub features: Features,
    /// SHA-1 infohash (BEP 3), or the first 20 bytes of a SHA-256 one (BEP 52).
    pub infohash: [u8; 20],
    /// Who speaks (BEP 20).
    pub peer_id: [u8; 20],
}

/// How far a handshake has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandshakeProgress {
    /// Right so far.
    Incomplete {
        /// The torrent, once its 20 bytes are here: the side that was dialled answers now, as some
        /// peers hold their id back until they see our handshake (BEP 3).
        infohash: Option<[u8; 20]>,
    },
    /// All [`HANDSHAKE_LEN`] bytes are here.
    Done(Handshake),
}

/// Not a BitTorrent handshake: an encrypted one (MSE), or another protocol altogether.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a BitTorrent handshake: byte {at} is {byte:#04x}")]
pub struct HandshakeError {
    /// Position of the first wrong byte.
    pub at: usize,
    /// What is there.
    pub byte: u8,
}

impl Handshake {
    /// Reads what has come of a handshake so far; bytes after the 68th are not looked at.
    ///
    /// # Errors
    /// As soon as one byte is wrong, so that a stranger need not be waited for.
    pub fn decode(bytes: &[u8]) -> Result<HandshakeProgress, HandshakeError> {
        let wrong = bytes.iter().zip(PROTOCOL).position(|(a, b)| a != b);
        if let Some(at) = wrong {
            let byte = bytes[at];
            return Err(HandshakeError { at, byte });
        }
        let infohash = array_at(bytes, INFOHASH_AT);
        let (Some(reserved), Some(infohash), Some(peer_id)) =
            (array_at(bytes, RESERVED_AT), infohash, array_at(bytes, PEER_ID_AT))
        else {
            return Ok(HandshakeProgress::Incomplete { infohash });
        };
        Ok(HandshakeProgress::Done(Self {
            features: Features::decode(reserved),
            infohash,
            peer_id,
        }))
    }

    /// The handshake as it is sent.
    #[must_use]
    pub fn encode(&self) -> [u8; HANDSHAKE_LEN] {
        let mut bytes = [0; HANDSHAKE_LEN];
        bytes[..RESERVED_AT].copy_from_slice(PROTOCOL);
        bytes[RESERVED_AT..INFOHASH_AT].copy_from_slice(&self.features.encode());
        bytes[INFOHASH_AT..PEER_ID_AT].copy_from_slice(&self.infohash);
        bytes[PEER_ID_AT..].copy_from_slice(&self.peer_id);
        bytes
    }

    /// What this handshake of a peer tells the swarm, given the features that we sent and whether
    /// the connection is about the torrent's v2 infohash: then the peer speaks v2, bit or no bit
    /// (BEP 52 has the bit for those that start out with the v1 one).
    #[must_use]
    pub fn traits(&self, ours: Features, v2_infohash: bool) -> PeerTraits {
        PeerTraits {
            peer_id: self.peer_id,
            fast: ours.fast && self.features.fast,
            own: is_own(&self.peer_id),
            v2: v2_infohash || ours.v2 && self.features.v2,
        }
    }
}

impl Features {
    fn decode(reserved: [u8; 8]) -> Self {
        let has = |(byte, bit): (usize, u8)| reserved[byte] & bit != 0;
        Self { fast: has(FAST_BIT), extended: has(EXTENDED_BIT), v2: has(V2_BIT) }
    }

    fn encode(self) -> [u8; 8] {
        let mut reserved = [0; 8];
        for (on, (byte, bit)) in
            [(self.fast, FAST_BIT), (self.extended, EXTENDED_BIT), (self.v2, V2_BIT)]
        {
            reserved[byte] |= if on { bit } else { 0 };
        }
        reserved
    }
}

/// A peer id of ours (BEP 20): different seeds make different ids.
#[must_use]
pub fn peer_id(seed: u64) -> [u8; 20] {
    // 12 characters of 6 bits hold the 64 bits of one mixed seed whole, and 8 of a second one.
    let mut bits = u128::from(mix(seed)) | u128::from(mix(!seed)) << 64;
    let mut id = [0; 20];
    id[..CLIENT.len()].copy_from_slice(CLIENT);
    for byte in &mut id[CLIENT.len()..] {
        *byte = ALPHABET[(bits & 63) as usize];
        bits >>= 6;
    }
    id
}

/// Whether a peer id is that of a BootTorrent that speaks our protocol version. A claim, not a
/// proof: whoever lies here only takes part in revealing.
#[must_use]
pub fn is_own(peer_id: &[u8; 20]) -> bool {
    // Baidu Netdisk also calls itself BN, but with version 0001: never start a protocol 00.
    peer_id[..CLIENT_PROTOCOL_LEN] == CLIENT[..CLIENT_PROTOCOL_LEN]
        && peer_id[5..7].iter().all(u8::is_ascii_digit)
        && peer_id[7] == b'-'
}

/// The finaliser of SplitMix64 after one step of it: one-to-one, and neighbours end far apart.
const fn mix(seed: u64) -> u64 {
    let mut bits = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// The `N` bytes from `at` on, if they are all there.
fn array_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALL: Features = Features { fast: true, extended: true, v2: true };

    fn sample() -> Handshake {
        Handshake { features: ALL, infohash: [0xaa; 20], peer_id: *b"-BN0100-abcdefghijkl" }
    }

    #[test]
    fn handshake_is_laid_out_as_bep_3_says() {
        let mut expect = b"\x13BitTorrent protocol".to_vec();
        expect.extend_from_slice(&[0, 0, 0, 0, 0, 0x10, 0, 0x14]);
        expect.extend_from_slice(&[0xaa; 20]);
        expect.extend_from_slice(b"-BN0100-abcdefghijkl");
        assert_eq!(sample().encode().to_vec(), expect);
    }

    #[test]
    fn each_feature_is_a_bit_of_its_own() {
        let check = |fast, extended, v2, expect: [u8; 8]| {
            let features = Features { fast, extended, v2 };
            assert_eq!(features.encode(), expect);
            assert_eq!(Features::decode(expect), features);
        };
        check(true, false, false, [0, 0, 0, 0, 0, 0, 0, 0x04]);
        check(false, true, false, [0, 0, 0, 0, 0, 0x10, 0, 0]);
        check(false, false, true, [0, 0, 0, 0, 0, 0, 0, 0x10]);
    }

    #[test]
    fn unknown_reserved_bits_are_ignored() {
        assert_eq!(Features::decode([0xff; 8]), ALL);
    }

    #[test]
    fn every_prefix_is_incomplete_and_tells_the_infohash_early() {
        let bytes = sample().encode();
        for len in 0..HANDSHAKE_LEN {
            let infohash = (len >= 48).then_some([0xaa; 20]);
            let expect = Ok(HandshakeProgress::Incomplete { infohash });
            assert_eq!(Handshake::decode(&bytes[..len]), expect, "{len} bytes");
        }
        let mut more = bytes.to_vec();
        more.push(0);
        assert_eq!(Handshake::decode(&more), Ok(HandshakeProgress::Done(sample())));
    }

    #[test]
    fn first_wrong_byte_ends_it() {
        for at in 0..20 {
            let mut bytes = sample().encode();
            bytes[at] ^= 0x20;
            let byte = bytes[at];
            let expect = Err(HandshakeError { at, byte });
            assert_eq!(Handshake::decode(&bytes[..=at]), expect);
            assert_eq!(Handshake::decode(&bytes), expect);
        }
    }

    #[test]
    fn own_peers_are_known_by_protocol_version() {
        let check = |id: &[u8; 20], expect: bool| {
            assert_eq!(is_own(id), expect, "{}", id.escape_ascii());
        };
        check(&peer_id(1), true);
        check(b"-BN0199-abcdefghijkl", true);
        check(b"-BN0200-abcdefghijkl", false);
        check(b"-BN01xy-abcdefghijkl", false);
        check(b"-BN0100xabcdefghijkl", false);
        check(b"-BN0001-abcdefghijkl", false);
        check(b"-TR4100-abcdefghijkl", false);
    }

    #[test]
    fn peer_ids_are_readable_and_differ() {
        let ids: std::collections::BTreeSet<_> = (0..1000).map(peer_id).collect();
        assert_eq!(ids.len(), 1000);
        for id in ids {
            assert!(id[8..].iter().all(|byte| ALPHABET.contains(byte)));
        }
    }

    #[test]
    fn both_sides_must_have_a_feature() {
        let none = Features::default();
        let check = |theirs, ours, v2_infohash, fast, v2| {
            let mut handshake = sample();
            handshake.features = theirs;
            let traits = handshake.traits(ours, v2_infohash);
            assert_eq!((traits.fast, traits.v2), (fast, v2));
            assert!(traits.own);
        };
        check(ALL, ALL, false, true, true);
        check(ALL, none, false, false, false);
        check(none, ALL, false, false, false);
        check(none, none, true, false, true);
    }

    proptest! {
        #[test]
        fn handshakes_survive_the_wire(fast: bool, extended: bool, v2: bool,
                                       infohash: [u8; 20], peer_id: [u8; 20]) {
            let features = Features { fast, extended, v2 };
            let handshake = Handshake { features, infohash, peer_id };
            prop_assert_eq!(
                Handshake::decode(&handshake.encode()),
                Ok(HandshakeProgress::Done(handshake))
            );
        }
    }
}
