//! Many transfers, and what strangers send.

use std::net::SocketAddr;
use std::time::Duration;

use super::addr;
use crate::{
    Config, ErrorCode, Event, HALF_OPEN_MAX, IDLE_MAX, Input, NameError, OpenError, Options,
    Outcome, Output, Packet, Port, Refusal, Server, Standing, Time, TransferId, WINDOWS_LEN_MAX,
    WINDOWSIZE_FEW,
};

const NODE: &str = "10.0.0.2:2000";

/// A server that has `file`, 1,000 bytes long.
struct Fixture {
    server: Server<()>,
    now: Time,
}

impl Fixture {
    fn new(config: Config) -> Self {
        Self { server: Server::new(config), now: Time::ZERO }
    }

    fn give(&mut self, input: Input<'_, ()>) -> Vec<Output> {
        self.server.handle(self.now, input);
        let mut outputs = vec![];
        while let Some(output) = self.server.poll() {
            match output {
                Output::Open { transfer, name } => {
                    let file = if name.as_str() == "file" {
                        Ok(((), 1_000))
                    } else {
                        Err(OpenError::NotFound)
                    };
                    self.server.handle(self.now, Input::Opened { transfer, file });
                }
                output => outputs.push(output),
            }
        }
        outputs
    }

    fn ask(&mut self, from: &str, request: &[u8]) -> Vec<Output> {
        self.ask_as(from, Standing::Stranger, request)
    }

    fn ask_as(&mut self, from: &str, standing: Standing, request: &[u8]) -> Vec<Output> {
        let datagram = &[b"\0\x01", request].concat();
        self.give(Input::Request { from: addr(from), standing, datagram })
    }

    /// Asks, and acknowledges the options; says whether blocks came.
    fn fetch(&mut self, from: &str, standing: Standing) -> bool {
        let outputs = self.ask_as(from, standing, b"file\0octet\0blksize\x00600\0");
        let Some((to, Packet::Agree(_))) = packet(&outputs) else { return false };
        let outputs = self.send(from, to.port.0, &Packet::Ack { block: 0 });
        outputs.iter().any(|output| matches!(output, Output::Blocks { .. }))
    }

    fn send(&mut self, from: &str, port: u8, packet: &Packet<'_>) -> Vec<Output> {
        let to = TransferId { peer: addr(from), port: Port(port) };
        self.give(Input::Datagram { to, datagram: &packet.to_bytes() })
    }

    fn wait(&mut self) -> Vec<Output> {
        self.now = self.server.next_timeout();
        self.give(Input::Tick)
    }
}

fn request(datagram: &[u8]) -> Input<'_, ()> {
    Input::Request { from: addr(NODE), standing: Standing::Stranger, datagram }
}

fn packet(outputs: &[Output]) -> Option<(TransferId, Packet<'_>)> {
    outputs.iter().find_map(|output| match output {
        Output::Packet { transfer, datagram } => {
            Some((*transfer, Packet::decode(datagram).unwrap()))
        }
        _ => None,
    })
}

fn outcome(outputs: &[Output]) -> Option<&Outcome> {
    outputs.iter().find_map(|output| match output {
        Output::Event(Event::Ended { outcome, .. }) => Some(outcome),
        _ => None,
    })
}

#[test]
fn refusals_say_why() {
    for (request, code, refusal) in [
        (&b"other\0octet\0"[..], ErrorCode::NotFound, Refusal::NotFound),
        (b"../x\0octet\0", ErrorCode::AccessViolation, Refusal::Name(NameError::Outside)),
        (b"file\0netascii\0", ErrorCode::IllegalOperation, Refusal::Mode),
    ] {
        let mut fixture = Fixture::new(Config::default());
        let outputs = fixture.ask(NODE, request);
        let (to, answer) = packet(&outputs).unwrap();
        assert!(matches!(answer, Packet::Error { code: got, .. } if got == code), "{answer:?}");
        assert_eq!(to.peer, addr(NODE));
        let told = outputs.iter().any(|output| {
            matches!(output, Output::Event(Event::Refused { refusal: got, .. }) if *got == refusal)
        });
        assert!(told, "{outputs:?}");
        assert_eq!(fixture.server.transfer_count(), 0);
    }
}

#[test]
fn writing_is_refused() {
    let mut fixture = Fixture::new(Config::default());
    let outputs = fixture.give(request(b"\0\x02file\0octet\0"));
    let (_, answer) = packet(&outputs).unwrap();
    assert!(matches!(answer, Packet::Error { code: ErrorCode::AccessViolation, .. }));
}

#[test]
fn probe_of_the_length_is_no_failure() {
    for code in [ErrorCode::Undefined, ErrorCode::OptionsDeclined] {
        let mut fixture = Fixture::new(Config::default());
        let outputs = fixture.ask(NODE, b"file\0octet\0tsize\x000\0");
        let tsize = Options { tsize: Some(1_000), ..Options::default() };
        assert_eq!(packet(&outputs).unwrap().1, Packet::Agree(tsize));
        let outputs = fixture.send(NODE, 0, &Packet::Error { code, message: b"TFTP Aborted" });
        assert_eq!(outcome(&outputs), Some(&Outcome::Probed));
        assert_eq!(fixture.server.next_timeout(), Time::NEVER);
    }
}

#[test]
fn error_in_the_middle_ends_the_transfer() {
    let mut fixture = Fixture::new(Config::default());
    fixture.ask(NODE, b"file\0octet\0");
    fixture.send(NODE, 0, &Packet::Ack { block: 1 });
    let error = Packet::Error { code: ErrorCode::Other(3), message: b"disk\nfull" };
    let outputs = fixture.send(NODE, 0, &error);
    assert_eq!(
        outcome(&outputs),
        Some(&Outcome::Aborted { code: ErrorCode::Other(3), message: "disk\\nfull".into() })
    );
    assert_eq!(fixture.server.transfer_count(), 0);
}

#[test]
fn request_that_comes_twice_is_one_transfer() {
    let mut fixture = Fixture::new(Config::default());
    fixture.ask(NODE, b"file\0octet\0blksize\x00600\0");
    let outputs = fixture.ask(NODE, b"file\0octet\0blksize\x00600\0");
    let (to, answer) = packet(&outputs).unwrap();
    assert_eq!((to.port, fixture.server.transfer_count()), (Port(0), 1));
    assert!(matches!(answer, Packet::Agree(_)));
}

#[test]
fn node_that_starts_again_is_served_again() {
    let mut fixture = Fixture::new(Config::default());
    fixture.ask(NODE, b"file\0octet\0");
    fixture.send(NODE, 0, &Packet::Ack { block: 1 });
    let outputs = fixture.ask(NODE, b"file\0octet\0");
    let blocks = outputs.iter().find_map(|output| match output {
        Output::Blocks { transfer, window } => Some((transfer.port, window.first)),
        _ => None,
    });
    assert_eq!(blocks, Some((Port(1), 1)));
    // Had it been a late copy of the first request, the node would say so, and the first goes on.
    let error = Packet::Error { code: ErrorCode::UnknownTransfer, message: b"" };
    fixture.send(NODE, 1, &error);
    let outputs = fixture.send(NODE, 0, &Packet::Ack { block: 2 });
    assert_eq!(outcome(&outputs), Some(&Outcome::Complete));
}

#[test]
fn strangers_do_not_disturb_a_transfer() {
    let mut fixture = Fixture::new(Config::default());
    fixture.ask(NODE, b"file\0octet\0");
    for from in ["10.0.0.2:2001", "10.0.0.3:2000"] {
        let outputs = fixture.send(from, 0, &Packet::Error { code: 0.into(), message: b"" });
        assert!(outputs.is_empty());
    }
    assert!(fixture.give(request(b"\0")).is_empty());
    assert_eq!(fixture.server.counts().stray, 2);
    assert_eq!(fixture.server.counts().malformed, 1);
    assert_eq!(fixture.server.transfer_count(), 1);
}

#[test]
fn limits_hold_and_silence_makes_room() {
    let mut fixture =
        Fixture::new(Config { transfers_max: 3, node_transfers_max: 2, ..Config::default() });
    let fetch = |fixture: &mut Fixture, from| fixture.fetch(from, Standing::Stranger);
    assert!(fetch(&mut fixture, "10.0.0.2:1"));
    assert!(fetch(&mut fixture, "10.0.0.2:2"));
    assert!(!fetch(&mut fixture, "10.0.0.2:3"), "of one node");
    assert!(fetch(&mut fixture, "10.0.0.3:1"));
    assert!(!fetch(&mut fixture, "10.0.0.4:1"), "of all");
    assert_eq!(fixture.server.counts().busy, 2);
    // A node takes the place of a stranger, and of those the one that was silent for longest.
    assert!(fixture.fetch("10.0.0.4:1", Standing::Leased));
    fixture.now += IDLE_MAX;
    assert!(fetch(&mut fixture, "10.0.0.5:1"));
    assert_eq!(fixture.server.transfer_count(), 3);
    while fixture.server.next_timeout() < Time::NEVER {
        fixture.wait();
    }
    assert_eq!(fixture.server.transfer_count(), 0);
    assert!(fetch(&mut fixture, "10.0.0.2:3"));
}

#[test]
fn requests_of_many_invented_addresses_keep_out_nobody_who_answers() {
    let mut fixture = Fixture::new(Config::default());
    for node in 1..=9 {
        assert!(fixture.fetch(&format!("10.0.1.{node}:2000"), Standing::Stranger));
    }
    for n in 0..8_192_u32 {
        fixture.now += Duration::from_millis(1);
        let from = format!("10.0.66.{}:{}", n % 64, 1_000 + n);
        fixture.ask(&from, b"file\0octet\0");
        if n % 1_000 == 999 {
            let node = format!("10.0.2.{}:2000", n / 1_000);
            assert!(fixture.fetch(&node, Standing::Stranger), "{node}");
        }
    }
    assert_eq!(fixture.server.counts().busy, 0);
    assert!(fixture.server.transfer_count() <= HALF_OPEN_MAX + 17);
    // Those that had answered are still there.
    for node in 1..=9 {
        let from = format!("10.0.1.{node}:2000");
        let ended = (0..4).any(|port| {
            fixture.send(&from, port, &Packet::Ack { block: 1 });
            outcome(&fixture.send(&from, port, &Packet::Ack { block: 2 })).is_some()
        });
        assert!(ended, "{from}");
    }
}

#[test]
fn one_address_has_an_eighth_of_what_is_half_open() {
    let mut fixture = Fixture::new(Config::default());
    for port in 1..=1_000 {
        fixture.ask(&format!("10.0.0.9:{port}"), b"file\0octet\0");
    }
    assert_eq!(fixture.server.transfer_count(), HALF_OPEN_MAX / 8);
}

#[test]
fn who_finds_no_room_is_told_so_in_fewer_bytes_than_it_sent() {
    let mut fixture = Fixture::new(Config { half_open_max: 1, ..Config::default() });
    fixture.ask_as("10.0.0.2:1", Standing::Named, b"file\0octet\0");
    let outputs = fixture.ask("10.0.0.3:1", b"a\0octet\0");
    let Some(Output::Packet { datagram, .. }) = outputs.first() else { panic!("{outputs:?}") };
    assert!(matches!(Packet::decode(datagram), Ok(Packet::Error { .. })));
    assert!(datagram.len() <= b"\0\x01a\0octet\0".len());
    assert_eq!(fixture.server.transfer_count(), 1);
}

#[test]
fn a_request_that_nobody_stands_by_is_answered_with_two_packets() {
    for (request, longest) in
        [(&b"file\0octet\0"[..], 516), (b"file\0octet\0blksize\x001468\0windowsize\x0064\0", 40)]
    {
        let mut fixture = Fixture::new(Config::default());
        let mut outputs = fixture.ask(NODE, request);
        let mut ticks = 0;
        while fixture.server.next_timeout() < Time::NEVER {
            outputs.extend(fixture.wait());
            ticks += 1;
        }
        let lens: Vec<usize> = outputs
            .iter()
            .flat_map(|output| match output {
                Output::Packet { datagram, .. } => vec![datagram.len()],
                Output::Blocks { window, .. } => {
                    window.encode(&[0; 1_000]).iter().map(Vec::len).collect()
                }
                _ => vec![],
            })
            .collect();
        assert_eq!((lens.len(), ticks), (2, 2), "{lens:?}");
        assert!(lens.iter().all(|len| *len <= longest), "{lens:?}");
        assert_eq!(fixture.now, Time::ZERO + Duration::from_secs(30));
    }
}

#[test]
fn one_address_and_port_can_have_a_transfer_on_each_of_our_ports() {
    let mut fixture = Fixture::new(Config { port_count: 2, ..Config::default() });
    for _ in 0..3 {
        fixture.ask(NODE, b"file\0octet\0");
        for port in 0..2 {
            fixture.send(NODE, port, &Packet::Ack { block: 1 });
        }
    }
    assert_eq!((fixture.server.transfer_count(), fixture.server.counts().busy), (2, 1));
}

#[test]
fn firmware_that_turns_away_with_the_last_block_is_not_reported_as_lost() {
    let mut fixture = Fixture::new(Config::default());
    fixture.ask(NODE, b"file\0octet\0");
    fixture.send(NODE, 0, &Packet::Ack { block: 1 });
    let mut last = vec![];
    while fixture.server.transfer_count() > 0 {
        last = fixture.wait();
    }
    assert_eq!(outcome(&last), Some(&Outcome::Unconfirmed));
}

#[test]
fn file_that_cannot_be_read_ends_with_an_error() {
    let mut fixture = Fixture::new(Config::default());
    fixture.ask(NODE, b"file\0octet\0");
    let transfer = TransferId { peer: addr(NODE), port: Port(0) };
    let outputs = fixture.give(Input::ReadFailed { transfer });
    assert!(matches!(packet(&outputs), Some((_, Packet::Error { .. }))));
    assert_eq!(outcome(&outputs), Some(&Outcome::Unreadable));
}

#[test]
fn timers_of_thousands_stand_in_order() {
    let mut fixture = Fixture::new(Config {
        node_transfers_max: 8_192,
        half_open_max: 8_192 * 8,
        ..Config::default()
    });
    for port in 1..=5_000 {
        fixture.now += Duration::from_micros(10);
        let from = SocketAddr::from(([10, 0, 0, 2], port)).to_string();
        fixture.ask(&from, b"file\0octet\0blksize\x00600\0");
        if port % 2 == 0 {
            let to = ((port - 1) % 4) as u8;
            fixture.send(&from, to, &Packet::Ack { block: 0 });
        }
    }
    assert_eq!(fixture.server.transfer_count(), 5_000);
    let mut before = Time::ZERO;
    while fixture.server.next_timeout() < Time::NEVER {
        assert!(fixture.server.next_timeout() > before);
        before = fixture.server.next_timeout();
        fixture.wait();
    }
    assert_eq!(fixture.server.transfer_count(), 0);
}

#[test]
fn windows_of_all_together_have_an_end_and_come_back() {
    let mut fixture = Fixture::new(Config {
        node_transfers_max: 8_192,
        half_open_max: 8_192 * 8,
        ..Config::default()
    });
    let window = |fixture: &mut Fixture, from: &str| {
        let outputs = fixture.ask(from, b"file\0octet\0blksize\x001468\0windowsize\x0064\0");
        match packet(&outputs).unwrap().1 {
            Packet::Agree(Options { windowsize: Some(windowsize), .. }) => windowsize,
            other => panic!("{other:?}"),
        }
    };
    let granted: Vec<u16> = (1..=1_000)
        .map(|port| window(&mut fixture, &SocketAddr::from(([10, 0, 0, 2], port)).to_string()))
        .collect();
    assert_eq!((granted[0], granted[999]), (64, WINDOWSIZE_FEW));
    let sum: u64 = granted.iter().map(|windowsize| u64::from(*windowsize) * 1_468).sum();
    let few = u64::from(WINDOWSIZE_FEW) * 1_468 * 1_000;
    assert!(sum <= WINDOWS_LEN_MAX + few, "{sum}");
    while fixture.server.next_timeout() < Time::NEVER {
        fixture.wait();
    }
    assert_eq!(window(&mut fixture, NODE), 64);
}
