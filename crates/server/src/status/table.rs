//! Tables of text: columns as wide as what is in them.

use boot::{Firmware, Stage};
use serde_json::Value;

use crate::fleet::{Summary, UnixMs, percent};
use crate::quantity;
use crate::services::status::{ServiceStatus, Status};

/// The width of a progress bar.
const BAR_LEN: u64 = 10;

/// A line of a table.
pub(crate) type Row<const N: usize> = [String; N];

/// Rows under a heading.
#[derive(Clone, Debug)]
pub(crate) struct Table<const N: usize> {
    rows: Vec<Row<N>>,
}

impl<const N: usize> Table<N> {
    pub(crate) fn new(heading: [&str; N]) -> Self {
        Self { rows: vec![heading.map(str::to_owned)] }
    }

    pub(crate) fn push(&mut self, row: Row<N>) {
        self.rows.push(row);
    }

    /// The table as text, two spaces between columns.
    pub(crate) fn text(&self) -> String {
        let mut widths = [0; N];
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let mut text = String::new();
        for row in &self.rows {
            let cells: Vec<String> =
                row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
            text.push_str(cells.join("  ").trim_end());
            text.push('\n');
        }
        text
    }
}

/// How long ago, as people say it.
pub(crate) fn since(now: UnixMs, then: UnixMs) -> String {
    let seconds = now.since(then) / 1000;
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{} h {} min", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

pub(super) fn services(status: &Status) -> String {
    let mut table = Table::new(["SERVICE", "STATE", "COUNTS"]);
    for service in &status.services {
        table.push([service.name.clone(), service.state.clone(), counts(service)]);
    }
    format!("\n{}", table.text())
}

/// The counts as words: `7 requests, 1.20 GB sent`.
fn counts(service: &ServiceStatus) -> String {
    let Value::Object(counts) = &service.counts else {
        return String::new();
    };
    let words = counts.iter().filter_map(|(name, value)| {
        let value = value.as_u64()?;
        let words = |name: &str| name.replace('_', " ");
        Some(if let Some(name) = name.strip_suffix("_bytes_per_s") {
            format!("{} {}", words(name), quantity::rate(value as f64))
        } else if let Some(name) = name.strip_suffix("_bytes") {
            format!("{} {}", words(name), quantity::bytes(value))
        } else {
            let noun = words(name.strip_suffix("_count")?);
            quantity::count(usize::try_from(value).unwrap_or(usize::MAX), &noun)
        })
    });
    words.collect::<Vec<_>>().join(", ")
}

/// The images, and how many nodes are on the way to each and have arrived.
pub(super) fn images(status: &Status, nodes: &[Summary]) -> String {
    let mut table = Table::new(["IMAGE", "SIZE", "ON THE WAY", "BOOTED", "TITLE"]);
    for image in &status.images {
        let mark = if image.is_default { " (default)" } else { "" };
        let title = format!("{}{mark}", image.title);
        let (booted, on_the_way): (Vec<&Summary>, Vec<&Summary>) = nodes
            .iter()
            .filter(|node| node.image() == Some(&image.name))
            .partition(|node| matches!(node.stage, Some(Stage::Booted { .. })));
        table.push([
            image.name.to_string(),
            quantity::bytes(image.len_bytes),
            on_the_way.len().to_string(),
            booted.len().to_string(),
            title,
        ]);
    }
    format!("\n{}", table.text())
}

pub(crate) fn nodes(nodes: &[Summary], now: UnixMs) -> String {
    if nodes.is_empty() {
        return "no node has been seen yet\n".to_owned();
    }
    let mut table = Table::new(["NODE", "ADDRESS", "FIRMWARE", "STAGE", "PROGRESS", "SINCE"]);
    for node in nodes {
        table.push([
            node.label(),
            node.address.map_or_else(|| "-".to_owned(), |address| address.to_string()),
            node.firmware.map_or("-", firmware).to_owned(),
            stage(node),
            progress(node),
            node.stage.as_ref().map_or_else(|| "-".to_owned(), |_| since(now, node.since)),
        ]);
    }
    table.text()
}

pub(crate) const fn firmware(firmware: Firmware) -> &'static str {
    match firmware {
        Firmware::Bios => "bios",
        Firmware::Uefi => "uefi",
        Firmware::UefiHttp => "uefi-http",
        Firmware::Ipxe => "ipxe",
        Firmware::Unknown => "unknown",
    }
}

fn stage(node: &Summary) -> String {
    match &node.stage {
        None => "-".to_owned(),
        Some(Stage::Failed { failure, .. }) => format!("failed {}", failure.code()),
        Some(Stage::Booted { seeding: Some(seeding), .. }) if !seeding.paused => {
            "booted, seeding".to_owned()
        }
        Some(stage) => stage.name().to_owned(),
    }
}

/// What there is to say of a stage, in one cell.
fn progress(node: &Summary) -> String {
    match &node.stage {
        Some(Stage::Downloading(progress)) => {
            let share = percent(progress);
            let full = (share * BAR_LEN / 100) as usize;
            let bar = format!("{}{}", "#".repeat(full), ".".repeat(BAR_LEN as usize - full));
            let rate = quantity::rate(progress.rate_bytes_per_s as f64);
            let way = if progress.http {
                "HTTP".to_owned()
            } else {
                quantity::count(progress.peers as usize, "peer")
            };
            format!("{} [{bar}] {share} % {rate} {way}", progress.image)
        }
        Some(Stage::Verified { image } | Stage::Loading { image }) => image.to_string(),
        Some(Stage::Booted { image: Some(image), seeding: None }) => image.to_string(),
        Some(Stage::Booted { image: Some(image), seeding: Some(seeding) }) => {
            let sent = quantity::bytes(seeding.uploaded_bytes);
            let peers = quantity::count(seeding.peers as usize, "peer");
            let limit = seeding.limit_bytes_per_s.map_or_else(String::new, |limit| {
                format!(", {} at most", quantity::rate(limit as f64))
            });
            let paused = if seeding.paused { ", little memory left" } else { "" };
            format!("{image}: {sent} sent, {peers}{limit}{paused}")
        }
        Some(Stage::Failed { failure, reason, retry_in_s }) => {
            let reason = if reason.is_empty() { failure.what() } else { reason };
            format!("{reason}; again in {retry_in_s} s")
        }
        _ => String::new(),
    }
}
