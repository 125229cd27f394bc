//! `cargo xtask dist`: packages of one content for Debian and for Red Hat's kin, made by dpkg-deb and
//! rpmbuild. The same commit gives the same bytes. `--install` also installs them in clean systems
//! (the one in each Debian that the server runs on), starts the server as its service, and removes
//! them again.

mod contents;
mod deb;
mod installed;
mod machine;
mod rpm;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use sha2::{Digest as _, Sha256};

use crate::bench::hex;
use crate::{artifact, e2e, root, setup, target_dir};

const TOOLS: &[setup::Tool] = &[setup::DPKG_DEB, setup::GIT, setup::GZIP, setup::RPMBUILD];

#[derive(Args, Default)]
pub(crate) struct DistArgs {
    /// Take the programs in target/release as they are
    #[arg(long)]
    pub(crate) no_build: bool,
    /// Install the packages in clean systems of their own and start the server (root)
    #[arg(long)]
    pub(crate) install: bool,
}

/// Builds the packages, each twice, and tries them.
pub(crate) fn run(args: &DistArgs) -> Result<()> {
    let more = if args.install { machine::TOOLS } else { &[] };
    setup::install(&[TOOLS, more].concat())?;
    if !args.no_build {
        artifact::build_all()?;
    }
    let dir = target_dir().join("dist");
    e2e::fresh(&dir)?;
    let dir = std::path::absolute(&dir)?;
    let tree = dir.join("tree");
    contents::fill(&tree)?;
    let deb = twice(&tree, &dir, deb::pack)?;
    deb::try_out(&deb, &dir.join("root"))?;
    let rpm = twice(&tree, &dir, rpm::pack)?;
    if args.install {
        installed::check_all(&deb, &rpm)?;
    }
    Ok(())
}

/// A package, made twice to see that it is the same, and named on standard output.
fn twice(
    tree: &Path,
    dir: &Path,
    pack: fn(&Path, &Path, &Source) -> Result<PathBuf>,
) -> Result<PathBuf> {
    let source = Source::of_commit()?;
    let again = pack(tree, &dir.join("again"), &source)?;
    let package = pack(tree, dir, &source)?;
    ensure!(sha256_of(&package)? == sha256_of(&again)?, "two packages of one tree differ");
    std::fs::remove_dir_all(dir.join("again")).context("removing the second package")?;
    let len = std::fs::metadata(&package)?.len();
    println!("{} ({:.1} MB) {}", package.display(), len as f64 / 1e6, sha256_of(&package)?);
    Ok(package)
}

/// What a package says of where it comes from.
struct Source {
    version: &'static str,
    /// Seconds since 1970 of the commit: the time of all files.
    time: String,
}

impl Source {
    fn of_commit() -> Result<Self> {
        let out = Command::new("git")
            .args(["-c", "safe.directory=*", "log", "-1", "--format=%ct"])
            .current_dir(root())
            .output()
            .context("running git")?;
        ensure!(out.status.success(), "git log: {}", String::from_utf8_lossy(&out.stderr).trim());
        let time = String::from_utf8_lossy(&out.stdout).trim().to_owned();
        Ok(Self { version: env!("CARGO_PKG_VERSION"), time })
    }
}

/// Runs a command to its end; its output, or an error with what it said.
fn output(command: &mut Command) -> Result<String> {
    let out =
        command.stdin(Stdio::null()).output().with_context(|| format!("running {command:?}"))?;
    let (stdout, stderr) =
        (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    ensure!(out.status.success(), "{command:?}: {}\n{stdout}{stderr}", out.status);
    Ok(stdout.into_owned())
}

fn sha256_of(path: &Path) -> Result<String> {
    let bytes = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    Ok(hex(&Sha256::digest(&bytes)))
}
