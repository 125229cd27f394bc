//! What strangers send to a DHCP server: nothing may panic, what is answered can be read, and every
//! table stays within its limits whatever comes in whatever order.
//!
//! The input is messages one after the other: a byte that says how long to wait, one for mode and
//! port, two of length, and the message. The first byte of all chooses the mode.

#![no_main]

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use dhcp::{
    Audience, BootFiles, Config, Input, LabId, Mac, Message, Mode, Output, Port, Proof, Prover,
    Range, Reservation, Role, Service, Start, Subnet, Time,
};
use libfuzzer_sys::fuzz_target;

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const ADDRESSES: usize = 6;

fuzz_target!(|input: &[u8]| {
    let Some((mode, mut rest)) = input.split_first() else {
        return;
    };
    let mut now = Time::from_secs(1_000_000);
    let last_role = [None, Some(Role::Server), Some(Role::Proxy)][usize::from(mode >> 4) % 3];
    let start = Start { leases: vec![], last_role, prover: Box::new(Believer), seed: 1 };
    let mut service = Service::new(config(*mode), start, now).expect("the configuration is good");
    drain(&mut service);
    while let Some((&[wait, port, high, low], after)) = rest.split_first_chunk::<4>() {
        let len = usize::from(u16::from_be_bytes([high, low])).min(after.len());
        let (bytes, after) = after.split_at(len);
        rest = after;
        now += Duration::from_secs(u64::from(wait) * u64::from(wait));
        let port = [Port::Server, Port::Binl, Port::Client][usize::from(port % 3)];
        let from = SocketAddrV4::new(Ipv4Addr::from([10, 0, 0, wait]), 68);
        service.handle(now, Input::Packet { port, from, bytes });
        drain(&mut service);
        if let Some(due) = service.next_timeout()
            && due < now + Duration::from_secs(10)
        {
            now = now.max(due);
            service.handle(now, Input::Tick);
            drain(&mut service);
        }
        assert!(service.leases().count() <= ADDRESSES);
        let pool = service.pool();
        assert_eq!(pool.address_count, ADDRESSES - 1, "one is reserved");
        let unnamed = pool.unconfirmed_count + pool.confirmed_count + pool.declined_count;
        assert!(pool.free_count + pool.named_count + unnamed <= ADDRESSES, "{pool:?}");
    }
});

/// Takes everybody for a server of the lab: what these may say is to be tried as well.
#[derive(Debug)]
struct Believer;

impl Prover for Believer {
    fn sign(&self, _: &[u8]) -> Option<Proof> {
        Some(Proof { key: [1; 32], signature: [2; 64] })
    }

    fn holds(&self, _: LabId, _: &[u8], _: &Proof) -> bool {
        true
    }
}

/// Everything that is sent can be read.
fn drain(service: &mut Service) {
    let mut count = 0;
    while let Some(output) = service.poll() {
        if let Output::Send { bytes, .. } = output {
            Message::decode(&bytes).expect("ours is good");
        }
        count += 1;
    }
    assert!(count <= 16, "one input made {count} outputs");
}

/// Six addresses for machines here, two of them reserved, and some for a relay agent.
fn config(mode: u8) -> Config {
    let subnet = Subnet::of(SERVER, 24);
    let far = Subnet::of(Ipv4Addr::new(10, 1, 0, 0), 24);
    let range = |subnet, network: u8| Range {
        first: Ipv4Addr::new(10, network, 0, 50),
        last: Ipv4Addr::new(10, network, 0, 52),
        subnet,
        router: None,
    };
    let reservation = Reservation {
        mac: Mac([0; 6]),
        address: Some(Ipv4Addr::new(10, 0, 0, 50)),
        hostname: Some("c001".to_owned()),
    };
    Config {
        mode: [Mode::Auto, Mode::Server, Mode::Proxy][usize::from(mode % 3)],
        force: mode & 4 != 0,
        lab: LabId([1; 8]),
        address: SERVER,
        subnet,
        mac: Mac([2, 0, 0, 0, 0, 1]),
        ranges: vec![range(subnet, 0), range(far, 1)],
        reservations: vec![reservation],
        lease_time: Duration::from_secs(600),
        dns: vec![SERVER],
        domain: Some("lab.test".to_owned()),
        boot: BootFiles::usual(SERVER, 8080).with_pxelinux(),
        audience: Audience::ALL,
    }
}
