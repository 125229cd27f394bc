//! The Debian package.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};

use super::{Source, contents, output};
use crate::{e2e, root};

/// What the programs and phase 1 need on the server. `libc6` and `libgcc-s1` are Debian 12's, where
/// the package is built.
const DEPENDS: &str = "libc6 (>= 2.36), libgcc-s1, systemd | systemd-standalone-sysusers, \
                       ipxe, busybox-static";

/// A kernel for phase 1, unless one is installed anyway, and the other boot program.
const RECOMMENDS: &str = "linux-image-amd64, pxelinux, syslinux-common";

/// The packages of both, of alternatives the first.
pub(super) fn needs() -> impl Iterator<Item = &'static str> {
    [DEPENDS, RECOMMENDS]
        .into_iter()
        .flat_map(|list| list.split(','))
        .filter_map(|alternatives| alternatives.split_whitespace().next())
}

const SCRIPTS: &[&str] = &["postinst", "prerm", "postrm"];

/// Makes the package of a tree in a folder.
pub(super) fn pack(tree: &Path, dir: &Path, source: &Source) -> Result<PathBuf> {
    let work = dir.join("deb");
    e2e::fresh(&work)?;
    output(Command::new("cp").args(["-a", "--"]).arg(tree.join("usr")).arg(&work))?;
    for script in SCRIPTS {
        let to = work.join("DEBIAN").join(script);
        contents::install(&root().join("packaging").join(script), &to, 0o755)?;
    }
    let control = control(tree, source)?;
    contents::write(&work.join("DEBIAN/control"), control.as_bytes(), 0o644)?;
    let package = dir.join(format!("boottorrent_{}_amd64.deb", source.version));
    let mut command = Command::new("dpkg-deb");
    command.args(["--root-owner-group", "-Zzstd", "-z10", "--build"]).arg(&work).arg(&package);
    // Every file of the tree is newer than the commit, and dpkg-deb cuts times off at this one.
    output(command.env("SOURCE_DATE_EPOCH", &source.time))?;
    Ok(package)
}

fn control(tree: &Path, source: &Source) -> Result<String> {
    let version = source.version;
    let mut size = 0;
    for file in contents::files_below(tree)? {
        size += std::fs::metadata(file)?.len();
    }
    // Policy 5.6.20: KiB, rounded up.
    let size = size.div_ceil(1024);
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

/// Unpacks the package and asks the program in it for its version.
pub(super) fn try_out(package: &Path, to: &Path) -> Result<()> {
    output(Command::new("dpkg-deb").arg("-x").arg(package).arg(to))?;
    let said = output(Command::new(to.join("usr/bin/boottorrent")).arg("version"))?;
    let version = env!("CARGO_PKG_VERSION");
    ensure!(said.contains(version), "the program in the package says {:?}", said.trim());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_need_is_the_first_of_its_alternatives_without_a_version() {
        let needs: Vec<_> = needs().collect();
        assert_eq!(needs[..3], ["libc6", "libgcc-s1", "systemd"]);
        assert!(needs.contains(&"linux-image-amd64"), "{needs:?}");
    }
}
