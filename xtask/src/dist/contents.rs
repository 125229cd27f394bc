//! What is installed, whatever the kind of package.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::output;
use crate::{release_binary, root, target_dir};

const DOC: &str = "usr/share/doc/boottorrent";

/// Files copied as they are: from, to, mode.
const FILES: &[(&str, &str, u32)] = &[
    ("packaging/boottorrent.service", "usr/lib/systemd/system/boottorrent.service", 0o644),
    ("packaging/boottorrent.sysusers", "usr/lib/sysusers.d/boottorrent.conf", 0o644),
    ("packaging/default-lab", "usr/lib/boottorrent/default-lab", 0o755),
    ("packaging/grafana.json", "usr/share/doc/boottorrent/grafana.json", 0o644),
    ("packaging/copyright", "usr/share/doc/boottorrent/copyright", 0o644),
    ("LICENSE-MIT", "usr/share/doc/boottorrent/LICENSE-MIT", 0o644),
    ("LICENSE-APACHE", "usr/share/doc/boottorrent/LICENSE-APACHE", 0o644),
    ("README.md", "usr/share/doc/boottorrent/README.md", 0o644),
    ("CHANGELOG.md", "usr/share/doc/boottorrent/CHANGELOG.md", 0o644),
];

/// Both families of distributions look for zsh's in a place of their own, and know the other's not.
pub(super) const COMPLETIONS: &[(&str, &str)] = &[
    ("bash", "usr/share/bash-completion/completions/boottorrent"),
    ("zsh", "usr/share/zsh/vendor-completions/_boottorrent"),
    ("zsh", "usr/share/zsh/site-functions/_boottorrent"),
    ("fish", "usr/share/fish/vendor_completions.d/boottorrent.fish"),
];

/// Lays out what a package will install.
pub(super) fn fill(tree: &Path) -> Result<()> {
    for (from, to, mode) in FILES {
        install(&root().join(from), &tree.join(to), *mode)?;
    }
    install(&release_binary()?, &tree.join("usr/bin/boottorrent"), 0o755)?;
    let agent = target_dir().join("release/boottorrent-agent");
    install(&agent, &tree.join("usr/lib/boottorrent/boottorrent-agent"), 0o755)?;
    let docs = root().join("docs");
    for path in files_below(&docs)? {
        let to = tree.join(DOC).join(path.strip_prefix(&docs)?);
        install(&path, &to, 0o644)?;
    }
    for (shell, to) in COMPLETIONS {
        let script = output(Command::new(release_binary()?).args(["completions", shell]))?;
        write(&tree.join(to), script.as_bytes(), 0o644)?;
    }
    let man = tree.join("usr/share/man/man1");
    std::fs::create_dir_all(&man).with_context(|| format!("creating {}", man.display()))?;
    output(Command::new(release_binary()?).arg("man").arg(&man))?;
    compress_all(&man)
}

/// Without time and name in the header, so that the same page gives the same bytes.
fn compress_all(dir: &Path) -> Result<()> {
    let pages = files_below(dir)?;
    ensure!(!pages.is_empty(), "boottorrent man wrote no page");
    output(Command::new("gzip").args(["-9", "-n"]).args(pages)).map(drop)
}

/// All files, in the order of their paths.
pub(super) fn files_below(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut files = vec![];
    for entry in std::fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(files_below(&path)?);
        } else {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

pub(super) fn install(from: &Path, to: &Path, mode: u32) -> Result<()> {
    let bytes = std::fs::read(from).with_context(|| format!("reading {}", from.display()))?;
    write(to, &bytes, mode)
}

pub(super) fn write(to: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = to.parent().context("a file in no folder")?;
    std::fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
    std::fs::write(to, bytes).with_context(|| format!("writing {}", to.display()))?;
    std::fs::set_permissions(to, std::fs::Permissions::from_mode(mode))
        .with_context(|| format!("chmod {}", to.display()))
}
