//! `boottorrent torrent verify`.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;
use std::time::SystemTime;

use ::torrent::Bitfield;
use ::torrent::metainfo::Metainfo;
use anyhow::Context;
use clap::Args;
use serde_json::{Value, json};
use torrent_io::check::{self, MetainfoCheck};
use torrent_io::session::bad_files;
use torrent_io::storage::{FileSpan, Layout, Storage};

use super::{hash_threads, note_verified, read_metainfo};
use crate::cli::OutputFormat;
use crate::progress::{self, Console};
use crate::quantity;

#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// The .torrent file.
    file: PathBuf,
    /// The folder that contains the torrent's file, or its folder, by the torrent's name.
    #[arg(long)]
    dir: PathBuf,
    /// How to print.
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    pub(super) output: OutputFormat,
}

/// What is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fault {
    Missing,
    NotAFile,
    WrongLen {
        found: u64,
    },
    Corrupt {
        bad_count: u32,
    },
    /// Nothing is known to be wrong, but pieces that it shares with a missing file cannot be checked
    /// (v1).
    Unverified {
        bad_count: u32,
    },
}

impl Fault {
    const fn status(&self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::NotAFile => "not a file",
            Self::WrongLen { .. } => "wrong length",
            Self::Corrupt { .. } => "corrupt",
            Self::Unverified { .. } => "unverified",
        }
    }

    fn explain(&self, expect_len: u64) -> String {
        let pieces = |count: &u32| quantity::count(*count as usize, "piece");
        match self {
            Self::Missing => "missing".to_owned(),
            Self::NotAFile => "not a regular file".to_owned(),
            Self::WrongLen { found } => format!("{found} bytes long instead of {expect_len}"),
            Self::Corrupt { bad_count } => format!("corrupt, {}", pieces(bad_count)),
            Self::Unverified { bad_count } => {
                format!("not verified in {} shared with a missing file", pieces(bad_count))
            }
        }
    }
}

pub(super) fn run(args: &VerifyArgs) -> anyhow::Result<ExitCode> {
    let metainfo = read_metainfo(&args.file)?;
    let cannot = || format!("torrent {:?} cannot be stored", metainfo.name());
    let layout = Layout::try_from(&metainfo).with_context(cannot)?;
    if !args.dir.is_dir() {
        // With the words that other commands have for it.
        Storage::seed(&args.dir, layout.clone())?;
    }
    let mut faults = survey(&args.dir, &layout)?;
    let began = SystemTime::now();
    let good = check(&args.dir, &metainfo, &layout, &faults, args.output)?;
    judge(&layout, &good, &mut faults);
    report(args.output, &metainfo, &layout, &good, &faults);
    let is_good = good.is_full() && faults.iter().all(Option::is_none);
    if is_good {
        note_verified(&metainfo, &args.dir, began);
    }
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What is wrong with each file at first sight.
fn survey(dir: &Path, layout: &Layout) -> anyhow::Result<Vec<Option<Fault>>> {
    let look = |span: &FileSpan| {
        let path = dir.join(&span.path);
        Ok(match fs::symlink_metadata(&path) {
            Ok(metadata) if !metadata.is_file() => Some(Fault::NotAFile),
            Ok(metadata) if metadata.len() == span.len => None,
            Ok(metadata) => Some(Fault::WrongLen { found: metadata.len() }),
            Err(error)
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) =>
            {
                Some(Fault::Missing)
            }
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
        })
    };
    layout.files().iter().map(look).collect()
}

/// Hashes the pieces that lie in files without a fault.
fn check(
    dir: &Path,
    metainfo: &Metainfo,
    layout: &Layout,
    faults: &[Option<Fault>],
    output: OutputFormat,
) -> anyhow::Result<Bitfield> {
    let mut pieces = Bitfield::full(layout.piece_count());
    let mut spans = vec![];
    for (span, fault) in layout.files().iter().zip(faults) {
        if fault.is_none() {
            spans.push(span.clone());
        } else if span.len > 0 {
            pieces_of(layout, span).for_each(|piece| {
                pieces.remove(piece);
            });
        }
    }
    // The pieces stay as many, however many files are left.
    let end = spans.last().map_or(0, FileSpan::end);
    let len = layout.total_len() - end;
    spans.push(FileSpan { path: PathBuf::new(), start: end, len, padding: true });
    let present = Layout::new(layout.piece_len(), spans)?;
    let storage = Storage::seed(dir, present)?;
    let mut console = Console::new(output);
    let checked = check::check(
        &storage,
        &pieces,
        &MetainfoCheck::new(metainfo),
        hash_threads(),
        &AtomicBool::new(false),
        &mut |progress| {
            let (done, total) = (progress.checked.into(), progress.piece_count.into());
            console.hashing("checking", metainfo.name(), done, total);
        },
    )?;
    Ok(checked.good)
}

fn pieces_of(layout: &Layout, span: &FileSpan) -> std::ops::Range<u32> {
    let piece_len = u64::from(layout.piece_len());
    // Within the count of pieces, which is a u32.
    (span.start / piece_len) as u32..span.end().div_ceil(piece_len) as u32
}

/// What the hashes say of the files that looked right.
fn judge(layout: &Layout, good: &Bitfield, faults: &mut [Option<Fault>]) {
    let mut unchecked = Bitfield::new(good.len());
    for (span, _) in layout.files().iter().zip(&*faults).filter(|(_, fault)| fault.is_some()) {
        pieces_of(layout, span).filter(|_| span.len > 0).for_each(|piece| {
            unchecked.insert(piece);
        });
    }
    for file in bad_files(layout, good) {
        let pieces = pieces_of(layout, &layout.files()[file.index]);
        let checked = pieces.filter(|&at| !good.contains(at) && !unchecked.contains(at));
        let fault = match checked.count() as u32 {
            0 => Fault::Unverified { bad_count: file.bad_count },
            bad_count => Fault::Corrupt { bad_count },
        };
        faults[file.index].get_or_insert(fault);
    }
}

fn report(
    output: OutputFormat,
    metainfo: &Metainfo,
    layout: &Layout,
    good: &Bitfield,
    faults: &[Option<Fault>],
) {
    let bad_count = faults.iter().flatten().count();
    let files = layout.files().iter().zip(faults);
    if output == OutputFormat::Json {
        let files: Vec<Value> = files
            .map(|(span, fault)| {
                json!({
                    "path": span.path,
                    "status": fault.as_ref().map_or("good", Fault::status),
                })
            })
            .collect();
        let event = json!({
            "event": "verified",
            "name": metainfo.name(),
            "good": good.is_full() && bad_count == 0,
            "pieces_good": good.count(),
            "piece_count": good.len(),
            "files": files,
        });
        progress::print(&event.to_string());
        return;
    }
    for (span, fault) in files {
        if let Some(fault) = fault {
            progress::print(&format!("{}: {}", span.path.display(), fault.explain(span.len)));
        }
    }
    progress::print(&format!(
        "{}: {} of {} good, {} of {} good",
        metainfo.name(),
        good.count(),
        quantity::count(good.len() as usize, "piece"),
        faults.len() - bad_count,
        quantity::count(faults.len(), "file"),
    ));
}
