//! `cargo xtask demo --swarm`: one server, four nodes, an image, on shaped links. The
//! nodes are namespaces of this machine; what runs in them is the release build as a user has it.

use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;

use crate::bench::contender::{Stage, ours};
use crate::bench::{Image, image};
use crate::lab::{Lab, Process, Rate, Slot};
use crate::{build_release, setup, target_dir};

/// The swarm to show.
#[derive(Args)]
pub(crate) struct SwarmArgs {
    /// With --swarm: how many nodes
    #[arg(long, default_value_t = 4)]
    nodes: usize,
    /// With --swarm: length of the file
    #[arg(long, default_value = "64MiB", value_parser = image::parse_len)]
    size: u64,
    /// With --swarm: rate of every link
    #[arg(long, default_value = "100mbit")]
    rate: Rate,
}

/// What all nodes would need if the server sent the file to each in turn, and as much again.
const PATIENCE: u32 = 2;

pub(super) fn run(args: &SwarmArgs) -> Result<()> {
    ensure!(args.nodes >= 1, "a demonstration needs a node");
    setup::install(&[setup::IP])?;
    build_release()?;
    let dir = target_dir().join("demo");
    std::fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
    let image = Image::create(&dir, args.size)?;
    let lab = Lab::new(args.nodes, Some(args.rate), &dir.join("logs"))?;
    let path = lab.slot_dir(Slot::SERVER).join(image::NAME);
    std::fs::copy(&image.path, &path).context("copying the image into the lab")?;
    let stage = Stage { lab: &lab, image: &image, path, node_count: args.nodes };
    println!("a server and {} nodes, {} links, {} MiB", args.nodes, args.rate, args.size >> 20);
    let _servers = ours::start_server(&stage)?;
    let sent_before = lab.traffic(Slot::SERVER)?.sent_len;
    let (sender, completed) = channel();
    let start = Instant::now();
    let mut nodes = Vec::new();
    for slot in lab.nodes() {
        let sender = sender.clone();
        let spawn = ours::get(&stage, slot)?.on_line(move |line| {
            if line.contains(ours::COMPLETE) {
                let _ = sender.send((slot, Instant::now()));
            }
        });
        nodes.push(lab.spawn(slot, spawn)?);
    }
    let once = Duration::from_secs_f64(args.size as f64 / args.rate.bytes_per_s() as f64);
    let deadline = start + once * args.nodes as u32 * PATIENCE;
    let ends = watch(&stage, &completed, &nodes, deadline)?;
    let sent_len = lab.traffic(Slot::SERVER)?.sent_len - sent_before;
    table(&stage, start, &ends)?;
    println!(
        "\nthe server sent {:.2} times the file; {} separate copies would be {}",
        sent_len as f64 / args.size as f64,
        args.nodes,
        args.nodes
    );
    Ok(())
}

type Ends = Vec<(Slot, Instant)>;

/// Shows what arrives, until all nodes say that they are complete.
fn watch(
    stage: &Stage<'_>,
    completed: &Receiver<(Slot, Instant)>,
    nodes: &[Process],
    deadline: Instant,
) -> Result<Ends> {
    let mut ends = Ends::new();
    while ends.len() < stage.node_count {
        match completed.recv_timeout(Duration::from_millis(500)) {
            Ok(end) => ends.push(end),
            Err(RecvTimeoutError::Timeout) => show(stage, &ends)?,
            Err(RecvTimeoutError::Disconnected) => unreachable!("we hold a sender"),
        }
        if let Some(node) = nodes.iter().find(|node| node.exit().is_some()) {
            bail!("{} ended early:\n{}", node.name(), node.log_tail());
        }
        ensure!(Instant::now() < deadline, "only {} nodes are done", ends.len());
    }
    Ok(ends)
}

fn show(stage: &Stage<'_>, ends: &Ends) -> Result<()> {
    let mut line = String::new();
    for slot in stage.lab.nodes() {
        if ends.iter().any(|(done, _)| *done == slot) {
            line.push_str(&format!("  {} complete", slot.name()));
        } else {
            let received_len = stage.lab.delivered(slot)?.sent_len;
            line.push_str(&format!("  {} {:>3} MiB  ", slot.name(), received_len >> 20));
        }
    }
    println!("{line}");
    Ok(())
}

fn table(stage: &Stage<'_>, start: Instant, ends: &Ends) -> Result<()> {
    println!("\n| node | complete after | rate | SHA-256 |\n|---|---|---|---|");
    let mut wrong_count = 0;
    for (slot, end) in ends {
        let seconds = (*end - start).as_secs_f64();
        let is_right = stage.image.equals(&stage.result(*slot));
        wrong_count += usize::from(!is_right);
        println!(
            "| {} | {seconds:.2} s | {:.1} MB/s | {} |",
            slot.name(),
            stage.image.len as f64 / 1e6 / seconds,
            if is_right { "the original's" } else { "WRONG" }
        );
    }
    ensure!(wrong_count == 0, "{wrong_count} nodes have other bytes than the server");
    Ok(())
}
