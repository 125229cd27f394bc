//! Packets as firmware and other programs write them.

use crate::{DecodeError, ErrorCode, Mode, Options, Packet, Request};

fn read(name: &[u8], options: Options) -> Packet<'_> {
    Packet::Read(Request { name, mode: Mode::Octet, options })
}

fn check(datagram: &[u8], expect: Result<Packet<'_>, DecodeError>) {
    assert_eq!(Packet::decode(datagram), expect, "{}", datagram.escape_ascii());
}

#[test]
fn requests_of_firmware_are_read() {
    // Intel's boot agent, then iPXE, then EDK2.
    check(
        b"\0\x01undionly.kpxe\0octet\0tsize\x000\0",
        Ok(read(b"undionly.kpxe", Options { tsize: Some(0), ..Options::default() })),
    );
    check(
        b"\0\x01boot.ipxe\0octet\0blksize\x001432\0tsize\x000\0",
        Ok(read(
            b"boot.ipxe",
            Options { blksize: Some(1_432), tsize: Some(0), ..Options::default() },
        )),
    );
    check(
        b"\0\x01snponly.efi\0octet\0blksize\x001468\0windowsize\x004\0",
        Ok(read(
            b"snponly.efi",
            Options { blksize: Some(1_468), windowsize: Some(4), ..Options::default() },
        )),
    );
}

#[test]
fn words_have_no_case() {
    check(
        b"\0\x01a\0OcTeT\0BLKSIZE\x001456\0TSize\x000\0",
        Ok(read(b"a", Options { blksize: Some(1_456), tsize: Some(0), ..Options::default() })),
    );
}

#[test]
fn other_modes_are_told_apart() {
    for datagram in [&b"\0\x01a\0netascii\0"[..], b"\0\x01a\0mail\0"] {
        let request = Request { name: b"a", mode: Mode::Other, options: Options::default() };
        check(datagram, Ok(Packet::Read(request)));
    }
}

#[test]
fn padding_and_a_missing_end_do_not_matter() {
    let expect = read(b"a", Options { blksize: Some(1_456), ..Options::default() });
    check(b"\0\x01a\0octet\0blksize\x001456\0\0\0\0\0", Ok(expect.clone()));
    check(b"\0\x01a\0octet\0blksize\x001456", Ok(expect));
    check(b"\0\x04\0\x07\0\0\0\0", Ok(Packet::Ack { block: 7 }));
}

#[test]
fn options_without_sense_are_passed_over() {
    let none = read(b"a", Options::default());
    for options in [
        &b"blksize\x007\0"[..],
        b"blksize\0many\0",
        b"blksize\0+512\0",
        b"blksize\0-1\0",
        b"timeout\x000\0",
        b"timeout\x00256\0",
        b"windowsize\x000\0",
        b"multicast\0\0",
        b"blksize\0\0",
    ] {
        let datagram = [b"\0\x01a\0octet\0", options].concat();
        check(&datagram, Ok(none.clone()));
    }
}

#[test]
fn too_large_a_block_is_made_smaller() {
    check(
        b"\0\x01a\0octet\0blksize\x0099999\0",
        Ok(read(b"a", Options { blksize: Some(65_464), ..Options::default() })),
    );
}

#[test]
fn what_is_no_packet_is_refused() {
    check(b"", Err(DecodeError::Short(0)));
    check(b"\0", Err(DecodeError::Short(1)));
    check(b"\0\x04\0", Err(DecodeError::Short(3)));
    check(b"\0\x07\0\0", Err(DecodeError::Opcode(7)));
    check(b"\0\x01\0octet\0", Err(DecodeError::Name));
    check(b"\0\x01a\0", Err(DecodeError::Mode));
    check(&[&b"\0\x01"[..], &[b'a'; 513], b"\0octet\0"].concat(), Err(DecodeError::Name));
}

#[test]
fn what_is_written_is_read_back() {
    let options =
        Options { blksize: Some(8), tsize: Some(1 << 40), timeout: Some(255), windowsize: Some(9) };
    for packet in [
        read(b"a/b", options),
        Packet::Write,
        Packet::Data { block: 65_535, bytes: b"x" },
        Packet::Data { block: 0, bytes: b"" },
        Packet::Ack { block: 256 },
        Packet::Error { code: ErrorCode::Other(77), message: b"no" },
        Packet::Agree(options),
    ] {
        assert_eq!(Packet::decode(&packet.to_bytes()), Ok(packet.clone()));
    }
}

#[test]
fn options_that_hold_are_never_more_than_was_asked_for() {
    let asked =
        Options { blksize: Some(8_192), tsize: Some(0), timeout: Some(5), windowsize: Some(1_000) };
    assert_eq!(
        asked.agree(77, 1_468),
        Options { blksize: Some(1_468), tsize: Some(77), timeout: Some(5), windowsize: Some(64) }
    );
    assert_eq!(asked.agree(0, 1_468).tsize, None);
    let slow = Options { timeout: Some(200), ..Options::default() };
    assert_eq!(slow.agree(77, 1_468), Options::default());
}
