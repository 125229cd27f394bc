#![expect(clippy::disallowed_types, reason = "prop_oneof! keeps its strategies in an Arc")]

use proptest::prelude::*;

use super::*;

const MAC: [u8; 6] = [0x52, 0x54, 0, 0, 0, 7];
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 50);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const OTHER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const UUID: [u8; 16] = [0xab; 16];

const DISCOVER: u8 = 1;
const OFFER: u8 = 2;
const REQUEST: u8 = 3;
const DECLINE: u8 = 4;
const ACK: u8 = 5;
const NAK: u8 = 6;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A client, its clock, and the last datagram that it sent.
struct Bench {
    client: Client,
    now: Time,
    sent: Vec<u8>,
}

impl Bench {
    fn new(boot_server: Option<Ipv4Addr>) -> Self {
        let config = ClientConfig {
            mac: MAC,
            uuid: Some(UUID),
            hostname: Some("n7".to_owned()),
            boot_server,
            random_seed: 42,
        };
        Self { client: Client::new(config, Time::ZERO), now: Time::ZERO, sent: vec![] }
    }

    fn handle(&mut self, input: Input<'_>) -> Vec<Output> {
        self.client.handle(self.now, input);
        let outputs: Vec<Output> = std::iter::from_fn(|| self.client.poll()).collect();
        for output in &outputs {
            if let Output::Send { datagram, .. } = output {
                self.sent.clone_from(datagram);
            }
        }
        outputs
    }

    fn tick_at(&mut self, now: Time) -> Vec<Output> {
        self.now = now;
        self.handle(Input::Tick)
    }

    /// Lets time pass until something is due.
    fn wait(&mut self) -> Vec<Output> {
        let next = self.client.next_timeout();
        assert!(next < Time::NEVER, "nothing is due");
        self.tick_at(next)
    }

    /// A server's answer to what was sent last.
    fn answer(&mut self, kind: u8, server: Ipv4Addr, more: &[u8]) -> Vec<Output> {
        let bytes = reply(&self.sent, kind, server, more);
        self.handle(Input::Datagram(&bytes))
    }

    /// As far as the probe.
    fn leased(lease_time_s: u32) -> Self {
        let mut bench = Self::new(None);
        bench.handle(Input::Tick);
        bench.answer(OFFER, SERVER, &[]);
        let outputs = bench.answer(ACK, SERVER, &lease_options(lease_time_s));
        assert_eq!(outputs, [Output::Probe(ADDRESS)]);
        bench
    }

    fn bound(lease_time_s: u32) -> Self {
        let mut bench = Self::leased(lease_time_s);
        let outputs = bench.handle(Input::AddressFree(ADDRESS));
        assert!(matches!(outputs[..], [Output::Bound(_)]), "{outputs:?}");
        bench
    }
}

fn lease_options(lease_time_s: u32) -> Vec<u8> {
    let mut options = vec![51, 4];
    options.extend_from_slice(&lease_time_s.to_be_bytes());
    options.extend_from_slice(&[1, 4, 255, 255, 255, 0, 3, 4, 10, 0, 0, 254]);
    options
}

fn reply(to: &[u8], kind: u8, server: Ipv4Addr, more: &[u8]) -> Vec<u8> {
    let mut bytes = to[..240].to_vec();
    bytes[0] = 2;
    if kind != NAK {
        bytes[16..20].copy_from_slice(&ADDRESS.octets());
    }
    bytes.extend_from_slice(&[53, 1, kind, 54, 4]);
    bytes.extend_from_slice(&server.octets());
    bytes.extend_from_slice(more);
    bytes.push(255);
    bytes
}

/// The value of an option of a datagram.
fn option(datagram: &[u8], code: u8) -> Option<&[u8]> {
    let mut rest = &datagram[240..];
    while let [found, len, tail @ ..] = rest {
        let (value, after) = tail.split_at_checked(usize::from(*len))?;
        if *found == code {
            return Some(value);
        }
        rest = after;
    }
    None
}

/// The kind of the only datagram among the outputs, and where it goes.
fn sent(outputs: &[Output]) -> (u8, Destination) {
    let all: Vec<(u8, Destination)> = outputs
        .iter()
        .filter_map(|output| match output {
            Output::Send { datagram, to } => Some((option(datagram, 53)?[0], *to)),
            _ => None,
        })
        .collect();
    assert_eq!(all.len(), 1, "{outputs:?}");
    all[0]
}

#[test]
fn four_packets_and_a_probe_make_a_lease() {
    let mut bench = Bench::new(None);
    assert_eq!(sent(&bench.handle(Input::Tick)), (DISCOVER, Destination::Broadcast));
    assert_eq!(sent(&bench.answer(OFFER, SERVER, &[])), (REQUEST, Destination::Broadcast));
    assert_eq!(option(&bench.sent, 50), Some(&ADDRESS.octets()[..]));
    assert_eq!(option(&bench.sent, 54), Some(&SERVER.octets()[..]));
    assert_eq!(bench.answer(ACK, SERVER, &lease_options(60)), [Output::Probe(ADDRESS)]);
    assert_eq!(bench.client.lease(), None);
    let outputs = bench.handle(Input::AddressFree(ADDRESS));
    let [Output::Bound(lease)] = &outputs[..] else { panic!("{outputs:?}") };
    assert_eq!((lease.address, lease.prefix_len, lease.server), (ADDRESS, 24, SERVER));
    assert_eq!(lease.routers, [Ipv4Addr::new(10, 0, 0, 254)]);
    assert_eq!(lease.lease_time, Some(Duration::from_secs(60)));
    assert_eq!(bench.client.lease(), Some(lease));
    assert_eq!(bench.now, Time::ZERO, "none of it waits");
}

#[test]
fn a_discover_says_who_asks() {
    let mut bench = Bench::new(None);
    bench.handle(Input::Tick);
    let discover = &bench.sent;
    assert!(discover.len() >= PACKET_LEN_MIN);
    assert_eq!(discover[28..34], MAC);
    assert_eq!(option(discover, 60), Some(&b"boottorrent-agent"[..]));
    assert_eq!(option(discover, 61), Some(&[1, 0x52, 0x54, 0, 0, 0, 7][..]));
    assert_eq!(option(discover, 12), Some(&b"n7"[..]));
    assert_eq!(option(discover, 97), Some(&[&[0], &UUID[..]].concat()[..]));
    assert_eq!(option(discover, 57), Some(&1_472_u16.to_be_bytes()[..]));
    assert!(option(discover, 55).unwrap().contains(&3));
}

#[test]
fn retries_are_quick_at_first_and_slow_in_the_end() {
    let mut bench = Bench::new(None);
    bench.handle(Input::Tick);
    let mut waits = vec![];
    for _ in 0..8 {
        let before = bench.now;
        assert_eq!(sent(&bench.wait()).0, DISCOVER);
        waits.push(bench.now - before);
    }
    for (n, wait) in waits.iter().enumerate() {
        let full = RETRY_MIN.saturating_mul(1 << n).min(RETRY_MAX);
        assert!(*wait >= full.mul_f64(0.75) && *wait <= full, "{waits:?}");
    }
    assert_eq!(bench.client.attempt(), 9);
}

#[test]
fn broadcast_answers_are_asked_for_when_nothing_comes() {
    let mut bench = Bench::new(None);
    bench.handle(Input::Tick);
    assert_eq!(bench.sent[10], 0);
    bench.wait();
    assert_eq!(bench.sent[10], 0);
    bench.wait();
    assert_eq!(bench.sent[10], 0x80);
}

#[test]
fn seconds_are_counted_from_the_start() {
    let mut bench = Bench::new(None);
    bench.handle(Input::Tick);
    bench.tick_at(Time::from_secs(9));
    assert_eq!(bench.sent[8..10], 9_u16.to_be_bytes());
}

#[test]
fn the_boot_server_is_preferred_though_it_is_slower() {
    let mut bench = Bench::new(Some(SERVER));
    bench.handle(Input::Tick);
    assert_eq!(bench.answer(OFFER, OTHER, &[]), []);
    bench.now += ms(50);
    assert_eq!(sent(&bench.answer(OFFER, SERVER, &[])).0, REQUEST);
    assert_eq!(option(&bench.sent, 54), Some(&SERVER.octets()[..]));
}

#[test]
fn the_first_offer_is_taken_if_the_boot_server_leases_nothing() {
    let mut bench = Bench::new(Some(SERVER));
    bench.handle(Input::Tick);
    bench.answer(OFFER, OTHER, &[]);
    bench.answer(OFFER, Ipv4Addr::new(10, 0, 0, 3), &[]);
    assert_eq!(sent(&bench.wait()).0, REQUEST);
    assert_eq!(bench.now, Time::ZERO + OFFER_WAIT);
    assert_eq!(option(&bench.sent, 54), Some(&OTHER.octets()[..]));
}

#[test]
fn a_proxy_offers_no_address() {
    let mut bench = Bench::new(None);
    bench.handle(Input::Tick);
    let mut bytes = reply(&bench.sent, OFFER, SERVER, &[]);
    bytes[16..20].fill(0);
    assert_eq!(bench.handle(Input::Datagram(&bytes)), []);
}

#[test]
fn a_server_that_falls_silent_is_left() {
    let mut bench = Bench::new(None);
    bench.handle(Input::Tick);
    bench.answer(OFFER, SERVER, &[]);
    for _ in 1..REQUESTS_MAX {
        assert_eq!(sent(&bench.wait()).0, REQUEST);
    }
    assert_eq!(sent(&bench.wait()).0, DISCOVER);
    assert!(bench.now <= Time::ZERO + ms(3_500), "{:?}", bench.now);
}

#[test]
fn an_ack_of_another_server_or_address_is_passed_over() {
    let mut bench = Bench::new(None);
    bench.handle(Input::Tick);
    bench.answer(OFFER, SERVER, &[]);
    assert_eq!(bench.answer(ACK, OTHER, &lease_options(60)), []);
    let mut bytes = reply(&bench.sent, ACK, SERVER, &lease_options(60));
    bytes[19] += 1;
    assert_eq!(bench.handle(Input::Datagram(&bytes)), []);
    assert_eq!(bench.answer(ACK, SERVER, &lease_options(60)), [Output::Probe(ADDRESS)]);
}

#[test]
fn an_ack_without_a_lease_time_is_passed_over() {
    let mut bench = Bench::new(None);
    bench.handle(Input::Tick);
    bench.answer(OFFER, SERVER, &[]);
    assert_eq!(bench.answer(ACK, SERVER, &[]), []);
}

#[test]
fn refusals_slow_the_client_down() {
    let mut bench = Bench::new(None);
    bench.handle(Input::Tick);
    let mut waits = vec![];
    for _ in 0..7 {
        bench.answer(OFFER, SERVER, &[]);
        let before = bench.now;
        assert_eq!(bench.answer(NAK, SERVER, &[]), []);
        assert_eq!(sent(&bench.wait()).0, DISCOVER);
        waits.push(bench.now - before);
    }
    assert!(waits[0] <= RETRY_MIN && waits[6] >= RESTART_MAX.mul_f64(0.75), "{waits:?}");
    assert!(waits.iter().all(|&wait| wait <= RESTART_MAX), "{waits:?}");
}

#[test]
fn an_address_in_use_is_declined() {
    let mut bench = Bench::leased(60);
    let outputs = bench.handle(Input::AddressTaken(ADDRESS));
    assert_eq!(sent(&outputs), (DECLINE, Destination::Broadcast));
    assert_eq!(outputs[1..], [Output::Declined(ADDRESS)]);
    assert_eq!(bench.sent.len(), PACKET_LEN_MIN);
    assert_eq!(option(&bench.sent, 50), Some(&ADDRESS.octets()[..]));
    assert_eq!(option(&bench.sent, 54), Some(&SERVER.octets()[..]));
    assert_eq!(bench.client.lease(), None);
    assert_eq!(sent(&bench.wait()).0, DISCOVER);
}

#[test]
fn a_probe_that_is_never_answered_for_does_not_hold_the_boot() {
    let mut bench = Bench::leased(60);
    assert_eq!(bench.handle(Input::AddressTaken(OTHER)), []);
    assert!(matches!(bench.wait()[..], [Output::Bound(_)]));
    assert_eq!(bench.now, Time::ZERO + PROBE_TIME_MAX);
}

#[test]
fn a_lease_is_renewed_at_its_server_by_half_its_time() {
    let mut bench = Bench::bound(800);
    assert_eq!(sent(&bench.wait()), (REQUEST, Destination::Server(SERVER)));
    let asked_at = bench.now;
    assert!(asked_at <= Time::from_secs(400) && asked_at >= Time::from_secs(350));
    assert_eq!(bench.sent[12..16], ADDRESS.octets());
    assert_eq!((option(&bench.sent, 50), option(&bench.sent, 54)), (None, None));
    bench.now += ms(5);
    let outputs = bench.answer(ACK, SERVER, &lease_options(1_600));
    assert!(matches!(outputs[..], [Output::Renewed(_)]), "{outputs:?}");
    let next = bench.client.next_timeout();
    assert!(next > asked_at + Duration::from_secs(700 - 1), "counted from when it asked");
    assert!(next <= asked_at + Duration::from_secs(800));
}

#[test]
fn renewals_are_spread_over_an_eighth_of_their_time() {
    let bench = Bench::bound(8_000);
    let renew_at = bench.client.next_timeout();
    assert!(renew_at < Time::from_secs(4_000) && renew_at > Time::from_secs(3_500));
}

#[test]
fn any_server_is_asked_when_the_own_one_is_silent() {
    let mut bench = Bench::bound(8_000);
    assert_eq!(sent(&bench.wait()).1, Destination::Server(SERVER));
    let mut tries = 0;
    loop {
        tries += 1;
        let (kind, to) = sent(&bench.wait());
        assert_eq!(kind, REQUEST);
        if to == Destination::Broadcast {
            break;
        }
    }
    assert!((3..12).contains(&tries), "{tries}");
    assert_eq!(bench.now, Time::from_secs(7_000));
    assert!(matches!(bench.answer(ACK, OTHER, &lease_options(8_000))[..], [Output::Renewed(_)]));
    assert_eq!(bench.client.lease().unwrap().server, OTHER);
}

#[test]
fn a_lease_that_nobody_prolongs_ends_and_another_is_sought() {
    let mut bench = Bench::bound(80);
    let lost = loop {
        let outputs = bench.wait();
        if matches!(outputs[0], Output::Lost { .. }) {
            break outputs;
        }
    };
    assert_eq!(bench.now, Time::from_secs(80));
    assert_eq!(lost[0], Output::Lost { address: ADDRESS, reason: LostReason::Expired });
    assert_eq!(sent(&lost[1..]), (DISCOVER, Destination::Broadcast));
    assert_eq!(bench.client.lease(), None);
}

#[test]
fn a_node_that_slept_past_its_lease_does_not_ask_for_more_of_it() {
    let mut bench = Bench::bound(80);
    let outputs = bench.tick_at(Time::from_secs(500));
    assert!(matches!(outputs[..], [Output::Lost { .. }, Output::Send { .. }]), "{outputs:?}");
}

#[test]
fn a_lease_taken_back_is_given_up_at_once() {
    let mut bench = Bench::bound(80);
    bench.wait();
    assert_eq!(bench.answer(NAK, OTHER, &[]), []);
    let outputs = bench.answer(NAK, SERVER, &[]);
    assert_eq!(outputs[0], Output::Lost { address: ADDRESS, reason: LostReason::Refused });
    assert_eq!(sent(&outputs[1..]).0, DISCOVER);
}

#[test]
fn a_lease_for_ever_waits_for_nothing() {
    let bench = Bench::bound(u32::MAX);
    assert_eq!(bench.client.next_timeout(), Time::NEVER);
    assert_eq!(bench.client.lease().unwrap().lease_time, None);
}

#[test]
fn a_lease_of_no_time_is_not_renewed_at_the_speed_of_the_network() {
    let mut bench = Bench::bound(0);
    let before = bench.now;
    bench.wait();
    assert!(bench.now - before >= ms(1_500));
}

#[test]
fn two_nodes_do_not_share_transactions() {
    let mut bench = Bench::new(None);
    bench.handle(Input::Tick);
    let mut other = Bench::new(None);
    other.client.config.random_seed = 43;
    other.client = Client::new(other.client.config.clone(), Time::ZERO);
    other.handle(Input::Tick);
    assert_ne!(bench.sent[4..8], other.sent[4..8]);
}

/// A step of a driver, a network and servers that do what they like.
#[derive(Clone, Debug)]
enum Step {
    Wait(u64),
    Junk(Vec<u8>),
    Answer { kind: u8, server: u8, options: Vec<u8> },
    Probed { free: bool },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0_u64..20_000_000).prop_map(Step::Wait),
        proptest::collection::vec(any::<u8>(), 0..400).prop_map(Step::Junk),
        (0_u8..9, 1_u8..3, lease_like()).prop_map(|(kind, server, options)| Step::Answer {
            kind,
            server,
            options
        }),
        any::<bool>().prop_map(|free| Step::Probed { free }),
    ]
}

fn lease_like() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        any::<u32>().prop_map(lease_options),
        (0_u32..100).prop_map(lease_options),
        proptest::collection::vec(any::<u8>(), 0..80),
    ]
}

proptest! {
    #[test]
    fn nothing_that_comes_makes_it_panic_or_loop(
        steps in proptest::collection::vec(step(), 0..120),
    ) {
        let mut bench = Bench::new(Some(SERVER));
        bench.handle(Input::Tick);
        for step in steps {
            let outputs = match step {
                Step::Wait(at_most) => {
                    bench.now += ms(at_most);
                    bench.handle(Input::Tick)
                }
                Step::Junk(bytes) => bench.handle(Input::Datagram(&bytes)),
                Step::Answer { kind, server, options } => {
                    bench.answer(kind, Ipv4Addr::new(10, 0, 0, server), &options)
                }
                Step::Probed { free: true } => bench.handle(Input::AddressFree(ADDRESS)),
                Step::Probed { free: false } => bench.handle(Input::AddressTaken(ADDRESS)),
            };
            prop_assert!(outputs.len() <= 3, "{outputs:?}");
            prop_assert!(bench.client.next_timeout() > bench.now);
        }
    }
}

#[test]
fn packets_do_not_pour_out_however_long_nobody_answers() {
    let mut bench = Bench::new(None);
    let mut count = 0;
    bench.handle(Input::Tick);
    while bench.now < Time::from_secs(24 * 3_600) {
        bench.wait();
        count += 1;
    }
    assert!(count <= 10 + 24 * 3_600 / 12, "{count}");
}
