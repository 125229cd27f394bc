//! What DHCP servers send to the agent, and when. Nothing makes the client panic, send without end at
//! one moment, or say more at once than its driver expects; what it leases can be used.
//!
//! The input is a list of steps: `kind u8 | length u8 | that many bytes`. Of most kinds the client
//! would see nothing but packets for others, so the transaction and the node are filled in.
#![no_main]

use std::net::Ipv4Addr;
use std::time::Duration;

use dhcp::Time;
use dhcp::client::{
    Client, ClientConfig, DNS_MAX, Input, Lease, NAME_LEN_MAX, Output, ROUTERS_MAX,
};
use libfuzzer_sys::fuzz_target;

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

fuzz_target!(|bytes: &[u8]| {
    let config = ClientConfig {
        mac: MAC,
        uuid: None,
        hostname: None,
        boot_server: Some(Ipv4Addr::new(10, 0, 0, 1)),
        random_seed: 1,
    };
    let mut bench =
        Bench { client: Client::new(config, Time::ZERO), now: Time::ZERO, sent: vec![0; 240] };
    bench.handle(Input::Tick);
    let mut rest = bytes;
    while let [kind, len, tail @ ..] = rest {
        let (data, after) = tail.split_at(usize::from(*len).min(tail.len()));
        bench.step(*kind, data);
        rest = after;
    }
});

struct Bench {
    client: Client,
    now: Time,
    /// The client's last packet.
    sent: Vec<u8>,
}

impl Bench {
    fn step(&mut self, kind: u8, data: &[u8]) {
        let probed = self.client.probing().unwrap_or(Ipv4Addr::UNSPECIFIED);
        match kind {
            // Any bytes at all.
            0 => self.handle(Input::Datagram(data)),
            1 => self.handle(Input::AddressFree(probed)),
            2 => self.handle(Input::AddressTaken(probed)),
            3 => {
                let number = data.iter().take(4).fold(0, |sum, &byte| sum << 8 | u64::from(byte));
                self.now += Duration::from_millis(number);
                self.handle(Input::Tick);
            }
            4 => {
                let next = self.client.next_timeout();
                if next < Time::NEVER {
                    self.now = next;
                    self.handle(Input::Tick);
                }
            }
            // An answer: `kind` is the last byte of its address, `data` its options.
            _ => {
                let mut packet = self.sent[..240].to_vec();
                packet[0] = 2;
                packet[16..20].copy_from_slice(&[10, 0, 0, kind]);
                packet.extend_from_slice(data);
                self.handle(Input::Datagram(&packet));
            }
        }
    }

    fn handle(&mut self, input: Input<'_>) {
        self.client.handle(self.now, input);
        let mut count = 0;
        while let Some(output) = self.client.poll() {
            count += 1;
            match output {
                Output::Send { datagram, .. } => {
                    assert!(datagram.len() >= 300);
                    self.sent = datagram;
                }
                Output::Bound(lease) | Output::Renewed(lease) => check(&lease),
                Output::Probe(_) | Output::Declined(_) | Output::Lost { .. } => {}
            }
        }
        assert!(count <= 3, "{count} outputs of one input");
        assert!(self.client.next_timeout() > self.now);
    }
}

fn check(lease: &Lease) {
    assert!((1..=32).contains(&lease.prefix_len));
    assert!(lease.routers.len() <= ROUTERS_MAX && lease.dns.len() <= DNS_MAX);
    for name in [&lease.domain, &lease.hostname].into_iter().flatten() {
        assert!(name.len() <= NAME_LEN_MAX && !name.contains(char::is_whitespace));
    }
    assert!(lease.is_on_link(lease.address) && lease.is_on_link(lease.broadcast()));
}
