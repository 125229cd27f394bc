//! `cargo xtask bench guest`: whether a virtual machine on a node runs as smoothly while others download from
//! that node. Not a test: it reports, it does not judge.
//!
//! The guest counts how far it comes within every other tick of its clock (55 ms) and says so on its serial
//! port. The node is a virtual machine itself, in software emulation, with a clock that counts its instructions:
//! what else this machine does makes it slower as a whole, and changes nothing of who gets how much of its
//! processor. Who downloads is an agent in a network namespace.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use serde_json::json;

use super::{Output, image, output_dir};
use crate::e2e::machine::{Firmware, Machine, Spec};
use crate::e2e::server::{self, Config, HTTP_PORT, Server};
use crate::e2e::{self, guest};
use crate::lab::{Lab, Process, Slot, Spawn};
use crate::{artifact, interrupt, release_binary, setup, target_dir};

const IMAGE: &str = "ticks";

/// The downloads must not come from the server: it sends this much at most once the node has all.
const SERVER_LIMIT: &str = "64KiB";

/// Between two looks at the console.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// Emulated machines boot slowly.
const BOOT_TIMEOUT: Duration = Duration::from_secs(400);

/// Of a PC's BIOS; every other one is measured.
const TICKS_PER_S: f64 = 18.2;

/// Ballast, QEMU, the guest and what is written, beside what the image takes.
const MEMORY_MIB: u32 = 640;

/// What to measure.
#[derive(Args)]
pub(crate) struct GuestArgs {
    /// Length of the image that is downloaded
    #[arg(long, default_value = "128MiB", value_parser = image::parse_len)]
    size: u64,
    /// Rounds, each with and without downloads
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds of each half of a round
    #[arg(long, default_value_t = 15)]
    seconds: u64,
    /// The most that the node sends a second; as the lab has it if nothing is said
    #[arg(long)]
    limit: Option<String>,
    /// Take the programs in target/release as they are
    #[arg(long)]
    no_build: bool,
    /// What standard output gets
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

/// What the guest said in all halves of a kind.
#[derive(Default)]
struct Half {
    /// How far it came, of each tick that it measured.
    counts: Vec<u32>,
    seconds: f64,
}

/// Measures, and prints what it found.
pub(crate) fn run(args: &GuestArgs) -> Result<()> {
    setup::install(e2e::TOOLS)?;
    interrupt::remember_signals();
    if !args.no_build {
        artifact::build_all()?;
    }
    let lab_dir = target_dir().join("e2e/lab");
    fs::create_dir_all(&lab_dir).with_context(|| format!("creating {}", lab_dir.display()))?;
    server::prepare_phase1(&lab_dir)?;
    let evidence = output_dir()?;
    let lab = Lab::new(1, None, &evidence)?;
    let config = Config { image: IMAGE, ..Config::default() };
    let mut server = Server::init_as(&lab, Slot::SERVER, &config, &lab_dir)?;
    server.run(&["extension", "build", "qemu"])?;
    guest::install_ticking(&server.oss(), IMAGE, args.size)?;
    if let Some(limit) = &args.limit {
        set(&server, &format!("booted_upload_limit: {limit}"))?;
    }
    server.start()?;
    let memory_mib = MEMORY_MIB + u32::try_from(args.size >> 20)?;
    let spec = Spec::new(1, Firmware::Ipxe).memory_mib(memory_mib).counting();
    let node = Machine::start(&lab, spec, &evidence)?;
    node.wait("ticks", BOOT_TIMEOUT, |console| !guest::ticks(&console.text()).is_empty())?;
    server.stop()?;
    set(&server, &format!("upload_limit: {SERVER_LIMIT}"))?;
    server.start()?;
    let root = root(&lab, &lab_dir)?;
    let [mut quiet, mut loaded] = [Half::default(), Half::default()];
    for round in 1..=args.rounds {
        eprintln!("round {round} of {}", args.rounds);
        measure(args, &node, &mut quiet, || Ok(()))?;
        let mut downloads: Option<Process> = None;
        measure(args, &node, &mut loaded, || {
            // One after the other.
            if let Some(exit) = downloads.as_ref().and_then(Process::exit) {
                ensure!(exit.code == 0, "a download ended with {}", exit.code);
                downloads = None;
            }
            if downloads.is_none() {
                downloads = Some(download(&lab, &root)?);
            }
            Ok(())
        })?;
    }
    let status = server.node(&node.mac())?.context("the node is gone")?;
    let sent_len = status["seeding"]["uploaded_bytes"].as_u64().unwrap_or_default();
    report(args, &quiet, &loaded, sent_len);
    server.stop()
}

/// Sets a key of `swarm`, from the server's next start on.
fn set(server: &Server<'_>, line: &str) -> Result<()> {
    let path = server.oss().with_file_name("Boottorrent.yaml");
    let text = fs::read_to_string(path).context("reading Boottorrent.yaml")?;
    server.write("Boottorrent.yaml", &text.replace("swarm:\n", &format!("swarm:\n  {line}\n")))
}

/// What stands for the initramfs of who downloads: the lab's key.
fn root(lab: &Lab, as_in: &Path) -> Result<std::path::PathBuf> {
    let root = lab.slot_dir(Slot::node(1)).join("root");
    let etc = root.join("etc/boottorrent");
    fs::create_dir_all(&etc).with_context(|| format!("creating {}", etc.display()))?;
    fs::copy(as_in.join("keys/lab.pub"), etc.join("lab.pub")).context("copying the lab's key")?;
    Ok(root)
}

/// Begins to download the image anew.
fn download(lab: &Lab, root: &Path) -> Result<Process> {
    let run = root.join("run");
    if run.exists() {
        fs::remove_dir_all(&run).with_context(|| format!("removing {}", run.display()))?;
    }
    let agent = release_binary()?.with_file_name("boottorrent-agent");
    let url = format!("http://{}:{HTTP_PORT}", Slot::SERVER.address());
    let spawn = Spawn::new("download", agent)
        .args(["run", "--no-init", "--interface", "none", "--then", "print", "--attempts", "1"])
        .args(["--mac", &Slot::node(1).mac(), "--image", IMAGE, "--server", &url, "--root"])
        .arg(root);
    lab.spawn(Slot::node(1), spawn)
}

/// Adds what the guest says within the time of a half, during which `meanwhile` is done again and again.
fn measure(
    args: &GuestArgs,
    node: &Machine<'_>,
    half: &mut Half,
    mut meanwhile: impl FnMut() -> Result<()>,
) -> Result<()> {
    let said = || Ok::<_, anyhow::Error>(guest::ticks(&node.console()?.text()));
    let (before, start) = (said()?.len(), Instant::now());
    while start.elapsed() < Duration::from_secs(args.seconds) {
        interrupt::check()?;
        meanwhile()?;
        std::thread::sleep(LOOK_INTERVAL);
    }
    half.counts.extend(said()?.into_iter().skip(before));
    half.seconds += start.elapsed().as_secs_f64();
    Ok(())
}

/// `sent_len` is what the node sent in all, which it did in the halves with downloads. Its seconds are those of
/// its own clock, by the guest's.
fn report(args: &GuestArgs, quiet: &Half, loaded: &Half, sent_len: u64) {
    let usual = f64::from(percentile(&quiet.counts, 50)).max(1.0);
    let halves = [("alone", quiet, 0), ("while another node downloads", loaded, sent_len)];
    let rows = halves.map(|(name, half, sent_len)| {
        let seconds = half.counts.len() as f64 * 2.0 / TICKS_PER_S;
        let of_usual = |percent| f64::from(percentile(&half.counts, percent)) / usual;
        json!({
            "name": name,
            "seconds": seconds,
            "real_seconds": half.seconds,
            "median": of_usual(50),
            "worst_of_20": of_usual(5),
            "worst_of_100": of_usual(1),
            "sent_mib_per_s": sent_len as f64 / seconds / f64::from(1 << 20),
        })
    });
    match args.output {
        Output::Json => println!("{}", json!(rows)),
        Output::Table => {
            println!(
                "{:<30} {:>8} {:>8} {:>12} {:>13} {:>12}",
                "guest", "seconds", "median", "worst of 20", "worst of 100", "sent MiB/s"
            );
            for row in &rows {
                let number = |key: &str| row[key].as_f64().unwrap_or_default();
                println!(
                    "{:<30} {:>8.1} {:>7.0}% {:>11.0}% {:>12.0}% {:>12.1}",
                    row["name"].as_str().unwrap_or_default(),
                    number("seconds"),
                    number("median") * 100.0,
                    number("worst_of_20") * 100.0,
                    number("worst_of_100") * 100.0,
                    number("sent_mib_per_s")
                );
            }
        }
    }
}

/// What so many in a hundred do not come up to; nothing for nothing.
fn percentile(counts: &[u32], percent: usize) -> u32 {
    let mut sorted = counts.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() * percent / 100).copied().unwrap_or_default()
}
