//! Peers find one another through those that they have.

use torrent::metainfo::create::{Format, Spec};
use torrent_io::engine::EngineConfig;

use super::node::{Content, Node, config};

fn on() -> EngineConfig {
    EngineConfig { pex: true, ..config() }
}

/// A knows B, B knows C, and nobody has anything, so that all stay.
fn line(content: &Content, configs: [EngineConfig; 3]) -> [Node; 3] {
    let nodes = configs.map(|config| content.leech_with(config));
    nodes[0].knows([nodes[1].addr()]);
    nodes[1].knows([nodes[2].addr()]);
    nodes
}

fn content(private: bool) -> Content {
    let spec = Spec { format: Format::Hybrid, private, ..Spec::default() };
    Content::new(spec, &[("disk", 200_000)])
}

#[test]
fn a_peer_of_a_peer_becomes_a_peer() {
    let content = content(false);
    let nodes = line(&content, [on(), on(), on()]);
    for node in &nodes {
        node.stats(|stats| stats.peers == 2);
    }
    // And data takes that way: the seed is known to one end only.
    let seed = content.seed_with(on());
    nodes[0].knows([seed.addr()]);
    nodes[2].completes(&content);
}

/// After more exchanges than ever are needed nobody has found anybody.
fn check_nobody_found(content: &Content, configs: [EngineConfig; 3]) {
    let [a, b, c] = line(content, configs);
    b.stats(|stats| stats.peers == 2);
    let mut ticks = 0;
    for end in [&a, &c] {
        let stats = end.stats(|_| {
            ticks += 1;
            // Half a second each, and the first exchange comes within two.
            ticks % 6 == 0
        });
        assert_eq!(stats.peers, 1);
    }
}

#[test]
fn peers_of_a_private_torrent_are_not_told_of() {
    check_nobody_found(&content(true), [on(), on(), on()]);
}

#[test]
fn who_has_it_off_neither_tells_nor_listens() {
    check_nobody_found(&content(false), [on(), config(), on()]);
    check_nobody_found(&content(false), [config(), on(), config()]);
}
