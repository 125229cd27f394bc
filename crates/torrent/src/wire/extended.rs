//! Extension messages that are bencoded: the extended handshake (BEP 10, with `upload_only` of
//! BEP 21 and our own `bt_unit`) and peer exchange (BEP 11).
//!
//! `bt_unit` is how peers of ours announce units, which may be smaller than pieces. In the
//! handshake, `bt_unit` in `m` numbers the extension and the key `unit` tells the length of the
//! sender's units in bytes; the message itself, [`Message::HaveUnit`](super::Message::HaveUnit), is
//! the index of a unit in 4 bytes, big-endian. Peers whose units differ in length fall back to
//! `have`.
//!
//! Keys that we do not know are skipped, and a value of the wrong type is as good as absent: an
//! extension that we cannot read is one that the peer does not have. Metadata is never taken from
//! peers (BEP 9), so `metadata_size` is such a key.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU8;
use std::time::Duration;

use super::compact::{self, CompactError};
use super::dict::{Dict, DictError, push_bytes, push_int};
use super::message::ExtensionIds;
use crate::geometry::PIECE_LEN_MAX;

/// The most characters of a client's name that are kept: it only goes to logs and tables.
pub const CLIENT_NAME_LEN_MAX: usize = 64;

/// The most peers added, and the most dropped, in one peer exchange (BEP 11). More, as BEP 11 allows
/// in the first one, are not sent and not read: a mesh has a dozen neighbours at most.
pub const PEX_PEERS_MAX: usize = 50;

/// The shortest time between two peer exchanges to one peer (BEP 11: one a minute).
pub const PEX_INTERVAL_MIN: Duration = Duration::from_secs(60);

const PEX: &[u8] = b"ut_pex";
const UNIT: &[u8] = b"bt_unit";

/// The extended handshake (BEP 10): payload of an extended message number 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExtendedHandshake {
    /// `m`, `ut_pex`: the sender's number for it; 0 switches it off, absent leaves it as it was.
    pub pex_id: Option<u8>,
    /// `m`, `bt_unit`: likewise.
    pub unit_id: Option<u8>,
    /// `unit`: bytes of the sender's units, from 1 to [`PIECE_LEN_MAX`]; only together with a
    /// `unit_id` other than 0.
    pub unit_len: Option<u32>,
    /// `v`: name and version of the client, at most [`CLIENT_NAME_LEN_MAX`] characters, all of them
    /// printable.
    pub client: Option<String>,
    /// `p`: where the sender listens.
    pub port: Option<u16>,
    /// `yourip`: the receiver's address as the sender sees it.
    pub your_ip: Option<IpAddr>,
    /// `reqq`: how many requests the sender queues.
    pub request_queue_len: Option<u32>,
    /// `upload_only` (BEP 21): the sender will not download any more.
    pub upload_only: bool,
}

impl ExtendedHandshake {
    /// Reads the payload.
    ///
    /// # Errors
    /// If it is not a dictionary.
    pub fn decode(payload: &[u8]) -> Result<Self, DictError> {
        let dict = Dict::decode(payload)?;
        let extension = |name| u8::try_from(dict.dict(b"m")?.int(name)?).ok();
        let unit_id = extension(UNIT);
        let unit_len = (dict.int(b"unit"))
            .and_then(|len| u32::try_from(len).ok())
            .filter(|len| (1..=PIECE_LEN_MAX).contains(len))
            .filter(|_| unit_id.is_some_and(|id| id != 0));
        Ok(Self {
            pex_id: extension(PEX),
            unit_id,
            unit_len,
            client: dict.bytes(b"v").map(printable),
            port: dict.int(b"p").and_then(port),
            your_ip: dict.bytes(b"yourip").and_then(ip),
            request_queue_len: dict.int(b"reqq").and_then(|len| u32::try_from(len).ok()),
            upload_only: dict.int(b"upload_only").is_some_and(|value| value != 0),
        })
    }

    /// Appends the payload.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"d1:md");
        for (name, id) in [(UNIT, self.unit_id), (PEX, self.pex_id)] {
            if let Some(id) = id {
                push_int(out, name, u32::from(id));
            }
        }
        out.push(b'e');
        if let Some(port) = self.port {
            push_int(out, b"p", u32::from(port));
        }
        if let Some(len) = self.request_queue_len {
            push_int(out, b"reqq", len);
        }
        if let Some(len) = self.unit_len {
            push_int(out, b"unit", len);
        }
        if self.upload_only {
            push_int(out, b"upload_only", 1);
        }
        if let Some(client) = &self.client {
            push_bytes(out, b"v");
            push_bytes(out, client.as_bytes());
        }
        if let Some(ip) = self.your_ip {
            push_bytes(out, b"yourip");
            match ip {
                IpAddr::V4(ip) => push_bytes(out, &ip.octets()),
                IpAddr::V6(ip) => push_bytes(out, &ip.octets()),
            }
        }
        out.push(b'e');
    }
}

impl ExtensionIds {
    /// Takes over what a peer's handshake says; BEP 10 lets it send several, each changing only what
    /// it mentions.
    pub fn update(&mut self, handshake: &ExtendedHandshake) {
        if let Some(id) = handshake.pex_id {
            self.pex = NonZeroU8::new(id);
        }
        if let Some(id) = handshake.unit_id {
            self.unit = NonZeroU8::new(id);
        }
    }
}

/// Invalid UTF-8 and control characters could garble a terminal.
fn printable(name: &[u8]) -> String {
    // A character has at most 4 bytes.
    let name = &name[..name.len().min(4 * CLIENT_NAME_LEN_MAX)];
    String::from_utf8_lossy(name)
        .chars()
        .filter(|char| !char.is_control())
        .take(CLIENT_NAME_LEN_MAX)
        .collect()
}

fn port(port: i64) -> Option<u16> {
    u16::try_from(port).ok().filter(|&port| port != 0)
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
        return Some(Ipv4Addr::from(octets).into());
    }
    let octets = <[u8; 16]>::try_from(bytes).ok()?;
    Some(Ipv6Addr::from(octets).to_canonical())
}

/// A peer that another is connected to (BEP 11, `added` and its flags).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PexPeer {
    /// Where it listens.
    pub addr: SocketAddr,
    /// 0x01 prefers encryption, [`Self::SEED`], 0x04 uTP, 0x08 hole punching, [`Self::REACHABLE`].
    pub flags: u8,
}

impl PexPeer {
    /// It has everything, or will not download any more.
    pub const SEED: u8 = 0x02;
    /// The sender dialled it, so its address is right.
    pub const REACHABLE: u8 = 0x10;
}

/// A peer exchange (BEP 11): payload of an extended message. What has changed in the sender's
/// connections since its last one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pex {
    /// New connections: at most [`PEX_PEERS_MAX`], IPv4 first.
    pub added: Vec<PexPeer>,
    /// Connections gone: at most [`PEX_PEERS_MAX`], IPv4 first.
    pub dropped: Vec<SocketAddr>,
}

/// A peer exchange that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PexError {
    /// Not a dictionary.
    #[error("peer exchange cannot be read")]
    Dict(#[from] DictError),
    /// Not a list of peers.
    #[error("peer exchange has a torn list")]
    Peers(#[from] CompactError),
}

impl Pex {
    /// Reads the payload. Addresses that nobody can dial, and peers beyond [`PEX_PEERS_MAX`], are
    /// left out.
    ///
    /// # Errors
    /// If it is not a dictionary, or a list in it not a whole number of peers.
    pub fn decode(payload: &[u8]) -> Result<Self, PexError> {
        let dict = Dict::decode(payload)?;
        let bytes = |key| dict.bytes(key).unwrap_or_default();
        // Flags that are missing are zero.
        let flags = |key| bytes(key).iter().copied().chain(std::iter::repeat(0));
        let v4 = compact::decode_v4(bytes(b"added"))?.zip(flags(b"added.f"));
        let v6 = compact::decode_v6(bytes(b"added6"))?.zip(flags(b"added6.f"));
        let added = v4
            .chain(v6)
            .map(|(addr, flags)| PexPeer { addr, flags })
            .filter(|peer| compact::is_dialable(peer.addr))
            .take(PEX_PEERS_MAX)
            .collect();
        let dropped = compact::decode_v4(bytes(b"dropped"))?
            .chain(compact::decode_v6(bytes(b"dropped6"))?)
            .filter(|&addr| compact::is_dialable(addr))
            .take(PEX_PEERS_MAX)
            .collect();
        Ok(Self { added, dropped })
    }

    /// Appends the payload.
    ///
    /// # Panics
    /// If more than [`PEX_PEERS_MAX`] peers are added, or dropped.
    pub fn encode(&self, out: &mut Vec<u8>) {
        assert!(self.added.len() <= PEX_PEERS_MAX && self.dropped.len() <= PEX_PEERS_MAX);
        let (mut added, mut added6) = (vec![], vec![]);
        let (mut flags, mut flags6) = (vec![], vec![]);
        for peer in &self.added {
            compact::encode(peer.addr, &mut added, &mut added6);
            let is_v4 = peer.addr.ip().to_canonical().is_ipv4();
            if is_v4 { &mut flags } else { &mut flags6 }.push(peer.flags);
        }
        let (mut dropped, mut dropped6) = (vec![], vec![]);
        for &addr in &self.dropped {
            compact::encode(addr, &mut dropped, &mut dropped6);
        }
        out.push(b'd');
        for (key, value) in [
            (&b"added"[..], added),
            (b"added.f", flags),
            (b"added6", added6),
            (b"added6.f", flags6),
            (b"dropped", dropped),
            (b"dropped6", dropped6),
        ] {
            push_bytes(out, key);
            push_bytes(out, &value);
        }
        out.push(b'e');
    }

    /// Whether there is nothing to tell; do not send it then (some clients hang up on an empty one).
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.added.is_empty() && self.dropped.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> ExtendedHandshake {
        ExtendedHandshake {
            pex_id: Some(1),
            unit_id: Some(2),
            unit_len: Some(65_536),
            client: Some("BootTorrent 0.1.0".into()),
            port: Some(6881),
            your_ip: Some([10, 0, 1, 2].into()),
            request_queue_len: Some(500),
            upload_only: true,
        }
    }

    const SAMPLE: &[u8] = b"d1:md7:bt_uniti2e6:ut_pexi1ee1:pi6881e4:reqqi500e4:uniti65536e\
        11:upload_onlyi1e1:v17:BootTorrent 0.1.06:yourip4:\x0a\x00\x01\x02e";

    fn decoded(payload: &[u8]) -> ExtendedHandshake {
        ExtendedHandshake::decode(payload).unwrap()
    }

    fn encoded(handshake: &ExtendedHandshake) -> Vec<u8> {
        let mut out = vec![];
        handshake.encode(&mut out);
        out
    }

    #[test]
    fn our_handshake_has_sorted_keys() {
        assert_eq!(
            encoded(&sample()).escape_ascii().to_string(),
            SAMPLE.escape_ascii().to_string()
        );
        assert_eq!(decoded(SAMPLE), sample());
    }

    #[test]
    fn empty_handshake_is_still_a_handshake() {
        assert_eq!(encoded(&ExtendedHandshake::default()), b"d1:mdee");
        assert_eq!(decoded(b"de"), ExtendedHandshake::default());
    }

    #[test]
    fn foreign_handshakes_are_understood() {
        let handshake = decoded(
            b"d12:complete_agoi-1e1:md11:lt_donthavei7e10:share_modei8e11:upload_onlyi3e\
              12:ut_holepunchi4e11:ut_metadatai2e6:ut_pexi1ee13:metadata_sizei31235e\
              4:reqqi2000e1:v18:libtorrent/2.0.8.06:yourip16:\
              \x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\x0a\x00\x01\x02e",
        );
        let expect = ExtendedHandshake {
            pex_id: Some(1),
            client: Some("libtorrent/2.0.8.0".into()),
            your_ip: Some([10, 0, 1, 2].into()),
            request_queue_len: Some(2000),
            ..ExtendedHandshake::default()
        };
        assert_eq!(handshake, expect);
    }

    #[test]
    fn absurd_values_are_as_good_as_absent() {
        let check = |payload: &[u8]| {
            let shown = payload.escape_ascii();
            assert_eq!(decoded(payload), ExtendedHandshake::default(), "{shown}");
        };
        check(b"d1:pi0ee");
        check(b"d1:pi65536ee");
        check(b"d1:pi-1ee");
        check(b"d1:p4:6881e");
        check(b"d4:reqqi-1ee");
        check(b"d4:reqqi4294967296ee");
        check(b"d1:mi1ee");
        check(b"d1:md6:ut_pexi256eee");
        check(b"d6:yourip5:12345e");
        check(b"d4:uniti16384ee");
        check(b"d11:upload_onlyi0ee");
    }

    #[test]
    fn unit_needs_a_length_and_a_number() {
        let check = |payload: &[u8], expect| assert_eq!(decoded(payload).unit_len, expect);
        check(b"d1:md7:bt_uniti3ee4:uniti16384ee", Some(16_384));
        check(b"d1:md7:bt_uniti0ee4:uniti16384ee", None);
        check(b"d1:md7:bt_uniti3ee4:uniti0ee", None);
        check(b"d1:md7:bt_uniti3ee4:uniti134217729ee", None);
    }

    #[test]
    fn names_cannot_garble_a_terminal() {
        assert_eq!(decoded(b"d1:v6:\x1b[2Ja\ne").client.unwrap(), "[2Ja");
        let long = [b"d1:v1000:", &b"x".repeat(1000)[..], b"e"].concat();
        assert_eq!(decoded(&long).client.unwrap(), "x".repeat(CLIENT_NAME_LEN_MAX));
    }

    #[test]
    fn later_handshakes_change_only_what_they_mention() {
        let id = NonZeroU8::new;
        let mut ids = ExtensionIds::default();
        for (payload, pex, unit) in [
            (&b"d1:md6:ut_pexi7eee"[..], id(7), None),
            (b"d1:md7:bt_uniti9eee", id(7), id(9)),
            (b"de", id(7), id(9)),
            (b"d1:md6:ut_pexi0eee", None, id(9)),
        ] {
            ids.update(&decoded(payload));
            assert_eq!(ids, ExtensionIds { pex, unit });
        }
    }

    fn peer(addr: &str, flags: u8) -> PexPeer {
        let addr = addr.parse().unwrap();
        PexPeer { addr, flags }
    }

    #[test]
    fn peer_exchange_is_laid_out_as_bep_11_says() {
        let pex = Pex {
            added: vec![
                peer("10.0.1.2:6881", PexPeer::REACHABLE),
                peer("[fd00::2]:80", PexPeer::SEED),
            ],
            dropped: vec!["10.0.1.3:6881".parse().unwrap()],
        };
        let payload = b"d5:added6:\x0a\x00\x01\x02\x1a\xe17:added.f1:\x10\
            6:added618:\xfd\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x02\0\x508:added6.f1:\x02\
            7:dropped6:\x0a\x00\x01\x03\x1a\xe18:dropped60:e";
        let mut out = vec![];
        pex.encode(&mut out);
        assert_eq!(out.escape_ascii().to_string(), payload.escape_ascii().to_string());
        assert_eq!(Pex::decode(payload), Ok(pex));
    }

    #[test]
    fn missing_flags_are_zero_and_bad_addresses_are_left_out() {
        let payload = b"d5:added18:\0\0\0\0\0\x01\x0a\0\0\x01\0\x01\x0a\0\0\x02\0\x01\
            7:added.f2:\x01\x02e";
        let expect = vec![peer("10.0.0.1:1", 2), peer("10.0.0.2:1", 0)];
        assert_eq!(Pex::decode(payload).unwrap().added, expect);
    }

    #[test]
    fn surplus_peers_are_not_read() {
        let list = [10, 0, 0, 1, 0, 1].repeat(60);
        let payload = [b"d5:added360:", &list[..], b"7:dropped360:", &list, b"e"].concat();
        let pex = Pex::decode(&payload).unwrap();
        assert_eq!((pex.added.len(), pex.dropped.len()), (50, 50));
    }

    #[test]
    fn torn_exchanges_are_refused() {
        assert_eq!(
            Pex::decode(b"d5:added5:12345e"),
            Err(PexError::Peers(CompactError { len: 5, peer_len: 6 }))
        );
        assert_eq!(Pex::decode(b"le"), Err(PexError::Dict(DictError::Malformed)));
        assert!(Pex::decode(b"de").unwrap().is_empty());
    }

    prop_compose! {
        fn handshakes()(pex_id: Option<u8>, unit_id: Option<u8>,
                        unit_len in prop::option::of(1..=PIECE_LEN_MAX),
                        client in prop::option::of("[ -~é]{0,64}"),
                        port in prop::option::of(1u16..), your_ip: Option<Ipv4Addr>,
                        request_queue_len: Option<u32>, upload_only: bool) -> ExtendedHandshake {
            let unit_len = unit_len.filter(|_| unit_id.is_some_and(|id| id != 0));
            let your_ip = your_ip.map(IpAddr::from);
            ExtendedHandshake {
                pex_id, unit_id, unit_len, client, port, your_ip, request_queue_len, upload_only,
            }
        }
    }

    proptest! {
        #[test]
        fn handshakes_survive_the_wire(handshake in handshakes()) {
            prop_assert_eq!(decoded(&encoded(&handshake)), handshake);
        }

        #[test]
        fn truncated_handshakes_are_refused(handshake in handshakes(), cut: prop::sample::Index) {
            let payload = encoded(&handshake);
            let cut = cut.index(payload.len());
            prop_assert!(ExtendedHandshake::decode(&payload[..cut]).is_err());
        }
    }
}
