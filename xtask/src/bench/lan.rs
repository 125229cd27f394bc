//! `cargo xtask bench lan`: the chain of `boottorrent lan` beside our swarm, udpcast and, if asked for, rsync, by
//! the harness of `bench swarm`; and a queue that a hundred clients use at once.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::Args;

use super::{Case, SwarmArgs};
use crate::lab::{Lab, Slot, Spawn, wait_until};

/// Clients at once, and what each asks for.
const CLIENTS: usize = 100;
const REQUESTS_OF_EACH: usize = 10;

/// Two cores run a thousand processes in much less.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(300);

/// What to measure.
#[derive(Args)]
pub(crate) struct LanArgs {
    #[command(flatten)]
    swarm: SwarmArgs,
    /// Only the queue
    #[arg(long)]
    queue: bool,
}

/// Runs the benchmark.
pub(crate) fn run(args: LanArgs) -> Result<()> {
    let LanArgs { mut swarm, queue: only_queue } = args;
    crate::build_release()?;
    if !only_queue {
        // rsync, one node after the other, takes sixteen times as long as the limit and says nothing
        // new in the other cases: `--only rsync --give-up 20`.
        if swarm.only.is_empty() {
            swarm.only = ["lan", "ours", "udpcast"].map(str::to_owned).to_vec();
            if swarm.case == [Case::Clean] {
                swarm.case = vec![Case::Clean, Case::KillOne, Case::Slow, Case::Unlimited];
            }
        }
        super::swarm(&swarm)?;
    }
    println!("{}", queue()?);
    Ok(())
}

/// A thousand requests of a hundred clients: how long until all are answered.
fn queue() -> Result<String> {
    let lab = Lab::new(1, None, &super::output_dir()?.join("logs/lan-queue"))?;
    let dir = lab.slot_dir(Slot::SERVER);
    std::fs::write(dir.join("password"), "secret\n")?;
    std::fs::write(dir.join("source"), "a file that many want")?;
    let (binary, node) = (crate::release_binary()?, Slot::node(1));
    let host = format!("{}:2893", node.address());
    let serve = Spawn::new("endpoint", &binary)
        .args(["lan", "serve", "--listen", &host, "--root"])
        .arg(lab.slot_dir(node))
        .arg("--password-file")
        .arg(dir.join("password"));
    let serve = lab.spawn(node, serve)?;
    serve.wait_listening(2_893)?;
    let daemon = Spawn::new("daemon", &binary)
        .args(["lan", "daemon", "--queue", "queue", "--password-file", "password"])
        .args(["--requests", "100", "--delay", "1"]);
    let daemon = lab.spawn(Slot::SERVER, daemon)?;
    ensure!(wait_until(QUEUE_TIMEOUT, || dir.join("queue").exists()), "{}", daemon.log_tail());
    let start = Instant::now();
    let answered: usize = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let (binary, dir, host) = (&binary, &dir, &host);
                let target = lab.slot_dir(node);
                scope.spawn(move || {
                    (0..REQUESTS_OF_EACH)
                        .map(|index| {
                            let rid = format!("{client}-{index}");
                            let mut command = Command::new(binary);
                            command.args(["lan", "request", "-n", "--queue", "queue", "source"]);
                            command.arg(target.join(&rid)).arg(&rid).arg(host);
                            command.current_dir(dir).stdin(Stdio::null());
                            command.output().is_ok_and(|out| out.status.success())
                        })
                        .filter(|accepted| *accepted)
                        .count()
                })
            })
            .collect();
        clients.into_iter().map(|client| client.join().unwrap_or(0)).sum()
    });
    let total = CLIENTS * REQUESTS_OF_EACH;
    ensure!(answered == total, "{answered} of {total} requests were accepted");
    let accepted = start.elapsed();
    let list = || -> Result<Vec<serde_json::Value>> {
        let mut command = Command::new(&binary);
        command.args(["lan", "list", "--all", "--queue", "queue", "-o", "json"]);
        let out = command.current_dir(&dir).output().context("running lan list")?;
        serde_json::from_slice(&out.stdout).context("the list is no JSON")
    };
    let is_done = |queued: &serde_json::Value| queued["done"] == true && queued["rc"] == 0;
    let all_done = || list().is_ok_and(|all| all.iter().all(is_done));
    ensure!(wait_until(QUEUE_TIMEOUT, all_done), "not all are done:\n{}", daemon.log_tail());
    let found = list()?.len();
    ensure!(found == total, "{found} requests of {total} are in the queue");
    let log = serve.log();
    let received = log.lines().filter(|line| line.starts_with("received ")).count();
    ensure!(received == total, "{received} files came, of {total}: one was lost or came twice");
    Ok(format!(
        "{total} requests from {CLIENTS} clients at once: accepted in {:.1} s, all answered and each \
         file written once in {:.1} s",
        accepted.as_secs_f64(),
        start.elapsed().as_secs_f64()
    ))
}
