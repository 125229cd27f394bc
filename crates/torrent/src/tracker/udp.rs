//! The UDP tracker protocol (BEP 15): packets of both directions, and the connection ids by which a
//! server knows that an address is not forged.
//!
//! Not the retransmission of the client; that is the driver's. Options after an announce (BEP 41)
//! are ignored. All integers are in network order.

use std::net::IpAddr;
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::compact;
use super::{
    AnnounceRequest, AnnounceResponse, Event, RESPONSE_PEERS_MAX, ResponsePeer, SCRAPE_MAX,
    ScrapeStats,
};
use crate::Time;

/// The largest packet that we send: no IP fragments on Ethernet with IPv6 (1500 - 40 - 8).
pub const PACKET_LEN_MAX: usize = 1452;

const PROTOCOL: u64 = 0x0417_2710_1980;
const CONNECT: u32 = 0;
const ANNOUNCE: u32 = 1;
const SCRAPE: u32 = 2;
const ERROR: u32 = 3;

/// The time in which a connection id stays the same.
const CONNECTION_PERIOD: Duration = Duration::from_secs(60);
/// BEP 15: accepted "until two minutes after it has been sent": the period of its issue and two more.
const CONNECTION_PERIODS: u64 = 2;

/// The address family of the packet, which decides how long a peer is in a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// 6 bytes a peer.
    V4,
    /// 18 bytes a peer.
    V6,
}

impl Family {
    /// The family of a peer that we speak to; a mapped IPv4 address is IPv4.
    #[must_use]
    pub const fn of(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }
}

/// What a client sends.
///
/// ```text
/// connect    0 protocol(8) 8 action(4)=0 12 transaction(4)
/// announce   0 connection(8) 8 action(4)=1 12 transaction(4) 16 info_hash(20) 36 peer_id(20)
///            56 downloaded(8) 64 left(8) 72 uploaded(8) 80 event(4) 84 ip(4) 88 key(4)
///            92 num_want(4) 96 port(2)
/// scrape     0 connection(8) 8 action(4)=2 12 transaction(4) 16 info_hash(20)…
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Asks for a connection id.
    Connect {
        /// Chosen by the client, repeated in the response.
        transaction: u32,
    },
    /// Announces. The `ip` field is never believed and sent as 0.
    Announce {
        /// From the response to `Connect`.
        connection: u64,
        /// As above.
        transaction: u32,
        /// What the peer says. `left` is always there.
        request: AnnounceRequest,
    },
    /// Asks for figures.
    Scrape {
        /// From the response to `Connect`.
        connection: u64,
        /// As above.
        transaction: u32,
        /// At most [`SCRAPE_MAX`] torrents when read, 71 when sent.
        info_hashes: Vec<[u8; 20]>,
    },
}

/// What a server sends.
///
/// ```text
/// connect    0 action(4)=0 4 transaction(4) 8 connection(8)
/// announce   0 action(4)=1 4 transaction(4) 8 interval(4) 12 leechers(4) 16 seeders(4) 20 peer(6|18)…
/// scrape     0 action(4)=2 4 transaction(4) 8 [seeders(4) completed(4) leechers(4)]…
/// error      0 action(4)=3 4 transaction(4) 8 message…
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Response {
    /// A connection id.
    Connect {
        /// As in the request.
        transaction: u32,
        /// To be used within a minute.
        connection: u64,
    },
    /// The handout. Only interval, counts and peers of the packet's family travel.
    Announce {
        /// As in the request.
        transaction: u32,
        /// The answer.
        response: AnnounceResponse,
    },
    /// Figures, in the order of the request.
    Scrape {
        /// As in the request.
        transaction: u32,
        /// One for each torrent.
        stats: Vec<ScrapeStats>,
    },
    /// A refusal.
    Error {
        /// As in the request.
        transaction: u32,
        /// For a human.
        message: String,
    },
}

/// What is wrong with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// It ends too early.
    #[error("packet is too short")]
    Short,
    /// An action that BEP 15 does not know, or another protocol.
    #[error("packet is not of the UDP tracker protocol")]
    Action,
    /// An announce with port 0.
    #[error("port is zero")]
    Port,
    /// A list that is not whole entries, is empty or has too many.
    #[error("packet has a broken list")]
    List,
}

impl Request {
    /// Reads a packet that came to a server.
    ///
    /// # Errors
    /// If it is none. Whether the connection id is good must still be asked.
    pub fn decode(packet: &[u8]) -> Result<Self, DecodeError> {
        let mut rest = packet;
        let connection = u64::from_be_bytes(take(&mut rest)?);
        let action = u32::from_be_bytes(take(&mut rest)?);
        let transaction = u32::from_be_bytes(take(&mut rest)?);
        match action {
            CONNECT if connection == PROTOCOL => Ok(Self::Connect { transaction }),
            ANNOUNCE => {
                Ok(Self::Announce { connection, transaction, request: decode_announce(rest)? })
            }
            SCRAPE => {
                let (hashes, surplus) = rest.as_chunks::<20>();
                if !surplus.is_empty() || !(1..=SCRAPE_MAX).contains(&hashes.len()) {
                    return Err(DecodeError::List);
                }
                Ok(Self::Scrape { connection, transaction, info_hashes: hashes.to_vec() })
            }
            _ => Err(DecodeError::Action),
        }
    }

    /// The packet.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(98);
        match self {
            Self::Connect { transaction } => head(&mut out, PROTOCOL, CONNECT, *transaction),
            Self::Announce { connection, transaction, request } => {
                head(&mut out, *connection, ANNOUNCE, *transaction);
                encode_announce(request, &mut out);
            }
            Self::Scrape { connection, transaction, info_hashes } => {
                head(&mut out, *connection, SCRAPE, *transaction);
                for hash in info_hashes.iter().take((PACKET_LEN_MAX - 16) / 20) {
                    out.extend_from_slice(hash);
                }
            }
        }
        out
    }
}

fn head(out: &mut Vec<u8>, connection: u64, action: u32, transaction: u32) {
    out.extend_from_slice(&connection.to_be_bytes());
    out.extend_from_slice(&action.to_be_bytes());
    out.extend_from_slice(&transaction.to_be_bytes());
}

fn decode_announce(mut rest: &[u8]) -> Result<AnnounceRequest, DecodeError> {
    let rest = &mut rest;
    let info_hash = take(rest)?;
    let peer_id = take(rest)?;
    let downloaded = u64::from_be_bytes(take(rest)?);
    let left = u64::from_be_bytes(take(rest)?);
    let uploaded = u64::from_be_bytes(take(rest)?);
    let event = match u32::from_be_bytes(take(rest)?) {
        1 => Event::Completed,
        2 => Event::Started,
        3 => Event::Stopped,
        _ => Event::Regular,
    };
    let _ip: [u8; 4] = take(rest)?;
    let key = u32::from_be_bytes(take(rest)?);
    let numwant = i32::from_be_bytes(take(rest)?);
    let port = u16::from_be_bytes(take(rest)?);
    if port == 0 {
        return Err(DecodeError::Port);
    }
    Ok(AnnounceRequest {
        info_hash,
        peer_id,
        port,
        uploaded,
        downloaded,
        left: Some(left),
        event,
        // -1 is the default by BEP 15.
        numwant: u32::try_from(numwant).ok(),
        key: Some(key),
    })
}

fn encode_announce(request: &AnnounceRequest, out: &mut Vec<u8>) {
    out.extend_from_slice(&request.info_hash);
    out.extend_from_slice(&request.peer_id);
    out.extend_from_slice(&request.downloaded.to_be_bytes());
    out.extend_from_slice(&request.left.unwrap_or(u64::MAX).to_be_bytes());
    out.extend_from_slice(&request.uploaded.to_be_bytes());
    let event: u32 = match request.event {
        Event::Regular => 0,
        Event::Completed => 1,
        Event::Started => 2,
        Event::Stopped => 3,
    };
    out.extend_from_slice(&event.to_be_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&request.key.unwrap_or(0).to_be_bytes());
    let numwant = request.numwant.map_or(-1, |want| i32::try_from(want).unwrap_or(i32::MAX));
    out.extend_from_slice(&numwant.to_be_bytes());
    out.extend_from_slice(&request.port.to_be_bytes());
}

impl Response {
    /// Reads a packet that came to a client over `family`.
    ///
    /// # Errors
    /// If it is none.
    pub fn decode(packet: &[u8], family: Family) -> Result<Self, DecodeError> {
        let mut rest = packet;
        let action = u32::from_be_bytes(take(&mut rest)?);
        let transaction = u32::from_be_bytes(take(&mut rest)?);
        match action {
            CONNECT => {
                Ok(Self::Connect { transaction, connection: u64::from_be_bytes(take(&mut rest)?) })
            }
            ANNOUNCE => {
                Ok(Self::Announce { transaction, response: decode_response(rest, family)? })
            }
            SCRAPE => {
                let (entries, surplus) = rest.as_chunks::<12>();
                if !surplus.is_empty() || entries.len() > SCRAPE_MAX {
                    return Err(DecodeError::List);
                }
                let stats = entries
                    .iter()
                    .map(|entry| {
                        let mut entry = &entry[..];
                        Ok(ScrapeStats {
                            complete: u32::from_be_bytes(take(&mut entry)?),
                            downloaded: u32::from_be_bytes(take(&mut entry)?),
                            incomplete: u32::from_be_bytes(take(&mut entry)?),
                        })
                    })
                    .collect::<Result<_, _>>()?;
                Ok(Self::Scrape { transaction, stats })
            }
            ERROR => Ok(Self::Error { transaction, message: super::http::text(rest) }),
            _ => Err(DecodeError::Action),
        }
    }

    /// The packet to a peer of `family`, at most [`PACKET_LEN_MAX`] bytes: peers of the other
    /// family, and those that do not fit, are left out.
    #[must_use]
    pub fn encode(&self, family: Family) -> Vec<u8> {
        let mut out = Vec::with_capacity(128);
        let mut head = |action: u32, transaction: u32| {
            out.extend_from_slice(&action.to_be_bytes());
            out.extend_from_slice(&transaction.to_be_bytes());
        };
        match self {
            Self::Connect { transaction, connection } => {
                head(CONNECT, *transaction);
                out.extend_from_slice(&connection.to_be_bytes());
            }
            Self::Announce { transaction, response } => {
                head(ANNOUNCE, *transaction);
                encode_response(response, family, &mut out);
            }
            Self::Scrape { transaction, stats } => {
                head(SCRAPE, *transaction);
                for stats in stats.iter().take(SCRAPE_MAX) {
                    for count in [stats.complete, stats.downloaded, stats.incomplete] {
                        out.extend_from_slice(&count.to_be_bytes());
                    }
                }
            }
            Self::Error { transaction, message } => {
                head(ERROR, *transaction);
                out.extend_from_slice(message.as_bytes());
                out.truncate(PACKET_LEN_MAX);
            }
        }
        out
    }

    /// The number by which a client finds its request.
    #[must_use]
    pub const fn transaction(&self) -> u32 {
        match self {
            Self::Connect { transaction, .. }
            | Self::Announce { transaction, .. }
            | Self::Scrape { transaction, .. }
            | Self::Error { transaction, .. } => *transaction,
        }
    }
}

fn decode_response(mut rest: &[u8], family: Family) -> Result<AnnounceResponse, DecodeError> {
    let interval = u32::from_be_bytes(take(&mut rest)?);
    let incomplete = u32::from_be_bytes(take(&mut rest)?);
    let complete = u32::from_be_bytes(take(&mut rest)?);
    let addrs = match family {
        Family::V4 => compact::decode_v4(rest, RESPONSE_PEERS_MAX),
        Family::V6 => compact::decode_v6(rest, RESPONSE_PEERS_MAX),
    };
    let peer = |addr| ResponsePeer { addr, peer_id: None };
    Ok(AnnounceResponse {
        interval: Duration::from_secs(interval.into()),
        complete: Some(complete),
        incomplete: Some(incomplete),
        peers: addrs.ok_or(DecodeError::List)?.into_iter().map(peer).collect(),
        ..AnnounceResponse::default()
    })
}

fn encode_response(response: &AnnounceResponse, family: Family, out: &mut Vec<u8>) {
    let interval = u32::try_from(response.interval.as_secs()).unwrap_or(u32::MAX);
    for field in [interval, response.incomplete.unwrap_or(0), response.complete.unwrap_or(0)] {
        out.extend_from_slice(&field.to_be_bytes());
    }
    let entry_len = match family {
        Family::V4 => compact::V4_LEN,
        Family::V6 => compact::V6_LEN,
    };
    let room = (PACKET_LEN_MAX - out.len()) / entry_len;
    let addrs =
        response.peers.iter().map(|peer| peer.addr).filter(|addr| Family::of(addr.ip()) == family);
    compact::encode(addrs.take(room), out);
}

/// The first `N` bytes, taken off.
fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], DecodeError> {
    let (head, tail) = rest.split_first_chunk().ok_or(DecodeError::Short)?;
    *rest = tail;
    Ok(*head)
}

/// Connection ids without a table: a keyed hash of the address and the time, so that a stranger
/// makes nothing grow, and cannot speak for an address at which he does not receive.
#[derive(Clone)]
pub struct ConnectionIds {
    secret: [u8; 32],
}

impl std::fmt::Debug for ConnectionIds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ConnectionIds")
    }
}

impl ConnectionIds {
    /// Ids that hang on `secret`, which must come from the system's randomness.
    #[must_use]
    pub const fn new(secret: [u8; 32]) -> Self {
        Self { secret }
    }

    /// The id for a client at `ip`.
    #[must_use]
    pub fn issue(&self, now: Time, ip: IpAddr) -> u64 {
        self.hash(period(now), ip)
    }

    /// Whether `id` was issued to `ip` within the last two minutes (at most three).
    #[must_use]
    pub fn accepts(&self, now: Time, ip: IpAddr, id: u64) -> bool {
        let period = period(now);
        (period.saturating_sub(CONNECTION_PERIODS)..=period)
            .any(|period| self.hash(period, ip) == id)
    }

    /// Secret and message have fixed lengths and 64 of 256 bits are shown, so plain SHA-256 with
    /// the secret in front is a sound MAC here.
    fn hash(&self, period: u64, ip: IpAddr) -> u64 {
        let octets = match ip.to_canonical() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
            IpAddr::V6(ip) => ip.octets(),
        };
        let digest = Sha256::new()
            .chain_update(self.secret)
            .chain_update(period.to_be_bytes())
            .chain_update(octets)
            .finalize();
        let mut id = [0; 8];
        id.copy_from_slice(&digest[..8]);
        u64::from_be_bytes(id)
    }
}

fn period(now: Time) -> u64 {
    now.since(Time::ZERO).as_secs() / CONNECTION_PERIOD.as_secs()
}

#[cfg(test)]
#[path = "udp_tests.rs"]
mod tests;
