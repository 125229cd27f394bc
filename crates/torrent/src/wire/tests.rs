//! The messages between peers, written and read.

use super::message::id;
use super::*;
use crate::geometry::{BLOCK_LEN, Block, Geometry};
use proptest::prelude::*;

/// A torrent of 20 pieces, so that bitfields have 3 bytes.
fn limits() -> Limits {
    Limits::new(&Geometry::contiguous(20 * 65_536, 65_536, 16_384).unwrap())
}

fn encoded(message: &Message) -> Vec<u8> {
    let mut out = vec![];
    message.encode(ExtensionIds::OURS, &mut out);
    out
}

/// What reading a whole message gives: `piece` comes out as its head.
fn expected(message: &Message, used: usize) -> Decoded {
    match message.clone() {
        Message::Piece(block) => Decoded::Piece { block, used },
        message => Decoded::Message { message, used },
    }
}

const BLOCK: Block = Block { piece: 1, offset: 0x8000, len: 0x4000 };

const RANGE: HashRange =
    HashRange { pieces_root: [0xab; 32], base_layer: 0, index: 512, len: 2, proof_layers: 3 };

/// Every message with its bytes as hex, by hand from the BEPs.
fn golden() -> Vec<(Message, String)> {
    let root = "ab".repeat(32);
    let range = format!("{root}00000000000002000000000200000003");
    let two = vec![[0x11; 32], [0x22; 32]];
    let two_hex = format!("{}{}", "11".repeat(32), "22".repeat(32));
    let payload = b"de".to_vec();
    let hex = String::from;
    vec![
        (Message::KeepAlive, hex("00000000")),
        (Message::Choke, hex("0000000100")),
        (Message::Unchoke, hex("0000000101")),
        (Message::Interested, hex("0000000102")),
        (Message::NotInterested, hex("0000000103")),
        (Message::Have(0x0102), hex("000000050400000102")),
        (Message::Bitfield(vec![0xff, 0, 0x10]), hex("0000000405ff0010")),
        (Message::Request(BLOCK), hex("0000000d06000000010000800000004000")),
        (Message::Piece(BLOCK), hex("00004009070000000100008000")),
        (Message::Cancel(BLOCK), hex("0000000d08000000010000800000004000")),
        (Message::Port(6881), hex("00000003091ae1")),
        (Message::SuggestPiece(7), hex("000000050d00000007")),
        (Message::HaveAll, hex("000000010e")),
        (Message::HaveNone, hex("000000010f")),
        (Message::Reject(BLOCK), hex("0000000d10000000010000800000004000")),
        (Message::AllowedFast(7), hex("000000051100000007")),
        (Message::HashRequest(RANGE), format!("0000003115{range}")),
        (Message::Hashes(RANGE, two), format!("0000007116{range}{two_hex}")),
        (Message::HashReject(RANGE), format!("0000003117{range}")),
        (Message::Extended { id: 0, payload }, hex("0000000414006465")),
        (Message::HaveUnit(0x0102), hex("00000006140200000102")),
        (Message::Unknown(99), hex("0000000163")),
    ]
}

#[test]
fn each_message_has_its_bytes() {
    for (message, hex) in golden() {
        let bytes = encoded(&message);
        let shown: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(shown, hex, "{message:?}");
        let expect = Ok(expected(&message, bytes.len()));
        assert_eq!(decode(&bytes, &limits()), expect);
    }
}

#[test]
fn prefixes_ask_for_more_and_never_for_too_much() {
    for (message, _) in golden() {
        let bytes = encoded(&message);
        for len in 0..bytes.len() {
            let Ok(Decoded::Incomplete { need }) = decode(&bytes[..len], &limits()) else {
                panic!("{message:?} from {len} of its bytes");
            };
            assert!(need > len && need <= bytes.len(), "{message:?}: {need}");
        }
    }
}

#[test]
fn what_follows_a_message_is_left_alone() {
    for (message, _) in golden() {
        let mut bytes = encoded(&message);
        let used = bytes.len();
        bytes.extend_from_slice(&[0xff; 9]);
        assert_eq!(decode(&bytes, &limits()), Ok(expected(&message, used)));
    }
}

/// The error that a message of that number, length and enough zeros gives, if any.
fn error(id: u8, len: u32) -> Option<DecodeError> {
    let mut bytes = len.to_be_bytes().to_vec();
    bytes.push(id);
    bytes.resize(4 + len.min(200_000) as usize, 0);
    decode(&bytes, &limits()).err()
}

#[test]
fn every_message_has_an_exact_length() {
    let check = |id: u8, name: &'static str, right: &[u32], wrong: &[u32]| {
        for &len in right {
            assert_eq!(error(id, len), None, "{name} of {len}");
        }
        for &len in wrong {
            assert_eq!(error(id, len), Some(DecodeError::WrongLen { name, len }));
        }
    };
    check(id::CHOKE, "choke", &[1], &[2, 5]);
    check(id::UNCHOKE, "unchoke", &[1], &[2, 5]);
    check(id::INTERESTED, "interested", &[1], &[2, 5]);
    check(id::NOT_INTERESTED, "not interested", &[1], &[2, 5]);
    check(id::HAVE, "have", &[5], &[1, 4, 6]);
    check(id::BITFIELD, "bitfield", &[4], &[1, 3, 5, 131_073]);
    check(id::REQUEST, "request", &[13], &[1, 12, 14]);
    check(id::PIECE, "piece", &[10, 9 + BLOCK_LEN], &[1, 9, 10 + BLOCK_LEN]);
    check(id::CANCEL, "cancel", &[13], &[1, 12, 14]);
    check(id::PORT, "port", &[3], &[1, 2, 4]);
    check(id::SUGGEST_PIECE, "suggest piece", &[5], &[1, 4, 6]);
    check(id::HAVE_ALL, "have all", &[1], &[2, 5]);
    check(id::HAVE_NONE, "have none", &[1], &[2, 5]);
    check(id::REJECT, "reject", &[13], &[1, 12, 14]);
    check(id::ALLOWED_FAST, "allowed fast", &[5], &[1, 4, 6]);
    check(id::EXTENDED, "extended", &[2, 100, EXTENDED_LEN_MAX], &[1]);
    check(id::HASH_REQUEST, "hash request", &[49], &[1, 48, 50, 81]);
    let most = 49 + 32 * HASHES_MAX;
    check(id::HASHES, "hashes", &[49, 81, most], &[1, 17, 48, 50, 80, most + 32]);
    check(id::HASH_REJECT, "hash reject", &[49], &[1, 48, 50, 81]);
    check(99, "unknown", &[1, 2, EXTENDED_LEN_MAX], &[]);
}

#[test]
fn own_extension_has_an_exact_length() {
    let check = |len: u32| {
        let bytes = [&len.to_be_bytes()[..], &[id::EXTENDED, 2]].concat();
        let name = "bt_unit";
        assert_eq!(decode(&bytes, &limits()), Err(DecodeError::WrongLen { name, len }));
    };
    check(2);
    check(5);
    check(7);
    check(EXTENDED_LEN_MAX);
}

#[test]
fn oversize_is_found_in_the_first_four_bytes() {
    let check = |len: u32| {
        assert_eq!(decode(&len.to_be_bytes(), &limits()), Err(DecodeError::TooLong { len }));
    };
    check(EXTENDED_LEN_MAX + 1);
    check(u32::MAX);
    // An HTTP request that strayed to the port.
    let len = u32::from_be_bytes(*b"GET ");
    assert_eq!(decode(b"GET / HTTP/1.1", &limits()), Err(DecodeError::TooLong { len }));
}

#[test]
fn wrong_length_is_found_in_the_first_five_bytes() {
    let name = "bitfield";
    let len = 100_000;
    let bytes = [0x00, 0x01, 0x86, 0xa0, id::BITFIELD];
    assert_eq!(decode(&bytes, &limits()), Err(DecodeError::WrongLen { name, len }));
}

#[test]
fn unknown_messages_are_skipped_whole() {
    let bytes = [0, 0, 0, 3, 99, 1, 2, 0, 0, 0, 0];
    let message = Message::Unknown(99);
    assert_eq!(decode(&bytes, &limits()), Ok(Decoded::Message { message, used: 7 }));
}

#[test]
fn units_are_announced_by_the_receivers_number() {
    let mut out = vec![];
    let unit = std::num::NonZeroU8::new(0x63);
    let ids = ExtensionIds { pex: None, unit };
    Message::HaveUnit(5).encode(ids, &mut out);
    assert_eq!(out, [0, 0, 0, 6, 20, 0x63, 0, 0, 0, 5]);
}

#[test]
fn units_are_not_announced_to_strangers() {
    let mut out = vec![];
    Message::HaveUnit(5).encode(ExtensionIds::default(), &mut out);
    assert!(out.is_empty());
}

/// Reads a stream that arrives in parts of `step` bytes, as a driver would; payload of `piece` is
/// skipped.
fn read_all(stream: &[u8], step: usize) -> (Vec<Message>, Option<DecodeError>) {
    let (mut messages, mut at, mut arrived) = (vec![], 0, 0);
    loop {
        match decode(&stream[at.min(arrived)..arrived], &limits()) {
            Ok(Decoded::Message { message, used }) => {
                messages.push(message);
                at += used;
            }
            Ok(Decoded::Piece { block, used }) => {
                messages.push(Message::Piece(block));
                at += used + block.len as usize;
            }
            Ok(Decoded::Incomplete { .. }) if arrived < stream.len() => {
                arrived = (arrived + step).min(stream.len());
            }
            Ok(Decoded::Incomplete { .. }) => return (messages, None),
            Err(error) => return (messages, Some(error)),
        }
    }
}

#[test]
fn splits_do_not_change_what_is_read() {
    let (mut stream, mut messages) = (vec![], vec![]);
    for (message, _) in golden() {
        stream.extend_from_slice(&encoded(&message));
        if let Message::Piece(block) = message {
            stream.resize(stream.len() + block.len as usize, 0xee);
        }
        messages.push(message);
    }
    for step in [1, 2, 3, 7, 13, 1000, stream.len()] {
        assert_eq!(read_all(&stream, step), (messages.clone(), None));
    }
}

fn blocks() -> impl Strategy<Value = Block> {
    any::<(u32, u32, u32)>().prop_map(|(piece, offset, len)| Block { piece, offset, len })
}

fn ranges() -> impl Strategy<Value = HashRange> {
    any::<([u8; 32], [u32; 4])>().prop_map(|(pieces_root, numbers)| {
        let [base_layer, index, len, proof_layers] = numbers;
        HashRange { pieces_root, base_layer, index, len, proof_layers }
    })
}

fn messages() -> impl Strategy<Value = Message> {
    prop_oneof![
        prop::sample::select(golden()).prop_map(|(message, _)| message),
        any::<u32>().prop_map(Message::Have),
        any::<[u8; 3]>().prop_map(|bits| Message::Bitfield(bits.to_vec())),
        blocks().prop_map(Message::Request),
        (blocks(), 1..=BLOCK_LEN).prop_map(|(block, len)| Message::Piece(Block { len, ..block })),
        blocks().prop_map(Message::Cancel),
        blocks().prop_map(Message::Reject),
        any::<u16>().prop_map(Message::Port),
        any::<u32>().prop_map(Message::SuggestPiece),
        any::<u32>().prop_map(Message::AllowedFast),
        any::<u32>().prop_map(Message::HaveUnit),
        ranges().prop_map(Message::HashRequest),
        ranges().prop_map(Message::HashReject),
        (ranges(), prop::collection::vec(any::<[u8; 32]>(), 0..20))
            .prop_map(|(range, list)| Message::Hashes(range, list)),
        (3u8.., prop::collection::vec(any::<u8>(), 0..100))
            .prop_map(|(id, payload)| Message::Extended { id, payload }),
        (24u8..).prop_map(Message::Unknown),
    ]
}

proptest! {
    #[test]
    fn messages_survive_the_wire(message in messages()) {
        let bytes = encoded(&message);
        prop_assert_eq!(decode(&bytes, &limits()), Ok(expected(&message, bytes.len())));
    }

    #[test]
    fn streams_are_read_alike_however_they_are_split(
        messages in prop::collection::vec(messages(), 0..10),
        noise in prop::collection::vec(any::<u8>(), 0..20),
        step in 1usize..50,
    ) {
        let mut stream = vec![];
        for message in &messages {
            stream.extend_from_slice(&encoded(message));
            if let Message::Piece(block) = message {
                stream.resize(stream.len() + block.len as usize, 0);
            }
        }
        stream.extend_from_slice(&noise);
        let whole = read_all(&stream, stream.len().max(1));
        prop_assert_eq!(&whole.0[..messages.len()], &messages[..]);
        prop_assert_eq!(read_all(&stream, step), whole);
    }

    #[test]
    fn no_bytes_make_it_ask_for_too_much(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        match decode(&bytes, &limits()) {
            Ok(Decoded::Incomplete { need }) => {
                prop_assert!(need > bytes.len() && need <= BUFFER_LEN_MAX);
            }
            Ok(Decoded::Message { used, .. }) | Ok(Decoded::Piece { used, .. }) => {
                prop_assert!(used >= 4 && used <= bytes.len());
            }
            Err(_) => {}
        }
    }
}
