//! One transfer, packet by packet.

use std::time::Duration;

use crate::{Options, PATIENCE, Step, Time, Transfer, Window};

fn at(millis: u64) -> Time {
    Time::from_nanos(millis * 1_000_000)
}

fn blocks(first: u64, count: u16, file_len: u64) -> Step {
    Step::Send(Window { first, count, blksize: 512, file_len })
}

/// A transfer of 100 full blocks and an empty one whose first window was sent at 2 ms, a round trip
/// being 2 ms.
fn windowed(windowsize: u16) -> Transfer {
    let options = Options { windowsize: Some(windowsize), ..Options::default() };
    let (mut transfer, step) = Transfer::start(at(0), 51_200, options);
    assert_eq!(step, Step::Agree(options));
    assert_eq!(transfer.acknowledged(at(2), 0), blocks(1, windowsize, 51_200));
    transfer
}

#[test]
fn without_options_the_first_block_comes_at_once() {
    let (_, step) = Transfer::start(at(0), 100, Options::default());
    assert_eq!(step, blocks(1, 1, 100));
}

#[test]
fn second_acknowledgement_of_a_block_sends_nothing() {
    let (mut transfer, _) = Transfer::start(at(0), 5_000, Options::default());
    assert_eq!(transfer.acknowledged(at(1), 1), blocks(2, 1, 5_000));
    assert_eq!(transfer.acknowledged(at(50), 1), Step::Nothing);
    assert_eq!(transfer.acknowledged(at(51), 2), blocks(3, 1, 5_000));
    assert_eq!(transfer.acknowledged(at(52), 1), Step::Nothing);
}

#[test]
fn acknowledgement_of_what_was_never_sent_is_passed_over() {
    let (mut transfer, _) = Transfer::start(at(0), 5_000, Options::default());
    for block in [2, 3, 40_000, 65_535] {
        assert_eq!(transfer.acknowledged(at(1), block), Step::Nothing);
    }
}

#[test]
fn gap_turns_the_window_back() {
    let mut transfer = windowed(8);
    assert_eq!(transfer.acknowledged(at(4), 3), blocks(4, 8, 51_200));
    assert_eq!(transfer.resent_count(), 5);
    assert_eq!(transfer.acknowledged(at(6), 11), blocks(12, 8, 51_200));
}

#[test]
fn lost_first_block_turns_the_window_back_once() {
    let mut transfer = windowed(8);
    assert_eq!(transfer.acknowledged(at(4), 0), blocks(1, 8, 51_200));
    assert_eq!(transfer.acknowledged(at(5), 0), Step::Nothing);
    assert_eq!(transfer.acknowledged(at(9), 0), Step::Nothing);
}

#[test]
fn acknowledgement_of_each_block_moves_the_window_on() {
    let mut transfer = windowed(8);
    // As if the node did not know what a window is: the second comes too soon after the first.
    assert_eq!(transfer.acknowledged(at(4), 1), blocks(2, 8, 51_200));
    assert_eq!(transfer.acknowledged(at(4), 2), blocks(10, 1, 51_200));
    assert_eq!(transfer.acknowledged(at(4), 3), blocks(11, 1, 51_200));
}

#[test]
fn copies_do_not_make_copies() {
    let mut transfer = windowed(8);
    // Lost: the acknowledgement of 8. The window is sent again, and acknowledged for each of its
    // packets by a node that answers copies, too.
    assert_eq!(transfer.timed_out(transfer.due()), blocks(1, 8, 51_200));
    assert_eq!(transfer.acknowledged(at(300), 8), blocks(9, 8, 51_200));
    for millis in 301..308 {
        assert_eq!(transfer.acknowledged(at(millis), 8), Step::Nothing);
    }
    assert_eq!(transfer.acknowledged(at(308), 16), blocks(17, 8, 51_200));
}

#[test]
fn last_window_ends_with_the_file() {
    let mut transfer = windowed(64);
    assert_eq!(transfer.acknowledged(at(4), 64), blocks(65, 37, 51_200));
    assert!(transfer.is_all_sent());
    assert_eq!(transfer.acknowledged(at(6), 101), Step::Complete);
    assert_eq!(transfer.acked_len(), 51_200);
}

#[test]
fn silence_after_the_first_answer_is_broken_once() {
    let (mut transfer, _) = Transfer::start(at(0), 100, Options::default());
    let mut sent = vec![];
    loop {
        let now = transfer.due();
        match transfer.timed_out(now) {
            Step::GiveUp => break,
            step => assert_eq!(step, blocks(1, 1, 100)),
        }
        sent.push(now.since(Time::ZERO).as_secs());
    }
    assert_eq!(sent, [1]);
    assert!(transfer.due().since(Time::ZERO) >= PATIENCE);
}

#[test]
fn silence_in_the_middle_is_broken_less_and_less_often() {
    let (mut transfer, _) = Transfer::start(at(0), 1_000, Options::default());
    assert_eq!(transfer.acknowledged(at(1_000), 1), blocks(2, 1, 1_000));
    let mut sent = vec![];
    while transfer.timed_out(transfer.due()) != Step::GiveUp {
        sent.push(transfer.due().since(at(1_000)).as_secs());
    }
    assert!(sent.len() > 4 && sent.is_sorted(), "{sent:?}");
}

#[test]
fn nothing_is_sent_before_its_time() {
    let (mut transfer, _) = Transfer::start(at(0), 100, Options::default());
    assert_eq!(transfer.timed_out(at(999)), Step::Nothing);
    assert_eq!(transfer.timed_out(at(1_000)), blocks(1, 1, 100));
}

#[test]
fn interval_follows_the_round_trip_unless_the_node_names_one() {
    let mut transfer = windowed(8);
    assert_eq!(transfer.acknowledged(at(4), 8), blocks(9, 8, 51_200));
    assert_eq!(transfer.due().since(at(4)), Duration::from_millis(200));
    let options = Options { timeout: Some(3), ..Options::default() };
    let (mut transfer, _) = Transfer::start(at(0), 51_200, options);
    assert_eq!(transfer.acknowledged(at(2), 0), blocks(1, 1, 51_200));
    assert_eq!(transfer.due().since(at(2)), Duration::from_secs(3));
}

#[test]
fn request_that_comes_again_is_answered_until_the_node_has_answered() {
    let options = Options { tsize: Some(100), ..Options::default() };
    let (mut transfer, _) = Transfer::start(at(0), 100, options);
    assert_eq!(transfer.asked_again(at(500)), Step::Agree(options));
    assert_eq!(transfer.acknowledged(at(501), 0), blocks(1, 1, 100));
    assert_eq!(transfer.asked_again(at(502)), Step::Nothing);
}
