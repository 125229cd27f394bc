//! The peer wire protocol: BEP 3, 6 (fast), 10 (extensions), 11 (PEX), 20, 21 and 52 (hashes).

mod handshake;
mod message;

mod decode;

mod extended;

pub mod compact;
mod dict;

#[cfg(test)]
mod tests;

pub use decode::{
    BUFFER_LEN_MAX, DecodeError, Decoded, EXTENDED_LEN_MAX, HASHES_MAX, Limits, decode,
};
pub use dict::DictError;
pub use extended::{
    CLIENT_NAME_LEN_MAX, ExtendedHandshake, PEX_INTERVAL_MIN, PEX_PEERS_MAX, Pex, PexError, PexPeer,
};
pub use handshake::{
    Features, HANDSHAKE_LEN, Handshake, HandshakeError, HandshakeProgress, is_own, peer_id,
};
pub use message::{ExtensionIds, HashRange, Message};
