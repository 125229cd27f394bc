//! `boottorrent phase1`: the kernel and initramfs that nodes run first.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Instant;

use anyhow::{Context, bail};
use boot::{KernelVersion, LabPublicKey};
use clap::{Args, Subcommand};
use image::phase1::drivers::ALL_NET;
use image::phase1::{self, Inputs, KernelChoice, Phase1, Progress, Record, firmware};
use serde_json::json;

use crate::cli::OutputFormat;
use crate::lab::settings::Settings;
use crate::lab::{self, OpenError};
use crate::progress::{self, Console};
use crate::quantity;

/// Where distributions have one without libraries: Debian's `busybox-static`, and Red Hat's kin.
const BUSYBOX: [&str; 2] = ["/bin/busybox", "/usr/sbin/busybox"];

/// The one that is installed, or else where Debian's would be.
pub(crate) fn busybox() -> PathBuf {
    BUSYBOX.iter().find(|path| Path::new(path).exists()).unwrap_or(&BUSYBOX[0]).into()
}

/// Where our package has the agent; a development build has it beside the program.
const AGENT: &str = "/usr/lib/boottorrent/boottorrent-agent";

#[derive(Debug, Subcommand)]
pub(crate) enum Phase1Command {
    /// Build the kernel and initramfs that nodes run first, or find them built.
    Build(BuildArgs),
    /// Show what the lab's kernel and initramfs hold.
    Show(ShowArgs),
}

#[derive(Debug, Args)]
pub(crate) struct BuildArgs {
    /// Its kernel: an installed version, or a Debian package; by default that of Boottorrent.yaml,
    /// else the newest that is installed.
    #[arg(long, value_name = "VERSION|FILE.deb")]
    kernel: Option<String>,
    /// A kernel module to be in it, beside the usual ones and those of Boottorrent.yaml. Can be
    /// repeated.
    #[arg(long = "module", value_name = "NAME")]
    modules: Vec<String>,
    /// All drivers for wired networks that the kernel has: a third more to load.
    #[arg(long)]
    all_net: bool,
    /// A folder for vmlinuz, initramfs.img and phase1.json; by default one below the lab's state/.
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// The public key that nodes shall trust; by default the lab's, keys/lab.pub.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// The agent's program; by default boottorrent-agent beside this program, or the package's.
    #[arg(long, value_name = "FILE")]
    agent: Option<PathBuf>,
    /// A busybox that needs no libraries; by default the installed one.
    #[arg(long, value_name = "FILE")]
    busybox: Option<PathBuf>,
    /// How to print.
    #[arg(short = 'o', long = "format", value_name = "FORMAT", default_value = "text")]
    format: OutputFormat,
}

#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// A folder with a phase1.json; by default the one that the lab used last.
    folder: Option<PathBuf>,
    /// How to print.
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: OutputFormat,
}

/// Does what was asked for, in the lab `dir`.
pub(crate) fn run(command: &Phase1Command, dir: &Path) -> anyhow::Result<ExitCode> {
    let (result, format) = match command {
        Phase1Command::Build(args) => (build(args, dir), args.format),
        Phase1Command::Show(args) => (show(args, dir), args.output),
    };
    if let (Err(error), OutputFormat::Json) = (&result, format) {
        progress::print(&json!({"event": "error", "message": format!("{error:#}")}).to_string());
    }
    result.map(|()| ExitCode::SUCCESS)
}

/// The phase 1 of a lab, built if something that goes into it has changed, which takes half a
/// minute. Its files are in the lab's `out/`, where they stay as they are while the server runs,
/// whatever else is built meanwhile.
///
/// # Errors
/// If something that goes into it is missing or of no use.
pub(crate) fn ensure(
    settings: &Settings,
    key: LabPublicKey,
    progress: &mut dyn FnMut(Progress),
) -> anyhow::Result<Phase1> {
    let inputs = lab_inputs(settings, key)?;
    let out = settings.out_dir().join("phase1");
    ensure_in(&inputs, settings, out, progress)
}

/// As [`ensure`], of another kernel: one of the lab's, or one that is installed.
///
/// # Errors
/// If there is no such kernel, or something else that goes into it is missing.
pub(crate) fn ensure_version(
    settings: &Settings,
    key: LabPublicKey,
    version: &KernelVersion,
    progress: &mut dyn FnMut(Progress),
) -> anyhow::Result<Phase1> {
    let kernel = KernelChoice::of_version(&settings.dir, version.clone());
    let inputs = Inputs { kernel, ..lab_inputs(settings, key)? };
    let out = settings.out_dir().join("phase1").join(version.as_str());
    ensure_in(&inputs, settings, out, progress)
}

fn ensure_in(
    inputs: &Inputs,
    settings: &Settings,
    out: PathBuf,
    progress: &mut dyn FnMut(Progress),
) -> anyhow::Result<Phase1> {
    let (phase1, _) = phase1::ensure(inputs, &cache(&settings.dir), progress)?;
    fs::create_dir_all(&out).with_context(|| format!("cannot make {}", out.display()))?;
    let kernel = place(&phase1.kernel, &out)?;
    let initramfs = place(&phase1.initramfs, &out)?;
    Ok(Phase1 { dir: out, kernel, initramfs, ..phase1 })
}

/// Gives a file a second name in `dir`, or copies it where that cannot be.
fn place(file: &Path, dir: &Path) -> anyhow::Result<PathBuf> {
    let placed = dir.join(file.file_name().unwrap_or_default());
    if is_same_file(file, &placed) {
        // A full disk would not take it again.
        return Ok(placed);
    }
    // That of an earlier start that could not be removed then is told of here.
    let _ = fs::remove_file(&placed);
    fs::hard_link(file, &placed)
        .or_else(|_| fs::copy(file, &placed).map(|_| ()))
        .with_context(|| format!("cannot write {}", placed.display()))?;
    Ok(placed)
}

fn is_same_file(one: &Path, other: &Path) -> bool {
    let which = |path| fs::symlink_metadata(path).map(|file| (file.dev(), file.ino())).ok();
    which(one).is_some_and(|file| which(other) == Some(file))
}

/// What `start` takes, too, so that both build the same.
fn lab_inputs(settings: &Settings, key: LabPublicKey) -> anyhow::Result<Inputs> {
    Ok(Inputs {
        kernel: kernel_choice(settings.phase1.kernel.as_deref(), &settings.dir)?,
        modules: settings.phase1.modules.clone(),
        ..plain_inputs(key)
    })
}

/// What is taken where nothing is said.
fn plain_inputs(key: LabPublicKey) -> Inputs {
    Inputs {
        kernel: KernelChoice::Newest,
        root: "/".into(),
        agent: agent(),
        busybox: busybox(),
        key,
        modules: vec![],
    }
}

/// What the lab's settings say, and the arguments beyond them.
fn inputs(args: &BuildArgs, dir: &Path, console: &Console) -> anyhow::Result<Inputs> {
    let key = read_key(&args.key.clone().unwrap_or_else(|| dir.join("keys/lab.pub")))?;
    let mut inputs = match lab::check(dir) {
        Ok((configuration, problems)) => {
            // Images and nodes may be unfinished: phase 1 needs none of them.
            if problems.has_errors() {
                console.warn("the lab's files have problems, which `boottorrent check` shows");
            }
            lab_inputs(&configuration.settings, key)?
        }
        Err(OpenError::NoLab(_)) => plain_inputs(key),
        Err(error) => return Err(error.into()),
    };
    if args.kernel.is_some() {
        // A path is meant from where the person is, not from the lab.
        inputs.kernel = kernel_choice(args.kernel.as_deref(), Path::new(""))?;
    }
    inputs.modules.extend(args.modules.iter().cloned());
    if args.all_net {
        inputs.modules.push(ALL_NET.to_owned());
    }
    if let Some(busybox) = &args.busybox {
        inputs.busybox.clone_from(busybox);
    }
    if let Some(agent) = &args.agent {
        inputs.agent.clone_from(agent);
    }
    Ok(inputs)
}

fn build(args: &BuildArgs, dir: &Path) -> anyhow::Result<()> {
    let begin = Instant::now();
    let mut console = Console::new(args.format);
    let inputs = inputs(args, dir, &console)?;
    let mut tell = |Progress { step, done, total }| {
        console.hashing(step.as_str(), "phase 1", done, total);
    };
    let (phase1, built) = match &args.output {
        Some(output) => (phase1::build(&inputs, output, &mut tell)?, true),
        None => phase1::ensure(&inputs, &cache(dir), &mut tell)?,
    };
    console.finish();
    let took = quantity::duration(begin.elapsed());
    let verb = if built { format!("built in {took}") } else { "found built".to_owned() };
    let text = format!("phase 1 {verb}: {}\n{}", phase1.dir.display(), describe(&phase1.record));
    let mut event = json!({"event": "built", "new": built, "folder": phase1.dir.clone()});
    event["phase1"] = serde_json::to_value(&phase1.record)?;
    console.say(&text, &event);
    Ok(())
}

fn show(args: &ShowArgs, dir: &Path) -> anyhow::Result<()> {
    let phase1 = match &args.folder {
        Some(folder) => phase1::open(folder).with_context(|| {
            format!("{} holds no whole phase 1; build it anew", folder.display())
        })?,
        None => {
            let cache = cache(dir);
            let Some(newest) = phase1::list(&cache).into_iter().next() else {
                bail!("no phase 1 in {}; run `boottorrent phase1 build`", cache.display());
            };
            newest
        }
    };
    match args.output {
        OutputFormat::Json => {
            let mut value = serde_json::to_value(&phase1.record)?;
            value["folder"] = json!(phase1.dir);
            progress::print(&value.to_string());
        }
        OutputFormat::Text => {
            let (dir, record) = (phase1.dir.display(), &phase1.record);
            progress::print(&format!("phase 1 in {dir}\n{}{}", describe(record), details(record)));
        }
    }
    Ok(())
}

/// A relative path of a package is meant from `base`.
fn kernel_choice(text: Option<&str>, base: &Path) -> anyhow::Result<KernelChoice> {
    Ok(match KernelChoice::parse(text)? {
        KernelChoice::Package(path) => KernelChoice::Package(base.join(path)),
        other => other,
    })
}

pub(crate) fn cache(dir: &Path) -> PathBuf {
    dir.join("state/phase1")
}

pub(crate) fn agent() -> PathBuf {
    let beside = std::env::current_exe().ok().map(|exe| exe.with_file_name("boottorrent-agent"));
    beside.filter(|agent| agent.is_file()).unwrap_or_else(|| AGENT.into())
}

fn read_key(file: &Path) -> anyhow::Result<LabPublicKey> {
    let cannot = || {
        let file = file.display();
        format!("cannot read the lab's public key {file}; run this in a lab, or name it with --key")
    };
    let text = fs::read_to_string(file).with_context(cannot)?;
    LabPublicKey::from_str(&text).with_context(cannot)
}

/// Sizes, and what may surprise.
fn describe(record: &Record) -> String {
    let mut lines = vec![
        format!("  kernel     {} {}", quantity::bytes(record.kernel.len), record.version),
        format!(
            "  initramfs  {} {}, {} unpacked",
            quantity::bytes(record.initramfs.len),
            record.compression.as_str(),
            quantity::bytes(record.unpacked_len)
        ),
        format!("  agent      {}", quantity::bytes(record.agent.len)),
        format!("  busybox    {}", quantity::bytes(record.busybox.len)),
        format!(
            "  drivers    {} {}",
            quantity::bytes(record.modules_len()),
            quantity::count(record.modules.len(), "module")
        ),
        format!(
            "  firmware   {} {}",
            quantity::bytes(record.firmware_len()),
            quantity::count(record.firmware.len(), "file")
        ),
        format!("  lab key    {}", record.lab_key),
    ];
    if !record.firmware_missing.is_empty() {
        let drivers = record.firmware_missing.iter().map(|(driver, files)| {
            let package = firmware::package(driver).map(|it| format!(" in {it}"));
            let files = quantity::count(files.len(), "file");
            format!("{driver} ({files}{})", package.unwrap_or_default())
        });
        let drivers: Vec<String> = drivers.collect();
        lines.push(format!("  firmware that is not installed: {}", drivers.join(", ")));
    }
    lines.extend(record.warnings.iter().map(|warning| format!("  warning: {warning}")));
    lines.join("\n")
}

/// What is of interest only to who asks.
fn details(record: &Record) -> String {
    let mut text = format!("\n  from       {}\n  modules:", record.origin);
    for (name, len) in &record.modules {
        text.push_str(&format!("\n    {:>8}  {name}", quantity::bytes(*len)));
    }
    if !record.drivers_absent.is_empty() {
        let absent = record.drivers_absent.join(", ");
        text.push_str(&format!("\n  drivers that this kernel does not have: {absent}"));
    }
    for (driver, files) in &record.firmware_missing {
        text.push_str(&format!("\n  firmware missing for {driver}: {}", files.join(", ")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> LabPublicKey {
        boot::LabKey::from_seed([1; 32]).public()
    }

    #[test]
    fn settings_of_the_lab_are_taken() {
        let mut settings = Settings::for_tests(Path::new("/lab"));
        settings.phase1.modules = vec!["nfs".to_owned()];
        settings.phase1.kernel = Some("6.1.0-9-amd64".to_owned());
        let inputs = lab_inputs(&settings, key()).unwrap();
        assert_eq!(inputs.modules, ["nfs"]);
        assert_eq!(inputs.kernel, KernelChoice::Installed("6.1.0-9-amd64".parse().unwrap()));
    }

    #[test]
    fn a_package_is_named_from_the_lab() {
        let check = |path: &str, expect: &str| {
            let mut settings = Settings::for_tests(Path::new("/lab"));
            settings.phase1.kernel = Some(path.to_owned());
            let kernel = lab_inputs(&settings, key()).unwrap().kernel;
            assert_eq!(kernel, KernelChoice::Package(expect.into()));
        };
        check("linux.deb", "/lab/linux.deb");
        check("/srv/linux.deb", "/srv/linux.deb");
    }

    #[test]
    fn files_that_are_served_stay_whatever_is_built() {
        let dir = tempfile::tempdir().unwrap();
        let built = dir.path().join("vmlinuz");
        let out = dir.path().join("out");
        fs::create_dir(&out).unwrap();
        for content in ["old", "new"] {
            fs::write(&built, content).unwrap();
            let placed = place(&built, &out).unwrap();
            fs::remove_file(&built).unwrap();
            assert_eq!(fs::read_to_string(placed).unwrap(), content);
        }
        assert!(place(&built, &out).is_err());
    }

    #[test]
    fn what_is_no_kernel_is_refused() {
        let mut settings = Settings::for_tests(Path::new("/lab"));
        settings.phase1.kernel = Some("newest".to_owned());
        let text = lab_inputs(&settings, key()).unwrap_err().to_string();
        assert!(text.starts_with("`newest` is no kernel's version"), "{text}");
    }

    #[test]
    fn a_missing_key_says_where_to_go() {
        let text = read_key(Path::new("nowhere/lab.pub")).unwrap_err().to_string();
        assert!(text.contains("run this in a lab, or name it with --key"), "{text}");
    }
}
