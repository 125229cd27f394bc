//! `cargo xtask e2e`: machines with nothing but a network card boot from our server, in a network
//! namespace: firmware, PXE, phase 1, swarm, kexec, the image's system, all of it real.
//!
//! A case is a server, some virtual machines and what must be true; it is judged by what machines
//! print on their serial ports and by what the server's status says. All that was said is kept in
//! `target/e2e/CASE/`.

mod capture;
mod cases;
pub(crate) mod console;
pub(crate) mod debian;
pub(crate) mod guest;
pub(crate) mod live;
pub(crate) mod machine;
mod rpms;
mod schedule;
mod screenshot;
pub(crate) mod server;
mod stranger;
mod terminal;
pub(crate) mod testos;
mod viewer;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Error, Result, ensure};
use clap::Args;

use crate::{artifact, browser, interrupt, setup, target_dir};
use cases::Case;
use testos::TestOs;

pub(crate) const TOOLS: &[setup::Tool] = &[
    setup::IP,
    setup::QEMU,
    setup::EXT4,
    setup::QEMU_IMG,
    setup::IPXE,
    setup::IPXE_QEMU,
    setup::OVMF,
    setup::KERNEL,
    setup::LOADKEYS,
    setup::KEYMAPS,
    setup::BUSYBOX,
    setup::CPIO,
    setup::DNSMASQ,
    setup::PXELINUX,
    setup::PYTHON,
    setup::SYSLINUX,
    setup::MMDEBSTRAP,
    setup::SQUASHFS,
    setup::DNF,
    setup::RPMBUILD,
    setup::CREATEREPO,
    setup::SKOPEO,
    setup::GANESHA,
    setup::GANESHA_VFS,
];

#[derive(Args, Default)]
pub(crate) struct E2eArgs {
    /// Run only cases with one of these in their names; all by default
    filters: Vec<String>,
    /// List the cases
    #[arg(long)]
    list: bool,
    /// Take the programs in target/release as they are
    #[arg(long)]
    no_build: bool,
    /// Write what firmware sends into the test data of the DHCP crate
    #[arg(long)]
    capture: bool,
}

/// What every case gets.
pub(crate) struct Stage<'a> {
    pub(crate) testos: &'a TestOs,
    /// A lab that has a key and a phase 1.
    pub(crate) lab: &'a Path,
    /// Where it leaves consoles and logs.
    pub(crate) dir: PathBuf,
    /// Whether packets are kept.
    pub(crate) capture: bool,
}

/// What became of a case.
struct Row {
    name: &'static str,
    time: Duration,
    error: Option<Error>,
}

/// Runs the cases, as many at once as there is room for; fails if one does.
pub(crate) fn run(args: &E2eArgs) -> Result<()> {
    let mut cases: Vec<&Case> = cases::ALL.iter().collect();
    if !args.filters.is_empty() {
        cases.retain(|case| {
            let names = || std::iter::once(&case.name).chain(case.also);
            args.filters.iter().any(|filter| names().any(|name| name.contains(filter.as_str())))
        });
    }
    ensure!(!cases.is_empty(), "no case is called so; `cargo xtask e2e --list` lists them");
    if args.list {
        for case in cases {
            println!("{:<12} {}", case.name, case.what);
            for also in case.also {
                println!("{also:<12} is {}", case.name);
            }
        }
        return Ok(());
    }
    let has_room = cases.iter().any(|case| case.name == cases::ROOM);
    let watcher = if has_room { browser::WATCHER_TOOLS } else { &[] };
    setup::install(&[TOOLS, watcher].concat())?;
    interrupt::remember_signals();
    let dir = target_dir().join("e2e");
    std::fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
    let lab = dir.join("lab");
    if cases.iter().any(|case| case.name != cases::HARNESS) {
        if !args.no_build {
            artifact::build_all()?;
        }
        server::prepare_phase1(&lab)?;
    }
    let testos = TestOs::build(&dir)?;
    let start = Instant::now();
    let rows = schedule::side_by_side(cases, |case| {
        eprintln!("=== {}: {}", case.name, case.what);
        let dir = dir.join(case.name);
        let row = run_one(case, Stage { testos: &testos, lab: &lab, dir, capture: args.capture });
        if let Some(error) = &row.error {
            eprintln!("{}: {error:#}", row.name);
        }
        eprintln!("{}", line(&row));
        row
    });
    interrupt::check()?;
    let failed_count = rows.iter().filter(|row| row.error.is_some()).count();
    println!();
    for row in &rows {
        println!("{}", line(row));
    }
    println!(
        "{} cases in {:.0} s; evidence in {}",
        rows.len(),
        start.elapsed().as_secs_f64(),
        dir.display()
    );
    ensure!(failed_count == 0, "{failed_count} of {} cases failed", rows.len());
    if args.capture {
        capture::write_golden(&dir)?;
    }
    Ok(())
}

fn run_one(case: &Case, stage: Stage<'_>) -> Row {
    let start = Instant::now();
    let error = fresh(&stage.dir).and_then(|()| (case.run)(&stage)).err();
    Row { name: case.name, time: start.elapsed(), error }
}

/// An empty folder: evidence of an earlier run proves nothing of this one.
pub(crate) fn fresh(dir: &Path) -> Result<()> {
    if dir.exists() {
        std::fs::remove_dir_all(dir).with_context(|| format!("emptying {}", dir.display()))?;
    }
    std::fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))
}

fn line(row: &Row) -> String {
    let verdict = if row.error.is_none() { "ok" } else { "FAILED" };
    format!("{verdict:<6} {:>6.1} s  {}", row.time.as_secs_f64(), row.name)
}
