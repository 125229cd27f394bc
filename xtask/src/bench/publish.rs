//! `cargo xtask bench image`: what a change of an image costs, how a live image packs, and how long an
//! assignment takes to reach the wire. Not a test: it reports, it does not judge.
//!
//! What is packed are real files, this machine's `/usr`: how well zstd does depends on nothing else.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use serde_json::{Value, json};

use super::machine::Clock;
use super::{Output, image, output_dir};
use crate::crowd::{self, Connection, Server};
use crate::{interrupt, release_binary, setup};

/// Files of the image that is published: one of them is changed.
const FILES: u64 = 64;

/// Hashing the image, on a machine that does other work besides.
const TIMEOUT: Duration = Duration::from_secs(300);

const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// Levels of zstd and bytes of a block that are packed with, beside what `image create` takes.
const PACKINGS: &[(&str, &str)] =
    &[("3", "256K"), ("9", "128K"), ("9", "256K"), ("9", "1M"), ("15", "256K"), ("19", "256K")];

/// What to measure.
#[derive(Args)]
pub(crate) struct ImageArgs {
    /// Length of the image of which one file is changed
    #[arg(long, default_value = "1GiB", value_parser = image::parse_len)]
    size: u64,
    /// Length of the tree that is packed
    #[arg(long, default_value = "512MiB", value_parser = image::parse_len)]
    tree: u64,
    /// Assignments, one after the other
    #[arg(long, default_value_t = 10)]
    assignments: usize,
    /// What standard output gets
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

/// How much it took until an image was on offer.
#[derive(Clone, Copy)]
struct Published {
    seconds: f64,
    /// That the server read meanwhile, from files and sockets.
    read_bytes: u64,
}

/// One squashfs.
struct Packed {
    what: String,
    len: u64,
    seconds: f64,
    /// Processors at work, on average.
    processors: f64,
}

/// Runs the benchmark.
pub(crate) fn run(args: &ImageArgs) -> Result<()> {
    setup::require(&[setup::SQUASHFS])?;
    crate::build_release()?;
    let lab = crowd::folder("bench/image")?;
    let server = Server::start(&lab, 2, "")?;
    let first = first(&server, &lab, args.size)?;
    let changed = changed(&server, &lab, args.size)?;
    let assigned = assign(&server, &lab, args.assignments)?;
    drop(server);
    let packed = pack(&lab, args.tree)?;
    let text = match args.output {
        Output::Table => table(args, first, changed, &assigned, &packed),
        Output::Json => format!("{:#}", document(args, first, changed, &assigned, &packed)),
    };
    fs::write(output_dir()?.join("image.md"), &text).context("storing the figures")?;
    println!("{text}");
    Ok(())
}

/// A whole image appears.
fn first(server: &Server, lab: &Path, size: u64) -> Result<Published> {
    let made = lab.join("made");
    fs::create_dir_all(&made).with_context(|| format!("making {}", made.display()))?;
    let whole = image::Image::create(&made, size / FILES)?;
    let bytes =
        fs::read(&whole.path).with_context(|| format!("reading {}", whole.path.display()))?;
    fs::remove_file(&whole.path).context("removing the pattern")?;
    for index in 0..FILES {
        let path = made.join(format!("part-{index:02}"));
        let mut file = fs::File::create(&path).context("making the image")?;
        // No two files are the same.
        file.write_all(&index.to_le_bytes()).and_then(|()| file.write_all(&bytes[8..]))?;
    }
    let config = "dispname: Big\nmethod: kexec\nkernel: part-00\ninitrd: part-01\n";
    fs::write(made.join("config.yaml"), config).context("making the image")?;
    // What was written only just now is read again at the next look (see the cache of hashes).
    std::thread::sleep(Duration::from_secs(3));
    let old = infohash(server, "big")?;
    measure(server, "big", old, || {
        fs::rename(&made, lab.join("oss/big")).context("putting the image into the lab")
    })
}

/// One file of it is another.
fn changed(server: &Server, lab: &Path, size: u64) -> Result<Published> {
    let path = lab.join("oss/big/part-07");
    let mut bytes = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
    ensure!(bytes.len() as u64 == size / FILES, "{} was changed", path.display());
    bytes.reverse();
    let new = lab.join("new");
    fs::write(&new, &bytes).with_context(|| format!("writing {}", new.display()))?;
    let old = infohash(server, "big")?;
    measure(server, "big", old, || fs::rename(&new, &path).context("changing a file of the image"))
}

/// From what `act` does until the image is on offer as another one.
fn measure(
    server: &Server,
    name: &str,
    old: Option<Value>,
    act: impl FnOnce() -> Result<()>,
) -> Result<Published> {
    let (read, start) = (server.read_bytes()?, Instant::now());
    act()?;
    let is_new = || Ok(infohash(server, name)?.is_some_and(|new| Some(&new) != old.as_ref()));
    wait(is_new)?;
    Ok(Published {
        seconds: start.elapsed().as_secs_f64(),
        read_bytes: server.read_bytes()? - read,
    })
}

fn wait(mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + TIMEOUT;
    while !is_so()? {
        interrupt::check()?;
        ensure!(Instant::now() < deadline, "nothing new is on offer after {TIMEOUT:?}");
        std::thread::sleep(LOOK_INTERVAL);
    }
    Ok(())
}

/// How the manifest tells the versions of an image apart; nothing if it is not offered.
fn infohash(server: &Server, name: &str) -> Result<Option<Value>> {
    let manifest = manifest(server)?;
    let images = manifest["images"].as_array().context("the manifest has no images")?;
    Ok(images.iter().find(|image| image["name"] == name).map(|image| image["infohash"].clone()))
}

fn manifest(server: &Server) -> Result<Value> {
    let bytes = Connection::new(server.port)?.get("/manifest.json")?;
    serde_json::from_slice(&bytes).context("the manifest is no JSON")
}

/// Seconds from `node assign` until another manifest is on offer, of each.
fn assign(server: &Server, lab: &Path, count: usize) -> Result<Vec<f64>> {
    let mut took = vec![];
    for index in 0..count {
        let old = manifest(server)?["serial"].clone();
        let image = if index % 2 == 0 { "big" } else { "debian" };
        let start = Instant::now();
        let mut command = Command::new(release_binary()?);
        command.arg("-C").arg(lab).args(["node", "assign", "--yes", "c0001", image]);
        command.stdin(Stdio::null());
        let out = command.output().context("running node assign")?;
        ensure!(out.status.success(), "node assign: {}", String::from_utf8_lossy(&out.stderr));
        wait(|| Ok(manifest(server)?["serial"] != old))?;
        took.push(start.elapsed().as_secs_f64());
    }
    took.sort_by(f64::total_cmp);
    Ok(took)
}

/// The same tree by `image create`, and by mksquashfs in other ways.
fn pack(lab: &Path, len: u64) -> Result<Vec<Packed>> {
    let tree = lab.join("tree");
    fs::create_dir_all(&tree).with_context(|| format!("making {}", tree.display()))?;
    let copied = copy_until(Path::new("/usr"), &tree.join("usr"), len)?;
    ensure!(copied >= len, "/usr has {copied} bytes only");
    let mut all = vec![];
    let name = "packed";
    let (seconds, processors) = timed(
        Command::new(release_binary()?)
            .arg("-C")
            .arg(lab)
            .args(["image", "create", name, "--yes", "--from"])
            .arg(format!("directory:{}", tree.display())),
    )?;
    let len = size_of(&lab.join("oss").join(name).join("squashfs.img"))?;
    all.push(Packed { what: "image create, all steps".to_owned(), len, seconds, processors });
    for (level, block) in PACKINGS {
        eprintln!("zstd {level}, blocks of {block}");
        let file = lab.join("other.squashfs");
        let (seconds, processors) = timed(
            Command::new("mksquashfs")
                .args([&tree, &file])
                .args(["-noappend", "-quiet", "-no-progress", "-comp", "zstd"])
                .args(["-Xcompression-level", level, "-b", block]),
        )?;
        let what = format!("mksquashfs, zstd {level}, blocks of {block}");
        all.push(Packed { what, len: size_of(&file)?, seconds, processors });
    }
    Ok(all)
}

fn size_of(path: &Path) -> Result<u64> {
    Ok(fs::metadata(path).with_context(|| format!("looking at {}", path.display()))?.len())
}

/// Seconds, and how many processors of the machine were busy on average.
fn timed(command: &mut Command) -> Result<(f64, f64)> {
    let (clock, start) = (Clock::now()?, Instant::now());
    let out = command.stdin(Stdio::null()).output().context("running a command")?;
    ensure!(out.status.success(), "{command:?}: {}", String::from_utf8_lossy(&out.stderr));
    let seconds = start.elapsed().as_secs_f64();
    Ok((seconds, clock.until(Clock::now()?).busy_s / seconds))
}

/// Copies regular files in the order of their names until there are `len` bytes; how many there are.
fn copy_until(from: &Path, to: &Path, len: u64) -> Result<u64> {
    let (mut copied, mut folders) = (0, vec![PathBuf::new()]);
    while let Some(folder) = folders.pop() {
        let source = from.join(&folder);
        let mut names = vec![];
        for entry in
            fs::read_dir(&source).with_context(|| format!("reading {}", source.display()))?
        {
            names.push(entry.context("reading a folder")?.file_name());
        }
        names.sort();
        fs::create_dir_all(to.join(&folder)).context("copying a tree")?;
        for name in names {
            let path = folder.join(name);
            let metadata = fs::symlink_metadata(from.join(&path)).context("copying a tree")?;
            if metadata.is_dir() {
                folders.push(path);
            } else if metadata.is_file() {
                copied += fs::copy(from.join(&path), to.join(&path)).context("copying a tree")?;
            }
            if copied >= len {
                return Ok(copied);
            }
        }
    }
    if copied == 0 {
        bail!("{} has no files", from.display());
    }
    Ok(copied)
}

fn table(
    args: &ImageArgs,
    first: Published,
    changed: Published,
    assigned: &[f64],
    packed: &[Packed],
) -> String {
    let mib = |bytes: u64| bytes as f64 / 1_048_576.0;
    let publication = |what: &str, it: Published| {
        format!("| {what} | {:.2} s | {:.0} MiB |\n", it.seconds, mib(it.read_bytes))
    };
    let mut text = format!(
        "| An image of {:.0} MiB in {FILES} files | until it is on offer | read |\n",
        mib(args.size)
    );
    text.push_str("|---|---|---|\n");
    text.push_str(&publication("appears", first));
    text.push_str(&publication("one file is changed", changed));
    text.push_str(&format!(
        "\n`node assign` until the new manifest is on offer: median {:.3} s, slowest {:.3} s of {}\n\n",
        assigned.get(assigned.len() / 2).copied().unwrap_or_default(),
        assigned.last().copied().unwrap_or_default(),
        assigned.len()
    ));
    text.push_str(&format!(
        "| A tree of {:.0} MiB | squashfs | time | processors |\n",
        mib(args.tree)
    ));
    text.push_str("|---|---|---|---|\n");
    for it in packed {
        let (what, len) = (&it.what, mib(it.len));
        text.push_str(&format!(
            "| {what} | {len:.1} MiB | {:.1} s | {:.1} |\n",
            it.seconds, it.processors
        ));
    }
    text
}

fn document(
    args: &ImageArgs,
    first: Published,
    changed: Published,
    assigned: &[f64],
    packed: &[Packed],
) -> Value {
    let publication = |it: Published| json!({"seconds": it.seconds, "read_bytes": it.read_bytes});
    let packed: Vec<Value> = packed
        .iter()
        .map(|it| {
            json!({
                "what": it.what, "bytes": it.len, "seconds": it.seconds, "processors": it.processors,
            })
        })
        .collect();
    json!({
        "image_bytes": args.size, "files": FILES, "first": publication(first),
        "changed": publication(changed), "assign_seconds": assigned, "tree_bytes": args.tree,
        "packed": packed,
    })
}
