//! `boottorrent lan send`.

use std::io::BufRead as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, bail, ensure};
use clap::Args;
use lantorrent::header::Request;
use lantorrent::io::{Identity, Outcome, Shape, Source};
use lantorrent::plan::{self, Wanted};
use lantorrent::report::Report;
use serde_json::json;

use super::options::{IdentityArgs, ShapeArgs, destination};
use crate::cli::OutputFormat;
use crate::lab::is_part_of_image;
use crate::progress::{Console, Transfer};

/// Destinations of one call: what a header has room for.
const DESTINATIONS_MAX: usize = 3_000;

#[derive(Debug, Args)]
pub(crate) struct SendArgs {
    /// The file.
    #[arg(required_unless_present = "image", conflicts_with = "image")]
    file: Option<PathBuf>,
    /// Send the files of this image of the lab instead. Destinations are directories then, which
    /// must exist; the files come to lie in them.
    #[arg(long, value_name = "NAME")]
    image: Option<String>,
    #[command(flatten)]
    identity: IdentityArgs,
    #[command(flatten)]
    shape: ShapeArgs,
    /// How to print.
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: OutputFormat,
}

pub(super) fn run(args: &SendArgs, lab: &Path) -> anyhow::Result<ExitCode> {
    let identity = args.identity.read()?;
    let destinations = read_destinations()?;
    let files = match (&args.file, &args.image) {
        (Some(file), _) => vec![(file.clone(), None)],
        (None, Some(image)) => image_files(lab, image)?,
        (None, None) => bail!("name a file, or an image with --image"),
    };
    let mut console = Console::new(args.output);
    let mut all_well = true;
    for (file, name) in files {
        let to = destinations.iter().map(|(host, port, path)| {
            let path = name.as_ref().map_or_else(
                || path.clone(),
                |name| format!("{}/{name}", path.trim_end_matches('/')),
            );
            (host.clone(), *port, path)
        });
        let to: Vec<_> = to.collect();
        let outcome = transfer(&file, &to, args.shape.into(), &identity, &mut console)?;
        all_well &= outcome.reports.iter().all(Report::is_success);
    }
    Ok(if all_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// An endpoint and a path there.
pub(super) type To = (String, u16, String);

/// The lines of standard input.
pub(super) fn read_destinations() -> anyhow::Result<Vec<To>> {
    let mut all = Vec::new();
    for (index, line) in std::io::stdin().lock().lines().enumerate() {
        let line = line.context("cannot read destinations from standard input")?;
        if line.trim().is_empty() {
            continue;
        }
        ensure!(all.len() < DESTINATIONS_MAX, "more than {DESTINATIONS_MAX} destinations");
        let found = destination(line.trim());
        all.push(found.with_context(|| {
            format!("line {}: {line:?} is not host:port/absolute/path", index + 1)
        })?);
    }
    ensure!(!all.is_empty(), "no destinations: write host:port/absolute/path, a line each");
    Ok(all)
}

/// The files of an image that nodes get, with their names in it.
fn image_files(lab: &Path, image: &str) -> anyhow::Result<Vec<(PathBuf, Option<String>)>> {
    let folder = lab.join("oss").join(image);
    let entries = std::fs::read_dir(&folder)
        .with_context(|| format!("there is no image {image} in {}", lab.join("oss").display()))?;
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry.with_context(|| format!("reading {}", folder.display()))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !is_part_of_image(&name) {
            continue;
        }
        let path = entry.path();
        if path.is_dir() {
            bail!("{} is a folder: only images that are flat can be sent", path.display());
        }
        files.push((path, Some(name)));
    }
    files.sort();
    ensure!(!files.is_empty(), "{} has no file that nodes get", folder.display());
    Ok(files)
}

/// Sends a file and tells how it goes, each endpoint's fate as it is known.
pub(super) fn transfer(
    file: &Path,
    to: &[To],
    shape: Shape,
    identity: &Arc<Identity>,
    console: &mut Console,
) -> anyhow::Result<Outcome> {
    let source = Source::open(file)?;
    let outcome = send(&source, to, shape, identity, console)?;
    let done = outcome.reports.iter().filter(|report| report.is_success()).count();
    let text = format!("sent {} to {done} of {}", file.display(), to.len());
    let event = json!({
        "event": "complete",
        "file": file,
        "succeeded": done,
        "failed": to.len() - done,
        "sent": outcome.sent,
        "sha256": outcome.footer.sha256,
    });
    console.finish();
    console.say(&text, &event);
    Ok(outcome)
}

fn send(
    source: &Source,
    to: &[To],
    shape: Shape,
    identity: &Arc<Identity>,
    console: &mut Console,
) -> anyhow::Result<Outcome> {
    let started = Instant::now();
    let on_progress = |progress: &lantorrent::io::Progress, report: Option<&Report>| {
        if let Some(report) = report {
            tell(console, report);
        }
        console.transfer(&Transfer {
            bytes: progress.received,
            total: progress.length,
            rate: progress.received as f64 / started.elapsed().as_secs_f64().max(0.001),
            uploaded: progress.sent,
            peers: to.len(),
            seeds: false,
        });
    };
    let destinations = plan::destinations(wanted(to), shape.degree, source.length());
    Ok(lantorrent::io::send(source, destinations, shape, identity, |_| (), on_progress)?)
}

fn tell(console: &Console, report: &Report) {
    let name = name(report);
    let message = report.message.as_deref().unwrap_or_default();
    let text = match report.is_success() {
        true => format!("{name}: there"),
        false => format!("ERROR: {name} {message} ({})", report.code),
    };
    let event = json!({
        "event": "report",
        "host": report.host,
        "port": report.port,
        "file": report.file,
        "code": report.code,
        "message": report.message,
    });
    console.say(&text, &event);
}

/// `host:port/path`.
pub(super) fn name(report: &Report) -> String {
    format!("{}:{}{}", report.host, report.port, report.file.as_deref().unwrap_or_default())
}

/// Each destination is a request of its own, named by its place in the list.
pub(super) fn wanted(to: &[To]) -> Vec<Wanted> {
    let wanted = to.iter().enumerate().map(|(index, (host, port, path))| {
        // /dev/null has no other name to be renamed from.
        let rename = path != "/dev/null";
        let request = Request { filename: path.clone(), id: index.to_string(), rename };
        Wanted { host: host.clone(), port: *port, request }
    });
    wanted.collect()
}
