//! What is simulated for an image, and how it is made small enough to be quick.
//!
//! Time in a swarm is counted in pieces: what decides is how many there are, and how long one takes
//! over a link. So an image in large pieces is simulated as one in pieces of [`UNIT_LEN`] at a rate
//! that is as much lower: as many pieces, each of which takes as long. Messages are not smaller for
//! it, so what is not payload counts for more than it will: the prediction is on the slow side. Where
//! that is still too much work, only the first part of the image is simulated. A swarm loses its time
//! at the beginning and at the end, so of less it loses a larger part: on the slow side again.

use std::time::Duration;

use sim::{Faults, Scenario};
use torrent::BLOCK_LEN;
use torrent::metainfo::create::piece_len;
use torrent::metainfo::unit_len;

/// The longest piece that is simulated as it is: two blocks, so that a piece still has parts.
const UNIT_LEN: u32 = 2 * BLOCK_LEN;

/// The most units that all nodes of one run get together: 20 s of a processor of 2020, and there are
/// three runs.
pub(super) const WORK_MAX: u64 = 500_000;

/// The least units that an image is cut down to: with fewer the loss at both ends would be most of
/// the prediction.
const UNITS_MIN: u64 = 256;

/// Of 1,538 bytes that a packet takes on Ethernet (preamble and gap counted), 1,448 are of the image
/// with TCP's timestamps.
pub(super) const PAYLOAD: f64 = 1_448.0 / 1_538.0;

/// A switched LAN.
const LATENCY: Duration = Duration::from_micros(200);

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Fleet {
    pub(super) nodes: u32,
    /// Of a node's link, in bits per second.
    pub(super) link: u64,
    /// Of the server's, in bits per second.
    pub(super) server_link: u64,
    /// The most that the server's peer sends, in bytes per second.
    pub(super) upload_limit: Option<u64>,
    /// Within this time all nodes have begun.
    pub(super) stagger: Duration,
    pub(super) random_seed: u64,
}

impl Fleet {
    /// What a node can get or send of an image, in bytes per second.
    pub(super) fn rate(&self) -> f64 {
        self.link as f64 / 8.0 * PAYLOAD
    }

    /// What the server can send of an image, in bytes per second.
    pub(super) fn server_rate(&self) -> f64 {
        let rate = self.server_link as f64 / 8.0 * PAYLOAD;
        self.upload_limit.map_or(rate, |limit| rate.min(limit as f64))
    }
}

/// How an image is simulated.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// Bytes of the image.
    pub(super) len: u64,
    /// Its pieces, of this length in bytes.
    pub(super) piece_count: u64,
    pub(super) piece_len: u32,
    /// How many times longer a unit of the image is than one of the simulation.
    pub(super) scale: u32,
    /// The part of the image that is simulated.
    pub(super) part: f64,
    clean: Scenario,
}

impl Plan {
    pub(super) fn new(len: u64, fleet: &Fleet) -> Self {
        let piece_len = piece_len(len);
        let piece_count = len.div_ceil(u64::from(piece_len));
        let unit = unit_len(len, piece_len, u32::try_from(piece_count).unwrap_or(u32::MAX));
        let scale = (unit / UNIT_LEN).max(1);
        // What is relayed is the unit: larger pieces are nothing more than several of them here.
        let unit_len = unit / scale;
        let units = len.div_ceil(u64::from(unit));
        let most = (WORK_MAX / u64::from(fleet.nodes)).max(UNITS_MIN);
        let simulated = units.min(most);
        let whole = simulated == units;
        let file_len = match whole {
            true => (len / u64::from(scale)).max(1),
            false => simulated * u64::from(unit_len),
        };
        let slower = |rate: f64| ((rate / f64::from(scale)) as u64).max(1);
        let (rate, seed_rate) = (slower(fleet.rate()), slower(fleet.server_rate()));
        let clean = Scenario {
            file_len,
            piece_len: unit_len,
            unit_len,
            rate,
            seed_rate: Some(seed_rate),
            latency: LATENCY,
            jitter: LATENCY,
            stagger: fleet.stagger,
            random_seed: fleet.random_seed,
            ..Scenario::clean(fleet.nodes)
        };
        let part = if whole { 1.0 } else { simulated as f64 / units as f64 };
        Self { len, piece_count, piece_len, scale, part, clean }
    }

    /// The run in which this goes wrong.
    pub(super) fn scenario(&self, faults: Faults) -> Scenario {
        Scenario { faults, ..self.clean.clone() }
    }

    /// The time that one node alone needs at the rate of the slower of both links.
    pub(super) fn ideal(&self, fleet: &Fleet) -> f64 {
        self.len as f64 / fleet.rate().min(fleet.server_rate())
    }

    /// The time until all nodes have it from the server alone, which sends it to each.
    pub(super) fn alone(&self, fleet: &Fleet) -> f64 {
        let all = self.len as f64 * f64::from(fleet.nodes);
        (all / fleet.server_rate()).max(self.len as f64 / fleet.rate())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn fleet(nodes: u32) -> Fleet {
        Fleet {
            nodes,
            link: 1_000_000_000,
            server_link: 1_000_000_000,
            upload_limit: None,
            stagger: Duration::ZERO,
            random_seed: 1,
        }
    }

    #[test]
    fn an_image_keeps_its_pieces_and_the_time_of_each() {
        let check = |mib: u64, nodes: u32, scale: u32, units: u64, part: f64| {
            let plan = Plan::new(mib * MIB, &fleet(nodes));
            let run = plan.scenario(Faults::default());
            assert_eq!(plan.scale, scale, "{mib} MiB");
            assert_eq!(run.file_len.div_ceil(u64::from(run.unit_len)), units, "{mib} MiB");
            assert!((plan.part - part).abs() < 1e-9, "{mib} MiB: {}", plan.part);
            // A unit takes as long as it will.
            let unit = MIB as f64 * mib as f64 * part / units as f64;
            let takes = f64::from(run.unit_len) / run.rate as f64;
            let will_take = unit / fleet(nodes).rate();
            assert!((takes / will_take - 1.0).abs() < 1e-3, "{mib} MiB: {takes} {will_take}");
        };
        check(16, 10, 1, 1024, 1.0);
        check(128, 10, 1, 4096, 1.0);
        check(1024, 10, 8, 4096, 1.0);
        check(4096, 10, 8, 16384, 1.0);
        check(1024, 1000, 8, 500, 500.0 / 4096.0);
        check(1024, 100_000, 8, 256, 0.0625);
    }

    #[test]
    fn a_slow_server_is_what_an_image_waits_for() {
        let slow = Fleet { upload_limit: Some(10_000_000), ..fleet(100) };
        let plan = Plan::new(1000 * MIB, &slow);
        assert!((plan.ideal(&slow) - 104.8576).abs() < 1e-6);
        assert!((plan.alone(&slow) - 10_485.76).abs() < 1e-3);
        assert!(plan.ideal(&fleet(100)) < 10.0);
    }
}
