//! `cargo xtask interop`: one program seeds, another fetches, in namespaces; every byte must arrive.
//!
//! Not part of `cargo xtask ci` yet: our own program does not have its commands, and a pair without
//! it proves only that the harness works.

use std::path::Path;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;

use crate::bench::contender::{self, Contender, Done, Stage};
use crate::bench::{Image, image};
use crate::lab::{Lab, Slot};
use crate::{setup, target_dir};

/// Odd on purpose: the last piece and the last block are short.
const IMAGE_LEN: u64 = 24 * 1024 * 1024 + 12_345;

/// At memory speed this takes a second; the rest is start-up and trackers that make peers wait.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Who seeds and who fetches.
const PAIRS: &[(&str, &str)] = &[
    ("ours", "ours"),
    ("ours", "libtorrent"),
    ("ours", "aria2"),
    ("libtorrent", "ours"),
    ("aria2", "ours"),
    // Transmission seeds in the original stack.
    ("original", "ours"),
];

#[derive(Args)]
pub(crate) struct InteropArgs {
    /// Pairs, such as libtorrent:aria2; the default is all that have us on one side
    pairs: Vec<String>,
}

/// Runs the pairs and reports every one that fails.
pub(crate) fn run(args: &InteropArgs) -> Result<()> {
    let mut pairs: Vec<(&str, &str)> = Vec::new();
    for pair in &args.pairs {
        pairs.push(pair.split_once(':').with_context(|| format!("{pair:?} is not SEED:NODE"))?);
    }
    if pairs.is_empty() {
        pairs.extend(PAIRS);
    }
    let dir = target_dir().join("interop");
    std::fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
    let image = Image::create(&dir, IMAGE_LEN)?;
    let mut failed_count = 0;
    for (seed, node) in &pairs {
        let logs = dir.join(format!("{seed}-{node}"));
        match exchange(by_name(seed)?.as_ref(), by_name(node)?.as_ref(), &image, &logs) {
            Ok(time) => println!("{seed} to {node}: {:.2} s", time.as_secs_f64()),
            Err(error) => {
                failed_count += 1;
                println!("{seed} to {node}: FAILED: {error:#}");
            }
        }
    }
    ensure!(failed_count == 0, "{failed_count} of {} pairs failed", pairs.len());
    Ok(())
}

fn by_name(name: &str) -> Result<Box<dyn Contender>> {
    let mut all = contender::all().into_iter();
    all.find(|contender| contender.name() == name)
        .with_context(|| format!("no program is called {name:?}"))
}

/// One program's server, another's node; the time until the node has the right bytes.
fn exchange(
    seed: &dyn Contender,
    node: &dyn Contender,
    image: &Image,
    logs: &Path,
) -> Result<Duration> {
    let mut tools = seed.tools();
    tools.extend(node.tools());
    tools.extend([setup::IP, setup::MKTORRENT]);
    setup::require(&tools)?;
    let lab = Lab::new(1, None, logs)?;
    let path = lab.slot_dir(Slot::SERVER).join(image::NAME);
    std::fs::copy(&image.path, &path).context("copying the image into the lab")?;
    let stage = Stage { lab: &lab, image, path, node_count: 1 };
    let _servers = seed.start_server(&stage)?;
    let slot = Slot::node(1);
    let (spawn, done) = node.node(&stage, slot)?;
    let Done::Line(marker) = done else {
        bail!("{} is no BitTorrent program", node.name());
    };
    let (sender, completed) = channel();
    let spawn = spawn.on_line(move |line| {
        if line.contains(marker) {
            let _ = sender.send(Instant::now());
        }
    });
    let start = Instant::now();
    let mut process = lab.spawn(slot, spawn)?;
    process.release()?;
    // The channel closes when the process ends, so a crash does not cost the whole time.
    let Ok(end) = completed.recv_timeout(TIMEOUT) else {
        bail!("no completion: {}", process.log_tail());
    };
    ensure!(image.equals(&stage.result(slot)), "the file differs from the original");
    Ok(end - start)
}
