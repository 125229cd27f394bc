//! What strangers say to an endpoint, and what endpoints behind it say back: nothing may panic, what
//! is read must be written and read back the same, and no order of events may lead the machine astray.

#![no_main]

use std::time::Duration;

use lantorrent::chain::{Action, Chain, Config, Event, STALL_TIMEOUT};
use lantorrent::header::{Destination, HEADER_LEN_MAX, Head, HeadState, Header, Request};
use lantorrent::plan::{self, Wanted};
use lantorrent::report::{Footer, Line};
use libfuzzer_sys::fuzz_target;

const LENGTH: u64 = 1 << 20;
const NODE_COUNT: u16 = 5;

fuzz_target!(|input: &[u8]| {
    let Some((kind, bytes)) = input.split_first() else {
        return;
    };
    match kind % 4 {
        0 => head(bytes),
        1 => header(bytes),
        2 => back_channel(bytes),
        _ => chain(bytes),
    }
});

/// The lines that open a connection.
fn head(bytes: &[u8]) {
    let mut head = Head::default();
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        match head.line(line) {
            Ok(HeadState::Open) => assert!(head.text().len() <= HEADER_LEN_MAX),
            Ok(_) | Err(_) => return,
        }
    }
}

fn header(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    if let Ok(header) = Header::decode(text) {
        assert_eq!(Header::decode(&header.encode()), Ok(header));
    }
}

fn back_channel(bytes: &[u8]) {
    if let Ok(line) = Line::decode(bytes)
        && !matches!(line, Line::Unknown)
    {
        let again = Line::decode(line.encode().as_bytes());
        assert!(again.is_ok_and(|again| again == line));
    }
    if let Some(footer) = Footer::decode(bytes) {
        assert_eq!(Footer::decode(footer.encode().as_bytes()), Some(footer));
    }
}

fn destinations() -> Vec<Destination> {
    let wanted = |port: u16| {
        let name = port.to_string();
        let request = Request { filename: format!("/{name}"), id: name.clone(), rename: true };
        Wanted { host: name, port, request }
    };
    plan::destinations((1..=NODE_COUNT).map(wanted).collect(), 1, LENGTH)
}

/// An event for two bytes: what happened, and how much of it.
fn event(what: u8, amount: u8) -> Option<Event> {
    let branch = usize::from(amount % 3);
    let bytes = u64::from(amount) * (LENGTH / 128);
    Some(match what % 12 {
        0 => Event::Stored(bytes.min(LENGTH)),
        1 => Event::Connected(branch),
        2 => Event::NotConnected(branch, String::new()),
        3 => Event::Line(branch, Line::Hello { offset: bytes }),
        4 => Event::Line(branch, Line::Beat { received: bytes }),
        5 => Event::Line(branch, Line::Moved),
        6 => Event::NotJson(branch),
        7 => Event::Closed(branch, String::new()),
        8 => {
            let way = Duration::from_millis(u64::from(amount));
            Event::Probed(branch, (amount % 2 == 0).then_some(way), way * 3)
        }
        9 if amount % 2 == 0 => Event::Append(destinations()),
        9 => Event::Line(branch, back(amount)),
        10 if amount % 2 == 0 => Event::Forget(vec![(amount % 8).to_string()]),
        10 => Event::Measured(branch, (amount % 4 == 1).then_some(bytes * 8)),
        _ => return None,
    })
}

/// Somebody of the chain was put to its end.
fn back(amount: u8) -> Line {
    let port = u16::from(amount % 8);
    Line::Back { host: port.to_string(), port, pace: u64::from(amount) << 16 }
}

/// Whatever happens, in whatever order: nobody is reported on twice, and what can be sent is there.
fn chain(bytes: &[u8]) {
    let Some((setting, events)) = bytes.split_first() else {
        return;
    };
    let config = Config {
        length: LENGTH,
        degree: u32::from(setting % 3) + 1,
        compat: setting & 0x40 != 0,
        is_origin: setting & 0x80 != 0,
        stall: STALL_TIMEOUT,
    };
    let mut now = Duration::ZERO;
    let mut chain = Chain::new(config, destinations(), now);
    let mut reported = std::collections::BTreeSet::new();
    for pair in events.chunks_exact(2) {
        match event(pair[0], pair[1]) {
            Some(event) => chain.handle(now, event),
            None => {
                now += Duration::from_millis(u64::from(pair[1]) * 10);
                chain.tick(now);
            }
        }
        while let Some(action) = chain.poll() {
            if let Action::Report(report) = action {
                let key = (report.host, report.port, report.file, report.id);
                assert!(reported.insert(key), "reported twice");
            }
        }
        for branch in 0..chain.branch_count() {
            if let Some((from, len)) = chain.sendable(branch) {
                assert!(from + len <= LENGTH);
                chain.handle(now, Event::Sent(branch, len.min(LENGTH / 8)));
            }
            if chain.wants_footer(branch) {
                chain.handle(now, Event::FooterSent(branch));
            }
        }
    }
}
