//! Trees that somebody else has made: a folder, an archive, a squashfs.

use std::os::fd::OwnedFd;
use std::path::Path;

use super::root::Tree;
use super::squash;
use crate::command::{Call, Work};
use crate::error::ImageError;
use crate::host;

/// The folder of what dracut boots, in a squashfs made for it, and the file system there, which is a file.
const LIVE: (&str, &str) = ("LiveOS", "rootfs.img");

/// The file systems that live images have in such a file; ext4's driver reads ext2 and ext3, too. A file that
/// asks for another driver gets none: not each of them was written with strangers in mind.
const FILE_SYSTEMS: &str = "squashfs,ext4,xfs,erofs";

/// Nothing of it runs, no device of it is one, and no link in it leads anywhere.
const MOUNT_OPTIONS: &str = "ro,loop,nosuid,nodev,noexec,nosymfollow";

/// Copies a folder with all that its files have: owners, times, links, attributes, holes.
pub(super) fn directory(from: &Path, tree: &Tree, work: &Work<'_>) -> Result<(), ImageError> {
    work.step("copying the folder")?;
    copy(Tree::new(from).root()?.folder(".")?, tree, work)
}

/// Copies a folder's content to a tree, which is made; blocks are shared where the file system can.
pub(crate) fn copy(from: OwnedFd, tree: &Tree, work: &Work<'_>) -> Result<(), ImageError> {
    make(tree)?;
    copy_into(from, tree.root()?.folder(".")?, ".", work)
}

/// Copies a folder's content to one of another folder. Links are copied as they are.
pub(crate) fn copy_into(
    from: OwnedFd,
    folder: OwnedFd,
    name: &str,
    work: &Work<'_>,
) -> Result<(), ImageError> {
    Call::new("cp", "coreutils")
        .args(["--archive", "--reflink=auto", "--no-target-directory", "--one-file-system"])
        .stdin(from.into())
        .within(folder)
        .args(["/proc/self/fd/0/.", name])
        .run(work)?;
    Ok(())
}

fn make(tree: &Tree) -> Result<(), ImageError> {
    host::create_dir_all(tree.whole()).map_err(ImageError::write(tree.whole()))
}

/// Unpacks an archive, compressed with whatever GNU tar knows. Owners are taken by number: names mean
/// others here than there. (tar itself lets no name and no link of the archive lead out of the folder.)
pub(super) fn tar(file: &Path, tree: &Tree, work: &Work<'_>) -> Result<(), ImageError> {
    work.step("unpacking the archive")?;
    make(tree)?;
    Call::new("tar", "tar")
        .args(["--extract", "--numeric-owner", "--same-permissions", "--xattrs"])
        .args(["--xattrs-include=*", "--acls", "--directory"])
        .arg(tree.whole())
        .arg("--file")
        .arg(file)
        .run(work)?;
    Ok(())
}

/// Unpacks a squashfs. One made for dracut holds a file system in a file, `LiveOS/rootfs.img`, which
/// cannot be taken apart without mounting it.
pub(super) fn squashfs(file: &Path, tree: &Tree, work: &Work<'_>) -> Result<(), ImageError> {
    squash::unpack(host::open(file).map_err(ImageError::read(file))?, tree, work)?;
    live_root(tree, work)
}

/// Takes the tree out of the file system that is in it, if there is one.
fn live_root(tree: &Tree, work: &Work<'_>) -> Result<(), ImageError> {
    let (folder, name) = LIVE;
    if tree.root()?.plain_file(Path::new(folder).join(name))?.is_none() {
        return Ok(());
    }
    work.step("copying out of LiveOS/rootfs.img")?;
    let outer = tree.beside("outer");
    host::rename(tree.whole(), outer.whole()).map_err(ImageError::write(outer.whole()))?;
    make(tree)?;
    // Out of the tree it is one of this machine's own files, which nothing in the tree can be taken for.
    let image = tree.beside("rootfs");
    outer.root()?.move_out(folder, name, image.whole())?;
    host::remove_dir_all(outer.whole()).map_err(ImageError::write(outer.whole()))?;
    // Mounted in a namespace that ends with this command, and the loop device with it.
    let script = "mount -t \"$3\" -o \"$4\" \"$1\" /mnt; cp -a --one-file-system -T /mnt \"$2\"";
    Call::new("sh", "dash")
        .args(["-euc", script, "sh"])
        .arg(image.whole())
        .arg(tree.whole())
        .args([FILE_SYSTEMS, MOUNT_OPTIONS])
        .run(work)?;
    host::remove_file(image.whole()).map_err(ImageError::write(image.whole()))
}

#[cfg(test)]
mod tests;
