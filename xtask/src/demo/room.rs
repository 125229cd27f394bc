//! The room: a server in a namespace, three virtual machines that have a network card and nothing
//! else, a Debian that they have never seen. From power-on to the login prompt.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::Args;
use serde_json::Value;

use crate::e2e::debian::{self, Debian};
use crate::e2e::machine::{Firmware, Machine, Spec};
use crate::e2e::server::{Config, HTTP_PORT, Server};
use crate::e2e::{self, fresh};
use crate::lab::{Lab, Slot};
use crate::{artifact, interrupt, setup, target_dir};

/// The room to show.
#[derive(Args)]
pub(crate) struct RoomArgs {
    /// Give up after so many seconds
    #[arg(long, default_value_t = 600)]
    timeout: u64,
    /// Only install what is missing and make the Debian
    #[arg(long)]
    prepare: bool,
    /// Take the programs in target/release as they are
    #[arg(long)]
    no_build: bool,
}

const IMAGE: &str = "debian-12";

/// Phase 1, the image twice (as downloaded, as handed to the kernel), then Debian unpacked.
const MEMORY_MIB: u32 = 1_024;

/// Machines share two processors, so the slowest comes some half a minute after the first.
const SEED_TIME_S: u64 = 20;

const SHOW_INTERVAL: Duration = Duration::from_secs(2);

pub(super) fn run(args: &RoomArgs) -> Result<()> {
    setup::install(&[e2e::TOOLS, &[setup::ZSTD]].concat())?;
    interrupt::remember_signals();
    let debian = Debian::build()?;
    if args.prepare {
        return Ok(());
    }
    if !args.no_build {
        artifact::build_all()?;
    }
    let dir = target_dir().join("demo");
    fresh(&dir)?;
    let lab = Lab::new(0, None, &dir)?;
    let mut server = Server::init(
        &lab,
        Slot::SERVER,
        &Config { image: IMAGE, seed_time_s: SEED_TIME_S, ..Config::default() },
    )?;
    debian.install(&server.oss(), IMAGE)?;
    server.start()?;
    println!(
        "a server with Debian 12 ({} MiB), three machines with a network card and nothing else",
        debian.size()? >> 20
    );
    let port = lab.open_window(Slot::SERVER, HTTP_PORT, HTTP_PORT)?;
    println!(
        "watch them: http://localhost:{port}/ (from elsewhere: ssh -L {port}:localhost:{port} …)"
    );
    let mut machines = vec![];
    for (number, firmware) in [(1, Firmware::Ipxe), (2, Firmware::Pxe), (3, Firmware::Uefi)] {
        let spec = Spec::new(number, firmware).memory_mib(MEMORY_MIB);
        machines.push(Machine::start(&lab, spec, &dir)?);
    }
    let times = watch(&server, &machines, Duration::from_secs(args.timeout))?;
    server.keep_status(&dir)?;
    evidence(&server, &machines, &times)?;
    if std::io::stdin().is_terminal() {
        println!(
            "\nthe room stays on, and http://localhost:{port}/ shows it, until you press Enter"
        );
        wait_for_enter()?;
    }
    server.stop()
}

/// Until Enter is pressed, or Ctrl+C.
fn wait_for_enter() -> Result<()> {
    let reader = std::thread::spawn(|| std::io::stdin().read_line(&mut String::new()));
    while !reader.is_finished() {
        interrupt::check()?;
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

/// Shows where the machines are until each has its login prompt; when each had it.
fn watch(
    server: &Server<'_>,
    machines: &[Machine<'_>],
    timeout: Duration,
) -> Result<Vec<Duration>> {
    let deadline = Instant::now() + timeout;
    let mut times = vec![None; machines.len()];
    let mut shown = String::new();
    loop {
        interrupt::check()?;
        for (time, machine) in times.iter_mut().zip(machines) {
            if time.is_none() && machine.console()?.has(debian::LOGIN) {
                *time = Some(machine.uptime());
            }
        }
        let line = describe(server, machines, &times)?;
        if line != shown {
            println!("{line}");
            shown = line;
        }
        if let Some(times) = times.iter().copied().collect() {
            return Ok(times);
        }
        if Instant::now() >= deadline {
            let late = machines.iter().zip(&times).find(|(_, time)| time.is_none());
            let (machine, _) = late.context("no machine is late")?;
            machine.wait_for(debian::LOGIN, Duration::ZERO)?;
        }
        std::thread::sleep(SHOW_INTERVAL);
    }
}

fn describe(
    server: &Server<'_>,
    machines: &[Machine<'_>],
    times: &[Option<Duration>],
) -> Result<String> {
    let mut words = vec![];
    for (machine, time) in machines.iter().zip(times) {
        let word = match time {
            Some(time) => format!("login prompt after {:.0} s", time.as_secs_f64()),
            None => {
                server.node(&machine.mac())?.map_or("powered on".to_owned(), |node| stage(&node))
            }
        };
        words.push(format!("{} {word:<28}", machine.spec().name()));
    }
    Ok(words.join("  "))
}

/// `downloading 41 of 97 MiB`, `failed BT21`, or the stage's name.
fn stage(node: &Value) -> String {
    let name = node["stage"].as_str().unwrap_or("unknown");
    match (name, node["verified_bytes"].as_u64(), node["total_bytes"].as_u64()) {
        ("downloading", Some(verified), Some(total)) => {
            format!("{name} {} of {} MiB", verified >> 20, total >> 20)
        }
        ("failed", ..) => format!("{name} {}", node["failure"].as_str().unwrap_or("BT00")),
        _ => name.to_owned(),
    }
}

fn evidence(server: &Server<'_>, machines: &[Machine<'_>], times: &[Duration]) -> Result<()> {
    println!("\n| node | firmware | login prompt after | last status | sent to others | console |");
    println!("|---|---|---|---|---|---|");
    for (machine, time) in machines.iter().zip(times) {
        let node = server.node(&machine.mac())?.context("the server has not seen a machine")?;
        println!(
            "| {} | {:?} | {:.0} s | {} | {} MiB | {} |",
            machine.mac(),
            machine.spec().firmware,
            time.as_secs_f64(),
            stage(&node),
            node["uploads_bytes"].as_u64().unwrap_or(0) >> 20,
            machine.console()?.path().display()
        );
    }
    Ok(())
}
