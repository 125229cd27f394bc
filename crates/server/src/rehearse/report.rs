//! What came of a rehearsal, in seconds and bytes.

use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;
use sim::{FAULT_AT, Outcome, SLOW_PART};

use super::plan::{Fleet, Plan};
use crate::lab::config::ImageConfig;
use crate::lab::settings::Settings;
use crate::quantity;
use crate::status::table::Table;

/// What goes wrong in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Case {
    /// Nodes with a part of the rate.
    pub(super) slow: u32,
    /// Nodes that vanish.
    pub(super) dying: u32,
}

/// A rehearsal of an image.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Rehearsal {
    pub(super) image: String,
    pub(super) title: String,
    pub(super) nodes: u32,
    link_bits_per_s: u64,
    server_link_bits_per_s: u64,
    upload_limit_bytes_per_s: Option<u64>,
    len_bytes: u64,
    piece_count: u64,
    piece_len_bytes: u32,
    random_seed: u64,
    /// Units are so many times longer than simulated ones, at as many times the rate.
    scale: u32,
    /// The part of the image that was simulated.
    simulated_part: f64,
    /// One node alone, at the rate of its link or the server's.
    pub(super) ideal_s: f64,
    /// All nodes from the server alone.
    pub(super) without_swarm_s: f64,
    /// Phase 1, which each node gets from the server.
    phase1: Option<Phase1>,
    /// How long the menu waits; none if it waits for somebody.
    menu_s: Option<u64>,
    /// How long a node goes on seeding.
    seed_time_s: u64,
    pub(super) cases: Vec<Predicted>,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Phase1 {
    len_bytes: u64,
    /// Until the last node has it, if all ask at once.
    seconds: f64,
}

/// A run.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Predicted {
    #[serde(flatten)]
    pub(super) case: Case,
    /// Until nodes have the image, from their start.
    median_s: f64,
    last_s: f64,
    /// The last slow node.
    slow_last_s: Option<f64>,
    server_upload_bytes: u64,
    /// Of it, in images.
    server_upload_images: f64,
    /// Part of what was received for nothing.
    wasted: f64,
    /// Nodes that never had it.
    stuck_count: u32,
    /// When each node has it, in order.
    #[serde(skip)]
    pub(super) times: Vec<f64>,
}

impl Rehearsal {
    pub(super) fn new(
        image: &ImageConfig,
        settings: &Settings,
        fleet: &Fleet,
        plan: &Plan,
        phase1_len: Option<u64>,
        outcomes: &[(Case, Outcome)],
    ) -> Self {
        let ideal_s = plan.ideal(fleet);
        let phase1 = phase1_len.map(|len_bytes| {
            let all = len_bytes as f64 * f64::from(fleet.nodes);
            let server = fleet.server_link as f64 / 8.0 * super::plan::PAYLOAD;
            Phase1 { len_bytes, seconds: all / server }
        });
        let predict = |(case, outcome): &(Case, Outcome)| predicted(*case, outcome, plan, ideal_s);
        Self {
            image: image.name.to_string(),
            title: image.title.clone(),
            nodes: fleet.nodes,
            link_bits_per_s: fleet.link,
            server_link_bits_per_s: fleet.server_link,
            upload_limit_bytes_per_s: fleet.upload_limit,
            len_bytes: plan.len,
            piece_count: plan.piece_count,
            piece_len_bytes: plan.piece_len,
            random_seed: fleet.random_seed,
            scale: plan.scale,
            simulated_part: plan.part,
            ideal_s,
            without_swarm_s: plan.alone(fleet),
            phase1,
            menu_s: settings.menu.timeout.map(|time| time.as_secs()),
            seed_time_s: settings.seed_time.as_secs(),
            cases: outcomes.iter().map(predict).collect(),
        }
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        let _ = writeln!(
            text,
            "{} ({}): {} in {} of {}, to {} over {}\n",
            self.image,
            self.title,
            quantity::bytes(self.len_bytes),
            quantity::count(self.piece_count as usize, "piece"),
            quantity::bytes(self.piece_len_bytes.into()),
            quantity::count(self.nodes as usize, "node"),
            self.links(),
        );
        let mut table = Table::new(["", "HALF", "ALL", "SLOW", "SERVER SENDS", "WASTED"]);
        for case in &self.cases {
            let slow = case.slow_last_s.map_or_else(String::new, seconds);
            table.push([
                case.name(),
                seconds(case.median_s),
                seconds(case.last_s),
                slow,
                format!(
                    "{} ({:.2} images)",
                    quantity::bytes(case.server_upload_bytes),
                    case.server_upload_images
                ),
                format!("{:.1} %", case.wasted * 100.0),
            ]);
        }
        let images = f64::from(self.nodes);
        let all = quantity::bytes(self.len_bytes.saturating_mul(self.nodes.into()));
        table.push([
            "from the server alone".to_owned(),
            seconds(self.without_swarm_s),
            seconds(self.without_swarm_s),
            String::new(),
            format!("{all} ({images:.2} images)"),
            String::new(),
        ]);
        text.push_str(&table.text());
        text.push('\n');
        for line in self.notes() {
            let _ = writeln!(text, "{line}");
        }
        text.truncate(text.trim_end().len());
        text
    }

    fn links(&self) -> String {
        let link = quantity::bits(self.link_bits_per_s);
        let mut text = match self.server_link_bits_per_s == self.link_bits_per_s {
            true => format!("links of {link}"),
            false => format!(
                "links of {link}, the server's {}",
                quantity::bits(self.server_link_bits_per_s)
            ),
        };
        if let Some(limit) = self.upload_limit_bytes_per_s {
            let _ = write!(text, ", swarm.upload_limit {}", quantity::rate(limit as f64));
        }
        text
    }

    fn notes(&self) -> Vec<String> {
        let last = self.cases.first().map_or(0.0, |clean| clean.last_s);
        let mut notes = vec![];
        let stuck: u32 = self.cases.iter().map(|case| case.stuck_count).sum();
        if stuck > 0 {
            notes.push(format!("{} never had the image.", quantity::count(stuck as usize, "node")));
        }
        let menu = match self.menu_s {
            Some(time) => format!("{time} s of menu"),
            None => "the menu, which waits for somebody".to_owned(),
        };
        let phase1 = match self.phase1 {
            Some(Phase1 { len_bytes, seconds: time }) => format!(
                "{} for phase 1 ({} to each node, from the server alone)",
                seconds(time),
                quantity::bytes(len_bytes)
            ),
            None => "phase 1 (not built yet, so of unknown size)".to_owned(),
        };
        let known = last
            + self.phase1.map_or(0.0, |phase1| phase1.seconds)
            + (self.menu_s.unwrap_or(0) + self.seed_time_s) as f64;
        notes.push(format!(
            "From power-on to the image's kernel: {phase1}, {menu}, {} of download, {} s of \
             seeding: {}. Firmware and kernels come on top.",
            seconds(last),
            self.seed_time_s,
            seconds(known),
        ));
        notes.push(format!(
            "Slow nodes have 1/{SLOW_PART} of the rate. Dying nodes vanish without a word when {:.0} % \
             of the least possible time, {}, is over; they are not counted.",
            FAULT_AT * 100.0,
            seconds(self.ideal_s),
        ));
        if self.scale > 1 {
            notes.push(format!(
                "Simulated with pieces of 1/{0} of the length at 1/{0} of the rate: as many, each of \
                 which takes as long. What is not payload counts for more than it will.",
                self.scale,
            ));
        }
        if self.simulated_part < 1.0 {
            notes.push(format!(
                "Simulated with {:.0} % of the image, as all of it would take minutes: of a shorter \
                 one a swarm loses a larger part of its time.",
                self.simulated_part * 100.0
            ));
        }
        notes
    }
}

impl Predicted {
    /// What goes wrong, in words.
    pub(super) fn name(&self) -> String {
        match self.case {
            Case { slow: 0, dying: 0 } => "nothing goes wrong".to_owned(),
            Case { slow, dying: 0 } => quantity::count(slow as usize, "slow node"),
            Case { dying, .. } => quantity::count(dying as usize, "dying node"),
        }
    }
}

fn predicted(case: Case, outcome: &Outcome, plan: &Plan, ideal_s: f64) -> Predicted {
    let slow = outcome.slow.iter().map(|time| time * SLOW_PART as f64);
    let mut times: Vec<f64> =
        outcome.finished.iter().copied().chain(slow.clone()).map(|time| time * ideal_s).collect();
    times.sort_by(f64::total_cmp);
    Predicted {
        case,
        median_s: outcome.median() * ideal_s,
        last_s: outcome.last() * ideal_s,
        slow_last_s: slow.reduce(f64::max).map(|time| time * ideal_s),
        server_upload_bytes: (outcome.seed_upload * plan.len as f64) as u64,
        server_upload_images: outcome.seed_upload,
        wasted: outcome.waste,
        stuck_count: outcome.stuck,
        times,
    }
}

fn seconds(time: f64) -> String {
    quantity::duration(Duration::try_from_secs_f64(time).unwrap_or_default())
}
