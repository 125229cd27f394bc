//! Web seeds help where peers do not.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use torrent::metainfo::create::{Format, Spec};
use torrent_io::engine::{TorrentEvent, WebSeedTrouble};

use super::node::{Content, Node, bytes};
use super::server::{Server, partial, plain};

const KIB: u32 = 1 << 10;
const LEN: usize = 6_000_000;

/// A torrent of one file that names this web seed.
fn content(format: Format, piece_len: u32, server: &Server) -> Content {
    let web_seeds = vec![server.url("/disk")];
    let spec = Spec { format, piece_len: Some(piece_len), web_seeds, ..Spec::default() };
    Content::new(spec, &[("disk", LEN)])
}

/// A server of that file.
fn good() -> Server {
    let data = bytes(0, LEN);
    Server::start(move |request| partial(&data, request.range))
}

fn trouble(node: &Node) -> (String, &'static str) {
    node.wait(|event| match event {
        TorrentEvent::WebSeed { url, trouble } => {
            let what = match trouble {
                WebSeedTrouble::Failed(_) => "failed",
                WebSeedTrouble::Unusable(_) => "unusable",
                WebSeedTrouble::Corrupt => "corrupt",
            };
            Some((url.clone(), what))
        }
        _ => None,
    })
}

#[test]
fn a_node_without_peers_gets_all_from_a_web_seed() {
    // With long v2 pieces nobody tells the hashes of units: those of whole pieces must do.
    for (format, piece_len) in
        [(Format::Hybrid, 64 * KIB), (Format::V1, 64 * KIB), (Format::V2, 1024 * KIB)]
    {
        let server = good();
        let content = content(format, piece_len, &server);
        let leech = content.leech();
        leech.completes(&content);
        let stats = leech.stats(|stats| stats.verified == LEN as u64);
        assert_eq!((stats.downloaded, stats.wasted), (LEN as u64, 0));
        // Of 1 MiB at first and then longer: not one for each piece.
        assert!(server.requests().len() <= 8, "{:?}", server.requests());
    }
}

#[test]
fn files_of_a_folder_come_from_a_web_seed_with_the_padding_between_them() {
    let files = [("os/initrd", 70_000), ("os/kernel", 200_001)];
    let server = Server::start(move |request| {
        let number = files.iter().position(|(path, _)| request.path == format!("/pub/{path}"));
        let number = number.unwrap();
        partial(&bytes(number as u64, files[number].1), request.range)
    });
    for format in [Format::Hybrid, Format::V1, Format::V2] {
        let web_seeds = vec![server.url("/pub/")];
        let spec = Spec { format, piece_len: Some(64 * KIB), web_seeds, ..Spec::default() };
        let content = Content::new(spec, &files);
        content.leech().completes(&content);
    }
}

#[test]
fn a_corrupt_web_seed_is_reported_and_peers_bring_the_rest() {
    let mut data = bytes(0, LEN);
    data[LEN / 2] ^= 1;
    let server = Server::start(move |request| partial(&data, request.range));
    for (format, piece_len) in
        [(Format::Hybrid, 64 * KIB), (Format::V1, 64 * KIB), (Format::V2, 1024 * KIB)]
    {
        let content = content(format, piece_len, &server);
        let leech = content.leech();
        assert_eq!(trouble(&leech), (server.url("/disk"), "corrupt"));
        let count = server.requests().len();
        let seed = content.seed();
        leech.knows([seed.addr()]);
        leech.completes(&content);
        // The other of two fetches may have been under way.
        assert!(server.requests().len() <= count + 1, "asked again after it lied");
    }
}

#[test]
fn a_web_seed_without_the_file_is_reported_once() {
    let server = Server::start(|_| plain("404 Not Found", "", b"gone"));
    let content = content(Format::Hybrid, 64 * KIB, &server);
    let leech = content.leech();
    assert_eq!(trouble(&leech), (server.url("/disk"), "unusable"));
    let seed = content.seed();
    leech.knows([seed.addr()]);
    leech.completes(&content);
    // Both of the first two fetches may have been under way.
    assert!(server.requests().len() <= 2);
}

#[test]
fn a_web_seed_that_breaks_off_is_tried_again() {
    let data = bytes(0, LEN);
    let server = Server::start(move |request| {
        if request.number == 0 {
            return plain("500 Internal Server Error", "", b"");
        }
        partial(&data, request.range)
    });
    let content = content(Format::Hybrid, 64 * KIB, &server);
    let leech = content.leech();
    assert_eq!(trouble(&leech), (server.url("/disk"), "failed"));
    leech.completes(&content);
}

#[test]
fn a_web_seed_fills_in_what_peers_do_not_have() {
    // A stranger that has everything and hangs up after each tenth block: between its visits the
    // web seed is asked.
    let server = good();
    let content = content(Format::Hybrid, 64 * KIB, &server);
    let given = Arc::new(AtomicUsize::new(0));
    let counted = given.clone();
    let peer = super::stranger::seed(&content, move |number, _| {
        counted.fetch_add(1, Ordering::Relaxed);
        number < 9
    });
    let leech = content.leech();
    leech.knows([peer]);
    leech.completes(&content);
    assert!(given.load(Ordering::Relaxed) > 0 && !server.requests().is_empty());
}

#[test]
fn a_web_seed_is_not_asked_while_a_seed_delivers() {
    let server = good();
    let content = content(Format::Hybrid, 64 * KIB, &server);
    let (seed, leech) = (content.seed(), content.leech());
    leech.knows([seed.addr()]);
    leech.completes(&content);
    // A machine that hangs for a third of a second at the start makes it be asked for one or two.
    assert!(server.requests().len() <= 2, "{:?}", server.requests());
}
