//! Trees that somebody else has made: a folder, an archive, a squashfs.

use std::fs;
use std::path::Path;

use super::squash;
use crate::command::{Call, Work};
use crate::error::ImageError;

/// Copies a folder with all that its files have: owners, times, links, attributes, holes.
pub(super) fn directory(from: &Path, tree: &Path, work: &Work<'_>) -> Result<(), ImageError> {
    work.step("copying the folder")?;
    copy(from, tree, work)
}

/// Copies a folder's content to another, which is made; blocks are shared where the file system can.
pub(crate) fn copy(from: &Path, to: &Path, work: &Work<'_>) -> Result<(), ImageError> {
    fs::create_dir_all(to).map_err(ImageError::write(to))?;
    Call::new("cp", "coreutils")
        .args(["--archive", "--reflink=auto", "--no-target-directory", "--one-file-system"])
        .arg(from)
        .arg(to)
        .run(work)?;
    Ok(())
}

/// Unpacks an archive, compressed with whatever GNU tar knows. Owners are taken by number: names mean
/// others here than there.
pub(super) fn tar(file: &Path, tree: &Path, work: &Work<'_>) -> Result<(), ImageError> {
    work.step("unpacking the archive")?;
    fs::create_dir_all(tree).map_err(ImageError::write(tree))?;
    Call::new("tar", "tar")
        .args(["--extract", "--numeric-owner", "--same-permissions", "--xattrs"])
        .args(["--xattrs-include=*", "--acls", "--directory"])
        .arg(tree)
        .arg("--file")
        .arg(file)
        .run(work)?;
    Ok(())
}

/// Unpacks a squashfs. One made for dracut holds a file system in a file, `LiveOS/rootfs.img`, which
/// cannot be taken apart without mounting it.
pub(super) fn squashfs(file: &Path, tree: &Path, work: &Work<'_>) -> Result<(), ImageError> {
    squash::unpack(file, tree, work)?;
    if !tree.join("LiveOS/rootfs.img").exists() {
        return Ok(());
    }
    work.step("copying out of LiveOS/rootfs.img")?;
    let outer = tree.with_extension("outer");
    fs::rename(tree, &outer).map_err(ImageError::write(&outer))?;
    fs::create_dir_all(tree).map_err(ImageError::write(tree))?;
    // Mounted in a namespace that ends with this command, and the loop device with it.
    Call::new("sh", "dash")
        .args(["-euc", "mount -o ro,loop \"$1/LiveOS/rootfs.img\" /mnt; cp -aT /mnt \"$2\"", "sh"])
        .arg(&outer)
        .arg(tree)
        .run(work)?;
    fs::remove_dir_all(&outer).map_err(ImageError::write(&outer))
}
