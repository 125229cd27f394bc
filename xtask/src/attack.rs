//! `cargo xtask attack`: what one stranger on the network can do to a room, and what a stranger's file can
//! do to the machine of the server, tried for real in network namespaces: docs/security.md, held.
//!
//! A case is attacks that run, the boot path of nodes that is measured meanwhile, and what must be so in the
//! end. The server has half a gibibyte. In the last case all attacks run at once, and two virtual machines
//! boot through them.

mod cage;
mod cases;
mod report;
mod scene;

mod attacker;
mod victim;
mod wire;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Error, Result, ensure};
use clap::{Args, ValueEnum};

use self::cases::Case;
use self::scene::{Scene, Stage};
use self::victim::Summary;
use crate::e2e::testos::TestOs;
use crate::e2e::{self, server};
use crate::lab::Lab;
use crate::{artifact, interrupt, setup, target_dir};

/// Nodes of a case's lab: the attacker and the victim.
const SLOTS: usize = 2;

/// Cases without a measurement that run beside each other: most of each is waiting for a server.
const AT_ONCE: usize = 3;

#[derive(Args, Default)]
pub(crate) struct AttackArgs {
    /// Run only cases with one of these in their names; all by default
    filters: Vec<String>,
    /// List the cases
    #[arg(long)]
    list: bool,
    /// Take the programs in target/release as they are
    #[arg(long)]
    no_build: bool,
    /// What standard output gets
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Output {
    #[default]
    Table,
    Json,
}

/// What became of a case.
struct Row {
    name: &'static str,
    time: Duration,
    summaries: Vec<Summary>,
    /// 0 if no server ran.
    rss_peak: u64,
    error: Option<Error>,
}

/// Runs the cases; fails if one does.
pub(crate) fn run(args: &AttackArgs) -> Result<()> {
    let is_wanted = |case: &&Case| {
        args.filters.is_empty()
            || args.filters.iter().any(|filter| case.name.contains(filter.as_str()))
    };
    let cases: Vec<&Case> = cases::ALL.iter().filter(is_wanted).collect();
    ensure!(!cases.is_empty(), "no case is called so; `cargo xtask attack --list` lists them");
    if args.list {
        for case in cases {
            println!("{:<18} {}", case.name, case.what);
        }
        return Ok(());
    }
    setup::install(e2e::TOOLS)?;
    interrupt::remember_signals();
    let stage = prepare(args.no_build)?;
    let start = Instant::now();
    let (measured, others): (Vec<&Case>, Vec<&Case>) =
        cases.into_iter().partition(|case| case.is_alone());
    // What is measured has the processors for itself; the rest shares them with the machines that boot.
    let mut rows: Vec<Row> = measured.into_iter().map(|case| run_one(case, &stage)).collect();
    rows.extend(side_by_side(&others, &stage));
    interrupt::check()?;
    match args.output {
        Output::Table => print!("{}", report::table(&rows)),
        Output::Json => println!("{:#}", report::json(&rows)),
    }
    let failed_count = rows.iter().filter(|row| row.error.is_some()).count();
    eprintln!("\n{} cases in {:.0} s", rows.len(), start.elapsed().as_secs_f64());
    ensure!(failed_count == 0, "{failed_count} of {} cases failed", rows.len());
    Ok(())
}

/// Programs, a phase 1, a system to boot.
fn prepare(no_build: bool) -> Result<Stage> {
    if !no_build {
        artifact::build_all()?;
    }
    let dir = target_dir().join("attack");
    std::fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
    // The one of `e2e`: to pack one takes a quarter of a minute.
    let phase1 = target_dir().join("e2e/lab");
    server::prepare_phase1(&phase1)?;
    Ok(Stage { testos: TestOs::build(&dir)?, phase1, dir })
}

fn side_by_side(cases: &[&Case], stage: &Stage) -> Vec<Row> {
    let next = std::sync::atomic::AtomicUsize::new(0);
    let take = || cases.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
    std::thread::scope(|scope| {
        let work = || {
            let mut rows = vec![];
            while let (Some(case), Ok(())) = (take(), interrupt::check()) {
                rows.push(run_one(case, stage));
            }
            rows
        };
        let threads: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(work)).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, Vec<Row>>| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        threads.into_iter().flat_map(join).collect()
    })
}

fn run_one(case: &Case, stage: &Stage) -> Row {
    eprintln!("=== {}: {}", case.name, case.what);
    let start = Instant::now();
    let mut row =
        Row { name: case.name, time: Duration::ZERO, summaries: vec![], rss_peak: 0, error: None };
    row.error = play(case, stage, &mut row).err();
    row.time = start.elapsed();
    let verdict = if row.error.is_none() { "ok" } else { "FAILED" };
    eprintln!("{verdict:<6} {:>6.1} s  {}", row.time.as_secs_f64(), row.name);
    if let Some(error) = &row.error {
        eprintln!("{}: {error:#}", row.name);
    }
    row
}

fn play(case: &Case, stage: &Stage, row: &mut Row) -> Result<()> {
    let logs = scene::folder(stage, case.name)?;
    let lab = Lab::new(SLOTS, None, &logs)?;
    let mut scene = Scene::new(&lab, stage, logs)?;
    let result = (|| {
        if case.starts {
            scene.start()?;
        }
        if case.seconds > 0 {
            scene.measure(case.attacks, Duration::from_secs(case.seconds))?;
        }
        (case.then)(&mut scene)?;
        if case.starts {
            scene.alive()?;
        }
        scene.probes.judge()
    })();
    row.summaries = scene.probes.summaries();
    row.rss_peak = scene.rss_peak();
    result
}
