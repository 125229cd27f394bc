//! Editing an image by hand: its tree is laid open under `state/images/NAME/mount/`, with `/proc`,
//! `/sys` and `/dev` bound into it, for a shell in a chroot or for Ansible; then it is packed again
//! beside what nodes boot, and takes its place.
//!
//! These mounts outlive the command on purpose, so nothing here is in a namespace of its own.

use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use rustix::mount::{MountPropagationFlags, UnmountFlags};

use crate::build;
use crate::catalogue::{Catalogue, Purpose, mounts_below, remove_tree};
use crate::command::Work;
use crate::error::ImageError;
use crate::host;
use crate::kind::{livenet, nfs};
use crate::tree::root::Tree;
use crate::tree::squash;

/// What programs in a chroot expect of a running system.
const BOUND: [&str; 3] = ["proc", "sys", "dev"];

/// An image that is laid open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mounted {
    /// Its tree.
    pub root: PathBuf,
    /// The inventory for Ansible.
    pub inventory: PathBuf,
}

fn folder(catalogue: &Catalogue, name: &str) -> PathBuf {
    catalogue.belongings(name).join("mount")
}

/// The image as it is laid open, if it is.
pub fn mounted(catalogue: &Catalogue, name: &str) -> Option<Mounted> {
    let hosts = folder(catalogue, name).join("inventory/host");
    let text = host::read_to_string(&hosts).ok()?;
    let root = text.strip_suffix(" ansible_connection=chroot\n")?;
    Some(Mounted { root: root.into(), inventory: hosts })
}

/// Refuses an image that is laid open.
///
/// # Errors
/// If it is.
pub fn refuse_mounted(catalogue: &Catalogue, name: &str) -> Result<(), ImageError> {
    match mounted(catalogue, name) {
        None => Ok(()),
        Some(mounted) => Err(ImageError::Wrong(format!(
            "`{name}` is mounted at {}: run `boottorrent image unmount {name}` first",
            mounted.root.display()
        ))),
    }
}

/// Lays an image open, if it is not yet.
///
/// # Errors
/// If there is no such image, its kind has no tree, or something cannot be mounted.
pub fn mount(catalogue: &Catalogue, name: &str, work: &Work<'_>) -> Result<Mounted, ImageError> {
    crate::command::need_root("mounting")?;
    let data = catalogue.data(name)?;
    if let Some(mounted) = mounted(catalogue, name) {
        // Perhaps the machine was started anew since.
        bind(&mounted.root)?;
        return Ok(mounted);
    }
    let dir = folder(catalogue, name);
    let root = match data.image_class.as_str() {
        "LivenetImage" => dir.join("root"),
        "NfsStagingImage" => nfs::staging_tree(catalogue.lab(), name),
        "NfsGoldenImage" => nfs::golden_tree(catalogue.lab(), name),
        _ => return Err(ImageError::Wrong(format!("`{name}` has no tree to be mounted"))),
    };
    let build = catalogue.begin(name, &data.image_class, Purpose::Change)?;
    if data.image_class == "LivenetImage" {
        let tree = Tree::new(build.scratch("tree"));
        let size = data.attributes.get(build::CONTENT_MB).and_then(|it| it.parse::<u64>().ok());
        catalogue.need_space(size.unwrap_or(1024) << 20)?;
        squash::unpack(livenet::packed(catalogue, name)?, &tree, work)?;
        remove_tree(&dir)?;
        host::create_closed_dir(&dir).map_err(ImageError::write(&dir))?;
        host::rename(tree.whole(), &root).map_err(ImageError::write(&root))?;
    }
    drop(build);
    bind(&root)?;
    let hosts = dir.join("inventory/host");
    let text = format!("{} ansible_connection=chroot\n", root.display());
    host::create_closed_dir(&dir.join("inventory"))
        .and_then(|()| host::write(&hosts, text))
        .map_err(ImageError::write(&hosts))?;
    Ok(Mounted { root, inventory: hosts })
}

/// Binds what is not yet bound. What happens to the copies must not happen to the machine's own.
fn bind(root: &Path) -> Result<(), ImageError> {
    let there = mounts_below(root);
    let tree = Tree::new(root).root()?;
    for name in BOUND {
        let to = tree.shown(name);
        if there.contains(&to) {
            continue;
        }
        let refuse = |error: rustix::io::Errno| ImageError::write(&to)(error.into());
        if !tree.has(name) {
            tree.make_dir(name, 0o755)?;
        }
        // Through a link the machine's own folder would be mounted over.
        let Some(place) = tree.plain_folder(name) else {
            let message = "is no folder, and is not mounted over: make it one in the image";
            return Err(ImageError::Data { file: to.clone(), message: message.to_owned() });
        };
        let at = format!("/proc/self/fd/{}", place.as_raw_fd());
        rustix::mount::mount_bind_recursive(Path::new("/").join(name), &at).map_err(refuse)?;
        let downstream = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
        // The name leads to what is mounted now, the folder that was opened to what is below it.
        rustix::mount::mount_change(&to, downstream).map_err(refuse)?;
    }
    let resolver = tree.shown("etc/resolv.conf");
    if !there.contains(&resolver)
        && let Some(place) = tree.plain_place("etc/resolv.conf")
    {
        // Package managers in there want names resolved; the image's own file stays as it is.
        rustix::mount::mount_bind(
            "/etc/resolv.conf",
            format!("/proc/self/fd/{}", place.as_raw_fd()),
        )
        .map_err(|error| ImageError::write(&resolver)(error.into()))?;
    }
    Ok(())
}

/// Closes an image that was laid open: what was changed becomes a version, whose number this returns,
/// unless it shall be thrown away. Nothing is removed before the new version is whole.
///
/// # Errors
/// If it is not open, something in it is in use, or the version cannot be made.
pub fn unmount(
    catalogue: &Catalogue,
    name: &str,
    discard: bool,
    work: &Work<'_>,
) -> Result<Option<u32>, ImageError> {
    crate::command::need_root("unmounting")?;
    let data = catalogue.data(name)?;
    let Some(Mounted { root, .. }) = mounted(catalogue, name) else {
        return Err(ImageError::Wrong(format!("`{name}` is not mounted")));
    };
    for mount in mounts_below(&root) {
        rustix::mount::unmount(&mount, UnmountFlags::NOFOLLOW).map_err(|error| {
            ImageError::Wrong(format!(
                "cannot unmount {}: {error}; end what uses it (`fuser -vm {}`), nothing was removed",
                mount.display(),
                root.display()
            ))
        })?;
    }
    let version = match data.image_class.as_str() {
        "LivenetImage" if !discard => {
            Some(build::publish_tree(catalogue, name, &Tree::new(&root), work)?)
        }
        _ => None,
    };
    remove_tree(&folder(catalogue, name))?;
    Ok(version)
}
