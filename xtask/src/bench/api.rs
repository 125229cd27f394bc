//! `cargo xtask bench api`: how long the API takes, and how much memory the server, while nodes report
//! each second, one listener follows the events and others stall.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use serde_json::{Value, json};

use crate::crowd::{self, Connection, Nodes, Server};

/// Listeners that read nothing: as many as a few laptops that were closed.
const STALLED: usize = 8;

#[derive(Args)]
pub(crate) struct ApiArgs {
    /// Nodes that report each second
    #[arg(long, default_value_t = 1000)]
    nodes: usize,
    /// For how long
    #[arg(long, default_value_t = 30)]
    seconds: u64,
}

pub(crate) fn run(args: &ApiArgs) -> Result<()> {
    crate::build_release()?;
    let server = Server::start(&crowd::folder("bench/api")?, args.nodes / 2, "")?;
    let nodes = Nodes::start(server.port, args.nodes);
    let mut stalled = vec![];
    for _ in 0..STALLED {
        let mut listener = Connection::new(server.port)?;
        listener.stall("/v1/events")?;
        stalled.push(listener);
    }
    let node = format!("/v1/nodes/{}", crowd::mac(9));
    let paths = [
        "/v1/nodes?limit=1000",
        "/v1/nodes?stage=failed",
        &node,
        "/v1/swarm",
        "/v1/images",
        "/v1/server",
        "/v1/log",
    ];
    let mut asking = Connection::new(server.port)?;
    let mut took: Vec<(&str, Vec<Duration>)> = paths.map(|path| (path, vec![])).to_vec();
    let until = Instant::now() + Duration::from_secs(args.seconds);
    let begin = nodes.taken();
    let begun = Instant::now();
    while Instant::now() < until {
        for (path, took) in &mut took {
            let asked = Instant::now();
            asking.get(path)?;
            took.push(asked.elapsed());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let reports_per_s = (nodes.taken() - begin) as f64 / begun.elapsed().as_secs_f64();
    let sent = nodes.finish()?;
    let status: Value = serde_json::from_slice(&asking.get("/v1/server")?).context("/v1/server")?;
    let counted = count_of(&status, "http", "report_count");
    ensure!(counted == Some(sent), "{sent} reports were sent, {counted:?} counted");
    let memory = server.memory_peak()?;
    println!("{} nodes, {reports_per_s:.0} reports a second, {sent} sent, none lost", args.nodes);
    println!(
        "server: {:.1} MiB of memory at most, {STALLED} listeners stalled",
        memory as f64 / 1_048_576.0
    );
    for (path, took) in &mut took {
        took.sort_unstable();
        let at =
            |share: f64| took[((took.len() - 1) as f64 * share) as usize].as_secs_f64() * 1000.0;
        println!("{path:<28} p50 {:>6.1} ms  p99 {:>6.1} ms  of {}", at(0.5), at(0.99), took.len());
        println!(
            "{}",
            json!({"path": path, "p50_ms": at(0.5), "p99_ms": at(0.99), "count": took.len()})
        );
    }
    drop(stalled);
    Ok(())
}

fn count_of(status: &Value, service: &str, count: &str) -> Option<u64> {
    let services = status["services"].as_array()?;
    services.iter().find(|one| one["name"] == service)?["counts"][count].as_u64()
}
