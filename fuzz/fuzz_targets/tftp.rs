//! What strangers send to a TFTP server: nothing may panic, what is read must be written and read
//! back the same, and no input may make the server send without end.

#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use tftp::{
    Config, Input, Options, Output, Packet, Port, Receiver, Server, Standing, Time, TransferId,
};

fuzz_target!(|input: &[u8]| {
    let Some((kind, bytes)) = input.split_first() else {
        return;
    };
    match kind % 3 {
        0 => packet(bytes),
        1 => server(bytes),
        _ => receiver(bytes),
    }
});

fn packet(bytes: &[u8]) {
    if let Ok(packet) = Packet::decode(bytes) {
        let again = packet.to_bytes();
        assert_eq!(Packet::decode(&again), Ok(packet));
    }
}

/// Steps of a control byte, a length and a datagram.
fn steps(mut bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let (head, rest) = bytes.split_first_chunk::<2>()?;
        let (datagram, rest) = rest.split_at(usize::from(head[1]).min(rest.len()));
        bytes = rest;
        Some((head[0], datagram))
    })
}

fn server(bytes: &[u8]) {
    const FILE_LEN: u64 = 100_000;
    const TRANSFERS_MAX: usize = 6;
    const HALF_OPEN_MAX: usize = 5;
    let limits = Config {
        transfers_max: TRANSFERS_MAX,
        half_open_max: HALF_OPEN_MAX,
        node_transfers_max: 4,
        port_count: 3,
        ..Config::default()
    };
    let mut server: Server<()> = Server::new(limits);
    let mut now = Time::ZERO;
    for (control, datagram) in steps(bytes) {
        let from = ([10, 0, 0, control % 3], 2_000 + u16::from(control / 3 % 2)).into();
        let to = TransferId { peer: from, port: Port(control / 8 % 3) };
        match control >> 6 {
            0 => {
                server.handle(now, Input::Request { from, standing: Standing::Stranger, datagram })
            }
            1 | 2 => server.handle(now, Input::Datagram { to, datagram }),
            _ => {
                now += Duration::from_millis(u64::from(control % 64) * 20);
                server.handle(now, Input::Tick);
            }
        }
        let mut sent = 0;
        while let Some(output) = server.poll() {
            match output {
                Output::Open { transfer, .. } => {
                    let file = Ok(((), FILE_LEN));
                    server.handle(now, Input::Opened { transfer, file });
                }
                Output::Blocks { window, .. } => {
                    assert!(window.count >= 1 && window.count <= tftp::WINDOWSIZE_MAX);
                    assert!(window.range().end <= FILE_LEN);
                    sent += 1;
                }
                Output::Packet { .. } => sent += 1,
                Output::Event(_) => {}
            }
        }
        assert!(sent <= 1 || control >> 6 == 3, "{sent} answers to one packet");
        assert!(sent <= TRANSFERS_MAX + HALF_OPEN_MAX, "{sent} packets in one moment");
        assert!(server.transfer_count() <= TRANSFERS_MAX + HALF_OPEN_MAX);
        assert!(server.next_timeout() > now);
    }
}

fn receiver(bytes: &[u8]) {
    let options = Options { blksize: Some(16), windowsize: Some(4), ..Options::default() };
    let mut receiver = Receiver::new(b"file", options);
    let mut next = 0;
    for (control, datagram) in steps(bytes) {
        let from = ([10, 0, 0, 1], 5_000 + u16::from(control % 2)).into();
        if let Some((offset, bytes)) = receiver.handle(from, datagram).bytes {
            assert_eq!(offset, next);
            next += bytes.len() as u64;
        }
    }
    if let Some(Ok(len)) = receiver.result() {
        assert_eq!(len, next);
    }
}
