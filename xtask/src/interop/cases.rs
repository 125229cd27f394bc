//! The matrix.

use super::content::Shape;
use super::program::Program::{
    self, Aria2, Libtorrent, LibtorrentHashless, Nginx, Ours, Transmission,
};
use super::torrent::{Format, Maker, Torrent};
use super::tracker::Tracker;

/// One transfer.
pub(super) struct Case {
    pub(super) torrent: Torrent,
    /// `None`: they find one another on the local network (LSD), or the seed is a web seed.
    pub(super) tracker: Option<Tracker>,
    pub(super) seed: Program,
    pub(super) nodes: Vec<Program>,
}

/// Small enough for many pieces, as big as a unit of ours is.
const SMALL: u32 = 64 * 1024;

/// A piece of many units: their hashes have to be asked for (BEP 52).
const BIG: u32 = 1024 * 1024;

/// Debian 12's aria2 1.36 computes a wrong infohash for hybrid torrents and its Transmission 3.00
/// cannot read them (the empty key that BEP 52 has in file trees), whoever has made them; aria2 1.37
/// and Transmission 4.0 can.
const fn reads(program: Program, format: Format) -> bool {
    !matches!((program, format), (Aria2 | Transmission, Format::Hybrid | Format::V2))
}

const SHAPES: [Shape; 2] = [Shape::Single, Shape::Folder];

impl Case {
    pub(super) fn name(&self) -> String {
        let mut nodes: Vec<String> = vec![];
        for node in &self.nodes {
            nodes.push(node.name().to_owned());
        }
        let seed = self.seed.name();
        let by = match self.tracker {
            Some(tracker) => tracker.name(),
            None if self.seed == Nginx => "URL".to_owned(),
            None => "LSD".to_owned(),
        };
        format!("{seed} → {}, {}, by {by}", nodes.join("+"), self.torrent.name())
    }
}

/// All of them. The long ones first, as several run at once.
pub(super) fn all() -> Vec<Case> {
    let mut cases = vec![mixed(Format::Hybrid), mixed(Format::V1)];
    cases.extend(trackers());
    cases.extend(pairs());
    cases.extend(v2_pairs());
    cases.extend(makers());
    cases.extend(local());
    cases.extend(web());
    cases
}

fn torrent(shape: Shape, format: Format, piece_len: u32) -> Torrent {
    Torrent { shape, format, piece_len, maker: Maker::Ours }
}

fn pair(seed: Program, node: Program, torrent: Torrent, tracker: Tracker) -> Case {
    Case { torrent, tracker: Some(tracker), seed, nodes: vec![node] }
}

fn mixed(format: Format) -> Case {
    let mut nodes = vec![Ours, Libtorrent, Aria2, Ours, Libtorrent, Transmission];
    nodes.retain(|&node| reads(node, format));
    let torrent = torrent(Shape::Folder, format, SMALL);
    Case { torrent, tracker: Some(Tracker::OURS_HTTP), seed: Ours, nodes }
}

/// Each of them against us, both ways.
fn pairs() -> Vec<Case> {
    let mut cases = vec![];
    // Transmission waits for timers, so it comes first.
    for them in [Transmission, Aria2, Libtorrent] {
        for format in [Format::V1, Format::Hybrid].into_iter().filter(|&f| reads(them, f)) {
            for shape in SHAPES {
                for (seed, node) in [(Ours, them), (them, Ours)] {
                    let torrent = torrent(shape, format, SMALL);
                    cases.push(pair(seed, node, torrent, Tracker::OURS_HTTP));
                }
            }
        }
    }
    cases
}

/// v2 only, which of them libtorrent alone can, and pieces whose hashes have to be asked for.
fn v2_pairs() -> Vec<Case> {
    let mut cases = vec![];
    for (format, piece_len) in [(Format::V2, SMALL), (Format::V2, BIG), (Format::Hybrid, BIG)] {
        for shape in SHAPES {
            for (seed, node) in [
                (Ours, Libtorrent),
                (Libtorrent, Ours),
                // It asks us for the hashes of pieces.
                (Ours, LibtorrentHashless),
                // It refuses to tell those of blocks.
                (LibtorrentHashless, Ours),
            ] {
                let torrent = torrent(shape, format, piece_len);
                cases.push(pair(seed, node, torrent, Tracker::OURS_HTTP));
            }
        }
    }
    cases
}

/// Torrents of other makers, between ours.
fn makers() -> Vec<Case> {
    let made = [
        (Maker::Mktorrent, Format::V1),
        (Maker::Transmission, Format::V1),
        (Maker::Libtorrent, Format::V1),
        (Maker::Libtorrent, Format::Hybrid),
        (Maker::Libtorrent, Format::V2),
    ];
    let mut cases = vec![];
    for (maker, format) in made {
        for shape in SHAPES {
            let torrent = Torrent { maker, ..torrent(shape, format, SMALL) };
            cases.push(pair(Ours, Ours, torrent, Tracker::OURS_HTTP));
        }
    }
    cases
}

/// Our peers with their tracker, their peers with ours.
fn trackers() -> Vec<Case> {
    let mut cases = vec![];
    for tracker in [Tracker::OPEN_HTTP, Tracker::OPEN_UDP] {
        for format in [Format::Hybrid, Format::V2] {
            let torrent = torrent(Shape::Single, format, SMALL);
            cases.push(pair(Ours, Ours, torrent, tracker));
        }
    }
    for (them, tracker) in [
        (Transmission, Tracker::OURS_HTTP),
        (Transmission, Tracker::OURS_UDP),
        // It speaks UDP only when its DHT is on, which needs the Internet.
        (Aria2, Tracker::OURS_HTTP),
        (Libtorrent, Tracker::OURS_HTTP),
        (Libtorrent, Tracker::OURS_UDP),
        (Ours, Tracker::OURS_UDP),
    ] {
        cases.push(pair(them, them, torrent(Shape::Single, Format::V1, SMALL), tracker));
    }
    cases
}

/// Without a tracker.
fn local() -> Vec<Case> {
    let mut cases = vec![];
    for format in [Format::V1, Format::Hybrid, Format::V2] {
        for (seed, node) in [(Ours, Ours), (Libtorrent, Ours), (Ours, Libtorrent)] {
            let torrent = torrent(Shape::Single, format, SMALL);
            cases.push(Case { torrent, tracker: None, seed, nodes: vec![node] });
        }
    }
    cases
}

/// From a web server, without a peer or a tracker.
fn web() -> Vec<Case> {
    let mut cases = vec![];
    for format in [Format::V1, Format::Hybrid, Format::V2] {
        for shape in SHAPES {
            let torrent = torrent(shape, format, SMALL);
            cases.push(Case { torrent, tracker: None, seed: Nginx, nodes: vec![Ours] });
        }
    }
    // Nobody can be asked for hashes.
    let torrent = torrent(Shape::Single, Format::V2, BIG);
    cases.push(Case { torrent, tracker: None, seed: Nginx, nodes: vec![Ours] });
    cases
}
