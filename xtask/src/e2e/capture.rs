//! Golden packets: what firmware asked for in these runs, cut out of QEMU's captures as test data.
//!
//! Only what a machine sends counts; each kind of packet is kept once.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use crate::root;

/// Fixed part of a DHCP message before its options, magic cookie included (RFC 2131 section 2).
const FIXED_LEN: usize = 240;

/// Ethernet, IPv4 without options, UDP.
const HEADERS_LEN: usize = 14 + 20 + 8;

/// Of the machines' Ethernet addresses.
const QEMU_PREFIX: [u8; 3] = [0x52, 0x54, 0x00];

/// What QEMU writes before a packet of a virtio card: its header (virtio 1.2 section 5.1.6), with the number of
/// buffers once the driver has agreed on that; nothing for other cards.
const VIRTIO_HEADER_LENS: [usize; 3] = [0, 10, 12];

const SERVER_PORT: u16 = 67;
const BOOT_SERVER_PORT: u16 = 4011;

/// Writes the first packet of each kind in the captures under `dir` into the DHCP crate's test data.
pub(super) fn write_golden(dir: &Path) -> Result<()> {
    let mut captures = vec![];
    for case in std::fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))? {
        let Ok(files) = std::fs::read_dir(case?.path()) else { continue };
        captures.extend(files.flatten().map(|file| file.path()));
    }
    captures.retain(|path| path.extension().is_some_and(|extension| extension == "pcap"));
    captures.sort();
    let mut golden = BTreeMap::new();
    for path in &captures {
        let bytes = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
        collect(&bytes, &mut golden);
    }
    ensure!(!golden.is_empty(), "no DHCP request in {} captures", captures.len());
    let data = root().join("crates/dhcp/tests/data");
    std::fs::create_dir_all(&data).with_context(|| format!("creating {}", data.display()))?;
    for (name, message) in &golden {
        let path = data.join(format!("{name}.bin"));
        std::fs::write(&path, message).with_context(|| format!("writing {}", path.display()))?;
        println!("{} {} bytes", path.display(), message.len());
    }
    Ok(())
}

/// Adds the first packet of each kind.
fn collect(pcap: &[u8], golden: &mut BTreeMap<String, Vec<u8>>) {
    for frame in frames(pcap) {
        let shifted = VIRTIO_HEADER_LENS.iter().filter_map(|len| frame.get(*len..));
        if let Some((name, message)) = shifted.into_iter().find_map(request) {
            golden.entry(name).or_insert_with(|| message.to_vec());
        }
    }
}

/// Ethernet frames of a capture (pcap 2.4 in this machine's byte order, as QEMU writes it).
fn frames(pcap: &[u8]) -> Vec<&[u8]> {
    const FILE_HEADER_LEN: usize = 24;
    const RECORD_HEADER_LEN: usize = 16;
    let mut frames = vec![];
    let mut rest = pcap.get(FILE_HEADER_LEN..).unwrap_or_default();
    while let Some(header) = rest.get(..RECORD_HEADER_LEN) {
        let len = u32::from_ne_bytes([header[8], header[9], header[10], header[11]]) as usize;
        let Some(frame) = rest.get(RECORD_HEADER_LEN..RECORD_HEADER_LEN + len) else { break };
        frames.push(frame);
        rest = &rest[RECORD_HEADER_LEN + len..];
    }
    frames
}

/// A DHCP request and its kind: who sends it, to which port, of which type.
fn request(frame: &[u8]) -> Option<(String, &[u8])> {
    // A capture also has what others broadcast, such as a server that looks for another one.
    let is_ours = frame.get(6..9)? == QEMU_PREFIX;
    let is_udp = frame.get(12..15)? == [0x08, 0x00, 0x45] && frame.get(23)? == &17;
    let port = u16::from_be_bytes([*frame.get(36)?, *frame.get(37)?]);
    if !is_ours || !is_udp || (port != SERVER_PORT && port != BOOT_SERVER_PORT) {
        return None;
    }
    let udp_len = usize::from(u16::from_be_bytes([*frame.get(38)?, *frame.get(39)?]));
    let message = frame.get(HEADERS_LEN..HEADERS_LEN + udp_len.checked_sub(8)?)?;
    let options = message.get(FIXED_LEN..)?;
    let kind = match option(options, 53)? {
        [1] => "discover",
        [3] => "request",
        [4] => "decline",
        [7] => "release",
        [8] => "inform",
        _ => return None,
    };
    let port = if port == BOOT_SERVER_PORT { "-4011" } else { "" };
    Some((format!("{}-{kind}{port}", sender(options)?), message))
}

/// Who it is, by its user class, vendor class and architecture; none for our own agent.
fn sender(options: &[u8]) -> Option<String> {
    let vendor = option(options, 60).unwrap_or_default();
    let vendor = String::from_utf8_lossy(vendor);
    // Our own agent is no stranger: its packets are tested where they are made.
    if vendor.starts_with("boottorrent") {
        return None;
    }
    let arch = match option(options, 93) {
        Some([0, 0]) => "bios",
        Some([0, 7 | 9]) => "uefi",
        Some([0, 11]) => "uefi-arm64",
        Some([0, 16]) => "uefi-http",
        Some(_) => "other",
        None => "none",
    };
    let name = match (option(options, 77), arch) {
        (Some(b"iPXE"), _) => format!("ipxe-{arch}"),
        (Some(_), "bios") => "pxe-bios".to_owned(),
        (_, "none") if vendor.starts_with("udhcp") => "udhcp".to_owned(),
        (_, "none") => "os".to_owned(),
        (..) => arch.to_owned(),
    };
    Some(name)
}

/// The value of an option (RFC 2132), the first of that number.
fn option(options: &[u8], wanted: u8) -> Option<&[u8]> {
    let mut rest = options;
    loop {
        match *rest.first()? {
            0 => rest = &rest[1..],
            255 => return None,
            code => {
                let len = usize::from(*rest.get(1)?);
                let value = rest.get(2..2 + len)?;
                if code == wanted {
                    return Some(value);
                }
                rest = &rest[2 + len..];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(port: u16, options: &[u8]) -> Vec<u8> {
        let message_len = FIXED_LEN + options.len();
        let mut frame = vec![0; HEADERS_LEN + FIXED_LEN];
        frame[6..9].copy_from_slice(&QEMU_PREFIX);
        frame[12..15].copy_from_slice(&[0x08, 0x00, 0x45]);
        frame[23] = 17;
        frame[36..38].copy_from_slice(&port.to_be_bytes());
        frame[38..40].copy_from_slice(&(message_len as u16 + 8).to_be_bytes());
        frame.extend_from_slice(options);
        frame
    }

    #[test]
    fn requests_are_told_apart() {
        for (port, options, expect) in [
            (67, &[53, 1, 1, 93, 2, 0, 7, 255][..], Some("uefi-discover")),
            (4011, &[53, 1, 3, 93, 2, 0, 7, 255], Some("uefi-request-4011")),
            (67, b"\x35\x01\x01\x5d\x02\0\0\x4d\x04iPXE\xff", Some("ipxe-bios-discover")),
            (67, b"\x35\x01\x03\x5d\x02\0\0\x4d\x03PXE\xff", Some("pxe-bios-request")),
            (67, &[0, 0, 53, 1, 3, 255], Some("os-request")),
            (69, &[53, 1, 1, 255], None),
            (67, &[53, 1, 2, 255], None),
            (67, &[53], None),
        ] {
            let frame = frame(port, options);
            let found = request(&frame);
            assert_eq!(found.as_ref().map(|(name, _)| name.as_str()), expect);
            assert!(found.is_none_or(|(_, message)| message.ends_with(options)));
        }
    }

    #[test]
    fn a_virtio_card_s_header_hides_nothing() {
        for len in VIRTIO_HEADER_LENS {
            let mut packet = vec![0; len];
            packet.extend(frame(4011, &[53, 1, 3, 93, 2, 0, 7, 255]));
            let mut pcap = vec![0; 24 + 8];
            pcap.extend((packet.len() as u32).to_ne_bytes().repeat(2));
            pcap.extend(packet);
            let mut golden = BTreeMap::new();
            collect(&pcap, &mut golden);
            assert!(golden.contains_key("uefi-request-4011"), "{len} bytes before it");
        }
    }

    #[test]
    fn what_others_broadcast_is_no_request_of_a_machine() {
        let mut other = frame(67, &[53, 1, 1, 255]);
        other[6] = 2;
        assert!(request(&other).is_none());
    }

    #[test]
    fn a_capture_that_was_cut_off_ends_with_its_last_whole_frame() {
        let mut pcap = vec![0; 24];
        for len in [3_u32, 9] {
            pcap.extend_from_slice(&[0; 8]);
            pcap.extend_from_slice(&len.to_ne_bytes());
            pcap.extend_from_slice(&[0; 4]);
            pcap.extend_from_slice(b"abc");
        }
        assert_eq!(frames(&pcap), [b"abc"]);
    }
}
