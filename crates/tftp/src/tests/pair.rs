//! What arrives, and at what cost.

use std::time::Duration;

use proptest::prelude::*;

use super::{Fetched, Network, Pair, content};
use crate::{Event, Options, Outcome};

const PERFECT: Network = Network { loss: 0, duplication: 0, delay: 0, seed: 1 };

fn fetch(network: Network, len: usize, options: Options) -> Fetched {
    let file = content(len);
    let fetched = Pair::new(network, file.clone(), options).run();
    assert!(fetched.bytes == file, "{} of {len} bytes, {network:?}", fetched.bytes.len());
    fetched
}

fn windows(windowsize: u16) -> Options {
    Options { windowsize: Some(windowsize), ..Options::default() }
}

fn outcome(fetched: &Fetched) -> &Outcome {
    match fetched.events.as_slice() {
        [Event::Started { .. }, Event::Ended { outcome, .. }] => outcome,
        events => panic!("{events:?}"),
    }
}

#[test]
fn file_of_any_length_arrives_whole() {
    for len in [0, 1, 511, 512, 513, 1_024, 5_000] {
        for options in [Options::default(), windows(1), windows(3), windows(64)] {
            let fetched = fetch(PERFECT, len, options);
            assert_eq!(fetched.data_count, len as u64 / 512 + 1, "{len} {options:?}");
            assert_eq!(outcome(&fetched), &Outcome::Complete);
        }
    }
}

#[test]
fn block_numbers_begin_again_at_zero() {
    for windowsize in [1, 7, 64] {
        let options = Options { blksize: Some(8), ..windows(windowsize) };
        let fetched = fetch(PERFECT, 8 * 140_000 + 3, options);
        assert_eq!(fetched.data_count, 140_001);
    }
}

#[test]
fn windows_take_a_round_trip_each() {
    let lock_step = fetch(PERFECT, 512 * 1_000, Options::default()).took;
    let windowed = fetch(PERFECT, 512 * 1_000, windows(50)).took;
    assert!(windowed < lock_step / 40, "{windowed:?} {lock_step:?}");
}

#[test]
fn doubled_packets_do_not_double_what_is_sent() {
    // Every packet of the network comes twice, for the whole transfer.
    let network = Network { duplication: 255, ..PERFECT };
    for options in [Options::default(), windows(2), windows(16), windows(64)] {
        let fetched = fetch(network, 512 * 1_000, options);
        // The first block answers the request, which came twice.
        assert!(fetched.data_count <= 1_002, "{} {options:?}", fetched.data_count);
    }
}

#[test]
fn one_spurious_repetition_does_not_go_on_for_ever() {
    // Delays reorder packets, so that gaps are seen where nothing was lost.
    for windowsize in [4, 16, 64] {
        let network = Network { delay: 5, seed: 11, ..PERFECT };
        let fetched = fetch(network, 512 * 2_000, windows(windowsize));
        let most = 2_001 * 3;
        assert!(fetched.data_count < most, "{windowsize}: {}", fetched.data_count);
    }
}

#[test]
fn one_per_cent_of_loss_costs_little() {
    let network = Network { loss: 3, ..PERFECT };
    for windowsize in [1, 4, 16] {
        let fetched = fetch(network, 512 * 1_000, windows(windowsize));
        let most = 1_001 + 1_001 * 2 * u64::from(windowsize) / 50;
        assert!(fetched.data_count <= most.max(1_050), "{windowsize}: {}", fetched.data_count);
        assert_eq!(outcome(&fetched), &Outcome::Complete);
    }
}

#[test]
fn gap_is_repaired_within_a_round_trip() {
    let network = Network { loss: 1, seed: 3, ..PERFECT };
    let fetched = fetch(network, 512 * 2_000, windows(64));
    assert!(fetched.took < Duration::from_millis(150), "{:?}", fetched.took);
}

#[test]
fn silent_node_is_given_up() {
    let network = Network { loss: 255, ..PERFECT };
    let fetched = Pair::new(network, content(5_000), Options::default()).run();
    assert!(fetched.events.is_empty(), "even the request is lost");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the network does, short of not carrying anything, the file arrives.
    #[test]
    fn file_arrives_over_a_bad_network(
        loss in 0..50_u8,
        duplication in 0..80_u8,
        delay in 0..120_u8,
        seed: u64,
        len in 0..40_000_usize,
        blksize in proptest::option::of(8..2_000_u16),
        windowsize in proptest::option::of(1..70_u16),
        tsize in proptest::option::of(Just(0_u64)),
    ) {
        let len = len.min(usize::from(blksize.unwrap_or(512)) * 400);
        let options = Options { blksize, windowsize, tsize, timeout: None };
        fetch(Network { loss, duplication, delay, seed }, len, options);
    }
}
