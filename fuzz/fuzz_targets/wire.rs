//! A stream from a peer: the handshake, then messages. Reading never panics, never asks for more
//! than a message can have, does not depend on how much has arrived, and what was read is written
//! as it was read.
#![no_main]

use libfuzzer_sys::fuzz_target;
use torrent::Geometry;
use torrent::wire::{
    BUFFER_LEN_MAX, Decoded, ExtensionIds, HANDSHAKE_LEN, Handshake, HandshakeProgress, Limits,
    Message, decode,
};

fuzz_target!(|stream: &[u8]| {
    handshake(stream);
    // 20 pieces: bitfields of 3 bytes, with spare bits.
    let geometry = Geometry::contiguous(20 * 65_536, 65_536, 16_384).expect("fits");
    let limits = Limits::new(&geometry);
    let mut rest = stream;
    while let Some(used) = message(rest, &limits) {
        rest = rest.get(used..).unwrap_or_default();
    }
});

fn handshake(bytes: &[u8]) {
    let Ok(HandshakeProgress::Done(handshake)) = Handshake::decode(bytes) else {
        return;
    };
    let again = Handshake::decode(&handshake.encode());
    assert_eq!(again, Ok(HandshakeProgress::Done(handshake)));
    assert!(Handshake::decode(&bytes[..HANDSHAKE_LEN - 1]).is_ok());
}

/// Reads one message and checks it; gives the bytes that it took, payload of `piece` included.
fn message(bytes: &[u8], limits: &Limits) -> Option<usize> {
    let decoded = decode(bytes, limits);
    let (message, used) = match decoded.clone().ok()? {
        Decoded::Incomplete { need } => {
            assert!(need > bytes.len() && need <= BUFFER_LEN_MAX);
            return None;
        }
        Decoded::Piece { block, used } => (Message::Piece(block), used),
        Decoded::Message { message, used } => (message, used),
    };
    assert_eq!(decode(&bytes[..used], limits), decoded);
    assert!(matches!(
        decode(&bytes[..used - 1], limits),
        Ok(Decoded::Incomplete { need }) if need >= used
    ));
    let mut again = vec![];
    message.encode(ExtensionIds::OURS, &mut again);
    match message {
        // Its payload was skipped.
        Message::Unknown(_) => assert_eq!(again[4], bytes[4]),
        Message::Piece(block) => {
            assert_eq!(again, &bytes[..used]);
            return Some(used + block.len as usize);
        }
        _ => assert_eq!(again, &bytes[..used]),
    }
    Some(used)
}
