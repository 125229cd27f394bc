//! The package for Fedora and Red Hat Enterprise Linux 9 and their kin, made by rpmbuild as Debian has it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::{Source, contents, output};
use crate::e2e;

/// The newest symbols of the C library that the program uses are 2.34's, which is in Red Hat
/// Enterprise Linux 9. rpmbuild would find that out by programs that Debian's lacks.
const REQUIRES: &[&str] = &["glibc >= 2.34", "libgcc", "systemd", "util-linux"];

/// What phase 1 is made of, unless the lab brings its own.
const RECOMMENDS: &[&str] = &["ipxe-bootimgs-x86", "busybox", "kernel-core", "syslinux-nonlinux"];

/// rpmbuild's own habits: what would differ from run to run, or change the programs.
const MACROS: &[&str] = &[
    "debug_package %{nil}",
    "__os_install_post %{nil}",
    "_build_id_links none",
    "_buildhost localhost",
    "use_source_date_epoch_as_buildtime 1",
    "clamp_mtime_to_source_date_epoch 1",
    "_binary_payload w10.zstdio",
];

/// `$1` is how many versions are installed after the step.
const SCRIPTS: &str = r#"
%post
/usr/lib/boottorrent/default-lab
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload
    # After an upgrade: nodes in mid-download go on with what their neighbours have.
    systemctl try-restart boottorrent.service
fi

%preun
if [ "$1" = 0 ]; then
    if [ -d /run/systemd/system ]; then
        systemctl stop boottorrent.service
    fi
    systemctl --no-reload disable boottorrent.service
fi

%postun
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload
fi
"#;

/// Makes the package of a tree in a folder.
pub(super) fn pack(tree: &Path, dir: &Path, source: &Source) -> Result<PathBuf> {
    let work = dir.join("rpm");
    e2e::fresh(&work)?;
    let spec = work.join("boottorrent.spec");
    std::fs::write(&spec, text(tree, source)?)
        .with_context(|| format!("writing {}", spec.display()))?;
    let mut command = Command::new("rpmbuild");
    command.args(["-bb", "--quiet", "--target", "x86_64-linux"]);
    command.arg("--define").arg(format!("_topdir {}", work.display()));
    for define in MACROS {
        command.arg("--define").arg(define);
    }
    output(command.arg(&spec).env("SOURCE_DATE_EPOCH", &source.time))?;
    let name = format!("boottorrent-{}-1.x86_64.rpm", source.version);
    let package = dir.join(&name);
    std::fs::rename(work.join("RPMS/x86_64").join(&name), &package)
        .with_context(|| format!("rpmbuild made no {name}"))?;
    std::fs::remove_dir_all(&work).with_context(|| format!("removing {}", work.display()))?;
    Ok(package)
}

fn text(tree: &Path, source: &Source) -> Result<String> {
    let mut needs = String::new();
    for (tag, names) in [("Requires", REQUIRES), ("Recommends", RECOMMENDS)] {
        for name in names {
            needs.push_str(&format!("{tag}: {name}\n"));
        }
    }
    let mut files = String::new();
    for file in contents::files_below(tree)? {
        files.push_str(&format!("/{}\n", file.strip_prefix(tree)?.display()));
    }
    Ok(format!(
        "Name: boottorrent\nVersion: {}\nRelease: 1\n\
         Summary: Boots a room of diskless computers from one small server\n\
         License: MIT OR Apache-2.0\nAutoReqProv: no\n{needs}\
         %description\n\
         DHCP and proxyDHCP, TFTP, HTTP, tracker and seed in one program: nodes start by PXE and\n\
         take their image from one another, verified against the signature of the lab.\n\
         %install\ncp -a {}/usr %{{buildroot}}\n{SCRIPTS}\n\
         %files\n%defattr(-,root,root)\n%dir /usr/lib/boottorrent\n{files}",
        source.version,
        tree.display(),
    ))
}
