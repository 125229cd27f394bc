//! What is simulated, and what came of it.

use std::time::Duration;

/// One simulated transfer.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Nodes apart from the seed.
    pub nodes: u32,
    /// Bytes of the image.
    pub file_len: u64,
    /// Piece length in bytes.
    pub piece_len: u32,
    /// Unit length in bytes; less than the piece with v2 block relaying.
    pub unit_len: u32,
    /// Payload bytes a second of each port, each way.
    pub rate: u64,
    /// Of the seed's port, if it is another.
    pub seed_rate: Option<u64>,
    /// One way, between any two nodes, waking the receiver included.
    pub latency: Duration,
    /// Up to so much is added to the latency of each message, at random.
    pub jitter: Duration,
    /// Nodes start within this time of the seed, at random.
    pub stagger: Duration,
    /// What goes wrong.
    pub faults: Faults,
    /// Seed of all random choices.
    pub random_seed: u64,
}

/// What goes wrong in a transfer.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// Nodes that vanish without a word when 40 % of the ideal time is over.
    pub silent_deaths: u32,
    /// Nodes that are killed then: their connections close.
    pub kills: u32,
    /// Nodes with a fifth ([`SLOW_PART`](crate::SLOW_PART)) of the rate.
    pub slow: u32,
    /// Nodes that start when 40 % of the ideal time is over.
    pub late: u32,
    /// The seed vanishes as soon as the other nodes hold one copy between them.
    pub seed_dies: bool,
    /// Nodes that send corrupt blocks.
    pub liars: u32,
    /// One control message in so many is delayed by a retransmission (200 ms); 0 for none.
    pub loss_one_in: u32,
}

/// What came of a run. Times are multiples of the ideal F/B.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Of nodes that are neither slow nor late nor dead: when they were complete, ascending.
    pub finished: Vec<f64>,
    /// Of slow nodes, as a multiple of their own ideal.
    pub slow: Vec<f64>,
    /// Of late nodes, from their own start.
    pub late: Vec<f64>,
    /// Payload that the seed sent, in images.
    pub seed_upload: f64,
    /// Payload received for nothing, as a part of all.
    pub waste: f64,
    /// Bytes of messages and packet headers apart from blocks, as a part of all sent.
    pub control: f64,
    /// Honest nodes that were banned by anybody: always zero.
    pub banned_honest: u32,
    /// Liars that were banned by somebody.
    pub banned_liars: u32,
    /// Living nodes that did not finish within the time limit.
    pub stuck: u32,
}

impl Outcome {
    /// The last node that is neither slow nor late nor dead.
    #[must_use]
    pub fn last(&self) -> f64 {
        self.finished.last().copied().unwrap_or(f64::NAN)
    }

    /// The node that 99 % of them are not later than.
    #[must_use]
    pub fn p99(&self) -> f64 {
        self.quantile(0.99)
    }

    /// The node in the middle.
    #[must_use]
    pub fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    fn quantile(&self, part: f64) -> f64 {
        let count = self.finished.len();
        if count == 0 {
            return f64::NAN;
        }
        let at = (count as f64 * part).ceil() as usize;
        self.finished[at.clamp(1, count) - 1]
    }
}

impl Scenario {
    /// A clean transfer of 128 MiB over 50 Mbit/s links, in the shape that our own metainfo has.
    #[must_use]
    pub fn clean(nodes: u32) -> Self {
        Self {
            nodes,
            file_len: 128 << 20,
            piece_len: 32 << 10,
            unit_len: 32 << 10,
            rate: 50_000_000 / 8,
            seed_rate: None,
            latency: Duration::from_micros(200),
            jitter: Duration::from_micros(200),
            stagger: Duration::ZERO,
            faults: Faults::default(),
            random_seed: 1,
        }
    }

    /// The time that one node alone would need at wire speed: every byte must leave the seed once.
    #[must_use]
    pub fn ideal(&self) -> Duration {
        let rate = self.seed_rate.map_or(self.rate, |seed| seed.min(self.rate));
        Duration::from_secs_f64(self.file_len as f64 / rate as f64)
    }
}
