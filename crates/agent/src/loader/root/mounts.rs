//! The mounts that make a root.

use std::ffi::CString;
use std::io;
use std::net::Ipv4Addr;
use std::path::Path;

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use torrent_io::storage::FileHandle;

use super::{NEW_ROOT, loop_device};
use crate::failed::chain;
use crate::loader::LoadFailure;
use crate::modules;

/// Where the layers are until they are one.
const LOWER: &str = "/run/boottorrent/lower";
const UPPER: &str = "/run/boottorrent/upper";

/// Kernel modules of a root in memory. Those of a root elsewhere.
const MODULES_FILE: [&str; 2] = ["loop", "squashfs"];
const MODULES_MEMORY: [&str; 1] = ["overlay"];
const MODULES_NFS: [&str; 2] = ["nfs", "nfsv4"];

/// The squashfs below, a tmpfs above. The overlay keeps both for itself, so that their own mounts can
/// be taken away: what is not there cannot be in a system's way when it shuts down.
pub(super) fn squashfs_under_overlay(file: &FileHandle) -> Result<(), LoadFailure> {
    load_modules(&MODULES_MEMORY)?;
    for dir in [LOWER, UPPER, NEW_ROOT] {
        std::fs::create_dir_all(dir).map_err(refused(dir))?;
    }
    squashfs(file, Path::new(LOWER))?;
    // Half of the memory at most, as a tmpfs is when nothing is said: the rest is for programs.
    mount("overlay", UPPER, "tmpfs", MountFlags::empty(), Some(c"mode=0755"))
        .map_err(refused("tmpfs"))?;
    let (upper, work) = (format!("{UPPER}/upper"), format!("{UPPER}/work"));
    for dir in [&upper, &work] {
        std::fs::create_dir(dir).map_err(refused(dir))?;
    }
    let data = format!("lowerdir={LOWER},upperdir={upper},workdir={work}");
    let data = CString::new(data).map_err(|error| refused("overlay")(io::Error::other(error)))?;
    mount("overlay", NEW_ROOT, "overlay", MountFlags::empty(), Some(data.as_c_str()))
        .map_err(refused("overlay"))?;
    for dir in [LOWER, UPPER] {
        let _ = unmount(dir, UnmountFlags::DETACH);
        let _ = std::fs::remove_dir(dir);
    }
    Ok(())
}

/// A file that is a squashfs, as a folder that cannot be written to.
pub(super) fn squashfs(file: &FileHandle, target: &Path) -> Result<(), LoadFailure> {
    load_modules(&MODULES_FILE)?;
    let (device, _open) =
        loop_device::attach(file).map_err(refused("the image as a block device"))?;
    mount(&device, target, "squashfs", MountFlags::RDONLY, None).map_err(refused("squashfs"))
}

/// A root that a server has. `own` is the node's address.
pub(super) fn nfs(root: &str, options: &str, own: Option<Ipv4Addr>) -> Result<(), LoadFailure> {
    load_modules(&MODULES_NFS)?;
    std::fs::create_dir_all(NEW_ROOT).map_err(refused(NEW_ROOT))?;
    let (flags, data) = nfs_data(root, options, own);
    let data = CString::new(data).map_err(|error| refused(root)(io::Error::other(error)))?;
    mount(root, NEW_ROOT, "nfs", flags, Some(data.as_c_str())).map_err(refused(root))
}

/// What mount.nfs(8) makes of options for the kernel: what all file systems share becomes flags, and
/// the addresses are filled in.
fn nfs_data(root: &str, options: &str, own: Option<Ipv4Addr>) -> (MountFlags, String) {
    let mut flags = MountFlags::empty();
    let mut words: Vec<String> = vec![];
    for option in options.split(',').map(str::trim).filter(|option| !option.is_empty()) {
        match option {
            "rw" | "defaults" | "suid" | "dev" | "exec" | "async" | "_netdev" => {}
            "ro" => flags |= MountFlags::RDONLY,
            "noatime" => flags |= MountFlags::NOATIME,
            "nodiratime" => flags |= MountFlags::NODIRATIME,
            "relatime" => flags |= MountFlags::RELATIME,
            "sync" => flags |= MountFlags::SYNCHRONOUS,
            other => words.push(other.to_owned()),
        }
    }
    if !words.iter().any(|word| word.starts_with("vers=") || word.starts_with("nfsvers=")) {
        words.insert(0, "vers=4.2".to_owned());
    }
    let server = root.split(':').next().unwrap_or_default();
    words.push(format!("addr={server}"));
    words.extend(own.map(|own| format!("clientaddr={own}")));
    (flags, words.join(","))
}

/// Takes back what a mount that failed has left.
pub(super) fn take_back() {
    for dir in [NEW_ROOT, UPPER, LOWER] {
        // Not everything was mounted.
        while unmount(dir, UnmountFlags::DETACH).is_ok() {}
    }
}

/// Modules that a kernel has built in are not found, and nobody misses them: the mount tells.
fn load_modules(names: &[&str]) -> Result<(), LoadFailure> {
    for name in names {
        match modules::load(Path::new("/"), name) {
            Ok(summary) => tracing::debug!(module = name, %summary, "loaded"),
            Err(error) => tracing::info!(module = name, error = %chain(&error), "not loaded"),
        }
    }
    Ok(())
}

fn refused<E: Into<io::Error>>(what: &str) -> impl FnOnce(E) -> LoadFailure {
    let what = what.to_owned();
    move |source| LoadFailure::Root { what, source: source.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_written_as_the_kernel_wants_them() {
        let own = Some(Ipv4Addr::new(10, 0, 0, 50));
        let check = |options, own, flags, expect: &str| {
            assert_eq!(nfs_data("10.0.0.1:/srv", options, own), (flags, expect.to_owned()));
        };
        let none = MountFlags::empty();
        check("vers=4.2,rw", own, none, "vers=4.2,addr=10.0.0.1,clientaddr=10.0.0.50");
        check("", None, none, "vers=4.2,addr=10.0.0.1");
        let flags = MountFlags::RDONLY | MountFlags::NOATIME;
        check("ro,noatime,hard", None, flags, "vers=4.2,hard,addr=10.0.0.1");
    }
}
