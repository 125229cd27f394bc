//! `cargo xtask dist`: the Debian package, made with dpkg-deb alone. The same commit gives the same
//! bytes; the package is unpacked and its program run before it is called done.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use sha2::{Digest as _, Sha256};

use crate::bench::hex;
use crate::{artifact, e2e, release_binary, root, setup, target_dir};

const TOOLS: &[setup::Tool] = &[setup::DPKG_DEB, setup::GIT, setup::GZIP];

/// What the programs and phase 1 need on the server. `libc6` and `libgcc-s1` are Debian 12's, where
/// the package is built.
const DEPENDS: &str = "libc6 (>= 2.36), libgcc-s1, systemd | systemd-standalone-sysusers, \
                       ipxe, busybox-static";

/// A kernel for phase 1, unless one is installed anyway, and the other boot program.
const RECOMMENDS: &str = "linux-image-amd64, pxelinux, syslinux-common";

/// Files copied as they are: from, to, mode.
const FILES: &[(&str, &str, u32)] = &[
    ("packaging/boottorrent.service", "usr/lib/systemd/system/boottorrent.service", 0o644),
    ("packaging/boottorrent.sysusers", "usr/lib/sysusers.d/boottorrent.conf", 0o644),
    ("packaging/grafana.json", "usr/share/doc/boottorrent/grafana.json", 0o644),
    ("packaging/copyright", "usr/share/doc/boottorrent/copyright", 0o644),
    ("packaging/postinst", "DEBIAN/postinst", 0o755),
    ("packaging/prerm", "DEBIAN/prerm", 0o755),
    ("LICENSE-MIT", "usr/share/doc/boottorrent/LICENSE-MIT", 0o644),
    ("LICENSE-APACHE", "usr/share/doc/boottorrent/LICENSE-APACHE", 0o644),
    ("README.md", "usr/share/doc/boottorrent/README.md", 0o644),
    ("CHANGELOG.md", "usr/share/doc/boottorrent/CHANGELOG.md", 0o644),
];

const COMPLETIONS: &[(&str, &str)] = &[
    ("bash", "usr/share/bash-completion/completions/boottorrent"),
    ("zsh", "usr/share/zsh/vendor-completions/_boottorrent"),
    ("fish", "usr/share/fish/vendor_completions.d/boottorrent.fish"),
];

#[derive(Args, Default)]
pub(crate) struct DistArgs {
    /// Take the programs in target/release as they are
    #[arg(long)]
    no_build: bool,
}

/// Builds the package, twice, and tries it.
pub(crate) fn run(args: &DistArgs) -> Result<()> {
    setup::install(TOOLS)?;
    if !args.no_build {
        artifact::build_all()?;
    }
    let dir = target_dir().join("dist");
    e2e::fresh(&dir)?;
    let tree = dir.join("tree");
    fill(&tree)?;
    let name = format!("boottorrent_{}_amd64.deb", env!("CARGO_PKG_VERSION"));
    let package = pack(&tree, &dir.join(&name))?;
    let again = pack(&tree, &dir.join("again.deb"))?;
    ensure!(sha256_of(&package)? == sha256_of(&again)?, "two packages of one tree differ");
    std::fs::remove_file(&again).context("removing the second package")?;
    try_out(&package, &dir.join("root"))?;
    let len = std::fs::metadata(&package)?.len();
    println!("{} ({:.1} MB) {}", package.display(), len as f64 / 1e6, sha256_of(&package)?);
    Ok(())
}

/// Lays out what the package will install.
fn fill(tree: &Path) -> Result<()> {
    for (from, to, mode) in FILES {
        install(&root().join(from), &tree.join(to), *mode)?;
    }
    install(&release_binary()?, &tree.join("usr/bin/boottorrent"), 0o755)?;
    let agent = target_dir().join("release/boottorrent-agent");
    install(&agent, &tree.join("usr/lib/boottorrent/boottorrent-agent"), 0o755)?;
    let docs = root().join("docs");
    for entry in std::fs::read_dir(&docs).context("reading docs")? {
        let path = entry?.path();
        let name = path.file_name().context("a file without a name")?.to_owned();
        install(&path, &tree.join("usr/share/doc/boottorrent").join(name), 0o644)?;
    }
    for (shell, to) in COMPLETIONS {
        write(&tree.join(to), &ours(&["completions", shell])?, 0o644)?;
    }
    let man = tree.join("usr/share/man/man1");
    std::fs::create_dir_all(&man).with_context(|| format!("creating {}", man.display()))?;
    ours(&["man", &man.display().to_string()])?;
    compress_all(&man)?;
    write(&tree.join("DEBIAN/control"), control(tree)?.as_bytes(), 0o644)
}

fn control(tree: &Path) -> Result<String> {
    let version = env!("CARGO_PKG_VERSION");
    // Policy 5.6.20: KiB, rounded up.
    let size = size_of(tree)?.div_ceil(1024);
    Ok(format!(
        "Package: boottorrent\n\
         Version: {version}\n\
         Architecture: amd64\n\
         Maintainer: The BootTorrent authors <boottorrent@localhost>\n\
         Installed-Size: {size}\n\
         Section: net\n\
         Priority: optional\n\
         Depends: {DEPENDS}\n\
         Recommends: {RECOMMENDS}\n\
         Description: boots a room of diskless computers from one small server\n \
         DHCP and proxyDHCP, TFTP, HTTP, tracker and seed in one program: nodes start by PXE and\n \
         take their image from one another, verified against the signature of the lab.\n"
    ))
}

/// Our program's output.
fn ours(args: &[&str]) -> Result<Vec<u8>> {
    let out = Command::new(release_binary()?)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .context("running boottorrent")?;
    let stderr = String::from_utf8_lossy(&out.stderr);
    ensure!(out.status.success(), "boottorrent {}: {}", args.join(" "), stderr.trim());
    Ok(out.stdout)
}

/// Without time and name in the header, so that the same page gives the same bytes.
fn compress_all(dir: &Path) -> Result<()> {
    let mut gzip = Command::new("gzip");
    gzip.args(["-9", "-n"]);
    let mut page_count = 0;
    for entry in std::fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))? {
        gzip.arg(entry?.path());
        page_count += 1;
    }
    ensure!(page_count > 0, "boottorrent man wrote no page");
    let status = gzip.status().context("running gzip")?;
    ensure!(status.success(), "gzip: {status}");
    Ok(())
}

fn pack(tree: &Path, to: &Path) -> Result<PathBuf> {
    let mut command = Command::new("dpkg-deb");
    command.args(["--root-owner-group", "-Zxz", "--build"]).arg(tree).arg(to);
    // Every file of the tree is newer than the commit, and dpkg-deb cuts times off at this one.
    command.env("SOURCE_DATE_EPOCH", commit_time()?).stdin(Stdio::null()).stdout(Stdio::null());
    let status = command.status().context("running dpkg-deb")?;
    ensure!(status.success(), "dpkg-deb: {status}");
    Ok(to.to_owned())
}

/// Seconds since 1970 of the commit.
fn commit_time() -> Result<String> {
    let out = Command::new("git")
        .args(["-c", "safe.directory=*", "log", "-1", "--format=%ct"])
        .current_dir(root())
        .output()
        .context("running git")?;
    ensure!(out.status.success(), "git log: {}", String::from_utf8_lossy(&out.stderr).trim());
    Ok(String::from_utf8_lossy(&out.stdout).trim().to_owned())
}

/// Unpacks the package and asks the program in it for its version.
fn try_out(package: &Path, to: &Path) -> Result<()> {
    let status = Command::new("dpkg-deb").arg("-x").arg(package).arg(to).status()?;
    ensure!(status.success(), "dpkg-deb -x: {status}");
    let program = to.join("usr/bin/boottorrent");
    let out = Command::new(&program).arg("version").output().context("running it")?;
    let said = String::from_utf8_lossy(&out.stdout);
    ensure!(
        out.status.success() && said.contains(env!("CARGO_PKG_VERSION")),
        "{} says {:?}",
        program.display(),
        said.trim()
    );
    for path in ["usr/lib/boottorrent/boottorrent-agent", "usr/share/man/man1/boottorrent.1.gz"] {
        ensure!(to.join(path).exists(), "the package lacks {path}");
    }
    Ok(())
}

fn install(from: &Path, to: &Path, mode: u32) -> Result<()> {
    let bytes = std::fs::read(from).with_context(|| format!("reading {}", from.display()))?;
    write(to, &bytes, mode)
}

fn write(to: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = to.parent().context("a file in no folder")?;
    std::fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
    std::fs::write(to, bytes).with_context(|| format!("writing {}", to.display()))?;
    std::fs::set_permissions(to, std::fs::Permissions::from_mode(mode))
        .with_context(|| format!("chmod {}", to.display()))
}

/// Bytes of all files beneath.
fn size_of(dir: &Path) -> Result<u64> {
    let mut size = 0;
    for entry in std::fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))? {
        let entry = entry?;
        let meta = entry.metadata()?;
        size += if meta.is_dir() { size_of(&entry.path())? } else { meta.len() };
    }
    Ok(size)
}

fn sha256_of(path: &Path) -> Result<String> {
    let bytes = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    Ok(hex(&Sha256::digest(&bytes)))
}
