//! `boottorrent torrent show`.

use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use ::torrent::metainfo::Metainfo;
use clap::Args;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::read_metainfo;
use crate::cli::OutputFormat;
use crate::{progress, quantity};

#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// The .torrent file.
    file: PathBuf,
    /// How to print.
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    pub(super) output: OutputFormat,
}

/// What stays as it is in a magnet link (RFC 3986 unreserved).
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

pub(super) fn run(args: &ShowArgs) -> anyhow::Result<ExitCode> {
    let metainfo = read_metainfo(&args.file)?;
    match args.output {
        OutputFormat::Json => progress::print(&describe(&metainfo).to_string()),
        OutputFormat::Text => progress::print(table(&metainfo).trim_end()),
    }
    Ok(ExitCode::SUCCESS)
}

/// All of it that is for people and scripts.
pub(super) fn describe(metainfo: &Metainfo) -> Value {
    let hash = |hash: Option<torrent::metainfo::InfoHash>| hash.map(|hash| hash.to_string());
    let files: Vec<Value> = metainfo
        .layout()
        .files()
        .iter()
        .map(|file| json!({"path": file.path().to_string(), "len": file.len()}))
        .collect();
    json!({
        "name": metainfo.name(),
        "format": format_of(metainfo),
        "info_hash_v1": hash(metainfo.info_hash_v1()),
        "info_hash_v2": hash(metainfo.info_hash_v2()),
        "magnet": magnet(metainfo),
        "total": metainfo.layout().data_len(),
        "piece_len": metainfo.geometry().piece_len(),
        "piece_count": metainfo.geometry().piece_count(),
        "private": metainfo.is_private(),
        "trackers": metainfo.trackers(),
        "web_seeds": metainfo.web_seeds(),
        "comment": metainfo.comment(),
        "created_by": metainfo.created_by(),
        "creation_date": metainfo.creation_date(),
        "files": files,
    })
}

fn format_of(metainfo: &Metainfo) -> &'static str {
    match (metainfo.info_hash_v1().is_some(), metainfo.info_hash_v2().is_some()) {
        (true, true) => "hybrid",
        (true, false) => "v1",
        (false, _) => "v2",
    }
}

/// Enough for another client to join: BEP 9, with the multihash of BEP 52.
fn magnet(metainfo: &Metainfo) -> String {
    let escape = |text: &str| utf8_percent_encode(text, ESCAPED).to_string();
    let v1 = metainfo.info_hash_v1().map(|hash| format!("xt=urn:btih:{hash}"));
    // 0x12 is SHA-256, 0x20 its length.
    let v2 = metainfo.info_hash_v2().map(|hash| format!("xt=urn:btmh:1220{hash}"));
    let name = format!("dn={}", escape(metainfo.name()));
    let trackers = metainfo.trackers().iter().flatten().map(|url| format!("tr={}", escape(url)));
    let web_seeds = metainfo.web_seeds().iter().map(|url| format!("ws={}", escape(url)));
    let parts = v1.into_iter().chain(v2).chain([name]).chain(trackers).chain(web_seeds);
    format!("magnet:?{}", parts.collect::<Vec<_>>().join("&"))
}

fn table(metainfo: &Metainfo) -> String {
    let mut text = String::new();
    let mut row = |key: &str, value: &str| {
        // Names and comments are a stranger's: no control character reaches the terminal.
        let value: String =
            value.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{key:<13} {value}");
    };
    let geometry = metainfo.geometry();
    row("name", metainfo.name());
    row("format", format_of(metainfo));
    if let Some(hash) = metainfo.info_hash_v1() {
        row("infohash v1", &hash.to_string());
    }
    if let Some(hash) = metainfo.info_hash_v2() {
        row("infohash v2", &hash.to_string());
    }
    let total = metainfo.layout().data_len();
    row("length", &format!("{total} bytes ({})", quantity::bytes(total)));
    let pieces = format!("{} of {} bytes", geometry.piece_count(), geometry.piece_len());
    row("pieces", &pieces);
    row("private", if metainfo.is_private() { "yes" } else { "no" });
    for tier in metainfo.trackers() {
        row("tracker", &tier.join(", "));
    }
    for url in metainfo.web_seeds() {
        row("web seed", url);
    }
    if let Some(comment) = metainfo.comment() {
        row("comment", comment);
    }
    if let Some(created_by) = metainfo.created_by() {
        row("created by", created_by);
    }
    if let Some(date) = metainfo.creation_date() {
        row("created at", &format!("{date} s after 1970-01-01"));
    }
    row("magnet", &magnet(metainfo));
    for file in metainfo.layout().files() {
        row("file", &format!("{:>15} {}", file.len(), file.path()));
    }
    text
}
