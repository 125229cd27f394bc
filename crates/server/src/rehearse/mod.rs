//! `boottorrent rehearse`: the lab's images on the simulator, before hardware is touched: how long a
//! fleet takes, what the server sends, and what slow and dying nodes do to it.
//!
//! The swarm that runs there is the one that will run on the nodes (`crates/sim`); the network is
//! arithmetic. It is told what it cannot know: disks, processors and switches that are too slow.

mod chart;
mod plan;
mod report;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, bail};
use boot::ImageName;
use clap::Args;
use sim::{Faults, Outcome};

use self::plan::{Fleet, Plan};
use self::report::{Case, Rehearsal};
use crate::cli::OutputFormat;
use crate::lab::Lab;
use crate::lab::config::ImageConfig;
use crate::phase1;
use crate::progress::{Console, print};
use crate::quantity;

/// A simulated node takes some 100 kB, and a run is to end on the machine that it was begun on.
const NODES_MAX: i64 = 20_000;

#[derive(Debug, Args)]
pub(crate) struct RehearseArgs {
    /// How many nodes there are.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=NODES_MAX))]
    nodes: u32,
    /// The rate of each node's link, such as 1Gbit or 100Mbit.
    #[arg(long, value_name = "RATE", default_value = "1Gbit", value_parser = quantity::parse_bits)]
    rate: u64,
    /// The rate of the server's link, if it is another. `swarm.upload_limit` of the lab holds as well.
    #[arg(long, value_name = "RATE", value_parser = quantity::parse_bits)]
    server_rate: Option<u64>,
    /// How many nodes have a fifth of the rate; one in twenty by default.
    #[arg(long, value_name = "K")]
    slow: Option<u32>,
    /// How many nodes vanish without a word in mid-download; one in twenty by default.
    #[arg(long, value_name = "K")]
    dying: Option<u32>,
    /// Seconds within which the nodes are switched on.
    #[arg(long, value_name = "SECONDS", default_value = "0")]
    within: u32,
    /// The image; the default one by default. Can be repeated.
    #[arg(long = "image", value_name = "NAME")]
    images: Vec<ImageName>,
    /// Write a chart of it to this file: SVG. With several images each has a file, with its name
    /// before the ending.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// What chance is drawn from: the same number gives the same answer.
    #[arg(long, value_name = "NUMBER", default_value = "1")]
    seed: u64,
    /// How to print.
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: OutputFormat,
}

/// Rehearses the lab in `lab`.
pub(crate) fn run(args: &RehearseArgs, lab: &Path) -> anyhow::Result<ExitCode> {
    let lab = Lab::open(lab)?;
    let settings = &lab.settings;
    let fleet = Fleet {
        nodes: args.nodes,
        link: args.rate,
        server_link: args.server_rate.unwrap_or(args.rate),
        upload_limit: settings.seeding.upload_limit_bytes_per_s,
        stagger: Duration::from_secs(args.within.into()),
        random_seed: args.seed,
    };
    let cases = cases(args)?;
    let phase1_len = phase1_len(settings.dir());
    let mut console = Console::new(args.output);
    let images = images(args, &lab)?;
    for image in &images {
        let len = lab.image_len(&image.name);
        let plan = Plan::new(len, &fleet);
        let outcomes = simulate(&plan, &cases, &mut |done| {
            console.hashing("rehearsing", image.name.as_str(), done, 100);
        })?;
        console.finish();
        let rehearsal = Rehearsal::new(image, settings, &fleet, &plan, phase1_len, &outcomes);
        if let Some(path) = &args.svg {
            let path = if images.len() > 1 { named(path, &image.name) } else { path.clone() };
            chart::write(&path, &rehearsal)
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        print(&match args.output {
            OutputFormat::Text => rehearsal.text(),
            OutputFormat::Json => serde_json::to_string(&rehearsal)?,
        });
    }
    Ok(ExitCode::SUCCESS)
}

/// What goes wrong in each run: nothing, and what was asked for.
fn cases(args: &RehearseArgs) -> anyhow::Result<Vec<Case>> {
    let some = args.nodes / 20;
    let (slow, dying) = (args.slow.unwrap_or(some), args.dying.unwrap_or(some));
    if slow.max(dying) >= args.nodes {
        bail!("{} slow or dying nodes of {}: fewer than all, please", slow.max(dying), args.nodes);
    }
    let mut cases = vec![Case { slow: 0, dying: 0 }];
    cases.extend((slow > 0).then_some(Case { slow, dying: 0 }));
    cases.extend((dying > 0).then_some(Case { slow: 0, dying }));
    Ok(cases)
}

/// The images that were asked for.
fn images<'a>(args: &RehearseArgs, lab: &'a Lab) -> anyhow::Result<Vec<&'a ImageConfig>> {
    let default = [lab.settings.menu.default.clone()];
    let names = if args.images.is_empty() { &default[..] } else { &args.images };
    let find = |name: &ImageName| {
        let image = lab.images.iter().find(|image| image.name == *name).with_context(|| {
            let all: Vec<&str> = lab.images.iter().map(|image| image.name.as_str()).collect();
            format!("there is no image `{name}` in the lab, but {}", all.join(", "))
        })?;
        if !image.loader.has_payload() {
            bail!("the image `{name}` is not downloaded: its nodes mount it over the network");
        }
        Ok(image)
    };
    names.iter().map(find).collect()
}

/// Bytes of kernel and initramfs of the newest phase 1 that was built, if any was.
fn phase1_len(lab: &Path) -> Option<u64> {
    let phase1 = image::phase1::list(&phase1::cache(lab)).into_iter().next()?;
    let len = |path: &Path| std::fs::metadata(path).ok().map(|data| data.len());
    Some(len(&phase1.kernel)? + len(&phase1.initramfs)?)
}

/// Runs all cases, as many at a time as there are processors. `progress` is told percents.
fn simulate(
    plan: &Plan,
    cases: &[Case],
    progress: &mut dyn FnMut(u64),
) -> anyhow::Result<Vec<(Case, Outcome)>> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(cases.len());
    let queue = Mutex::new(cases.iter().enumerate());
    let (sender, words) = channel();
    let mut outcomes: Vec<Option<Outcome>> = vec![None; cases.len()];
    let mut done = vec![0.0; cases.len()];
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let (sender, queue) = (sender.clone(), &queue);
            scope.spawn(move || work(plan, queue, &sender));
        }
        drop(sender);
        // Ends with the last thread.
        for word in words {
            match word {
                Word::Progress(index, part) => done[index] = part,
                Word::Done(index, outcome) => {
                    done[index] = 1.0;
                    outcomes[index] = Some(outcome);
                }
            }
            // The last percent is said once.
            let sum: f64 = done.iter().sum();
            progress((sum / cases.len() as f64 * 100.0) as u64);
        }
    });
    let outcome = |(case, outcome): (&Case, Option<Outcome>)| Some((*case, outcome?));
    let all: Option<Vec<_>> = cases.iter().zip(outcomes).map(outcome).collect();
    all.context("a simulation broke off: this is a bug of the swarm or of the simulator")
}

enum Word {
    /// Of a case, the part that is done.
    Progress(usize, f64),
    Done(usize, Outcome),
}

fn work<'a>(
    plan: &Plan,
    queue: &Mutex<impl Iterator<Item = (usize, &'a Case)>>,
    sender: &Sender<Word>,
) {
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
        let Some((index, case)) = next else { return };
        let faults = Faults { slow: case.slow, silent_deaths: case.dying, ..Faults::default() };
        let outcome = sim::run_watched(&plan.scenario(faults), &mut |part| {
            let _ = sender.send(Word::Progress(index, part));
        });
        let _ = sender.send(Word::Done(index, outcome));
    }
}

/// `chart.svg` as `chart-debian.svg`.
fn named(path: &Path, image: &ImageName) -> PathBuf {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let ending = path.extension().map(|ending| format!(".{}", ending.to_string_lossy()));
    path.with_file_name(format!("{stem}-{image}{}", ending.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chart_of_an_image_has_its_name() {
        let check = |path: &str, expect: &str| {
            assert_eq!(named(Path::new(path), &"debian".parse().unwrap()), Path::new(expect));
        };
        check("chart.svg", "chart-debian.svg");
        check("/tmp/a.b.svg", "/tmp/a.b-debian.svg");
        check("chart", "chart-debian");
    }

    #[test]
    fn the_same_number_gives_the_same_answer_and_another_another() {
        let run = |random_seed| {
            let fleet = Fleet {
                nodes: 12,
                link: 1_000_000_000,
                server_link: 1_000_000_000,
                upload_limit: None,
                stagger: Duration::ZERO,
                random_seed,
            };
            let plan = Plan::new(4 << 20, &fleet);
            let cases = [Case { slow: 0, dying: 0 }, Case { slow: 2, dying: 0 }];
            simulate(&plan, &cases, &mut |_| {}).unwrap()
        };
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
    }
}
