//! `boottorrent torrent create`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::SystemTime;

use ::torrent::metainfo::Metainfo;
use ::torrent::metainfo::create::{Format, Spec};
use anyhow::{Context, ensure};
use clap::{Args, ValueEnum};
use serde_json::json;

use super::{hash_threads, note_verified, show};
use crate::cli::OutputFormat;
use crate::progress::Console;
use crate::quantity;

#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// The file or folder to make a torrent of. The torrent has its name.
    path: PathBuf,
    /// The .torrent file to write; one that is there already is replaced.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// A tracker, http:// or udp://. Repeat for trackers to be used at the same time; join with
    /// commas what are mirrors of one tracker.
    #[arg(long, value_name = "URL", value_delimiter = None)]
    announce: Vec<String>,
    /// An HTTP server that has the files: the URL of the file; of a folder's parent, with a slash
    /// at the end. Can be repeated.
    #[arg(long, value_name = "URL")]
    web_seed: Vec<String>,
    /// For which version of BitTorrent.
    #[arg(long, value_name = "FORMAT", default_value = "hybrid")]
    format: FormatArg,
    /// Bytes of a piece, a power of two from 16Ki to 128Mi; by default chosen by the length of the
    /// files.
    #[arg(long, value_name = "N", value_parser = parse_piece_len)]
    piece_length: Option<u32>,
    /// Mark the torrent private: peers come from its trackers alone (no LSD, no PEX).
    #[arg(long)]
    private: bool,
    /// A comment for people.
    #[arg(long, value_name = "T")]
    comment: Option<String>,
    /// Print JSON: an object a line (-o is the file here).
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum FormatArg {
    /// v1 and v2 in one: clients of both can take part, and ours verify with SHA-256. aria2 before
    /// 1.37 and Transmission before 4.0 cannot read it and need v1
    Hybrid,
    /// BEP 3 alone, verified with SHA-1.
    V1,
    /// BEP 52 alone: clients that know only v1 cannot take part.
    V2,
}

impl CreateArgs {
    pub(super) const fn format(&self) -> OutputFormat {
        if self.json { OutputFormat::Json } else { OutputFormat::Text }
    }

    fn spec(&self) -> Spec {
        let mirrors = |tier: &String| tier.split(',').map(str::to_owned).collect();
        Spec {
            format: match self.format {
                FormatArg::Hybrid => Format::Hybrid,
                FormatArg::V1 => Format::V1,
                FormatArg::V2 => Format::V2,
            },
            piece_len: self.piece_length,
            private: self.private,
            trackers: self.announce.iter().map(mirrors).collect(),
            web_seeds: self.web_seed.clone(),
            comment: self.comment.clone(),
            created_by: Some(concat!("BootTorrent/", env!("CARGO_PKG_VERSION")).to_owned()),
            // The same content makes the same file, whenever it is made.
            creation_date: None,
        }
    }
}

fn parse_piece_len(text: &str) -> Result<u32, String> {
    let len = quantity::parse_bytes(text)?;
    u32::try_from(len).map_err(|_| format!("{text:?} is longer than 128Mi"))
}

pub(super) fn run(args: &CreateArgs) -> anyhow::Result<ExitCode> {
    refuse_inside(&args.path, &args.output)?;
    let console = Mutex::new(Console::new(args.format()));
    let name = args.path.display().to_string();
    let progress = |done, total| {
        if let Ok(mut console) = console.lock() {
            console.hashing("hashing", &name, done, total);
        }
    };
    let began = SystemTime::now();
    let bytes = torrent_io::create::create(&args.path, args.spec(), hash_threads(), &progress)?;
    write(&args.output, &bytes)?;
    let metainfo = Metainfo::decode(&bytes).context("what was written cannot be read")?;
    // So that `torrent seed` need not read again what was just read.
    if let Some(dir) = fs::canonicalize(&args.path).ok().as_deref().and_then(Path::parent) {
        note_verified(&metainfo, dir, began);
    }
    let (file, name) = (args.output.display().to_string(), metainfo.name());
    let hashes: Vec<String> = metainfo.info_hashes().map(|hash| hash.to_string()).collect();
    let text = format!(
        "created {file}: {name}, {} in {}, infohash {}",
        quantity::bytes(metainfo.layout().data_len()),
        quantity::count(metainfo.geometry().piece_count() as usize, "piece"),
        hashes.join(" and "),
    );
    let mut event = show::describe(&metainfo);
    event["event"] = json!("created");
    event["file"] = json!(file);
    let console = console.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    console.finish();
    console.say(&text, &event);
    Ok(ExitCode::SUCCESS)
}

/// The second time, the .torrent file would be part of the torrent.
fn refuse_inside(path: &Path, output: &Path) -> anyhow::Result<()> {
    let parent = match output.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let inside = match (fs::canonicalize(path), fs::canonicalize(parent)) {
        (Ok(path), Ok(parent)) => path.is_dir() && parent.starts_with(path),
        // The one that is not there is said to be so in its turn.
        _ => false,
    };
    ensure!(
        !inside,
        "{} is inside {}, so it would be part of the next torrent; write it elsewhere",
        output.display(),
        path.display(),
    );
    Ok(())
}

/// Whoever reads the file meanwhile sees the old one or the new one.
fn write(output: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let cannot = || format!("cannot write {}", output.display());
    let name = output.file_name().with_context(cannot)?.to_string_lossy();
    let new = output.with_file_name(format!(".{name}.new"));
    let written = fs::write(&new, bytes).and_then(|()| fs::rename(&new, output));
    if written.is_err() {
        // Nothing can be done about what may be left of it.
        let _ = fs::remove_file(&new);
    }
    written.with_context(cannot)
}
