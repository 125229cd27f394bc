use super::*;
use crate::asker::Machine;
use crate::boot_files::FileName;
use crate::config::{Audience, LabId, Range, Reservation, Subnet};
use crate::lease::{FIRST_LEASE, NoAddress, Refusal};
use crate::testing::{Ask, NOWHERE, SERVER, config, ip, mac, start};

const START: Time = Time::from_secs(1_000_000);

/// A service and a clock.
struct Lab {
    service: Service,
    now: Time,
}

impl Lab {
    /// With `config` at [`START`], when it has looked around and said what it had to say.
    fn new(config: Config) -> Self {
        let now = Time::from_secs(START.as_secs() - 10);
        let mut lab = Self::begun(config, None, now);
        lab.pass(Duration::from_secs(10));
        lab.drain();
        lab
    }

    fn started(config: Config) -> Self {
        Self::begun(config, None, START)
    }

    fn begun(config: Config, last_role: Option<Role>, now: Time) -> Self {
        // Each has randomness of its own.
        let seed = u64::from(config.address.octets()[3]);
        let begin = Start { last_role, ..start(config.lab, seed) };
        Self { service: Service::new(config, begin, now).unwrap(), now }
    }

    fn drain(&mut self) -> Vec<Output> {
        std::iter::from_fn(|| self.service.poll()).collect()
    }

    fn input(&mut self, input: Input<'_>) -> Vec<Output> {
        self.service.handle(self.now, input);
        self.drain()
    }

    fn packet(&mut self, port: Port, from: SocketAddrV4, bytes: &[u8]) -> Vec<Output> {
        self.input(Input::Packet { port, from, bytes })
    }

    fn ask(&mut self, ask: &Ask) -> Vec<Output> {
        self.packet(Port::Server, NOWHERE, &ask.bytes())
    }

    /// The one answer to a message, and where it goes.
    fn answer(&mut self, ask: &Ask) -> (Message, SocketAddrV4) {
        sent(&self.ask(ask)).expect("an answer")
    }

    fn pass(&mut self, time: Duration) -> Vec<Output> {
        let end = self.now + time;
        let mut outputs = vec![];
        while let Some(next) = self.service.next_timeout().filter(|next| *next <= end) {
            self.now = next;
            self.service.handle(next, Input::Tick);
            outputs.extend(self.drain());
        }
        self.now = end;
        outputs
    }
}

fn sent(outputs: &[Output]) -> Option<(Message, SocketAddrV4)> {
    outputs.iter().find_map(|output| match output {
        Output::Send { to, bytes, .. } => Some((Message::decode(bytes).unwrap(), *to)),
        _ => None,
    })
}

fn events(outputs: &[Output]) -> Vec<&Event> {
    outputs
        .iter()
        .filter_map(|output| match output {
            Output::Event(event) => Some(event),
            _ => None,
        })
        .collect()
}

fn waits(outputs: &[Output]) -> Option<Conflict> {
    outputs.iter().find_map(|output| match output {
        Output::Event(Event::Waiting(conflict)) => Some(*conflict),
        _ => None,
    })
}

fn everybody() -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::BROADCAST, 68)
}

fn file(message: &Message) -> &str {
    std::str::from_utf8(&message.file).unwrap()
}

fn proxy() -> Config {
    Config { mode: Mode::Proxy, ranges: vec![], ..config(50) }
}

#[test]
fn discover_and_request_lead_to_a_lease() {
    let mut lab = Lab::new(config(60));
    let (offer, to) = lab.answer(&Ask::discover(1));
    assert_eq!((offer.kind, to), (MessageType::Offer, everybody()));
    let outputs = lab.ask(&Ask::select(1, offer.yiaddr));
    let (ack, to) = sent(&outputs).unwrap();
    assert_eq!((ack.kind, to, ack.yiaddr), (MessageType::Ack, everybody(), offer.yiaddr));
    let lease = Lease { mac: mac(1), address: ack.yiaddr, until: START + FIRST_LEASE };
    assert_eq!(outputs[0], Output::Store(lease), "stored before it is acknowledged");
    let leased = Event::Leased { mac: mac(1), address: ack.yiaddr, asker: Asker::Plain };
    assert!(events(&outputs).contains(&&leased));
}

#[test]
fn who_is_not_of_the_audience_is_seen_and_not_answered() {
    use std::collections::BTreeSet;
    let check = |audience: &Audience, number, expect: bool| {
        for config in [config(60), proxy()] {
            let mut lab = Lab::new(Config { audience: audience.clone(), ..config });
            let ask = Ask::discover(number).pxe(0);
            let outputs = lab.ask(&ask);
            assert_eq!(sent(&outputs).is_some(), expect, "{audience:?} {number}");
            assert!(matches!(events(&outputs)[..], [Event::Seen { .. }, ..]), "{outputs:?}");
            let outputs = lab.packet(Port::Binl, NOWHERE, &ask.bytes());
            assert!(expect || sent(&outputs).is_none(), "{audience:?} {number}");
        }
    };
    let one = BTreeSet::from([mac(1)]);
    check(&Audience::AllBut(one.clone()), 1, false);
    check(&Audience::AllBut(one.clone()), 2, true);
    check(&Audience::Only(one.clone()), 1, true);
    check(&Audience::Only(one), 2, false);
}

#[test]
fn a_lease_comes_with_all_that_is_configured() {
    let mut config = config(60);
    let hostname = Some("c001".to_owned());
    config.reservations.push(Reservation { mac: mac(1), address: Some(ip(9)), hostname });
    let (offer, _) = Lab::new(config).answer(&Ask::discover(1));
    assert_eq!(offer.yiaddr, ip(9));
    for (code, expect) in [
        (1, vec![255, 255, 255, 0]),
        (3, vec![10, 0, 0, 254]),
        (6, vec![10, 0, 0, 2, 10, 0, 0, 3]),
        (12, b"c001".to_vec()),
        (15, b"lab.test".to_vec()),
        (51, 3600_u32.to_be_bytes().to_vec()),
        (54, SERVER.octets().to_vec()),
        (58, 1800_u32.to_be_bytes().to_vec()),
        (59, 3150_u32.to_be_bytes().to_vec()),
    ] {
        assert_eq!(offer.option(code), Some(&expect[..]), "option {code}");
    }
    assert_eq!(offer.xid, 0x0a0b_0c0d);
}

#[test]
fn a_shorter_lease_is_given_when_asked_for_and_a_longer_one_is_not() {
    let mut lab = Lab::new(config(60));
    let mut time = |wanted: u32| {
        let ask = Ask::discover(1).option(51, &wanted.to_be_bytes());
        u32::from_be_bytes(lab.answer(&ask).0.option(51).unwrap().try_into().unwrap())
    };
    assert_eq!(time(600), 300, "at first");
    assert_eq!(time(200), 200);
    assert_eq!(time(u32::MAX), 300);
    assert_eq!(time(0), 10);
}

#[test]
fn identifier_and_relay_information_come_back() {
    let ask = Ask::discover(1).option(61, &[1, 2, 3]).option(82, &[1, 2, 8, 9]);
    let (offer, _) = Lab::new(config(60)).answer(&ask);
    assert_eq!(offer.option(61), Some(&[1, 2, 3][..]));
    assert_eq!(offer.option(82), Some(&[1, 2, 8, 9][..]));
}

#[test]
fn who_uses_an_address_is_answered_there() {
    let mut lab = Lab::new(config(60));
    let address = lab.answer(&Ask::discover(1)).0.yiaddr;
    lab.ask(&Ask::select(1, address));
    lab.now += 1800 * SECOND;
    let outputs = lab.ask(&Ask::renew(1, address));
    let (ack, to) = sent(&outputs).unwrap();
    assert_eq!((ack.kind, ack.ciaddr), (MessageType::Ack, address));
    assert_eq!(to, SocketAddrV4::new(address, 68));
    let until = START + 5400 * SECOND;
    assert!(outputs.contains(&Output::Store(Lease { mac: mac(1), address, until })));
}

#[test]
fn a_machine_that_remembers_a_wrong_address_is_told_at_once() {
    let mut lab = Lab::new(config(60));
    let outputs = lab.ask(&Ask::reboot(1, Ipv4Addr::new(192, 168, 7, 7)));
    let (nak, to) = sent(&outputs).unwrap();
    assert_eq!(
        (nak.kind, to, nak.yiaddr),
        (MessageType::Nak, everybody(), ip(0).min([0; 4].into()))
    );
    assert!(matches!(
        events(&outputs)[..],
        [Event::Seen { .. }, Event::Refused { reason: Refusal::NotOurs, .. }]
    ));
}

#[test]
fn a_refusal_is_broadcast_to_who_uses_the_wrong_address() {
    let mut lab = Lab::new(config(60));
    let (nak, to) = lab.answer(&Ask::renew(1, Ipv4Addr::new(192, 168, 7, 7)));
    assert_eq!((nak.kind, to), (MessageType::Nak, everybody()));
}

#[test]
fn what_is_released_to_another_server_stays_ours() {
    let mut lab = Lab::new(config(51));
    let address = lab.answer(&Ask::discover(1)).0.yiaddr;
    lab.ask(&Ask::select(1, address));
    let release = Ask::new(MessageType::Release, 1).ciaddr(address).option(54, &[10, 0, 0, 99]);
    assert!(lab.ask(&release).is_empty());
}

#[test]
fn a_relay_agent_is_the_router_where_none_is_set() {
    let mut config = config(60);
    let far = |last| Ipv4Addr::new(10, 9, 0, last);
    let subnet = Subnet::of(far(0), 24);
    config.ranges.push(Range { first: far(5), last: far(5), subnet, router: None });
    let (offer, _) = Lab::new(config).answer(&Ask::discover(1).giaddr(far(1)));
    assert_eq!(offer.address(3), Some(far(1)));
}

#[test]
fn an_option_in_parts_is_put_together() {
    let ask = Ask::discover(1).option(60, b"PXE").option(12, b"x").option(60, b"Client");
    assert_eq!(Asker::of(&ask.message()), Asker::Bios);
}

#[test]
fn a_server_without_memory_lets_machines_keep_free_addresses() {
    let mut lab = Lab::new(config(60));
    assert_eq!(lab.answer(&Ask::renew(1, ip(55))).0.kind, MessageType::Ack);
    assert_eq!(lab.answer(&Ask::reboot(2, ip(55))).0.kind, MessageType::Nak);
}

#[test]
fn the_choice_of_another_server_is_respected_and_noticed() {
    let mut lab = Lab::new(config(50));
    lab.ask(&Ask::discover(1));
    let other = Ask::new(MessageType::Request, 1).option(54, &[10, 0, 0, 99]);
    let outputs = lab.ask(&other.clone().option(50, &[10, 0, 0, 77]));
    assert_eq!(sent(&outputs), None);
    let foreign = Event::ForeignServer { address: ip(99), boot_file: None };
    assert_eq!(events(&outputs), [&foreign]);
    assert_eq!(events(&lab.ask(&other)), [] as [&Event; 0], "said once");
    assert_eq!(lab.answer(&Ask::discover(2)).0.yiaddr, ip(50), "the offer was withdrawn");
}

#[test]
fn relay_agents_are_answered_with_addresses_of_their_network() {
    let mut config = config(60);
    let far = |last| Ipv4Addr::new(10, 9, 0, last);
    let subnet = Subnet::of(far(0), 16);
    config.ranges.push(Range { first: far(5), last: far(5), subnet, router: Some(far(1)) });
    let mut lab = Lab::new(config);
    let (offer, to) = lab.answer(&Ask::discover(1).giaddr(far(1)));
    assert_eq!((offer.yiaddr, offer.giaddr), (far(5), far(1)));
    assert_eq!(to, SocketAddrV4::new(far(1), 67));
    assert_eq!(offer.address(1), Some(Ipv4Addr::new(255, 255, 0, 0)));
    assert_eq!(offer.address(3), Some(far(1)));
    let (nak, to) = lab.answer(&Ask::reboot(1, ip(55)).giaddr(far(1)));
    assert_eq!((nak.kind, nak.flags, to.port()), (MessageType::Nak, 0x8000, 67));
}

#[test]
fn a_relay_agent_without_a_range_is_reported_once() {
    let mut lab = Lab::new(config(60));
    let ask = Ask::discover(1).giaddr(Ipv4Addr::new(172, 16, 0, 1));
    assert!(events(&lab.ask(&ask)).contains(&&Event::UnknownRelay([172, 16, 0, 1].into())));
    assert!(matches!(events(&lab.ask(&ask))[..], [Event::Seen { .. }]));
}

#[test]
fn an_exhausted_range_is_reported_once_until_there_is_room_again() {
    let mut lab = Lab::new(config(50));
    lab.ask(&Ask::discover(1));
    lab.ask(&Ask::select(1, ip(50)));
    let is_reported = |outputs: Vec<Output>| {
        assert_eq!(sent(&outputs), None);
        events(&outputs).iter().any(|event| matches!(event, Event::Exhausted { .. }))
    };
    assert!(is_reported(lab.ask(&Ask::discover(2))));
    assert!(!is_reported(lab.ask(&Ask::discover(3))));
    lab.now += 7200 * SECOND;
    assert_eq!(lab.answer(&Ask::discover(2)).0.yiaddr, ip(50));
    lab.ask(&Ask::select(2, ip(50)));
    assert!(is_reported(lab.ask(&Ask::discover(3))));
}

#[test]
fn a_declined_address_is_forgotten() {
    let mut lab = Lab::new(config(51));
    let address = lab.answer(&Ask::discover(1)).0.yiaddr;
    lab.ask(&Ask::select(1, address));
    let decline = Ask::new(MessageType::Decline, 1).option(50, &address.octets());
    assert!(lab.ask(&decline).is_empty(), "not without our identifier");
    let outputs = lab.ask(&decline.option(54, &SERVER.octets()));
    let event = Event::Declined { mac: mac(1), address };
    assert_eq!(outputs, [Output::Event(event), Output::Look(address)]);
    let user = mac(99);
    let outputs = lab.input(Input::Looked { address, user: Some(user) });
    let event = Event::Conflict { mac: mac(1), address, user, is_reserved: false };
    assert_eq!(outputs, [Output::Forget(address), Output::Event(event)]);
    assert_ne!(lab.answer(&Ask::discover(1)).0.yiaddr, address);
}

#[test]
fn a_released_lease_ends() {
    let mut lab = Lab::new(config(51));
    let address = lab.answer(&Ask::discover(1)).0.yiaddr;
    lab.ask(&Ask::select(1, address));
    lab.now += SECOND;
    let outputs = lab.ask(&Ask::new(MessageType::Release, 1).ciaddr(address));
    let lease = Lease { mac: mac(1), address, until: lab.now };
    let event = Event::Released { mac: mac(1), address };
    assert_eq!(outputs, [Output::Store(lease), Output::Event(event)]);
}

#[test]
fn who_informs_is_told_everything_but_an_address() {
    let mut lab = Lab::new(config(60));
    let (ack, to) = lab.answer(&Ask::new(MessageType::Inform, 1).ciaddr(ip(33)));
    assert_eq!((ack.kind, to), (MessageType::Ack, SocketAddrV4::new(ip(33), 68)));
    assert!(ack.yiaddr.is_unspecified());
    assert_eq!((ack.option(51), ack.option(15)), (None, Some(&b"lab.test"[..])));
    assert_eq!(sent(&lab.ask(&Ask::new(MessageType::Inform, 1))), None);
}

/// What a server offers to boot: file, options 60, 43, 175.
fn check_offer(config: Config, ask: &Ask, expect: (&str, &[u8], &[u8], &[u8])) {
    let (offer, _) = Lab::new(config).answer(ask);
    let option = |code| offer.option(code).unwrap_or_default();
    assert_eq!((file(&offer), option(60), option(43), option(175)), expect, "{ask:?}");
    assert_eq!(offer.siaddr, SERVER);
}

#[test]
fn each_firmware_is_offered_its_program_with_an_address() {
    let script = "http://10.0.0.1:8080/boot.ipxe";
    let at_once = &[6, 1, 8, 255][..];
    let no_proxy = &[176, 1, 1][..];
    let ipxe = |kind| Ask::discover(1).pxe(kind).option(77, b"iPXE");
    check_offer(
        config(60),
        &Ask::discover(1).pxe(0),
        ("undionly.kpxe", b"PXEClient", at_once, b""),
    );
    check_offer(config(60), &Ask::discover(1).pxe(7), ("snponly.efi", b"", b"", b""));
    check_offer(config(60), &Ask::discover(1).pxe(11), ("snponly-arm64.efi", b"", b"", b""));
    check_offer(config(60), &ipxe(0), (script, b"", b"", no_proxy));
    check_offer(config(60), &ipxe(7), (script, b"", b"", no_proxy));
    let http = "http://10.0.0.1:8080/ipxe/snponly.efi";
    check_offer(config(60), &Ask::discover(1).http(16), (http, b"HTTPClient", b"", b""));
}

#[test]
fn each_firmware_is_offered_its_program_beside_another_server() {
    let script = "http://10.0.0.1:8080/boot.ipxe";
    let at_once = &[6, 1, 8, 255][..];
    let pxe = &b"PXEClient"[..];
    let ipxe = Ask::discover(1).pxe(7).option(77, b"iPXE");
    check_offer(proxy(), &Ask::discover(1).pxe(0), ("undionly.kpxe", pxe, at_once, b""));
    check_offer(proxy(), &Ask::discover(1).pxe(7), ("snponly.efi", pxe, b"", b""));
    check_offer(proxy(), &ipxe, (script, pxe, at_once, b""));
    let http = "http://10.0.0.1:8080/ipxe/snponly.efi";
    check_offer(proxy(), &Ask::discover(1).http(16), (http, b"HTTPClient", b"", b""));
}

#[test]
fn options_66_67_and_97_are_given_to_who_asks() {
    let id = [&[0][..], &[5; 16]].concat();
    let ask = Ask::discover(1).pxe(0).option(55, &[1, 66, 67]).option(97, &id);
    let (offer, _) = Lab::new(config(60)).answer(&ask);
    assert_eq!(offer.option(66), Some(&b"10.0.0.1"[..]));
    assert_eq!(offer.option(67), Some(&b"undionly.kpxe"[..]));
    assert_eq!(offer.option(97), Some(&id[..]));
    let (offer, _) = Lab::new(config(60)).answer(&Ask::discover(1).pxe(0));
    assert_eq!((offer.option(66), offer.option(67)), (None, None));
}

#[test]
fn a_name_that_is_too_long_for_its_field_is_an_option() {
    let mut config = config(60);
    let long = format!("http://10.0.0.1/{}", "x".repeat(150));
    config.boot.script = FileName::new(long.clone()).unwrap();
    let (offer, _) = Lab::new(config).answer(&Ask::discover(1).pxe(0).option(77, b"iPXE"));
    assert_eq!((file(&offer), offer.option(67)), ("", Some(long.as_bytes())));
}

#[test]
fn pxelinux_is_told_where_its_configuration_is() {
    let mut config = config(60);
    config.boot = config.boot.with_pxelinux();
    let (offer, _) = Lab::new(config).answer(&Ask::discover(1).pxe(0));
    assert_eq!(file(&offer), "pxelinux.0");
    assert_eq!(offer.option(209), Some(&b"pxelinux.cfg/default"[..]));
}

#[test]
fn a_firmware_without_a_program_is_given_an_address_and_reported() {
    let mut lab = Lab::new(config(60));
    let outputs = lab.ask(&Ask::discover(1).pxe(6));
    assert!(file(&sent(&outputs).unwrap().0).is_empty());
    let event = Event::NoBootProgram { mac: mac(1), asker: Asker::Unsupported(6) };
    assert!(events(&outputs).contains(&&event));
}

#[test]
fn a_proxy_gives_no_addresses_and_does_not_answer_plain_systems() {
    let mut lab = Lab::new(proxy());
    let (offer, to) = lab.answer(&Ask::discover(1).pxe(0));
    assert!(offer.yiaddr.is_unspecified());
    assert_eq!((to, offer.option(51)), (everybody(), None));
    for ask in [Ask::discover(2), Ask::renew(2, ip(70)), Ask::select(1, ip(70)).pxe(0)] {
        assert_eq!(sent(&lab.ask(&ask)), None);
    }
    let seen = lab.ask(&Ask::discover(2));
    assert!(matches!(events(&seen)[..], [Event::Seen { asker: Asker::Plain, .. }]));
}

#[test]
fn uefi_is_answered_at_port_4011_where_it_asks_from() {
    let mut lab = Lab::new(proxy());
    let ask = Ask::renew(1, ip(70)).pxe(7);
    let from = SocketAddrV4::new(ip(70), 4011);
    let outputs = lab.packet(Port::Binl, from, &ask.bytes());
    let (ack, to) = sent(&outputs).unwrap();
    assert_eq!((ack.kind, to), (MessageType::Ack, from));
    assert_eq!((file(&ack), ack.option(60)), ("snponly.efi", Some(&b"PXEClient"[..])));
    let program = Event::BootProgram {
        mac: mac(1),
        asker: Asker::Uefi(Machine::X64),
        file: "snponly.efi".to_owned(),
    };
    assert!(events(&outputs).contains(&&program));
    assert!(outputs.iter().any(|output| matches!(output, Output::Send { port: Port::Binl, .. })));
}

#[test]
fn a_boot_item_is_answered_with_the_same_item() {
    let mut lab = Lab::new(proxy());
    let ask = Ask::renew(1, ip(70)).pxe(0).option(43, &[71, 4, 0, 0, 0, 0, 255]);
    let (ack, _) = lab.answer(&ask);
    assert_eq!(ack.option(43), Some(&[71, 4, 0, 0, 0, 0, 255][..]));
}

#[test]
fn who_asks_is_reported_with_what_it_says_of_itself() {
    let id = [&[0][..], &[5; 16]].concat();
    let outputs = Lab::new(config(60)).ask(&Ask::discover(3).pxe(7).option(97, &id));
    let seen = Event::Seen {
        mac: mac(3),
        asker: Asker::Uefi(Machine::X64),
        machine: Some(MachineId([5; 16])),
        relay: None,
    };
    assert_eq!(events(&outputs)[0], &seen);
}

#[test]
fn broken_datagrams_are_counted_and_reported_once_a_minute() {
    let mut lab = Lab::new(config(60));
    let first = lab.packet(Port::Server, NOWHERE, b"short");
    let reason = DecodeError::Length(5);
    let malformed = |count| Event::Malformed { count, from: NOWHERE, reason };
    assert_eq!(events(&first), [&malformed(1)]);
    for _ in 0..100 {
        assert!(lab.packet(Port::Server, NOWHERE, b"short").is_empty());
    }
    assert_eq!(events(&lab.pass(TROUBLE_INTERVAL)).last(), Some(&&malformed(100)));
}

#[test]
fn a_flood_is_reported_once_and_answered() {
    let mut lab = Lab::new(config(250));
    let mut floods = 0;
    for number in 0..10_000 {
        let outputs = lab.ask(&Ask::discover(number % 100));
        assert!(sent(&outputs).is_some());
        floods += events(&outputs).iter().filter(|e| matches!(e, Event::Flood { .. })).count();
    }
    assert_eq!(floods, 1);
}

#[test]
fn odd_options_do_not_hide_those_after_them() {
    let ask = Ask::discover(1)
        .option(12, &[0xff, 0xfe])
        .option(94, &[1])
        .option(80, &[1])
        .option(81, &[])
        .option(57, &[5])
        .pxe(7);
    let (offer, _) = Lab::new(config(60)).answer(&ask);
    assert_eq!(file(&offer), "snponly.efi");
}

#[test]
fn other_hardware_and_plain_bootp_are_not_answered() {
    let mut lab = Lab::new(config(60));
    for (at, bytes) in [(2, &[16][..]), (2, &[255]), (1, &[32]), (0, &[3]), (236, &[0])] {
        let outputs = lab.ask(&Ask::discover(1).patch(at, bytes));
        assert_eq!(sent(&outputs), None, "{at} {bytes:?}");
    }
}

#[test]
fn options_in_the_file_field_are_read() {
    // Overload: the class in `file`.
    let mut class = vec![60, 9];
    class.extend_from_slice(b"PXEClient\xff");
    let ask = Ask::discover(1).option(52, &[1]).patch(108, &class);
    assert_eq!(Asker::of(&ask.message()), Asker::Bios);
}

mod others;
mod strangers;
