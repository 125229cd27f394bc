//! What real firmware sends (`data/README.md`), through the whole service.
#![allow(clippy::unwrap_used)]

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use dhcp::{
    Asker, Audience, BootFiles, Config, Event, Input, LabId, Mac, Machine, Message, Mode, Output,
    Port, Range, Service, Start, Subnet, Time, Unproved,
};
use dhcproto::v4::MessageType;

const START: Time = Time::from_secs(1_000_000);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const NOWHERE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 68);

/// A discover and the request that followed it.
struct Captured {
    discover: &'static [u8],
    request: &'static [u8],
}

macro_rules! captured {
    ($name:literal) => {
        Captured {
            discover: include_bytes!(concat!("data/", $name, "-discover.bin")),
            request: include_bytes!(concat!("data/", $name, "-request.bin")),
        }
    };
}

const IPXE_BIOS: Captured = captured!("ipxe-bios");
const IPXE_UEFI: Captured = captured!("ipxe-uefi");
const PXE_BIOS: Captured = captured!("pxe-bios");
const UEFI: Captured = captured!("uefi");
const UEFI_ARM64: Captured = captured!("uefi-arm64");
const UEFI_HTTP: Captured = captured!("uefi-http");
const UDHCP: Captured = captured!("udhcp");

fn service(mode: Mode) -> Service {
    let subnet = Subnet::of(SERVER, 16);
    let range = Range {
        first: Ipv4Addr::new(10, 77, 200, 0),
        last: Ipv4Addr::new(10, 77, 200, 255),
        subnet,
        router: None,
    };
    let config = Config {
        audience: Audience::ALL,
        mode,
        force: true,
        lab: LabId([1; 8]),
        address: SERVER,
        subnet,
        mac: Mac([2, 0, 0, 0, 0, 1]),
        ranges: vec![range],
        reservations: vec![],
        lease_time: Duration::from_secs(3600),
        dns: vec![],
        domain: None,
        boot: BootFiles::usual(SERVER, 8080),
    };
    let prover = Box::new(Unproved);
    let begin = Start { leases: vec![], last_role: None, prover, seed: 1 };
    let mut service = Service::new(config, begin, START).unwrap();
    while service.poll().is_some() {}
    service
}

fn ask(service: &mut Service, bytes: &[u8]) -> (Option<Message>, Vec<Event>) {
    service.handle(START, Input::Packet { port: Port::Server, from: NOWHERE, bytes });
    let (mut answer, mut events) = (None, vec![]);
    while let Some(output) = service.poll() {
        match output {
            Output::Send { bytes, .. } => answer = Some(Message::decode(&bytes).unwrap()),
            Output::Event(event) => events.push(event),
            _ => {}
        }
    }
    (answer, events)
}

fn file(message: &Message) -> String {
    String::from_utf8(message.file.clone()).unwrap()
}

/// As what a sender is known, and what both a server and a proxy tell it to boot.
fn check(captured: &Captured, asker: Asker, boots: Option<&str>) {
    let discover = Message::decode(captured.discover).unwrap();
    assert_eq!(Asker::of(&discover), asker);
    assert_eq!(Asker::of(&Message::decode(captured.request).unwrap()), asker);

    let mut server = service(Mode::Server);
    let offer = ask(&mut server, captured.discover).0.unwrap();
    assert_eq!((offer.kind, offer.xid), (MessageType::Offer, discover.xid));
    assert_eq!(file(&offer), boots.unwrap_or_default());
    // The address that was asked for in the captured request, and the server that it chose.
    let (ack, events) = ask(&mut server, captured.request);
    let ack = ack.unwrap();
    assert_eq!((ack.kind, file(&ack)), (MessageType::Ack, file(&offer)));
    let requested = Message::decode(captured.request).unwrap().address(50);
    assert_eq!(Some(ack.yiaddr), requested);
    let leased = Event::Leased { mac: discover.mac, address: ack.yiaddr, asker };
    assert!(events.contains(&leased), "{events:?}");

    let (offer, _) = ask(&mut service(Mode::Proxy), captured.discover);
    assert_eq!(offer.as_ref().map(file).as_deref(), boots);
    assert!(offer.is_none_or(|offer| offer.yiaddr.is_unspecified()));
}

#[test]
fn ipxe_is_given_its_script() {
    let script = Some("http://10.77.0.1:8080/boot.ipxe");
    check(&IPXE_BIOS, Asker::Ipxe { uefi: None, http: true }, script);
    check(&IPXE_UEFI, Asker::Ipxe { uefi: Some(Machine::X64), http: true }, script);
}

#[test]
fn a_bios_rom_is_given_ipxe() {
    check(&PXE_BIOS, Asker::Bios, Some("undionly.kpxe"));
}

#[test]
fn uefi_is_given_ipxe_for_uefi() {
    check(&UEFI, Asker::Uefi(Machine::X64), Some("snponly.efi"));
}

#[test]
fn uefi_asks_a_proxy_again_at_port_4011() {
    let bytes = include_bytes!("data/uefi-request-4011.bin");
    let asked = Message::decode(bytes).unwrap();
    assert_eq!(Asker::of(&asked), Asker::Uefi(Machine::X64));
    let mut proxy = service(Mode::Proxy);
    let from = SocketAddrV4::new(asked.ciaddr, 4011);
    proxy.handle(START, Input::Packet { port: Port::Binl, from, bytes });
    let sent = std::iter::from_fn(|| proxy.poll()).find_map(|output| match output {
        Output::Send { bytes, .. } => Some(Message::decode(&bytes).unwrap()),
        _ => None,
    });
    let ack = sent.unwrap();
    assert_eq!(
        (ack.kind, ack.xid, file(&ack).as_str()),
        (MessageType::Ack, asked.xid, "snponly.efi")
    );
    assert!(ack.yiaddr.is_unspecified(), "the address is the other server's");
}

#[test]
fn uefi_of_arm64_is_given_ipxe_for_arm64() {
    check(&UEFI_ARM64, Asker::Uefi(Machine::Arm64), Some("snponly-arm64.efi"));
}

#[test]
fn uefi_that_boots_by_http_is_given_a_url() {
    let url = "http://10.77.0.1:8080/ipxe/snponly.efi";
    check(&UEFI_HTTP, Asker::UefiHttp(Machine::X64), Some(url));
}

#[test]
fn a_system_is_given_an_address_alone() {
    check(&UDHCP, Asker::Plain, None);
}

/// QEMU has no machine identifier by default, and says so with zeros.
#[test]
fn a_machine_identifier_of_zeros_is_none() {
    let (_, events) = ask(&mut service(Mode::Server), UEFI.discover);
    assert!(events.iter().any(|event| matches!(event, Event::Seen { machine: None, .. })));
}
