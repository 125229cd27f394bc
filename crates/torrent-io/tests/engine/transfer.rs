//! Data gets from seeds to leeches, whatever the shape of the torrent.

use torrent::metainfo::create::{Format, Spec};

use super::node::{Content, config};

const KIB: u32 = 1 << 10;
const MIB: usize = 1 << 20;

fn one_to_one(content: &Content) {
    let (seed, leech) = (content.seed(), content.leech());
    leech.knows([seed.addr()]);
    leech.completes(content);
    let stats = leech.stats(|stats| stats.verified == content.metainfo.geometry().data_len());
    assert_eq!(stats.wasted, 0);
}

#[test]
fn one_leech_gets_all_of_one_seed() {
    one_to_one(&Content::file(Format::Hybrid, 64 * KIB, 3 * MIB + 12_345));
    one_to_one(&Content::file(Format::V1, 64 * KIB, 3 * MIB + 12_345));
    one_to_one(&Content::file(Format::V2, 64 * KIB, 3 * MIB + 12_345));
}

#[test]
fn a_torrent_may_be_a_single_byte() {
    one_to_one(&Content::file(Format::Hybrid, 16 * KIB, 1));
    one_to_one(&Content::file(Format::V1, 16 * KIB, 1));
    one_to_one(&Content::file(Format::V2, 16 * KIB, 1));
}

#[test]
fn units_smaller_than_pieces_are_verified_by_hashes_from_the_peer() {
    let content = Content::file(Format::V2, 1024 * KIB, 5 * MIB + 100_000);
    assert_eq!(content.metainfo.geometry().unit_len(), 16 * KIB);
    one_to_one(&content);
}

#[test]
fn files_of_a_folder_arrive_with_the_padding_between_them() {
    for format in [Format::Hybrid, Format::V1, Format::V2] {
        let spec = Spec { format, piece_len: Some(64 * KIB), ..Spec::default() };
        one_to_one(&Content::new(
            spec,
            &[("os/kernel", 200_001), ("os/empty", 0), ("os/boot/initrd", 70_000), ("os/x", 5)],
        ));
    }
}

fn swarm_of(leech_count: usize, content: &Content) {
    let seed = content.seed();
    let leeches: Vec<_> = (0..leech_count).map(|_| content.leech()).collect();
    let addrs: Vec<_> = leeches.iter().map(|leech| leech.addr()).chain([seed.addr()]).collect();
    for leech in &leeches {
        leech.knows(addrs.iter().copied());
    }
    for leech in &leeches {
        leech.completes(content);
    }
}

#[test]
fn five_leeches_that_know_one_another_complete() {
    swarm_of(5, &Content::file(Format::Hybrid, 64 * KIB, 4 * MIB));
    swarm_of(5, &Content::file(Format::V1, 64 * KIB, 4 * MIB));
    swarm_of(5, &Content::file(Format::V2, 1024 * KIB, 4 * MIB + 1));
}

#[test]
fn leeches_in_a_line_pass_everything_on() {
    let content = Content::file(Format::V2, 256 * KIB, 2 * MIB);
    let nodes = [content.seed(), content.leech(), content.leech(), content.leech()];
    for pair in nodes.windows(2) {
        pair[1].knows([pair[0].addr()]);
    }
    for node in &nodes[1..] {
        node.completes(&content);
    }
}

#[test]
fn one_engine_runs_many_torrents() {
    let contents: Vec<_> =
        (1..=5).map(|number| Content::file(Format::Hybrid, 16 * KIB, number * 100_000)).collect();
    let seeds: Vec<_> = contents.iter().map(Content::seed).collect();
    let mut first = contents[0].leech();
    let others: Vec<_> = contents[1..].iter().map(|content| first.add_leech(content)).collect();
    let ids = [first.id].into_iter().chain(others.iter().map(|other| other.id));
    for (id, seed) in ids.zip(&seeds) {
        first.engine.add_peers(id, vec![seed.addr()]);
    }
    first.completes(&contents[0]);
    for (other, content) in others.iter().zip(&contents[1..]) {
        other.completes(content);
    }
}

#[test]
fn a_connection_to_itself_is_closed_and_does_no_harm() {
    let content = Content::file(Format::Hybrid, 64 * KIB, MIB);
    let leech = content.leech_with(config());
    leech.knows([leech.addr()]);
    // Dialled, taken, found to be itself: no figures ever count it.
    leech.stats(|_| true);
    leech.forget();
    assert_eq!(leech.stats(|_| true).peers, 0);
    let seed = content.seed();
    leech.knows([seed.addr()]);
    leech.completes(&content);
    assert!(leech.stats(|_| true).peers <= 1);
}
